"""Specimens from SPM and SAC, and from OBR where there is none (guide: SPM[Specimen], OBR[Specimen],
SPS[Specimen-Source]; SAC after v2.8.2 13.4.3)."""

from __future__ import annotations

from typing import Any

from gateway.hl7v2 import tables, timestamps
from gateway.hl7v2.builder import Builder, Reference, text_of
from gateway.hl7v2.datatypes import (
    codeable,
    decimal,
    entity_identifier,
    entity_system,
    identifier_from,
    quantity,
    unit_parts,
)
from gateway.hl7v2.message import Part, Segment
from gateway.hl7v2.participation import person_in
from gateway.hl7v2.people import practitioner
from gateway.hl7v2.request import SpecimenGroup, notes_of
from gateway.source import Source
from gateway.terminology import system_uri

_HAEMOLYSED = ((24, "0493", "HEM"), (21, "0490", "RH"))
#: Table 0369: material that controls the laboratory's work and is no patient's.
_CONTROLS = frozenset("BCEFOQRV")
_ROLE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Specimen.role"
_HANDLING = "http://hl7.org/fhir/StructureDefinition/specimen-specialHandling"
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"


def add_specimens(groups: list[SpecimenGroup], obr: Segment, report_key: str, from_obr: bool, patient: Reference,
                  as_of: int | None, builder: Builder) -> tuple[list[Reference], dict[str, Any]]:
    """The specimens of one order, and when the first was collected as ``effective[x]`` for a report without OBR-7.

    One tube may serve several reports: an older report's copy of it is skipped.
    """
    if groups:
        references = [add_specimen(group, f"{report_key}|{at}", patient, as_of, builder)
                      for at, group in enumerate(groups, 1)]
        spm = groups[0].spm
        return references, _collected(spm, builder, "effective") if spm is not None else {}
    if from_obr and any(obr.raw_field(at) for at in (10, 14, 15)):
        return [_from_obr(obr, report_key, patient, as_of, builder)], {}
    return [], {}


def add_specimen(group: SpecimenGroup, fallback_key: str, patient: Reference, as_of: int | None,
                 builder: Builder) -> Reference:
    """SPM with its SAC as Specimen; SAC alone where there is no SPM."""
    if group.spm is None:
        return _from_container(group, fallback_key, patient, as_of, builder)
    return _from_spm(group.spm, group, fallback_key, patient, as_of, builder)


def is_haemolysed(groups: list[SpecimenGroup], builder: Builder) -> bool:
    """Whether SPM-24 (table 0493) or SPM-21 (table 0490) says so of any specimen, in the standard's codes.

    With several specimens the message does not say which result comes from which.
    """
    return any({"system": f"{tables.V2}{table}", "code": code}.items() <= coding.items()
               for group in groups if (spm := group.spm) is not None
               for at, table, code in _HAEMOLYSED if spm.raw_field(at)
               for part in spm.repetitions(at)
               for coding in codeable(part, builder.source, f"SPM-{at}", table).get("coding", ()))


def is_rejected(group: SpecimenGroup) -> bool:
    """Whether the laboratory refused it (SPM-21)."""
    return group.spm is not None and group.spm.size > 21 and bool(group.spm.first(21))


def rejection(groups: list[SpecimenGroup], builder: Builder) -> dict[str, Any]:
    """Why a result of these specimens has no value, when the laboratory refused them all: not performed, for SPM-21."""
    if not all(map(is_rejected, groups)):
        return {}
    reasons = [reason for group in groups if group.spm is not None
               for part in group.spm.repetitions(21)
               if (reason := codeable(part, builder.source, "SPM-21", "0490"))]
    codings = {(coding["system"], coding["code"]): coding for reason in reasons for coding in reason.get("coding", ())}
    made: dict[str, Any] = {"coding": [{"system": _ABSENT, "code": "not-performed"}, *codings.values()]}
    if said := "; ".join(dict.fromkeys(reason["text"] for reason in reasons if "text" in reason)):
        made["text"] = said
    return made


def is_control(group: SpecimenGroup, builder: Builder) -> bool:
    """Whether SPM-11 says that it is no patient's (calibrators, quality control, proficiency testing)."""
    if group.spm is None or group.spm.size <= 11:
        return False
    roles = {builder.source.table("SPM-11", part.get(1)).upper() for part in group.spm.repetitions(11)}
    return bool(roles & _CONTROLS) and "P" not in roles


def specimen_key(pair: Part, source: Source) -> str:
    """What the id of a Specimen is made of: the filler's number of an EIP, else the placer's; empty without one."""
    if not pair:
        return ""
    number = pair.part(2) if pair.part(2).get(1) else pair.part(1)
    value = number.get(1)
    return f"{entity_system(number, 'specimen', source)}|{value}" if value else ""


def specimen_named(pair: Part, builder: Builder) -> Reference | None:
    """A reference to the Specimen that an EIP names, whether or not this message carries it."""
    if not (key := specimen_key(pair, builder.source)):
        return None
    numbers = _numbers(pair, builder.source)
    return {"reference": f"Specimen/{builder.source.id_for('Specimen', key)}", "identifier": numbers[-1]}


