"""ORU messages as FHIR resources: situations."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import hl7v2
from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.identity import NATIONAL_ID_SYSTEM
from gateway.source import Conversion, Unmapped, message_digest
from tests.support_source import ITEMS, MSH, OBR, PID, convert, make_source, observation, resources, segment, text

WBC = "OBX|1|NM|WBC^白细胞^L||5.10|10*9/L|3.5-9.5|N|||F"
V2 = "http://terminology.hl7.org/CodeSystem/v2-"


def _only(conversion: Any, resource_type: str) -> dict[str, Any]:
    [found] = resources(conversion, resource_type)
    return found


def _types(conversion: Any) -> list[str]:
    return [c.resource["resourceType"] for c in conversion.changes]


def _without_provenance(conversion: Any) -> list[tuple[Any, str]]:
    return [(c.resource, c.on_older) for c in conversion.changes if c.resource["resourceType"] != "Provenance"]


def test_resources_come_in_dependency_order() -> None:
    """Whatever is referred to comes before what refers to it, and everything refers within the message."""
    conversion = convert(PID, segment("PV1", {2: "O", 7: "D2^李^四", 19: "V1"}),
                         segment("ORC", {1: "RE", 2: "PL1", 3: "F1", 12: "D1^张^医生"}), OBR, WBC,
                         "SPM|1|S1||SER^Serum^HL70487",
                         segment("OBX", {2: "ST", 3: "HGB", 15: "K^检验科", 16: "T1^赵"}))
    seen: set[str] = set()
    for change in conversion.changes:
        for reference in _references(change.resource):
            assert reference in seen or reference.startswith("Binary/hl7v2-"), reference
        seen.add(f"{change.resource['resourceType']}/{change.resource['id']}")
    assert _types(conversion)[0] == "Organization" and _types(conversion)[-1] == "Provenance"


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["reference"]] if isinstance(node.get("reference"), str) else []
        return own + [r for value in node.values() for r in _references(value)]
    return [r for item in node for r in _references(item)] if isinstance(node, list) else []


def test_codes_are_unified_beside_the_hospitals_own() -> None:
    """Mapped: item, LOINC and local coding; unmapped: the local coding alone, and a remark."""
    conversion = convert(WBC, "OBX|2|NM|XYZ^怪项目^L||1|U/L|||||F")
    first, second = resources(conversion, "Observation")
    assert first["code"] == {"coding": [
        {"system": ITEMS, "code": "THM001Q", "display": "thm001q"}, {"system": "http://loinc.org", "code": "6690-2"},
        {"system": "urn:huren:h1:item", "code": "WBC", "display": "白细胞"}], "text": "白细胞"}
    assert second["code"] == {"coding": [{"system": "urn:huren:h1:item", "code": "XYZ", "display": "怪项目"}],
                              "text": "怪项目"}
    assert conversion.unmapped == [Unmapped("test", "XYZ", "怪项目", "U/L", "OBX-3")]


def test_a_standard_code_keeps_its_system_and_the_alternate_is_looked_up() -> None:
    """LN is LOINC; when the first code is unmapped the alternate's unified coding is taken; both codes stay."""
    found = observation("OBX|1|NM|6690-2^Leukocytes^LN^WBC^白细胞^99LIS||5|g/L|||||F")
    assert [(c["system"], c["code"]) for c in found["code"]["coding"]] == [
        (ITEMS, "THM001Q"), ("http://loinc.org", "6690-2"), ("urn:huren:h1:item", "WBC")]
    assert found["code"]["text"] == "Leukocytes"


def test_a_text_without_a_code_stands_for_its_own_code() -> None:
    """Small laboratories tell tests apart by name: it can be mapped like a code."""
    conversion = convert("OBX|1|NM|^白 细胞||5|g/L|||||F")
    assert _only(conversion, "Observation")["code"] == {
        "coding": [{"system": "urn:huren:h1:item", "code": "白 细胞", "display": "白 细胞"}], "text": "白 细胞"}
    assert conversion.unmapped == [Unmapped("test", "白 细胞", "白 细胞", "g/L", "OBX-3")]


