"""The store: every transaction opens and closes here. It knows SQL and FHIR's outside, and no HL7.

Contract (the methods live on `Store`, in `gateway/store/store.py`; all blocking, all safe from many threads and
processes on one database):

    store = open_store(settings, migrate=False)     # INVALID when the schema is older or newer: says `huren migrate`
    store.close()

    # writing: calls return after the commit; concurrent calls share one commit (group commit)
    store.record(raw, protocol, peer, control_id="", facility="") -> Inbound     # raw bytes durable
    store.write(unit: Unit, caller: Caller) -> list[Written]                     # all or nothing; CONFLICT, FORBIDDEN, BUSY
    store.settle_refused(settlement: Settlement) -> None                         # quarantine
    store.put_instance(instance: Instance) -> str                                # "new", "same", "conflict"

    # reading: every method takes the caller
    store.read(resource_type, id, caller) -> Row | None        # a deleted one is a Row with deleted=True
    store.vread(resource_type, id, version, caller) -> Row | None
    store.history(resource_type, id | None, caller, count, before: tuple[int, int] | None) -> list[Row]   # newest first
    store.rows(pks, caller) -> list[Row]                       # in the order of pks
    store.reading() -> context manager of a SQLAlchemy Connection for `gateway.search` (read-only transaction)
    store.persons_of(patient_ids) -> dict[str, int]            # Patient id → person key

    # inbox, studies, clients, audit, unmapped
    store.inbox(status=None, limit=…, before=None), store.inbox_show(id) (with raw), store.inbox_received() (to run at start)
    store.dirty_studies() -> list[DirtyStudy]; store.study_instances(key) -> list[dict]   # facts
    store.instance(sop_instance_uid) …
    store.client_add(name, institution, scopes) -> token; store.client_of(token) -> Caller | None; client_list; client_revoke
    store.audit(access) -> None                                # buffered, durable within 100 ms and at close
    store.unmapped(institution=None) -> rows with counts
    store.objects -> Objects (put, adopt(file, key), get, open, delete) over obstore
    store.counts() -> dict for /metrics, start page and `doctor`
"""

from __future__ import annotations

from gateway.store.store import Store, open_store

__all__ = ["Store", "open_store"]
