"""A request and a response, with what the hooks and the views find out about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flask

from gateway.caller import Caller
from gateway.edges.http import negotiate
from gateway.edges.http.proxies import Origin
from gateway.errors import GatewayError
from gateway.fhir import json, xml

if TYPE_CHECKING:
    from gateway.edges.http.sessions import Session

#: Bytes of one request's body.
MAX_BODY = 64 * 1024 * 1024
_NOBODY = Caller("anonymous")


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
    session: Session | None = None  # of the plug-in in a browser


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


def current() -> Request:
    """The request that Flask is answering in this thread."""
    return flask.request._get_current_object()  # type: ignore[attr-defined]


def outcome_response(request: Request, status: int, outcome: dict[str, Any]) -> Response:
    """An OperationOutcome in the format that the client asked for, in JSON where it asked for none of ours."""
    try:
        wanted = negotiate.accepted(request.environ.get("HTTP_ACCEPT", ""), request.args.get("_format", ""))
    except GatewayError:
        wanted = negotiate.JSON
    body = xml.to_xml(outcome) if wanted.xml else json.dumps(outcome)
    return Response([body], status, content_type=wanted.content_type)
