"""SQLite: one file, several processes, one writer at a time; readers never wait."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gateway.errors import Category, GatewayError
from gateway.store.database import T, Values, adding, busy
from gateway.store.schema import audit_metadata

log = logging.getLogger("huren.store")

#: Primary result codes (sqlite.org/rescode.html) that say "not now": BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL,
#: CANTOPEN, PROTOCOL; also CORRUPT and NOTADB, which no sender can mend.
_NOT_NOW = {5: "locked", 6: "locked", 7: "no memory", 8: "read-only", 10: "disk error", 13: "disk full",
            14: "cannot be opened", 15: "locked", 11: "damaged", 26: "damaged"}
_PAGE = 4096
#: Pages of the write-ahead log after which they are copied into the database file.
CHECKPOINT_PAGES = 16000
_LEAST_PAGES = 1000  # a log may be as long as half the database, within these two bounds
_SMALL_LOG = 2 << 20  # bytes of log that may stay
_WRITER_CACHE_KIB = 64 * 1024
_LOOK = 8  # commits from one look at the log's length to the next
_READER_CACHE_KIB = 4 * 1024
_READER_MMAP = 1 << 30
_ROWS = (256, 64, 16, 4, 1)  # rows of one INSERT: a statement gives the GIL away once, however many rows it has
_IN = (1, 8, 32, 128)  # sizes of IN lists, so that few statements are compiled


class SQLite:
    """See `database.Database`."""

    one_audit = False

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.engine = sa.create_engine("sqlite://", creator=lambda: self._connect(reader=True),
                                       poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
        self._readers: deque[_Reader] = deque()
        self._local = threading.local()
        self._writer: sqlite3.Connection | None = None
        self._durable = True  # what the writer's connection is set to
        self._audit: sqlite3.Connection | None = None
        self._audit_lock = threading.Lock()
        self._locks = {name: os.open(f"{path}.{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                       for name in ("lock", "checkpoint", "audit-lock")}
        self._checkpointer: threading.Thread | None = None
        self._writes = 0
        self._shared: int | None = None  # the log's shared index
        self._closed = False
        self.boot = secrets.randbelow(1 << 31)
        self._alive = os.open(self._alive_file(self.boot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._alive, fcntl.LOCK_EX)

    # ---------------------------------------------------------------- connections

    def _connect(self, *, reader: bool = False, path: Path | None = None) -> sqlite3.Connection:
        connection = sqlite3.connect(path or self.path, isolation_level=None, check_same_thread=False, timeout=5,
                                     cached_statements=512)
        try:
            if reader:
                connection.execute("PRAGMA query_only = 1")
                connection.execute(f"PRAGMA mmap_size = {_READER_MMAP}")
                connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
            else:
                connection.execute(f"PRAGMA page_size = {_PAGE}")
                if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                    raise GatewayError(Category.INVALID, "the file system of HUREN_DATA does not carry SQLite's WAL: "
                                                         "use a local disk", "HUREN_DATA")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def read(self) -> Iterator[_Reader]:
        reader = getattr(self._local, "reading", None)
        if reader is not None:
            yield reader
            return
        reader = self._take()
        try:
            yield reader
        except sqlite3.Error as error:
            reader.close()
            raise _mapped(error) from None
        except BaseException:
            reader.close()
            raise
        self._give(reader)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        if getattr(self._local, "reading", None) is not None:
            yield self._local.reading.connection
            return
        with self.read() as reader:
            self._local.reading = reader
            try:
                reader.raw.execute("BEGIN")
                yield reader.connection
                reader.raw.execute("COMMIT")
                reader.connection.rollback()  # SQLAlchemy's own notion of a transaction
            except sa.exc.DBAPIError as error:
                if isinstance(error.orig, sqlite3.Error) and error.orig.sqlite_errorcode & 0xFF in _NOT_NOW:
                    raise _mapped(error.orig) from None
                raise
            finally:
                self._local.reading = None

    def _take(self) -> _Reader:
        try:
            return self._readers.pop()
        except IndexError:
            pass
        try:
            return _Reader(self.engine.connect())
        except (sqlite3.Error, sa.exc.DBAPIError) as error:
            original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise _mapped(original) from None

    def _give(self, reader: _Reader) -> None:
        if self._closed:
            reader.close()
        else:
            self._readers.append(reader)

    # ---------------------------------------------------------------- writing

    def write(self, work: Callable[[_Transaction], T], exclusive: bool = False, durable: bool = True) -> T:
        with self._locked("lock"):  # the kernel wakes the next process; SQLite itself would poll
            try:
                if self._writer is None:
                    self._writer, self._durable = self._connect(), True
                if durable is not self._durable:  # the log is in order: a synced commit syncs all before it
                    self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    self._durable = durable
                self._writer.execute("BEGIN IMMEDIATE")
                transaction = _Transaction(self._writer)
                result = work(transaction)
                transaction.finish()
                self._writer.execute("COMMIT")
                return result
            except sqlite3.Error as error:
                self._roll_back(error)
                raise _mapped(error) from None
            except BaseException:
                self._roll_back(None)
                raise

    def _roll_back(self, error: sqlite3.Error | None) -> None:
        if self._writer is None:
            return
        with contextlib.suppress(sqlite3.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        if error is not None and getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_NOW:
            self._writer.close()  # opened anew by the next call
            self._writer = None

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        fcntl.flock(self._locks[name], fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._locks[name], fcntl.LOCK_UN)

    @contextlib.contextmanager
    def migrating(self) -> Iterator[sa.Connection]:
        engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.pool.NullPool,
                                  isolation_level="AUTOCOMMIT")
        try:
            with self._locked("lock"), engine.connect() as connection:
                raw: Any = connection.connection.driver_connection
                raw.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    raw.execute("COMMIT")
                finally:
                    if raw.in_transaction:
                        raw.execute("ROLLBACK")
        except (sqlite3.Error, sa.exc.DBAPIError) as error:
            raise _mapped(error.orig if isinstance(error, sa.exc.DBAPIError) else error) from None

    # ---------------------------------------------------------------- the write-ahead log

    def after_write(self) -> None:
        """Copy a long log into the database file: most of it beside the writer, the rest between two commits."""
        if self._checkpointer is not None:
            if self._checkpointer.is_alive():
                return
            self._checkpointer = None
            if self._writer is not None:
                with contextlib.suppress(sqlite3.Error), self._locked("lock"):
                    # What came meanwhile is short; once all is copied, the next writer starts the log at its beginning.
                    self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return
        self._writes += 1  # looking at the log gives the GIL away, so not each time
        if self._writes % _LOOK == 0 and self._log_frames() > self._longest_log():
            self._checkpointer = threading.Thread(target=self._checkpoint, name="checkpoint", daemon=True)
            self._checkpointer.start()

    def _longest_log(self) -> int:
        """Pages of log at which it is copied: few for a small database, so that the log does not outweigh it."""
        try:
            pages = os.stat(self.path).st_size // _PAGE
        except OSError:
            return CHECKPOINT_PAGES
        return min(max(pages // 2, _LEAST_PAGES), CHECKPOINT_PAGES)

    def rest(self) -> None:
        """After a burst of writes: copy the log and give its space back, unless readers still need it."""
        writer = self._writer
        if writer is None or self._checkpointer is not None and self._checkpointer.is_alive():
            return
        with contextlib.suppress(OSError, sqlite3.Error):
            if os.stat(f"{self.path}-wal").st_size <= _SMALL_LOG:
                return
            with self._locked("lock"):
                writer.execute("PRAGMA busy_timeout = 0")
                try:
                    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    writer.execute("PRAGMA busy_timeout = 5000")

    def _log_frames(self) -> int:
        """Pages of the log that are not in the database file yet (sqlite.org/walformat.html 2: mxFrame - nBackfill)."""
        try:
            if self._shared is None:
                self._shared = os.open(f"{self.path}-shm", os.O_RDONLY | os.O_CLOEXEC)
            header = os.pread(self._shared, 100, 0)
        except OSError:
            return 0
        return int.from_bytes(header[16:20], sys.byteorder) - int.from_bytes(header[96:100], sys.byteorder)

    def _checkpoint(self) -> None:
        try:
            fcntl.flock(self._locks["checkpoint"], fcntl.LOCK_EX | fcntl.LOCK_NB)  # one process is enough
        except OSError:
            return
        try:
            connection = self._connect()
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                connection.close()
        except sqlite3.Error as error:
            log.warning("checkpoint put off: %s", _mapped(error))
        finally:
            fcntl.flock(self._locks["checkpoint"], fcntl.LOCK_UN)

    # ---------------------------------------------------------------- audit, processes

    def write_audit(self, columns: Sequence[str], rows: Sequence[Values]) -> None:
        with self._audit_lock:
            try:
                with self._locked("audit-lock"):
                    connection = self._audit or self._open_audit()
                    connection.execute("BEGIN IMMEDIATE")
                    _Transaction(connection).insert("audit", columns, rows)
                    connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._audit is not None:
                    self._audit.close()
                    self._audit = None
                raise _mapped(error) from None

    def read_audit(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        with self._audit_lock:
            return (self._audit or self._open_audit()).execute(sql, values).fetchall()

    def _open_audit(self) -> sqlite3.Connection:
        path = self.path.with_name("audit.sqlite")
        self._audit = self._connect(path=path)
        self._audit.execute("PRAGMA cache_size = -512")
        self._audit.execute("PRAGMA wal_autocheckpoint = 1000")
        engine = sa.create_engine("sqlite://", creator=lambda: self._connect(path=path), poolclass=sa.pool.NullPool)
        audit_metadata.create_all(engine)
        return self._audit

    def _alive_file(self, boot: int) -> str:
        return f"{self.path}.alive-{boot}"

    def living(self) -> set[int]:
        found = set()
        for file in self.path.parent.glob(f"{self.path.name}.alive-*"):
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink(missing_ok=True)  # its process ended without closing
            except OSError:
                found.add(int(file.name.rpartition("-")[2]))
            finally:
                os.close(descriptor)
        return found

    def size(self) -> int:
        """Bytes on disk."""
        files = [self.path, Path(f"{self.path}-wal"), self.path.with_name("audit.sqlite")]
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._checkpointer is not None:
            self._checkpointer.join()
        while self._readers:
            self._readers.pop().close()
        for connection in (self._writer, self._audit):
            if connection is not None:
                connection.close()  # the last connection of all processes copies the log and removes it
        self._writer = self._audit = None
        self.engine.dispose()
        with contextlib.suppress(OSError):
            os.unlink(self._alive_file(self.boot))
        for descriptor in (self._alive, *self._locks.values(), *([self._shared] if self._shared is not None else [])):
            os.close(descriptor)


class _Statements:
    """Reading, on any connection."""

    raw: sqlite3.Connection

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        rows = self.raw.execute(sql, values).fetchall()
        return rows[0] if rows else None

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self.raw.execute(sql, values).fetchall()

    def among(self, sql: str, values: Iterable[Any], before: Values = ()) -> list[tuple[Any, ...]]:
        values, found, at = list(values), [], 0
        while at < len(values):
            part = values[at:at + _IN[-1]]
            at += len(part)
            size = next(size for size in _IN if size >= len(part))
            padded = part + part[-1:] * (size - len(part))
            found += self.raw.execute(_expanded(sql, size), [*before, *padded]).fetchall()
        return found


class _Reader(_Statements):
    """A pooled connection, for the store's own statements and for `gateway.search`."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        self.raw = raw

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.connection.close()


