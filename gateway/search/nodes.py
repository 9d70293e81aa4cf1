"""Conditions of a search as small trees: each knows its shape, its values and its SQL.

The shape decides the text of the statement, so that a statement is compiled once and then only bound (`plan`). A
condition is asked of a *candidate*, something with ``person`` and ``pk``: each probe is a look-up in the primary key of
an index table. Some can also be the *source* of candidates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import and_, exists, not_, or_, select
from sqlalchemy.sql import ColumnElement, FromClause

from gateway.store.index_schema import (
    WIDE,
    idx_date,
    idx_quantity,
    idx_reference,
    idx_resource,
    idx_string,
    idx_term,
    idx_token,
)
from gateway.store.schema import resource

#: Written into the statement, not bound.
ZERO: Any = sa.literal_column("0")
ONE: Any = sa.literal_column("1")
LONG: Any = sa.literal_column(str(WIDE))

Shape = tuple[Any, ...]
Args = tuple[Any, ...]
Clause = ColumnElement[Any]


class Binder:
    """Names of bound values in the order of ``args``; and how a probe is written.

    ``fenced``: PostgreSQL would turn a probe into a join of whole indexes; an OFFSET keeps it a look-up for each
    candidate, which a LIMIT can stop (measured: half the time, and a tenth where few candidates pass).
    """

    def __init__(self, start: int = 0, *, fenced: bool = False) -> None:
        self.at = start
        self.fenced = fenced

    def __call__(self, column: Any) -> Any:
        bound = sa.bindparam(f"p{self.at}", type_=column.type)
        self.at += 1
        return bound

    def exists(self, *where: Clause) -> Clause:
        """Whether there is a row; the tables follow from the conditions."""
        found = select(ONE).where(*where)
        return exists(found.offset(ZERO) if self.fenced else found)

    def among(self, column: Any, count: int) -> Clause:
        """``column = ?`` or ``column IN (?, …)``."""
        if count == 1:
            return column == self(column)
        return column.in_([self(column) for _ in range(count)])


@dataclass(frozen=True)
class Candidate:
    """Where ``person`` and ``pk`` of a candidate come from; ``row``: its `idx_resource` row, where that is at hand."""

    person: Any
    pk: Any
    row: Any = None


@dataclass(frozen=True)
class Source:
    """A table of candidates. ``ordered``: by person and pk as it stands; ``unique``: no candidate comes twice."""

    table: FromClause
    candidate: Candidate
    where: list[Clause]
    ordered: bool
    unique: bool


def like(text: str, *, anywhere: bool) -> str:
    """A pattern of LIKE for what begins with a text or holds it; the escape is a backslash."""
    plain = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{plain}%" if anywhere else f"{plain}%"


class Node(Protocol):
    """A condition. ``rank``: how few resources it is likely to leave; from 5 on it is no source."""

    @property
    def rank(self) -> int: ...

    @property
    def shape(self) -> Shape: ...

    @property
    def args(self) -> Args: ...

    def probe(self, c: Candidate, bind: Binder) -> Clause: ...


def padded(values: Iterable[Any]) -> tuple[Any, ...]:
    """The distinct values, sorted, the last repeated up to a power of two: few shapes for lists of any length."""
    found = sorted(set(values))
    size = 1
    while size < len(found):
        size *= 2
    return tuple(found + found[-1:] * (size - len(found)))


def same(table: Any, c: Candidate) -> Clause:
    """The row of an index table that belongs to the candidate."""
    return and_(table.c.person == c.person, table.c.pk == c.pk)


def of_table(table: Any, where: list[Clause], *, ordered: bool, unique: bool) -> Source:
    """Candidates from an index table."""
    row = table if table.name == "idx_resource" or getattr(table, "element", None) is idx_resource else None
    return Source(table, Candidate(table.c.person, table.c.pk, row), where, ordered, unique)


@dataclass(frozen=True)
class Tokens:
    """Any of these token keys."""

    keys: tuple[int, ...]
    rank: int = 3

    @property
    def shape(self) -> Shape:
        return ("token", len(self.keys))

    @property
    def args(self) -> Args:
        return self.keys

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        t = idx_token.alias()
        return bind.exists(bind.among(t.c.key, len(self.keys)), same(t, c))

    def source(self, bind: Binder) -> Source:
        t = idx_token.alias()
        one = len(self.keys) == 1
        return of_table(t, [bind.among(t.c.key, len(self.keys))], ordered=one, unique=one)


@dataclass(frozen=True)
class Terms:
    """Tokens that the dictionary lists: of a system, or with a text. Too many to be bound one by one."""

    param: int
    how: str  # "code", "coding" (a system's), "system", "text", "below"
    value: str
    system: str = ""  # of "coding"
    rank: int = 5

    @property
    def shape(self) -> Shape:
        return ("terms", self.how)

    @property
    def args(self) -> Args:
        return (self.param, self.value, self.system) if self.how == "coding" else (self.param, self.value)

    def keys(self, bind: Binder) -> Any:
        """``SELECT key`` of the dictionary."""
        d = idx_term.alias()
        of_param = d.c.param == bind(d.c.param)
        if self.how == "code":
            found = d.c.code == bind(d.c.code)
        elif self.how == "coding":
            found = and_(d.c.code == bind(d.c.code), d.c.system == bind(d.c.system))
        elif self.how == "system":
            found = and_(d.c.system == bind(d.c.system), d.c.code.is_not(None))
        elif self.how == "text":
            found = d.c.text.like(bind(d.c.text), escape="\\")
        else:
            found = d.c.code.like(bind(d.c.code), escape="\\")
        return select(d.c.key).where(of_param, found)

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        t = idx_token.alias()
        return bind.exists(t.c.key.in_(self.keys(bind)), same(t, c))


@dataclass(frozen=True)
class References:
    """Any of these targets by this parameter."""

    param: int
    targets: tuple[int, ...]
    rank: int = 2

    @property
    def shape(self) -> Shape:
        return ("reference", len(self.targets))

    @property
    def args(self) -> Args:
        return (self.param, *self.targets)

    def _where(self, t: Any, bind: Binder) -> list[Clause]:
        return [t.c.param == bind(t.c.param), bind.among(t.c.target, len(self.targets))]

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        t = idx_reference.alias()
        return bind.exists(*self._where(t, bind), same(t, c))

    def source(self, bind: Binder) -> Source:
        t = idx_reference.alias()
        one = len(self.targets) == 1
        return of_table(t, self._where(t, bind), ordered=one, unique=one)


#: search.html#prefix: which ends of the query's range ``a``–``b`` a prefix asks for, and how the resource's range
#: ``lo``–``hi`` must lie.
_COMPARE: dict[str, tuple[str, Any]] = {
    "eq": ("ab", lambda lo, hi, a, b: and_(lo >= a, hi <= b)),
    "ne": ("ab", lambda lo, hi, a, b: or_(lo < a, hi > b)),
    "gt": ("b", lambda lo, hi, b: hi > b),
    "lt": ("a", lambda lo, hi, a: lo < a),
    "ge": ("ab", lambda lo, hi, a, b: or_(lo >= a, hi > b)),
    "le": ("ab", lambda lo, hi, a, b: or_(hi <= b, lo < a)),
    "sa": ("b", lambda lo, hi, b: lo > b),
    "eb": ("a", lambda lo, hi, a: hi < a),
    "ap": ("ab", lambda lo, hi, a, b: and_(lo <= b, hi >= a)),
}
PREFIXES = frozenset(_COMPARE)

Bounds = tuple[tuple[str, Any, Any], ...]  # prefix, first and last value


def _bound_args(bounds: Bounds) -> Args:
    return tuple(a if end == "a" else b for prefix, a, b in bounds for end in _COMPARE[prefix][0])


def _meets(bounds: Bounds, lo: Any, hi: Any, column: Any, bind: Binder) -> list[Clause]:
    return [compare(lo, hi, *(bind(column) for _ in ends)) for ends, compare in (_COMPARE[p] for p, _, _ in bounds)]


@dataclass(frozen=True)
class Dates:
    """Ranges of milliseconds that one and the same date of a parameter must meet."""

    param: int
    bounds: Bounds
    rank: int = 4

    @property
    def shape(self) -> Shape:
        return ("date", *(prefix for prefix, _, _ in self.bounds))

    @property
    def args(self) -> Args:
        return (self.param, *_bound_args(self.bounds))

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        t = idx_date.alias()
        param = t.c.param == bind(t.c.param)
        meets = _meets(self.bounds, t.c.lo, t.c.lo + t.c.span, t.c.lo, bind)
        return bind.exists(param, same(t, c), *meets)

    def driver(self) -> DateRange:
        """As a source of candidates."""
        first = [a - WIDE for prefix, a, _ in self.bounds if prefix in ("eq", "ge", "ap")]
        first += [b - WIDE for prefix, _, b in self.bounds if prefix in ("gt", "sa")]
        last = [b for prefix, _, b in self.bounds if prefix in ("eq", "le", "ap")]
        last += [a for prefix, a, _ in self.bounds if prefix in ("lt", "eb")]
        return DateRange(self, max(first, default=-_FAR), min(last, default=_FAR))


_FAR = 1 << 60


@dataclass(frozen=True)
class DateRange:
    """A date as a source: those of less than a day by a range of ``lo``, and the few that are longer."""

    dates: Dates
    first: int
    last: int

    @property
    def shape(self) -> Shape:
        return ("daterange", self.dates.shape)

    @property
    def args(self) -> Args:
        return (*self.dates.args, self.first, self.last)

    def source(self, bind: Binder) -> Source:
        arms = []
        start = bind.at
        for wide in (False, True):
            t, bind.at = idx_date.alias(), start
            param = t.c.param == bind(t.c.param)
            lo = t.c.lo + ZERO if wide else t.c.lo  # the few wide ones by their own index, not by half of the other
            where = _meets(self.dates.bounds, lo, t.c.lo + t.c.span, t.c.lo, bind)
            within = [t.c.lo >= bind(t.c.lo), t.c.lo <= bind(t.c.lo)]
            where += [t.c.span >= LONG] if wide else within
            arms.append(select(t.c.person, t.c.pk).where(param, *where))
        return of_table(sa.union_all(*arms).subquery(), [], ordered=False, unique=False)


@dataclass(frozen=True)
class Updated:
    """``_lastUpdated``: microseconds of the resource's row."""

    number: int  # of the type, in the store
    bounds: Bounds
    rank: int = 4

    @property
    def shape(self) -> Shape:
        return ("updated", *(prefix for prefix, _, _ in self.bounds))

    @property
    def args(self) -> Args:
        return (self.number, *_bound_args(self.bounds))

    def _where(self, r: Any, bind: Binder) -> list[Clause]:
        return [r.c.type == bind(r.c.type), r.c.body.is_not(None),
                *_meets(self.bounds, r.c.updated, r.c.updated, r.c.updated, bind)]

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        r = resource.alias()
        return bind.exists(r.c.pk == c.pk, *self._where(r, bind))

    def driver(self) -> Updated:
        return self

    def source(self, bind: Binder) -> Source:
        r = resource.alias()
        return of_table(r, self._where(r, bind), ordered=False, unique=True)


