"""What hangs on a patient or a visit in ADT: next of kin, allergies, diagnoses, roles, financial class.

NK1, AL1 and DG1 have no action code: a message that sends them sends all of them, and what it does not send any more is
retired (v2.5.1 2.10.4.1, snapshot mode). None at all says nothing; ``""`` in the first says that there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.errors import GatewayError
from gateway.hl7v2 import adt_tables, tables
from gateway.hl7v2.builder import Builder, Reference, text_of
from gateway.hl7v2.datatypes import address_from, code_text, codeable, contact_from, human_name, identifier_from
from gateway.hl7v2.language import language_of
from gateway.hl7v2.location import location_from
from gateway.hl7v2.message import Segment
from gateway.hl7v2.people import gender_of, organization_from, practitioner, told_time
from gateway.hl7v2.request import notes_of
from gateway.source import Remark, Resource, Snapshot

_CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
_VERIFIED = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"
_CONDITION = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_CONDITION_VERIFIED = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
_KINDS = {"AL1": "AllergyIntolerance", "NK1": "RelatedPerson", "DG1": "Condition"}


def _id(reference: Reference) -> str:
    return str(reference["reference"]).partition("/")[2]


def _coded(system: str, code: str, display: str = "") -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, **({"display": display} if display else {})}]}


def add_snapshot(segments: list[Segment], whole: str, owner: str, told: list[str], as_of: int | None,
                 builder: Builder) -> None:
    """Retire the stored parts of ``whole`` that these segments of one name told before and do not tell now."""
    if segments:
        kind = _KINDS[segments[0].name]
        builder.conversion.snapshots.append(Snapshot(kind, whole, frozenset(told), _RETIRE[kind](owner), as_of))


def _retire_person(owner: str) -> Callable[[Resource], Resource | None]:
    def retire(held: Resource) -> Resource | None:
        if held.get("patient", {}).get("reference") != owner or held.get("active") is False:
            return None
        return {**held, "active": False}
    return retire


def _retire_allergy(owner: str) -> Callable[[Resource], Resource | None]:
    def retire(held: Resource) -> Resource | None:
        if held.get("patient", {}).get("reference") != owner or "clinicalStatus" not in held:
            return None
        made = {**held, "clinicalStatus": _coded(_CLINICAL, "inactive", "Inactive")}
        return made if made != held else None
    return retire


def _retire_diagnosis(owner: str) -> Callable[[Resource], Resource | None]:
    def retire(held: Resource) -> Resource | None:
        if held.get("subject", {}).get("reference") != owner or "clinicalStatus" not in held:
            return None
        made = {**held, "clinicalStatus": _coded(_CONDITION, "inactive", "Inactive")}
        return made if made != held else None
    return retire


_RETIRE = {"RelatedPerson": _retire_person, "AllergyIntolerance": _retire_allergy, "Condition": _retire_diagnosis}


# ---------------------------------------------------------------- next of kin

def add_next_of_kin(nk1: Segment, patient: Reference, as_of: int | None, builder: Builder) -> str:
    """NK1 as RelatedPerson; its id, "" when it names nobody. Who has no number is told apart by name and role."""
    names = [name for field in (2, 30) if nk1.raw_field(field) for part in nk1.repetitions(field)
             if (name := human_name(part))]
    firm = nk1.get(13)
    if not names and not firm:
        return ""
    numbers = [number for field in (33, 12) if nk1.raw_field(field) for part in nk1.repetitions(field)
               if (number := identifier_from(part, "related", builder.source))]
    roles = _roles(nk1, builder)
    key = f"{numbers[0]['system']}|{numbers[0]['value']}" if numbers else \
        f"{names[0]['text'] if names else firm}|{nk1.get(3)}|{nk1.get(7)}"
    made = builder.part(_id(patient), "RelatedPerson", builder.distinct(f"NK1|{_id(patient)}|{key}"))
    if numbers:
        made["identifier"] = numbers
    made["active"] = True
    made["patient"] = {**patient}
    if roles:
        made["relationship"] = roles
    made["name"] = names or [{"text": firm}]
    if contacts := [contact for field, use in ((5, "home"), (6, "work"), (40, ""), (31, "")) if nk1.raw_field(field)
                    for part in nk1.repetitions(field) if (contact := contact_from(part, use))]:
        made["telecom"] = contacts
    if gender := gender_of(nk1, 15, builder):
        made["gender"] = gender
    if born := told_time(nk1, 16, builder):
        made["birthDate"] = born[:10]
    if addresses := [address for field in (4, 32) if nk1.raw_field(field) for part in nk1.repetitions(field)
                     if (address := address_from(part))]:
        made["address"] = addresses
    start, end = told_time(nk1, 8, builder), told_time(nk1, 9, builder)
    if start and end and not builder.in_order(nk1, 8, 9):
        end = None
    if period := {name: value for name, value in (("start", start), ("end", end)) if value}:
        made["period"] = period
    if language := language_of(nk1, 20, builder):
        made["communication"] = [{"language": language}]
    builder.add(made, as_of, "skip")
    return str(made["id"])


def _roles(nk1: Segment, builder: Builder) -> list[dict[str, Any]]:
    """NK1-3 (relationship) with the role of v3-RoleCode before it, and NK1-7 (contact role)."""
    found = []
    if relation := builder.coded(nk1, 3, "0063"):
        if role := adt_tables.ROLES.get(builder.source.table("NK1-3", nk1.get(3)).upper()):
            relation.setdefault("coding", []).insert(0, {"system": adt_tables.ROLE_SYSTEM, "code": role[0],
                                                         "display": role[1]})
        found.append(relation)
    if contact := builder.coded(nk1, 7, "0131"):
        found.append(contact)
    return found


def add_mother(pid: Segment, patient: Reference, as_of: int | None, builder: Builder) -> None:
    """PID-21 as the RelatedPerson who is the patient's mother, with PID-6 as her name (guide: CX[RelatedPerson])."""
    numbers = [number for part in pid.repetitions(21) if (number := identifier_from(part, "patient", builder.source))]
    if not numbers:
        return
    made = builder.part(_id(patient), "RelatedPerson", f"PID-21|{_id(patient)}|{numbers[0]['value']}")
    made["identifier"] = numbers
    made["active"] = True
    made["patient"] = {**patient}
    made["relationship"] = [_coded(adt_tables.ROLE_SYSTEM, "MTH", "mother")]
    if name := human_name(pid.first(6)):
        made["name"] = [{**name, "use": "maiden"}]
    builder.add(made, as_of, "skip")


