"""What became of each value of a message: every one has one fate, and the fates are true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import hl7v2
from gateway.adapter import Adapter, Message, Resource, load
from gateway.errors import Category, GatewayError
from gateway.hl7v2.accounting import KINDS, Account, Fate, account, leaves_of
from gateway.hl7v2.differing import differing, folded, grouped
from gateway.hl7v2.tracing import Reads, rebuilt, traced
from gateway.hl7v2.trying import Edit, Trial, _patterns
from gateway.source import Change, Conversion, Remark

ROOT = Path(__file__).parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "hl7v2"
ADAPTERS = {path.name: load(path) for path in (ROOT / "adapters").iterdir() if (path / "manifest.toml").exists()}
EXAMPLES = sorted((ROOT / "adapters").glob("*/examples/*.hl7"))
GENERIC = ADAPTERS["generic"]

ORU = ("MSH|^~\\&|LIS|H1|HUREN|X|20240501093000||ORU^R01^ORU_R01|M1|P|2.5.1\r"
       "PID|1||P1^^^H1^MR~110105194912310021^^^CN^NNCHN||Wang^Fang^^^^^L||19491231|F|||Road 1^^Town\r"
       "PV1|1|I|W1^R2^B3||||D7^Li^Na\r"
       "OBR|1|O1|F1|GLU^Glucose^L|||20240501080000|||||||20240501081500|SER^Serum^L|||||||20240501092500||CH|F\r"
       "OBX|1|NM|GLU^Glucose^L||7.8|mmol/L|3.9-6.1|H|||F|||20240501090000\r"
       "OBX|2|ST|COM^Comment^L||clear||||||F\r"
       "ZQC|analyser 1|passed\r")


def accounted(raw: bytes | str, adapter: Adapter = GENERIC) -> Account:
    """The account of a message from the sender that its MSH-4 names."""
    data = raw.encode() if isinstance(raw, str) else raw
    return adapter.account_hl7(data, hl7v2.peek(data).sending_facility)


def by_place(made: Account) -> dict[str, Fate]:
    """The fates by place."""
    return {fate.leaf.place: fate for fate in made.fates}


@pytest.fixture(scope="module")
def oru() -> dict[str, Fate]:
    """The fates of ``ORU``."""
    return by_place(accounted(ORU))


@pytest.mark.parametrize(("place", "path"), [
    ("OBX[1]-5", "Observation[1].valueQuantity.value"), ("OBX[2]-5", "Observation[2].valueString"),
    ("OBX[1]-6", "Observation[1].valueQuantity.unit"), ("OBX[1]-7", "Observation[1].referenceRange.text"),
    ("OBX[1]-8", "Observation[1].interpretation.coding.code"), ("OBX[1]-11", "Observation[1].status"),
    ("OBX[1]-14", "Observation[1].effectiveDateTime"), ("PID-5.1", "Patient.name.family"),
    ("PID-7", "Patient.birthDate"), ("PID-8", "Patient.gender"), ("PID-3[2].1", "Patient.identifier[1].value"),
    ("PID-11.3", "Patient.address.city"), ("OBR-25", "DiagnosticReport.status"),
    ("OBR-22", "DiagnosticReport.issued"), ("OBR-2", "ServiceRequest.identifier[0].value"),
    ("OBR-15.1", "Specimen.type.coding.code"), ("OBR-7", "DiagnosticReport.effectiveDateTime"),
])
def test_a_value_that_is_used_is_told_with_its_path(oru: dict[str, Fate], place: str, path: str) -> None:
    """The path in which a value stands is among those that depend on it."""
    assert oru[place].kind in ("used", "reported")
    assert path in oru[place].paths


def test_a_value_that_identifies_is_told_so(oru: dict[str, Fate]) -> None:
    """What an id is made of moves the id: the patient number the Patient's, the report number the report's."""
    assert "Patient.id" in oru["PID-3[1].1"].paths
    assert {"DiagnosticReport.id", "Observation[1].id", "Observation[2].id"} <= set(oru["OBR-3"].paths)


def test_a_value_that_orders_versions_is_told_so(oru: dict[str, Fate]) -> None:
    """OBR-22 decides which of two versions of a result is newer, MSH-7 which of two of the patient."""
    assert "Observation[1]@as-of" in oru["OBR-22"].paths and "Patient@as-of" in oru["MSH-7"].paths


def test_a_required_value_is_marked() -> None:
    """Without it the message would be refused."""
    fates = by_place(accounted(ORU.replace("~110105194912310021^^^CN^NNCHN", "")))
    assert fates["PID-3.1"].required and fates["MSH-9.1"].required
    assert not fates["PID-7"].required and not fates["OBX[1]-5"].required


def test_what_fills_nothing_is_kept_with_a_reason(oru: dict[str, Fate]) -> None:
    """PV1 without a visit number makes no Encounter; running numbers are not needed."""
    assert oru["PV1-3.1"].kind == "kept" and "PV1-19" in oru["PV1-3.1"].reason
    assert oru["OBX[1]-1"].kind == "kept" and "running number" in oru["OBX[1]-1"].reason
    assert all(fate.reason for fate in oru.values() if fate.kind == "kept")


def test_a_duplicate_is_read_without_effect() -> None:
    """The national number that PID-19 repeats changes nothing, though it is looked at."""
    fates = by_place(accounted(ORU.replace("Road 1^^Town", "Road 1^^Town||||||||110105194912310021")))
    assert fates["PID-19"].kind == "read" and not fates["PID-19"].paths and fates["PID-19"].reason


def test_a_null_is_told_with_what_it_deletes() -> None:
    """``""`` in an update of a patient takes away what is stored; where nothing is deleted it has no path."""
    raw = ('MSH|^~\\&|ADT|H1|HUREN|X|20240501093000||ADT^A08^ADT_A01|M1|P|2.5.1\rEVN|A08|20240501093000\r'
           'PID|1||P1^^^H1^MR||Wang^Fang||""|F|||||""\rPV1|1|I|||||||||||||||||V1\r')
    fates = by_place(accounted(raw))
    assert fates["PID-7"].paths == ("Patient.birthDate",) and fates["PID-13"].paths == ("Patient.telecom",)
    assert not by_place(accounted(ORU.replace("|19491231|F|", '|""|F|')))["PID-7"].paths


def test_an_unmapped_code_is_reported(oru: dict[str, Fate]) -> None:
    """A test code that no row of codes.csv has is told so, with the paths in which it stands all the same."""
    fate = oru["OBX[2]-3.1"]
    assert fate.kind == "reported" and "codes.csv" in fate.reason
    assert any(path.startswith("Observation[2].code") for path in fate.paths)


def test_a_remark_is_reported_at_its_place() -> None:
    """What the conversion remarks on a field stands beside each value of that field, and of no other."""
    def convert(message: Message) -> Conversion:
        made = hl7v2.convert(message, GENERIC.source)
        made.remarks.append(Remark("OBX[2]-5", "kept as text"))
        return made

    fates = by_place(account(hl7v2.parse(ORU.encode()), convert))
    assert fates["OBX[2]-5"].kind == "reported" and fates["OBX[2]-5"].reason == "kept as text"
    assert fates["OBX[1]-5"].kind == "used"


@pytest.mark.parametrize(("sent", "places"), [
    ("NM|GLU^Glucose^L||7.8|mmol/L|3.9-6.1", {7: "referenceRange.low.value referenceRange.high.value "
                                                 "referenceRange.text", 5: "valueQuantity.value"}),
    ("NM|GLU^Glucose^L||7.8|mmol/L|0-0.06", {7: "referenceRange.low.value referenceRange.high.value "
                                                "referenceRange.text"}),
    ("NM|GLU^Glucose^L||7.8|mmol/L|M: 3.9-6.1 F: 4.9-7.1", {
        7: "referenceRange[0].text " + " ".join(f"referenceRange[{n}].{place}" for n in (1, 2) for place in (
            "low.value", "high.value", "text", "appliesTo.text"))}),
    ("NM|GLU^Glucose^L||<7.8|mmol/L|", {5: "valueQuantity.value valueQuantity.comparator"}),
    ("SN|GLU^Glucose^L||<^7.8|mmol/L|", {5.2: "valueQuantity.value"}),
    ("CE|GLU^Glucose^L||POS^positive^L||", {5.2: "valueCodeableConcept.coding.display valueCodeableConcept.text"})])
def test_every_place_of_a_value_is_told(sent: str, places: dict[float, str]) -> None:
    """Both limits of a range with its text, each range by sex, what compares a number: not only what its last digit
    fills. What another field fills is not told, though it goes with the value."""
    fates = by_place(accounted(ORU.replace("NM|GLU^Glucose^L||7.8|mmol/L|3.9-6.1", sent)))
    for field, paths in places.items():
        told = {path for path in fates[f"OBX[1]-{field}"].paths if path.startswith("Observation[1]")}
        assert told == {f"Observation[1].{path}" for path in paths.split()}, field


# ---------------------------------------------------------------- many values in one conversion

def _many(count: int) -> str:
    """A report of so many results by few people, two of them of one test, some without units, in groups."""
    return ORU.rstrip("\r") + "".join(
        f"\rOBX|{n}|{'ST' if n % 5 == 0 else 'NM'}|T{n % (count - 1)}^Test {n}^L|{n % 4 or ''}|"
        f"{n / 7:.1f}|{'mmol/L' if n % 3 else ''}|{n / 10:.1f}-{n / 5:.1f}|{'H' if n % 3 else ''}|||F|||20240501090000"
        f"||D{n % 3}^Li^Na" for n in range(3, count)) + "\r"


def _one_by_one(monkeypatch: pytest.MonkeyPatch, raw: str, adapter: Adapter = GENERIC) -> Account:
    with monkeypatch.context() as patch:
        patch.setattr(Trial.__init__, "__defaults__", (10**9,))
        return accounted(raw, adapter)


def test_values_tried_together_have_the_fates_of_those_tried_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared performers, a test that comes twice, groups, refused statuses: the same paths in the same order, in far
    fewer conversions."""
    raw = _many(36)
    calls = Counter[str]()

    def counted(name: str) -> Account:
        source = replace(GENERIC.source)  # with a memory of its own

        def convert(message: Message) -> Conversion:
            calls[name] += 1
            return hl7v2.convert(message, source)
        return account(hl7v2.parse(raw.encode()), convert)

    together = counted("together")
    monkeypatch.setattr(Trial.__init__, "__defaults__", (10**9,))
    assert counted("alone").fates == together.fates
    assert calls["together"] * 2 < calls["alone"]


