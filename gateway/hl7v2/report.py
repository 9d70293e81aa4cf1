"""One order of an ORU message as ServiceRequest, Observations and DiagnosticReport (guide: OBR, ORC and OBX maps).

Ids: a report is its filler number (placer number without one) with its authority, and the service code, since one
number may carry several OBRs, together or message by message; an observation is its report, OBX-3 and OBX-4. So
preliminary, final and corrected results are versions of the same resources.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables, timestamps
from gateway.hl7v2.builder import DICOM_STUDY, Builder, Reference, text_of
from gateway.hl7v2.datatypes import codeable, entity_identifier, entity_system
from gateway.hl7v2.message import Part, Segment
from gateway.hl7v2.people import named_person, performing_organization, practitioner
from gateway.hl7v2.specimen import add_specimens
from gateway.hl7v2.values import VALUE_ATTACHMENT, Value, values_of
from gateway.source import Resource

_REPORT_NOTE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"
_SUB_ID = "http://hl7.org/fhir/StructureDefinition/observation-v2-subid"
_ANALYSIS_TIME = "http://hl7.org/fhir/StructureDefinition/observation-analysis-date-time"
_ALTERNATE_CODES = "http://hl7.org/fhir/StructureDefinition/alternate-codes"
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


@dataclass(slots=True)
class Result:
    """An OBX and the NTE that follow it."""

    obx: Segment
    notes: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class Order:
    """An OBR with its ORC, and what follows it."""

    obr: Segment
    orc: Segment | None
    notes: list[Segment] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    specimens: list[Segment] = field(default_factory=list)


class Subject(NamedTuple):
    """Whose results they are."""

    patient: Reference
    key: str
    encounter: Reference | None
    notes: list[Segment]


class Report(NamedTuple):
    """What the Observations of a report share."""

    key: str
    id: str
    as_of: int | None
    category: str  # "laboratory", "imaging" or ""
    effective: dict[str, Any]
    specimen: Reference | None
    forms: list[dict[str, Any]]
    studies: list[Reference]


def add_report(order: Order, subject: Subject, builder: Builder) -> None:
    """The resources of one OBR, in dependency order."""
    obr, source = order.obr, builder.source
    concept, known = builder.concept(obr, 4, "order")
    code = known.code
    placer, filler = _number(order, 2), _number(order, 3)
    if not placer and not filler:
        raise GatewayError(Category.INVALID, f"neither OBR-3 nor OBR-2 numbers the report{obr.which()}; without a "
                           "number a correction could not find it: send OBR-3", "OBR-3", detail="required")
    number = filler or placer
    assert number is not None
    key = f"{entity_system(number, 'filler' if filler else 'placer', source)}|{number.get(1)}|{code}"
    key = builder.distinct(key)  # the same number and code may come again in one message
    as_of = _as_of(obr, builder)
    _, status = builder.state(obr, 25, tables.REPORT_STATUS)
    request = _add_request(order, subject, builder, concept, code, placer, filler, status, as_of)
    section, category = _section(obr, builder)
    specimens, collected = add_specimens(order.specimens, obr, key, category != "imaging", subject.patient, as_of,
                                         builder)
    made = builder.resource("DiagnosticReport", key)
    report = Report(key, made["id"], as_of, category, builder.period(obr, 7, 8, "effective") or collected,
                    specimens[0] if len(specimens) == 1 else None, [], [])
    results = [add_observation(result, report, subject, builder) for result in order.results]
    if notes := _notes([*order.notes, *subject.notes]):
        made["extension"] = [{"url": _REPORT_NOTE, "valueAnnotation": note} for note in notes]
    made["identifier"] = _order_identifiers(placer, filler, builder)
    made["basedOn"] = [request]
    made["status"] = status
    if section:
        made["category"] = [section]
    made["code"] = concept
    made["subject"] = {**subject.patient}
    if subject.encounter:
        made["encounter"] = {**subject.encounter}
    made.update(report.effective)
    if issued := builder.instant(obr, 22):
        made["issued"] = issued
    made["performer"] = [builder.hospital(), *_people(obr, 34, builder), *_people(obr, 35, builder)]
    if interpreters := _people(obr, 32, builder):
        made["resultsInterpreter"] = interpreters
    for name, references in (("specimen", specimens), ("result", results), ("imagingStudy", report.studies),
                             ("presentedForm", report.forms)):
        if references:
            made[name] = references
    builder.add(made, as_of, "refuse")


def _number(order: Order, at: int) -> Part | None:
    """Placer (2) or filler (3) number: OBR's, else ORC's."""
    part = order.obr.first(at)
    if not part.get(1) and order.orc is not None:
        part = order.orc.first(at)
    return part if part.get(1) else None


def _as_of(obr: Segment, builder: Builder) -> int | None:
    """OBR-22, or MSH-7 where that is missing or a mere date: a final result of the same day must not look older."""
    text = builder.time_text(obr, 22)
    if timestamps.is_exact(text, builder.zone) or builder.sent_at is None:
        return timestamps.as_of_us(text, builder.zone)
    return builder.sent_at


def _section(obr: Segment, builder: Builder) -> tuple[dict[str, Any] | None, str]:
    """OBR-24 as category, and the observation category that it surely means."""
    sent = obr.get(24)
    code = builder.source.table("OBR-24", sent)
    if display := tables.SERVICE_SECTION.get(code.upper()):
        concept: dict[str, Any] = {"coding": [{"system": f"{tables.V2}0074", "code": code.upper(), "display": display}]}
        if sent and sent != code:
            concept["text"] = sent
        return concept, tables.OBSERVATION_CATEGORY.get(code.upper(), "")
    return builder.coded(obr, 24) or None, ""


def _order_identifiers(placer: Part | None, filler: Part | None, builder: Builder) -> list[dict[str, Any]]:
    found = [(placer, "placer", "PLAC"), (filler, "filler", "FILL")]
    return [made for part, kind, code in found
            if part and (made := entity_identifier(part, kind, builder.source, code))]


def _people(obr: Segment, at: int, builder: Builder) -> list[Reference]:
    return [person for part in obr.repetitions(at) if (person := named_person(part, builder))]


def _notes(segments: list[Segment]) -> list[dict[str, Any]]:
    """NTE segments as one Annotation: each segment and each repetition of NTE-3 is a line."""
    text = "\n".join(text_of(nte.repetitions(3)) for nte in segments).strip()
    return [{"text": text}] if text else []


def _add_request(order: Order, subject: Subject, builder: Builder, concept: dict[str, Any], code: str,
                 placer: Part | None, filler: Part | None, report_status: str, as_of: int | None) -> Reference:
    """ServiceRequest by the placer's number (an order message knows no other), else the filler's.

    One order may have several reports: an older report's copy is skipped, or it would stop that report.
    """
    obr, orc, source = order.obr, order.orc, builder.source
    number = placer or filler
    assert number is not None
    system = entity_system(number, "placer" if placer else "filler", source)
    made = builder.resource("ServiceRequest", f"{system}|{number.get(1)}|{code}")
    made["identifier"] = _order_identifiers(placer, filler, builder)
    if orc is not None and (group := entity_identifier(orc.first(4), "placer-group", source, "PGN")):
        made["requisition"] = group
    made["status"] = _request_status(orc, report_status, builder)
    made["intent"] = "reflex-order" if obr.get(11).upper() == "G" else "order"
    sent = obr.get(5) or obr.get(27, 6) or (orc.get(7, 6) if orc is not None else "")
    if priority := tables.PRIORITY.get(source.table("OBR-5", sent).upper()):
        made["priority"] = priority
    made["code"] = {key: list(value) if key == "coding" else value for key, value in concept.items()}
    made["subject"] = {**subject.patient}
    if subject.encounter:
        made["encounter"] = {**subject.encounter}
    if wanted := builder.date_time(obr, 6):
        made["occurrenceDateTime"] = wanted
    if orc is not None and orc.get(1).upper() == "NW" and (ordered := builder.date_time(orc, 9)):
        made["authoredOn"] = ordered
    requester = obr.first(16) or (orc.first(12) if orc is not None else obr.first(16))
    if requester and (person := practitioner(requester, builder)):
        made["requester"] = person
    if reasons := [reason for part in obr.repetitions(31) if (reason := codeable(part, source, "OBR-31"))]:
        made["reasonCode"] = reasons
    if clinical := obr.text(13).strip():
        made["supportingInfo"] = [{"display": clinical}]
    if notes := _notes(order.notes):
        made["note"] = notes
    return builder.add(made, as_of, "skip")


def _request_status(orc: Segment | None, report_status: str, builder: Builder) -> str:
    """ORC-5, else ORC-1 as far as the guide maps it, else as far as the report has come."""
    if orc is not None:
        sent = builder.source.table("ORC-5", orc.get(5)).upper()
        if status := tables.ORDER_STATUS.get(sent):
            return status
        if not orc.get(5) and (status := tables.ORDER_CONTROL_STATUS.get(orc.get(1).upper())):
            return status
    return tables.STATUS_BY_REPORT.get(report_status, "active")


def add_observation(result: Result, report: Report | None, subject: Subject, builder: Builder) -> Reference:
    """One OBX with its NTE as Observation; without a report it is an observation of the patient (2.7 and later)."""
    obx = result.obx
    units = builder.units(obx)
    concept, known = builder.concept(obx, 3, "test", units.get("unit", ""))
    sub_id = obx.text(4).strip()
    key = f"{report.key if report else subject.key}|{known.code}|{sub_id}"
    if report is None:
        made = builder.resource("Observation", builder.distinct(f"{key}|{obx.get(14)}"))
    else:
        made = builder.part(report.id, "Observation", builder.distinct(key))
    values = values_of(obx, units, builder.source)
    long = obx.size > 15  # few senders fill more than 14 fields
    if extension := _extensions(obx, sub_id, values, builder):
        made["extension"] = extension
    if long and obx.raw_field(21) and (number := entity_identifier(obx.first(21), "observation", builder.source,
                                                                   "FILL")):
        made["identifier"] = [number]
    sent, made["status"] = builder.state(obx, 11, tables.OBSERVATION_STATUS)
    if sent == "X":
        made["_status"] = {"extension": [{"url": _ALTERNATE_CODES, "valueCodeableConcept": {
            "coding": [{"system": f"{tables.V2}0085", "code": "X"}]}}]}
    if report and report.category:
        made["category"] = [{"coding": [{"system": _CATEGORY, "code": report.category,
                                         "display": tables.CATEGORY_DISPLAY[report.category]}]}]
    made["code"] = concept
    made["subject"] = {**subject.patient}
    if subject.encounter:
        made["encounter"] = {**subject.encounter}
    if observed := builder.date_time(obx, 14):
        made["effectiveDateTime"] = observed
    elif report:
        made.update(report.effective)
    made["performer"] = _performers(obx, builder) if long else [builder.hospital()]
    _put_value(made, obx, sent, values)
    if flags := builder.flags(obx):
        made["interpretation"] = flags
    if result.notes and (notes := _notes(result.notes)):
        made["note"] = notes
    if long:
        _put_details(made, obx, builder)
    if report and report.specimen:
        made["specimen"] = {**report.specimen}
    if long and obx.raw_field(18) and (device := entity_identifier(obx.first(18), "device", builder.source, "")):
        made["device"] = {"type": "Device", "identifier": device}
    if ranges := builder.ranges(obx, units):
        made["referenceRange"] = ranges
    if len(values) > 1 and len(several := [value for value in values if value[0] != "valueAttachment"]) > 1:
        made["component"] = [{"code": concept, name: value} for name, value in several]
    if report:
        _enclose(obx, known.sent == DICOM_STUDY, values, report, builder)
    return builder.add(made, report.as_of if report else builder.sent_at, "refuse")


def _put_details(made: Resource, obx: Segment, builder: Builder) -> None:
    """OBX-20 and OBX-17."""
    for name, at in (("bodySite", 20), ("method", 17)):
        if detail := builder.coded(obx, at):
            made[name] = detail


def _performers(obx: Segment, builder: Builder) -> list[Reference]:
    """OBX-16 and the performing organization; the hospital itself where none is named."""
    people = [person for part in obx.repetitions(16) if (person := practitioner(part, builder))]
    organization = performing_organization(obx, builder) if obx.raw_field(23) or obx.raw_field(15) else None
    return [*people, organization or builder.hospital()]


def _put_value(made: Resource, obx: Segment, sent_status: str, values: list[Value]) -> None:
    """One value, or why there is none; several become components (``add_observation``)."""
    if len(values) > 1:
        values = [value for value in values if value[0] != "valueAttachment"] or values
    if len(values) > 1 and values[0][0] != "valueAttachment":
        return
    if values:
        name, value = values[0]
        if name == "valueAttachment":  # R4 has no such value: it is in the report's presentedForm
            made["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": "unsupported"}]}
        else:
            made[name] = value
        return
    if sent_status == "U":
        raise GatewayError(Category.INVALID, f"OBX-11 U makes a result final without its value{obx.which()}; send the "
                           "value again with status F", "OBX-5", detail="required")
    status = made["status"]
    reason = "temp-unknown" if status in ("registered", "preliminary") else "unknown"
    if sent_status == "N":
        reason = "not-asked"
    made["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": reason}]}


def _extensions(obx: Segment, sub_id: str, values: list[Value], builder: Builder) -> list[dict[str, Any]]:
    extension: list[dict[str, Any]] = []
    if sub_id:
        extension.append({"url": _SUB_ID, "extension": [{"url": "original-sub-identifier", "valueString": sub_id}]})
    if obx.size > 19 and (analysed := builder.date_time(obx, 19)):
        extension.append({"url": _ANALYSIS_TIME, "valueDateTime": analysed})
    for name, value in values:
        if name == "valueAttachment":  # the bytes stand once, in DiagnosticReport.presentedForm
            kept = {key: part for key, part in value.items() if key != "data"}
            extension.append({"url": VALUE_ATTACHMENT, "valueAttachment": kept})
    return extension


def _enclose(obx: Segment, is_study: bool, values: list[Value], report: Report, builder: Builder) -> None:
    """Documents go to the report's presentedForm; a DICOM study (113014, IHE RAD) to its imagingStudy."""
    for name, value in values:
        if name == "valueAttachment":
            report.forms.append(value)
    if is_study and (uid := obx.get(5) or obx.get(5, 2)):
        report.studies.append({"reference": f"ImagingStudy/{builder.source.id_for('ImagingStudy', uid)}",
                               "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}})
