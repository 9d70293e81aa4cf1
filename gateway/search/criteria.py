"""From criteria to conditions: names looked up, values read, persons and dictionary entries resolved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import select

from gateway.caller import Caller
from gateway.indexing import Param, Type, keys, parameters_of, present_bits, type_key
from gateway.search import reference, scalar, token
from gateway.search.nodes import (
    ONE,
    AnyOf,
    Binder,
    Dates,
    Node,
    Not,
    Nothing,
    Of,
    Persons,
    Rows,
    Terms,
    Updated,
    any_of,
    padded,
)
from gateway.search.plan import Group, Planner, Sort
from gateway.search.query import Criterion, invalid, unescape, unsupported, values_of
from gateway.store import types
from gateway.store.index_schema import idx_term, idx_token
from gateway.store.schema import resource

if TYPE_CHECKING:
    from gateway.store import Store

#: Chains within chains.
DEEPEST = 4

#: Parameters of every type that are columns and not index rows.
COLUMNS = {"_id": Type.TOKEN, "_lastUpdated": Type.DATE, "institution": Type.TOKEN}

_READERS: dict[Type, Callable[..., Node]] = {
    Type.TOKEN: token.token, Type.URI: token.uri, Type.REFERENCE: reference.reference, Type.DATE: scalar.date,
    Type.STRING: scalar.string, Type.QUANTITY: scalar.quantity}


class Asking:
    """One search on one connection: who asks, and what was looked up on the way."""

    def __init__(self, store: Store, connection: sa.Connection, caller: Caller, base: str = "") -> None:
        self.store = store
        self.caller = caller
        self.base = base.rstrip("/")
        self.planner = Planner(connection)
        self.depth = 0

    # ------------------------------------------------------------------ conditions

    def nodes(self, resource_type: str, criteria: Iterable[Criterion]) -> list[Node]:
        """All conditions of a type, and that the caller may see it; `Nothing` when they cannot be met.

        FORBIDDEN when the caller may not search the type: a chain must not tell what a search would not.
        """
        self.caller.require("s", resource_type)
        found = [self._node(resource_type, criterion) for criterion in criteria]
        return [*_merged(found), *self.visible(resource_type, "s")]

    def visible(self, resource_type: str, interaction: str) -> list[Node]:
        """What the caller may see of a type, as conditions: none when that is everything."""
        return [self._institution(resource_type, [slug]) for slug in self._only(resource_type, interaction)]

    def _only(self, resource_type: str, interaction: str) -> list[str]:
        """Institutions that the caller is limited to; searching shows content, so it takes what reading takes too."""
        return sorted({slug for letter in (interaction, "r")
                       if (slug := self.caller.sees(resource_type, letter)) is not None})

    def known(self, resource_type: str) -> set[str]:
        """Names of a type's parameters."""
        return {*parameters_of(resource_type), *COLUMNS, "_has"}

    @contextmanager
    def deeper(self, where: str) -> Iterator[None]:
        """Within a chain; there is an end."""
        if self.depth == DEEPEST:
            raise invalid(f"chains may be {DEEPEST} deep; ask in two steps", where)
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def _node(self, t: str, criterion: Criterion) -> Node:
        name, modifier = criterion.name, criterion.modifier
        if name == "_has":
            return reference.has(self, t, criterion)
        if name in COLUMNS:
            return self._column(t, criterion)
        p = parameters_of(t).get(name)
        if p is None:
            raise unsupported(f"{t} has no such search parameter; see the CapabilityStatement", name)
        if criterion.chain and p.type is not Type.REFERENCE:
            raise unsupported("only references can be chained", str(criterion))
        if modifier == "missing" and not criterion.chain:
            return self._missing(t, p, criterion)
        if modifier == "not" and p.type in (Type.TOKEN, Type.URI):
            try:
                return Not(self._plain(t, p, replace(criterion, modifier="")))
            except Nothing:
                return Of(type_key(t), "missing", (0,))  # nothing has it, so all have it not
        return self._plain(t, p, criterion)

    def _plain(self, t: str, p: Param, criterion: Criterion) -> Node:
        """One parameter, or the several that it is answered from."""
        if p.same_as and not p.path:
            table = parameters_of(t)
            found: list[Node | None] = []
            for name in p.same_as:
                try:
                    found.append(_READERS[p.type](self, t, table[name], criterion))
                except Nothing:
                    continue
            return any_of(found)
        return _READERS[p.type](self, t, p, criterion)

    def _missing(self, t: str, p: Param, criterion: Criterion) -> Node:
        if criterion.value not in ("true", "false"):
            raise invalid(":missing is true or false", str(criterion))
        return Of(type_key(t), "missing" if criterion.value == "true" else "present", (present_bits(t)[p.name],))

    def _column(self, t: str, criterion: Criterion) -> Node:
        name, modifier = criterion.name, criterion.modifier
        if criterion.chain or modifier not in ("", "not", "missing") or modifier == "not" and name == "_lastUpdated":
            raise unsupported("this parameter does not take that modifier", str(criterion))
        if modifier == "missing":
            if criterion.value == "true":
                raise Nothing
            return Of(type_key(t), "missing", (0,))
        if name == "_lastUpdated":
            found = [Updated(types.number_of(t), tuple((prefix, a * 1000, b * 1000 + 999) for prefix, a, b in bound))
                     for bound in scalar.bounds(criterion)]
            return any_of(found)
        try:
            node = self._ids(t, criterion) if name == "_id" else \
                self._institution(t, [unescape(v).rpartition("|")[2] for v in values_of(criterion)])
        except Nothing:
            if modifier == "not":
                return Of(type_key(t), "missing", (0,))
            raise
        return Not(node) if modifier == "not" else node

    def _ids(self, t: str, criterion: Criterion) -> Node:
        wanted = padded(types.key(t, unescape(value).rpartition("|")[2]) for value in values_of(criterion))
        if not wanted:
            raise Nothing

        def build() -> Any:
            ids = [sa.bindparam(f"p{n}", type_=resource.c.id.type) for n in range(len(wanted))]
            return select(resource.c.pk).where(resource.c.id.in_(ids))
        pks = [row[0] for row in self.planner.run(("ids", len(wanted)), wanted, build)]
        if not pks:
            raise Nothing
        return Rows(padded(pks))

    def _institution(self, t: str, slugs: list[str]) -> Node:
        numbers = [number for slug in slugs if slug and (number := self.store.institution_number(slug)) > 0]
        if not numbers:
            raise Nothing
        return Of(type_key(t), "institution", padded(numbers))

    # ------------------------------------------------------------------ persons

    def persons_of_patients(self, t: str, patients: list[str]) -> tuple[int, ...]:
        """Persons that these Patients are.

        Who sees only one institution's resources of the type that is searched is told nothing of another's Patients.
        """
        slugs = self._only(t, "s")
        if not slugs:
            return padded(self.store.persons_of(patients).values())
        try:
            nodes = [self._ids("Patient", Criterion("_id", "", "", ",".join(patients))),
                     *(self._institution("Patient", [slug]) for slug in slugs)]
        except Nothing:
            return ()
        return padded(p for p in self.planner.keys("Patient", nodes, "person", len(patients)) if p)

    def persons_with(self, kind: str, criterion: Criterion) -> tuple[int, ...]:
        """Persons of whom the caller may see a resource that meets a criterion: INVALID when they are many."""
        try:
            found = [p for p in self.planner.keys(kind, self.nodes(kind, [criterion]), "person", 1001) if p]
        except Nothing:
            return ()
        if len(found) > 1000:
            raise invalid("this matches more than 1,000 persons; ask more precisely", str(criterion))
        return padded(found)

    def owned_by(self, kind: str, criterion: Criterion) -> Node | None:
        """The person has a resource of a kind (a Patient) that meets a criterion."""
        nodes = self.nodes(kind, [criterion])
        persons = [p for p in self.planner.keys(kind, nodes, "person", 257) if p]
        if not persons:
            return None
        return Persons(padded(persons)) if len(persons) <= 256 else reference.PersonIn(Group(kind, tuple(nodes)))

    # ------------------------------------------------------------------ dictionary

    def systems(self, param: int) -> list[str]:
        """Systems that the values of an identifier parameter have."""
        def build() -> Any:
            return select(idx_term.c.system).distinct().where(
                idx_term.c.param == sa.bindparam("p0", type_=idx_term.c.param.type))
        return [row[0] for row in self.planner.run(("systems",), (param,), build)]

    def units(self, system: str, code: str) -> list[int]:
        """Units of a system and code, or those that are written so."""
        def build() -> Any:
            param, one, other = (sa.bindparam(f"p{n}", type_=column.type) for n, column in enumerate(
                (idx_term.c.param, idx_term.c.code, idx_term.c.system)))
            if system and not code:
                return select(idx_term.c.key).where(idx_term.c.param == param, idx_term.c.system == one)
            if system:
                return select(idx_term.c.key).where(idx_term.c.param == param, idx_term.c.code == one,
                                                    idx_term.c.system == other)
            return select(idx_term.c.key).where(idx_term.c.param == param,
                                                sa.or_(idx_term.c.code == one, idx_term.c.text == one))
        args = (keys.UNITS, system) if not code else (keys.UNITS, code, system) if system else (keys.UNITS, code)
        shape = ("units", bool(system), bool(code))
        return [row[0] for row in self.planner.run(shape, args, build)]

    def matching(self, terms: Terms, most: int) -> list[int]:
        """Token keys of dictionary rows, up to ``most``."""
        def build() -> Any:
            bind = Binder()
            return terms.keys(bind).distinct().limit(bind(idx_token.c.pk))
        return [row[0] for row in self.planner.run(("matching", terms.how), (*terms.args, most), build)]

    def has_token(self, key: int) -> bool:
        """Whether any resource has a token key."""
        def build() -> Any:
            t = idx_token.c
            return select(t.pk).where(t.key == sa.bindparam("p0", type_=t.key.type)).limit(ONE)
        return bool(self.planner.run(("token?",), (key,), build))

    # ------------------------------------------------------------------ order

    def sorts(self, t: str, named: list[tuple[str, bool]]) -> list[Sort]:
        """The keys of ``_sort``."""
        return [self._sort(t, name, descending) for name, descending in named]

    def _sort(self, t: str, name: str, descending: bool) -> Sort:
        if name in ("_id", "_lastUpdated"):
            return Sort("id" if name == "_id" else "updated", 0, descending)
        p = parameters_of(t).get(name)
        if p is None:
            raise unsupported(f"{t} has no such search parameter to sort by", f"_sort={name}")
        kind = {Type.DATE: "date", Type.STRING: "string", Type.QUANTITY: "quantity", Type.TOKEN: "token",
                Type.URI: "token"}.get(p.type)
        if kind is None or p.same_as or kind == "token" and not token.sortable(p):
            raise unsupported("the results cannot be sorted by this parameter; see the manual of gateway/search",
                              f"_sort={name}")
        return Sort(kind, keys.param_key(t, name), descending, present_bits(t)[name], p.repeats)


def _merged(nodes: list[Node]) -> list[Node]:
    """Bounds of one date in several criteria are bounds of one and the same date: together they are a range."""
    found: list[Node] = []
    for node in nodes:
        for n, other in enumerate(found):
            if isinstance(node, Dates) and isinstance(other, Dates) and node.param == other.param or \
                    isinstance(node, Updated) and isinstance(other, Updated):
                bounds = tuple(sorted((*other.bounds, *node.bounds)))
                found[n] = replace(other, bounds=bounds)
                break
        else:
            found.append(node)
    return found


__all__ = ["COLUMNS", "AnyOf", "Asking", "Nothing"]
