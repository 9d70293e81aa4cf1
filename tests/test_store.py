"""What the store promises, on SQLite and PostgreSQL (`gateway/store/README.md`)."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from store_samples import HZ, NB, SYSTEM, observation, patient, put

from gateway.caller import GATEWAY, Caller
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.fhir.resource import text
from gateway.store import Store
from gateway.store.model import Access, Delete, Put, Row, Unit, Written


def _content(row: Row | None) -> dict[str, Any]:
    assert row is not None and not row.deleted
    return json.loads(text(row.resource_type, row.id, row.version, row.updated, row.tail))


def _refused(store: Store, unit: Unit, caller: Caller = GATEWAY) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        store.write(unit, caller)
    return caught.value


# -------------------------------------------------------------------- versions


def test_what_is_put_is_read(store: Store) -> None:
    """A created resource is version 1 and reads back as it was put, with exact decimals."""
    resource = observation("o1", "p1", "1.50")
    [written] = put(store, resource, institution="hz")
    row = store.read("Observation", "o1", GATEWAY)
    assert ("created", 1) == (written.outcome, written.version)
    assert row is not None
    assert ("Observation", "o1", 1, False, "hz") == (row.resource_type, row.id, row.version, row.deleted,
                                                    row.institution)
    assert written.updated == row.updated
    assert b'"value":1.50' in row.tail
    read = _content(row)
    del read["meta"]
    assert resource == read


def test_uuid_and_other_ids_read_back(store: Store) -> None:
    """Ids keep their letters: canonical uuids, upper-case ones, and texts as long as a uuid's bytes."""
    ids = ["11111111-2222-3333-4444-55555555abcd", "11111111-2222-3333-4444-55555555ABCD", "a" * 16, "a" * 17, "a",
           "A.b-c", "x" * 64]
    for n, resource_id in enumerate(ids):
        put(store, observation(resource_id, "p1", str(n)))
    rows = [store.read("Observation", resource_id, GATEWAY) for resource_id in ids]
    assert ids == [row and row.id for row in rows]
    assert list(range(len(ids))) == [_content(row)["valueQuantity"]["value"] for row in rows]


def test_same_content_changes_nothing(store: Store) -> None:
    """A resend leaves version, time and history as they were."""
    [first] = put(store, observation("o1", "p1"))
    [second] = put(store, observation("o1", "p1"))
    assert ("unchanged", 1, first.updated) == (second.outcome, second.version, second.updated)
    assert 1 == len(store.history("Observation", "o1", GATEWAY, 10))


def test_other_content_is_the_next_version(store: Store) -> None:
    """An update keeps the former version readable."""
    put(store, observation("o1", "p1", "1"))
    [second] = put(store, observation("o1", "p1", "2"))
    assert ("updated", 2) == (second.outcome, second.version)
    assert 2 == _content(store.read("Observation", "o1", GATEWAY))["valueQuantity"]["value"]
    assert 1 == _content(store.vread("Observation", "o1", 1, GATEWAY))["valueQuantity"]["value"]
    assert 2 == _content(store.vread("Observation", "o1", 2, GATEWAY))["valueQuantity"]["value"]
    assert store.vread("Observation", "o1", 3, GATEWAY) is None
    assert store.vread("Observation", "o1", 0, GATEWAY) is None


def test_a_different_precision_is_different_content(store: Store) -> None:
    """1.5 and 1.50 are different results (datatypes.html#decimal)."""
    put(store, observation("o1", "p1", "1.5"))
    [second] = put(store, observation("o1", "p1", "1.50"))
    assert "updated" == second.outcome


def test_deletion_is_a_version_and_can_be_undone_by_a_put(store: Store) -> None:
    """A deleted resource reads as deleted; a put over it is the next version; deleting twice is no error."""
    put(store, observation("o1", "p1"))
    [deleted] = store.write(Unit([Delete("Observation", "o1")]), GATEWAY)
    row = store.read("Observation", "o1", GATEWAY)
    assert ("deleted", 2) == (deleted.outcome, deleted.version)
    assert row is not None and row.deleted and row.tail == b""
    [again] = store.write(Unit([Delete("Observation", "o1")]), GATEWAY)
    assert ("absent", 2) == (again.outcome, again.version)
    [third] = put(store, observation("o1", "p1"))
    assert ("created", 3) == (third.outcome, third.version)
    assert [3, 2, 1] == [r.version for r in store.history("Observation", "o1", GATEWAY, 10)]
    assert [False, True, False] == [r.deleted for r in store.history("Observation", "o1", GATEWAY, 10)]


