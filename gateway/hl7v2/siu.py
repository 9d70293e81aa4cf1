"""SIU: appointments as Appointment (v2.5.1 chapter 10; guide: PID[Appointment], NTE[Appointment-Comment]).

An appointment is its filler's number (SCH-2), else its placer's: booking, rescheduling, cancellation are versions of
one resource. A message that tells no resources (no AIS, AIG, AIL, AIP) leaves those that are stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables, timestamps
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import codeable, decimal, entity_identifier
from gateway.hl7v2.location import location_from
from gateway.hl7v2.message import Message, Part, Segment
from gateway.hl7v2.order_details import answer_line
from gateway.hl7v2.people import copied_at, encounter_resource, hospital, patient_from, practitioner
from gateway.hl7v2.provenance import add_provenance
from gateway.hl7v2.request import Numbers, notes_of, request_key, shares_number
from gateway.source import Amendment, Conversion, Remark, Resource, Source
from gateway.terminology import ucum

#: What the event itself says of the appointment, whatever SCH-25 says.
_ENDED: Final = {"S15": "cancelled", "S16": "cancelled", "S17": "entered-in-error", "S26": "noshow"}
#: Events taken: new, rescheduled, modified, ended, and changes of single services or resources.
EVENTS: Final = ("S12", "S13", "S14", "S15", "S16", "S17", "S18", "S19", "S20", "S21", "S22", "S26")
#: Table 0278 → appointmentstatus.
_STATUS: Final = {
    "PENDING": "pending", "WAITLIST": "waitlist", "BOOKED": "booked", "OVERBOOK": "booked", "BLOCKED": "booked",
    "STARTED": "checked-in", "COMPLETE": "fulfilled", "CANCELLED": "cancelled", "DC": "cancelled",
    "DELETED": "entered-in-error", "NOSHOW": "noshow",
}
#: Table 0278 of one resource → participationstatus.
_TAKES_PART: Final = {
    "PENDING": "needs-action", "WAITLIST": "needs-action", "BOOKED": "accepted", "OVERBOOK": "accepted",
    "BLOCKED": "accepted", "STARTED": "accepted", "COMPLETE": "accepted", "CANCELLED": "declined", "DC": "declined",
    "DELETED": "declined", "NOSHOW": "declined",
}
_TAKES_PART_IN: Final = {"pending": "needs-action", "waitlist": "needs-action", "cancelled": "declined",
                         "entered-in-error": "declined", "noshow": "declined"}
#: Tables 0276 and 0277: SCH-7 and SCH-8, which senders mix up.
_REASONS: Final = {"CHECKUP": "A routine check-up", "EMERGENCY": "Emergency appointment",
                   "FOLLOWUP": "A follow up visit", "ROUTINE": "Routine appointment", "WALKIN": "Walk-in"}
_TYPES: Final = {"COMPLETE": "Complete", "NORMAL": "Normal", "TENTATIVE": "Tentative"}
#: Minutes of a unit.
_MINUTES: Final = {
    **dict.fromkeys(("S", "SEC", "SECS", "SECOND", "SECONDS", "秒"), Decimal(1) / 60),
    **dict.fromkeys(("MIN", "MINS", "MINUTE", "MINUTES", "M", "分", "分钟"), Decimal(1)),
    **dict.fromkeys(("H", "HR", "HRS", "HOUR", "HOURS", "时", "小时"), Decimal(60)),
}
_NOTE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Appointment.note"
_SUBJECT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Appointment.subject"
_ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
                          "valueCode": "unknown"}]}


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where a segment of a service or resource holds its start, duration, unit and status."""

    start: int
    duration: int
    unit: int
    status: int


_KINDS: Final = {"AIS": _Kind(4, 7, 8, 10), "AIG": _Kind(8, 11, 12, 14), "AIL": _Kind(6, 9, 10, 12),
                 "AIP": _Kind(6, 9, 10, 12)}


@dataclass(slots=True)
class _Patient:
    """PID, and the PV1 that follows it."""

    pid: Segment
    pv1: Segment | None = None


@dataclass(slots=True)
class _Read:
    """The segments of one message."""

    sch: Segment
    tq1: Segment | None = None
    notes: list[Segment] = field(default_factory=list)  # of the appointment
    patients: list[_Patient] = field(default_factory=list)
    diagnoses: list[Segment] = field(default_factory=list)
    observed: list[Segment] = field(default_factory=list)
    resources: list[Segment] = field(default_factory=list)  # AIS, AIG, AIL, AIP, but for those that are taken away
    told: bool = False  # whether there is any of these
    remarks: list[Segment] = field(default_factory=list)  # NTE of services and resources


