"""MDM: documents as DocumentReference, their bytes as Binary (v2.5.1 chapter 9; guide: OBX and NTE[DocumentReference]).

A document is its unique number (TXA-12): notification, content, edits and cancellation are versions of one resource.
A message without content (T01, T03, T05 …) leaves the content that is stored. A document that another has replaced is
superseded, whichever of the two comes first (`gateway.joining`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import imaging_report, tables, timestamps
from gateway.hl7v2.builder import DICOM_STUDIES, Builder, Reference, text_of
from gateway.hl7v2.datatypes import code_text, codeable, entity_identifier, entity_system
from gateway.hl7v2.documents import document
from gateway.hl7v2.enclosures import attachment, encapsulated, pointed_at
from gateway.hl7v2.message import Message, Part, Segment
from gateway.hl7v2.people import copied_at, encounter_from, hospital, patient_from, practitioner, told_time
from gateway.hl7v2.provenance import add_provenance
from gateway.hl7v2.request import (
    Numbers,
    Order,
    Result,
    Subject,
    numbers_of,
    request_from,
    request_key,
    shares_number,
)
from gateway.source import Amendment, Conversion, Remark, Resource, Source

#: Table 0270.
_TYPES: Final = {
    "AR": "Autopsy report", "CD": "Cardiodiagnostics", "CN": "Consultation", "DI": "Diagnostic imaging",
    "DS": "Discharge summary", "ED": "Emergency department report", "HP": "History and physical examination",
    "OP": "Operative report", "PC": "Psychiatric consultation", "PH": "Psychiatric history and physical examination",
    "PN": "Procedure note", "PR": "Progress note", "SP": "Surgical pathology", "TS": "Transfer summary",
}
#: Table 0271 → composition-status.
_COMPLETION: Final = {"AU": "final", "LA": "final", "DI": "preliminary", "DO": "preliminary", "IN": "preliminary",
                      "IP": "preliminary", "PA": "preliminary"}
_AUTHENTICATED: Final = ("AU", "LA")
#: Table 0273 → document-reference-status.
_AVAILABILITY: Final = {"AV": "current", "UN": "current", "OB": "superseded", "CA": "entered-in-error"}
#: Table 0272 → v3-Confidentiality.
_CONFIDENTIALITY: Final = {"V": ("V", "very restricted"), "R": ("R", "restricted"), "U": ("N", "normal")}
#: What the event says of the document in TXA-13: an addendum to it, or its replacement.
_RELATIONS: Final = {"T05": "appends", "T06": "appends", "T09": "replaces", "T10": "replaces"}
_EDITED: Final = ("T07", "T08")
_CANCELLED: Final = "T11"
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_PLAIN = "text/plain; charset=utf-8"


@dataclass(slots=True)
class _Document:
    """A TXA with the OBX and NTE that follow it."""

    txa: Segment
    results: list[Result] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)


def convert_documents(message: Message, source: Source) -> Conversion:
    """The resources of one MDM message, in dependency order; INVALID names what is missing."""
    builder = Builder(message, source)
    pid = message.first("PID")
    if pid is None:
        raise GatewayError(Category.INVALID, "no PID segment; send the patient", "PID", detail="required")
    orders, orcs, documents = _grouped(message)
    if not documents:
        raise GatewayError(Category.INVALID, "no TXA segment; send one for each document", "TXA", detail="required")
    hospital(builder)
    patient, key = patient_from(pid, builder)
    pv1 = message.first("PV1")
    encounter = encounter_from(pv1, patient, builder) if pv1 is not None else None
    subject = Subject(patient, key, encounter, [])
    replaced = [_add(one, orders, orcs, subject, builder) for one in documents]
    for parent in dict.fromkeys(filter(None, replaced)):
        _supersede(parent, builder)
        builder.conversion.replaceable.setdefault(parent, True)
    add_provenance(builder, message.first("EVN"))
    return builder.finished()


def _grouped(message: Message) -> tuple[list[Order], list[Segment], list[_Document]]:
    """Orders (an ORC stands before its OBR), ORC without OBR, and documents; NTE belong to what they follow."""
    orders: list[Order] = []
    orcs: list[Segment] = []
    documents: list[_Document] = []
    orc: Segment | None = None
    notes: list[Segment] = []
    timings: list[Segment] = []
    for segment in message.segments:
        if segment.name == "ORC":
            orcs.append(segment)
            orc, notes, timings = segment, [], []
        elif segment.name == "OBR":
            orders.append(Order(segment, orc, timings=timings if orc is not None else []))
            if orc is not None:
                orcs.remove(orc)
            orc, notes, timings = None, orders[-1].notes, orders[-1].timings
        elif segment.name == "TXA":
            documents.append(_Document(segment))
            notes = documents[-1].notes
        elif segment.name == "OBX" and documents:
            documents[-1].results.append(Result(segment))
            notes = documents[-1].notes
        elif segment.name == "NTE":
            notes.append(segment)
        elif segment.name == "TQ1":
            timings.append(segment)
    return orders, orcs, documents


def _add(one: _Document, orders: list[Order], orcs: list[Segment], subject: Subject, builder: Builder) -> str:
    """The resources of one document; returns the id of the document that it replaces, "" where none is."""
    txa, event = one.txa, builder.message.header.message_type[1] or builder.message.header.message_type[2][4:]
    made, number = _identified(one, orders, orcs, builder)
    if builder.distinct(made["id"]) != made["id"]:
        builder.conversion.remarks.append(Remark("TXA-12", "TXA-12 numbers two documents of this message; the first "
                                                 "counts, the other is kept in the original alone"))
        return ""
    if number:
        made["masterIdentifier"] = number
    made["status"], doc_status = _states(txa, event, builder)
    if doc_status:
        made["docStatus"] = doc_status
    if kind := _coded(txa, 2, "0270", _TYPES, builder):
        made["type"] = kind
    made["subject"] = {**subject.patient}
    if moment := _instant(txa, builder):
        made["date"] = moment
    if authors := _people(txa, (9, 5), builder):
        made["author"] = authors
    signed = _people(txa, (22,), builder)
    if not signed and builder.source.table("TXA-17", txa.get(17)).upper() in _AUTHENTICATED:
        signed = _people(txa, (10,), builder)
    if signed:
        made["authenticator"] = signed[0]
    made["custodian"] = builder.hospital()
    parent = _parent(txa, made["id"], builder)
    if parent and event in _RELATIONS:
        made["relatesTo"] = [{"code": _RELATIONS[event], "target": parent}]
    if title := txa.get(25):
        made["description"] = title
    if labels := _labels(txa, builder):
        made["securityLabel"] = labels
    content = _content(one, made["id"], subject, builder)
    made["content"] = content or [{"attachment": _no_content(txa)}]
    related = _related(one, orders, orcs, subject, builder) + ([parent] if parent and event not in _RELATIONS else [])
    if context := _context(txa, related, subject, builder):
        made["context"] = context
    states_availability = bool(txa.get(19)) or event == _CANCELLED
    builder.conversion.replaceable[made["id"]] = states_availability
    onto = _Onto(bool(content), states_availability)
    if content:
        builder.add_onto(made, builder.sent_at, onto)
    else:
        builder.conversion.amendments.append(Amendment(
            "DocumentReference", made["id"], lambda held: onto(held, made) if held else made, builder.sent_at))
    return parent["reference"].partition("/")[2] if parent and _RELATIONS.get(event) == "replaces" else ""


def _supersede(parent: str, builder: Builder) -> None:
    """A document that was replaced is superseded where it is current: in this message, or as it is stored."""
    conversion = builder.conversion
    for change in conversion.changes:
        if change.resource["id"] == parent:
            change.resource.update(_superseded(change.resource) or {})
            return
    for at, told in enumerate(conversion.amendments):
        if told.id == parent:
            def both(current: Resource | None, told: Amendment = told) -> Resource | None:
                made = told.change(current)
                return _superseded(made) or made
            conversion.amendments[at] = Amendment(told.resource_type, told.id, both, told.as_of, told.on_older)
            return
    conversion.amendments.append(Amendment("DocumentReference", parent, _superseded, builder.sent_at, "skip"))


@dataclass(frozen=True, slots=True)
class _Onto:
    """What a later message of a document makes of what is stored: it keeps what it relates to, that it was superseded,
    and its content where the message has none; CONFLICT where a message with content is the older one."""

    has_content: bool
    states_availability: bool

    def __call__(self, held: Resource, made: Resource, late: bool = False) -> Resource:
        kept: Resource = {}
        if "content" in held and not self.has_content:
            kept["content"] = held["content"]
        if "relatesTo" in held and "relatesTo" not in made:
            kept["relatesTo"] = held["relatesTo"]
        if held.get("status") == "superseded" and not self.states_availability:
            kept["status"] = "superseded"
        joined = {**made, **kept}
        if late and {**joined, "meta": None} != {**held, "meta": None}:
            raise GatewayError(Category.CONFLICT, "a later state of this document is stored already; send its newest "
                                                  "state", "MSH-7")
        return joined


def _superseded(current: Resource | None) -> Resource | None:
    return {**current, "status": "superseded"} if current and current.get("status") == "current" else None


def _identified(one: _Document, orders: list[Order], orcs: list[Segment], builder: Builder,
                ) -> tuple[Resource, dict[str, Any] | None]:
    """The document by TXA-12; without it by the filler's number (TXA-15, ORC-3, OBR-3), else the placer's, and type."""
    txa, source = one.txa, builder.source
    if number := entity_identifier(txa.first(12), "document", source, ""):
        return builder.resource("DocumentReference", f"{number['system']}|{number['value']}"), number
    for kind, at, own in (("filler", 15, 3), ("placer", 14, 2)):
        for part in (txa.first(at), *_numbers(orders, orcs, own)):
            if part.get(1):
                key = f"{entity_system(part, kind, source)}|{part.get(1)}|{code_text(txa.get(2))}"
                return builder.resource("DocumentReference", builder.distinct(key)), None
    raise GatewayError(Category.INVALID, f"TXA-12 does not number the document{txa.which()}, and no order does; "
                       "without a number a correction could not find it", "TXA-12", detail="required")


def _numbers(orders: list[Order], orcs: list[Segment], at: int) -> list[Part]:
    """The placer's (2) or filler's (3) numbers of the orders."""
    found = [part for order in orders if (part := numbers_of(order)[at - 2])]
    return found + [part for orc in orcs if (part := orc.first(at)).get(1)]


def _states(txa: Segment, event: str, builder: Builder) -> tuple[str, str]:
    """``status`` by TXA-19 and ``docStatus`` by TXA-17; the event's own word counts more."""
    if event == _CANCELLED:
        return "entered-in-error", "entered-in-error"
    status = _known(txa, 19, _AVAILABILITY, builder) or "current"
    doc_status = _known(txa, 17, _COMPLETION, builder)
    if status == "entered-in-error":
        return status, status
    return status, "amended" if event in _EDITED and doc_status == "final" else doc_status


