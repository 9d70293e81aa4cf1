"""What arrived, before anything else is known of it; how it ended; which codes nobody could map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.source import Unmapped, message_digest
from gateway.store.codec import Codec
from gateway.store.database import Reader, Transaction
from gateway.store.model import Inbound, InboxRow, Receipt, Settlement, UnmappedRow
from gateway.store.schema import STATUSES
from gateway.store.writer import Job

RECEIVED, STORED, QUARANTINED = range(3)
_COLUMNS = ("id", "received", "owner", "dict", "attempts", "status", "institution", "resources", "digest", "protocol",
            "peer", "facility", "control_id", "message_type", "raw")
_RECEIPT = 'category, message, "where", detail, remark, remark_where, resources'
_SHOWN = ("id, received, settled, protocol, peer, facility, control_id, institution, message_type, status, attempts, "
          + _RECEIPT)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message to record."""

    digest: bytes
    protocol: str
    peer: str
    control_id: str
    facility: str
    dict: int
    raw: bytes


def arrival(raw: bytes, protocol: str, peer: str, control_id: str, facility: str, codec: Codec) -> Arrival:
    """Digest and compressed bytes, made in the caller's thread."""
    digest = message_digest(protocol, raw)
    number, body = codec.compress(f"raw:{protocol}", raw)
    return Arrival(digest, protocol, peer, control_id, facility, number, body)


def record(transaction: Transaction, jobs: Sequence[Job], now: int, boot: int) -> None:
    """Keep what is new; say of what came before how it ended, or that it is to be run again."""
    arrivals: list[Arrival] = [job.value for job in jobs]
    known = {bytes(row[0]): (row[1], row[2], row[3:]) for row in transaction.among(
        f"SELECT digest, id, status, {_RECEIPT} FROM inbox WHERE digest IN ?*", sorted({a.digest for a in arrivals}))}
    fresh = {a.digest: a for a in arrivals if a.digest not in known}
    ids = dict(zip(sorted(fresh), transaction.next("inbox", len(fresh)) if fresh else (), strict=True))
    transaction.insert("inbox", _COLUMNS, [
        (ids[digest], now, boot, a.dict, 1, RECEIVED, 0, 0, digest, a.protocol, a.peer, a.facility, a.control_id, "",
         a.raw) for digest, a in sorted(fresh.items())])
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


def _receipt(inbox_id: int, row: Sequence[Any], resend: bool = False) -> Receipt:
    category, message, where, detail, remark, remark_where, resources = row
    return Receipt(inbox_id, category, message or "", where or "", detail or "", remark or "", remark_where or "",
                   resources, resend)


def settle(transaction: Transaction, settlements: Sequence[Settlement], institution: Callable[[str], int],
           now: int) -> None:
    """Write how messages ended. What was stored once stays stored, whatever a second run of it says."""
    before = dict(transaction.among("SELECT id, status FROM inbox WHERE id IN ?*",
                                    sorted({s.inbox_id for s in settlements if s.inbox_id})))
    rows, unmapped = [], []
    for s in sorted(settlements, key=lambda s: s.inbox_id):
        status, receipt = STATUSES.index(s.status), s.receipt or Receipt(s.inbox_id)
        if status == STORED and before.get(s.inbox_id) != STORED:
            unmapped += [(institution(s.institution), code) for code in s.unmapped]
        if not s.inbox_id or before.get(s.inbox_id) == STORED and status != STORED:
            continue
        before[s.inbox_id] = status
        rows.append((status, now, institution(s.institution), s.message_type, receipt.category, receipt.message,
                     receipt.where, receipt.detail, receipt.remark, receipt.remark_where, receipt.resources,
                     s.inbox_id))
    transaction.many('UPDATE inbox SET status = ?, settled = ?, owner = NULL, institution = ?, message_type = ?, '
                     'category = ?, message = ?, "where" = ?, detail = ?, remark = ?, remark_where = ?, resources = ? '
                     'WHERE id = ?', rows)
    _count(transaction, unmapped, now)


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
