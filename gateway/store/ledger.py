"""Order lines and the events that made them what they are: one chain of hashes over all events of a database.

A line changes together with its events and with the FHIR resources of the same unit. Versions are checked like those of
resources: before, in memory; and once more by the statement that writes. The chain is appended to at the end of a
transaction, under a lock, so that its events are in the order of commits and their numbers have no gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from gateway.errors import Category, GatewayError
from gateway.store import schema, types
from gateway.store.codec import Codec
from gateway.store.database import Reader, Retry, Transaction
from gateway.store.model import LedgerEvent, Line, LineChange, Unit

#: The hash before the first event.
GENESIS = bytes(32)
_STATE = {name: number for number, name in enumerate(schema.STATES)}
_LOCK = b"ledger"
_HEAD = "SELECT value FROM meta WHERE name = 'ledger'"
_SET_HEAD = ("INSERT INTO meta (name, value) VALUES ('ledger', ?) "
             "ON CONFLICT (name) DO UPDATE SET value = excluded.value")
_STORED = "SELECT id, pk, version, person, patient FROM line WHERE id IN ?*"
_LINE = ("pk", "person", "created", "updated", "version", "dict", "institution", "state", "id", "patient", "item",
         "number", "body")
# Only what changes: SQLite writes the entries of an index anew whose column is named here.
_UPDATE = ("UPDATE line SET updated = ?, version = ?, dict = ?, state = ?, item = ?, body = ? "
           "WHERE pk = ? AND version = ?")
_OTHER_PATIENT = "UPDATE line SET person = ?, patient = ? WHERE pk = ?"
_EVENT = ("seq", "at", "line", "dict", "kind", "text", "hash")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest event: its number, hash and time."""

    seq: int = 0
    hash: bytes = GENESIS
    at: int = 0


