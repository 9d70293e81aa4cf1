"""The process of the MLLP edge: what a crash left, the ports, the stop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from gateway.config import Settings
from gateway.edges.mllp.figures import FIGURES
from gateway.edges.mllp.listener import Listener
from gateway.edges.process import await_stop, hold_stop

log = logging.getLogger("huren.mllp")

_DRAIN_SECONDS = 8.0


def serve(settings: Settings, ready: Callable[[], None], ports: tuple[socket.socket, ...], place: int = 0) -> None:
    """Listen until SIGTERM or SIGINT, then drain; before that, run what a crash left recorded but not settled.

    No other edge does that. The store hands each such message to one process, so that none is run twice at once.
    ``place``: which of the processes this is.
    """
    from gateway.pipeline import Pipeline
    from gateway.store import open_store

    hold_stop()
    FIGURES.own(place)
    store = open_store(settings)
    try:
        pipeline = Pipeline(settings, store)
        if recovered := pipeline.recover():
            log.info("mllp recovered=%d", recovered)
        listener = Listener(settings, pipeline, ports, settings.mllp_processes)
        if settings.mllp_tls and not settings.mllp_tls_ca and any(a.certificates for a in pipeline.adapters.all):
            log.warning("mllp tls: a manifest lists certificates, and HUREN_MLLP_TLS_CA is not set: its hospital "
                        "cannot send")
        listener.start()
        ready()
        await_stop()
        if not listener.drain(_DRAIN_SECONDS):
            log.warning("mllp outcome=cut reason=still-running after=%.0fs", _DRAIN_SECONDS)
    finally:
        store.close()
