"""For those who run the gateway: ``/healthz``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import flask

from gateway import __version__
from gateway.edges.http.exchange import Response
from gateway.edges.http.figures import Figures, family, sample
from gateway.edges.mllp.figures import FIGURES
from gateway.errors import Category, GatewayError

if TYPE_CHECKING:
    from gateway.store import Store

log = logging.getLogger("huren.http")


#: Sums of ``Store.counts`` that are figures of their own.
_SUMS = {"persons": "Persons.", "studies": "DICOM studies.", "instances": "DICOM objects.",
         "institutions": "Institutions with data.", "clients": "Clients that may log in.",
         "unmapped": "Local codes that no map knows.", "bytes": "Size of the database in bytes."}


def install(app: flask.Flask, store: Store, figures: Figures) -> None:
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
        for name, probe in (("database", self._database), ("objects", self._objects)):
            try:
                probe()
            except Exception as error:  # whatever it is, we are not ready
                log.warning("not ready: %s: %s", name, error.category.value if isinstance(error, GatewayError)
                            else type(error).__name__)
                problems.append(name)
        return _text("ready\n") if not problems else _text(f"not ready: {', '.join(problems)}\n", 503)

    def _database(self) -> None:
        """A statement in a transaction; BUSY also while the index is rebuilt. The schema was checked at the start."""
        with self._store.reading() as connection:
            connection.exec_driver_sql("SELECT 1")

    def _objects(self) -> None:
        """Ask for an object that is not there: the answer that it is not there is the one that we want."""
        try:
            self._store.objects.size("readiness/none")
        except GatewayError as error:
            if error.category is not Category.NOT_FOUND:
                raise

    def metrics(self) -> Response:
        """Prometheus text format 0.0.4."""
        info = [sample("huren_info", 1, version=__version__)]
        lines = [*family("huren_info", "gauge", "The version that runs.", info), *self._figures.requests(),
                 *mllp()]
        try:
            lines += stored(self._store.counts())
            up = 1
        except GatewayError:
            up = 0
        lines += family("huren_database_up", "gauge", "The database answered.", [sample("huren_database_up", up)])
        return _text("\n".join(lines) + "\n", content_type="text/plain; version=0.0.4; charset=utf-8")


def mllp() -> Iterator[str]:
    """What the MLLP processes count; nothing where this process was not forked beside them."""
    found = list(FIGURES.samples())
    if any(value for _, values in found for _, value in values):
        for told, values in found:
            yield from family(told.name, told.kind, told.says,
                              [sample(told.name, value, **{told.label: label}) for label, value in values])


def stored(counts: Mapping[str, Any]) -> Iterator[str]:
    """The figures of the store: resources by type, messages by outcome, and what needs a look."""
    for name, of, says in (
            ("huren_resources", counts["resources"].items(), "Resources by type."),
            ("huren_messages", counts["inbox"].items(), "Inbound messages by outcome.")):
        label = "type" if name == "huren_resources" else "status"
        yield from family(name, "gauge", says, [sample(name, value, **{label: key}) for key, value in of])
    for key, says in _SUMS.items():
        yield from family(f"huren_{key}", "gauge", says, [sample(f"huren_{key}", counts[key])])