# ---------------------------------------------------------------- allergies

def add_allergy(segment: Segment, behind: list[Segment], patient: Reference, as_of: int | None,
                builder: Builder) -> str:
    """AL1 or IAM as AllergyIntolerance (guide: AL1, IAM); its id, "" when it names nothing. ``behind``: NTE and IAR."""
    name = segment.name
    code = builder.coded(segment, 3)
    if not code:
        return ""
    number = segment.get(7) if name == "IAM" else ""
    key = number or code_text(segment.get(3)) or code["text"]
    made = builder.part(_id(patient), "AllergyIntolerance", builder.distinct(f"{_id(patient)}|{key}"))
    if number:
        made["identifier"] = [{"system": builder.source.system("allergy"), "value": number}]
    kind = builder.source.table(f"{name}-2", segment.get(2)).upper()
    verified = adt_tables.ALLERGY_STATUS.get(segment.get(17).upper(), "") if name == "IAM" else ""
    if name == "IAM" and segment.get(6).upper() == "D":
        verified = "entered-in-error"
    if verified != "entered-in-error":  # ait-2
        inactive = name == "IAM" and segment.get(17).upper() == "I"
        made["clinicalStatus"] = _coded(_CLINICAL, *(("inactive", "Inactive") if inactive else ("active", "Active")))
    if verified:
        made["verificationStatus"] = _coded(_VERIFIED, verified)
    if kind in adt_tables.ALLERGIES:
        made["type"] = "allergy"
    if category := adt_tables.ALLERGY_CATEGORY.get(kind):
        made["category"] = [category]
    severity = builder.source.table(f"{name}-4", segment.get(4)).upper()
    if criticality := adt_tables.CRITICALITY.get(severity):
        made["criticality"] = criticality
    if name == "IAM":
        _name_again(code, segment, builder)
    made["code"] = code
    made["patient"] = {**patient}
    _allergy_times(made, segment, builder)
    if notes := _notes([nte for nte in behind if nte.name == "NTE"], builder):
        made["note"] = notes
    if reactions := _reactions(segment, severity, [iar for iar in behind if iar.name == "IAR"], builder):
        made["reaction"] = reactions
    builder.add(made, as_of, "skip")
    return str(made["id"])


