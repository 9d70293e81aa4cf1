"""Patients, visits and what hangs on them from ADT (`gateway/hl7v2/adt.py`), also in a wrong order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from adt_world import World, adt, national, one, pid, pv1, result
from hypothesis import given, settings
from hypothesis import strategies as st
from support_source import make_source, resources, segment

from gateway import hl7v2
from gateway.adapter import load_all
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.hl7v2 import adt_tables
from gateway.source import Conversion, Resource
from gateway.store import Store, open_store

CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "hl7v2"


def convert(event: str, *segments: str, **changes: str) -> Conversion:
    """The conversion of an ADT message; each resource is valid."""
    made = hl7v2.convert(hl7v2.parse(adt(event, *segments, **changes)), make_source())
    for change in made.changes:
        check.require_valid(change.resource, profile=True)
    return made


def only(conversion: Conversion, kind: str) -> Resource:
    """The only resource of a type."""
    found: Resource = one(resources(conversion, kind))
    return found


def codes(concept: Resource) -> list[str]:
    """The codes of a CodeableConcept."""
    return [coding["code"] for coding in concept["coding"]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty world on SQLite: what is asked here is what the resources become."""
    store = open_store(Settings(data=tmp_path), migrate=True)
    yield World(store, tmp_path)
    store.close()


# ---------------------------------------------------------------- events

@pytest.mark.parametrize("event, status", sorted(adt_tables.STATUS.items()))
def test_each_event_gives_the_visit_its_status(event: str, status: str) -> None:
    """`adt_tables.STATUS`, for a visit that nobody knew."""
    assert only(convert(event, pid("A"), pv1()), "Encounter")["status"] == status


@pytest.mark.parametrize("event, kind, end, status", [
    ("A08", "I", "", "in-progress"), ("A08", "P", "", "planned"), ("A08", "U", "", "unknown"),
    ("A08", "I", "20240501", "finished"), ("A01", "I", "20240501", "finished"), ("A11", "I", "20240501", "cancelled"),
    ("A13", "I", "20240501", "in-progress"), ("A31", "O", "", "in-progress")])
def test_where_the_event_says_nothing_the_class_and_the_discharge_do(event: str, kind: str, end: str,
                                                                     status: str) -> None:
    """The guide's PV1-2 and PV1-45; a cancellation counts although a discharge time is told."""
    made = only(convert(event, pid("A"), pv1(kind=kind, f44="20240430", f45=end)), "Encounter")
    assert made["status"] == status
    assert ("end" in made["period"]) == (bool(end) and event != "A13")


def test_every_event_of_the_tables_is_taken_and_others_are_named() -> None:
    """UNSUPPORTED with detail event for A20; the bare ADT of 2.1 says its event in EVN-1."""
    for event in sorted(adt_tables.EVENTS - adt_tables.MERGE - adt_tables.CHANGE - {"A24", "A37", "A42", "A50"}):
        assert only(convert(event, pid("A")), "Patient")
    with pytest.raises(GatewayError) as refusal:
        convert("A20", pid("A"))
    assert (refusal.value.category, refusal.value.where, refusal.value.detail) == (
        Category.UNSUPPORTED, "MSH-9", "event")
    bare = convert("", "EVN|A03|20240501080000", pid("A"), pv1(), version="2.1")
    assert only(bare, "Encounter")["status"] == "finished"
    with pytest.raises(GatewayError) as refusal:
        convert("", "EVN|A20", pid("A"))
    assert refusal.value.where == "EVN-1"


def test_patient_is_required() -> None:
    """INVALID at PID and PID-3."""
    for segments, where in ((("EVN|A01", pv1()), "PID"), (("PID|1||||王",), "PID-3")):
        with pytest.raises(GatewayError) as refusal:
            convert("A01", *segments)
        assert (refusal.value.category, refusal.value.where) == (Category.INVALID, where)


def test_recorded_and_happened() -> None:
    """as_of is EVN-2 to the second, never after MSH-7; a coarse one or none gives MSH-7."""
    sent, recorded = 1714521600_000000, 1714518000_000000
    for evn, expected in (("EVN||20240501070000", recorded), ("EVN||202405010700", sent), ("EVN||20240501", sent),
                          ("EVN||20240501090000", sent), ("", sent)):
        conversion = convert("A01", *([evn] if evn else []), pid("A"), pv1())
        assert {c.as_of for c in conversion.changes if c.resource["resourceType"] in ("Patient", "Encounter")} == {
            expected}


# ---------------------------------------------------------------- PID

def test_pid_as_the_guide_has_it() -> None:
    """Religion, licence, mother, birth place, citizenship, nationality, death, species."""
    made = convert("A28", pid("A", f6="李", f17="BUD^Buddhist", f20="浙A123^浙江^20300101", f21="P9^^^^MR",
                              f23="杭州", f25="2", f26="CHN^China~USA", f28="CHN", f29="20240430101500", f35="DOG^Dog",
                              f36="X^Mongrel"))
    patient = only(made, "Patient")
    extensions = {e["url"].rpartition("/")[2]: e for e in patient["extension"]}
    assert set(extensions) == {"patient-mothersMaidenName", "patient-religion", "patient-birthPlace",
                               "patient-citizenship", "patient-nationality", "patient-animal"}
    assert extensions["patient-birthPlace"]["valueAddress"] == {"text": "杭州"}
    assert len([e for e in patient["extension"] if e["url"].endswith("citizenship")]) == 2
    licence = patient["identifier"][-1]
    assert (licence["type"]["coding"][0]["code"], licence["value"], licence["period"]) == (
        "DL", "浙A123", {"end": "2030-01-01"})
    assert patient["deceasedDateTime"] == "2024-04-30T10:15:00+08:00" and patient["multipleBirthInteger"] == 2
    mother = only(made, "RelatedPerson")
    assert codes(mother["relationship"][0]) == ["MTH"] and mother["identifier"][0]["value"] == "P9"


@pytest.mark.parametrize("sent, tables, tag", [
    ("zh^中文^ISO639-1", {}, "zh"), ("chi^Chinese^ISO639-2", {}, "zh"), ("ZHO^^HL70296", {}, "zh"),
    ("eng-us^English^HL70296", {}, "en-US"), ("zh-hans-cn^^BCP47", {}, "zh-Hans-CN"), ("yue^粤语^ISO639-3", {}, "yue"),
    ("9^官话^L^cmn^Mandarin^HL70296", {}, "cmn"), ("1^汉语", {"PID-15": {"1": "zh"}, "NK1-20": {"1": "zh"}}, "zh"),
    ("en", {"PID-15": {"en": "en"}, "NK1-20": {"en": "en"}}, "en"),
    ("CH^Chinese", {}, ""), ("zh", {}, ""), ("zz^^ISO639-1", {}, ""), ("Chinese^^ISO639-1", {}, "")])
