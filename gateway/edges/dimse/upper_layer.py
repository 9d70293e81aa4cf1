"""The DICOM Upper Layer as an acceptor (PS3.8 9): PDUs off a socket within limits, and the negotiation.

pynetdicom reads and writes the PDUs that open an association; its data, which is what costs time, is read here: one
blocking thread and one buffer an association, where pynetdicom polls in two threads and encodes each response
through pydicom.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydicom.uid import UID, UID_dictionary
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor
from pynetdicom.sop_class import _STORAGE_CLASSES  # the list of PS3.4 B.5, under no public name

#: Of this implementation: the UUID (version 5) of the project's canonical base (PS3.5 B.2).
IMPLEMENTATION_UID = "2.25.37813359339313825660776563848030170605"
IMPLEMENTATION_NAME = "HUREN"
VERIFICATION = "1.2.840.10008.1.1"

ASSOCIATE_RQ, P_DATA, RELEASE_RQ, ABORT = 1, 4, 5, 7
RELEASE_RP = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"
#: What we ask peers to keep their P-DATA within, and what is read at most of any PDU: nothing larger is ever held.
MAXIMUM_LENGTH = 128 * 1024
PDU_LIMIT = 1024 * 1024
_BUFFER = 256 * 1024
_QUICKACK = getattr(socket, "TCP_QUICKACK", 0)  # Linux has it
_TICK = 0.5  # how often an idle association looks whether it has to stop

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_IMPLICIT_LE, _EXPLICIT_LE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
# Not taken: objects whose pixels stay elsewhere (JPIP), and what is no DICOM file (MIME, XML, SMPTE, Papyrus).
_JPIP = {"1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205"}
_NO_FILE = ("1.2.840.10008.1.2.6", "1.2.840.10008.1.2.7", "1.2.840.10008.1.20")
TRANSFER_SYNTAXES = frozenset(
    uid for uid, entry in UID_dictionary.items()
    if entry[1] == "Transfer Syntax" and uid not in _JPIP and not uid.startswith(_NO_FILE))
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_STORAGE = frozenset(_STORAGE_CLASSES.values())


class PeerClosed(Exception):
    """The connection ended."""


class TooSlow(Exception):
    """Nothing, or too little, came in time."""


class Stopping(Exception):
    """The listener drains, and nothing is being received on this association."""


class ProtocolError(Exception):
    """The peer breaks PS3.8; ``reason`` is the A-ABORT's (table 9-26)."""

    def __init__(self, reason: int, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Stream:
    """PDUs off a socket through one buffer."""

    def __init__(self, connection: socket.socket, stop: threading.Event) -> None:
        self._connection = connection
        self._stop = stop
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # The kernel waits, not a poll() of Python's before each call.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(_TICK))

    def pdu(self, begin_within: float, idle: bool, end_within: float = 60.0) -> tuple[int, memoryview]:
        """Type and content of the next PDU; the content is valid until the next call.

        ``idle``: no message is under way, so that a stop may come between.
        """
        self._fill(1, time.monotonic() + begin_within, idle)
        deadline = time.monotonic() + end_within
        self._fill(6, deadline, False)
        kind, length = struct.unpack_from(">BxL", self._buffer, self._start)
        if not 1 <= kind <= 7:
            raise ProtocolError(1, "not a PDU")
        if length > PDU_LIMIT:
            raise ProtocolError(6, f"a PDU longer than {PDU_LIMIT} bytes")
        self._start += 6
        self._fill(length, deadline, False)
        content = self._view[self._start:self._start + length]
        self._start += length
        return kind, content

    def _fill(self, length: int, deadline: float, idle: bool) -> None:
        """Have ``length`` bytes in the buffer."""
        if self._end - self._start >= length:
            return
        if self._start + length > len(self._buffer) or self._start == self._end:
            self._make_room(length)
        while self._end - self._start < length:
            try:
                got = self._connection.recv_into(self._view[self._end:])
            except BlockingIOError:
                got = -1
            if got == 0:
                raise PeerClosed
            if got > 0:
                self._end += got
                # Acknowledge at once: a sender with Nagle's algorithm on waits for it before its next segment.
                if _QUICKACK:
                    self._connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            if idle and self._end == self._start and self._stop.is_set():
                raise Stopping
            if time.monotonic() > deadline and self._end - self._start < length:
                raise TooSlow

    def _make_room(self, length: int) -> None:
        rest = bytes(self._view[self._start:self._end])
        if length > len(self._buffer):
            self._view.release()
            self._buffer = bytearray(length + _BUFFER)
            self._view = memoryview(self._buffer)
        self._buffer[:len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._connection.sendall(data)


def timeval(seconds: float) -> bytes:
    """What SO_RCVTIMEO and SO_SNDTIMEO take."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4): result, source and reason, and why in words for the log."""

    result: int
    source: int
    reason: int
    why: str

    def encode(self) -> bytes:
        """The PDU."""
        return struct.pack(">BxLxBBB", 3, 4, self.result, self.source, self.reason)


CALLED_UNKNOWN = Rejection(1, 1, 7, "called AE title not recognized")
CALLING_UNKNOWN = Rejection(1, 1, 3, "calling AE title not recognized")
TOO_MANY = Rejection(2, 3, 2, "local limit exceeded")
DRAINING = Rejection(2, 3, 1, "temporary congestion: the gateway stops")


@dataclass(frozen=True, slots=True)
class Request:
    """An A-ASSOCIATE-RQ."""

    called: str
    calling: str
    primitive: A_ASSOCIATE
    version: int

    def refusal(self, title: str) -> Rejection | None:
        """Why it is refused by what PS3.8 9.3.2 says of it; the calling AE title is checked elsewhere."""
        if not self.version & 1:
            return Rejection(1, 2, 2, "protocol version not supported")
        if self.primitive.application_context_name != _APPLICATION_CONTEXT:
            return Rejection(1, 1, 2, "application context name not supported")
        return None if self.called == title else CALLED_UNKNOWN


def read_request(content: memoryview) -> Request:
    """Decode an A-ASSOCIATE-RQ."""
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(struct.pack(">BxL", ASSOCIATE_RQ, len(content)) + content)
        primitive = pdu.to_primitive()
        return Request(pdu.called_ae_title.strip(), pdu.calling_ae_title.strip(), primitive, pdu.protocol_version)
    except Exception as error:  # whatever pynetdicom raises over bytes that are no request
        raise ProtocolError(6, f"unreadable A-ASSOCIATE-RQ ({type(error).__name__})") from None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was agreed: presentation context id → (abstract syntax, transfer syntax), and the peer's longest PDU."""

    contexts: dict[int, tuple[str, str]]
    peer_maximum_length: int
    encoded: bytes


def accept(request: Request) -> Accepted:
    """Agree on presentation contexts: Verification, and every storage SOP class in every transfer syntax of a file."""
    proposed = request.primitive.presentation_context_definition_list
    results, _ = negotiate_as_acceptor(proposed, _supported(proposed))
    answer = A_ASSOCIATE()
    answer.application_context_name = UID(_APPLICATION_CONTEXT)
    answer.calling_ae_title, answer.called_ae_title = request.calling, request.called
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = results
    answer.user_information = _user_information()
    contexts = {cx.context_id: (str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in results
                if cx.result == 0 and cx.context_id is not None}
    longest = [item.maximum_length_received for item in request.primitive.user_information
               if isinstance(item, MaximumLengthNotification)]
    return Accepted(contexts, longest[0] if longest else 0, A_ASSOCIATE_AC(answer).encode())


def _user_information() -> list[Any]:
    length, uid, name = (MaximumLengthNotification(), ImplementationClassUIDNotification(),
                         ImplementationVersionNameNotification())
    length.maximum_length_received = MAXIMUM_LENGTH
    uid.implementation_class_uid = UID(IMPLEMENTATION_UID)
    name.implementation_version_name = IMPLEMENTATION_NAME
    return [length, uid, name]


def _supported(proposed: list[PresentationContext]) -> list[PresentationContext]:
    """What we take of what is proposed, in the sender's order of preference.

    Only implicit VR gives way to explicit where both are offered: it would lose the VR of private elements.
    """
    syntaxes: dict[str, list[str]] = {}
    for context in proposed:
        abstract = str(context.abstract_syntax)
        if abstract == VERIFICATION or is_storage(abstract):
            offered = [str(s) for s in context.transfer_syntax if s in TRANSFER_SYNTAXES]
            if _EXPLICIT_LE in offered and _IMPLICIT_LE in offered:
                offered = [s for s in offered if s != _IMPLICIT_LE]
            syntaxes.setdefault(abstract, []).extend(offered or [_IMPLICIT_LE])
    supported = []
    for abstract, offered in syntaxes.items():
        context = PresentationContext()
        context.abstract_syntax = UID(abstract)
        context.transfer_syntax = [UID(s) for s in dict.fromkeys(offered)]
        supported.append(context)
    return supported


@cache
def is_storage(sop_class: str) -> bool:
    """Whether it is a storage SOP class, also a retired one or one younger than this list (PS3.4 B.5)."""
    return sop_class in _STORAGE or sop_class.startswith(_STORAGE_ROOT)


def abort(source: int, reason: int) -> bytes:
    """An A-ABORT PDU (PS3.8 9.3.8): source 0 the service user, 2 the provider with a reason."""
    return struct.pack(">BxLxxBB", ABORT, 4, source, reason)


def each_pdv(content: memoryview, take: Callable[[int, int, memoryview], None]) -> None:
    """Hand each presentation data value of a P-DATA-TF to ``take(context id, control header, data)`` (PS3.8 9.3.5)."""
    at, end = 0, len(content)
    while at < end:
        if at + 6 > end:
            raise ProtocolError(6, "a presentation data value without a header")
        length, context_id, control = struct.unpack_from(">LBB", content, at)
        if length < 2 or at + 4 + length > end:
            raise ProtocolError(6, "a presentation data value longer than its PDU")
        take(context_id, control, content[at + 6:at + 4 + length])
        at += 4 + length
