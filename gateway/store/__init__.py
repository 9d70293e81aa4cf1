"""The store: every transaction opens and closes here. It knows SQL and FHIR's outside, and no HL7.

Contract (the methods live on `Store`, in `gateway/store/store.py`; all blocking, all safe from many threads and
processes on one database):

    store = open_store(settings, migrate=False)   # INVALID: the schema is another (`huren migrate`) or the index is
    store.close()                                 # (`huren reindex`, which opens with reindex=True)

    # writing: calls return after the commit; concurrent calls share one commit (group commit)
    store.record(raw, protocol, peer, control_id="", facility="", durable=False) -> Inbound   # raw bytes outlive the
                                                                                 # process; durable: and the power
    store.note(raw, protocol, peer, control_id="", facility="") -> Inbound   # outlive the process; a row when settled
    store.keep(inbound) -> Inbound                                           # noted: a row now
    store.leave(inbound) -> None                                             # noted, BUSY: a row, when there can be one
    store.claim(stream, number, inbox_id) -> Numbered                        # sequence numbers (MSH-13)
    store.write(unit: Unit, caller: Caller) -> list[Written]                 # all or nothing; CONFLICT, FORBIDDEN, BUSY
    store.settle_refused(settlement: Settlement) -> None                         # quarantine
    store.put_instance(instance: Instance) -> str                                # "new", "same", "conflict"

    # reading: every method takes the caller; FORBIDDEN without a scope to read the type
    store.read(resource_type, id, caller) -> Row | None        # a deleted one is a Row with deleted=True
    store.vread(resource_type, id, version, caller) -> Row | None
    store.history(resource_type, id | None, caller, count, before: tuple[int, int] | None) -> list[Row]   # newest first
    store.rows(pks, caller) -> list[Row]                       # in the order of pks, without deleted ones
    store.standing([(type, id)]) -> dict[(type, id), Standing] # resource, version, as_of: to make the next version of
    store.parts(resource_type, whole) -> list[str]             # ids of `Source.id_within(whole, …)`, and look-alikes
    store.reading() -> context manager of a SQLAlchemy Connection for `gateway.search` (read-only transaction; BUSY
                                                               # while the index is rebuilt)
    store.persons_of(patient_ids) -> dict[str, int]            # Patient id → person key
    store.patients_of(person) -> list[str]
    store.institution_number(slug) -> int                      # idx_resource.institution; -1: has no data
    store.institutions() -> list[str]                          # slugs of those with data

    # inbox, studies, clients, audit, unmapped
    store.inbox(status=None, limit=100, before=None) -> list[InboxRow]; store.inbox_show(id) -> with raw, or None
    store.inbox_raw(digest) -> InboxRow | None                 # of these bytes, with raw, when it is stored
    store.inbox_received() -> list[InboxRow], with raw         # to run at start: what no living process works on
    store.dirty_studies() -> list[DirtyStudy]; store.study_instances(key) -> list[dict]   # facts
    store.instance(sop_instance_uid, institution=None) -> Instance | None; store.instances(uid, aside=False)
    store.client_add(name, institution, scopes) -> token; store.client_of(token) -> Caller | None
    store.client_list() -> list[Client]; store.client_revoke(name) -> bool
    store.audit(access) -> None                                # buffered, durable within 100 ms and at close
    store.audit_rows(limit=100, before=None) -> list[AuditRow]
    store.unmapped(institution=None) -> list[UnmappedRow]

    # recognition (`ledger.py`, `results.py`, `figures.py`); lines and events are written by ``write`` (Unit.ledger):
    # CONFLICT, detail "moved", where a line is not of the version read; unit.kept holds the events as they were kept
    store.results(person, items, since) -> list[Result]        # one indexed look-up; newest first within an item, those
                                                               # of unknown time (0) too, last
    store.references(pks) -> dict[int, str]                    # "Observation/…" by pk
    store.reports_of(pks, caller) -> dict[int, list[Row]]      # DiagnosticReports naming these Observations as result
    store.person_of(national_keys) -> int                      # of `identity.national_keys`; 0: nobody, or several
    store.lines(ids) -> dict[str, Line]
    store.lines_of(person, item=None, since=0, state=None) -> list[Line]   # newest first
    store.lines_of_card(uuid) -> list[Line]
    store.lines_where(institution=None, state=None, since=0, until=None, limit=100, after=None) -> list[Line]
                                                               # made from since to before until, newest first;
                                                               # after: id of the last one seen
    store.events(line=None, after=0, limit=1000) -> list[LedgerEvent]      # by seq
    store.verify_events(progress=None, expect=None) -> Verified            # the chain, every line against its events
    store.use_once(kind, value, expires) -> bool               # False: used before (a JWT's jti); expires in µs
    store.newest(resource_type) -> int                         # µs of the last change of this type; 0: none

    # tables for `figures.py` (`schema.py`): figure (integer measures of a cell, columns MEASURES: change them as you
    # need), counted (line.pk → what was counted), watermark in meta; ``store._call(work)`` runs work(transaction) in
    # the writer; ``event.line`` is line.pk. Upserts: INSERT … ON CONFLICT (…) DO UPDATE SET n = figure.n + excluded.n

    store.objects -> Objects (put, adopt(file, key), get, range, open, size, delete, staging) over obstore
    store.secret(name) -> bytes                                # made once for a database: to sign cursors with
    store.reindex(progress=None) -> int
    store.counts() -> dict for /metrics, start page and `doctor`
"""

from __future__ import annotations

from gateway.store.store import Store, open_store

__all__ = ["Store", "open_store"]
