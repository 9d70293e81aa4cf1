"""Bundles out, spliced from stored texts without reading them (bundle.html). Pure; `transaction.py` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.fhir import json
from gateway.fhir.outcome import Issue, operation_outcome
from gateway.fhir.transaction import ConditionalReference, Entry, conditional_references, plan, resolve

__all__ = ["ConditionalReference", "Entry", "HistoryEntry", "Response", "batch_response", "conditional_references",
           "history", "plan", "resolve", "searchset", "transaction_response"]


@dataclass(frozen=True, slots=True)
class Response:
    """What became of one entry of a batch or transaction (bundle.html#response).

    ``location`` is ``Type/id/_history/n`` relative to the base; ``etag`` ``W/"n"``; ``resource`` is there where the
    client asked for it or the entry was a read; ``outcome`` the OperationOutcome of a refusal or a remark.
    """

    status: str
    location: str = ""
    etag: str = ""
    last_modified: str = ""
    resource: bytes | None = None
    outcome: dict[str, Any] | None = None
    full_url: str = ""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One version in a history: ``resource`` is None for a deletion (http.html#history)."""

    full_url: str
    method: str
    url: str
    status: str
    etag: str = ""
    last_modified: str = ""
    resource: bytes | None = None


def searchset(base: str, self_link: str, entries: Iterable[tuple[str, bytes, str]], *, total: int | None = None,
              next_link: str = "", previous_link: str = "", first_link: str = "",
              issues: Sequence[Issue] = ()) -> bytes:
    """A page of search results; each entry is (fullUrl, stored text, ``match`` or ``include``).

    A relative fullUrl such as ``Patient/1`` is joined to ``base``. ``issues`` become one entry of mode ``outcome``
    (search.html#errors). A ``total`` of None is left out: it was not counted.
    """
    parts = [_open("searchset", total, {"self": self_link, "first": first_link, "previous": previous_link,
                                        "next": next_link})]
    modes = _MODES
    prefix = base.rstrip("/") + "/"
    found = [b'{"fullUrl":' + orjson.dumps(url if ":" in url else prefix + url) + b',"resource":' + body + modes[mode]
             for url, body, mode in entries]
    if issues:
        found.append(b'{"resource":' + json.dumps(operation_outcome(issues)) + modes["outcome"])
    return _close(parts, found)


def history(base: str, self_link: str, entries: Iterable[HistoryEntry], *, total: int | None = None,
            next_link: str = "", previous_link: str = "") -> bytes:
    """A history, newest version first."""
    parts = [_open("history", total, {"self": self_link, "previous": previous_link, "next": next_link})]
    prefix = base.rstrip("/") + "/"
    found = []
    for entry in entries:
        url = entry.full_url if ":" in entry.full_url else prefix + entry.full_url
        body = b',"resource":' + entry.resource if entry.resource is not None else b""
        request = orjson.dumps({"method": entry.method, "url": entry.url})
        response = orjson.dumps(_given(status=entry.status, etag=entry.etag, lastModified=entry.last_modified))
        found.append(b'{"fullUrl":' + orjson.dumps(url) + body + b',"request":' + request
                     + b',"response":' + response + b"}")
    return _close(parts, found)


def batch_response(responses: Iterable[Response], base: str = "") -> bytes:
    """The answer to a batch, in the order of its entries."""
    return _responses("batch-response", responses, base)


def transaction_response(responses: Iterable[Response], base: str = "") -> bytes:
    """The answer to a transaction that was done, in the order of its entries; a refused one is an OperationOutcome."""
    return _responses("transaction-response", responses, base)


_MODES = {mode: f',"search":{{"mode":"{mode}"}}}}'.encode() for mode in ("match", "include", "outcome")}


def _responses(kind: str, responses: Iterable[Response], base: str) -> bytes:
    prefix = base.rstrip("/") + "/"
    found = []
    for response in responses:
        members = []
        if response.full_url:
            url = response.full_url if ":" in response.full_url else prefix + response.full_url
            members.append(b'"fullUrl":' + orjson.dumps(url))
        if response.resource is not None:
            members.append(b'"resource":' + response.resource)
        answer = json.dumps(_given(status=response.status, location=response.location, etag=response.etag,
                                   lastModified=response.last_modified, outcome=response.outcome))
        members.append(b'"response":' + answer)
        found.append(b"{" + b",".join(members) + b"}")
    return _close([_open(kind, None, {})], found)


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value}


def _open(kind: str, total: int | None, links: dict[str, str]) -> bytes:
    opening = f'{{"resourceType":"Bundle","type":"{kind}"'.encode()
    if total is not None:
        opening += f',"total":{total}'.encode()
    if given := [{"relation": relation, "url": url} for relation, url in links.items() if url]:
        opening += b',"link":' + orjson.dumps(given)
    return opening


def _close(parts: list[bytes], entries: list[bytes]) -> bytes:
    """An empty array of entries is no JSON of FHIR: it is left out."""
    if entries:
        parts += [b',"entry":[', b",".join(entries), b"]"]
    parts.append(b"}")
    return b"".join(parts)