def test_a_language_is_a_tag_where_the_sender_names_iso_639(sent: str, tables: dict[str, Any], tag: str) -> None:
    """PID-15 and NK1-20: the BCP 47 tag that R4 wants, before what was sent; a code of no named table is none."""
    raw = adt("A08", pid("A", f15=sent), f"NK1|1|李^红|MTH{'|' * 17}{sent}")
    made = hl7v2.convert(hl7v2.parse(raw), make_source(tables=tables))
    for kind in ("Patient", "RelatedPerson"):
        first, *others = only(made, kind)["communication"][0]["language"]["coding"]
        if tag:
            assert first == {"system": "urn:ietf:bcp:47", "code": tag} and others[-1]["system"] != first["system"]
        else:
            assert first["system"] != "urn:ietf:bcp:47" and not others


def test_what_a_person_is_called_by_is_a_nickname() -> None:
    """XPN.15 beside the name that it belongs to; the official name stays first."""
    patient = only(convert("A08", pid("A", name="Meyer^Johann" + "^" * 13 + "Hannes")), "Patient")
    assert [(name.get("use"), name["text"]) for name in patient["name"]] == [(None, "Johann Meyer"),
                                                                             ("nickname", "Hannes")]


def test_where_a_person_worships(world: World) -> None:
    """PD1-14; an update without PD1 keeps it."""
    world.accepted(adt("A08", pid("A", f17="BUD"), "PD1" + "|" * 14 + "灵隐寺"),
                   adt("A08", pid("A"), at="20240502080000"))
    extensions = {one["url"].rpartition("/")[2]: one for one in world.patient("A")["extension"]}
    assert extensions["patient-congregation"]["valueString"] == "灵隐寺" and "patient-religion" in extensions


def test_roles_behind_the_patient_are_those_of_the_patient() -> None:
    """ROL behind PID: the doctor of primary care is the Patient's generalPractitioner, beside PD1-4; others, and one
    that is taken away, are not."""
    made = convert("A28", pid("A"), "ROL|1|AD|PP^Primary Care^HL70443|D7^赵", "ROL|2|AD|PP|D8^钱", "ROL|3|DE|PP|D9^孙",
                   "ROL|4|AD|AT|D6^李", "PD1||||D7^赵")
    assert [one["display"] for one in only(made, "Patient")["generalPractitioner"]] == ["赵", "钱"]


def test_general_practitioner_from_pd1() -> None:
    """PD1-3 (facility) and PD1-4 (doctor)."""
    made = convert("A28", pid("A"), "PD1|||西湖社区卫生服务中心^^9001|D7^赵^医生")
    facility, doctor = only(made, "Patient")["generalPractitioner"]
    assert facility["display"] == "西湖社区卫生服务中心" and doctor["reference"].startswith("Practitioner/")


@pytest.mark.parametrize("field, what", [("f7", "birthDate"), ("f29", "deceasedDateTime")])
def test_an_impossible_time_of_a_patient_is_left_out_with_a_remark(field: str, what: str) -> None:
    """A result or a visit is not refused for it; the remark names the field and no value."""
    patient_id = pid("A", **({"born": "19620352"} if field == "f7" else {field: "20241301"}))
    for raw in (adt("A08", patient_id), result("A", "F1").replace(b"PID|1||A^^^^MR", patient_id.encode())):
        made = hl7v2.convert(hl7v2.parse(raw), make_source())
        assert what not in only(made, "Patient")
        remark = one(made.remarks)
        assert remark.where == f"PID-{field[1:]}" and "19620352" not in remark.sentence
        assert "20241301" not in remark.sentence


# ---------------------------------------------------------------- the visit, event by event

def test_a_visit_from_admission_to_discharge(world: World) -> None:
    """Pre-admission, admission, transfer, discharge and its cancellation: what was told stays, what was is history."""
    world.accepted(adt("A05", pid("A"), pv1(kind="P", f3="内科^101^1", f5="PRE7"), at="20240430080000"))
    world.accepted(adt("A01", pid("A"), pv1(f3="内科^101^1", f4="E", f7="D1^赵", f10="MED", f14="7",
                                            f44="20240501080000"), "PV2|||R10^腹痛", at="20240501080500"))
    world.accepted(adt("A02", pid("A"), pv1(f3="外科^202^2", f6="内科^101^1"), at="20240502100000"))
    moved = world.visit()
    assert [(p["location"]["display"], p["status"], p.get("period")) for p in moved["location"]] == [
        ("内科 101 1", "completed", {"end": "2024-05-02T10:00:00+08:00"}),
        ("外科 202 2", "active", {"start": "2024-05-02T10:00:00+08:00"})]
    world.accepted(adt("A03", pid("A"), pv1(f36="01", f45="20240505110000"), at="20240505110500"))
    left = world.visit()
    assert (left["status"], left["period"]) == ("finished", {"start": "2024-05-01T08:00:00+08:00",
                                                             "end": "2024-05-05T11:00:00+08:00"})
    assert left["hospitalization"]["admitSource"]["text"] == "7"  # the discharge sent little, and nothing is lost
    assert left["hospitalization"]["preAdmissionIdentifier"]["value"] == "PRE7"
    assert (codes(left["type"][0]), left["reasonCode"][0]["text"], len(left["participant"])) == (["E"], "腹痛", 1)
    assert [(s["status"], s["period"].get("end")) for s in left["statusHistory"]] == [
        ("planned", "2024-05-01T08:00:00+08:00"), ("in-progress", "2024-05-05T11:00:00+08:00")]
    assert {p["status"] for p in left["location"]} == {"completed"}
    world.accepted(adt("A13", pid("A"), pv1(), at="20240505120000"))
    back = world.visit()
    assert back["status"] == "in-progress" and "end" not in back["period"]
    assert "dischargeDisposition" not in back["hospitalization"]
    assert [p["status"] for p in back["location"]] == ["completed", "active"]
    assert [s["status"] for s in back["statusHistory"]] == ["planned", "in-progress", "finished"]


