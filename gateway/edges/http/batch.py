"""Batch and transaction Bundles (http.html#transaction): each entry by its own rules, or all of them or none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from gateway import search
from gateway.edges.http.answers import answer_for, outcome_of, refusal_of
from gateway.edges.http.binaries import Binaries
from gateway.edges.http.interactions import (
    HistoryPage,
    Interactions,
    Result,
    Who,
    condition,
    location_of,
    new_id,
    require_type,
    require_valid,
    require_writable,
    shape_of,
    text_of,
    unchanged,
    unsupported_condition,
)
from gateway.errors import Category, GatewayError
from gateway.fhir import bundle, resource
from gateway.fhir.outcome import InvalidResource
from gateway.fhir.transaction import Entry
from gateway.store.model import Access, Delete, Put, Unit, Written

if TYPE_CHECKING:
    from gateway.store import Store

log = logging.getLogger("huren.http")

#: (who, resource type, raw query, base) → Result
Search = Callable[[Who, str, str, str], Result]
ENTRIES = 5000  # of one Bundle: more only hold a worker and a write lock for too long
_REASONS = {200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified"}


class Bundles:
    """Answers a Bundle that was sent to the base."""

    def __init__(self, store: Store, interactions: Interactions, binaries: Binaries, search_type: Search) -> None:
        self._store = store
        self._rest = interactions
        self._binaries = binaries
        self._search = search_type

    def run(self, who: Who, given: dict[str, Any], base: str, returns: str) -> tuple[str, Result]:
        """The interaction's name, and the response Bundle."""
        if given.get("resourceType") != "Bundle":
            raise GatewayError(Category.INVALID, "only a Bundle of type batch or transaction goes to the base",
                               "resourceType", detail="request")
        entries = bundle.plan(given, base)
        if len(entries) > ENTRIES:
            raise GatewayError(Category.MALFORMED, f"a Bundle may have {ENTRIES} entries; send it in parts",
                               "Bundle.entry", detail="too-large")
        if given["type"] == "batch":
            return "batch", self._batch(who, entries, base, returns)
        return "transaction", self._transaction(who, entries, base, returns)

    # ---------------------------------------------------------------- http.html#brules

    def _batch(self, who: Who, entries: list[Entry], base: str, returns: str) -> Result:
        persons: dict[int, None] = {}
        answers = []
        for entry in entries:
            try:
                if entry.error:
                    raise entry.error
                done = self._one(who, entry, base)
                persons |= dict.fromkeys(done.persons)
                answers.append(_response(entry, done, returns))
            except Exception as problem:  # one entry's failure is that entry's answer
                answers.append(_refusal(entry, problem))
        return Result(200, bundle.batch_response(answers, base), persons=tuple(persons))

    def _one(self, who: Who, entry: Entry, base: str) -> Result:
        if entry.method in ("GET", "HEAD"):
            return self._get(who, entry, base)
        _refuse_conditional(entry)
        require_type(entry.resource_type)
        if entry.method == "DELETE":
            return self._rest.delete(who, entry.resource_type, entry.resource_id, _condition(entry))
        assert entry.resource is not None  # plan() asked for it
        if entry.method == "POST":
            return self._rest.create(who, entry.resource_type, entry.resource)
        return self._rest.update(who, entry.resource_type, entry.resource_id, entry.resource, _condition(entry))

    def _get(self, who: Who, entry: Entry, base: str) -> Result:
        query = dict(parse_qsl(entry.query, keep_blank_values=True))
        shape, parts = shape_of([unquote(step) for step in entry.path.rstrip("/").split("/")])
        if shape == "type":
            require_type(parts[0])
            return self._search(who, parts[0], entry.query, base)
        if shape in ("type-history", "instance-history"):
            return self._rest.history(who, parts[0], parts[1] if parts[1:] else None, HistoryPage.of(query), base)
        if shape == "version":
            return self._binaries.whole(who, *parts[1:]) if parts[0] == "Binary" else self._rest.vread(who, *parts)
        if shape == "instance":
            found = self._binaries.whole(who, parts[1]) if parts[0] == "Binary" else self._rest.read(who, *parts)
            if unchanged(found, entry.if_none_match, entry.if_modified_since):
                return replace(found, status=304, body=b"")
            return found
        raise GatewayError(Category.UNSUPPORTED, "an entry reads, searches or asks for a history; nothing else by GET",
                           f"{entry.where}.request.url", detail="path")

    # ---------------------------------------------------------------- http.html#trules

    def _transaction(self, who: Who, entries: list[Entry], base: str, returns: str) -> Result:
        """Writes first, all in one unit; then the reads, which see what was written."""
        writes = [entry for entry in entries if entry.method not in ("GET", "HEAD")]
        for entry in writes:
            _refuse_conditional(entry)
            if not entry.resource_type:
                raise GatewayError(Category.UNSUPPORTED, "an entry writes resources; operations go by themselves",
                                   f"{entry.where}.request.url", detail="path")
        identities = {entry.index: f"{entry.resource_type}/{entry.resource_id or new_id(entry.resource or {})}"
                      for entry in writes}
        bundle.resolve(entries, identities, self._conditional_references(who, writes))
        operations: list[Put | Delete] = [_operation(who, entry, identities[entry.index]) for entry in writes]
        more = self._rest.beside(who, operations)
        for operation in operations:
            if isinstance(operation, Put):
                self._store.prepare(operation)
        access = Access(who.caller.name, who.caller.institution, "transaction", _targets(writes), 200, who.peer)
        written = self._store.write(Unit([*operations, *more], access=access), who.caller) if operations else []
        answers: dict[int, bundle.Response] = {}
        for entry, operation, done in zip(writes, operations, written[:len(operations)], strict=True):
            answers[entry.index] = _written(operation, done, returns)
        persons: dict[int, None] = {}
        for entry in entries:
            if entry.index not in answers:
                found = self._get(who, entry, base)
                persons |= dict.fromkeys(found.persons)
                answers[entry.index] = _response(entry, found, returns)
        text = bundle.transaction_response([answers[index] for index in sorted(answers)], base)
        return Result(200, text, persons=tuple(persons), audited=bool(operations) and not persons)

    def _conditional_references(self, who: Who, entries: list[Entry]) -> dict[str, str]:
        """A conditional reference must find exactly one resource (http.html#trules)."""
        found = {}
        for reference in bundle.conditional_references(entries):
            try:
                ids = search.resolve_conditional(self._store, who.caller, reference.reference)
            except GatewayError as error:
                raise GatewayError(error.category, error.message, reference.where, detail=error.detail) from None
            if len(ids) != 1:
                raise GatewayError(Category.CONFLICT, "this conditional reference must find one resource, and finds "
                                   f"{'several' if ids else 'none'}", reference.where, detail="precondition")
            found[reference.reference] = f"{reference.resource_type}/{ids[0]}"
        return found


