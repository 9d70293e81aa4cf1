"""Patient, Practitioner, Organization and Encounter from PID, XCN, XON and PV1, as any message tells them.

What a result or an order says of its patient and visit is a copy: it creates what is unknown, the newest copy counts
among copies, and nothing that the patient administration itself said (ADT, `adt.py`) is undone by one. A copy never
stops a result: a time in it that is none is left out, with a remark.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import (
    address_from,
    codeable,
    contact_from,
    human_name,
    identifier,
    identifier_from,
    identifier_system,
    is_national,
)
from gateway.hl7v2.language import language_of
from gateway.hl7v2.message import Part, Segment
from gateway.identity import NATIONAL_ID_SYSTEM
from gateway.source import COPY, Remark, Resource

_MOTHERS_MAIDEN_NAME = "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName"
_BIRTH_TIME = "http://hl7.org/fhir/StructureDefinition/patient-birthTime"
_BIRTH_PLACE = "http://hl7.org/fhir/StructureDefinition/patient-birthPlace"
_RELIGION = "http://hl7.org/fhir/StructureDefinition/patient-religion"
_CITIZENSHIP = "http://hl7.org/fhir/StructureDefinition/patient-citizenship"
_NATIONALITY = "http://hl7.org/fhir/StructureDefinition/patient-nationality"
_ANIMAL = "http://hl7.org/fhir/StructureDefinition/patient-animal"


def hospital(builder: Builder) -> Reference:
    """The hospital itself, ``Organization/<institution>``."""
    source = builder.source
    made = builder.named("Organization", source.institution)
    made["identifier"] = [{"system": source.system("institution"), "value": source.institution}]
    made["name"] = source.name
    return builder.add(made, None, "skip")


def patient_from(pid: Segment, builder: Builder) -> tuple[Reference, str]:
    """PID as Patient, and the patient's key for the ids of other resources (guide: PID[Patient])."""
    made, key = patient_resource(pid, builder)
    return builder.add(made, copied_at(builder), "skip"), key


def copied_at(builder: Builder) -> int:
    """The ``as_of`` of what a message tells in passing: before all that patient administration said."""
    return (builder.sent_at or 0) - COPY


def patient_resource(pid: Segment, builder: Builder) -> tuple[Resource, str]:
    """PID as Patient, not yet taken over, and its key."""
    identifiers, main = _identifiers(pid, builder)
    made = builder.named("Patient", builder.source.patient_id(main["system"], main["value"]))
    if extensions := _extensions(pid, builder):
        made["extension"] = extensions
    made["identifier"] = identifiers
    if names := _names(pid):
        made["name"] = names
    if telecom := _telecom(pid):
        made["telecom"] = telecom
    if gender := gender_of(pid, 8, builder):
        made["gender"] = gender
    _birth(pid, builder, made)
    _death(pid, builder, made)
    if addresses := _addresses(pid):
        made["address"] = addresses
    if marital := _marital_status(pid, builder):
        made["maritalStatus"] = marital
    _multiple_birth(pid, made)
    if language := language_of(pid, 15, builder):
        made["communication"] = [{"language": language}]
    made["managingOrganization"] = {"reference": f"Organization/{builder.source.institution}"}
    return made, f"{main['system']}|{main['value']}"


def _names(pid: Segment) -> list[dict[str, Any]]:
    """PID-5 and PID-9; what the person is called by (XPN.15) is a nickname beside the name (guide: XPN)."""
    found = []
    for field in (5, 9):
        for part in pid.repetitions(field):
            if name := human_name(part):
                found.append(name)
            if len(part) > 14 and (called := part.get(15)):
                found.append({"use": "nickname", "text": called, "given": [called]})
    return found


def gender_of(segment: Segment, field: int, builder: Builder) -> str | None:
    """Table 0001 as AdministrativeGender; a word that neither the table nor the manifest knows is left out with a
    remark, for it must not stop a result or a visit."""
    if not (sent := segment.get(field)):
        return None
    place = f"{segment.name}-{field}"
    known = builder.source.table(place, sent).upper()
    gender = tables.GENDER.get(known)
    if gender is None and known.strip():
        builder.conversion.remarks.append(Remark(place, f"{place} holds a sex that neither the HL7 table nor the "
                                                 "manifest knows; it is left out, add it to the manifest's tables"))
    return gender