def test_null_deletes_and_absent_keeps(world: World) -> None:
    """v2.5.1 2.5.3, for PID and PV1."""
    world.accepted(adt("A01", pid("A", f11="解放路1号^^杭州", f13="0571-1", f14="0571-2"),
                       pv1(f7="D1^赵", f8="D2^钱", f10="MED", f14="7", f44="20240501080000"), at="20240501080500"))
    world.accepted(adt("A08", "PID|1||A^^^^MR||||||||\"\"||0571-3", pv1(f8='""', f10='""', f14='""'),
                       at="20240502080000"))
    patient, visit = world.patient("A"), world.visit()
    assert "address" not in patient and patient["birthDate"] == "1980-02-29" and patient["name"]
    assert [(t["value"], t["use"]) for t in patient["telecom"]] == [("0571-3", "home"), ("0571-2", "work")]
    assert [codes(p["type"][0]) for p in visit["participant"]] == [["ATND"]]
    assert not visit.keys() & {"serviceType", "hospitalization"}
    assert visit["period"] == {"start": "2024-05-01T08:00:00+08:00"} and visit["class"]["code"] == "IMP"


def test_an_event_said_twice_makes_no_version(world: World) -> None:
    """Each event of a visit, sent again in another message: nothing new."""
    for event, at in (("A01", "20240501080000"), ("A02", "20240502080000"), ("A08", "20240503080000"),
                      ("A03", "20240504080000"), ("A08", "20240504090000"), ("A13", "20240505080000")):
        segments = (pid("A"), pv1(f3="外科^202^2" if event != "A01" else "内科^101^1", f7="D1^赵"))
        world.accepted(adt(event, *segments, at=at))
        versions = world.versions("Encounter", world.visit_id())
        world.accepted(adt(event, *segments, at=at, control_id=f"again-{event}-{at}"))
        assert world.versions("Encounter", world.visit_id()) == versions, event


def test_a_cancelled_transfer_did_not_happen(world: World) -> None:
    """A12: the patient is and was where PV1-3 says; A15's reserved place goes with A26."""
    world.accepted(adt("A01", pid("A"), pv1(f3="内科^101^1", f44="20240501080000"), at="20240501080000"),
                   adt("A15", pid("A"), pv1(f3="内科^101^1", f42="外科^202^2"), at="20240501090000"))
    assert [p["status"] for p in world.visit()["location"]] == ["active", "reserved"]
    world.accepted(adt("A26", pid("A"), pv1(f3="内科^101^1"), at="20240501100000"))
    first = world.visit()["location"]
    assert [p["status"] for p in first] == ["active"]
    world.accepted(adt("A02", pid("A"), pv1(f3="外科^202^2", f6="内科^101^1"), at="20240502080000"),
                   adt("A12", pid("A"), pv1(f3="内科^101^1"), at="20240502090000"))
    assert world.visit()["location"] == first


def test_leave_of_absence_and_cancelled_admission(world: World) -> None:
    """A21, A22, A11; an update afterwards does not bring the visit back."""
    world.accepted(adt("A01", pid("A"), pv1(f44="20240501080000"), at="20240501080000"))
    for at, (event, status) in enumerate((("A21", "onleave"), ("A22", "in-progress"), ("A11", "cancelled"),
                                          ("A08", "cancelled"))):
        world.accepted(adt(event, pid("A"), pv1(), at=f"2024050208000{at}"))
        assert world.visit()["status"] == status
    assert [s["status"] for s in world.visit()["statusHistory"]] == ["in-progress", "onleave", "in-progress"]


def test_a_cancelled_admission_frees_its_bed(world: World) -> None:
    """A11: no place of the visit is active any more, so that a board of beds shows it free."""
    world.accepted(adt("A01", pid("A"), pv1(f3="内科^101^1", f44="20240501080000"), at="20240501080000"))
    assert [place["status"] for place in world.visit()["location"]] == ["active"]
    world.accepted(adt("A11", pid("A"), pv1(f3="内科^101^1"), at="20240501090000"))
    assert [place["status"] for place in world.visit()["location"]] == ["completed"]


def test_events_in_any_order_end_in_the_same_state(world: World) -> None:
    """Admission, transfer and discharge: status, period and where the patient was are the same in all six orders."""
    def sent(visit: str) -> list[bytes]:
        return [adt("A01", pid("A"), pv1(visit, f3="内科^101^1", f7="D1^赵", f44="20240501080000"),
                    at="20240501080000"),
                adt("A02", pid("A"), pv1(visit, f3="外科^202^2", f6="内科^101^1"), at="20240502080000"),
                adt("A03", pid("A"), pv1(visit, f3="外科^202^2", f45="20240503080000"), at="20240503080000")]
    ends = []
    for n, order in enumerate(itertools.permutations(range(3))):
        messages = sent(f"V{n}")
        world.accepted(*(messages[at] for at in order))
        visit = world.visit(f"V{n}")
        ends.append((visit["status"], visit["period"], [p["status"] for p in visit["location"]],
                     [p["location"]["display"] for p in visit["location"]], len(visit["participant"])))
    assert all(end == ends[0] for end in ends), ends


def test_a_late_event_changes_nothing_that_a_later_one_told(world: World) -> None:
    """The name of an older A08 does not come back; what only the older one told is filled in."""
    world.accepted(adt("A08", pid("A", name="王^大明"), pv1(f10="SUR"), at="20240502080000"),
                   adt("A01", pid("A", f11="解放路1号"), pv1(f10="MED", f7="D1^赵", f44="20240501080000"),
                       at="20240501080000"))
    patient, visit = world.patient("A"), world.visit()
    assert patient["name"][0]["text"] == "王大明" and patient["address"]
    assert visit["serviceType"]["text"] == "SUR" and visit["period"] == {"start": "2024-05-01T08:00:00+08:00"}
    assert visit["participant"]


# ---------------------------------------------------------------- copies

def test_copies_of_results_never_win(world: World) -> None:
    """A laboratory's thinner copy that is newer changes neither Patient nor Encounter; else the newest counts."""
    world.accepted(adt("A01", pid("A", f11="解放路1号"), pv1(f3="内科^101^1", f44="20240501080000")))
    before = [world.patient("A"), world.visit()]
    world.accepted(result("A", "F1", at="20240601090000", visit="V1"))
    assert [world.patient("A"), world.visit()] == before
    world.accepted(result("N", "F2", at="20240601090000", visit="V2"), result("N", "F3", at="20240602090000",
                                                                             pid_more="||19800101", visit="V2"),
                   result("N", "F4", at="20240601100000", visit="V2"))
    assert world.patient("N")["birthDate"] == "1980-01-01" and world.visit("V2")["status"] == "in-progress"
    world.accepted(adt("A08", pid("N"), at="20240101080000"))  # older than the copies, and still worth more
    assert world.patient("N")["birthDate"] == "1980-02-29"


