"""The MLLP listener: HL7 messages in, one answer a message out, in order (HL7 v2.5.1 2.9, MLLP Release 1).

One thread a connection, blocking all the way down: the pipeline blocks on its commit anyway, and a hop through an
event loop costs more than the rest of the edge (36,000 against 13,500 empty messages a second). A connection reads
its next message after it has answered the last one, so a slow store slows its senders and nothing piles up.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from gateway import hl7v2
from gateway.config import Settings, host_port
from gateway.edges.process import await_stop, bound, hold_stop
from gateway.errors import Category, GatewayError
from gateway.store.model import Receipt

log = logging.getLogger("huren.mllp")

START, END = 0x0B, 0x1C  # <VT> and <FS> of the block <VT> dddd <FS><CR>
_NOISE = b"\r\n"
_HEADERS = (b"MSH", b"FHS", b"BHS")
_CHUNK = 65536
_WRITE_SECONDS = 30.0  # a sender that does not take its answer for so long is gone
_LINGER_SECONDS = 0.2
_DRAIN_SECONDS = 8.0
_NO_HEADER = hl7v2.Header(hl7v2.Separators(), ("MSH", "|", "^~\\&"), "ascii")
_ACCEPT_SECONDS = 0.2  # the port may be shared, so nothing but time wakes accept() in one process alone
_RUNNING = 64  # messages in the pipeline at once; more only wait for the interpreter


@dataclass(frozen=True, slots=True)
class Answer:
    """A row of the answer table: MSA-1 (table 0008) and ERR-3 (table 0357). AE: correct it. AR: not its content."""

    acknowledgment_code: str
    error_code: str
    text: str


#: What each category is answered with; `_NARROWER` has the rows that ``GatewayError.detail`` picks.
ANSWERS: dict[Category, Answer] = {
    Category.MALFORMED: Answer("AR", "100", "Segment sequence error"),
    Category.UNSUPPORTED: Answer("AR", "200", "Unsupported message type"),
    Category.INVALID: Answer("AE", "101", "Required field missing"),
    Category.FORBIDDEN: Answer("AR", "207", "Application internal error"),
    Category.NOT_FOUND: Answer("AE", "204", "Unknown key identifier"),
    Category.CONFLICT: Answer("AE", "205", "Duplicate key identifier"),
    Category.BUSY: Answer("AR", "206", "Application record locked"),
    Category.FAULT: Answer("AR", "207", "Application internal error"),
}
_NARROWER: dict[tuple[Category, str], Answer] = {
    (Category.UNSUPPORTED, "message-type"): Answer("AR", "200", "Unsupported message type"),
    (Category.UNSUPPORTED, "event"): Answer("AR", "201", "Unsupported event code"),
    (Category.UNSUPPORTED, "processing-id"): Answer("AR", "202", "Unsupported processing id"),
    (Category.UNSUPPORTED, "version"): Answer("AR", "203", "Unsupported version id"),
    (Category.INVALID, "required"): Answer("AE", "101", "Required field missing"),
    (Category.INVALID, "data-type"): Answer("AE", "102", "Data type error"),
    (Category.INVALID, "table-value"): Answer("AE", "103", "Table value not found"),
}
STORED = Answer("AA", "0", "Message accepted")
REMARK = Answer("AA", "103", "Table value not found")  # stored, ERR-4 W: a code that no table of ours maps


def answer_for(receipt: Receipt) -> Answer:
    """The row of the table for a receipt."""
    if receipt.category is None:
        return REMARK if receipt.remark else STORED
    category = Category(receipt.category)
    return _NARROWER.get((category, receipt.detail), ANSWERS[category])


class TooLarge(Exception):
    """A block grew beyond the limit; ``head`` is its beginning."""

    def __init__(self, head: bytes) -> None:
        super().__init__("block too large")
        self.head = head


class NotMllp(Exception):
    """Bytes between blocks that are no noise: the framing is lost."""


class Frames:
    """Cuts a stream of bytes into MLLP blocks; where the stream is cut into packets changes nothing.

    CR and LF between blocks are noise, and the CR after FS may be missing. A VT before MSH, FHS or BHS inside a block
    starts it anew (the sender broke off and began again); any other VT is content: a word processor's line break.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._buffer = bytearray()
        self._scanned = 0
        self.broken_off = 0  # blocks that were begun and never ended

    def feed(self, data: bytes) -> None:
        """Add what has been received."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole block's content, or None when more bytes are needed."""
        buffer = self._buffer
        if not buffer:
            return None
        if self._scanned == 0:
            rest = bytes(buffer).lstrip(_NOISE) if buffer[0] in _NOISE else buffer
            if rest is not buffer:
                buffer[:] = rest
            if not buffer:
                return None
            if buffer[0] != START:
                raise NotMllp
            self._scanned = 1
        end = buffer.find(END, self._scanned)
        if (end if end >= 0 else len(buffer)) - 1 > self._max:
            raise TooLarge(bytes(buffer[1:_CHUNK]))
        if end < 0:
            self._scanned = len(buffer)
            return None
        content = bytes(buffer[1:end])
        del buffer[:end + 1]
        self._scanned = 0
        return self._last_start(content)

    def _last_start(self, content: bytes) -> bytes:
        if START not in content:
            return content
        begin = max(content.rfind(bytes([START]) + header) for header in _HEADERS)
        if begin < 0:
            return content
        self.broken_off += 1
        return content[begin + 1:]

    @property
    def open(self) -> bool:
        """Whether a block has begun and not ended."""
        return self._scanned > 0

    def __len__(self) -> int:
        return len(self._buffer)