@dataclass(frozen=True)
class Strings:
    """A string of a parameter that begins with, holds or is exactly a text."""

    param: int
    how: str  # "starts", "contains", "exact"
    value: str
    raw: str = ""
    rank: int = 4

    @property
    def shape(self) -> Shape:
        return ("string", self.how)

    @property
    def args(self) -> Args:
        if self.how == "starts":
            return (self.param, self.value, self.value + "\U0010ffff")
        return (self.param, self.value, self.raw) if self.how == "exact" else (self.param, self.value)

    def _where(self, t: Any, bind: Binder) -> list[Clause]:
        param = t.c.param == bind(t.c.param)
        if self.how == "starts":
            return [param, t.c.value >= bind(t.c.value), t.c.value < bind(t.c.value)]
        if self.how == "exact":
            return [param, t.c.value == bind(t.c.value), t.c.raw == bind(t.c.raw)]
        return [param, t.c.value.like(bind(t.c.value), escape="\\")]

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        t = idx_string.alias()
        return bind.exists(same(t, c), *self._where(t, bind))

    def driver(self) -> Strings:
        return self

    def source(self, bind: Binder) -> Source:
        t = idx_string.alias()
        return of_table(t, self._where(t, bind), ordered=False, unique=False)


@dataclass(frozen=True)
class Quantities:
    """A quantity of a parameter: how it lies to a number, and any of these units (none: whatever unit)."""

    param: int
    prefix: str
    bounds: tuple[float, ...]
    units: tuple[int, ...] = ()
    rank: int = 5

    @property
    def shape(self) -> Shape:
        return ("quantity", self.prefix, len(self.units))

    @property
    def args(self) -> Args:
        return (self.param, *self.units, *self.bounds)

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        t = idx_quantity.alias()
        where = [t.c.param == bind(t.c.param)]
        if self.units:
            where.append(bind.among(t.c.unit, len(self.units)))
        hi = sa.func.coalesce(t.c.hi, t.c.lo)
        compare = _NUMBERS[self.prefix](t.c.lo, hi, *(bind(t.c.lo) for _ in self.bounds))
        return bind.exists(same(t, c), *where, compare)