def convert_appointments(message: Message, source: Source) -> Conversion:
    """The resources of one SIU message, in dependency order; INVALID names what is missing."""
    builder = Builder(message, source)
    read = _gathered(message)
    made = _numbered(read.sch, builder)
    appointment = {"reference": f"Appointment/{made['id']}"}
    hospital(builder)
    patients = [_patient(one, appointment, builder) for one in read.patients]
    _fill(made, read, patients, builder)
    event = message.header.message_type[1] or message.header.message_type[2][4:]
    if read.told or event == "S12":
        builder.add(made, builder.sent_at, "refuse")
    else:
        builder.conversion.amendments.append(Amendment(
            "Appointment", made["id"], lambda current: _on_top(current, made, len(patients)), builder.sent_at))
    add_provenance(builder)
    return builder.finished()


def _gathered(message: Message) -> _Read:
    sch = message.first("SCH")
    if sch is None:
        raise GatewayError(Category.INVALID, "no SCH segment; send the appointment", "SCH", detail="required")
    read = _Read(sch)
    for segment in message.segments:
        name = segment.name
        if name == "TQ1" and read.tq1 is None:
            read.tq1 = segment
        elif name == "PID":
            read.patients.append(_Patient(segment))
        elif name == "PV1" and read.patients and read.patients[-1].pv1 is None:
            read.patients[-1].pv1 = segment
        elif name == "DG1":
            read.diagnoses.append(segment)
        elif name == "OBX":
            read.observed.append(segment)
        elif name in _KINDS:
            read.told = True
            if segment.get(2).upper() != "D":  # table 0206: taken away
                read.resources.append(segment)
        elif name == "NTE":
            (read.remarks if read.told else read.notes).append(segment)
    return read


def _numbered(sch: Segment, builder: Builder) -> Resource:
    """The Appointment by SCH-2, else SCH-1, and the occurrence (SCH-3) of one that repeats."""
    filler = entity_identifier(sch.first(2), "appointment", builder.source, "FILL")
    placer = entity_identifier(sch.first(1), "appointment-placer", builder.source, "PLAC")
    if (number := filler or placer) is None:
        raise GatewayError(Category.INVALID, "neither SCH-2 nor SCH-1 numbers the appointment; without a number a "
                           "change could not find it: send SCH-2", "SCH-2", detail="required")
    occurrence = sch.get(3)
    key = f"{number['system']}|{number['value']}" + (f"|{occurrence}" if occurrence not in ("", "0") else "")
    made = builder.resource("Appointment", key)
    made["identifier"] = [one for one in (placer, filler) if one]
    return made


def _patient(one: _Patient, appointment: Reference, builder: Builder) -> Reference:
    """PID as Patient; PV1 as the Encounter that the appointment is for: planned, unless it has begun (PV1-44)."""
    patient, _ = patient_from(one.pid, builder)
    visit = encounter_resource(one.pv1, patient, builder) if one.pv1 is not None else None
    if visit is not None:
        if "period" not in visit:
            visit["status"] = "planned"
        visit["appointment"] = [{**appointment}]
        builder.add(visit, copied_at(builder), "skip")
    return patient


def _fill(made: Resource, read: _Read, patients: list[Reference], builder: Builder) -> None:
    sch, source = read.sch, builder.source
    extension: list[dict[str, Any]] = [{"url": _SUBJECT, "valueReference": {**patients[0]}}] if patients else []
    extension += [{"url": _NOTE, "valueAnnotation": note} for segments in (read.notes, read.remarks)
                  for note in notes_of(segments, builder)]
    if extension:
        made["extension"] = extension
    made["status"] = status = _status(sch, builder)
    if status == "cancelled" and (reason := builder.coded(sch, 6)):
        made["cancelationReason"] = reason
    services = [builder.concept(ais, 3, "order") for ais in read.resources if ais.name == "AIS" and ais.raw_field(3)]
    if services:
        made["serviceType"] = list({str(concept): concept for concept, _ in services}.values())
    style, reason = _style(sch, builder)
    if style:
        made["appointmentType"] = style
    reasons = [*([reason] if reason else []),
               *(found for dg1 in read.diagnoses if (found := builder.coded(dg1, 3) or _text(dg1, 4)))]
    if reasons:
        made["reasonCode"] = reasons
    if said := [line for obx in read.observed if (line := answer_line(obx))]:
        made["supportingInformation"] = [{"display": line} for line in said]
    _put_time(made, read, builder)
    if notes := notes_of(read.notes, builder):
        made["comment"] = "\n".join(note["text"] for note in notes)
    if orders := _orders(sch, [known.code for _, known in services], builder):
        made["basedOn"] = orders
    ours = _TAKES_PART_IN.get(status, "accepted")
    if ours == "accepted" and source.table("SCH-8", sch.get(8)).upper() == "TENTATIVE":
        ours = "tentative"
    participants = [{"actor": {**patient}, "status": ours} for patient in patients]
    for segment in read.resources:
        participants += _taking_part(segment, ours, builder)
    made["participant"] = _unique(participants) or [{"actor": {"display": source.name}, "status": ours}]


