"""`Store` and `open_store`: the contract of `gateway.store`, put together from this folder's parts."""

from __future__ import annotations

import contextlib
import secrets as random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from gateway import indexing
from gateway.caller import Caller
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.store import (
    audit,
    clients,
    inbox,
    ledger,
    migrations,
    persons,
    reindexing,
    results,
    sequence,
    studies,
    types,
    verifying,
)
from gateway.store.codec import Codec
from gateway.store.database import Database, Reader, Transaction, busy
from gateway.store.index import resource_of
from gateway.store.journal import Journal, Noted
from gateway.store.model import (
    Access,
    AuditRow,
    Client,
    DirtyStudy,
    Inbound,
    InboxRow,
    Instance,
    LedgerEvent,
    Line,
    Numbered,
    Put,
    Result,
    Row,
    Settlement,
    Standing,
    Unit,
    UnmappedRow,
    Verified,
    Written,
)
from gateway.store.numbering import Dictionaries, Institutions
from gateway.store.objects import Objects
from gateway.store.units import prepare, task
from gateway.store.working import Work
from gateway.store.writer import REST, Writer

_ROW = "SELECT pk, version, updated, dict, person, institution, id, body FROM resource WHERE "
_READ = _ROW + "id = ?"
_ROWS = _ROW + "pk IN ?*"
_NAMED = _ROW + "id IN ?*"
_STANDING = "SELECT id, version, as_of, dict, body FROM resource WHERE body IS NOT NULL AND id IN ?*"
_PARTS = "SELECT id FROM resource WHERE body IS NOT NULL AND id BETWEEN ? AND ?"
_PAST = ("SELECT r.pk, h.version, h.updated, h.dict, r.person, r.institution, r.id, h.body FROM history h "
         "JOIN resource r ON r.pk = h.pk WHERE ")
#: Seconds for which ``counts`` and the state of the index are remembered.
_COUNTED = 5.0
_STATE = 1.0
#: Seconds to wait for the row of a message that cannot be settled now: nearly always it is there at once.
_PATIENCE = 0.5


def open_store(settings: Settings, migrate: bool = False, *, reindex: bool = False, rest: float = REST) -> Store:
    """The store of these settings.

    ``rest``: seconds without a write after which SQLite's log is copied and cut; short where writes come in bursts,
    long where they trickle all day, since a cut takes as long as a few messages.

    INVALID when the schema is empty, older (unless ``migrate``) or newer: says `huren migrate`; and when the index rows
    follow another definition than this program's: says `huren reindex` (unless ``reindex``: the caller will do that).
    """
    indexing.set_zone(ZoneInfo(settings.timezone))
    url = sa.make_url(settings.database)
    database: Database
    if url.get_backend_name() == "sqlite":
        from gateway.store.sqlite import SQLite
        database = SQLite(Path(url.database or ""))
    elif url.get_backend_name() == "postgresql":
        from gateway.store.postgres import PostgreSQL
        database = PostgreSQL(url)
    else:
        raise GatewayError(Category.INVALID, "HUREN_DATABASE_URL must be postgresql://… or empty", "HUREN_DATABASE_URL")
    try:
        if migrate:
            with database.migrating() as connection:
                migrations.migrate(connection)
                reindexing.adopt_if_empty(connection)
        with database.reading() as connection:
            migrations.check(connection)
            if not reindex:
                reindexing.check(connection)
        objects = Objects(settings.objects, settings.s3_endpoint, settings.data / "staging")
        store = Store(database, objects, Journal(settings.data / "journal"))
        store._writer.rest = rest
        return store
    except BaseException:
        database.close()
        raise