def test_the_identity_number_of_a_copy_is_kept(world: World) -> None:
    """Registration knows none: the laboratory's valid number makes the person, and further updates keep it."""
    number, other = national(), national(order=105)
    world.accepted(adt("A28", pid("X", id_number=number), facility="H2"), adt("A28", pid("A")))
    assert len(world.persons([("H1", "A"), ("H2", "X")])) == 2
    world.accepted(result("A", "F1", at="20240601090000", id_number=number))
    assert len(world.persons([("H1", "A"), ("H2", "X")])) == 1
    assert world.patient("A")["birthDate"] == "1980-02-29"  # what else the copy says is not taken
    world.accepted(adt("A08", pid("A"), at="20240602080000"))
    assert len(world.persons([("H1", "A"), ("H2", "X")])) == 1
    world.accepted(adt("A08", pid("A", id_number=other), at="20240603080000"),
                   result("A", "F2", at="20240604090000", id_number=number))  # registration's own number counts
    assert len(world.persons([("H1", "A"), ("H2", "X")])) == 2


@pytest.mark.parametrize("number, born", [(national()[:-1] + "0", "19800229"), (national(), "19900101")])
def test_a_number_that_is_wrong_or_does_not_fit_is_not_taken_from_a_copy(world: World, number: str, born: str) -> None:
    """A wrong check digit, or another birth date than registration's."""
    world.accepted(adt("A28", pid("A", born=born)))
    before = world.patient("A")
    world.accepted(result("A", "F1", at="20240601090000", id_number=number))
    assert world.patient("A") == before


# ---------------------------------------------------------------- what hangs on them

def test_locations_are_parts_of_each_other() -> None:
    """PL: bed in room in point of care in floor in building in facility; equal beds of two rooms are two."""
    made = convert("A01", pid("A"), pv1(f3="内科^101^1^东院^^^2号楼^3层^靠窗", f40="O"))
    places = resources(made, "Location")
    assert [p["name"] for p in places] == ["东院", "2号楼", "3层", "内科", "101", "1"]
    assert [p["partOf"]["reference"] for p in places[1:]] == [f"Location/{p['id']}" for p in places[:-1]]
    bed = places[-1]
    assert (bed["physicalType"]["coding"][0]["code"], bed["operationalStatus"]["code"], bed["description"]) == (
        "bd", "O", "靠窗")
    named = only(made, "Encounter")["location"][0]["location"]
    assert named == {"reference": f"Location/{bed['id']}", "display": "内科 101 1"}
    other = resources(convert("A01", pid("A"), pv1(f3="内科^102^1^东院^^^2号楼^3层")), "Location")[-1]
    assert other["id"] != bed["id"]


def test_next_of_kin_allergies_and_diagnoses() -> None:
    """NK1, AL1 and DG1 as RelatedPerson, AllergyIntolerance and Condition; the visit names its diagnoses."""
    made = convert("A01", pid("A"), "NK1|1|李^红|SPO^配偶|解放路1号^^杭州|13800000000|||20200101|||||||F|19810101",
                   pv1(), "DG1|1||K35.9^急性阑尾炎^I10||20240501|A|||||||||1|D1^赵", "DG1|2|||腹痛||W",
                   "AL1|1|DA|PCN^青霉素|SV|皮疹|20100101", "AL1|2|FA|^花生|MO")
    kin, conditions = only(made, "RelatedPerson"), resources(made, "Condition")
    assert codes(kin["relationship"][0]) == ["SPS", "SPO"] and kin["period"] == {"start": "2020-01-01"}
    assert (kin["gender"], kin["birthDate"], kin["name"][0]["text"]) == ("female", "1981-01-01", "李红")
    assert [c["code"].get("text") for c in conditions] == ["急性阑尾炎", "腹痛"]
    assert conditions[0]["onsetDateTime"] == "2024-05-01" and conditions[0]["asserter"]
    visit = only(made, "Encounter")
    assert [d["condition"]["reference"] for d in visit["diagnosis"]] == [f"Condition/{c['id']}" for c in conditions]
    assert codes(visit["diagnosis"][0]["use"]) == ["AD", "A"] and visit["diagnosis"][0]["rank"] == 1
    penicillin, peanut = resources(made, "AllergyIntolerance")
    assert (penicillin["category"], penicillin["criticality"], penicillin["reaction"][0]["severity"]) == (
        ["medication"], "high", "severe")
    assert peanut["category"] == ["food"] and "criticality" not in peanut


def test_a_group_of_segments_replaces_the_group_before(world: World) -> None:
    """v2.5.1 2.10.4.1: allergy, next of kin and diagnosis that are not sent again are retired; none says nothing."""
    def kinds() -> tuple[list[str], list[bool], list[str]]:
        allergies = world.found("AllergyIntolerance", patient=world.patient_id("A"), _sort="_id")
        return (sorted(codes(a["clinicalStatus"])[0] + a["code"]["text"] for a in allergies),
                sorted(p["active"] for p in world.found("RelatedPerson", patient=world.patient_id("A"))),
                sorted(codes(c["clinicalStatus"])[0] for c in world.found("Condition", patient=world.patient_id("A"))))

    full = (pid("A"), "NK1|1|李^红|SPO", "NK1|2|王^强|FTH", pv1(), "AL1|1|DA|^青霉素", "AL1|2|DA|^磺胺",
            "DG1|1||^阑尾炎||||A", "DG1|2||^腹痛")
    world.accepted(adt("A01", *full, at="20240501080000"))
    assert kinds() == (["active磺胺", "active青霉素"], [True, True], ["active", "active"])
    world.accepted(adt("A08", pid("A"), pv1(), at="20240502080000"))
    assert kinds() == (["active磺胺", "active青霉素"], [True, True], ["active", "active"])
    world.accepted(adt("A08", pid("A"), "NK1|1|王^强|FTH", pv1(), "AL1|1|DA|^磺胺", "DG1|1||^腹痛",
                       at="20240503080000"))
    assert kinds() == (["active磺胺", "inactive青霉素"], [False, True], ["active", "inactive"])
    world.accepted(adt("A01", *full, at="20240502090000"))  # late: what was retired stays so
    assert kinds() == (["active磺胺", "inactive青霉素"], [False, True], ["active", "inactive"])
    world.accepted(adt("A08", *full, at="20240504080000"))
    assert kinds() == (["active磺胺", "active青霉素"], [True, True], ["active", "active"])
    world.accepted(adt("A08", pid("A"), 'AL1|1||""', at="20240505080000"))
    assert kinds()[0] == ["inactive磺胺", "inactive青霉素"]


