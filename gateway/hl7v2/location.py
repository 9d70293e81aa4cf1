"""PL as Locations: facility, building, floor, point of care, room, bed, each part of the one before (guide: PL)."""

from __future__ import annotations

from typing import Any

from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import identifier_system
from gateway.hl7v2.message import Part

_PHYSICAL = "http://terminology.hl7.org/CodeSystem/location-physical-type"
#: Components of PL from the largest place to the smallest, with their physical type. The guide has none for a point of
#: care, which may be a ward, a clinic or a department.
_LEVELS = ((4, "si", "Site"), (7, "bu", "Building"), (8, "lvl", "Level"), (1, "", ""), (2, "ro", "Room"),
           (3, "bd", "Bed"))


def place_name(place: Part) -> str:
    """Point of care, room and bed as people say them; the facility, building or floor where these are not told."""
    named = [piece for piece in (place.get(at) for at in (1, 2, 3)) if piece] \
        or [piece for piece in (place.get(at) for at in (4, 7, 8)) if piece] or [place.get(9)]
    return " ".join(piece for piece in named if piece)


def location_from(place: Part, builder: Builder, bed_status: str = "") -> Reference | None:
    """The smallest place that PL names, as a reference; its id is the way from the largest, for beds are numbered anew
    in every room. ``bed_status``: PV1-40, of a room or bed."""
    name = place_name(place)
    if not name:
        return None
    levels = [(at, kind, display, piece) for at, kind, display in _LEVELS if (piece := place.get(at))]
    reference: Reference | None = None
    path = ""
    for at, kind, display, piece in levels:
        path += f"|{at}:{piece}"
        made = builder.resource("Location", f"PL{path}")
        made["identifier"] = [{"system": identifier_system(place.part(11), "location", builder.source), "value": piece}]
        made["name"] = piece
        smallest = (at, kind, display, piece) == levels[-1]
        if smallest and bed_status and at in (2, 3):
            made["operationalStatus"] = {"system": "http://terminology.hl7.org/CodeSystem/v2-0116", "code": bed_status}
        if smallest and (description := place.get(9)):
            made["description"] = description
        made["mode"] = "instance"
        if kind:
            made["physicalType"] = {"coding": [{"system": _PHYSICAL, "code": kind, "display": display}]}
        made["managingOrganization"] = builder.hospital()
        if reference is not None:
            made["partOf"] = reference
        reference = builder.add(made, builder.sent_at, "skip")
    return {**reference, "display": name} if reference else {"display": name}


def discharged_to(concept: dict[str, Any], builder: Builder) -> Reference:
    """DLD.1 (PV1-37) as a Location of that type."""
    coding = concept.get("coding", [{}])[0]
    made = builder.resource("Location", f"DLD|{coding.get('system', '')}|{coding.get('code') or concept['text']}")
    made["name"] = concept["text"]
    made["mode"] = "kind"
    made["type"] = [concept]
    return {**builder.add(made, builder.sent_at, "skip"), "display": concept["text"]}