def _known(txa: Segment, at: int, table: dict[str, str], builder: Builder) -> str:
    if not (sent := builder.source.table(f"TXA-{at}", txa.get(at)).upper()):
        return ""
    if found := table.get(sent):
        return found
    builder.conversion.remarks.append(Remark(f"TXA-{at}", f"TXA-{at} holds a status that neither the HL7 table nor the "
                                             "manifest knows; it is kept in the original alone"))
    return ""


def _coded(segment: Segment, at: int, table: str, displays: dict[str, str], builder: Builder) -> dict[str, Any]:
    """A coded field, its code in HL7's table where it is one of that and no other system is named."""
    place = f"{segment.name}-{at}"
    concept = codeable(segment.first(at), builder.source, place, table)
    for coding in concept.get("coding", ()):
        if coding["system"] == builder.source.system(f"table:{place}") and coding["code"].upper() in displays:
            coding.update(system=tables.V2 + table, code=coding["code"].upper())
            coding.setdefault("display", displays[coding["code"]])
    return concept


def _labels(txa: Segment, builder: Builder) -> list[dict[str, Any]]:
    """TXA-18 as v3-Confidentiality beside HL7's or the sender's own code."""
    concept = _coded(txa, 18, "0272", {"V": "Very restricted", "R": "Restricted", "U": "Usual control"}, builder)
    if not concept:
        return []
    if known := _CONFIDENTIALITY.get(builder.source.table("TXA-18", txa.get(18)).upper()):
        concept.setdefault("coding", []).insert(0, {"system": f"{tables.V3}Confidentiality", "code": known[0],
                                                    "display": known[1]})
    return [concept]