@pytest.mark.parametrize("segments, where", [
    (["PID|1||||王"], "PID-3"), (["PID|1||^^^H1^MR||王"], "PID-3"), (["OBR|1|PL1|F1"], "OBR-4"),
    (["OBR|1|||CBC^血常规"], "OBR-3"), (["OBX|1|NM|||5"], "OBX-3"), (["OBX|1|NM|WBC||5||||||Q"], "OBX-11"),
    ([OBR.replace("|HM|F", "|HM|Y")], "OBR-25"), (["OBX|1|NM|WBC||||||||U"], "OBX-5"),
    ([OBR.replace("20240102080000", "20241302")], "OBR-7"),
    (["ORC|RE|PL1", OBR, WBC, "ORC|RE|PL2"], "OBR")])
def test_what_is_missing_or_impossible_is_named(segments: list[str], where: str) -> None:
    """INVALID with the sender's path; the sentence holds no value of the message."""
    with pytest.raises(GatewayError) as refusal:
        convert(*segments)
    assert (refusal.value.category, refusal.value.where) == (Category.INVALID, where)
    assert "王" not in refusal.value.message and "1980" not in refusal.value.message


@pytest.mark.parametrize("raw, where", [(f"{MSH}\r{OBR}\r{WBC}\r", "PID"), (f"{MSH}\r{PID}\r", "OBR"),
                                        (f"{MSH}\r{PID}\r{WBC}\r", "OBR"), (f"{MSH}\r{PID}\rSPM|1|S1\r", "OBR"),
                                        (f"{MSH}\r{OBR}\r{PID}\r{PID}|Z\r{OBR}\r", "PID")])
def test_patient_and_order_are_required(raw: str, where: str) -> None:
    """Results of nobody, and patients without a report, are refused."""
    with pytest.raises(GatewayError) as refusal:
        hl7v2.convert(hl7v2.parse(raw.encode()), make_source())
    assert (refusal.value.category, refusal.value.where) == (Category.INVALID, where)


@pytest.mark.parametrize("kind, detail", [("BAR^P01", "message-type"), ("ORU^R99", "event"), ("XXX", "message-type")])
def test_other_messages_are_unsupported(kind: str, detail: str) -> None:
    """The refusal says what is taken, and which part of MSH-9 was not."""
    with pytest.raises(GatewayError) as refusal:
        convert(MSH.replace("ORU^R01^ORU_R01", kind))
    assert (refusal.value.category, refusal.value.where) == (Category.UNSUPPORTED, "MSH-9")
    assert refusal.value.detail == detail
    assert "ORU" in refusal.value.message


@pytest.mark.parametrize("kind", ["ORU^R01", "ORU", "ORU^R30", "ORU^R31", "ORU^R32^ORU_R30", "ORU^R40", "ORU^W01",
                                  "oru^r01", "ORU^^ORU_R01"])
def test_kin_of_r01_are_read(kind: str) -> None:
    """Events of the same shape, and the bare ORU of versions 2.1 and 2.2."""
    assert "DiagnosticReport" in _types(convert(MSH.replace("ORU^R01^ORU_R01", kind), WBC))


@pytest.mark.parametrize("sent, status", [("O", "registered"), ("I", "registered"), ("S", "registered"),
                                          ("A", "partial"), ("P", "preliminary"), ("R", "partial"), ("F", "final"),
                                          ("C", "corrected"), ("X", "cancelled"), ("M", "preliminary"),
                                          ("N", "registered"), ("", "unknown"), ("f", "final")])
def test_report_status(sent: str, status: str) -> None:
    """OBR-25 by the guide's table; absent is unknown, never final."""
    conversion = convert(OBR.removesuffix("F") + sent, WBC)
    assert _only(conversion, "DiagnosticReport")["status"] == status


@pytest.mark.parametrize("sent, status, reason", [
    ("F", "final", "unknown"), ("P", "preliminary", "temp-unknown"), ("C", "corrected", "unknown"),
    ("A", "amended", "unknown"), ("D", "entered-in-error", "unknown"), ("W", "entered-in-error", "unknown"),
    ("X", "cancelled", "unknown"), ("N", "cancelled", "not-asked"), ("I", "registered", "temp-unknown"),
    ("R", "preliminary", "temp-unknown"), ("V", "final", "unknown"), ("", "unknown", "unknown")])
def test_observation_status_without_a_value(sent: str, status: str, reason: str) -> None:
    """OBX-11 by the guide's table; a missing value says why."""
    found = observation(f"OBX|1|NM|WBC||||||||{sent}")
    assert found["status"] == status
    assert found["dataAbsentReason"]["coding"][0]["code"] == reason
    assert ("_status" in found) == (sent == "X")


