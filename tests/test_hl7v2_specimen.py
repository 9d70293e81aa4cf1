"""Specimens, their containers and refusals; who took part in an observation (PRT)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.fhir.check import check
from gateway.source import Conversion
from tests.support_source import OBR, convert, make_source, resources, segment

WBC = "OBX|1|NM|WBC^白细胞^L||5.10|10*9/L|3.5-9.5|N|||F"
EMPTY = "OBX|1|NM|WBC^白细胞^L||||||||X"
V2 = "http://terminology.hl7.org/CodeSystem/v2-"
FLAG = "http://huren.example/fhir/CodeSystem/recognition-flag"


def _specimen(spm: dict[int, str], *more: str) -> dict[str, Any]:
    """The Specimen of an SPM and what follows it."""
    [found] = resources(convert(OBR, segment("SPM", {1: "1", 4: "SER", **spm}), *more, WBC), "Specimen")
    assert check(found) == []
    return found


def test_numbers_of_a_specimen() -> None:
    """SPM-2 of placer and filler, SPM-31, the shipment's SPM-32 and the accession number SPM-30."""
    found = _specimen({2: "S1&HIS^S1F&LIS", 30: "A1", 31: "X9^^^LIS", 32: "BOX7^物流"})
    assert [(i.get("type", {}).get("coding", [{}])[0].get("code"), i["value"]) for i in found["identifier"]] == [
        ("PGN", "S1"), ("FGN", "S1F"), (None, "X9"), ("SHIP", "BOX7")]
    assert found["accessionIdentifier"]["value"] == "A1"
    assert found["id"] == make_source().id_for("Specimen", "urn:huren:h1:specimen:LIS|S1F")


def test_a_parent_specimen_is_named_without_a_look_up() -> None:
    """SPM-3: the id that the parent's own SPM-2 gave, in this message or in an earlier one."""
    parent = _specimen({2: "S1^S1F"})
    child = _specimen({2: "S2^S2F", 3: "S1^S1F~^S0F"})
    assert child["parent"][0]["reference"] == f"Specimen/{parent['id']}"
    assert [one["identifier"]["value"] for one in child["parent"]] == ["S1F", "S0F"]


def test_what_and_where_from() -> None:
    """SPM-4 with its modifiers (SPM-5), role SPM-11, handling SPM-15."""
    found = _specimen({4: "BLD^Whole blood^HL70487", 5: "^脂血", 11: "P^Patient^HL70369", 15: "REF^Cold^HL70376"})
    assert found["type"]["coding"][0]["code"] == "BLD" and found["type"]["text"] == "Whole blood (脂血)"
    assert [(e["url"].rpartition("/")[2], e["valueCodeableConcept"]["coding"][0]["code"]) for e in found["extension"]] \
        == [("extension-Specimen.role", "P"), ("specimen-specialHandling", "REF")]


def test_collection() -> None:
    """SPM-7, 8 with 9, 12, 17 and the collector of PRT; SPM-10 where there is no SPM-8."""
    found = _specimen({7: "VENIP^Venipuncture^HL70488", 8: "ARM^前臂^L", 9: "^左", 12: "3.50^mL",
                       17: "20240102075500^20240102075700"},
                      segment("PRT", {2: "AD", 4: "SC^Specimen Collector^HL70912", 5: "N7^李^护士"}))["collection"]
    assert found["method"]["coding"][0] == {"system": f"{V2}0488", "code": "VENIP", "display": "Venipuncture"}
    assert found["bodySite"]["text"] == "前臂 (左)" and found["collector"]["display"] == "李护士"
    assert found["quantity"]["value"].as_tuple().exponent == -2 and found["quantity"]["code"] == "mL"
    assert found["collectedPeriod"]["end"] == "2024-01-02T07:57:00+08:00"
    assert _specimen({10: "W3^三病区^L"})["collection"]["bodySite"]["text"] == "三病区"


def test_the_container_from_spm() -> None:
    """SPM-6 additive, SPM-25 what is left, SPM-27 kind, SPM-28 condition."""
    [found] = _specimen({6: "EDTA^Potassium EDTA^HL70371", 25: "1.2^mL", 27: "^紫头管", 28: "^管盖松动"})["container"]
    assert found["additiveCodeableConcept"]["coding"][0]["code"] == "EDTA" and found["type"]["text"] == "紫头管"
    assert str(found["specimenQuantity"]["value"]) == "1.2" and found["description"] == "管盖松动"


