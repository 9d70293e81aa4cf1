"""A second, faster way to the verdict "valid": objects of a shape that was valid before. Pure.

The shape of an object is its type and the names of its members in their order. What only depends on the names (unknown
and required elements, several types of one choice, some invariants) was decided when the walk of `check` found such an
object valid; a *plan* is the straight-line code that tests what is left, the values. Objects within have their tests
written in place, for the shape that they had when the plan was made; those of another shape have their own plan. A plan
never refuses: where it is not sure it says False, and the walk finds out and tells the issues. So a plan must be right
in its True alone.

All stores here are bounded and are emptied when they are full; a shape gets its plan when it has come a few times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from operator import itemgetter
from typing import Any

from gateway.fhir.elements import Element, elements_of, is_resource_type, resource_types
from gateway.fhir.invariants import PROFILE, Invariant, codes_hold, invariants_of, target_holds
from gateway.fhir.primitives import RULES

Plan = Callable[[Any], bool]

_SIGHTINGS = 3  # before a shape is worth its plan, which costs about a millisecond
_MOST_PLANS = 1024
_MOST_SEEN = 1024
_MOST_STRINGS = 2048  # of each primitive type
_MOST_PASSING = 256  # times and references, which come again within a message: a small table stays in the caches
_LONGEST_STRING = 96

_plans: dict[tuple[str, bool], dict[tuple[str, ...], Plan]] = {}
_count = 0
_seen: dict[tuple[str, bool, tuple[str, ...]], int] = {}


def plans_of(kind: str, profile: bool = False) -> dict[tuple[str, ...], Plan]:
    """The plans of a type by the names of the members; the dict stays the same for the life of the process.

    ``profile``: those that test what our profile asks as well.
    """
    return _plans.setdefault((kind, profile), {})


def saw(kind: str, value: dict[str, Any], profile: bool = False) -> None:
    """Take note that the walk found this object valid; with ``profile``, that our profile's rules hold too."""
    global _count
    names = tuple(value)
    shape = kind, profile, names
    times = _seen.get(shape, 0) + 1
    if times < _SIGHTINGS:
        if len(_seen) >= _MOST_SEEN:
            _seen.clear()
        _seen[shape] = times
        return
    _seen.pop(shape, None)
    if _has_siblings(value):
        return
    if _count >= _MOST_PLANS:
        for plans in list(_plans.values()):  # another thread may add a type meanwhile
            plans.clear()
        _count = 0
    rules = invariants_of(kind) + (PROFILE.get(kind, ()) if profile else ())
    plans_of(kind, profile)[names] = _compile(kind, value, rules)
    _count += 1


# ---------------------------------------------------------------- code

_DEEPEST = 8  # levels of code; Python allows 20 loops within each other
_MOST_OBJECTS = 32  # that are written into one plan


class _Code:
    """The text of a plan, as it grows, and what it names.

    An object is taken for one of the expected shape when it has as many members; where another is among them,
    `itemgetter` raises KeyError. It reads the values in half the time that comparing the names and ``values()`` take.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {}
        self.objects = self._variables = 0

    def members(self, kind: str, value: dict[str, Any], x: str, margin: str, rules: tuple[Invariant, ...]) -> None:
        """Tests of an object ``x`` that has the names of ``value``, which are elements (and ``resourceType``)."""
        self.objects += 1
        table = elements_of(kind)
        variables = [self._variable() for _ in value]
        if len(value) == 1:
            self.lines.append(f"{margin}{variables[0]} = {x}[{next(iter(value))!r}]")
        else:
            self.lines.append(f"{margin}{', '.join(variables)} = {self._named('get', itemgetter(*value))}({x})")
        for variable, (name, item) in zip(variables, value.items(), strict=True):
            element = table.get(name)
            if element is None:  # resourceType, by which the plan was chosen
                continue
            if element.many:
                one = self._variable()
                self.lines += [f"{margin}if type({variable}) is not list or not {variable}: return False",
                               f"{margin}for {one} in {variable}:"]
                self._element(kind, element, item[0] if item else None, one, f"{margin}    ")
            else:
                self._element(kind, element, item, variable, margin)
        for rule in rules:
            if not rule.names_only and (not rule.needs or rule.needs in value):
                self.lines.append(f"{margin}if not {self._named('holds', rule.holds)}({x}): return False")

    def _element(self, kind: str, element: Element, item: Any, x: str, margin: str) -> None:
        """The test of one value; an object most likely has the shape of ``item``, then its plan need not be called."""
        test = _test(kind, element, x, self.scope)
        if not self._writes(element, item, margin):
            self.lines.append(f"{margin}if not ({test}): return False")
            return
        self.lines.append(f"{margin}if type({x}) is dict and len({x}) == {len(item)}:")
        self.members(element.type, item, x, f"{margin}    ", invariants_of(element.type))
        if element.codes:
            self.lines.append(f"{margin}    if not {_codes_test(element, x, self.scope)}: return False")
        self.lines.append(f"{margin}elif not ({test}): return False")

    def _writes(self, element: Element, item: Any, margin: str) -> bool:
        return not element.primitive and element.type not in ("Reference", "Resource") and \
            len(margin) // 4 <= _DEEPEST and self.objects < _MOST_OBJECTS and bool(item) and not _has_siblings(item)

    def _named(self, stem: str, thing: Any) -> str:
        name = f"{stem}{len(self.scope)}"
        self.scope[name] = thing
        return name

    def _variable(self) -> str:
        self._variables += 1
        return f"x{self._variables}"


def _has_siblings(value: dict[str, Any]) -> bool:
    """Whether extensions stand beside a primitive: these concern two members and are the walk's."""
    return any(name[:1] == "_" for name in value)


