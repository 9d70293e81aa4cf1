"""For those who run the gateway: ``/healthz``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.config import Settings
from gateway.edges.http.app import Gateway, Response
from gateway.edges.http.figures import Figures, family, sample
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.store import Store

log = logging.getLogger("huren.http")


def install(app: Gateway, settings: Settings, store: Store, figures: Figures) -> None:
    """Add the three routes."""
    views = _Operation(store, figures)
    app.add_url_rule("/healthz", "operation:health", views.health)
    app.add_url_rule("/readyz", "operation:ready", views.ready)
    app.add_url_rule("/metrics", "operation:metrics", views.metrics)


def _text(body: str, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> Response:
    return Response([body.encode()], status, content_type=content_type)


class _Operation:
    def __init__(self, store: Store, figures: Figures) -> None:
        self._store = store
        self._figures = figures

    def health(self) -> Response:
        """The process answers; nothing else is asked."""
        return _text("ok\n")

    def ready(self) -> Response:
        """Whether requests can be served now: 503 names what is away."""
        problems = []
        for name, probe in (("database", self._store.probe), ("objects", self._store.objects.probe)):
            try:
                probe()
            except Exception as error:  # whatever it is, we are not ready
                log.warning("not ready: %s: %s", name, error.category.value if isinstance(error, GatewayError)
                            else type(error).__name__)
                problems.append(name)
        return _text("ready\n") if not problems else _text(f"not ready: {', '.join(problems)}\n", 503)

    def metrics(self) -> Response:
        """Prometheus text format 0.0.4."""
        lines = [*family("huren_info", "gauge", "The version that runs.", [sample("huren_info", 1, version=__version__)]),
                 *self._figures.requests()]
        try:
            lines += stored(self._store.counts())
            up = 1
        except GatewayError:
            up = 0
        lines += family("huren_database_up", "gauge", "Whether the database answered.", [sample("huren_database_up", up)])
        return _text("\n".join(lines) + "\n", content_type="text/plain; version=0.0.4; charset=utf-8")


def stored(counts: Mapping[str, Any]) -> Iterator[str]:
    """The figures of the store: resources by type, messages by outcome, and what needs a look."""
    raise NotImplementedError(counts)
