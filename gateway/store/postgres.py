"""PostgreSQL by psycopg 3: several processes and nodes write at once, each with one writing connection."""

from __future__ import annotations

import contextlib
import secrets
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import errors
from sqlalchemy.dialects import postgresql

from gateway.store import index_schema, schema
from gateway.store.arrays import Array, encode, register
from gateway.store.database import Retry, T, Values, adding, busy

#: First number of two-number advisory locks: our processes, and who writes beside whom.
_LIVING, _WRITERS = 0x4855_0001, 0x4855_0002
#: Another transaction was faster: the same again will see what it wrote.
_AGAIN = (errors.UniqueViolation, errors.DeadlockDetected, errors.SerializationFailure)
#: Not now. Other errors are our fault and stay as they are.
_NOT_NOW = (psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction,
            errors.InFailedSqlTransaction)
_CONNECT = {"connect_timeout": "5", "application_name": "huren", "keepalives_idle": "30", "tcp_user_timeout": "20000"}


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

    def write(self, work: Callable[[_Transaction], T], exclusive: bool = False, durable: bool = True) -> T:
        """Writers stand beside each other; an ``exclusive`` one waits until it is alone and holds the others off."""
        try:
            writer = self._begin(exclusive, durable)
            transaction = _Transaction(writer, exclusive)
            result = work(transaction)
            transaction.finish("COMMIT")
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

    def _begin(self, exclusive: bool, durable: bool) -> _Reader:
        """Begin on the writing connection; on a fresh one where the server has dropped it since."""
        lock = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
        for attempt in range(2):
            writer = self._open_writer()
            try:
                with writer.raw.pipeline():
                    writer.cursor.execute("BEGIN")
                    if not durable:
                        writer.cursor.execute("SET LOCAL synchronous_commit = off")
                    writer.cursor.execute(f"SELECT {lock}({_WRITERS}, 0)")
                return writer
            except psycopg.OperationalError:
                if attempt:
                    raise
                writer.close()
                self._writer = None
        raise AssertionError

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
            with self.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, \
                    connection.begin():
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_WRITERS}, 0)"))
                yield connection
        except (psycopg.Error, sa.exc.DBAPIError) as error:
            raise _mapped(error) from None

    def after_write(self) -> None:
        """Nothing: the server keeps house."""

    def rest(self) -> None:
        """Nothing: the server keeps house."""

    # ---------------------------------------------------------------- audit, processes

    def write_audit(self, columns: Sequence[str], rows: Sequence[Values]) -> None:
        with self._audit_lock, self.read() as reader:
            transaction = _Transaction(reader, False)
            transaction.insert("audit", columns, rows)
            transaction.finish()

    def read_audit(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        with self.read() as reader:
            return reader.all(sql, values)

    def living(self) -> set[int]:
        with self.read() as reader:
            found = reader.all("SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted "
                               "AND objsubid = 2 AND classid::bigint = ? AND database = (SELECT oid FROM pg_database "
                               "WHERE datname = current_database())", (_LIVING,))
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
        register(self.raw)
        self.cursor = self.raw.cursor(binary=True)
        self._poll = select.poll()
        self._poll.register(self.raw.fileno(), select.POLLIN)

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        return self.cursor.execute(_own(sql), values, prepare=True).fetchone()

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self.cursor.execute(_own(sql), values, prepare=True).fetchall()

    def among(self, sql: str, values: Iterable[Any], before: Values = ()) -> list[tuple[Any, ...]]:
        wanted = list(values)
        return self.cursor.execute(_own(sql), (*before, wanted), prepare=True).fetchall() if wanted else []

    def usable(self) -> bool:
        """Whether an idle connection lives: a server that went away has said so, and so the socket can be read."""
        if self.raw.closed or self.raw.broken:
            return False
        return not self._poll.poll(0)

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
    """Statements between BEGIN and COMMIT. Inserts wait for the next other statement, to go together."""

    def __init__(self, reader: _Reader, exclusive: bool) -> None:
        self._reader, self._cursor = reader, reader.cursor
        self._waiting: list[tuple[str, list[Array]]] = []
        self.exclusive = exclusive

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        self._flush()
        return self._reader.one(sql, values)

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        self._flush()
        return self._reader.all(sql, values)

    def among(self, sql: str, values: Iterable[Any], before: Values = ()) -> list[tuple[Any, ...]]:
        wanted = list(values)
        if not wanted:
            return []
        self._flush()
        return self._reader.among(sql, wanted, before)

    def run(self, sql: str, values: Values = ()) -> int:
        self._flush()
        return self._cursor.execute(_own(sql), values, prepare=True).rowcount

    def many(self, sql: str, rows: Sequence[Values]) -> int:
        if len(rows) <= 1:
            return self.run(sql, rows[0]) if rows else 0
        self._flush()
        self._cursor.executemany(_own(sql), rows)
        return self._cursor.rowcount

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Values], *, ignore: bool = False,
               key: Sequence[str] = ()) -> None:
        if rows:
            sql, kinds = _insert(table, tuple(columns), ignore, tuple(key))
            self._waiting.append((sql, [encode(kind, column) for kind, column in
                                        zip(kinds, zip(*rows, strict=True), strict=True)]))

    def next(self, counter: str, count: int = 1) -> Sequence[int]:
        found = self._reader.all(f"SELECT nextval('seq_{counter}') FROM generate_series(1, ?::int)", (count,))
        return [number for number, in found]

    def lock(self, names: Iterable[bytes]) -> None:
        numbers = sorted({int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True) for name in names})
        with self._reader.raw.pipeline():
            for number in numbers:  # one after the other: all processes in the same order
                self._cursor.execute("SELECT pg_advisory_xact_lock(%s::bigint)", (number,), prepare=True)

    def finish(self, last: str = "") -> None:
        """Send what waits, and ``last`` after it."""
        with self._reader.raw.pipeline():
            self._send()
            if last:
                self._cursor.execute(last)

    def _flush(self) -> None:
        if self._waiting:
            self.finish()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for sql, columns in waiting:
            self._cursor.execute(sql, columns, prepare=True)


@lru_cache(maxsize=1024)
def _own(sql: str) -> str:
    return sql.replace("%", "%%").replace("IN ?*", "= ANY(%s)").replace("?", "%s")


_PG_TYPES = {"BIGINT": "int8", "INTEGER": "int4", "SMALLINT": "int2", "TEXT": "text", "BYTEA": "bytea",
             "DOUBLE PRECISION": "float8"}


@lru_cache(maxsize=256)
def _insert(table: str, columns: tuple[str, ...], ignore: bool, key: tuple[str, ...]) -> tuple[str, list[str]]:
    """An INSERT of one array for each column, and the arrays' types."""
    found = next(m.tables[table].c for m in (schema.metadata, schema.audit_metadata, index_schema.metadata)
                 if table in m.tables)
    dialect = postgresql.dialect()
    kinds = [_PG_TYPES[found[c].type.compile(dialect).split(" COLLATE")[0]] for c in columns]
    names = ", ".join(f'"{c}"' for c in columns)
    arrays = ", ".join(f"%b::{kind}[]" for kind in kinds)
    skip = " ON CONFLICT DO NOTHING" if ignore else adding(table, columns, key)
    return f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}){skip}", kinds


def _mapped(error: BaseException) -> BaseException:
    """BUSY for what a later try may not meet."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    if isinstance(original, _NOT_NOW):
        return busy(f"PostgreSQL: {getattr(original, 'sqlstate', None) or 'no connection'}")
    return original
