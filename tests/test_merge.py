"""Merges, links and their end through the pipeline (`gateway/hl7v2/merge.py`, `gateway.identity`), on both backends."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from adt_world import World, adt, links, national, pid, result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import change, check_consistent, line

from gateway.caller import GATEWAY, Caller
from gateway.config import SHIPPED_ADAPTERS
from gateway.conformance import examples
from gateway.hl7v2.merge import LINK_ENDED, LINK_SINCE, OPPOSITE, Edit, apply
from gateway.source import Resource
from gateway.store import Store
from gateway.store.model import Unit
from gateway.terminology import ITEMS

MERGE = ("A40", pid("B"), "MRG|A^^^^MR")
UNDO = ("A37", pid("B"), pid("A"))


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    """An empty world."""
    return World(store, tmp_path)


@pytest.fixture
def two(world: World) -> World:
    """Two patients of one hospital, each registered and with a result."""
    world.accepted(adt("A28", pid("A")), adt("A28", pid("B")), result("A", "F1", "1.1"), result("B", "F2", "2.2"))
    return world


def test_a_merge_answers_for_both_and_its_undo_leaves_only_its_time(two: World) -> None:
    """Before: two persons. After A40 every question finds both; after A37 two persons again, everything as it was but
    for the time of the undo."""
    plain = {number: two.patient(number) for number in "AB"}
    before = {number: two.versions("Patient", two.patient_id(number)) for number in "AB"}
    assert (two.values("A"), two.values("B")) == (["1.1"], ["2.2"])
    two.accepted(adt(*MERGE, at="20240502080000"))
    for number in "AB":
        assert two.values(number) == ["1.1", "2.2"]
        reports = two.found("DiagnosticReport", patient=two.patient_id(number))
        assert {r["subject"]["reference"] for r in reports} == {f"Patient/{two.patient_id(n)}" for n in "AB"}
        by_number: dict[str, Any] = {"patient.identifier": f"{two.source().patient_system()}|{number}"}
        assert len(two.found("Observation", **by_number)) == 2
    person = next(iter(set(two.store.persons_of([two.patient_id("A")]).values())))
    assert sorted(two.store.patients_of(person)) == sorted([two.patient_id("A"), two.patient_id("B")])
    check_consistent(two.store)
    two.accepted(adt(*UNDO, at="20240503080000"))
    assert (two.values("A"), two.values("B")) == (["1.1"], ["2.2"])
    for number in "AB":
        versions = two.versions("Patient", two.patient_id(number))
        assert versions[2:] == before[number]  # the history tells of it
        other = two.patient_id("AB".replace(number, ""))
        told = two.patient(number)
        assert told.pop("extension") == [{"url": LINK_ENDED, "extension": [
            {"url": "other", "valueReference": {"reference": f"Patient/{other}"}},
            {"url": "since", "valueInstant": "2024-05-03T00:00:00.000000Z"}]}]
        assert told == plain[number]
    check_consistent(two.store)


def test_who_is_merged_says_so(two: World) -> None:
    """The old Patient is inactive and replaced by the survivor, which replaces it; what else it said stays."""
    two.accepted(adt(*MERGE, at="20240502080000"))
    old, survivor = two.patient("A"), two.patient("B")
    assert (old["active"], links(old)) == (False, {survivor["id"]: "replaced-by"})
    assert ("active" in survivor, links(survivor)) == (False, {old["id"]: "replaces"})
    assert old["name"][0]["text"] == "王小明"
    assert [p["id"] for p in two.found("Patient", active="false")] == [old["id"]]
    assert {p["id"] for p in two.found("Patient", link=f"Patient/{old['id']}")} == {survivor["id"]}


def test_results_for_recognition_and_order_lines_follow(world: World) -> None:
    """What recognition asks of the survivor's person holds the old patient's results and lines; after the undo not."""
    raw = next(e.path.read_bytes() for e in examples(SHIPPED_ADAPTERS / "renmin") if e.accepted
               and b"|ORU" in e.path.read_bytes()[:200])
    world.accepted(raw, adt("A28", pid("NEW"), facility="DEMO1"))
    source = world.source("DEMO1")
    new = source.patient_id(source.patient_system(), "NEW")
    found = world.found("Observation", institution=source.institution)
    old = found[0]["subject"]["reference"].partition("/")[2]
    number = world.get("Patient", old)["identifier"][0]["value"]
    items = {coding["code"] for one in found for coding in one["code"].get("coding", ()) if coding["system"] == ITEMS}
    world.store.write(Unit(ledger=[change(line("L1", old, source.institution))]), GATEWAY)

    def shown(patient: str) -> tuple[int, int]:
        person = world.store.persons_of([patient])[patient]
        return len(world.store.results(person, items, 0)), len(world.store.lines_of(person))

    before = shown(old)
    assert before[0] > 0 and before[1] == 1 and shown(new) == (0, 0)
    world.accepted(adt("A40", pid("NEW"), f"MRG|{number}^^^^MR", facility="DEMO1", at="20260102080000"))
    assert shown(new) == shown(old) == before
    world.accepted(adt("A37", pid("NEW"), pid(number), facility="DEMO1", at="20260103080000"))
    assert (shown(new), shown(old)) == ((0, 0), before)
    check_consistent(world.store)


def test_a_merge_of_an_unknown_patient_is_kept_for_what_comes_later(world: World) -> None:
    """MRG-1 names nobody yet: an inactive Patient stands for the number, and a late result is the survivor's."""
    world.accepted(adt("A40", pid("B"), "MRG|A^^^^MR||||||李^小明"))
    old = world.patient("A")
    assert (old["active"], old["name"][0]["text"]) == (False, "李小明")
    world.accepted(result("A", "F1", "1.1", at="20240601090000"))
    assert world.values("B") == ["1.1"]
    assert world.patient("A") == old  # the laboratory's copy is no registration
    check_consistent(world.store)


