"""A result's rows of the index ``person × item → results`` (``idx_result``), which recognition asks. Pure.

One row for each unified item (system ``recognition-item``) in the code of an Observation, and for each *exam* item (its
code begins with E) in that of a DiagnosticReport: a laboratory's report is covered by its Observations, and a panel's
code makes no row. Nothing is read from free text.

``time`` is when the specimen was collected or the images were acquired (``effective[x]``, a period's start), never when
it was reported; a date without a time is its first moment, so that nothing is recognised too long.
"""

from __future__ import annotations

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
_SAYS = {**dict.fromkeys(("HH", "LL", "AA"), (_INTERPRETATION, FLAG_CRITICAL)),
         **{code: (FLAG_SYSTEM, flag) for code, flag in FLAGS.items()}}
_SIDE_OF = {"7771000": 1, "24028007": 2, "51440002": 3}
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
    items = [code for system, code in _codings(resource.get("code"))
             if system == ITEMS and (kind == 0 or code[0] == "E")]
    status = resource.get("status") if items else None
    if not items or kind == 0 and status in _ISSUED and _empty(resource):
        return []
    row = (_time(resource), kind, _STATUS_OF.get(status, 0) if isinstance(status, str) else 0, _flags(resource),
           _side(resource), _session(resource))
    return [(item, *row) for item in dict.fromkeys(items)]


def _codings(concepts: Any) -> list[tuple[Any, str]]:
    """System and code of all codings of a CodeableConcept, or of a list of them."""
    return [(coding.get("system"), code) for concept in (concepts if type(concepts) is list else (concepts,))
            if type(concept) is dict and type(found := concept.get("coding")) is list for coding in found
            if type(coding) is dict and isinstance(code := coding.get("code"), str) and code]


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
    if "interpretation" in resource:
        flags |= _interpreted(resource["interpretation"])
    components = resource.get("component")
    if type(components) is list:
        for part in components:
            if type(part) is dict and "interpretation" in part:
                flags |= _interpreted(part["interpretation"])
    meta = resource.get("meta")
    if type(meta) is dict and "tag" in meta:
        flags |= _interpreted({"coding": meta["tag"]})
    for url, extension in _extensions(resource) if "extension" in resource else ():
        if url == FLAG_EXTENSION:
            coding = extension.get("valueCoding")
            code = coding.get("code") if type(coding) is dict else extension.get("valueCode")
            flags |= FLAGS.get(code, 0) if isinstance(code, str) else 0
    return flags


def _interpreted(concepts: Any) -> int:
    """The flags of a CodeableConcept, or of a list of them; nearly every result has one to look at."""
    flags = 0
    for concept in concepts if type(concepts) is list else (concepts,):
        found = concept.get("coding") if type(concept) is dict else None
        if type(found) is list:
            for coding in found:
                if type(coding) is dict and type(code := coding.get("code")) is str and (said := _SAYS.get(code)) \
                        and said[0] == coding.get("system"):
                    flags |= said[1]
    return flags


def _side(resource: dict[str, Any]) -> int:
    """What extension or body site says; left and right together are both."""
    side = 0
    if "extension" not in resource and "bodySite" not in resource:
        return side
    for url, extension in _extensions(resource):
        if url == LATERALITY_EXTENSION and (code := extension.get("valueCode")) in SIDES:
            side |= SIDES.index(code)
    if "bodySite" in resource:
        for system, code in _codings(resource["bodySite"]):
            if system == SNOMED:
                side |= _SIDE_OF.get(code, 0)
    return side


def _extensions(resource: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    found = resource.get("extension")
    return [(extension.get("url"), extension) for extension in found if type(extension) is dict] \
        if type(found) is list else []


def _session(resource: dict[str, Any]) -> int:
    """48 bits that are equal within one encounter; without one, within one report (`gateway.source.Source.id_within`).
    """
    encounter = resource.get("encounter")
    if said := reference_target(encounter):
        return _HASH(said.encode()) >> 16
    identifier = encounter.get("identifier") if type(encounter) is dict else None
    if type(identifier) is dict and isinstance(value := identifier.get("value"), str):
        return _HASH(f"{identifier.get('system')}|{value}".encode()) >> 16
    id = resource["id"]
    if len(id) == 36 and id[8] == id[13] == "-":
        try:
            return int(id[:8] + id[9:13], 16)
        except ValueError:
            pass
    return _HASH(id.encode()) >> 16
