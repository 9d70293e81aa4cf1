"""The search index as SQLAlchemy tables: rebuilt by `huren reindex`, never migrated.

`gateway.indexing.extract` says the first columns of a row; the store adds ``person`` (0 for none) and ``pk`` of the
resource, and to ``idx_resource`` and ``idx_result`` also the number of its institution: ``bind`` does so. ``idx_term``
is the dictionary of codes, systems and units: its rows belong to no resource, are complete, and are only added (``ON
CONFLICT DO NOTHING`` on ``id``); a process remembers the ids that it has seen committed, so that the steady state
writes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.engine import Dialect

Rows = Mapping[str, list[tuple[Any, ...]]]

metadata = MetaData()
#: Text in the order of its code points, so that a range of it is a prefix.
_BINARY = Text().with_variant(Text(collation="C"), "postgresql")


def _table(name: str, *columns: Column[Any], key: tuple[str, ...]) -> Table:
    return Table(name, metadata, *columns, PrimaryKeyConstraint(*key), sqlite_with_rowid=False)


def _integer(name: str, kind: type[Any] = BigInteger, null: bool = False) -> Column[Any]:
    return Column(name, kind, nullable=null, autoincrement=False)


def _owner() -> tuple[Column[Any], Column[Any]]:
    return _integer("person"), _integer("pk")


#: One row a resource that is not deleted. ``type``: `type_key`; ``ref``: `reference_key` of ``Type/id``;
#: ``present``: the parameters that have a value, for ``:missing``; ``institution``: its number in the store. A search
#: walks it by (type, person) and asks ``resource`` only for bodies and times.
idx_resource = _table("idx_resource", _integer("type", Integer), _integer("ref"), _integer("present"), *_owner(),
                      _integer("institution", SmallInteger), key=("type", "person", "pk"))

#: ``key``: `token_key` of a coding, identifier, code or URI.
idx_token = _table("idx_token", _integer("key"), *_owner(), key=("key", "person", "pk"))

#: ``target``: `reference_key`; ``param``: `param_key`.
idx_reference = _table("idx_reference", _integer("target"), _integer("param", Integer), *_owner(),
                       key=("target", "param", "person", "pk"))

#: Milliseconds; the range ends with ``lo + span``, that millisecond included. ``idx_date_wide`` has the few that are
#: longer than a day, so that all others can be found by a range of ``lo``.
idx_date = _table("idx_date", _integer("param", Integer), _integer("lo"), _integer("span"), *_owner(),
                  key=("param", "person", "pk", "lo", "span"))
Index("idx_date_lo", idx_date.c.param, idx_date.c.lo, idx_date.c.person, idx_date.c.pk)
WIDE = 86_400_000
Index("idx_date_wide", idx_date.c.param, idx_date.c.span, sqlite_where=idx_date.c.span >= WIDE,
      postgresql_where=idx_date.c.span >= WIDE)

#: ``value``: normalised; ``raw``: as it was written, empty when that is the same.
idx_string = _table("idx_string", _integer("param", Integer), Column("value", _BINARY, nullable=False),
                    Column("raw", Text, nullable=False), *_owner(), key=("param", "value", "person", "pk", "raw"))
Index("idx_string_pk", idx_string.c.param, idx_string.c.person, idx_string.c.pk)

#: What recognition asks: a person's results under an item by time, newest last; ``time``: milliseconds, 1 << 50 where
#: none is said; the rest: `gateway.indexing.results`. So clustered, a person's results are a page or a few.
idx_result = _table("idx_result", Column("item", _BINARY, nullable=False), _integer("time"),
                    _integer("kind", SmallInteger), _integer("status", SmallInteger), _integer("flags", SmallInteger),
                    _integer("side", SmallInteger), _integer("session"), *_owner(),
                    _integer("institution", SmallInteger), key=("person", "item", "time", "pk"))

#: ``hi`` is null where it equals ``lo``; ``unit``: a dictionary row's ``key``, null without one; ``n`` counts values.
idx_quantity = _table("idx_quantity", _integer("param", Integer), Column("lo", Double, nullable=False),
                      Column("hi", Double), _integer("unit", null=True), _integer("n", Integer), *_owner(),
                      key=("param", "person", "pk", "n"))

#: ``key`` is that of `idx_token` or the unit of `idx_quantity`; ``code`` is null in a row that lists a system or text.
idx_term = _table("idx_term", _integer("id"), _integer("param", Integer), _integer("key"),
                  Column("system", Text, nullable=False), Column("code", Text), Column("text", Text, nullable=False),
                  key=("id",))
Index("idx_term_code", idx_term.c.param, idx_term.c.code, idx_term.c.system)
Index("idx_term_system", idx_term.c.param, idx_term.c.system)

#: The tables whose rows belong to a resource, in the order to write them.
OF_RESOURCES = (idx_resource, idx_token, idx_reference, idx_date, idx_string, idx_quantity, idx_result)
NAMES = tuple(table.name for table in OF_RESOURCES)
#: Those whose rows end with the number of the institution.
OWNED = frozenset((idx_resource.name, idx_result.name))


def bind(rows: Rows, person: int, pk: int, institution: int) -> dict[str, list[tuple[Any, ...]]]:
    """Complete rows of a resource, in the order of the tables' columns; without ``idx_term``."""
    own, owned = (person, pk), (person, pk, institution)
    return {name: [row + (owned if name in OWNED else own) for row in found] for name in NAMES if (found := rows[name])}


def changes(old: Rows, new: Rows) -> tuple[dict[str, list[tuple[Any, ...]]], dict[str, list[tuple[Any, ...]]]]:
    """What to delete and then to insert to get from one ``bind`` to another (``{}``: none yet, or deleted)."""
    delete: dict[str, list[tuple[Any, ...]]] = {}
    insert: dict[str, list[tuple[Any, ...]]] = {}
    for table in OF_RESOURCES:
        before, after = old.get(table.name, []), new.get(table.name, [])
        if before == after:
            continue
        kept = set(before) & set(after)
        if gone := [row for row in before if row not in kept]:
            delete[table.name] = gone
        if come := [row for row in after if row not in kept]:
            insert[table.name] = come
    return delete, insert


def delete_sql(table: Table, dialect: Dialect) -> str:
    """``DELETE`` of one row by its primary key; ``key_of`` picks the values."""
    return f"DELETE FROM {table.name} WHERE " + " AND ".join(f"{c.name} = {_mark(dialect)}" for c in table.primary_key)


def key_of(table: Table, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The primary key of a bound row, in the order of ``delete_sql``."""
    names = [c.name for c in table.columns]
    return tuple(row[names.index(c.name)] for c in table.primary_key)


def _mark(dialect: Dialect) -> str:
    return {"qmark": "?", "format": "%s", "pyformat": "%s"}[dialect.paramstyle]
