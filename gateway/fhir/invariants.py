"""Rules that the tables cannot say: base R4 invariants of the types that we make, and what our profiles ask. Pure.

Each row: the invariant's key, where it breaks, a test that is true when all is well, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from gateway.fhir.elements import elements_of, resource_types

Dict = dict[str, Any]


class Invariant(NamedTuple):
    """``holds`` is asked of each object of the type, after its own elements were found well formed.

    Where the names of the members alone decide, or only an object with the element ``needs`` can break it, it says so:
    `gateway.fhir.plans` need not ask then.
    """

    key: str
    holds: Callable[[Dict], bool]
    says: str
    element: str = ""
    names_only: bool = False
    needs: str = ""


@cache
def _values() -> frozenset[str]:
    """The elements of Observation's ``value[x]``."""
    return frozenset(element.name for element in elements_of("Observation").values() if element.choice == "value")


def _valued(observation: Dict) -> bool:
    return not _values().isdisjoint(observation)


def _per_1(period: Dict) -> bool:
    start, end = period.get("start"), period.get("end")
    if not isinstance(start, str) or not isinstance(end, str):
        return True
    if start[19:] != end[19:] or len(start) != len(end):  # other precision or zone: compare whole days, a day's grace
        size = min(len(start), len(end), 7)
        return start[:size] <= end[:size]
    return start <= end


def _obs_7(observation: Dict) -> bool:
    code = observation.get("code")
    return not _valued(observation) or all(c.get("code") != code for c in observation.get("component", ()))


def _ext_1(extension: Dict) -> bool:
    return ("extension" in extension) != any(name.startswith(("value", "_value")) for name in extension)


def _contained(resource: Dict) -> bool:
    versioned = {"versionId", "lastUpdated", "security"}
    return all("contained" not in c and "id" in c and not (versioned & c.get("meta", {}).keys())
               for c in resource.get("contained", ()))


_REFERENCE = re.compile(r"(?:#[A-Za-z0-9\-.]*|[A-Za-z]+/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?"
                        r"|[A-Za-z][A-Za-z0-9+.\-]*:[^\s]+|[A-Za-z]+\?[^\s]+)", re.ASCII).fullmatch


def _reference(reference: Dict) -> bool:
    """references.html#literal: ``#id``, ``Type/id``, an absolute URL or URN, in transactions a search."""
    value = reference.get("reference")
    return value is None or _REFERENCE(value) is not None


_TARGET = re.compile(r"(?:https?://[^\s]+/)?([A-Z][A-Za-z]+)(?:/[A-Za-z0-9\-.]{1,64}(?:/_history/[^/]+)?|\?.*)",
                     re.ASCII).fullmatch


def target_holds(reference: Dict, targets: frozenset[str]) -> bool:
    """Whether a well-formed Reference whose literal URL names its type names one of these."""
    literal = reference.get("reference") or ""
    match = _TARGET(literal)
    return match is None or match[1] in targets or (match[1] not in resource_types() and literal.startswith("http"))


def codes_hold(value: Dict, kind: str, systems: dict[str, frozenset[str]]) -> bool:
    """Whether a well-formed Coding or CodeableConcept has a code of a required binding; text alone will do."""
    codings = (value,) if kind == "Coding" else value.get("coding", ())
    return not codings or any(c.get("code") in systems.get(c.get("system", ""), ()) for c in codings)