def test_the_manifest_may_say_what_an_absent_status_means() -> None:
    """``"" = "F"`` is the hospital's own statement, no guess of ours."""
    conversion = convert(OBR.removesuffix("F"), WBC.removesuffix("F"),
                         tables={"OBR-25": {"": "F"}, "OBX-11": {"": "F"}})
    assert _only(conversion, "DiagnosticReport")["status"] == _only(conversion, "Observation")["status"] == "final"


def test_final_and_corrected_are_versions_of_the_preliminary() -> None:
    """Status, values and times change, ids do not; as_of grows with OBR-22."""
    stages = [convert(MSH.replace("|M1|", f"|M{n}|"), OBR.removesuffix("F").replace("20240102100000", stamp) + status,
                      f"OBX|1|NM|WBC^白细胞^L||{value}|10*9/L|||||{status}")
              for n, (status, value, stamp) in enumerate((("P", "5.1", "20240102100000"),
                                                          ("F", "5.2", "20240102110000"),
                                                          ("C", "5.3", "20240102120000")))]
    ids = [[(c.resource["resourceType"], c.resource["id"]) for c in s.changes if c.resource["resourceType"]
            != "Provenance"] for s in stages]
    assert ids[0] == ids[1] == ids[2]
    moments = [next(c.as_of for c in s.changes if c.resource["resourceType"] == "DiagnosticReport") for s in stages]
    assert moments == sorted(set(moments))


def test_a_resend_under_a_new_control_id_changes_nothing_but_the_provenance() -> None:
    """MSH-10 and MSH-7 stand in no other resource."""
    segments = ("ORC|RE|PL1|F1||CM", WBC, "SPM|1|S1||SER")
    first = convert(*segments)
    again = convert(MSH.replace("|M1|", "|M2|").replace("20240102103000", "20240103093000"), *segments)
    assert _without_provenance(first) == _without_provenance(again)
    assert _only(first, "Provenance")["id"] != _only(again, "Provenance")["id"]
    assert convert(*segments) == first


def test_one_filler_number_may_carry_several_orders() -> None:
    """Two panels of one tube are two reports, and each is the same report when it comes alone."""
    liver = OBR.replace("CBC^血常规^L", "LIV^肝功能^L").replace("OBR|1", "OBR|2")
    both = convert(OBR, WBC, liver, "OBX|1|NM|ALT||9|U/L|||||F")
    alone = convert(liver, "OBX|1|NM|ALT||9|U/L|||||F")
    reports = [r["id"] for r in resources(both, "DiagnosticReport")]
    assert len(set(reports)) == 2 and reports[1] == _only(alone, "DiagnosticReport")["id"]
    assert resources(both, "Observation")[1]["id"] == _only(alone, "Observation")["id"]


def test_repeated_tests_of_one_report_stay_apart() -> None:
    """The same OBX-3 with other or equal OBX-4, and the same OBR twice: each keeps a resource of its own."""
    conversion = convert(PID, OBR, "OBX|1|ST|FIND^所||一||||||F", "OBX|2|ST|FIND^所||二||||||F",
                         "OBX|3|TX|FIND^所见|2|三||||||F", OBR.replace("OBR|1", "OBR|2"),
                         "OBX|1|TX|FIND^所见||四||||||F")
    assert len({o["id"] for o in resources(conversion, "Observation")}) == 4
    assert len({r["id"] for r in resources(conversion, "DiagnosticReport")}) == 2
    assert conversion.unmapped == []  # FIND is no item, by the hospital's own word
    sub_id = resources(conversion, "Observation")[2]["extension"][0]
    assert sub_id["extension"] == [{"url": "original-sub-identifier", "valueString": "2"}]


