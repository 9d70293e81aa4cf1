"""Group commit: one thread of a process takes all that waits, writes it in one transaction, then answers all."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.errors import Category, GatewayError
from gateway.store.database import Database, Retry, Transaction, busy

log = logging.getLogger("huren.store")

#: Weight of what one transaction takes at most; a resource weighs 1. More would make the first wait for the last.
MOST = 4000
_RETRIES = 40
#: Kinds of job that need no sync. A message that is recorded and no more was not acknowledged: its sender has it still
#: when the power fails. What may be used once expires soon.
_LIGHT = frozenset(("record", "once"))
#: Seconds without a job after which the database may put its house in order.
REST = 0.5


class Job:
    """Something to write; ``result`` or ``error`` is set when its transaction has ended."""

    __slots__ = ("kind", "value", "weight", "result", "error", "_done")

    def __init__(self, kind: str, value: Any, weight: int = 1) -> None:
        self.kind, self.value, self.weight = kind, value, weight
        self.result: Any = None
        self.error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def end(self) -> None:
        """Wake who waits."""
        self._done.release()

    def wait_for(self, seconds: float) -> None:
        """Wait until it has ended, but no longer than this."""
        if self._done.acquire(timeout=seconds):
            self._done.release()

    def wait(self) -> Any:
        """The result, after the commit; raises what refused it."""
        self._done.acquire()
        if self.error is not None:
            raise self.error
        return self.result


#: Does the jobs of one kind in a transaction: sets each one's ``result``, or ``error`` where it alone is refused.
Worker = Callable[[Transaction, Sequence[Job]], None]


class Writer:
    """The queue and its thread. ``workers`` by kind of job, in the order in which every transaction does them: as all

    processes take locks in one order, they do not wait for each other in a circle.
    """

    def __init__(self, database: Database, workers: dict[str, Worker], committed: Callable[[Sequence[Job]], None],
                 before: Callable[[], None]) -> None:
        self._database, self._workers, self._committed, self._before = database, workers, committed, before
        self._queue: list[Job] = []
        self.rest = REST
        self._wake = threading.Condition(threading.Lock())
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, kind: str, value: Any, weight: int = 1) -> Any:
        """Write and wait for the commit."""
        job = Job(kind, value, weight)
        with self._wake:
            if self._closed:
                raise busy("this process is stopping")
            self._queue.append(job)
            self._wake.notify()
        return job.wait()

    def post(self, kind: str, value: Any, patience: float) -> None:
        """Write as soon as it can be; wait at most ``patience`` seconds, and do not ask how it ended."""
        job = Job(kind, value)
        with self._wake:
            if self._closed:
                return
            self._queue.append(job)
            self._wake.notify()
        job.wait_for(patience)

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        rested = True
        while True:
            with self._wake:
                while not self._queue and not self._closed and self._wake.wait(None if rested else self.rest):
                    pass
                if not self._queue and self._closed:
                    return
                jobs = self._take()
            rested = not jobs
            if jobs:
                self._write(jobs)
            try:
                if rested:
                    self._database.rest()
                else:
                    self._database.after_write()
            except Exception:
                log.exception("house-keeping after a commit failed")

    def _take(self) -> list[Job]:
        weight = taken = 0
        for job in self._queue:
            if taken and weight + job.weight > MOST:
                break
            weight += job.weight
            taken += 1
        jobs, self._queue = self._queue[:taken], self._queue[taken:]
        return jobs

    def _write(self, jobs: list[Job]) -> None:
        try:
            self._transact(jobs)
        except GatewayError as error:
            for job in jobs:
                job.error = error
        except BaseException as error:
            if len(jobs) == 1:
                jobs[0].error = error
            else:  # one of them holds what the database does not take: each alone, so that only that one fails
                log.error("a transaction of %d failed with %s; each is tried alone", len(jobs), type(error).__name__)
                for job in jobs:
                    self._write([job])
                return
        for job in jobs:
            job.end()

    def _transact(self, jobs: list[Job]) -> None:
        exclusive = False
        durable = any(job.kind not in _LIGHT for job in jobs)
        for attempt in range(_RETRIES):
            for job in jobs:
                job.result = job.error = None
            try:
                self._before()
                self._database.write(lambda transaction: self._work(transaction, jobs), exclusive, durable)
                self._committed([job for job in jobs if job.error is None])
                return
            except Retry as retry:
                exclusive = exclusive or retry.exclusive
                if not retry.exclusive:
                    time.sleep(min(0.001 * attempt, 0.05))
        raise GatewayError(Category.BUSY, "other writers were faster each time; send again later")

    def _work(self, transaction: Transaction, jobs: list[Job]) -> None:
        for kind, worker in self._workers.items():
            if some := [job for job in jobs if job.kind == kind]:
                worker(transaction, some)
