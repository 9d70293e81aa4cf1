"""The layouts of result messages: OUL (by specimen, by container, by order) and ORU as hospitals really send it."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import hl7v2
from gateway.errors import Category, GatewayError
from gateway.source import Conversion
from tests.support_source import MSH, OBR, PID, make_source, resources, segment

ORC = "ORC|SC|PL1|F1||CM"
WBC = "OBX|1|NM|WBC^白细胞^L||5.10|10*9/L|3.5-9.5|N|||F"
HGB = WBC.replace("OBX|1|NM|WBC^白细胞", "OBX|2|NM|HGB^血红蛋白")
LIVER = "OBR|2|PL2|F2|LIV^肝功能^L|||20240102080000|||||||||||||||20240102100000||CH|F"
ALT = "OBX|1|NM|ALT^谷丙转氨酶^L||9|U/L|||||F"
SPM = "SPM|1|S1^S1F||SER^Serum^HL70487|||||||P^Patient^HL70369||||||20240102075500"
EDTA = "SPM|2|S2^S2F||BLD^Whole blood^HL70487"
SAC = "SAC|||C1^LIS||||||R1"
VOLUME = "OBX|1|NM|VOL^体积^L||2.5|mL|||||F"


def _convert(event: str, *segments: str, **changes: Any) -> Conversion:
    msh = MSH.replace("ORU^R01^ORU_R01", f"OUL^{event}^OUL_{event}") if event != "R01" else MSH
    return hl7v2.convert(hl7v2.parse("\r".join((msh, *segments)).encode() + b"\r"), make_source(**changes))


def _stored(conversion: Conversion) -> dict[str, Any]:
    """The resources by their reference, but for the Provenance, which is of one message's bytes."""
    return {f"{c.resource['resourceType']}/{c.resource['id']}": c.resource for c in conversion.changes
            if c.resource["resourceType"] != "Provenance"}


def _panels(conversion: Conversion) -> list[tuple[str, list[str], list[str]]]:
    """Of each report: its code, its specimens' numbers, its results' codes."""
    known = _stored(conversion)
    return [(report["code"]["coding"][-1]["code"],
             [known[one["reference"]]["identifier"][-1]["value"] for one in report.get("specimen", [])],
             [known[one["reference"]]["code"]["coding"][-1]["code"] for one in report.get("result", [])])
            for report in resources(conversion, "DiagnosticReport")]


def test_r22_gives_each_specimen_its_orders() -> None:
    """OUL^R22: two orders of one tube, one of another; ORC stands behind its OBR."""
    panels = _panels(_convert("R22", PID, SPM, SAC, OBR, ORC, WBC, HGB, LIVER, "ORC|SC|PL2|F2", ALT, EDTA,
                              OBR.replace("PL1|F1|CBC^血常规", "PL3|F3|GLU^血糖"), "ORC|SC|PL3|F3",
                              WBC.replace("WBC^白细胞", "GLU^葡萄糖")))
    assert panels == [("CBC", ["S1F"], ["WBC", "HGB"]), ("LIV", ["S1F"], ["ALT"]), ("GLU", ["S2F"], ["GLU"])]


def test_r23_gives_each_container_its_orders() -> None:
    """OUL^R23: several containers of one specimen are one Specimen with several containers."""
    conversion = _convert("R23", PID, SPM, SAC, "INV|X", OBR, ORC, WBC, "SAC|||C2^LIS", LIVER, ALT)
    assert _panels(conversion) == [("CBC", ["S1F"], ["WBC"]), ("LIV", ["S1F"], ["ALT"])]
    [specimen] = resources(conversion, "Specimen")
    assert [c["identifier"][0]["value"] for c in specimen["container"]] == ["C1", "C2"]


def test_r24_gives_each_order_its_specimens() -> None:
    """OUL^R24: SPM and SAC between an order and its results."""
    conversion = _convert("R24", PID, OBR, ORC, SPM, SAC, WBC, HGB, LIVER, "ORC|SC|PL2|F2", EDTA, ALT)
    assert _panels(conversion) == [("CBC", ["S1F"], ["WBC", "HGB"]), ("LIV", ["S2F"], ["ALT"])]