def test_a_report_of_300_results_takes_a_thousand_conversions() -> None:
    """Not ten thousand: it is a command that somebody waits for."""
    calls = 0

    def convert(message: Message) -> Conversion:
        nonlocal calls
        calls += 1
        return Conversion([Change({"resourceType": "Observation", "id": f"{at}", "status": obx.get(11),
                                   "valueString": obx.get(5), "code": {"text": obx.get(3)}, "unit": obx.get(6)})
                           for at, obx in enumerate(message.all("OBX"))])

    made = account(hl7v2.parse(_many(300).encode()), convert)
    fates = by_place(made)
    assert made.exact and fates["OBX[211]-5"].paths == ("Observation[211].valueString",)
    assert calls < 1000


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["", "1.5", "x", "T1", "F", "H", '""', "3-5", "<7"])] * 9), min_size=9,
                max_size=24))
def test_together_or_one_by_one_any_results_have_the_same_fates(lines: list[tuple[str, ...]]) -> None:
    """Whatever stands in the fields of many OBX."""
    raw = ORU + "".join(f"OBX|{n}|{'ST' if n % 2 else 'NM'}|{'|'.join(line)}\r" for n, line in enumerate(lines, 3))
    with pytest.MonkeyPatch.context() as patch:
        together = accounted(raw)
        assert _one_by_one(patch, raw).fates == together.fates


