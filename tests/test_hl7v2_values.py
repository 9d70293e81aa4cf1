"""OBX-5 to OBX-8: every value type, unit, reference range and flag."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from gateway.errors import Category, GatewayError
from tests.support_source import convert, observation, resources

UCUM = "http://unitsofmeasure.org"


def _value(kind: str, value: str, unit: str = "", **changes: Any) -> dict[str, Any]:
    found = observation(f"OBX|1|{kind}|WBC^白细胞||{value}|{unit}|||||F", **changes)
    return {key: part for key, part in found.items() if key.startswith("value") or key == "dataAbsentReason"}


G_L = {"unit": "g/L", "system": UCUM, "code": "g/L"}


@pytest.mark.parametrize("kind, value, unit, expected", [
    ("NM", "1.50", "g/L", {"valueQuantity": {"value": Decimal("1.50"), **G_L}}),
    ("NM", "-0.5", "", {"valueQuantity": {"value": Decimal("-0.5")}}),
    ("NM", "+7", "", {"valueQuantity": {"value": Decimal(7)}}),
    ("NM", ".5", "", {"valueQuantity": {"value": Decimal("0.5")}}),
    ("NM", " 12 ", "", {"valueQuantity": {"value": Decimal(12)}}),
    ("NM", "<0.01", "g/L", {"valueQuantity": {"value": Decimal("0.01"), "comparator": "<", **G_L}}),
    ("NM", "≥100", "", {"valueQuantity": {"value": Decimal(100), "comparator": ">="}}),
    ("NM", "阴性", "g/L", {"valueString": "阴性"}),
    ("NM", "1,000", "", {"valueString": "1,000"}),
    ("NM", "1e5", "", {"valueString": "1e5"}),
    ("NM", "NaN", "", {"valueString": "NaN"}),
    ("ST", "7.48", "g/L", {"valueString": "7.48"}),
    ("ST", "a\\F\\b^c", "", {"valueString": "a|b^c"}),
    ("TX", "一~二~三", "", {"valueString": "一\n二\n三"}),
    ("FT", "1\\.br\\2", "", {"valueString": "1\n2"}),
    ("CE", "A^阳性^L", "", {"valueCodeableConcept": {"coding": [{"system": "urn:huren:h1:table:OBX-5", "code": "A",
                                                                  "display": "阳性"}], "text": "阳性"}}),
    ("CWE", "260385009^Negative^SCT^N^neg^L^2020^1^阴性", "", {"valueCodeableConcept": {"coding": [
        {"system": "http://snomed.info/sct", "version": "2020", "code": "260385009", "display": "Negative"},
        {"system": "urn:huren:h1:table:OBX-5", "version": "1", "code": "N", "display": "neg"}], "text": "阴性"}}),
    ("CWE", "^^^^^^^^自由文本", "", {"valueCodeableConcept": {"text": "自由文本"}}),
    ("CNE", "^只有文本", "", {"valueCodeableConcept": {"text": "只有文本"}}),
    ("CF", "X^f^1.2.3", "", {"valueCodeableConcept": {"coding": [{"system": "urn:oid:1.2.3", "code": "X",
                                                                   "display": "f"}], "text": "f"}}),
    ("IS", "P", "", {"valueCodeableConcept": {"coding": [{"system": "urn:huren:h1:table:OBX-5", "code": "P"}],
                                              "text": "P"}}),
    ("DT", "20240102", "", {"valueDateTime": "2024-01-02"}),
    ("TS", "202401020304", "", {"valueDateTime": "2024-01-02T03:04:00+08:00"}),
    ("DTM", "2024", "", {"valueDateTime": "2024"}),
    ("DT", "yesterday", "", {"valueString": "yesterday"}),
    ("TM", "0830", "", {"valueTime": "08:30:00"}),
    ("TM", "8 Uhr", "", {"valueString": "8 Uhr"}),
    ("DR", "20240101^20240102", "", {"valuePeriod": {"start": "2024-01-01", "end": "2024-01-02"}}),
    ("DR", "20240102^20240101", "", {"valueString": "20240102^20240101"}),
    ("NR", "2^1", "", {"valueString": "2^1"}),
    ("NR", "1.0^2.0", "g/L", {"valueRange": {"low": {"value": Decimal("1.0"), **G_L},
                                             "high": {"value": Decimal("2.0"), **G_L}}}),
    ("NR", "^5", "", {"valueRange": {"high": {"value": Decimal(5)}}}),
    ("NR", "a^5", "", {"valueString": "a^5"}),
    ("VR", "1^5", "", {"valueString": "1-5"}),
    ("SN", ">^100", "g/L", {"valueQuantity": {"value": Decimal(100), "comparator": ">", **G_L}}),
    ("SN", "=^5.0", "", {"valueQuantity": {"value": Decimal("5.0")}}),
    ("SN", "^182", "", {"valueQuantity": {"value": Decimal(182)}}),
    ("SN", "^1^:^128", "", {"valueRatio": {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/originalText", "valueString": "1 : 128"}],
        "numerator": {"value": Decimal(1)}, "denominator": {"value": Decimal(128)}}}),
    ("SN", "^10^-^20", "", {"valueRange": {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/originalText", "valueString": "10 - 20"}],
        "low": {"value": Decimal(10)}, "high": {"value": Decimal(20)}}}),
    ("SN", "<>^5", "g/L", {"valueString": "<> 5 g/L"}),
    ("SN", "^2^+", "", {"valueString": "2 +"}),
    ("SN", "^20^-^10", "", {"valueString": "20 - 10"}),
    ("SN", "阴性", "", {"valueString": "阴性"}),
    ("NA", "1^2.5^x^4", "", {"valueSampledData": {"origin": {"value": Decimal(0)}, "period": Decimal(0),
                                                  "dimensions": 1, "data": "1 2.5 E 4"}}),
    ("NA", "1^2~3", "", {"valueSampledData": {"origin": {"value": Decimal(0)}, "period": Decimal(0),
                                              "dimensions": 2, "data": "1 2 3 E"}}),
    ("CX", "123^^^A^MR", "", {"valueString": "123^^^A^MR"}),
    ("EI", "E1^NS", "", {"valueString": "E1^NS"}),
    ("", "7", "", {"valueString": "7"}),
    ("QQ", "什么^x", "", {"valueString": "什么^x"}),
    ("NM", "", "g/L", {"dataAbsentReason": {"coding": [
        {"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]}}),
    ("ST", '""', "", {"dataAbsentReason": {"coding": [
        {"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]}}),
])
def test_value_types(kind: str, value: str, unit: str, expected: dict[str, Any]) -> None:
    """Each OBX-2 gives the value[x] of the guide; what does not fit its type stays the sender's text."""
    made = _value(kind, value, unit)
    assert made == expected
    for key, part in made.items():
        if key == "valueQuantity":  # equal decimals may be written differently: precision counts
            assert str(part["value"]) == str(expected[key]["value"])


