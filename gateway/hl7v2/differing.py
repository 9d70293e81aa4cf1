"""In which FHIR paths two conversions differ: what a value of the message that one of them lacks has filled.

A path counts resources of a type from 1, as the message counts its segments, and the elements of a list from 0, as
FHIRPath does: ``Observation[3].code.coding[1].code``. Where there is one of them, it has no number:
``Patient.birthDate``. ``Observation[3].id`` says that the value identifies the resource, ``Observation[3]@as-of`` that
it decides which of two versions is the newer.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from copy import deepcopy
from difflib import SequenceMatcher
from typing import Any

from gateway.errors import GatewayError
from gateway.source import Amendment, Change, Conversion, Resource

AS_OF = "@as-of"


def labels(changes: list[Change]) -> list[str]:
    """The name of each resource of a conversion in paths: ``Patient``, ``Observation[2]``."""
    kinds = [change.resource["resourceType"] for change in changes]
    total = Counter(kinds)
    counts: Counter[str] = Counter()
    made = []
    for kind in kinds:
        counts[kind] += 1
        made.append(f"{kind}[{counts[kind]}]" if total[kind] > 1 else kind)
    return made


#: Path → what stands there in the other conversion.
Found = dict[str, Any]
GONE = "(gone)"


def differing(base: Conversion, other: Conversion, added: bool = True) -> list[str]:
    """The paths of ``base`` that ``other`` lacks or has otherwise; where there are none, what ``other`` has more
    (``added``)."""
    found, more = differences(base, other)
    return list(found or (more if added else ()))


def differences(base: Conversion, other: Conversion) -> tuple[Found, Found]:
    """The paths of ``base`` that ``other`` lacks or has otherwise, and those that ``other`` has more."""
    found: Found = {}
    more: Found = {}
    names = labels(base.changes)
    pairs = _aligned(base.changes, other.changes)
    moved = {_reference(theirs.resource): _reference(base.changes[at].resource)
             for at, theirs in enumerate(pairs) if theirs is not None
             and _reference(theirs.resource) != _reference(base.changes[at].resource)}
    for at, theirs in enumerate(pairs):
        ours, name = base.changes[at], names[at]
        if theirs is None:
            found[name] = GONE
            continue
        if ours.resource != theirs.resource:
            renamed = _renamed(theirs.resource, moved) if moved else theirs.resource
            if ours.resource["id"] != theirs.resource["id"]:
                found[f"{name}.id"] = theirs.resource["id"]
                renamed = {**renamed, "id": ours.resource["id"]}
            _compare(ours.resource, renamed, name, found, more)
        if ours.as_of != theirs.as_of:
            found[name + AS_OF] = theirs.as_of
    matched = {id(theirs) for theirs in pairs if theirs is not None}
    for change in other.changes:
        if id(change) not in matched:
            more[change.resource["resourceType"]] = change.resource
    for kind in ("orders", "charges", "documents"):
        _beside(getattr(base, kind), getattr(other, kind), found)
    _beside([*map(_amended, base.amendments)], [*map(_amended, other.amendments)], found)
    return found, more


def leaves_at(base: Conversion, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The elements of ``base`` that stand at these paths or within them, and their texts."""
    resources = dict(zip(labels(base.changes), (change.resource for change in base.changes), strict=True))
    for path in paths:
        name, _, rest = path.partition(".")
        if rest and name in resources:
            yield from _leaves(_at(resources[name], rest), path)


def _at(resource: Any, path: str) -> Any:
    """What stands at a path; None where it names nothing."""
    for step in path.split("."):
        key, _, number = step.removesuffix("]").partition("[")
        resource = resource.get(key) if isinstance(resource, dict) else None
        if isinstance(resource, list):
            at = int(number or 0)
            if number or len(resource) == 1:
                resource = resource[at] if at < len(resource) else None
    return resource


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{at}]" if len(value) > 1 else path)
    elif value is not None:
        yield path, str(value)


def deleted(base: Conversion, without: Conversion, filled: Conversion) -> list[str]:
    """The paths that ``base`` takes from resources as ``filled`` has them, and ``without`` leaves there."""
    stored = {_reference(change.resource): change.resource for change in filled.changes}
    others = {_reference(change.resource): change for change in without.changes}
    found: Found = {}
    for name, ours in zip(labels(base.changes), base.changes, strict=True):
        reference = _reference(ours.resource)
        theirs = others.get(reference)
        if ours.onto is None or theirs is None or theirs.onto is None or reference not in stored:
            continue
        left = theirs.onto(deepcopy(stored[reference]), deepcopy(theirs.resource), False)
        _compare(left, ours.onto(deepcopy(stored[reference]), deepcopy(ours.resource), False), name, found, {})
    return list(found)


