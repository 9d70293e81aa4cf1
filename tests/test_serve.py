"""`huren serve`: the supervisor with edges of our making, and the real ones."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hl7.client
import psutil
import pytest

from bench.mllp import ACCEPTED
from gateway.caller import GATEWAY
from gateway.config import SHIPPED_ADAPTERS, load
from gateway.store import Store, open_store

ROOT = Path(__file__).parents[1]

#: Edges that do what the test needs instead of listening: everything else is the supervisor's own.
FAKE = r"""
import os, signal, socket, sys, threading, time
from pathlib import Path
from gateway import supervisor
from gateway.config import Settings
from gateway.edges.process import await_stop, hold_stop
from gateway.errors import Category, GatewayError

def steady(settings, ready):
    hold_stop()
    ready(); await_stop(); os.write(1, b"drained\n")

def stubborn(settings, ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready(); time.sleep(60)

def refusing(settings, ready):
    raise GatewayError(Category.BUSY, "cannot listen there; free it")

def dying(settings, ready):
    ready(); os._exit(3)

def parent(settings, ready):  # leaves a process of its own behind
    if os.fork() == 0:
        time.sleep(60)
    steady(settings, ready)

runs = dict(zip(supervisor.EDGES, [globals()[n] for n in sys.argv[1].split(",")]))
supervisor._edge = lambda name, settings: [supervisor._Child(name, runs[name])]
supervisor._migrate = lambda settings, ready: None
supervisor._import_shared = lambda names: None
supervisor._DRAIN_SECONDS = 1.0
sys.exit(supervisor.Supervisor(Settings(http="127.0.0.1:0", mllp="127.0.0.1:0", dimse="127.0.0.1:0"),
                               tuple(runs)).run())
"""


Fake = Callable[..., AbstractContextManager["Process"]]


class Process:
    """A supervisor in a process of its own, its lines as they come."""

    def __init__(self, arguments: list[str], environ: dict[str, str] | None = None) -> None:
        self.popen = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, text=True, bufsize=1, env=environ,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.process = psutil.Process(self.popen.pid)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.lines.append(line.rstrip("\n"))

    def said(self, pattern: str, seconds: float = 20.0, count: int = 1) -> list[re.Match[str]]:
        """Waits until so many lines match."""
        found: list[re.Match[str]] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = [m for line in self.lines if (m := re.search(pattern, line))]
            if len(found) >= count or self.popen.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.02)
        assert len(found) >= count, "\n".join(self.lines)
        return found

    def children(self) -> list[psutil.Process]:
        """All processes below."""
        return self.process.children(recursive=True)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Signals the supervisor: exit status and how long it took; no process is left."""
        below = self.children()
        began = time.monotonic()
        self.popen.send_signal(number)
        status = self.popen.wait(20)
        took = time.monotonic() - began
        self._reader.join(5)
        _, alive = psutil.wait_procs(below, timeout=2)
        assert alive == []
        return status, took


@contextmanager
def started(arguments: list[str], environ: dict[str, str] | None = None) -> Iterator[Process]:
    """A supervisor that is gone at the end, whatever happens."""
    process = Process(arguments, environ)
    try:
        yield process
    finally:
        for child in process.children() if process.popen.poll() is None else []:
            child.kill()
        process.popen.kill()
        process.popen.wait()


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """A supervisor over the named edges of ``FAKE``."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("HUREN_")} | {"PYTHONPATH": str(ROOT)}
    return lambda *names: started([str(script), ",".join(names)], environ)


# -------------------------------------------------------------------------------------------------- the supervisor

def test_each_open_port_is_a_line_and_then_it_is_ready(fake: Fake) -> None:
    """A line for a port comes when it is open; after the last one, that all is ready."""
    with fake("steady", "steady", "steady") as process:
        process.said(r"^huren: ready in \d\.\d s$")
        assert [line.split(" listens")[0] for line in process.lines[:3]] and len(process.lines) == 4
        for name, scheme in (("http", "http"), ("mllp", "mllp"), ("dimse", "dicom")):
            process.said(rf"^huren: {name} +listens on {scheme}://(HUREN@)?127\.0\.0\.1:[1-9]\d*$")
        status, took = process.end()
        assert status == 0 and took < 2 and process.lines.count("drained") == 3


def test_a_killed_child_is_started_again(fake: Fake) -> None:
    """SIGKILL of one edge leaves the others alone and brings it back."""
    with fake("steady", "steady", "steady") as process:
        process.said("ready in")
        before = {child.pid for child in process.children()}
        victim = process.children()[1]
        victim.kill()
        process.said("is back on", 5)
        after = {child.pid for child in process.children()}
        assert len(after) == 3 and before - after == {victim.pid}
        assert process.end()[0] == 0


def test_a_child_that_dies_again_and_again_is_started_ever_later(fake: Fake) -> None:
    """The pauses grow, so that a broken edge does not take the machine."""
    with fake("steady", "dying", "steady") as process:
        pauses = [float(m[1]) for m in process.said(r"mllp ended with status 3 .* again in ([\d.]+) s", 10, 4)]
        assert pauses[:4] == [0.2, 0.5, 1.0, 2.0]
        assert process.end()[0] == 0  # a pause does not hold the end up


def test_an_edge_that_cannot_start_stops_the_start(fake: Fake) -> None:
    """Its sentence is shown, the others drain, the exit status is 1."""
    with fake("steady", "refusing", "steady") as process:
        assert process.popen.wait(10) == 1
        process.said("^huren mllp: cannot listen there; free it$")
        process.said(r"^huren: mllp could not start \(status 1\)$")
        assert not any("ready in" in line or "did not drain" in line for line in process.lines)


def test_a_child_that_does_not_drain_is_killed_in_time(fake: Fake) -> None:
    """The end comes whatever a child does; the exit status tells."""
    with fake("steady", "stubborn", "steady") as process:
        process.said("ready in")
        status, took = process.end()
        assert status == 1 and 0.9 < took < 4
        process.said("mllp did not drain in time and is killed")


def test_what_a_dead_child_leaves_behind_goes_too(fake: Fake) -> None:
    """A child's own processes would keep its port: they are killed before it is started again."""
    with fake("parent", "steady", "steady") as process:
        process.said("ready in")
        assert len(process.children()) == 4
        [left] = [c for child in process.process.children() for c in child.children()]
        left.parent().kill()
        process.said("http .*is back on", 5)
        psutil.wait_procs([left], timeout=2)
        assert not left.is_running() and len(process.children()) == 4


def test_ctrl_c_drains_as_sigterm_does(fake: Fake) -> None:
    """Ctrl-C reaches the supervisor alone, which lets each child drain."""
    with fake("steady", "steady", "steady") as process:
        process.said("ready in")
        assert process.end(signal.SIGINT)[0] == 0 and process.lines.count("drained") == 3


def test_a_killed_supervisor_takes_its_children_along(fake: Fake) -> None:
    """Nobody would start them again, and they would keep the ports."""
    with fake("steady", "steady", "steady") as process:
        process.said("ready in")
        below = process.children()
        process.popen.kill()
        process.popen.wait()
        assert psutil.wait_procs(below, timeout=3)[1] == []


# -------------------------------------------------------------------------------------------------- the real edges

RENMIN = SHIPPED_ADAPTERS / "renmin" / "examples"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Free ports and a data folder of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HUREN_")}
    return clean | {"HUREN_DATA": str(tmp_path / "data"), "HUREN_HTTP": "127.0.0.1:0", "HUREN_MLLP": "127.0.0.1:0",
                    "HUREN_DIMSE": "127.0.0.1:0", "HUREN_HTTP_WORKERS": "1"}


@contextmanager
def serving(environ: dict[str, str], *arguments: str) -> Iterator[Process]:
    """`huren serve …`, ready."""
    with started(["-m", "gateway", "serve", *arguments], environ) as process:
        process.said(r"^huren: ready in")
        yield process


def port_of(process: Process, name: str) -> int:
    """The port that the line of an edge names."""
    return int(process.said(rf"^huren: {name} .*:(\d+)$")[0][1])


@contextmanager
def opened(environ: dict[str, str]) -> Iterator[Store]:
    """The store that a gateway leaves behind."""
    store = open_store(load({k: v for k, v in environ.items() if k.startswith("HUREN_")}))
    try:
        yield store
    finally:
        store.close()


def listening(child: psutil.Process) -> set[int]:
    """The ports that a child or a process of its own listens on."""
    return {c.laddr.port for p in (child, *child.children()) for c in p.net_connections() if c.status == "LISTEN"}


def acknowledged(answer: bytes) -> bool:
    """Whether an answer says AA or CA."""
    return ACCEPTED.search(answer) is not None


def test_three_edges_open_take_and_come_back(environ: dict[str, str]) -> None:
    """Messages are stored, and an edge killed by SIGKILL is back on the same port and takes the next one."""
    raw = [(RENMIN / name).read_bytes() for name in ("01-cbc-final.hl7", "02-liver-final.hl7")]
    with serving(environ) as process:
        ports = {name: port_of(process, name) for name in ("http", "mllp", "dimse")}
        with hl7.client.MLLPClient("127.0.0.1", ports["mllp"]) as client:
            assert acknowledged(client.send(b"\x0b" + raw[0] + b"\x1c\r"))
        for name in ("mllp", "http", "dimse"):
            next(child for child in process.process.children() if ports[name] in listening(child)).kill()
            process.said(f"^huren: {name} +is back on .*:{ports[name]}$")
        with hl7.client.MLLPClient("127.0.0.1", ports["mllp"]) as client:
            assert acknowledged(client.send(b"\x0b" + raw[1] + b"\x1c\r"))
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['http']}/healthz", timeout=5) as answer:
            assert answer.status == 200
        status, took = process.end()
        assert status == 0 and took < 10
    with opened(environ) as store:
        assert store.counts()["inbox"] == {"received": 0, "stored": 2, "quarantined": 0}


