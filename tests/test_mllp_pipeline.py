"""The MLLP port with the pipeline and a database behind it: duplicates, batches, sequence numbers, addresses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway import adapter
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.edges.mllp import Listener
from gateway.errors import Category, GatewayError
from gateway.pipeline import Pipeline
from gateway.store import Store, open_store
from tests.mllp_peers import Hospital, block, joined, listening, segment

MANIFEST = """[institution]
id = "{id}"
name = "Test {id}"
code_system = "urn:huren:{id}:item"
[hl7v2]
sending_facility = ["{facility}"]
{more}
"""


def hospital(parent: Path, id: str = "lab-1", facility: str = "LAB1", more: str = "") -> Path:
    """A hospital's folder."""
    folder = parent / id
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(MANIFEST.format(id=id, facility=facility, more=more), encoding="utf-8")
    codes = "local,item,display,unit\nNA,-,Natrium,mmol/L\nEL,-,Electrolytes,\n"
    (folder / "codes.csv").write_text(codes, encoding="utf-8")
    return parent


def oru(control_id: str, value: str = "139", *, facility: str = "LAB1", sequence: str = "", more: str = "",
        time: str = "20260102080000", number: str = "F1", version: str = "2.5.1") -> bytes:
    """A report with one result."""
    return "\r".join([
        f"MSH|^~\\&|LIS|{facility}|HUREN|HRP|{time}||ORU^R01|{control_id}|P|{version}|{sequence}{more}",
        "PID|1||4711^^^H^MR||Test^One", f"OBR|1||{number}|EL^Electrolytes|||20260102070000",
        f"OBX|1|NM|NA^Natrium||{value}|mmol/L|||||F", ""]).encode()


@contextmanager
def port(store: Store, settings: Settings, parent: Path, **changed: object) -> Iterator[Listener]:
    """The edge over a pipeline over a store."""
    settings = replace(settings, mllp="127.0.0.1:0", **changed)  # type: ignore[arg-type]
    with listening(Pipeline(settings, store, adapter.load_all([parent])), settings) as listener:
        yield listener


def exchange(hospital: Hospital, raw: bytes) -> list[str]:
    """MSA of the answer, and ERR-2 and ERR-3.1 where there is one."""
    hospital.write(block(raw))
    answer = hospital.answer() or ""
    err = segment(answer, "ERR").split("|")
    return [*segment(answer, "MSA").split("|")[1:], *([err[2], err[3].split("^")[0]] if len(err) > 3 else [])]


def versions(store: Store, resource_type: str = "Observation") -> list[int]:
    """The versions of the resources of a type, as many as there are."""
    rows = store.history(resource_type, None, GATEWAY, 1000)
    return sorted({row.id: row.version for row in reversed(rows)}.values())


# -------------------------------------------------------------------------------------------------- duplicates

def test_the_same_bytes_are_answered_from_the_first_receipt(store: Store, settings: Settings, tmp_path: Path) -> None:
    """A resend, on whatever connection: the same answer, one inbox row, no new version."""
    with port(store, settings, hospital(tmp_path / "h")) as listener:
        for _ in range(3):
            with joined(listener) as peer:
                assert exchange(peer, oru("M1")) == ["AA", "M1"]
    assert versions(store) == [1] and len(store.inbox()) == 1


def test_an_equal_control_id_with_other_content_is_a_message_of_its_own(store: Store, settings: Settings,
                                                                        tmp_path: Path) -> None:
    """A sender that counts from one every morning loses nothing: MSH-10 alone never makes a duplicate."""
    with port(store, settings, hospital(tmp_path / "h")) as listener, joined(listener) as peer:
        assert exchange(peer, oru("M1", number="F1")) == ["AA", "M1"]
        assert exchange(peer, oru("M1", number="F2")) == ["AA", "M1"]
        assert exchange(peer, oru("M1", "141", number="F1", time="20260102090000")) == ["AA", "M1"]
    assert versions(store) == [1, 2] and len(store.inbox()) == 3


