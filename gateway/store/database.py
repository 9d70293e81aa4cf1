"""What the store asks of a database, so that one text of SQL and one set of tests serve both backends.

SQL is written once, with ``?`` for a value and ``IN ?*`` for a list of values; each backend turns it into its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from gateway.errors import Category, GatewayError

T = TypeVar("T")
Values = Sequence[Any]


class Retry(Exception):
    """Another process was faster: run the same transaction again. ``exclusive``: with no other writer beside it."""

    def __init__(self, exclusive: bool = False) -> None:
        super().__init__()
        self.exclusive = exclusive


class Reader(Protocol):
    """A connection that sees committed data; each statement a snapshot of its own unless inside ``reading``."""

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        """The first row."""

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """All rows."""

    def among(self, sql: str, values: Iterable[Any], before: Values = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement with one ``IN ?*``; ``before``: values of the ``?`` that come before it."""


class Transaction(Reader, Protocol):
    """A writing transaction on the writer's connection."""

    exclusive: bool

    def run(self, sql: str, values: Values = ()) -> int:
        """Execute; the number of rows changed."""

    def many(self, sql: str, rows: Sequence[Values]) -> int:
        """Execute for each row; the number of rows changed in all."""

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Values], *, ignore: bool = False,
               key: Sequence[str] = ()) -> None:
        """Insert many rows; ``ignore``: those whose key is there already are left out; ``key``: its columns, where the
        other columns are added to those of the row that is there (no key twice in ``rows``)."""

    def next(self, counter: str, count: int = 1) -> Sequence[int]:
        """Fresh numbers of a counter, ascending."""

    def lock(self, names: Iterable[bytes]) -> None:
        """Hold these names until the end of the transaction, so that two processes do not decide on one at a time."""


class Database(Protocol):
    """One of `sqlite.SQLite` and `postgres.PostgreSQL`."""

    engine: sa.Engine
    boot: int  # of this process's opening of the database; see ``living``
    #: audit rows commit in the same transaction as what they tell of
    one_audit: bool

    def read(self) -> AbstractContextManager[Reader]:
        """A reader of the pool; BUSY when the database is away."""

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A read-only transaction of this thread, whose ``read`` then sees the same snapshot."""

    def write(self, work: Callable[[Transaction], T], exclusive: bool = False, durable: bool = True) -> T:
        """Run ``work`` and commit; one thread at a time. BUSY; Retry, by ``work`` or by the database.

        ``durable``: a commit outlives the power. Without, it outlives the process; the next durable one makes it so.
        """

    def migrating(self) -> AbstractContextManager[sa.Connection]:
        """A transaction for the schema, with no other writer beside it."""

    def after_write(self) -> None:
        """House-keeping of the writer that nobody waits for (checkpoints)."""

    def rest(self) -> None:
        """House-keeping when a burst of writes has ended."""

    def write_audit(self, columns: Sequence[str], rows: Sequence[Values]) -> None:
        """Commit audit rows."""

    def read_audit(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Rows of the audit table."""

    def living(self) -> set[int]:
        """The boots of processes that have this database open now."""

    def size(self) -> int:
        """Bytes on disk, or as the server counts them."""

    def close(self) -> None:
        """Close every connection; nothing works afterwards."""


def adding(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    """The end of an INSERT that adds to the row of the same key; without a key nothing."""
    if not key:
        return ""
    sums = ", ".join(f'"{c}" = {table}."{c}" + excluded."{c}"' for c in columns if c not in key)
    names = ", ".join(f'"{c}"' for c in key)
    return f" ON CONFLICT ({names}) DO UPDATE SET {sums}"


def busy(reason: str) -> GatewayError:
    """BUSY with a sentence that says what to look at; ``reason`` never holds data."""
    return GatewayError(Category.BUSY, f"the database cannot be used now ({reason}); send again later")