def test_sigterm_under_load_keeps_every_acknowledged_message(environ: dict[str, str]) -> None:
    """Eight connections send while it stops: what was answered is stored, nothing is left half-way, in ten seconds."""
    template = (RENMIN / "01-cbc-final.hl7").read_bytes()
    answered: list[bytes] = []

    def send(k: int, port: int) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            for n in range(10_000):
                control_id = b"LOAD%d-%d" % (k, n)
                peer.sendall(b"\x0b" + template.replace(b"|L261100000|", b"|" + control_id + b"|") + b"\x1c\r")
                answer = b""
                while not answer.endswith(b"\x1c\r"):
                    if not (data := peer.recv(4096)):
                        return
                    answer += data
                assert acknowledged(answer), answer
                answered.append(control_id)

    with serving(environ, "mllp") as process:
        port = port_of(process, "mllp")
        threads = [threading.Thread(target=send, args=(k, port)) for k in range(8)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        while len(answered) < 100 and time.monotonic() < until:
            time.sleep(0.01)
        status, took = process.end()
        for thread in threads:
            thread.join()
    assert status == 0 and took < 10 and len(answered) >= 100
    with opened(environ) as store:
        stored = {row.control_id.encode() for row in store.inbox(status="stored", limit=100_000)}
        assert set(answered) <= stored and store.counts()["inbox"]["received"] == 0


def test_mllp_workers_share_the_port_and_survive_each_other(environ: dict[str, str]) -> None:
    """Connections go to the workers in turn; when one is killed, the other's go on, and new ones are taken."""
    raw = b"\x0b" + (RENMIN / "01-cbc-final.hl7").read_bytes() + b"\x1c\r"
    with serving(environ | {"HUREN_MLLP_WORKERS": "2"}, "mllp") as process:
        port = port_of(process, "mllp")
        workers = process.process.children()
        assert len(workers) == 2
        with contextlib.ExitStack() as peers:
            clients = [peers.enter_context(hl7.client.MLLPClient("127.0.0.1", port)) for _ in range(6)]
            assert all(acknowledged(client.send(raw)) for client in clients)
            held = [sum(c.status == "ESTABLISHED" for c in w.net_connections()) for w in workers]
            assert sum(held) == 6 and min(held) >= 1
            workers[0].kill()
            process.said("mllp +is back on")
            answers = []
            for client in clients:
                with contextlib.suppress(OSError):
                    answers.append(client.send(raw))
            assert sum(map(acknowledged, answers)) == held[1]
            with hl7.client.MLLPClient("127.0.0.1", port) as late:
                assert acknowledged(late.send(raw))
        assert process.end()[0] == 0


def test_what_a_crash_left_is_run_before_the_port_opens(environ: dict[str, str]) -> None:
    """A message that was recorded and not settled is stored when the line of the port comes."""
    with serving(environ, "mllp") as process:
        process.end()
    with opened(environ) as store:
        inbox_id = store.record((RENMIN / "01-cbc-final.hl7").read_bytes(), "hl7v2", "127.0.0.1", "L1", "DEMO1").id
        assert store.counts()["inbox"]["received"] == 1
    with serving(environ, "mllp") as process:
        process.end()
    with opened(environ) as store:
        row = store.inbox_show(inbox_id)
        assert row is not None and row.status == "stored" and row.receipt is not None and row.receipt.resources > 0


def test_the_demo_shows_data_and_a_second_start_changes_nothing(environ: dict[str, str]) -> None:
    """The examples arrive through the real ports, refused ones too; sent again, they make no version more."""
    states = []
    for _ in range(2):
        with serving(environ, "--demo") as process:
            [said] = process.said(r"^huren: demo: 3 hospitals sent (\d+) .*; (\d+) accepted, (\d+) refused")
            assert int(said[2]) > 30 and int(said[3]) == len(list(SHIPPED_ADAPTERS.glob("[!g]*/examples/*.refused")))
            assert process.end()[0] == 0
        with opened(environ) as store:
            history = store.history("DiagnosticReport", None, GATEWAY, 1000)
            states.append((store.counts()["resources"], [(row.id, row.version) for row in history]))
    assert states[0] == states[1] and states[0][0]["ImagingStudy"] >= 1 and states[0][0]["Observation"] > 100


def test_a_taken_port_stops_the_start_with_a_sentence(environ: dict[str, str]) -> None:
    """Status 1, the address, and the setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with started(["-m", "gateway", "serve"], environ | {"HUREN_MLLP": address}) as process:
            assert process.popen.wait(20) == 1
            process.said(rf"^huren: cannot listen on {address} .* HUREN_MLLP$")


@pytest.mark.parametrize("seconds", [0.3, 0.6, 0.9])
def test_a_stop_during_the_start_is_heeded(environ: dict[str, str], seconds: float) -> None:
    """Whatever it was doing: it ends soon, cleanly, and leaves no process; the next start is a whole one."""
    with started(["-m", "gateway", "serve"], environ) as process:
        time.sleep(seconds)
        status, took = process.end()
        assert took < 5 and status in (0, -signal.SIGTERM)  # the latter: before the first line of ours had run
    with serving(environ, "mllp") as process:
        assert process.end()[0] == 0