def test_a_late_result_under_the_old_number_is_the_survivors(two: World) -> None:
    """It keeps the old Patient as its subject and is found by both."""
    two.accepted(adt(*MERGE), result("A", "F3", "3.3", at="20240601090000"))
    assert two.values("B") == ["1.1", "2.2", "3.3"]
    two.accepted(adt(*UNDO, at="20240602080000"))
    assert two.values("B") == ["2.2"]


@pytest.mark.parametrize("event", ["A18", "A30", "A34", "A36", "A39", "A40", "A46", "A47", "A48"])
def test_every_event_that_merges_or_renames(two: World, event: str) -> None:
    """Merges of all versions, and the change of a number, say the same by PID-3 and MRG-1."""
    two.accepted(adt(event, pid("B"), "MRG|A^^^^MR", version="2.3"))
    assert links(two.patient("A")) == {two.patient_id("B"): "replaced-by"}
    assert two.values("B") == ["1.1", "2.2"]


def test_chains_and_several_pairs(world: World) -> None:
    """A into B and B into C, and D into C, in one message or in several: one person; B is inactive, C is not."""
    numbers = [("H1", n) for n in "ABCDEF"]
    world.accepted(*(adt("A28", pid(n)) for n in "ABCDEF"),
                   adt("A40", pid("B"), "MRG|A^^^^MR", pid("C"), "PD1|||", "MRG|B^^^^MR"),
                   adt("A40", pid("C"), "MRG|D^^^^MR"), adt("A40", pid("F"), "MRG|E^^^^MR"))
    assert world.persons(numbers) == [{("H1", n) for n in "ABCD"}, {("H1", "E"), ("H1", "F")}]
    assert [world.patient(n).get("active", True) for n in "ABCD"] == [False, False, True, False]
    assert links(world.patient("B")) == {world.patient_id("A"): "replaces", world.patient_id("C"): "replaced-by"}
    world.accepted(adt("A37", pid("C"), pid("B"), at="20240502080000"))
    assert world.persons(numbers[:4]) == [{("H1", "A"), ("H1", "B")}, {("H1", "C"), ("H1", "D")}]
    assert world.patient("B").get("active", True)
    check_consistent(world.store)


@pytest.mark.parametrize("segments, where", [
    ((pid("A"), "MRG|A^^^^MR"), "MRG-1"), ((pid("A"),), "MRG"), ((pid("A"), "MRG||||"), "MRG-1"),
    (("MRG|A^^^^MR",), "PID")])
def test_a_merge_that_names_no_two_patients_is_refused(two: World, segments: tuple[str, ...], where: str) -> None:
    """INVALID with the place; nothing has changed."""
    before = two.versions("Patient", two.patient_id("A"))
    receipt = two.send(adt("A40", *segments))
    assert (receipt.category, receipt.where) == ("invalid", where)
    assert two.versions("Patient", two.patient_id("A")) == before


