"""Every code of the guide's table maps becomes the code that it names; or we decided otherwise."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from gateway.errors import GatewayError
from tests.guide import GUIDE, at_path, code_rows, converted, decided, decisions, leaves, message, resources_of

pytestmark = pytest.mark.skipif(not GUIDE.is_dir(), reason="the guide's tables are not beside the repository")


class Place(NamedTuple):
    """Where a table's code is sent (``{}``), and where the mapped one must stand."""

    message: str
    segment: str
    field: int
    sent: str
    resource: str
    path: str
    beside: dict[tuple[str, int], str] = {}


def cwe(message: str, segment: str, field: int, table: str, resource: str, path: str) -> Place:
    """A coded field that names its table."""
    return Place(message, segment, field, f"{{}}^^HL7{table}", resource, path)


PLACES: dict[str, Place] = {
    "AddressType[Type]": Place("ORU", "PID", 11, "Road^^Town^^^^{}", "Patient", "address.type"),
    "AddressType[Use]": Place("ORU", "PID", 11, "Road^^Town^^^^{}", "Patient", "address.use"),
    "AdministrativeSex": Place("ORU", "PID", 8, "{}", "Patient", "gender"),
    "MaritalStatus": Place("ORU", "PID", 16, "{}", "Patient", "maritalStatus.coding"),
    "NameType": Place("ORU", "PID", 5, "Smith^John^^^^^{}", "Patient", "name.use"),
    "OrderControlCode[ServiceRequest.status]": Place("OML", "ORC", 1, "{}", "ServiceRequest", "status"),
    "OrderStatus": Place("OML", "ORC", 5, "{}", "ServiceRequest", "status"),
    "OrderType": cwe("OML", "ORC", 29, "0482", "ServiceRequest", "locationCode"),
    "ConfidentialityCode": cwe("OML", "ORC", 28, "0177", "ServiceRequest", "meta.security"),
    "ExtendedPriorityCodes": Place("OML", "OBR", 5, "{}", "ServiceRequest", "priority"),
    "Event[EncounterStatus]": Place("ADT", "MSH", 9, "ADT^{}", "Encounter", "status"),
    "PatientClass[EncounterClass]": Place("ADT", "PV1", 2, "{}", "Encounter", "class.code"),
    "PatientClass[EncounterStatus]": Place("ADT", "PV1", 2, "{}", "Encounter", "status"),
    "AdmissionType": cwe("ADT", "PV1", 4, "0007", "Encounter", "type"),
    "HospitalService": cwe("ADT", "PV1", 10, "0069", "Encounter", "serviceType"),
    "ReadmissionIndicator": cwe("ADT", "PV1", 13, "0092", "Encounter", "hospitalization.reAdmission"),
    "AmbulatoryStatus": cwe("ADT", "PV1", 15, "0009", "Encounter", "hospitalization.specialArrangement"),
    "VIPIndicator": cwe("ADT", "PV1", 16, "0099", "Encounter", "hospitalization.specialCourtesy"),
    "BedStatus": Place("ADT", "PV1", 40, "{}", "Location", "operationalStatus.code", {("PV1", 3): "W1^R2^B3"}),
    "FinancialClass": Place("ADT", "PV1", 20, "{}", "Coverage", "type"),
    "DischargedToLocation": Place("ADT", "PV1", 37, "{}", "Location", "type"),
    "DocumentConfidentialityStatus": Place("MDM", "TXA", 18, "{}", "DocumentReference", "securityLabel"),
    "FillerStatusCodes[Appointment]": Place("SIU", "SCH", 25, "{}", "Appointment", "status"),
    "DischargeDisposition": cwe("ADT", "PV1", 36, "0112", "Encounter", "hospitalization.dischargeDisposition"),
    "DietType": cwe("ADT", "PV1", 38, "0114", "Encounter", "hospitalization.dietPreference"),
    "Religion": cwe("ADT", "PID", 17, "0006", "Patient", "extension.valueCodeableConcept"),
    "PrimaryLanguage": cwe("ORU", "PID", 15, "0296", "Patient", "communication.language"),
    "ResultStatus[Non-Queries]": Place("ORU", "OBR", 25, "{}", "DiagnosticReport", "status"),
    "ObservationResultStatusCodesInterpretation": Place("ORU", "OBX", 11, "{}", "Observation", "status"),
    "InterpretationCodes": Place("ORU", "OBX", 8, "{}", "Observation", "interpretation.coding"),
    "NatureOfAbnormalTesting": Place("ORU", "OBX", 10, "{}", "Observation", "extension.valueCodeableConcept"),
    "DiagnosticServiceSectionID": Place("ORU", "OBR", 24, "{}", "DiagnosticReport", "category.coding"),
    "IdentifierType": Place("ORU", "PID", 3, "X1^^^H^{}", "Patient", "identifier.type.coding"),
    "TelecommunicationUseCode": Place("ORU", "PID", 13, "^{}^PH^^^^5551234", "Patient", "telecom.use"),
    "TelecommunicationEquipmentType": Place("ORU", "PID", 13, "5551234^^{}^z@h.example", "Patient", "telecom"),
    "YesNoIndicator": Place("ORU", "PID", 30, "{}", "Patient", "deceasedBoolean"),
    "YesNoIndicator[AvailabilityStatus]": Place("ORU", "SPM", 20, "{}", "Specimen", "status"),
    "SpecimenType": cwe("ORU", "SPM", 4, "0487", "Specimen", "type"),
    "AdditivePreservative": cwe("ORU", "SPM", 6, "0371", "Specimen", "container.additiveCodeableConcept"),
    "SpecimenCollectionMethod": cwe("ORU", "SPM", 7, "0488", "Specimen", "collection.method"),
    "SpecimenSourceSite": cwe("ORU", "SPM", 8, "0543", "Specimen", "collection.bodySite"),
    "SpecimenCondition": cwe("ORU", "SPM", 24, "0493", "Specimen", "condition"),
    "SpecimenRejectReason": cwe("ORU", "SPM", 21, "0490", "Specimen", "condition"),
    "ContainerType": cwe("ORU", "SPM", 27, "HL7", "Specimen", "container.type"),
    "BodySite": Place("OML", "OBR", 15, "SER&Serum&L^^^{}&&HL70163", "ServiceRequest", "bodySite"),
    "DegreeLicenseCertificate": Place("ORU", "OBX", 16, "D1^Smith^^^^^{}", "Practitioner", "qualification.code"),
}
CODES = [(name, *code) for name, codes in sorted(code_rows().items()) if name in PLACES for code in codes]