def test_the_diagnoses_of_a_discharge_stand_beside_those_of_the_admission(world: World) -> None:
    """A03 and A13 retire none; an A08 does."""
    world.accepted(adt("A01", pid("A"), pv1(), "DG1|1||^腹痛||20240501|A", at="20240501080000"),
                   adt("A03", pid("A"), pv1(), "DG1|1||^阑尾炎||20240501|F", at="20240502080000"))
    assert [d["use"]["text"] for d in world.visit()["diagnosis"]] == ["F", "A"]
    active: dict[str, Any] = {"patient": world.patient_id("A"), "clinical-status": "active"}
    assert len(world.found("Condition", **active)) == 2
    world.accepted(adt("A08", pid("A"), pv1(), "DG1|1||^阑尾炎||20240501|F", at="20240503080000"))
    assert [d["use"]["text"] for d in world.visit()["diagnosis"]] == ["F"]
    assert len(world.found("Condition", **active)) == 1


def test_a_late_observation_refuses_no_event(world: World) -> None:
    """The older height is passed over; what else the late event tells is stored."""
    world.accepted(adt("A08", pid("A"), pv1(), "OBX|1|NM|HT^身高||172|cm|||||F", at="20240502080000"),
                   adt("A01", pid("A"), pv1(f7="D1^赵"), "OBX|1|NM|HT^身高||171|cm|||||F", at="20240501080000"))
    assert world.values("A") == ["172"] and world.visit()["participant"]


@pytest.mark.parametrize("wrong, where", [
    ("OBX|1|NM|||172|cm|||||F", "OBX[1]-3"), ("OBX|1|NM|HT^身高||172|cm|||||Q", "OBX[1]-11"),
    ("OBX|1|NM|HT^身高||172|cm|||||F|||20241301", "OBX[1]-14"), ("OBX|1|NM|HT^身高|||cm|||||U", "OBX[1]-5"),
    ("OBX|1|ED|DOC^证||^application^pdf^Base64^%PDF!|||||Q|F", "OBX[1]-5"),
    ("OBX|1|ED|DOC^证||^application^pdf^Base64^JVBERi0xLjQ=||||||Q", "OBX[1]-11")])
def test_a_wrong_observation_refuses_no_event(wrong: str, where: str) -> None:
    """It is left out with a remark that names it; the person, the visit and the other observation are taken."""
    made = convert("A08", pid("A"), pv1(), wrong, "OBX|2|NM|WT^体重||70|kg|||||F")
    assert only(made, "Patient") and only(made, "Encounter")
    assert only(made, "Observation")["code"]["text"] == "体重"
    remark = one(made.remarks)
    assert remark.where == where and "is left out" in remark.sentence
    assert not made.documents and not resources(made, "Binary")


@pytest.mark.parametrize("sent, gender, remarked", [
    ("F", "female", False), ("m", "male", False), ("", None, False), ('""', None, False), ("女", None, True),
    ("9", None, True)])
def test_an_unknown_sex_is_left_out_with_a_remark(sent: str, gender: str | None, remarked: bool) -> None:
    """PID-8 of an event and of a result: the remark names the field and not the value; NK1-15 likewise."""
    for raw, place in ((adt("A08", pid("A", sex=sent)), "PID-8"),
                       (result("A", "F1", pid_more=f"|||{sent}"), "PID-8"),
                       (adt("A08", pid("A"), f"NK1|1|李^红|MTH{'|' * 12}{sent}"), "NK1-15")):
        made = hl7v2.convert(hl7v2.parse(raw), make_source())
        assert only(made, "Patient" if place == "PID-8" else "RelatedPerson").get("gender") == gender
        assert [remark.where for remark in made.remarks] == [place] * remarked
        assert not any(sent in remark.sentence.split() for remark in made.remarks)


def test_what_follows_iam_is_about_the_allergy() -> None:
    """NTE, IAR and IAM-23, 24 and 27: the notes, each reaction with its severity, who recorded it when, and the
    allergen by a clinician's code; an NTE behind OBX is the observation's."""
    made = convert("A60", pid("A"), "OBX|1|NM|HT^身高||172|cm|||||F", "NTE|1||赤足",
                   "IAM|1|DA|PCN^青霉素^L|SV|||AL7||||||20240401||||C||||||D7^赵|20240430|||764146007^Penicillin^SCT",
                   "NTE|1||幼时发现||D7^赵|20240501", "IAR|RASH^皮疹|MI|AL^过敏|停药", "IAR|SHOCK^休克|SV", "IAR||MI",
                   "IAM|2|FA|NUT^花生|MO|瘙痒|A|AL8", version="2.8")
    penicillin, nuts = resources(made, "AllergyIntolerance")
    assert [c["code"] for c in penicillin["code"]["coding"]] == ["PCN", "764146007"]
    assert [c["system"] for c in penicillin["code"]["coding"]][1] == "http://snomed.info/sct"
    assert (penicillin["recordedDate"], penicillin["recorder"]["display"]) == ("2024-04-30", "赵")
    [note] = penicillin["note"]
    assert (note["text"], note["time"], note["authorReference"]["display"]) == ("幼时发现", "2024-05-01", "赵")
    rash, shock = penicillin["reaction"]
    assert (rash["manifestation"][0]["text"], rash["severity"], rash["description"], rash["note"]) == (
        "皮疹", "mild", "过敏", [{"text": "停药"}])
    assert (shock["manifestation"][0]["text"], shock["severity"]) == ("休克", "severe")
    assert "note" not in nuts and nuts["reaction"] == [
        {"manifestation": [{"coding": nuts["reaction"][0]["manifestation"][0]["coding"], "text": "瘙痒"}],
         "severity": "moderate"}]
    assert only(made, "Observation")["note"] == [{"text": "赤足"}]


