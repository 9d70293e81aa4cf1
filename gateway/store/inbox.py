"""What arrived, before anything else is known of it; how it ended; which codes nobody could map."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.source import Unmapped, message_digest
from gateway.store.codec import Codec
from gateway.store.database import Reader, Transaction
from gateway.store.model import Inbound, InboxRow, Receipt, Settlement, UnmappedRow
from gateway.store.schema import STATUSES
from gateway.store.writer import Job

RECEIVED, STORED, QUARANTINED = range(3)
_COLUMNS = ("id", "received", "owner", "dict", "attempts", "status", "institution", "resources", "digest", "protocol",
            "peer", "facility", "control_id", "message_type", "raw")
_ENDED = ("settled", "category", "message", "where", "detail", "remark", "remark_where")
_RECEIPT = 'category, message, "where", detail, remark, remark_where, resources'
_SHOWN = ("id, received, settled, protocol, peer, facility, control_id, institution, message_type, status, attempts, "
          + _RECEIPT)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message to record. ``received``: µs, 0 for the time of the transaction."""

    digest: bytes
    protocol: str
    peer: str
    control_id: str
    facility: str
    dict: int
    raw: bytes
    received: int = 0


class Noted(Protocol):
    """`gateway.store.journal.Noted`: messages by ids below 0, until their row gives them one above."""

    arrivals: dict[int, Arrival]
    rows: OrderedDict[int, int]  # of those that have one


def arrival(raw: bytes, protocol: str, peer: str, control_id: str, facility: str, codec: Codec,
            received: int = 0) -> Arrival:
    """Digest and compressed bytes, made in the caller's thread."""
    digest = message_digest(protocol, raw)
    number, body = codec.compress(f"raw:{protocol}", raw)
    return Arrival(digest, protocol, peer, control_id, facility, number, body, received)


def record(transaction: Transaction, jobs: Sequence[Job], now: int, boot: int) -> None:
    """Keep what is new; say of what came before how it ended, or that it is to be run again."""
    known = _known(transaction, [job.value for job in jobs])
    fresh = {job.value.digest: job.value for job in jobs if job.value.digest not in known}
    ids = _insert(transaction, fresh, now, boot)
    again = set()
    for job in jobs:
        if job.value.digest in ids:
            job.result = Inbound(ids[job.value.digest])
            continue
        inbox_id, status, receipt = known[job.value.digest]
        if status == STORED:
            job.result = Inbound(inbox_id, _receipt(inbox_id, receipt, resend=True))
        else:
            again.add(inbox_id)
            job.result = Inbound(inbox_id)
    transaction.many("UPDATE inbox SET status = 0, attempts = attempts + 1, owner = ? WHERE id = ? AND status <> 1",
                     [(boot, inbox_id) for inbox_id in sorted(again)])


def restore(transaction: Transaction, arrivals: Sequence[Arrival], now: int, boot: int) -> list[int]:
    """Keep what the journal of a dead process held and the inbox does not; their ids, oldest first."""
    known = _known(transaction, arrivals)
    fresh = {a.digest: a for a in arrivals if a.digest not in known}
    ids = _insert(transaction, fresh, now, boot, attempts=2)
    return [ids[a.digest] for a in sorted(arrivals, key=lambda a: a.received) if a.digest in ids]


def find(reader: Reader, digest: bytes) -> tuple[int, Receipt | None] | None:
    """The id of the message of these bytes, and its receipt where it is stored."""
    row = reader.one(f"SELECT id, status, {_RECEIPT} FROM inbox WHERE digest = ?", (digest,))
    return (row[0], _receipt(row[0], row[2:], resend=True) if row[1] == STORED else None) if row else None


def _known(reader: Reader, arrivals: Sequence[Arrival]) -> dict[bytes, tuple[int, int, tuple[Any, ...]]]:
    """Id, status and receipt of those that have a row, by their digest."""
    return {bytes(row[0]): (row[1], row[2], row[3:]) for row in reader.among(
        f"SELECT digest, id, status, {_RECEIPT} FROM inbox WHERE digest IN ?*", sorted({a.digest for a in arrivals}))}


