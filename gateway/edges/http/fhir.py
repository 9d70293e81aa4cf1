"""FHIR R4 REST under ``/fhir`` (http.html): from a request to an interaction, from its result to a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import MethodNotAllowed

from gateway import search
from gateway.adapter import load_all
from gateway.config import Settings
from gateway.edges.http import negotiate
from gateway.edges.http.answers import answer_for, outcome_of
from gateway.edges.http.batch import Bundles
from gateway.edges.http.binaries import Binaries, Content, as_json, as_xml, completed, range_of
from gateway.edges.http.capability import Capability
from gateway.edges.http.exchange import Request, Response, outcome_response
from gateway.edges.http.interactions import (
    HistoryPage,
    Interactions,
    Result,
    Who,
    condition,
    require_type,
    shape_of,
    text_of_row,
    unchanged,
    unsupported_condition,
)
from gateway.errors import Category, GatewayError
from gateway.fhir import bundle, json, resource, xml
from gateway.fhir.outcome import Issue, operation_outcome
from gateway.recognition.loading import Loading
from gateway.recognition.versions import Rulebook

if TYPE_CHECKING:
    from gateway.store import Store


#: Interaction (the label of figures and audit) and what answers it.
_Row = tuple[str, Callable[..., Response]]


class Fhir:
    """The rows of the API: address and method to a few lines around an interaction."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        institutions = lambda: {a.source.institution for a in load_all(settings.adapter_folders).all}  # noqa: E731
        self._rest = Interactions(store, Loading(Rulebook(settings.timezone, (), store), store, institutions))
        self._binaries = Binaries(store)
        self._bundles = Bundles(store, self._rest, self._binaries, self._search)
        self._capability = Capability(settings)
        update, delete = ("update", self.update), ("delete", self.delete)
        self._rows: dict[str, dict[str, _Row]] = {
            "base": {"POST": ("batch", self.bundle)},
            "metadata": {"GET": ("capabilities", self.metadata)},
            "type": {"GET": ("search-type", self.search), "POST": ("create", self.create),
                     **dict.fromkeys(("PUT", "PATCH", "DELETE"), ("update", self.conditional))},
            "search": {"POST": ("search-type", self.search_by_post)},
            "type-history": {"GET": ("history-type", self.history)},
            "instance": {"GET": ("read", self.read), "PUT": update, "DELETE": delete, "PATCH": ("update", self.patch)},
            "instance-history": {"GET": ("history-instance", self.history)},
            "version": {"GET": ("vread", self.vread)}}

    def route(self, request: Request) -> None:
        """Find who answers: the interaction's name is then known to figures and audit, whatever happens next."""
        steps = request.path.split("/")[2:]
        if steps and not steps[-1]:
            steps.pop()
        shape, request.parts = shape_of(steps)
        request.resource_type = request.parts[0] if request.parts else ""
        method = "GET" if request.method == "HEAD" else request.method
        rows = self._rows[shape]
        if method == "OPTIONS":
            return  # the hooks answer
        if method not in rows:
            raise MethodNotAllowed([*rows, "HEAD"] if "GET" in rows else list(rows))
        request.interaction, request.view = rows[method]

    def answer(self, request: Request) -> Response:
        """Answer a request that was routed, when its client can read the answer: else nothing is done for it."""
        environ = request.environ
        if request.resource_type == "Binary" and request.interaction in ("read", "vread"):
            return self.binary(request, *request.parts)
        wanted = request.args.get("_format", "") if environ.get("QUERY_STRING") else ""
        request.wanted = negotiate.accepted(environ.get("HTTP_ACCEPT", ""), wanted)
        if request.resource_type:
            require_type(request.resource_type)
        return request.view(request, *request.parts)

    # ---------------------------------------------------------------- reading

    def read(self, request: Request, resource_type: str, resource_id: str) -> Response:
        """http.html#read"""
        request.target = f"{resource_type}/{resource_id}"
        return _shown(request, self._rest.read(_who(request), resource_type, resource_id))

    def vread(self, request: Request, resource_type: str, resource_id: str, version: str) -> Response:
        """http.html#vread"""
        request.target = f"{resource_type}/{resource_id}/_history/{version}"
        return _shown(request, self._rest.vread(_who(request), resource_type, resource_id, version))

    def binary(self, request: Request, _: str, binary_id: str, version: str = "") -> Response:
        """binary.html: the bytes by their own type, or where FHIR's types are asked for the resource with its data"""
        request.target = f"Binary/{binary_id}" + (f"/_history/{version}" if version else "")
        found = self._binaries.find(_who(request), binary_id, version)
        content, environ = found.content, request.environ
        wanted = negotiate.binary(environ.get("HTTP_ACCEPT", ""), request.args.get("_format", ""),
                                  content.media_type if content else "")
        if content is None or wanted and (not found.apart or _reshapes(request)):
            request.wanted = wanted or negotiate.JSON
            return _shown(request, completed(found))
        request.persons = found.result.persons
        if response := _unmodified(request, found.result):
            return response
        if wanted:
            parts, length = (as_xml if wanted.xml else as_json)(found.result.body, content)
            response = Response(parts, content_type=wanted.content_type)
            response.headers["Content-Length"] = str(length)
            response.headers["Cache-Control"], response.headers["Vary"] = "no-store", "Accept, Authorization"
        else:
            response = _bytes(request, binary_id, content)
        return _headed(response, found.result)

    def history(self, request: Request, resource_type: str, resource_id: str | None = None) -> Response:
        """http.html#history, of a resource and of a type"""
        request.target = request.full_path.removeprefix("/fhir/").rstrip("?")
        page = HistoryPage.of(request.args.to_dict())
        return _shown(request, self._rest.history(_who(request), resource_type, resource_id, page, _base(request)))

    def metadata(self, request: Request) -> Response:
        """http.html#capabilities; needs no login, so that a client can find out how to log in"""
        return _shown(request, Result(200, self._capability.text(_base(request))))

    # ---------------------------------------------------------------- search.html

    def search(self, request: Request, resource_type: str) -> Response:
        """http.html#search by GET"""
        return self._searched(request, resource_type, request.query_string.decode("utf-8", "replace"))

    def search_by_post(self, request: Request, resource_type: str) -> Response:
        """http.html#search by POST: the form's parameters and those of the address, as one query"""
        if request.mimetype not in (negotiate.FORM, "") or (not request.mimetype and request.content_length):
            raise GatewayError(Category.UNSUPPORTED, f"send {negotiate.FORM}", "Content-Type", detail="content-type")
        query = request.query_string.decode("utf-8", "replace")
        body = request.get_data(cache=False).decode("utf-8", "replace").strip()
        return self._searched(request, resource_type, "&".join(filter(None, (query, body))))

    def _searched(self, request: Request, resource_type: str, query: str) -> Response:
        request.target = f"{resource_type}?{query}"
        handling = negotiate.preferences(request.environ.get("HTTP_PREFER", "")).handling
        return _shown(request, self._search(_who(request), resource_type, query, _base(request), handling))

    def _search(self, who: Who, resource_type: str, query: str, base: str, handling: str = "strict") -> Result:
        page = search.search(self._store, who.caller, resource_type, query, handling, base)
        return Result(200, searchset(page, resource_type, base), persons=page.persons)

    # ---------------------------------------------------------------- writing

    def create(self, request: Request, resource_type: str) -> Response:
        """http.html#create"""
        request.target = resource_type
        if "HTTP_IF_NONE_EXIST" in request.environ:
            raise unsupported_condition("a conditional create (If-None-Exist)")
        return _stored(request, self._rest.create(_who(request), resource_type, _body(request)))

    def update(self, request: Request, resource_type: str, resource_id: str) -> Response:
        """http.html#update, also under an id of the client's"""
        request.target = f"{resource_type}/{resource_id}"
        version = _condition(request)
        return _stored(request, self._rest.update(_who(request), resource_type, resource_id, _body(request), version))

    def delete(self, request: Request, resource_type: str, resource_id: str) -> Response:
        """http.html#delete"""
        request.target = f"{resource_type}/{resource_id}"
        return _stored(request, self._rest.delete(_who(request), resource_type, resource_id, _condition(request)))

    def bundle(self, request: Request) -> Response:
        """http.html#transaction, and batch"""
        returns = negotiate.preferences(request.environ.get("HTTP_PREFER", "")).returns
        name, result = self._bundles.run(_who(request), _body(request), _base(request), returns)
        request.interaction, request.target = name, "Bundle"
        return _shown(request, result)

    def conditional(self, request: Request, resource_type: str) -> Response:
        """http.html#cond-update: refused in words, never done as something else"""
        raise unsupported_condition(f"a conditional {request.method}")

    def patch(self, request: Request, resource_type: str, resource_id: str) -> Response:
        """http.html#patch"""
        raise GatewayError(Category.UNSUPPORTED, "PATCH is not supported; read, then update with If-Match",
                           detail="method")