def test_deleting_what_never_was(store: Store) -> None:
    """No error and no version."""
    [written] = store.write(Unit([Delete("Observation", "nobody")]), GATEWAY)
    assert Written("Observation", "nobody", 0, 0, "absent") == written
    assert store.read("Observation", "nobody", GATEWAY) is None


def test_history_pages_walk_every_version_once(store: Store) -> None:
    """Newest first, over all resources of a type, with the last row as the mark of the next page."""
    for value in range(3):
        for n in range(4):
            put(store, observation(f"o{n}", "p1", str(value)))
    store.write(Unit([Delete("Observation", "o2")]), GATEWAY)
    walked: list[Row] = []
    before = None
    while page := store.history("Observation", None, GATEWAY, 3, before):
        walked += page
        before = page[-1].updated, page[-1].pk
    assert 13 == len(walked) == len({(row.id, row.version) for row in walked})
    assert sorted(walked, key=lambda row: (row.updated, row.pk), reverse=True) == walked
    assert walked[0].deleted


def test_times_of_versions_ascend(store: Store) -> None:
    """Each version is later than the one before, also where one unit follows the other at once."""
    for value in range(20):
        put(store, observation("o1", "p1", str(value)))
    times = [row.updated for row in store.history("Observation", "o1", GATEWAY, 50)]
    assert 20 == len(set(times))
    assert sorted(times, reverse=True) == times


def test_rows_come_in_the_order_asked(store: Store) -> None:
    """Hundreds of rows by key, in order, without those that are deleted or never were."""
    store.write(Unit([Put(observation(f"o{n}", "p1", str(n))) for n in range(400)]), GATEWAY)
    pks = {n: store.read("Observation", f"o{n}", GATEWAY).pk for n in range(400)}  # type: ignore[union-attr]
    store.write(Unit([Delete("Observation", "o7")]), GATEWAY)
    order = [pks[n] for n in reversed(range(400))]
    rows = store.rows([*order, 10**9], GATEWAY)
    assert [f"o{n}" for n in reversed(range(400)) if n != 7] == [row.id for row in rows]
    assert [] == store.rows([], GATEWAY)


# -------------------------------------------------------------------- all or nothing, conflicts


def test_a_refused_unit_leaves_no_trace(store: Store) -> None:
    """The operations before the refused one are not there either."""
    put(store, observation("o2", "p1", "2"), as_of=20)
    error = _refused(store, Unit([Put(observation("o1", "p1")), Put(observation("o2", "p1", "1"), as_of=10)]))
    assert (Category.CONFLICT, "older") == (error.category, error.detail)
    assert store.read("Observation", "o1", GATEWAY) is None
    assert {} == store.persons_of(["other"])


