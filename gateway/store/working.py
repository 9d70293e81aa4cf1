"""What the writer's thread does: the work of each kind of job within a transaction, and what follows its commit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from gateway.errors import GatewayError
from gateway.store import audit, inbox, ledger, sequence, studies
from gateway.store.audit import Audit
from gateway.store.codec import Codec
from gateway.store.database import Database, Transaction
from gateway.store.journal import Noted
from gateway.store.model import Settlement
from gateway.store.numbering import Institutions
from gateway.store.units import Task, Units
from gateway.store.writer import Job, Worker


class Work:
    """The workers of a `writer.Writer`, and the state of its running transaction; used by its thread alone."""

    def __init__(self, database: Database, codec: Codec, institutions: Institutions, noted: Noted,
                 accesses: Audit) -> None:
        self._database, self._codec, self._institutions = database, codec, institutions
        self._noted, self._audit = noted, accesses
        self.seen: set[int] = set()  # rows of the index's dictionary that are known to be committed
        self.now = 0  # µs, of the running transaction
        self._clock = self._uses = 0
        self._news: set[int] = set()  # rows of the dictionary that the running transaction writes
        self._rows: dict[int, int] = {}  # of noted messages, written by the running transaction
        #: In the order in which every transaction does them.
        self.workers: dict[str, Worker] = {
            "record": self._record, "keep": self._record, "study": self._studies, "unit": self._units,
            "refuse": self._refused, "once": self._once, "sequence": sequence.claim, "call": _calls}

    def begin(self) -> None:
        """A transaction begins, or begins again. Its time is never before that of an earlier one of this process."""
        self._clock = self.now = max(self._clock + 1, time.time_ns() // 1000)
        self._news, self._rows = set(), {}
        self._institutions.begin()

    def committed(self, jobs: Sequence[Job]) -> None:
        """These jobs are durable."""
        self.seen |= self._news
        self._institutions.committed()
        self._noted.written(self._rows)
        units = [job.value for job in jobs if job.kind == "unit"]
        if not self._database.one_audit:
            for row in self._accesses(units):
                self._audit.add(row)
        for settlement in (*(t.unit.settlement for t in units), *(job.value for job in jobs if job.kind == "refuse")):
            if settlement and settlement.inbox_id in self._rows:
                settlement.settled_as(self._rows[settlement.inbox_id])

    def _record(self, transaction: Transaction, jobs: Sequence[Job]) -> None:
        inbox.record(transaction, jobs, self.now, self._database.boot)
        self._rows.update((noted, job.result.id) for job in jobs if (noted := self._noted.by_digest(job.value.digest)))

    def _studies(self, transaction: Transaction, jobs: Sequence[Job]) -> None:
        studies.put(transaction, jobs, lambda slug: self._institutions.of(transaction, slug), self.now)

    def _units(self, transaction: Transaction, jobs: Sequence[Job]) -> None:
        units = Units(transaction, self._codec, self._institutions.of, self.now, self.seen)
        tasks: list[Task] = [job.value for job in jobs]
        units.load(tasks)
        lines = ledger.Ledger(transaction, self._codec, self._institutions.of, self.now)
        lines.load(line for task in tasks for line in task.lines)
        accepted = []
        for job in jobs:
            try:
                lines.check(job.value.lines)
                job.result = units.decide(job.value)
                lines.accept(job.value.unit, job.value.lines)
                accepted.append(job.value)
            except GatewayError as error:
                job.error = error
        self._news = units.write(accepted, lines.patients())
        self._settle(transaction, [t.unit.settlement for t in accepted if t.unit.settlement])
        studies.published(transaction, [t.unit.published_study for t in accepted if t.unit.published_study])
        shown = lines.write(units.persons)
        for done in accepted:
            if more := shown.get(id(done.unit)):
                done.persons = tuple(sorted(more.union(done.persons)))
        if self._database.one_audit:
            transaction.insert("audit", audit.COLUMNS, self._accesses(accepted))

    def _accesses(self, tasks: Iterable[Task]) -> list[audit.Row]:
        """The audit rows of units; a message is named by its row."""
        return [audit.row(access, self.now, t.persons, self._row_of(t.unit.settlement))
                for t in tasks if (access := t.unit.access)]

    def _row_of(self, settlement: Settlement | None) -> int:
        return self._rows.get(settlement.inbox_id, settlement.inbox_id) if settlement else 0

    def _refused(self, transaction: Transaction, jobs: Sequence[Job]) -> None:
        self._settle(transaction, [job.value for job in jobs])

    def _settle(self, transaction: Transaction, settlements: Sequence[Settlement]) -> None:
        self._rows.update(inbox.settle(transaction, settlements, lambda slug: self._institutions.of(transaction, slug),
                                       self.now, self._noted))

    def _once(self, transaction: Transaction, jobs: Sequence[Job]) -> None:
        self._uses += len(jobs)
        sweep = self._uses >= ledger.SWEEP
        done = ledger.use_once(transaction, [job.value for job in jobs], self.now, sweep)
        for job, first in zip(jobs, done, strict=True):
            job.result = first
        if sweep:
            self._uses = 0


def _calls(transaction: Transaction, jobs: Sequence[Job]) -> None:
    for job in jobs:
        try:
            job.result = job.value(transaction)
        except GatewayError as error:
            job.error = error