def test_iam_says_what_becomes_of_an_allergy(world: World) -> None:
    """A60: added, then deleted as an error (IAM-6 D), by its own number."""
    world.accepted(adt("A60", pid("A"), "IAM|1|DA|PCN^青霉素|SV|皮疹|A|AL7||||20100101||20240501||||C"))
    added = one(world.found("AllergyIntolerance", patient=world.patient_id("A")))
    assert codes(added["verificationStatus"]) == ["confirmed"] and added["recordedDate"] == "2024-05-01"
    world.accepted(adt("A60", pid("A"), "IAM|1|DA|PCN^青霉素|||D|AL7", at="20240502080000"))
    deleted = one(world.found("AllergyIntolerance", patient=world.patient_id("A")))
    assert codes(deleted["verificationStatus"]) == ["entered-in-error"] and "clinicalStatus" not in deleted


def test_insurance_financial_class_roles_account_and_observations() -> None:
    """IN1, else PV1-20, as Coverage; ROL as participant; PID-18 as account; OBX as the patient's Observation."""
    insured = only(convert("A01", pid("A"), pv1(f20="03^自费"), "IN1|1|310^职工医保"), "Coverage")
    assert insured["type"]["text"] == "职工医保"
    made = convert("A01", pid("A", f18="ACC1"), pv1(f20="03^20240101"), "ROL|1|AD|AT|D9^孙|20240501",
                   "OBX|1|NM|HT^身高||172|cm|||||F")
    assert codes(only(made, "Coverage")["type"]) == ["03"]
    visit = only(made, "Encounter")
    assert codes(visit["participant"][0]["type"][0])[0] == "ATND" and visit["participant"][0]["period"]
    assert visit["account"][0]["identifier"]["value"] == "ACC1"
    height = only(made, "Observation")
    assert height["encounter"]["reference"] == f"Encounter/{visit['id']}" and height["subject"]


def test_what_a_role_says_of_the_person_is_a_practitioner_role() -> None:
    """ROL-9, 12, 13 and 14: specialty, telephone, place and organization. The visit names the Practitioner; a person
    without a number, or of whom nothing more is said, has no PractitionerRole."""
    rol = "|".join(("ROL|1|AD|AT^主治^HL70443|D9^孙|20240501|||", "408443003^General practice^SCT|", "",
                    "^WPN^PH^^^^0571-1", "内科^3^2", "西湖诊所^^9001"))
    made = convert("A01", pid("A"), pv1(), rol, "ROL|2|AD|CP|D8^钱", "ROL|3|AD|RP|^周|||||1^Surgery")
    role = only(made, "PractitionerRole")
    visit = only(made, "Encounter")
    assert [p["individual"].get("display") for p in visit["participant"]] == ["孙", "钱", "周"]
    assert role["practitioner"] == visit["participant"][0]["individual"]
    assert codes(role["code"][0]) == ["ATND", "AT"] and codes(role["specialty"][0]) == ["408443003"]
    assert (role["telecom"], role["organization"]["display"], role["location"][0]["display"]) == (
        [{"system": "phone", "value": "0571-1", "use": "work"}], "西湖诊所", "内科 3 2")


def test_a_role_that_is_taken_away(world: World) -> None:
    """ROL-2 DE: that person takes part no more, in that role; others stay, and a late one changes nothing."""
    world.accepted(adt("A01", pid("A"), pv1(), "ROL|1|AD|CP|D8^钱~D7^赵", "ROL|2|AD|AT|D8^钱"),
                   adt("A08", pid("A"), pv1(), "ROL|1|DE|CP|D8^钱", at="20240503080000"))
    shown = [(codes(p["type"][0])[0], p["individual"]["display"]) for p in world.visit()["participant"]]
    assert sorted(shown) == [("ATND", "钱"), ("CON", "赵")]
    world.accepted(adt("A08", pid("A"), pv1(), "ROL|1|UN|AT|D8^钱", at="20240502080000"))
    assert len(world.visit()["participant"]) == 2
    world.accepted(adt("A08", pid("A"), pv1(), "ROL|1|UN|AT|D8^钱", "ROL|1|UN|CP|D7^赵", at="20240504080000"))
    assert "participant" not in world.visit()


def test_roles_behind_an_insurance_are_not_the_visits() -> None:
    """ROL behind IN1 is about the insurance (v2.5.1 3.3.1); behind PV2 about the visit."""
    made = convert("A01", pid("A"), pv1(), "IN1|1|310^职工医保", "ROL|1|AD|AT|D9^孙", "PV2|", "ROL|1|AD|AT|D8^钱")
    assert [p["individual"]["display"] for p in only(made, "Encounter")["participant"]] == ["钱"]


@pytest.mark.parametrize("event", ["A05", "A14"])
def test_a_visit_to_come_is_planned_whatever_its_end(event: str) -> None:
    """PV1-45 of a pre-admission or of a pending admission is when it is to end."""
    assert only(convert(event, pid("A"), pv1(f45="20240601")), "Encounter")["status"] == "planned"


def test_the_event_is_told_by_the_provenance() -> None:
    """EVN-6, 4 and 7: when, why (table 0062 as v3-ActReason beside the code) and where, as far as it is said."""
    made = convert("A08", "EVN||20240501070000||02^Order^HL70062||202404302315|East^1.2.3^ISO", pid("A"))
    told = only(made, "Provenance")
    assert told["occurredDateTime"] == "2024-04-30T23:15:00+08:00" and codes(told["reason"][0]) == ["TREAT", "02"]
    assert told["location"] == {"type": "Location", "display": "East",
                                "identifier": {"system": "urn:oid:1.2.3", "value": "East"}}
    assert told["recorded"] == "2024-05-01T08:00:00+08:00"
    own = only(convert("A08", "EVN||||9", pid("A")), "Provenance")
    assert codes(own["reason"][0]) == ["9"] and not {"occurredDateTime", "location"} & own.keys()
    assert [r.where for r in convert("A08", "EVN||||||20241301", pid("A")).remarks] == ["EVN-6"]


def test_the_rest_of_the_visit() -> None:
    """PV1-13, 15, 16, 37, 38, 52, 53 and 54; PV2-3, 8, 11, 13, 25 and 38."""
    made = convert("A03", pid("A"), pv1(f13="R", f15="A2~B6", f16="VIP", f37="转院^20240501", f38="糖尿病饮食",
                                        f52="D5^周", f53="妊娠", f54="EP1"),
                   "PV2|||R10^腹痛|||||20240502|||3||D6^吴" + "|" * 12 + "2" + "|" * 13 + "A^Ambulance")
    visit, stay = only(made, "Encounter"), only(made, "Encounter")["hospitalization"]
    assert [c["text"] for c in stay["specialArrangement"]] == ["A2", "B6"] and stay["dietPreference"][0]["text"]
    assert stay["destination"]["display"] == "转院" and only(made, "Location")["mode"] == "kind"
    assert visit["episodeOfCare"][0]["identifier"]["value"] == "EP1" and visit["length"]["value"] == 3
    assert [codes(p["type"][0]) for p in visit["participant"]] == [["PART"], ["REF"]]
    assert codes(visit["priority"]) == ["UR", "2"] and len(visit["extension"]) == 2


