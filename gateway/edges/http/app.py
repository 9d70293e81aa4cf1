"""The application: Flask for pages, its own short way for FHIR.

Pages and the operator's paths are Flask's. FHIR's paths go by `gateway.edges.http.fhir` alone: they need no template
and no context, and without these a read costs half. Both pass through the same ``Hooks``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask
from flask.sessions import NullSession, SessionInterface

from gateway.adapter import load_all
from gateway.config import Settings
from gateway.edges.http import cds_hooks, images, operation, pages, recognition_figures, widget, workstation
from gateway.edges.http import recognition as decisions
from gateway.edges.http.exchange import Request, Response
from gateway.edges.http.fhir import Fhir
from gateway.edges.http.figures import Figures
from gateway.edges.http.hooks import Hooks
from gateway.recognition.service import Recognition

if TYPE_CHECKING:
    from gateway.store import Store
    from gateway.store.figures import Figures as RecognitionFigures


class _NoSessions(SessionInterface):
    """There are no cookies here."""

    _none = NullSession()

    def open_session(self, app: flask.Flask, request: flask.Request) -> NullSession:
        return self._none

    def is_null_session(self, obj: object) -> bool:
        return True


class Gateway(flask.Flask):
    """Flask with our request, response and no sessions, and with FHIR's paths beside it."""

    request_class = Request
    response_class = Response
    session_interface = _NoSessions()
    hooks: Hooks
    api: Fhir
    recognition_figures: RecognitionFigures

    def wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Any:
        """A request (PEP 3333)."""
        path = environ["PATH_INFO"]
        if not path.startswith("/fhir") or path[5:6] not in ("", "/"):
            return super().wsgi_app(environ, start_response)
        request, hooks = Request(environ), self.hooks
        try:
            try:
                self.api.route(request)
            finally:  # a login that is missing is refused before a path that is
                early = hooks.before(request)
            response = early or self.api.answer(request)
        except Exception as problem:
            response = hooks.refused(request, problem)
        return hooks.after(request, response)(environ, start_response)


def create_app(settings: Settings, store: Store, figures: Figures | None = None) -> Gateway:
    """The WSGI application over an open store; ``figures`` when several processes count together."""
    here = Path(__file__).parent
    app = Gateway("gateway.edges.http", static_folder=str(here / "static"), template_folder=str(here / "templates"))
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    figures = figures or Figures()
    app.hooks = Hooks(settings, store, figures)
    app.hooks.install(app)
    app.api = Fhir(settings, store)
    operation.install(app, store, figures)
    pages.install(app, settings, store)
    widget.install(app, settings)
    adapters = load_all(settings.adapter_folders, settings.default_adapter)
    recognition = Recognition(settings, store, adapters)
    images.install(app, store, recognition)
    workstation.install(app, settings, store, recognition, adapters.all)
    plug_in = decisions.install(app, store, recognition)
    cds = cds_hooks.install(app, settings, store, recognition, adapters.all)
    app.hooks.manners += [plug_in, replace(cds, login=lambda request: cds.login(request) or plug_in.login(request))]
    app.recognition_figures = recognition_figures.install(app, settings, store, recognition.rules)
    return app
