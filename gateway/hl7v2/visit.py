"""The Encounter as patient administration tells it: what an event makes of the visit that is stored.

A message tells an event, not the whole visit: what it does not send stays, ``""`` deletes (v2.5.1 2.5.3), and what has
been (a former status, a former bed) is kept in ``statusHistory`` and ``location``. An event that arrives late changes
nothing that a later one told; it fills in what nobody has told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.hl7v2 import adt_tables, tables, visit_places
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import codeable
from gateway.hl7v2.location import discharged_to
from gateway.hl7v2.message import Segment
from gateway.hl7v2.people import encounter_resource, practitioner, told_time
from gateway.hl7v2.visit_places import Event, Told, before
from gateway.source import Resource

_ARRIVAL = "http://hl7.org/fhir/StructureDefinition/encounter-modeOfArrival"
_PLANNED = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Encounter.planned"
_UNKNOWN_CLASS = "UNK"
#: PV1 fields and the elements that they are, for ``""``.
_ELEMENTS = {2: "class", 4: "type", 10: "serviceType", 54: "episodeOfCare"}
_STAY = {5: "preAdmissionIdentifier", 13: "reAdmission", 14: "admitSource", 15: "specialArrangement",
         16: "specialCourtesy", 36: "dischargeDisposition", 37: "destination", 38: "dietPreference"}
_PERIOD = {44: "start", 45: "end"}
_ROLE = {7: "ATND", 8: "REF", 9: "CON", 17: "ADM", 52: "PART"}


class Extra(NamedTuple):
    """What other segments say of the visit."""

    pv2: Segment | None
    roles: list[dict[str, Any]]
    gone: list[dict[str, Any]]  # participants who are taken away
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
    told = visit_places.told_by(pv1, builder)
    made.pop("location", None)
    if places := visit_places.after([], told, event, _start(made), _end(made)):
        made["location"] = places
    return builder.add_onto(made, event.as_of, _onto(pv1, event, told, extra.gone))


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


# ---------------------------------------------------------------- on top of what is stored

def _onto(pv1: Segment, event: Event, told: Told, gone: list[dict[str, Any]],
          ) -> Callable[[Resource, Resource, bool], Resource]:
    left = {(_role(one), one["individual"].get("reference")) for one in gone}
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
        stay = [one for one in base.get("participant", ()) if late or not left or
                (_role(one), one.get("individual", {}).get("reference")) not in left]
        if participants := _participants(stay, top.get("participant", [])):
            made["participant"] = participants
        else:
            made.pop("participant", None)
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
            held = visit_places.without(held, nulls)
        nowhere = event.code == "A13" and 3 in nulls  # back, but in no place
        places = visit_places.late(held, told, event) if late else \
            visit_places.after(held, told, event._replace(code="A08") if nowhere else event, _start(made), _end(made))
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


def _start(made: Resource) -> str:
    return str(made.get("period", {}).get("start", ""))


def _end(made: Resource) -> str:
    return str(made.get("period", {}).get("end", ""))


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
    if "start" in period and "end" in period and not before(period["start"], period["end"]):
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
        if not end or before(event.at, end):
            history.insert(0, {"status": status, "period": {"start": event.at, **({"end": end} if end else {})}})
        return history
    if stored["status"] in (made["status"], "unknown") or not event.at:
        return history
    began = (history[-1]["period"].get("end") if history else None) or stored.get("period", {}).get("start")
    period = {"start": began, "end": event.at} if began and before(began, event.at) else {"end": event.at}
    return [*history, {"status": stored["status"], "period": period}]
