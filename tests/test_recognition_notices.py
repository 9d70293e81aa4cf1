"""A reminder as one sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from gateway.recognition.model import Checked, Kind, Order, Shown, Verdict
from gateway.recognition.notices import sentence_of
from gateway.recognition.rules import RuleSet
from gateway.terminology import catalogue

RULES = RuleSet("test", date(2026, 1, 1), catalogue())
DAY = 1_795_190_399_000_000  # 2026-11-20 23:59:59 in Shanghai
CT = Shown("DiagnosticReport/1", "1", "ECT010H", "胸部CT平扫", "CT Chest plain", "a", "甲医院", "Hospital A", DAY)
ORDER = Order("b", "1", "ECT010H", display="胸部CT")


def checked(kind: Kind, *results: Shown, missing: tuple[str, ...] = ()) -> Checked:
    """An answer for the order."""
    return Checked(ORDER, Verdict(kind, ORDER, missing=missing), results, line="l1")


def test_one_exam_is_named_with_hospital_and_day() -> None:
    """In Chinese by the order's own words; the day is the gateway's local day of the exam."""
    said = sentence_of(checked(Kind.RECOGNISABLE, CT), "zh", "Asia/Shanghai", RULES)
    assert said.text.startswith("胸部CT：甲医院 2026-11-20 胸部CT平扫（可互认）。") and said.warns
    assert (said.kind, said.name) == ("RECOGNISABLE", "可互认")
    next_day = replace(CT, time=DAY + 1_000_000)
    assert "2026-11-21" in sentence_of(checked(Kind.RECOGNISABLE, next_day), "zh", "Asia/Shanghai", RULES).text


def test_english_says_the_unified_items_name() -> None:
    """No Chinese in it, whatever the hospital calls its order; short enough for ERR-8."""
    said = sentence_of(checked(Kind.RECOGNISABLE, CT), "en", "Asia/Shanghai", RULES).text
    assert said.isascii() and "Hospital A 2026-11-20" in said and len(said) <= 250


@pytest.mark.parametrize("language, count", [("zh", "3 项结果"), ("en", "3 results")])
def test_results_of_one_day_and_hospital_are_counted(language: str, count: str) -> None:
    """A panel's members are not listed one by one; the same item twice counts once."""
    members = [replace(CT, item=item) for item in ("A", "B", "C", "A")]
    assert count in sentence_of(checked(Kind.RECOGNISABLE, *members), language, "Asia/Shanghai", RULES).text


def test_many_occasions_are_cut_newest_first() -> None:
    """Three are named, the rest counted."""
    results = [replace(CT, institution=str(n), institution_zh=f"{n}号医院", time=DAY - n * 86_400_000_000)
               for n in (4, 2, 1, 3)]
    said = sentence_of(checked(Kind.RECOGNISABLE, *results), "zh", "Asia/Shanghai", RULES).text
    assert [said.find(f"{n}号") for n in (1, 2, 3)] == sorted(said.find(f"{n}号") for n in (1, 2, 3))
    assert "4号" not in said and "等 4 次" in said


def test_what_is_partial_or_flagged_does_not_warn_and_says_so() -> None:
    """Missing members by name, flags behind the result."""
    part = sentence_of(checked(Kind.PARTIAL, CT, missing=("THM001Q", "?")), "zh", "Asia/Shanghai", RULES)
    assert not part.warns and "尚缺项目：" in part.text and part.text.endswith("、?。")
    flagged = replace(CT, flags=("FLAG_IMAGES", "FLAG_CRITICAL"))
    said = sentence_of(checked(Kind.ADVISORY, flagged), "en", "Asia/Shanghai", RULES)
    assert not said.warns and "[images not available, critical value]" in said.text