class _Transaction(_Statements):
    """Between BEGIN IMMEDIATE and COMMIT: no other process writes."""

    exclusive = True

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw
        self._counters: dict[str, int] = {}
        self._moved: set[str] = set()

    def run(self, sql: str, values: Values = ()) -> int:
        return self.raw.execute(sql, values).rowcount

    def many(self, sql: str, rows: Sequence[Values]) -> int:
        return self.raw.executemany(sql, rows).rowcount if rows else 0

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Values], *, ignore: bool = False,
               key: Sequence[str] = ()) -> None:
        columns, key, at = tuple(columns), tuple(key), 0
        for size in _ROWS:
            while len(rows) - at >= size:
                part = rows[at:at + size]
                self.raw.execute(_insert(table, columns, size, ignore, key), list(chain.from_iterable(part)))
                at += size

    def next(self, counter: str, count: int = 1) -> Sequence[int]:
        if not self._counters:
            self._counters = dict(self.raw.execute("SELECT name, value FROM counter").fetchall())
        first = self._counters[counter]
        self._counters[counter] = first + count
        self._moved.add(counter)
        return range(first, first + count)

    def lock(self, names: Iterable[bytes]) -> None:
        """Nothing to do: the whole database is ours."""

    def finish(self) -> None:
        """Write down how far the counters went."""
        for name in self._moved:
            self.raw.execute("UPDATE counter SET value = ? WHERE name = ?", (self._counters[name], name))


@lru_cache(maxsize=1024)
def _expanded(sql: str, size: int) -> str:
    return sql.replace("IN ?*", f"IN ({','.join('?' * size)})")


@lru_cache(maxsize=1024)
def _insert(table: str, columns: tuple[str, ...], size: int, ignore: bool, key: tuple[str, ...]) -> str:
    row = f"({','.join('?' * len(columns))})"
    names = ", ".join(f'"{c}"' for c in columns)
    return (f"INSERT {'OR IGNORE ' if ignore else ''}INTO {table} ({names}) VALUES " + ",".join([row] * size)
            + adding(table, columns, key))


def _mapped(error: Any) -> Exception:
    """BUSY for what a later try may not meet; any other error of SQLite is our fault and stays as it is."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return busy(f"SQLite: {_NOT_NOW[code]}") if code in _NOT_NOW else error
