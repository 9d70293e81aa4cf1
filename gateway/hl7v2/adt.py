"""ADT: patients, visits, merges (HL7 v2.5.1 chapter 3; guide: ADT message maps).

Each PID opens a group: PD1, NK1, PV1, PV2, ROL, OBX, AL1, IAM, DG1, PR1, IN1 and MRG behind it belong to it, in
whatever order. What ADT says of a Patient and an Encounter is authoritative: see `people.py` for what others say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import adt_tables, merge, registration, timestamps
from gateway.hl7v2.adt_details import (
    add_allergy,
    add_diagnosis,
    add_financial_class,
    add_mother,
    add_next_of_kin,
    add_snapshot,
    carers_in,
    is_taken_away,
    role_participant,
)
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import human_name, identifier_from
from gateway.hl7v2.insurance import coverages_from
from gateway.hl7v2.message import Message, Segment
from gateway.hl7v2.observation import add_observation
from gateway.hl7v2.people import hospital, numbers_from, patient_resource
from gateway.hl7v2.procedures import add_procedure
from gateway.hl7v2.provenance import add_provenance
from gateway.hl7v2.request import Result, Subject
from gateway.hl7v2.visit import Event, Extra, add_visit
from gateway.source import Amendment, Conversion, Remark, Resource, Source

#: Segment → those that belong to it when they follow it (v2.8.2 3.3.1, 3.3.60).
_BEHIND = {"AL1": ("NTE",), "IAM": ("NTE", "IAR"), "PR1": ("ROL",), "IN1": ("ROL",), "IN2": ("ROL",), "IN3": ("ROL",)}


@dataclass(slots=True)
class _Group:
    """A PID and what belongs to it."""

    pid: Segment
    of: dict[str, list[Segment]] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    visit_roles: list[Segment] = field(default_factory=list)
    behind: dict[tuple[str, int], list[Segment]] = field(default_factory=dict)  # what belongs to one segment
    last: Segment | None = None  # to which NTE, IAR and ROL may belong

    def all(self, name: str) -> list[Segment]:
        return self.of.get(name, [])

    def following(self, segment: Segment) -> list[Segment]:
        return self.behind.get((segment.name, segment.sequence), [])

    def first(self, name: str) -> Segment | None:
        found = self.of.get(name)
        return found[0] if found else None


@dataclass(slots=True)
class _Person:
    """A group's Patient on the way to a Change."""

    group: _Group
    resource: Resource
    key: str
    merged: list[Resource] = field(default_factory=list)  # the Patients that MRG names


def convert_adt(message: Message, source: Source) -> Conversion:
    """The resources of one ADT message; INVALID names what is missing."""
    builder = Builder(message, source)
    event = _event(message, builder)
    hospital(builder)
    groups = _grouped(message)
    people = [_Person(group, *patient_resource(group.pid, builder)) for group in groups]
    links = _links(people, event, builder)
    for person in people:
        _add_patient(person, event, links, builder)
    for person in people:
        _add_visit(person, event, builder)
    add_provenance(builder, message.first("EVN"))
    return builder.finished()


def _event(message: Message, builder: Builder) -> Event:
    """The trigger (MSH-9.2, else EVN-1), when it was recorded and when it happened.

    Recorded: EVN-2 to the second and not after MSH-7, else MSH-7. Happened: EVN-6, for an admission PV1-44, for a
    discharge PV1-45, else when it was recorded.
    """
    header, evn = message.header, message.first("EVN")
    code = header.message_type[1] or header.message_type[2].partition("_")[2] or (evn.get(1) if evn else "")
    code = code.upper()
    if code not in adt_tables.EVENTS:
        raise GatewayError(Category.UNSUPPORTED, "this ADT event is not taken; README.md of gateway/hl7v2 lists those "
                           "that are", "EVN-1" if not header.message_type[1] else "MSH-9", detail="event")
    recorded = evn.get(2) if evn else ""
    as_of, sent = timestamps.as_of_us(recorded, builder.zone), builder.sent_at
    exact = as_of is not None and len(recorded) >= 14 and (sent is None or as_of <= sent)
    if not exact and sent is not None:
        as_of, recorded = sent, header.time
    pv1 = message.first("PV1")
    told = [(evn, 6)] if evn else []
    if pv1 is not None and code in ("A01", "A04", "A03"):
        told.append((pv1, 45 if code == "A03" else 44))
    for segment, at in told:
        text = builder.time_text(segment, at)
        if timestamps.as_of_us(text, builder.zone) is not None:
            return Event(code, as_of, timestamps.date_time(text, builder.zone))
    at_least = timestamps.as_of_us(recorded, builder.zone) is not None
    return Event(code, as_of, timestamps.date_time(recorded, builder.zone) if at_least else "")


