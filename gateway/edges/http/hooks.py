"""What happens around every request: login, refusal, audit, figures, log, CORS."""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from gateway.caller import Caller
from gateway.config import Settings
from gateway.edges.http.answers import Answer, answer_for, outcome_of, refusal_of
from gateway.edges.http.exchange import Request, Response, current, outcome_response
from gateway.edges.http.figures import Figures
from gateway.edges.http.proxies import Proxies
from gateway.errors import Category, GatewayError
from gateway.fhir.elements import resource_types
from gateway.store.model import Access

if TYPE_CHECKING:
    from gateway.store import Store

log = logging.getLogger("huren.http")

_OPEN = ("/fhir/metadata", "/healthz", "/readyz", "/metrics", "/", "/favicon.ico", "/recognition/widget.js")
_OPEN_BELOW = ("/.well-known/", "/static/", "/recognition/view/")
#: Demo mode has no login: everybody on this machine is this client.
DEMO = Caller("demo", None, ("system/*.cruds",))
_LOOPBACK = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?").fullmatch


@dataclass(frozen=True, slots=True)
class Manner:
    """How paths below a prefix differ from the others: ``login`` knows further callers (None: not one of them), and a
    refusal is answered from a table of their own."""

    prefix: str
    login: Callable[[Request], Caller | None]
    answer_for: Callable[[GatewayError], Answer]


class Hooks:
    """Before and after each request."""

    def __init__(self, settings: Settings, store: Store, figures: Figures) -> None:
        self._settings = settings
        self._store = store
        self._figures = figures
        self._proxies = Proxies(settings)
        self.manners: list[Manner] = []

    def install(self, app: flask.Flask) -> None:
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
        manner = self._manner(path)
        request.caller = (manner and manner.login(request)) or self._login(request)
        return None

    def _manner(self, path: str) -> Manner | None:
        return next((one for one in self.manners if path == one.prefix or path.startswith(f"{one.prefix}/")), None)

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
            log.error("fault: %s at %s", type(problem).__name__, _place(problem))
        manner = self._manner(request.path)
        answer = manner.answer_for(error) if manner else answer_for(error)
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
            try:
                self._store.audit(Access(request.caller.name, request.caller.institution, request.interaction,
                                         request.target or request.path, status, request.asked.peer, request.persons))
            except GatewayError as error:  # what cannot be written down is not shown
                response = self.refused(request, error)
                status = response.status_code
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


def _place(problem: BaseException) -> str:
    """Where it happened: the innermost line that is ours, never what the exception says."""
    frames = traceback.extract_tb(problem.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"


def _preflight() -> Response:
    """CORS, the browser's question before a request with a token (fetch.spec.whatwg.org)."""
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
    response.headers["Access-Control-Allow-Headers"] = \
        "Authorization, Content-Type, Accept, Prefer, If-Match, If-None-Match, If-Modified-Since, If-None-Exist"
    response.headers["Access-Control-Max-Age"] = "600"
    response.headers["Allow"] = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
    return response