def test_the_layouts_tell_the_same() -> None:
    """One result as ORU^R01, OUL^R21 to R24: the same resources with the same content."""
    said = [_stored(_convert(event, PID, *segments)) for event, segments in (
        ("R01", (ORC, OBR, WBC, SPM)), ("R21", (ORC, OBR, SPM, WBC)), ("R22", (SPM, OBR, ORC, WBC)),
        ("R22", (SPM, ORC, OBR, WBC)), ("R23", (SPM, OBR, ORC, WBC)), ("R24", (OBR, ORC, SPM, WBC)))]
    assert all(other == said[0] for other in said[1:]) and len(said[0]) == 6


def test_what_is_observed_of_a_specimen_is_no_result_of_the_report() -> None:
    """OBX behind SPM is an Observation of the patient about the specimen, wherever the layout puts it."""
    for event, segments in (("R22", (SPM, VOLUME, SAC, OBR, ORC, WBC)), ("R24", (OBR, ORC, SPM, VOLUME, SAC, WBC)),
                            ("R01", (ORC, OBR, WBC, SPM, VOLUME))):
        conversion = _convert(event, PID, *segments)
        assert _panels(conversion) == [("CBC", ["S1F"], ["WBC"])], event
        [volume] = [o for o in resources(conversion, "Observation") if o["code"]["coding"][0]["code"] == "VOL"]
        [specimen] = resources(conversion, "Specimen")
        reference = f"Specimen/{specimen['id']}"
        assert volume["specimen"]["reference"] == reference and volume["focus"][0]["reference"] == reference
        assert volume["subject"] == specimen["subject"] and volume["valueQuantity"]["unit"] == "mL"


def test_an_older_message_about_a_specimen_does_not_stop_a_report() -> None:
    """One tube serves several reports: like the Specimen itself, what was observed of it is skipped when older."""
    conversion = _convert("R22", PID, SPM, VOLUME, OBR, WBC)
    assert {c.on_older for c in conversion.changes if c.resource.get("focus")} == {"skip"}


def test_an_spm_repeated_under_each_order_is_one_specimen() -> None:
    """ORU senders repeat SPM with its OBX for each OBR."""
    conversion = _convert("R01", PID, OBR, WBC, SPM, VOLUME, LIVER, ALT, SPM, VOLUME)
    assert len(resources(conversion, "Specimen")) == 1 and len(resources(conversion, "Observation")) == 3


def test_results_behind_spm_are_results_when_none_precede_it() -> None:
    """ORC OBR SPM OBX …: many senders put the specimen first, without SAC."""
    assert _panels(_convert("R01", PID, ORC, OBR, SPM, WBC, HGB)) == [("CBC", ["S1F"], ["WBC", "HGB"])]
    assert _panels(_convert("R01", PID, ORC, OBR, SPM, WBC, EDTA, HGB)) == [("CBC", ["S1F", "S2F"], ["WBC", "HGB"])]


def test_a_container_alone_is_a_specimen() -> None:
    """OUL^R21 of 2.4 has SAC and no SPM: the container's number is the specimen's."""
    conversion = _convert("R21", PID, "SAC||A1|C1|||BLD&Blood&HL70487", ORC, OBR, WBC,
                          "SAC||A2|C2|||SER&Serum&HL70487", "ORC|SC|PL2|F2", LIVER, ALT)
    first, second = resources(conversion, "Specimen")
    assert first["accessionIdentifier"]["value"] == "A1" and first["container"][0]["identifier"][0]["value"] == "C1"
    assert first["type"]["coding"][0] == {"system": "http://terminology.hl7.org/CodeSystem/v2-0487", "code": "BLD",
                                          "display": "Blood"}
    reports = resources(conversion, "DiagnosticReport")
    assert [r["specimen"][0]["reference"] for r in reports] == [f"Specimen/{s['id']}" for s in (first, second)]


def test_a_specimen_without_an_order_is_stored() -> None:
    """OUL as of 2.7: the laboratory refuses a tube before anything was ordered of it. ORU needs an order."""
    refused = segment("SPM", {1: "1", 2: "S9^S9F", 4: "BLD", 21: "RC^Clotting^HL70490"})
    conversion = _convert("R22", PID, SPM, OBR, WBC, refused, VOLUME)
    assert [s.get("status") for s in resources(conversion, "Specimen")] == [None, "unsatisfactory"]
    assert _panels(conversion) == [("CBC", ["S1F"], ["WBC"])] and len(resources(conversion, "Observation")) == 2
    assert [s["status"] for s in resources(_convert("R22", PID, refused), "Specimen")] == ["unsatisfactory"]
    with pytest.raises(GatewayError) as refusal:
        _convert("R01", PID, refused)
    assert (refusal.value.category, refusal.value.where) == (Category.INVALID, "OBR")


