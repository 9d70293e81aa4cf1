"""From conditions to one page of keys: which index drives, in what order it is walked, and the statement's text.

A statement is written with SQLAlchemy Core once for each *shape* of a question and compiled to the driver's text; later
questions of that shape only bind their values.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import and_, func, not_, or_, select
from sqlalchemy.engine import Dialect

from gateway.indexing import type_key
from gateway.search.nodes import (
    LONG,
    ZERO,
    Args,
    Binder,
    Candidate,
    Clause,
    DateRange,
    Dates,
    Node,
    Of,
    Persons,
    References,
    Rows,
    Shape,
    Source,
    Strings,
    Tokens,
    Updated,
    of_table,
    same,
)
from gateway.store.index_schema import (
    WIDE,
    idx_date,
    idx_quantity,
    idx_resource,
    idx_string,
    idx_term,
    idx_token,
)
from gateway.store.schema import resource

#: Candidates up to which they are gathered and sorted; an index is walked in its own order when there are more.
FEW = 3000
_FORGET = 60.0  # seconds that a count of candidates is believed: it decides how, never what
_SHAPES = 4000
_OURS = re.compile(r"p\d+")

#: A row of a page: sort values, person, pk.
Key = tuple[tuple[Any, ...], int, int]


@dataclass(frozen=True)
class Sort:
    """A key of ``_sort``: ``kind`` is date, string, quantity, token, updated or id."""

    kind: str
    param: int
    descending: bool
    bit: int = 0  # in ``idx_resource.present``
    repeats: bool = False

    @property
    def shape(self) -> Shape:
        return ("sort", self.kind, self.descending, self.repeats)

    @property
    def args(self) -> Args:
        return () if self.kind in ("updated", "id") else (self.param,)

    def value(self, c: Candidate, bind: Binder) -> Any:
        """The candidate's value: the least one ascending, the greatest one descending."""
        best = func.max if self.descending else func.min
        if self.kind in ("updated", "id"):
            r = resource.alias()
            return select(r.c.updated if self.kind == "updated" else r.c.id).where(r.c.pk == c.pk).scalar_subquery()
        if self.kind == "token":
            t, d = idx_token.alias(), idx_term.alias()
            found = and_(d.c.param == bind(d.c.param), d.c.key == t.c.key, same(t, c))
            return select(best(d.c.code)).where(found).scalar_subquery()
        table, column = {"date": (idx_date, "lo"), "string": (idx_string, "value"), "quantity": (idx_quantity, "lo")}[
            self.kind]
        t = table.alias()
        return select(best(t.c[column])).where(t.c.param == bind(t.c.param), same(t, c)).scalar_subquery()


@dataclass(frozen=True)
class All:
    """Every resource of a type as the source, by person and pk."""

    type: int

    @property
    def shape(self) -> Shape:
        return ("all",)

    @property
    def args(self) -> Args:
        return (self.type,)

    def source(self, bind: Binder) -> Source:
        r = idx_resource.alias()
        return of_table(r, [r.c.type == bind(r.c.type)], ordered=True, unique=True)


@dataclass(frozen=True)
class Walk:
    """The index of the sort key as the source, in its order; without resources that have no value."""

    sort: Sort
    type: int  # the store's number of the type, for ``updated``

    @property
    def shape(self) -> Shape:
        return ("walk", self.sort.shape)

    @property
    def args(self) -> Args:
        return (self.type,) if self.sort.kind == "updated" else (self.sort.param,)

    def source(self, bind: Binder) -> Source:
        return self.ordered(bind)[0]

    def ordered(self, bind: Binder) -> tuple[Source, Any]:
        """The source and the column that it is ordered by."""
        if self.sort.kind == "updated":
            r = resource.alias()
            return of_table(r, [r.c.type == bind(r.c.type), r.c.body.is_not(None)], ordered=False, unique=True), \
                r.c.updated
        table = idx_date if self.sort.kind == "date" else idx_string
        t = table.alias()
        column, second = (t.c.lo, t.c.span) if self.sort.kind == "date" else (t.c.value, t.c.raw)
        where = [t.c.param == bind(t.c.param)]
        if self.sort.kind == "string" or self.sort.repeats:
            o = table.alias()
            other, other_second = (o.c.lo, o.c.span) if self.sort.kind == "date" else (o.c.value, o.c.raw)
            better = other > column if self.sort.descending else other < column
            better = or_(better, and_(other == column, other_second < second))
            where.append(not_(bind.exists(o.c.param == t.c.param, o.c.person == t.c.person, o.c.pk == t.c.pk, better)))
        return of_table(t, where, ordered=False, unique=True), column


