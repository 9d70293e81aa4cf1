"""FHIR R4 REST under ``/fhir`` (http.html): from a request to an interaction, from its result to a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flask

from gateway import search
from gateway.config import Settings
from gateway.edges.http import negotiate
from gateway.edges.http.app import Gateway, Request, Response, outcome_response
from gateway.edges.http.batch import Bundles
from gateway.edges.http.capability import Capability
from gateway.edges.http.interactions import (
    HistoryPage,
    Interactions,
    Result,
    Who,
    if_match,
    require_type,
    text_of_row,
    unchanged,
    unsupported_condition,
)
from gateway.errors import Category, GatewayError
from gateway.fhir import bundle, json, resource, xml
from gateway.fhir.outcome import Issue, operation_outcome

if TYPE_CHECKING:
    from gateway.store import Store


def install(app: Gateway, settings: Settings, store: Store) -> None:
    """Add the routes; an endpoint's name is the interaction's, which the figures and the audit show."""
    views = _Fhir(store, Capability(settings))
    one, kind = "/fhir/<resource_type>/<resource_id>", "/fhir/<resource_type>"
    for rule, endpoint, view, methods in (
            (one, "read", views.read, ["GET"]),
            (f"{one}/_history/<version>", "vread", views.vread, ["GET"]),
            (f"{one}/_history", "history-instance", views.history, ["GET"]),
            (f"{kind}/_history", "history-type", views.history, ["GET"]),
            (kind, "search-type", views.search, ["GET"]),
            (f"{kind}/_search", "search-type:post", views.search_by_post, ["POST"]),
            (kind, "create", views.create, ["POST"]),
            (one, "update", views.update, ["PUT"]),
            (one, "delete", views.delete, ["DELETE"]),
            ("/fhir", "batch", views.bundle, ["POST"]),
            ("/fhir/metadata", "capabilities", views.metadata, ["GET"]),
            (one, "update:patch", views.conditional, ["PATCH"]),
            (kind, "update:conditional", views.conditional, ["PUT", "PATCH", "DELETE"])):
        app.add_url_rule(rule, endpoint, view, methods=methods)


def _request() -> Request:
    """The request, when it can be answered in a format that the client reads: else nothing is done for it."""
    request: Request = flask.request._get_current_object()  # type: ignore[attr-defined]
    environ = request.environ
    wanted_here = request.args.get("_format", "") if environ.get("QUERY_STRING") else ""
    request.wanted = negotiate.accepted(environ.get("HTTP_ACCEPT", ""), wanted_here)
    return request


def _who(request: Request) -> Who:
    return Who(request.caller, request.asked.peer)


def _base(request: Request) -> str:
    return request.asked.base + "/fhir"


class _Fhir:
    """The views; each a few lines around an interaction."""

    def __init__(self, store: Store, capability: Capability) -> None:
        self._store = store
        self._rest = Interactions(store)
        self._bundles = Bundles(store, self._rest, self._search)
        self._capability = capability

    # ---------------------------------------------------------------- reading

    def read(self, resource_type: str, resource_id: str) -> Response:
        """http.html#read"""
        request = _request()
        request.target = f"{resource_type}/{resource_id}"
        return _shown(request, self._rest.read(_who(request), resource_type, resource_id))

    def vread(self, resource_type: str, resource_id: str, version: str) -> Response:
        """http.html#vread"""
        request = _request()
        request.target = f"{resource_type}/{resource_id}/_history/{version}"
        return _shown(request, self._rest.vread(_who(request), resource_type, resource_id, version))

    def history(self, resource_type: str, resource_id: str | None = None) -> Response:
        """http.html#history, of a resource and of a type"""
        request = _request()
        request.target = request.full_path.removeprefix("/fhir/").rstrip("?")
        page = HistoryPage.of(request.args.to_dict())
        return _shown(request, self._rest.history(_who(request), resource_type, resource_id, page, _base(request)))

    def metadata(self) -> Response:
        """http.html#capabilities; needs no login, so that a client can find out how to log in"""
        request = _request()
        return _shown(request, Result(200, self._capability.text(_base(request))))

    # ---------------------------------------------------------------- search.html

    def search(self, resource_type: str) -> Response:
        """http.html#search by GET"""
        request = _request()
        return self._searched(request, resource_type, request.query_string.decode("utf-8", "replace"))

    def search_by_post(self, resource_type: str) -> Response:
        """http.html#search by POST: the form's parameters and those of the address, as one query"""
        request = _request()
        if request.mimetype not in (negotiate.FORM, "") or (not request.mimetype and request.content_length):
            raise GatewayError(Category.UNSUPPORTED, f"send {negotiate.FORM}", "Content-Type", detail="content-type")
        query = request.query_string.decode("utf-8", "replace")
        body = request.get_data(cache=False).decode("utf-8", "replace").strip()
        return self._searched(request, resource_type, "&".join(filter(None, (query, body))))

    def _searched(self, request: Request, resource_type: str, query: str) -> Response:
        require_type(resource_type)
        request.target = f"{resource_type}?{query}"
        handling = negotiate.preferences(request.environ.get("HTTP_PREFER", "")).handling
        return _shown(request, self._search(_who(request), resource_type, query, _base(request), handling))

    def _search(self, who: Who, resource_type: str, query: str, base: str, handling: str = "strict") -> Result:
        page = search.search(self._store, who.caller, resource_type, query, handling, base)
        return Result(200, searchset(page, resource_type, base), persons=page.persons)

    # ---------------------------------------------------------------- writing

    def create(self, resource_type: str) -> Response:
        """http.html#create"""
        request = _request()
        require_type(resource_type)
        request.target = resource_type
        if "HTTP_IF_NONE_EXIST" in request.environ:
            raise unsupported_condition("a conditional create (If-None-Exist)")
        return _stored(request, self._rest.create(_who(request), resource_type, _body(request)))

    def update(self, resource_type: str, resource_id: str) -> Response:
        """http.html#update, also under an id of the client's"""
        request = _request()
        require_type(resource_type)
        request.target = f"{resource_type}/{resource_id}"
        version = if_match(request.environ.get("HTTP_IF_MATCH", ""))
        return _stored(request, self._rest.update(_who(request), resource_type, resource_id, _body(request), version))

    def delete(self, resource_type: str, resource_id: str) -> Response:
        """http.html#delete"""
        request = _request()
        request.target = f"{resource_type}/{resource_id}"
        version = if_match(request.environ.get("HTTP_IF_MATCH", ""))
        return _stored(request, self._rest.delete(_who(request), resource_type, resource_id, version))

    def bundle(self) -> Response:
        """http.html#transaction, and batch"""
        request = _request()
        returns = negotiate.preferences(request.environ.get("HTTP_PREFER", "")).returns
        name, result = self._bundles.run(_who(request), _body(request), _base(request), returns)
        request.interaction, request.target = name, "Bundle"
        return _shown(request, result)

    def conditional(self, resource_type: str, resource_id: str = "") -> Response:
        """http.html#cond-update, #patch: refused in words, never done as something else"""
        request = _request()
        require_type(resource_type)
        if request.method == "PATCH":
            raise GatewayError(Category.UNSUPPORTED, "PATCH is not supported; read, then update with If-Match",
                               detail="method")
        raise unsupported_condition(f"a conditional {request.method}")