def test_neighbours_of_a_refused_unit_are_stored(store: Store) -> None:
    """Units that share a commit with a refused one do not feel it."""
    put(store, observation("held", "p1", "2"), as_of=20)
    outcomes: dict[int, str] = {}

    def one(n: int) -> None:
        operations = [Put(observation(f"o{n}", "p1", str(n)))]
        if n % 3 == 0:
            operations.append(Put(observation("held", "p1", "1"), as_of=10))
        try:
            store.write(Unit(operations), GATEWAY)  # type: ignore[arg-type]
            outcomes[n] = "stored"
        except GatewayError as error:
            outcomes[n] = error.category.value
    threads = [threading.Thread(target=one, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: "stored" if n % 3 else "conflict" for n in range(30)} == outcomes
    assert [n % 3 != 0 for n in range(30)] == [store.read("Observation", f"o{n}", GATEWAY) is not None
                                              for n in range(30)]


def test_one_resource_several_times_in_a_unit(store: Store) -> None:
    """Each operation of a unit sees those before it."""
    written = store.write(Unit([Put(observation("o1", "p1", "1")), Put(observation("o1", "p1", "1")),
                                Put(observation("o1", "p1", "2")), Delete("Observation", "o1"),
                                Put(observation("o1", "p1", "3"))]), GATEWAY)
    assert [("created", 1), ("unchanged", 1), ("updated", 2), ("deleted", 3), ("created", 4)] == \
        [(w.outcome, w.version) for w in written]
    assert [4, 3, 2, 1] == [row.version for row in store.history("Observation", "o1", GATEWAY, 10)]
    assert 3 == _content(store.read("Observation", "o1", GATEWAY))["valueQuantity"]["value"]


def test_older_content_is_refused_or_skipped(store: Store) -> None:
    """What is valid as of an earlier time does not undo the later: CONFLICT, or skipped where the Put says so."""
    put(store, observation("o1", "p1", "2"), as_of=20)
    assert Category.CONFLICT is _refused(store, Unit([Put(observation("o1", "p1", "1"), as_of=10)])).category
    [skipped] = store.write(Unit([Put(observation("o1", "p1", "1"), as_of=10, on_older="skip")]), GATEWAY)
    assert ("skipped", 1) == (skipped.outcome, skipped.version)
    [same_time] = put(store, observation("o1", "p1", "3"), as_of=20)
    assert "updated" == same_time.outcome


def test_older_but_equal_content_is_unchanged(store: Store) -> None:
    """A late resend of what we hold is no conflict."""
    put(store, observation("o1", "p1", "2"), as_of=20)
    [written] = put(store, observation("o1", "p1", "2"), as_of=10)
    assert "unchanged" == written.outcome


def test_equal_content_confirms_the_later_time(store: Store) -> None:
    """Content that came again as of 30 is not undone by other content as of 25."""
    put(store, patient("p1"), as_of=10)
    put(store, patient("p1"), as_of=30)
    error = _refused(store, Unit([Put(patient("p1", family="Old"), as_of=25)]))
    assert Category.CONFLICT is error.category


def test_a_time_stays_where_an_update_names_none(store: Store) -> None:
    """An update by REST has no ``as_of``; an older message still does not undo it."""
    put(store, observation("o1", "p1", "1"), as_of=20)
    put(store, observation("o1", "p1", "2"))
    assert Category.CONFLICT is _refused(store, Unit([Put(observation("o1", "p1", "3"), as_of=10)])).category


@pytest.mark.parametrize("if_match, outcome", [(1, "updated"), (2, "precondition"), (0, "precondition"),
                                               (None, "updated")])
def test_if_match_of_an_existing_one(store: Store, if_match: int | None, outcome: str) -> None:
    """The version named must be the current one (http.html#concurrency); 0: it must not exist."""
    put(store, observation("o1", "p1", "1"))
    unit = Unit([Put(observation("o1", "p1", "2"), if_match=if_match)])
    if outcome == "precondition":
        error = _refused(store, unit)
        assert (Category.CONFLICT, "precondition") == (error.category, error.detail)
    else:
        assert outcome == store.write(unit, GATEWAY)[0].outcome


def test_if_match_of_an_absent_or_deleted_one(store: Store) -> None:
    """0 creates; any other number refuses, for updates and deletions; a deleted one counts as absent."""
    assert "precondition" == _refused(store, Unit([Put(observation("o1", "p1"), if_match=1)])).detail
    [created] = store.write(Unit([Put(observation("o1", "p1"), if_match=0)]), GATEWAY)
    assert "precondition" == _refused(store, Unit([Delete("Observation", "o1", if_match=7)])).detail
    store.write(Unit([Delete("Observation", "o1", if_match=1)]), GATEWAY)
    assert "precondition" == _refused(store, Unit([Put(observation("o1", "p1"), if_match=2)])).detail
    [again] = store.write(Unit([Put(observation("o1", "p1"), if_match=0)]), GATEWAY)
    assert (1, 3) == (created.version, again.version)


def test_only_one_of_many_wins_a_version(store: Store) -> None:
    """Concurrent updates that name the same version: one is stored, all others get the precondition."""
    put(store, observation("o1", "p1", "0"))
    results: list[str] = []

    def one(n: int) -> None:
        try:
            results.append(store.write(Unit([Put(observation("o1", "p1", str(n)), if_match=1)]), GATEWAY)[0].outcome)
        except GatewayError as error:
            results.append(error.detail)
    threads = [threading.Thread(target=one, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["precondition"] * 7 + ["updated"] == sorted(results)


# -------------------------------------------------------------------- who may


def test_an_institution_sees_and_writes_its_own(store: Store) -> None:
    """A client of one institution neither reads nor writes another's data."""
    put(store, observation("hz", "p1", "1"), institution="hz")
    put(store, observation("nb", "p1", "2"), institution="nb")
    put(store, observation("ours", "p1", "2"))
    assert store.read("Observation", "hz", HZ) is not None
    assert store.read("Observation", "nb", HZ) is None
    assert store.read("Observation", "ours", HZ) is None
    assert store.vread("Observation", "nb", 1, HZ) is None
    assert ["hz"] == [row.id for row in store.history("Observation", None, HZ, 10)]
    assert [] == store.history("Observation", "nb", HZ, 10)
    pks = [store.read("Observation", n, GATEWAY).pk for n in ("nb", "hz", "ours")]  # type: ignore[union-attr]
    assert ["hz"] == [row.id for row in store.rows(pks, HZ)]
    for unit in (Unit([Put(observation("nb", "p1", "3"))]), Unit([Put(observation("nb", "p1", "3"), "hz")]),
                 Unit([Put(observation("new", "p1"), "nb")]), Unit([Delete("Observation", "nb")]),
                 Unit([Put(observation("ours", "p1", "3"))])):
        assert Category.FORBIDDEN is _refused(store, unit, HZ).category
    [created] = store.write(Unit([Put(observation("new", "p1"))]), HZ)
    row = store.read("Observation", "new", NB) or store.read("Observation", "new", HZ)
    assert "created" == created.outcome
    assert row is not None and row.institution == "hz"
    store.write(Unit([Put(observation("hz", "p1", "9")), Delete("Observation", "new")]), HZ)


def test_scopes_are_required(store: Store) -> None:
    """Without a scope for the interaction nothing is read or written; an institution scope without one sees nothing."""
    put(store, observation("o1", "p1", "1"))
    reader = Caller("reader", None, ("system/Observation.rs",))
    assert store.read("Observation", "o1", reader) is not None
    for call in (lambda: store.read("Patient", "p1", reader),
                 lambda: store.write(Unit([Put(observation("o1", "p1", "2"))]), reader),
                 lambda: store.write(Unit([Delete("Observation", "o1")]), reader)):
        with pytest.raises(GatewayError) as caught:
            call()
        assert Category.FORBIDDEN is caught.value.category
    nowhere = Caller("nowhere", None, ("institution/*.cruds",))
    assert store.read("Observation", "o1", nowhere) is None
    assert Category.FORBIDDEN is _refused(store, Unit([Put(observation("o2", "p1"))]), nowhere).category


def test_an_unknown_type_is_not_found(store: Store) -> None:
    """A type that R4 does not have."""
    with pytest.raises(GatewayError) as caught:
        store.read("Observatoin", "o1", GATEWAY)
    assert Category.NOT_FOUND is caught.value.category


# -------------------------------------------------------------------- clients, audit, values


def test_a_token_works_until_it_is_revoked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is shown once, kept as a digest, and dead after a revoke, at once in the process that revoked."""
    token = store.client_add("his", "hz", ["institution/*.rs", "system/Patient.r"])
    assert Caller("his", "hz", ("institution/*.rs", "system/Patient.r")) == store.client_of(token)
    assert store.client_of(token + "x") is None
    [client] = store.client_list()
    assert ("his", "hz", None) == (client.name, client.institution, client.revoked)
    with pytest.raises(GatewayError) as caught:
        store.client_add("his", None, ["system/*.rs"])
    assert Category.CONFLICT is caught.value.category
    assert store.client_revoke("his") and not store.client_revoke("his")
    assert store.client_of(token) is None
    assert store.client_list()[0].revoked is not None
    assert store.client_of(store.client_add("his", None, ["system/*.rs"])) == Caller("his", None, ("system/*.rs",))


def test_a_revoke_elsewhere_works_within_seconds(store: Store, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that has seen the token forgets it after ``REMEMBERED`` seconds."""
    from gateway.store import clients, open_store
    monkeypatch.setattr(clients, "REMEMBERED", 0.2)
    token = store.client_add("his", None, ["system/*.rs"])
    other = open_store(settings)
    try:
        assert other.client_of(token) is not None
        store.client_revoke("his")
        time.sleep(0.25)
        assert other.client_of(token) is None
    finally:
        other.close()


@pytest.mark.parametrize("name, scopes", [("", ["system/*.rs"]), ("his", ["everything"]), ("his", ["user/*.rs"])])
def test_a_client_that_cannot_be(store: Store, name: str, scopes: list[str]) -> None:
    """INVALID, and nothing is stored."""
    with pytest.raises(GatewayError) as caught:
        store.client_add(name, None, scopes)
    assert Category.INVALID is caught.value.category
    assert [] == store.client_list()


def test_audit_rows_are_durable_soon_and_at_close(store: Store, settings: Any) -> None:
    """An access is committed within 100 ms or so, with its persons; one just before the close is kept too."""
    from gateway.store import open_store
    access = Access("his", "hz", "read", "Observation/o1", 200, "10.0.0.1", (1, 2))
    store.audit(access)
    other = open_store(settings)
    try:
        deadline = time.monotonic() + 5
        while not other.audit_rows() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [access] == [row.access for row in other.audit_rows()]
        other.audit(Access("his", None, "search", "Patient?name=\0", 200))
    finally:
        other.close()
    assert ["search", "read"] == [row.access.action for row in store.audit_rows()]


def test_a_write_leaves_its_audit_row(store: Store) -> None:
    """The row of a unit names the persons whose data changed; a refused unit has none from the store."""
    access = Access("mllp:HZ", "hz", "receive", "inbox/1", 200)
    store.write(Unit([Put(patient("p1")), Put(observation("o1", "p1"))], access=access), GATEWAY)
    person = store.persons_of(["p1"])["p1"]
    [row] = store.audit_rows()
    assert ("receive", (person,)) == (row.access.action, row.access.persons)


def test_secrets_are_made_once(store: Store, settings: Any) -> None:
    """Every process of a database gets the same secret; another name another one."""
    from gateway.store import open_store
    secret = store.secret("cursor")
    other = open_store(settings)
    try:
        assert secret == other.secret("cursor")
    finally:
        other.close()
    assert 32 == len(secret)
    assert secret != store.secret("other")


def test_counts(store: Store) -> None:
    """Figures of what is stored."""
    store.write(Unit([Put(patient("p1"), "hz"), Put(observation("o1", "p1"), "hz")]), GATEWAY)
    store.record(b"MSH|", "hl7v2", "10.0.0.1")
    counts = store.counts()
    assert {"Observation": 1, "Patient": 1} == counts["resources"]
    assert {"received": 1, "stored": 0, "quarantined": 0} == counts["inbox"]
    assert (1, 1) == (counts["persons"], counts["institutions"])
    assert counts["bytes"] > 0


def test_the_callers_of_one_name_are_the_same(store: Store) -> None:
    """A system-level client reads every institution's data."""
    put(store, observation("hz", "p1", "1"), institution="hz")
    assert store.read("Observation", "hz", SYSTEM) is not None


def test_a_resource_created_and_confirmed_in_one_unit(store: Store) -> None:
    """A unit may bring the same content twice: it is created, with the later time."""
    written = store.write(Unit([Put(patient("p1")), Put(patient("p1"), as_of=30)]), GATEWAY)
    assert ["created", "unchanged"] == [w.outcome for w in written]
    assert store.read("Patient", "p1", GATEWAY) is not None
    assert Category.CONFLICT is _refused(store, Unit([Put(patient("p1", family="Old"), as_of=25)])).category


def test_what_belongs_to_no_person_is_confirmed_at_most_hourly(store: Store) -> None:
    """An Organization that comes with every message is not written with every message."""
    hour = 3_600_000_000
    organization = {"resourceType": "Organization", "id": "x", "name": "A"}
    put(store, organization, as_of=hour)
    for as_of, stored in ((hour + 1, hour), (2 * hour, hour), (2 * hour + 1, 2 * hour + 1)):
        put(store, organization, as_of=as_of)
        with store._database.read() as reader:
            assert (stored,) == reader.one("SELECT as_of FROM resource")