def _addresses(pid: Segment) -> list[dict[str, Any]]:
    addresses = [address for part in pid.repetitions(11) if (address := address_from(part))]
    if county := pid.get(12):
        if len(addresses) == 1 and "district" not in addresses[0]:
            addresses[0]["district"] = county
        elif not addresses or addresses[0].get("district") != county:
            addresses.append({"district": county})
    return addresses


def _extensions(pid: Segment, builder: Builder) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if mother := human_name(pid.first(6)):
        found.append({"url": _MOTHERS_MAIDEN_NAME, "valueString": mother.get("family") or mother["text"]})
    if pid.size < 18:
        return found
    if religion := builder.coded(pid, 17, "0006"):
        found.append({"url": _RELIGION, "valueCodeableConcept": religion})
    if place := pid.text(23).strip():
        found.append({"url": _BIRTH_PLACE, "valueAddress": {"text": place}})
    for field, url in ((26, _CITIZENSHIP), (28, _NATIONALITY), (39, _CITIZENSHIP)):
        if pid.raw_field(field):
            found += [{"url": url, "extension": [{"url": "code", "valueCodeableConcept": concept}]}
                      for part in pid.repetitions(field)
                      if (concept := codeable(part, builder.source, f"PID-{field}"))]
    animal = [{"url": url, "valueCodeableConcept": concept} for field, url in ((35, "species"), (36, "breed"))
              if (concept := builder.coded(pid, field))]
    if animal and animal[0]["url"] == "species":  # the extension needs it
        found.append({"url": _ANIMAL, "extension": animal})
    return found


def _identifiers(pid: Segment, builder: Builder) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The identifiers of PID-3, 2, 4 and 19, and the main one.

    Main is the first PID-3 typed MR or PI, else the first that is no national number, else the first. Its authority, if
    the manifest does not name it, is the hospital: so it is the same Patient as in the hospital's images
    (`Source.patient_system`).
    """
    source = builder.source
    identifiers, chosen = numbers_from(pid, 3, builder)
    if chosen is None:
        raise GatewayError(Category.INVALID, f"PID-3 holds no patient identifier{pid.which()}; send it", "PID-3",
                           detail="required")
    for field, default in ((2, ""), (4, "")):
        identifiers += [made for part in pid.repetitions(field)
                        if (made := identifier_from(part, "patient", source, default))]
    if (number := pid.get(19)).strip():
        identifiers.append(_social_number(number.strip(), builder))
    if licence := pid.get(20).strip():
        identifiers.append(_licence(licence, pid, builder))
    unique: dict[tuple[str, str], dict[str, Any]] = {}
    for made in identifiers:
        unique.setdefault((made["system"], made["value"]), made)
    return list(unique.values()), chosen


#: Types of PID-3 that are no number of the hospital's: they took the place of PID-20 and PID-19 in 2.7.
_OTHER_NUMBERS = {"DL": "licence", "SS": "social"}


def numbers_from(segment: Segment, field: int, builder: Builder,
                 ) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The patient identifiers of PID-3 or MRG-1, and the main one, as `_identifiers` says; None: there is none."""
    source = builder.source
    listed = [(made, part.get(5)) for part in segment.repetitions(field)
              if (made := identifier_from(part, _OTHER_NUMBERS.get(part.get(5).upper(), "patient"), source))]
    if not listed:
        return [], None
    chosen = next((i for i, kind in listed if kind.upper() in ("MR", "PI")), None) \
        or next((i for i, _ in listed if i["system"] != NATIONAL_ID_SYSTEM), listed[0][0])
    if chosen["system"].startswith(source.patient_system() + ":"):
        chosen["system"] = source.patient_system()  # as in a DICOM header, which names no authority
    return [made for made, _ in listed], chosen