# ---------------------------------------------------------------- search results

def searchset(page: search.Page, resource_type: str, base: str) -> bytes:
    """A page as a Bundle: stored texts as they are, but for those that ``_summary`` or ``_elements`` cut."""
    address = f"{base}/{resource_type}"
    cut = _cutter(page)
    entries = [(f"{row.resource_type}/{row.id}", cut(text_of_row(row)), mode)
               for rows, mode in ((page.rows, "match"), (page.included, "include")) for row in rows]
    issues = [Issue("not-supported", f"{name} was left out: {reason}", severity="warning")
              for name, reason in page.ignored]
    return bundle.searchset(base, f"{address}?{page.self_query}" if page.self_query else address, entries,
                            total=page.total, next_link=f"{address}?{page.next_query}" if page.next_query else "",
                            issues=issues)


def _cutter(page: search.Page) -> Callable[[bytes], bytes]:
    if page.elements:
        return lambda text: json.dumps(resource.elements(text, page.elements))
    if page.summary in ("true", "text", "data"):
        return lambda text: json.dumps(resource.summary(text, page.summary))
    return lambda text: text


# ---------------------------------------------------------------- in

def _body(request: Request) -> dict[str, Any]:
    """The resource that was sent, in the format that its Content-Type says."""
    given = negotiate.sent(request.environ.get("CONTENT_TYPE", ""))
    if request.environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise GatewayError(Category.UNSUPPORTED, "send the body without Content-Encoding", "Content-Encoding",
                           detail="content-type")
    raw = request.get_data(cache=False)
    if not raw:
        raise GatewayError(Category.MALFORMED, "the request has no body; send a resource")
    return xml.from_xml(raw) if given.xml else json.loads(raw)


# ---------------------------------------------------------------- out

def _shown(request: Request, result: Result) -> Response:
    """The answer to a request that reads."""
    environ = request.environ
    request.persons = result.persons
    if result.audited:
        request.audit = False
    if result.version and unchanged(result, environ.get("HTTP_IF_NONE_MATCH", ""),
                                    environ.get("HTTP_IF_MODIFIED_SINCE", "")):
        response = Response([], 304)
        response.headers["ETag"] = result.etag
        return response
    return _headed(Response([_shaped(request, result.body)], result.status,
                            content_type=request.wanted.content_type), result)


def _headed(response: Response, result: Result) -> Response:
    if result.version:
        response.headers["ETag"] = result.etag
        response.headers["Last-Modified"] = result.last_modified
    return response


def _shaped(request: Request, text: bytes) -> bytes:
    """``_summary``, ``_elements`` (of one resource; a search has done it for its entries), ``_pretty`` and XML."""
    wanted = request.wanted
    if not request.environ.get("QUERY_STRING"):
        return xml.to_xml(json.loads(text)) if wanted.xml else text
    pretty = request.args.get("_pretty") == "true"
    shapes = request.interaction in ("read", "vread", "capabilities")
    summary = request.args.get("_summary", "") if shapes else ""
    names = request.args.get("_elements", "") if shapes else ""
    if not (pretty or wanted.xml or names or summary not in ("", "false")):
        return text
    given = json.loads(text)
    if summary not in ("", "false"):
        given = resource.summary(given, summary)
    if names:
        given = resource.elements(given, names.split(","))
    if wanted.xml:
        return xml.to_xml(given)
    return json.dumps(given, indent=True) if pretty else json.dumps(given)


def _stored(request: Request, result: Result) -> Response:
    """The answer to a request that writes, as Prefer asks (http.html#ops)."""
    request.audit = not result.audited
    request.persons = result.persons
    prefers = negotiate.preferences(request.environ.get("HTTP_PREFER", "")).returns
    if prefers == "OperationOutcome":
        issue = Issue("informational", "done", severity="information")
        status = 200 if result.status == 204 else result.status
        response = outcome_response(request, status, operation_outcome([issue]))
    elif prefers == "minimal" or not result.body:
        response = Response([], result.status)
    else:
        response = Response([_shaped(request, result.body)], result.status, content_type=request.wanted.content_type)
    if result.location:
        response.headers["Location"] = f"{_base(request)}/{result.location}"
    return _headed(response, result)
