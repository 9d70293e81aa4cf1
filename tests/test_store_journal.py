"""The journal of arrivals: recorded before they are read, without a transaction of their own."""

from __future__ import annotations

import fcntl
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
from gateway.store.inbox import Arrival, arrival
from gateway.store.model import Access, Inbound, Put, Receipt, Settlement, Unit
from gateway.store.units import task
from gateway.store.writer import Job

RAW = b"MSH|^~\\&|LIS|DEMO1|||202601020800||ORU^R01|1|P|2.3.1\r"


def _note(store: Store, raw: bytes = RAW) -> Inbound:
    return store.note(raw, "hl7v2", "10.0.0.1:4000", "1", "DEMO1")


def _settle(store: Store, inbound: Inbound, name: str = "o1", *codes: Unmapped) -> int:
    """The id of its row."""
    settlement = Settlement(inbound.id, "stored", "hz", "ORU^R01", Receipt(inbound.id, resources=1, remark="r"),
                            list(codes))
    store.write(Unit([Put(observation(name, "p1"))], settlement), GATEWAY)
    assert settlement.receipt is not None and settlement.receipt.inbox_id == settlement.inbox_id > 0
    return settlement.inbox_id


def _refuse(store: Store, inbound: Inbound) -> Receipt:
    settlement = Settlement(inbound.id, "quarantined", "hz", "ORU^R01",
                            Receipt(inbound.id, "invalid", "send it", "OBR-4", "required"))
    store.settle_refused(settlement)
    assert settlement.receipt is not None and settlement.receipt.inbox_id == settlement.inbox_id > 0
    return settlement.receipt


def _slots(settings: Settings) -> int:
    """How many slots are taken in the journals of a data folder."""
    return sum(file.read_bytes()[at:at + 4] != bytes(4) for file in (settings.data / "journal").glob("*-*")
               for at in range(0, journal.SLOT * journal.SLOTS, journal.SLOT))


def test_a_noted_message_gets_its_row_with_its_resources(store: Store, settings: Settings) -> None:
    """No row before, then a whole one, as if it had been recorded; its slot is free again."""
    before = time.time_ns() // 1000
    inbound = _note(store)
    assert (inbound.receipt, [], 1) == (None, store.inbox(), _slots(settings))
    inbox_id = _settle(store, inbound)
    row = store.inbox_show(inbox_id)
    assert row is not None and row.settled is not None
    assert (RAW, "hl7v2", "10.0.0.1:4000", "1", "DEMO1", "hz", "ORU^R01", "stored", 1, Receipt(
        inbox_id, remark="r", resources=1)) == (row.raw, row.protocol, row.peer, row.control_id, row.facility,
                                                  row.institution, row.message_type, row.status, row.attempts,
                                                  row.receipt)
    assert before <= row.received <= row.settled and 0 == _slots(settings)


