"""Nobody's flood, silence or trickle keeps another sender waiting."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import adapter
from gateway.config import Settings
from gateway.edges.mllp import Frames, NotMllp, TooLarge
from gateway.edges.mllp.turns import COMPANY_SECONDS, RUNNING, SHARE, Turns
from gateway.pipeline import Pipeline
from gateway.store import open_store
from gateway.store.model import Receipt
from tests.mllp_peers import Hospital, Recorder, block, joined, listening, message
from tests.test_mllp_pipeline import exchange, hospital, oru

MANY = {"mllp_connections": 600, "mllp_connections_per_address": 600}


def from_(facility: str, control_id: str) -> bytes:
    """A message of a sender."""
    return message(control_id).replace(b"|LAB1|", f"|{facility}|".encode())


# -------------------------------------------------------------------------------------------------- turns

class Clock:
    """A time that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def started(turns: Turns, sender: str, count: int, order: list[str]) -> list[threading.Thread]:
    """Threads that wait for their turn and note it; a little apart, so that their order is known."""
    def work(name: str) -> None:
        turns.take(sender)
        order.append(name)

    threads = []
    for n in range(count):
        threads.append(threading.Thread(target=work, args=(f"{sender}{n}",), daemon=True))
        threads[-1].start()
        time.sleep(0.01)
    return threads


def test_a_sender_in_company_has_its_share_and_waits_in_its_own_order() -> None:
    """A floods, B comes once: B runs at once, and A's next runs when one of A's ends, first come first served."""
    turns, order = Turns(RUNNING, 2), []
    turns.take("B")
    turns.give("B")  # B was here
    waiting = started(turns, "A", 5, order)
    assert order == ["A0", "A1"]
    turns.take("B")  # does not wait
    for n in (2, 3, 4):
        turns.give("A")
        waiting[n].join(5)
        assert order[n:] == [f"A{n}"]


def test_a_sender_that_is_alone_has_all_and_shares_as_soon_as_somebody_comes() -> None:
    """A night's import uses everything; from another sender's first message on it has its share."""
    clock = Clock()
    turns, order = Turns(8, 2, clock), []
    turns.take("A")
    turns.give("A")
    clock.now += COMPANY_SECONDS
    started(turns, "A", 10, order)
    assert len(order) == 8
    threads = started(turns, "B", 1, order)  # all places are taken: the first that ends is for B
    for _ in range(6):
        turns.give("A")
        time.sleep(0.01)
    threads[0].join(5)
    assert order[8] == "B0" and len(order) == 9  # two of A's still run: its share
    turns.give("A")
    time.sleep(0.05)
    assert order[9:] == ["A8"]


