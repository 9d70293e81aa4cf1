"""The RESTful interactions on one resource or type (http.html): values in, a `Result` out; nothing of Flask.

A request and an entry of a batch or transaction come to the same methods, so that both follow the same rules.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from werkzeug.http import http_date, parse_date

from gateway.caller import Caller
from gateway.errors import Category, GatewayError
from gateway.fhir import bundle, check, resource
from gateway.fhir.elements import resource_types
from gateway.fhir.primitives import RULES
from gateway.recognition import library
from gateway.recognition.loading import Loading
from gateway.source import original_digest
from gateway.store.model import Access, Delete, Put, Row, Unit, Written

if TYPE_CHECKING:
    from gateway.store import Store

#: Profiles of ours that a resource may claim in ``meta.profile``: then it is checked against them as well.
OUR_PROFILES = "http://huren.example/fhir/StructureDefinition/"


@dataclass(slots=True)
class Result:
    """What an interaction gives: ``body`` is the JSON text of one resource, empty when there is none.

    ``location`` is relative to the base: ``Observation/1/_history/2``. ``persons``: keys of those whose data it shows.
    ``audited``: the audit row was committed with the write.
    """

    status: int
    body: bytes = b""
    version: int = 0
    updated: int = 0
    location: str = ""
    persons: tuple[int, ...] = ()
    audited: bool = False

    @property
    def etag(self) -> str:
        """``W/"3"``, or empty (http.html#versioning)."""
        return f'W/"{self.version}"' if self.version else ""

    @property
    def last_modified(self) -> str:
        """The time of the version for the header Last-Modified, or empty."""
        return _http_date(self.updated // 1_000_000) if self.updated else ""


@lru_cache(maxsize=4096)
def _http_date(seconds: int) -> str:
    return http_date(seconds)


@dataclass(frozen=True, slots=True)
class Who:
    """The caller with the address it asks from, for the audit row that is committed with a write."""

    caller: Caller
    peer: str = ""

    @property
    def institution(self) -> str:
        """The owner of what this caller creates."""
        return self.caller.institution or ""


class Interactions:
    """Read, vread, history, create, update and delete over a store."""

    def __init__(self, store: Store, loading: Loading) -> None:
        self._store = store
        self._loading = loading

    # ---------------------------------------------------------------- http.html#read, #vread, #history

    def read(self, who: Who, resource_type: str, resource_id: str) -> Result:
        """The current version; NOT_FOUND with detail ``gone`` when it was deleted."""
        require_type(resource_type)
        return result_of(self._store.read(resource_type, resource_id, who.caller))

    def vread(self, who: Who, resource_type: str, resource_id: str, version: str) -> Result:
        """One version."""
        require_type(resource_type)
        return result_of(self._store.vread(resource_type, resource_id, version_number(version), who.caller))

    def history(self, who: Who, resource_type: str, resource_id: str | None, page: HistoryPage, base: str) -> Result:
        """The versions of a resource or of a type, newest first, a page at a time."""
        require_type(resource_type)
        rows = self._store.history(resource_type, resource_id, who.caller, page.count + 1, page.before)
        if resource_id is not None and not rows and page.before is None \
                and self._store.read(resource_type, resource_id, who.caller) is None:
            raise absent()
        rows = [row for row in rows if row.updated >= page.since]
        shown, more = rows[:page.count], len(rows) > page.count
        path = f"{resource_type}/{resource_id}" if resource_id is not None else resource_type
        link = page.link(f"{base}/{path}/_history")
        following = page.after(shown[-1]).link(f"{base}/{path}/_history") if more else ""
        text = bundle.history(base, link, [_history_entry(row) for row in shown], next_link=following)
        return Result(200, text, persons=persons_of(shown))

    # ---------------------------------------------------------------- http.html#create, #update, #delete

    def create(self, who: Who, resource_type: str, given: dict[str, Any]) -> Result:
        """A new resource under an id of ours."""
        require_type(resource_type)
        given = {**given, "id": new_id(given)}
        _require_kind(given, resource_type)
        require_valid(given)
        put = Put(given, who.institution, if_match=0)
        return self._put(who, put, "create", 201)

    def update(self, who: Who, resource_type: str, resource_id: str, given: dict[str, Any],
               if_match: int | None = None) -> Result:
        """A new version, or a new resource under the client's id."""
        require_type(resource_type)
        _require_kind(given, resource_type)
        if given.get("id") != resource_id:
            raise GatewayError(Category.INVALID, "the resource's id must be that of the address",
                               f"{resource_type}.id", detail="request")
        require_valid(given)
        return self._put(who, Put(given, who.institution, if_match=if_match), "update", 200)

    def _put(self, who: Who, put: Put, action: str, status: int) -> Result:
        kind, identity = put.resource["resourceType"], put.resource["id"]
        access = Access(who.caller.name, who.caller.institution, action, f"{kind}/{identity}", status, who.peer)
        more = self.beside(who, [put])
        self._store.prepare(put)
        written = self._store.write(Unit([put, *more], access=access), who.caller)[0]
        return Result(201 if written.outcome == "created" else 200, text_of(put, written), written.version,
                      written.updated, location_of(written), audited=True)

    def delete(self, who: Who, resource_type: str, resource_id: str, if_match: int | None = None) -> Result:
        """Deleted, or not there at all: both are 204 (http.html#delete)."""
        require_type(resource_type)
        require_writable(resource_type, resource_id)
        access = Access(who.caller.name, who.caller.institution, "delete", f"{resource_type}/{resource_id}", 204,
                        who.peer)
        delete = Delete(resource_type, resource_id, if_match)
        more = self.beside(who, [delete])
        written = self._store.write(Unit([delete, *more], access=access), who.caller)[0]
        return Result(204, version=written.version, updated=written.updated, audited=True)

    def beside(self, who: Who, operations: list[Put | Delete]) -> list[Put | Delete]:
        """What must be written with these, and whether they may be at all: see `gateway.recognition.loading`."""
        return self._loading.complete(operations, who.caller, time.time_ns() // 1000)


def new_id(given: dict[str, Any]) -> str:
    """The id of a resource that a client creates: ours, but for a version of the catalogue, whose id is its name."""
    version = given.get("version")
    if library.is_catalogue(given) and isinstance(version, str) and version:
        return library.PREFIX + version
    return str(uuid.uuid4())


# ---------------------------------------------------------------- addresses

def shape_of(steps: list[str]) -> tuple[str, tuple[str, ...]]:
    """What an address below the base names (http.html#general), and its parts; of requests and of Bundles' entries.

    ``base``, ``metadata``, ``type``, ``search``, ``type-history``, ``instance``, ``instance-history`` or ``version``;
    UNSUPPORTED (404) for anything else: compartments, operations, other servers' paths.
    """
    match steps:
        case [kind, name] if name[:1] not in ("_", "$", ""):
            return "instance", (kind, name)
        case ["metadata"]:
            return "metadata", ()
        case [kind] if kind[:1] not in ("_", "$", ""):
            return "type", (kind,)
        case [kind, "_search"]:
            return "search", (kind,)
        case [kind, "_history"]:
            return "type-history", (kind,)
        case [kind, name, "_history"]:
            return "instance-history", (kind, name)
        case [kind, name, "_history", version]:
            return "version", (kind, name, version)
        case []:
            return "base", ()
    raise GatewayError(Category.UNSUPPORTED, "there is nothing at this path; see /fhir/metadata for what there is",
                       detail="path")


# ---------------------------------------------------------------- rules

def require_type(resource_type: str) -> None:
    """UNSUPPORTED (404) when R4 has no such type."""
    if resource_type not in resource_types():
        raise GatewayError(Category.UNSUPPORTED, "FHIR R4 has no such resource type; see /fhir/metadata", detail="path")


def require_valid(given: dict[str, Any]) -> None:
    """INVALID with every issue, by base R4 and by those of our profiles that the resource claims."""
    require_writable(given.get("resourceType"), given.get("id"))
    check.require_valid(given, profile=_claims_ours(given))


def require_writable(resource_type: object, resource_id: object) -> None:
    """UNSUPPORTED (405) for a received message: it stays as it came."""
    if resource_type == "Binary" and isinstance(resource_id, str) and original_digest(resource_id):
        raise GatewayError(Category.UNSUPPORTED, "this Binary is a received message, which nobody changes; write under "
                           "another id", "Binary.id", detail="method")


def _claims_ours(given: dict[str, Any]) -> bool:
    meta = given.get("meta")
    profiles = meta.get("profile") if isinstance(meta, dict) else None
    return isinstance(profiles, list) and any(isinstance(p, str) and p.startswith(OUR_PROFILES) for p in profiles)


def _require_kind(given: dict[str, Any], resource_type: str) -> None:
    if given.get("resourceType") != resource_type:
        raise GatewayError(Category.INVALID, f"the resourceType must be that of the address, {resource_type}",
                           "resourceType", detail="request")


def condition(if_match: str, if_none_match: str = "") -> int | None:
    """The version that must be current for a write (http.html#concurrency); None where nothing is asked.

    0 for ``If-None-Match: *``: there must be none (RFC 9110 13.1.2).
    """
    if if_none_match == "*":
        return 0
    if if_none_match:
        raise GatewayError(Category.INVALID, "a write takes If-None-Match: * only; name a version by If-Match",
                           "If-None-Match", detail="request")
    if not if_match:
        return None
    header = if_match
    version = header.strip().removeprefix("W/").strip('"')
    if not version.isdecimal() or len(version) > 9:
        raise GatewayError(Category.INVALID, 'If-Match must be an ETag of ours, such as W/"3"', "If-Match",
                           detail="request")
    return int(version)


def unchanged(result: Result, if_none_match: str, if_modified_since: str) -> bool:
    """Whether the client's copy is current: 304 (http.html#cread); If-None-Match wins (RFC 9110 13.2.2)."""
    if result.status != 200 or not result.version:
        return False
    if if_none_match:
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        return "*" in tags or f'"{result.version}"' in tags
    if if_modified_since:
        since = parse_date(if_modified_since)
        return since is not None and result.updated // 1_000_000 <= since.timestamp()
    return False


def unsupported_condition(what: str) -> GatewayError:
    """The refusal of conditional writes and patches, which never become unconditional ones."""
    return GatewayError(Category.UNSUPPORTED, f"{what} is not supported; read or search first, then write with "
                        "If-Match", detail="conditional")


# ---------------------------------------------------------------- history pages

@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The parameters of a history (http.html#history): ``_count``, ``_since`` and where the page begins."""

    count: int = 50
    since: int = 0  # µs since the epoch
    before: tuple[int, int] | None = None
    given: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, query: dict[str, str]) -> HistoryPage:
        """From the query; INVALID (400) for a value that is none and for parameters that we do not have."""
        count, since, before = 50, 0, None
        for name, value in query.items():
            if name == "_count":
                if not value.isdecimal():
                    raise _bad("_count must be a whole number", name)
                count = max(1, min(int(value[:9]), 1000))
            elif name == "_since":
                since = _microseconds(value)
            elif name == "_before":
                updated, _, pk = value.partition("-")
                if not (updated.isdecimal() and pk.isdecimal() and len(value) < 40):
                    raise _bad("follow the links of the history's pages as they are", name)
                before = (int(updated), int(pk))
            elif name not in ("_format", "_pretty", "_summary", "_elements"):
                raise _bad("a history takes _count and _since only", name)
        kept = tuple((n, v) for n, v in query.items() if n != "_before")
        return cls(count, since, before, kept)

    def after(self, row: Row) -> HistoryPage:
        """The page that begins after a row."""
        return HistoryPage(self.count, self.since, (row.updated, row.pk), self.given)

    def link(self, url: str) -> str:
        """The address of this page."""
        cursor = (("_before", f"{self.before[0]}-{self.before[1]}"),) if self.before else ()
        query = urlencode((*self.given, *cursor))
        return f"{url}?{query}" if query else url


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(text: str) -> int:
    """An instant in microseconds since the epoch; a ``+`` that the query lost by not being escaped is put back."""
    text = text.replace(" ", "+")
    if RULES["instant"](text):
        raise _bad("_since must be an instant such as 2026-11-22T08:00:00Z", "_since")
    return (datetime.fromisoformat(text.replace(":60", ":59")) - _EPOCH) // timedelta(microseconds=1)


def _bad(message: str, where: str) -> GatewayError:
    return GatewayError(Category.INVALID, message, where, detail="search")


# ---------------------------------------------------------------- rows

def version_number(text: str) -> int:
    """A version id of ours; NOT_FOUND for any other."""
    if not text.isdecimal() or len(text) > 9:
        raise absent()
    return int(text)


def absent() -> GatewayError:
    """The refusal that does not tell what is not there from what is not shown."""
    return GatewayError(Category.NOT_FOUND, "there is no such resource, or this client may not see it")


def result_of(row: Row | None) -> Result:
    """A version that was read; NOT_FOUND where there is none, with detail ``gone`` where it was deleted."""
    if row is None:
        raise absent()
    if row.deleted:
        raise GatewayError(Category.NOT_FOUND, "this resource was deleted; its history shows what it was",
                           detail="gone")
    return Result(200, text_of_row(row), row.version, row.updated, persons=(row.person,) if row.person else ())


def text_of_row(row: Row) -> bytes:
    """The JSON text of a stored version."""
    return resource.text(row.resource_type, row.id, row.version, row.updated, row.tail)


def text_of(put: Put, written: Written) -> bytes:
    """The JSON text of what was just written."""
    return resource.text(written.resource_type, written.id, written.version, written.updated, put.prepared.tail)


def location_of(written: Written) -> str:
    """``Observation/1/_history/2``."""
    return f"{written.resource_type}/{written.id}/_history/{written.version}"


def persons_of(rows: list[Row]) -> tuple[int, ...]:
    """Whose data the rows are, each once."""
    return tuple({row.person: None for row in rows if row.person})


def _history_entry(row: Row) -> bundle.HistoryEntry:
    """http.html#history: how each version came to be."""
    identity = f"{row.resource_type}/{row.id}"
    method = "DELETE" if row.deleted else "PUT"
    status = "204" if row.deleted else "201" if row.version == 1 else "200"
    result = Result(200, version=row.version, updated=row.updated)
    return bundle.HistoryEntry(identity, method, identity, status, result.etag, resource.instant(row.updated),
                               None if row.deleted else text_of_row(row))
