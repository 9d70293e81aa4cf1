"""A second, faster way to the verdict "valid": objects of a shape that was valid before. Pure.

The shape of an object is its type and the names of its members in their order. What only depends on the names (unknown
and required elements, several types of one choice, some invariants) was decided when the walk of `check` found such an
object valid; a *plan* is the straight-line code that tests what is left, the values. A plan never refuses: where it is
not sure it says False, and the walk finds out and tells the issues. So a plan must be right in its True alone.

All stores here are bounded and are emptied when they are full; a shape gets its plan when it has come a few times.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

from gateway.fhir.elements import Element, elements_of, is_resource_type, resource_types
from gateway.fhir.invariants import Invariant, codes_hold, target_holds
from gateway.fhir.primitives import RULES

Plan = Callable[[Any], bool]

_SIGHTINGS = 3  # before a shape is worth its plan, which costs about 0.2 ms
_MOST_PLANS = 1024
_MOST_SEEN = 1024
_MOST_STRINGS = 2048  # of each primitive type
_LONGEST_STRING = 96

_plans: dict[str, dict[tuple[str, ...], Plan]] = {}
_count = 0
_seen: dict[tuple[str, tuple[str, ...]], int] = {}


def plans_of(kind: str) -> dict[tuple[str, ...], Plan]:
    """The plans of a type by the names of the members; the dict stays the same for the life of the process."""
    return _plans.setdefault(kind, {})


def saw(kind: str, value: dict[str, Any], invariants: tuple[Invariant, ...]) -> None:
    """Take note that the walk found this object valid."""
    global _count
    names = tuple(value)
    shape = kind, names
    times = _seen.get(shape, 0) + 1
    if times < _SIGHTINGS:
        if len(_seen) >= _MOST_SEEN:
            _seen.clear()
        _seen[shape] = times
        return
    _seen.pop(shape, None)
    if any(name[:1] == "_" for name in names):  # extensions beside a primitive concern two members: the walk's
        return
    if _count >= _MOST_PLANS:
        for plans in list(_plans.values()):  # another thread may add a type meanwhile
            plans.clear()
        _count = 0
    plans_of(kind)[names] = _compile(kind, names, invariants)
    _count += 1


# ---------------------------------------------------------------- code

def _compile(kind: str, names: tuple[str, ...], invariants: tuple[Invariant, ...]) -> Plan:
    """``names`` are names of elements (and ``resourceType``): the walk has accepted them."""
    table = elements_of(kind)
    scope: dict[str, Any] = {}
    lines = ["def plan(value):", f"    {', '.join(f'x{at}' for at in range(len(names)))}, = value.values()"]
    for at, name in enumerate(names):
        element = table.get(name)
        if element is None:  # resourceType, by which the plan was chosen
            continue
        variable, margin = f"x{at}", "    "
        if element.many:
            lines += [f"    if type({variable}) is not list or not {variable}: return False",
                      f"    for x in {variable}:"]
            variable, margin = "x", "        "
        lines.append(f"{margin}if not ({_test(element, variable, scope)}): return False")
    for at, rule in enumerate(invariants):
        if not rule.names_only and (not rule.needs or rule.needs in names):
            scope[f"holds{at}"] = rule.holds
            lines.append(f"    if not holds{at}(value): return False")
    lines.append("    return True")
    exec("\n".join(lines), scope)  # its only words from outside are names in elements.json
    return scope["plan"]


def _test(element: Element, x: str, scope: dict[str, Any]) -> str:
    """An expression that is true for a valid value of the element; what it names is put into the scope."""
    kind = element.type
    if element.primitive:
        return _primitive_test(element, x, scope)
    if kind == "Resource":
        scope["resource"] = _resource
        return f"resource({x})"
    if kind == "Reference":
        good, ok = _reference(element.targets)
        at = len(scope)
        scope[f"good{at}"], scope[f"ok{at}"] = good, ok
        return (f"type({x}) is dict and (len({x}) == 1 and type(r := {x}.get('reference')) is str and r in good{at} "
                f"or ok{at}({x}))")
    plan = f"plan_{kind.replace('.', '_')}"
    scope[plan] = plans_of(kind).get
    test = f"type({x}) is dict and (p := {plan}(tuple({x}))) is not None and p({x})"
    if element.codes:
        at = len(scope)
        scope["codes_hold"], scope[f"codes{at}"] = codes_hold, element.codes
        test += f" and codes_hold({x}, {kind!r}, codes{at})"
    return test


def _primitive_test(element: Element, x: str, scope: dict[str, Any]) -> str:
    kind = element.type
    if element.codes and kind == "code":
        at = len(scope)
        scope[f"codes{at}"] = frozenset[str]().union(*element.codes.values())
        return f"type({x}) is str and {x} in codes{at}"
    if kind == "boolean":
        return f"type({x}) is bool"
    rule = f"rule_{kind}"
    scope[rule] = RULES[kind]
    if kind == "decimal":
        scope["Decimal"] = Decimal
        return f"type({x}) is Decimal and {x}.is_finite() or {rule}({x}) is None"
    if kind in _REPEATING:
        known, learn = _strings(kind)
        scope[f"known_{kind}"], scope[f"learn_{kind}"] = known, learn
        return f"type({x}) is str and ({x} in known_{kind} or learn_{kind}({x}))"
    return f"{rule}({x}) is None"


#: Primitives whose strings come again and again: systems, codes, displays, units, a report's times.
_REPEATING = frozenset(("canonical", "code", "date", "dateTime", "instant", "string", "uri", "url"))


@cache
def _strings(kind: str) -> tuple[set[str], Plan]:
    """The strings of a primitive type that its rule has accepted, and the test that adds to them."""
    known: set[str] = set()
    rule = RULES[kind]

    def learn(value: str) -> bool:
        if rule(value) is not None:
            return False
        _keep(known, value)
        return True
    return known, learn


def _keep(known: set[str], value: str) -> None:
    if len(value) <= _LONGEST_STRING:
        if len(known) >= _MOST_STRINGS:
            known.clear()
        known.add(value)


@cache
def _reference(targets: frozenset[str] | None) -> tuple[set[str], Plan]:
    """The literal references that were accepted where these types are allowed, and the test of a Reference there."""
    known: set[str] = set()
    allowed = targets or resource_types()
    is_id = RULES["id"]
    plans = plans_of("Reference")

    def ok(value: dict[str, Any]) -> bool:
        if len(value) == 1 and type(literal := value.get("reference")) is str:
            kind, _, rest = literal.partition("/")
            if kind in allowed and is_id(rest) is None:
                _keep(known, literal)
                return True
        plan = plans.get(tuple(value))
        return plan is not None and plan(value) and (targets is None or target_holds(value, targets))
    return known, ok


def _resource(value: Any) -> bool:
    """A contained resource or a Bundle's."""
    kind = value.get("resourceType") if type(value) is dict else None
    if not is_resource_type(kind):
        return False
    plan = plans_of(kind).get(tuple(value))
    return plan is not None and plan(value)