Driver = Tokens | References | DateRange | Updated | Strings | Rows | All | Walk


@dataclass(frozen=True)
class Plan:
    """A question with its driver chosen; ``nodes`` are the other conditions."""

    driver: Driver
    nodes: tuple[Node, ...]
    sorts: tuple[Sort, ...] = ()

    @property
    def shape(self) -> Shape:
        return (self.driver.shape, *(node.shape for node in self.nodes))

    @property
    def args(self) -> Args:
        return (*self.driver.args, *(value for node in self.nodes for value in node.args))

    def where(self, source: Source, bind: Binder) -> list[Clause]:
        return [*source.where, *(node.probe(source.candidate, bind) for node in self.nodes)]

    def candidates(self, bind: Binder) -> Any:
        """``SELECT person, pk``, each once."""
        source = self.driver.source(bind)
        chosen = select(source.candidate.person, source.candidate.pk).where(*self.where(source, bind))
        return chosen if source.unique else chosen.distinct()


@dataclass(frozen=True)
class Group:
    """Conditions of a type within another question (a chain): the driver is chosen without asking the database."""

    resource_type: str
    nodes: tuple[Node, ...]

    def plan(self) -> Plan:
        return choose(self.resource_type, self.nodes)


def drivers(nodes: Sequence[Node]) -> list[tuple[Driver, Node]]:
    """What can drive, the likely smallest first, with the condition that it answers."""
    found: list[tuple[Driver, Node]] = []
    for node in sorted(nodes, key=lambda n: n.rank):
        if isinstance(node, (Tokens, References, Rows)):
            found.append((node, node))
        elif isinstance(node, (Dates, Updated, Strings)):
            found.append((node.driver(), node))
    return found


def choose(resource_type: str, nodes: Sequence[Node]) -> Plan:
    """The plan that needs no count: by identifier or key, by a person's index, else the likely smallest."""
    possible = drivers(nodes)
    if any(isinstance(node, Persons) for node in nodes):
        possible = [(driver, node) for driver, node in possible if node.rank < 4]
    if not possible:
        return Plan(All(type_key(resource_type)), tuple(nodes))
    driver, answered = possible[0]
    return Plan(driver, tuple(node for node in nodes if node is not answered))