def test_report_and_order_carry_their_numbers_times_and_people() -> None:
    """OBR and ORC as the guide maps them."""
    obr = segment("OBR", {2: "PL1^HIS", 3: "F1^LIS^1.2.3^ISO", 4: "CBC^血常规^L", 5: "S", 6: "20240101",
                          7: "20240102080000", 8: "20240102080500", 13: "发热", 16: "D1^王^一", 22: "20240102100000",
                          24: "HM", 25: "C", 32: "D2&李&二^^", 34: "T3&赵&三"})
    conversion = convert("ORC|NW|PL1^HIS|F1||||^^^^^A||20231231", obr, WBC)
    report, request = _only(conversion, "DiagnosticReport"), _only(conversion, "ServiceRequest")
    assert report["identifier"] == request["identifier"] == [
        {"type": {"coding": [{"system": f"{V2}0203", "code": "PLAC"}]}, "system": "urn:huren:h1:placer:HIS",
         "value": "PL1"},
        {"type": {"coding": [{"system": f"{V2}0203", "code": "FILL"}]}, "system": "urn:oid:1.2.3", "value": "F1"}]
    assert report["basedOn"] == [{"reference": f"ServiceRequest/{request['id']}"}]
    assert report["effectivePeriod"] == {"start": "2024-01-02T08:00:00+08:00", "end": "2024-01-02T08:05:00+08:00"}
    assert report["issued"] == "2024-01-02T10:00:00+08:00" and report["status"] == "corrected"
    assert report["category"][0]["coding"] == [{"system": f"{V2}0074", "code": "HM", "display": "Hematology"}]
    assert [p.get("display") for p in report["performer"]] == [None, "赵三"]
    assert report["resultsInterpreter"][0]["display"] == "李二"
    assert (request["status"], request["intent"], request["priority"]) == ("completed", "order", "stat")
    assert (request["occurrenceDateTime"], request["authoredOn"]) == ("2024-01-01", "2023-12-31")
    assert request["requester"]["display"] == "王一" and request["supportingInfo"] == [{"display": "发热"}]
    assert _only(conversion, "Observation")["effectivePeriod"] == report["effectivePeriod"]
    assert _only(conversion, "Observation")["category"][0]["coding"][0]["code"] == "laboratory"


@pytest.mark.parametrize(("report", "status"), [
    ("F", "completed"), ("C", "completed"), ("X", "revoked"), ("P", "active"), ("A", "active"), ("", "active")])
def test_a_new_order_told_with_its_own_report_is_as_far_as_that_report(report: str, status: str) -> None:
    """A bedside analyser says ORC-1 NW beside its final result (ORU^R30): nobody waits for that order any more."""
    obr = segment("OBR", {2: "PL1", 3: "F1", 4: "CBC", 25: report})
    assert _only(convert("ORC|NW|PL1|F1", obr, WBC), "ServiceRequest")["status"] == status


def test_as_of_and_what_happens_when_older() -> None:
    """Results refuse to be undone, people and what reports share are skipped; OBR-22 counts, MSH-7 if it is a date."""
    conversion = convert(WBC)
    rules = {c.resource["resourceType"]: (c.as_of, c.on_older) for c in conversion.changes}
    reported, sent = 1704160800_000000, 1704162600_000000
    assert rules["DiagnosticReport"] == rules["Observation"] == (reported, "refuse")
    assert rules["ServiceRequest"] == (reported - 10**16, "skip")  # older than whatever an order message says
    assert rules["Patient"] == (sent - 10**16, "skip")  # older than whatever patient administration said
    assert rules["Organization"] == (None, "skip")
    daily = convert(OBR.replace("20240102100000", "20240102"), WBC)
    assert next(c.as_of for c in daily.changes if c.resource["resourceType"] == "Observation") == sent
    assert "issued" not in _only(daily, "DiagnosticReport")


def test_provenance_tells_source_time_and_targets() -> None:
    """One for a message: MSH-7, MSH-10 and everything but the hospital itself."""
    conversion = convert(WBC)
    made = _only(conversion, "Provenance")
    assert made["recorded"] == "2024-01-02T10:30:00+08:00"
    assert made["entity"][0]["what"]["identifier"] == {"system": "urn:huren:h1:message", "value": "M1"}
    assert made["agent"][0]["who"] == {"reference": "Organization/h1"}
    raw = text(MSH, PID, OBR, WBC).encode()
    assert made["entity"][0]["what"]["reference"] == f"Binary/hl7v2-{message_digest('hl7v2', raw).hex()}"
    assert len(made["target"]) == len(conversion.changes) - 2
    assert _only(convert(MSH.replace("20240102103000", "20240102"), WBC), "Provenance")["recorded"] == \
        "2024-01-02T00:00:00+08:00"


def test_a_message_without_any_time_has_its_provenance_too() -> None:
    """Provenance.recorded is required: why it is absent stands in its place."""
    conversion = convert(MSH.replace("20240102103000", ""), segment("OBR", {3: "F1", 4: "CBC", 25: "F"}), WBC)
    made = _only(conversion, "Provenance")
    assert made["_recorded"]["extension"][0]["valueCode"] == "unknown" and "recorded" not in made
    check.require_valid(made, profile=True)


def test_meta_source_names_the_hospital_alone() -> None:
    """No control id in any resource but the Provenance's entity."""
    for change in convert(WBC).changes:
        assert list(change.resource)[:3] == ["resourceType", "id", "meta"]
        assert change.resource["meta"] == {"source": "urn:huren:h1"}


