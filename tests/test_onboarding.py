"""A hospital in an hour: from a folder of samples to a folder that is checked, through the command line."""

from __future__ import annotations

import csv
import os
import tomllib
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import onboarding_world as world
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import conformance
from gateway.__main__ import main
from gateway.adapter import Adapters, load, read_codes
from gateway.config import SHIPPED_ADAPTERS
from gateway.errors import GatewayError
from gateway.onboarding import codes, explain, samples
from gateway.onboarding.codes import LocalCode, Proposal, decide, read_suggested, suggested_csv
from gateway.onboarding.habits import read_habits
from gateway.onboarding.manifest import Hospital, manifest_text
from gateway.onboarding.suggest import Candidate, MenuRow
from gateway.terminology import CodeRow, catalogue

Run = Callable[..., tuple[int, str, str]]
PLAIN = ("MSH|^~\\&|LIS|LAB|||20260101080000||ORU^R01|{id}|P|2.5.1||||||{charset}\r"
         "PID|1||{pid}||Muster^Eva\rOBR|1|{placer}|F{id}|{service}|||20260101||||||||||||||||||F\r{obx}\r")


def message(id: str = "1", obx: str = "OBX|1|NM|K^Potassium||4.1|mmol/L|||||F", **given: str) -> bytes:
    """An ordinary result."""
    filled = {"pid": f"P{id}", "placer": f"A{id}", "service": "ELEC", "charset": ""} | given
    return PLAIN.format(id=id, obx=obx, **filled).encode("utf-8")