def _insert(transaction: Transaction, fresh: Mapping[bytes, Arrival], now: int, boot: int,
            attempts: int = 1) -> dict[bytes, int]:
    """Rows of new messages; the id of each digest."""
    ids = dict(zip(sorted(fresh), transaction.next("inbox", len(fresh)) if fresh else (), strict=True))
    transaction.insert("inbox", _COLUMNS, [_columns(ids[digest], a, boot, RECEIVED, now, attempts=attempts)
                                           for digest, a in sorted(fresh.items())])
    return ids


def _columns(inbox_id: int, a: Arrival, owner: int | None, status: int, now: int, institution: int = 0,
             resources: int = 0, message_type: str = "", attempts: int = 1) -> tuple[Any, ...]:
    return (inbox_id, a.received or now, owner, a.dict, attempts, status, institution, resources, a.digest, a.protocol,
            a.peer, a.facility, a.control_id, message_type, a.raw)


def _receipt(inbox_id: int, row: Sequence[Any], resend: bool = False) -> Receipt:
    category, message, where, detail, remark, remark_where, resources = row
    return Receipt(inbox_id, category, message or "", where or "", detail or "", remark or "", remark_where or "",
                   resources, resend)


def settle(transaction: Transaction, settlements: Sequence[Settlement], institution: Callable[[str], int],
           now: int, noted: Noted) -> dict[int, int]:
    """Write how messages ended. What was stored once stays stored, whatever a second run of it says.

    Returns the ids of the rows of those of ``noted`` (`gateway.store.journal`): the rows are written here.
    """
    row_of = {s.inbox_id: noted.rows[s.inbox_id] for s in settlements if s.inbox_id in noted.rows}
    new = {s.inbox_id: noted.arrivals[s.inbox_id] for s in settlements if s.inbox_id in noted.arrivals}
    # Another process may have been given the same bytes at the same time, and have been first: then theirs is the row.
    theirs = _known(transaction, list(new.values())) if new else {}
    row_of.update((n, theirs[a.digest][0]) for n, a in new.items() if a.digest in theirs)
    ids = {row_of.get(s.inbox_id, s.inbox_id) for s in settlements}
    before = dict(transaction.among("SELECT id, status FROM inbox WHERE id IN ?*", sorted(n for n in ids if n > 0)))
    fresh = [n for n in sorted(new, reverse=True) if n not in row_of]
    rows = dict(zip(transaction.next("inbox", len(fresh)) if fresh else (), fresh, strict=True))
    row_of.update((n, inbox_id) for inbox_id, n in rows.items())
    ended: dict[int, Settlement] = {}
    unmapped = []
    for s in sorted(settlements, key=lambda s: s.inbox_id):
        status, inbox_id = STATUSES.index(s.status), row_of.get(s.inbox_id, s.inbox_id)
        if status == STORED and before.get(inbox_id) != STORED:
            unmapped += [(institution(s.institution), code) for code in s.unmapped]
        if not inbox_id or before.get(inbox_id) == STORED and status != STORED:
            continue
        before[inbox_id] = status
        ended[inbox_id] = s
    updates, inserts = [], []
    for inbox_id, s in sorted(ended.items()):
        status, number, receipt = STATUSES.index(s.status), institution(s.institution), s.receipt or Receipt(inbox_id)
        end = (now, receipt.category, receipt.message, receipt.where, receipt.detail, receipt.remark,
               receipt.remark_where)
        if inbox_id in rows:
            inserts.append(_columns(inbox_id, new[rows[inbox_id]], None, status, now, number, receipt.resources,
                                    s.message_type) + end)
        else:
            updates.append((status, number, s.message_type, receipt.resources, *end, inbox_id))
    transaction.many('UPDATE inbox SET status = ?, owner = NULL, institution = ?, message_type = ?, resources = ?, '
                     'settled = ?, category = ?, message = ?, "where" = ?, detail = ?, remark = ?, remark_where = ? '
                     'WHERE id = ?', updates)
    transaction.insert("inbox", _COLUMNS + _ENDED, inserts)
    _count(transaction, unmapped, now)
    return row_of