@dataclass(slots=True)
class Limits:
    """How much a sender may take."""

    max_bytes: int
    idle_seconds: float
    frame_seconds: float
    connections: int
    connections_per_address: int
    #: bytes of unfinished blocks over all connections: many large ones at once must not fill the memory
    held_bytes: int

    @classmethod
    def of(cls, settings: Settings, processes: int = 1) -> Limits:
        """From the settings, shared out among processes; one's senders may hold four blocks of the largest size."""
        return cls(settings.mllp_max_bytes, settings.mllp_idle_seconds, settings.mllp_frame_seconds,
                   -(-settings.mllp_connections // processes), -(-settings.mllp_connections_per_address // processes),
                   4 * settings.mllp_max_bytes)


class Listener:
    """Listens, hands each message to ``receive`` and answers from the table.

    ``receive`` is `Pipeline.receive_hl7`: blocking, safe from many threads. It returns a receipt once the raw bytes are
    durable; whatever it raises means that they are not, and then the connection is closed without an answer
    (the sender sends again). ``port`` is bound already where several processes take connections from it in turn.
    """

    def __init__(self, settings: Settings, receive: Callable[[bytes, str], Receipt],
                 port: socket.socket | None = None, processes: int = 1) -> None:
        self.limits = Limits.of(settings, processes)
        self._receive = receive
        self._zone = ZoneInfo(settings.timezone)
        # MSH-10 of our answers: never twice, over processes and starts, in 20 characters (v2.3).
        self._control_ids = map(f"{os.getpid():x}-{{:x}}".format, itertools.count(time.time_ns() // 1000))
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._connections: dict[socket.socket, str] = {}
        self._per_address: Counter[str] = Counter()
        self._held = 0
        self._running = threading.BoundedSemaphore(_RUNNING)
        self._draining = False
        self._accepting = threading.Thread(target=self._accept, name="mllp-accept", daemon=True)
        self._socket = port or bound_port(settings)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Take connections from now on, in a thread of its own."""
        _wait(self._socket, socket.SO_RCVTIMEO, _ACCEPT_SECONDS)
        self._socket.listen(128)
        self._accepting.start()

    def drain(self, seconds: float) -> bool:
        """Take no more connections or messages, let the running ones be answered; False when some were not in time."""
        with self._lock:
            self._draining = True
            waiting = list(self._connections)
        for connection in waiting:  # wakes recv(); an answer can still be sent
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        if self._accepting.is_alive():
            self._accepting.join()
        self._socket.close()
        with self._left:
            return self._left.wait_for(lambda: not self._connections, timeout=seconds)

    def _accept(self) -> None:
        while not self._draining:
            try:
                connection, address = self._socket.accept()
            except BlockingIOError:  # nobody came: look whether it is time to stop
                continue
            except OSError as error:
                log.warning("mllp accept failed: %s", error.strerror)  # out of file descriptors: try again
                time.sleep(0.1)
                continue
            peer = address[0].removeprefix("::ffff:")
            if reason := self._admit(connection, peer):
                log.warning("mllp peer=%s outcome=refused reason=%s", peer, reason)
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection, peer), name=f"mllp-{peer}", daemon=True).start()

    def _admit(self, connection: socket.socket, peer: str) -> str:
        with self._lock:
            if self._draining:
                return "stopping"
            if len(self._connections) >= self.limits.connections:
                return "HUREN_MLLP_CONNECTIONS"
            if self._per_address[peer] >= self.limits.connections_per_address:
                return "HUREN_MLLP_CONNECTIONS_PER_ADDRESS"
            self._connections[connection] = peer
            self._per_address[peer] += 1
        return ""

    def _forget(self, connection: socket.socket, held: int) -> None:
        with self._left:
            peer = self._connections.pop(connection)
            self._per_address[peer] -= 1
            if not self._per_address[peer]:
                del self._per_address[peer]
            self._held -= held
            self._left.notify_all()

    # ---------------------------------------------------------------- one connection

    def _serve(self, connection: socket.socket, peer: str) -> None:
        frames = _Held(self, Frames(self.limits.max_bytes))
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            _wait(connection, socket.SO_SNDTIMEO, _WRITE_SECONDS)
            _wait(connection, socket.SO_RCVTIMEO, self.limits.idle_seconds)
            for content in self._blocks(connection, frames):
                if not self._answer(connection, content, peer):
                    break
                if self._draining:
                    break
        except TooLarge as error:
            self._refuse_too_large(connection, error.head, peer)
        except NotMllp:
            log.warning("mllp peer=%s outcome=closed reason=not-mllp", peer)
        except _Stop as stop:
            log.warning("mllp peer=%s outcome=closed reason=%s bytes=%d", peer, stop, len(frames.frames))
        except OSError as error:  # reset by the peer, or it does not take its answer
            log.warning("mllp peer=%s outcome=closed reason=%s", peer, error.strerror or "timed out")
        except Exception as error:
            log.error("mllp peer=%s outcome=fault error=%s", peer, type(error).__name__)
        finally:
            _hang_up(connection, _LINGER_SECONDS)
            self._forget(connection, frames.held)

    def _blocks(self, connection: socket.socket, frames: _Held) -> Iterator[bytes]:
        """Whole blocks, as they come; ends when the sender closes."""
        deadline = 0.0
        while True:
            while (content := frames.next()) is not None:
                yield content
            if frames.frames.open:  # a block that has begun must end in its time, however slowly its bytes trickle in
                now = time.monotonic()
                deadline = deadline or now + self.limits.frame_seconds
                _wait(connection, socket.SO_RCVTIMEO, deadline - now)
            elif deadline:
                deadline = 0.0
                _wait(connection, socket.SO_RCVTIMEO, self.limits.idle_seconds)
            try:
                data = connection.recv(_CHUNK)
            except BlockingIOError:
                raise _Stop("block-not-ended" if frames.frames.open else "idle") from None
            if not data:
                if frames.frames.open and not self._draining:
                    raise _Stop("block-truncated")
                return
            frames.feed(data)

    def _answer(self, connection: socket.socket, content: bytes, peer: str) -> bool:
        """Run what a block holds and answer each message; False when the connection must close unanswered."""
        for raw in hl7v2.split(content) or [content]:
            try:
                with self._running:
                    receipt = self._receive(raw, peer)
            except GatewayError as error:
                log.error("mllp peer=%s outcome=unanswered reason=%s: %s", peer, error.category.value, error.message)
                return False
            except Exception as error:
                log.error("mllp peer=%s outcome=unanswered error=%s", peer, type(error).__name__)
                return False
            self._send(connection, raw, receipt)
        return True

    def _send(self, connection: socket.socket, raw: bytes, receipt: Receipt) -> None:
        connection.sendall(b"\x0b" + self._ack(raw, receipt) + b"\x1c\r")

    def _ack(self, raw: bytes, receipt: Receipt) -> bytes:
        try:
            header = hl7v2.peek(raw)
        except GatewayError:  # no MSH: nothing to give back, MSA-2 stays empty
            header = _NO_HEADER
        answer = answer_for(receipt)
        error = None
        if receipt.category is not None:
            error = hl7v2.AckError(answer.error_code, answer.text, "E", receipt.where, receipt.message)
        elif receipt.remark:
            error = hl7v2.AckError(answer.error_code, answer.text, "W", receipt.remark_where, receipt.remark)
        now, control_id = datetime.now(self._zone), next(self._control_ids)
        if isinstance(receipt.reply, hl7v2.Reply):
            return hl7v2.reply_bytes(header, answer.acknowledgment_code, receipt.reply, error=error, now=now,
                                     control_id=control_id)
        return hl7v2.ack(header, answer.acknowledgment_code, error=error, now=now, control_id=control_id)

    def _refuse_too_large(self, connection: socket.socket, head: bytes, peer: str) -> None:
        """Answer from the block's beginning, then let the rest run by: a sender that writes on sees its answer."""
        log.warning("mllp peer=%s outcome=malformed reason=too-large limit=%d", peer, self.limits.max_bytes)
        receipt = Receipt(0, Category.MALFORMED.value, f"message is larger than {self.limits.max_bytes} bytes; "
                          "send it in parts or raise HUREN_MLLP_MAX_BYTES", "MSH")
        with contextlib.suppress(OSError):
            self._send(connection, head, receipt)
            _hang_up(connection, self.limits.frame_seconds)


def bound_port(settings: Settings) -> socket.socket:
    """The port of HUREN_MLLP, bound and not yet listening; BUSY when it is taken."""
    return bound(*host_port(settings.mllp, "HUREN_MLLP"), "HUREN_MLLP")


def serve(settings: Settings, ready: Callable[[], None], port: socket.socket) -> None:
    """Listen until SIGTERM or SIGINT, then drain; before that, run what a crash left recorded but not settled.

    No other edge does that. The store hands each such message to one process, so that none is run twice at once.
    """
    from gateway.pipeline import Pipeline
    from gateway.store import open_store

    hold_stop()
    store = open_store(settings)
    try:
        pipeline = Pipeline(settings, store)
        if recovered := pipeline.recover():
            log.info("mllp recovered=%d", recovered)
        listener = Listener(settings, pipeline.receive_hl7, port, settings.mllp_processes)
        listener.start()
        ready()
        await_stop()
        if not listener.drain(_DRAIN_SECONDS):
            log.warning("mllp outcome=cut reason=still-running after=%.0fs", _DRAIN_SECONDS)
    finally:
        store.close()


class _Stop(Exception):
    """Why a connection is closed in the middle."""


class _Held:
    """Frames whose bytes count against what all connections together may hold."""

    def __init__(self, listener: Listener, frames: Frames) -> None:
        self._listener = listener
        self.frames = frames
        self.held = 0

    def feed(self, data: bytes) -> None:
        self.frames.feed(data)
        self._count()

    def next(self) -> bytes | None:
        content = self.frames.next()
        self._count()
        return content

    def _count(self) -> None:
        size = len(self.frames)
        if size == self.held or (size < _CHUNK and self.held < _CHUNK):
            return  # small ones are bounded by the number of connections
        with self._listener._lock:
            self._listener._held += size - self.held
            self.held = size
            if self._listener._held > self._listener.limits.held_bytes:
                raise _Stop("memory")


def _wait(connection: socket.socket, direction: int, seconds: float) -> None:
    """How long the kernel waits in recv() or send(): saves the poll() that a timeout of Python's adds to each call."""
    whole, part = divmod(max(seconds, 0.001), 1)
    connection.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", int(whole), int(part * 1e6)))


def _hang_up(connection: socket.socket, seconds: float) -> None:
    """Close so that the last answer arrives: closing over unread bytes would reset the connection and drop it."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(_CHUNK):
                break
    connection.close()
