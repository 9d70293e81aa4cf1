"""OBX-7: plain ranges, and prose by sex, age and phase."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fhir import check
from gateway.hl7v2.ranges import ranges_of
from tests.support_source import observation

UNITS = {"unit": "g/L", "system": "http://unitsofmeasure.org", "code": "g/L"}


def _short(found: dict[str, Any]) -> str:
    """A range in one line: limits, type, populations, age."""
    shown = [f"{found['low']['value'] if 'low' in found else ''}..{found['high']['value'] if 'high' in found else ''}"]
    if "type" in found:
        shown.append(found["type"]["text"])
    shown += [one["text"] for one in found.get("appliesTo", ())]
    if age := found.get("age"):
        shown.append(" ".join(f"{end}={age[end]['value']}{age[end]['code']}" for end in age))
    return " ".join(shown)


@pytest.mark.parametrize("sent, low, high", [
    ("3.5-9.5", "3.5", "9.5"), ("3.5--9.5", "3.5", "9.5"), ("3.5～9.5", "3.5", "9.5"), ("3.5~9.5", "3.5", "9.5"),
    ("3.5〜9.5", "3.5", "9.5"), ("３．５－９．５", "3.5", "9.5"), ("3.5—9.5", "3.5", "9.5"), ("3.5至9.5", "3.5", "9.5"),
    ("3.5到9.5", "3.5", "9.5"), ("3.5 to 9.5", "3.5", "9.5"), ("0.50 - 1.20", "0.50", "1.20"), ("-2-3", "-2", "3"),
    ("<5", None, "5"), ("＜0.5", None, "0.5"), ("≤5", None, "5"), ("≦5", None, "5"), ("5以下", None, "5"),
    ("小于5", None, "5"), ("不超过5", None, "5"), (">=10", "10", None), ("＞10", "10", None), ("10以上", "10", None),
    ("不低于10", "10", None), ("≥10", "10", None), ("up to 5", None, "5"), ("3.5-9.5 g/L", "3.5", "9.5"),
    ("3.5g/L-9.5g/L", "3.5", "9.5"), ("<0.50 g/L", None, "0.50"), ("(3.5-9.5)", "3.5", "9.5"),
    ("（3.5～9.5）", "3.5", "9.5"), ("参考值：3.5-9.5", "3.5", "9.5"), ("Normal range: 3.5-9.5", "3.5", "9.5"),
    ("1,234.5-2,345.6", "1234.5", "2345.6")])
def test_plain_ranges(sent: str, low: str | None, high: str | None) -> None:
    """Every way to write a range, a lower or an upper limit, also with the unit of OBX-6; the text is as sent."""
    [found] = observation(f"OBX|1|NM|WBC||5|g/L|{sent}||||F")["referenceRange"]
    assert found["text"] == sent
    assert [str(found[end]["value"]) if end in found else None for end in ("low", "high")] == [low, high]
    assert all(found[end]["code"] == "g/L" for end in ("low", "high") if end in found)
    assert found.keys() <= {"low", "high", "text"}


@pytest.mark.parametrize("sent", [
    "-3--1", "9-3", "阴性", "3.5-9.5 mg/L", "<130 optimal", "1-2-3", "10^9", "4,300-10,800", "<1:10", "70_105", "5",
    "130-175/115-150", "130-175(男)", "3-5,6-7", "男:3-5;其他", "空腹:3.9-6.1", "男:1-2;男:3-4",
    "成人 男:130-175 女:115-150", "3.5-5.5;危急值:2.8-6.2", "男:9-3", "60-18岁:1-2", "3.5-9.5;详见说明", ":", "-",
    "男"])
def test_what_is_not_sure_stays_text(sent: str) -> None:
    """One word that is not understood, a doubtful sign, or limits that contradict: the text alone."""
    assert ranges_of(sent, UNITS, {}) == [{"text": sent}]


@pytest.mark.parametrize("sent, expected", [
    ("男:130-175;女:115-150", ["130..175 男", "115..150 女"]),
    ("男：130～175；女：115～150", ["130..175 男", "115..150 女"]),
    ("男130-175 女115-150", ["130..175 男", "115..150 女"]),
    ("男性 130-175/女性 115-150", ["130..175 男性", "115..150 女性"]),
    ("M: 4.3-5.9 F: 3.9-5.2", ["4.3..5.9 M", "3.9..5.2 F"]),
    ("Male: <5, Female: <6", ["..5 Male", "..6 Female"]),
    ("成人:3.5-9.5;儿童:5-12", ["3.5..9.5 成人", "5..12 儿童"]),
    ("Adult: 3-5; Newborn: 6-9", ["3..5 Adult", "6..9 Newborn"]),
    ("0-28天:180-190;1-12月:110-120;>60岁:100-120", ["180..190 low=0d high=28d", "110..120 low=1mo high=12mo",
                                                     "100..120 low=60a"]),
    ("18-60岁: 3-5; 60岁以上: 4-6; 18岁以下: 1-2", ["3..5 low=18a high=60a", "4..6 low=60a", "1..2 high=18a"]),
    ("0-7 days 1-2; 2 weeks-6 months 2-3", ["1..2 low=0d high=7d", "2..3 low=2wk high=6mo"]),
    ("男(18-60岁):1-2;女(18-60岁):2-3", ["1..2 男 low=18a high=60a", "2..3 女 low=18a high=60a"]),
    ("成人男:130-175;成人女:115-150;新生儿:180-190", ["130..175 成人 男", "115..150 成人 女", "180..190 新生儿"]),
    ("卵泡期:1-2;排卵期:3-4;黄体期:5-6;绝经后:7-8", ["1..2 卵泡期", "3..4 排卵期", "5..6 黄体期", "7..8 绝经后"]),
    ("空腹:3.9-6.1;餐后2h:<7.8", ["3.9..6.1 空腹", "..7.8 餐后2h"]),
    ("正常:<140;临界高值:140-159;高:≥160", ["..140 正常", "140..159 临界高值", "160.. 高"])])
def test_conditions_become_ranges_of_their_own(sent: str, expected: list[str]) -> None:
    """The whole text stands first and without limits, so that no reader takes one condition's for everybody's."""
    whole, *parts = ranges_of(sent, UNITS, {})
    assert whole == {"text": sent}
    assert list(map(_short, parts)) == expected
    assert all(part["text"] for part in parts)


def test_sex_age_and_phase_have_codes() -> None:
    """SNOMED CT for sexes, UCUM for ages, the type of range for phases; an age group stays the sender's word."""
    _, man, child = ranges_of("男18岁以上:130-175;儿童:110-160", UNITS, {})
    assert man == {
        "low": {"value": Decimal(130), **UNITS}, "high": {"value": Decimal(175), **UNITS},
        "appliesTo": [{"coding": [{"system": "http://snomed.info/sct", "code": "248153007", "display": "Male"}],
                       "text": "男"}],
        "age": {"low": {"value": Decimal(18), "unit": "a", "system": "http://unitsofmeasure.org", "code": "a"}},
        "text": "男18岁以上:130-175"}
    assert child["appliesTo"] == [{"text": "儿童"}] and "age" not in child
    phase = ranges_of("黄体期:5-6;绝经期:7-8", UNITS, {})[1]["type"]
    assert phase == {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/referencerange-meaning",
                                 "code": "luteal", "display": "Luteal"}], "text": "黄体期"}


