"""The application: who asks, what is answered, what is written down about it.

Pages and the operator's paths are Flask's. FHIR's paths go by `gateway.edges.http.fhir` alone: they need no template
and no context, and without these a read costs half. Both pass through the same ``Hooks``.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from gateway.caller import Caller
from gateway.config import Settings
from gateway.edges.http import negotiate
from gateway.edges.http.answers import answer_for, outcome_of, refusal_of
from gateway.edges.http.figures import Figures
from gateway.edges.http.proxies import Origin, Proxies
from gateway.errors import Category, GatewayError
from gateway.fhir import json, xml
from gateway.fhir.elements import resource_types
from gateway.store.model import Access

if TYPE_CHECKING:
    from gateway.edges.http.fhir import Fhir
    from gateway.store import Store

log = logging.getLogger("huren.http")

#: Bytes of one request's body.
MAX_BODY = 64 * 1024 * 1024
_OPEN = ("/fhir/metadata", "/healthz", "/readyz", "/metrics", "/", "/favicon.ico")
_OPEN_BELOW = ("/.well-known/", "/static/")
_NOBODY = Caller("anonymous")
#: Demo mode has no login: everybody on this machine is this client.
DEMO = Caller("demo", None, ("system/*.cruds",))
_LOOPBACK = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?").fullmatch


class Request(flask.Request):
    """A request with what the hooks and the views find out about it."""

    max_content_length = MAX_BODY
    caller: Caller = _NOBODY
    asked: Origin = Origin("", "")
    wanted: negotiate.Format = negotiate.JSON
    began: float = 0.0
    #: the label of the figures and the audit row's action; ``audit``: whether an audit row is due
    interaction: str = "other"
    resource_type: str = ""
    parts: tuple[str, ...] = ()
    view: Callable[..., Response]
    target: str = ""
    persons: tuple[int, ...] = ()
    audit: bool = False


_ALWAYS = (("X-Content-Type-Options", "nosniff"),)
_NOT_KEPT = ("Cache-Control", "no-store")  # unless a response says otherwise: patients' data stay in no cache


class Response(flask.Response):
    """A response that is written in one piece: no iterator to wrap, one packet on the wire where it fits."""

    def __call__(self, environ: Any, start_response: Any) -> Any:
        body, headers, status = self.response, self.headers, self.status_code
        if not isinstance(body, list) or self.direct_passthrough:  # a file
            headers.extend(_ALWAYS)
            return super().__call__(environ, start_response)
        if status != 204 and status != 304:
            length = str(sum(map(len, body)))
        else:
            headers.remove("Content-Type")
            body, length = [], ""
        lines = [*headers.to_wsgi_list(), *_ALWAYS]
        if length:
            lines.append(("Content-Length", length))
        if "Cache-Control" not in headers:
            lines.append(_NOT_KEPT)
        start_response(self.status, lines)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body


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
    from gateway.edges.http import fhir, operation, pages

    here = Path(__file__).parent
    app = Gateway("gateway.edges.http", static_folder=str(here / "static"), template_folder=str(here / "templates"))
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    figures = figures or Figures()
    app.hooks = Hooks(settings, store, figures)
    app.hooks.install(app)
    app.api = fhir.Fhir(settings, store)
    operation.install(app, store, figures)
    pages.install(app, settings, store)
    return app


class Hooks:
    """Before and after each request."""

    def __init__(self, settings: Settings, store: Store, figures: Figures) -> None:
        self._settings = settings
        self._store = store
        self._figures = figures
        self._proxies = Proxies(settings)

    def install(self, app: Gateway) -> None:
        app.before_request(lambda: self.before(current()))
        app.after_request(lambda response: self.after(current(), response))
        app.register_error_handler(Exception, lambda problem: self.refused(current(), problem))

    # ---------------------------------------------------------------- before

    def before(self, request: Request) -> Response | None:
        """Who asks? What needs a login has one from here on."""
        request.began = time.perf_counter()
        request.asked = self._proxies.origin(request.environ)
        path = request.path
        if request.url_rule is not None:  # Flask's
            request.interaction = request.url_rule.endpoint.partition(":")[0]
        if request.method == "OPTIONS":
            return _preflight()
        if path in _OPEN or path.startswith(_OPEN_BELOW):
            if self._settings.demo:
                request.caller = DEMO
            return None
        request.audit = True
        request.caller = self._login(request)
        return None

    def _login(self, request: Request) -> Caller:
        if self._settings.demo:
            return DEMO
        scheme, _, token = request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise GatewayError(Category.FORBIDDEN, "send Authorization: Bearer with a token from `huren client add`",
                               "Authorization", detail="login")
        caller = self._store.client_of(token.strip())
        if caller is None:
            raise GatewayError(Category.FORBIDDEN, "this token is unknown or revoked; ask for a new one",
                               "Authorization", detail="login")
        return caller

    # ---------------------------------------------------------------- refusals

    def refused(self, request: Request, problem: Exception) -> Response:
        """Any refusal, by the answer table, as OperationOutcome in the format that the client can read."""
        error = refusal_of(problem)
        if error.category is Category.FAULT:
            place = traceback.extract_tb(problem.__traceback__)[-1:]
            log.error("fault: %s at %s", type(problem).__name__,
                      " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in place))
        answer = answer_for(error)
        status = problem.code if isinstance(problem, HTTPException) and problem.code in (411, 414) else answer.status
        response = outcome_response(request, status, outcome_of(error))
        for name, value in answer.headers:
            if name == "WWW-Authenticate" and "HTTP_AUTHORIZATION" in request.environ:
                value += ', error="invalid_token"'  # RFC 6750 3.1
            response.headers[name] = value
        if isinstance(problem, MethodNotAllowed) and problem.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(problem.valid_methods))
        return response

    # ---------------------------------------------------------------- after

    def after(self, request: Request, response: Response) -> Response:
        """One audit row, one count and one log line a request; the log never names a person or a search's values."""
        status = response.status_code
        if request.audit:
            self._store.audit(Access(request.caller.name, request.caller.institution, request.interaction,
                                     request.target or request.path, status, request.asked.peer, request.persons))
        if (asker := request.environ.get("HTTP_ORIGIN")) and self._may_read(asker):
            response.headers["Access-Control-Allow-Origin"] = "*"
            response.headers["Access-Control-Expose-Headers"] = "ETag, Location, Last-Modified, Content-Location"
        took = time.perf_counter() - request.began
        self._figures.count(request.interaction, status, took)
        log.info("http method=%s interaction=%s type=%s client=%s status=%d ms=%.1f", request.method,
                 request.interaction, _type_of(request), request.caller.name, status, took * 1000)
        return response

    def _may_read(self, origin: str) -> bool:
        """Pages of other sites: any, where a token proves the right; in demo mode only those of this machine."""
        return not self._settings.demo or _LOOPBACK(origin) is not None


def _type_of(request: Request) -> str:
    """The resource type of a FHIR request: nothing else of the path, which may hold a patient's id."""
    return request.resource_type if request.resource_type in resource_types() else "-"


def current() -> Request:
    """The request that Flask is answering in this thread."""
    return flask.request._get_current_object()  # type: ignore[attr-defined]


def _preflight() -> Response:
    """CORS, the browser's question before a request with a token (fetch.spec.whatwg.org)."""
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
    response.headers["Access-Control-Allow-Headers"] = \
        "Authorization, Content-Type, Accept, Prefer, If-Match, If-None-Match, If-Modified-Since, If-None-Exist"
    response.headers["Access-Control-Max-Age"] = "600"
    response.headers["Allow"] = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
    return response


def outcome_response(request: Request, status: int, outcome: dict[str, Any]) -> Response:
    """An OperationOutcome in the format that the client asked for, in JSON where it asked for none of ours."""
    try:
        wanted = negotiate.accepted(request.environ.get("HTTP_ACCEPT", ""), request.args.get("_format", ""))
    except GatewayError:
        wanted = negotiate.JSON
    body = xml.to_xml(outcome) if wanted.xml else json.dumps(outcome)
    return Response([body], status, content_type=wanted.content_type)
