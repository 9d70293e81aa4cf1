"""One connection as bytes: plain or TLS, each read and write with its time."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time

from gateway.adapter import peer_of
from gateway.edges.mllp.tls import ServerTls, names_of

_CHUNK = 65536
_WRITE_SECONDS = 30.0  # a sender that does not take its answer for so long is gone
_HANDSHAKE_SECONDS = 10.0
_FAREWELL_SECONDS = 0.05


class Wire:
    """A socket that was accepted; ``tls``: it begins with a handshake.

    The kernel holds the time of a plain one (SO_RCVTIMEO), which saves the poll() that a timeout of Python's adds to
    each call; a TLS one needs Python's, since a read may have to write and the other way round.
    """

    def __init__(self, accepted: socket.socket, address: str, tls: ServerTls | None) -> None:
        self.address = address
        self.transport = "tls" if tls else "plain"
        self.peer = address
        self._tls = tls
        self._socket = accepted
        self._seconds = 0.0

    def begin(self) -> None:
        """Set it up and shake hands; OSError when the sender's certificate does not do."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._tls is None:
            kernel_wait(self._socket, socket.SO_SNDTIMEO, _WRITE_SECONDS)
            return
        self._socket.settimeout(_HANDSHAKE_SECONDS)
        # From here on the socket is OpenSSL's, also when the handshake fails: ``close`` closes that one.
        self._socket = shaken = self._tls.context().wrap_socket(self._socket, server_side=True,
                                                                do_handshake_on_connect=False)
        shaken.do_handshake()
        self.peer = peer_of(self.address, names_of(shaken))

    def wait(self, seconds: float) -> None:
        """How long ``receive`` waits from now on."""
        self._seconds = max(seconds, 0.001)
        if self._tls is None:
            kernel_wait(self._socket, socket.SO_RCVTIMEO, seconds)

    def receive(self) -> bytes:
        """What has come, empty at the end; TimeoutError when nothing came in time."""
        if self._tls is None:
            try:
                return self._socket.recv(_CHUNK)
            except BlockingIOError:
                raise TimeoutError from None
        self._socket.settimeout(self._seconds)
        return self._socket.recv(_CHUNK)

    def send(self, data: bytes) -> None:
        """Write it all; OSError when the sender does not take it."""
        if self._tls is not None:
            self._socket.settimeout(_WRITE_SECONDS)
        self._socket.sendall(data)

    def wake(self) -> None:
        """End a ``receive`` that waits; an answer can still be sent."""
        with contextlib.suppress(OSError):  # not SSLSocket's, which forgets the keys
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def hang_up(self, seconds: float) -> None:
        """Close so that the last answer arrives: closing over unread bytes would reset the connection and drop it."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError, ValueError):
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.settimeout(_FAREWELL_SECONDS)
                with contextlib.suppress(OSError, ValueError):
                    self._socket.unwrap()
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not socket.socket.recv(self._socket, _CHUNK):
                    break
        self._socket.close()


def kernel_wait(connection: socket.socket, direction: int, seconds: float) -> None:
    """How long the kernel waits in recv(), accept() or send()."""
    whole, part = divmod(max(seconds, 0.001), 1)
    connection.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", int(whole), int(part * 1e6)))