# ---------------------------------------------------------------- patient

@pytest.mark.parametrize("pid3, pid19, systems, expected", [
    ("P1", "", {}, [("urn:huren:h1:patient", "P1", None)]),
    ("P1^^^H1^MR", "", {}, [("urn:huren:h1:patient", "P1", "MR")]),
    ("P1^^^H1^MR~C9^^^SSC^HC", "", {}, [("urn:huren:h1:patient", "P1", "MR"),
                                        ("urn:huren:h1:patient:SSC", "C9", "HC")]),
    ("P1^^^H1&1.2.3&ISO^MR", "", {}, [("urn:oid:1.2.3", "P1", "MR")]),
    ("P1^^^H1^MR", "", {"H1": "urn:x"}, [("urn:x", "P1", "MR")]),
    ("P1^^^&1.2.3&ISO^MR", "", {"1.2.3": "urn:y"}, [("urn:y", "P1", "MR")]),
    ("C9^^^^HC", "", {"HC": "urn:card"}, [("urn:card", "C9", "HC")]),
    ("P1^^^^PI~11010519491231002x^^^MPS^NNCHN", "", {}, [("urn:huren:h1:patient", "P1", "PI"),
                                                         (NATIONAL_ID_SYSTEM, "11010519491231002X", "NNCHN")]),
    ("11010519491231002X^^^^身份证~P1", "", {}, [(NATIONAL_ID_SYSTEM, "11010519491231002X", None),
                                                ("urn:huren:h1:patient", "P1", None)]),
    ("P1~110105194912310021^^^^NI", "", {}, [("urn:huren:h1:patient", "P1", None),
                                             (NATIONAL_ID_SYSTEM, "110105194912310021", "NI")]),
    ("P1~12345^^^USA^NI", "", {}, [("urn:huren:h1:patient", "P1", None), ("urn:huren:h1:patient:USA", "12345", "NI")]),
    ("P1", "110105194912310021", {}, [("urn:huren:h1:patient", "P1", None),
                                      (NATIONAL_ID_SYSTEM, "110105194912310021", "NNCHN")]),
    ("P1", "123-45-6789", {}, [("urn:huren:h1:patient", "P1", None), ("urn:huren:h1:social", "123-45-6789", "SB")]),
    ("P1~P1^^^H1^MR", "", {}, [("urn:huren:h1:patient", "P1", None)])])
def test_patient_identifiers(pid3: str, pid19: str, systems: dict[str, str],
                             expected: list[tuple[str, str, str | None]]) -> None:
    """Authority by manifest, OID or name; the national number by type, and by form where the type is not sure."""
    conversion = convert(f"PID|1||{pid3}||王^小明||||||||||||||{pid19}", identifier_systems=systems)
    patient = _only(conversion, "Patient")
    found = [(i["system"], i["value"], i.get("type", {}).get("coding", [{}])[0].get("code"))
             for i in patient["identifier"]]
    assert found == expected


def test_the_patients_id_is_its_hospital_number_in_any_message() -> None:
    """Names, other numbers and their order do not matter; it is the id that the hospital's images give too."""
    source = make_source()
    expected = source.patient_id(source.patient_system("H1"), "P1")
    for pid in (PID, "PID|1||X^^^SSC^HC~P1^^^H1^MR||李^四", "PID|7||P1", "PID|1||110105194912310021^^^^NI~P1^^^^PI"):
        assert _only(convert(pid, WBC), "Patient")["id"] == expected


@pytest.mark.parametrize("sent, expected", [
    ("王建国", {"text": "王建国"}), ("王^建国", {"text": "王建国", "family": "王", "given": ["建国"]}),
    ("欧阳^^^^^^L^I", {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation",
                                    "valueCode": "IDE"}], "use": "official", "text": "欧阳"}),
    ("Wang^Jianguo^B^JR^DR^MD^L^A", {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation",
                       "valueCode": "ABC"}],
        "use": "official", "text": "DR Jianguo B Wang JR MD", "family": "Wang", "given": ["Jianguo", "B"],
        "prefix": ["DR"], "suffix": ["JR", "MD"]}),
    ("O&van^Anna", {"text": "Anna O", "family": "O", "given": ["Anna"]}), ("^Madonna", {"text": "Madonna",
                                                                                        "given": ["Madonna"]})])
