"""The facts of one study's instances → ImagingStudy and Patient. Pure; the order of the instances changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import orjson

from gateway.imaging.codes import (
    ACQUISITION_MODALITIES,
    LATERALITY,
    body_site,
    code_value,
    concept_of,
    modality_coding,
)
from gateway.imaging.facts import Facts
from gateway.imaging.patient import display_name, patient_from, patient_key
from gateway.imaging.times import seconds_of, study_started
from gateway.source import COPY, Change, Conversion, Resource, Source, Unmapped

_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
_PRF = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "PRF",
                    "display": "performer"}]}
#: What all instances of a study should agree on; where they do not, most of them decide.
_STUDY_FACTS = ("StudyDate", "StudyTime", "TimezoneOffsetFromUTC", "StudyDescription", "ReferringPhysicianName",
                "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence",
                "PatientBirthDate", "PatientSex")
_SERIES_FACTS = ("Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "BodyPartExamined",
                 "AnatomicRegionSequence", "TimezoneOffsetFromUTC")
#: Types of ServiceRequest identifiers: keyword → v2-0203 code, display and kind of the hospital's own system.
_ORDER_NUMBERS = {
    "AccessionNumber": ("ACSN", "Accession ID", "accession"),
    "PlacerOrderNumberImagingServiceRequest": ("PLAC", "Placer Identifier", "placer"),
    "FillerOrderNumberImagingServiceRequest": ("FILL", "Filler Identifier", "filler"),
}


def study_from(instances: Iterable[Facts], source: Source) -> Conversion:
    """The Patient and the ImagingStudy of one study's instances, and its exam codes that no row maps.

    Instances of two patients under one Study Instance UID become two ImagingStudies: they are never shown as one
    person's. The larger part keeps the id that the UID alone gives.
    """
    conversion = Conversion()
    by_uid = {facts["SOPInstanceUID"]: facts for facts in sorted(instances, key=_key)}
    parts: dict[tuple[str, str], list[Facts]] = defaultdict(list)
    for facts in sorted(by_uid.values(), key=lambda f: (f["SeriesInstanceUID"], f["SOPInstanceUID"])):
        parts[patient_key(facts, source)].append(facts)
    for index, key in enumerate(sorted(parts, key=lambda k: (-len(parts[k]), k))):
        uid = parts[key][0]["StudyInstanceUID"]
        identifier = uid if index == 0 else "|".join((uid, *key))
        _convert(parts[key], source, source.id_for("ImagingStudy", identifier), conversion)
    return conversion


def _convert(instances: list[Facts], source: Source, study_id: str, conversion: Conversion) -> None:
    study = {keyword: value for keyword in _STUDY_FACTS if (value := _most(instances, keyword)) is not None}
    study["StudyInstanceUID"] = instances[0]["StudyInstanceUID"]
    others = _distinct(item for facts in instances for item in facts.get("OtherPatientIDsSequence", ()))
    patient = patient_from({**study, "OtherPatientIDsSequence": others}, source)
    started = study_started(study, source.timezone) or min(
        filter(None, (study_started(facts, source.timezone) for facts in instances)), default="")
    # A header repeats what the scanner was once told: it ranks among headers by date and below every message.
    conversion.changes.append(Change(patient, seconds_of(started) * 1_000_000 - 2 * COPY, "skip"))
    resource = _imaging_study(instances, study, source, study_id, f"Patient/{patient['id']}", started)
    concepts, unmapped = _procedure(instances, study, source)
    if concepts:
        resource["procedureCode"] = concepts
    conversion.changes.append(Change(resource))
    conversion.unmapped += [row for row in unmapped if row not in conversion.unmapped]


def _imaging_study(instances: list[Facts], study: Facts, source: Source, study_id: str, subject: str,
                   started: str) -> Resource:
    """http://hl7.org/fhir/R4/imagingstudy-mappings.html#dicom"""
    orders = _orders(instances, source)
    resource: Resource = {
        "resourceType": "ImagingStudy", "id": study_id, "meta": {"source": f"urn:huren:{source.institution}"},
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{study['StudyInstanceUID']}"},
                       *(order for order in orders if order["type"]["coding"][0]["code"] == "ACSN")],
        "status": "available", "subject": {"reference": subject}}
    series = _grouped(instances)
    if modalities := sorted({m for s in series for m in [_modality(s)] if m in ACQUISITION_MODALITIES}):
        resource["modality"] = [modality_coding(modality) for modality in modalities]
    if started:
        resource["started"] = started
    if orders:
        resource["basedOn"] = [{"type": "ServiceRequest", "identifier": order} for order in orders]
    if name := display_name(study.get("ReferringPhysicianName", {})):
        resource["referrer"] = {"display": name}
    if readers := _names(instances, "NameOfPhysiciansReadingStudy"):
        resource["interpreter"] = [{"display": name} for name in readers]
    resource |= {"numberOfSeries": len(series), "numberOfInstances": len(instances)}
    if reasons := _reasons(instances, source):
        resource["reasonCode"] = reasons
    if description := study.get("StudyDescription"):
        resource["description"] = description
    rows = [_series(one, source) for one in series]
    resource["series"] = sorted(rows, key=lambda s: (s.get("number", 1 << 31), s["uid"]))
    return resource


