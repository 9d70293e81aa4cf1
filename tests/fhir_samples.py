"""Valid R4 resources of every type, made from the element tables by a seed, and mutations of them."""

from __future__ import annotations

import copy
import random
from typing import Any

from gateway.fhir import json
from gateway.fhir.elements import Element, elements_of, resource_types

_DIV = '<div xmlns="http://www.w3.org/1999/xhtml"><p>血常规 &amp; <b>CT</b><br/></p></div>'
_TEXTS = ("Li", "王小明", "a b", "line\nnext\tcell", "<&>\"'", "\U0001f600", "x" * 200, "１２")
_PRIMITIVES: dict[str, tuple[Any, ...]] = {
    "base64Binary": ("AAEC", "aGVsbG8=", "aGVsbA=="),
    "boolean": (True, False),
    "canonical": ("http://example.org/fhir/ValueSet/a|1.0",),
    "code": ("a", "with space", "en"),
    "date": ("2026", "2026-02", "2024-02-29"),
    "dateTime": ("2026", "2026-11", "2026-11-20", "2026-11-20T08:00:00+08:00", "2026-11-20T08:00:00.123456Z"),
    "decimal": ("1.50", "0.000000001", "-3", "12345678901234567890.12", "1e3", "0"),
    "id": ("a", "A-1.b", "0" * 64),
    "instant": ("2026-11-20T08:00:00Z", "2026-11-20T08:00:00.100+08:00"),
    "integer": (0, -5, 2147483647),
    "markdown": ("# Title\n\n* one", "plain"),
    "oid": ("urn:oid:2.16.156.10011.1.3",),
    "positiveInt": (1, 7),
    "string": _TEXTS,
    "time": ("08:00:00", "23:59:59.5"),
    "unsignedInt": (0, 12),
    "uri": ("http://loinc.org", "urn:oid:1.2.3", "relative"),
    "url": ("http://example.org/a?b=c", "mailto:a@example.org"),
    "uuid": ("urn:uuid:c757873d-ec9a-4326-a141-556f43239520",),
    "xhtml": (_DIV,),
}
#: What fits as content of Resource-typed elements.
_INNER = ("Patient", "Observation", "Organization", "Binary")


def make(kind: str, seed: int, richness: float = 0.3) -> dict[str, Any]:
    """A valid resource; ``richness`` is the chance of an optional element."""
    rng = random.Random(f"{kind}/{seed}")
    return {"resourceType": kind} | _object(rng, kind, richness, 0)


