"""PR1: what was done to a patient during a visit, as Procedure (HL7 v2.5.1 6.5.4).

A procedure is the visit's; one that a later message does not tell again stays, for what was done cannot be undone by
silence: PR1-20 D takes it back.
"""

from __future__ import annotations

from typing import Any

from gateway.hl7v2 import timestamps
from gateway.hl7v2.adt_details import add_role, is_taken_away
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import code_text, decimal, entity_identifier
from gateway.hl7v2.location import location_from
from gateway.hl7v2.message import Segment
from gateway.hl7v2.order_details import sides
from gateway.hl7v2.people import practitioner, told_time
from gateway.source import Resource
from gateway.terminology import SNOMED

#: Who took part, by the field that names them; PR1-12 is whoever did it where no surgeon did.
_FUNCTIONS = ((8, {"system": SNOMED, "code": "88189002", "display": "Anesthesiologist"}),
              (11, {"system": SNOMED, "code": "304292004", "display": "Surgeon"}), (12, None))
#: No operation takes longer than a week: a larger number of minutes is a mistake.
_LONGEST = 7 * 24 * 60


def add_procedure(pr1: Segment, roles: list[Segment], patient: Reference, encounter: Reference | None, whole: str,
                  as_of: int | None, builder: Builder) -> None:
    """One PR1 with the ROL behind it; ``whole``: the visit, without one the patient. What says nothing is left out."""
    code = builder.coded(pr1, 3) or ({"text": text} if (text := pr1.text(4).strip()) else {})
    if not code:
        return
    number = entity_identifier(pr1.first(19), "procedure", builder.source, "")
    made = builder.part(whole, "Procedure", builder.distinct(_key(number, pr1, code, whole)))
    if extension := sides(part.get(1) for part in pr1.repetitions(16)):
        made["extension"] = extension
    if number:
        made["identifier"] = [number]
    if parent := entity_identifier(pr1.first(25), "procedure", builder.source, ""):
        made["partOf"] = [{"reference": "Procedure/" + builder.source.id_within(
            whole, "Procedure", _key(parent, pr1, {}, whole)), "identifier": parent}]
    performed = _performed(pr1, builder)
    made["status"] = _status(pr1, builder)
    if category := builder.coded(pr1, 6, "0230"):
        made["category"] = category
    made["code"] = code
    made["subject"] = {**patient}
    if encounter:
        made["encounter"] = {**encounter}
    made.update(performed)
    if performers := _performers(pr1, roles, builder):
        made["performer"] = performers
    if place := location_from(pr1.first(23), builder):
        made["location"] = place
    if reason := builder.coded(pr1, 15):
        made["reasonCode"] = [reason]
    if (said := pr1.text(4).strip()) and said != code.get("text"):
        made["note"] = [{"text": said}]
    builder.add(made, as_of, "skip")


def _key(number: dict[str, Any] | None, pr1: Segment, code: Resource, whole: str) -> str:
    """A procedure is its number (PR1-19); without one what was done at a time (PR1-5)."""
    if number:
        return f"PR1|{whole}|{number['system']}|{number['value']}"
    return f"PR1|{whole}|{code_text(pr1.get(3)) or code.get('text', '')}|{pr1.get(5)}"


def _performed(pr1: Segment, builder: Builder) -> dict[str, Any]:
    """PR1-5, with PR1-7 (minutes) as a Period."""
    begun = told_time(pr1, 5, builder)
    minutes = _minutes(pr1)
    if not begun:
        return {}
    if not minutes or "T" not in begun:
        return {"performedDateTime": begun}
    end = timestamps.later(begun, minutes)
    return {"performedPeriod": {"start": begun, "end": end}} if end else {"performedDateTime": begun}


def _minutes(pr1: Segment) -> int:
    minutes = decimal(pr1.get(7))
    return int(minutes) if minutes is not None and 0 < minutes <= _LONGEST and minutes == int(minutes) else 0


def _status(pr1: Segment, builder: Builder) -> str:
    """PR1-20 D takes it back; else by the message's time: PR1 does not say whether a procedure is over."""
    if pr1.get(20).upper() == "D":
        return "entered-in-error"
    begun = timestamps.as_of_us(builder.time_text(pr1, 5), builder.zone)
    if begun is None or builder.sent_at is None:
        return "unknown"
    if begun > builder.sent_at:
        return "preparation"
    return "completed" if begun + _minutes(pr1) * 60_000_000 <= builder.sent_at else "in-progress"


def _performers(pr1: Segment, roles: list[Segment], builder: Builder) -> list[dict[str, Any]]:
    """PR1-8, 11 and 12 by function, and the ROL behind it; each person once in each function."""
    found: list[dict[str, Any]] = []
    for at, function in _FUNCTIONS:
        found += [{**({"function": {"coding": [{**function}]}} if function else {}), "actor": person}
                  for part in pr1.repetitions(at) if (person := practitioner(part, builder))]
    for rol in roles:
        if is_taken_away(rol):
            continue
        role = builder.coded(rol, 3, "0443")
        for part in rol.repetitions(4):
            if person := practitioner(part, builder):
                add_role(rol, person, role, builder)
                found.append({**({"function": role} if role else {}), "actor": person})
    return [one for n, one in enumerate(found) if one not in found[:n]]