def test_equal_content_under_another_control_id_changes_nothing(store: Store, settings: Settings,
                                                                tmp_path: Path) -> None:
    """It is processed and answered as its own; what it says is known, so no result gets a new version."""
    with port(store, settings, hospital(tmp_path / "h")) as listener, joined(listener) as peer:
        assert exchange(peer, oru("M1")) == ["AA", "M1"]
        assert exchange(peer, oru("M2", time="20260102090000")) == ["AA", "M2"]
    assert versions(store) == [1] and versions(store, "DiagnosticReport") == [1] and len(store.inbox()) == 2


def test_equal_messages_at_once_become_one(store: Store, settings: Settings, tmp_path: Path) -> None:
    """Eight connections send the same bytes at the same time: each is answered AA, each result is there once."""
    codes: list[list[str]] = []
    with port(store, settings, hospital(tmp_path / "h")) as listener:
        def send() -> None:
            with joined(listener) as peer:
                codes.append(exchange(peer, oru("M1")))
        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert codes == [["AA", "M1"]] * 8 and versions(store) == [1] and len(store.inbox()) == 1


def test_a_refused_message_is_run_again_when_it_is_sent_again(store: Store, settings: Settings, tmp_path: Path) -> None:
    """The same bytes after the hospital was registered: AA, and one inbox row."""
    parent = hospital(tmp_path / "h")
    with port(store, settings, parent) as listener, joined(listener) as peer:
        assert exchange(peer, oru("M1", facility="LAB2"))[:2] == ["AR", "M1"]
    hospital(tmp_path / "h", "lab-2", "LAB2")
    with port(store, settings, parent) as listener, joined(listener) as peer:
        assert exchange(peer, oru("M1", facility="LAB2")) == ["AA", "M1"]
    assert [row.status for row in store.inbox()] == ["stored"]


# -------------------------------------------------------------------------------------------------- batches

FILE = (b"FHS|^~\\&|LIS|LAB1|HUREN|HRP|20260102||day.hl7||FILE1\rBHS|^~\\&|LIS|LAB1|HUREN|HRP|20260102||||BATCH1\r"
        + b"%s" + b"BTS|%d\rFTS|1\r")
THREE = oru("B1", number="F1") + oru("B2", number="F2").replace(b"OBR|1||F2|EL^Electrolytes", b"OBR|1||F2|") \
    + oru("B3", number="F3")


def test_messages_run_together_are_answered_one_by_one_in_order(store: Store, settings: Settings,
                                                                tmp_path: Path) -> None:
    """With an envelope or without one; the refused one in the middle stops none."""
    with port(store, settings, hospital(tmp_path / "h")) as listener, joined(listener) as peer:
        for content in (THREE, FILE % (THREE, 3), THREE.replace(b"\r", b"\r\n")):
            peer.write(block(content))
            assert [peer.msa() for _ in range(3)] == [("AA", "B1"), ("AE", "B2"), ("AA", "B3")]
            assert peer.is_silent()


@pytest.mark.parametrize(("manner", "codes"), [("batch", ["AA", "AE", "AA"]), ("errors", ["AE"])])
def test_a_batch_is_answered_by_a_batch_where_the_manifest_says_so(store: Store, settings: Settings, tmp_path: Path,
                                                                   manner: str, codes: list[str]) -> None:
    """One block for one block (2.10.3.2): of all answers, or of those to what is refused; BHS-12 names the batch."""
    parent = hospital(tmp_path / "h", more=f'batch_acknowledgement = "{manner}"')
    with port(store, settings, parent) as listener, joined(listener) as peer:
        peer.write(block(FILE % (THREE, 3)))
        lines = (peer.answer() or "").split("\r")
        assert [line[:3] for line in lines if line[:3] not in ("MSH", "MSA", "ERR")] == \
            ["FHS", "BHS", "BTS", "FTS", ""]
        assert [line.split("|")[1] for line in lines if line.startswith("MSA")] == codes
        fhs, bhs = lines[0].split("|"), lines[1].split("|")
        assert fhs[2:6] == bhs[2:6] == ["HUREN", "HRP", "LIS", "LAB1"]
        assert (fhs[11], bhs[11]) == ("FILE1", "BATCH1") and bhs[10] and bhs[10] != fhs[10]
        assert f"BTS|{len(codes)}" in lines and "FTS|1" in lines
        peer.write(block(oru("B9")))  # a message alone is answered alone
        assert peer.msa() == ("AA", "B9")


