"""The journal of arrivals: recorded before they are read, without a transaction of their own."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import observation, put

from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.source import Unmapped
from gateway.store import Store, journal, open_store
from gateway.store.inbox import Arrival
from gateway.store.model import Inbound, Put, Receipt, Settlement, Unit

RAW = b"MSH|^~\\&|LIS|DEMO1|||202601020800||ORU^R01|1|P|2.3.1\r"


@pytest.fixture
def ready(store: Store) -> Store:
    """A store that has ids to give: a transaction took some."""
    put(store, observation("first", "p1"))
    return store


def _note(store: Store, raw: bytes = RAW) -> Inbound:
    return store.note(raw, "hl7v2", "10.0.0.1:4000", "1", "DEMO1")


def _settle(store: Store, inbound: Inbound, name: str = "o1", *codes: Unmapped) -> None:
    store.write(Unit([Put(observation(name, "p1"))],
                     Settlement(inbound.id, "stored", "hz", "ORU^R01", Receipt(inbound.id, resources=1, remark="r"),
                                list(codes))), GATEWAY)


def _refuse(store: Store, inbound: Inbound) -> Receipt:
    receipt = Receipt(inbound.id, "invalid", "send it", "OBR-4", "required")
    store.settle_refused(Settlement(inbound.id, "quarantined", "hz", "ORU^R01", receipt))
    return receipt


def _slots(settings: Settings) -> int:
    """How many slots are taken in the journals of a data folder."""
    return sum(file.read_bytes()[at:at + 4] != bytes(4) for file in (settings.data / "journal").glob("*-*")
               for at in range(0, journal.SLOT * journal.SLOTS, journal.SLOT))


def test_a_noted_message_gets_its_row_with_its_resources(ready: Store, settings: Settings) -> None:
    """No row before, then a whole one, as if it had been recorded; its slot is free again."""
    before = time.time_ns() // 1000
    inbound = _note(ready)
    assert (inbound.receipt, [], 1) == (None, ready.inbox(), _slots(settings))
    _settle(ready, inbound)
    row = ready.inbox_show(inbound.id)
    assert row is not None and row.settled is not None
    assert (RAW, "hl7v2", "10.0.0.1:4000", "1", "DEMO1", "hz", "ORU^R01", "stored", 1, Receipt(
        inbound.id, remark="r", resources=1)) == (row.raw, row.protocol, row.peer, row.control_id, row.facility,
                                                  row.institution, row.message_type, row.status, row.attempts,
                                                  row.receipt)
    assert before <= row.received <= row.settled and 0 == _slots(settings)


def test_the_first_message_of_all_is_recorded_at_once(store: Store) -> None:
    """There is no id to give yet; from then on there are, each given once."""
    first = _note(store)
    assert ["received"] == [row.status for row in store.inbox()]
    _settle(store, first)
    ids = [_note(store, b"%d" % n).id for n in range(20)]
    assert 21 == len({first.id, *ids}) and 1 == len(store.inbox())


def test_more_messages_than_ids(ready: Store) -> None:
    """Each transaction that needs them takes more: no two messages get one id."""
    ids = []
    for n in range(300):
        inbound = _note(ready, b"%d" % n)
        ids.append(inbound.id)
        _settle(ready, inbound, f"o{n}")
    assert 300 == len(set(ids)) == len(ready.inbox(limit=1000))


def test_a_resend_of_what_was_noted_and_stored_gets_the_first_receipt(ready: Store, settings: Settings) -> None:
    """As of what was recorded, by either way of asking; nothing is noted again."""
    first = _note(ready)
    _settle(ready, first)
    receipt = Receipt(first.id, resources=1, remark="r", resend=True)
    assert (Inbound(first.id, receipt),) * 2 == (_note(ready), ready.record(RAW, "hl7v2", "p"))
    assert 0 == _slots(settings) and 1 == len(ready.inbox())


def test_a_noted_message_that_is_refused_runs_again(ready: Store, settings: Settings) -> None:
    """It is in quarantine with its receipt; the same bytes again are another attempt."""
    first = _note(ready)
    receipt = _refuse(ready, first)
    [row] = ready.inbox("quarantined")
    assert (receipt, RAW, "hz") == (row.receipt, ready.inbox_show(first.id).raw, row.institution)  # type: ignore[union-attr]
    assert (first.id, None, 0) == (_note(ready).id, None, _slots(settings))
    _settle(ready, first)
    assert [("stored", 2)] == [(row.status, row.attempts) for row in ready.inbox()]


def test_a_conflict_leaves_the_message_noted(ready: Store, settings: Settings) -> None:
    """A unit that is refused writes no row; the refusal does."""
    put(ready, observation("held", "p1", "2"), as_of=20)
    inbound = _note(ready)
    unit = Unit([Put(observation("held", "p1", "1"), as_of=10)], Settlement(inbound.id, "stored", "hz", "ORU^R01"))
    with pytest.raises(Exception, match="conflict"):
        ready.write(unit, GATEWAY)
    assert ([], 1) == (ready.inbox(), _slots(settings))
    _refuse(ready, inbound)
    assert (["quarantined"], 0) == ([row.status for row in ready.inbox()], _slots(settings))


def test_the_same_bytes_at_the_same_moment(ready: Store, settings: Settings) -> None:
    """Many connections bring one message: one id, one row, its unmapped code counted once."""
    found: list[Inbound] = []

    def run() -> None:
        found.append(_note(ready))
        if found[-1].receipt is None:
            _settle(ready, found[-1], "o1", Unmapped("test", "GLU", "", "", "OBX-3"))
    threads = [threading.Thread(target=run) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 12 == len(found) and 1 == len({inbound.id for inbound in found}) == len(ready.inbox())
    assert [1] == [row.count for row in ready.unmapped()] and 0 == _slots(settings)


def test_two_processes_are_at_the_same_bytes(ready: Store, settings: Settings) -> None:
    """Both have noted them, under two ids: the row is that of the first to end, and stays stored."""
    other = open_store(settings)
    try:
        put(other, observation("second", "p1"))
        mine, theirs = _note(ready), _note(other)
        assert mine.id != theirs.id
        code = Unmapped("test", "GLU", "", "", "OBX-3")
        _settle(other, theirs, "o1", code)
        _settle(ready, mine, "o1", code)
        _refuse(ready, mine)
    finally:
        other.close()
    assert [(theirs.id, "stored")] == [(row.id, row.status) for row in ready.inbox()]
    assert [1] == [row.count for row in ready.unmapped()] and 0 == _slots(settings)
    assert 1 == ready.read("Observation", "o1", GATEWAY).version  # type: ignore[union-attr]


def test_what_cannot_be_settled_now_is_shown_as_received(ready: Store, settings: Settings) -> None:
    """`leave` writes its row when the database can be written to; it is settled under its id later."""
    inbound = _note(ready)
    ready.leave(inbound)
    deadline = time.monotonic() + 10
    while not ready.inbox() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [(inbound.id, "received")] == [(row.id, row.status) for row in ready.inbox()]
    ready.leave(inbound)  # nothing to do any more
    assert Inbound(inbound.id) == _note(ready)
    _settle(ready, inbound)
    assert [(inbound.id, "stored", 2)] == [(row.id, row.status, row.attempts) for row in ready.inbox()]
    assert 0 == _slots(settings)


def test_bytes_that_must_outlive_the_power_get_the_noted_id(ready: Store, settings: Settings) -> None:
    """The same message is recorded for good while its first copy is being worked on."""
    noted = _note(ready)
    assert Inbound(noted.id) == ready.record(RAW, "hl7v2", "p", durable=True)
    _settle(ready, noted)
    assert [(noted.id, "stored")] == [(row.id, row.status) for row in ready.inbox()]
    assert 0 == _slots(settings)


def test_what_a_slot_does_not_hold_is_recorded_at_once(ready: Store, settings: Settings) -> None:
    """A message that is too long for a slot, or that finds all taken."""
    long = _note(ready, os.urandom(journal.SLOT))
    assert ["received"] == [row.status for row in ready.inbox()]
    _settle(ready, long)
    noted = []
    while len(ready.inbox()) == 1:
        noted.append(_note(ready, b"%d" % len(noted)))
        if len(noted) % 20 == 0:
            put(ready, observation("more", "p1", str(len(noted))))  # takes ids
    assert journal.SLOTS == _slots(settings) == len(noted) - 1
    for inbound in noted:
        _settle(ready, inbound, f"o{inbound.id}")
    assert (0, {"stored"}, len(noted) + 1) == (_slots(settings), {row.status for row in ready.inbox(limit=1000)},
                                               len(ready.inbox(limit=1000)))


def test_without_a_journal_each_message_is_recorded_at_once(settings: Settings) -> None:
    """Where its folder cannot be made, say on a full disk, nothing is lost but time."""
    (settings.data / "journal").write_bytes(b"in the way")
    store = open_store(settings, migrate=True)
    try:
        put(store, observation("first", "p1"))
        inbound = _note(store)
        assert ["received"] == [row.status for row in store.inbox()]
        _settle(store, inbound)
        assert [] == store.inbox_received()
    finally:
        store.close()


def test_a_clean_end_leaves_no_file_behind_but_with_work_undone(settings: Settings) -> None:
    """What was noted and never settled is handed to the next start: once, as another attempt."""
    ready = open_store(settings, migrate=True)
    put(ready, observation("first", "p1"))
    settled, undone = _note(ready), _note(ready, b"undone")
    _settle(ready, settled)
    ready.close()
    assert 1 == _slots(settings)
    store = open_store(settings)
    try:
        [row] = store.inbox_received()
        assert (b"undone", "received", 2, "10.0.0.1:4000", "DEMO1") == \
            (row.raw, row.status, row.attempts, row.peer, row.facility)
        assert ([], []) == (store.inbox_received(), list((settings.data / "journal").iterdir()))
        _settle(store, Inbound(row.id), "o2")
        assert {settled.id, row.id} == {row.id for row in store.inbox("stored")} and undone.id != row.id
    finally:
        store.close()
    assert [] == list((settings.data / "journal").iterdir())


def _arrival(n: int) -> Arrival:
    return Arrival(bytes([n]) * 16, "hl7v2", "p", "id", "医院", 0, b"raw %d" % n, n)


@given(st.lists(st.tuples(st.integers(0, 5 * journal.SLOT), st.binary(min_size=1, max_size=40)), max_size=6))
def test_damaged_slots_are_passed_over(tmp_path_factory: pytest.TempPathFactory,
                                       damage: list[tuple[int, bytes]]) -> None:
    """A file that the power cut spoiled gives the arrivals that are whole, and nothing that nobody sent."""
    folder = tmp_path_factory.mktemp("journal")
    first = journal.Journal(folder)
    arrivals = [_arrival(n) for n in range(1, 6)]
    for arrival in arrivals:
        assert first.put(arrival) is not None
    first.close()
    [path] = folder.iterdir()
    content = bytearray(path.read_bytes())
    hit = set()
    for at, change in damage:
        content[at:at + len(change)] = change
        hit |= {at // journal.SLOT, (at + len(change) - 1) // journal.SLOT}
    path.write_bytes(content)
    with journal.Journal(folder).left() as found:
        assert set(found) <= set(arrivals)
        assert {a for n, a in enumerate(arrivals) if n not in hit} <= set(found)
    assert [] == list(folder.iterdir())


def test_a_file_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """A file without its last slots, and one without anything."""
    first = journal.Journal(tmp_path)
    first.put(_arrival(1))
    first.put(_arrival(2))
    first.close()
    first.close()  # as often as one likes
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:journal.SLOT + 7])
    (tmp_path / "1-none").write_bytes(b"")
    with journal.Journal(tmp_path).left() as found:
        assert [_arrival(1)] == found