def _reference(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def _aligned(base: list[Change], other: list[Change]) -> list[Change | None]:
    """For each resource of ``base`` the one of ``other`` that is the same: by its id, else the next of its type."""
    theirs = {_reference(change.resource): change for change in other}
    found: list[Change | None] = [theirs.pop(_reference(change.resource), None) for change in base]
    left: dict[str, list[Change]] = {}
    for change in theirs.values():
        left.setdefault(change.resource["resourceType"], []).append(change)
    for at, change in enumerate(base):
        if found[at] is None and (same := left.get(change.resource["resourceType"])):
            found[at] = same.pop(0)
    return found


def _renamed(value: Any, moved: dict[str, str]) -> Any:
    """A copy in which the references to resources with another id are those of ``base``."""
    if isinstance(value, dict):
        return {key: _renamed(inner, moved) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, moved) for inner in value]
    return moved.get(value, value) if isinstance(value, str) else value


def _compare(ours: Any, theirs: Any, path: str, found: Found, more: Found) -> None:
    if ours == theirs:
        return
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                _compare(value, theirs[key], f"{path}.{key}", found, more)
            else:
                found[f"{path}.{key}"] = GONE
        more.update((f"{path}.{key}", theirs[key]) for key in theirs if key not in ours)
    elif isinstance(ours, list) and isinstance(theirs, list):
        _compare_lists(ours, theirs, path, found, more)
    else:
        found[path] = theirs


def _compare_lists(ours: list[Any], theirs: list[Any], path: str, found: Found, more: Found) -> None:
    """Element by element, after the equal ones are taken away: an element that is gone moves those behind it.

    In which order resources are referred to says only in which order the message names them.
    """
    def name(at: int) -> str:
        return f"{path}[{at}]" if len(ours) > 1 else path

    if len(ours) == len(theirs) == 1:
        _compare(ours[0], theirs[0], path, found, more)
        return
    if all(isinstance(one, dict) and one.keys() == {"reference"} for one in (*ours, *theirs)):
        here, there = ({one["reference"] for one in some} for some in (ours, theirs))
        new = [one["reference"] for one in theirs if one["reference"] not in here]
        for at, one in enumerate(ours):
            if one["reference"] not in there:
                found.update({f"{name(at)}.reference": new.pop(0)} if new else {name(at): GONE})
        if new:
            more[path] = new
        return
    matcher = SequenceMatcher(None, [repr(one) for one in ours], [repr(one) for one in theirs], autojunk=False)
    for operation, begin, end, start, stop in matcher.get_opcodes():
        if operation == "equal":
            continue
        if operation == "insert":
            more[path] = theirs[start:stop]
        for at in range(begin, end):
            if at - begin < stop - start:
                _compare(ours[at], theirs[start + at - begin], name(at), found, more)
            else:
                found[name(at)] = GONE


def _beside(base: list[Any], other: list[Any], found: Found) -> None:
    """What a conversion says beside its resources: order lines, charges, documents, amendments."""
    for at, ours in enumerate(base, 1):
        name = type(ours).__name__ if not isinstance(ours, dict) else f"amended {ours['resourceType']}"
        if len(base) > 1:
            name = f"{name}[{at}]"
        if at > len(other):
            found[name] = GONE
        elif isinstance(ours, dict):
            _compare(ours, other[at - 1], name, found, found)
        elif ours != other[at - 1]:
            found.update((f"{name}.{field.name}", getattr(other[at - 1], field.name))
                         for field in dataclasses.fields(ours)
                         if getattr(ours, field.name) != getattr(other[at - 1], field.name))


def _amended(amendment: Amendment) -> Resource:
    """What an amendment makes of a resource of which nothing is stored but its id."""
    bare: Resource = {"resourceType": amendment.resource_type, "id": amendment.id}
    try:
        changed = amendment.change(dict(bare))
    except GatewayError as error:
        changed = {"refused": error.message}
    return {**bare, **(changed or {}), AS_OF: amendment.as_of}


def grouped(paths: Iterable[str]) -> list[str]:
    """Paths for people: ``Observation[1].status`` to ``Observation[4].status`` become ``Observation[1-4].status``."""
    numbers: dict[tuple[str, str], list[int]] = {}
    order: list[tuple[str, str] | str] = []
    for path in paths:
        kind, bracket, rest = path.partition("[")
        number, _, tail = rest.partition("]")
        if not bracket or "." in kind or not number.isdigit():
            order.append(path)
            continue
        if (kind, tail) not in numbers:
            order.append((kind, tail))
        numbers.setdefault((kind, tail), []).append(int(number))
    return [key if isinstance(key, str) else f"{key[0]}[{_ranges(numbers[key])}]{key[1]}" for key in order]


def folded(paths: list[str]) -> list[str]:
    """Paths of one element in one: ``Specimen.type.text`` and ``Specimen.type.coding`` as ``Specimen.type.{text,
    coding}``."""
    found: dict[str, list[str]] = {}
    for path in paths:
        parent, dot, last = path.rpartition(".")
        found.setdefault(parent + dot, []).append(last)
    return [parent + (names[0] if len(names) == 1 else f"{{{','.join(names)}}}") for parent, names in found.items()]


def _ranges(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