#: search.html#number: with ``eq`` and ``ne`` the number stands for its precision (5.4: 5.35 up to below 5.45), with the
#: others for itself.
_NUMBERS: dict[str, Any] = {
    "eq": lambda lo, hi, a, b: and_(lo >= a, hi < b),
    "ne": lambda lo, hi, a, b: or_(lo < a, hi >= b),
    "gt": lambda lo, hi, v: hi > v,
    "lt": lambda lo, hi, v: lo < v,
    "ge": lambda lo, hi, v: hi >= v,
    "le": lambda lo, hi, v: lo <= v,
    "sa": lambda lo, hi, v: lo > v,
    "eb": lambda lo, hi, v: hi < v,
    "ap": lambda lo, hi, a, b: and_(lo <= b, hi >= a),
}


@dataclass(frozen=True)
class Persons:
    """The resource belongs to one of these persons."""

    persons: tuple[int, ...]
    rank: int = 1

    @property
    def shape(self) -> Shape:
        return ("person", len(self.persons))

    @property
    def args(self) -> Args:
        return self.persons

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        if len(self.persons) == 1:
            return c.person == bind(idx_resource.c.person)
        return c.person.in_([bind(idx_resource.c.person) for _ in self.persons])


@dataclass(frozen=True)
class Rows:
    """One of these resources."""

    pks: tuple[int, ...]
    rank: int = 0

    @property
    def shape(self) -> Shape:
        return ("pk", len(self.pks))

    @property
    def args(self) -> Args:
        return self.pks

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        return c.pk.in_([bind(idx_resource.c.pk) for _ in self.pks])

    def source(self, bind: Binder) -> Source:
        r = resource.alias()
        return of_table(r, [bind.among(r.c.pk, len(self.pks)), r.c.body.is_not(None)], ordered=False, unique=True)