def head(reader: Reader) -> Head:
    """The head of the chain as the database keeps it, beside the events."""
    row = reader.one(_HEAD)
    if row is None:
        return Head()
    seq, digest, at = row[0].split(":")
    return Head(int(seq), bytes.fromhex(digest), int(at))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What can be made of a LineChange without the database."""

    change: LineChange
    id: bytes
    state: int
    patient: bytes  # packed; empty: none
    dict: int
    body: bytes
    digest: str  # of all that the line says
    cards: tuple[bytes, ...]


def prepare(changes: Iterable[LineChange], codec: Codec) -> list[Prepared]:
    """The changes of a unit, made ready in the caller's thread. INVALID: they break the ledger's rules."""
    prepared = []
    for change in changes:
        line = change.line
        if line.state not in _STATE:
            raise GatewayError(Category.INVALID, "an order line has no such state", "line.state")
        if not line.version and not change.events:
            raise GatewayError(Category.INVALID, "a new order line needs the event that made it", "line")
        if "\0" in line.number + line.item:
            raise GatewayError(Category.INVALID, "an order's number holds no NUL", "line.number")
        content = orjson.dumps(line.body)
        orjson.dumps(change.events)  # what is not JSON fails here, and not in the transaction of others
        number, body = codec.compress("line", content)
        patient = line.body.get("patient") or ""
        prepared.append(Prepared(change, _packed(line.id), _STATE[line.state],
                                 types.pack(patient) if patient else b"", number, body, digest_of(line, content),
                                 tuple(map(_packed, change.cards))))
    if len({one.id for one in prepared}) < len(prepared):
        raise GatewayError(Category.INVALID, "an order line changes once in a unit", "line")
    return prepared


def _packed(id: str) -> bytes:
    """The 16 bytes of a canonical UUID; INVALID for any other text."""
    key = types.pack(id)
    if len(key) != 16:
        raise GatewayError(Category.INVALID, "an order line or card is named by a UUID in lower case", "line.id")
    return key


def name_of(id: bytes) -> str:
    """The inverse."""
    return types.id_of(b"\0" + bytes(id))


def digest_of(line: Line, body: bytes) -> str:
    """What the last event of a change says of the line, so that a line changed by hand shows."""
    head = orjson.dumps([line.institution, line.number, line.item, line.state])
    return sha256(head + body).hexdigest()[:32]


@dataclass(slots=True)
class _Line:
    """A line as stored, and as this transaction will store it."""

    pk: int = 0  # 0: not yet given
    stored: int = 0  # version
    version: int = 0
    person: int = 0
    patient: bytes = b""
    newest: Prepared | None = None


class Ledger:
    """One transaction's changes: ``load``, then ``check`` and ``accept`` each unit, ``write``."""

    def __init__(self, transaction: Transaction, codec: Codec, institution: Callable[[Transaction, str], int],
                 now: int) -> None:
        self._transaction, self._codec, self._institution, self._now = transaction, codec, institution, now
        self._lines: dict[bytes, _Line] = {}
        self._accepted: list[tuple[Unit, list[Prepared]]] = []

    def load(self, changes: Iterable[Prepared]) -> None:
        """Read what is stored of every line that is named."""
        wanted = sorted({change.id for change in changes})
        self._lines = {key: _Line() for key in wanted}
        for key, pk, version, person, patient in self._transaction.among(_STORED, wanted):
            self._lines[bytes(key)] = _Line(pk, version, version, person, bytes(patient))

    def check(self, changes: Iterable[Prepared]) -> None:
        """CONFLICT, detail ``moved``: a line is not of the version that was read."""
        if any(self._lines[change.id].version != change.change.line.version for change in changes):
            raise GatewayError(Category.CONFLICT, "the order line has changed meanwhile; read it again", "line",
                               detail="moved")

    def accept(self, unit: Unit, changes: list[Prepared]) -> None:
        """The unit will be written."""
        if changes:
            for change in changes:
                line = self._lines[change.id]
                line.version, line.newest = line.version + 1, change
            self._accepted.append((unit, changes))

    def patients(self) -> set[bytes]:
        """Whose persons ``write`` has to know: those of new lines, and of lines that are about another Patient now."""
        return {line.newest.patient for line in self._lines.values()
                if line.newest and (not line.pk or line.newest.patient != line.patient)} - {b""}

    def write(self, persons: Mapping[bytes, int]) -> dict[int, set[int]]:
        """Write what was accepted; the persons of each unit's lines, by ``id(unit)``.

        ``persons`` as they are after this transaction: whoever read one before a merge may be late.
        """
        if not self._accepted:
            return {}
        self._set_persons(persons)
        self._write_lines()
        self._transaction.insert("card", ("uuid", "line"), sorted({
            (card, self._lines[change.id].pk) for _, changes in self._accepted for change in changes
            for card in change.cards}), ignore=True)
        self._append()
        return {id(unit): {person for change in changes if (person := self._lines[change.id].person)}
                for unit, changes in self._accepted}

    def _set_persons(self, persons: Mapping[bytes, int]) -> None:
        moved = []
        for line in self._lines.values():
            if (new := line.newest) is None or line.pk and new.patient and new.patient == line.patient:
                continue
            person = persons[new.patient] if new.patient else new.change.line.person
            if line.pk and (person, new.patient) != (line.person, line.patient):
                moved.append((person, new.patient, line.pk))
            line.person, line.patient = person, new.patient
        self._transaction.many(_OTHER_PATIENT, sorted(moved, key=lambda row: row[2]))

    def _write_lines(self) -> None:
        order = dict.fromkeys(change.id for _, changes in self._accepted for change in changes)
        changed = [(key, line, line.newest) for key in order if (line := self._lines[key]).newest is not None]
        rows = sorted(((self._now, line.version, new.dict, new.state, new.change.line.item, new.body, line.pk,
                        line.stored) for _, line, new in changed if line.pk), key=lambda row: row[6])
        if self._transaction.many(_UPDATE, rows) != len(rows):
            raise Retry  # another process wrote a version in between
        new_lines = [(key, line, new) for key, line, new in changed if not line.pk]
        if not new_lines:
            return
        for (_, line, _), pk in zip(new_lines, self._transaction.next("line", len(new_lines)), strict=True):
            line.pk = pk
        self._transaction.insert("line", _LINE, sorted((
            (line.pk, line.person, new.change.line.created or self._now, self._now, line.version, new.dict,
             self._institution(self._transaction, new.change.line.institution), new.state, key, new.patient,
             new.change.line.item, new.change.line.number, new.body) for key, line, new in new_lines),
            key=lambda row: row[8]))  # unique keys are taken in one order by all

    def _append(self) -> None:
        """Last of all that a transaction locks: whoever waits here holds nothing that the other wants."""
        self._transaction.lock([_LOCK])
        last = head(self._transaction)
        seq, before, at = last.seq, last.hash, max(last.at, self._now)
        rows = []
        versions = {key: line.stored for key, line in self._lines.items()}
        for unit, changes in self._accepted:
            unit.kept = []
            for change in changes:
                versions[change.id] += 1
                pk, name = self._lines[change.id].pk, change.change.line.id
                events = change.change.events
                for ordinal, event in enumerate(events, 1):
                    seq += 1
                    said = {**event, "seq": seq, "at": at, "line": name, "version": versions[change.id]}
                    if ordinal == len(events):
                        said["digest"] = change.digest
                    text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
                    before = sha256(before + text).digest()
                    number, body = self._codec.compress("event", text)
                    rows.append((seq, at, pk, number, event["kind"], body, before))
                    unit.kept.append(LedgerEvent(seq, at, name, event["kind"], text.decode(), before))
        if rows:
            self._transaction.insert("event", _EVENT, rows)
            self._transaction.run(_SET_HEAD, (f"{seq}:{before.hex()}:{at}",))