class Planner:
    """Plans and runs on one connection."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.dialect = connection.dialect

    def binder(self) -> Binder:
        """For one statement."""
        return Binder(fenced=self.dialect.name == "postgresql")

    # ------------------------------------------------------------------ running

    def run(self, shape: Shape, args: Args, build: Callable[[], Any]) -> list[Any]:
        """Rows of a statement; ``build`` writes it when no one has asked in this shape yet."""
        text, order, constants = compiled(self.dialect, shape, build)
        if order is None:
            values: Any = constants | {f"p{n}": value for n, value in enumerate(args)}
        else:
            values = tuple([args[n] if isinstance(n, int) else constants[n] for n in order])
        return list(self.connection.exec_driver_sql(text, values))

    def page(self, resource_type: str, number: int, nodes: Sequence[Node], sorts: Sequence[Sort], after: Key | None,
             limit: int) -> list[Key]:
        """Up to ``limit`` keys after another one. The order is total: sort values, then person and pk."""
        plan = self.plan(resource_type, number, nodes, sorts, limit)
        if isinstance(plan.driver, Walk):
            return self._walked(plan, resource_type, nodes, after, limit)
        if sorts:
            return self._gathered(plan, after, limit)
        return self._in_order(plan, after, limit, False)

    def count(self, resource_type: str, number: int, nodes: Sequence[Node]) -> int:
        """How many resources meet the conditions."""
        plan = self.plan(resource_type, number, nodes, (), 0)
        [(count,)] = self.run(("count", plan.shape), plan.args,
                              lambda: select(func.count()).select_from(plan.candidates(self.binder()).subquery()))
        return count

    def keys(self, resource_type: str, nodes: Sequence[Node], what: str, limit: int) -> list[Any]:
        """Distinct persons or references (``ref``) of the resources that meet the conditions, up to ``limit``."""
        plan = choose(resource_type, nodes)

        def build() -> Any:
            bind = self.binder()
            found = plan.candidates(bind).subquery()
            if what == "person":
                return select(found.c.person).distinct().limit(bind(idx_resource.c.pk))
            r = idx_resource.alias()
            return select(r.c.ref).where(r.c.type == bind(r.c.type), same(r, _of(found))).limit(bind(r.c.pk))
        extra = (limit,) if what == "person" else (type_key(resource_type), limit)
        return [row[0] for row in self.run(("keys", what, plan.shape), (*plan.args, *extra), build)]

    # ------------------------------------------------------------------ planning

    def plan(self, resource_type: str, number: int, nodes: Sequence[Node], sorts: Sequence[Sort], limit: int) -> Plan:
        """Choose the driver. Only among conditions over all persons are candidates counted, and up to FEW of them."""
        plan = choose(resource_type, nodes)
        alone = isinstance(plan.driver, (Tokens, References)) and len(drivers(nodes)) == 1 and not sorts
        sure = any(isinstance(node, (Rows, Persons)) or isinstance(node, Tokens) and node.rank <= 1 for node in nodes)
        if sure or alone and plan.driver.source(Binder()).ordered:
            return Plan(plan.driver, plan.nodes, tuple(sorts))
        counted = sorted(((self._estimate(driver), n, driver, node) for n, (driver, node) in enumerate(drivers(nodes))),
                         key=lambda found: found[:2])
        if counted and (counted[0][0] < FEW or limit == 0):
            _, _, driver, answered = counted[0]
            if isinstance(driver, DateRange) and [sort.param for sort in sorts] == [driver.dates.param] \
                    and not sorts[0].repeats:
                return Plan(Walk(sorts[0], number), tuple(nodes), tuple(sorts))  # the same rows, in order already
            return Plan(driver, tuple(node for node in nodes if node is not answered), tuple(sorts))
        if len(sorts) == 1 and sorts[0].kind in ("date", "string", "updated"):
            return Plan(Walk(sorts[0], number), tuple(nodes), tuple(sorts))
        for _, _, driver, answered in counted:
            if driver.source(Binder()).ordered:
                return Plan(driver, tuple(node for node in nodes if node is not answered), tuple(sorts))
        return Plan(All(type_key(resource_type)), tuple(nodes), tuple(sorts))

    def _estimate(self, driver: Driver) -> int:
        """Candidates of a driver, counted up to FEW."""
        about = (id(self.connection.engine), driver.shape, driver.args)
        now = time.monotonic()
        known = _estimates.get(about)
        if known is not None and now - known[1] < _FORGET:
            return known[0]

        def build() -> Any:
            source = driver.source(self.binder())
            return select(func.count()).select_from(
                select(source.candidate.pk).where(*source.where).limit(FEW).subquery())
        [(count,)] = self.run(("estimate", driver.shape), driver.args, build)
        if len(_estimates) >= _SHAPES:
            _estimates.clear()
        _estimates[about] = count, now
        return count

    # ------------------------------------------------------------------ three ways to a page

    def _in_order(self, plan: Plan, after: Key | None, limit: int, descending: bool) -> list[Key]:
        """By person and pk, which is the order of most indexes."""
        def build() -> Any:
            bind = self.binder()
            source = plan.driver.source(bind)
            c = source.candidate
            where = plan.where(source, bind)
            if after:
                where.append(_beyond([c.person, c.pk], descending, bind))
            chosen = select(c.person, c.pk).where(*where)
            if not source.unique:
                chosen = chosen.distinct()
            order = [c.person.desc(), c.pk.desc()] if descending else [c.person, c.pk]
            return chosen.order_by(*order).limit(bind(idx_resource.c.pk))
        args = (*plan.args, *(after[1:] if after else ()), limit)
        found = self.run(("order", plan.shape, bool(after), descending), args, build)
        return [((), person, pk) for person, pk in found]

    def _gathered(self, plan: Plan, after: Key | None, limit: int) -> list[Key]:
        """All candidates with their sort values, sorted by the database."""
        down = plan.sorts[0].descending
        nulls = tuple(value is None for value in after[0]) if after else ()

        def build() -> Any:
            bind = self.binder()
            found = plan.candidates(bind).subquery()
            c = _of(found)
            values = [sort.value(c, bind).label(f"s{n}") for n, sort in enumerate(plan.sorts)]
            rows = select(found.c.person, found.c.pk, *values).subquery()
            columns = [rows.c[f"s{n}"] for n in range(len(plan.sorts))]
            where = [_after(columns, plan.sorts, nulls, rows, down, bind)] if after else []
            order = [(column.desc() if sort.descending else column.asc()).nulls_last()
                     for column, sort in zip(columns, plan.sorts, strict=True)]
            order += [each.desc() if down else each.asc() for each in (rows.c.person, rows.c.pk)]
            return select(*columns, rows.c.person, rows.c.pk).where(*where).order_by(*order).limit(
                bind(idx_resource.c.pk))
        args = (*plan.args, *(value for sort in plan.sorts for value in sort.args),
                *((*(v for v in after[0] if v is not None), *after[1:]) if after else ()), limit)
        shape = ("gather", plan.shape, tuple(sort.shape for sort in plan.sorts), after and nulls)
        return [(tuple(row[:-2]), row[-2], row[-1]) for row in self.run(shape, args, build)]

    def _walked(self, plan: Plan, resource_type: str, nodes: Sequence[Node], after: Key | None,
                limit: int) -> list[Key]:
        """Along the sort key's index, then the resources without a value."""
        [sort] = plan.sorts
        found: list[Key] = []
        if after is None or after[0][0] is not None:
            found = self._walk(plan, sort, after, limit)
            after = None
        if len(found) < limit and sort.kind != "updated":
            rest = Plan(All(type_key(resource_type)), (*nodes, Of(type_key(resource_type), "missing", (sort.bit,))))
            found += [((None,), *key[1:])
                      for key in self._in_order(rest, after, limit - len(found), sort.descending)]
        return found

    def _walk(self, plan: Plan, sort: Sort, after: Key | None, limit: int) -> list[Key]:
        """One walk; where a date is to end after a time, one of the dates that begin about then, and one of the few
        that began long before."""
        first, last, loose = _ends(plan.nodes, sort)
        found = self._walk_between(plan, sort, after, limit, first if loose is None else loose, last, False)
        if loose is not None:
            found += self._walk_between(plan, sort, after, limit, None, loose - 1, True)
            found = sorted(found, key=lambda key: (*key[0], *key[1:]), reverse=sort.descending)[:limit]
        return found

    def _walk_between(self, plan: Plan, sort: Sort, after: Key | None, limit: int, first: int | None,
                      last: int | None, wide: bool) -> list[Key]:
        driver, nodes = plan.driver, plan.nodes
        assert isinstance(driver, Walk)
        ends = tuple(end for end in (first, last) if end is not None)

        def build() -> Any:
            bind = self.binder()
            source, column = driver.ordered(bind)
            c = source.candidate
            where = [*source.where, *(node.probe(c, bind) for node in nodes)]
            if first is not None:
                where.append(column >= bind(column))
            if wide:
                where.append(column.table.c.span >= LONG)
                column = column + ZERO  # by their own index, not by that of all dates
            if last is not None:
                where.append(column <= bind(column))
            columns = [column, c.person, c.pk]
            if after:
                where.append(_beyond(columns, sort.descending, bind))
            order: list[Any] = [each.desc() for each in columns] if sort.descending else columns
            return select(*columns).where(*where).order_by(*order).limit(bind(idx_resource.c.pk))
        args = (*driver.args, *(value for node in nodes for value in node.args),
                *ends, *((*after[0], *after[1:]) if after else ()), limit)
        shape = (driver.shape, tuple(node.shape for node in nodes), first is None, last is None, wide, bool(after))
        return [((value,), person, pk) for value, person, pk in self.run(shape, args, build)]