def _licence(number: str, pid: Segment, builder: Builder) -> dict[str, Any]:
    """PID-20 (DLN)."""
    issuer = pid.get(20, 2)
    system = builder.source.identifier_systems.get(issuer) or builder.source.system("licence")
    made = identifier(number, f"{system}:{quote(issuer, safe='')}" if issuer and issuer not in
                      builder.source.identifier_systems else system, "DL")
    if expires := told_time(pid, 20, builder, 3):
        made["period"] = {"end": expires}
    return made


def told_time(segment: Segment, field: int, builder: Builder, component: int = 1) -> str | None:
    """A time as FHIR dateTime; one that is none is left out with a remark, for it must not stop a result or a visit."""
    if not segment.raw_field(field):
        return None
    try:
        return builder.date_time(segment, field, component)
    except GatewayError:
        builder.conversion.remarks.append(Remark(f"{segment.name}-{field}", f"{segment.name}-{field} is not a possible "
                                                 "date and time; it is left out, correct it and send it again"))
        return None


def _social_number(number: str, builder: Builder) -> dict[str, Any]:
    """PID-19: where the number has the form of the resident identity card it is that (versions up to 2.4 use it so)."""
    if system := builder.source.identifier_systems.get("PID-19"):
        return identifier(number, system, "NNCHN" if system == NATIONAL_ID_SYSTEM else "SB")
    if is_national("NI", number):
        return identifier(number, NATIONAL_ID_SYSTEM, "NNCHN")
    return identifier(number, builder.source.system("social"), "SB")


def _telecom(pid: Segment) -> list[dict[str, Any]]:
    found = [contact for field, use in ((13, "home"), (14, "work"), (40, "")) for part in pid.repetitions(field)
             if (contact := contact_from(part, use))]
    return list({repr(contact): contact for contact in found}.values())


def _birth(pid: Segment, builder: Builder, made: dict[str, Any]) -> None:
    if not (moment := told_time(pid, 7, builder)):
        return
    made["birthDate"] = moment[:10]
    if "T" in moment and "T00:00:00" not in moment:  # midnight is what senders write who know the day alone
        made["_birthDate"] = {"extension": [{"url": _BIRTH_TIME, "valueDateTime": moment}]}


def _death(pid: Segment, builder: Builder, made: dict[str, Any]) -> None:
    if died := told_time(pid, 29, builder):
        made["deceasedDateTime"] = died
    elif (indicator := pid.get(30).upper()) in ("Y", "N"):
        made["deceasedBoolean"] = indicator == "Y"


def _marital_status(pid: Segment, builder: Builder) -> dict[str, Any]:
    concept = builder.coded(pid, 16)
    code = builder.source.table("PID-16", pid.get(16)).upper()
    if found := tables.MARITAL_STATUS.get(code):
        concept.setdefault("coding", []).insert(0, {"system": f"{tables.V3}MaritalStatus", "code": found[0],
                                                    "display": found[1]})
    return concept


def _multiple_birth(pid: Segment, made: dict[str, Any]) -> None:
    order = pid.get(25)
    if order.isascii() and order.isdigit() and 0 < len(order) < 4:
        made["multipleBirthInteger"] = int(order)
    elif (indicator := pid.get(24).upper()) in ("Y", "N"):
        made["multipleBirthBoolean"] = indicator == "Y"


def practitioner(part: Part, builder: Builder) -> Reference | None:
    """XCN as a reference to a Practitioner; without an identifier only its name stands in the reference, for two
    physicians may share one."""
    if part.raw not in builder.people:
        builder.people[part.raw] = _practitioner(part, builder, part.part(9), part.get(13), human_name(part, 2, 10, 15))
    known = builder.people[part.raw]
    return {**known} if known else None


def named_person(part: Part, builder: Builder) -> Reference | None:
    """NDL as a reference to a Practitioner: the person is CNN, in the subcomponents of the first component."""
    person = part.part(1)
    if len(person) == 1 and part.get(2):  # senders up to 2.2 and careless ones write CN: components, not subcomponents
        return practitioner(part, builder)
    return _practitioner(person, builder, person.part(9), "", human_name(person, 2, 99, 99))