def _count(transaction: Transaction, unmapped: Sequence[tuple[int, Unmapped]], now: int) -> None:
    counts: dict[tuple[int, str, str, str], int] = {}
    latest: dict[tuple[int, str, str, str], Unmapped] = {}
    for number, code in unmapped:
        key = (number, code.kind, code.local, code.unit)
        counts[key] = counts.get(key, 0) + 1
        latest[key] = code
    transaction.many(
        'INSERT INTO unmapped (institution, kind, "local", unit, display, "where", count, first_seen, last_seen) '
        'VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (institution, kind, "local", unit) DO UPDATE SET '
        'count = unmapped.count + excluded.count, last_seen = excluded.last_seen, display = excluded.display, '
        '"where" = excluded."where"',
        [(*key, latest[key].display, latest[key].where, counts[key], now, now) for key in sorted(counts)])


def take_over(transaction: Transaction, living: set[int], boot: int) -> list[int]:
    """Rows that no living process works on, now ours."""
    rows = transaction.all("SELECT id, owner FROM inbox WHERE status = 0 ORDER BY id")
    left = [inbox_id for inbox_id, owner in rows if owner is None or owner not in living]
    transaction.many("UPDATE inbox SET owner = ?, attempts = attempts + 1 WHERE id = ?",
                     [(boot, inbox_id) for inbox_id in left])
    return left


def rows(reader: Reader, institutions: Callable[[int], str], status: str | None, limit: int,
         before: int | None) -> list[InboxRow]:
    """Newest first."""
    where, values = ["id < ?"], [before if before is not None else 1 << 62]
    if status is not None:
        where.append("status = ?")
        values.append(STATUSES.index(status))
        if status != "stored":
            where.append("status <> 1")  # lets the planner take the index of what is not stored
    found = reader.all(f"SELECT {_SHOWN} FROM inbox WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?",
                       (*values, limit))
    return [_row(row, institutions) for row in found]


def show(reader: Reader, institutions: Callable[[int], str], codec: Codec, ids: Sequence[int]) -> list[InboxRow]:
    """Rows with their raw bytes, in the order of ``ids``."""
    found = {row[0]: replace(_row(row[:-2], institutions), raw=codec.decompress(row[-2], bytes(row[-1])))
             for row in reader.among(f"SELECT {_SHOWN}, dict, raw FROM inbox WHERE id IN ?*", ids)}
    return [found[n] for n in ids if n in found]


def original(reader: Reader, digest: bytes) -> int | None:
    """The id of the stored message of these bytes."""
    row = reader.one("SELECT id FROM inbox WHERE digest = ? AND status = 1", (digest,))
    return row[0] if row else None


def _row(row: Sequence[Any], institutions: Callable[[int], str]) -> InboxRow:
    (inbox_id, received, settled, protocol, peer, facility, control_id, institution, message_type, status,
     attempts, *receipt) = row
    return InboxRow(inbox_id, received, settled, protocol, peer, facility, control_id, institutions(institution),
                    message_type, STATUSES[status], attempts,
                    _receipt(inbox_id, receipt) if settled is not None else None)


def unmapped(reader: Reader, institutions: Callable[[int], str], only: int | None) -> list[UnmappedRow]:
    """The most frequent first."""
    found = reader.all('SELECT institution, kind, "local", display, unit, "where", count, first_seen, last_seen '
                       'FROM unmapped ORDER BY count DESC, institution, kind, "local", unit')
    return [UnmappedRow(institutions(row[0]), *row[1:]) for row in found if only is None or row[0] == only]
