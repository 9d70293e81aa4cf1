"""The inbox: recorded once, settled once, resent, quarantined, replayed; codes that nobody maps."""

from __future__ import annotations

import threading

from store_samples import observation, put

from gateway.caller import GATEWAY
from gateway.source import Unmapped, message_digest
from gateway.store import Store
from gateway.store.model import Put, Receipt, Settlement, Unit

RAW = b"MSH|^~\\&|LIS|DEMO1|||202601020800||ORU^R01|1|P|2.3.1\r"


def _settle(store: Store, inbox_id: int, *codes: Unmapped, remark: str = "") -> None:
    store.write(Unit([Put(observation(f"o{inbox_id}", "p1"))],
                     Settlement(inbox_id, "stored", "hz", "ORU^R01", Receipt(inbox_id, resources=1, remark=remark),
                                list(codes))), GATEWAY)


def test_raw_bytes_are_kept_as_they_came(store: Store) -> None:
    """Any bytes, of any length, with what the edge knew of them; status ``received``."""
    for raw in (RAW, b"\x00\xff" * 300_000, b"", "姓名".encode("gb18030")):
        inbound = store.record(raw, "hl7v2", "10.0.0.1:4000", "1", "DEMO1")
        row = store.inbox_show(inbound.id)
        assert inbound.receipt is None and row is not None
        assert (raw, "hl7v2", "10.0.0.1:4000", "1", "DEMO1", "received", 1, None) == \
            (row.raw, row.protocol, row.peer, row.control_id, row.facility, row.status, row.attempts, row.receipt)
    assert store.inbox_show(999) is None


def test_a_stored_message_is_found_by_its_bytes(store: Store) -> None:
    """By the digest that its Provenance names; not before it is stored, not one in quarantine, none by other bytes."""
    digest = message_digest("hl7v2", RAW)
    first = store.record(RAW, "hl7v2", "10.0.0.1")
    other = store.record(RAW + b"ZZZ|1", "hl7v2", "10.0.0.1")
    store.settle_refused(Settlement(other.id, "quarantined", "hz", "ORU^R01", Receipt(other.id, "invalid")))
    assert store.inbox_raw(digest) is None
    _settle(store, first.id)
    found = store.inbox_raw(digest)
    assert found is not None and (found.id, found.raw, found.institution) == (first.id, RAW, "hz")
    assert store.inbox_raw(message_digest("hl7v2", RAW + b"ZZZ|1")) is None
    assert store.inbox_raw(message_digest("dicom", RAW)) is None


def test_a_resend_of_what_is_stored_gets_the_first_receipt(store: Store) -> None:
    """Same bytes, same protocol: the same row and its receipt, marked as a resend; nothing is added."""
    first = store.record(RAW, "hl7v2", "10.0.0.1")
    _settle(store, first.id, remark="stored; 1 code(s) are not mapped")
    again = store.record(RAW, "hl7v2", "10.0.0.2")
    assert first.id == again.id
    assert Receipt(first.id, resources=1, remark="stored; 1 code(s) are not mapped", resend=True) == again.receipt
    assert 1 == len(store.inbox())
    assert first.id != store.record(RAW, "other", "10.0.0.1").id


def test_a_resend_of_what_is_in_quarantine_runs_again(store: Store) -> None:
    """The sender may have been right after all: another attempt, no receipt."""
    first = store.record(RAW, "hl7v2", "10.0.0.1")
    receipt = Receipt(first.id, "invalid", "required field missing", "OBR-4", "required")
    store.settle_refused(Settlement(first.id, "quarantined", "hz", "ORU^R01", receipt))
    [row] = store.inbox("quarantined")
    assert (receipt, "hz", "ORU^R01", 1) == (row.receipt, row.institution, row.message_type, row.attempts)
    again = store.record(RAW, "hl7v2", "10.0.0.1")
    assert (first.id, None) == (again.id, again.receipt)
    assert [("received", 2)] == [(row.status, row.attempts) for row in store.inbox()]
    _settle(store, first.id)
    assert [("stored", None)] == [(row.status, row.receipt and row.receipt.category) for row in store.inbox()]


