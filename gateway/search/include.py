"""``_include`` and ``_revinclude``: what the found resources name, and what names them (search.html#include)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa
from sqlalchemy import select

from gateway.fhir.resource import text
from gateway.indexing import (
    Type,
    param_key,
    parameters_of,
    reference_key,
    reference_target,
    resource_types,
    type_key,
)
from gateway.search.nodes import Binder, Nothing, padded
from gateway.search.query import Include, Query, invalid
from gateway.store import types
from gateway.store.index_schema import idx_reference, idx_resource
from gateway.store.model import Row

if TYPE_CHECKING:
    from gateway.search.criteria import Asking

#: Included resources of one page; rounds of ``:iterate``.
MOST, ROUNDS = 5000, 5


def included(asking: Asking, query: Query, rows: Sequence[Row]) -> list[Row]:
    """Resources to send along, each once and none that is a match; INVALID when they are too many.

    Only of types that the caller may read, and only what the caller may see of them.
    """
    have = {row.pk for row in rows}
    found: list[Row] = []
    fresh: Sequence[Row] = rows
    for again in range(ROUNDS):
        forward = [i for i in query.include if i.iterate or not again]
        backward = [i for i in query.revinclude if i.iterate or not again]
        if not fresh or not (forward or backward):
            break
        wanted = [types.key(row.resource_type, row.id) for row in (*rows, *found)]
        keys = _named(asking, forward, fresh, wanted)
        pks = [pk for pk in dict.fromkeys(_naming(asking, backward, fresh)) if pk not in have]
        if len(found) + len(keys) + len(pks) > MOST:
            raise invalid(f"more than {MOST} resources would be included; lower _count or include less", "_include")
        fresh = asking.store.named(keys, asking.caller) if keys else []
        have.update(row.pk for row in fresh)
        if pks := [pk for pk in pks if pk not in have]:
            fresh = [*fresh, *asking.store.rows(pks, asking.caller)]
            have.update(pks)
        found += fresh
    return found


# ---------------------------------------------------------------------- forward

_Ways = list[tuple[list[str], frozenset[str]]]  # a path through a body, and the types that it may lead to


def _named(asking: Asking, includes: list[Include], rows: Sequence[Row], without: Iterable[bytes]) -> list[bytes]:
    """Keys of what the rows name, in the order named."""
    ways: dict[str, _Ways] = {}
    wanted: dict[tuple[str, str], None] = {}
    for row in rows:
        kind = row.resource_type
        if kind not in ways:
            ways[kind] = [way for i in includes if i.source in (kind, "*") for way in _ways(asking, kind, i)]
        if ways[kind]:
            body = orjson.loads(text(kind, row.id, row.version, row.updated, row.tail))
            for path, allowed in ways[kind]:
                for target in _walk(body, path):
                    if asking.base and target.startswith(asking.base + "/"):
                        target = target[len(asking.base) + 1:]
                    named, _, rest = target.partition("/")
                    if named in allowed and "/" not in rest:
                        wanted[named, rest] = None
    left_out = set(without)
    return [key for named, rest in wanted if rest and (key := types.key(named, rest)) not in left_out]


def _ways(asking: Asking, t: str, include: Include) -> Iterable[tuple[list[str], frozenset[str]]]:
    """Paths of the parameters that an include names, and the types that the caller may read at their end."""
    for p in parameters_of(t).values():
        if p.type is Type.REFERENCE and include.name in (p.name, "*"):
            kinds = set(p.targets or types.NUMBERS) & ({include.target} if include.target else set(types.NUMBERS))
            allowed = frozenset(kind for kind in kinds if asking.caller.may("r", kind))
            for path in p.path.split("|") if allowed else ():
                yield path.split("."), allowed


def _walk(value: Any, path: list[str]) -> Iterable[str]:
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, path)
    elif path:
        if isinstance(value, dict) and path[0] in value:
            yield from _walk(value[path[0]], path[1:])
    elif target := reference_target(value):
        yield target


# ---------------------------------------------------------------------- backward


def _naming(asking: Asking, includes: list[Include], rows: Sequence[Row]) -> list[int]:
    """Keys of what names the rows."""
    pks: list[int] = []
    for include in includes:
        use = [row for row in rows if include.target in ("", row.resource_type)]
        if include.name == "*":
            pks += _by_reference(asking, [reference_key(f"{row.resource_type}/{row.id}") for row in use], None)
            continue
        if not use or not asking.caller.may("r", include.source):
            continue
        p = parameters_of(include.source)[include.name]
        fits = [row for row in use if not p.targets or row.resource_type in p.targets]
        if p.owner:
            pks += _of_persons(asking, include.source, [row.person for row in fits if row.resource_type == "Patient"])
            fits = [row for row in fits if row.resource_type != "Patient"]
        param = param_key(include.source, p.same_as[0] if p.same_as else p.name)
        pks += _by_reference(asking, [reference_key(f"{row.resource_type}/{row.id}") for row in fits], param)
    return pks


def _by_reference(asking: Asking, targets: list[int], param: int | None) -> list[int]:
    """Resources that name the targets by a parameter, or by any of a type that the caller may read."""
    found: list[int] = []
    x = idx_reference
    for start in range(0, len(targets), 512):
        args = padded(targets[start:start + 512])

        def build(count: int = len(args)) -> Any:
            bind = Binder()
            where = [bind.among(x.c.target, count)]
            if param is not None:
                where.append(x.c.param == bind(x.c.param))
            return select(x.c.pk, x.c.param).where(*where).order_by(x.c.person, x.c.pk).limit(
                sa.literal_column(str(MOST + 1)))
        extra = () if param is None else (param,)
        rows = asking.planner.run(("naming", len(args), param is None), (*args, *extra), build)
        found += [pk for pk, by in rows if param is not None or asking.caller.may("r", _types_by_param()[by])]
    return found


@lru_cache(maxsize=1)
def _types_by_param() -> dict[int, str]:
    """Whose parameter a row of `idx_reference` is."""
    return {param_key(t, p.name): t for t in resource_types() for p in parameters_of(t).values()
            if p.type is Type.REFERENCE}


def _of_persons(asking: Asking, t: str, persons: Iterable[int]) -> list[int]:
    """All resources of a type that belong to these persons and that the caller may see."""
    args = padded(person for person in persons if person)
    if not args:
        return []
    try:
        nodes = asking.visible(t, "r")
    except Nothing:
        return []
    r = idx_resource

    def build() -> Any:
        bind = Binder()
        where = [r.c.type == bind(r.c.type), bind.among(r.c.person, len(args))]
        where += [r.c.institution.in_([bind(r.c.institution) for _ in node.args[1:]]) for node in nodes]
        return select(r.c.pk).where(*where).order_by(r.c.person, r.c.pk).limit(sa.literal_column(str(MOST + 1)))
    visible = tuple(value for node in nodes for value in node.args[1:])
    shape = ("ofpersons", len(args), tuple(node.shape for node in nodes))
    return [row[0] for row in asking.planner.run(shape, (type_key(t), *args, *visible), build)]


__all__ = ["MOST", "included"]
