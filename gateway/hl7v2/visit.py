"""The Encounter as patient administration tells it: what an event makes of the visit that is stored.

A message tells an event, not the whole visit: what it does not send stays, ``""`` deletes (v2.5.1 2.5.3), and what has
been (a former status, a former bed) is kept in ``statusHistory`` and ``location``. An event that arrives late changes
nothing that a later one told; it fills in what nobody has told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.hl7v2 import adt_tables, tables, timestamps
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import codeable
from gateway.hl7v2.location import discharged_to, location_from
from gateway.hl7v2.message import Segment
from gateway.hl7v2.people import encounter_resource, practitioner, told_time
from gateway.source import Resource

_CLASSIFICATION = "http://hl7.org/fhir/StructureDefinition/subject-locationClassification"
_ARRIVAL = "http://hl7.org/fhir/StructureDefinition/encounter-modeOfArrival"
_PLANNED = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Encounter.planned"
_UNKNOWN_CLASS = "UNK"
#: PV1 fields and the elements that they are, for ``""``.
_ELEMENTS = {2: "class", 4: "type", 10: "serviceType", 54: "episodeOfCare"}
_STAY = {5: "preAdmissionIdentifier", 13: "reAdmission", 14: "admitSource", 15: "specialArrangement",
         16: "specialCourtesy", 36: "dischargeDisposition", 37: "destination", 38: "dietPreference"}
_PERIOD = {44: "start", 45: "end"}
#: Events that put the patient into a place anew, though it be the one left last.
_MOVES = frozenset(("A01", "A02", "A04", "A06", "A07", "A12", "A13", "A17", "A22", "A52"))
_ROLE = {7: "ATND", 8: "REF", 9: "CON", 17: "ADM", 52: "PART"}

Place = dict[str, Any]


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


class Extra(NamedTuple):
    """What other segments say of the visit."""

    pv2: Segment | None
    roles: list[dict[str, Any]]
    diagnoses: list[dict[str, Any]]
    account: dict[str, Any] | None


def add_visit(pv1: Segment, patient: Reference, event: Event, extra: Extra, builder: Builder) -> Reference | None:
    """The Encounter of a PV1 that has a visit number."""
    made = encounter_resource(pv1, patient, builder)
    if made is None:
        return None
    if destination := codeable(pv1.first(37).part(1), builder.source, "PV1-37", "0113"):
        made["hospitalization"]["destination"] = discharged_to(destination, builder)
    if status := _status(event.code, made):
        made["status"] = status
    _detail(made, extra, builder)
    _undo_discharge(made, event.code)
    told = _told(pv1, builder)
    made.pop("location", None)
    if places := _places([], told, event, made):
        made["location"] = places
    return builder.add_onto(made, event.as_of, _onto(pv1, event, told))


def _status(event: str, made: Resource) -> str:
    """The status that the event gives the visit, or the discharge time that it tells; "" where it says nothing."""
    if made["status"] == "finished" and event not in adt_tables.OVER_DISCHARGE:
        return "finished"
    return adt_tables.STATUS.get(event, "")


def _detail(made: Resource, extra: Extra, builder: Builder) -> None:
    pv2 = extra.pv2
    participants = [*made.pop("participant", ()), *extra.roles]
    if pv2 is not None:
        _second(made, pv2, builder)
        participants += [_participant("REF", "referrer", person) for part in pv2.repetitions(13)
                         if (person := practitioner(part, builder))]
    if participants:
        made["participant"] = [one for n, one in enumerate(participants) if one not in participants[:n]]
    if extra.diagnoses:
        made["diagnosis"] = extra.diagnoses
    if extra.account:
        made["account"] = [extra.account]


def _second(made: Resource, pv2: Segment, builder: Builder) -> None:
    """PV2: reason, priority, length of stay, way of arrival, expected times (guide: PV2[Encounter])."""
    if reason := builder.coded(pv2, 3):
        made["reasonCode"] = [reason]
    if priority := builder.coded(pv2, 25, "0217"):
        if known := adt_tables.PRIORITY.get(builder.source.table("PV2-25", pv2.get(25))):
            priority.setdefault("coding", []).insert(0, {"system": adt_tables.PRIORITY_SYSTEM, "code": known[0],
                                                         "display": known[1]})
        made["priority"] = priority
    days = pv2.get(11)
    if days.isascii() and days.isdigit() and len(days) < 6:
        made["length"] = {"value": int(days), "unit": "d", "system": "http://unitsofmeasure.org", "code": "d"}
    extension: list[dict[str, Any]] = [
        {"url": f"{_PLANNED}{name}", "valueDateTime": time} for field, name in ((8, "StartDate"), (9, "EndDate"))
        if (time := told_time(pv2, field, builder))]
    arrival: list[dict[str, Any]] = builder.coded(pv2, 38, "0430").get("coding", [])
    if arrival:
        extension.append({"url": _ARRIVAL, "valueCoding": arrival[0]})
    if extension:
        made["extension"] = extension


def _participant(code: str, display: str, person: Reference) -> dict[str, Any]:
    return {"type": [{"coding": [{"system": f"{tables.V3}ParticipationType", "code": code, "display": display}]}],
            "individual": person}


def _told(pv1: Segment, builder: Builder) -> Told:
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


# ---------------------------------------------------------------- on top of what is stored

def _onto(pv1: Segment, event: Event, told: Told) -> Callable[[Resource, Resource, bool], Resource]:
    nulls = [field for field in range(2, pv1.size) if pv1.is_null(field)]

    def change(stored: Resource, sent: Resource, late: bool) -> Resource:
        base, top = (sent, stored) if late else (stored, sent)
        made = {**base, **top}
        made["identifier"] = _union(base.get("identifier", []), top["identifier"])
        if _coded(top["class"]) == _UNKNOWN_CLASS:
            made["class"] = base["class"]
        for name in ("period", "hospitalization"):
            if merged := {**base.get(name, {}), **top.get(name, {})}:
                made[name] = merged
        if participants := _participants(base.get("participant", []), top.get("participant", [])):
            made["participant"] = participants
        if extension := _extensions(base, top):
            made["extension"] = extension
        if late or event.code in adt_tables.DISCHARGE:
            named = [one["condition"] for one in top.get("diagnosis", ())]
            made["diagnosis"] = [*top.get("diagnosis", ()), *(one for one in base.get("diagnosis", ())
                                                              if one["condition"] not in named)]
            if not made["diagnosis"]:
                del made["diagnosis"]
        held = stored.get("location", [])
        if not late:
            held = [one for one in held if not any(gone(one) for field, gone in _GONE.items() if field in nulls)]
        nowhere = event.code == "A13" and 3 in nulls  # back, but in no place
        places = _places_late(held, told, event) if late else \
            _places(held, told, event._replace(code="A08") if nowhere else event, made)
        made["status"] = stored["status"] if late else _next_status(stored, sent, event.code)
        history = _history(stored, sent, made, event, late)
        for name, value in (("location", places), ("statusHistory", history)):
            if value:
                made[name] = value
            else:
                made.pop(name, None)
        if not late:
            _clear(made, sent, nulls, event.code)
        _ordered(made, stored.get("period", {}) if late else {})
        return made

    return change


def _next_status(stored: Resource, sent: Resource, event: str) -> str:
    said = _status(event, sent)
    if said or stored["status"] == "unknown":
        return said or str(sent["status"])
    return str(stored["status"])


def _clear(made: Resource, sent: Resource, nulls: list[int], event: str) -> None:
    """Take out what ``""`` deletes, and what a cancelled discharge (A13) takes back."""
    _undo_discharge(made, event)
    period, stay = dict(made.get("period", {})), dict(made.get("hospitalization", {}))
    for field in nulls:
        if field in _PERIOD:
            period.pop(_PERIOD[field], None)
        elif field in _STAY:
            stay.pop(_STAY[field], None)
        elif field in _ROLE:
            made["participant"] = [one for one in made.get("participant", ()) if _role(one) != _ROLE[field]]
        elif field in _ELEMENTS and _ELEMENTS[field] not in sent:
            made.pop(_ELEMENTS[field], None)
    for name, value in (("period", period), ("hospitalization", stay), ("participant", made.get("participant"))):
        if value:
            made[name] = value
        else:
            made.pop(name, None)


def _undo_discharge(made: Resource, event: str) -> None:
    """A13: the discharge did not happen."""
    if event != "A13":
        return
    for name, gone in (("period", ("end",)), ("hospitalization", ("dischargeDisposition", "destination"))):
        left = {key: value for key, value in made.get(name, {}).items() if key not in gone}
        if left:
            made[name] = left
        else:
            made.pop(name, None)


def _ordered(made: Resource, known: dict[str, str]) -> None:
    """FHIR's Period ends no sooner than it starts (per-1): an end that does is left out, or a late event's ends where
    those that are ``known`` were told later."""
    period = made.get("period", {})
    if "start" in period and "end" in period and not _before(period["start"], period["end"]):
        made["period"] = {**known} or {"start": period["start"]}


def _union(base: list[dict[str, Any]], top: list[dict[str, Any]]) -> list[dict[str, Any]]:
    told = {(one["system"], one["value"]) for one in top}
    return [*top, *(one for one in base if (one.get("system"), one.get("value")) not in told)]


def _role(participant: Mapping[str, Any]) -> str:
    return next((coding.get("code", "") for concept in participant.get("type", ()) for coding in
                 concept.get("coding", ())), "")


def _participants(base: list[dict[str, Any]], top: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A role that the newer tells is replaced as a whole (PV1-7 repeats), others stay."""
    told = {_role(one) for one in top}
    return [*top, *(one for one in base if _role(one) not in told)]


