"""The fund's share of what was recognised: who is eligible, how much is allocated, and to whom. Pure.

The rule (`rules.SettlementRule`, with version): where an institution's exam and test fees per head, the recognised ones
included, fell against the same period of the year before, ``share`` of its recognised fees is allocated to it. Sums and
comparisons are exact; the one rounding is that of a part's allocation, half up to the cent. What is handed on, to
departments and from there to doctors, is split by largest remainder, so that parts add up to the cent.
"""

from __future__ import annotations

import csv
import io
import re
from calendar import monthrange
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from hashlib import sha256
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson

from gateway.errors import Category, GatewayError
from gateway.recognition.decision import body_of
from gateway.recognition.model import LineBody, State
from gateway.recognition.rules import ALL, RuleSet, SettlementRule
from gateway.store.model import Line

RulesOn = Callable[[date], RuleSet]


# -------------------------------------------------------------------- fees

@dataclass(frozen=True, slots=True)
class Fees:
    """An institution's exam and test fees of a period, the recognised included, and its heads. ``row``: in the file."""

    institution: str
    first: date
    last: date
    fees: Decimal
    heads: int
    row: int


@dataclass(frozen=True, slots=True)
class PerHead:
    """Fees and heads of one period together."""

    fees: Decimal
    heads: int

    @property
    def exact(self) -> Fraction:
        return Fraction(self.fees) / self.heads


_COLUMNS = ("institution", "period", "fees", "heads")
_PERIOD = re.compile(r"(?P<year>[0-9]{4})(?:-Q(?P<quarter>[1-4])|-(?P<month>[0-9]{2}))?").fullmatch
_MONEY = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?").fullmatch
_HEADS = re.compile(r"[0-9]{1,12}").fullmatch
_SHOWN = 10  # faults of a file that are named


class FeesTable:
    """What was billed, by institution and period."""

    def __init__(self, rows: Iterable[Fees]) -> None:
        self._rows: dict[str, list[Fees]] = {}
        for row in sorted(rows, key=lambda row: (row.institution, row.first)):
            self._rows.setdefault(row.institution, []).append(row)

    @property
    def institutions(self) -> list[str]:
        return list(self._rows)

    def of(self, institution: str, first: date, last: date) -> PerHead:
        """The rows that make up a period, without gap; INVALID says which period is missing."""
        found = [row for row in self._rows.get(institution, ()) if first <= row.first and row.last <= last]
        at = first
        for row in found:
            if row.first != at:
                break
            at = row.last + timedelta(days=1)
        if at != last + timedelta(days=1):
            raise GatewayError(Category.INVALID, f"the fees table has no rows that make up {first}/{last} of "
                                                 f"{institution}: add a row {institution},{first}/{last},…", "fees")
        return PerHead(sum((row.fees for row in found), Decimal()), sum(row.heads for row in found))