def _on_top(current: Resource | None, made: Resource, patients: int) -> Resource:
    """A message that tells no resources, on top of what is stored: its own words count, the rest stays."""
    if current is None:
        return made
    kept = {name: value for name, value in current.items() if name != "cancelationReason"}
    told = {name: value for name, value in made.items() if name != "participant"}
    if "start" in current and "start" not in made:
        told = {name: value for name, value in told.items() if name not in ("_start", "_end")}
    elif "start" in made or "requestedPeriod" in made:
        for name in ("start", "end", "_start", "_end", "minutesDuration", "requestedPeriod"):
            kept.pop(name, None)
    if "basedOn" in told:
        told["basedOn"] = _orders_known(told["basedOn"], current.get("basedOn", []))
    status = made["participant"][0]["status"]
    before = [{**one, "status": status} for one in current.get("participant", ())]
    new = made["participant"][:patients]
    actors = [one.get("actor") for one in new]
    return {**kept, **told, "participant": new + [one for one in before if one.get("actor") not in actors]}


def _orders_known(told: list[Reference], stored: list[Reference]) -> list[Reference]:
    """The orders told; one by its number alone is what that number was when the service was told with it."""
    found: list[Reference] = []
    for one in told:
        same = [] if "reference" in one else [ref for ref in stored if ref.get("identifier") == one["identifier"]]
        found += [ref for ref in same or [one] if ref not in found]
    return found


def _status(sch: Segment, builder: Builder) -> str:
    """The event where it ends the appointment, else SCH-25, else booked: what the event says."""
    event = builder.message.header.message_type[1] or builder.message.header.message_type[2][4:]
    if ended := _ENDED.get(event):
        return ended
    sent = builder.source.table("SCH-25", sch.get(25)).upper()
    if sent and sent not in _STATUS:
        builder.conversion.remarks.append(Remark("SCH-25", "SCH-25 holds a status that neither the HL7 table nor the "
                                                 "manifest knows; the event counts, so the appointment is booked"))
    return _STATUS.get(sent, "booked")


def _style(sch: Segment, builder: Builder) -> tuple[dict[str, Any], dict[str, Any]]:
    """appointmentType and reasonCode: a code of table 0276 is the type, in whichever of SCH-7 and SCH-8 it stands."""
    seventh, eighth = builder.coded(sch, 7), builder.coded(sch, 8)
    style: dict[str, Any] = {}
    reason = seventh
    for at, concept in ((7, seventh), (8, eighth)):
        code = builder.source.table(f"SCH-{at}", sch.get(at)).upper()
        if code in _REASONS and not style:
            style = _standard(concept, f"SCH-{at}", "0276", code, _REASONS[code], builder)
            reason = {} if at == 7 else reason
    code = builder.source.table("SCH-8", sch.get(8)).upper()
    if not style and eighth:
        normal = _TYPES.get(code)
        style = _standard(eighth, "SCH-8", "0277", normal, normal, builder) if normal else eighth
    return style, reason


def _standard(concept: dict[str, Any], place: str, table: str, code: str, display: str,
              builder: Builder) -> dict[str, Any]:
    """The concept with HL7's coding first; the sender's own stays where it is another code."""
    coding = {"system": tables.V2 + table, "code": code, "display": display}
    own = [one for one in concept.get("coding", ()) if one["system"] != coding["system"] and not (
        one["system"] == builder.source.system(f"table:{place}") and one["code"].upper() == code.upper())]
    return {**concept, "coding": [coding, *own]}


def _text(segment: Segment, at: int) -> dict[str, Any]:
    text = segment.text(at).strip()
    return {"text": text} if text else {}


# ---------------------------------------------------------------- when

def _put_time(made: Resource, read: _Read, builder: Builder) -> None:
    """Start and end, which R4 wants together; a day without a time of day is a requestedPeriod."""
    begin, end = _times(read, builder)
    minutes = _duration(read)
    start = begin and timestamps.instant(begin[0], builder.zone, begin[1])
    finish = timestamps.instant(end[0], builder.zone, end[1]) if end else None
    if start and finish and begin and end:
        first, last = (timestamps.as_of_us(text, builder.zone) for text in (begin[0], end[0]))
        if first is not None and last is not None and last < first:
            builder.conversion.remarks.append(Remark(end[1], f"{end[1]} lies before the start; the end is left out"))
            finish = None
    if start and not finish and minutes:
        finish = timestamps.later(start, minutes)
    for name, moment in (("start", start), ("end", finish)):
        if moment and start:
            made[name] = moment
        elif made["status"] not in ("cancelled", "waitlist", "entered-in-error") or start:  # app-2, app-3
            made[f"_{name}"] = _ABSENT
    if minutes:
        made["minutesDuration"] = minutes
    if begin and not start:
        made["requestedPeriod"] = [{"start": timestamps.date_time(begin[0], builder.zone, begin[1]),
                                    **({"end": timestamps.date_time(end[0], builder.zone, end[1])} if end else {})}]