def _numbers(pair: Part, source: Source) -> list[dict[str, Any]]:
    """EIP as PGN and FGN of table 0203."""
    return [made for part, code in ((pair.part(1), "PGN"), (pair.part(2), "FGN"))
            if (made := entity_identifier(part, "specimen", source, code))] if pair else []


def _from_spm(spm: Segment, group: SpecimenGroup, fallback_key: str, patient: Reference, as_of: int | None,
              builder: Builder) -> Reference:
    """SPM as Specimen; its id is the filler's number of SPM-2, else the placer's, else its place in the report."""
    source = builder.source
    made = builder.resource("Specimen", specimen_key(spm.first(2), source) or fallback_key)
    if extension := [{"url": url, "valueCodeableConcept": said} for url, at, table in (
            (_ROLE, 11, "0369"), (_HANDLING, 15, "0376")) for part in spm.repetitions(at)
            if (said := codeable(part, source, f"SPM-{at}", table))]:
        made["extension"] = extension
    identifiers = _numbers(spm.first(2), source)
    accession = None
    if spm.size > 30:
        identifiers += [i for part in spm.repetitions(31) if (i := identifier_from(part, "specimen", source))]
        if shipment := entity_identifier(spm.first(32), "shipment", source, "SHIP"):
            identifiers.append(shipment)
        accession = identifier_from(spm.first(30), "accession", source, "ACSN")
    if identifiers:
        made["identifier"] = identifiers
    if accession := accession or _accession(group.containers, source):
        made["accessionIdentifier"] = accession
    if is_rejected(group):
        made["status"] = "unsatisfactory"
    elif status := tables.SPECIMEN_STATUS.get(spm.get(20).upper()):
        made["status"] = status
    if kind_of := _modified(builder.coded(spm, 4, "0487"), spm, 5):
        made["type"] = kind_of
    made["subject"] = {**patient}
    if received := builder.date_time(spm, 18):
        made["receivedTime"] = received
    if parents := [parent for part in spm.repetitions(3) if (parent := specimen_named(part, builder))]:
        made["parent"] = parents
    if collection := _collection(spm, group.participants, builder):
        made["collection"] = collection
    if processing := _treatments(group.containers, builder):
        made["processing"] = processing
    if containers := _containers(spm, group.containers, builder):
        made["container"] = containers
    if spm.size > 21 and (conditions := [
            c for at, table in ((24, "0493"), (22, "0491"), (21, "0490")) for part in spm.repetitions(at)
            if (c := codeable(part, source, f"SPM-{at}", table))]):
        made["condition"] = conditions
    if notes := [*([{"text": description}] if (description := text_of(spm.repetitions(14))) else []),
                 *notes_of(group.notes, builder)]:
        made["note"] = notes
    return builder.add(made, as_of, "skip")


def _modified(concept: dict[str, Any], spm: Segment, at: int) -> dict[str, Any]:
    """A concept whose modifiers (SPM-5, SPM-9), for which FHIR has no place, stand in its text."""
    said = ", ".join(text for part in spm.repetitions(at) if (text := part.get(2) or part.get(1)))
    if not said:
        return concept
    return {**concept, "text": f"{concept['text']} ({said})" if "text" in concept else said}


def _collection(spm: Segment, participants: list[Segment], builder: Builder) -> dict[str, Any]:
    collection: dict[str, Any] = {}
    if collector := person_in(participants, ("SC",), builder):
        collection["collector"] = collector
    collection.update(_collected(spm, builder, "collected"))
    if amount := _amount(spm.first(12), builder):
        collection["quantity"] = amount
    if method := builder.coded(spm, 7, "0488"):
        collection["method"] = method
    if site := _modified(builder.coded(spm, 8) or builder.coded(spm, 10), spm, 9):
        collection["bodySite"] = site
    return collection


def _containers(spm: Segment | None, sacs: list[Segment], builder: Builder) -> list[dict[str, Any]]:
    """SAC as Specimen.container, with what SPM says of it; SPM alone where there is no SAC."""
    source = builder.source
    found: list[dict[str, Any]] = []
    each: list[Segment | None] = [*sacs] or [None]
    for sac in each:
        made: dict[str, Any] = {}
        units = unit_parts(sac.first(24), source) if sac is not None else {}
        if sac is not None and (number := entity_identifier(sac.first(3), "container", source, "")):
            made["identifier"] = [number]
        if spm is not None and (state := builder.coded(spm, 28)):
            made["description"] = state.get("text", "")
        if spm is not None and (kind := builder.coded(spm, 27)):
            made["type"] = kind
        for name, at in (("capacity", 21), ("specimenQuantity", 22)):
            if sac is not None and (volume := decimal(sac.get(at))) is not None:
                made[name] = quantity(volume, units)
        if spm is not None and "specimenQuantity" not in made and (left := _amount(spm.first(25), builder)):
            made["specimenQuantity"] = left
        additive = (builder.coded(sac, 27, "0371") if sac is not None else {}) or \
            (builder.coded(spm, 6, "0371") if spm is not None else {})
        if additive:
            made["additiveCodeableConcept"] = additive
        if made:
            found.append(made)
    return found


