"""The search index as a whole: which definition its rows follow, and making them all anew.

``meta`` holds ``index`` (the fingerprint of the definition that all rows follow; absent while they are made) and, while
they are made, ``index:building`` (the fingerprint aimed at) and ``index:done`` (the last pk that has its rows).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from gateway import indexing
from gateway.errors import Category, GatewayError
from gateway.store import index_schema
from gateway.store.codec import Codec
from gateway.store.database import Database, Reader, Retry, Transaction
from gateway.store.index import Pending, rows_of

#: Resources of one transaction.
BATCH = 2000
_META = "SELECT value FROM meta WHERE name = ?"


def fingerprint() -> str:
    """What decides the index rows and their tables."""
    tables = "\n".join(str(CreateTable(table)) + repr(sorted(str(i.name) for i in table.indexes))
                       for table in index_schema.metadata.sorted_tables)
    return f"{indexing.fingerprint()}-{blake2b(tables.encode(), digest_size=6).hexdigest()}"


def adopt_if_empty(connection: sa.Connection) -> None:
    """A database without resources takes this program's index definition at once."""
    if _stored(connection, "index") == fingerprint():
        return
    if connection.execute(sa.text("SELECT count(*) FROM (SELECT pk FROM resource LIMIT 1) AS first")).scalar() == 0:
        _make_tables(connection)
        for name in ("index", "index:building", "index:done"):
            connection.execute(sa.text("DELETE FROM meta WHERE name = :n"), {"n": name})
        connection.execute(sa.text("INSERT INTO meta (name, value) VALUES ('index', :v)"), {"v": fingerprint()})


def check(connection: sa.Connection) -> None:
    """INVALID when the rows are not those that this program would make."""
    if _stored(connection, "index") != fingerprint():
        raise GatewayError(Category.INVALID, "the search index follows another definition than this program's, or a "
                                             "rebuild was cut off: run `huren reindex`", "HUREN_DATABASE_URL")


def whole(reader: Reader) -> bool:
    """Whether all rows are there."""
    return reader.one("SELECT 1 FROM meta WHERE name = 'index'") is not None


def run(database: Database, codec: Codec, call: Callable[[Callable[[Transaction], Any]], Any],
        progress: Callable[[int, int], None]) -> int:
    """Rebuild in batches, each a transaction of its own; writers and readers of bodies go on meanwhile."""
    with database.migrating() as connection:
        building, done = _stored(connection, "index:building"), int(_stored(connection, "index:done") or 0)
        if building != fingerprint():
            _make_tables(connection)
            connection.execute(sa.text("DELETE FROM meta WHERE name IN ('index', 'index:building', 'index:done')"))
            connection.execute(sa.text("INSERT INTO meta (name, value) VALUES ('index:building', :v), "
                                       "('index:done', '0')"), {"v": fingerprint()})
            done = 0
    with database.read() as reader:
        total = (reader.one("SELECT count(*) FROM resource WHERE pk > ?", (done,)) or (0,))[0]
    count = 0
    while True:
        last, made = call(lambda transaction, after=done: _batch(transaction, codec, after))  # type: ignore[misc]
        if last is None:
            return count
        done, count = last, count + made
        progress(min(count, total), total)


def _batch(transaction: Transaction, codec: Codec, after: int) -> tuple[int | None, int]:
    """Rows of the next resources. What is written meanwhile has its rows already: these are made again in vain."""
    if not transaction.exclusive:
        raise Retry(exclusive=True)  # a version written beside us would leave the rows of the one that we read
    found = transaction.all("SELECT pk, person, institution, id, dict, body FROM resource WHERE pk > ? ORDER BY pk "
                            f"LIMIT {BATCH}", (after,))
    if not found:
        transaction.run("DELETE FROM meta WHERE name = 'index:done'")
        transaction.run("UPDATE meta SET name = 'index' WHERE name = 'index:building'")
        return None, 0
    index, seen = Pending(), set[int]()
    for pk, person, institution, key, number, body in found:
        if body is not None:
            rows = rows_of(bytes(key), codec.decompress(number, bytes(body)))
            index.add(rows, person, pk, institution, seen)
    index.write(transaction, ignore=True)
    transaction.run("UPDATE meta SET value = ? WHERE name = 'index:done'", (str(found[-1][0]),))
    return found[-1][0], len(found)


def _make_tables(connection: sa.Connection) -> None:
    """Index tables anew, and away with those of an older program."""
    for name in sa.inspect(connection).get_table_names():
        if name.startswith("idx_"):
            connection.execute(sa.text(f'DROP TABLE "{name}"'))
    index_schema.metadata.create_all(connection)


def _stored(connection: sa.Connection, name: str) -> str:
    return connection.execute(sa.text("SELECT value FROM meta WHERE name = :n"), {"n": name}).scalar() or ""
