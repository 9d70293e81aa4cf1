"""The stored text of a resource: a head that the row knows and a tail that is kept; subsets of a resource. Pure.

``{"resourceType":"Observation","id":"…","meta":{"versionId":"1","lastUpdated":"2026-11-22T08:00:00.000Z"`` + tail.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.fhir.elements import Element, elements_of, resource_types

_EPOCH = datetime(1970, 1, 1)
_SERVER_OWNED = frozenset(("versionId", "lastUpdated", "_versionId", "_lastUpdated"))
#: http://hl7.org/fhir/R4/search.html#summary
SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
SUMMARIES = ("true", "text", "data", "count", "false")


def tail(resource: dict[str, Any]) -> bytes:
    """Everything but type, id, version and time, so that ``head(…) + tail`` is the whole JSON text.

    The rest of ``meta`` comes first, then the other elements in the sender's order. Equal content gives an equal tail,
    whatever ``id``, ``meta.versionId`` and ``meta.lastUpdated`` say: this is how a resend is seen to change nothing.
    """
    meta = resource.get("meta") or {}
    if not meta.keys().isdisjoint(_SERVER_OWNED):
        meta = {name: value for name, value in meta.items() if name not in _SERVER_OWNED}
    kept = resource.copy()  # with three members less: a third quicker than a loop over all the others
    kept.pop("resourceType", None)
    kept.pop("id", None)
    kept.pop("_id", None)
    if next(iter(kept), "") != "meta":
        kept = {"meta": meta, **kept}
    kept["meta"] = meta
    rest = json.dumps(kept)[len(b'{"meta":{'):]
    return b"," + rest if meta else rest


def head(resource_type: str, resource_id: str, version_id: int | str, updated_us: int) -> bytes:
    """The text before the tail; ``updated_us`` in microseconds since the epoch, written to the millisecond."""
    return (f'{{"resourceType":"{resource_type}","id":"{resource_id}","meta":{{"versionId":"{version_id}",'
            f'"lastUpdated":"{instant(updated_us)}"').encode()


def text(resource_type: str, resource_id: str, version_id: int | str, updated_us: int, tail: bytes) -> bytes:
    """The complete JSON text of a stored resource."""
    return head(resource_type, resource_id, version_id, updated_us) + tail


@lru_cache(maxsize=4096)
def instant(us: int) -> str:
    """Microseconds since the epoch as a FHIR instant in UTC to the millisecond (datatypes.html#instant)."""
    return (_EPOCH + timedelta(milliseconds=us // 1000)).isoformat(timespec="milliseconds") + "Z"


def elements(resource: dict[str, Any] | bytes, names: Iterable[str]) -> dict[str, Any]:
    """For ``_elements``: the named top-level elements, the mandatory and the modifier ones (search.html#elements).

    ``Patient.name`` means ``name`` of Patients only. A choice may be named by its stem (``value``) or in full.
    """
    resource = _parsed(resource)
    kind = resource["resourceType"]
    wanted = {name.partition(".")[2] if name.startswith(f"{kind}.") else name for name in names}
    wanted = {name.partition(".")[0].removesuffix("[x]") for name in wanted}
    return _subset(resource, lambda e: e.name in wanted or e.choice in wanted or e.min > 0 or e.modifier)


def summary(resource: dict[str, Any] | bytes, mode: str) -> dict[str, Any]:
    """For ``_summary``; INVALID for an unknown mode. ``count`` is about Bundles: here it leaves what ``false`` leaves.

    ``true``: the elements that the base definition marks Σ, at every depth, and mandatory ones; ``text``: narrative
    and mandatory elements; ``data``: all but the narrative (search.html#summary).
    """
    resource = _parsed(resource)
    if mode not in SUMMARIES:
        raise GatewayError(Category.INVALID, f"_summary must be one of {', '.join(SUMMARIES)}", "_summary")
    if mode in ("false", "count"):
        return resource
    if mode == "text":
        return _subset(resource, lambda e: e.name == "text" or e.min > 0)
    if mode == "data":
        return _subset(resource, lambda e: e.name != "text")
    found = _subset(resource, lambda e: e.summary or e.min > 0)
    table = elements_of(resource["resourceType"])
    return {name: value if name == "meta" else _summarised(value, table.get(name)) for name, value in found.items()}


def _parsed(resource: dict[str, Any] | bytes) -> dict[str, Any]:
    return json.loads(resource) if isinstance(resource, bytes) else resource


def _subset(resource: dict[str, Any], keep: Any) -> dict[str, Any]:
    """The kept top-level elements with their ``_`` siblings, and meta with the tag SUBSETTED."""
    table = elements_of(resource["resourceType"])
    meta = dict(resource.get("meta") or {})
    tags = meta.get("tag", [])
    if not any(tag.get("code") == SUBSETTED["code"] and tag.get("system") == SUBSETTED["system"] for tag in tags):
        meta["tag"] = [*tags, SUBSETTED]
    found: dict[str, Any] = {"resourceType": resource["resourceType"]}
    if "id" in resource:
        found["id"] = resource["id"]
    found["meta"] = meta
    for name, value in resource.items():
        element = table.get(name.removeprefix("_"))
        if name not in found and element is not None and keep(element):
            found[name] = value
    return found


def _summarised(value: Any, element: Element | None) -> Any:
    """The Σ and mandatory parts of a value of any depth."""
    if isinstance(value, list):
        return [_summarised(item, element) for item in value]
    if not isinstance(value, dict) or element is None or element.primitive or element.type == "Extension":
        return value
    kind = element.type
    if kind == "Resource":
        kind = value.get("resourceType", "")
        if kind not in resource_types():
            return value
    table = elements_of(kind)
    found = {}
    for name, item in value.items():
        inner = table.get(name.removeprefix("_"))
        if inner is None or inner.summary or inner.min > 0 or name == "id":
            found[name] = _summarised(item, inner)
    return found if found.keys() - {"id"} else value  # an element of nothing but an id would be invalid (ele-1)
