"""PRT as of 2.7: who and what took part (table 0912), where a segment has no field for it or leaves it empty.

A participation that is deleted (PRT-2, tables 0287 and 0206) is left out.
"""

from __future__ import annotations

from typing import Any

from gateway.hl7v2 import tables
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import entity_identifier
from gateway.hl7v2.message import Part, Segment
from gateway.hl7v2.people import organization_from, practitioner

_DELETED = frozenset(("D", "DE", "UN", "X"))


def _with_role(participants: list[Segment], roles: tuple[str, ...], builder: Builder) -> list[Segment]:
    return [prt for prt in participants if prt.get(2).upper() not in _DELETED
            and builder.source.table("PRT-4", prt.get(4)).upper() in roles]


def people_in(participants: list[Segment], roles: tuple[str, ...], builder: Builder) -> list[Reference]:
    """The persons (PRT-5) with one of these roles (PRT-4)."""
    return [person for prt in _with_role(participants, roles, builder) for part in prt.repetitions(5)
            if (person := practitioner(part, builder))]


def person_in(participants: list[Segment], roles: tuple[str, ...], builder: Builder) -> Reference | None:
    """The first of ``people_in``."""
    return next(iter(people_in(participants, roles, builder)), None) if participants else None


def organization_in(participants: list[Segment], roles: tuple[str, ...], builder: Builder) -> Reference | None:
    """The first organization (PRT-8) with one of these roles."""
    return next((found for prt in _with_role(participants, roles, builder) for part in prt.repetitions(8)
                 if (found := organization_from(part, builder))), None)


def device_in(participants: list[Segment], builder: Builder) -> dict[str, Any] | None:
    """The identifier of the first device (PRT-10), whatever its role."""
    return next((found for prt in participants if prt.get(2).upper() not in _DELETED for part in prt.repetitions(10)
                 if (found := entity_identifier(part, "device", builder.source, ""))), None)


def director(part: Part, organization: Reference, builder: Builder) -> Reference | None:
    """The medical director (OBX-25, PRT-4 POMD) of a performing organization: a PractitionerRole; a name without a
    number is a name alone."""
    person = practitioner(part, builder)
    if person is None or "reference" not in person:
        return person
    role = builder.resource("PractitionerRole", f"{person['reference']}|{organization['reference']}|MDIR")
    role["practitioner"] = {**person}
    role["organization"] = {**organization}
    role["code"] = [{"coding": [{"system": f"{tables.V2}0912", "code": "MDIR", "display": "Medical Director"}]}]
    reference = builder.add(role, builder.sent_at, "skip")
    return {**reference, **({"display": person["display"]} if "display" in person else {})}


def director_in(participants: list[Segment], organization: Reference, builder: Builder) -> Reference | None:
    """The medical director that a PRT names."""
    return next((found for prt in _with_role(participants, ("POMD", "MDIR"), builder) for part in prt.repetitions(5)
                 if (found := director(part, organization, builder))), None)