def test_control_specimens_are_nobodys() -> None:
    """SPM-11 Q, C, V …: left out with a remark beside a patient's results, unsupported alone."""
    control = SPM.replace("P^Patient", "Q^Control").replace("S1^S1F", "Q1^Q1F")
    conversion = _convert("R22", PID, SPM, OBR, WBC, control, LIVER, ALT)
    assert _panels(conversion) == [("CBC", ["S1F"], ["WBC"])] and len(resources(conversion, "Specimen")) == 1
    assert [remark.where for remark in conversion.remarks] == ["SPM-11"]
    with pytest.raises(GatewayError) as refusal:
        _convert("R22", PID, control, OBR, WBC)
    assert (refusal.value.category, refusal.value.where) == (Category.UNSUPPORTED, "SPM-11")
    own = _convert("R22", PID, SPM.replace("P^Patient^HL70369", "质控^^L"), OBR, WBC, SPM, LIVER, ALT,
                   tables={"SPM-11": {"质控": "Q"}})
    assert _panels(own) == [("LIV", ["S1F"], ["ALT"])]


@pytest.mark.parametrize("event", ["R01", "R22", "R24"])
def test_results_of_nobody_are_refused(event: str) -> None:
    """PID is optional in OUL by the standard; without it the results could reach nobody."""
    with pytest.raises(GatewayError) as refusal:
        _convert(event, SPM, OBR, WBC)
    assert (refusal.value.category, refusal.value.where) == (Category.INVALID, "PID")


@pytest.mark.parametrize("pieces", list(permutations(("PID", "PV1", "ORDER"))), ids="-".join)
def test_pid_and_pv1_stand_anywhere_when_there_is_one_patient(pieces: tuple[str, ...]) -> None:
    """PID behind ORC, PV1 behind the results …: the same resources."""
    parts = {"PID": (PID,), "PV1": (segment("PV1", {2: "O", 19: "V1"}),), "ORDER": (ORC, OBR, WBC, SPM)}
    usual = _stored(_convert("R01", PID, *parts["PV1"], *parts["ORDER"]))
    assert _stored(_convert("R01", *(line for piece in pieces for line in parts[piece]))) == usual
    assert _stored(_convert("R01", ORC, PID, *parts["PV1"], OBR, WBC, SPM)) == usual


def test_orders_keep_their_orc_wherever_it_stands() -> None:
    """ORC before its OBR, behind it, behind its results, on one of two only: each order has its own numbers."""
    one, two = (f"OBR|{n}|||{code}^组合^L|||20240102|||||||||||||||||HM|F" for n, code in ((1, "CBC"), (2, "LIV")))
    first, second = "ORC|SC|PL1|F1", "ORC|SC|PL2|F2"
    for segments in ((first, one, WBC, second, two, ALT), (one, first, WBC, two, second, ALT),
                     (one, WBC, first, two, ALT, second), (one, first, two, second),
                     (one, first, "NTE|1||注", WBC, two, second, ALT)):
        reports = resources(_convert("R01", PID, *segments), "DiagnosticReport")
        assert [[i["value"] for i in r["identifier"]] for r in reports] == [["PL1", "F1"], ["PL2", "F2"]], segments
    mixed = resources(_convert("R01", PID, OBR, WBC, second, two, ALT), "DiagnosticReport")
    assert [[i["value"] for i in r["identifier"]] for r in mixed] == [["PL1", "F1"], ["PL2", "F2"]]


def test_one_orc_before_several_obr_numbers_those_that_have_no_number() -> None:
    """Each OBR is its own report; one that names its number keeps it."""
    two = "OBR|2|||LIV^肝功能^L|||20240102|||||||||||||||||CH|F"
    reports = resources(_convert("R01", PID, ORC, OBR.replace("PL1|F1", "|"), WBC, two, ALT), "DiagnosticReport")
    assert [[i["value"] for i in r["identifier"]] for r in reports] == [["PL1", "F1"]] * 2
    assert len({r["id"] for r in reports}) == 2