def _grouped(message: Message) -> list[_Group]:
    groups: list[_Group] = []
    before: list[Segment] = []
    for segment in message.segments:
        name = segment.name
        if name == "PID":
            groups.append(_Group(segment))
        elif not groups:
            before.append(segment)
        else:
            _take(groups[-1], segment)
    if not groups:
        raise GatewayError(Category.INVALID, "no PID segment says whom the event is about; send it", "PID",
                           detail="required")
    for segment in before:  # PV1 or NK1 before PID: real, and harmless
        if segment.name not in ("MSH", "SFT", "EVN", "UAC"):
            _take(groups[0], segment)
    return groups


def _take(group: _Group, segment: Segment) -> None:
    name, last = segment.name, group.last
    if last is not None and name in _BEHIND.get(last.name, ()):
        group.behind.setdefault((last.name, last.sequence), []).append(segment)
        return
    if name == "NTE" and last is not None and last.name == "OBX":
        group.results[-1].notes.append(segment)
        return
    if name == "OBX":
        group.results.append(Result(segment))
    elif name == "ROL" and "PV1" in group.of:
        group.visit_roles.append(segment)
    else:
        group.of.setdefault(name, []).append(segment)
    if name not in ("NTE", "PRT", "ARV"):
        group.last = segment


# ---------------------------------------------------------------- who is one

def _links(people: list[_Person], event: Event, builder: Builder) -> merge.Links:
    """What the message says of which Patients are one."""
    links = merge.Links()
    since = timestamps.instant_of(event.as_of) if event.as_of is not None else ""
    if event.code in (adt_tables.LINK, adt_tables.UNLINK):
        ids = list(dict.fromkeys(person.resource["id"] for person in people))
        if len(ids) < 2:
            raise GatewayError(Category.INVALID, "two PID segments with different patient numbers say who is linked; "
                               "send both", "PID", detail="required")
        for other in ids[1:]:
            links.say(ids[0], other, "seealso" if event.code == adt_tables.LINK else "", since, "PID-3")
    elif event.code in adt_tables.MERGE | adt_tables.CHANGE:
        for person in people:
            for mrg in person.group.all("MRG"):
                _merge(person, mrg, event, since, links, builder)
        if not any(person.group.all("MRG") for person in people):
            raise GatewayError(Category.INVALID, "no MRG segment says who is merged or what the number was; send it",
                               "MRG", detail="required")
    elif event.code == "A43":
        for person in people:
            for mrg in person.group.all("MRG"):
                _, main = numbers_from(mrg, 1, builder)
                if main and builder.source.patient_id(main["system"], main["value"]) != person.resource["id"]:
                    builder.conversion.remarks.append(Remark("MRG-1", "A43 moves a number between persons and merges "
                                                             "no patients; send A40 to merge these two"))
    return links


