"""HL7 tables as FHIR codes, as the v2-to-FHIR guide maps them; README.md says what we chose in its gaps."""

from __future__ import annotations

from typing import Final

V2: Final = "http://terminology.hl7.org/CodeSystem/v2-"
V3: Final = "http://terminology.hl7.org/CodeSystem/v3-"
INTERPRETATION: Final = f"{V3}ObservationInterpretation"
IDENTIFIER_TYPE: Final = f"{V2}0203"

#: Table 0123 → diagnostic-report-status. Y and Z answer queries and are refused like unknown values.
REPORT_STATUS: Final = {
    "O": "registered", "I": "registered", "S": "registered", "N": "registered", "A": "partial", "P": "preliminary",
    "R": "partial", "M": "preliminary", "F": "final", "C": "corrected", "X": "cancelled", "": "unknown",
}

#: Table 0085 → observation-status.
OBSERVATION_STATUS: Final = {
    "A": "amended", "B": "amended", "C": "corrected", "D": "entered-in-error", "F": "final", "I": "registered",
    "N": "cancelled", "O": "registered", "P": "preliminary", "R": "preliminary", "S": "preliminary", "U": "final",
    "V": "final", "W": "entered-in-error", "X": "cancelled", "": "unknown",
}

#: Table 0038 → request-status.
ORDER_STATUS: Final = {
    "CA": "revoked", "CM": "completed", "DC": "revoked", "ER": "entered-in-error", "HD": "on-hold", "IP": "active",
    "RP": "revoked", "SC": "active", "A": "active",
}

#: Table 0119 → request-status, where the guide names one.
ORDER_CONTROL_STATUS: Final = {
    "AF": "active", "CA": "active", "CR": "revoked", "DC": "revoked", "DF": "revoked", "DR": "revoked",
    "FU": "completed", "HD": "active", "HR": "on-hold", "NW": "active", "OC": "revoked", "OD": "revoked",
    "OH": "on-hold", "OK": "active", "PR": "active", "PY": "active", "RL": "active", "RO": "active", "RQ": "active",
}

#: What a ServiceRequest is when neither ORC-5 nor ORC-1 says it: as far as its report has come.
STATUS_BY_REPORT: Final = {
    "final": "completed", "corrected": "completed", "cancelled": "revoked", "unknown": "unknown",
}

#: Table 0485 → request-priority.
PRIORITY: Final = {"S": "stat", "A": "asap", "R": "routine"}

#: Table 0078 → v3-ObservationInterpretation, with its display there.
INTERPRETATIONS: Final = {
    "<": "Off scale low", ">": "Off scale high", "A": "Abnormal", "AA": "Critical abnormal", "B": "Better",
    "CAR": "Carrier", "D": "Significant change down", "DET": "Detected", "E": "Equivocal", "EX": "outside threshold",
    "EXP": "Expected", "H": "High", "HH": "Critical high", "HU": "Significantly high", "I": "Intermediate",
    "IE": "Insufficient evidence", "IND": "Indeterminate", "L": "Low", "LL": "Critical low", "LU": "Significantly low",
    "MS": "moderately susceptible", "N": "Normal", "NCL": "No CLSI defined breakpoint", "ND": "Not detected",
    "NEG": "Negative", "NR": "Non-reactive", "NS": "Non-susceptible", "POS": "Positive", "R": "Resistant",
    "RR": "Reactive", "S": "Susceptible", "SDD": "Susceptible-dose dependent", "SYN-R": "Synergy - resistant",
    "SYN-S": "Synergy - susceptible", "U": "Significant change up", "UNE": "Unexpected", "VS": "very susceptible",
    "W": "Worse", "WR": "Weakly reactive",
}

#: Flags of table 0078 that v3-ObservationInterpretation has only as inactive codes, which the guide does not map.
FLAGS_OF_V2: Final = {
    "AC": "Anti-complementary substances present", "HM": "Hold for Medical Review",
    "OBX": "Interpretation qualifiers in separate OBX segments", "QCF": "Quality Control Failure",
    "TOX": "Cytotoxic substance present",
}