def test_containers_from_sac() -> None:
    """SAC-3 number, 21 capacity, 22 content in the units of 24, 27 additive, 30 treatment; SAC-2 accession number."""
    found = _specimen({2: "S1", 27: "^紫头管"},
                      segment("SAC", {2: "A1", 3: "C1^LIS", 21: "5", 22: "2.5", 24: "mL", 27: "HEPL^Heparin^HL70371"}),
                      segment("SAC", {3: "C2", 30: "FILT^Filtration^HL70373"}))
    first, second = found["container"]
    assert first["identifier"] == [{"system": "urn:huren:h1:container:LIS", "value": "C1"}]
    assert [str(first[name]["value"]) for name in ("capacity", "specimenQuantity")] == ["5", "2.5"]
    assert first["additiveCodeableConcept"]["coding"][0]["code"] == "HEPL" and first["capacity"]["code"] == "mL"
    assert [one["type"]["text"] for one in (first, second)] == ["紫头管"] * 2
    assert found["accessionIdentifier"]["value"] == "A1"
    assert found["processing"][0]["procedure"]["coding"][0]["code"] == "FILT"


@pytest.mark.parametrize("spm, status", [({20: "Y"}, "available"), ({20: "N"}, "unavailable"), ({}, None),
                                         ({20: "Y", 21: "RC^Clotting^HL70490"}, "unsatisfactory")])
def test_specimen_status(spm: dict[int, str], status: str | None) -> None:
    """SPM-20, unless the laboratory refused it (SPM-21)."""
    assert _specimen(spm).get("status") == status


def test_condition_quality_and_notes() -> None:
    """SPM-24, 22 and 21 are conditions in their tables; SPM-14 and NTE are notes."""
    found = _specimen({14: "送检晚", 21: "RC^Clotting^HL70490", 22: "P^Poor^HL70491", 24: "CLOT^Clotted^HL70493~COOL"},
                      "NTE|1||已电话通知")
    assert [c["coding"][0]["code"] for c in found["condition"]] == ["CLOT", "COOL", "P", "RC"]
    assert found["condition"][3]["coding"][0]["system"] == f"{V2}0490"
    assert [note["text"] for note in found["note"]] == ["送检晚", "已电话通知"]


REFUSED = segment("SPM", {1: "1", 2: "S1", 4: "BLD", 21: "RC^标本凝固^HL70490"})


def _first(conversion: Conversion) -> dict[str, Any]:
    return resources(conversion, "Observation")[0]


def test_a_refused_specimen_says_why_there_is_no_result() -> None:
    """No value: not performed, for the reason of SPM-21 (guide: SpecimenRejectReason). N stays "not asked"."""
    found = _first(convert(OBR, EMPTY, REFUSED))
    assert found["dataAbsentReason"] == {"coding": [
        {"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-performed"},
        {"system": f"{V2}0490", "code": "RC", "display": "标本凝固"}], "text": "标本凝固"}
    assert found["status"] == "cancelled" and check(found) == []
    bare = _first(convert(OBR, EMPTY, REFUSED.replace("RC^标本凝固^HL70490", "^^HL70490"), REFUSED.replace("S1", "S2")))
    assert len(bare["dataAbsentReason"]["coding"]) == 2 and check(bare) == []
    said_nothing = _first(convert(OBR, EMPTY, REFUSED.replace("RC^标本凝固^HL70490", "^^HL70490")))
    assert "text" not in said_nothing["dataAbsentReason"] and check(said_nothing) == []
    asked = _first(convert(OBR, EMPTY.replace("|X", "|N"), REFUSED))
    assert asked["dataAbsentReason"]["coding"][0]["code"] == "not-asked"
    good = REFUSED.replace("S1", "S2").replace("RC^标本凝固^HL70490", "")
    one_of_two = _first(convert(OBR, EMPTY, REFUSED, good))
    assert one_of_two["dataAbsentReason"]["coding"][0]["code"] == "unknown"


def test_a_result_of_a_refused_specimen_is_to_be_repeated() -> None:
    """A value that is sent all the same stays, and no one should rely on it instead of a new test."""
    found = _first(convert(OBR, WBC, REFUSED))
    assert str(found["valueQuantity"]["value"]) == "5.10" and found["status"] == "final"
    assert found["meta"]["tag"] == [{"system": FLAG, "code": "repeat-advised"}]
    assert "tag" not in _first(convert(OBR, WBC, REFUSED.replace("RC^标本凝固^HL70490", "")))["meta"]