def _merge(person: _Person, mrg: Segment, event: Event, since: str, links: merge.Links, builder: Builder) -> None:
    """MRG-1 (MRG-4 where that is all) into PID-3: a Patient each, where they are numbers of one kind."""
    identifiers, main = numbers_from(mrg, 1, builder)
    place = "MRG-1"
    if main is None:
        identifiers, main = numbers_from(mrg, 4, builder)
        place = "MRG-4"
    if main is None:
        raise GatewayError(Category.INVALID, f"MRG-1 names no prior patient number{mrg.which()}; send it", "MRG-1",
                           detail="required")
    old = builder.source.patient_id(main["system"], main["value"])
    if old == person.resource["id"]:
        if event.code in ("A34", "A40", "A47") and len(identifiers) == 1:
            raise GatewayError(Category.INVALID, f"{place} and PID-3 name the same patient{mrg.which()}: there is "
                               "nothing to merge; send the two numbers", place, detail="data-type")
        return
    systems = {one["system"] for one in person.resource["identifier"]}
    if main["system"] != person.key.rpartition("|")[0] and main["system"] in systems:
        return  # another of the patient's identifiers changed (A47 of a card's number): the Patient's list says it
    made = builder.named("Patient", old)
    made["identifier"] = identifiers
    if name := human_name(mrg.first(7)):
        made["name"] = [name]
    made["managingOrganization"] = builder.hospital()
    person.merged.append(made)
    links.say(person.resource["id"], old, "replaces", since, place)


# ---------------------------------------------------------------- the Patient

def _add_patient(person: _Person, event: Event, links: merge.Links, builder: Builder) -> None:
    made, pid = person.resource, person.group.pid
    registration.complete(made, person.group.first("PD1"), carers_in(person.group.all("ROL"), builder), event.code,
                          builder)
    edits = links.of(made["id"])
    change = registration.onto(pid, event.code, edits)
    survivor = merge.apply(made, edits, known=False)
    if not person.merged:
        builder.add_onto(survivor, event.as_of, change)
        return
    newest = [survivor]  # what the survivor becomes: whom it replaces is compared with it

    def kept(stored: Resource, sent: Resource, late: bool) -> Resource:
        newest[0] = change(stored, sent, late)
        return newest[0]

    builder.add_onto(survivor, event.as_of, kept)
    for old in person.merged:
        said = links.of(old["id"])
        builder.add_onto(merge.apply(old, said, known=False), event.as_of,
                         lambda stored, sent, late, said=said:  # type: ignore[misc]
                         merge.apply(stored, said, survivor=newest[0]))


def _add_visit(person: _Person, event: Event, builder: Builder) -> None:
    group, as_of = person.group, event.as_of
    patient = {"reference": f"Patient/{person.resource['id']}"}
    identity = person.resource["id"]
    for name in ("NK1", "AL1"):
        told = [add_next_of_kin(one, patient, as_of, builder) if name == "NK1" else
                add_allergy(one, group.following(one), patient, as_of, builder) for one in group.all(name)]
        if event.code in adt_tables.SNAPSHOT and (any(told) or _none(group.all(name))):
            add_snapshot(group.all(name), identity, patient["reference"], told, as_of, builder)
    for iam in group.all("IAM"):
        add_allergy(iam, group.following(iam), patient, as_of, builder)
    if group.pid.raw_field(21):
        add_mother(group.pid, patient, as_of, builder)
    encounter = _add_encounter(person, patient, event, builder)
    whole = (encounter or patient)["reference"].partition("/")[2]
    for pr1 in group.all("PR1"):
        add_procedure(pr1, group.following(pr1), patient, encounter, whole, as_of, builder)
    insurances, _ = coverages_from(group.all("IN1"), patient, person.key, builder)
    pv1 = group.first("PV1")
    if pv1 is not None and not insurances and pv1.raw_field(20):
        add_financial_class(pv1, patient, person.key, as_of, builder)
    subject = Subject(patient, person.key, encounter, group.all("NTE"))
    for result in group.results:
        _add_aside(result, subject, builder)