def _grouped(instances: list[Facts]) -> list[list[Facts]]:
    series: dict[str, list[Facts]] = defaultdict(list)
    for facts in instances:
        series[facts["SeriesInstanceUID"]].append(facts)
    return list(series.values())


def _modality(instances: list[Facts]) -> str:
    """(0008,0060); OT where it is missing, since the element is required."""
    return (_most(instances, "Modality") or "OT").upper()


def _series(instances: list[Facts], source: Source) -> dict[str, Any]:
    facts = {keyword: value for keyword in _SERIES_FACTS if (value := _most(instances, keyword)) is not None}
    series: dict[str, Any] = {"uid": instances[0]["SeriesInstanceUID"]}
    if (number := facts.get("SeriesNumber", -1)) >= 0:
        series["number"] = number
    series["modality"] = modality_coding(_modality(instances))
    if description := facts.get("SeriesDescription"):
        series["description"] = description
    series["numberOfInstances"] = len(instances)
    if site := body_site(facts):
        series["bodySite"] = site
    sides = {side for one in instances for side in (one.get("Laterality") or one.get("ImageLaterality"),) if side}
    if side := LATERALITY.get("B" if sides == {"L", "R"} else next(iter(sides), "") if len(sides) == 1 else ""):
        series["laterality"] = side
    if started := min(filter(None, (_series_started(one, source.timezone) for one in instances)), default=""):
        series["started"] = started
    if performers := _names(instances, "PerformingPhysicianName") + _names(instances, "OperatorsName"):
        series["performer"] = [{"function": _PRF, "actor": {"display": name}} for name in performers]
    rows = [_instance(one) for one in instances]
    series["instance"] = sorted(rows, key=lambda i: (i.get("number", 1 << 31), i["uid"]))
    return series


def _series_started(facts: Facts, zone: str) -> str:
    return study_started({k: v for k, v in facts.items() if k in ("SeriesDate", "SeriesTime", "TimezoneOffsetFromUTC")},
                         zone)


def _instance(facts: Facts) -> dict[str, Any]:
    instance: dict[str, Any] = {
        "uid": facts["SOPInstanceUID"],
        "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{facts['SOPClassUID']}"}}
    if (number := facts.get("InstanceNumber", -1)) >= 0:
        instance["number"] = number
    if title := _title(facts):
        instance["title"] = title
    return instance


def _title(facts: Facts) -> str:
    """What a report, presentation state, key object or document calls itself; images have none."""
    if document := facts.get("DocumentTitle") or facts.get("ContentLabel"):
        return document
    concepts = facts.get("ConceptNameCodeSequence") or [{}]
    return concepts[0].get("CodeMeaning") or code_value(concepts[0])


def _orders(instances: list[Facts], source: Source) -> list[dict[str, Any]]:
    """Identifiers of the orders behind a study: accession, placer and filler numbers of study and series level.

    One study may answer several orders, and one order several studies (PS3.3 10.6, the group case).
    """
    found = []
    for facts in instances:
        requests = [facts, *facts.get("RequestAttributesSequence", ()), *facts.get("ReferencedRequestSequence", ())]
        for keyword, (code, display, kind) in _ORDER_NUMBERS.items():
            for request in requests:
                if value := request.get(keyword):
                    system = _accession_system(request, source) if kind == "accession" else source.system(kind)
                    found.append({"type": {"coding": [{"system": _V2_0203, "code": code, "display": display}]},
                                  "system": system, "value": value})
    return sorted(_distinct(found), key=lambda o: (o["type"]["coding"][0]["code"], o["system"], o["value"]))