def _extensions(base: Resource, top: Resource) -> list[dict[str, Any]]:
    told = {one["url"] for one in top.get("extension", ())}
    return [*top.get("extension", ()), *(one for one in base.get("extension", ()) if one["url"] not in told)]


def _coded(coding: Mapping[str, Any]) -> str:
    return str(coding.get("code", ""))


# ---------------------------------------------------------------- what was

def _history(stored: Resource, sent: Resource, made: Resource, event: Event, late: bool) -> list[dict[str, Any]]:
    """Former statuses, each as long as it lasted."""
    history: list[dict[str, Any]] = list(stored.get("statusHistory", ()))
    if late:
        status, first = _status(event.code, sent), (history[0]["period"].get("start") if history else None)
        if not status or not event.at or (history[0]["status"] if history else stored["status"]) == status:
            return history
        end = first or (made.get("period", {}).get("end") if stored["status"] == "finished" else None)
        if not end or _before(event.at, end):
            history.insert(0, {"status": status, "period": {"start": event.at, **({"end": end} if end else {})}})
        return history
    if stored["status"] in (made["status"], "unknown") or not event.at:
        return history
    began = (history[-1]["period"].get("end") if history else None) or stored.get("period", {}).get("start")
    period = {"start": began, "end": event.at} if began and _before(began, event.at) else {"end": event.at}
    return [*history, {"status": stored["status"], "period": period}]