#: Table 0080, with its display: what a range depends on (OBX-10).
NATURE_OF_TEST: Final = {
    "A": "An age-based population", "B": "Breed", "N": "None - generic normal range", "R": "A race-based population",
    "S": "A sex-based population", "SP": "Species", "ST": "Strain",
}

#: Table 0074, with its display.
SERVICE_SECTION: Final = {
    "AU": "Audiology", "BG": "Blood Gases", "BLB": "Blood Bank", "CG": "Cytogenetics", "CH": "Chemistry",
    "CP": "Cytopathology", "CT": "CAT Scan", "CTH": "Cardiac Catheterization", "CUS": "Cardiac Ultrasound",
    "EC": "Electrocardiac (e.g., EKG, EEC, Holter)", "EN": "Electroneuro (EEG, EMG,EP,PSG)", "GE": "Genetics",
    "HM": "Hematology", "ICU": "Bedside ICU Monitoring", "IMG": "Diagnostic Imaging", "IMM": "Immunology",
    "LAB": "Laboratory", "MB": "Microbiology", "MCB": "Mycobacteriology", "MYC": "Mycology",
    "NMR": "Nuclear Magnetic Resonance", "NMS": "Nuclear Medicine Scan", "NRS": "Nursing Service Measures",
    "OSL": "Outside Lab", "OT": "Occupational Therapy", "OTH": "Other", "OUS": "OB Ultrasound", "PAR": "Parasitology",
    "PAT": "Pathology (gross & histopath, not surgical)", "PF": "Pulmonary Function", "PHR": "Pharmacy",
    "PHY": "Physician (Hx. Dx, admission note, etc.)", "PT": "Physical Therapy", "RAD": "Radiology",
    "RC": "Respiratory Care (therapy)", "RT": "Radiation Therapy", "RUS": "Radiology Ultrasound",
    "RX": "Radiograph", "SP": "Surgical Pathology", "SR": "Serology", "TX": "Toxicology", "URN": "Urinalysis",
    "VR": "Virology", "VUS": "Vascular Ultrasound", "XRC": "Cineradiograph",
}
_LABORATORY = ("BG", "BLB", "CG", "CH", "CP", "GE", "HM", "IMM", "LAB", "MB", "MCB", "MYC", "OSL", "PAR", "PAT", "SP",
               "SR", "TX", "URN", "VR")
_IMAGING = ("CT", "CUS", "IMG", "NMR", "NMS", "OUS", "RAD", "RUS", "RX", "VUS", "XRC")
#: Table 0074 → observation-category, where the section is surely one of them.
OBSERVATION_CATEGORY: Final = {**dict.fromkeys(_LABORATORY, "laboratory"), **dict.fromkeys(_IMAGING, "imaging")}
CATEGORY_DISPLAY: Final = {"laboratory": "Laboratory", "imaging": "Imaging"}

GENDER: Final = {"F": "female", "M": "male", "O": "other", "U": "unknown", "A": "other", "N": "other"}
NAME_USE: Final = {"BAD": "old", "D": "usual", "L": "official", "M": "maiden", "MSK": "anonymous", "N": "nickname",
                   "NAV": "temp", "NOUSE": "old", "R": "official", "TEMP": "temp", "S": "anonymous"}
#: XPN.8 → iso21090-EN-representation.
NAME_REPRESENTATION: Final = {"I": "IDE", "A": "ABC", "P": "SYL"}
ADDRESS_USE: Final = {"BA": "old", "BI": "billing", "C": "temp", "B": "work", "H": "home", "O": "work"}
ADDRESS_TYPE: Final = {"M": "postal", "SH": "postal"}
TELECOM_USE: Final = {"PRN": "home", "WPN": "work", "PRS": "mobile"}
TELECOM_SYSTEM: Final = {"PH": "phone", "FX": "fax", "MD": "other", "CP": "phone", "SAT": "other", "BP": "pager",
                         "INTERNET": "email", "X.400": "email", "TDD": "other", "TTY": "other"}
