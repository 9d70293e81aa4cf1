"""Batch and transaction Bundles in: what to do, in which order, and which references change (http.html#trules). Pure.

``plan`` reads the entries; the store side settles who each entry is (an id of its own, or what ``ifNoneExist`` or a
conditional URL found); ``resolve`` then replaces references to the entries' fullUrls and conditional references.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote

from gateway.errors import Category, GatewayError
from gateway.fhir.elements import elements_of, is_resource_type, resource_types

#: http.html#trules: the order within a transaction.
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII).fullmatch
_RESTFUL = re.compile(r"(https?://.+)/([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})", re.ASCII).fullmatch
_CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?(.+)", re.ASCII | re.DOTALL).fullmatch
_LINK = re.compile(r"""((?:href|src)\s*=\s*)(["'])(.*?)\2""", re.DOTALL)


@dataclass(slots=True)
class Entry:
    """One entry: ``path`` and ``query`` are its URL relative to the base; ``resource`` is the Bundle's own dict.

    ``error`` is set in a batch only, where a bad entry does not stop the others.
    """

    index: int
    method: str = ""
    path: str = ""
    query: str = ""
    resource_type: str = ""
    resource_id: str = ""
    resource: dict[str, Any] | None = None
    full_url: str = ""
    if_match: str = ""
    if_none_match: str = ""
    if_modified_since: str = ""
    if_none_exist: str = ""
    error: GatewayError | None = None

    @property
    def where(self) -> str:
        """The entry's FHIRPath."""
        return f"Bundle.entry[{self.index}]"

    def locate(self, where: str) -> str:
        """The place within the Bundle of one within the entry's resource: ``Patient.name`` → ``….resource.name``.

        A place that is no FHIRPath, such as a table's line, stays as it is.
        """
        if where[:1].islower():
            return where
        _, dot, rest = where.partition(".")
        return f"{self.where}.resource{dot}{rest}"


@dataclass(frozen=True, slots=True)
class ConditionalReference:
    """A reference ``Patient?identifier=…``: the search must find one resource (http.html#trules)."""

    reference: str
    resource_type: str
    query: str
    where: str


def plan(bundle: dict[str, Any], base: str = "") -> list[Entry]:
    """The entries of a batch in their own order, those of a transaction in the order DELETE, POST, PUT and PATCH, GET.

    URLs that begin with ``base`` are taken as relative. INVALID names the place (``Bundle.entry[3].request.url``); in a
    batch it is kept in ``Entry.error``. The entries' resources are not checked here.
    """
    kind = bundle.get("type")
    if kind not in ("batch", "transaction"):
        raise _invalid("a Bundle sent here must be of type batch or transaction", "Bundle.type")
    given = bundle.get("entry", [])
    if type(given) is not list:
        raise _invalid("must be a JSON array", "Bundle.entry")
    entries = []
    for index, item in enumerate(given):
        entry = Entry(index)
        try:
            _read(entry, item, base.rstrip("/"))
        except GatewayError as error:
            if kind == "transaction":
                raise
            entry.error = error
        entries.append(entry)
    if kind == "batch":
        return entries
    _refuse_overlap(entries)
    return sorted(entries, key=lambda entry: _ORDER[entry.method])


def conditional_references(entries: Iterable[Entry]) -> list[ConditionalReference]:
    """Every different conditional reference within the entries' resources, for the store side to search."""
    found: dict[str, ConditionalReference] = {}
    for entry in entries:
        for reference, where in _references(entry):
            match = _CONDITIONAL(reference)
            if match and match[1] in resource_types():
                found.setdefault(reference, ConditionalReference(reference, match[1], match[2], where))
    return list(found.values())


def resolve(entries: list[Entry], identities: Mapping[int, str],
            searched: Mapping[str, str] | None = None) -> None:
    """Replace, within the entries' resources, references to other entries and conditional references by ``Type/id``.

    ``identities``: an entry's index → ``Type/id`` that the resource has or gets; ``searched``: a conditional reference
    → ``Type/id`` that its search found. Replaced are elements of type Reference, uri, url, oid and uuid, and ``href``
    and ``src`` in narratives; canonical is left (http.html#trules). INVALID for two entries that turn out to be one
    resource, and for a ``urn:uuid:`` reference to no entry. For transactions: entries of a batch know nothing of each
    other.
    """
    _refuse_same_identity(entries, identities)
    urls = {entry.full_url: identities[entry.index] for entry in entries
            if entry.full_url and entry.index in identities}
    for entry in entries:
        if entry.resource is None or entry.error:
            continue
        restful = _RESTFUL(entry.full_url)
        _Rewriter(urls, searched or {}, restful[1] if restful else "").rewrite(entry)


# ---------------------------------------------------------------- reading

def _invalid(message: str, where: str, detail: str = "") -> GatewayError:
    return GatewayError(Category.INVALID, message, where, detail=detail)


def _text(holder: dict[str, Any], name: str, where: str) -> str:
    value = holder.get(name, "")
    if type(value) is not str:
        raise _invalid("must be a JSON string", f"{where}.{name}", "data-type")
    return value


def _read(entry: Entry, item: Any, base: str) -> None:
    where = entry.where
    request = item.get("request") if type(item) is dict else None
    if type(request) is not dict:
        raise _invalid("each entry needs a request", f"{where}.request", "required")
    entry.full_url = _text(item, "fullUrl", where)
    entry.method = _text(request, "method", f"{where}.request")
    if entry.method not in _ORDER:
        raise _invalid(f"must be one of {', '.join(_ORDER)}", f"{where}.request.method", "table-value")
    url = _text(request, "url", f"{where}.request")
    if base and url.startswith((f"{base}/", f"{base}?")):
        url = url[len(base):]
    if not url:
        raise _invalid("each request needs its URL", f"{where}.request.url", "required")
    if "://" in url.partition("?")[0]:
        raise _invalid("must be relative to this server's base", f"{where}.request.url")
    entry.path, _, entry.query = url.removeprefix("/").partition("?")
    steps = entry.path.split("/")
    entry.resource_type = steps[0] if steps[0] in resource_types() else ""
    if entry.resource_type and len(steps) > 1 and steps[1][:1] not in ("_", "$"):
        entry.resource_id = unquote(steps[1])
    entry.if_match = _text(request, "ifMatch", f"{where}.request")
    entry.if_none_match = _text(request, "ifNoneMatch", f"{where}.request")
    entry.if_modified_since = _text(request, "ifModifiedSince", f"{where}.request")
    entry.if_none_exist = _text(request, "ifNoneExist", f"{where}.request").removeprefix("?")
    resource = item.get("resource")
    if resource is not None and type(resource) is not dict:
        raise _invalid("must be a resource", f"{where}.resource", "data-type")
    entry.resource = resource
    _check_request(entry)


def _check_request(entry: Entry) -> None:
    """What each method asks of URL and resource (http.html#create, #update, #patch, #delete)."""
    at_url, is_operation = f"{entry.where}.request.url", "$" in entry.path
    if entry.if_none_exist and entry.method != "POST":
        raise _invalid("goes with POST only", f"{entry.where}.request.ifNoneExist")
    if entry.method in ("GET", "HEAD") or is_operation or entry.path.endswith("_search"):
        return
    if not entry.resource_type or "/_history" in entry.path:
        raise _invalid("must name a resource type of R4, as in Patient or Patient/id", at_url)
    if entry.resource_id and not _ID(entry.resource_id):
        raise _invalid("must hold an id of 1 to 64 of A-Z a-z 0-9 - .", at_url)
    if entry.path.count("/") > bool(entry.resource_id):
        raise _invalid("must be Type or Type/id", at_url)
    if entry.method == "POST" and (entry.resource_id or entry.query):
        raise _invalid("a create goes to the type's URL; its id comes from the server", at_url)
    if entry.method != "POST" and not entry.resource_id and not entry.query:
        raise _invalid("needs an id, or a search that finds the one resource", at_url)
    if entry.method == "DELETE":
        return
    if entry.resource is None:
        raise _invalid("this request needs a resource", f"{entry.where}.resource", "required")
    if entry.method == "PATCH":
        return  # Parameters, or a Binary with a JSON or XML patch
    if entry.resource.get("resourceType") != entry.resource_type:
        raise _invalid("the resource is of another type than its URL", at_url)
    if entry.method == "PUT" and entry.resource_id and entry.resource.get("id") != entry.resource_id:
        raise _invalid("the resource's id must be that of its URL", f"{entry.where}.resource.id")


def _refuse_overlap(entries: list[Entry]) -> None:
    """http.html#trules: no resource twice; bundle.html bdl-7: no fullUrl twice."""
    identities: set[str] = set()
    urls: set[str] = set()
    for entry in entries:
        if entry.full_url and entry.method not in ("GET", "HEAD"):
            if entry.full_url in urls:
                raise _invalid("two entries have this fullUrl", f"{entry.where}.fullUrl", "duplicate")
            urls.add(entry.full_url)
        if entry.resource_id and entry.method in ("DELETE", "PUT", "PATCH"):
            identity = f"{entry.resource_type}/{entry.resource_id}"
            if identity in identities:
                raise _invalid("two entries write the same resource; send one", f"{entry.where}.request.url",
                               "duplicate")
            identities.add(identity)


def _refuse_same_identity(entries: list[Entry], identities: Mapping[int, str]) -> None:
    seen: set[str] = set()
    for entry in entries:
        identity = identities.get(entry.index)
        if identity is None or entry.method in ("GET", "HEAD"):
            continue
        if identity in seen:
            raise _invalid("two entries write the same resource; send one", f"{entry.where}.request.url", "duplicate")
        seen.add(identity)


# ---------------------------------------------------------------- references

_URIS = frozenset(("uri", "url", "oid", "uuid"))


@cache
def _link_rows(kind: str) -> dict[str, str]:
    """Elements of a type that hold links or objects: name → ``reference``, ``uri``, ``xhtml`` or the type within."""
    rows = {}
    for element in elements_of(kind).values():
        if kind == "Reference" and element.name == "reference":
            rows["reference"] = "reference"
        elif element.type in _URIS:
            rows[element.name] = "uri"
        elif element.type == "xhtml" or not element.primitive:
            rows[element.name] = element.type
    return rows


def _visit(value: Any, kind: str, path: str, leaf: Callable[[dict[str, Any], str, str, str], None]) -> None:
    """Call ``leaf(holder, name, sort, path)`` for each link within an object of a type."""
    if type(value) is not dict:
        return
    if kind == "Resource":
        kind = value.get("resourceType", "")
        if not is_resource_type(kind):
            return  # the check of the resource will say so
    rows = _link_rows(kind)
    for name, item in value.items():
        sort = rows.get(name)
        if sort is None:
            if name[:1] == "_":  # extensions of a primitive
                _visit_all(item, "Element", f"{path}.{name[1:]}", leaf)
        elif sort in ("reference", "uri", "xhtml"):
            leaf(value, name, sort, f"{path}.{name}")
        else:
            _visit_all(item, sort, f"{path}.{name}", leaf)


def _visit_all(item: Any, kind: str, path: str, leaf: Callable[[dict[str, Any], str, str, str], None]) -> None:
    if type(item) is list:
        for index, one in enumerate(item):
            _visit(one, kind, f"{path}[{index}]", leaf)
    else:
        _visit(item, kind, path, leaf)


def _references(entry: Entry) -> Iterator[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    def leaf(holder: dict[str, Any], name: str, sort: str, path: str) -> None:
        value = holder[name]
        if sort == "reference" and type(value) is str:
            found.append((value, path))
    if entry.resource is not None and not entry.error:
        _visit(entry.resource, "Resource", f"{entry.where}.resource", leaf)
    return iter(found)


@dataclass(slots=True)
class _Rewriter:
    """Replaces links in one entry's resource; ``root`` is the base of the entry's own fullUrl where that is RESTful."""

    urls: Mapping[str, str]
    searched: Mapping[str, str]
    root: str

    def rewrite(self, entry: Entry) -> None:
        _visit(entry.resource, "Resource", f"{entry.where}.resource", self._leaf)

    def _leaf(self, holder: dict[str, Any], name: str, sort: str, path: str) -> None:
        value = holder[name]
        if type(value) is list:  # an array of uri
            holder[name] = [self.urls.get(one, one) if type(one) is str else one for one in value]
        elif type(value) is not str:
            return
        elif sort == "uri":
            if value in self.urls:
                holder[name] = self.urls[value]
        elif sort == "xhtml":
            if self.urls and ("href" in value or "src" in value):
                holder[name] = _LINK.sub(self._link, value)
        else:
            holder[name] = self._reference(value, path)

    def _reference(self, value: str, path: str) -> str:
        url, mark, fragment = value.partition("#")
        found = self.urls.get(url) or (self.urls.get(f"{self.root}/{url}") if self.root else None)
        if found and url:
            return f"{found}{mark}{fragment}"
        if value in self.searched:
            return self.searched[value]
        if value.startswith("urn:uuid:"):
            raise _invalid("refers to no entry of this Bundle", path)
        return value

    def _link(self, match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{self.urls.get(match[3], match[3])}{match[2]}"
