"""The R4 element tables: name, type, cardinality, order, summary and binding of every element of every type.

Read once from `elements.json`, which `build_elements.py` makes from HL7's definitions; expanded per type on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import orjson

#: datatypes.html#primitive
PRIMITIVES = frozenset((
    "base64Binary", "boolean", "canonical", "code", "date", "dateTime", "decimal", "id", "instant", "integer",
    "markdown", "oid", "positiveInt", "string", "time", "unsignedInt", "uri", "url", "uuid", "xhtml"))
_ABSTRACT = frozenset(("Element", "BackboneElement", "Resource", "DomainResource"))


@dataclass(frozen=True, slots=True)
class Element:
    """One element as it stands in JSON: a choice such as ``value[x]`` gives one for each of its types."""

    name: str
    type: str  # primitive, data type, backbone path (``Observation.component``) or ``Resource``
    min: int
    many: bool
    summary: bool
    modifier: bool
    choice: str = ""  # ``value`` for ``valueQuantity``
    codes: dict[str, frozenset[str]] | None = None  # required binding: system → codes
    targets: frozenset[str] | None = None  # resource types that a Reference may have; None: any

    @property
    def primitive(self) -> bool:
        """Whether the value is a JSON string, number or boolean."""
        return self.type in PRIMITIVES


@cache
def _tables() -> dict[str, Any]:
    return orjson.loads(Path(__file__).with_name("elements.json").read_bytes())


@cache
def resource_types() -> frozenset[str]:
    """The 146 concrete resource types of R4."""
    return frozenset(name for name, table in _tables()["types"].items()
                     if table["kind"] == "resource" and not table.get("abstract"))


def is_resource_type(name: Any) -> TypeGuard[str]:
    """Whether any JSON value, such as a ``resourceType`` that nobody has checked, names a concrete resource type."""
    return type(name) is str and name in resource_types()


@cache
def data_types() -> frozenset[str]:
    """The complex data types of R4 (``HumanName``); backbone elements and primitives are not among them."""
    return frozenset(name for name, table in _tables()["types"].items() if table["kind"] == "type")


@cache
def elements_of(type_name: str) -> dict[str, Element]:
    """All elements of a resource, data type or backbone element, in the order of the base definition; KeyError if none.

    The order is that of XML (xml.html), and of the summary.
    """
    table = _tables()["types"][type_name]
    base = table["base"]
    if type_name in _ABSTRACT:
        found = {}  # they list all that they inherit
    elif base in _ABSTRACT:
        found = dict(elements_of(base))
    else:
        found = dict(elements_of("Element"))  # Age, Count … specialise Quantity and list its elements again
    for row in table["elements"]:
        for element in _expand(*row):
            found[element.name] = element
    return found


@cache
def base_of(type_name: str) -> str:
    """The type that this one specialises: ``DomainResource``, ``Resource``, ``BackboneElement``, ``Element`` …"""
    return _tables()["types"][type_name]["base"]


@cache
def _codes(value_set: str) -> dict[str, frozenset[str]]:
    return {system: frozenset(codes.split(" ")) for system, codes in _tables()["valueSets"][value_set].items()}


def _expand(name: str, types: str, minimum: int, many: int, flags: int, value_set: str | None = None,
            targets: str | None = None) -> list[Element]:
    stem = name.removesuffix("[x]")
    codes = _codes(value_set) if value_set else None
    allowed = frozenset(targets.split(" ")) if targets else None
    return [Element(stem if stem == name else stem + kind[0].upper() + kind[1:], kind, minimum, bool(many),
                    bool(flags & 1), bool(flags & 2), "" if stem == name else stem, codes,
                    allowed if kind == "Reference" else None) for kind in types.split("|")]