def read_fees(raw: bytes) -> FeesTable:
    """``institution,period,fees,heads`` as CSV in UTF-8; a period is 2026, 2026-Q1, 2026-03 or two days with ``/``.

    INVALID names the lines at fault: unreadable periods and numbers, no heads, periods of one institution that overlap.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise GatewayError(Category.INVALID, "the fees table is not UTF-8; save it as CSV UTF-8", "fees") from None
    lines = list(csv.reader(io.StringIO(text, newline="")))
    if not lines or [cell.strip() for cell in lines[0]] != list(_COLUMNS):
        raise GatewayError(Category.INVALID, f"the first line of the fees table must be {','.join(_COLUMNS)}", "line 1")
    rows: list[Fees] = []
    faults: list[tuple[int, str]] = []
    for number, cells in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        try:
            rows.append(_fees([cell.strip() for cell in cells], number))
        except ValueError as problem:
            faults.append((number, str(problem)))
    faults += _overlaps(rows)
    if faults:
        faults.sort()
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise GatewayError(Category.INVALID, "the fees table is refused: " + "; ".join(
            f"line {number}: {says}" for number, says in faults[:_SHOWN]) + more, f"line {faults[0][0]}")
    return FeesTable(rows)


def _fees(cells: Sequence[str], number: int) -> Fees:
    if len(cells) != len(_COLUMNS):
        raise ValueError(f"has {len(cells)} columns, not {len(_COLUMNS)}")
    institution, period, fees, heads = cells
    if not institution:
        raise ValueError("names no institution")
    first, last = period_of(period)
    if not _MONEY(fees):
        raise ValueError("fees must be a decimal such as 1234567.89")
    if not _HEADS(heads) or int(heads) == 0:
        raise ValueError("heads must be a whole number above 0")
    return Fees(institution, first, last, Decimal(fees), int(heads), number)


def _overlaps(rows: Iterable[Fees]) -> list[tuple[int, str]]:
    found, last = [], dict[str, Fees]()
    for row in sorted(rows, key=lambda row: (row.institution, row.first, row.row)):
        before = last.get(row.institution)
        if before is not None and row.first <= before.last:
            found.append((max(row.row, before.row), f"overlaps line {min(row.row, before.row)}"))
        if before is None or row.last > before.last:
            last[row.institution] = row
    return found


def period_of(text: str) -> tuple[date, date]:
    """First and last day of a period as a fees table writes it; ValueError."""
    if "/" in text:
        first, last = (date.fromisoformat(part) if len(part) == 10 else _no_period() for part in text.split("/", 1))
        return (first, last) if first <= last else _no_period()
    match = _PERIOD(text)
    if match is None:
        return _no_period()
    year = int(match["year"])
    begin, end = (int(match["month"]),) * 2 if match["month"] else (1, 12)
    if match["quarter"]:
        begin, end = 3 * int(match["quarter"]) - 2, 3 * int(match["quarter"])
    if not year or not 1 <= begin <= 12:
        return _no_period()
    return date(year, begin, 1), date(year, end, monthrange(year, end)[1])


def _no_period() -> Any:
    raise ValueError("the period must be 2026, 2026-Q1, 2026-03 or 2026-01-01/2026-03-31")


def year_before(first: date, last: date) -> tuple[date, date]:
    """The same period of the year before; the end of a month stays the end of that month."""
    end = monthrange(last.year, last.month)[1] == last.day
    year = last.year - 1
    day = monthrange(year, last.month)[1] if end else min(last.day, monthrange(year, last.month)[1])
    start = first.replace(year=first.year - 1, day=min(first.day, monthrange(first.year - 1, first.month)[1]))
    return start, date(year, last.month, day)


# -------------------------------------------------------------------- who is eligible

class Reason(StrEnum):
    """Why a line is settled or not; each line of the period has one."""

    ELIGIBLE = "ELIGIBLE"
    UNDECIDED = "UNDECIDED"
    REVOKED = "REVOKED"
    REVOKED_AFTER_SETTLEMENT = "REVOKED_AFTER_SETTLEMENT"  # the fund may ask for its share back
    NOT_RECOGNISED = "NOT_RECOGNISED"
    OUT_OF_PERIOD = "OUT_OF_PERIOD"  # ordered in the period, decided before or after it: counts there
    SETTLED_BEFORE = "SETTLED_BEFORE"
    NO_RULE = "NO_RULE"
    SCHEME_UNKNOWN = "SCHEME_UNKNOWN"
    SCHEME_NOT_COVERED = "SCHEME_NOT_COVERED"
    ITEM_OUT_OF_SCOPE = "ITEM_OUT_OF_SCOPE"
    NO_PRICE = "NO_PRICE"


@dataclass(frozen=True, slots=True)
class Part:
    """Days of the period on which one version of the rule holds for an institution; ``rule`` None: none does."""

    first: date
    last: date
    rule: SettlementRule | None


class Fact(NamedTuple):
    """An eligible line, as the evidence shows it; sorts by day and line."""

    day: str
    line: str
    decision: str
    item: str
    department: str
    doctor: str
    scheme: str
    price: Decimal
    catalogue: str
    part: int  # place in the parts


def parts_of(institution: str, first: date, last: date, rules_on: RulesOn) -> list[Part]:
    """The period, split where another version of the rule begins to hold."""
    found: list[Part] = []
    day = first
    while day <= last:
        rule = rules_on(day).settlement_rule(institution, day)
        if found and found[-1].rule == rule:
            found[-1] = Part(found[-1].first, day, rule)
        else:
            found.append(Part(day, day, rule))
        day += timedelta(days=1)
    return found


@dataclass(slots=True)
class Sieve:
    """One institution's lines, each counted once under its reason. ``run``: lines that it settled are not "before"."""

    institution: str
    first: date
    last: date
    run: str
    zone: ZoneInfo
    rules_on: RulesOn
    counts: Counter[str] = field(default_factory=Counter)
    facts: list[Fact] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = parts_of(self.institution, self.first, self.last, self.rules_on)

    def take(self, line: Line) -> None:
        """Count a line, where it was ordered or decided in the period and was ever reminded."""
        if line.institution != self.institution or line.state == State.ORDERED:
            return
        body = body_of(line)
        decided = self._day(body.decided_at) if line.state in (State.RECOGNISED, State.NOT_RECOGNISED) else None
        inside = decided is not None and self.first <= decided <= self.last
        if not inside and not self.first <= self._day(line.created) <= self.last:
            return
        reason = self._judge(line, body, decided if inside else None)
        self.counts[reason] += 1
        if reason is Reason.ELIGIBLE and decided is not None:
            self.facts.append(Fact(decided.isoformat(), line.id, body.decision, line.item, body.department,
                                   body.decided_by or body.doctor, body.scheme, _price(body), body.catalogue,
                                   self._part(decided)))

    def _judge(self, line: Line, body: LineBody, on: date | None) -> Reason:
        """``on``: the day of the decision, None: it lies outside the period or there is none."""
        if line.state not in (State.RECOGNISED, State.NOT_RECOGNISED):
            if body.settled:
                return Reason.REVOKED_AFTER_SETTLEMENT
            return Reason.REVOKED if body.ordinal else Reason.UNDECIDED
        if on is None:
            return Reason.OUT_OF_PERIOD
        if line.state == State.NOT_RECOGNISED:
            return Reason.REVOKED_AFTER_SETTLEMENT if body.settled else Reason.NOT_RECOGNISED
        if body.settled and body.settled != self.run:
            return Reason.SETTLED_BEFORE
        rule = self.parts[self._part(on)].rule
        if rule is None:
            return Reason.NO_RULE
        if not body.scheme:
            return Reason.SCHEME_UNKNOWN
        if body.scheme not in rule.schemes and ALL not in rule.schemes:
            return Reason.SCHEME_NOT_COVERED
        if not any(selector in rule.items for selector in self.rules_on(on).selectors(line.item)):
            return Reason.ITEM_OUT_OF_SCOPE
        return Reason.ELIGIBLE if body.price else Reason.NO_PRICE

    def _part(self, on: date) -> int:
        return next(place for place, part in enumerate(self.parts) if part.first <= on <= part.last)

    def _day(self, microseconds: int) -> date:
        return datetime.fromtimestamp(microseconds // 1_000_000, self.zone).date()


def _price(body: LineBody) -> Decimal:
    try:
        price = Decimal(body.price)
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price < 0:
        raise GatewayError(Category.INVALID, "an order line has a price that is no decimal; see `huren audit verify`",
                           "price")
    return price


# -------------------------------------------------------------------- how much, and to whom

@dataclass(frozen=True, slots=True)
class Share:
    """What is handed on to a doctor of a department."""

    department: str
    doctor: str
    fees: Decimal
    cents: int


@dataclass(frozen=True, slots=True)
class Settled:
    """One part of an institution's period: what was recognised, how fees per head went, and what is allocated."""

    part: Part
    lines: int
    recognised: Decimal
    now: PerHead | None  # None: nothing was eligible, and no fees were looked up
    before: PerHead | None
    cents: int
    shares: tuple[Share, ...]

    @property
    def fell(self) -> bool:
        """Whether fees per head fell; equal is not fallen."""
        return self.now is not None and self.before is not None and self.now.exact < self.before.exact


def settle(sieve: Sieve, fees: FeesTable) -> list[Settled]:
    """The parts of an institution's period. INVALID where the table lacks the fees of one with eligible lines."""
    found = []
    for place, part in enumerate(sieve.parts):
        facts = [fact for fact in sieve.facts if fact.part == place]
        recognised = sum((fact.price for fact in facts), Decimal())
        if not facts or part.rule is None:
            found.append(Settled(part, 0, Decimal(), None, None, 0, ()))
            continue
        now = fees.of(sieve.institution, part.first, part.last)
        before = fees.of(sieve.institution, *year_before(part.first, part.last))
        cents = half_up(Fraction(recognised) * Fraction(part.rule.share) * 100) if now.exact < before.exact else 0
        found.append(Settled(part, len(facts), recognised, now, before, cents, tuple(_shares(facts, cents))))
    return found


def _shares(facts: Iterable[Fact], cents: int) -> list[Share]:
    """Hospital → department → doctor, by recognised fees."""
    departments: dict[str, dict[str, Decimal]] = {}
    for fact in facts:
        doctors = departments.setdefault(fact.department, {})
        doctors[fact.doctor] = doctors.get(fact.doctor, Decimal()) + fact.price
    handed = allocate(cents, {name: sum(doctors.values(), Decimal()) for name, doctors in departments.items()})
    found = []
    for department, doctors in sorted(departments.items()):
        split = allocate(handed[department], doctors)
        found += [Share(department, doctor, doctors[doctor], split[doctor]) for doctor in sorted(doctors)]
    return found


def allocate(cents: int, weights: Mapping[str, Decimal]) -> dict[str, int]:
    """An amount split by weights, to the cent, by largest remainder; of equal remainders the first name's is larger.

    Where no weight is above zero, every part is the first name's.
    """
    names = sorted(weights)
    whole = sum((Fraction(weights[name]) for name in names), Fraction())
    if not whole:
        return {name: cents if name == names[0] else 0 for name in names}
    exact = {name: cents * Fraction(weights[name]) / whole for name in names}
    split = {name: int(exact[name]) for name in names}
    left = cents - sum(split.values())
    for name in sorted(names, key=lambda name: (split[name] - exact[name], name))[:left]:
        split[name] += 1
    return split


def half_up(value: Fraction) -> int:
    """A number that is not negative, rounded to a whole one (四舍五入)."""
    return int(value + Fraction(1, 2))


# -------------------------------------------------------------------- the run

def run_id(first: date, last: date, institutions: Sequence[str], fees: bytes, rules_on: RulesOn) -> str:
    """What is settled, as a digest: period, institutions asked for, fees table, and the rules of the period."""
    said, day, seen = [], first, None
    while day <= last:
        rules = rules_on(day)
        if rules.version != seen:
            seen = rules.version
            said.append([seen, [[r.region, r.version, str(r.share), list(r.schemes), list(r.items),
                                 str(r.period.begin), str(r.period.end)] for r in rules.settlements]])
        day += timedelta(days=1)
    text = orjson.dumps([first.isoformat(), last.isoformat(), sorted(institutions), sha256(fees).hexdigest(), said])
    return sha256(text).hexdigest()[:32]