def test_waiting_senders_are_served_in_turn() -> None:
    """One place, and three senders with three messages each: one each, then one each again."""
    turns, order = Turns(1, 1), []
    turns.take("X")
    for sender in "ABC":
        started(turns, sender, 3, order)
    turns.give("X")
    for _ in range(9):
        time.sleep(0.02)
        turns.give(order[-1][0])
    assert order == ["A0", "B0", "C0", "A1", "B1", "C1", "A2", "B2", "C2"]


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.booleans()), max_size=60))
@settings(deadline=None)
def test_no_place_is_lost(steps: list[tuple[str, bool]]) -> None:
    """However turns are taken and given, all that wait get one in the end, and the limits hold at every step."""
    turns, running, lock = Turns(3, 2), Counter[str](), threading.Lock()
    threads = []

    def work(sender: str, hold: bool) -> None:
        turns.take(sender)
        with lock:
            running[sender] += 1
            assert sum(running.values()) <= 3 and running[sender] <= 3
        if hold:
            time.sleep(0.0002)
        with lock:
            running[sender] -= 1
        turns.give(sender)

    for sender, hold in steps:
        threads.append(threading.Thread(target=work, args=(sender, hold), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert turns._total == 0 and not turns._waiting and not +turns._running


# -------------------------------------------------------------------------------------------------- real sockets

def test_two_hundred_idle_and_half_open_connections_disturb_nobody() -> None:
    """Connections that say nothing, and blocks that are begun and left: a sender beside them is answered at once."""
    with listening(Recorder(), **MANY) as listener, ExitStack() as peers:
        for n in range(200):
            silent = peers.enter_context(closing(socket.create_connection(listener.address)))
            if n % 2:
                silent.sendall(b"\x0bMSH|^~\\&|LIS|SILENT|")
        with joined(listener) as hospital:
            took = []
            for n in range(20):
                began = time.monotonic()
                hospital.write(block(message(f"I{n}")))
                assert hospital.msa() == ("AA", f"I{n}")
                took.append(time.monotonic() - began)
        assert sorted(took)[18] < 0.2


def test_a_hundred_trickling_senders_disturb_nobody_and_are_cut_off() -> None:
    """A byte now and then on each of a hundred connections: the one that sends whole messages is served meanwhile."""
    with listening(Recorder(), mllp_frame_seconds=2, **MANY) as listener, ExitStack() as peers:
        slow = [peers.enter_context(closing(socket.create_connection(listener.address))) for _ in range(100)]
        stop = threading.Event()

        def trickle() -> None:
            data, at = block(message("T1")), 0
            while not stop.is_set() and at < 30:
                for connection in slow:
                    with suppress(OSError):
                        connection.sendall(data[at:at + 1])
                at += 1
                time.sleep(0.1)
        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        with joined(listener) as hospital:
            for n in range(20):
                began = time.monotonic()
                hospital.write(block(message(f"I{n}")))
                assert hospital.msa() == ("AA", f"I{n}")
                assert time.monotonic() - began < 1
        time.sleep(2.5)
        stop.set()
        thread.join(5)
        assert len(listener._connections) == 0  # all were cut off in their time


class Work:
    """A pipeline that takes processor time, as a real one does, and counts how many run at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self.running: Counter[bytes] = Counter()
        self.most: Counter[bytes] = Counter()

    def __call__(self, raw: bytes, peer: str) -> Receipt:
        sender = raw.split(b"|")[3]
        with self._lock:
            self.running[sender] += 1
            self.most[sender] = max(self.most[sender], self.running[sender])
        until = time.thread_time() + self._seconds
        while time.thread_time() < until:
            sum(range(200))
        with self._lock:
            self.running[sender] -= 1
        return Receipt(1)


def test_a_flood_of_ten_thousand_does_not_keep_a_polite_sender_waiting() -> None:
    """Ten connections write a thousand messages each without waiting; a sender of one now and then has its answers
    within bounds, each in the order of its connection, and at no time does the flooder run more than its share."""
    work = Work(0.001)
    with listening(work, **MANY) as listener, ExitStack() as peers:
        with joined(listener) as polite:
            polite.write(block(from_("POLITE", "P0")))
            assert polite.msa() == ("AA", "P0")
            stream = b"".join(block(from_("FLOOD", f"F{n}")) for n in range(1000))
            flooders = [peers.enter_context(closing(socket.create_connection(listener.address))) for _ in range(10)]
            threads = [threading.Thread(target=_write, args=(f, stream), daemon=True) for f in flooders]
            for thread in threads:
                thread.start()
            took = []
            for n in range(1, 31):
                began = time.monotonic()
                polite.write(block(from_("POLITE", f"P{n}")))
                assert polite.msa() == ("AA", f"P{n}")
                took.append(time.monotonic() - began)
                time.sleep(0.05)
        assert work.most[b"FLOOD"] <= SHARE
        assert sorted(took)[27] < 0.5
        for flooder in flooders:
            flooder.close()


def _write(connection: socket.socket, stream: bytes) -> None:
    try:
        connection.sendall(stream)
        while connection.recv(65536):
            pass
    except OSError:
        pass


@pytest.mark.long
def test_a_polite_sender_beside_fifty_connections_of_another(tmp_path: Path) -> None:
    """With the real pipeline and a database: all is stored, and the polite one's answers keep coming."""
    parent = hospital(tmp_path / "h", "flood", "FLOOD")
    hospital(tmp_path / "h", "polite", "POLITE")
    chosen = Settings(data=tmp_path / "data", mllp="127.0.0.1:0")
    store = open_store(chosen, migrate=True)
    stop, sent = threading.Event(), Counter[str]()
    try:
        chosen = replace(chosen, **MANY)  # type: ignore[arg-type]
        with listening(Pipeline(chosen, store, adapter.load_all([parent])), chosen) as listener:
            def flood(n: int) -> None:
                with joined(listener) as peer:
                    while not stop.is_set():
                        sent["flood"] += 1
                        raw = oru(f"F{n}-{sent['flood']}", facility="FLOOD", number=f"N{n}-{time.monotonic_ns()}")
                        assert exchange(peer, raw)[0] == "AA"
            with joined(listener) as polite:
                exchange(polite, oru("P0", facility="POLITE"))
                threads = [threading.Thread(target=flood, args=(n,), daemon=True) for n in range(50)]
                for thread in threads:
                    thread.start()
                took = []
                for n in range(1, 41):
                    began = time.monotonic()
                    assert exchange(polite, oru(f"P{n}", facility="POLITE", number=f"P{n}"))[0] == "AA"
                    took.append(time.monotonic() - began)
                    time.sleep(0.05)
            stop.set()
            for thread in threads:
                thread.join(20)
        assert sorted(took)[37] < 1.0 and sent["flood"] > 40
        assert {row.status for row in store.inbox(limit=1000)} == {"stored"}
    finally:
        store.close()


# -------------------------------------------------------------------------------------------------- any bytes

PARTS = st.one_of(
    st.binary(max_size=60), st.sampled_from([b"\x0b", b"\x1c", b"\x1c\r", b"\r", b"\n", b"MSH", b"\x0bMSH|^~\\&|"]),
    st.integers(0, 99).map(lambda n: block(message(f"Z{n}"))),
    st.integers(0, 99).map(lambda n: b"FHS|^~\\&\rBHS|\r" + message(f"Z{n}") + b"BTS|1\rFTS|1\r"))


@given(st.lists(PARTS, max_size=12), st.randoms(use_true_random=False))
def test_any_bytes_cut_anywhere_are_framed_or_refused(parts: list[bytes], random_: random.Random) -> None:
    """The same blocks, or the same refusal, wherever packets end; no more is held than the limit."""
    stream, limit = b"".join(parts), 120

    def read(cuts: list[int]) -> list[object]:
        frames, got = Frames(limit), []
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            frames.feed(stream[begin:end])
            try:
                while (content := frames.next()) is not None:
                    assert len(content) <= limit
                    got.append(content)
            except (NotMllp, TooLarge) as error:
                return [*got, type(error).__name__]
            assert len(frames) <= limit + 1
        return got

    whole = read([])
    cuts = sorted(random_.randint(0, len(stream)) for _ in range(random_.randint(0, 10)))
    assert read(cuts) == whole == read(list(range(len(stream))))


def test_a_thousand_random_streams_leave_nothing_behind() -> None:
    """Random bytes, cut off anywhere: no thread, no connection and no memory is left, and a hospital is served."""
    source, recorder = random.Random(20260101), Recorder()
    process = psutil.Process()
    with listening(recorder, mllp_frame_seconds=1, mllp_idle_seconds=1, **MANY) as listener:
        def storm(count: int) -> None:
            for _ in range(count):
                with closing(socket.create_connection(listener.address)) as s:
                    data = b"".join(source.choice([
                        source.randbytes(source.randint(0, 200)), b"\x0b", b"\x1c\r", block(message("R1")),
                        b"\x0b" + source.randbytes(3000)]) for _ in range(source.randint(1, 5)))
                    try:
                        s.sendall(data[:source.randint(0, len(data))])
                        if source.random() < 0.5:
                            s.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass
        storm(300)
        _settled(listener)
        time.sleep(0.2)
        threads, memory = threading.active_count(), process.memory_info().rss
        storm(700)
        _settled(listener)
        until = time.monotonic() + 5
        while threading.active_count() > threads and time.monotonic() < until:  # a thread ends after its connection
            time.sleep(0.05)
        assert threading.active_count() <= threads
        assert process.memory_info().rss - memory < 20_000_000
        assert listener._held == 0 and not listener._per_address
        with joined(listener) as peer:
            assert isinstance(peer, Hospital)
            peer.write(block(message("Z1")))
            assert peer.msa() == ("AA", "Z1")


def _settled(listener: object) -> None:
    until = time.monotonic() + 10
    while listener._connections and time.monotonic() < until:  # type: ignore[attr-defined]
        time.sleep(0.05)
    assert not listener._connections  # type: ignore[attr-defined]
