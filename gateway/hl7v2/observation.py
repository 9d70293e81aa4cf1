"""One OBX of a report, or of a patient or specimen, as Observation (guide: OBX map)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import code_text, decimal, entity_identifier
from gateway.hl7v2.enclosures import attachment
from gateway.hl7v2.memory import Known, Said, fresh, fresh_ranges
from gateway.hl7v2.message import Segment
from gateway.hl7v2.participation import device_in, director, director_in, organization_in, people_in
from gateway.hl7v2.people import performing_organization, practitioner
from gateway.hl7v2.request import Result, Subject, notes_of
from gateway.hl7v2.specimen import specimen_named
from gateway.hl7v2.values import VALUE_ATTACHMENT, Value, values_of
from gateway.source import Remark, Resource
from gateway.terminology import BASE, ITEMS

_SUB_ID = "http://hl7.org/fhir/StructureDefinition/observation-v2-subid"
_NATURE_OF_TEST = "http://hl7.org/fhir/StructureDefinition/observation-nature-of-abnormal-test"
_ANALYSIS_TIME = "http://hl7.org/fhir/StructureDefinition/observation-analysis-date-time"
_ALTERNATE_CODES = "http://hl7.org/fhir/StructureDefinition/alternate-codes"
_FLAG = f"{BASE}/CodeSystem/recognition-flag"
#: Types of which a text is not what its sender said.
_TYPED = frozenset(("NM", "DT", "TM", "TS", "DTM", "DR", "NR", "SI", "MO", "CP", "CQ"))
#: A text or a document without OBX-3 is that of the report as a whole.
_OF_THE_REPORT = ("TX", "FT", "ED", "RP")
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


class Report(NamedTuple):
    """What the Observations of a report share; lists and dicts of it stand in each of them."""

    id: str
    result: Callable[[str], Resource]  # begins one: `results_of`
    as_of: int | None
    category: list[dict[str, Any]]  # `category_of`
    effective: dict[str, Any]
    specimen: Reference | None
    forms: list[dict[str, Any]]
    flags: list[str]  # of CodeSystem recognition-flag
    rejection: dict[str, Any]  # why its results have no value, when the laboratory refused the specimen
    focus: Reference | None = None  # the specimen, when the observation is about that and no result
    known: Known | None = None  # OBR-4


def results_of(report_id: str, key: str, builder: Builder) -> Callable[[str], Resource]:
    """What begins an Observation of a report from its code and OBX-4. ``key``: what the id of the report is made of."""
    return builder.parts_of(report_id, "Observation", f"{key}|")


def category_of(category: str) -> list[dict[str, Any]]:
    """Observation.category for "laboratory" or "imaging"; empty for neither."""
    return [{"coding": [{"system": _CATEGORY, "code": category, "display": tables.CATEGORY_DISPLAY[category]}]}] \
        if category else []


def add_observation(result: Result, report: Report | None, subject: Subject, builder: Builder) -> Reference:
    """One OBX with its NTE as Observation; without a report it is an observation of the patient (2.7 and later)."""
    obx = result.obx
    said = builder.said(obx)
    concept, known = _concept(obx, said, report, builder)
    sub_id = "" if result.lines else said.sub_id  # numbers of lines
    made = _begun(obx, known.code, sub_id, report, subject, builder)
    number = builder.number(obx) if said.numeric else None  # what nearly all results are
    values = _values(result, said.units, known.text, made["id"], report, subject, builder) if number is None else []
    long = obx.size > 15  # few senders fill more than 14 fields
    if (sub_id or values or long or said.nature) and (extension := _extensions(obx, sub_id, values, builder)):
        made["extension"] = extension
    if long and obx.raw_field(21) and (own := entity_identifier(obx.first(21), "observation", builder.source, "FILL")):
        made["identifier"] = [own]
    sent, made["status"] = said.state or builder.state(obx, 11, tables.OBSERVATION_STATUS)
    if sent == "X":
        made["_status"] = {"extension": [{"url": _ALTERNATE_CODES, "valueCodeableConcept": {
            "coding": [{"system": f"{tables.V2}0085", "code": "X"}]}}]}
    if report and report.category:
        made["category"] = report.category
    made["code"] = concept
    made["subject"] = subject.patient
    if report and report.focus:
        made["focus"] = [{**report.focus}]
    if subject.encounter:
        made["encounter"] = subject.encounter
    if observed := builder.date_time(obx, 14):
        made["effectiveDateTime"] = observed
    elif report:
        made.update(report.effective)
    made["performer"] = _performers(result, builder) if long or result.participants else builder.performers
    if number is not None:
        made["valueQuantity"] = {"value": number, **said.units}
    else:
        _put_value(made, obx, sent, values, report.rejection if report else {})
    if said.flags:
        made["interpretation"] = builder.interpretation(said)
    if result.notes and (notes := notes_of(result.notes, builder)):
        made["note"] = notes
    if long:
        _put_details(made, obx, builder)
    _put_material(made, result, long, report, builder)
    if said.ranges:
        made["referenceRange"] = fresh_ranges(said.ranges)
    if len(values) > 1 and len(several := [value for value in values if value[0] != "valueAttachment"]) > 1:
        made["component"] = [value.put({"code": fresh(concept)}) for value in several]
    if report is None:
        return builder.add(made, builder.sent_at, "refuse")
    if known.part:
        builder.parts[f"Observation/{made['id']}"] = known.part
    return builder.add(made, report.as_of, "skip" if report.focus else "refuse")


def _concept(obx: Segment, said: Said, report: Report | None, builder: Builder) -> tuple[dict[str, Any], Known]:
    """OBX-3; a document or a text without one has the name of its report."""
    known = said.known
    if known is None and report is not None and report.known is not None and obx.raw_field(2) in _OF_THE_REPORT:
        return _name_of(report.known)
    known = known or builder.known(obx, 3)  # refuses it
    if not known.mapped:
        builder.count(known, "test", said.units.get("unit", ""), "OBX-3")
    if builder.organism_codes and known.code in builder.organism_codes:
        builder.may_belong = True
    return fresh(known.concept), known


def _begun(obx: Segment, code: str, sub_id: str, report: Report | None, subject: Subject, builder: Builder) -> Resource:
    """The resource with its id, and with the flags of its specimen."""
    if report is None:
        return builder.resource("Observation", builder.distinct(f"{subject.key}|{code}|{sub_id}|{obx.get(14)}"))
    made = report.result(f"{code}|{sub_id}")
    if report.flags and report.focus is None:
        made["meta"]["tag"] = [{"system": _FLAG, "code": flag} for flag in report.flags]
    return made


def _values(result: Result, units: dict[str, str], title: str, own_id: str, report: Report | None, subject: Subject,
            builder: Builder) -> list[Value]:
    """OBX-5, its documents taken over."""
    obx = result.obx
    values = values_of(obx, units, builder.source, result.lines)
    if values and (values[0].name == "valueAttachment" or len(values) > 1):
        return _attached(values, obx, title, own_id, report, subject, builder)
    if values and values[0].name == "valueString" and obx.raw_field(2) in _TYPED:
        builder.conversion.remarks.append(Remark(f"OBX[{obx.sequence}]-5", "OBX-5 is not of the type that OBX-2 names; "
                                                                           "kept as text"))
    return values


def _put_material(made: Resource, result: Result, long: bool, report: Report | None, builder: Builder) -> None:
    """What was examined, and with what."""
    if long and result.obx.size > 33 and (specimens := _own_specimens(result.obx, builder)):
        made["specimen"] = specimens[0]
    elif report and report.specimen:
        made["specimen"] = report.specimen
    if (long or result.participants) and (device := _device(result, builder)):
        made["device"] = {"type": "Device", "identifier": device}


def _name_of(report: Known) -> tuple[dict[str, Any], Known]:
    """The report's own name and the hospital's code for it; not the unified item, of which this is no result."""
    text = report.text or report.code
    codings = [{**coding} for coding in report.concept.get("coding", ()) if coding["system"] != ITEMS]
    return {"coding": codings, "text": text}, Known({}, "", "", text, True)


def _put_details(made: Resource, obx: Segment, builder: Builder) -> None:
    """OBX-20 and OBX-17; FHIR has one of each, so that further ones stand in the text."""
    for name, at in (("bodySite", 20), ("method", 17)):
        if detail := builder.coded(obx, at):
            made[name] = detail
            if len(parts := obx.repetitions(at)) > 1:
                detail["text"] = "; ".join(part.get(9) or part.get(2) or part.get(1) for part in parts)


def _performers(result: Result, builder: Builder) -> list[Reference]:
    """OBX-16 (PRT RO), the performing organization (OBX-23, OBX-15, PRT PO) and its director (OBX-25, PRT POMD); the
    hospital itself where no organization is named."""
    obx, participants = result.obx, result.participants
    people = [person for part in obx.repetitions(16) if (person := practitioner(part, builder))]
    organization = performing_organization(obx, builder) if obx.raw_field(23) or obx.raw_field(15) else None
    if participants:
        people += [person for person in people_in(participants, ("RO",), builder) if person not in people]
        organization = organization or organization_in(participants, ("PO",), builder)
    place = organization or builder.hospital()
    head = director(obx.first(25), place, builder) if obx.size > 25 and obx.raw_field(25) else None
    if head is None and participants:
        head = director_in(participants, place, builder)
    return [*people, place, head] if head else [*people, place]


def _own_specimens(obx: Segment, builder: Builder) -> list[Reference]:
    """OBX-33, when it names one specimen: FHIR has no place for several."""
    named = [specimen for part in obx.repetitions(33) if (specimen := specimen_named(part, builder))]
    return named if len(named) == 1 else []


def _device(result: Result, builder: Builder) -> dict[str, Any] | None:
    """The identifier of OBX-18, else of PRT-10."""
    if result.obx.raw_field(18) and (number := entity_identifier(result.obx.first(18), "device", builder.source, "")):
        return number
    return device_in(result.participants, builder) if result.participants else None


def _put_value(made: Resource, obx: Segment, sent_status: str, values: list[Value], rejection: dict[str, Any]) -> None:
    """One value, or why there is none; several become components (``add_observation``)."""
    if len(values) > 1:
        values = [value for value in values if value[0] != "valueAttachment"] or values
    if len(values) > 1 and values[0][0] != "valueAttachment":
        return
    if values:
        if values[0].name == "valueAttachment":  # R4 has no such value: it is in the report's presentedForm
            made["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": "unsupported"}]}
        else:
            values[0].put(made)
        return
    if sent_status == "U":
        raise GatewayError(Category.INVALID, f"OBX-11 U makes a result final without its value{obx.which()}; send the "
                           "value again with status F", "OBX-5", detail="required")
    status = made["status"]
    if rejection and sent_status != "N":
        made["dataAbsentReason"] = fresh(rejection)
        return
    reason = "temp-unknown" if status in ("registered", "preliminary") else "unknown"
    if sent_status == "N":
        reason = "not-asked"
    made["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": reason}]}


def _extensions(obx: Segment, sub_id: str, values: list[Value], builder: Builder) -> list[dict[str, Any]]:
    extension: list[dict[str, Any]] = []
    if sub_id:
        builder.may_belong = True
        extension.append({"url": _SUB_ID, "extension": _sub_identifier(obx, sub_id)})
    extension += _nature_of_test(obx, builder)
    if obx.size > 19 and (analysed := builder.date_time(obx, 19)):
        extension.append({"url": _ANALYSIS_TIME, "valueDateTime": analysed})
    for value in values:
        if value.name == "valueAttachment":
            extension.append({"url": VALUE_ATTACHMENT, "valueAttachment": value.content})
    return extension


def _sub_identifier(obx: Segment, sub_id: str) -> list[dict[str, Any]]:
    """OBX-4: its text, and what OG tells of it as of 2.8.2 (guide: OG[Extension-Subidentifier])."""
    made: list[dict[str, Any]] = [{"url": "original-sub-identifier", "valueString": sub_id}]
    part = obx.first(4)
    if len(part) > 1:
        if original := part.get(1):
            made[0]["valueString"] = original
        else:
            made.clear()
        made += [{"url": name, "valueDecimal": number} for name, at in (("group", 2), ("sequence", 3))
                 if (number := decimal(part.get(at))) is not None]
        if identifier := part.get(4):
            made.append({"url": "identifier", "valueString": identifier})
    return made or [{"url": "original-sub-identifier", "valueString": sub_id}]


def _nature_of_test(obx: Segment, builder: Builder) -> list[dict[str, Any]]:
    """OBX-10, what the range depends on."""
    made = []
    for part in obx.repetitions(10):
        sent = code_text(part.get(1))
        if display := tables.NATURE_OF_TEST.get(code := builder.source.table("OBX-10", sent).upper()):
            made.append({"coding": [{"system": f"{tables.V2}0080", "code": code, "display": display}]})
        elif sent:
            made.append({"coding": [{"system": builder.source.system("table:OBX-10"), "code": sent}]})
    return [{"url": _NATURE_OF_TEST, "valueCodeableConcept": concept} for concept in made]


def _attached(values: list[Value], obx: Segment, title: str, own_id: str, report: Report | None, subject: Subject,
              builder: Builder) -> list[Value]:
    """The values with their documents taken over, which stand in the report's presentedForm too."""
    made = []
    for value in values:
        if value.name == "valueAttachment":
            value = value._replace(content=attachment(value.content, obx, title, report.id if report else own_id,
                                                      subject.patient["reference"], builder))
            if report and value.content not in report.forms:
                report.forms.append({**value.content})
        made.append(value)
    return made