def _times(read: _Read, builder: Builder) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """Text and place of start and end: TQ1-7 and 8, else SCH-11 (up to 2.4), else the first of AIS, AIG, AIL, AIP."""
    sources = [(read.tq1, 7, 1, 8, 1, "TQ1-7", "TQ1-8")] if read.tq1 is not None else []
    sources.append((read.sch, 11, 4, 11, 5, "SCH-11", "SCH-11"))
    for segment, at, component, end_at, end_component, place, end_place in sources:
        assert segment is not None
        if text := builder.time_text(segment, at, component):
            end = builder.time_text(segment, end_at, end_component)
            return (text, place), (end, end_place) if end else None
    starts = [(text, f"{segment.name}-{_KINDS[segment.name].start}") for segment in read.resources
              if (text := builder.time_text(segment, _KINDS[segment.name].start))]
    known = [one for one in starts if timestamps.as_of_us(one[0], builder.zone) is not None]
    first = min(known, key=lambda one: timestamps.as_of_us(one[0], builder.zone) or 0) if known else None
    return first or (starts[0] if starts else None), None


def _duration(read: _Read) -> int | None:
    """Whole minutes of SCH-9, else of the first service or resource; a number without a known unit says nothing."""
    pairs = [(read.sch.get(9), read.sch.first(10))]
    pairs += [(segment.get(_KINDS[segment.name].duration), segment.first(_KINDS[segment.name].unit))
              for segment in read.resources]
    for number, unit in pairs:
        count, each = decimal(number), _minutes_of(unit)
        if count is not None and each:
            minutes = round(count * each, 6)
            return int(minutes) if 0 < minutes < 2 ** 31 and minutes == int(minutes) else None
    return None


def _minutes_of(unit: Part) -> Decimal | None:
    for at in (1, 2):
        sent = unit.get(at).strip()
        if sent and (known := _MINUTES.get(sent.upper()) or _MINUTES.get((ucum(sent) or "").upper())):
            return known
    return None


# ---------------------------------------------------------------- what for, who and where

def _orders(sch: Segment, services: list[str], builder: Builder) -> list[Reference]:
    """SCH-26, else SCH-27, as the ServiceRequests that order messages and results make of these numbers."""
    found: dict[str, Reference] = {}
    at, kind, code = (26, "placer", "PLAC") if sch.get(26) else (27, "filler", "FILL")
    for part in sch.repetitions(at):
        if (number := entity_identifier(part, kind, builder.source, code)) is None:
            continue
        shared = shares_number(builder)
        numbers = Numbers(part, None) if kind == "placer" else Numbers(None, part)
        by_code = shared or kind == "filler"
        for service in services if by_code else ("",):
            key = request_key(numbers, service, shared, builder)
            name = f"ServiceRequest/{builder.source.id_for('ServiceRequest', key)}"
            found[name] = {"reference": name, "identifier": number}
        if by_code and not services:
            found[number["value"]] = {"type": "ServiceRequest", "identifier": number}
    return list(found.values())


def _taking_part(segment: Segment, ours: str, builder: Builder) -> list[dict[str, Any]]:
    """A person, place or thing; a service (AIS) is no participant."""
    name, source = segment.name, builder.source
    actors: list[Reference] = []
    if name == "AIP":
        actors = [person for part in segment.repetitions(3) if (person := practitioner(part, builder))]
    elif name == "AIL":
        actors = [place for part in segment.repetitions(3) if (place := location_from(part, builder))]
    elif name == "AIG" and (thing := codeable(segment.first(3), source, "AIG-3")):
        # What it is only the hospital knows: a device, a room, a team. So it is named and not made a resource.
        coding, text = thing.get("coding", [{}])[0], thing.get("text")
        actors = [{**({"identifier": {"system": coding["system"], "value": coding["code"]}} if coding else {}),
                   **({"display": text} if text else {})}]
    sent = source.table(f"{name}-{_KINDS[name].status}", segment.get(_KINDS[name].status)).upper()
    # An appointment that has ended frees everybody, whatever their own status was.
    status = ours if ours == "declined" else _TAKES_PART.get(sent, ours)
    kind = codeable(segment.first(4), source, f"{name}-4") if name in ("AIP", "AIG") else {}
    return [{**({"type": [kind]} if kind else {}), "actor": actor, "status": status} for actor in actors]


def _unique(participants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each actor once in each role: several groups (RGS) may name the same."""
    return list({f"{one['actor'].get('reference') or one['actor']}|{one.get('type')}": one
                 for one in participants}.values())