def test_a_result_names_its_own_specimen() -> None:
    """OBX-33 where several specimens were taken; several of one result have no place."""
    one, two = "SPM|1|S1^S1F||BLD", "SPM|2|S2^S2F||UR"
    conversion = convert(OBR, WBC + "|" * 22 + "^S2F", WBC.replace("WBC", "HGB") + "|" * 22 + "^S1F~^S2F",
                         WBC.replace("WBC", "PLT"), one, two)
    second = resources(conversion, "Specimen")[1]
    named, several, none = resources(conversion, "Observation")
    assert named["specimen"]["reference"] == f"Specimen/{second['id']}"
    assert "specimen" not in several and "specimen" not in none
    assert len(resources(conversion, "DiagnosticReport")[0]["specimen"]) == 2


# ---------------------------------------------------------------- who took part

def _prt(role: str, **fields: str) -> str:
    return segment("PRT", {2: "AD", 4: f"{role}^^HL70912", **{int(name[1:]): value for name, value in fields.items()}})


def _displays(references: list[dict[str, Any]]) -> list[str]:
    return [one.get("display", one["reference"].partition("/")[0]) for one in references]


def test_performers_of_an_observation() -> None:
    """OBX-16, OBX-23 and OBX-25, whose director has a role in that organization."""
    conversion = convert(segment("OBX", {2: "NM", 3: "WBC", 5: "5", 11: "F", 16: "T1^赵~T2^钱", 23: "检验中心^^88",
                                         25: "M1^孙^主任"}))
    found = _first(conversion)
    assert _displays(found["performer"]) == ["赵", "钱", "检验中心", "孙主任"]
    [role] = resources(conversion, "PractitionerRole")
    assert role["code"][0]["coding"][0]["code"] == "MDIR" and role["organization"]["display"] == "检验中心"
    assert role["practitioner"]["display"] == "孙主任" and check(role) == []


def test_participation_of_an_observation() -> None:
    """PRT RO, PO, POMD and a device, as of 2.7; what the segment itself names is not doubled."""
    conversion = convert(WBC, _prt("RO", F5="T1^赵"), _prt("PO", F8="检验中心^^88"), _prt("POMD", F5="M1^孙^主任"),
                         _prt("EQUIP", F10="XN1^XN"), _prt("RO", F2="DE", F5="T9^周"))
    found = _first(conversion)
    assert _displays(found["performer"]) == ["赵", "检验中心", "孙主任"]
    assert found["device"]["identifier"]["value"] == "XN1" and check(found) == []
    both = _first(convert(segment("OBX", {2: "NM", 3: "WBC", 5: "5", 11: "F", 16: "T1^赵", 18: "D1"}),
                          _prt("RO", F5="T1^赵"), _prt("EQUIP", F10="XN1^XN")))
    assert _displays(both["performer"]) == ["赵", "Organization"] and both["device"]["identifier"]["value"] == "D1"


def test_participation_of_a_report() -> None:
    """PRT behind OBR: interpreters and technicians, beside OBR-32 to 35."""
    obr = segment("OBR", {2: "PL1", 3: "F1", 4: "CBC", 7: "20240102", 25: "F", 32: "D1&李", 33: "D2&王", 34: "T1&赵"})
    [report] = resources(convert(obr, _prt("PRI", F5="D1^李"), _prt("ARI", F5="D3^吴"), _prt("TN", F5="T2^钱"), WBC),
                         "DiagnosticReport")
    assert _displays(report["resultsInterpreter"]) == ["李", "王", "吴"]
    assert _displays(report["performer"]) == ["Organization", "赵", "钱"]


def test_participation_of_an_order() -> None:
    """PRT OP behind ORC or OBR is who ordered, unless OBR-16 or ORC-12 says it."""
    prt = _prt("OP", F5="D5^郑^医生")
    for segments in (("ORC|RE|PL1|F1", prt, OBR, WBC), (OBR, prt, WBC)):
        [request] = resources(convert(*segments), "ServiceRequest")
        assert request["requester"]["display"] == "郑医生"
    [named] = resources(convert(segment("OBR", {2: "PL1", 3: "F1", 4: "CBC", 16: "D6^冯", 25: "F"}), prt, WBC),
                        "ServiceRequest")
    assert named["requester"]["display"] == "冯"


def test_several_methods_and_sites_are_kept_in_the_text() -> None:
    """FHIR has one method: the first is coded, all are in its text."""
    found = _first(convert("OBX|1|NM|WBC||5||||||F||||||A^流式^L~B^染色^L"))
    assert found["method"]["coding"][0]["code"] == "A" and found["method"]["text"] == "流式; 染色"