PR1 = segment("PR1", {1: "1", 3: "47.09^阑尾切除术^I9C", 4: "腹腔镜", 5: "20240430100000", 6: "P^Procedure^HL70230",
                      7: "90", 8: "D4^周", 11: "D9^孙", 12: "D9^孙", 15: "K35.8^急性阑尾炎^I10", 16: "RT", 19: "OP1",
                      23: "手术室^3"})


def test_times_beside_the_event_that_are_none_stop_no_event() -> None:
    """IN1-12 and 13, NTE-6 behind an allergy, PR1-5: left out with a remark each; the rest of them is told."""
    made = convert("A08", pid("A"), "IN1|1|310^职工医保" + "|" * 10 + "20241301|20249901", "IAM|1|DA|PCN^青霉素",
                   "NTE|1||幼时发现||D7^赵|20241301", "PR1|1||47.09^阑尾切除术||20241301")
    assert [r.where for r in made.remarks] == ["NTE-6", "PR1-5", "IN1-12", "IN1-13"]
    assert "period" not in only(made, "Coverage") and only(made, "Procedure")["status"] == "unknown"
    assert only(made, "AllergyIntolerance")["note"] == [{"text": "幼时发现"}]


def test_procedures_of_a_visit() -> None:
    """PR1: what was done, when, by whom and where, in which visit; ROL behind it; the parent by its number."""
    second = segment("PR1", {3: "54.21^Laparoscopy^I9C", 5: "20240430", 19: "OP2", 25: "OP1"})
    made = convert("A08", pid("A"), pv1(), PR1, "ROL|1|AD|RO^Observer^HL70443|D8^钱|||||OPH^眼科", second,
                   "PR1|3||||20240430")
    whole, part = resources(made, "Procedure")
    visit = only(made, "Encounter")
    assert whole["encounter"]["reference"] == f"Encounter/{visit['id']}" and "participant" not in visit
    assert whole["performedPeriod"] == {"start": "2024-04-30T10:00:00+08:00", "end": "2024-04-30T11:30:00+08:00"}
    assert (whole["status"], whole["code"]["text"], whole["note"]) == ("completed", "阑尾切除术", [{"text": "腹腔镜"}])
    assert codes(whole["category"]) == ["P"] and codes(whole["reasonCode"][0]) == ["K35.8"]
    assert whole["location"]["display"] == "手术室 3" and whole["extension"][0]["valueCode"] == "R"
    assert [(one.get("function") and one["function"]["coding"][0].get("display"), one["actor"]["display"])
            for one in whole["performer"]] == [("Anesthesiologist", "周"), ("Surgeon", "孙"), (None, "孙"),
                                               ("Observer", "钱")]
    assert codes(only(made, "PractitionerRole")["specialty"][0]) == ["OPH"]
    assert (part["partOf"][0]["reference"], part["performedDateTime"]) == (f"Procedure/{whole['id']}", "2024-04-30")


@pytest.mark.parametrize("fields, status", [
    ({5: "20240430"}, "completed"), ({5: "20240501070000", 7: "120"}, "in-progress"), ({5: "20240601"}, "preparation"),
    ({}, "unknown"), ({5: "20241301"}, "unknown"), ({5: "20240430", 20: "D"}, "entered-in-error"),
    ({5: "20240430", 7: "99999999"}, "completed"), ({5: "99991231235959", 7: "90"}, "preparation")])
def test_whether_a_procedure_is_over_the_times_say(fields: dict[int, str], status: str) -> None:
    """PR1 has no status: PR1-5 and 7 beside the message's time; PR1-20 D takes it back."""
    made = convert("A08", pid("A"), segment("PR1", {3: "47.09^阑尾切除术", **fields}))
    assert only(made, "Procedure")["status"] == status


def test_a_procedure_stays_until_it_is_taken_back(world: World) -> None:
    """A message that tells it not, or tells another, takes nothing away; the same number is the same procedure."""
    world.accepted(adt("A08", pid("A"), pv1(), PR1), adt("A08", pid("A"), pv1(), at="20240502080000"),
                   adt("A08", pid("A"), pv1(), "PR1|1||45.23^肠镜||20240502", at="20240503080000"))
    asked: dict[str, Any] = {"patient": world.patient_id("A"), "status": "completed"}
    assert len(world.found("Procedure", **asked, _sort="date")) == 2
    assert one(world.found("Procedure", **asked, code="47.09"))["identifier"][0]["value"] == "OP1"
    assert len(world.found("Procedure", encounter=world.visit_id())) == 2
    world.accepted(adt("A08", pid("A"), pv1(), segment("PR1", {3: "47.09", 19: "OP1", 20: "D"}), at="20240504080000"))
    assert one(world.found("Procedure", **asked))["code"]["text"] == "肠镜"


def test_a_visit_without_a_number_is_not_kept_and_the_sender_is_told() -> None:
    """No later event could find it; its diagnoses hang on the patient. Person events want no visit."""
    made = convert("A01", pid("A"), "PV1|1|I|内科", "DG1|1||^腹痛")
    assert not resources(made, "Encounter") and only(made, "Condition")["subject"]
    assert [r.where for r in made.remarks] == ["PV1-19"]
    assert not convert("A28", pid("A"), "PV1|1|N").remarks


def test_segments_in_any_order() -> None:
    """PV1 and NK1 before PID, EVN at the end: the same resources."""
    usual = convert("A01", "EVN||20240501080000", pid("A"), "NK1|1|李^红|SPO", pv1(), control_id="Q")
    other = convert("A01", pv1(), "NK1|1|李^红|SPO", pid("A"), "EVN||20240501080000", control_id="Q")
    kinds = [[c.resource for c in made.changes if c.resource["resourceType"] != "Provenance"]
             for made in (usual, other)]
    assert kinds[0] == kinds[1]


