"""The DIMSE port: one blocking thread an association, within limits; drained before it closes."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.adapter import Adapters
from gateway.config import Settings, host_port
from gateway.edges.dimse import upper_layer as ul
from gateway.edges.dimse.association import Association, staged_name
from gateway.edges.dimse.publisher import Publisher
from gateway.edges.process import await_stop, bound, hold_stop
from gateway.imaging import Facts

if TYPE_CHECKING:
    from gateway.pipeline import Pipeline

log = logging.getLogger("huren.dimse")

#: Takes over a staged file and commits its row: `Pipeline.receive_dicom`.
Receive = Callable[[Path, Facts, bytes, str, str], str]

_DRAIN_SECONDS = 6.0
_PUBLISH_SECONDS = 2.5  # together below the ten seconds that a stop may take
_ABANDONED_SECONDS = 3600.0  # a staged file that nobody has written to for so long
_REJECTING = 16  # connections beyond the limit that are told so; more are closed at once
_SEND_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer, and all together, may take."""

    associations: int = 60
    per_address: int = 30
    acse_seconds: float = 10.0  # ARTIM: a connection that sends no A-ASSOCIATE-RQ
    idle_seconds: float = 300.0  # an association that sends no message
    stall_seconds: float = 60.0  # a message that does not go on

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """No address takes more than half of the associations, so that none can shut the others out."""
        return cls(settings.dimse_associations, max(1, (settings.dimse_associations + 1) // 2))


class Listener:
    """Listens, negotiates, and hands each object to ``receive``."""

    def __init__(self, settings: Settings, adapters: Adapters, receive: Receive, staging: Path, publisher: Publisher,
                 limits: Limits | None = None) -> None:
        self.title = settings.ae_title.strip()
        self.adapters = adapters
        self.receive = receive
        self.publisher = publisher
        self.limits = limits or Limits.of(settings)
        self._staging = staging
        self._numbers = itertools.count(time.time_ns())
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._connections: dict[socket.socket, str] = {}
        self._per_address: Counter[str] = Counter()
        staging.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._socket = bound(*host_port(settings.dimse, "HUREN_DIMSE"), "HUREN_DIMSE")
        self.address: tuple[str, int] = self._socket.getsockname()[:2]

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Take associations from now on."""
        self._socket.listen(128)
        threading.Thread(target=self._accept, name="dimse-accept", daemon=True).start()

    def drain(self, seconds: float = _DRAIN_SECONDS) -> bool:
        """Take no more associations, abort the idle ones, let running C-STOREs be answered; False when cut short."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._socket.close()
        with self._left:
            done = self._left.wait_for(lambda: not self._connections, timeout=seconds)
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        return done

    def staged_path(self) -> Path:
        """A fresh path in the staging folder."""
        return staged_name(self._staging, os.getpid(), next(self._numbers))

    def refusal(self, peer: str) -> ul.Rejection | None:
        """Why no further association is taken, from this address or from any."""
        if self._stop.is_set():
            return ul.DRAINING
        with self._lock:
            too_many = len(self._connections) > self.limits.associations or \
                self._per_address[peer] > self.limits.per_address
        return ul.TOO_MANY if too_many else None

    def _sweep(self) -> None:
        """Remove what a crash left half received; nothing of it was acknowledged."""
        now = time.time()
        for path in self._staging.glob("dimse-*.part"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, address = self._socket.accept()
            except OSError as error:
                if self._stop.is_set():
                    return
                log.warning("dimse accept failed: %s", error.strerror)  # out of file descriptors: try again
                time.sleep(0.1)
                continue
            peer = address[0].removeprefix("::ffff:")
            if not self._admit(connection, peer):
                log.warning("dimse peer=%s outcome=closed reason=HUREN_DIMSE_ASSOCIATIONS", peer)
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection, peer), name=f"dimse-{peer}", daemon=True).start()

    def _admit(self, connection: socket.socket, peer: str) -> bool:
        with self._lock:
            if len(self._connections) >= self.limits.associations + _REJECTING or \
                    self._per_address[peer] >= self.limits.per_address + _REJECTING:
                return False
            self._connections[connection] = peer
            self._per_address[peer] += 1
            return True

    def _serve(self, connection: socket.socket, peer: str) -> None:
        association: Association | None = None
        try:
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, ul.timeval(_SEND_SECONDS))
            association = Association(self, ul.Stream(connection, self._stop), peer)
            association.serve()
        except OSError as error:
            log.warning("dimse peer=%s outcome=closed errno=%s", peer, error.errno)
        finally:
            if association is not None:
                self.publisher.released(association)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            connection.close()
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._left:
            peer = self._connections.pop(connection)
            self._per_address[peer] -= 1
            if not self._per_address[peer]:
                del self._per_address[peer]
            self._left.notify_all()


def listen(settings: Settings, pipeline: Pipeline, limits: Limits | None = None) -> Listener:
    """A listener over a pipeline, its port open and not yet served."""
    return Listener(settings, pipeline.adapters, pipeline.receive_dicom, pipeline.store.objects.staging,
                    Publisher(pipeline.publish_studies), limits)


def serve(settings: Settings, ready: Callable[[], None]) -> None:
    """Listen until SIGTERM or SIGINT, then drain; at the start, publish what a crash left unpublished."""
    from gateway.pipeline import Pipeline
    from gateway.store import open_store

    hold_stop()
    store = open_store(settings)
    try:
        listener = listen(settings, Pipeline(settings, store))
        listener.publisher.start()
        listener.start()
        ready()
        await_stop()
        if not listener.drain():
            log.warning("dimse outcome=cut reason=still-running after=%.0fs", _DRAIN_SECONDS)
        listener.publisher.stop(_PUBLISH_SECONDS)
    finally:
        store.close()