def test_decimals_keep_their_last_zero() -> None:
    """1.50 is not 1.5."""
    assert str(_value("NM", "1.50")["valueQuantity"]["value"]) == "1.50"


@pytest.mark.parametrize("value, expected", [
    ("7.48", {"valueQuantity": {"value": Decimal("7.48"), **G_L}}),
    ("<0.5", {"valueQuantity": {"value": Decimal("0.5"), "comparator": "<", **G_L}}), ("阴性", {"valueString": "阴性"}),
    ("1.2.3", {"valueString": "1.2.3"})])
def test_numbers_typed_st_become_quantities_by_habit_only(value: str, expected: dict[str, Any]) -> None:
    """With ``st_numbers`` and a unit; without a unit, or without the habit, they stay strings."""
    assert _value("ST", value, "g/L", habits={"st_numbers": True}) == expected
    assert _value("ST", value, "", habits={"st_numbers": True}) == {"valueString": value}
    assert _value("ST", value, "g/L") == {"valueString": value}


def test_repeated_values_become_components() -> None:
    """The guide's Observation-Component: one component for each repetition, under the test's own code."""
    found = observation("OBX|1|NM|WBC^白细胞||1.0~2.0|g/L|||||F")
    assert [c["valueQuantity"]["value"] for c in found["component"]] == [Decimal("1.0"), Decimal("2.0")]
    assert all(c["code"] == found["code"] for c in found["component"])
    assert not any(key.startswith("value") or key == "dataAbsentReason" for key in found)


@pytest.mark.parametrize("sent, habits, expected", [
    ("g/L", {}, {"unit": "g/L", "system": UCUM, "code": "g/L"}),
    ("10^9/L", {}, {"unit": "10^9/L", "system": UCUM, "code": "10*9/L"}),
    ("x10^12/L", {}, {"unit": "x10^12/L", "system": UCUM, "code": "10*12/L"}),
    ("10\\S\\9/L", {}, {"unit": "10^9/L", "system": UCUM, "code": "10*9/L"}),
    ("mg/dL^milligram per deciliter^UCUM", {}, {"unit": "milligram per deciliter", "system": UCUM, "code": "mg/dL"}),
    ("U01^10*9/L", {"unit_component": 2}, {"unit": "10*9/L", "system": UCUM, "code": "10*9/L"}),
    ("U01^10^9/L", {"unit_component": 2}, {"unit": "10^9/L", "system": UCUM, "code": "10*9/L"}),
    ("g/L", {"unit_component": 2}, {"unit": "g/L", "system": UCUM, "code": "g/L"}),
    ("个奇怪的单位", {}, {"unit": "个奇怪的单位"}), ("", {}, {}), ('""', {}, {})])