def _instant(txa: Segment, builder: Builder) -> str | None:
    """When it was made: TXA-6, else 8, 7, 4, the first that is exact to the minute."""
    for at in (6, 8, 7, 4):
        text = builder.time_text(txa, at)
        if text and timestamps.is_exact(text, builder.zone):
            return timestamps.instant(text, builder.zone)
    return None


def _people(txa: Segment, fields: tuple[int, ...], builder: Builder) -> list[Reference]:
    found = [person for at in fields for part in txa.repetitions(at) if (person := practitioner(part, builder))]
    return list({tuple(person.items()): person for person in found}.values())


def _parent(txa: Segment, own: str, builder: Builder) -> Reference | None:
    """TXA-13; a document is not its own parent."""
    number = entity_identifier(txa.first(13), "document", builder.source, "")
    if number is None:
        return None
    resource_id = builder.source.id_for("DocumentReference", f"{number['system']}|{number['value']}")
    return {"reference": f"DocumentReference/{resource_id}", "identifier": number} if resource_id != own else None


def _context(txa: Segment, related: list[Reference], subject: Subject, builder: Builder) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if subject.encounter:
        made["encounter"] = [{**subject.encounter}]
    if active := told_time(txa, 4, builder):
        made["period"] = {"start": active, "end": active}  # a moment: an open period would be found by no day
    pv1 = builder.message.first("PV1")
    if pv1 is not None and (service := builder.coded(pv1, 10, "0069")):
        made["practiceSetting"] = service
    if related:
        made["related"] = related
    return made