def test_a_merge_said_twice_makes_no_version(two: World) -> None:
    """The same bytes, or the same merge of one time in another message: nothing new; of a later time, its time."""
    first = adt(*MERGE, at="20240502080000")
    two.accepted(first)
    versions = {n: two.versions("Patient", two.patient_id(n)) for n in "AB"}
    assert two.send(first).resend
    two.accepted(adt(*MERGE, at="20240502080000"))
    assert versions == {n: two.versions("Patient", two.patient_id(n)) for n in "AB"}
    two.accepted(adt(*MERGE, at="20240503080000"))
    [link] = two.patient("A")["link"]
    assert link["extension"] == [{"url": LINK_SINCE, "valueInstant": "2024-05-03T00:00:00.000000Z"}]


def test_the_newest_of_two_crossing_merges_counts_in_any_order(store: Store, tmp_path: Path) -> None:
    """A into B, then B into A: whichever message comes first, A is who remains."""
    world = World(store, tmp_path)
    for n, order in enumerate(itertools.permutations(range(3))):
        a, b = f"A{n}", f"B{n}"
        said = [adt("A40", pid(b), f"MRG|{a}^^^^MR", at="20240502080000"),
                adt("A40", pid(a), f"MRG|{b}^^^^MR", at="20240503080000"), adt("A08", pid(b), at="20240504080000")]
        world.accepted(*(said[at] for at in order))
        old, kept = world.patient(b), world.patient(a)
        assert (links(kept), kept.get("active", True)) == ({old["id"]: "replaces"}, True)
        assert (links(old), old.get("active", True)) == ({kept["id"]: "replaced-by"}, False)


def test_link_and_unlink(two: World) -> None:
    """A24 says that two numbers are one person, and both stay in use; A37 takes it back."""
    before = [two.patient("A"), two.patient("B")]
    two.accepted(adt("A24", pid("A"), "PD1||", pid("B"), at="20240502080000"))
    assert links(two.patient("A")) == {two.patient_id("B"): "seealso"} and "active" not in two.patient("A")
    assert two.values("A") == ["1.1", "2.2"]
    two.accepted(adt("A37", pid("A"), pid("B"), at="20240503080000"))
    assert [_without_ends(two.patient(n)) for n in "AB"] == before
    assert two.values("A") == ["1.1"]


def test_an_undo_of_what_was_never_said_is_refused(two: World) -> None:
    """NOT_FOUND: its sender believes that two are one which are not, or not by this link."""
    receipt = two.send(adt(*UNDO))
    assert (receipt.category, receipt.where) == ("not-found", "PID-3")
    alone = two.send(adt("A37", pid("A")))
    assert (alone.category, alone.where) == ("invalid", "PID")


def test_an_older_undo_does_not_undo_a_newer_merge(two: World) -> None:
    """It comes late; the pair was merged again since."""
    two.accepted(adt(*MERGE, at="20240505080000"), adt(*UNDO, at="20240504080000"))
    assert two.values("A") == ["1.1", "2.2"]


@pytest.mark.parametrize("older", [MERGE, ("A24", pid("A"), pid("B")), ("A47", pid("A"), "MRG|B^^^^MR")])
def test_an_older_merge_does_not_undo_a_newer_undo(two: World, older: tuple[str, ...]) -> None:
    """It comes late, whatever it is: the pair was told apart since. What registration tells meanwhile keeps that, and a
    newer merge counts again."""
    two.accepted(adt(*MERGE, at="20240502080000"), adt(*UNDO, at="20240504080000"),
                 adt("A08", pid("A", name="王^大明", f6="李"), at="20240505080000"),
                 adt("A31", pid("B"), at="20240501080000"), adt(*older, at="20240503080000"))
    assert (two.values("A"), two.values("B")) == (["1.1"], ["2.2"])
    assert not any({"link", "active"} & two.patient(n).keys() for n in "AB")
    two.accepted(adt(*UNDO, at="20240504090000"), adt(*older, at="20240504083000"))  # told apart again, as they are
    assert two.values("A") == ["1.1"]
    two.accepted(adt(*older, at="20240506080000"))
    assert two.values("A") == two.values("B") == ["1.1", "2.2"]
    assert not any(one["url"] == LINK_ENDED for n in "AB" for one in two.patient(n).get("extension", ()))
    check_consistent(two.store)


def test_an_undo_of_patients_that_nobody_knows_is_kept_for_what_comes_later(world: World) -> None:
    """The A37 comes first of all: the older merge, which comes late, merges nobody."""
    world.accepted(adt(*UNDO, at="20240503080000"), adt(*MERGE, at="20240502080000"), result("A", "F1", "1.1"))
    assert (world.values("A"), world.values("B")) == (["1.1"], [])