def test_units_keep_the_source_text(sent: str, habits: dict[str, Any], expected: dict[str, str]) -> None:
    """UCUM stands beside the sender's text where it is sure, also for powers of ten that nobody escaped."""
    quantity = _value("NM", "1", sent, habits=habits)["valueQuantity"]
    assert {k: v for k, v in quantity.items() if k != "value"} == expected


@pytest.mark.parametrize("sent, low, high", [
    ("3.5-9.5", "3.5", "9.5"), ("3.5--9.5", "3.5", "9.5"), ("3.5～9.5", "3.5", "9.5"), ("3.5~9.5", "3.5", "9.5"),
    ("0.50 - 1.20", "0.50", "1.20"), ("-2-3", "-2", "3"), ("-3--1", None, None), ("<5", None, "5"), ("≤5", None, "5"),
    (">=10", "10", None), ("＞10", "10", None), ("阴性", None, None), ("9-3", None, None),
    ("1-2-3", None, None), ("10^9", None, None)])
def test_reference_ranges(sent: str, low: str | None, high: str | None) -> None:
    """The text is always kept; low and high only where the text is plain."""
    [found] = observation(f"OBX|1|NM|WBC||5|g/L|{sent}||||F")["referenceRange"]
    assert found["text"] == sent
    assert [str(found[end]["value"]) if end in found else None for end in ("low", "high")] == [low, high]
    assert all(found[end]["code"] == "g/L" for end in ("low", "high") if end in found)


def test_flags_go_through_the_manifests_table() -> None:
    """The hospital's arrow becomes H, with the arrow as text; a standard flag has its display; others stay as sent."""
    arrows = {"OBX-8": {"↑": "H", "·": ""}}
    found = observation("OBX|1|NM|WBC||5||1-2|↑~LL~怪~·|||F", tables=arrows)["interpretation"]
    system = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
    assert found == [
        {"coding": [{"system": system, "code": "H", "display": "High"}], "text": "↑"},
        {"coding": [{"system": system, "code": "LL", "display": "Critical low"}]},
        {"coding": [{"system": "urn:huren:h1:table:OBX-8", "code": "怪"}], "text": "怪"}]


def test_documents_stand_once_in_the_report() -> None:
    """A PDF goes to presentedForm; the Observation says what it was, without its bytes."""
    conversion = convert("OBX|1|ED|PDF^报告||LIS^Application^PDF^Base64^JVBE\\.br\\Rg==||||||F")
    [report] = resources(conversion, "DiagnosticReport")
    assert report["presentedForm"] == [{"contentType": "application/pdf", "data": "JVBERg=="}]
    [found] = resources(conversion, "Observation")
    [extension] = found["extension"]
    assert extension["valueAttachment"] == {"contentType": "application/pdf"}
    assert found["dataAbsentReason"]["coding"][0]["code"] == "unsupported" and "component" not in found


@pytest.mark.parametrize("sent, media, data", [
    ("^TEXT^^A^abc", "text/plain", "YWJj"), ("^image^jpeg^Hex^FFD8", "image/jpeg", "/9g="),
    ("^application/pdf^^Base64^JVBERg==", "application/pdf", "JVBERg=="), ("^AP^^Base64^AAAA",
                                                                           "application/octet-stream", "AAAA")])
def test_encodings_of_documents(sent: str, media: str, data: str) -> None:
    """A, Hex and Base64 all become Base64, with a media type."""
    [report] = resources(convert(f"OBX|1|ED|PDF||{sent}||||||F"), "DiagnosticReport")
    assert report["presentedForm"] == [{"contentType": media, "data": data}]


@pytest.mark.parametrize("sent", ["^AP^PDF^Base64^JVB!", "^AP^PDF^Base64^JVBER", "^AP^PDF^Hex^XY"])
def test_a_broken_document_is_refused(sent: str) -> None:
    """Half a document is INVALID at OBX-5: nobody could open it."""
    with pytest.raises(GatewayError) as refusal:
        convert(f"OBX|1|ED|PDF||{sent}||||||F")
    assert (refusal.value.category, refusal.value.where) == (Category.INVALID, "OBX-5")


def test_pointers_are_attachments_by_url() -> None:
    """RP with a URL; a path that is no URL stays text."""
    [report] = resources(convert("OBX|1|RP|IMG||https://pacs.example/1^^image^jpeg||||||F"), "DiagnosticReport")
    assert report["presentedForm"] == [{"contentType": "image/jpeg", "url": "https://pacs.example/1"}]
    assert _value("RP", "\\\\server\\share") == {"valueString": "\\\\server\\share"}