def _ends(nodes: Sequence[Node], sort: Sort) -> tuple[int | None, int | None, int | None]:
    """Where a walk along a date may begin and end because of a condition on that very date: for sure, and
    ``loose``: from where on all dates begin that are not wide."""
    first: int | None = None
    last: int | None = None
    loose: int | None = None
    for node in nodes:
        if isinstance(node, Dates) and node.param == sort.param and sort.kind == "date" and not sort.repeats:
            for prefix, a, b in node.bounds:
                first = _most(first, {"eq": a, "sa": b}.get(prefix))
                last = _least(last, {"eq": b, "le": b, "ap": b, "lt": a, "eb": a}.get(prefix))
                loose = _most(loose, {"ge": a - WIDE, "ap": a - WIDE, "gt": b - WIDE}.get(prefix))
    return first, last, None if first is not None else loose


def _most(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def _of(table: Any) -> Candidate:
    return Candidate(table.c.person, table.c.pk)


def _beyond(columns: list[Any], descending: bool, bind: Binder) -> Clause:
    """``(a, b) > (?, ?)``, which both databases answer from an index."""
    here, there = sa.tuple_(*columns), sa.tuple_(*(bind(column) for column in columns))
    return here < there if descending else here > there


def _after(columns: list[Any], sorts: Sequence[Sort], nulls: tuple[bool, ...], rows: Any, down: bool,
           bind: Binder) -> Clause:
    """Rows after a key whose values may be null and are sorted up or down each, nulls last."""
    there = [None if null else bind(column) for column, null in zip(columns, nulls, strict=True)]
    clauses: list[Clause] = []
    equal: list[Clause] = []
    for column, sort, value in zip(columns, sorts, there, strict=True):
        if value is not None:
            beyond = column < value if sort.descending else column > value
            clauses.append(and_(*equal, or_(beyond, column.is_(None))))
        equal.append(column.is_(None) if value is None else column == value)
    clauses.append(and_(*equal, _beyond([rows.c.person, rows.c.pk], down, bind)))
    return or_(*clauses)


# ---------------------------------------------------------------------- statements by shape

#: The text, which of the values go where (None: by their names ``p0``, ``p1`` …), and SQLAlchemy's own constants.
_Compiled = tuple[str, list[int | str] | None, dict[str, Any]]
_texts: dict[tuple[str, Shape], _Compiled] = {}
_estimates: dict[Any, tuple[int, float]] = {}


def compiled(dialect: Dialect, shape: Shape, build: Callable[[], Any]) -> _Compiled:
    """A statement for the driver, written when no one has asked in this shape yet."""
    about = (dialect.name, shape)
    known = _texts.get(about)
    if known is None:
        if len(_texts) >= _SHAPES:
            _texts.clear()
        statement = build().compile(dialect=dialect)
        names = statement.positiontup
        order = None if names is None else [int(name[1:]) if _OURS.fullmatch(name) else name for name in names]
        known = str(statement), order, {n: v for n, v in statement.params.items() if not _OURS.fullmatch(n)}
        _texts[about] = known
    return known
