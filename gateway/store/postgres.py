"""PostgreSQL by psycopg 3: several processes and nodes write at once, each with one writing connection."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import errors

from gateway.store import index_schema, schema
from gateway.store.database import Retry, T, Values, busy

#: First number of two-number advisory locks: our processes, and who writes beside whom.
_LIVING, _WRITERS = 0x4855_0001, 0x4855_0002
#: Another transaction was faster: the same again will see what it wrote.
_AGAIN = (errors.UniqueViolation, errors.DeadlockDetected, errors.SerializationFailure)
#: Not now. Other errors are our fault and stay as they are.
_NOT_NOW = (psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction, errors.InFailedSqlTransaction)
_CONNECT = {"connect_timeout": "5", "application_name": "huren", "keepalives_idle": "30", "tcp_user_timeout": "20000"}
_FEW = 8  # rows that are inserted by statement; more go by COPY


class PostgreSQL:
    """See `database.Database`."""

    one_audit = True

    def __init__(self, url: sa.URL) -> None:
        url = url.set(drivername="postgresql+psycopg")
        self.engine = sa.create_engine(url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT",
                                       connect_args=dict(_CONNECT))
        self._readers: deque[_Reader] = deque()
        self._local = threading.local()
        self._writer: _Reader | None = None
        self._audit_lock = threading.Lock()
        self._closed = False
        self.boot = secrets.randbelow(1 << 31)

    # ---------------------------------------------------------------- reading

    def _connect(self) -> _Reader:
        try:
            return _Reader(self.engine.connect())
        except (sa.exc.DBAPIError, psycopg.Error) as error:
            raise _mapped(error) from None

    def _take(self) -> _Reader:
        """A pooled connection that works: those that died with the server are left behind."""
        while self._readers:
            with contextlib.suppress(IndexError):
                reader = self._readers.pop()
                if reader.usable():
                    return reader
                reader.close()
        return self._connect()

    @contextlib.contextmanager
    def read(self) -> Iterator[_Reader]:
        reader = getattr(self._local, "reading", None)
        if reader is not None:
            yield reader
            return
        reader = self._take()
        try:
            yield reader
        except (psycopg.Error, sa.exc.DBAPIError) as error:
            reader.close()
            raise _mapped(error) from None
        except BaseException:
            reader.close()
            raise
        if self._closed:
            reader.close()
        else:
            self._readers.append(reader)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        if getattr(self._local, "reading", None) is not None:
            yield self._local.reading.connection
            return
        with self.read() as reader:
            self._local.reading = reader
            try:
                reader.cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield reader.connection
                reader.connection.rollback()  # ends ours, and SQLAlchemy's own notion of one
                if not reader.idle():
                    reader.cursor.execute("ROLLBACK")
            finally:
                self._local.reading = None

    # ---------------------------------------------------------------- writing

    def write(self, work: Callable[[_Transaction], T], exclusive: bool = False) -> T:
        """Writers stand beside each other; an ``exclusive`` one waits until it is alone and holds the others off."""
        try:
            writer = self._open_writer()
            lock = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
            with writer.raw.pipeline():
                writer.cursor.execute("BEGIN")
                writer.cursor.execute(f"SELECT {lock}({_WRITERS}, 0)")
            result = work(_Transaction(writer, exclusive))
            writer.cursor.execute("COMMIT")
            return result
        except (psycopg.Error, sa.exc.DBAPIError) as error:
            self._roll_back()
            if isinstance(error, _AGAIN):
                raise Retry from None
            raise _mapped(error) from None
        except BaseException:
            self._roll_back()
            raise

    def _open_writer(self) -> _Reader:
        if self._writer is None or not self._writer.usable():
            if self._writer is not None:
                self._writer.close()
            self._writer = self._connect()
            self._writer.cursor.execute(f"SELECT pg_advisory_lock({_LIVING}, {self.boot})")  # until the connection ends
        return self._writer

    def _roll_back(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.cursor.execute("ROLLBACK")
        except psycopg.Error:
            self._writer.close()
            self._writer = None

    @contextlib.contextmanager
    def migrating(self) -> Iterator[sa.Connection]:
        try:
            with self.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
                with connection.begin():
                    connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_WRITERS}, 0)"))
                    yield connection
        except (psycopg.Error, sa.exc.DBAPIError) as error:
            raise _mapped(error) from None

    def after_write(self) -> None:
        """Nothing: the server keeps house."""

    # ---------------------------------------------------------------- audit, processes

    def write_audit(self, columns: Sequence[str], rows: Sequence[Values]) -> None:
        with self._audit_lock, self.read() as reader:
            _Transaction(reader, False).insert("audit", columns, rows)

    def read_audit(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        with self.read() as reader:
            return reader.all(sql, values)

    def living(self) -> set[int]:
        with self.read() as reader:
            found = reader.all("SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
                               "AND classid::bigint = ? AND database = (SELECT oid FROM pg_database WHERE "
                               "datname = current_database())", (_LIVING,))
        return {boot for boot, in found}

    def size(self) -> int:
        with self.read() as reader:
            row = reader.one("SELECT pg_database_size(current_database())")
        return row[0] if row else 0

    def close(self) -> None:
        self._closed = True
        while self._readers:
            self._readers.pop().close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.engine.dispose()


class _Reader:
    """A connection with one binary cursor."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        raw: Any = connection.connection.driver_connection
        self.raw: psycopg.Connection[Any] = raw
        self.cursor = self.raw.cursor(binary=True)

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        return self.cursor.execute(_own(sql), values, prepare=True).fetchone()

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self.cursor.execute(_own(sql), values, prepare=True).fetchall()

    def among(self, sql: str, values: Iterable[Any], before: Values = ()) -> list[tuple[Any, ...]]:
        wanted = list(values)
        return self.cursor.execute(_own(sql), (*before, wanted), prepare=True).fetchall() if wanted else []

    def usable(self) -> bool:
        """Whether the connection was alive when last looked at; a server that went away shows in a readable socket."""
        if self.raw.closed or self.raw.broken:
            return False
        try:
            self.raw.pgconn.consume_input()
        except psycopg.Error:
            return False
        return bool(self.raw.pgconn.status == psycopg.pq.ConnStatus.OK)

    def idle(self) -> bool:
        """Whether no transaction is open."""
        return bool(self.raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.raw.close()
        with contextlib.suppress(Exception):
            self.connection.invalidate()
            self.connection.close()


class _Transaction:
    """Statements between BEGIN and COMMIT."""

    def __init__(self, reader: _Reader, exclusive: bool) -> None:
        self._cursor = reader.cursor
        self.exclusive = exclusive
        self.one, self.all, self.among = reader.one, reader.all, reader.among

    def run(self, sql: str, values: Values = ()) -> int:
        return self._cursor.execute(_own(sql), values, prepare=True).rowcount

    def many(self, sql: str, rows: Sequence[Values]) -> int:
        if not rows:
            return 0
        if len(rows) == 1:
            return self.run(sql, rows[0])
        self._cursor.executemany(_own(sql), rows)
        return self._cursor.rowcount

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Values], *, ignore: bool = False) -> None:
        if not rows:
            return
        names = ", ".join(f'"{c}"' for c in columns)
        if ignore or len(rows) <= _FEW:
            marks = ", ".join(["?"] * len(columns))
            self.many(f"INSERT INTO {table} ({names}) VALUES ({marks})" + (" ON CONFLICT DO NOTHING" if ignore else ""),
                      rows)
            return
        with self._cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(_types(table, tuple(columns)))
            for row in rows:
                copy.write_row(row)

    def next(self, counter: str, count: int = 1) -> Sequence[int]:
        found = self.all(f"SELECT nextval('seq_{counter}') FROM generate_series(1, ?::int)", (count,))
        return [number for number, in found]

    def lock(self, names: Iterable[bytes]) -> None:
        numbers = sorted({int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True) for name in names})
        for number in numbers:  # one after the other: all processes in the same order
            self._cursor.execute("SELECT pg_advisory_xact_lock(%s::bigint)", (number,), prepare=True)


@lru_cache(maxsize=1024)
def _own(sql: str) -> str:
    return sql.replace("%", "%%").replace("IN ?*", "= ANY(%s)").replace("?", "%s")


_PG_TYPES = {"BIGINT": "int8", "INTEGER": "int4", "SMALLINT": "int2", "TEXT": "text", "BYTEA": "bytea",
             "DOUBLE PRECISION": "float8"}


@lru_cache(maxsize=256)
def _types(table: str, columns: tuple[str, ...]) -> list[str]:
    """The types of a table's columns, for binary COPY."""
    for metadata in (schema.metadata, schema.audit_metadata, index_schema.metadata):
        if table in metadata.tables:
            found = metadata.tables[table].c
            dialect = sa.dialects.postgresql.dialect()
            return [_PG_TYPES[found[c].type.compile(dialect).split(" COLLATE")[0]] for c in columns]
    raise KeyError(table)


def _mapped(error: BaseException) -> BaseException:
    """BUSY for what a later try may not meet."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    if isinstance(original, _NOT_NOW):
        return busy(f"PostgreSQL: {getattr(original, 'sqlstate', None) or 'no connection'}")
    return original