# ---------------------------------------------------------------- what it is about

def _related(one: _Document, orders: list[Order], orcs: list[Segment], subject: Subject, builder: Builder,
             ) -> list[Reference]:
    """The orders (ORC, OBR, TXA-14, TXA-15) and the images (OBX of a DICOM study)."""
    found: dict[str, Reference] = {}
    numbered: list[Order] = []  # what is ordered is not told
    for order in orders:
        if reference := _request(order, subject, builder):
            found[reference["reference"]] = reference
        else:
            numbered.append(order)
    told = {part.get(1) for order in orders if order not in numbered for part in numbers_of(order) if part}
    for part in (*_numbers(numbered, orcs, 2), *one.txa.repetitions(14)):
        if part.get(1) and part.get(1) not in told:
            reference = {"type": "ServiceRequest",
                         "identifier": entity_identifier(part, "placer", builder.source, "PLAC")}
            if not shares_number(builder):
                key = request_key(Numbers(part, None), "", False, builder)
                reference["reference"] = f"ServiceRequest/{builder.source.id_for('ServiceRequest', key)}"
            found[f"placer|{part.get(1)}"] = reference
    for part in (*_numbers(numbered, orcs, 3), one.txa.first(15)):
        if part.get(1) and part.get(1) not in told:
            found[f"filler|{part.get(1)}"] = {
                "type": "ServiceRequest", "identifier": entity_identifier(part, "filler", builder.source, "FILL")}
    group = Order(orders[0].obr if orders else one.txa, None, results=one.results)
    for study in imaging_report.studies_of(group, "", builder):
        found[study["reference"]] = study
    return list(found.values())


