"""What every edge's process needs of the system: a bound port, and an end when its parent ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket

from gateway.errors import Category, GatewayError

_PR_SET_PDEATHSIG = 1


def bound(host: str, port: int, setting: str) -> socket.socket:
    """A TCP socket bound to an address and not yet listening; BUSY names the setting when that cannot be."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM,
                                                             flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise GatewayError(Category.BUSY, f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it "
                           f"or set {setting}", setting) from None
    return listener


def die_with(parent: int) -> None:
    """SIGTERM for this process when its parent dies, however that happens (Linux): else it would keep the port."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(1)
