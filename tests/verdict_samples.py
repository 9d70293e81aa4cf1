"""A small catalogue made by hand, in a province with two cities, and results that count in it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from gateway.recognition.model import Candidate, Order, Side, Verdict
from gateway.recognition.rules import Institution, Qualification, Reason, Region, RuleSet, Window
from gateway.recognition.verdict import Code, judge
from gateway.terminology import Catalogue, Edge, Item, Panel

SHANGHAI = ZoneInfo("Asia/Shanghai")
DAY = 86_400_000_000
HOUR = DAY // 24


def at(*when: int, zone: Any = SHANGHAI) -> int:
    """Microseconds since the epoch of a local time."""
    return (datetime(*when, tzinfo=zone) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


NOW = at(2025, 6, 15, 10)

ITEMS = (
    Item("ABDOMEN+", "exam", "CT", "", "", modality="CT", contrast="both", validity_days=30),
    Item("ABDOMEN", "exam", "CT", "", "", modality="CT", contrast="none", validity_days=30),
    Item("UPPER", "exam", "CT", "", "", modality="CT", contrast="none", validity_days=30),
    Item("ADRENAL", "exam", "CT", "", "", modality="CT", contrast="none", validity_days=30),
    Item("SCREEN", "exam", "CT", "", "", modality="CT", contrast="none", validity_days=90),
    Item("KNEE", "exam", "MR", "", "", modality="MR", sided=True, validity_days=90),
    Item("WBC", "test", "HM", "", "", result_type="Q", panels=("CBC",), validity_days=7),
    Item("HB", "test", "HM", "", "", result_type="Q", panels=("CBC",), validity_days=7),
    Item("PLT", "test", "HM", "", "", result_type="Q", panels=("CBC",), validity_days=7),
    Item("HB-HS", "test", "HM", "", "", result_type="Q", validity_days=7),
    Item("GLU0", "test", "BC", "", "", result_type="Q", panels=("OGTT",), validity_days=14),
    Item("GLU120", "test", "BC", "", "", result_type="Q", panels=("OGTT",), validity_days=14),
)
PANELS = (Panel("CBC", "", "", ("WBC", "HB", "PLT")), Panel("OGTT", "", "", ("GLU0", "GLU120")))
EDGES = (Edge("ABDOMEN+", "ABDOMEN", "full", ""), Edge("ABDOMEN", "UPPER", "full", ""),
         Edge("ABDOMEN", "ADRENAL", "advisory", ""), Edge("SCREEN", "UPPER", "none", ""),
         Edge("HB-HS", "HB", "full", ""))
REASONS = (Reason("CN", "R3", "", "", "no", preselected_by=("STATE_BEFORE_SURGERY", "STATE_BEFORE_TRANSFUSION")),
           Reason("CN", "R4", "", "", "no", preselected_by=("STATE_EMERGENCY",)),
           Reason("CN", "R1", "", "", "no", preselected_by=("STATE_AFTER_SURGERY", "STATE_AFTER_CHEMOTHERAPY")))

#: ``b`` orders, the others have results; ``far`` is in the other city, ``abroad`` in no region at all.
RULES = RuleSet(
    "1", date(2024, 1, 1), Catalogue(ITEMS, PANELS, EDGES),
    core={"CBC": frozenset(("WBC", "HB"))}, same_session=frozenset(("OGTT",)),
    regions={code: Region(code, parent, code, code) for code, parent in
             (("CN", ""), ("ZJ", "CN"), ("HZ", "ZJ"), ("NB", "ZJ"))},
    institutions={slug: Institution(slug, slug, slug, region, level) for slug, region, level in
                  (("a", "HZ", 2), ("b", "HZ", 3), ("c", "HZ", 3), ("far", "NB", 3), ("abroad", "", 3))},
    windows=(Window("ZJ", "*", timedelta(days=60)),),
    qualifications=tuple(Qualification(slug, "*", region) for slug, region in
                         (("a", "HZ"), ("b", "HZ"), ("c", "ZJ"), ("far", "NB"))),
    reasons=REASONS)


def order(item: str = "UPPER", **more: Any) -> Order:
    """An order of hospital b."""
    return Order(**({"institution": "b", "number": "1", "item": item} | more))


def result(pk: int = 1, item: str = "UPPER", days: float = 1, **more: Any) -> Candidate:
    """A final result of hospital a, this many days old, that nothing speaks against."""
    given = {"pk": pk, "kind": "Observation", "item": item, "time": NOW - int(days * DAY), "status": "final",
             "institution": "a"}
    if item in ("KNEE",):
        given["side"] = Side.LEFT
    return Candidate(**(given | more))


def verdict(ordered: Order, *candidates: Candidate, rules: RuleSet = RULES, now: int = NOW,
            zone: Any = SHANGHAI) -> Verdict:
    """`judge`, here and now."""
    return judge(ordered, candidates, rules, now, zone)


def refusals(found: Verdict) -> list[Any]:
    """The rows of a trace that speak against a result or a panel; the verdict itself (step 8) is none."""
    return [row for row in found.trace if row["step"] < 8 and row["outcome"] in set(Code)]