def test_several_patients_keep_apart() -> None:
    """Each PID with its visit and its orders; an ORC before PID is of the order that follows."""
    other = PID.replace("P1^", "P2^")
    for segments in ((PID, ORC, OBR, WBC, other, "ORC|SC|PL2|F2", LIVER, ALT),
                     (ORC, PID, OBR, WBC, "ORC|SC|PL2|F2", other, LIVER, ALT)):
        conversion = _convert("R01", *segments)
        subjects = [r["subject"]["reference"] for r in resources(conversion, "DiagnosticReport")]
        assert subjects == [f"Patient/{p['id']}" for p in resources(conversion, "Patient")]
        assert [[r["identifier"][0]["value"]] for r in resources(conversion, "ServiceRequest")] == [["PL1"], ["PL2"]]


def test_a_patient_repeated_before_each_report_is_one_patient() -> None:
    """The visit holds for all, unless another one is told with the repetition."""
    visit = segment("PV1", {2: "O", 19: "V1"})
    once = _convert("R01", PID, visit, OBR, WBC, LIVER, ALT)
    assert _stored(_convert("R01", PID, visit, OBR, WBC, PID.replace("PID|1", "PID|2"), LIVER, ALT)) == _stored(once)
    two = _convert("R01", PID, visit, OBR, WBC, PID, visit.replace("|V1", "|V2"), LIVER, ALT)
    assert len(resources(two, "Encounter")) == 2 and len(resources(two, "Patient")) == 1
    assert len({r["encounter"]["reference"] for r in resources(two, "DiagnosticReport")}) == 2


def test_a_second_visit_without_a_second_patient_is_remarked() -> None:
    """The message does not say which result belongs to which visit."""
    visit = segment("PV1", {2: "O", 19: "V1"})
    conversion = _convert("R01", PID, visit, OBR, WBC, visit.replace("|V1", "|V2"))
    assert [remark.where for remark in conversion.remarks] == ["PV1[2]"]
    assert len(resources(conversion, "Encounter")) == 1


def test_an_order_document_is_no_result() -> None:
    """OBX with TXA (2.8 ORDER_DOCUMENT) needs no OBX-3 and is remarked."""
    conversion = _convert("R01", PID, ORC, "OBX|1|ED|||^AP^PDF^Base64^UERG", "TXA|1|DS", OBR, WBC)
    assert _panels(conversion) == [("CBC", [], ["WBC"])]
    assert [remark.where for remark in conversion.remarks] == ["TXA"]


def test_notes_before_the_patient_hold_for_the_message() -> None:
    """OUL has NTE behind MSH."""
    [report] = resources(_convert("R22", "NTE|1||标本已离心", PID, SPM, OBR, WBC), "DiagnosticReport")
    assert report["extension"][0]["valueAnnotation"] == {"text": "标本已离心"}


_PIECES = (PID, PID.replace("P1^", "P2^"), ORC, OBR, LIVER, WBC, ALT, SPM, EDTA, SAC, VOLUME, "NTE|1||注", "PRT||AD",
           "TXA|1", segment("PV1", {2: "O", 19: "V1"}), "INV|X", "TQ1|1", "OBR", "OBX", "SPM", "SAC", "ORC", "PV1")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=12), st.sampled_from(["R01", "R22", "R23", "R24"]))
def test_any_order_of_segments_is_read_or_refused(segments: list[str], event: str) -> None:
    """No order of segments is a fault; what is accepted loses no result and no report."""
    try:
        conversion = _convert(event, *segments)
    except GatewayError as refusal:
        assert refusal.category in (Category.INVALID, Category.UNSUPPORTED) and refusal.where
        return
    documents = sum(line.startswith("TXA") for line in segments)
    results = sum(line.startswith("OBX") for line in segments)
    assert len(resources(conversion, "DiagnosticReport")) == sum(line.startswith("OBR") for line in segments)
    about = sum("focus" in o for o in resources(conversion, "Observation"))
    assert len(resources(conversion, "Observation")) >= results - documents - sum(line == VOLUME for line in segments) \
        - (results if about else 0)