def test_names(sent: str, expected: dict[str, Any]) -> None:
    """Chinese names have no blank; a whole name in the family component is not taken apart."""
    assert _only(convert(f"PID|1||P1||{sent}"), "Patient")["name"] == [expected]


def test_demographics() -> None:
    """Birth, sex, address, telecom, marital status, death and birth order."""
    pid = segment("PID", {3: "P1", 5: "王^一~Wang^Yi^^^^^L^A", 6: "刘^梅", 7: "198002290830", 8: "女",
                          11: "文三路1号^2栋^杭州^浙江^310000^CN^H", 13: "0571-1^PRN^PH~^NET^Internet^a@b.cn",
                          14: "13800000000", 15: "zh", 16: "M", 24: "Y", 25: "2", 29: "20240101", 30: "Y"})
    patient = _only(convert(pid, tables={"PID-8": {"女": "F"}}), "Patient")
    assert (patient["gender"], patient["birthDate"]) == ("female", "1980-02-29")
    assert patient["_birthDate"]["extension"][0]["valueDateTime"] == "1980-02-29T08:30:00+08:00"
    assert patient["address"] == [{"use": "home", "line": ["文三路1号", "2栋"], "city": "杭州", "state": "浙江",
                                   "postalCode": "310000", "country": "CN"}]
    assert patient["telecom"] == [{"system": "phone", "value": "0571-1", "use": "home"},
                                  {"system": "email", "value": "a@b.cn"},
                                  {"system": "phone", "value": "13800000000", "use": "work"}]
    assert patient["maritalStatus"]["coding"][0]["code"] == "M"
    assert patient["extension"][0]["valueString"] == "刘"
    assert (patient["deceasedDateTime"], patient["multipleBirthInteger"]) == ("2024-01-01", 2)


def test_the_manifest_may_say_that_zeros_mean_unknown() -> None:
    """``[tables."PID-7"] "00000000" = ""``: no birth date instead of a refusal."""
    pid = PID.replace("19800229", "00000000")
    assert "birthDate" not in _only(convert(pid, tables={"PID-7": {"00000000": ""}}), "Patient")


def test_two_patients_in_one_message() -> None:
    """PATIENT_RESULT repeats: each patient has the reports that follow."""
    other = "PID|2||P2^^^H1^MR||李^四"
    conversion = convert(PID, OBR, WBC, other, OBR.replace("|F1|", "|F2|"), WBC)
    patients = [f"Patient/{p['id']}" for p in resources(conversion, "Patient")]
    assert len(patients) == 2
    assert [r["subject"]["reference"] for r in resources(conversion, "DiagnosticReport")] == patients


# ---------------------------------------------------------------- visit, people, specimens, notes

def test_a_visit_with_a_number_is_an_encounter() -> None:
    """PV1 as Encounter; without PV1-19 there is none."""
    pv1 = segment("PV1", {2: "I", 3: "W1^12^3", 4: "R", 7: "D2^李^四", 19: "V1^^^H1", 44: "20240101", 45: "20240103"})
    conversion = convert(PID, pv1, OBR, WBC)
    encounter = _only(conversion, "Encounter")
    assert (encounter["status"], encounter["class"]["code"]) == ("finished", "IMP")
    assert encounter["identifier"][0]["value"] == "V1"
    assert encounter["period"] == {"start": "2024-01-01", "end": "2024-01-03"}
    assert encounter["participant"][0]["individual"]["display"] == "李四"
    reference = {"reference": f"Encounter/{encounter['id']}"}
    assert all(_only(conversion, t)["encounter"] == reference for t in ("DiagnosticReport", "Observation",
                                                                        "ServiceRequest"))
    bare = convert(PID, "PV1|1|O", OBR, WBC)
    assert resources(bare, "Encounter") == [] and "encounter" not in _only(bare, "DiagnosticReport")


def test_people_without_a_number_are_names_only() -> None:
    """Two physicians may share a name: without an identifier there is no Practitioner."""
    conversion = convert("OBX|1|NM|WBC||5||||||F|||||^王^医生~D7^李^四|")
    assert [p["display"] for p in _only(conversion, "Observation")["performer"][:2]] == ["王医生", "李四"]
    assert _only(conversion, "Practitioner")["identifier"] == [{"system": "urn:huren:h1:practitioner", "value": "D7"}]


