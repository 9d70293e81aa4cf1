"""Index rows of what is written: made with the resource, compared on update, rebuilt by `huren reindex`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite

from gateway import indexing
from gateway.fhir import json
from gateway.fhir.resource import text
from gateway.store import index_schema, types
from gateway.store.database import Transaction

Rows = dict[str, list[tuple[Any, ...]]]
_TABLES = {table.name: table for table in index_schema.OF_RESOURCES}
_COLUMNS = {table.name: tuple(c.name for c in table.columns) for table in index_schema.metadata.sorted_tables}


def _order(table: Table) -> list[Callable[[tuple[Any, ...]], Any]]:
    """What to sort rows by that come in the order of (person, pk), so that neighbours go to the same page.

    Sorting is stable: most tables need only the columns of their primary key before ``person``, and one column after
    the other, the last one first, takes half the time of a pair.
    """
    key = [column.name for column in table.primary_key]
    if before := key[:key.index("person")]:
        key = before
    return [itemgetter(_COLUMNS[table.name].index(name)) for name in reversed(key)]


_ORDER = {name: _order(table) for name, table in _TABLES.items()}
_DELETE = {name: index_schema.delete_sql(table, sqlite.dialect()) for name, table in _TABLES.items()}


def resource_of(key: bytes, tail: bytes) -> dict[str, Any]:
    """A stored resource to look at; its version and time are not the stored ones."""
    return json.loads(text(types.type_of(key), types.id_of(key), 1, 0, tail))


def rows_of(key: bytes, tail: bytes) -> Rows:
    """The index rows of a stored body."""
    return indexing.extract(resource_of(key, tail))


class Pending:
    """Index rows to delete and insert at the end of a transaction."""

    def __init__(self) -> None:
        self._delete: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self._insert: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self._added: list[tuple[tuple[int, int], tuple[int, int, int], Rows]] = []
        self._terms: dict[int, tuple[Any, ...]] = {}

    def add(self, rows: Rows, person: int, pk: int, institution: int, seen: set[int]) -> None:
        """Rows of a resource that has none yet."""
        self._added.append(((person, pk), (person, pk, institution), rows))
        self.remember(rows, seen)

    def change(self, before: Rows, after: Rows) -> None:
        """From one complete set of rows of a resource (``index_schema.bind``) to another; ``{}``: none."""
        delete, insert = index_schema.changes(before, after)
        for table, rows in delete.items():
            self._delete[table] += rows
        for table, rows in insert.items():
            self._insert[table] += rows

    def remember(self, rows: Rows, seen: set[int]) -> None:
        """The dictionary rows of a resource, but those that are known to be stored."""
        for term in rows["idx_term"]:
            if term[0] not in seen:
                self._terms[term[0]] = term

    def write(self, transaction: Transaction, *, ignore: bool = False) -> set[int]:
        """Write all; returns the ids of dictionary rows, which may be remembered as seen after the commit.

        ``ignore``: rows may be there already.
        """
        for table, rows in self._delete.items():
            schema = _TABLES[table]
            transaction.many(_DELETE[table], [index_schema.key_of(schema, row) for row in rows])
        self._added.sort(key=itemgetter(0))
        for table in _TABLES:
            if table in index_schema.OWNED:
                rows = [row + owned for _, owned, found in self._added for row in found[table]]
            else:
                rows = [row + own for own, _, found in self._added for row in found[table]]
            if table in self._insert:
                rows += self._insert[table]
            if rows:
                for column in _ORDER[table]:
                    rows.sort(key=column)
                transaction.insert(table, _COLUMNS[table], rows, ignore=ignore)
        if self._terms:
            transaction.insert("idx_term", _COLUMNS["idx_term"], [self._terms[n] for n in sorted(self._terms)],
                               ignore=True)
        return set(self._terms)
