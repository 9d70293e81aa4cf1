"""OBX-5 to OBX-8: every value type, unit, reference range and flag."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import adapter
from gateway.errors import GatewayError
from gateway.fhir import check
from tests.support_source import convert, observation

UCUM = "http://unitsofmeasure.org"


def _value(kind: str, value: str, unit: str = "", **changes: Any) -> dict[str, Any]:
    found = observation(f"OBX|1|{kind}|WBC^白细胞||{value}|{unit}|||||F", **changes)
    return {key: part for key, part in found.items()
            if key.startswith(("value", "_value")) or key == "dataAbsentReason"}


G_L = {"unit": "g/L", "system": UCUM, "code": "g/L"}


def _original(sent: str) -> dict[str, Any]:
    return {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/originalText", "valueString": sent}]}


def _words(text: str, sent: str) -> dict[str, Any]:
    return {"valueString": text, "_valueString": _original(sent)}


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
    ("NM", "５．６０", "g/L", {"valueQuantity": {"value": Decimal("5.60"), **G_L}}),
    ("NM", "＜０.５", "", {"valueQuantity": {"value": Decimal("0.5"), "comparator": "<"}}),
    ("NM", "−3", "", {"valueQuantity": {"value": Decimal(-3)}}),
    ("NM", "1,234.5", "", {"valueQuantity": {**_original("1,234.5"), "value": Decimal("1234.5")}}),
    ("NM", "1.2E3", "", {"valueQuantity": {**_original("1.2E3"), "value": Decimal(1200)}}),
    ("NM", "1e-5", "", {"valueQuantity": {**_original("1e-5"), "value": Decimal("0.00001")}}),
    ("NM", "10^3", "", {"valueQuantity": {**_original("10^3"), "value": Decimal(1000)}}),
    ("NM", ">2.5×10^5", "", {"valueQuantity": {**_original(">2.5×10^5"), "value": Decimal(250000),
                                                "comparator": ">"}}),
    ("NM", "小于0.5", "", {"valueQuantity": {**_original("小于0.5"), "value": Decimal("0.5"), "comparator": "<"}}),
    ("NM", "1000以上", "", {"valueQuantity": {**_original("1000以上"), "value": Decimal(1000), "comparator": ">="}}),
    ("NM", "1,5", "", {"valueString": "1,5"}),
    ("NM", "10-20", "", {"valueString": "10-20"}),
    ("NM", "+++", "", {"valueString": "+++"}),
    ("NM", "1:128", "", {"valueString": "1:128"}),
    ("NM", "1.2E999", "", {"valueString": "1.2E999"}),
    ("NM", "NaN", "", {"valueString": "NaN"}),
    ("ST", "7.48", "g/L", {"valueString": "7.48"}),
    ("ST", "阴性", "", {"valueString": "阴性"}),
    ("ST", "阳性(+)", "", {"valueString": "阳性(+)"}),
    ("ST", "+++", "", {"valueString": "+++"}),
    ("ST", "1:128", "", {"valueString": "1:128"}),
    ("ST", "10-20", "/HP", {"valueString": "10-20"}),
    ("ST", "5~", "", {"valueString": "5"}),
    ("FT", "一\\.sp2\\二\\H\\三\\N\\\\.in+4\\四", "", {"valueString": "一\n\n二三四"}),
    ("TX", "一~~二", "", {"valueString": "一\n二"}),
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
    ("ID", "P", "", {"valueCodeableConcept": {"coding": [{"system": "urn:huren:h1:table:OBX-5", "code": "P"}],
                                              "text": "P"}}),
    ("CE", "阴性", "", {"valueCodeableConcept": {"coding": [{"system": "urn:huren:h1:table:OBX-5", "code": "阴性"}],
                                                "text": "阴性"}}),
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
    ("VR", "5", "", {"valueString": "5"}),
    ("SN", "＜^０.５", "", {"valueQuantity": {"value": Decimal("0.5"), "comparator": "<"}}),
    ("SN", "<5", "", {"valueQuantity": {"value": Decimal(5), "comparator": "<"}}),
    ("SN", "10^3", "", {"valueString": "10^3"}),
    ("SN", ">^1^:^128", "", {"valueRatio": {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/originalText", "valueString": ">1:128"}],
        "numerator": {"value": Decimal(1), "comparator": ">"}, "denominator": {"value": Decimal(128)}}}),
    ("SI", "3", "", {"valueInteger": 3}),
    ("SI", "3", "g/L", {"valueQuantity": {"value": Decimal(3), **G_L}}),
    ("SI", "三", "", {"valueString": "三"}),
    ("CQ", "1.50^g/L", "", {"valueQuantity": {"value": Decimal("1.50"), **G_L}}),
    ("CQ", "1.50", "g/L", {"valueQuantity": {"value": Decimal("1.50"), **G_L}}),
    ("MO", "12.50^CNY", "", {"valueQuantity": {"value": Decimal("12.50"), "unit": "CNY",
                                               "system": "urn:iso:std:iso:4217", "code": "CNY"}}),
    ("MO", "12.50^元", "", {"valueString": "12.50^元"}),
    ("CP", "100&USD^UP", "", {"valueQuantity": {"value": Decimal(100), "unit": "USD",
                                                "system": "urn:iso:std:iso:4217", "code": "USD"}}),
    ("CP", "100&USD^UP^1^10", "", {"valueString": "100&USD^UP^1^10"}),
    ("MA", "1^2~3^4", "", {"valueSampledData": {"origin": {"value": Decimal(0)}, "period": Decimal(0),
                                                "dimensions": 2, "data": "1 2 3 4"}}),
    ("MA", "1^2^3", "", {"valueSampledData": {"origin": {"value": Decimal(0)}, "period": Decimal(0),
                                              "dimensions": 3, "data": "1 2 3"}}),
    ("SN", ">^100", "g/L", {"valueQuantity": {"value": Decimal(100), "comparator": ">", **G_L}}),
    ("SN", "=^5.0", "", {"valueQuantity": {"value": Decimal("5.0")}}),
    ("SN", "^182", "", {"valueQuantity": {"value": Decimal(182)}}),
    ("SN", "^1^:^128", "", {"valueRatio": {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/originalText", "valueString": "1:128"}],
        "numerator": {"value": Decimal(1)}, "denominator": {"value": Decimal(128)}}}),
    ("SN", "^10^-^20", "", {"valueRange": {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/originalText", "valueString": "10-20"}],
        "low": {"value": Decimal(10)}, "high": {"value": Decimal(20)}}}),
    ("SN", "<>^5", "g/L", {"valueString": "<> 5 g/L"}),
    ("SN", "^2^+", "", {"valueString": "2 +"}),
    ("SN", "^20^-^10", "", {"valueString": "20 - 10"}),
    ("SN", "阴性", "", {"valueString": "阴性"}),
    ("NA", "1^2.5^x^4", "", {"valueSampledData": {"origin": {"value": Decimal(0)}, "period": Decimal(0),
                                                  "dimensions": 1, "data": "1 2.5 E 4"}}),
    ("NA", "1^2~3", "", {"valueSampledData": {"origin": {"value": Decimal(0)}, "period": Decimal(0),
                                              "dimensions": 2, "data": "1 2 3 E"}}),
    ("CX", "123^^^A^MR", "", _words("123", "123^^^A^MR")),
    ("CK", "123^4^M10", "", _words("123", "123^4^M10")),
    ("EI", "E1^NS", "", _words("E1", "E1^NS")),
    ("HD", "LIS^1.2.3^ISO", "", _words("LIS", "LIS^1.2.3^ISO")),
    ("HD", "1.2.3", "", {"valueString": "1.2.3"}),
    ("XPN", "王^小明", "", _words("王小明", "王^小明")),
    ("PN", "Smith^John^^^Dr", "", _words("Dr John Smith", "Smith^John^^^Dr")),
    ("XCN", "D1^李^四", "", _words("李四", "D1^李^四")),
    ("CN", "D1", "", {"valueString": "D1"}),
    ("XAD", "文三路1号^^杭州市^浙江省^310000^CHN^H^^西湖区", "", _words(
        "浙江省杭州市西湖区文三路1号", "文三路1号^^杭州市^浙江省^310000^CHN^H^^西湖区")),
    ("AD", "1 High St^^Town^ST^12345", "", _words("1 High St, Town, ST, 12345", "1 High St^^Town^ST^12345")),
    ("XTN", "^PRN^PH^^86^571^88001234", "", _words("+86 571 88001234", "^PRN^PH^^86^571^88001234")),
    ("TN", "057188001234", "", {"valueString": "057188001234"}),
    ("XON", "市一医院^L", "", _words("市一医院", "市一医院^L")),
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


@pytest.mark.parametrize("kind, value, unit, habits, expected", [
    ("ST", "1:128", "", {"st_titres": True}, {"valueRatio": {
        **_original("1:128"), "numerator": {"value": Decimal(1)}, "denominator": {"value": Decimal(128)}}}),
    ("ST", "１：１２８", "", {"st_titres": True}, {"valueRatio": {
        **_original("１：１２８"), "numerator": {"value": Decimal(1)}, "denominator": {"value": Decimal(128)}}}),
    ("NM", "1:40", "", {"st_titres": True}, {"valueRatio": {
        **_original("1:40"), "numerator": {"value": Decimal(1)}, "denominator": {"value": Decimal(40)}}}),
    ("ST", "<1:10", "", {"st_titres": True}, {"valueString": "<1:10"}),
    ("ST", "1:0", "", {"st_titres": True}, {"valueString": "1:0"}),
    ("ST", "10-20", "g/L", {"st_ranges": True}, {"valueRange": {
        **_original("10-20"), "low": {"value": Decimal(10), **G_L}, "high": {"value": Decimal(20), **G_L}}}),
    ("ST", "10~20", "g/L", {"st_ranges": True}, {"valueRange": {
        **_original("10~20"), "low": {"value": Decimal(10), **G_L}, "high": {"value": Decimal(20), **G_L}}}),
    ("ST", "10-20", "", {"st_ranges": True}, {"valueString": "10-20"}),
    ("ST", "20-10", "g/L", {"st_ranges": True}, {"valueString": "20-10"}),
    ("TX", "7.48", "g/L", {"st_numbers": True}, {"valueQuantity": {"value": Decimal("7.48"), **G_L}}),
    ("NM", "1,5", "g/L", {"number_comma": "decimal"}, {"valueQuantity": {
        **_original("1,5"), "value": Decimal("1.5"), **G_L}}),
    ("NM", "1,000", "g/L", {"number_comma": "thousands"}, {"valueQuantity": {
        **_original("1,000"), "value": Decimal(1000), **G_L}}),
    ("CE", "1:128", "", {"st_titres": True}, {"valueCodeableConcept": {
        "coding": [{"system": "urn:huren:h1:table:OBX-5", "code": "1:128"}], "text": "1:128"}})])
def test_what_a_text_means_by_habit(kind: str, value: str, unit: str, habits: dict[str, Any],
                                    expected: dict[str, Any]) -> None:
    """Titres, ranges and commas are read where the manifest says so, and keep the text as it was sent."""
    assert _value(kind, value, unit, habits=habits) == expected


@pytest.mark.parametrize("kind, value, remarked", [
    ("NM", "阴性", True), ("NM", "1,000", True), ("DT", "yesterday", True), ("DR", "20240102^20240101", True),
    ("NM", "<5", False), ("NM", "", False), ("ST", "阴性", False), ("SN", "<>^5", False), ("CE", "A", False)])
def test_a_value_that_does_not_fit_its_type_is_remarked(kind: str, value: str, remarked: bool) -> None:
    """It is kept as text, and the sender is told where, without the value."""
    remarks = convert(f"OBX|1|{kind}|WBC^白细胞||{value}||||||F").remarks
    assert [remark.where for remark in remarks] == ["OBX[1]-5"] * remarked
    assert all(value not in remark.sentence for remark in remarks)


def test_a_result_in_words_is_coded_by_the_manifest() -> None:
    """``"阴性" = "SCT|260385009|Negative"``: the standard's coding and the text as sent; others stay strings."""
    tables = {"OBX-5": {"阴性": "SCT|260385009|Negative", "N": "http://example.org/r|neg", "未做": ""}}
    negative = {"system": "http://snomed.info/sct", "code": "260385009", "display": "Negative"}
    for kind in ("ST", "TX", "NM", ""):
        assert _value(kind, "阴性", tables=tables) == {"valueCodeableConcept": {"coding": [negative], "text": "阴性"}}
    assert _value("ST", "弱阳性", tables=tables) == {"valueString": "弱阳性"}
    assert _value("CE", "N^阴性^L", tables=tables)["valueCodeableConcept"] == {"coding": [
        {"system": "http://example.org/r", "code": "neg"},
        {"system": "urn:huren:h1:table:OBX-5", "code": "N", "display": "阴性"}], "text": "阴性"}
    assert _value("CE", "^阴性", tables=tables)["valueCodeableConcept"] == {"coding": [negative], "text": "阴性"}
    for kind, sent in (("ST", "未做"), ("CE", "未做^x"), ("NM", "未做"), ("FT", "未做")):
        assert _value(kind, sent, tables=tables)["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert "dataAbsentReason" in _value("NM", "9999", tables={"OBX-5": {"9999": ""}})


@pytest.mark.parametrize("sent, system, code, text", [
    ("h", "v3-ObservationInterpretation", "H", "h"), ("SDD", "v3-ObservationInterpretation", "SDD", None),
    ("SYN-R", "v3-ObservationInterpretation", "SYN-R", None), ("WR", "v3-ObservationInterpretation", "WR", None),
    ("HU", "v3-ObservationInterpretation", "HU", None), ("UNE", "v3-ObservationInterpretation", "UNE", None),
    ("QCF", "v2-0078", "QCF", None), ("TOX", "v2-0078", "TOX", None), ("AC", "v2-0078", "AC", None)])
def test_flags_of_all_versions(sent: str, system: str, code: str, text: str | None) -> None:
    """Table 0078 up to 2.8.2; what v3 has no active code for keeps its own table; case does not matter."""
    [found] = observation(f"OBX|1|NM|WBC||5|||{sent}|||F")["interpretation"]
    assert (found["coding"][0]["system"], found["coding"][0]["code"], found.get("text")) == (
        f"http://terminology.hl7.org/CodeSystem/{system}", code, text)


def test_flags_that_change_and_mark_come_together() -> None:
    """High and significantly up are two interpretations; ``null`` is none."""
    found = observation("OBX|1|NM|WBC||5|||H~U~null|||F")["interpretation"]
    assert [one["coding"][0]["code"] for one in found] == ["H", "U"]


def test_what_the_range_depends_on_is_kept() -> None:
    """OBX-10 (table 0080) in the extension that the guide names, one for each repetition."""
    found = observation("OBX|1|NM|WBC||5||1-2|H||A~S~怪|F")
    assert [one["valueCodeableConcept"]["coding"][0] for one in found["extension"]] == [
        {"system": "http://terminology.hl7.org/CodeSystem/v2-0080", "code": "A", "display": "An age-based population"},
        {"system": "http://terminology.hl7.org/CodeSystem/v2-0080", "code": "S", "display": "A sex-based population"},
        {"system": "urn:huren:h1:table:OBX-10", "code": "怪"}]
    assert {one["url"] for one in found["extension"]} == {
        "http://hl7.org/fhir/StructureDefinition/observation-nature-of-abnormal-test"}


@given(st.sampled_from(["NM", "ST", "SN", "TX", "CE", "CWE", "IS", "DT", "TM", "DR", "NR", "NA", "MA", "MO", "CP", "CQ",
                        "SI", "XPN", "XCN", "XAD", "XTN", "XON", "EI", "CX", "HD", "VR", "RP", "ED", "QQ", ""]),
       st.text(st.sampled_from("0123456789.,+-<>≤：:~^& eE×阴性王()/\\=一T"), max_size=30))
def test_no_value_is_lost_or_refused(kind: str, value: str) -> None:
    """Whatever stands in OBX-5, the message is taken, and there is a value or a reason why there is none."""
    changes: dict[str, Any] = {"habits": {"st_numbers": True, "st_titres": True, "st_ranges": True}}
    try:
        found = observation(f"OBX|1|{kind}|WBC^白细胞||{value}|g/L|||||F", **changes)
    except GatewayError as refusal:
        assert (kind, refusal.where) == ("ED", "OBX-5")
        return
    told = [key for key in found if key.startswith("value") or key in ("dataAbsentReason", "component")]
    assert len(told) == 1
    if value.strip("~^&\\ ") and kind in ("ST", "TX", "NM", "QQ", ""):
        assert "dataAbsentReason" not in found
    check.require_valid(found)


@pytest.mark.parametrize("line, told", [
    ('number_comma = "point"', "decimal, thousands"), ('accession_field = "PV1-19"', "OBR-18"),
    ('accession_field = "OBR"', "OBR-18"), ('tables."OBX-5" = {"阴性" = "negative"}', "SCT|260385009|Negative")])
def test_a_habit_that_cannot_be_is_told_at_the_start(tmp_path: Path, line: str, told: str) -> None:
    """A manifest that says something else than these habits know is refused, with what it may say."""
    manifest = tmp_path / "manifest.toml"
    head = '[institution]\nid = "h1"\nname = "H"\ncode_system = "urn:huren:h1:item"\n[hl7v2]\n'
    manifest.write_text(f"{head}{line}\n", "utf-8")
    with pytest.raises(GatewayError) as refusal:
        adapter.read_manifest(manifest)
    assert told in refusal.value.message


def test_the_habits_of_values_reach_the_conversion(tmp_path: Path) -> None:
    """What the manifest says is what ``Source.habits`` and ``Source.tables`` hold."""
    (tmp_path / "manifest.toml").write_text(
        '[institution]\nid = "h1"\nname = "H"\ncode_system = "urn:huren:h1:item"\n[hl7v2]\nst_titres = true\n'
        'st_ranges = true\nnumber_comma = "decimal"\ncritical_limits = true\naccession_field = "OBR-20"\n'
        '[hl7v2.tables."OBX-5"]\n"阴性" = "SCT|260385009|Negative"\n"未做" = ""\n', "utf-8")
    source = adapter.load(tmp_path).source
    assert source.habits == {"st_titres": True, "st_ranges": True, "number_comma": "decimal", "critical_limits": True,
                             "accession_field": "OBR-20"}
    assert source.tables["OBX-5"]["未做"] == ""