def _operation(who: Who, entry: Entry, identity: str) -> Put | Delete:
    resource_type, _, resource_id = identity.partition("/")
    if entry.method == "DELETE":
        require_writable(resource_type, resource_id)
        return Delete(resource_type, resource_id, _condition(entry))
    assert entry.resource is not None  # plan() asked for it
    given = {**entry.resource, "id": resource_id}
    try:
        require_valid(given)
    except InvalidResource as error:
        raise InvalidResource([replace(issue, where=entry.locate(issue.where)) for issue in error.issues]) from None
    version = 0 if entry.method == "POST" else _condition(entry)
    return Put(given, who.institution, if_match=version)


def _condition(entry: Entry) -> int | None:
    try:
        return condition(entry.if_match, entry.if_none_match)
    except GatewayError as error:
        raise _placed(entry, error) from None


def _targets(entries: list[Entry]) -> str:
    """What a transaction wrote, for the audit: how many of each type; the ids are in the versions of that time."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.resource_type] = counts.get(entry.resource_type, 0) + 1
    return " ".join(f"{kind}:{count}" for kind, count in sorted(counts.items()))


def _refuse_conditional(entry: Entry) -> None:
    if entry.if_none_exist:
        raise _placed(entry, unsupported_condition("a conditional create (ifNoneExist)"))
    if entry.method == "PATCH":
        raise _placed(entry, unsupported_condition("PATCH"))
    if entry.method in ("PUT", "DELETE") and entry.query:
        raise _placed(entry, unsupported_condition(f"a conditional {entry.method}"))


def _placed(entry: Entry, error: GatewayError) -> GatewayError:
    return GatewayError(error.category, error.message, f"{entry.where}.request", detail=error.detail)


# ---------------------------------------------------------------- response entries

def _status(code: int) -> str:
    return f"{code} {_REASONS[code]}" if code in _REASONS else str(code)


def _response(entry: Entry, done: Result, returns: str) -> bundle.Response:
    is_read = entry.method in ("GET", "HEAD")
    body = done.body if done.body and (is_read or returns == "representation") else None
    return bundle.Response(_status(done.status), "" if is_read else done.location, done.etag,
                           resource.instant(done.updated) if done.updated else "", body)


def _written(operation: Put | Delete, done: Written, returns: str) -> bundle.Response:
    if isinstance(operation, Delete):
        return bundle.Response(_status(204), etag=f'W/"{done.version}"' if done.version else "")
    body = text_of(operation, done) if returns == "representation" else None
    return bundle.Response(_status(201 if done.outcome == "created" else 200), location_of(done),
                           f'W/"{done.version}"', resource.instant(done.updated), body)


def _refusal(entry: Entry, problem: Exception) -> bundle.Response:
    error = refusal_of(problem)
    if error.category is Category.FAULT:
        log.error("fault in a batch entry: %s", type(problem).__name__, exc_info=False)
    if isinstance(error, InvalidResource):
        error = InvalidResource([replace(issue, where=entry.locate(issue.where)) for issue in error.issues])
    return bundle.Response(str(answer_for(error).status), outcome=outcome_of(error))


