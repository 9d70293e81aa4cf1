"""A question about the figures and its answer, whoever asks: HTTP or the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from gateway.errors import Category, GatewayError
from gateway.recognition.figures import (
    MEASURES,
    ZERO,
    Dimension,
    Index,
    Measures,
    Rate,
    freshness_p95,
    index_of,
    index_rule,
    rates,
    yuan,
)
from gateway.recognition.rules import RuleSet

if TYPE_CHECKING:
    from gateway.store.figures import Figures

#: What rows may be: the groups of a question.
GROUPS = ("hospital", "department", "doctor", "item", "day", "month", "reason", "issuer")
_DIMENSIONS = {"department": Dimension.DEPARTMENT, "doctor": Dimension.DOCTOR, "item": Dimension.ITEM,
               "reason": Dimension.REASON, "issuer": Dimension.ISSUER}
#: A department's or doctor's code means something in its own hospital only.
_OF_ONE = ("department", "doctor")
#: Counts, in the order in which they are shown; amounts are shown in yuan.
AMOUNTS = ("saved_cents", "fund_cents")
COUNTS = tuple(name for name in MEASURES if name not in AMOUNTS)


@dataclass(frozen=True, slots=True)
class Question:
    """``institution`` None: all hospitals. The range holds its first and last day, local days of the gateway."""

    by: str
    first: date
    last: date
    institution: str | None = None

    def check(self) -> None:
        """INVALID where it cannot be answered."""
        if self.by not in GROUPS:
            raise GatewayError(Category.INVALID, f"by must be one of {', '.join(GROUPS)}", "by", detail="request")
        if self.first > self.last:
            raise GatewayError(Category.INVALID, "from must not be after to", "from", detail="request")
        if self.by in _OF_ONE and not self.institution:
            raise GatewayError(Category.INVALID, f"a {self.by} means something in one hospital only: name it with "
                                                 "institution=", "institution", detail="request")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an answer, or its total. ``share`` is a reason's part of all refusals."""

    value: str
    name_zh: str
    name_en: str
    measures: Measures
    rates: Mapping[str, Rate]
    share: Rate | None = None
    index: Index | None = None
    freshness: int | None = None  # p95 in ms; None: not told of such rows, or too few messages

    def count(self, name: str) -> int:
        return self.measures[MEASURES.index(name)]

    @property
    def counts(self) -> dict[str, int]:
        return {name: self.count(name) for name in COUNTS}

    @property
    def amounts(self) -> dict[str, Decimal]:
        """In yuan: what was saved, and whose it is."""
        saved, fund = (self.count(name) for name in AMOUNTS)
        return {"saved": yuan(saved), "fund": yuan(fund), "patient": yuan(saved - fund)}


@dataclass(frozen=True, slots=True)
class Report:
    """The answer; ``events``: the last event that it knows of."""

    question: Question
    events: int
    total: Row
    rows: tuple[Row, ...]


def answer(question: Question, figures: Figures, rules: RuleSet) -> Report:
    """Ask the store, after what waits is counted. BUSY when too much waits."""
    question.check()
    figures.roll()
    figures.roll_freshness()
    first, last, of = question.first, question.last, question.institution
    whole = figures.sums(Dimension.ALL, of, first, last).get("", ZERO)
    total = Row("", "合计", "total", whole, rates(whole, issuing=True), freshness=freshness_p95(
        figures.freshness(of, first, last)))
    return Report(question, figures.counted_to(), total, tuple(_rows(question, figures, rules, whole)))


def _rows(question: Question, figures: Figures, rules: RuleSet, whole: Measures) -> list[Row]:
    first, last, of = question.first, question.last, question.institution
    if question.by == "hospital":
        return _hospitals(question, figures, rules)
    if question.by == "day":
        return [Row(day.isoformat(), "", "", m, rates(m, issuing=True))
                for day, m in figures.by_day(of, first, last).items()]
    if question.by == "month":
        return [Row(month, "", "", m, rates(m, issuing=True)) for month, m in figures.by_month(of, first, last).items()]
    refusals = sum(whole[MEASURES.index(name)] for name in ("refused", "lawful", "under_review"))
    rows = []
    for value, measures in figures.sums(_DIMENSIONS[question.by], of, first, last).items():
        decided = measures[MEASURES.index("decided")]
        rows.append(Row(value, *_names(question, value, rules), measures, rates(measures),
                        share=Rate(decided, refusals) if question.by == "reason" else None))
    return rows


def _hospitals(question: Question, figures: Figures, rules: RuleSet) -> list[Row]:
    first, last, of = question.first, question.last, question.institution
    fresh = {of: figures.freshness(of, first, last)} if of else figures.freshness_by_institution(first, last)
    rule = index_rule(first)
    rows = []
    for slug, measures in figures.by_institution(first, last, of).items():
        found = rates(measures, issuing=True)
        rows.append(Row(slug, rules.name_of(slug), rules.name_of(slug, "en"), measures, found,
                        index=index_of(found, rule), freshness=freshness_p95(fresh.get(slug, {}))))
    return rows


def _names(question: Question, value: str, rules: RuleSet) -> tuple[str, str]:
    """What a row is called in Chinese and English; empty where nothing is known but the code."""
    if question.by == "item":
        item = rules.item(value) or rules.catalogue.panels.get(value)
        if item is not None:
            return item.name_zh, item.name_en
        return ("未映射", "not mapped") if not value else ("", "")
    if question.by == "issuer":
        return rules.name_of(value), rules.name_of(value, "en")
    if question.by == "reason":
        found = [row for row in rules.reasons if row.code == value]
        if question.institution and (own := rules.reason(question.institution, value, question.last)):
            found = [own]
        return (found[0].text_zh, found[0].text_en) if found else ("", "")
    return "", ""