def test_an_empty_batch_is_answered_by_an_empty_batch(store: Store, settings: Settings, tmp_path: Path) -> None:
    """It says that there is nothing to report (2.10.3.1 a), and is no malformed message."""
    with port(store, settings, hospital(tmp_path / "h")) as listener, joined(listener) as peer:
        peer.write(block(FILE % (b"", 0)))
        lines = (peer.answer() or "").split("\r")
        assert [line.split("|")[0] for line in lines] == ["FHS", "BHS", "BTS", "FTS", ""] and lines[2] == "BTS|0"
    assert store.inbox() == []


def test_counts_that_do_not_agree_are_said(store: Store, settings: Settings, tmp_path: Path,
                                           caplog: pytest.LogCaptureFixture) -> None:
    """A log line, and the comment of the answering batch; what came is stored all the same."""
    parent = hospital(tmp_path / "h", more='batch_acknowledgement = "batch"')
    with port(store, settings, parent) as listener, joined(listener) as peer:
        peer.write(block((FILE % (oru("B1"), 7)).replace(b"FTS|1", b"FTS|2")))
        lines = (peer.answer() or "").split("\r")
    assert "BTS|1|7 messages were announced and 1 came" in lines
    assert "FTS|1|2 batches were announced and 1 came" in lines
    assert [r.getMessage().rpartition("where=")[2] for r in caplog.records if "count-differs" in r.getMessage()] == \
        ["BTS[1]-1", "FTS-1"]
    assert versions(store) == [1]


def test_an_accept_acknowledgement_in_a_batch_stands_before_the_applications(store: Store, settings: Settings,
                                                                             tmp_path: Path) -> None:
    """Each message by its own MSH-15 and MSH-16."""
    parent = hospital(tmp_path / "h", more='batch_acknowledgement = "batch"')
    both = oru("B1", more="||AL|AL") + oru("B2", number="F2", more="||NE|NE") + oru("B3", number="F3")
    with port(store, settings, parent) as listener, joined(listener) as peer:
        peer.write(block(FILE % (both, 3)))
        lines = (peer.answer() or "").split("\r")
    assert [line for line in lines if line.startswith("MSA")] == ["MSA|CA|B1", "MSA|AA|B1", "MSA|AA|B3"]
    assert "BTS|3" in lines


# -------------------------------------------------------------------------------------------------- modes

@pytest.mark.parametrize(("more", "codes"), [("", ["CA", "AA"]), ('acknowledgement_mode = "declared"', ["CA", "AA"]),
                                             ('acknowledgement_mode = "original"', ["AA"])])
def test_a_sender_that_means_nothing_by_its_fields_gets_one_answer(store: Store, settings: Settings, tmp_path: Path,
                                                                   more: str, codes: list[str]) -> None:
    """MSH-15 and MSH-16 filled by a template: the manifest says so."""
    with port(store, settings, hospital(tmp_path / "h", more=more)) as listener, joined(listener) as peer:
        peer.write(block(oru("M1", more="||AL|AL")))
        assert [peer.msa()[0] for _ in codes] == codes and peer.is_silent()


@pytest.mark.parametrize("more", ['acknowledgement_mode = "none"', 'batch_acknowledgement = "all"',
                                  'sequence_numbers = "yes"', 'certificates = "one"'])
def test_a_manifest_with_another_value_stops_the_start(tmp_path: Path, more: str) -> None:
    """The sentence names the key."""
    with pytest.raises(GatewayError, match=more.split()[0]):
        adapter.load_all([hospital(tmp_path / "h", more=more)])


@pytest.mark.parametrize(("more", "durable"), [("||AL|AL", True), ("||SU|ER", True), ("", False), ("||NE|AL", False),
                                               ("||AL|NE", False), ("||ER|AL", False)])