def test_one_condition_alone_keeps_its_limits() -> None:
    """What a laboratory sends for this patient alone stands in one range."""
    [found] = ranges_of("男:130-175", UNITS, {})
    assert (_short(found), found["text"]) == ("130..175 男", "男:130-175")


def test_critical_values_are_ranges_of_their_own() -> None:
    """``危急值:<2.8或>6.2`` behind the normal range: two critical ranges; the first holds the text."""
    sent = "3.5-5.5;危急值:<2.8或>6.2"
    normal, low, high = ranges_of(sent, UNITS, {})
    assert (_short(normal), normal["text"]) == ("3.5..5.5", sent)
    assert list(map(_short, (low, high))) == ["..2.8 critical", "6.2.. critical"]


def test_critical_limits_in_the_second_repetition_by_habit() -> None:
    """``critical_limits``: below and beyond the second repetition is critical; without the habit it is text."""
    obx = "OBX|1|NM|WBC||5|g/L|3.5-5.5~2.8-6.2||||F"
    found = observation(obx, habits={"critical_limits": True})["referenceRange"]
    assert list(map(_short, found)) == ["3.5..5.5", "..2.8 critical", "6.2.. critical"]
    assert [one["text"] for one in found] == ["3.5-5.5~2.8-6.2", "2.8-6.2", "2.8-6.2"]
    assert observation(obx)["referenceRange"] == [{"text": "3.5-5.5~2.8-6.2"}]
    one = observation("OBX|1|NM|WBC||5|g/L|3.5~5.5||||F", habits={"critical_limits": True})["referenceRange"]
    assert list(map(_short, one)) == ["3.5..5.5"]  # the tilde is the range's: a single number is no limit


def test_commas_by_habit() -> None:
    """``number_comma`` settles what 4,300 is; decimal and thousands are never guessed."""
    assert _short(ranges_of("4,300-10,800", UNITS, {"number_comma": "thousands"})[0]) == "4300..10800"
    assert _short(ranges_of("3,5-9,5", UNITS, {"number_comma": "decimal"})[0]) == "3.5..9.5"


_PIECES = st.sampled_from(["男", "女", "成人", "0-28天", ">60岁", "3.5", "9.5", "-", "--", "~", "～", ":", "：", ";",
                           "<", "≤", " ", "以上", "(", ")", "危急值", "或", "g/L", "M", "F", "to", "^", ",", "5", "E3",
                           "\\", "空腹", "至"])


@given(st.one_of(st.text(max_size=40), st.lists(_PIECES, max_size=12).map("".join)),
       st.sampled_from(["", "decimal", "thousands"]))
def test_whatever_the_text_it_is_kept_and_low_is_not_above_high(sent: str, commas: str) -> None:
    """No text is lost or refused, no range is upside down, and each is one that R4 allows (obs-3)."""
    found = ranges_of(sent, UNITS, {"number_comma": commas})
    assert found[0]["text"] == sent
    for one in found:
        assert one["text"] or one is found[0]
        if "low" in one and "high" in one:
            assert one["low"]["value"] <= one["high"]["value"]
        if (age := one.get("age")) and len(age) == 2 and age["low"]["code"] == age["high"]["code"]:
            assert age["low"]["value"] <= age["high"]["value"]
    if sent.strip() and sent.isprintable():
        check.require_valid({"resourceType": "Observation", "id": "a", "status": "final", "code": {"text": "x"},
                             "referenceRange": [{**one, "text": one["text"].strip() or "x"} for one in found]})


def test_a_long_text_is_not_taken_apart() -> None:
    """A page of prose costs no time: it stays text."""
    sent = "男:1-2;" * 300
    assert ranges_of(sent, UNITS, {}) == [{"text": sent}]