def test_ids_are_in_the_order_in_which_messages_ended(store: Store) -> None:
    """However they were begun; several of one transaction have each their own."""
    noted = [_note(store, b"%d" % n) for n in range(30)]
    assert all(inbound.id < 0 for inbound in noted) and 30 == len({inbound.id for inbound in noted})
    for inbound in noted[:1:-1]:
        _settle(store, inbound)
    threads = [threading.Thread(target=_settle, args=(store, inbound, "o2")) for inbound in noted[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [store.inbox_show(row.id) for row in store.inbox(limit=1000)][::-1]
    assert list(range(1, 31)) == [row.id for row in found if row]
    assert [b"%d" % n for n in range(29, 1, -1)] == [row.raw for row in found if row][:28]


def test_the_audit_names_the_row(store: Store) -> None:
    """The access of a unit that settles a noted message is to its row."""
    _settle(store, _note(store, b"before"))
    inbound = _note(store)
    store.write(Unit([], Settlement(inbound.id, "stored", "hz", "ORU^R01", Receipt(inbound.id)),
                     access=Access("mllp:HZ", "hz", "receive", "inbox", 200)), GATEWAY)
    assert ["inbox/2"] == [row.access.target for row in store.audit_rows()]


def test_a_resend_of_what_was_noted_and_stored_gets_the_first_receipt(store: Store, settings: Settings) -> None:
    """As of what was recorded, by either way of asking; nothing is noted again."""
    inbox_id = _settle(store, _note(store))
    receipt = Receipt(inbox_id, resources=1, remark="r", resend=True)
    assert (Inbound(inbox_id, receipt),) * 2 == (_note(store), store.record(RAW, "hl7v2", "p"))
    assert 0 == _slots(settings) and 1 == len(store.inbox())


def test_a_noted_message_that_is_refused_runs_again(store: Store, settings: Settings) -> None:
    """It is in quarantine with its receipt; the same bytes again are another attempt."""
    receipt = _refuse(store, _note(store))
    [row] = store.inbox("quarantined")
    assert (receipt, RAW, "hz") == (row.receipt, store.inbox_show(row.id).raw, row.institution)  # type: ignore[union-attr]
    again = _note(store)
    assert (Inbound(row.id), 0) == (again, _slots(settings))
    assert row.id == _settle(store, again)
    assert [("stored", 2)] == [(row.status, row.attempts) for row in store.inbox()]


def test_a_conflict_leaves_the_message_noted(store: Store, settings: Settings) -> None:
    """A unit that is refused writes no row; the refusal does."""
    put(store, observation("held", "p1", "2"), as_of=20)
    inbound = _note(store)
    unit = Unit([Put(observation("held", "p1", "1"), as_of=10)], Settlement(inbound.id, "stored", "hz", "ORU^R01"))
    with pytest.raises(Exception, match="conflict"):
        store.write(unit, GATEWAY)
    assert ([], 1) == (store.inbox(), _slots(settings))
    _refuse(store, inbound)
    assert (["quarantined"], 0) == ([row.status for row in store.inbox()], _slots(settings))


def test_the_same_bytes_at_the_same_moment(store: Store, settings: Settings) -> None:
    """Many connections bring one message: one id, one row, its unmapped code counted once."""
    found: list[int] = []

    def run() -> None:
        inbound = _note(store)
        found.append(inbound.receipt.inbox_id if inbound.receipt else _settle(
            store, inbound, "o1", Unmapped("test", "GLU", "", "", "OBX-3")))
    threads = [threading.Thread(target=run) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [1] * 12 == found and [1] == [row.id for row in store.inbox()]
    assert [1] == [row.count for row in store.unmapped()] and 0 == _slots(settings)


def test_two_processes_are_at_the_same_bytes(store: Store, settings: Settings) -> None:
    """Both have noted them: the row is that of the first to end, and stays stored."""
    other = open_store(settings)
    try:
        mine, theirs = _note(store), _note(other)
        code = Unmapped("test", "GLU", "", "", "OBX-3")
        inbox_id = _settle(other, theirs, "o1", code)
        assert inbox_id == _settle(store, mine, "o1", code) == _refuse(store, mine).inbox_id
    finally:
        other.close()
    assert [(inbox_id, "stored")] == [(row.id, row.status) for row in store.inbox()]
    assert [1] == [row.count for row in store.unmapped()] and 0 == _slots(settings)
    assert 1 == store.read("Observation", "o1", GATEWAY).version  # type: ignore[union-attr]


def test_what_cannot_be_settled_now_is_shown_as_received(store: Store, settings: Settings) -> None:
    """`leave` writes its row when the database can be written to; it is settled there later, by either id."""
    inbound = _note(store)
    store.leave(inbound)
    deadline = time.monotonic() + 10
    while not store.inbox() and time.monotonic() < deadline:
        time.sleep(0.01)
    [row] = store.inbox()
    assert (RAW, "received") == (store.inbox_show(row.id).raw, row.status)  # type: ignore[union-attr]
    store.leave(inbound)  # nothing to do any more
    assert inbound == store.keep(inbound) and Inbound(row.id) == _note(store)
    assert row.id == _settle(store, inbound) == _refuse(store, Inbound(row.id)).inbox_id
    assert [(row.id, "stored", 2)] == [(row.id, row.status, row.attempts) for row in store.inbox()]
    assert 0 == _slots(settings)


def test_a_noted_message_may_be_recorded_meanwhile(store: Store, settings: Settings) -> None:
    """Because what it is asks for it (`keep`), or for good, as a copy of it that is acknowledged before it is read."""
    noted = _note(store)
    recorded = store.record(RAW, "hl7v2", "p", durable=True)
    assert recorded.id > 0 and 0 == _slots(settings)
    assert recorded.id == _settle(store, noted)
    other = _note(store, b"other")
    kept = store.keep(other)
    assert kept == store.keep(kept) and kept.id == _settle(store, kept, "o2") == _settle(store, other, "o2")
    store.inbox_show(kept.id)
    assert [(kept.id, "stored"), (recorded.id, "stored")] == [(row.id, row.status) for row in store.inbox()]
    assert 0 == _slots(settings)


def test_what_a_slot_does_not_hold_is_recorded_at_once(store: Store, settings: Settings) -> None:
    """A message that is too long for a slot, or that finds all taken."""
    long = _note(store, os.urandom(journal.SLOT))
    assert ["received"] == [row.status for row in store.inbox()]
    _settle(store, long)
    noted: list[Inbound] = []
    while len(store.inbox()) == 1:
        noted.append(_note(store, b"%d" % len(noted)))
    assert journal.SLOTS == _slots(settings) == len(noted) - 1
    for inbound in noted:
        _settle(store, inbound, f"o{abs(inbound.id)}")
    assert (0, {"stored"}, len(noted) + 1) == (_slots(settings), {row.status for row in store.inbox(limit=1000)},
                                               len(store.inbox(limit=1000)))


def test_without_a_journal_each_message_is_recorded_at_once(settings: Settings) -> None:
    """Where its folder cannot be made, say on a full disk, nothing is lost but time."""
    (settings.data / "journal").write_bytes(b"in the way")
    store = open_store(settings, migrate=True)
    try:
        inbound = _note(store)
        assert ["received"] == [row.status for row in store.inbox()]
        _settle(store, inbound)
        assert [] == store.inbox_received()
    finally:
        store.close()


def test_a_clean_end_leaves_no_file_behind_but_with_work_undone(settings: Settings) -> None:
    """What was noted and never settled is handed to the next start: once, as another attempt."""
    store = open_store(settings, migrate=True)
    noted, _ = _note(store), _note(store, b"undone")
    settled = _settle(store, noted)
    store.close()
    assert 1 == _slots(settings)
    store = open_store(settings)
    try:
        [row] = store.inbox_received()
        assert (b"undone", "received", 2, "10.0.0.1:4000", "DEMO1") == \
            (row.raw, row.status, row.attempts, row.peer, row.facility)
        assert ([], []) == (store.inbox_received(), list((settings.data / "journal").iterdir()))
        assert row.id == _settle(store, Inbound(row.id), "o2") != settled
        assert {settled, row.id} == {row.id for row in store.inbox("stored")}
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
    for one in arrivals:
        assert first.put(one) is not None
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


def test_what_is_no_message_is_not_taken_for_one(store: Store) -> None:
    """A settlement without a row shares its transaction with a recorded message."""
    recorded = Job("record", arrival(b"recorded", "hl7v2", "p", "", "", store.codec))
    study = Settlement(0, "stored", "hz", "DICOM", None, [Unmapped("exam", "CT", "")])
    unit = Job("unit", task(Unit([], study), GATEWAY, store.codec))
    store._writer._write([recorded, unit])
    assert recorded.result.id == store.inbox()[0].id and 0 == study.inbox_id and "received" == store.inbox()[0].status


def test_a_file_that_was_taken_for_a_dead_one_s_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who starts looks into it before its owner has locked it: what it held would be lost with the owner."""
    lock = fcntl.flock

    def late(file: int, how: int) -> None:
        with monkeypatch.context() as other:
            other.setattr(fcntl, "flock", lock)
            with journal.Journal(tmp_path).left() as found:
                assert [] == found
        lock(file, how)
    mine = journal.Journal(tmp_path)
    monkeypatch.setattr(fcntl, "flock", late)
    assert mine.put(_arrival(1)) is None
    assert [] == list(tmp_path.iterdir())