def test_a_late_merge_brings_no_deleted_patient_back(two: World) -> None:
    """A29 ended A after it was told apart; the older merge, which changes nothing, does not make it active."""
    two.accepted(adt(*MERGE, at="20240502080000"), adt(*UNDO, at="20240504080000"),
                 adt("A29", pid("A"), at="20240505080000"), adt(*MERGE, at="20240503080000"))
    assert two.patient("A")["active"] is False and "link" not in two.patient("A")


PAIR = {"A40": ("A40", pid("B"), "MRG|A^^^^MR"), "A47": ("A47", pid("A"), "MRG|B^^^^MR"),
        "A24": ("A24", pid("A"), pid("B")), "A37": ("A37", pid("B"), pid("A"))}
KINDS = {"A40": "replaced-by", "A47": "replaces", "A24": "seealso"}


def test_the_newest_word_about_two_patients_counts_in_whatever_order(store: Store, tmp_path: Path) -> None:
    """Any messages about one pair, delivered in any order; an undo that finds nothing to undo is sent again at the end,
    as `huren inbox replay` does."""
    world = World(store, tmp_path)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(sorted(PAIR)), min_size=1, max_size=6).flatmap(
        lambda events: st.tuples(st.just(events), st.permutations(range(len(events))))))
    def run(case: tuple[list[str], list[int]]) -> None:
        events, order = case
        facility = f"P{next(_EXAMPLES)}"
        world.accepted(*(adt("A28", pid(n), at="20240401080000", facility=facility) for n in "AB"))
        said = [adt(*PAIR[event], at=f"2024050{n + 1}080000", facility=facility) for n, event in enumerate(events)]
        refused = [raw for at in order if world.send(raw := said[at]).category is not None]
        for raw in refused:
            world.send(raw.replace(b"|P|2.5.1", b"x|P|2.5.1"))  # under another control id
        found = links(world.patient("A", facility))
        assert list(found.values()) == ([KINDS[events[-1]]] if events[-1] in KINDS else [])

    run()


def _without_ends(patient: Resource) -> Resource:
    """A Patient as if it had never been linked to another."""
    extension = [one for one in patient.get("extension", ()) if one["url"] != LINK_ENDED]
    plain = {name: value for name, value in patient.items() if name != "extension"}
    return {**plain, "extension": extension} if extension else plain


def test_registration_keeps_the_links(two: World) -> None:
    """An update of either Patient, late or not, and a merge that comes late, lose no link."""
    two.accepted(adt("A08", pid("A", name="王^大明"), at="20240510080000"), adt(*MERGE, at="20240502080000"),
                 adt("A08", pid("B", name="王^大明"), at="20240511080000"), adt("A31", pid("A"), at="20240501100000"))
    assert links(two.patient("A")) == {two.patient_id("B"): "replaced-by"}
    assert links(two.patient("B")) == {two.patient_id("A"): "replaces"}
    assert two.patient("A")["name"][0]["text"] == two.patient("B")["name"][0]["text"] == "王大明"
    two.accepted(adt("A08", pid("A"), at="20240512080000"))
    assert two.patient("A")["active"] is False


def test_a_person_of_two_hospitals_and_a_merge_in_one(world: World) -> None:
    """H1's C is H2's X by the national number; A is merged into C: A's results are found from H2, until the undo."""
    number = national()
    world.accepted(adt("A28", pid("A")), adt("A28", pid("C", id_number=number)),
                   adt("A28", pid("X", id_number=number), facility="H2"),
                   result("A", "F1", "1.1"), result("C", "F2", "2.2"), result("X", "F3", "3.3", facility="H2"))
    assert world.values("X", "H2") == ["2.2", "3.3"]
    world.accepted(adt("A40", pid("C", id_number=number), "MRG|A^^^^MR", at="20240502080000"))
    assert world.values("X", "H2") == world.values("A") == ["1.1", "2.2", "3.3"]
    own = Caller("h2", world.source("H2").institution, ("institution/*.rs",))
    shown = world.found("Observation", own, patient=world.patient_id("X", "H2"))
    assert len(shown) == 1  # a merge opens no hospital's data to another
    world.accepted(adt("A37", pid("C"), pid("A"), at="20240503080000"))
    assert world.values("X", "H2") == ["2.2", "3.3"] and world.values("A") == ["1.1"]
    check_consistent(world.store)