def _add_aside(result: Result, subject: Subject, builder: Builder) -> None:
    """OBX: what is observed beside the event. One that is wrong is left out with a remark, and one that is older than
    ours is passed over: neither stops what the event tells of the person."""
    conversion = builder.conversion
    before, documents = len(conversion.changes), len(conversion.documents)
    try:
        add_observation(result, None, subject, builder)
    except GatewayError as error:
        where = error.where.replace("OBX-", f"OBX[{result.obx.sequence}]-", 1)
        conversion.remarks.append(Remark(where, f"this OBX is left out: {error.message}"))
        conversion.changes[before:] = [one for one in conversion.changes[before:]
                                       if one.resource["resourceType"] != "Binary"]  # a document that nothing shows
        del conversion.documents[documents:]
        return
    for at, change in enumerate(conversion.changes[before:], before):
        if change.on_older == "refuse":
            conversion.changes[at] = replace(change, on_older="skip")


def _none(segments: list[Segment]) -> bool:
    """``AL1|1|""`` or ``AL1|1||""``: there are none."""
    return len(segments) == 1 and any(segments[0].is_null(at) for at in (2, 3))


def _add_encounter(person: _Person, patient: Reference, event: Event, builder: Builder) -> Reference | None:
    """The visit with its diagnoses; the diagnoses of a patient without a visit number hang on the patient."""
    group = person.group
    pv1 = group.first("PV1")
    visit = identifier_from(pv1.first(19), "visit", builder.source, "VN") if pv1 is not None else None
    encounter = None
    if visit is not None:
        key = f"{visit['system']}|{visit['value']}"
        encounter = {"reference": f"Encounter/{builder.source.id_for('Encounter', key)}"}
    elif pv1 is not None and event.code in adt_tables.STATUS:
        builder.conversion.remarks.append(Remark("PV1-19", "no visit number names the visit: it is not kept, for no "
                                                 "later event could find it again; send PV1-19"))
    whole = encounter["reference"].partition("/")[2] if encounter else person.resource["id"]
    told, diagnoses = [], []
    for at, dg1 in enumerate(group.all("DG1"), 1):
        condition, named = add_diagnosis(dg1, at, patient, encounter, whole, event.as_of, builder)
        told.append(condition)
        if named:
            diagnoses.append(named)
    if event.code in adt_tables.SNAPSHOT - adt_tables.DISCHARGE and any(told):
        add_snapshot(group.all("DG1"), whole, patient["reference"], told, event.as_of, builder)
    if pv1 is None or encounter is None:
        return None
    roles = [one for rol in group.visit_roles if not is_taken_away(rol) for one in role_participant(rol, builder)]
    gone = [one for rol in group.visit_roles if is_taken_away(rol) for one in role_participant(rol, builder)]
    number = identifier_from(group.pid.first(18), "account", builder.source, "AN") if group.pid.raw_field(18) else None
    account = {"type": "Account", "identifier": number} if number else None
    add_visit(pv1, patient, event, Extra(group.first("PV2"), roles, gone, diagnoses, account), builder)
    if event.code in adt_tables.VISIT:
        for mrg in group.all("MRG"):
            _replace_visit(mrg, encounter, event, builder)
    return encounter


def _replace_visit(mrg: Segment, encounter: Reference, event: Event, builder: Builder) -> None:
    """MRG-5: the former visit is part of the one that stays, and no visit of its own any more (A42, A50)."""
    prior = identifier_from(mrg.first(5), "visit", builder.source, "VN")
    if prior is None:
        raise GatewayError(Category.INVALID, f"MRG-5 names no prior visit number{mrg.which()}; send it", "MRG-5",
                           detail="required")
    old = builder.source.id_for("Encounter", f"{prior['system']}|{prior['value']}")
    if f"Encounter/{old}" == encounter["reference"]:
        raise GatewayError(Category.INVALID, f"MRG-5 and PV1-19 name the same visit{mrg.which()}", "MRG-5",
                           detail="data-type")
    builder.conversion.amendments.append(Amendment(
        "Encounter", old, lambda held: held and {**held, "status": "entered-in-error", "partOf": {**encounter}},
        event.as_of, "apply"))
