"""One order of an ORU message as ServiceRequest, Observations and DiagnosticReport (guide: OBR and OBX maps).

Ids: a report is its filler number (placer number without one) with its authority, and the service code, since one
number may carry several OBRs, together or message by message; an observation is its report, OBX-3 and OBX-4. So
preliminary, final and corrected results are versions of the same resources.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables, timestamps
from gateway.hl7v2.builder import DICOM_STUDY, Builder, Reference
from gateway.hl7v2.datatypes import entity_identifier, entity_system
from gateway.hl7v2.message import Segment
from gateway.hl7v2.order_details import laterality
from gateway.hl7v2.people import named_person, performing_organization, practitioner
from gateway.hl7v2.request import (
    Numbers,
    Order,
    Result,
    Subject,
    notes_of,
    numbers_of,
    order_identifiers,
    request_from,
    request_key,
    require_number,
    section_of,
    shares_number,
)
from gateway.hl7v2.specimen import add_specimens, is_haemolysed
from gateway.hl7v2.values import VALUE_ATTACHMENT, Value, values_of
from gateway.source import Resource
from gateway.terminology import BASE

_REPORT_NOTE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"
_SUB_ID = "http://hl7.org/fhir/StructureDefinition/observation-v2-subid"
_ANALYSIS_TIME = "http://hl7.org/fhir/StructureDefinition/observation-analysis-date-time"
_ALTERNATE_CODES = "http://hl7.org/fhir/StructureDefinition/alternate-codes"
_FLAG = f"{BASE}/CodeSystem/recognition-flag"
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


#: An order's own message is newer than any report's copy of it: the copies' times lie this much (µs) before all others.
_COPY = 10**16


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
    flags: list[str]  # of CodeSystem recognition-flag


def add_report(order: Order, subject: Subject, builder: Builder) -> None:
    """The resources of one OBR, in dependency order."""
    obr, source = order.obr, builder.source
    concept, known = builder.concept(obr, 4, "order")
    code = known.code
    numbers = numbers_of(order)
    require_number(numbers, obr, "report", "OBR-3")
    number = numbers.filler or numbers.placer
    assert number is not None
    key = f"{entity_system(number, 'filler' if numbers.filler else 'placer', source)}|{number.get(1)}|{code}"
    key = builder.distinct(key)  # the same number and code may come again in one message
    as_of = _as_of(obr, builder)
    _, status = builder.state(obr, 25, tables.REPORT_STATUS)
    request = _add_request(order, subject, builder, concept, code, numbers, status, as_of)
    section, category = section_of(obr, builder)
    specimens, collected = add_specimens(order.specimens, obr, key, category != "imaging", subject.patient, as_of,
                                         builder)
    made = builder.resource("DiagnosticReport", key)
    report = Report(key, made["id"], as_of, category, builder.period(obr, 7, 8, "effective") or collected,
                    specimens[0] if len(specimens) == 1 else None, [], [],
                    ["haemolysis"] if order.specimens and is_haemolysed(order.specimens, builder) else [])
    results = [add_observation(result, report, subject, builder) for result in order.results]
    extension = [{"url": _REPORT_NOTE, "valueAnnotation": note} for note in notes_of([*order.notes, *subject.notes])]
    if obr.raw_field(15) or obr.raw_field(45):
        extension += laterality(obr)
    if extension:
        made["extension"] = extension
    made["identifier"] = order_identifiers(numbers, builder)
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


def _as_of(obr: Segment, builder: Builder) -> int | None:
    """OBR-22, or MSH-7 where that is missing or a mere date: a final result of the same day must not look older."""
    text = builder.time_text(obr, 22)
    if timestamps.is_exact(text, builder.zone) or builder.sent_at is None:
        return timestamps.as_of_us(text, builder.zone)
    return builder.sent_at


def _people(obr: Segment, at: int, builder: Builder) -> list[Reference]:
    return [person for part in obr.repetitions(at) if (person := named_person(part, builder))]


def _add_request(order: Order, subject: Subject, builder: Builder, concept: dict[str, Any], code: str,
                 numbers: Numbers, report_status: str, as_of: int | None) -> Reference:
    """The report's copy of its order: never newer than what an order message said, and of several reports' copies the
    newest counts; an older one is skipped, or it would stop that report."""
    key = request_key(numbers, code, shares_number(builder), builder)
    made = request_from(order, subject, builder, key, concept, numbers,
                        _request_status(order.orc, report_status, builder))
    return builder.add(made, as_of - _COPY if as_of is not None else -_COPY, "skip")


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
        if report.flags:
            made["meta"]["tag"] = [{"system": _FLAG, "code": flag} for flag in report.flags]
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
    if result.notes and (notes := notes_of(result.notes)):
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
