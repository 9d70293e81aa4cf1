"""What is read from a DICOM header: one table, tag → keyword, VR and, for sequences, what is read of their items.

Keywords are PS3.6's. Adding a fact is adding a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Facts of one instance, JSON-able: keyword → str, int, list of str, {"Alphabetic": …} for PN, list of dicts for SQ.
#: What the header lacks is not there. The UIDs of study, series, instance, SOP class and transfer syntax always are.
Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One element that is read."""

    keyword: str
    vr: str
    many: bool = False  # value multiplicity above 1: kept as a list
    items: dict[int, Row] = field(default_factory=dict)


def _sq(keyword: str, *tables: dict[int, Row]) -> Row:
    return Row(keyword, "SQ", items={tag: row for table in tables for tag, row in table.items()})


# PS3.3 table 8.8-1
_CODE = {
    0x00080100: Row("CodeValue", "SH"),
    0x00080102: Row("CodingSchemeDesignator", "SH"),
    0x00080103: Row("CodingSchemeVersion", "SH"),
    0x00080104: Row("CodeMeaning", "LO"),
    0x00080119: Row("LongCodeValue", "UC"),
    0x00080120: Row("URNCodeValue", "UR"),
}
# PS3.3 table 10-17
_HL7V2_HIERARCHIC_DESIGNATOR = {
    0x00400031: Row("LocalNamespaceEntityID", "UT"),
    0x00400032: Row("UniversalEntityID", "UT"),
    0x00400033: Row("UniversalEntityIDType", "CS"),
}
# PS3.3 tables 10-16, 10-18
_PATIENT_ID = {
    0x00100020: Row("PatientID", "LO"),
    0x00100021: Row("IssuerOfPatientID", "LO"),
    0x00100022: Row("TypeOfPatientID", "CS"),
    0x00100024: _sq("IssuerOfPatientIDQualifiersSequence", _HL7V2_HIERARCHIC_DESIGNATOR),
}
_ORDER = {
    0x00080050: Row("AccessionNumber", "SH"),
    0x00080051: _sq("IssuerOfAccessionNumberSequence", _HL7V2_HIERARCHIC_DESIGNATOR),
    0x00321060: Row("RequestedProcedureDescription", "LO"),
    0x00321064: _sq("RequestedProcedureCodeSequence", _CODE),
    0x00401001: Row("RequestedProcedureID", "SH"),
    0x00401002: Row("ReasonForTheRequestedProcedure", "LO"),
    0x0040100A: _sq("ReasonForRequestedProcedureCodeSequence", _CODE),
    0x00402016: Row("PlacerOrderNumberImagingServiceRequest", "LO"),
    0x00402017: Row("FillerOrderNumberImagingServiceRequest", "LO"),
}
# PS3.3 table 10-9
_REQUEST_ATTRIBUTES = {
    **_ORDER,
    0x0020000D: Row("StudyInstanceUID", "UI"),
    0x00400007: Row("ScheduledProcedureStepDescription", "LO"),
    0x00400008: _sq("ScheduledProtocolCodeSequence", _CODE),
    0x00400009: Row("ScheduledProcedureStepID", "SH"),
}

FACTS: dict[int, Row] = {
    0x00080005: Row("SpecificCharacterSet", "CS", many=True),
    0x00080008: Row("ImageType", "CS", many=True),
    0x00080016: Row("SOPClassUID", "UI"),
    0x00080018: Row("SOPInstanceUID", "UI"),
    0x00080020: Row("StudyDate", "DA"),
    0x00080021: Row("SeriesDate", "DA"),
    0x00080022: Row("AcquisitionDate", "DA"),
    0x00080023: Row("ContentDate", "DA"),
    0x0008002A: Row("AcquisitionDateTime", "DT"),
    0x00080030: Row("StudyTime", "TM"),
    0x00080031: Row("SeriesTime", "TM"),
    0x00080032: Row("AcquisitionTime", "TM"),
    0x00080033: Row("ContentTime", "TM"),
    0x00080060: Row("Modality", "CS"),
    0x00080070: Row("Manufacturer", "LO"),
    0x00080080: Row("InstitutionName", "LO"),
    0x00080090: Row("ReferringPhysicianName", "PN"),
    0x00080110: _sq("CodingSchemeIdentificationSequence", {
        0x00080102: Row("CodingSchemeDesignator", "SH"),
        0x0008010C: Row("CodingSchemeUID", "UI"),
    }),
    0x00080201: Row("TimezoneOffsetFromUTC", "SH"),
    0x00081010: Row("StationName", "SH"),
    0x00081030: Row("StudyDescription", "LO"),
    0x00081032: _sq("ProcedureCodeSequence", _CODE),
    0x0008103E: Row("SeriesDescription", "LO"),
    0x00081040: Row("InstitutionalDepartmentName", "LO"),
    0x00081050: Row("PerformingPhysicianName", "PN", many=True),
    0x00081060: Row("NameOfPhysiciansReadingStudy", "PN", many=True),
    0x00081070: Row("OperatorsName", "PN", many=True),
    0x00081090: Row("ManufacturerModelName", "LO"),
    0x00082218: _sq("AnatomicRegionSequence", _CODE),
    0x00100010: Row("PatientName", "PN"),
    0x00100030: Row("PatientBirthDate", "DA"),
    0x00100040: Row("PatientSex", "CS"),
    0x00101000: Row("OtherPatientIDs", "LO", many=True),
    0x00101001: Row("OtherPatientNames", "PN", many=True),
    0x00101002: _sq("OtherPatientIDsSequence", _PATIENT_ID),
    0x00180015: Row("BodyPartExamined", "CS"),
    0x00181030: Row("ProtocolName", "LO"),
    0x0020000D: Row("StudyInstanceUID", "UI"),
    0x0020000E: Row("SeriesInstanceUID", "UI"),
    0x00200010: Row("StudyID", "SH"),
    0x00200011: Row("SeriesNumber", "IS"),
    0x00200013: Row("InstanceNumber", "IS"),
    0x00200060: Row("Laterality", "CS"),
    0x00200062: Row("ImageLaterality", "CS"),
    0x00280008: Row("NumberOfFrames", "IS"),
    0x00280010: Row("Rows", "US"),
    0x00280011: Row("Columns", "US"),
    0x00400244: Row("PerformedProcedureStepStartDate", "DA"),
    0x00400245: Row("PerformedProcedureStepStartTime", "TM"),
    0x00400254: Row("PerformedProcedureStepDescription", "LO"),
    0x00400260: _sq("PerformedProtocolCodeSequence", _CODE),
    0x00400275: _sq("RequestAttributesSequence", _REQUEST_ATTRIBUTES),
    0x00401012: _sq("ReasonForPerformedProcedureCodeSequence", _CODE),
    0x0040A043: _sq("ConceptNameCodeSequence", _CODE),
    0x0040A370: _sq("ReferencedRequestSequence", _REQUEST_ATTRIBUTES),
    0x00420010: Row("DocumentTitle", "ST"),
    0x00700080: Row("ContentLabel", "CS"),
    **_PATIENT_ID,
    **_ORDER,
}
LAST = max(FACTS)