def _who(request: Request) -> Who:
    return Who(request.caller, request.asked.peer)


def _condition(request: Request) -> int | None:
    environ = request.environ
    return condition(environ.get("HTTP_IF_MATCH", ""), environ.get("HTTP_IF_NONE_MATCH", ""))


def _base(request: Request) -> str:
    return request.asked.base + "/fhir"


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
    request.persons = result.persons
    if result.audited:
        request.audit = False
    if response := _unmodified(request, result):
        return response
    return _headed(Response([_shaped(request, result.body)], result.status,
                            content_type=request.wanted.content_type), result)


def _unmodified(request: Request, result: Result) -> Response | None:
    """304 where the client's copy is current."""
    environ = request.environ
    if not result.version or not unchanged(result, environ.get("HTTP_IF_NONE_MATCH", ""),
                                           environ.get("HTTP_IF_MODIFIED_SINCE", "")):
        return None
    response = Response([], 304)
    response.headers["ETag"] = result.etag
    return response


def _bytes(request: Request, binary_id: str, content: Content) -> Response:
    """A Binary's bytes, or the range of them that is asked for. If-Range never holds: our ETags are weak (RFC 9110
    13.1.5)."""
    environ, size = request.environ, content.size
    try:
        span = range_of(environ.get("HTTP_RANGE", ""), size) if "HTTP_IF_RANGE" not in environ else None
    except GatewayError as error:
        response = outcome_response(request, answer_for(error).status, outcome_of(error))
        response.headers["Content-Range"] = f"bytes */{size}"
        return response
    start, end = span or (0, size)
    parts = iter(()) if request.method == "HEAD" else content.open(start, end)
    response = Response(parts, 206 if span else 200, content_type=content.media_type)
    response.headers.update(content.headers(binary_id))
    response.headers["Content-Length"] = str(end - start)
    if span:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return response


def _reshapes(request: Request) -> bool:
    """Whether the resource is to be written anew."""
    return any(name in request.args for name in ("_pretty", "_summary", "_elements"))


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