@dataclass(frozen=True)
class Of:
    """Something about the candidate's `idx_resource` row: its institution, or that a parameter has a value."""

    type: int
    what: str  # "institution", "present", "missing"
    values: tuple[int, ...]
    rank: int = 6

    @property
    def shape(self) -> Shape:
        return ("of", self.what, len(self.values))

    @property
    def args(self) -> Args:
        return (self.type, *self.values)

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        row = c.row if c.row is not None else idx_resource.alias()
        kind = bind(row.c.type)
        if self.what == "institution":
            found = bind.among(row.c.institution, len(self.values))
        else:
            masked = row.c.present.op("&")(bind(row.c.present))
            found = masked != ZERO if self.what == "present" else masked == ZERO
        if c.row is not None:
            return and_(row.c.type == kind, found)
        return bind.exists(row.c.type == kind, same(row, c), found)


@dataclass(frozen=True)
class Not:
    """The contrary; a resource without the element meets it (search.html#not)."""

    node: Node
    rank: int = 6

    @property
    def shape(self) -> Shape:
        return ("not", self.node.shape)

    @property
    def args(self) -> Args:
        return self.node.args

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        return not_(self.node.probe(c, bind))


@dataclass(frozen=True)
class AnyOf:
    """At least one of several conditions of different kinds."""

    nodes: tuple[Node, ...]
    rank: int = 6

    @property
    def shape(self) -> Shape:
        return ("any", *(node.shape for node in self.nodes))

    @property
    def args(self) -> Args:
        return tuple(value for node in self.nodes for value in node.args)

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        return or_(*(node.probe(c, bind) for node in self.nodes))


class Nothing(Exception):
    """No resource can meet a condition: nothing need be asked of the database."""


def any_of(nodes: Iterable[Node | None]) -> Node:
    """One condition of several alternatives; None: an alternative that nothing can meet."""
    found = [node for node in nodes if node is not None]
    if not found:
        raise Nothing
    merged: list[Node] = []
    for node in found:  # many of one kind become one look-up with several keys
        last = merged[-1] if merged else None
        if isinstance(node, Tokens) and isinstance(last, Tokens):
            merged[-1] = Tokens(padded(last.keys + node.keys), max(last.rank, node.rank))
        elif isinstance(node, References) and isinstance(last, References) and node.param == last.param:
            merged[-1] = replace(last, targets=padded(last.targets + node.targets))
        elif isinstance(node, Persons) and isinstance(last, Persons):
            merged[-1] = Persons(padded(last.persons + node.persons))
        else:
            merged.append(node)
    if len(merged) == 1:
        return merged[0]
    return AnyOf(tuple(merged))
