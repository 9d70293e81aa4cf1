"""The CapabilityStatement (http.html#capabilities): what is implemented, from the tables that implement it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gateway import __version__, search
from gateway.config import Settings
from gateway.fhir import json
from gateway.fhir.elements import resource_types
from gateway.indexing import PARAMETERS, Type, parameters_of

#: When what this statement says was last changed.
DATE = "2026-11-22"
_INTERACTIONS = ("read", "vread", "update", "delete", "history-instance", "history-type", "create", "search-type")


class Capability:
    """The statement for a base; it differs by that and by whether there is a login."""

    def __init__(self, settings: Settings) -> None:
        self._demo = settings.demo
        self._texts = lru_cache(maxsize=8)(self._text)

    def text(self, base: str) -> bytes:
        """As JSON."""
        return self._texts(base)

    def _text(self, base: str) -> bytes:
        return json.dumps(statement(base, login=not self._demo))


def statement(base: str, login: bool) -> dict[str, Any]:
    """The CapabilityStatement of the server at ``base``."""
    described = "No login: demonstration data only." if not login else \
        "Authorization: Bearer with a token that the operator of this gateway gives (huren client add)."
    return {
        "resourceType": "CapabilityStatement", "status": "active", "date": DATE, "kind": "instance",
        "publisher": "Huren", "software": {"name": "Huren", "version": __version__},
        "implementation": {"description": "Results of several hospitals behind one FHIR interface", "url": base},
        "fhirVersion": "4.0.1", "format": ["json", "xml", "application/fhir+json", "application/fhir+xml"],
        "rest": [{"mode": "server", "security": {"cors": True, "description": described},
                  "resource": [_resource(kind) for kind in sorted(resource_types())],
                  "interaction": [{"code": "transaction"}, {"code": "batch"}],
                  "searchParam": [_parameter(name, kind) for name, kind in _of_every_type().items()]}],
    }


def _resource(kind: str) -> dict[str, Any]:
    own = {name: p for name, p in sorted(parameters_of(kind).items()) if p.resource_type == kind}
    includes = [f"{kind}:{name}" for name, p in own.items() if p.type is Type.REFERENCE]
    found: dict[str, Any] = {
        "type": kind, "interaction": [{"code": code} for code in _INTERACTIONS],
        "versioning": "versioned-update", "readHistory": True, "updateCreate": True,
        "conditionalCreate": False, "conditionalRead": "full-support", "conditionalUpdate": False,
        "conditionalDelete": "not-supported", "referencePolicy": ["literal", "logical"]}
    if includes:
        found["searchInclude"] = includes
    if back := _pointing_at(kind):
        found["searchRevInclude"] = back
    if own:
        found["searchParam"] = [_parameter(name, p.type.value) for name, p in own.items()]
    return found


def _parameter(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "type": kind}


def _of_every_type() -> dict[str, str]:
    columns = {name: kind.value for name, kind in search.COLUMNS.items()}
    return columns | {p.name: p.type.value for p in PARAMETERS if p.resource_type == "*"}


def _pointing_at(kind: str) -> list[str]:
    """Parameters of other types whose references may name this type; those that may name any type are left out."""
    return sorted({f"{p.resource_type}:{p.name}" for p in PARAMETERS
                   if p.type is Type.REFERENCE and kind in p.targets})
