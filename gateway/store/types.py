"""Numbers of resource types and the binary form of ids, as they stand in the tables. Pure.

The numbers are part of stored data: never reorder; append new types at the end.
"""

from __future__ import annotations

from gateway.errors import Category, GatewayError

_LIST = """
Account ActivityDefinition AdverseEvent AllergyIntolerance Appointment AppointmentResponse AuditEvent Basic Binary
BiologicallyDerivedProduct BodyStructure Bundle CapabilityStatement CarePlan CareTeam CatalogEntry ChargeItem
ChargeItemDefinition Claim ClaimResponse ClinicalImpression CodeSystem Communication CommunicationRequest
CompartmentDefinition Composition ConceptMap Condition Consent Contract Coverage CoverageEligibilityRequest
CoverageEligibilityResponse DetectedIssue Device DeviceDefinition DeviceMetric DeviceRequest DeviceUseStatement
DiagnosticReport DocumentManifest DocumentReference EffectEvidenceSynthesis Encounter Endpoint EnrollmentRequest
EnrollmentResponse EpisodeOfCare EventDefinition Evidence EvidenceVariable ExampleScenario ExplanationOfBenefit
FamilyMemberHistory Flag Goal GraphDefinition Group GuidanceResponse HealthcareService ImagingStudy Immunization
ImmunizationEvaluation ImmunizationRecommendation ImplementationGuide InsurancePlan Invoice Library Linkage List
Location Measure MeasureReport Media Medication MedicationAdministration MedicationDispense MedicationKnowledge
MedicationRequest MedicationStatement MedicinalProduct MedicinalProductAuthorization MedicinalProductContraindication
MedicinalProductIndication MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect MessageDefinition
MessageHeader MolecularSequence NamingSystem NutritionOrder Observation ObservationDefinition OperationDefinition
OperationOutcome Organization OrganizationAffiliation Parameters Patient PaymentNotice PaymentReconciliation Person
PlanDefinition Practitioner PractitionerRole Procedure Provenance Questionnaire QuestionnaireResponse RelatedPerson
RequestGroup ResearchDefinition ResearchElementDefinition ResearchStudy ResearchSubject RiskAssessment
RiskEvidenceSynthesis Schedule SearchParameter ServiceRequest Slot Specimen SpecimenDefinition StructureDefinition
StructureMap Subscription Substance SubstanceNucleicAcid SubstancePolymer SubstanceProtein
SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification SupplyDelivery SupplyRequest Task
TerminologyCapabilities TestReport TestScript ValueSet VerificationResult VisionPrescription
"""
#: FHIR R4 resource types (resourcelist.html); the number of a type is its place here, from 1.
NAMES: tuple[str, ...] = tuple(_LIST.split())
NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES, 1)}


def number_of(resource_type: str) -> int:
    """The number of a resource type; NOT_FOUND when R4 has no such type."""
    try:
        return NUMBERS[resource_type]
    except KeyError:
        raise GatewayError(Category.NOT_FOUND, "FHIR R4 has no such resource type", resource_type) from None


def name_of(number: int) -> str:
    """The resource type of a number that ``number_of`` gave."""
    return NAMES[number - 1]


def key(resource_type: str, resource_id: str) -> bytes:
    """Type and id as one stored value: the type's number, then a canonical lower-case uuid's 16 bytes or another text.

    A text of 16 bytes gets a NUL at its end, so that a length of 17 always means a uuid.
    """
    number = NUMBERS.get(resource_type) or number_of(resource_type)
    return _TYPE_BYTES[number] + pack(resource_id)


def pack(resource_id: str) -> bytes:
    """The second part of a ``key``."""
    if len(resource_id) == 36 and resource_id[8] == resource_id[13] == resource_id[18] == resource_id[23] == "-":
        digits = resource_id.replace("-", "")
        try:
            packed = bytes.fromhex(digits)
        except ValueError:
            return resource_id.encode()
        if packed.hex() == digits:
            return packed
    text = resource_id.encode()
    return text + b"\0" if len(text) == 16 else text


def id_of(key: bytes) -> str:
    """The id in a ``key``."""
    if len(key) == 17:
        text = key[1:].hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return key[1:].rstrip(b"\0").decode()


def type_of(key: bytes) -> str:
    """The resource type in a ``key``."""
    return NAMES[key[0] - 1]


_TYPE_BYTES = [bytes((number,)) for number in range(256)]