_EFFECTS = st.sampled_from(["none", "own", "next", "shared", "gone", "more", "refused", "first"])


@settings(max_examples=50, deadline=None)
@given(st.lists(_EFFECTS, min_size=1, max_size=6), st.integers(8, 60), st.data())
def test_trials_tell_what_each_edit_does_by_itself(kinds: list[str], rows: int, data: st.DataObject) -> None:
    """Edits that alter their own resource, the next one, one that all share or that the first one fills, that remove or
    add one, that are refused: as one by one, and where nothing is shared in far fewer conversions."""
    odd = {data.draw(st.tuples(st.integers(0, len(kinds) - 1), st.integers(0, rows - 1))): data.draw(_EFFECTS)
           for _ in range(data.draw(st.integers(0, 3)))}
    edits = [Edit(("OBX", kind, 1, 1, 1), row, kind, "x") for kind in range(len(kinds)) for row in range(rows)]

    def effect(edit: Edit) -> str:
        return odd.get((edit.kind[1], edit.at), kinds[edit.kind[1]])

    def convert(made: Sequence[Edit]) -> Conversion | GatewayError:
        resources = {row: {"resourceType": "Observation", "id": f"{row}", **{f"e{n}": "" for n in range(len(kinds))},
                           "note": [{"text": "1"}, {"text": "2"}]} for row in range(rows)}
        shared: Resource = {"resourceType": "DiagnosticReport", "id": "r", "conclusion": "", "title": "0"}
        for edit in made:
            does, name = effect(edit), f"e{edit.kind[1]}"
            if does == "refused":
                return GatewayError(Category.INVALID, "no", "OBX-1")
            if does == "own":
                resources.get(edit.at, {})[name] = "other"
            elif does == "next":
                resources.get((edit.at + 1) % rows, {})[name] = f"of {edit.at}"
            elif does == "shared":
                shared["conclusion"] += f"{edit.at}."
            elif does == "first" and edit.at == min(one.at for one in made if effect(one) == "first"):
                shared["title"] = "1" if edit.at == 0 else "0"
            elif does == "gone":
                resources.pop(edit.at, None)
            elif does == "more":
                resources.get(edit.at, {})["more"] = "new"
        return Conversion([Change(one) for one in (*resources.values(), shared)])

    base = convert([])
    assert isinstance(base, Conversion)
    alone = Trial(base, convert, 10**9).outcomes(edits)
    together = Trial(base, convert).outcomes(edits)
    for edit, one, other in zip(edits, alone, together, strict=True):
        assert (one.found, one.refused) == (other.found, other.refused), effect(edit)
        assert one.found or one.more == other.more


