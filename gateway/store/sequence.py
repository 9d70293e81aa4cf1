"""How far each numbered stream of messages has come (HL7 v2.5.1 2.10.1): a row of ``meta`` for each stream.

A row holds the number that was taken last and the inbox row that had it, so that the same bytes are known again when
their answer was lost, and that a corrected message may take the place of one that was refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.store.database import Transaction
from gateway.store.inbox import QUARANTINED
from gateway.store.model import Numbered
from gateway.store.writer import Job

START, RESYNCHRONIZE = 0, -1


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that has a number in a stream; ``inbox_id`` is that of its raw bytes."""

    stream: str
    number: int
    inbox_id: int


def claim(transaction: Transaction, jobs: Sequence[Job]) -> None:
    """Take each number that is its stream's next, in the order of the jobs."""
    names = {job.value.stream: f"sequence:{job.value.stream}" for job in jobs}
    transaction.lock(name.encode() for name in sorted(names.values()))
    rows = dict(transaction.among("SELECT name, value FROM meta WHERE name IN ?*", sorted(names.values())))
    for job in jobs:
        name = names[job.value.stream]
        state = rows.get(name)
        last = (int(state.split()[0]), int(state.split()[1])) if state else None
        job.result = _decide(transaction, job.value, last)
        if job.value.number == RESYNCHRONIZE:
            rows.pop(name, None)
            transaction.run("DELETE FROM meta WHERE name = ?", (name,))
        elif job.result.accepted and job.value.number != START and job.result.expected == job.value.number:
            rows[name] = f"{job.value.number} {job.value.inbox_id}"
            if not transaction.run("UPDATE meta SET value = ? WHERE name = ?", (rows[name], name)):
                transaction.insert("meta", ("name", "value"), [(name, rows[name])])


def _decide(transaction: Transaction, asked: Claim, last: tuple[int, int] | None) -> Numbered:
    """``expected`` is the message's own number when it is taken: MSA-4 echoes it (2.10.1 c)."""
    following = last[0] + 1 if last else -1
    if asked.number == RESYNCHRONIZE:
        return Numbered(True, -1)
    if asked.number == START:
        return Numbered(True, following)
    if last is None or asked.number == following:
        return Numbered(True, asked.number)
    if asked.number == last[0]:
        if asked.inbox_id == last[1]:  # the answer to it was lost: 2.10.1 d 1
            return Numbered(True, following)
        row = transaction.one("SELECT status FROM inbox WHERE id = ?", (last[1],))
        if row and row[0] == QUARANTINED:  # the corrected form of what was refused
            return Numbered(True, asked.number)
    return Numbered(False, following)
