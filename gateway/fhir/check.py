"""Is this a valid R4 resource? Our own compiled check for every resource, `fhir.resources` as a second judge. Pure.

The check is compiled from the element tables: unknown elements, JSON types, cardinality, formats of primitives,
choices, required bindings, reference targets and the invariants of `invariants.py`. It stops at nothing: every issue is
found, each with its FHIRPath, none with a value.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from gateway.fhir import plans
from gateway.fhir.elements import Element, elements_of, is_resource_type, resource_types
from gateway.fhir.invariants import PROFILE, codes_hold, invariants_of, target_holds
from gateway.fhir.outcome import InvalidResource, Issue
from gateway.fhir.primitives import RULES

#: (path below this object, issue code, message)
Problem = tuple[str, str, str]
Check = Callable[[Any], list[Problem] | None]

_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9]{0,63}", re.ASCII).fullmatch


def check(resource: dict[str, Any], profile: bool = False) -> list[Issue]:
    """Every issue of a resource; an empty list when it is valid. ``profile`` adds what our profiles ask."""
    kind = resource.get("resourceType")
    if not is_resource_type(kind):
        return [Issue("structure", "resourceType must name a resource type of R4", "")]
    problems = (_profile_check if profile else _object_check)(kind)(resource)
    if not problems:
        return []
    return [Issue(code, message, f"{kind}.{path}" if path else kind) for path, code, message in problems]


def require_valid(resource: dict[str, Any], profile: bool = False) -> None:
    """`InvalidResource` (a `GatewayError`, INVALID) with all issues when ``check`` finds any."""
    if issues := check(resource, profile):
        raise InvalidResource(issues)


def judge(resource: dict[str, Any]) -> list[Issue]:
    """The verdict of ``fhir.resources`` (R4B models), for tests and tools: its import is slow, see README.md.

    Where it cannot judge (types that R4B dropped), the answer is one issue of severity ``information``.
    """
    from pydantic import ValidationError

    kind = resource.get("resourceType")
    if not is_resource_type(kind):
        return [Issue("structure", "resourceType must name a resource type of R4")]
    try:
        module = importlib.import_module(f"fhir.resources.R4B.{kind.lower()}")
    except ModuleNotFoundError:
        return [Issue("informational", "fhir.resources has no model of this type", kind, "information")]
    try:
        getattr(module, kind).model_validate(resource)
    except ValidationError as error:
        return [Issue("invalid", "is refused by the model of fhir.resources", _path(kind, found["loc"]))
                for found in error.errors(include_input=False, include_url=False, include_context=False)]
    except (ValueError, TypeError, KeyError, ImportError):  # it looks types up by the names in the data
        return [Issue("invalid", "is refused by the model of fhir.resources", kind)]
    except AttributeError:  # a required list of codes that has extensions only: valid, but the model breaks
        return [Issue("informational", "the model of fhir.resources cannot judge this", kind, "information")]
    return []


def _path(kind: str, location: tuple[int | str, ...]) -> str:
    path = kind
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif _NAME(step):
            path += f".{step}"
    return path


# ---------------------------------------------------------------- objects

class _Shape:
    """A type's rows, ready for the walk."""

    __slots__ = ("kind", "rows", "names", "required", "choices", "invariants", "is_resource")

    def __init__(self, kind: str) -> None:
        table = elements_of(kind)
        self.kind = kind
        self.is_resource = kind in resource_types()
        self.names = table
        self.rows: dict[str, tuple[bool, Check, str]] = {
            name: (element.many, _element_check(element), element.choice) for name, element in table.items()}
        self.required = tuple((e.name, e.primitive) for e in table.values() if e.min and not e.choice)
        self.choices = tuple(sorted({e.choice for e in table.values() if e.min and e.choice}))
        self.invariants = invariants_of(kind)


@cache
def _shape(kind: str) -> _Shape:
    return _Shape(kind)


@cache
def _object_check(kind: str) -> Check:
    shape: _Shape | None = None
    known = plans.plans_of(kind)

    def run(value: Any) -> list[Problem] | None:
        nonlocal shape
        if type(value) is dict and (plan := known.get(tuple(value))) is not None and plan(value):
            return None
        if shape is None:
            shape = _shape(kind)  # not before the first use: types contain themselves
        return _walk(shape, value)
    return run


@cache
def _profile_check(kind: str) -> Check:
    """A resource as R4 has it and, when nothing is wrong with that, as our profile asks."""
    run_object, known, rules = _object_check(kind), plans.plans_of(kind, profile=True), PROFILE.get(kind, ())
    if not rules:
        return run_object

    def run(value: Any) -> list[Problem] | None:
        if type(value) is dict and (plan := known.get(tuple(value))) is not None and plan(value):
            return None
        problems = run_object(value) or [(rule.element, "required", rule.says) for rule in rules
                                         if not rule.holds(value)]
        if not problems:
            plans.saw(kind, value, profile=True)
        return problems
    return run


