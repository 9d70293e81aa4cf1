"""A result's rows of the index ``person × item → results`` (``idx_result``), which recognition asks. Pure.

One row for each unified item (system ``recognition-item``) in the code of an Observation, and for each *exam* item (its
code begins with E) in that of a DiagnosticReport: a laboratory's report is covered by its Observations, and a panel's
code makes no row. Nothing is read from free text.

``time`` is when the specimen was collected or the images were acquired (``effective[x]``, a period's start), never when
it was reported; a date without a time is its first moment, so that nothing is recognised too long.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import xxhash

from gateway.indexing import values
from gateway.indexing.keys import reference_target
from gateway.terminology.systems import BASE, ITEMS, SNOMED

#: ``idx_result.kind``; the number of a type is its place.
KINDS = ("Observation", "DiagnosticReport")
#: ``idx_result.status``; the number of a status is its place, 0 for any other. Append only.
STATUSES = ("", "registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error",
            "unknown", "partial", "appended")
#: ``idx_result.side``; the number of a side is its place.
SIDES = ("", "L", "R", "B")
#: ``idx_result.time`` where no time is said: later than all others, so that whoever asks for the newest sees it too.
UNKNOWN_TIME = 1 << 50

#: Bits of ``idx_result.flags``.
FLAG_CRITICAL, FLAG_HAEMOLYSIS, FLAG_REPEAT, FLAG_IMAGES = 1, 2, 4, 8
#: Codes of a flag: in ``meta.tag``, in ``interpretation``, or in an extension of the resource.
FLAG_SYSTEM = f"{BASE}/CodeSystem/recognition-flag"
FLAG_EXTENSION = f"{BASE}/StructureDefinition/recognition-flag"
FLAGS = {"critical": FLAG_CRITICAL, "haemolysis": FLAG_HAEMOLYSIS, "repeat-advised": FLAG_REPEAT,
         "images-unavailable": FLAG_IMAGES}
#: Extension with ``valueCode`` L, R or B.
LATERALITY_EXTENSION = f"{BASE}/StructureDefinition/laterality"

_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_FLAG_OF = {**dict.fromkeys(("HH", "LL", "AA"), (_INTERPRETATION, FLAG_CRITICAL)),
            **{code: (FLAG_SYSTEM, flag) for code, flag in FLAGS.items()}}
_SIDE_OF = {"7771000": (SNOMED, 1), "24028007": (SNOMED, 2), "51440002": (SNOMED, 3)}
_STATUS_OF = {status: number for number, status in enumerate(STATUSES) if status}
_ISSUED = ("final", "amended", "corrected", "appended")
_VALUES = frozenset(f"value{kind}" for kind in (
    "Quantity", "CodeableConcept", "String", "Boolean", "Integer", "Range", "Ratio", "SampledData", "Time", "DateTime",
    "Period"))
_ATTACHMENT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.valueAttachment"
_HASH = xxhash.xxh3_64_intdigest

#: item, time in milliseconds, kind, status, flags, side, session
Row = tuple[str, int, int, int, int, int, int]


def results(resource: dict[str, Any]) -> list[Row]:
    """The rows of an Observation or a DiagnosticReport, without person, pk and institution.

    An issued Observation (final, amended …) that holds nothing — no value, no component with one, no member, no
    attachment — has none: there is nothing to recognise.
    """
    kind = KINDS.index(resource["resourceType"])
    items = _items(resource.get("code"), kind)
    if not items:
        return []
    status = resource.get("status")
    if kind == 0 and status in _ISSUED and _empty(resource):
        return []
    row = (_time(resource), kind, _STATUS_OF.get(status, 0) if type(status) is str else 0, _flags(resource),
           _side(resource), _session(resource))
    return [(item, *row) for item in items]


def _items(concepts: Any, kind: int) -> dict[str, None]:
    """The unified items of a code; of a report's those of an exam."""
    found: dict[str, None] = {}
    for concept in concepts if type(concepts) is list else (concepts,):
        if type(concept) is dict and type(codings := concept.get("coding")) is list:
            for coding in codings:
                if type(coding) is dict and coding.get("system") == ITEMS and type(code := coding.get("code")) is str \
                        and code and (kind == 0 or code[0] == "E"):
                    found[code] = None
    return found