@pytest.mark.parametrize(("columns", "rows"), [(1, 8), (7, 49), (7, 50), (3, 300), (12, 343), (15, 400), (20, 1000)])
def test_no_two_patterns_cover_a_third(columns: int, rows: int) -> None:
    """Two edits share at most half of their runs, those of one segment none; so whatever two causes a path has, no
    other edit seems to be one."""
    patterns, count, first = _patterns({n: (n % columns, n // columns) for n in range(columns * rows)}, columns, rows)
    assert all(max(runs) < count and sum(run < first for run in runs) == 1 for runs in patterns.values())
    some = sorted(patterns)[::max(1, len(patterns) // 150)]
    for one in some:
        for other in some:
            if one != other:
                shared = set(patterns[one]).intersection(patterns[other])
                assert len(shared) * 2 < len(patterns[one])
                assert not shared or one // columns != other // columns


# ---------------------------------------------------------------- hooks

def test_a_hooks_segment_is_told_by_its_effect() -> None:
    """ZQC-3 fills a note of the report by way of the hospital's hook; ZQC-4 nobody reads."""
    raw = next(path for path in EXAMPLES if path.match("xihu/examples/01-*")).read_bytes()
    fates = by_place(accounted(raw, ADAPTERS["xihu"]))
    assert fates["ZQC-3"].kind == "used" and fates["ZQC-3"].paths == ("DiagnosticReport.extension.valueString",)
    assert fates["ZQC-4"].kind == "kept" and "hooks.py" in fates["ZQC-4"].reason


def test_z_segments_reach_both_hooks_with_all_fields() -> None:
    """``before`` and ``after`` see every field of a segment that the standard does not know, in order."""
    seen: list[list[list[str]]] = []

    def look(message: Message) -> None:
        seen.append([[segment.get(at) for at in range(1, segment.size)] for segment in message.segments
                     if segment.name.startswith("Z")])

    def before(message: Message) -> None:
        look(message)

    def after(resources: list[Resource], message: Message) -> None:
        look(message)

    raw = (ORU + "ZA1|a^1|b&2|||c~d\rZB1|x").encode()
    adapter = Adapter(GENERIC.name, GENERIC.folder, GENERIC.source, per_facility=True, before=before, after=after)
    adapter.convert_hl7(adapter.parse(raw), "H1")
    expected = [["analyser 1", "passed"], ["a", "b", "", "", "c"], ["x"]]
    assert [expected, expected] == seen


def test_what_a_hook_alone_reads_is_told() -> None:
    """A value that a hook looks at without effect is its business; one that it moves elsewhere is used."""
    def before(message: Message) -> None:
        zqc = message.first("ZQC")
        if zqc is not None and zqc.get(1):
            message.all("OBX")[1].set(5, zqc.get(2))

    adapter = Adapter(GENERIC.name, GENERIC.folder, GENERIC.source, per_facility=True, before=before)
    fates = by_place(accounted(ORU, adapter))
    assert "Observation[2].valueString" in fates["ZQC-2"].paths
    assert fates["OBX[2]-5"].kind != "used" and not fates["OBX[2]-5"].paths  # the hook overwrote it
    fates = by_place(accounted(ORU, Adapter(GENERIC.name, GENERIC.folder, GENERIC.source, per_facility=True,
                                            before=lambda message: None if message.all("ZQC")[0].get(2) else None)))
    assert fates["ZQC-2"].kind == "hook" and fates["ZQC-1"].kind == "kept"


def test_a_hook_that_needs_a_value_does_not_stop_the_account() -> None:
    """Without the value the hook raises: the value is required."""
    def after(resources: list[Resource], message: Message) -> None:
        assert message.all("ZQC")[0].get(2)

    adapter = Adapter(GENERIC.name, GENERIC.folder, GENERIC.source, per_facility=True, after=after)
    assert by_place(accounted(ORU, adapter))["ZQC-2"].required


# ---------------------------------------------------------------- refused messages

def test_a_refused_value_is_named() -> None:
    """Of two reports the second has an impossible status: that value is refused, everything else kept."""
    second = ORU.splitlines()[3].replace("|O1|F1|", "|O2|F2|").replace("|CH|F", "|CH|?")
    made = accounted(f"{ORU}{second}\r")
    assert made.refusal is not None and made.refusal.where == "OBR-25"
    assert [fate.leaf.place for fate in made.fates if fate.kind == "refused"] == ["OBR[2]-25"]
    assert made.counts() == {"kept": len(made.fates) - 1, "refused": 1} and not made.references


def test_a_missing_value_is_named() -> None:
    """A place where nothing was sent has no value to mark: it is told by itself."""
    made = accounted(ORU.replace("|GLU^Glucose^L|||2024", "||||2024"))
    assert made.missing == "OBR-4" and set(made.counts()) == {"kept"}


def test_a_value_on_which_the_conversion_fails_is_named() -> None:
    """A hook that fails on a value makes a fault; the account names the value, and does not fail itself."""
    def before(message: Message) -> None:
        int(message.all("ZQC")[0].get(2) or "0")

    made = accounted(ORU, Adapter(GENERIC.name, GENERIC.folder, GENERIC.source, per_facility=True, before=before))
    assert made.refusal is not None and made.refusal.category is Category.FAULT
    assert [fate.leaf.place for fate in made.fates if fate.kind == "refused"] == ["ZQC-2"]


# ---------------------------------------------------------------- every value, one fate

@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_every_value_of_an_example_has_one_fate(path: Path) -> None:
    """Each value of each hospital's examples is accounted for once, in the order sent, and the sums agree."""
    raw = path.read_bytes()
    made = accounted(raw, ADAPTERS[path.parts[-3]])
    assert [fate.leaf for fate in made.fates] == leaves_of(made.message)
    assert sum(made.counts().values()) == len(made.fates) and set(made.counts()) <= set(KINDS)
    assert len({fate.leaf.place for fate in made.fates}) == len(made.fates)
    assert all(fate.paths or fate.required for fate in made.fates if fate.kind == "used")
    assert raw == path.read_bytes()
    names = set(made.references)
    for fate in made.fates:
        assert not made.conversion or all(one.partition(".")[0].partition("@")[0] in names or not one[0].isupper()
                                          or one.startswith(("OrderLine", "Charge", "Document", "amended"))
                                          for one in fate.paths), fate


VALUE = st.text(st.sampled_from("ab1 2^~&|\\é中."), max_size=6).map(lambda text: text.replace("|", ""))
SEGMENT = st.tuples(st.sampled_from(["PID", "PV1", "ORC", "OBR", "NTE", "OBX", "SPM", "ZZ1", "DG1"]),
                    st.lists(VALUE, max_size=12))


@settings(max_examples=60, deadline=None)
@given(st.lists(SEGMENT, max_size=4), st.integers(0, 6))
def test_every_value_of_any_message_has_one_fate(more: list[tuple[str, list[str]]], where: int) -> None:
    """Whatever segments stand in a message and wherever: each value has one fate, and what was never looked at has no
    effect when it is taken away."""
    lines = ORU.strip().split("\r")
    at = 2 + where % (len(lines) - 2)
    lines[at:at] = ["|".join([name, *fields]) for name, fields in more]
    raw = "\r".join(lines).encode()
    made = accounted(raw)
    assert [fate.leaf for fate in made.fates] == leaves_of(made.message)
    assert Counter(fate.kind for fate in made.fates) == made.counts()
    if made.refusal is None:
        source = GENERIC.source_for("H1")
        base = hl7v2.convert(made.message, source)
        for fate in [fate for fate in made.fates if fate.kind == "kept"][:8]:
            field = rebuilt(made.message, fate.leaf.at, fate.leaf.field, "")
            kept = [one for one in made.fates if (one.leaf.at, one.leaf.field) == (fate.leaf.at, fate.leaf.field)]
            if all(one.kind == "kept" for one in kept):
                assert differing(base, hl7v2.convert(field, source)) == [], fate.leaf.place


def test_a_large_message_is_accounted_by_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound the values of one field share a fate; there are fewer conversions, and none is lost."""
    monkeypatch.setattr("gateway.hl7v2.accounting.MOST_LEAVES", len(leaves_of(hl7v2.parse(ORU.encode()))) - 1)
    made = accounted(ORU)
    fates = by_place(made)
    assert made.exact and [fate.leaf for fate in made.fates] == leaves_of(made.message)
    assert fates["PID-5.1"].paths == fates["PID-5.2"].paths == ("Patient.name",)
    assert fates["OBX[1]-5"].kind == "used"


def test_of_a_huge_message_only_what_is_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried, so that the command ends; each value still has a fate, and the account says so."""
    monkeypatch.setattr("gateway.hl7v2.accounting.MOST_LEAVES", 10)
    made = accounted(ORU)
    assert not made.exact and [fate.leaf for fate in made.fates] == leaves_of(made.message)
    assert by_place(made)["OBX[1]-5"].kind == "read" and set(made.counts()) <= {"read", "kept", "reported"}


# ---------------------------------------------------------------- the pieces

def test_a_traced_message_converts_to_the_same() -> None:
    """Writing down what is read changes nothing: the conversion of every example is the same."""
    for path in EXAMPLES:
        adapter = ADAPTERS[path.parts[-3]]
        raw = path.read_bytes()
        plain = hl7v2.parse(raw, adapter.source.charset)
        results: list[list[object]] = []
        for message in (plain, traced(plain, Reads()), rebuilt(plain, 0, 1, plain.separators.field)):
            try:
                changes = hl7v2.convert(message, adapter.source).changes
                results.append([(change.resource, change.as_of, change.on_older) for change in changes])
            except GatewayError as refusal:
                results.append([(refusal.where, refusal.message)])
        assert results[0] == results[1] == results[2], path


def test_reads_are_told_by_component() -> None:
    """A component that was asked for is told from its neighbour; a whole field stands for all of its parts."""
    reads = Reads()
    pid = traced(hl7v2.parse(ORU.encode()), reads).first("PID")
    assert pid is not None
    pid.get(5, 2)
    list(pid.repetitions(3))[1].part(4).get(1)
    pid.text(11)
    assert reads.phases(1, 5, (1, 2, 1)) and not reads.phases(1, 5, (1, 1, 1))
    assert reads.phases(1, 3, (2, 4, 1)) and not reads.phases(1, 3, (1, 4, 1))
    assert reads.phases(1, 11, (1, 3, 1)) and (1, 7) not in reads.seen


def test_paths_are_shown_together() -> None:
    """Equal paths of neighbours are one, with a range; the parts of one element stand in braces."""
    assert grouped(["Observation[1].status", "Observation[2].status", "Observation[4].status", "Patient.id"]) == [
        "Observation[1-2,4].status", "Patient.id"]
    assert folded(["Patient.name.text", "Patient.name.family", "Patient.id"]) == ["Patient.name.{text,family}",
                                                                                 "Patient.id"]


# ---------------------------------------------------------------- the corpus

#: How large a part of the values of public messages of a type fills something, at least; the rest is mostly the header,
#: running numbers, insurance and guarantors. What is never read must not grow unseen.
USED = {"ORU": 0.45, "ORM": 0.3, "OML": 0.28, "ADT": 0.45, "MDM": 0.3, "SIU": 0.35, "OUL": 0.4, "DFT": 0.25}
MOST = 6  # messages of a type


@pytest.mark.long
@pytest.mark.skipif(not CORPUS.is_dir(), reason="the public messages are not beside the repository")
def test_a_part_of_public_messages_fills_something_and_the_rest_has_reasons() -> None:
    """Over a sample of the corpus each value has a fate, no smaller part than now fills something, and what is kept
    has a reason."""
    counts: dict[str, Counter[str]] = {}
    taken: Counter[str] = Counter()
    for raw in dict.fromkeys(raw for path in sorted(CORPUS.rglob("*.hl7")) for raw in _messages(path)):
        kind = _kind(raw)
        if taken[kind] == MOST:
            continue
        try:
            made = accounted(raw)
        except GatewayError:
            continue
        if made.refusal is None and len(made.fates) < 1000:
            taken[kind] += 1
            counts.setdefault(kind, Counter()).update(made.counts())
            assert [fate.leaf for fate in made.fates] == leaves_of(made.message)
            assert all(fate.reason for fate in made.fates if fate.kind in ("kept", "reported"))
    for kind, least in USED.items():
        filled = counts[kind]["used"] + counts[kind]["reported"]
        assert filled >= least * counts[kind].total(), (kind, counts[kind])


def _messages(path: Path) -> list[bytes]:
    try:
        return hl7v2.split(path.read_bytes())
    except GatewayError:
        return []


def _kind(raw: bytes) -> str:
    try:
        return hl7v2.peek(raw).message_type[0]
    except GatewayError:
        return ""
