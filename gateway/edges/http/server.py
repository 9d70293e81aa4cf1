"""The workers: granian's processes, each with a store of its own (WSGI, PEP 3333)."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings
from granian.server.mp import MPServer

from gateway.adapter import load_all
from gateway.config import Settings, host_port
from gateway.edges.http import cds_hooks
from gateway.edges.http.app import create_app
from gateway.edges.http.figures import Figures
from gateway.edges.process import die_with
from gateway.errors import Category, GatewayError

#: Threads of a worker: a write waits for its commit in one, so that several share a commit; reads need the interpreter.
THREADS = 8
BACKLOG = 1024
_DRAIN_SECONDS = 7
_HEADER_SECONDS = 30


def serve(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is called once every worker takes requests.

    A worker that dies is started again. Raises BUSY when the port is taken, INVALID for a manifest that cannot be
    followed, and SystemExit when workers cannot start.
    """
    host, port = _resolved(*host_port(settings.http))
    _require_free(host, port)
    cds_hooks.require_usable(settings, load_all(settings.adapter_folders, settings.default_adapter).all)
    figures = Figures(settings.workers)
    started_read, started_write = os.pipe()
    parent = os.getpid()

    def load() -> Callable[..., Any]:
        """Runs in the worker, before it opens its port."""
        die_with(parent)
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not in our lines
        from gateway.store import open_store

        store = open_store(settings, migrate=False, rest=0.005)
        Finalize(None, store.close, exitpriority=10)
        app = create_app(settings, store, figures)
        Finalize(None, app.recognition_figures.close, exitpriority=20)
        app.recognition_figures.keep()
        os.write(started_write, b"1")
        return app

    server = _Server("gateway.edges.http", host, port, interface=Interfaces.WSGI, workers=settings.workers,
                     runtime_mode=RuntimeModes.mt, blocking_threads=THREADS, backlog=BACKLOG, loop=Loops.asyncio,
                     http=HTTPModes.http1, websockets=False, log_enabled=False, respawn_failed_workers=True,
                     respawn_interval=0.1, workers_kill_timeout=_DRAIN_SECONDS,
                     http1_settings=HTTP1Settings(header_read_timeout=_HEADER_SECONDS * 1000, keep_alive=True))
    server.place = figures.own
    threading.Thread(target=_announce, args=(started_read, settings.workers, host, port, ready), daemon=True).start()
    gc.freeze()
    server.serve(target_loader=load, wrap_loader=False)


class _Server(MPServer):
    """granian's server, telling the figures which worker is about to be forked."""

    place: Callable[[int], None]

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> Any:  # type: ignore[override]
        self.place(idx)
        return super()._spawn_worker(idx, target, callback_loader)


def _resolved(host: str, port: int) -> tuple[str, int]:
    """granian binds addresses, not names; without a host, to every IPv4 address."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)
    except OSError:
        raise GatewayError(Category.INVALID, f"HUREN_HTTP names a host that cannot be found ({host}); give an address",
                           "HUREN_HTTP") from None
    return str(min(found, key=lambda one: one[0] != socket.AF_INET)[4][0]), port


def _require_free(host: str, port: int) -> None:
    """Workers share a port by SO_REUSEPORT, so a second gateway would quietly take half of the connections."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise GatewayError(Category.BUSY, f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it "
                               "or set HUREN_HTTP", "HUREN_HTTP") from None


def _announce(pipe: int, workers: int, host: str, port: int, ready: Callable[[], None]) -> None:
    """Waits in a read, so that it holds no lock while the workers are forked; then until the port answers."""
    for _ in range(workers):
        if not os.read(pipe, 1):
            return
    target = ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(target, 1):
            ready()
            return
        time.sleep(0.01)