def _empty(observation: dict[str, Any]) -> bool:
    if not _VALUES.isdisjoint(observation) or observation.get("hasMember"):
        return False
    components = observation.get("component")
    if type(components) is list and any(type(part) is dict and not _VALUES.isdisjoint(part) for part in components):
        return False
    return not any(url == _ATTACHMENT for url, _ in _extensions(observation))


def _time(resource: dict[str, Any]) -> int:
    text = resource.get("effectiveDateTime") or resource.get("effectiveInstant")
    if text is None and type(period := resource.get("effectivePeriod")) is dict:
        text = period.get("start")
    found = values.date_range(text) if isinstance(text, str) else None
    return found[0] if found and found[0] else UNKNOWN_TIME


def _flags(resource: dict[str, Any]) -> int:
    flags = 0
    if "interpretation" in resource:  # as nearly every result has
        flags |= _said(resource["interpretation"], _FLAG_OF)
    if type(components := resource.get("component")) is list:
        for part in components:
            if type(part) is dict and "interpretation" in part:
                flags |= _said(part["interpretation"], _FLAG_OF)
    if type(meta := resource.get("meta")) is dict and "tag" in meta:
        flags |= _said({"coding": meta["tag"]}, _FLAG_OF)
    for url, extension in _extensions(resource) if "extension" in resource else ():
        if url == FLAG_EXTENSION:
            coding = extension.get("valueCoding")
            code = coding.get("code") if type(coding) is dict else extension.get("valueCode")
            flags |= FLAGS.get(code, 0) if isinstance(code, str) else 0
    return flags


def _side(resource: dict[str, Any]) -> int:
    """What extension or body site says; left and right together are both."""
    side = 0
    if "extension" in resource:
        for url, extension in _extensions(resource):
            if url == LATERALITY_EXTENSION and (code := extension.get("valueCode")) in SIDES:
                side |= SIDES.index(code)
    if "bodySite" in resource:
        side |= _said(resource["bodySite"], _SIDE_OF)
    return side


def _said(concepts: Any, bits: dict[str, tuple[str, int]]) -> int:
    """What the codings of a CodeableConcept say together, or of a list of them; ``bits``: system and bit of a code."""
    said = 0
    for concept in concepts if type(concepts) is list else (concepts,):
        if type(concept) is dict and type(codings := concept.get("coding")) is list:
            for coding in codings:
                if type(coding) is dict and type(code := coding.get("code")) is str and code in bits \
                        and bits[code][0] == coding.get("system"):
                    said |= bits[code][1]
    return said


def _extensions(resource: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    found = resource.get("extension")
    return [(extension.get("url"), extension) for extension in found if type(extension) is dict] \
        if type(found) is list else []


def _session(resource: dict[str, Any]) -> int:
    """48 bits that are equal within one encounter; without one, within one report (`gateway.source.Source.id_within`).
    """
    if type(encounter := resource.get("encounter")) is dict:
        if said := reference_target(encounter):
            return _HASH(said.encode()) >> 16
        identifier = encounter.get("identifier")
        if type(identifier) is dict and isinstance(value := identifier.get("value"), str):
            return _HASH(f"{identifier.get('system')}|{value}".encode()) >> 16
    id = resource["id"]
    if len(id) == 36 and id[8] == id[13] == "-" and (shared := _shared(id[:13])) is not None:
        return shared
    return _HASH(id.encode()) >> 16


@lru_cache(maxsize=1024)
def _shared(start: str) -> int | None:
    """The first 48 bits of a UUID; None: it is none."""
    try:
        return int(start[:8] + start[9:], 16)
    except ValueError:
        return None