@pytest.fixture
def huren(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in this process with ``tmp_path/adapters`` as its hospitals: status, output, error output."""
    for name in [n for n in os.environ if n.startswith("HUREN_")]:
        monkeypatch.delenv(name)
    (tmp_path / "adapters").mkdir()
    monkeypatch.setenv("HUREN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HUREN_ADAPTERS", str(tmp_path / "adapters"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """The samples of the new hospital."""
    return world.write(tmp_path / "samples", world.messages())


def agree(manifest: Path) -> None:
    """What a person does who reads the manifest: takes over every proposal that is complete, asks about the rest."""
    lines = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        proposed = line.startswith(("# [hl7v2.tables", '# "')) and '"?"' not in line and "urn:huren" not in line
        lines.append(line[2:] if proposed else line)
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")


# -------------------------------------------------------------------------------------------------- the hour

def test_the_hour(huren: Run, sent: Path, tmp_path: Path) -> None:
    """Samples → folder → approved codes → agreed manifest → examples with invented patients → no finding is left."""
    folder = tmp_path / "adapters" / "tiantai"
    status, out, _ = huren("adapter", "new", "tiantai", "--samples", sent, "--hospital", "天台县第一医院")
    assert status == 0 and f"60 messages of '{world.FACILITY}' read: ORU^R01 60" in out
    assert "1 × files without an MSH segment" in out and "1 × messages that are there twice" in out
    assert "0 of 60 messages are accepted, 56 with what is obvious" in out and "60 × invalid OBR-25" in out

    known = {item.name_zh: code for code, item in catalogue().items.items()}
    rows = list(csv.reader(StringIO((folder / "codes.suggested.csv").read_text(encoding="utf-8-sig"))))
    for row in rows[1:]:  # a person decides each row by what it says
        row[0] = {"谷丙转氨酶": known.get("丙氨酸氨基转移酶", "-")}.get(row[2], known.get(row[2], "-"))
    text = StringIO()
    csv.writer(text).writerows(rows)
    (folder / "codes.suggested.csv").write_bytes(text.getvalue().encode("gb18030"))  # as a Chinese Windows saves it
    status, out, err = huren("adapter", "codes", "tiantai")
    assert status == 0 and "12 rows of codes.csv changed, 0 codes are not mapped yet" in err
    assert f"0104 血小板计数 → {known['血小板计数']} 血小板计数" in out

    agree(folder / "manifest.toml")
    status, out, _ = huren("adapter", "check", "tiantai", "--messages", sent)
    assert status == 1 and "56 of 60 messages are accepted" in out and "4 × refused: invalid OBR-25" in out
    assert "values:  '待定' 4 times" in out and "已审核" not in out
    assert huren("adapter", "keep", "tiantai", sent)[0] == 0
    status, out, _ = huren("adapter", "check", "tiantai")
    assert status == 0 and "tiantai: keeps every rule" in out
    assert "hl7apy:  OBR-25: the value is not in table 0123" in out
    assert huren("adapter", "drift", "tiantai", sent)[0] == 0


def test_the_manifest_says_what_the_samples_show() -> None:
    """Character set, numbers typed ST, the unit's component, flags, statuses, sexes and filler dates, with counts."""
    habits, read = read_habits(world.messages())
    assert len(read) == 60 and not habits.unreadable
    text = manifest_text(Hospital("tiantai", "T", facilities=(world.FACILITY,)), habits)
    hl7v2 = tomllib.loads(text)["hl7v2"]
    assert hl7v2 == {"sending_facility": [world.FACILITY], "addresses": [], "charset": "gb18030",
                     "timezone": "Asia/Shanghai", "st_numbers": True, "unit_component": 2}
    for line in ('# [hl7v2.tables."OBX-8"]', '# "↑" = "H"', '# "↓" = "L"', '# "已审核" = "F"', '# "待定" = "?"',
                 '# "1" = "M"', '# "门诊" = "O"', '# "00000000" = ""   # 3 times',
                 "TTYY / MR: 60, the patient's main number"):
        assert line in text


def test_every_proposal_can_be_taken_over(tmp_path: Path) -> None:
    """With the '# ' taken away before all proposals, the manifest still loads."""
    odd = message("9", obx='OBX|1|NM|K||4|mmol/L|1|"H\\|!|||9|||00000000', pid="P9^^^H^MR~V1^^^VISIT^VN")
    habits, _ = read_habits([*world.messages(), odd])
    text = manifest_text(Hospital("tiantai", "T", facilities=(world.FACILITY,)), habits)
    (tmp_path / "tiantai").mkdir()
    lines = [line[2:] if line.startswith(("# [", '# "')) else line for line in text.splitlines()]
    (tmp_path / "tiantai" / "manifest.toml").write_text("\n".join(lines), encoding="utf-8")
    source = load(tmp_path / "tiantai").source
    assert source.tables["OBX-8"]["↑"] == "H"
    assert source.identifier_systems == {"H": "urn:huren:tiantai:patient:H", "VISIT": "urn:huren:tiantai:patient:VISIT"}


def test_a_proposal_never_parts_a_person() -> None:
    """Numbers that are read as the identity card's, and the main number, get no line; a card under another type gets
    the card's own system."""
    card = "11010519491231002X"
    habits, _ = read_habits([message(pid=f"P1^^^H^MR~{card}^^^MPS^NNCHN~{card}^^^YB^XX~7^^^INS^XX")])
    text = manifest_text(Hospital("x", "X"), habits)
    lines = {line for line in text.splitlines() if line.startswith('# "')}
    assert lines == {'# "YB" = "urn:oid:2.16.156.10011.1.3"', '# "INS" = "urn:huren:x:patient:INS"'}


@pytest.mark.parametrize(("hospital", "keys"), [
    ("renmin", {"charset": "gb18030", "st_numbers": True, "unit_component": 2}), ("xihu", {}), ("qiantang", {})])
def test_the_demo_hospitals_manifests_are_found_again(hospital: str, keys: dict[str, object]) -> None:
    """From the examples alone: the same facility, zone and value habits as the manifests that people wrote."""
    folder = SHIPPED_ADAPTERS / hospital
    habits, _ = read_habits([s.raw for s in samples.read([folder / "examples"]).messages])
    found = tomllib.loads(manifest_text(Hospital("x", "X", facilities=tuple(habits.facilities)), habits))["hl7v2"]
    adapter = load(folder)
    assert tuple(found.pop("sending_facility")) == adapter.sending_facility
    assert found.pop("timezone") == adapter.source.timezone and found.pop("addresses") == []
    written = {"charset": adapter.source.charset, **adapter.source.habits}
    assert found == keys and found.items() <= written.items()


def test_what_a_demo_hospital_overrides_is_proposed() -> None:
    """Each value that xihu's manifest maps and its examples hold is among the proposals."""
    habits, _ = read_habits([s.raw for s in samples.read([SHIPPED_ADAPTERS / "xihu" / "examples"]).messages])
    tables = load(SHIPPED_ADAPTERS / "xihu").source.tables
    for place, values in (("OBX-8", {"↑", "↓", "-"}), ("OBX-11", {"0", "1"})):
        assert values <= habits.strange[place].keys() & tables[place].keys()


@pytest.mark.parametrize(("sent", "charset", "wanted"), [
    ("王", "utf-8", ""), ("王", "gb18030", "gb18030"), ("x", "ascii", "")])
def test_the_charset_is_named_only_where_the_bytes_do_not_tell(sent: str, charset: str, wanted: str) -> None:
    """UTF-8 and ASCII need no line; GB 18030 without MSH-18 does."""
    raw = message(pid="P1").decode().replace("Muster", sent * 3).encode(charset)
    assert read_habits([raw])[0].charset == wanted


def test_a_wrong_declaration_is_found() -> None:
    """GB 18030 under a header that says ISO 8859-1 would be read as Latin letters: the manifest has to overrule it."""
    raw = message(charset="8859/1").decode().replace("Muster", "王建国").encode("gb18030")
    habits, [(_, read)] = read_habits([raw])
    assert habits.charset == "gb18030" and "wrong in 1" in habits.charset_reason
    assert read.first("PID").get(5) == "王建国"  # type: ignore[union-attr]


def test_a_declared_charset_needs_no_line() -> None:
    """GB 18030 that MSH-18 names is read as it is; two charsets in one hospital are named to a person."""
    declared = message("1", charset="GB18030").decode().replace("Muster", "王建国").encode("gb18030")
    assert read_habits([declared])[0].charset == ""
    bare = message("2").decode().replace("Muster", "王建国").encode("gb18030")
    mixed = read_habits([bare, message("3").decode().replace("Muster", "王建国").encode()])[0]
    assert mixed.charset == "" and "several" in mixed.charset_reason


def test_an_order_number_of_several_services_is_seen() -> None:
    """The same patient's number with two service codes; with two patients it is another order."""
    shared = [message("1", placer="A", service="X", pid="P"), message("2", placer="A", service="Y", pid="P")]
    habits, _ = read_habits(shared)
    assert (habits.shared_numbers.count, habits.shared_numbers.of) == (1, 1)
    apart, _ = read_habits([message("1", placer="A", service="X"), message("2", placer="A", service="Y")])
    assert apart.shared_numbers.count == 0


def test_nothing_of_a_patient_is_written(huren: Run, tmp_path: Path) -> None:
    """A name that stands where a code belongs is counted, not told; nor are names, numbers or addresses anywhere."""
    strange = message("0", obx="OBX|1|NM|K||4.1|mmol/L||欧阳震华|||F")
    raws = [strange, *(message(str(n)) for n in range(1, 5)), *world.messages(20)]
    folder = world.write(tmp_path / "samples", raws)
    status, out, err = huren("adapter", "new", "x", "--samples", folder, "--facility", "LAB", "--facility",
                             world.FACILITY)
    assert status == 0
    files = [p.read_text(encoding="utf-8-sig") for p in (tmp_path / "adapters" / "x").rglob("*") if p.is_file()]
    told = out + err + "".join(files)
    secrets = {"欧阳震华", "Muster", "赤城街道", "1395760", "88000"}
    secrets |= {surname + given for surname in world.SURNAMES for given in world.GIVEN}
    assert "others, 1 times" in told and {s for s in secrets if s in told} == set()


def test_two_hospitals_in_one_folder_are_told_apart(huren: Run, tmp_path: Path) -> None:
    """The most frequent MSH-4 is taken and the other one named; --facility chooses."""
    folder = world.write(tmp_path / "samples", [*world.messages(30), message("1"), message("2")])
    _, out, err = huren("adapter", "new", "a", "--samples", folder)
    assert f"30 messages of '{world.FACILITY}'" in out and "left aside: 2 messages of other" in out
    assert "several sending facilities" in err and "'LAB' (2)" in err
    _, out, _ = huren("adapter", "new", "b", "--samples", folder, "--facility", "LAB")
    assert "2 messages of 'LAB'" in out and load(tmp_path / "adapters" / "b").sending_facility == ("LAB",)
    status, _, err = huren("adapter", "new", "c", "--samples", folder, "--facility", "LABB")
    assert status == 1 and "'LAB' (2)" in err and not (tmp_path / "adapters" / "c").exists()


def test_odd_files_are_counted(tmp_path: Path) -> None:
    """Batches, files of several, framing, UTF-16, text before MSH, empty and foreign files: read or told."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "batch.hl7").write_bytes(b"FHS|^~\\&\rBHS|^~\\&\r" + message("1") + message("2") + b"BTS|2\rFTS|1\r")
    (folder / "framed.bin").write_bytes(b"\x0b" + message("3") + b"\x1c\r\x0b" + message("4") + b"\x1c\r")
    (folder / "wide.txt").write_bytes(message("5").decode().encode("utf-16"))
    (folder / "deep" / "log.txt").write_bytes(b"12:00 received\r\n" + message("6"))
    (folder / "empty").write_bytes(b"")
    (folder / "~$open.docx").write_bytes(b"lock")
    found = samples.read([folder])
    assert len(found.messages) == 6
    assert found.left == {"files without an MSH segment": 1,
                          "pieces that do not begin with MSH: cut away what stands before": 1}
    with pytest.raises(GatewayError, match="no HL7 v2 message"):
        samples.read([folder / "empty"])


def test_a_folder_name_that_is_no_id_is_refused(huren: Run, sent: Path) -> None:
    """The institution's id is the folder's name; nothing is written when it cannot be one."""
    status, _, err = huren("adapter", "new", "天台", "--samples", sent)
    assert status == 1 and "cannot be an institution's id" in err


def test_images_among_the_samples_are_read(huren: Run, tmp_path: Path, sent: Path) -> None:
    """DICOM samples give modalities, exam codes and what the manifest has to say; never a patient."""
    for path in (SHIPPED_ADAPTERS / "qiantang" / "examples").glob("0[135]*.dcm.json"):
        (sent / path.name).write_bytes(path.read_bytes())
    status, out, _ = huren("adapter", "new", "tiantai", "--samples", sent)
    assert status == 0 and "DICOM objects of 3 studies read: CT" in out
    kinds = {row["kind"] for row in csv.DictReader(StringIO(
        (tmp_path / "adapters" / "tiantai" / "codes.suggested.csv").read_text(encoding="utf-8-sig")))}
    assert kinds >= {"test", "order"}


def test_a_hospital_of_images_alone(huren: Run, tmp_path: Path) -> None:
    """DICOM samples without a message give a folder that loads, with the exams' codes."""
    status, out, _ = huren("adapter", "new", "pictures", "--samples", SHIPPED_ADAPTERS / "qiantang" / "examples"
                           / "01-chest-ct.dcm.json")
    folder = tmp_path / "adapters" / "pictures"
    assert status == 0 and "of 1 studies read: CT" in out and not (folder / "profile.json").exists()
    assert load(folder).sending_facility == ()
    assert [row.display for row in read_codes(folder / "codes.csv")] == ["胸部CT平扫"]


# -------------------------------------------------------------------------------------------------- codes

def code(local: str, name: str = "n", kind: str = "test") -> LocalCode:
    """A local code as gathered."""
    made = LocalCode(local)
    made.kinds[kind] += 1
    made.names[name] += 1
    return made


def test_what_texts_may_mean_is_proposed_with_its_count() -> None:
    """Titres, ranges, commas and two ranges in one field: a person says, nothing is switched on."""
    obx = ("OBX|1|ST|A||1:128||||||F\rOBX|2|ST|B||10-20|/HPF|||||F\rOBX|3|ST|C||3,52|g/L|||||F\r"
           "OBX|4|NM|D||5|g/L|3-8~1-20|||||F\rOBR|2||G|SUS||||||||||||||||||||||ORG&Organism")
    habits, _ = read_habits([message(obx=obx)])
    text = manifest_text(Hospital("x", "X", facilities=("LAB",)), habits)
    kinds = ("# st_", "# num", "# crit", "# org")
    proposed = [line.partition(" =")[0] for line in text.splitlines() if line.startswith(kinds)]
    assert proposed == ["# st_titres", "# st_ranges", "# number_comma", "# critical_limits", "# organism_codes"]
    assert '# organism_codes = ["ORG"]' in text
    assert 'number_comma = "decimal"' in text and "st_numbers" not in tomllib.loads(text)["hl7v2"]


def test_the_accession_field_is_found_by_the_images(huren: Run, tmp_path: Path) -> None:
    """Where reports and images come together, the field of OBR that holds the images' numbers is known."""
    folder = tmp_path / "samples"
    folder.mkdir()
    for path in (SHIPPED_ADAPTERS / "qiantang" / "examples").glob("0[1-4]*"):
        if path.suffix == ".hl7" or path.name.endswith(".dcm.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    for path in folder.glob("*.hl7"):  # the number stands in OBR-20 alone
        lines = path.read_bytes().replace(b"\n", b"\r").split(b"\r")
        for at, line in enumerate(lines):
            fields = line.split(b"|")
            if fields[0] == b"OBR":
                fields += [b""] * (21 - len(fields))
                fields[3], fields[18], fields[20] = b"R" + fields[3], b"", fields[3]
                lines[at] = b"|".join(fields)
        path.write_bytes(b"\r".join(lines))
    assert huren("adapter", "new", "qt", "--samples", folder)[0] == 0
    assert load(tmp_path / "adapters" / "qt").source.habits["accession_field"] == "OBR-20"


def test_a_code_comes_with_all_that_helps_to_know_it() -> None:
    """Name, unit, specimen and the other tests of its order; several names are said."""
    _, read = read_habits(world.messages(6))
    found = {c.local: c for c in codes.gather((m for _, m in read), load(SHIPPED_ADAPTERS / "renmin").source)}
    row = found["0101"].row
    assert (row.display, row.unit, row.specimen) == ("白细胞计数", "10*9/L", "全血")
    assert set(row.neighbours) == {"红细胞计数", "血红蛋白", "血小板计数"}
    assert found["9001"].kind == "order" and found["0101"].count == 2


def test_a_loinc_code_that_is_understood_needs_no_row() -> None:
    """An empty row would hide what the catalogue knows of it."""
    loinc = next(item.loinc for item in catalogue().items.values() if item.loinc)
    raws = [message(obx=f"OBX|1|NM|{loinc}^X^LN||1||||||F\rOBX|2|NM|0815^Y^LN||1||||||F")]
    _, read = read_habits(raws)
    found = codes.gather((m for _, m in read), load(SHIPPED_ADAPTERS / "generic").source)
    assert [c.local for c in found] == ["0815", "ELEC"]


def test_the_list_survives_a_spreadsheet() -> None:
    """Codes that a spreadsheet would rewrite come back as they were, through commas, semicolons and tabs."""
    locals_ = ["0012", "1E5", "3-5", "=SUM(A1)", "@x", "'q", "123456789012", "ALT,1", "白细胞"]
    text = suggested_csv([code(local) for local in locals_], [[] for _ in locals_])
    for delimiter in ",;\t":
        out = StringIO()
        csv.writer(out, delimiter=delimiter).writerows(csv.reader(StringIO(text.removeprefix("\ufeff"))))
        assert [p.row.local for p in read_suggested(out.getvalue().encode())] == locals_


def test_a_dropped_zero_is_found_by_the_name() -> None:
    """0012 that came back as 12 is the row with the same name; where that is not sure, it is told."""
    rows = [CodeRow(2, "0012", "", "ALT"), CodeRow(3, "0013", "", "AST")]
    item = next(iter(catalogue().items))
    given = [Proposal(2, item, MenuRow("12", "ALT"), ()), Proposal(3, item, MenuRow("13", "other"), ())]
    decided = decide(rows, given)
    assert decided.taken == {"0012": item} and [line for line, _ in decided.odd] == [3]


def test_what_a_person_may_write() -> None:
    """1, 2, x, an item, a panel, -; nothing decides nothing; anything else is told with its line."""
    items, panel = list(catalogue().items)[:3], next(iter(catalogue().panels))
    said = ["1", "x", "2", items[2], panel, "-", "", "3", "yes", "Z9999"]
    rows = [CodeRow(n, f"c{n}", "") for n in range(len(said))]
    given = [Proposal(n + 2, text, MenuRow(f"c{n}"), ((items[0], 0.9), (items[1], 0.5))) for n, text in enumerate(said)]
    decided = decide(rows, given)
    assert [row.item for row in decided.rows] == [items[0], items[0], items[1], items[2], panel, "-", "", "", "", ""]
    assert [line for line, _ in decided.odd] == [9, 10, 11]


def test_accepting_by_score_needs_one_clear_candidate() -> None:
    """The first is taken where it alone reaches the score, and only where nobody has decided."""
    a, b = list(catalogue().items)[:2]
    rows = [CodeRow(2, "clear", ""), CodeRow(3, "close", ""), CodeRow(4, "low", ""), CodeRow(5, "done", b)]
    given = [Proposal(2, "", MenuRow("clear"), ((a, 0.97), (b, 0.6))),
             Proposal(3, "", MenuRow("close"), ((a, 0.97), (b, 0.96))),
             Proposal(4, "", MenuRow("low"), ((a, 0.9),)), Proposal(5, "", MenuRow("done"), ((a, 1.0),))]
    assert decide(rows, given).taken == {}
    assert decide(rows, given, accept=0.95).taken == {"clear": a}


def test_candidates_are_named_in_the_list() -> None:
    """Item, its name and the score stand beside the hospital's own words."""
    item = next(iter(catalogue().items.values()))
    text = suggested_csv([code("1", "名")], [[Candidate(item.code, 0.875, ("the same name",))]]).removeprefix("\ufeff")
    [row] = csv.DictReader(StringIO(text))
    assert (row["local"], row["display"], row["item1"], row["name1"], row["score1"], row["approved"]) == (
        "1", "名", item.code, item.name_zh, "0.875", "")
    assert row["why"] == "the same name"


def test_new_codes_join_later(huren: Run, tmp_path: Path, sent: Path) -> None:
    """`codes --samples` adds what has no row yet, and keeps what was decided."""
    huren("adapter", "new", "tiantai", "--samples", sent)
    folder = tmp_path / "adapters" / "tiantai"
    (tmp_path / "later.hl7").write_bytes(world.messages(1)[0].replace(b"|0101^", b"|0199^"))
    status, out, _ = huren("adapter", "codes", "tiantai", "--samples", tmp_path / "later.hl7")
    assert status == 0 and "1 new codes" in out and "0199" in {r.local for r in read_codes(folder / "codes.csv")}


# -------------------------------------------------------------------------------------------------- why refused

def renmin(raw: str) -> explain.Explanation:
    """Why the demo hospital's message is refused."""
    found = explain.explain(load(SHIPPED_ADAPTERS / "renmin"), raw.encode("gb18030"))
    assert found is not None
    return found


EXAMPLES = [(folder, e) for folder in ("renmin", "xihu", "generic", "qiantang")
            for e in conformance.examples(SHIPPED_ADAPTERS / folder) if e.path.suffix == ".hl7"]


@pytest.mark.parametrize(("hospital", "example"), EXAMPLES, ids=lambda v: v if isinstance(v, str) else v.path.stem)
def test_an_explanation_is_there_where_an_example_is_refused(hospital: str, example: conformance.Example) -> None:
    """Category and place are those of the .refused file, and there is something to do."""
    found = explain.explain(load(SHIPPED_ADAPTERS / hospital), example.path.read_bytes())
    assert (found is None) == example.accepted
    if found is not None:
        assert f"{found.category} {found.where}".strip() == example.expected.read_text().strip()
        assert len(found.next_step) > 20


def test_hl7apy_agrees_where_a_required_field_is_missing() -> None:
    """Both say that OBR-4 is missing; the other findings of hl7apy stand behind."""
    text = (SHIPPED_ADAPTERS / "renmin" / "examples" / "09-no-order-code.hl7").read_bytes().decode("gb18030")
    found = renmin(text)
    here, _ = found.here
    assert [j.sentence for j in here] == ["version 2.3.1 requires it"] and "OBR-4 (universal service" in found.next_step


def test_what_hl7apy_quotes_is_never_told() -> None:
    """hl7apy writes values into its findings; ours name places alone."""
    raw = message(obx="OBX|1|NM|K||4|mmol/L|||||SECRET").decode()
    raw = raw.replace("Muster^Eva", "Muster^Eva||19800101|SECRETSEX|||SECRETSTREET^^^^^SECRETLAND")
    found = explain.explain(load(SHIPPED_ADAPTERS / "generic"), raw.encode())
    assert found is not None and found.where == "OBX-11"
    told = "\n".join(found.lines(most=99))
    assert "OBX-11: the value is not in table 0085" in told and "SECRET" not in told and "Muster" not in told


@pytest.mark.parametrize(("raw", "category", "words"), [
    (b"MSH|^~\\&|A|LAB|||2026||ORU^R01|1|P|2.5.1\rPID|1||\xff\xfe\x80\xb4", "malformed", "charset"),
    (b"MSH|^~\\&|A|LAB|||2026||RDE^O11|1|P|2.5.1\rPID|1||7\r", "unsupported", "elsewhere"),
    (message(obx="OBX|1|NM|||4|mmol/L|||||F"), "invalid", "OBX-3"),
    (message().replace(b"|20260101|||", b"|00000000|||"), "invalid", '"00000000" = ""'),
], ids=["charset", "type", "required", "filler"])
def test_each_kind_of_refusal_says_what_to_do(raw: bytes, category: str, words: str) -> None:
    """The next step names the manifest's key, the table, the hook, or what to tell the sender."""
    found = explain.explain(load(SHIPPED_ADAPTERS / "generic"), raw)
    assert found is not None and found.category == category
    assert words in found.next_step


def test_a_sender_that_nobody_names_is_explained(huren: Run, tmp_path: Path, sent: Path) -> None:
    """`check --messages` routes as the gateway does, and tells which key is missing."""
    huren("adapter", "new", "tiantai", "--samples", sent)
    (tmp_path / "other.hl7").write_bytes(message())
    status, out, _ = huren("adapter", "check", "tiantai", "--messages", tmp_path / "other.hl7")
    assert status == 1 and "forbidden MSH-4" in out and "sending_facility" in out


CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "hl7v2"


def test_public_messages_are_read_and_explained() -> None:
    """Hundreds of messages by others: habits and a manifest that loads, and every refusal explained without a crash."""
    if not CORPUS.exists():
        pytest.skip("the public messages are not here")
    raws = [s.raw for s in samples.read([CORPUS]).messages]
    habits, read = read_habits(raws)
    assert habits.messages + sum(habits.unreadable.values()) == len(raws) and len(read) > 300
    tomllib.loads(manifest_text(Hospital("x", "X", facilities=tuple(habits.facilities)), habits))
    generic = Adapters([load(SHIPPED_ADAPTERS / "generic")], "generic")
    refused = {}
    for raw in raws:
        if error := explain.refusal(generic, raw):
            refused.setdefault(str(error), raw)
    assert refused
    for said, raw in refused.items():
        found = explain.explain_any(generic, raw)
        assert found is not None and said.endswith(found.sentence) and found.next_step


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), max_size=6))
def test_whatever_bytes_are_explained(pieces: list[bytes]) -> None:
    """No bytes behind an MSH make reading of habits or explaining fail."""
    raw = b"MSH|^~\\&|A|LAB|||2026||ORU^R01|1|P|2.5.1\r" + b"\r".join(pieces)
    habits, read = read_habits([raw])
    assert habits.messages + sum(habits.unreadable.values()) == 1
    assert explain.explain(load(SHIPPED_ADAPTERS / "generic"), raw) is not None
    manifest_text(Hospital("x", "X"), habits)


def test_on_a_terminal_it_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where are samples, which of the facilities, and the hospital's name: each asked once, with a default."""
    from gateway.commands import onboarding
    from gateway.config import load as settings_of

    monkeypatch.setattr(onboarding, "_interactive", lambda: True)
    (tmp_path / "adapters").mkdir()
    folder = world.write(tmp_path / "in", [*world.messages(30), message("1"), message("2")])
    here = settings_of({"HUREN_ADAPTERS": str(tmp_path / "adapters"), "HUREN_DATA": str(tmp_path / "data")})
    said = CliRunner().invoke(onboarding.new, ["lab"], obj=here, input=f"{folder}\nLAB\nThe Laboratory\n")
    assert said.exit_code == 0, said.output
    assert "Folder with sample messages" in said.output
    assert f"Which is this hospital? Several with commas [{world.FACILITY}]" in said.output
    made = load(tmp_path / "adapters" / "lab")
    assert (made.sending_facility, made.source.name) == (("LAB",), "The Laboratory")
    said = CliRunner().invoke(onboarding.new, ["bare"], obj=here, input="\n")
    assert said.exit_code == 0 and load(tmp_path / "adapters" / "bare").sending_facility == ("BARE",)
