"""Where a patient was, is and will be: ``Encounter.location`` as the events of a visit change it.

A place is known by its name, for results tell of places by text alone. Pure.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.hl7v2 import timestamps
from gateway.hl7v2.builder import Builder
from gateway.hl7v2.location import location_from
from gateway.hl7v2.message import Segment

Place = dict[str, Any]

_CLASSIFICATION = "http://hl7.org/fhir/StructureDefinition/subject-locationClassification"
#: Events that put the patient into a place anew, though it be the one left last.
_MOVES = frozenset(("A01", "A02", "A04", "A06", "A07", "A12", "A13", "A17", "A22", "A52"))


class Event(NamedTuple):
    """What happened and when."""

    code: str  # A01
    as_of: int | None  # when the sender recorded it, µs
    at: str  # when it happened: dateTime, "" when nobody says


class Told(NamedTuple):
    """What a message says of the places of a visit: PV1-3, 6, 11 and 42."""

    current: Place | None
    prior: Place | None
    temporary: Place | None
    pending: Place | None


def told_by(pv1: Segment, builder: Builder) -> Told:
    """The places of a PV1, with the status that the guide gives each."""
    places = {at: location_from(pv1.first(at), builder, builder.source.table("PV1-40", pv1.get(40)) if at == 3 else "")
              for at in (3, 6, 11, 42)}
    planned = builder.source.table("PV1-2", pv1.get(2)).upper() == "P"
    status = {3: "planned" if planned else "active", 6: "completed", 11: "active", 42: "reserved"}
    found: list[Place | None] = [{"location": place, "status": status[at]} if (place := places[at]) else None
                                 for at in (3, 6, 11, 42)]
    current, prior, temporary, pending = found
    if prior and current and _key(prior) == _key(current):
        prior = None  # nobody was moved
    if temporary:
        classification = {"system": "http://hl7.org/fhir/ValueSet/subject-location", "code": "temporary"}
        temporary["extension"] = [{"url": _CLASSIFICATION, "valueCodeableConcept": {"coding": [classification]}}]
    return Told(current, prior, temporary, pending)


def without(held: list[Place], nulls: list[int]) -> list[Place]:
    """The places without those that ``""`` in these fields of PV1 deletes."""
    return [one for one in held if not (3 in nulls and _stays(one) or 42 in nulls and one.get("status") == "reserved"
                                        or 11 in nulls and _is_temporary(one) and one.get("status") == "active")]


def after(held: list[Place], told: Told, event: Event, start: str, end: str) -> list[Place]:
    """The places after the event; ``start``, ``end``: of the visit, as it then is."""
    held = _taken_back(held, told, event)
    again = _is_told_again(held, told, event)
    found = _left(held, told, event, again)
    if told.prior and all(_key(one) != _key(told.prior) for one in found):
        _insert(found, told, event)
    if told.current and not again and not any(_stays(one) and _key(one) == _key(told.current) for one in held):
        since = start if not held and event.code != "A02" else event.at
        found.append(_timed(told.current, start=since) if told.current["status"] == "active" else told.current)
    for more in (told.temporary, told.pending):
        if more and all(_key(one) != _key(more) or one.get("extension") != more.get("extension") for one in found):
            found.append(more)
    if event.code in ("A03", "A11"):  # a bed of a cancelled admission is free as well
        found = [_timed({**one, "status": "completed"}, end=end or event.at) if one.get("status") == "active" else one
                 for one in found]
    return found


def late(held: list[Place], told: Told, event: Event) -> list[Place]:
    """A late event tells since when the patient was in a place that is known, or a place from before all others."""
    current = told.current
    if current is None or not event.at:
        return held or ([current] if current else [])
    for n, one in enumerate(held):
        if _key(one) == _key(current):
            if "start" not in one.get("period", {}):
                return [*held[:n], {**_timed(one, start=event.at), "location": current["location"]}, *held[n + 1:]]
            return held
    first = next((one["period"]["start"] for one in held if "start" in one.get("period", {})), "")
    if first and not before(event.at, first):
        return held
    return [_timed({**current, "status": "completed"}, start=event.at, end=first), *held]


def before(one: str, other: str) -> bool:
    """Whether a dateTime is not after another, as far as both are told."""
    if "T" not in one or "T" not in other:
        size = min(len(one), len(other), 10)
        return one[:size] <= other[:size]
    first, last = timestamps.as_of_us(one, "UTC"), timestamps.as_of_us(other, "UTC")
    return first is not None and last is not None and first <= last


# ---------------------------------------------------------------- steps

def _taken_back(held: list[Place], told: Told, event: Event) -> list[Place]:
    """A12: the transfer did not happen, and only the place before it was the patient's. A13: the patient is still where
    the discharge found them."""
    if event.code == "A12" and told.current:
        key = _key(told.current)
        return [_reopened(one) if _key(one) == key else one for one in held
                if _key(one) == key or one.get("status") != "active"]
    if event.code == "A13" and not any(_stays(one) for one in held):
        prior = _key(told.prior) if told.prior else ""
        for n in reversed(range(len(held))):
            if held[n].get("status") == "completed" and not _is_temporary(held[n]) and _key(held[n]) != prior:
                return [*held[:n], _reopened(held[n]), *held[n + 1:]]
    return held


def _is_told_again(held: list[Place], told: Told, event: Event) -> bool:
    """Whether PV1-3 tells only where the patient was at the end."""
    last = next((one for one in reversed(held) if one.get("status") != "reserved" and not _is_temporary(one)), None)
    return bool(told.current and last and event.code not in _MOVES and _key(last) == _key(told.current)
                and last.get("status") == "completed")


def _left(held: list[Place], told: Told, event: Event, again: bool) -> list[Place]:
    """The places that were known, as the event leaves them: where PV1-3 is another, the patient is there no more."""
    current = None if again else told.current
    found = []
    for one in held:
        same = current is not None and _key(one) == _key(current)
        if _stays(one):
            if current is None:
                found.append(one)
            else:
                found.append({**one, **current} if same else _timed({**one, "status": "completed"}, end=event.at))
        elif one.get("status") == "reserved":
            if event.code not in ("A02", "A26") and not told.pending and not same:
                found.append(one)
        elif not (_is_temporary(one) and one.get("status") == "active" and told.current and not told.temporary):
            found.append(one)
    return found


def _insert(found: list[Place], told: Told, event: Event) -> None:
    """PV1-6, a place that nobody told before: before the current one."""
    assert told.prior is not None
    at = next((n for n in reversed(range(len(found))) if told.current and not _is_temporary(found[n])
               and _key(found[n]) == _key(told.current)), len(found))
    found.insert(at, _timed(told.prior, end=event.at) if event.code == "A02" else told.prior)


def _key(place: Place) -> str:
    return str(place["location"].get("display", ""))


def _is_temporary(place: Place) -> bool:
    return bool(place.get("extension"))


def _stays(place: Place) -> bool:
    return place.get("status") in ("active", "planned") and not _is_temporary(place)


def _timed(place: Place, **period: str) -> Place:
    """The place with a period changed; an end that lies before its start is left out."""
    merged = {**place.get("period", {}), **{name: value for name, value in period.items() if value}}
    if "start" in merged and "end" in merged and not before(merged["start"], merged["end"]):
        del merged["end"]
    made = {name: value for name, value in place.items() if name != "period"}
    return {**made, "period": merged} if merged else made


def _reopened(place: Place) -> Place:
    period = {name: value for name, value in place.get("period", {}).items() if name != "end"}
    made = {name: value for name, value in place.items() if name != "period"}
    return {**made, "status": "active", **({"period": period} if period else {})}