def test_ca_is_said_of_what_outlives_a_power_failure(store: Store, settings: Settings, tmp_path: Path, more: str,
                                                     durable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before CA the raw bytes are synced; whoever is told nothing before the outcome does not pay for it."""
    synced: list[bool] = []
    write = store._database.write

    def watched(work: Callable[..., object], exclusive: bool = False, durable: bool = True) -> object:
        synced.append(durable)
        return write(work, exclusive, durable)

    pipeline = Pipeline(settings, store, adapter.load_all([hospital(tmp_path / "h")]))
    monkeypatch.setattr(store._database, "write", watched)
    assert pipeline.accept(oru("M1", more=more), "127.0.0.1").asked.commits_first == durable
    assert synced == [True] * durable  # what is not acknowledged yet goes into the journal, without a transaction


def test_a_refusal_at_the_door_is_told_by_its_kind(store: Store, settings: Settings, tmp_path: Path) -> None:
    """With the real pipeline: CR for a type that is not taken, before it is read; CE for an unknown sender."""
    with port(store, settings, hospital(tmp_path / "h")) as listener, joined(listener) as peer:
        odd = oru("M1", more="||AL|AL").replace(b"ORU^R01", b"XYZ^Z99")
        for raw, code, error in ((odd, "CR", "200"), (oru("M2", facility="LAB9", more="||AL|AL"), "CE", "207")):
            answer = exchange(peer, raw)
            assert (answer[0], answer[-1]) == (code, error) and peer.is_silent()
    assert [row.status for row in store.inbox()] == ["quarantined", "quarantined"]


# -------------------------------------------------------------------------------------------------- sequence numbers

LINK = "MSH|^~\\&|LIS|LAB1|HUREN|HRP|20260102||^|{}|P|2.5.1|{}\r"
NUMBERED = "sequence_numbers = true"


def link(peer: Hospital, control_id: str, number: int) -> list[str]:
    """The answer to a message that starts (0) or resynchronizes (-1) the link."""
    return exchange(peer, LINK.format(control_id, number).encode())


def test_the_sequence_number_protocol(store: Store, settings: Settings, tmp_path: Path) -> None:
    """2.10.1: start, echo, a lost answer, a gap, a restart of the sender and of the gateway, resynchronization."""
    parent = hospital(tmp_path / "h", more=NUMBERED)
    with port(store, settings, parent) as listener, joined(listener) as peer:
        assert link(peer, "L1", 0) == ["AA", "L1", "", "-1"]  # nothing came before: any number will do
        assert exchange(peer, oru("S1", sequence="17")) == ["AA", "S1", "", "17"]
        assert exchange(peer, oru("S2", sequence="18", number="F2")) == ["AA", "S2", "", "18"]
        assert exchange(peer, oru("S2", sequence="18", number="F2")) == ["AA", "S2", "", "19"]  # its answer was lost
        refused = exchange(peer, oru("S4", sequence="20", number="F4"))
        assert refused[:2] == ["AR", "S4"] and refused[3:] == ["19", "MSH^1^13", "207"]
        assert link(peer, "L2", 0) == ["AA", "L2", "", "19"]
    with port(store, settings, parent) as listener, joined(listener) as peer:  # it outlives the process
        assert link(peer, "L3", 0) == ["AA", "L3", "", "19"]
        assert exchange(peer, oru("S3", sequence="19", number="F3")) == ["AA", "S3", "", "19"]
        assert exchange(peer, oru("S4", sequence="20", number="F4")) == ["AA", "S4", "", "20"]  # the same bytes
        assert link(peer, "L4", -1) == ["AA", "L4", "", "-1"]
        assert exchange(peer, oru("S5", sequence="1", number="F5")) == ["AA", "S5", "", "1"]
    assert {row.status for row in store.inbox()} == {"stored"} and len(versions(store)) == 5


def test_a_refused_message_may_be_corrected_or_left(store: Store, settings: Settings, tmp_path: Path) -> None:
    """What is refused for its content took its number: the next is taken, and so is its correction before that."""
    with port(store, settings, hospital(tmp_path / "h", more=NUMBERED)) as listener, joined(listener) as peer:
        bad = oru("S1", sequence="1").replace(b"EL^Electrolytes", b"")
        refused = exchange(peer, bad)
        assert (refused[0], refused[3]) == ("AE", "1")
        assert exchange(peer, oru("S1", sequence="1")) == ["AA", "S1", "", "1"]  # corrected, under its number
        assert exchange(peer, oru("S1b", sequence="1", number="F9"))[:2] == ["AR", "S1b"]  # that one was taken
        refused = exchange(peer, oru("S2", sequence="2").replace(b"EL^Electrolytes", b""))
        assert (refused[0], refused[3]) == ("AE", "2")
        assert exchange(peer, oru("S3", sequence="3", number="F3")) == ["AA", "S3", "", "3"]


def test_streams_are_kept_apart_and_whoever_only_counts_is_left_alone(store: Store, settings: Settings,
                                                                     tmp_path: Path) -> None:
    """By sender and receiver (MSH-3 to 6); without the manifest's word MSH-13 means nothing, and MSA-4 stays empty."""
    parent = hospital(tmp_path / "h", more=NUMBERED)
    hospital(tmp_path / "h", "lab-2", "LAB2")
    with port(store, settings, parent) as listener, joined(listener) as peer:
        assert exchange(peer, oru("S1", sequence="5"))[3] == "5"
        other = oru("S1", sequence="900", number="F2").replace(b"|LIS|", b"|RIS|")
        assert exchange(peer, other)[3] == "900"
        assert exchange(peer, oru("S2", sequence="6", number="F3"))[3] == "6"
        assert exchange(peer, oru("S3", number="F4")) == ["AA", "S3"]  # no number: not in the stream
        assert exchange(peer, oru("S4", sequence="x", number="F5"))[-2:] == ["MSH^1^13", "102"]
        for n, number in enumerate(("1", "1", "0", "-1", "7"), 1):
            raw = oru(f"T{n}", sequence=number, facility="LAB2", number=f"G{n}")
            assert exchange(peer, raw) == ["AA", f"T{n}"]


def test_a_gap_is_refused_before_it_is_committed(store: Store, settings: Settings, tmp_path: Path) -> None:
    """In the enhanced mode: CE with the expected number (2.9.3.1), CA with the message's own."""
    with port(store, settings, hospital(tmp_path / "h", more=NUMBERED)) as listener, joined(listener) as peer:
        peer.write(block(oru("S1", sequence="1", more="||AL|AL")))
        assert [segment(peer.answer() or "", "MSA") for _ in range(2)] == ["MSA|CA|S1||1", "MSA|AA|S1||1"]
        peer.write(block(oru("S3", sequence="3", more="||AL|AL", number="F3")))
        assert segment(peer.answer() or "", "MSA") == ("MSA|CE|S3|out of sequence; send number 2 first, or "
                                                       "resynchronize the link with -1|2")
        assert peer.is_silent()


def test_two_connections_do_not_take_one_number(store: Store, settings: Settings, tmp_path: Path) -> None:
    """Eight messages claim number 2 at once: one gets it."""
    codes: list[str] = []
    with port(store, settings, hospital(tmp_path / "h", more=NUMBERED)) as listener:
        with joined(listener) as peer:
            exchange(peer, oru("S1", sequence="1"))

        def send(n: int) -> None:
            with joined(listener) as peer:
                codes.append(exchange(peer, oru(f"S2-{n}", sequence="2", number=f"G{n}"))[0])
        threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(codes) == ["AA"] + ["AR"] * 7


# -------------------------------------------------------------------------------------------------- addresses

@pytest.mark.parametrize(("host", "addresses", "code"), [
    ("127.0.0.1", "", "AA"), ("127.0.0.1", "10.0.0.0/8", "AR"), ("127.0.0.1", "10.0.0.0/8, 127.0.0.0/8", "AA"),
    ("127.0.0.1", "::1", "AR"), ("::1", "::1", "AA"), ("::1", "fe80::/10", "AR"), ("::1", "127.0.0.1", "AR")])
def test_a_hospital_sends_from_its_own_addresses(store: Store, settings: Settings, tmp_path: Path, host: str,
                                                 addresses: str, code: str) -> None:
    """IPv4 and IPv6; what comes from elsewhere is recorded and refused."""
    quoted = ", ".join(f'"{a.strip()}"' for a in addresses.split(",") if a)
    bracketed = f"[{host}]" if ":" in host else host
    parent = hospital(tmp_path / "h", more=f"addresses = [{quoted}]")
    changed = replace(settings, mllp=f"{bracketed}:0")
    with listening(Pipeline(changed, store, adapter.load_all([parent])), changed) as listener, \
            joined(listener) as peer:
        assert exchange(peer, oru("M1"))[0] == code
    assert store.inbox()[0].peer == host


def test_a_resend_from_elsewhere_learns_nothing(store: Store, settings: Settings, tmp_path: Path) -> None:
    """The bytes that a hospital sent, from an address that is not its own: refused, and what is stored stays stored."""
    parent = hospital(tmp_path / "h", more='addresses = ["127.0.0.1"]')
    pipeline = Pipeline(settings, store, adapter.load_all([parent]))
    assert pipeline.receive_hl7(oru("M1"), "127.0.0.1").category is None
    assert pipeline.receive_hl7(oru("M1"), "10.9.8.7").category == "forbidden"
    assert pipeline.receive_hl7(oru("M1"), "127.0.0.1").resend
    assert [row.status for row in store.inbox()] == ["stored"]


def test_what_a_crash_left_is_run_with_its_senders_address(settings: Settings, tmp_path: Path) -> None:
    """A message from elsewhere that was recorded just before the crash is refused at the start, its own is stored."""
    parent = hospital(tmp_path / "h", more='addresses = ["127.0.0.1"]')
    first = open_store(settings, migrate=True)
    for number, peer in (("1", "127.0.0.1"), ("2", "10.9.8.7")):
        first.record(oru(f"M{number}", number=f"F{number}"), "hl7v2", peer)
    first.close()
    second = open_store(settings)
    try:
        assert Pipeline(settings, second, adapter.load_all([parent])).recover() == 2
        assert {row.peer: row.status for row in second.inbox()} == {"127.0.0.1": "stored", "10.9.8.7": "quarantined"}
    finally:
        second.close()


# -------------------------------------------------------------------------------------------------- a slow database

class Away:
    """A store whose writes wait, or fail, as long as it is told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.back = threading.Event()
        self.failing = False

    def __getattr__(self, name: str) -> object:
        found = getattr(self._store, name)
        return self._waiting(found) if name in ("record", "note", "write", "settle_refused") else found

    def _waiting(self, method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            if self.failing:
                raise GatewayError(Category.BUSY, "the database is away")
            assert self.back.wait(20)
            return method(*arguments, **named)
        return call


def test_a_slow_database_makes_senders_wait_and_loses_nothing(store: Store, settings: Settings, tmp_path: Path) -> None:
    """Ten senders: no answer while the database hangs, each AA when it is back, each message there once."""
    away = Away(store)
    peers: list[Hospital] = []
    with port(away, settings, hospital(tmp_path / "h")) as listener:  # type: ignore[arg-type]
        try:
            for n in range(10):
                peers.append(Hospital(listener.address))
                peers[-1].write(block(oru(f"W{n}", number=f"F{n}")))
            assert all(peer.is_silent(0.05) for peer in peers)
            away.back.set()
            assert sorted(peer.msa() for peer in peers) == [("AA", f"W{n}") for n in range(10)]
        finally:
            for peer in peers:
                peer.socket.close()
    assert len(versions(store)) == 10


def test_a_database_that_is_away_is_not_answered_for(store: Store, settings: Settings, tmp_path: Path) -> None:
    """What could not be recorded gets no answer; sent again when the database is back, it is stored."""
    away = Away(store)
    away.failing = True
    with port(away, settings, hospital(tmp_path / "h")) as listener:  # type: ignore[arg-type]
        with joined(listener) as peer:
            peer.write(block(oru("W1")))
            assert peer.answer() is None
        away.failing = False
        away.back.set()
        with joined(listener) as peer:
            assert exchange(peer, oru("W1")) == ["AA", "W1"]
    assert versions(store) == [1]
