"""What every edge's process needs of the system: a bound port, and an end when its parent ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket

from gateway.errors import Category, GatewayError

_STOP = (signal.SIGTERM, signal.SIGINT)
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


def hold_stop() -> None:
    """Keep SIGTERM and SIGINT waiting, for this thread and those that it starts, until ``await_stop``.

    No handler sets an event: one that runs while the main thread is inside ``Event.wait`` would wait for itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)


def await_stop() -> None:
    """Return when SIGTERM or SIGINT has come, also one that came since ``hold_stop``."""
    signal.sigwait(_STOP)


def die_with(parent: int) -> None:
    """SIGTERM for this process when its parent dies, however that happens (Linux): else it would keep the port."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(1)
