"""What an order line counts in the figures, and the rates made of the counts. Pure.

The figures are the sum of ``contribution(line)`` over all lines: a line that changes takes away what it counted before
and adds what it counts now (`gateway.store.figures`). So a decision that was revoked and taken again leaves them as if
only the last one existed. A line counts on the local day of its reminder, on its order day where it was never reminded.

One rule of rounding: half up (四舍五入), rates to four places, amounts to the cent of each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from enum import IntEnum
from fractions import Fraction
from typing import NamedTuple
from zoneinfo import ZoneInfo

import orjson

from gateway.errors import Category, GatewayError
from gateway.recognition.decision import body_of
from gateway.recognition.model import LineBody, State
from gateway.store.model import Line
from gateway.store.schema import MEASURES

#: Fewer cases than this are not shown as a rate.
SMALL = 30
#: The reason code of 《医疗机构检查检验结果互认管理办法》's availability fault, beside `LineBody.fault`.
FAULT_REASON = "R98"
#: All institutions together, where a cell's institution stands.
SYSTEM = ""


EPOCH = date(1970, 1, 1).toordinal()


class Dimension(IntEnum):
    """By what a cell is told apart inside an institution; the numbers are stored."""

    ALL = 0
    DEPARTMENT = 1
    DOCTOR = 2
    ITEM = 3
    ISSUER = 4
    REASON = 5


class Cell(NamedTuple):
    """Where something is counted. ``day``: since 1970-01-01; ``institution`` "": all together."""

    dimension: int
    institution: str
    value: str
    day: int


Measures = tuple[int, ...]
ZERO: Measures = (0,) * len(MEASURES)
_PLACE = {name: place for place, name in enumerate(MEASURES)}
_ISSUED = tuple(_PLACE[name] for name in ("issued", "issued_decided", "issued_recognised", "issued_faults"))


@dataclass(frozen=True, slots=True)
class Counted:
    """What one line counts, before it is spread over cells: this is kept for each line, to be taken away later."""

    institution: str
    day: int
    department: str
    doctor: str
    item: str
    reason: str
    issuers: tuple[str, ...]
    measures: Measures

    def text(self) -> str:
        """As JSON: the names, then pairs of place and value of the measures that are not zero."""
        sparse = [n for place, value in enumerate(self.measures) if value for n in (place, value)]
        return orjson.dumps([self.institution, self.day, self.department, self.doctor, self.item, self.reason,
                             self.issuers, sparse]).decode()

    def cells(self) -> list[tuple[Cell, Measures]]:
        """Every cell that the line counts in, by day. A department or doctor is one of its own institution only."""
        here, day, own = self.institution, self.day, self.measures
        found = [(Cell(Dimension.DEPARTMENT, here, self.department, day), own),
                 (Cell(Dimension.DOCTOR, here, self.doctor, day), own)]
        values = [(Dimension.ALL, ""), (Dimension.ITEM, self.item), *((Dimension.ISSUER, i) for i in self.issuers)]
        if self.reason:
            values.append((Dimension.REASON, self.reason))
        for dimension, value in values:
            found += [(Cell(dimension, here, value, day), own), (Cell(dimension, SYSTEM, value, day), own)]
        if self.issuers:
            issued = _issued(own)
            for issuer in self.issuers:
                found += [(Cell(Dimension.ALL, slug, "", day), issued) for slug in (issuer, SYSTEM)]
        return found


def counted_of(text: str) -> Counted:
    """The inverse of `Counted.text`."""
    institution, day, department, doctor, item, reason, issuers, sparse = orjson.loads(text)
    measures = list(ZERO)
    for place, value in zip(sparse[::2], sparse[1::2], strict=True):
        measures[place] = value
    return Counted(institution, day, department, doctor, item, reason, tuple(issuers), tuple(measures))


def _issued(measures: Measures) -> Measures:
    """What a line counts for a hospital whose result it was shown."""
    made = list(ZERO)
    for place, name in zip(_ISSUED, ("reminded", "decided", "recognised", "faults"), strict=True):
        made[place] = measures[_PLACE[name]]
    return tuple(made)


def counted(line: Line, body: LineBody, zone: ZoneInfo) -> Counted:
    """What a line counts as it stands now."""
    at = body.reminded_at or line.created
    reminded = line.state != State.ORDERED
    recognised, refused = line.state == State.RECOGNISED, line.state == State.NOT_RECOGNISED
    fault = refused and (body.fault or body.reason == FAULT_REASON)
    counts = {
        "orders": 1,
        "mapped": line.item != "",
        "reminded": reminded,
        "interruptive": reminded and body.interruptive,
        "viewed": reminded and body.viewed_at > 0,
        "decided": recognised or refused,
        "recognised": recognised,
        "refused": refused and body.refusal not in ("no", "reviewed"),
        "lawful": refused and body.refusal == "no",
        "under_review": refused and body.refusal == "reviewed",
        "faults": fault,
        "explained": refused and body.explained is True,
        "billed": body.billed,
        "skipped": body.billed and line.state in (State.REMINDED, State.VIEWED),
        "bypassed": body.bypass != "",
        "blocked": body.blocked,
        "reordered": recognised and body.reordered,
        "quoted": body.quoted,
        "settled": recognised and body.settled != "",
        "saved_cents": cents(body.price) if recognised else 0,
        "fund_cents": cents(body.fund) if recognised else 0,
    }
    day = datetime.fromtimestamp(at // 1_000_000, zone).toordinal() - EPOCH
    issuers = tuple(sorted(set(body.issuers))) if reminded else ()
    return Counted(line.institution, day, body.department, body.doctor, line.item, body.reason if refused else "",
                   issuers, tuple(int(counts.get(name, 0)) for name in MEASURES))


def contribution(line: Line, body: LineBody, zone: ZoneInfo) -> list[tuple[Cell, Measures]]:
    """The cells that a line counts in and what it counts there, in the order of `MEASURES`."""
    return counted(line, body, zone).cells()


@dataclass(frozen=True, slots=True)
class Counting:
    """What `gateway.store.figures` rolls with."""

    zone: ZoneInfo

    def count(self, line: Line) -> str:
        """What a line counts now, as text."""
        return counted(line, body_of(line), self.zone).text()

    def cells(self, text: str) -> list[tuple[Cell, Measures]]:
        """The cells of such a text."""
        return counted_of(text).cells()


def cents(amount: str) -> int:
    """A decimal of yuan in cents, half up; empty is 0. INVALID where it is no decimal."""
    if not amount:
        return 0
    try:
        return int((Decimal(amount) * 100).quantize(Decimal(1), ROUND_HALF_UP))
    except (InvalidOperation, ValueError):
        raise GatewayError(Category.INVALID, "a price is no decimal; see `huren catalogue show`", "price") from None


def yuan(amount: int) -> Decimal:
    """Cents as yuan with two places."""
    return Decimal(amount).scaleb(-2)


# -------------------------------------------------------------------- rates

@dataclass(frozen=True, slots=True)
class Rate:
    """A share of cases. ``value`` None: fewer than `SMALL` cases (``suppressed``)."""

    numerator: int
    denominator: int

    @property
    def suppressed(self) -> bool:
        return self.denominator < SMALL

    @property
    def value(self) -> Decimal | None:
        """To four places, half up."""
        return None if self.suppressed else rounded(Fraction(self.numerator, self.denominator))


def rounded(value: Fraction, places: int = 4) -> Decimal:
    """A fraction that is not negative as a decimal, half up."""
    return Decimal(int(value * 10 ** places + Fraction(1, 2))).scaleb(-places)


#: Rates by name, in the order in which they are shown.
RATES = ("decision", "recognition", "view", "skip", "availability", "mapping", "reorder")


def rates(measures: Measures, issuing: bool = False) -> dict[str, Rate]:
    """The rates of one row. ``issuing``: availability of the results that the hospital made, else of those shown."""
    m = dict(zip(MEASURES, measures, strict=True))
    decided, faults = (m["issued_decided"], m["issued_faults"]) if issuing else (m["decided"], m["faults"])
    return {
        "decision": Rate(m["decided"], m["reminded"]),
        "recognition": Rate(m["recognised"], m["recognised"] + m["refused"]),
        "view": Rate(m["viewed"], m["reminded"]),
        "skip": Rate(m["skipped"], m["reminded"]),
        "availability": Rate(decided - faults, decided),
        "mapping": Rate(m["mapped"], m["orders"]),
        "reorder": Rate(m["reordered"], m["recognised"]),
    }


def add(one: Sequence[int], other: Sequence[int]) -> Measures:
    """The sum of two rows."""
    return tuple(map(sum, zip(one, other, strict=True)))


def total(rows: Iterable[Sequence[int]]) -> Measures:
    """The sum of rows."""
    return tuple(map(sum, zip(ZERO, *rows, strict=True)))


# -------------------------------------------------------------------- the index of a hospital

@dataclass(frozen=True, slots=True)
class Part:
    """A part of the index: a rate, or what is missing of it to 1, and its weight in percent."""

    rate: str
    weight: int
    falling: bool = False  # less of it is better: 1 - rate counts


@dataclass(frozen=True, slots=True)
class IndexRule:
    """A version of the index; the weights add up to 100."""

    version: str
    begin: date
    parts: tuple[Part, ...]


#: The versions of the index, by the first day of the range that is asked for. A new version is a new row here.
INDEX_RULES = (
    IndexRule("2026-1", date.min, (Part("recognition", 30), Part("decision", 20), Part("skip", 10, falling=True),
                                   Part("view", 10), Part("availability", 15), Part("mapping", 10),
                                   Part("reorder", 5, falling=True))),
)
#: Where less of the weight than this can be shown there is no index.
_LEAST_WEIGHT = 50


@dataclass(frozen=True, slots=True)
class Index:
    """The index of a hospital, 0 to 100 with two places, and its parts: name, weight and what counts of it.

    A part that is suppressed is left out, and the others' weights share its place; with less than half of the weight
    left ``value`` is None.
    """

    version: str
    value: Decimal | None
    parts: tuple[tuple[str, int, Decimal | None], ...]


def index_rule(first: date) -> IndexRule:
    """The version that holds for a range that begins on a day."""
    return max((rule for rule in INDEX_RULES if rule.begin <= first), key=lambda rule: rule.begin)


def index_of(found: Mapping[str, Rate], rule: IndexRule) -> Index:
    """The weighted mean of a hospital's rates; of the exact ones, rounded once."""
    parts: list[tuple[str, int, Decimal | None]] = []
    weighed, weights = Fraction(0), 0
    for part in rule.parts:
        rate = found[part.rate]
        if rate.suppressed:
            parts.append((part.rate, part.weight, None))
            continue
        exact = Fraction(rate.numerator, rate.denominator)
        exact = 1 - exact if part.falling else exact
        parts.append((part.rate, part.weight, rounded(exact)))
        weighed, weights = weighed + part.weight * exact, weights + part.weight
    value = rounded(weighed / weights * 100, 2) if weights >= _LEAST_WEIGHT else None
    return Index(rule.version, value, tuple(parts))


# -------------------------------------------------------------------- freshness

def freshness_p95(histogram: Mapping[int, int]) -> int | None:
    """Milliseconds from received to visible elsewhere that 95 of 100 messages took at most; None: too few.

    ``histogram``: upper bound in ms → messages, as `gateway.store.figures.bound` makes them (two digits, rounded up).
    """
    messages = sum(histogram.values())
    if messages < SMALL:
        return None
    rank, seen = -(-messages * 95 // 100), 0
    for upper in sorted(histogram):
        seen += histogram[upper]
        if seen >= rank:
            return upper
    raise AssertionError