def _accession_system(facts: Facts, source: Source) -> str:
    """An accession number is unique within its issuer only: (0008,0051), else the hospital."""
    for item in facts.get("IssuerOfAccessionNumberSequence", ()):
        for name in (item.get("LocalNamespaceEntityID"), item.get("UniversalEntityID")):
            if name and name in source.identifier_systems:
                return source.identifier_systems[name]
        if item.get("UniversalEntityIDType") == "ISO" and item.get("UniversalEntityID"):
            return f"urn:oid:{item['UniversalEntityID']}"
    return source.system("accession")


def _procedure(instances: list[Facts], study: Facts, source: Source) -> tuple[list[dict[str, Any]], list[Unmapped]]:
    """What was done: the first of the places that holds a code; the description where the manifest says it is one."""
    items: list[Facts] = []
    where = ""
    for place, found in _procedure_places(instances):
        if items := _distinct(item for item in found if code_value(item)):
            where = place
            break
    if not items and study.get("StudyDescription") and source.habits.get("study_description_is_code"):
        description, where = study["StudyDescription"], "(0008,1030)"
        items = [{"CodeValue": description, "CodeMeaning": description}]
    schemes = {s.get("CodingSchemeDesignator", ""): s["CodingSchemeUID"] for facts in instances
               for s in facts.get("CodingSchemeIdentificationSequence", ()) if s.get("CodingSchemeUID")}
    concepts, unmapped = [], []
    for item in items:
        concept, mapped = concept_of(item, schemes, source)
        concepts.append(concept)
        if not mapped:
            unmapped.append(Unmapped("exam", code_value(item), item.get("CodeMeaning", ""), where=where))
    return _distinct(concepts), unmapped


def _procedure_places(instances: list[Facts]) -> Iterable[tuple[str, list[Facts]]]:
    requests = [request for facts in instances for request in facts.get("RequestAttributesSequence", ())]
    for place, keyword, holders in (("(0008,1032)", "ProcedureCodeSequence", instances),
                                    ("(0040,0275)>(0032,1064)", "RequestedProcedureCodeSequence", requests),
                                    ("(0032,1064)", "RequestedProcedureCodeSequence", instances),
                                    ("(0040,0275)>(0040,0008)", "ScheduledProtocolCodeSequence", requests),
                                    ("(0040,0260)", "PerformedProtocolCodeSequence", instances)):
        yield place, [item for holder in holders for item in holder.get(keyword, ())]


def _reasons(instances: list[Facts], source: Source) -> list[dict[str, Any]]:
    """Why it was done: coded reasons (0040,1012), (0040,100A), else the requester's words (0040,1002)."""
    requests = [r for f in instances for r in (f, *f.get("RequestAttributesSequence", ()))]
    coded = _distinct(item for r in requests for keyword in ("ReasonForPerformedProcedureCodeSequence",
                                                             "ReasonForRequestedProcedureCodeSequence")
                      for item in r.get(keyword, ()) if code_value(item))
    if coded:
        return [concept_of(item, {}, source)[0] for item in coded]
    texts = sorted({text for r in requests if (text := r.get("ReasonForTheRequestedProcedure"))})
    return [{"text": text} for text in texts]


def _names(instances: list[Facts], keyword: str) -> list[str]:
    names = {display_name(name) for facts in instances for name in facts.get(keyword, ())}
    return sorted(filter(None, names))


def _most(instances: list[Facts], keyword: str) -> Any:
    """The value that most instances have; of equally many the smallest; None where none has one."""
    values = [facts[keyword] for facts in instances if keyword in facts]
    if not values:
        return None
    if not isinstance(values[0], str | int):
        return orjson.loads(_winner(Counter(map(_key, values))))
    return _winner(Counter(values))


def _winner(counts: Counter[Any]) -> Any:
    return min(counts, key=lambda value: (-counts[value], value))


def _key(value: Any) -> bytes:
    """An order of JSON values that does not depend on how they were made."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Without repetitions, in an order of their own."""
    return [value for _, value in sorted({_key(value): value for value in values}.items())]
