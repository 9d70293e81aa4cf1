"""The search parameters: one row each; a new one is a row here and `huren reindex`.

Names and paths are those of R4's definitions (searchparameter-registry.html) and of our own in `profiles/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache


class Type(Enum):
    """SearchParameter.type."""

    TOKEN = "token"
    REFERENCE = "reference"
    DATE = "date"
    STRING = "string"
    QUANTITY = "quantity"
    URI = "uri"


class As(Enum):
    """How the value of an element is read; the other types are known by their shape."""

    CONCEPT = "CodeableConcept"
    CODING = "Coding"
    IDENTIFIER = "Identifier"
    CONTACT = "ContactPoint"
    CODE = "code"  # code or boolean: its system is implied
    UID = "id"  # as CODE, but hardly two are equal: not in the dictionary
    NAME = "HumanName"
    ADDRESS = "Address"
    CANONICAL = "canonical"
    PLAIN = ""


@dataclass(frozen=True, slots=True)
class Param:
    """A search parameter of a resource type (``*``: of all).

    ``path``: elements joined by dots; ``|`` between alternatives; a choice by its full name (``valueQuantity``).
    ``targets``: the types that a reference may name, where R4 limits them; empty: any. ``system``: what the code
    system of a ``code`` is, which its JSON does not say. ``where``: only items with this value at an element
    (``system=phone``). ``same_as``: answered from the rows of these parameters, so that it has none of its own.
    ``owner``: names the person that the resource belongs to: answered by the person key, so that it has no rows where
    it names a Patient. ``repeats``: a date that a resource can have several of.
    """

    resource_type: str
    name: str
    type: Type
    path: str = ""
    read: As = As.PLAIN
    targets: tuple[str, ...] = ()
    system: str = ""
    where: str = ""
    same_as: tuple[str, ...] = ()
    owner: bool = False
    repeats: bool = False


_PATIENT = ("Patient",)
_SUBJECT = ("Patient", "Group", "Device", "Location")
_ENCOUNTER = ("Encounter", "EpisodeOfCare")
_WHO = ("Practitioner", "PractitionerRole", "Organization", "CareTeam", "Patient", "RelatedPerson", "Device")
_DOCTOR = ("Practitioner", "PractitionerRole")
_HL7 = "http://hl7.org/fhir/"


def _token(t: str, name: str, path: str, read: As = As.CONCEPT, system: str = "", where: str = "") -> Param:
    return Param(t, name, Type.TOKEN, path, read, system=_HL7 + system if system else "", where=where)


def _code(t: str, name: str, path: str, system: str = "") -> Param:
    return _token(t, name, path, As.CODE, system)


def _reference(t: str, name: str, path: str, *targets: str) -> Param:
    return Param(t, name, Type.REFERENCE, path, targets=targets)


def _date(t: str, name: str, path: str) -> Param:
    return Param(t, name, Type.DATE, path)


def _string(t: str, name: str, path: str, read: As = As.PLAIN) -> Param:
    return Param(t, name, Type.STRING, path, read)


def _owned(t: str, path: str = "subject", targets: tuple[str, ...] = _SUBJECT) -> tuple[Param, Param]:
    """``subject`` and ``patient``, one element: both mean the person where they name a Patient."""
    return (Param(t, "subject", Type.REFERENCE, path, targets=targets, owner=True),
            Param(t, "patient", Type.REFERENCE, path, targets=_PATIENT, same_as=("subject",), owner=True))


def _address(t: str) -> tuple[Param, ...]:
    return (_string(t, "address", "address", As.ADDRESS), _string(t, "address-city", "address.city"),
            _string(t, "address-country", "address.country"), _string(t, "address-postalcode", "address.postalCode"),
            _string(t, "address-state", "address.state"), _code(t, "address-use", "address.use", "address-use"))


def _contact(t: str) -> tuple[Param, ...]:
    return (_token(t, "telecom", "telecom", As.CONTACT),
            _token(t, "email", "telecom", As.CONTACT, where="system=email"),
            _token(t, "phone", "telecom", As.CONTACT, where="system=phone"))


def _identified(t: str) -> Param:
    return _token(t, "identifier", "identifier", As.IDENTIFIER)


_EVERY = [
    _token("*", "_tag", "meta.tag", As.CODING),
    _token("*", "_security", "meta.security", As.CODING),
    Param("*", "_profile", Type.URI, "meta.profile"),
    Param("*", "_source", Type.URI, "meta.source"),
]

_PERSONS = [
    _identified("Patient"),
    _string("Patient", "name", "name", As.NAME),
    _string("Patient", "family", "name.family"),
    _string("Patient", "given", "name.given"),
    _date("Patient", "birthdate", "birthDate"),
    _code("Patient", "gender", "gender", "administrative-gender"),
    _code("Patient", "active", "active", "special-values"),
    _date("Patient", "death-date", "deceasedDateTime"),
    _code("Patient", "deceased", "$deceased", "special-values"),
    _token("Patient", "language", "communication.language"),
    _reference("Patient", "general-practitioner", "generalPractitioner", "Practitioner", "Organization",
               "PractitionerRole"),
    _reference("Patient", "organization", "managingOrganization", "Organization"),
    _reference("Patient", "link", "link.other", "Patient", "RelatedPerson"),
    *_address("Patient"),
    *_contact("Patient"),

    _identified("RelatedPerson"),
    _string("RelatedPerson", "name", "name", As.NAME),
    _date("RelatedPerson", "birthdate", "birthDate"),
    _code("RelatedPerson", "gender", "gender", "administrative-gender"),
    _code("RelatedPerson", "active", "active", "special-values"),
    _token("RelatedPerson", "relationship", "relationship"),
    Param("RelatedPerson", "patient", Type.REFERENCE, "patient", targets=_PATIENT, owner=True),
    *_address("RelatedPerson"),
    *_contact("RelatedPerson"),

    _identified("Practitioner"),
    _string("Practitioner", "name", "name", As.NAME),
    _string("Practitioner", "family", "name.family"),
    _string("Practitioner", "given", "name.given"),
    _code("Practitioner", "gender", "gender", "administrative-gender"),
    _code("Practitioner", "active", "active", "special-values"),
    _token("Practitioner", "communication", "communication"),
    *_address("Practitioner"),
    *_contact("Practitioner"),

    _identified("PractitionerRole"),
    _code("PractitionerRole", "active", "active", "special-values"),
    _date("PractitionerRole", "date", "period"),
    _token("PractitionerRole", "role", "code"),
    _token("PractitionerRole", "specialty", "specialty"),
    _reference("PractitionerRole", "practitioner", "practitioner", "Practitioner"),
    _reference("PractitionerRole", "organization", "organization", "Organization"),
    _reference("PractitionerRole", "location", "location", "Location"),
    _reference("PractitionerRole", "service", "healthcareService", "HealthcareService"),
    _reference("PractitionerRole", "endpoint", "endpoint", "Endpoint"),
    *_contact("PractitionerRole"),
]

_PLACES = [
    _identified("Organization"),
    _string("Organization", "name", "name|alias"),
    _code("Organization", "active", "active", "special-values"),
    _token("Organization", "type", "type"),
    _reference("Organization", "partof", "partOf", "Organization"),
    _reference("Organization", "endpoint", "endpoint", "Endpoint"),
    *_address("Organization"),

    _identified("Location"),
    _string("Location", "name", "name|alias"),
    _code("Location", "status", "status", "location-status"),
    _token("Location", "type", "type"),
    _token("Location", "operational-status", "operationalStatus", As.CODING),
    _reference("Location", "organization", "managingOrganization", "Organization"),
    _reference("Location", "partof", "partOf", "Location"),
    _reference("Location", "endpoint", "endpoint", "Endpoint"),
    *_address("Location"),

    _identified("Endpoint"),
    _string("Endpoint", "name", "name"),
    _code("Endpoint", "status", "status", "endpoint-status"),
    _token("Endpoint", "connection-type", "connectionType", As.CODING),
    _token("Endpoint", "payload-type", "payloadType"),
    _reference("Endpoint", "organization", "managingOrganization", "Organization"),

    _identified("Device"),
    _string("Device", "device-name", "deviceName.name|type.coding.display|type.text"),
    _string("Device", "manufacturer", "manufacturer"),
    _string("Device", "model", "modelNumber"),
    _code("Device", "status", "status", "device-status"),
    _token("Device", "type", "type"),
    _string("Device", "udi-carrier", "udiCarrier.carrierHRF"),
    _string("Device", "udi-di", "udiCarrier.deviceIdentifier"),
    Param("Device", "url", Type.URI, "url"),
    _reference("Device", "location", "location", "Location"),
    _reference("Device", "organization", "owner", "Organization"),
    Param("Device", "patient", Type.REFERENCE, "patient", targets=_PATIENT, owner=True),
]

_CARE = [
    *_owned("Encounter", targets=("Patient", "Group")),
    _identified("Encounter"),
    _date("Encounter", "date", "period"),
    _code("Encounter", "status", "status", "encounter-status"),
    _token("Encounter", "class", "class", As.CODING),
    _token("Encounter", "type", "type"),
    _reference("Encounter", "account", "account", "Account"),
    _reference("Encounter", "appointment", "appointment", "Appointment"),
    _reference("Encounter", "based-on", "basedOn", "ServiceRequest"),
    _reference("Encounter", "diagnosis", "diagnosis.condition", "Condition", "Procedure"),
    _reference("Encounter", "episode-of-care", "episodeOfCare", "EpisodeOfCare"),
    Param("Encounter", "length", Type.QUANTITY, "length"),
    _reference("Encounter", "location", "location.location", "Location"),
    Param("Encounter", "location-period", Type.DATE, "location.period", repeats=True),
    _reference("Encounter", "part-of", "partOf", "Encounter"),
    _reference("Encounter", "participant", "participant.individual", *_DOCTOR, "RelatedPerson"),
    Param("Encounter", "practitioner", Type.REFERENCE, "participant.individual", targets=("Practitioner",),
          same_as=("participant",)),
    _token("Encounter", "participant-type", "participant.type"),
    _token("Encounter", "reason-code", "reasonCode"),
    _reference("Encounter", "reason-reference", "reasonReference", "Condition", "Observation", "Procedure",
               "ImmunizationRecommendation"),
    _reference("Encounter", "service-provider", "serviceProvider", "Organization"),
    _token("Encounter", "special-arrangement", "hospitalization.specialArrangement"),

    *_owned("ServiceRequest"),
    _identified("ServiceRequest"),
    _token("ServiceRequest", "code", "code"),
    _code("ServiceRequest", "status", "status", "request-status"),
    _code("ServiceRequest", "intent", "intent", "request-intent"),
    _code("ServiceRequest", "priority", "priority", "request-priority"),
    _date("ServiceRequest", "authored", "authoredOn"),
    _date("ServiceRequest", "occurrence", "occurrenceDateTime|occurrencePeriod|occurrenceTiming"),
    _token("ServiceRequest", "requisition", "requisition", As.IDENTIFIER),
    _token("ServiceRequest", "category", "category"),
    _token("ServiceRequest", "body-site", "bodySite"),
    _token("ServiceRequest", "order-detail", "orderDetail"),
    _token("ServiceRequest", "performer-type", "performerType"),
    _reference("ServiceRequest", "encounter", "encounter", *_ENCOUNTER),
    _reference("ServiceRequest", "requester", "requester", *_WHO),
    _reference("ServiceRequest", "performer", "performer", *_WHO, "HealthcareService"),
    _reference("ServiceRequest", "specimen", "specimen", "Specimen"),
    _reference("ServiceRequest", "based-on", "basedOn", "CarePlan", "ServiceRequest", "MedicationRequest"),
    _reference("ServiceRequest", "replaces", "replaces", "ServiceRequest"),
    Param("ServiceRequest", "instantiates-canonical", Type.REFERENCE, "instantiatesCanonical", As.CANONICAL,
          ("ActivityDefinition", "PlanDefinition")),
    Param("ServiceRequest", "instantiates-uri", Type.URI, "instantiatesUri"),
]

_RESULTS = [
    *_owned("Specimen", targets=(*_SUBJECT, "Substance")),
    _identified("Specimen"),
    _token("Specimen", "accession", "accessionIdentifier", As.IDENTIFIER),
    _token("Specimen", "type", "type"),
    _code("Specimen", "status", "status", "specimen-status"),
    _date("Specimen", "collected", "collection.collectedDateTime|collection.collectedPeriod"),
    _token("Specimen", "bodysite", "collection.bodySite"),
    _token("Specimen", "container", "container.type"),
    _token("Specimen", "container-id", "container.identifier", As.IDENTIFIER),
    _reference("Specimen", "collector", "collection.collector", *_DOCTOR),
    _reference("Specimen", "parent", "parent", "Specimen"),

    *_owned("DiagnosticReport"),
    _identified("DiagnosticReport"),
    _token("DiagnosticReport", "code", "code"),
    _token("DiagnosticReport", "category", "category"),
    _date("DiagnosticReport", "date", "effectiveDateTime|effectivePeriod"),
    _code("DiagnosticReport", "status", "status", "diagnostic-report-status"),
    _date("DiagnosticReport", "issued", "issued"),
    _reference("DiagnosticReport", "result", "result", "Observation"),
    _reference("DiagnosticReport", "based-on", "basedOn", "CarePlan", "ServiceRequest", "MedicationRequest",
               "NutritionOrder", "ImmunizationRecommendation"),
    _reference("DiagnosticReport", "performer", "performer", *_DOCTOR, "Organization", "CareTeam"),
    _reference("DiagnosticReport", "results-interpreter", "resultsInterpreter", *_DOCTOR, "Organization", "CareTeam"),
    _reference("DiagnosticReport", "specimen", "specimen", "Specimen"),
    _reference("DiagnosticReport", "encounter", "encounter", *_ENCOUNTER),
    _token("DiagnosticReport", "conclusion", "conclusionCode"),
    _reference("DiagnosticReport", "media", "media.link", "Media"),
    _reference("DiagnosticReport", "imaging-study", "imagingStudy", "ImagingStudy"),

    *_owned("Observation"),
    _token("Observation", "code", "code"),
    _token("Observation", "category", "category"),
    _code("Observation", "status", "status", "observation-status"),
    _date("Observation", "date", "effectiveDateTime|effectivePeriod|effectiveTiming|effectiveInstant"),
    Param("Observation", "value-quantity", Type.QUANTITY, "valueQuantity"),
    _identified("Observation"),
    _token("Observation", "value-concept", "valueCodeableConcept"),
    _string("Observation", "value-string", "valueString|valueCodeableConcept.text"),
    _date("Observation", "value-date", "valueDateTime|valuePeriod"),
    _reference("Observation", "based-on", "basedOn", "CarePlan", "ServiceRequest", "MedicationRequest",
               "DeviceRequest", "NutritionOrder", "ImmunizationRecommendation"),
    _reference("Observation", "specimen", "specimen", "Specimen"),
    _reference("Observation", "performer", "performer", *_DOCTOR, "Organization", "CareTeam", "Patient",
               "RelatedPerson"),
    _reference("Observation", "encounter", "encounter", *_ENCOUNTER),
    _token("Observation", "data-absent-reason", "dataAbsentReason"),
    _token("Observation", "method", "method"),
    _reference("Observation", "device", "device", "Device", "DeviceMetric"),
    _reference("Observation", "focus", "focus"),
    _reference("Observation", "has-member", "hasMember", "Observation", "QuestionnaireResponse", "MolecularSequence"),
    _reference("Observation", "derived-from", "derivedFrom", "DocumentReference", "ImagingStudy", "Media",
               "QuestionnaireResponse", "Observation", "MolecularSequence"),
    _reference("Observation", "part-of", "partOf", "Immunization", "ImagingStudy", "MedicationAdministration",
               "MedicationDispense", "MedicationStatement", "Procedure"),
    _token("Observation", "component-code", "component.code"),
    _token("Observation", "component-data-absent-reason", "component.dataAbsentReason"),
    _token("Observation", "component-value-concept", "component.valueCodeableConcept"),
    Param("Observation", "component-value-quantity", Type.QUANTITY, "component.valueQuantity"),
    *(Param("Observation", f"combo-{name}", kind, same_as=(name, f"component-{name}")) for name, kind in (
        ("code", Type.TOKEN), ("data-absent-reason", Type.TOKEN), ("value-concept", Type.TOKEN),
        ("value-quantity", Type.QUANTITY))),

    *_owned("ImagingStudy", targets=("Patient", "Device", "Group")),
    _identified("ImagingStudy"),
    _date("ImagingStudy", "started", "started"),
    _code("ImagingStudy", "status", "status", "imagingstudy-status"),
    _token("ImagingStudy", "modality", "series.modality", As.CODING),
    _token("ImagingStudy", "bodysite", "series.bodySite", As.CODING),
    _token("ImagingStudy", "series", "series.uid", As.UID),
    _token("ImagingStudy", "instance", "series.instance.uid", As.UID),
    _token("ImagingStudy", "dicom-class", "series.instance.sopClass", As.CODING),
    _token("ImagingStudy", "reason", "reasonCode"),
    _reference("ImagingStudy", "basedon", "basedOn", "CarePlan", "ServiceRequest", "Appointment",
               "AppointmentResponse", "Task"),
    _reference("ImagingStudy", "encounter", "encounter", *_ENCOUNTER),
    _reference("ImagingStudy", "endpoint", "endpoint|series.endpoint", "Endpoint"),
    _reference("ImagingStudy", "interpreter", "interpreter", *_DOCTOR),
    _reference("ImagingStudy", "performer", "series.performer.actor", *_WHO),
    _reference("ImagingStudy", "referrer", "referrer", *_DOCTOR),
]

_DOCUMENTS = [
    _reference("Provenance", "target", "target"),
    Param("Provenance", "patient", Type.REFERENCE, "target", targets=_PATIENT, same_as=("target",)),
    _reference("Provenance", "agent", "agent.who", *_WHO),
    _token("Provenance", "agent-role", "agent.role"),
    _token("Provenance", "agent-type", "agent.type"),
    _reference("Provenance", "entity", "entity.what"),
    _reference("Provenance", "location", "location", "Location"),
    _date("Provenance", "recorded", "recorded"),
    _date("Provenance", "when", "occurredDateTime"),
    _token("Provenance", "signature-type", "signature.type", As.CODING),

    *_owned("DocumentReference", targets=("Patient", "Practitioner", "Group", "Device")),
    _token("DocumentReference", "identifier", "masterIdentifier|identifier", As.IDENTIFIER),
    _code("DocumentReference", "status", "status", "document-reference-status"),
    _token("DocumentReference", "type", "type"),
    _token("DocumentReference", "category", "category"),
    _date("DocumentReference", "date", "date"),
    _date("DocumentReference", "period", "context.period"),
    _string("DocumentReference", "description", "description"),
    _reference("DocumentReference", "author", "author", *_WHO),
    _reference("DocumentReference", "authenticator", "authenticator", *_DOCTOR, "Organization"),
    _reference("DocumentReference", "custodian", "custodian", "Organization"),
    _reference("DocumentReference", "encounter", "context.encounter", *_ENCOUNTER),
    _reference("DocumentReference", "related", "context.related"),
    _reference("DocumentReference", "relatesto", "relatesTo.target", "DocumentReference"),
    _code("DocumentReference", "relation", "relatesTo.code", "document-relationship-type"),
    _code("DocumentReference", "contenttype", "content.attachment.contentType"),
    _code("DocumentReference", "language", "content.attachment.language"),
    _token("DocumentReference", "format", "content.format", As.CODING),
    Param("DocumentReference", "location", Type.URI, "content.attachment.url"),
    _token("DocumentReference", "event", "context.event"),
    _token("DocumentReference", "facility", "context.facilityType"),
    _token("DocumentReference", "setting", "context.practiceSetting"),
    _token("DocumentReference", "security-label", "securityLabel"),
]

_ADMINISTRATION = [
    Param("AllergyIntolerance", "patient", Type.REFERENCE, "patient", targets=_PATIENT, owner=True),
    _identified("AllergyIntolerance"),
    _token("AllergyIntolerance", "code", "code|reaction.substance"),
    _token("AllergyIntolerance", "clinical-status", "clinicalStatus"),
    _token("AllergyIntolerance", "verification-status", "verificationStatus"),
    _code("AllergyIntolerance", "type", "type", "allergy-intolerance-type"),
    _code("AllergyIntolerance", "category", "category", "allergy-intolerance-category"),
    _code("AllergyIntolerance", "criticality", "criticality", "allergy-intolerance-criticality"),
    _code("AllergyIntolerance", "severity", "reaction.severity", "reaction-event-severity"),
    _token("AllergyIntolerance", "manifestation", "reaction.manifestation"),
    _token("AllergyIntolerance", "route", "reaction.exposureRoute"),
    _date("AllergyIntolerance", "date", "recordedDate"),
    _date("AllergyIntolerance", "last-date", "lastOccurrence"),
    _date("AllergyIntolerance", "onset", "reaction.onset"),
    _reference("AllergyIntolerance", "asserter", "asserter", *_DOCTOR, "Patient", "RelatedPerson"),
    _reference("AllergyIntolerance", "recorder", "recorder", *_DOCTOR, "Patient", "RelatedPerson"),

    *_owned("Condition", targets=("Patient", "Group")),
    _identified("Condition"),
    _token("Condition", "code", "code"),
    _token("Condition", "category", "category"),
    _token("Condition", "clinical-status", "clinicalStatus"),
    _token("Condition", "verification-status", "verificationStatus"),
    _token("Condition", "severity", "severity"),
    _token("Condition", "stage", "stage.summary"),
    _token("Condition", "body-site", "bodySite"),
    _token("Condition", "evidence", "evidence.code"),
    _date("Condition", "recorded-date", "recordedDate"),
    _date("Condition", "onset-date", "onsetDateTime|onsetPeriod"),
    _string("Condition", "onset-info", "onsetString"),
    _date("Condition", "abatement-date", "abatementDateTime|abatementPeriod"),
    _string("Condition", "abatement-string", "abatementString"),
    _reference("Condition", "encounter", "encounter", "Encounter"),
    _reference("Condition", "asserter", "asserter", *_DOCTOR, "Patient", "RelatedPerson"),
    _reference("Condition", "evidence-detail", "evidence.detail"),

    *_owned("Procedure", targets=("Patient", "Group")),
    _identified("Procedure"),
    _token("Procedure", "code", "code"),
    _token("Procedure", "category", "category"),
    _code("Procedure", "status", "status", "event-status"),
    _token("Procedure", "reason-code", "reasonCode"),
    _date("Procedure", "date", "performedDateTime|performedPeriod"),
    _reference("Procedure", "based-on", "basedOn", "CarePlan", "ServiceRequest"),
    _reference("Procedure", "encounter", "encounter", "Encounter"),
    _reference("Procedure", "location", "location", "Location"),
    _reference("Procedure", "part-of", "partOf", "Procedure", "Observation", "MedicationAdministration"),
    _reference("Procedure", "performer", "performer.actor", *_DOCTOR, "Organization", "Patient", "RelatedPerson",
               "Device"),
    _reference("Procedure", "reason-reference", "reasonReference", "Condition", "Observation", "Procedure",
               "DiagnosticReport", "DocumentReference"),

    Param("Coverage", "beneficiary", Type.REFERENCE, "beneficiary", targets=_PATIENT, owner=True),
    Param("Coverage", "patient", Type.REFERENCE, "beneficiary", targets=_PATIENT, same_as=("beneficiary",), owner=True),
    _identified("Coverage"),
    _code("Coverage", "status", "status", "fm-status"),
    _token("Coverage", "type", "type"),
    _token("Coverage", "class-type", "class.type"),
    _string("Coverage", "class-value", "class.value"),
    _string("Coverage", "dependent", "dependent"),
    _reference("Coverage", "payor", "payor", "Organization", "Patient", "RelatedPerson"),
    _reference("Coverage", "policy-holder", "policyHolder", "Organization", "Patient", "RelatedPerson"),
    _reference("Coverage", "subscriber", "subscriber", "Patient", "RelatedPerson"),
]

_RECOGNITION = [
    Param("DetectedIssue", "patient", Type.REFERENCE, "patient", targets=_PATIENT, owner=True),
    _identified("DetectedIssue"),
    _token("DetectedIssue", "code", "code"),
    _date("DetectedIssue", "identified", "identifiedDateTime|identifiedPeriod"),
    _reference("DetectedIssue", "implicated", "implicated"),
    _reference("DetectedIssue", "author", "author", *_DOCTOR, "Device"),

    _identified("Appointment"),
    _code("Appointment", "status", "status", "appointmentstatus"),
    _date("Appointment", "date", "start"),
    _token("Appointment", "appointment-type", "appointmentType"),
    _token("Appointment", "service-category", "serviceCategory"),
    _token("Appointment", "service-type", "serviceType"),
    _token("Appointment", "specialty", "specialty"),
    _token("Appointment", "reason-code", "reasonCode"),
    _code("Appointment", "part-status", "participant.status", "participationstatus"),
    _reference("Appointment", "based-on", "basedOn", "ServiceRequest"),
    _reference("Appointment", "actor", "participant.actor", "Patient", *_DOCTOR, "RelatedPerson", "Device",
               "HealthcareService", "Location"),
    *(Param("Appointment", name, Type.REFERENCE, "participant.actor", targets=(target,), same_as=("actor",))
      for name, target in (("patient", "Patient"), ("practitioner", "Practitioner"), ("location", "Location"))),
    _reference("Appointment", "reason-reference", "reasonReference", "Condition", "Procedure", "Observation",
               "ImmunizationRecommendation"),
    _reference("Appointment", "slot", "slot", "Slot"),
    _reference("Appointment", "supporting-info", "supportingInformation"),
]

#: Every parameter that has index rows. ``_id``, ``_lastUpdated`` and ``institution`` are columns: see `gateway.search`.
PARAMETERS: list[Param] = [*_EVERY, *_PERSONS, *_PLACES, *_CARE, *_RESULTS, *_DOCUMENTS, *_ADMINISTRATION,
                           *_RECOGNITION]


@lru_cache(maxsize=1024)
def parameters_of(resource_type: str) -> dict[str, Param]:
    """The parameters of a type by name, those of every type last; an unlisted type has only these."""
    return {p.name: p for t in (resource_type, "*") for p in PARAMETERS if p.resource_type == t}


def resource_types() -> Iterator[str]:
    """The types that have parameters of their own, in the table's order."""
    return iter(dict.fromkeys(p.resource_type for p in PARAMETERS if p.resource_type != "*"))