def _object(rng: random.Random, kind: str, richness: float, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    chosen: dict[str, Element] = {}
    for name, element in elements_of(kind).items():
        if element.choice:
            options = [e for e in elements_of(kind).values() if e.choice == element.choice]
            pick = chosen.setdefault(element.choice, rng.choice(options))
            if pick is not element:
                continue
        if name in ("extension", "modifierExtension", "contained") and (depth > 2 or rng.random() > 0.1):
            continue
        if element.min or rng.random() < richness / (1 + depth):
            _fill(rng, made, element, richness, depth)
    return _lawful(rng, kind, made)


def _fill(rng: random.Random, made: dict[str, Any], element: Element, richness: float, depth: int) -> None:
    name = element.name
    if not element.many:
        made[name] = _value(rng, element, richness, depth)
    else:
        made[name] = [_value(rng, element, richness, depth) for _ in range(rng.choice((1, 1, 2)))]
    if element.primitive and name not in ("id", "url", "div") and rng.random() < 0.05:
        extension = {"extension": [{"url": "http://example.org/why", "valueCode": "masked"}]}
        made[f"_{name}"] = [extension, *([None] * (len(made[name]) - 1))] if element.many else extension
        if element.many:
            made[name][0] = None
            if len(made[name]) == 1:
                del made[name]


def _value(rng: random.Random, element: Element, richness: float, depth: int) -> Any:
    if element.type == "code" and element.codes:
        return rng.choice(sorted(c for codes in element.codes.values() for c in codes))
    if element.type == "decimal":
        text = rng.choice(_PRIMITIVES["decimal"])
        return json.number(text) if set(text) & set(".e") else int(text)
    if element.primitive:
        return rng.choice(_PRIMITIVES[element.type])
    if element.type == "Resource":
        kind = rng.choice(_INNER)
        inner = {"resourceType": kind} | _object(rng, kind, richness / 2, max(depth, 3)) | {"id": "inner"}
        return {name: value for name, value in inner.items() if name not in ("contained", "meta")}
    if element.type == "Reference":
        target = rng.choice(sorted(element.targets or {"Patient"}))
        return rng.choice(({"reference": f"{target}/1"}, {"display": "someone"}, {"reference": "#inner"},
                           {"reference": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"}))
    if element.codes and element.type in ("CodeableConcept", "Coding"):
        system = rng.choice(sorted(element.codes))
        coding = {"system": system, "code": rng.choice(sorted(element.codes[system]))}
        return coding if element.type == "Coding" else {"coding": [coding]}
    return _object(rng, element.type, richness if depth < 3 else 0, depth + 1)


def _lawful(rng: random.Random, kind: str, made: dict[str, Any]) -> dict[str, Any]:
    """The invariants that the tables do not know."""
    if kind == "Extension":
        made = {"url": "http://example.org/x", "valueString": "v"}
    elif kind == "Period":
        made = {"start": "2026-01-01", "end": "2026-02"}
    elif kind in ("Quantity", "Age", "Count", "Distance", "Duration"):
        made.update(system="http://unitsofmeasure.org", code="1")
    elif kind == "ContactPoint":
        made["system"] = "phone"
    elif kind == "Attachment":
        made["contentType"] = "text/plain"
    elif kind == "Observation":
        made.pop("dataAbsentReason", None)
        made.pop("component", None)
    elif kind == "Observation.referenceRange":
        made["text"] = "normal"
    elif kind == "Patient.contact":
        made["name"] = {"text": "Li"}
    elif kind == "Bundle":
        made["type"] = "history"
    if not set(made) - {"id"} and kind not in resource_types():
        optional = [e for e in elements_of(kind).values() if e.name not in ("id", "extension", "modifierExtension")]
        _fill(rng, made, optional[0], 0, 9)
    return made


# ---------------------------------------------------------------- mutations

_ODD = ("", " ", "x", "bad  code ", "2026-02-30", "2026-11-20T08:00:00", "not base64!", "urn:uuid:x", "Patient/1", 0,
        -1, 3000000000, True, False, None, [], {}, [None], ["x"], {"x": 1}, [[]], 1.5, json.number("1.50"),
        json.number("1e400"), "http://a b", "\x00", "0000", "24:00:00", "a\u00a0b", "urn:oid:9.9", "http://", "::",
        "ftp://[", {"resourceType": "Patient"}, {"resourceType": "Nope"}, {"extension": [{"url": "a"}]}, {"id": "x"},
        [{"id": "x"}], float("nan"), "9" * 70)
_NAMES = ("valueString", "valueQuantity", "deceasedBoolean", "status", "code", "foo", "_foo", "extension",
          "resourceType", "fhir_comments")
_OPERATIONS = ("drop", "odd", "odd", "odd", "rename", "wrap", "unwrap", "twice", "sibling", "add")


def _spots(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        _spots(value[key], found)
    return found


def mutated(resource: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy with one thing dropped, retyped, renamed, wrapped, doubled or added."""
    resource = copy.deepcopy(resource)
    spots = [spot for spot in _spots(resource, []) if spot != (resource, "resourceType")]
    holder, key = rng.choice(spots or [(resource, "id")])
    operation = rng.choice(_OPERATIONS)
    if operation == "drop":
        holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
    elif operation == "odd":
        holder[key] = rng.choice(_ODD)
    elif isinstance(holder, dict) and operation == "rename" and key in holder:
        holder[rng.choice((f"{key}x", f"_{key}", key.capitalize(), *_NAMES))] = holder.pop(key)
    elif operation == "wrap" and spots:
        holder[key] = [holder[key]]
    elif operation == "unwrap" and spots and isinstance(holder[key], list) and holder[key]:
        holder[key] = holder[key][0]
    elif operation == "twice" and spots and isinstance(holder[key], list):
        holder[key] = holder[key] * 2
    elif operation == "sibling" and isinstance(holder, dict):
        holder[f"_{key}"] = rng.choice(({"id": "a"}, {"extension": [{"url": "a", "valueString": "b"}]}, [None], {},
                                        [{"id": "a"}, None], "x"))
    elif isinstance(holder, dict):
        holder[rng.choice(_NAMES)] = rng.choice(_ODD)
    return resource