def test_a_hospital_merges_its_own_patients_only(world: World) -> None:
    """Equal numbers of another hospital are other patients."""
    for facility in ("H1", "H2"):
        world.accepted(*(adt("A28", pid(n), facility=facility) for n in "AB"))
    world.accepted(adt(*MERGE, facility="H2"))
    assert world.persons([(f, n) for f in ("H1", "H2") for n in "AB"]) == [
        {("H1", "A")}, {("H1", "B")}, {("H2", "A"), ("H2", "B")}]


@pytest.mark.parametrize("told", [True, False])
def test_a_number_that_was_somebody_elses_does_not_come_along(world: World, told: bool) -> None:
    """A child was registered under its mother's number and is merged into its own record, whose number the merge tells
    or registration told before: the mother is not in it."""
    mother, child = national(born="19850101", order=102), national(born="20200101", order=102)
    world.accepted(adt("A28", pid("M", born="19850101", sex="F", id_number=mother), facility="H2"),
                   adt("A28", pid("A", born="19850101", sex="F", id_number=mother)),
                   adt("A28", pid("C", born="20200101", sex="F", id_number=child)))
    assert world.persons([("H1", "A"), ("H2", "M")]) == [{("H1", "A"), ("H2", "M")}]
    before = world.patient("A")
    survivor = pid("C", born="20200101", sex="F", id_number=child if told else "")
    world.accepted(adt("A40", survivor, "MRG|A^^^^MR", at="20240502080000"))
    world.accepted(adt("A08", pid("A", born="19850101", sex="F", id_number=mother), at="20240502090000"))
    assert world.persons([("H1", "A"), ("H1", "C"), ("H2", "M")]) == [{("H1", "A"), ("H1", "C")}, {("H2", "M")}]
    world.accepted(adt("A37", pid("C", born="20200101", sex="F"), pid("A", born="19850101", sex="F"),
                       at="20240503080000"))
    assert _without_ends(world.patient("A")) == before
    assert world.persons([("H1", "A"), ("H2", "M")]) == [{("H1", "A"), ("H2", "M")}]


def test_another_identifier_that_changes_is_no_merge(two: World) -> None:
    """A47 of an identity card: the Patient has the new number; no second Patient is made of the old one."""
    wrong, right = national(order=101), national(order=103)
    two.accepted(adt("A08", pid("A", id_number=wrong), at="20240502080000"))
    two.accepted(adt("A47", pid("A", id_number=right), f"MRG|{wrong}^^^^NNCHN", at="20240503080000"))
    patient = two.patient("A")
    assert [i["value"] for i in patient["identifier"]] == ["A", right] and "link" not in patient


def test_many_messages_about_one_patient_at_once(world: World) -> None:
    """Merges into one survivor, updates of it and results, from many threads: each is stored, and no link is lost."""
    world.accepted(adt("A28", pid("S")), *(adt("A28", pid(f"M{n}")) for n in range(8)))
    messages = [adt("A40", pid("S"), f"MRG|M{n}^^^^MR", at=f"2024050208000{n}") for n in range(8)]
    messages += [adt("A08", pid("S", f13=f"0571-{n}"), at=f"2024050208001{n}") for n in range(4)]
    messages += [result(f"M{n}", f"F{n}", str(n)) for n in range(4)]
    with ThreadPoolExecutor(16) as pool:
        receipts = list(pool.map(world.send, messages))
    assert [receipt.category for receipt in receipts] == [None] * 16
    assert links(world.patient("S")) == {world.patient_id(f"M{n}"): "replaces" for n in range(8)}
    assert world.patient("S")["telecom"][0]["value"] == "0571-3"
    assert world.values("S") == ["0", "1", "2", "3"]
    check_consistent(world.store)


# ---------------------------------------------------------------- any sequence

PATIENTS = [("H1", n) for n in "ABCD"] + [("H2", n) for n in "XY"]
_PAIRS = st.sampled_from([(f, a, b) for f, names in (("H1", "ABCD"), ("H2", "XY")) for a in names for b in names
                          if a != b])
STEPS = st.lists(st.tuples(st.sampled_from(["A40", "A40", "A47", "A24", "A37", "A37"]), _PAIRS)
                 | st.tuples(st.just("A08"), st.sampled_from(PATIENTS), st.sampled_from([0, 1])), max_size=12)
_EXAMPLES = itertools.count()


Who = tuple[str, str]