def move(transaction: Transaction, moves: dict[bytes, tuple[int, int]]) -> None:
    """Point the lines of each Patient in ``moves`` from the former person to the new."""
    transaction.many("UPDATE line SET person = ? WHERE person = ? AND patient = ?",
                     [(after, before, patient) for patient, (before, after) in sorted(moves.items())])


# ------------------------------------------------------------------ reading

_READ = ("SELECT pk, id, institution, number, person, item, state, version, created, updated, dict, body "
         "FROM line WHERE ")
_ORDER = " ORDER BY created DESC, pk DESC"


class Lines:
    """Reads lines and events."""

    def __init__(self, codec: Codec, slug: Callable[[int], str]) -> None:
        self._codec, self._slug = codec, slug

    def by_id(self, reader: Reader, ids: Iterable[str]) -> dict[str, Line]:
        """Those that are there."""
        keys = [key for id in dict.fromkeys(ids) if len(key := types.pack(id)) == 16]
        return {line.id: line for row in reader.among(_READ + "id IN ?*", keys) for line in (self._line(row),)}

    def of_person(self, reader: Reader, person: int, item: str | None, since: int, state: str | None) -> list[Line]:
        """Newest first."""
        only, values = "person = ? AND created >= ?", [person, since]
        for column, wanted in (("item", item), ("state", None if state is None else _STATE.get(state, -1))):
            if wanted is not None:
                only, values = f"{only} AND {column} = ?", [*values, wanted]  # type: ignore[list-item]
        return [self._line(row) for row in reader.all(f"{_READ}{only}{_ORDER}", values)]

    def of_card(self, reader: Reader, card: str) -> list[Line]:
        """In the order in which they were made."""
        return [self._line(row) for row in reader.all(
            f"{_READ}pk IN (SELECT line FROM card WHERE uuid = ?) ORDER BY pk", (types.pack(card),))]

    def where(self, reader: Reader, institutions: Sequence[int] | None, state: str | None, since: int,
              until: int | None, limit: int, after: str | None) -> list[Line]:
        """Newest first; ``until`` is excluded; ``after``: the id of the last line seen.

        ``institutions`` None: of all, in every state; for one state name all.
        """
        created, pk = until if until is not None else 1 << 62, 0
        if after is not None:
            row = reader.one("SELECT created, pk FROM line WHERE id = ?", (types.pack(after),))
            if row is None:
                raise GatewayError(Category.NOT_FOUND, "there is no such order line to go on after", "after")
            created, pk = row
        page = f"created >= ? AND created <= ? AND (created < ? OR pk < ?){_ORDER} LIMIT ?"  # a range of an index
        span = (since, created, created, pk, limit)
        if institutions is None:
            return [self._line(row) for row in reader.all(_READ + page, span)]
        states = list(_STATE.values()) if state is None else [_STATE[state]] if state in _STATE else []
        # The index is by institution and state: a page of each, and of these the newest.
        found = [row for institution in institutions for number in states for row in reader.all(
            f"SELECT created, pk FROM line WHERE institution = ? AND state = ? AND {page}",
            (institution, number, *span))]
        newest = [pk for _, pk in sorted(found, reverse=True)[:limit]]
        rows = {row[0]: row for row in reader.among(_READ + "pk IN ?*", newest)}
        return [self._line(rows[pk]) for pk in newest]

    def events(self, reader: Reader, line: str | None, after: int, limit: int) -> list[LedgerEvent]:
        """By number."""
        only, values = ("", (after, limit)) if line is None else \
            ("AND e.line = (SELECT pk FROM line WHERE id = ?) ", (after, types.pack(line), limit))
        found = reader.all("SELECT e.seq, e.at, l.id, e.kind, e.dict, e.text, e.hash FROM event e "
                           f"LEFT JOIN line l ON l.pk = e.line WHERE e.seq > ? {only}ORDER BY e.seq LIMIT ?",
                           values)
        return [LedgerEvent(seq, at, name_of(id) if id else "", kind,
                            self._codec.decompress(number, bytes(text)).decode(), bytes(digest))
                for seq, at, id, kind, number, text, digest in found]

    def _line(self, row: Sequence[Any]) -> Line:
        _, id, institution, number, person, item, state, version, created, updated, dictionary, body = row
        return Line(name_of(id), self._slug(institution), number, person, item,
                    schema.STATES[state], version, created, updated,
                    orjson.loads(self._codec.decompress(dictionary, bytes(body))))


# ------------------------------------------------------------------ once

_ONCE = ("INSERT INTO once (key, expires) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET expires = excluded.expires "
         "WHERE once.expires < ?")


#: After so many uses of a process what has expired is dropped.
SWEEP = 1000


def use_once(transaction: Transaction, uses: Sequence[tuple[bytes, int]], now: int, sweep: bool) -> list[bool]:
    """Whether each may be used: it never was, or what was used has expired since."""
    if sweep:
        transaction.run("DELETE FROM once WHERE expires < ?", (now,))
    return [transaction.run(_ONCE, (key, expires, now)) == 1 for key, expires in uses]
