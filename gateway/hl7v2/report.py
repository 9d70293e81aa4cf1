"""One order of an ORU message as ServiceRequest, Observations and DiagnosticReport (guide: OBR and OBX maps).

Ids: a report is its filler number (placer number without one) with its authority, and the service code, since one
number may carry several OBRs, together or message by message; an observation is its report, OBX-3 and OBX-4. So
preliminary, final and corrected results are versions of the same resources.
"""

from __future__ import annotations

from typing import Any

from gateway.hl7v2 import tables, timestamps
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.imaging_report import accession, is_of_images, studies_of
from gateway.hl7v2.message import Segment
from gateway.hl7v2.narrative import joined, tell
from gateway.hl7v2.observation import Report, add_observation, category_of, results_of
from gateway.hl7v2.order_details import laterality, tell_report
from gateway.hl7v2.parents import Told, report_key
from gateway.hl7v2.participation import people_in
from gateway.hl7v2.people import named_person
from gateway.hl7v2.report_states import add_report_resource, status_of
from gateway.hl7v2.request import (
    Numbers,
    Order,
    SpecimenGroup,
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
from gateway.hl7v2.specimen import add_specimens, is_haemolysed, is_rejected, rejection
from gateway.source import COPY, Resource

_REPORT_NOTE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"
_FUNCTION = "http://hl7.org/fhir/StructureDefinition/event-performerFunction"
#: Field of OBR, role of PRT-4 (table 0912), v3-ParticipationType.
_FUNCTIONS = ((34, "TN", "SPRF", "secondary performer"), (35, "TR", "TRANS", "Transcriber"))


def add_report(order: Order, subject: Subject, builder: Builder) -> Told:
    """The resources of one OBR, in dependency order, and what relations to others need of them."""
    obr = order.obr
    concept, known = builder.concept(obr, 4, "order")
    code = known.code
    numbers = numbers_of(order)
    require_number(numbers, obr, "report", "OBR-3")
    key = builder.distinct(report_key(numbers, code, obr, builder))  # both may come again in one message
    as_of = _as_of(obr, builder)
    _, status = builder.state(obr, 25, tables.REPORT_STATUS)
    request = _add_request(order, subject, builder, concept, code, numbers, status, as_of)
    section, category = section_of(obr, builder)
    specimens, collected = add_specimens(order.specimens, obr, key, category != "imaging", subject.patient, as_of,
                                         builder)
    made = builder.resource("DiagnosticReport", key)
    report = Report(made["id"], results_of(made["id"], key, builder), as_of, category_of(category),
                    builder.period(obr, 7, 8, "effective") or collected,
                    {**specimens[0]} if len(specimens) == 1 else None, [], *_of_specimens(order.specimens, builder),
                    known=known)
    at = len(builder.conversion.changes)
    told = joined(order.results, category, builder)
    results = [add_observation(result, report, subject, builder) for result in told]
    text, conclusion = tell(told is not order.results, results, builder.conversion.changes[at:], category, builder)
    for group, specimen in zip(order.specimens, specimens, strict=False):
        if group.results:
            add_specimen_observations(group, specimen, report, subject, builder)
    if text:
        made["text"] = text
    if extension := _extensions(order, subject, builder):
        made["extension"] = extension
    made["identifier"] = order_identifiers(numbers, builder)
    if order.orc is not None and order.orc.size > 4:
        tell_report(made, order.orc, builder)
    studies = studies_of(order, category, builder)
    of_images = is_of_images(category, studies, concept)
    if of_images and (other := accession(order, builder)) and other not in made["identifier"]:
        made["identifier"].append(other)
    made["basedOn"] = [request]
    made["status"] = status_of(status, (result.obx for result in told), builder)
    if section:
        made["category"] = [section]
    made["code"] = concept
    _describe(made, order, subject, report, builder)
    for name, references in (("specimen", specimens), ("result", results), ("imagingStudy", studies),
                             ("conclusion", conclusion), ("presentedForm", report.forms)):
        if references:
            made[name] = references
    if of_images and not studies:
        builder.conversion.unjoined.append(made["id"])
    add_report_resource(made, key, results, as_of, builder)
    return Told(order, numbers, code, made, request, [result.obx for result in told], results)


def _extensions(order: Order, subject: Subject, builder: Builder) -> list[dict[str, Any]]:
    """NTE of the report and of the patient, for which R4 has no place, and the side that was examined."""
    extension: list[dict[str, Any]] = [{"url": _REPORT_NOTE, "valueAnnotation": note}
                                       for note in notes_of([*order.notes, *subject.notes], builder)]
    if order.obr.raw_field(15) or order.obr.raw_field(45):
        extension += laterality(order.obr)
    return extension


def _describe(made: Resource, order: Order, subject: Subject, report: Report, builder: Builder) -> None:
    """Whose it is, when it was examined and issued, and who took part."""
    made["subject"] = {**subject.patient}
    if subject.encounter:
        made["encounter"] = {**subject.encounter}
    made.update(report.effective)
    if issued := builder.instant(order.obr, 22):
        made["issued"] = issued
    made["performer"] = _performers(order, builder)
    if interpreters := _people(order, (32, 33), ("PI", "PRI", "AI", "ARI"), builder):
        made["resultsInterpreter"] = interpreters


def _as_of(obr: Segment, builder: Builder) -> int | None:
    """OBR-22, or MSH-7 where that is missing or a mere date: a final result of the same day must not look older."""
    text = builder.time_text(obr, 22)
    if timestamps.is_exact(text, builder.zone) or builder.sent_at is None:
        return timestamps.as_of_us(text, builder.zone)
    return builder.sent_at


def _people(order: Order, fields: tuple[int, ...], roles: tuple[str, ...], builder: Builder) -> list[Reference]:
    """The persons of some fields of OBR, and of PRT in the same roles, each once."""
    people = [person for at in fields for part in order.obr.repetitions(at) if (person := named_person(part, builder))]
    if order.participants:
        people += [person for person in people_in(order.participants, roles, builder) if person not in people]
    return people


def _performers(order: Order, builder: Builder) -> list[Reference]:
    """The hospital, who assisted (OBR-34) and who wrote the report down (OBR-35), by field or by PRT."""
    found = [builder.hospital()]
    known: list[Reference] = []
    for at, role, code, display in _FUNCTIONS:
        for person in _people(order, (at,), (role,), builder):
            if person not in known:
                known.append(person)
                function = {"coding": [{"system": f"{tables.V3}ParticipationType", "code": code, "display": display}]}
                found.append({"extension": [{"url": _FUNCTION, "valueCodeableConcept": function}], **person})
    return found


def _of_specimens(groups: list[SpecimenGroup], builder: Builder) -> tuple[list[str], dict[str, Any]]:
    """What the specimens say of all results: flags of CodeSystem recognition-flag, and why there is no value.

    A refused specimen (SPM-21) is to be taken again: what was measured all the same is to be repeated.
    """
    if not groups:
        return [], {}
    flags = ["haemolysis"] if is_haemolysed(groups, builder) else []
    if any(map(is_rejected, groups)):
        flags.append("repeat-advised")
    return flags, rejection(groups, builder)


def add_specimen_observations(group: SpecimenGroup, specimen: Reference, report: Report, subject: Subject,
                              builder: Builder) -> None:
    """OBX that follow SPM: about the specimen, and no results of the report; once, if several OBR repeat the SPM."""
    reference, separator = specimen["reference"], builder.message.separators.field
    specimen_id = reference.partition("/")[2]
    of_specimen = report._replace(id=specimen_id, result=results_of(specimen_id, reference, builder),
                                  specimen={**specimen}, focus=specimen)
    for result in group.results:
        said = reference, result.obx.raw.split(separator, 2)[-1]  # but for the Set ID
        if said not in builder.observed:
            builder.observed.add(said)
            add_observation(result, of_specimen, subject, builder)


def _add_request(order: Order, subject: Subject, builder: Builder, concept: dict[str, Any], code: str,
                 numbers: Numbers, report_status: str, as_of: int | None) -> Reference:
    """The report's copy of its order: never newer than what an order message said, and of several reports' copies the
    newest counts; an older one is skipped, or it would stop that report."""
    key = request_key(numbers, code, shares_number(builder), builder)
    made = request_from(order, subject, builder, key, concept, numbers,
                        _request_status(order.orc, report_status, builder))
    return builder.add(made, as_of - COPY if as_of is not None else -COPY, "skip")


def _request_status(orc: Segment | None, report_status: str, builder: Builder) -> str:
    """ORC-5, else ORC-1 as far as the guide maps it, else as far as the report has come."""
    if orc is not None:
        sent = builder.source.table("ORC-5", orc.get(5)).upper()
        if status := tables.ORDER_STATUS.get(sent):
            return status
        if not orc.get(5) and (status := tables.ORDER_CONTROL_STATUS.get(orc.get(1).upper())) \
                and (status != "active" or report_status not in ("final", "corrected", "cancelled")):
            return status  # NW of a bedside analyser (ORU^R30) whose final result is here is no open order
    return tables.STATUS_BY_REPORT.get(report_status, "active")
