"""Sends HL7v2 messages as a hospital does: one connection, one message at a time, again until it is answered.

A message whose answer was lost is sent again on a new connection: the receiver has it at most once (our own inbox knows
a resend; any receiver of HL7v2 must, v2.5.1 2.9.2.1).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass

from gateway import hl7v2
from gateway.edges.mllp.frames import Frames, NotMllp, TooLarge, block
from gateway.errors import Category, GatewayError

_ANSWER_BYTES = 1024 * 1024
_PAUSES = (0.2, 0.5, 1.0, 2.0)  # before the second, third … attempt
_ACCEPTED = ("AA", "CA")
_BUSY = "206"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the receiver said about one message or image: its code, the place and its sentence."""

    accepted: bool
    code: str  # "AA", "AE 101", "0000", "A900"
    where: str = ""
    text: str = ""

    @property
    def remark(self) -> bool:
        """Accepted, with something to look at."""
        return self.accepted and bool(self.text)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.code, self.where))) + (f": {self.text}" if self.text else "")


class Sender:
    """One connection to an MLLP listener; opened when it is needed, opened anew when it broke."""

    def __init__(self, host: str, port: int, *, seconds: float = 60.0, tls: ssl.SSLContext | None = None) -> None:
        self._address = (host, port)
        self._seconds = seconds
        self._tls = tls
        self._socket: socket.socket | None = None
        self._frames = Frames(_ANSWER_BYTES)

    def send(self, raw: bytes) -> Outcome:
        """The answer to a message; BUSY when there was none after five attempts, INVALID where TLS cannot be had.

        Where the message asks for two (MSH-15, MSH-16) it is the application's; where it asks for none that must come,
        nothing is waited for, and the code is "-".
        """
        outcome: Outcome | None = None
        problem = ""
        for pause in (*_PAUSES, None):
            try:
                outcome = _outcome(raw, self._exchange(raw))
                if not outcome.code.endswith(_BUSY):
                    return outcome
            except ssl.SSLCertVerificationError as error:
                self.close()
                raise GatewayError(Category.INVALID, f"{self._address[0]} shows a certificate that cannot be trusted "
                                   f"({error.verify_message}); name its authorities with --ca") from None
            except ConnectionRefusedError:
                self.close()
                problem = "nothing listens there"
            except (OSError, NotMllp, TooLarge) as error:
                self.close()
                problem = "no answer in time" if isinstance(error, TimeoutError) else "the connection closed unanswered"
                if isinstance(error, ssl.SSLError):
                    problem = f"TLS failed: {error.reason or 'no reason'}; does it ask for a certificate (--cert)?"
            if pause is not None:
                time.sleep(pause)
        if outcome is not None:
            return outcome
        host, port = self._address
        raise GatewayError(Category.BUSY, f"{host}:{port} did not answer ({problem}); start or check the receiver, "
                           "then send again: what it has is not stored twice")

    def _exchange(self, raw: bytes) -> bytes | None:
        """The last answer that is due; None when none need come."""
        asked = _asked(raw)
        connection = self._connected()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a refusal may come before the end: read it
            connection.sendall(block(raw))
        is_result_sure = asked.result(True) and asked.result(False)
        if not is_result_sure and not (asked.commit(True) and asked.commit(False)):
            self.close()  # whether something comes, nobody knows: what does is not for the next message
            return None
        answer = self._next(connection)
        if asked.commits_first and _code(answer) == "CA":
            if is_result_sure:
                return self._next(connection)
            self.close()
        return answer

    def _connected(self) -> socket.socket:
        if self._socket is None:
            plain = socket.create_connection(self._address, timeout=self._seconds)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain if self._tls is None else \
                self._tls.wrap_socket(plain, server_hostname=self._address[0])
            self._frames = Frames(_ANSWER_BYTES)
        return self._socket

    def _next(self, connection: socket.socket) -> bytes:
        while (answer := self._frames.next()) is None:
            data = connection.recv(65536)
            if not data:
                raise ConnectionResetError
            self._frames.feed(data)
        return answer

    def close(self) -> None:
        """Close the connection; the next message opens a new one."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _asked(raw: bytes) -> hl7v2.Asked:
    try:
        return hl7v2.asked(raw, hl7v2.peek(raw))
    except GatewayError:
        return hl7v2.ORIGINAL


def _code(answer: bytes) -> str:
    """MSA-1."""
    try:
        msa = hl7v2.parse(answer).first("MSA")
    except GatewayError:
        return ""
    return msa.get(1) if msa is not None else ""


def _outcome(raw: bytes, answer: bytes | None) -> Outcome:
    if answer is None:
        return Outcome(True, "-")
    try:
        message = hl7v2.parse(answer)
        msa, err = message.first("MSA"), message.first("ERR")
        sent = hl7v2.peek(raw).control_id
    except GatewayError:
        msa = err = None
        sent = ""
    if msa is None:
        return Outcome(False, "-", "MSA", "the answer is no HL7 acknowledgement")
    code = msa.get(1)
    if sent and msa.get(2) and msa.get(2) != sent:
        return Outcome(False, code, "MSA-2", "the answer is for another message")
    where = number = text = ""
    if err is not None:
        if err.get(3) or err.get(2):  # v2.5: ERR-2 location, ERR-3 code, ERR-8 sentence
            where = _place(err.get(2, 1), err.get(2, 2), err.get(2, 3), err.get(2, 5), err.get(2, 6))
            number, text = err.get(3), err.get(8) or err.get(3, 2)
        else:  # v2.3.1: ERR-1 segment, sequence, field and code
            where = _place(err.get(1, 1), err.get(1, 2), err.get(1, 3))
            number, text = err.get(1, 4), err.get(1, 4, 2)
    accepted = code in _ACCEPTED
    text = msa.get(3) or text if not text or err is None or not err.get(8) else text
    return Outcome(accepted, code if accepted else f"{code} {number}".strip(), where, text)


def _place(segment: str, sequence: str, field: str, component: str = "", subcomponent: str = "") -> str:
    """``OBR-4``, ``OBX[7]-5.2``."""
    place = segment + (f"[{sequence}]" if sequence not in ("", "1") else "") + (f"-{field}" if field else "")
    return place + "".join(f".{part}" for part in (component, subcomponent) if part)