def verdict(name: str, sent: str, code: str, system: str) -> str:
    """"" where the sent code becomes the mapped one, else what is missing."""
    place = PLACES[name]
    fields = {(place.segment, 0, place.field): place.sent.format(sent),
              **{(segment, 0, field): text for (segment, field), text in place.beside.items()}}
    conversion = converted(message(place.message, fields))
    if isinstance(conversion, GatewayError):
        return f"refused: {conversion}"
    resources = resources_of(conversion)
    for one in resources.values():
        if one["resourceType"] != place.resource:
            continue
        for node in at_path(one, place.path, resources):
            held = set(leaves(node, resources, 0))
            coded = isinstance(node, dict) and ("coding" in node or "system" in node) and "CodeSystem" in system
            if code in held and (not coded or system in held):
                return ""
    return f"{place.resource}.{place.path} does not hold {code} of {system}"


@pytest.mark.parametrize(("name", "sent", "code", "display", "system"), CODES,
                         ids=[f"{name} {sent}" for name, sent, *_ in CODES])
def test_a_code_is_mapped_as_the_guide_tells_or_decided_otherwise(name: str, sent: str, code: str, display: str,
                                                                  system: str) -> None:
    """The code, sent in a field of its table, is the guide's code in the resource."""
    missing = verdict(name, sent, code, system)
    decision = decided(f"table {name} {sent}")
    if decision is None:
        assert missing == "", f"table {name} {sent}: {missing}; mend the converter or decide it"
    else:
        assert missing, f"table {name} {sent} is mapped as the guide tells: take the decision out"


@pytest.mark.parametrize("name", sorted(code_rows().keys() - PLACES.keys()))
def test_a_table_that_no_field_uses_is_decided(name: str) -> None:
    """A table without a field to try it in is left out on purpose, as a whole."""
    assert f"table {name} *" in decisions(), f"{name}: give it a field in PLACES, or decide it"
