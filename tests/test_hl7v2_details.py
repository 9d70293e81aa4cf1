"""Small parts of orders, reports and people: notes with authors, groups, labels, places, functions, validity."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import hl7v2
from gateway.source import Conversion
from tests.guide import converted, message
from tests.support_source import make_source, resources

V2 = "http://terminology.hl7.org/CodeSystem/v2-"
V3 = "http://terminology.hl7.org/CodeSystem/v3-"


def made(kind: str, resource_type: str, fields: dict[tuple[str, int], str]) -> dict[str, Any]:
    """The resource of a type that a message with these fields becomes."""
    conversion = converted(message(kind, {(segment, 0, field): text for (segment, field), text in fields.items()}))
    assert isinstance(conversion, Conversion), conversion
    return next(c.resource for c in conversion.changes if c.resource["resourceType"] == resource_type)


# ---------------------------------------------------------------- notes

def test_a_note_without_author_is_one_text() -> None:
    """Repetitions of NTE-3 are lines."""
    assert made("OML", "ServiceRequest", {("NTE", 3): "fasting~since 8"})["note"] == [{"text": "fasting\nsince 8"}]


def test_author_and_time_of_a_note_are_kept() -> None:
    """NTE-5 is authorReference, NTE-6 time; lines of another author are another note, a line without one continues."""
    raw = message("OML", {("NTE", 0, 3): "first", ("NTE", 0, 5): "D1^Li", ("NTE", 0, 6): "20240102030405"}).decode()
    conversion = converted((raw + "\rNTE|2||and on\rNTE|3||second||D2^Wu").encode())
    assert isinstance(conversion, Conversion)
    notes = next(c.resource for c in conversion.changes if c.resource["resourceType"] == "ServiceRequest")["note"]
    assert [(note["text"], note["authorReference"]["display"], note.get("time")) for note in notes] == [
        ("first\nand on", "Li", "2024-01-02T03:04:05+08:00"), ("second", "Wu", None)]


# ---------------------------------------------------------------- orders and reports

def test_the_fillers_group_is_an_identifier() -> None:
    """ORC-38, else the second number of the pair in ORC-4, whose first is the requisition."""
    order = made("OML", "ServiceRequest", {("ORC", 4): "G1&H^G2&H"})
    assert order["requisition"]["value"] == "G1"
    assert [i["value"] for i in order["identifier"] if i["type"]["coding"][0]["code"] == "FGN"] == ["G2"]
    order = made("OML", "ServiceRequest", {("ORC", 4): "G1^H", ("ORC", 38): "G9"})
    assert order["requisition"]["value"] == "G1" and order["identifier"][-1]["value"] == "G9"


@pytest.mark.parametrize(("sent", "expected"), [
    ("V^^HL70177", {"system": f"{V3}Confidentiality", "code": "V", "display": "very restricted"}),
    ("HIV^^HL70177", {"system": f"{V3}ActCode", "code": "HIV", "display": "HIV/AIDS information sensitivity"}),
    ("UWM^^HL70177", {"system": f"{V2}0177", "code": "UWM"}),
    ("V", {"system": "urn:huren:generic-fac:table:ORC-28", "code": "V"}),
])
def test_labels_of_orders_and_reports(sent: str, expected: dict[str, str]) -> None:
    """ORC-28 of table 0177 is FHIR's label where there is one, else the sent code; a code of no named table stays the
    hospital's own."""
    assert made("OML", "ServiceRequest", {("ORC", 28): sent})["meta"]["security"] == [expected]
    assert made("ORU", "DiagnosticReport", {("ORC", 28): sent})["meta"]["security"] == [expected]


def test_for_whom_an_order_is_says_its_place() -> None:
    """ORC-29 I is an order for an inpatient."""
    [place] = made("OML", "ServiceRequest", {("ORC", 29): "I^Inpatient^HL70482"})["locationCode"]
    assert place["coding"][0] == {"system": f"{V3}RoleCode", "code": "HOSP", "display": "Hospital"}
    assert place["coding"][1]["code"] == "I"


def test_where_the_ordering_facility_is() -> None:
    """ORC-22 and ORC-23 are the address and the telephone of ORC-21."""
    conversion = converted(message("OML", {("ORC", 0, 21): "Clinic^^^^^^XX^^^C9", ("ORC", 0, 22): "Road 1^^Town",
                                           ("ORC", 0, 23): "^WPN^PH^^^^5551234"}))
    assert isinstance(conversion, Conversion)
    clinic = next(c.resource for c in conversion.changes if c.resource.get("name") == "Clinic")
    assert clinic["address"] == [{"line": ["Road 1"], "city": "Town"}]
    assert clinic["telecom"] == [{"system": "phone", "value": "5551234", "use": "work"}]


def test_a_report_repeats_of_its_order_what_is_its_own() -> None:
    """The group's numbers and why the state changed stand in the report too."""
    report = made("ORU", "DiagnosticReport", {("ORC", 4): "G1^H", ("ORC", 16): "ERR^Mistake^L"})
    assert "G1" in [identifier["value"] for identifier in report["identifier"]]
    [reason] = [e for e in report["extension"] if e["url"].endswith("event-statusReason")]
    assert reason["valueCodeableConcept"]["text"] == "Mistake"