def _request(order: Order, subject: Subject, builder: Builder) -> Reference | None:
    """The document's copy of an order, as a report's: never newer than what an order message said."""
    numbers = numbers_of(order)
    if not numbers.any or not order.obr.raw_field(4):
        return None
    concept, known = builder.concept(order.obr, 4, "order")
    status = tables.STATUS_BY_REPORT.get(tables.REPORT_STATUS.get(order.obr.get(25).upper(), ""), "active")
    if order.orc is not None:
        sent = builder.source.table("ORC-5", order.orc.get(5)).upper()
        status = tables.ORDER_STATUS.get(sent) or tables.ORDER_CONTROL_STATUS.get(order.orc.get(1).upper()) or status
    key = request_key(numbers, known.code, shares_number(builder), builder)
    return builder.add(request_from(order, subject, builder, key, concept, numbers, status), copied_at(builder), "skip")


# ---------------------------------------------------------------- content

def _content(one: _Document, whole: str, subject: Subject, builder: Builder) -> list[dict[str, Any]]:
    """The text of all OBX in their order as one attachment, each ED and RP as another, and NTE as the last."""
    txa, patient = one.txa, subject.patient["reference"]
    found: list[dict[str, Any]] = []
    lines: list[str] = []
    text_at = 0
    for result in one.results:
        obx = result.obx
        if obx.get(11).upper() in ("D", "W") or obx.get(3) in DICOM_STUDIES:
            continue
        title = obx.get(3, 2) or obx.get(3, 5) or txa.get(16)
        enclosed, text = _enclosed(obx, builder)
        found += [attachment(enclosure, obx, title, whole, patient, builder) for enclosure in enclosed]
        if text is not None:
            text_at = text_at if lines else len(found)
            lines.append(text)
    if text := "\n".join(lines).strip():
        found.insert(text_at, document(builder, whole, _PLAIN, text.encode(), patient))
        if name := txa.get(16):
            found[text_at]["title"] = name
    if notes := "\n".join(text_of(nte.repetitions(3)) for nte in one.notes).strip():
        found.append(document(builder, whole, _PLAIN, notes.encode(), patient))
    if not found:
        return []
    created = told_time(txa, 8, builder) or told_time(txa, 7, builder) or told_time(txa, 6, builder)
    return [{"attachment": {**made, **({"creation": created} if created and "creation" not in made else {})}}
            for made in found]


def _enclosed(obx: Segment, builder: Builder) -> tuple[list[Any], str | None]:
    """The documents and links of an OBX, and its text; None where it has none."""
    kind = obx.get(2).upper()
    enclosed, lines = [], []
    for part in obx.repetitions(5):
        if kind in ("ED", "RP"):
            read = encapsulated(part, obx) if kind == "ED" else pointed_at(part)
            if read is not None:
                enclosed.append(read)
                continue
            if kind == "ED":
                continue
        if kind in ("CE", "CWE", "CNE", "CF"):
            lines.append(part.get(2) or part.get(9) or part.get(1))
        elif kind in ("NM", "SN"):
            number, unit = part.text.replace(part.delimiter, ""), builder.units(obx).get("unit", "")
            lines.append(f"{number} {unit}".strip())
        else:
            lines.append(part.text)
    if not lines and kind in ("TX", "FT", "ST", ""):
        lines.append("")  # an empty line of a text
    return enclosed, "\n".join(lines) if lines else None


def _no_content(txa: Segment) -> dict[str, Any]:
    """R4 requires an attachment: why there is none stands in its place."""
    made: dict[str, Any] = {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]}
    if name := txa.get(16):
        made["title"] = name
    return made