def _practitioner(part: Part, builder: Builder, authority: Part, kind: str, name: dict[str, Any] | None,
                  ) -> Reference | None:
    number = part.get(1).strip()
    if not number:
        return {"display": name["text"]} if name else None
    system = identifier_system(authority, "practitioner", builder.source)
    made = builder.resource("Practitioner", f"{system}|{number}")
    made["identifier"] = [identifier(number, system, kind)]
    if name:
        made["name"] = [name]
    reference = builder.add(made, builder.sent_at, "skip")
    return {**reference, "display": name["text"]} if name else reference


def organization_from(part: Part, builder: Builder) -> Reference | None:
    """XON as a reference to an Organization; None without name and number."""
    name, number = part.get(1), part.get(10) or part.get(3)
    if not name and not number:
        return None
    system = identifier_system(part.part(6), "organization", builder.source)
    made = builder.resource("Organization", f"{system}|{number}" if number else name)
    if number:
        made["identifier"] = [identifier(number, system, part.get(7))]
    if name:
        made["name"] = name
    reference = builder.add(made, builder.sent_at, "skip")
    return {**reference, "display": name} if name else reference


def performing_organization(obx: Segment, builder: Builder) -> Reference | None:
    """OBX-23 (XON) with OBX-24, else OBX-15 (CWE), as a reference to an Organization; None when neither is there."""
    key = obx.raw_field(23), obx.raw_field(24), obx.raw_field(15)
    if key not in builder.organizations:
        builder.organizations[key] = _organization(obx, builder)
    known = builder.organizations[key]
    return {**known} if known else None


def _organization(obx: Segment, builder: Builder) -> Reference | None:
    part = obx.first(23)
    if part:
        name, number = part.get(1), part.get(10) or part.get(3)
        authority, kind = part.part(6), part.get(7)
    else:
        part = obx.first(15)
        name, number = part.get(2) or part.get(9), part.get(1)
        authority, kind = Part("", "", builder.message.dialect), ""
    if not name and not number:
        return None
    system = identifier_system(authority, "organization", builder.source)
    made = builder.resource("Organization", f"{system}|{number}" if number else name)
    if number:
        made["identifier"] = [identifier(number, system, kind)]
    if name:
        made["name"] = name
    if address := address_from(obx.first(24)):
        made["address"] = [address]
    reference = builder.add(made, builder.sent_at, "skip")
    return {**reference, "display": name} if name else reference


_PARTICIPANTS = ((7, "ATND", "attender"), (8, "REF", "referrer"), (9, "CON", "consultant"), (17, "ADM", "admitter"),
                 (52, "PART", "Participation"))


def encounter_from(pv1: Segment, patient: Reference, builder: Builder) -> Reference | None:
    """PV1 as Encounter when it has a visit number (PV1-19): without one there is nothing to find it by again."""
    made = encounter_resource(pv1, patient, builder)
    return builder.add(made, copied_at(builder), "skip") if made else None


def encounter_resource(pv1: Segment, patient: Reference, builder: Builder) -> Resource | None:
    """PV1 as Encounter, not yet taken over (guide: PV1[Encounter]); None without a visit number."""
    number = identifier_from(pv1.first(19), "visit", builder.source, "VN")
    if number is None:
        return None
    made = builder.resource("Encounter", f"{number['system']}|{number['value']}")
    alternates = [i for part in pv1.repetitions(50) if (i := identifier_from(part, "visit", builder.source, "VN"))]
    made["identifier"] = [number, *(i for i in alternates if i != number)]
    _visit(pv1, patient, builder, made, _participants(pv1, builder))
    return made


def visit_from(pv1: Segment, patient: Reference, builder: Builder) -> Resource:
    """PV1 as what a verdict needs of an Encounter, whether or not a number makes it a resource to store."""
    made: Resource = {"resourceType": "Encounter"}
    if number := identifier_from(pv1.first(19), "visit", builder.source, "VN"):
        made["id"] = builder.source.id_for("Encounter", f"{number['system']}|{number['value']}")
    _visit(pv1, patient, builder, made, [])
    return made