def test_performing_laboratories() -> None:
    """OBX-23, else OBX-15, else the hospital itself."""
    named = observation("OBX|1|NM|WBC||5||||||F||||||||||||外送实验室^L^^^^LAB^XX^^^LAB7|城东路1号")
    assert named["performer"][-1]["display"] == "外送实验室"
    produced = convert("OBX|1|NM|WBC||5||||||F||||检验科^检验科^L")
    assert [o.get("name") for o in resources(produced, "Organization")] == ["一号医院", "检验科"]
    assert observation(WBC)["performer"] == [{"reference": "Organization/h1"}]


def test_specimens_from_spm() -> None:
    """Type, numbers, collection and container of SPM; the Observations refer to it."""
    conversion = convert(OBR.replace("20240102080000", ""), WBC,
                         "SPM|1|P9&HIS^F9&LIS||SER^Serum^HL70487|||VEN|||||5&mL|||||202401020700^202401020710"
                         "|202401020800||Y|||||||红管")
    specimen = _only(conversion, "Specimen")
    assert [i["value"] for i in specimen["identifier"]] == ["P9", "F9"]
    assert (specimen["status"], specimen["type"]["coding"][0]) == ("available", {
        "system": f"{V2}0487", "code": "SER", "display": "Serum"})
    assert specimen["collection"]["collectedPeriod"]["end"] == "2024-01-02T07:10:00+08:00"
    assert specimen["receivedTime"] == "2024-01-02T08:00:00+08:00"
    report, found = _only(conversion, "DiagnosticReport"), _only(conversion, "Observation")
    reference = {"reference": f"Specimen/{specimen['id']}"}
    assert report["specimen"] == [reference] and found["specimen"] == reference
    assert found["effectivePeriod"]["start"] == "2024-01-02T07:00:00+08:00"  # no OBR-7: the time of collection


@pytest.mark.parametrize("obr, side", [({45: "LT^Left side^CPT"}, "L"), ({45: "50"}, "B"), ({45: "LT~RT"}, "B"),
                                       ({15: "^^^膝关节^^^R"}, "R"), ({15: "^^^膝关节"}, None), ({45: "26"}, None)])
def test_a_report_says_which_side_was_examined(obr: dict[int, str], side: str | None) -> None:
    """By the modifiers of OBR-15.7 and OBR-45, as the extension that an order carries too; beside a note's."""
    report = _only(convert(segment("OBR", {2: "PL1", 3: "F1", 4: "MRK^膝关节^L", 7: "20240102", 24: "RAD", 25: "F",
                                           **obr}), "NTE|1||备注", WBC), "DiagnosticReport")
    said = [e.get("valueCode") for e in report["extension"] if e["url"].endswith("/laterality")]
    assert ([side] if side else []) == said and len(report["extension"]) == 1 + len(said)


@pytest.mark.parametrize("spm, flagged", [
    ({24: "HEM^Hemolyzed^HL70493"}, True), ({24: "COOL^Cool^HL70493~HEM^^HL70493"}, True),
    ({21: "RH^Hemolysis^HL70490"}, True), ({24: "HEM^溶血^L"}, False), ({24: "CLOT^Clotted^HL70493"}, False),
    ({14: "溶血"}, False), ({24: "^溶血"}, False)])
def test_results_of_a_haemolysed_specimen_say_so(spm: dict[int, str], flagged: bool) -> None:
    """By the standard's codes, the hospital's own mapped to them, never by text; each result carries it."""
    tag = {"system": "http://huren.example/fhir/CodeSystem/recognition-flag", "code": "haemolysis"}
    results = resources(convert(OBR, WBC, WBC.replace("WBC", "HGB"), segment("SPM", {1: "1", 4: "SER", **spm})),
                        "Observation")
    assert [flagged] * 2 == [tag in result["meta"].get("tag", []) for result in results]
    own = resources(convert(OBR, WBC, segment("SPM", {1: "1", 4: "SER", 24: "3^溶血"}),
                            tables={"SPM-24": {"3": "HEM"}}), "Observation")
    assert [[tag]] == [result["meta"].get("tag") for result in own]


@pytest.mark.parametrize("origin, code, text_", [("01^全血^L", "01", "全血"), ("BLD&Blood&HL70487", "BLD", "Blood"),
                                                 ("SER", "SER", "SER"), ("^全血", None, "全血")])
def test_specimens_before_2_5(origin: str, code: str | None, text_: str) -> None:
    """OBR-15 as SPS, and as the coded element that many write there."""
    obr = segment("OBR", {2: "PL1", 3: "F1", 4: "CBC", 7: "20240102", 15: origin, 25: "F"})
    specimen = _only(convert(obr, WBC), "Specimen")
    assert specimen["type"].get("coding", [{}])[0].get("code") == code and specimen["type"]["text"] == text_
    assert specimen["collection"]["collectedDateTime"] == "2024-01-02"


