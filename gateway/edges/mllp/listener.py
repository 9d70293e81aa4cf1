"""The MLLP ports: who may connect, how many, and how all of them end.

One thread a connection, blocking all the way down: the pipeline blocks on its commit anyway, and a hop through an
event loop costs more than the rest of the edge (36,000 against 13,500 empty messages a second). A connection reads
its next message after it has answered the last one, so a slow store slows its senders and nothing piles up.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from zoneinfo import ZoneInfo

from gateway.config import Settings, host_port
from gateway.edges.mllp import figures
from gateway.edges.mllp.answers import Answers
from gateway.edges.mllp.conversation import Conversation, Receiver
from gateway.edges.mllp.figures import FIGURES
from gateway.edges.mllp.tls import ServerTls
from gateway.edges.mllp.turns import Turns
from gateway.edges.mllp.wire import Wire, kernel_wait
from gateway.edges.process import bound

log = logging.getLogger("huren.mllp")

_ACCEPT_SECONDS = 0.2  # the port may be shared, so nothing but time wakes accept() in one process alone
_BACKLOG = 128


class Listener:
    """Listens, hands each message to ``receiver`` (`gateway.pipeline.Pipeline`) and answers.

    ``ports``: as `bound_ports` gives them, where several processes take connections from them in turn. The second is
    that of TLS.
    """

    def __init__(self, settings: Settings, receiver: Receiver, ports: tuple[socket.socket, ...] = (),
                 processes: int = 1) -> None:
        self.receiver = receiver
        self.answers = Answers(ZoneInfo(settings.timezone))
        self.turns = Turns()
        self.draining = False
        self.max_bytes = settings.mllp_max_bytes
        self.idle_seconds: float = settings.mllp_idle_seconds
        self.frame_seconds: float = settings.mllp_frame_seconds
        self._connections_most = -(-settings.mllp_connections // processes)
        self._address_most = -(-settings.mllp_connections_per_address // processes)
        # Bytes of unfinished blocks over all connections: many large ones at once must not fill the memory.
        self._held_most = 4 * settings.mllp_max_bytes
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._connections: set[Wire] = set()
        self._per_address: Counter[str] = Counter()
        self._held = 0
        tls = [None, ServerTls(settings)] if settings.mllp_tls else [None]
        self._ports = ports or bound_ports(settings)
        self._accepting = [threading.Thread(target=self._accept, args=(port, kind), name="mllp-accept", daemon=True)
                           for port, kind in zip(self._ports, tls, strict=True)]
        self.address: tuple[str, int] = self._ports[0].getsockname()[:2]
        self.tls_address: tuple[str, int] | None = self._ports[1].getsockname()[:2] if settings.mllp_tls else None

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Take connections from now on, in threads of its own."""
        for port, thread in zip(self._ports, self._accepting, strict=True):
            kernel_wait(port, socket.SO_RCVTIMEO, _ACCEPT_SECONDS)
            port.listen(_BACKLOG)
            thread.start()

    def drain(self, seconds: float) -> bool:
        """Take no more connections or messages, let the running ones be answered; False when some were not in time."""
        with self._lock:
            self.draining = True
            waiting = list(self._connections)
        for wire in waiting:
            wire.wake()
        for port, thread in zip(self._ports, self._accepting, strict=True):
            if thread.is_alive():
                thread.join()
            port.close()
        with self._left:
            return self._left.wait_for(lambda: not self._connections, timeout=seconds)

    # ---------------------------------------------------------------- connections

    def _accept(self, port: socket.socket, tls: ServerTls | None) -> None:
        while not self.draining:
            try:
                accepted, address = port.accept()
            except BlockingIOError:  # nobody came: look whether it is time to stop
                continue
            except OSError as error:
                log.warning("mllp accept failed: %s", error.strerror)  # out of file descriptors: try again
                time.sleep(0.1)
                continue
            wire = Wire(accepted, address[0].removeprefix("::ffff:"), tls)
            if reason := self._admit(wire):
                log.warning("mllp peer=%s outcome=refused reason=%s", wire.address, reason)
                FIGURES.add(figures.REFUSED, reason)
                accepted.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(wire,), name=f"mllp-{wire.address}", daemon=True).start()
            except RuntimeError:  # the system gives no more threads
                log.error("mllp peer=%s outcome=refused reason=threads", wire.address)
                accepted.close()
                self._forget(wire)

    def _admit(self, wire: Wire) -> str:
        with self._lock:
            if len(self._connections) >= self._connections_most or self.draining:
                return "connections"
            if self._per_address[wire.address] >= self._address_most:
                return "connections-per-address"
            self._connections.add(wire)
            self._per_address[wire.address] += 1
        FIGURES.add(figures.OPEN, wire.transport)
        FIGURES.add(figures.OPENED, wire.transport)
        return ""

    def _serve(self, wire: Wire) -> None:
        try:
            Conversation(self, wire).run()
        finally:
            self._forget(wire)

    def _forget(self, wire: Wire) -> None:
        FIGURES.add(figures.OPEN, wire.transport, -1)
        with self._left:
            self._connections.discard(wire)
            self._per_address[wire.address] -= 1
            if not self._per_address[wire.address]:
                del self._per_address[wire.address]
            self._left.notify_all()

    def hold(self, change: int) -> bool:
        """Count bytes of unfinished blocks; False when all connections together hold more than four of the largest."""
        with self._lock:
            self._held += change
            return self._held <= self._held_most


def bound_ports(settings: Settings) -> tuple[socket.socket, ...]:
    """The ports of HUREN_MLLP and, where it is set, HUREN_MLLP_TLS, bound and not yet listening; BUSY when taken."""
    ports = [bound(*host_port(settings.mllp, "HUREN_MLLP"), "HUREN_MLLP")]
    if settings.mllp_tls:
        ports.append(bound(*host_port(settings.mllp_tls, "HUREN_MLLP_TLS"), "HUREN_MLLP_TLS"))
    return tuple(ports)
