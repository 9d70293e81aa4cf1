"""Peers of the MLLP listener: a hospital that writes bytes, and a pipeline's outside that keeps what it was given."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from gateway import hl7v2
from gateway.config import Settings
from gateway.edges.mllp import Frames, Listener
from gateway.edges.mllp.conversation import Receiver
from gateway.errors import GatewayError
from gateway.pipeline import Arrival
from gateway.store.model import Inbound, Receipt

SETTINGS = Settings(mllp="127.0.0.1:0")


def message(control_id: str, body: str = "OBX|1|NM|K||4.1", version: str = "2.5.1", more: str = "") -> bytes:
    """A small ORU^R01; ``more`` follows MSH-12."""
    return f"MSH|^~\\&|LIS|LAB1|HUREN|HRP|20260101||ORU^R01|{control_id}|P|{version}{more}\r{body}\r".encode()


def block(content: bytes) -> bytes:
    """<VT> content <FS><CR>."""
    return b"\x0b" + content + b"\x1c\r"


class Hospital:
    """A peer that writes bytes and reads answers as they are."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None = None, seconds: float = 10) -> None:
        self.socket = socket.create_connection(address, timeout=seconds)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=address[0])
        self._frames = Frames(1_000_000)

    def write(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def answer(self) -> str | None:
        """The next answer, or None when the gateway has closed the connection."""
        while (content := self._frames.next()) is None:
            try:
                data = self.socket.recv(4096)
            except (ConnectionResetError, ssl.SSLError):
                return None
            if not data:
                return None
            self._frames.feed(data)
        return content.decode()

    def msa(self) -> tuple[str, str]:
        """MSA-1 and MSA-2 of the next answer."""
        answer = self.answer()
        assert answer is not None
        return tuple((segment(answer, "MSA").split("|") + ["", ""])[1:3])  # type: ignore[return-value]

    def is_silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            return self.answer() is not None and False
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)


def segment(answer: str, name: str) -> str:
    """The first segment of a name, or empty."""
    return next((line for line in answer.split("\r") if line.startswith(name)), "")


class Whole:
    """A receiver that does all at once: ``receive`` gets the bytes and the peer when the message is settled."""

    def __init__(self, receive: Callable[[bytes, str], Receipt]) -> None:
        self._receive = receive

    def accept(self, raw: bytes, peer: str) -> Arrival:
        """Nothing is looked at but MSH."""
        return arrival(raw, peer)

    def settle(self, arrival: Arrival) -> Receipt:
        """What ``receive`` says."""
        return self._receive(arrival.raw, arrival.peer)


def arrival(raw: bytes, peer: str, refusal: GatewayError | None = None) -> Arrival:
    """A message that was accepted by nobody in particular."""
    try:
        header = hl7v2.peek(raw)
    except GatewayError as error:
        return Arrival(raw, peer, None, Inbound(1), None, refusal or error)
    return Arrival(raw, peer, header, Inbound(1), None, refusal, asked=hl7v2.asked(raw, header))


class Recorder:
    """Keeps what it was given and answers what it was told to."""

    def __init__(self, outcome: Receipt | None = None, seconds: float = 0.0) -> None:
        self.got: list[bytes] = []
        self.peers: set[str] = set()
        self._outcome = outcome or Receipt(1, resources=1)
        self._seconds = seconds
        self.begun = threading.Event()

    def __call__(self, raw: bytes, peer: str) -> Receipt:
        self.got.append(raw)
        self.peers.add(peer)
        self.begun.set()
        time.sleep(self._seconds)
        return self._outcome


@contextmanager
def listening(receive: Receiver | Callable[[bytes, str], Receipt], settings: Settings = SETTINGS,
              **changed: object) -> Iterator[Listener]:
    """A listener on a free port."""
    receiver = receive if hasattr(receive, "settle") else Whole(receive)  # type: ignore[arg-type]
    listener = Listener(replace(settings, **changed), receiver)  # type: ignore[arg-type]
    listener.start()
    try:
        yield listener
    finally:
        listener.drain(5)


@contextmanager
def joined(listener: Listener, tls: ssl.SSLContext | None = None) -> Iterator[Hospital]:
    """A connected hospital; by TLS where it has a context."""
    address = listener.tls_address if tls is not None else listener.address
    assert address is not None
    hospital = Hospital(address, tls)
    with closing(hospital.socket):
        yield hospital
