"""One process that starts an edge in a process each, starts a dead one again, and lets all drain before it stops.

The supervisor imports what its children share and then forks, so their common pages exist once. It opens no database
and starts no thread: what a child does first, it does in its own process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import ipaddress
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TextIO

from gateway.config import Settings, host_port
from gateway.edges.process import die_with
from gateway.errors import Category, GatewayError, sentence_of

log = logging.getLogger("huren.supervisor")

EDGES = ("http", "mllp", "dimse")
_SHARED = ("gateway.pipeline", "gateway.store")  # what every child imports
_DRAIN_SECONDS = 9.0  # then SIGKILL: all is over within ten
_LATER = float("inf")  # start it when the first of its name is ready
_STEADY_SECONDS = 30.0  # a child that lived so long is started again at once
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: What a child runs: it gets the settings and calls ``ready`` when its port is open; it returns after SIGTERM.
Run = Callable[[Settings, Callable[[], None]], None]


@dataclass(slots=True)
class _Child:
    name: str  # several processes may share one
    run: Run
    ports: tuple[socket.socket, ...] = ()  # bound here, and open while the child is started again
    pid: int = 0
    pipe: int = -1  # read end: a byte means ready
    began: float = 0.0
    start_at: float = 0.0
    deaths: int = 0  # in a row
    ready: bool = False
    ever_ready: bool = False


class Supervisor:
    """Runs the edges of ``names`` until SIGTERM or SIGINT.

    ``then`` runs once in a process of its own when every port is open (the demo's sender).
    """

    def __init__(self, settings: Settings, names: Sequence[str] = EDGES,
                 then: Callable[[Settings], None] | None = None) -> None:
        self.settings = _with_ports(settings, names)
        self._names = names
        self._children: list[_Child] = []
        self._migration = _Child("migrate", _migrate)
        self._then = then
        self._task: _Child | None = None
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._failed = False
        self._hurry = False
        self._began = time.monotonic()

    def run(self) -> int:
        """Exit status: 0 after a clean stop, 1 when an edge could not start or had to be killed."""
        wake, write = os.pipe()
        os.set_blocking(write, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(wake, selectors.EVENT_READ)
        try:
            if not self._prepare():
                return 1 if self._failed else 0
            self._children = [child for name in self._names for child in _edge(name, self.settings)]
            self._watch(wake)
            return self._drain(wake)
        finally:
            signal.set_wakeup_fd(-1)
            for child in self._all():
                _kill(child)

    # ---------------------------------------------------------------- start

    def _prepare(self) -> bool:
        """Migrate the schema in a process of its own while this one imports what all share."""
        self._start(self._migration)
        _import_shared(self._names)
        gc.collect()
        gc.freeze()  # a collection in a child must not touch, and so copy, the shared pages
        gc.set_threshold(20_000, 20, 20)  # a message makes thousands of objects that all die with it, none in a circle
        _, status = os.waitpid(self._migration.pid, 0)
        self._migration.pid = 0
        self._close_pipe(self._migration)
        self._failed = os.waitstatus_to_exitcode(status) != 0 and not self._stopping
        return not self._failed and not self._stopping

    def _start(self, child: _Child) -> None:
        read, write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        # A signal between the fork and the child's own handlers would be taken by this one's, and be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.close(read)
            self._become(child, write, supervisor)
        os.close(write)
        with contextlib.suppress(OSError):  # both sides: whichever comes first
            os.setpgid(pid, pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        child.pid, child.pipe, child.began, child.ready = pid, read, time.monotonic(), False
        self._selector.register(read, selectors.EVENT_READ, child)

    def _become(self, child: _Child, pipe: int, supervisor: int) -> None:
        """The rest of a child's life; never returns."""
        status = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C goes to the supervisor alone; a dead child's own children can be found
            signal.set_wakeup_fd(-1)
            for number in (*_SIGNALS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._selector.close()
            for other in self._children:
                if other.ports is not child.ports:
                    _close(other.ports)
            die_with(supervisor)
            child.run(self.settings, lambda: _write(pipe))
            status = 0
        except GatewayError as error:
            _say(f"huren {child.name}: {error.message}", sys.stderr)
        except OSError as error:
            _say(f"huren {child.name}: {sentence_of(error)}", sys.stderr)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except KeyboardInterrupt:
            status = 0
        except BaseException as error:
            log.exception("%s died of %s", child.name, type(error).__name__)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
                logging.shutdown()
            os._exit(status)

    # ---------------------------------------------------------------- life

    def _watch(self, wake: int) -> None:
        while not self._stopping:
            due = min((c.start_at for c in self._children if not c.pid), default=_LATER)
            wait = None if due == _LATER else max(0.0, due - time.monotonic())
            self._read(wake, wait)
            self._reap()
            for child in self._children:
                if not self._stopping and not child.pid and child.start_at <= time.monotonic():
                    self._start(child)

    def _read(self, wake: int, wait: float | None) -> None:
        for key, _ in self._selector.select(wait):
            if key.fd == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 512)
                continue
            child: _Child = key.data
            if os.read(child.pipe, 1):
                self._is_ready(child)
            else:  # closed: it died, or will say no more
                self._close_pipe(child)

    def _is_ready(self, child: _Child) -> None:
        again = child.ever_ready
        child.ready = child.ever_ready = True
        for other in self._children:
            if other.name == child.name and other.start_at == _LATER:
                other.start_at = 0.0
        if child not in self._children or not all(c.ever_ready for c in self._children if c.name == child.name):
            return
        _say(f"huren: {child.name:<5} {'is back on' if again else 'listens on'} {_address(self.settings, child.name)}")
        if not again and all(c.ever_ready for c in self._children):
            _say(f"huren: ready in {time.monotonic() - self._began:.1f} s")
            if self._then:
                then = self._then
                self._task = _Child("demo", lambda settings, ready: then(settings))
                self._start(self._task)

    def _reap(self) -> None:
        for child in self._all():
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            _kill(child)  # what it may have left of its own children
            child.pid = 0
            self._hear_last(child)
            self._close_pipe(child)
            if child is self._task:
                self._task = None
            elif not self._stopping:
                self._died(child, os.waitstatus_to_exitcode(status))

    def _hear_last(self, child: _Child) -> None:
        """It may have said that it is ready just before it died: then it had started."""
        if child.pipe >= 0 and not child.ready:
            os.set_blocking(child.pipe, False)
            with contextlib.suppress(BlockingIOError):
                if os.read(child.pipe, 1):
                    self._is_ready(child)

    def _died(self, child: _Child, status: int) -> None:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if not child.ever_ready:
            _say(f"huren: {child.name} could not start ({how})", sys.stderr)
            self._failed = self._stopping = True
            return
        lived = time.monotonic() - child.began
        child.deaths = 0 if lived >= _STEADY_SECONDS else child.deaths + 1
        pause = _BACKOFF[min(child.deaths, len(_BACKOFF)) - 1] if child.deaths else 0.0
        child.start_at = time.monotonic() + pause
        log.error("%s ended with %s after %.1f s; starting it again in %.1f s", child.name, how, lived, pause)

    # ---------------------------------------------------------------- end

    def _stop(self, *_: object) -> None:
        self._hurry = self._stopping  # asked twice: at once
        self._stopping = True
        if self._migration.pid:  # its transaction is undone
            os.kill(self._migration.pid, signal.SIGTERM)

    def _drain(self, wake: int) -> int:
        for child in self._children:
            _close(child.ports)  # shut when the last worker has closed them too
        for child in self._all():
            if not child.pid:
                continue
            if not child.ready and child is not self._task:  # nobody was served yet, and it may not heed a signal yet
                _kill(child)
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + _DRAIN_SECONDS
        while any(c.pid for c in self._all()) and time.monotonic() < deadline and not self._hurry:
            self._read(wake, min(0.5, max(0.0, deadline - time.monotonic())))
            self._reap()
        late = [c for c in self._all() if c.pid]
        for child in late:
            _say(f"huren: {child.name} did not drain in time and is killed", sys.stderr)
            _kill(child)
            os.waitpid(child.pid, 0)
            child.pid = 0
        if not self._failed and not late:
            _say("huren: stopped")
        return 1 if self._failed or late else 0

    def _all(self) -> list[_Child]:
        return [*self._children, *([self._task] if self._task else [])]

    def _close_pipe(self, child: _Child) -> None:
        if child.pipe >= 0:
            self._selector.unregister(child.pipe)
            os.close(child.pipe)
            child.pipe = -1


def require_loopback(settings: Settings) -> None:
    """INVALID unless every address is a loopback one: the demo asks nobody who they are."""
    for name in [*EDGES, *(["mllp_tls"] if settings.mllp_tls else [])]:
        host, _ = host_port(getattr(settings, name))
        try:
            loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            variable = f"HUREN_{name.upper()}"
            raise GatewayError(Category.INVALID, f"--demo has no login and listens on loopback addresses only; set "
                               f"{variable} to 127.0.0.1:PORT, or leave --demo out", variable)


def _migrate(settings: Settings, ready: Callable[[], None]) -> None:
    from gateway.recognition.loading import keep_shipped
    from gateway.store import open_store

    store = open_store(settings, migrate=True)
    keep_shipped(store)
    store.close()


def _import_shared(names: Iterable[str]) -> None:
    """What the children would each import: once, before the fork."""
    for module in (*_SHARED, *(f"gateway.edges.{name}" for name in names)):
        importlib.import_module(module)


def _edge(name: str, settings: Settings) -> list[_Child]:
    """An edge's processes: one, which may have workers of its own; for MLLP as many as it is to have, on one port."""
    if name != "mllp":
        return [_Child(name, importlib.import_module(f"gateway.edges.{name}").serve)]
    from gateway.edges import mllp

    ports = mllp.bound_ports(settings)
    # The first opens the ports when it has run what a crash left; the others then find nothing left to run.
    return [_Child(name, lambda settings, ready, n=n: mllp.serve(settings, ready, ports, n), ports,  # type: ignore[misc]
                   start_at=_LATER if n else 0.0)
            for n in range(settings.mllp_processes)]


def _address(settings: Settings, name: str) -> str:
    address = str(getattr(settings, name))
    tls = f", with TLS on mllps://{settings.mllp_tls}" if settings.mllp_tls else ""
    return {"http": f"http://{address}", "mllp": f"mllp://{address}{tls}",
            "dimse": f"dicom://{settings.ae_title}@{address}"}[name]


def _with_ports(settings: Settings, names: Sequence[str]) -> Settings:
    """Port 0 becomes a free port now, so that links and a restarted child use the same one."""
    chosen = {}
    for name in [*names, *(["mllp_tls"] if settings.mllp_tls and "mllp" in names else [])]:
        host, port = host_port(getattr(settings, name))
        if port == 0:
            with socket.create_server((host or "127.0.0.1", 0)) as probe:
                chosen[name] = f"{host}:{probe.getsockname()[1]}"
    return replace(settings, **chosen)  # type: ignore[arg-type]


def _close(ports: Iterable[socket.socket]) -> None:
    for port in ports:
        port.close()


def _say(line: str, stream: TextIO | None = None) -> None:
    """A line in one write: several processes share the terminal."""
    stream = stream or sys.stdout
    stream.write(line + "\n")
    stream.flush()


def _write(pipe: int) -> None:
    with contextlib.suppress(OSError):
        os.write(pipe, b"1")


def _kill(child: _Child) -> None:
    """SIGKILL for a child and its own children."""
    if child.pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