def test_segments_out_of_their_order_do_no_harm() -> None:
    """SPM before OBX or before OBR, no ORC, PV1 after the order: the same resources."""
    pv1, spm = segment("PV1", {2: "O", 19: "V1"}), "SPM|1|S1||SER"
    usual = convert(PID, pv1, OBR, WBC, spm)
    for order in ((PID, pv1, OBR, spm, WBC), (PID, spm, OBR, WBC, pv1)):
        moved = convert(*order)
        assert _ids_of(moved) == _ids_of(usual)


def _ids_of(conversion: Conversion) -> list[str]:
    """Of all but the Provenance, which is of one message's bytes."""
    return sorted(c.resource["id"] for c in conversion.changes if c.resource["resourceType"] != "Provenance")


def test_notes_stay_with_what_they_follow() -> None:
    """NTE after OBX, OBR and PID; several are the lines of one note."""
    conversion = convert(PID, "NTE|1||孕妇", OBR, "NTE|1||报告一~报告二", WBC, "NTE|1||溶血", "NTE|2||复查",
                         "ZZZ|1", "OBX|2|NM|HGB||1")
    first, second = resources(conversion, "Observation")
    assert first["note"] == [{"text": "溶血\n复查"}] and "note" not in second
    [extension] = _only(conversion, "DiagnosticReport")["extension"]
    assert extension["valueAnnotation"] == {"text": "报告一\n报告二\n孕妇"}
    assert _only(conversion, "ServiceRequest")["note"] == [{"text": "报告一\n报告二"}]
    assert "extension" not in _only(conversion, "Patient")


def test_details_of_an_observation() -> None:
    """OBX-14, 16 to 21."""
    found = observation("OBX|1|NM|WBC||5||||||F|||202401020901||T1^李|PCR^荧光法^L|XN1^XN|202401020905|ARM^臂^L|O77")
    assert found["effectiveDateTime"] == "2024-01-02T09:01:00+08:00"
    assert found["method"]["text"] == "荧光法" and found["bodySite"]["text"] == "臂"
    assert found["device"]["identifier"] == {"system": "urn:huren:h1:device:XN", "value": "XN1"}
    assert found["extension"] == [{"url": "http://hl7.org/fhir/StructureDefinition/observation-analysis-date-time",
                                   "valueDateTime": "2024-01-02T09:05:00+08:00"}]
    assert found["identifier"][0]["value"] == "O77"


def test_an_imaging_report_points_to_its_study() -> None:
    """OBX 113014 (DICOM Study) gives imagingStudy with the id that the images give, and is no unmapped test."""
    conversion = convert(OBR.replace("|HM|F", "|RAD|F"), "OBX|1|HD|113014^DICOM Study^DCM||1.2.3.4||||||F")
    [study] = _only(conversion, "DiagnosticReport")["imagingStudy"]
    assert study["reference"] == f"ImagingStudy/{make_source().id_for('ImagingStudy', '1.2.3.4')}"
    assert study["identifier"]["value"] == "urn:oid:1.2.3.4"
    assert [u.local for u in conversion.unmapped] == []
    assert _only(conversion, "Observation")["category"][0]["coding"][0]["code"] == "imaging"


def test_versions_2_1_to_2_8_give_the_same_resources() -> None:
    """The version changes how a message is answered, not what it means."""
    made = [_without_provenance(convert(MSH.replace("2.5.1", version), WBC))
            for version in ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.6", "2.7", "2.8", "")]
    assert all(one == made[0] for one in made)


def test_text_of_a_message_is_never_in_its_representation() -> None:
    """repr() of message and segment is what a log or a traceback may show."""
    message = hl7v2.parse(text(WBC).encode())
    assert "王" not in repr(message) and "王" not in repr(message.segments[1])


def test_observations_before_any_order_belong_to_the_patient() -> None:
    """PATIENT_OBSERVATION of 2.7: kept, each apart, in no report."""
    conversion = convert(PID, "OBX|1|NM|HGB||170|cm|||||F", "OBX|2|NM|HGB||171|cm|||||F", OBR, WBC)
    assert len({o["id"] for o in resources(conversion, "Observation")}) == 3
    assert len(_only(conversion, "DiagnosticReport")["result"]) == 1