class Store:
    """See `gateway.store`. One per process; safe from many threads."""

    def __init__(self, database: Database, objects: Objects, journal: Journal) -> None:
        self.objects = objects
        self._noted = Noted(journal)
        self._database = database
        self._institutions = Institutions(database)
        self._number, self._slug = self._institutions.number, self._institutions.slug
        self._institution = self._institutions.of  # takes a transaction
        self._tokens = clients.Tokens()
        self._counts: tuple[float, dict[str, Any]] = (0.0, {})
        self._state: tuple[float, bool] = (0.0, True)
        dictionaries = Dictionaries(database, self._call)
        self.codec = Codec(dictionaries.load, dictionaries.newest, dictionaries.add)
        self._lines = ledger.Lines(self.codec, self._slug)
        self._audit = audit.Audit(database)
        self._work = Work(database, self.codec, self._institutions, self._noted, self._audit)
        self._writer = Writer(database, self._work.workers, self._work.committed, self._work.begin)

    def close(self) -> None:
        """Write what waits and close every connection."""
        self.codec.close()
        self._writer.close()
        self._noted.close()
        self._audit.close()
        self._database.close()

    # ---------------------------------------------------------------- writing

    def record(self, raw: bytes, protocol: str, peer: str, control_id: str = "", facility: str = "",
               durable: bool = False) -> Inbound:
        """Raw bytes, committed when this returns; with the receipt when the same bytes were stored before. BUSY.

        ``durable``: they also outlive a power failure, as they must before anything is said to their sender.
        """
        return self._writer.submit("keep" if durable else "record",
                                   inbox.arrival(raw, protocol, peer, control_id, facility, self.codec))

    def note(self, raw: bytes, protocol: str, peer: str, control_id: str = "", facility: str = "") -> Inbound:
        """As ``record``, but the bytes need only outlive this process: `gateway.store.journal`. BUSY.

        An id below 0 stands for the row that is written with the settlement, which has the row's then.
        """
        arrival = inbox.arrival(raw, protocol, peer, control_id, facility, self.codec, time.time_ns() // 1000)
        with self._database.read() as reader:
            known = inbox.find(reader, arrival.digest)
        if known and known[1]:
            return Inbound(*known)
        noted = None if known else self._noted.note(arrival)
        return Inbound(noted) if noted else self._writer.submit("record", arrival)

    def keep(self, inbound: Inbound) -> Inbound:
        """With a row of the inbox, where it is only noted. BUSY."""
        arrival = self._noted.arrivals.get(inbound.id)
        return self._writer.submit("record", arrival) if arrival else inbound

    def leave(self, inbound: Inbound) -> None:
        """It cannot be settled now: ``received`` in the inbox, as soon as the database can be written to again."""
        if arrival := self._noted.arrivals.get(inbound.id):
            self._writer.post("record", arrival, _PATIENCE)

    def claim(self, stream: str, number: int, inbox_id: int) -> Numbered:
        """Take ``number`` as a stream's next; 0 asks for the next, -1 forgets how far it has come. BUSY."""
        return self._writer.submit("sequence", sequence.Claim(stream, number, inbox_id))

    def prepare(self, put: Put) -> Put:
        """Do now what needs no database (``write`` does it otherwise)."""
        put.prepared = prepare(put, self.codec)
        return put

    def write(self, unit: Unit, caller: Caller) -> list[Written]:
        """All or nothing. CONFLICT (detail ``precondition``, ``older`` or ``moved``), FORBIDDEN, BUSY."""
        return self._writer.submit("unit", task(unit, caller, self.codec),
                                   1 + len(unit.operations) + len(unit.ledger))

    def settle_refused(self, settlement: Settlement) -> None:
        """Put an inbound message into quarantine, with its receipt."""
        self._writer.submit("refuse", settlement)

    def put_instance(self, instance: Instance) -> str:
        """"new", "same" (the same bytes are there) or "conflict" (other bytes came first; these are set aside)."""
        return self._writer.submit("study", studies.arrived(instance, self.codec))

    def _call(self, work: Callable[[Transaction], Any]) -> Any:
        return self._writer.submit("call", work)

    # ---------------------------------------------------------------- reading resources

    def read(self, resource_type: str, id: str, caller: Caller) -> Row | None:
        """The current version; a deleted one is a Row with ``deleted``. None: not there, or not for this caller."""
        only = _view(caller, resource_type)
        with self._database.read() as reader:
            row = reader.one(_READ, (types.key(resource_type, id),))
        return self._row(row) if row and self._visible(row, only) else None

    def vread(self, resource_type: str, id: str, version: int, caller: Caller) -> Row | None:
        """One version, as ``read``."""
        only, key = _view(caller, resource_type), types.key(resource_type, id)
        if not 0 < version < 1 << 31:
            return None
        with self._database.read() as reader:
            row = reader.one(_READ + " AND version = ?", (key, version)) \
                or reader.one(_PAST + "r.id = ? AND h.version = ?", (key, version))
        return self._row(row) if row and self._visible(row, only) else None

    def history(self, resource_type: str, id: str | None, caller: Caller, count: int,
                before: tuple[int, int] | None = None) -> list[Row]:
        """Versions, newest first, deletions among them; ``before``: ``updated`` and ``pk`` of the last row seen."""
        only = _view(caller, resource_type)
        at, pk = before if before is not None else (1 << 62, 0)
        if id is not None:
            of, values = "r.id = ?", (types.key(resource_type, id),)
        else:
            of, values = "{}.type = ?", (types.number_of(resource_type),)  # type: ignore[assignment]
        if only is not None:
            of, values = of + " AND r.institution = ?", (*values, self._number(only))  # type: ignore[assignment]
        order = (" AND ({0}.updated < ? OR {0}.updated = ? AND {0}.pk < ?) "
                 "ORDER BY {0}.updated DESC, {0}.pk DESC LIMIT ?")
        now = ("SELECT r.pk, r.version, r.updated, r.dict, r.person, r.institution, r.id, r.body FROM resource r WHERE "
               + of.format("r") + order.format("r"))
        past = _PAST + of.format("h") + order.format("h")
        with self._database.read() as reader:
            found = [row for sql in (now, past) for row in reader.all(sql, (*values, at, at, pk, count))]
        found.sort(key=lambda row: (row[2], row[0]), reverse=True)
        return [self._row(row) for row in found[:count]]

    def rows(self, pks: Iterable[int], caller: Caller) -> list[Row]:
        """In the order of ``pks``; left out: what is deleted or not for this caller."""
        wanted = list(pks)
        with self._database.read() as reader:
            found = {row[0]: row for row in reader.among(_ROWS, wanted)}
        return self._current((found.get(pk) for pk in wanted), caller)

    def named(self, keys: Iterable[bytes], caller: Caller) -> list[Row]:
        """As ``rows``, by type and id (`types.key`): what the references of other resources name."""
        wanted = list(keys)
        with self._database.read() as reader:
            found = {bytes(row[6]): row for row in reader.among(_NAMED, wanted)}
        return self._current((found.get(key) for key in wanted), caller)

    def _current(self, rows: Iterable[tuple[Any, ...] | None], caller: Caller) -> list[Row]:
        return [self._row(row) for row in rows if row and row[7] is not None
                and self._visible(row, _view(caller, types.type_of(row[6])))]

    def standing(self, named: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Standing]:
        """What is stored now under (type, id), as a dict that may be changed; what is not there is left out."""
        keys = {types.key(kind, one): (kind, one) for kind, one in named}
        with self._database.read() as reader:
            rows = reader.among(_STANDING, sorted(keys))
        return {keys[bytes(key)]: Standing(resource_of(bytes(key), self.codec.decompress(number, bytes(body))), version,
                                           as_of) for key, version, as_of, number, body in rows}

    def parts(self, resource_type: str, whole: str) -> list[str]:
        """Ids of the resources of a type that may be parts of the resource ``whole`` (`Source.id_within`)."""
        first = types.key(resource_type, f"{whole[:13]}-8000-8000-000000000000")
        last = types.key(resource_type, f"{whole[:13]}-8fff-bfff-ffffffffffff")
        with self._database.read() as reader:
            return [types.id_of(bytes(key)) for key, in reader.all(_PARTS, (first, last))]

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A read-only transaction for `gateway.search`; the store's reads of this thread see the same snapshot.

        BUSY while the index is rebuilt: half an index would give half an answer.
        """
        self._require_index()
        with self._database.reading() as connection:
            yield connection

    def persons_of(self, patient_ids: Iterable[str]) -> dict[str, int]:
        """Patient id → person key; ids that nobody ever mentioned are left out."""
        packed = {types.pack(patient): patient for patient in patient_ids}
        with self._database.read() as reader:
            return {packed[bytes(patient)]: person for patient, person in reader.among(
                "SELECT patient, person FROM patient_person WHERE patient IN ?*", packed)}

    def patients_of(self, person: int) -> list[str]:
        """Ids of the Patients that are this person."""
        with self._database.read() as reader:
            found = reader.all("SELECT patient FROM patient_person WHERE person = ? ORDER BY patient", (person,))
        return [types.id_of(b"\0" + bytes(patient)) for patient, in found]

    def _row(self, row: tuple[Any, ...]) -> Row:
        pk, version, updated, number, person, institution, key, body = row
        return Row(pk, types.NAMES[key[0] - 1], types.id_of(key), version, updated, body is None, person,
                   self._slug(institution),
                   b"" if body is None else self.codec.decompress(number, body))

    def _visible(self, row: tuple[Any, ...], only: str | None) -> bool:
        return only is None or row[5] == self._number(only)

    # ---------------------------------------------------------------- recognition

    def results(self, person: int, items: Iterable[str], since: int) -> list[Result]:
        """A person's results under these items since a time in µs (0: all), and those of unknown time.

        By item, then newest first, unknown last. BUSY while the index is rebuilt: a result would be missed.
        """
        self._require_index()
        with self._database.read() as reader:
            return results.find(reader, self._slug, person, items, since)

    def references(self, pks: Iterable[int]) -> dict[int, str]:
        """``Observation/id`` of each result by its pk."""
        with self._database.read() as reader:
            return results.references(reader, pks)

    def reports_of(self, pks: Iterable[int] | Mapping[int, str], caller: Caller) -> dict[int, list[Row]]:
        """The DiagnosticReports that each Observation stands in; a DiagnosticReport is its own.

        Whoever has asked for ``references`` gives these.
        """
        self._require_index()
        with self._database.read() as reader:
            standing, found = results.reports(reader, pks)
        rows = {row.pk: row for row in self._current(found.values(), caller)}
        shown = {pk: [rows[report] for report in reports if report in rows] for pk, reports in standing.items()}
        return {pk: reports for pk, reports in shown.items() if reports}

    def person_of(self, national_keys: Iterable[str]) -> int:
        """The person who carries one of these keys (`gateway.identity.national_keys`); 0: nobody, or several do."""
        with self._database.read() as reader:
            found = reader.among("SELECT p.person FROM person_key k JOIN patient_person p ON p.patient = k.patient "
                                 "WHERE k.key IN ?*", [persons.digest(key) for key in national_keys])
        carriers = {person for person, in found}
        return carriers.pop() if len(carriers) == 1 else 0

    def lines(self, ids: Iterable[str]) -> dict[str, Line]:
        """Order lines by id; those that are not there are left out."""
        with self._database.read() as reader:
            return self._lines.by_id(reader, ids)

    def lines_of(self, person: int, item: str | None = None, since: int = 0, state: str | None = None) -> list[Line]:
        """A person's order lines that were made since a time in µs, newest first."""
        with self._database.read() as reader:
            return self._lines.of_person(reader, person, item, since, state)

    def lines_of_card(self, uuid: str) -> list[Line]:
        """The order lines that a card showed."""
        with self._database.read() as reader:
            return self._lines.of_card(reader, uuid)

    def lines_where(self, institution: str | None = None, state: str | None = None, since: int = 0,
                    until: int | None = None, limit: int = 100, after: str | None = None) -> list[Line]:
        """Order lines made from ``since`` to before ``until``, newest first; ``after``: id of the last one seen."""
        slugs = None if institution is None and state is None else \
            [institution] if institution is not None else self._institutions.slugs()
        numbers = None if slugs is None else [self._number(slug) for slug in slugs]
        with self._database.reading(), self._database.read() as reader:  # pages of several states, of one moment
            return self._lines.where(reader, numbers, state, since, until, limit, after)

    def events(self, line: str | None = None, after: int = 0, limit: int = 1000) -> list[LedgerEvent]:
        """Events after a number, in their order; of one line or of all."""
        with self._database.read() as reader:
            return self._lines.events(reader, line, after, limit)

    def verify_events(self, progress: Callable[[int, int], None] | None = None,
                      expect: tuple[int, str] | None = None) -> Verified:
        """Whether the chain of events and every order line are as they were written; changes nothing.

        ``expect``: number and hash (hexadecimal) of an event that was noted elsewhere before.
        """
        return verifying.Verification(self._database, self.codec, self._slug, progress or (lambda done, total: None),
                                      expect).run()

    def use_once(self, kind: str, value: str, expires: int) -> bool:
        """Whether this value was not used before, in any process; it is now, until ``expires`` (µs)."""
        return self._writer.submit("once", (persons.digest(f"{kind}\0{value}"), expires))

    def newest(self, resource_type: str) -> int:
        """When a resource of this type last changed, in µs; 0: there is none."""
        with self._database.read() as reader:
            row = reader.one("SELECT max(updated) FROM resource WHERE type = ?", (types.number_of(resource_type),))
        return row[0] or 0 if row else 0

    # ---------------------------------------------------------------- inbox, studies

    def inbox(self, status: str | None = None, limit: int = 100, before: int | None = None) -> list[InboxRow]:
        """What arrived, newest first; ``before``: an id."""
        with self._database.read() as reader:
            return inbox.rows(reader, self._slug, status, limit, before)

    def inbox_show(self, id: int) -> InboxRow | None:
        """One message with its raw bytes."""
        with self._database.read() as reader:
            found = inbox.show(reader, self._slug, self.codec, [id])
        return found[0] if found else None

    def inbox_raw(self, digest: bytes) -> InboxRow | None:
        """The stored message of these bytes (`gateway.source.message_digest`), with them; None for any other."""
        with self._database.read() as reader:
            inbox_id = inbox.original(reader, digest)
            found = inbox.show(reader, self._slug, self.codec, [inbox_id]) if inbox_id is not None else ()
        return found[0] if found else None

    def inbox_received(self) -> list[InboxRow]:
        """Messages that were recorded and that no living process works on: from now on this one does."""
        boot, living = self._database.boot, self._database.living() | {self._database.boot}
        ids = self._call(lambda transaction: inbox.take_over(transaction, living, boot))
        with self._noted.left() as arrivals:
            if arrivals:
                ids += self._call(lambda transaction: inbox.restore(transaction, arrivals, self._work.now, boot))
        with self._database.read() as reader:
            return inbox.show(reader, self._slug, self.codec, ids)

    def dirty_studies(self) -> list[DirtyStudy]:
        """Studies with instances that their ImagingStudy does not show yet, oldest first."""
        with self._database.read() as reader:
            return studies.dirty(reader, self._slug)

    def study_instances(self, key: int) -> list[dict[str, Any]]:
        """Facts of a study's instances, in the order in which they came."""
        with self._database.read() as reader:
            return studies.facts(reader, self.codec, key)

    def instance(self, sop_instance_uid: str, institution: str | None = None) -> Instance | None:
        """The stored object of a SOP Instance UID: the first that came, of one institution or of any."""
        found = self.instances(sop_instance_uid)
        return next((i for i in found if institution is None or i.institution == institution), None)

    def instances(self, sop_instance_uid: str, aside: bool = False) -> list[Instance]:
        """All stored objects of a SOP Instance UID; ``aside``: those that came later with other bytes."""
        with self._database.read() as reader:
            return studies.instances(reader, self.codec, self._slug, sop_instance_uid, not aside)

    def unmapped(self, institution: str | None = None) -> list[UnmappedRow]:
        """Codes that no map knows, the most frequent first."""
        with self._database.read() as reader:
            return inbox.unmapped(reader, self._slug, None if institution is None else self._number(institution))

    # ---------------------------------------------------------------- clients, audit, values

    def client_add(self, name: str, institution: str | None, scopes: Iterable[str]) -> str:
        """Returns the bearer token, which is kept nowhere. INVALID, CONFLICT."""
        client, token = Client(name, institution, tuple(scopes), time.time_ns() // 1000, None), clients.new_token()
        clients.check(client.name, client.scopes)
        self._call(lambda transaction: clients.add(transaction, client, clients.digest(token)))
        self._tokens.forget()
        return token

    def client_of(self, token: str) -> Caller | None:
        """Who carries a token; a revoked one works for at most ``clients.REMEMBERED`` seconds more."""
        digest = clients.digest(token)
        known, caller = self._tokens.remembered(digest)
        if known:
            return caller
        with self._database.read() as reader:
            return self._tokens.of(reader, digest)

    def client_list(self) -> list[Client]:
        """All clients, by name."""
        with self._database.read() as reader:
            return clients.listed(reader)

    def client_revoke(self, name: str) -> bool:
        """Whether there was such a client."""
        done = self._call(lambda transaction: clients.revoke(transaction, name, time.time_ns() // 1000))
        self._tokens.forget()
        return done

    def audit(self, access: Access) -> None:
        """Keep an access: durable within 100 ms and at close. BUSY when none could be kept for long."""
        self._audit.add(audit.row(access, time.time_ns() // 1000))

    def audit_rows(self, limit: int = 100, before: int | None = None) -> list[AuditRow]:
        """Accesses, newest first; ``before``: a time in µs."""
        self._audit.flush()
        return audit.rows(self._database, limit, before)

    def secret(self, name: str) -> bytes:
        """32 random bytes, made once for this database and the same in every process: for signing."""
        row, sql = f"secret:{name}", "SELECT value FROM meta WHERE name = ?"
        with self._database.read() as reader:
            found = reader.one(sql, (row,))

        def make(transaction: Transaction) -> str:
            transaction.insert("meta", ("name", "value"), [(row, random.token_hex(32))], ignore=True)
            kept = transaction.one(sql, (row,))
            assert kept is not None
            return kept[0]
        return bytes.fromhex(found[0] if found else self._call(make))

    def counts(self) -> dict[str, Any]:
        """How many: ``resources`` by type, ``inbox`` by status, ``persons``, ``studies``, ``instances``, ``bytes`` …"""
        until, counted = self._counts
        if until < time.monotonic():
            with self._database.read() as reader:
                counted = _counted(reader)
            counted["bytes"] = self._database.size()
            self._counts = (time.monotonic() + _COUNTED, counted)
        return counted

    # ---------------------------------------------------------------- index

    def reindex(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Make every index row anew; returns how many resources. Goes on where a killed one stopped."""
        done = reindexing.run(self._database, self.codec, self._call, progress or (lambda done, total: None))
        self._state = (0.0, True)
        self._call(lambda transaction: self._work.seen.clear())
        return done

    def _require_index(self) -> None:
        until, whole = self._state
        if until < time.monotonic():
            with self._database.read() as reader:
                whole = reindexing.whole(reader)
            self._state = (time.monotonic() + _STATE, whole)
        if not whole:
            raise busy("the search index is being rebuilt")

    # ---------------------------------------------------------------- institutions

    def institution_number(self, slug: str) -> int:
        """The number of an institution in the tables (``idx_resource.institution``); -1: it has no data."""
        return self._number(slug)

    def institutions(self) -> list[str]:
        """The slugs of the institutions that have data."""
        return self._institutions.slugs()


@lru_cache(maxsize=4096)
def _view(caller: Caller, resource_type: str) -> str | None:
    """The institution whose data alone this caller reads of a type, None: of all; FORBIDDEN where it may not read."""
    caller.require("r", resource_type)
    return caller.sees(resource_type, "r")


def _counted(reader: Reader) -> dict[str, Any]:
    def one(sql: str) -> int:
        row = reader.one(sql)
        return row[0] if row and row[0] else 0
    statuses = dict(reader.all("SELECT status, count(*) FROM inbox WHERE status <> 1 GROUP BY status"))
    statuses[inbox.STORED] = one("SELECT count(*) FROM inbox") - sum(statuses.values())
    return {
        "resources": {types.name_of(n): count for n, count in
                      reader.all("SELECT type, count(*) FROM resource GROUP BY type ORDER BY type")},
        "inbox": {name: statuses.get(n, 0) for n, name in enumerate(inbox.STATUSES)},
        "persons": one("SELECT count(DISTINCT person) FROM patient_person"),
        "studies": one("SELECT count(*) FROM study"),
        "instances": one("SELECT count(*) FROM instance"),
        "institutions": one("SELECT count(*) FROM institution") - 1,
        "clients": one("SELECT count(*) FROM client WHERE revoked IS NULL"),
        "unmapped": one("SELECT count(*) FROM unmapped"),
    }