@dataclass
class _Model:
    """Who is one person, in the plainest way: whoever is linked, and whoever has an equal number that counts."""

    kinds: dict[tuple[Who, Who], str] = field(default_factory=dict)  # type of the link from one to the other
    ended: set[tuple[Who, Who]] = field(default_factory=set)  # who were linked once
    numbers: dict[Who, str] = field(default_factory=dict)
    old: set[Who] = field(default_factory=set)  # whose number is somebody else's, as a merge has shown

    def number(self, who: Who, number: str) -> None:
        """Registration tells a number."""
        if self.numbers.get(who) != number:
            self.old.discard(who)
        self.numbers[who] = number

    def link(self, one: Who, other: Who, kind: str) -> None:
        """A link of ``one`` to ``other``; "" takes it away."""
        for p, q, said in ((one, other, kind), (other, one, OPPOSITE[kind])):
            self.kinds.pop((p, q), None)
            if said:
                self.kinds[p, q] = said
            else:
                self.ended.add((p, q))
            if self.is_active(p):
                self.old.discard(p)
        if kind == "replaces":
            own, others = self.counting(one), self.counting(other)
            if own and others and own != others:
                self.old.add(other)

    def is_active(self, who: Who) -> bool:
        """Whether nobody replaced it."""
        return all(kind != "replaced-by" for (p, _), kind in self.kinds.items() if p == who)

    def counting(self, who: Who) -> str:
        """The number that makes its person."""
        return "" if who in self.old else self.numbers.get(who, "")

    def persons(self) -> list[set[Who]]:
        """The connected components."""
        edges = [{p, q} for p, q in self.kinds]
        edges += [{p, q} for p, q in itertools.combinations(PATIENTS, 2)
                  if self.counting(p) and self.counting(p) == self.counting(q)]
        groups = [{patient} for patient in PATIENTS]
        for edge in edges:
            joined = set().union(*(group for group in groups if group & edge))
            groups = [group for group in groups if not group & edge] + [joined]
        return sorted(groups, key=sorted)


def _step(world: World, example: int, event: str, who: tuple[str, ...], more: list[int], time: str,
          model: _Model) -> None:
    """Send one event, and do the same to the model."""
    prefix = f"E{example}"
    if event == "A08":
        facility, name = who
        number = national(order=4 * example + 2 * more[0] + 1)  # nobody's of another example
        world.accepted(adt("A08", pid(prefix + name, id_number=number), at=time, facility=facility))
        model.number((facility, name), number)
        return
    facility, one, other = who
    first, second = pid(prefix + one), pid(prefix + other)
    pair = (facility, one), (facility, other)
    if event == "A37":
        receipt = world.send(adt(event, first, second, at=time, facility=facility))
        assert receipt.category == (None if pair in model.kinds or pair in model.ended else "not-found")
        if pair in model.kinds:
            model.link(*pair, "")
        return
    world.accepted(adt(event, first, second if event == "A24" else f"MRG|{prefix}{other}^^^^MR", at=time,
                       facility=facility))
    model.link(*pair, "seealso" if event == "A24" else "replaces")


def test_any_sequence_of_merges_links_and_undos(store: Store, tmp_path: Path) -> None:
    """After every step persons are the connected components of links and numbers, and the tables hold together."""
    world = World(store, tmp_path)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STEPS)
    def run(steps: list[tuple[Any, ...]]) -> None:
        example = next(_EXAMPLES)
        prefix = f"E{example}"
        model = _Model()
        world.accepted(*(adt("A28", pid(prefix + n), facility=f) for f, n in PATIENTS))
        for at, (event, who, *more) in enumerate(steps):
            time = f"202405020800{at:02}"
            _step(world, example, event, who, more, time, model)
            found = [{(f, n.removeprefix(prefix)) for f, n in group}
                     for group in world.persons((f, prefix + n) for f, n in PATIENTS)]
            assert sorted(found, key=sorted) == model.persons()

    run()
    check_consistent(store)


@pytest.mark.parametrize("half", [{}, {"extension": [{"url": "other", "valueReference": {"display": "B"}}]},
                                  {"extension": [{"url": "since", "valueInstant": "2024-05-03T00:00:00Z"}]}])
def test_an_end_that_says_nothing_hinders_no_merge(half: dict[str, Any]) -> None:
    """A FHIR client may have written half of the extension: the link is made, and what said nothing is gone."""
    patient = {"resourceType": "Patient", "id": "a", "extension": [{"url": LINK_ENDED, **half}]}
    made = apply(patient, [Edit("b", "seealso", "2024-05-02T00:00:00.000000Z", place="PID-3")])
    assert [one["other"] for one in made["link"]] == [{"reference": "Patient/b"}] and "extension" not in made