def _treatments(sacs: list[Segment], builder: Builder) -> list[dict[str, Any]]:
    """SAC-30 as processing."""
    return [{"procedure": treatment} for sac in sacs if (treatment := builder.coded(sac, 30, "0373"))]


def _accession(sacs: list[Segment], source: Source) -> dict[str, Any] | None:
    """SAC-2."""
    return next((i for sac in sacs if (i := entity_identifier(sac.first(2), "accession", source, "ACSN"))), None)


def _from_container(group: SpecimenGroup, fallback_key: str, patient: Reference, as_of: int | None,
                    builder: Builder) -> Reference:
    """SAC without SPM as Specimen: its id is the container's number (SAC-3), else the accession number (SAC-2)."""
    source, sac = builder.source, group.containers[0]
    number = sac.first(3) if sac.get(3) else sac.first(2)
    kind = "container" if sac.get(3) else "accession"
    key = f"{entity_system(number, kind, source)}|{number.get(1)}" if number.get(1) else fallback_key
    made = builder.resource("Specimen", key)
    if accession := _accession(group.containers, source):
        made["accessionIdentifier"] = accession
    origin = sac.first(6)
    if kind_of := codeable(origin if _is_coded(origin) else origin.part(1), source, "SAC-6", "0487"):
        made["type"] = kind_of
    made["subject"] = {**patient}
    if collector := person_in(group.participants, ("SC",), builder):
        made["collection"] = {"collector": collector}
    if processing := _treatments(group.containers, builder):
        made["processing"] = processing
    if containers := _containers(None, group.containers, builder):
        made["container"] = containers
    if notes := notes_of(group.notes, builder):
        made["note"] = notes
    return builder.add(made, as_of, "skip")


def _collected(spm: Segment, builder: Builder, name: str) -> dict[str, Any]:
    """SPM-17 (DR) as ``<name>DateTime`` or ``<name>Period``."""
    start, end = builder.date_time(spm, 17), builder.date_time(spm, 17, 2)
    if not start:
        return {}
    if not end:
        return {f"{name}DateTime": start}
    first = timestamps.as_of_us(builder.time_text(spm, 17), builder.zone)
    last = timestamps.as_of_us(builder.time_text(spm, 17, 2), builder.zone)
    if first is None or last is None or last <= first:
        return {f"{name}DateTime": start}
    return {f"{name}Period": {"start": start, "end": end}}


def _from_obr(obr: Segment, report_key: str, patient: Reference, as_of: int | None, builder: Builder) -> Reference:
    """OBR-7 to OBR-15 and OBR-39 as Specimen, for messages without SPM (before 2.5)."""
    source = builder.source
    made = builder.resource("Specimen", report_key)
    origin = obr.first(15)
    whole = _is_coded(origin)
    kind_of = codeable(origin if whole else origin.part(1), source, "OBR-15", "0487")
    if kind_of:
        made["type"] = kind_of
    made["subject"] = {**patient}
    if received := builder.date_time(obr, 14):
        made["receivedTime"] = received
    collection: dict[str, Any] = {}
    if obr.raw_field(10) and (collector := practitioner(obr.first(10), builder)):
        collection["collector"] = collector
    collection.update(builder.period(obr, 7, 8, "collected"))
    if amount := _amount(obr.first(9), builder):
        collection["quantity"] = amount
    if not whole and (site := codeable(origin.part(4), source, "OBR-15.4")):
        collection["bodySite"] = site
    if collection:
        made["collection"] = collection
    if not whole and (additive := codeable(origin.part(2), source, "OBR-15.2", "0371")):
        made["container"] = [{"additiveCodeableConcept": additive}]
    said = "\n".join(part.get(2) or part.get(9) or part.get(1) for part in obr.repetitions(39))
    notes = [text for text in ("" if whole else origin.get(3), said.strip()) if text]
    if notes:
        made["note"] = [{"text": text} for text in notes]
    return builder.add(made, as_of, "skip")


def _is_coded(origin: Part) -> bool:
    """Whether OBR-15 holds code^text^system where SPS wants code&text&system in its first component.

    Many senders write it so: then component 3 names a coding system, or component 2 is no code of an additive.
    """
    if len(origin.part(1)) > 1 or not origin.get(2):
        return False
    system = origin.get(3).upper()
    if system in ("L", "LOCAL") or system.startswith("99") or system_uri(system):
        return True
    second = origin.get(2)
    return not system and not (second.isascii() and second.isupper() and len(origin.part(2)) == 1 and len(second) <= 8)


def _amount(part: Part, builder: Builder) -> dict[str, Any] | None:
    """CQ as SimpleQuantity."""
    value = decimal(part.get(1)) if part else None
    return quantity(value, unit_parts(part.part(2), builder.source)) if value is not None else None