def _notes(segments: list[Segment], builder: Builder) -> list[dict[str, Any]]:
    """NTE as Annotations; where the time of one is none they are a text alone, for it must not stop an admission."""
    try:
        return notes_of(segments, builder)
    except GatewayError as error:
        builder.conversion.remarks.append(Remark(error.where, f"the note is kept without its time: {error.message}"))
        return [{"text": text_of([part for nte in segments for part in nte.repetitions(3)])}]


def _name_again(code: dict[str, Any], iam: Segment, builder: Builder) -> None:
    """IAM-27: the allergen by the code that a clinician gave it, beside IAM-3."""
    codings = code.setdefault("coding", [])
    codings += [one for one in builder.coded(iam, 27).get("coding", ()) if one not in codings]
    if not codings:
        del code["coding"]


def _reactions(segment: Segment, severity: str, told: list[Segment], builder: Builder) -> list[dict[str, Any]]:
    """AL1-5 or IAM-5 with the severity of the allergy; each IAR (2.7 and later) as a reaction of its own severity."""
    found: list[dict[str, Any]] = []
    if manifestations := [text for part in segment.repetitions(5) if (text := codeable(
            part, builder.source, f"{segment.name}-5"))]:
        found.append({"manifestation": manifestations, **_severity(severity)})
    for iar in told:
        if not (shown := builder.coded(iar, 1)):
            continue
        reaction: dict[str, Any] = {"manifestation": [shown]}
        if kind := builder.coded(iar, 3).get("text"):  # table 0436: allergy, side effect, intolerance …
            reaction["description"] = kind
        reaction.update(_severity(builder.source.table("IAR-2", iar.get(2)).upper()))
        if managed := iar.text(4).strip():
            reaction["note"] = [{"text": managed}]
        found.append(reaction)
    return found


def _severity(code: str) -> dict[str, str]:
    """Table 0128 as reaction.severity."""
    return {"severity": grade} if (grade := adt_tables.SEVERITY.get(code)) else {}


def _allergy_times(made: Resource, segment: Segment, builder: Builder) -> None:
    onset = told_time(segment, 6 if segment.name == "AL1" else 11, builder)
    if onset:
        made["onsetDateTime"] = onset
    if segment.name == "IAM":
        if recorded := told_time(segment, 24, builder) or told_time(segment, 13, builder):
            made["recordedDate"] = recorded
        if recorder := practitioner(segment.first(23), builder):
            made["recorder"] = recorder
        if reported := human_name(segment.first(14)):
            made["asserter"] = {"display": reported["text"]}


# ---------------------------------------------------------------- diagnoses

def add_diagnosis(dg1: Segment, at: int, patient: Reference, encounter: Reference | None, whole: str,
                  as_of: int | None, builder: Builder) -> tuple[str, dict[str, Any] | None]:
    """DG1 as Condition: its id, and how the visit names it (Encounter.diagnosis); "" when it says nothing."""
    code = builder.coded(dg1, 3) or ({"text": text} if (text := dg1.text(4).strip()) else {})
    if not code:
        return "", None
    kind = builder.source.table("DG1-6", dg1.get(6)).upper()
    number = dg1.get(20)
    key = number or f"{code_text(dg1.get(3)) or code['text']}|{kind}"
    made = builder.part(whole, "Condition", builder.distinct(f"DG1|{whole}|{key}"))
    if number:
        made["identifier"] = [{"system": builder.source.system("diagnosis"), "value": number}]
    deleted = dg1.get(21).upper() == "D"
    if deleted:
        made["verificationStatus"] = _coded(_CONDITION_VERIFIED, "entered-in-error")
    else:
        made["clinicalStatus"] = _coded(_CONDITION, "active", "Active")
    made["category"] = [_coded(_CATEGORY, "encounter-diagnosis", "Encounter Diagnosis")]
    made["code"] = code
    made["subject"] = {**patient}
    if encounter:
        made["encounter"] = {**encounter}
    if onset := told_time(dg1, 5, builder):
        made["onsetDateTime"] = onset
    if recorded := told_time(dg1, 19, builder):
        made["recordedDate"] = recorded
    if clinician := next((one for part in dg1.repetitions(16) if (one := practitioner(part, builder))), None):
        made["asserter"] = clinician
    if "text" in code and dg1.get(4) and dg1.get(4) != code["text"]:
        made["note"] = [{"text": dg1.text(4).strip()}]
    reference = builder.add(made, as_of, "skip")
    if deleted:
        return str(made["id"]), None
    named: dict[str, Any] = {"condition": reference}
    if use := builder.coded(dg1, 6, "0052"):
        if role := adt_tables.DIAGNOSIS_ROLE.get(kind):
            use.setdefault("coding", []).insert(0, {"system": adt_tables.DIAGNOSIS_ROLES, "code": role[0],
                                                    "display": role[1]})
        named["use"] = use
    rank = dg1.get(15)
    if rank.isascii() and rank.isdigit() and int(rank[:6]) > 0:
        named["rank"] = int(rank[:6])
    return str(made["id"]), named