def _walk(shape: _Shape, value: Any) -> list[Problem] | None:
    """All problems of one object; None when there are none, which is what costs time."""
    if type(value) is not dict:
        return [("", "structure", "must be a JSON object")]
    rows = shape.rows
    problems: list[Problem] = []
    chosen = ""
    for name, item in value.items():
        row = rows.get(name)
        if row is None:
            if name != "resourceType" or not shape.is_resource:
                _other(shape, value, name, item, problems)
            continue
        many, run, choice = row
        if choice:
            if choice in chosen.split():
                problems.append((choice, "structure", "has values of several types: send one"))
            chosen += f"{choice} "
        if many:
            if type(item) is list and item:
                for index, one in enumerate(item):
                    if found := run(one):
                        _nested(shape, value, name, index, one, found, problems)
            else:
                problems.append((name, "structure", "must be a JSON array that is not empty"))
        elif found := run(item):
            problems += [(f"{choice or name}.{path}" if path else choice or name, code, says)
                         for path, code, says in found]
    if not shape.is_resource and (not value or (len(value) == 1 and "id" in value)):  # ele-1
        problems.append(("", "structure", "must have at least one element"))
    for name, primitive in shape.required:
        if name not in value and not (primitive and f"_{name}" in value):
            problems.append((name, "required", "is required"))
    for stem in shape.choices:
        if stem not in chosen.split() and not _hidden(shape, value, stem):
            problems.append((stem, "required", "is required"))
    if not problems:
        for rule in shape.invariants:
            if not rule.holds(value):
                problems.append((rule.element, "invariant", f"{rule.says} ({rule.key})"))
        if not problems:
            plans.saw(shape.kind, value)
            return None
    return problems


def _hidden(shape: _Shape, value: dict[str, Any], stem: str) -> bool:
    """Whether a required choice is there as ``_valueString`` alone, with the reason why it has no value."""
    return any(name[:1] == "_" and (e := shape.names.get(name[1:])) and e.choice == stem for name in value)


def _nested(shape: _Shape, value: dict[str, Any], name: str, index: int, one: Any, found: list[Problem],
            problems: list[Problem]) -> None:
    """Problems of an array's item; null is one unless the ``_`` sibling stands for it (json.html#primitive)."""
    if one is None and shape.names[name].primitive:
        siblings = value.get(f"_{name}")
        if isinstance(siblings, list) and index < len(siblings) and siblings[index] is not None:
            return
    problems += [(f"{name}[{index}].{path}" if path else f"{name}[{index}]", code, says) for path, code, says in found]


def _other(shape: _Shape, value: dict[str, Any], name: str, item: Any, problems: list[Problem]) -> None:
    """A member that is no element: the ``_`` sibling of a primitive (json.html#primitive), or unknown."""
    element = shape.names.get(name[1:]) if name[:1] == "_" else None
    if element is None or not element.primitive or element.name in ("id", "url" if shape.kind == "Extension" else "") \
            or element.type == "xhtml":
        place = name if _NAME(name) else ""
        problems.append((place, "structure", f"is no element of {shape.kind}"))
        return
    place = element.choice or element.name
    if element.choice and any(e.choice == element.choice and e is not element for other in value
                              if (e := shape.names.get(other.removeprefix("_")))):
        problems.append((place, "structure", "has values of several types: send one"))
    if not element.many:
        problems += [(f"{place}.{path}" if path else place, code, says)
                     for path, code, says in _sibling(item, value.get(element.name))]
        return
    if type(item) is not list or not item or not any(item):
        problems.append((place, "structure", "its extensions must be a JSON array that is not empty"))
        return
    values = value.get(element.name)
    if isinstance(values, list) and len(values) != len(item):
        problems.append((place, "structure", "values and extensions must be arrays of equal length"))
    for index, one in enumerate(item):
        beside = values[index] if isinstance(values, list) and index < len(values) else None
        if one is None and beside is not None:
            continue
        problems += [(f"{place}[{index}].{path}" if path else f"{place}[{index}]", code, says)
                     for path, code, says in _sibling(one, beside)]


def _sibling(item: Any, value: Any) -> list[Problem]:
    """Problems of id and extensions beside a primitive; an id alone will do where there is a value (ele-1)."""
    if value is not None and type(item) is dict and item.keys() == {"id"}:
        says = RULES["string"](item["id"])
        return [("id", "value", says)] if says else []
    return _object_check("Element")(item) or []


# ---------------------------------------------------------------- elements

def _element_check(element: Element) -> Check:
    if element.primitive:
        return _coded(element) if element.codes and element.type == "code" else _primitive_check(element.type)
    if element.type == "Resource":
        return _any_resource
    if element.type == "Reference" and element.targets:
        return _reference_check(element.targets)
    if element.codes:
        return _concept_check(element)
    return _object_check(element.type)


@cache
def _primitive_check(kind: str) -> Check:
    rule = RULES[kind]

    def run(value: Any) -> list[Problem] | None:
        says = rule(value)
        return [("", "value", says)] if says else None
    return run


def _coded(element: Element) -> Check:
    """A code with a required binding (terminologies.html#required)."""
    codes = frozenset[str]().union(*(element.codes or {}).values())
    says = f"must be one of {', '.join(sorted(codes))}" if len(codes) <= 12 else "must be of its required value set"

    def run(value: Any) -> list[Problem] | None:
        if type(value) is str and value in codes:
            return None
        return [("", "code-invalid" if type(value) is str else "value", says)]
    return run


def _concept_check(element: Element) -> Check:
    """A Coding or CodeableConcept with a required binding: one coding must be of the set; text alone will do."""
    run_object, systems = _object_check(element.type), element.codes or {}

    def run(value: Any) -> list[Problem] | None:
        if found := run_object(value):
            return found
        if codes_hold(value, element.type, systems):
            return None
        return [("", "code-invalid", "must have a code of its required value set")]
    return run


@cache
def _reference_check(targets: frozenset[str]) -> Check:
    """A Reference whose literal URL names its type must name one of the element's targets."""
    run_object = _object_check("Reference")

    def run(value: Any) -> list[Problem] | None:
        if found := run_object(value):
            return found
        if target_holds(value, targets):
            return None
        return [("reference", "value", f"must refer to {' or '.join(sorted(targets))}")]
    return run


def _any_resource(value: Any) -> list[Problem] | None:
    kind = value.get("resourceType") if type(value) is dict else None
    if not is_resource_type(kind):
        return [("", "structure", "must be a resource of R4 with its resourceType")]
    return _object_check(kind)(value)