def _visit(pv1: Segment, patient: Reference, builder: Builder, made: Resource,
           participants: list[dict[str, Any]]) -> None:
    source = builder.source
    kind = source.table("PV1-2", pv1.get(2)).upper()
    start, end = (told_time(pv1, 44, builder), told_time(pv1, 45, builder)) if pv1.size > 44 else (None, None)
    made["status"] = "finished" if end else tables.ENCOUNTER_STATUS.get(kind, "in-progress" if kind in
                                                                        tables.ENCOUNTER_CLASS else "unknown")
    made["class"] = _encounter_class(kind, pv1.get(2), builder)
    if admission := builder.coded(pv1, 4, "0007"):
        made["type"] = [admission]
    if service := builder.coded(pv1, 10, "0069"):
        made["serviceType"] = service
    made["subject"] = {**patient}
    if pv1.size > 54 and (episode := identifier_from(pv1.first(54), "episode", source)):
        made["episodeOfCare"] = [{"type": "EpisodeOfCare", "identifier": episode,
                                  **({"display": pv1.get(53)} if pv1.get(53) else {})}]
    if participants:
        made["participant"] = participants
    ends = (("start", start), ("end", end if not start or builder.in_order(pv1, 44, 45) else None))
    if period := {key: value for key, value in ends if value}:
        made["period"] = period
    if stay := _hospitalization(pv1, builder):
        made["hospitalization"] = stay
    if places := _places(pv1, kind):
        made["location"] = places
    made["serviceProvider"] = {"reference": f"Organization/{source.institution}"}


def _hospitalization(pv1: Segment, builder: Builder) -> dict[str, Any]:
    """PV1-5, 13 to 16 and 36 to 38."""
    if pv1.size < 6:
        return {}
    made: dict[str, Any] = {}
    if number := identifier_from(pv1.first(5), "preadmit", builder.source):
        made["preAdmissionIdentifier"] = number
    if source := builder.coded(pv1, 14, "0023"):
        made["admitSource"] = source
    if again := builder.coded(pv1, 13, "0092"):
        made["reAdmission"] = again
    for field, name, table in ((38, "dietPreference", "0114"), (16, "specialCourtesy", "0099"),
                               (15, "specialArrangement", "0009")):
        if pv1.raw_field(field) and (concepts := [concept for part in pv1.repetitions(field) if (
                concept := codeable(part, builder.source, f"PV1-{field}", table))]):
            made[name] = concepts
    if place := codeable(pv1.first(37).part(1), builder.source, "PV1-37", "0113") if pv1.size > 37 else {}:
        made["destination"] = {"display": place["text"]}
    if disposition := builder.coded(pv1, 36, "0112"):
        made["dischargeDisposition"] = disposition
    return made


#: Fields of PV1 that name places, and the Encounter.location.status that the guide gives each.
PLACES = ((3, "active"), (6, "completed"), (11, "active"), (42, "reserved"))


def _places(pv1: Segment, kind: str) -> list[dict[str, Any]]:
    found = []
    for field, status in PLACES:
        if field >= pv1.size or not pv1.raw_field(field):
            continue
        if place := " ".join(piece for piece in (pv1.get(field, at) for at in (1, 2, 3)) if piece):
            planned = field == 3 and kind == "P"
            found.append({"location": {"display": place}, "status": "planned" if planned else status})
    return found


def _encounter_class(kind: str, sent: str, builder: Builder) -> dict[str, Any]:
    if known := tables.ENCOUNTER_CLASS.get(kind):
        return dict(zip(("system", "code", "display"), known, strict=True))
    if sent:
        return {"system": builder.source.system("table:PV1-2"), "code": " ".join(sent.split())}
    return {"system": f"{tables.V3}NullFlavor", "code": "UNK", "display": "unknown"}


def _participants(pv1: Segment, builder: Builder) -> list[dict[str, Any]]:
    return [{"type": [{"coding": [{"system": f"{tables.V3}ParticipationType", "code": code, "display": display}]}],
             "individual": individual}
            for field, code, display in _PARTICIPANTS if pv1.raw_field(field) for part in pv1.repetitions(field)
            if (individual := practitioner(part, builder))]
