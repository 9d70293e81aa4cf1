"""The Patient that a DICOM header names. Pure."""

from __future__ import annotations

from typing import Any

from gateway.imaging.facts import Facts
from gateway.imaging.times import fhir_date
from gateway.source import Resource, Source

_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_GROUPS = {"Alphabetic": "ABC", "Ideographic": "IDE", "Phonetic": "SYL"}
_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
_UNISSUED = "(0010,0020)"  # key of [hl7v2] identifier_systems
_SEX = {"M": "male", "F": "female", "O": "other"}  # PS3.3 C.7.1.1, C.2.3


def patient_key(facts: Facts, source: Source) -> tuple[str, str]:
    """System and value of the patient number that an instance belongs to.

    An issuer counts only where the manifest names it: headers carry issuers of modalities, vendors and test beds. Most
    carry none; the manifest's ``(0010,0020)`` then names the system, where it is not the hospital's own.
    Without a number nobody is identified, and the key is the study's own.
    """
    if number := facts.get("PatientID"):
        return source.patient_system(_issuer(facts, source) or _UNISSUED), number
    return source.system("study-patient"), facts["StudyInstanceUID"]


def _issuer(facts: Facts, source: Source) -> str:
    """The first of an identifier's issuers, local or universal, that the manifest maps."""
    names = [facts.get("IssuerOfPatientID", "")]
    for item in facts.get("IssuerOfPatientIDQualifiersSequence", ()):
        names += [item.get("LocalNamespaceEntityID", ""), item.get("UniversalEntityID", "")]
    return next((name for name in names if name and name in source.identifier_systems), "")


def patient_from(facts: Facts, source: Source) -> Resource:
    """The Patient of one header, or of what several headers agree on."""
    system, number = patient_key(facts, source)
    patient: Resource = {"resourceType": "Patient", "id": source.patient_id(system, number),
                         "meta": {"source": f"urn:huren:{source.institution}"},
                         "identifier": _identifiers(facts, source)}
    names = human_names(facts.get("PatientName", {}))
    if names:
        patient["name"] = names
    if sex := facts.get("PatientSex", "").upper():
        patient["gender"] = _SEX.get(sex, "unknown")
    if born := fhir_date(facts.get("PatientBirthDate", "")):
        patient["birthDate"] = born
    return patient


def _identifiers(facts: Facts, source: Source) -> list[dict[str, Any]]:
    """The hospital's number as MR, and the other numbers whose issuer the manifest knows.

    A header without a number gives the Patient its study's UID for one: nobody else can ever be meant by it.
    """
    found: list[dict[str, Any]] = []
    system, number = patient_key(facts, source)
    if not facts.get("PatientID"):
        found.append({"use": "temp", "system": system, "value": number})
    else:
        mine = system == source.patient_system(_UNISSUED)
        code, display = ("MR", "Medical record number") if mine else ("PI", "Patient internal identifier")
        found.append({"type": {"coding": [{"system": _V2_0203, "code": code, "display": display}]},
                      "system": system, "value": number})
    for item in facts.get("OtherPatientIDsSequence", ()):
        issuer = _issuer(item, source)
        if issuer and item.get("PatientID"):
            other = {"system": source.patient_system(issuer), "value": item["PatientID"]}
            if all((other["system"], other["value"]) != (i["system"], i["value"]) for i in found):
                found.append(other)
    return found


def human_names(groups: dict[str, str]) -> list[dict[str, Any]]:
    """One HumanName for each component group (PS3.5 6.2.1); ``official`` is the ideographic one, else the first.

    Many hospitals write ideographs into the first group: what the characters are decides, not the group's place.
    """
    names = [(_representation(group, text), text) for group, text in groups.items()]
    official = next((i for i, (form, _) in enumerate(names) if form == "IDE"), 0)
    return [_human_name(form, text, index == official) for index, (form, text) in enumerate(names)]


def display_name(groups: dict[str, str]) -> str:
    """The name as people read it, of the official group."""
    names = human_names(groups)
    return next((name["text"] for name in names if name.get("use") == "official"), "")


def _representation(group: str, text: str) -> str:
    return "IDE" if group == "Alphabetic" and _has_ideographs(text) else _GROUPS[group]


def _has_ideographs(text: str) -> bool:
    """CJK unified ideographs, their extensions and compatibility forms."""
    return any("\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or char >= "\U00020000" for char in text)


def _human_name(form: str, text: str, official: bool) -> dict[str, Any]:
    """Components family^given^middle^prefix^suffix; without ``^`` nothing is split, and there is only the text."""
    family, given, middle, prefix, suffix = ([part.strip() for part in text.split("^")] + [""] * 5)[:5]
    name: dict[str, Any] = {"extension": [{"url": _REPRESENTATION, "valueCode": form}]}
    if official:
        name["use"] = "official"
    if "^" not in text:
        return {**name, "text": text}
    if form == "ABC":
        name["text"] = " ".join(part for part in (prefix, given, middle, family, suffix) if part)
    else:  # 王^小东 is read and looked for as 王小东
        name["text"] = f"{family}{given}{middle}" + "".join(f" {part}" for part in (prefix, suffix) if part)
    if family:
        name["family"] = family
    for element, values in (("given", (given, middle)), ("prefix", (prefix,)), ("suffix", (suffix,))):
        if present := [value for value in values if value]:
            name[element] = present
    return name