MARITAL_STATUS: Final = {
    "A": ("L", "Legally Separated"), "D": ("D", "Divorced"), "M": ("M", "Married"), "S": ("S", "Never Married"),
    "W": ("W", "Widowed"), "C": ("C", "Common Law"), "G": ("T", "Domestic partner"), "P": ("T", "Domestic partner"),
    "R": ("T", "Domestic partner"), "E": ("L", "Legally Separated"), "N": ("A", "Annulled"),
    "I": ("I", "Interlocutory"), "B": ("U", "unmarried"),
}
#: Table 0004 → Encounter.class and Encounter.status.
ENCOUNTER_CLASS: Final = {
    "E": (f"{V3}ActCode", "EMER", "emergency"), "I": (f"{V3}ActCode", "IMP", "inpatient encounter"),
    "O": (f"{V3}ActCode", "AMB", "ambulatory"), "P": (f"{V3}ActCode", "PRENC", "pre-admission"),
    "R": (f"{V2}0004", "R", "Recurring patient"), "B": (f"{V2}0004", "B", "Obstetrics"),
    "C": (f"{V2}0004", "C", "Commercial Account"), "N": (f"{V2}0004", "N", "Not Applicable"),
    "U": (f"{V2}0004", "U", "Unknown"),
}
ENCOUNTER_STATUS: Final = {"P": "planned", "U": "unknown"}
SPECIMEN_STATUS: Final = {"Y": "available", "N": "unavailable"}

#: CX.5 that says "resident identity card" by itself, and types that say it only together with a number of its form.
NATIONAL_TYPES: Final = frozenset(("NNCHN", "身份证", "身份证号", "居民身份证", "居民身份证号", "SFZ", "SFZH"))
NATIONAL_IF_FORM: Final = frozenset(("NI", "NNXXX", "SB", "SS", "ID", "IDCARD", "01"))

#: ED.3 or RP.4 (table 0291) → media type, where ED.2 is not a media type itself.
MEDIA_TYPES: Final = {
    "PDF": "application/pdf", "JPEG": "image/jpeg", "JPG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif",
    "TIFF": "image/tiff", "TIF": "image/tiff", "BMP": "image/bmp", "RTF": "application/rtf", "HTML": "text/html",
    "HTM": "text/html", "XML": "application/xml", "TXT": "text/plain", "TEXT": "text/plain", "PLAIN": "text/plain",
    "DICOM": "application/dicom", "DCM": "application/dicom", "MSWORD": "application/msword", "X-HL7-CDA-LEVEL-ONE":
    "application/hl7-cda+xml", "SVG": "image/svg+xml", "ZIP": "application/zip", "DOC": "application/msword",
}

#: Table 0177 → security label, where FHIR has one; HIV and psychiatry are sensitivities (v3-ActCode).
CONFIDENTIALITY: Final = {
    "V": {"system": f"{V3}Confidentiality", "code": "V", "display": "very restricted"},
    "R": {"system": f"{V3}Confidentiality", "code": "R", "display": "restricted"},
    "EMP": {"system": f"{V3}ActCode", "code": "EMP", "display": "employee information sensitivity"},
    "PSY": {"system": f"{V3}ActCode", "code": "PSY", "display": "psychiatry disorder information sensitivity"},
    "AID": {"system": f"{V3}ActCode", "code": "HIV", "display": "HIV/AIDS information sensitivity"},
    "HIV": {"system": f"{V3}ActCode", "code": "HIV", "display": "HIV/AIDS information sensitivity"},
    "ETH": {"system": f"{V3}ActCode", "code": "ETHUD", "display": "alcohol use disorder information sensitivity"},
}
#: Table 0482 → v3-RoleCode.
ORDER_PLACE: Final = {
    "I": {"system": f"{V3}RoleCode", "code": "HOSP", "display": "Hospital"},
    "O": {"system": f"{V3}RoleCode", "code": "OF", "display": "Outpatient facility"},
}