def test_a_visit_number_that_changes(world: World) -> None:
    """A50 (A42): the former visit is part of the one that stays; an unknown one is nothing, its own is INVALID."""
    world.accepted(adt("A01", pid("A"), pv1("V1")), adt("A50", pid("A"), "MRG|A||||V1", pv1("V2"), at="20240502080000"))
    assert world.visit("V1")["status"] == "entered-in-error"
    assert world.visit("V1")["partOf"] == {"reference": f"Encounter/{world.visit_id('V2')}"}
    world.accepted(adt("A42", pid("A"), "MRG|A||||V9", pv1("V2"), at="20240503080000"))
    receipt = world.send(adt("A42", pid("A"), "MRG|A||||V2", pv1("V2")))
    assert (receipt.category, receipt.where) == ("invalid", "MRG-5")


def test_a_moved_visit_is_the_other_patients(world: World) -> None:
    """A45: the visit of MRG-1's patient goes to PID-3's; the two patients stay two."""
    world.accepted(adt("A01", pid("A"), pv1("V1")), adt("A45", pid("B"), "MRG|A||||V1", pv1("V1"), at="20240502080000"))
    assert world.visit("V1")["subject"] == {"reference": f"Patient/{world.patient_id('B')}"}
    assert len(world.persons([("H1", "A"), ("H1", "B")])) == 2


def test_a_deleted_person_is_inactive_until_added_again(world: World) -> None:
    """A29, and A28 afterwards; A08 alone does not bring it back."""
    for event, at, active in (("A28", "01", True), ("A29", "02", False), ("A08", "03", False), ("A28", "04", True)):
        world.accepted(adt(event, pid("A"), at=f"202405{at}080000"))
        assert world.patient("A").get("active", True) is active


def test_public_messages_are_accepted_by_generic() -> None:
    """Every well-formed ADT of the corpus; what is refused has no patient, or an OBX that says not what it is."""
    if not CORPUS.is_dir():
        pytest.skip("the folder of public messages is not beside the repository")
    adapters = load_all([SHIPPED_ADAPTERS], "generic")
    refused, taken = set(), 0
    for path in sorted(CORPUS.rglob("*.hl7")):
        for raw in _split(path):
            try:
                header = hl7v2.peek(raw)
                if header.message_type[0] != "ADT":
                    continue
                message = hl7v2.parse(raw)
                adapter = adapters.for_hl7(header.sending_facility, header.sending_application)
                made = adapter.convert_hl7(message, header.sending_facility)
            except GatewayError as error:
                refused.add((error.category.value, error.where))
                continue
            taken += 1
            for change in made.changes:
                check.require_valid(change.resource, profile=True)
    assert refused <= {("invalid", "PID"), ("invalid", "PID-3"), ("invalid", "OBX-3"), ("malformed", "MSH")}
    assert taken > 200


def _split(path: Path) -> list[bytes]:
    try:
        return hl7v2.split(path.read_bytes())
    except GatewayError:
        return []


def test_on_both_backends(store: Store, tmp_path: Path) -> None:
    """Admission, a copy with a number, discharge and a snapshot, where the statements may differ."""
    world = World(store, tmp_path)
    world.accepted(adt("A01", pid("A"), pv1(f44="20240501080000"), "AL1|1|DA|^青霉素", "AL1|2|DA|^磺胺"),
                   result("A", "F1", id_number=national(), visit="V1"),
                   adt("A03", pid("A"), pv1(), at="20240502080000"),
                   adt("A08", pid("A"), pv1(), "AL1|1|DA|^磺胺", at="20240503080000"))
    assert world.visit()["status"] == "finished" and len(world.patient("A")["identifier"]) == 2
    allergies = world.found("AllergyIntolerance", patient=world.patient_id("A"))
    assert sorted(codes(a["clinicalStatus"])[0] for a in allergies) == ["active", "inactive"]


# ---------------------------------------------------------------- any sequence

_TIMES = st.sampled_from(["", '""', "20240430", "20240501080000", "20240502093000+0900", "2024", "20241399"])
_PLACES = st.sampled_from(["", '""', "内科^101^1", "内科^101^2", "外科^202", "^^^东院"])
_DOCTORS = st.sampled_from(["", '""', "D1^赵", "^钱", "D1^赵~D2^孙"])
_TEXTS = st.sampled_from(["", '""', "X", "X^文字", "~"])
_VISIT = st.fixed_dictionaries({
    "f3": _PLACES, "f6": _PLACES, "f11": _PLACES, "f42": _PLACES, "f7": _DOCTORS, "f8": _DOCTORS, "f4": _TEXTS,
    "f10": _TEXTS, "f13": _TEXTS, "f36": _TEXTS, "f37": _TEXTS, "f44": _TIMES, "f45": _TIMES})
_PERSON = st.fixed_dictionaries({
    "f6": _TEXTS, "f7": _TIMES, "f11": _TEXTS, "f13": _TEXTS, "f14": _TEXTS, "f16": _TEXTS, "f17": _TEXTS,
    "f19": _TEXTS, "f24": st.sampled_from(["", "Y", '""']), "f25": st.sampled_from(["", "2", '""']), "f29": _TIMES,
    "f30": st.sampled_from(["", "Y", "N", '""'])})
_ALONE = adt_tables.EVENTS - adt_tables.MERGE - adt_tables.CHANGE - {"A24", "A37", "A42", "A50"}
_STEP = st.tuples(st.sampled_from(sorted(_ALONE)), _VISIT, _PERSON, st.sampled_from("IOPEU"), st.integers(1, 28))


@settings(max_examples=150, deadline=None)
@given(st.lists(_STEP, min_size=1, max_size=6))
def test_any_sequence_of_events_gives_valid_resources(
        steps: list[tuple[str, dict[str, str], dict[str, str], str, int]]) -> None:
    """Whatever is sent in whatever order: valid Patients and Encounters; an event told again changes nothing."""
    stored: dict[str, tuple[Resource, int]] = {}
    for event, visit, person, kind, day in steps:
        patient_id = pid("A", **{**person, "born": person["f7"]})
        raw = adt(event, patient_id, pv1(kind=kind, **visit), at=f"202405{day:02}080000")
        made = hl7v2.convert(hl7v2.parse(raw), make_source())
        for change in made.changes:
            check.require_valid(change.resource, profile=True)
            if change.onto is None or change.as_of is None:
                continue
            held, newest = stored.get(change.resource["id"], (None, change.as_of))
            after = change.resource
            if held is not None:
                after = change.onto(deepcopy(held), change.resource, newest > change.as_of)
                check.require_valid(after, profile=True)
            newest = max(newest, change.as_of)
            again = change.onto(deepcopy(after), change.resource, newest > change.as_of)
            assert again == after
            stored[change.resource["id"]] = after, newest