def test_what_is_stored_stays_stored(store: Store) -> None:
    """A second run of a stored message that is refused, say by a broken adapter, takes nothing back."""
    first = store.record(RAW, "hl7v2", "10.0.0.1")
    _settle(store, first.id)
    store.settle_refused(Settlement(first.id, "quarantined", "hz", "", Receipt(first.id, "fault", "a bug")))
    assert "stored" == store.inbox()[0].status
    assert store.record(RAW, "hl7v2", "10.0.0.1").receipt == Receipt(first.id, resources=1, resend=True)


def test_a_message_and_its_resources_are_settled_together(store: Store) -> None:
    """A refused unit leaves its message as it was."""
    put(store, observation("held", "p1", "2"), as_of=20)
    inbound = store.record(RAW, "hl7v2", "10.0.0.1")
    unit = Unit([Put(observation("new", "p1")), Put(observation("held", "p1", "1"), as_of=10)],
                Settlement(inbound.id, "stored", "hz", "ORU^R01", Receipt(inbound.id, resources=2)))
    try:
        store.write(unit, GATEWAY)
        raise AssertionError
    except Exception as error:
        assert "conflict" in str(error)
    assert "received" == store.inbox()[0].status


def test_the_list_is_newest_first_and_pages(store: Store) -> None:
    """``before`` walks to older rows; a status narrows."""
    ids = [store.record(f"{n}".encode(), "hl7v2", "p").id for n in range(10)]
    for inbox_id in ids[:4]:
        _settle(store, inbox_id)
    for inbox_id in ids[4:6]:
        store.settle_refused(Settlement(inbox_id, "quarantined", receipt=Receipt(inbox_id, "malformed", "no MSH")))
    assert ids[::-1] == [row.id for row in store.inbox()]
    assert ids[2:5][::-1] == [row.id for row in store.inbox(limit=3, before=ids[5])]
    assert {"stored": 4, "quarantined": 2, "received": 4} == \
        {status: len(store.inbox(status)) for status in ("stored", "quarantined", "received")}
    assert all(row.raw == b"" for row in store.inbox())


def test_the_same_bytes_at_the_same_moment(store: Store) -> None:
    """Many connections bring one message: one row."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(store.record(RAW, "hl7v2", "p").id)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 12 == len(found) and 1 == len(set(found)) == len(store.inbox())


def test_unmapped_codes_are_counted_once_a_message(store: Store) -> None:
    """Per institution, kind, code and unit; a replay of what is stored counts nothing again."""
    glu, cre = Unmapped("test", "GLU", "血糖", "mmol/L", "OBX-3"), Unmapped("test", "CRE", "肌酐", "", "OBX-3")
    first, second = store.record(b"1", "hl7v2", "p"), store.record(b"2", "hl7v2", "p")
    _settle(store, first.id, glu, cre, glu)
    _settle(store, second.id, glu)
    _settle(store, second.id, glu)
    rows = store.unmapped()
    assert [("hz", "test", "GLU", "血糖", "mmol/L", "OBX-3", 3), ("hz", "test", "CRE", "肌酐", "", "OBX-3", 1)] == \
        [(r.institution, r.kind, r.local, r.display, r.unit, r.where, r.count) for r in rows]
    assert rows[0].first_seen < rows[0].last_seen
    assert [] == store.unmapped("nb")
    assert 2 == len(store.unmapped("hz"))


def test_codes_of_a_study_are_counted_without_a_message(store: Store) -> None:
    """A settlement with inbox id 0 has no row to settle."""
    chest = Unmapped("exam", "CTCHEST", "胸部CT")
    store.write(Unit([], Settlement(0, "stored", "nb", "DICOM", None, [chest])), GATEWAY)
    assert [("nb", "CTCHEST")] == [(r.institution, r.local) for r in store.unmapped()]
    assert [] == store.inbox()