# ---------------------------------------------------------------- roles, insurance

def role_participant(rol: Segment, builder: Builder) -> list[dict[str, Any]]:
    """ROL behind PV1 as participants of the visit (guide: ROL[Encounter-Participant])."""
    concept = builder.coded(rol, 3, "0443")
    if known := adt_tables.PROVIDER_ROLE.get(builder.source.table("ROL-3", rol.get(3)).upper()):
        concept.setdefault("coding", []).insert(0, {"system": f"{tables.V3}ParticipationType", "code": known[0],
                                                    "display": known[1]})
    start, end = told_time(rol, 5, builder), told_time(rol, 6, builder)
    if start and end and not builder.in_order(rol, 5, 6):
        end = None
    period = {name: value for name, value in (("start", start), ("end", end)) if value}
    people = [person for part in rol.repetitions(4) if (person := practitioner(part, builder))]
    for person in people:
        add_role(rol, person, concept, builder)
    return [{**({"type": [concept]} if concept else {}), **({"period": period} if period else {}), "individual": person}
            for person in people]


def is_taken_away(rol: Segment) -> bool:
    """Whether ROL-2 (table 0287) says that the person has the role no more."""
    return rol.get(2).upper() in ("DE", "UN")


def carers_in(roles: list[Segment], builder: Builder) -> list[Reference]:
    """ROL behind PID: who cares for the patient outside any visit (ROL-3 PP, FHCP); a role that is taken away (ROL-2
    DE, UN) is not told."""
    found = []
    for rol in roles:
        code = builder.source.table("ROL-3", rol.get(3)).upper()
        if code not in ("PP", "FHCP") or is_taken_away(rol):
            continue
        for part in rol.repetitions(4):
            if (person := practitioner(part, builder)) and person not in found:
                add_role(rol, person, builder.coded(rol, 3, "0443"), builder)
                found.append(person)
    return found


def add_role(rol: Segment, person: Reference, role: dict[str, Any], builder: Builder) -> None:
    """What ROL says of the person beyond the part in this visit, as PractitionerRole: specialty (ROL-9), telephone
    (ROL-12), place (ROL-13) and organization (ROL-14). Who takes part is the Practitioner, which every query knows."""
    place, organization = rol.first(13), rol.first(14)
    if "reference" not in person or not (place or organization or rol.raw_field(9) or rol.raw_field(12)):
        return
    firm = organization_from(organization, builder) or builder.hospital()
    made = builder.resource("PractitionerRole", f"{person['reference']}|{firm.get('reference')}|{rol.get(3)}")
    made["practitioner"] = {**person}
    made["organization"] = firm
    if role:
        made["code"] = [role]
    if specialties := [found for part in rol.repetitions(9) if (found := codeable(part, builder.source, "ROL-9"))]:
        made["specialty"] = specialties
    if where := location_from(place, builder):
        made["location"] = [where]
    if contacts := [contact for part in rol.repetitions(12) if (contact := contact_from(part, "work"))]:
        made["telecom"] = contacts
    builder.add(made, builder.sent_at, "skip")


def add_financial_class(pv1: Segment, patient: Reference, key: str, as_of: int | None, builder: Builder) -> None:
    """PV1-20 as Coverage where no IN1 tells one (guide: PV1[Coverage]): how the visit is paid for."""
    for part in pv1.repetitions(20):
        if kind := codeable(part.part(1), builder.source, "PV1-20", "0064"):
            made = builder.resource("Coverage", f"{key}|PV1-20|{kind['text']}")
            made["status"] = "active"
            made["type"] = kind
            made["beneficiary"] = {**patient}
            made["payor"] = [{"display": kind["text"]}]
            builder.add(made, as_of, "skip")