SENT = {"ORU": ("OBR|1|P1|F1|CBC^Count|||20240102080000|||||||||||||||20240102100000||HM|F",
                "OBX|1|NM|WBC||5|10*9/L|||||F"),
        "MDM": ("OBR|1|P1|F1|CT^CT", "TXA|1|DS||||||||||D1", "OBX|1|TX|T^Text||all well||||||F")}


def repeated(kind: str, *behind: str, orc: str = "ORC|RE|P1|F1", obr: str = "") -> Conversion:
    """A result or a document with a copy of its order; ``behind`` stands where that kind of message has it."""
    head, *rest = SENT[kind]
    own = [orc, *behind, head + obr] if kind == "MDM" else [orc, head + obr, *behind]
    event = {"ORU": "ORU^R01", "MDM": "MDM^T02"}[kind]
    return hl7v2.convert(hl7v2.parse("\r".join([
        f"MSH|^~\\&|LIS|H1|GW|R|20240102103000||{event}|M1|P|2.5.1", "PID|1||P1^^^H1^MR||Li^Na", *own, *rest])
        .encode()), make_source())


@pytest.mark.parametrize("kind", ["ORU", "MDM"])
def test_what_a_result_or_a_document_repeats_of_its_order(kind: str) -> None:
    """TQ1, OBR-46, 47 and ORC-29 as in the order's own message."""
    conversion = repeated(kind, "TQ1|1|3^mL&mL&UCUM|BID||||20240101080000||A||after meals",
                          orc="ORC|RE|P1|F1" + "|" * 26 + "O",
                          obr="|" * (47 - len(SENT[kind][0].split("|"))) + "P46^Placer service|F47")
    [order] = resources(conversion, "ServiceRequest")
    assert order["priority"] == "asap" and order["quantityQuantity"]["code"] == "mL"
    assert order["occurrenceTiming"]["repeat"]["frequency"] == 2 and "occurrenceDateTime" not in order
    assert [detail["text"] for detail in order["orderDetail"]] == ["Placer service", "F47"]
    assert order["locationCode"][0]["coding"][0]["code"] == "OF" and order["note"] == [{"text": "after meals"}]


@pytest.mark.parametrize("kind", ["ORU", "MDM"])
def test_a_single_order_that_is_repeated_has_its_time(kind: str) -> None:
    """TQ1-7 and 9; what OBR-5 says of the urgency comes first; a time that is none is remarked and stops nothing."""
    [order] = resources(repeated(kind, "TQ1|1||||||20240101080000||S"), "ServiceRequest")
    assert (order["occurrenceDateTime"], order["priority"]) == ("2024-01-01T08:00:00+08:00", "stat")
    wrong = repeated(kind, "TQ1|1||||||20241301||S")
    [order] = resources(wrong, "ServiceRequest")
    assert "occurrenceDateTime" not in order and [r.where for r in wrong.remarks] == ["TQ1-7"]
    assert resources(wrong, "Observation") or resources(wrong, "DocumentReference")


def test_who_assisted_and_who_wrote_it_down() -> None:
    """OBR-34 and OBR-35 are performers with their function; the hospital has none."""
    report = made("ORU", "DiagnosticReport", {("OBR", 34): "T1&Li", ("OBR", 35): "T2&Wu"})
    functions = [person["extension"][0]["valueCodeableConcept"]["coding"][0]["code"] if "extension" in person else ""
                 for person in report["performer"]]
    assert functions == ["", "SPRF", "TRANS"]


# ---------------------------------------------------------------- since when and until when

@pytest.mark.parametrize(("start", "end", "expected"), [
    ("20200101", "20301231", {"start": "2020-01-01", "end": "2030-12-31"}), ("2020", "", {"start": "2020"}),
    ("", "202012", {"end": "2020-12"}), ("20200101120000", "", {"start": "2020-01-01"}),
    ("20200231", "20301231", {"end": "2030-12-31"}), ("20300101", "20200101", {"start": "2030-01-01"}),
    ("202001", "20200115", {"start": "2020-01", "end": "2020-01-15"}), ("nonsense", "", None), ("", "", None),
])
def test_a_number_holds_for_a_time(start: str, end: str, expected: dict[str, str] | None) -> None:
    """CX.7 and CX.8 as days; impossible ones and an end before the start are left out, and nothing is refused."""
    patient = made("ORU", "Patient", {("PID", 3): f"P1^^^H^MR^^{start}^{end}"})
    assert patient["identifier"][0].get("period") == expected


def test_names_addresses_and_telephones_hold_for_a_time() -> None:
    """The ends are components of their own, or, in older versions, the two parts of one; XTN-18 is the rank."""
    patient = made("ORU", "Patient", {
        ("PID", 5): "Li^Wei^^^^^L^^^^^20200101^20210101~Li^Wu^^^^^D^^^20200101&20210101",
        ("PID", 11): "Road 1^^Town^^^^H^^^^^^20200101^20210101",
        ("PID", 13): "^PRN^PH^^^^5551234^^^^^^20200101^20210101^^^^2"})
    both = {"start": "2020-01-01", "end": "2021-01-01"}
    assert [name["period"] for name in patient["name"]] == [both, both]
    assert patient["address"][0]["period"] == both
    assert patient["telecom"][0]["period"] == both and patient["telecom"][0]["rank"] == 2
