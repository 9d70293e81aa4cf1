"""Specimens from SPM, and from OBR where there is none (guide: SPM[Specimen], OBR[Specimen], SPS[Specimen-Source])."""

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
from gateway.hl7v2.people import practitioner
from gateway.terminology import system_uri

_HAEMOLYSED = ((24, "0493", "HEM"), (21, "0490", "RH"))


def add_specimens(spms: list[Segment], obr: Segment, report_key: str, from_obr: bool, patient: Reference,
                  as_of: int | None, builder: Builder) -> tuple[list[Reference], dict[str, Any]]:
    """The specimens of one order, and when the first was collected as ``effective[x]`` for a report without OBR-7.

    One tube may serve several reports: an older report's copy of it is skipped.
    """
    if spms:
        references = [_from_spm(spm, f"{report_key}|{at}", patient, as_of, builder)
                      for at, spm in enumerate(spms, 1)]
        return references, _collected(spms[0], builder, "effective")
    if from_obr and any(obr.raw_field(at) for at in (10, 14, 15)):
        return [_from_obr(obr, report_key, patient, as_of, builder)], {}
    return [], {}


def is_haemolysed(spms: list[Segment], builder: Builder) -> bool:
    """Whether SPM-24 (table 0493) or SPM-21 (table 0490) says so of any specimen, in the standard's codes.

    With several specimens the message does not say which result comes from which.
    """
    return any({"system": f"{tables.V2}{table}", "code": code}.items() <= coding.items()
               for spm in spms for at, table, code in _HAEMOLYSED if spm.raw_field(at)
               for part in spm.repetitions(at)
               for coding in codeable(part, builder.source, f"SPM-{at}", table).get("coding", ()))


def _from_spm(spm: Segment, fallback_key: str, patient: Reference, as_of: int | None, builder: Builder) -> Reference:
    """SPM as Specimen; its id is the filler's number of SPM-2, else the placer's, else its place in the report."""
    source = builder.source
    pair = spm.first(2)
    placer, filler = pair.part(1), pair.part(2)
    number, kind = (filler, "specimen") if filler.get(1) else (placer, "specimen")
    key = f"{entity_system(number, kind, source)}|{number.get(1)}" if number.get(1) else fallback_key
    made = builder.resource("Specimen", key)
    identifiers = [i for part, code in ((placer, "PGN"), (filler, "FGN"))
                   if (i := entity_identifier(part, "specimen", source, code))]
    identifiers += [i for part in spm.repetitions(31) if (i := identifier_from(part, "specimen", source))]
    if identifiers:
        made["identifier"] = identifiers
    if accession := identifier_from(spm.first(30), "accession", source, "ACSN"):
        made["accessionIdentifier"] = accession
    if status := tables.SPECIMEN_STATUS.get(spm.get(20).upper()):
        made["status"] = status
    if kind_of := builder.coded(spm, 4, "0487"):
        made["type"] = kind_of
    made["subject"] = {**patient}
    if received := builder.date_time(spm, 18):
        made["receivedTime"] = received
    collection = _collected(spm, builder, "collected")
    if amount := _amount(spm.first(12), builder):
        collection["quantity"] = amount
    for name, at in (("method", 7), ("bodySite", 8)):
        if concept := builder.coded(spm, at):
            collection[name] = concept
    if collection:
        made["collection"] = collection
    container: dict[str, Any] = {}
    if kind_of := builder.coded(spm, 27):
        container["type"] = kind_of
    if additive := builder.coded(spm, 6, "0371"):
        container["additiveCodeableConcept"] = additive
    if container:
        made["container"] = [container]
    if conditions := [c for part in spm.repetitions(24) if (c := codeable(part, source, "SPM-24", "0493"))]:
        made["condition"] = conditions
    if description := text_of(spm.repetitions(14)):
        made["note"] = [{"text": description}]
    return builder.add(made, as_of, "skip")


def _collected(spm: Segment, builder: Builder, name: str) -> dict[str, Any]:
    """SPM-17 (DR) as ``<name>DateTime`` or ``<name>Period``."""
    start, end = builder.date_time(spm, 17), builder.date_time(spm, 17, 2)
    if not start:
        return {}
    first = timestamps.as_of_us(builder.time_text(spm, 17), builder.zone)
    last = timestamps.as_of_us(builder.time_text(spm, 17, 2), builder.zone)
    if not end or first is None or last is None or last <= first:
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
    notes = [text for text in ("" if whole else origin.get(3), text_of(obr.repetitions(39))) if text]
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
    value = decimal(part.get(1))
    return quantity(value, unit_parts(part.part(2), builder.source)) if value is not None else None