def _key(place: Place) -> str:
    return str(place["location"].get("display", ""))


def _timed(place: Place, **period: str) -> Place:
    """The place with a period changed; an end that lies before its start is left out."""
    merged = {**place.get("period", {}), **{name: value for name, value in period.items() if value}}
    if "start" in merged and "end" in merged and not _before(merged["start"], merged["end"]):
        del merged["end"]
    made = {name: value for name, value in place.items() if name != "period"}
    return {**made, "period": merged} if merged else made


def _places(held: list[Place], told: Told, event: Event, made: Resource) -> list[Place]:
    """The places of the visit after the event: where the patient was, is, and will be."""
    at = event.at
    if event.code == "A13" and not any(_stays(one) for one in held):  # still where the discharge found them
        left = next((n for n in reversed(range(len(held))) if held[n].get("status") == "completed"
                     and not held[n].get("extension") and not (told.prior and _key(held[n]) == _key(told.prior))), None)
        held = [_reopened(one) if n == left else one for n, one in enumerate(held)]
    if event.code == "A12" and told.current:  # the transfer did not happen: only the place before it is the patient's
        held = [_reopened(one) if _key(one) == _key(told.current) else one for one in held
                if _key(one) == _key(told.current) or one.get("status") != "active"]
    found: list[Place] = []
    current = told.current
    last = next((one for one in reversed(held) if one.get("status") != "reserved" and not one.get("extension")), None)
    if current and last and event.code not in _MOVES and _key(last) == _key(current) \
            and last.get("status") == "completed":
        current = None  # it tells again where the patient was at the end
    for one in held:
        same = current is not None and _key(one) == _key(current)
        if _stays(one):
            if same or current is None:
                found.append({**one, **current} if same and current else one)
                current = None if same else current
            else:
                found.append(_timed({**one, "status": "completed"}, end=at))
        elif one.get("status") != "reserved" or event.code not in ("A02", "A26") and not told.pending and not same:
            found.append(one)
    found = [one for one in found if not (one.get("extension") and one.get("status") == "active" and told.current
                                          and not told.temporary)]
    if told.prior and all(_key(one) != _key(told.prior) for one in found):
        before = next((n for n in reversed(range(len(found))) if told.current and not found[n].get("extension")
                       and _key(found[n]) == _key(told.current)), len(found))
        found.insert(before, _timed(told.prior, end=at) if event.code == "A02" else told.prior)
    if current is not None:
        start = made.get("period", {}).get("start") if not held and event.code != "A02" else at
        found.append(_timed(current, start=start or "") if current["status"] == "active" else current)
    for more in (told.temporary, told.pending):
        if more and all(_key(one) != _key(more) or one.get("extension") != more.get("extension") for one in found):
            found.append(more)
    if event.code == "A03":
        found = [_timed({**one, "status": "completed"}, end=made.get("period", {}).get("end") or at)
                 if one.get("status") == "active" else one for one in found]
    return found


def _stays(place: Place) -> bool:
    return place.get("status") in ("active", "planned") and not place.get("extension")


#: PV1 fields of places, and which of the visit's places ``""`` in them means.
_GONE: dict[int, Callable[[Place], bool]] = {
    3: lambda one: _stays(one), 11: lambda one: one.get("status") == "active" and "extension" in one,
    42: lambda one: one.get("status") == "reserved"}


def _reopened(place: Place) -> Place:
    period = {name: value for name, value in place.get("period", {}).items() if name != "end"}
    made = {name: value for name, value in place.items() if name != "period"}
    return {**made, "status": "active", **({"period": period} if period else {})}


def _places_late(held: list[Place], told: Told, event: Event) -> list[Place]:
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
    if first and not _before(event.at, first):
        return held
    return [_timed({**current, "status": "completed"}, start=event.at, end=first), *held]


def _before(one: str, other: str) -> bool:
    """Whether a dateTime is not after another, as far as both are told."""
    if "T" not in one or "T" not in other:
        size = min(len(one), len(other), 10)
        return one[:size] <= other[:size]
    first, last = timestamps.as_of_us(one, "UTC"), timestamps.as_of_us(other, "UTC")
    return first is not None and last is not None and first <= last
