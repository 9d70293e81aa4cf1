"""Audit rows: buffered, committed by a thread of their own at most every 100 ms and at close."""

from __future__ import annotations

import logging
import threading
import time

from gateway.errors import GatewayError
from gateway.store.database import Database, busy
from gateway.store.model import Access, AuditRow

log = logging.getLogger("huren.store")

EVERY = 0.1  # seconds
_BATCH = 5000  # rows of one transaction
MOST = 100_000  # rows that may wait while the database is away; after that accesses are refused
COLUMNS = ("at", "outcome", "caller", "institution", "action", "target", "peer", "persons")
Row = tuple[int, int, str, str | None, str, str, str, str]


def row(access: Access, at: int, persons: tuple[int, ...] = (), inbox_id: int = 0) -> Row:
    """An audit row of an access; ``inbox_id``: of the message that it was, for the target ``inbox``."""
    target = access.target if access.target != "inbox" else f"inbox/{inbox_id}"
    return (at, access.outcome, access.caller, access.institution, access.action, target, access.peer,
            ",".join(map(str, access.persons or persons)))


class Audit:
    """The buffer and its thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: list[Row] = []
        self._wake = threading.Event()
        self._lock = threading.Lock()  # one flush at a time
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def add(self, row: Row) -> None:
        """Keep an access; BUSY when so many wait that the database must have been away for long."""
        if len(self._rows) >= MOST:
            raise busy("audit rows cannot be written")
        self._rows.append(row)
        if not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Commit what waits now."""
        with self._lock:
            while rows := self._rows[:_BATCH]:
                self._database.write_audit(COLUMNS, rows)
                del self._rows[:len(rows)]

    def close(self) -> None:
        """Commit what waits and stop."""
        self._closed = True
        self._wake.set()
        self._thread.join()
        try:
            self.flush()
        except GatewayError as error:
            log.error("%d audit rows lost: %s", len(self._rows), error.message)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            if not self._closed:
                time.sleep(EVERY)
            self._wake.clear()
            try:
                if self._rows:
                    self.flush()
            except GatewayError as error:
                log.warning("audit rows wait: %s", error.message)
                self._wake.set()
            except Exception:
                log.exception("audit rows wait")
                self._wake.set()


def rows(database: Database, limit: int, before: int | None = None) -> list[AuditRow]:
    """Newest first; ``before``: a time in µs."""
    sql = f"SELECT {', '.join(COLUMNS)} FROM audit WHERE at < ? ORDER BY at DESC, pk DESC LIMIT ?"
    found = database.read_audit(sql, (before if before is not None else 1 << 62, limit))
    return [AuditRow(at, Access(caller, institution, action, target, outcome, peer,
                                tuple(map(int, persons.split(","))) if persons else ()))
            for at, outcome, caller, institution, action, target, peer, persons in found]