def _compile(kind: str, value: dict[str, Any], rules: tuple[Invariant, ...]) -> Plan:
    """The plan for objects with the names of ``value``, which the walk has found valid; no value stays in it."""
    code, names = _Code(), tuple(value)
    code.members(kind, value, "value", "        ", rules)
    text = ["def plan(value):", "    try:", *code.lines, "    except KeyError:"]
    if code.objects > 1:  # some object within has as many members as expected, but others: ask without expectations
        code.scope["other"] = cache(lambda: _compile(kind, dict.fromkeys(names), rules))
        text.append("        return other()(value)")
    else:
        text.append("        return False")
    exec("\n".join([*text, "    return True"]), code.scope)  # its only words from outside are names in elements.json
    return code.scope["plan"]


def _test(parent: str, element: Element, x: str, scope: dict[str, Any]) -> str:
    """An expression that is true for a valid value of the element; what it names is put into the scope."""
    kind = element.type
    if element.primitive:
        return _primitive_test(parent, element, x, scope)
    if kind == "Resource":
        scope["resource"] = _resource
        return f"resource({x})"
    if kind == "Reference":
        at = len(scope)
        scope["types"], scope[f"ok{at}"] = _types, _reference(element.targets)
        scope[f"targets{at}"] = element.targets or resource_types()
        return (f"type({x}) is dict and (len({x}) == 1 and type(r := {x}.get('reference')) is str "
                f"and types[r] in targets{at} or ok{at}({x}))")
    plan = f"plan_{kind.replace('.', '_')}"
    scope[plan] = plans_of(kind).get
    test = f"type({x}) is dict and (p := {plan}(tuple({x}))) is not None and p({x})"
    return f"{test} and {_codes_test(element, x, scope)}" if element.codes else test


def _codes_test(element: Element, x: str, scope: dict[str, Any]) -> str:
    """Whether a Coding or CodeableConcept has a code of its required binding."""
    at = len(scope)
    scope["codes_hold"], scope[f"codes{at}"] = codes_hold, element.codes
    return f"codes_hold({x}, {element.type!r}, codes{at})"


def _primitive_test(parent: str, element: Element, x: str, scope: dict[str, Any]) -> str:
    kind = element.type
    if element.codes and kind == "code":
        at = len(scope)
        scope[f"codes{at}"] = frozenset[str]().union(*element.codes.values())
        return f"type({x}) is str and {x} in codes{at}"
    if kind == "boolean":
        return f"type({x}) is bool"
    if kind == "id" and is_resource_type(parent):  # as the reference to it, which the message's others will have
        scope["types"] = _types
        return f"type({x}) is str and types['{parent}/' + {x}] == '{parent}'"
    rule = f"rule_{kind}"
    scope[rule] = RULES[kind]
    if kind == "decimal":
        scope["Decimal"] = Decimal
        return f"type({x}) is Decimal and {x}.is_finite() or {rule}({x}) is None"
    if kind in _REPEATING and not (kind == "string" and parent in _PERSONAL):
        known, learn = _strings(kind)
        scope[f"known_{kind}"], scope[f"learn_{kind}"] = known, learn
        return f"type({x}) is str and ({x} in known_{kind} or learn_{kind}({x}))"
    return f"{rule}({x}) is None"


#: Primitives whose strings come again and again: systems, codes, displays, units, a report's times.
_REPEATING = frozenset(("canonical", "code", "dateTime", "instant", "string", "uri", "url"))
#: Types whose strings are a person's and not a vocabulary's: they seldom come again, and are not remembered.
_PERSONAL = frozenset(("Address", "ContactPoint", "HumanName", "Identifier"))


@cache
def _strings(kind: str) -> tuple[set[str], Plan]:
    """The strings of a primitive type that its rule has accepted, and the test that adds to them."""
    known: set[str] = set()
    rule = RULES[kind]

    def learn(value: str) -> bool:
        if rule(value) is not None:
            return False
        if len(value) <= _LONGEST_STRING:
            if len(known) >= (_MOST_PASSING if kind in ("dateTime", "instant") else _MOST_STRINGS):
                known.clear()
            known.add(value)
        return True
    return known, learn


_LITERAL = re.compile(r"([A-Za-z]+)/[A-Za-z0-9\-.]{1,64}", re.ASCII).fullmatch


class _Types(dict[str, str]):
    """Well-formed literal references and the types that they name: the same come in each resource of a message."""

    def __missing__(self, literal: str) -> str | None:
        if (match := _LITERAL(literal)) is None:
            return None
        if len(self) >= _MOST_PASSING:
            self.clear()
        self[literal] = kind = match[1]
        return kind


_types = _Types()


@cache
def _reference(targets: frozenset[str] | None) -> Plan:
    """The test of a Reference that is more than a literal ``Type/id``, where these types are allowed."""
    plans = plans_of("Reference")

    def ok(value: dict[str, Any]) -> bool:
        plan = plans.get(tuple(value))
        return plan is not None and plan(value) and (targets is None or target_holds(value, targets))
    return ok


def _resource(value: Any) -> bool:
    """A contained resource or a Bundle's."""
    kind = value.get("resourceType") if type(value) is dict else None
    if not is_resource_type(kind):
        return False
    plan = plans_of(kind).get(tuple(value))
    return plan is not None and plan(value)