#: hl7.org/fhir/R4: the page of each type lists its invariants.
BASE: dict[str, tuple[Invariant, ...]] = {
    "Attachment": (Invariant("att-1", lambda o: "data" not in o or "contentType" in o,
                             "an attachment with data needs its content type", "contentType", names_only=True),),
    "Bundle": (Invariant("bdl-1", lambda o: "total" not in o or o.get("type") in ("searchset", "history"),
                         "total belongs into a searchset or history only", "total", needs="total"),),
    "ContactPoint": (Invariant("cpt-2", lambda o: "value" not in o or "system" in o or "_system" in o,
                               "a contact point with a value needs its system", "system", names_only=True),),
    "Extension": (Invariant("ext-1", _ext_1, "an extension has either a value or extensions",
                            names_only=True),),
    "Observation": (
        Invariant("obs-6", lambda o: "dataAbsentReason" not in o or not _valued(o),
                  "a value and a reason for its absence exclude each other", "dataAbsentReason", names_only=True),
        Invariant("obs-7", _obs_7, "a component has the code of the observation that has a value itself", "component",
                  needs="component")),
    "Observation.referenceRange": (Invariant("obs-3", lambda o: bool({"low", "high", "text"} & o.keys()),
                                             "a reference range needs low, high or text", names_only=True),),
    "Patient.contact": (Invariant("pat-1", lambda o: bool({"name", "telecom", "address", "organization"} & o.keys()),
                                  "a contact needs a name, telecom, address or organization", names_only=True),),
    "Period": (Invariant("per-1", _per_1, "the start must not be after the end"),),
    "Quantity": (Invariant("qty-3", lambda o: "code" not in o or "system" in o or "_system" in o,
                           "a unit's code needs its system", "system", names_only=True),),
    "Reference": (Invariant("ref-1", _reference, "must be #id, Type/id, an absolute URL or urn:uuid:", "reference",
                            needs="reference"),),
}
#: domainresource.html dom-2, dom-4, dom-5; a contained resource is referred to by its id.
CONTAINED = Invariant("dom-2", _contained, "a contained resource has an id, no version, no security label and contains "
                                           "none itself", "contained", needs="contained")
for _kind in ("Age", "Count", "Distance", "Duration"):
    BASE[_kind] = BASE["Quantity"]


def invariants_of(kind: str) -> tuple[Invariant, ...]:
    """The rules of the base for a type's own elements."""
    return BASE.get(kind, ()) + ((CONTAINED,) if "contained" in elements_of(kind) else ())


def _has_code(resource: Dict) -> bool:
    for coding in resource.get("code", {}).get("coding", ()):  # noqa: SIM110 - `any` takes three times as long
        if "system" in coding and "code" in coding:
            return True
    return False


def _has_identifier(resource: Dict) -> bool:
    return any("system" in identifier and "value" in identifier for identifier in resource.get("identifier", ()))


def _has_study_uid(study: Dict) -> bool:
    return any(identifier.get("system") == "urn:dicom:uid" and identifier.get("value", "").startswith("urn:oid:")
               for identifier in study.get("identifier", ()))


def _has_value(observation: Dict) -> bool:
    return _valued(observation) or not {"dataAbsentReason", "component", "hasMember"}.isdisjoint(observation)


def _has_counts(study: Dict) -> bool:
    return ("numberOfSeries" in study and "numberOfInstances" in study
            and all("numberOfInstances" in series for series in study.get("series", ())))


def _our_id(resource: Dict) -> bool:
    return "id" in resource


_ID = Invariant("huren-id", _our_id, "a converted resource needs its id", "id", names_only=True)
_SOURCE = Invariant("huren-source", lambda o: "source" in o.get("meta", {}),
                    "a converted resource needs the institution that sent it", "meta.source")
_SUBJECT = Invariant("huren-subject", lambda o: "reference" in o.get("subject", {}),
                     "a converted result needs a reference to its Patient", "subject")
_IDENTIFIER = Invariant("huren-identifier", _has_identifier,
                        "a converted resource needs a business identifier with system and value", "identifier")
_CODE = Invariant("huren-code", _has_code, "needs a coding: the hospital's own at least", "code")
_VALUE = Invariant("huren-value", _has_value, "needs a value, the reason for its absence, components or members",
                   names_only=True)
_STUDY_UID = Invariant("huren-study-uid", _has_study_uid, "needs the Study Instance UID as urn:dicom:uid identifier",
                       "identifier")
_SERIES = Invariant("huren-series", lambda o: bool(o.get("series")) or o.get("status") in ("cancelled",
                                                                                          "entered-in-error"),
                    "a study that was not withdrawn needs a series", "series")
_COUNTS = Invariant("huren-counts", _has_counts, "needs the numbers of series and instances")

#: What `profiles/` asks beyond the base, for what conversions make.
PROFILE: dict[str, tuple[Invariant, ...]] = {
    "DiagnosticReport": (_ID, _SOURCE, _IDENTIFIER, _SUBJECT, _CODE),
    "ImagingStudy": (_ID, _SOURCE, _STUDY_UID, _SUBJECT, _SERIES, _COUNTS),
    "Observation": (_ID, _SOURCE, _SUBJECT, _CODE, _VALUE),
    "Organization": (_ID,),
    "Patient": (_ID, _SOURCE, _IDENTIFIER),
    "Practitioner": (_ID,),
    "Provenance": (_ID,),
    "ServiceRequest": (_ID, _SUBJECT),
    "Specimen": (_ID,),
}
