"""One order as ServiceRequest (guide: ORC[ServiceRequest], OBR[ServiceRequest], TQ1), from whichever message tells it.

Id: the placer's order number, which an order and its results share; only an order that has none goes by the filler's
number and the service code. So a result finds the order that it answers without a look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables
from gateway.hl7v2.builder import Builder, Reference, text_of
from gateway.hl7v2.datatypes import codeable, entity_identifier, entity_system
from gateway.hl7v2.message import Part, Segment
from gateway.hl7v2.participation import person_in
from gateway.hl7v2.people import practitioner
from gateway.hl7v2.timing import add_timing
from gateway.source import Remark, Resource


@dataclass(slots=True)
class Result:
    """An OBX with the NTE and PRT that follow it."""

    obx: Segment
    notes: list[Segment] = field(default_factory=list)
    participants: list[Segment] = field(default_factory=list)
    lines: Sequence[Segment] = ()  # the OBX of a text that was sent line by line, its own first


@dataclass(slots=True)
class SpecimenGroup:
    """SPECIMEN: an SPM, or its containers (SAC) alone, with what was observed of it."""

    spm: Segment | None
    containers: list[Segment] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)
    participants: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class Order:
    """An OBR with its ORC, and what follows it."""

    obr: Segment
    orc: Segment | None
    notes: list[Segment] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    specimens: list[SpecimenGroup] = field(default_factory=list)
    participants: list[Segment] = field(default_factory=list)
    timings: list[Segment] = field(default_factory=list)  # of an order that another message repeats


class Subject(NamedTuple):
    """Whose orders and results they are."""

    patient: Reference
    key: str
    encounter: Reference | None
    notes: list[Segment]


class Numbers(NamedTuple):
    """The numbers of an order: OBR's, else ORC's."""

    placer: Part | None
    filler: Part | None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.placer or self.filler)


def numbers_of(order: Order) -> Numbers:
    """Placer's and filler's number."""
    return Numbers(_number(order, 2), _number(order, 3))


def _number(order: Order, at: int) -> Part | None:
    part = order.obr.first(at)
    if not part.get(1) and order.orc is not None:
        part = order.orc.first(at)
    return part if part.get(1) else None


def request_key(numbers: Numbers, code: str, shared: bool, builder: Builder) -> str:
    """What the id of the ServiceRequest is made of. ``shared``: one placer number stands for several orders."""
    source = builder.source
    if numbers.placer is not None:
        key = f"{entity_system(numbers.placer, 'placer', source)}|{numbers.placer.get(1)}"
        return f"{key}|{code}" if shared else key
    assert numbers.filler is not None
    return f"{entity_system(numbers.filler, 'filler', source)}|{numbers.filler.get(1)}|{code}"


def shares_number(builder: Builder) -> bool:
    """Whether the manifest says that one placer number stands for a form of several orders."""
    return bool(builder.source.habits.get("orders_share_number"))


def order_identifiers(numbers: Numbers, builder: Builder) -> list[dict[str, Any]]:
    """PLAC and FILL of table 0203."""
    found = ((numbers.placer, "placer", "PLAC"), (numbers.filler, "filler", "FILL"))
    return [made for part, kind, code in found
            if part and (made := entity_identifier(part, kind, builder.source, code))]


def group_number(orc: Segment, builder: Builder) -> dict[str, Any] | None:
    """ORC-4, the placer's number of the group; as of 2.7 a pair (EIP) whose second number is the filler's."""
    number = orc.first(4)
    pair = number.part(1)
    return entity_identifier(pair if len(pair) > 1 else number, "placer-group", builder.source, "PGN")


def notes_of(segments: list[Segment], builder: Builder) -> list[dict[str, Any]]:
    """NTE segments as Annotations: each segment and each repetition of NTE-3 is a line.

    NTE-5 is the author and NTE-6 the time: lines of another author or time are another Annotation.
    """
    if all(nte.size < 6 for nte in segments):
        text = "\n".join(text_of(nte.repetitions(3)) for nte in segments).strip()
        return [{"text": text}] if text else []
    found: list[tuple[tuple[str, str], dict[str, Any]]] = []
    for nte in segments:
        if not (text := text_of(nte.repetitions(3))):
            continue
        said = nte.raw_field(5), nte.raw_field(6)
        if found and (found[-1][0] == said or not any(said)):
            found[-1][1]["text"] += f"\n{text}"
            continue
        note: dict[str, Any] = {}
        if author := practitioner(nte.first(5), builder):
            note["authorReference"] = author
        if moment := builder.date_time(nte, 6):
            note["time"] = moment
        found.append((said, {**note, "text": text}))
    return [note for _, note in found]


def section_of(obr: Segment, builder: Builder) -> tuple[dict[str, Any] | None, str]:
    """OBR-24 as category, and the observation category that it surely means."""
    sent = obr.get(24)
    code = builder.source.table("OBR-24", sent)
    if display := tables.SERVICE_SECTION.get(code.upper()):
        concept: dict[str, Any] = {"coding": [{"system": f"{tables.V2}0074", "code": code.upper(), "display": display}]}
        if sent and sent != code:
            concept["text"] = sent
        return concept, tables.OBSERVATION_CATEGORY.get(code.upper(), "")
    return builder.coded(obr, 24) or None, ""


def request_from(order: Order, subject: Subject, builder: Builder, key: str, concept: dict[str, Any],
                 numbers: Numbers, status: str) -> Resource:
    """What an ORU and an order message both say of an order."""
    obr, orc, source = order.obr, order.orc, builder.source
    made = builder.resource("ServiceRequest", key)
    made["identifier"] = order_identifiers(numbers, builder)
    if orc is not None and (group := group_number(orc, builder)):
        made["requisition"] = group
    made["status"] = status
    made["intent"] = "reflex-order" if obr.get(11).upper() == "G" else "order"
    sent = obr.get(5) or obr.get(27, 6) or (orc.get(7, 6) if orc is not None else "")
    if priority := tables.PRIORITY.get(source.table("OBR-5", sent).upper()):
        made["priority"] = priority
    made["code"] = {name: list(value) if name == "coding" else value for name, value in concept.items()}
    made["subject"] = {**subject.patient}
    if subject.encounter:
        made["encounter"] = {**subject.encounter}
    if wanted := builder.date_time(obr, 6):
        made["occurrenceDateTime"] = wanted
    if orc is not None and orc.get(1).upper() == "NW" and (ordered := builder.date_time(orc, 9)):
        made["authoredOn"] = ordered
    requester = obr.first(16) or (orc.first(12) if orc is not None else obr.first(16))
    person = practitioner(requester, builder) if requester else None
    if person is None and order.participants:
        person = person_in(order.participants, ("OP",), builder)
    if person:
        made["requester"] = person
    if reasons := [reason for part in obr.repetitions(31) if (reason := codeable(part, source, "OBR-31"))]:
        made["reasonCode"] = reasons
    if clinical := obr.text(13).strip():
        made["supportingInfo"] = [{"display": clinical}]
    if notes := notes_of(order.notes, builder):
        made["note"] = notes
    if obr.size > 46 and (details := [detail for at in (46, 47) for part in obr.repetitions(at)
                                      if (detail := codeable(part, source, f"OBR-{at}"))]):
        made["orderDetail"] = details
    if orc is not None and orc.size > 29:
        _for_whom(made, orc, builder)
    if order.timings:
        _time_again(made, order, builder)
    return made


def _for_whom(made: Resource, orc: Segment, builder: Builder) -> None:
    """ORC-29 (table 0482), an order for an inpatient or an outpatient, as locationCode."""
    if place := builder.coded(orc, 29, "0482"):
        if known := tables.ORDER_PLACE.get(builder.source.table("ORC-29", orc.get(29)).upper()):
            place.setdefault("coding", []).insert(0, {**known})
        made["locationCode"] = [place]


def _time_again(made: Resource, order: Order, builder: Builder) -> None:
    """TQ1 of a result or a document: when, how often and how urgently its order was wanted; a time in it that is none
    stops no result."""
    if "priority" not in made and (priority := next((found for tq1 in order.timings if (
            found := tables.PRIORITY.get(builder.source.table("TQ1-9", tq1.get(9)).upper()))), None)):
        made["priority"] = priority
    try:
        if "occurrenceDateTime" not in made and (wanted := next((moment for tq1 in order.timings if (
                moment := builder.date_time(tq1, 7))), None)):
            made["occurrenceDateTime"] = wanted
        add_timing(made, order.timings, order.obr, None, builder)
    except GatewayError as error:
        builder.conversion.remarks.append(Remark(error.where, f"the order's time is left out: {error.message}"))


def require_number(numbers: Numbers, obr: Segment, what: str, place: str) -> None:
    """INVALID when an order or a report has no number to find it by again."""
    if not numbers.any:
        raise GatewayError(Category.INVALID, f"neither OBR-3 nor OBR-2 numbers the {what}{obr.which()}; without a "
                           f"number a correction could not find it: send {place}", place, detail="required")
