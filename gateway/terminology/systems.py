"""The URIs of coding systems, from the names that HL7v2 and DICOM give them."""

from __future__ import annotations

import re

#: Canonical base of everything that the project defines.
BASE = "http://huren.example/fhir"
ITEMS = f"{BASE}/CodeSystem/recognition-item"
PANELS = f"{BASE}/CodeSystem/recognition-panel"
CATEGORIES = f"{BASE}/CodeSystem/recognition-category"

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
DCM = "http://dicom.nema.org/resources/ontology/DCM"

# HL7 table 0396, terminologies-systems.html. Left out on purpose: the local ones (L, 99xxx), ISO+ and ANS+ (their unit
# spellings go through ``ucum``), and names that do not say which release they mean.
_V2 = {
    "LN": LOINC,
    "LOINC": LOINC,
    "SCT": SNOMED,
    "SNM-CT": SNOMED,
    "SNOMED-CT": SNOMED,
    "SNOMEDCT": SNOMED,
    "UCUM": UCUM,
    "I9": "http://hl7.org/fhir/sid/icd-9",
    "I9C": "http://hl7.org/fhir/sid/icd-9-cm",
    "I9CDX": "http://hl7.org/fhir/sid/icd-9-cm",
    "I9CP": "http://hl7.org/fhir/sid/icd-9-cm",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "ICD10": "http://hl7.org/fhir/sid/icd-10",
    "ICD-10": "http://hl7.org/fhir/sid/icd-10",
    "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD10CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "I10P": "http://www.cms.gov/Medicare/Coding/ICD10",
    "I11": "http://id.who.int/icd/release/11/mms",
    "C4": "http://www.ama-assn.org/go/cpt",
    "CPT4": "http://www.ama-assn.org/go/cpt",
    "CVX": "http://hl7.org/fhir/sid/cvx",
    "NDC": "http://hl7.org/fhir/sid/ndc",
    "RXNORM": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "ATC": "http://www.whocc.no/atc",
    "DCM": DCM,
    "RADLEX": "http://radlex.org",
    "ISO3166_1": "urn:iso:std:iso:3166",
    "ISO4217": "urn:iso:std:iso:4217",
}

# PS3.16 table 8-1. SRT, SNM3, SNOMED-RT and 99SDM carry the retired SNOMED-RT codes: they name concepts of SNOMED CT
# only after translation, which is the imaging conversion's work, so they have no URI here.
_DICOM = {
    "SCT": SNOMED,
    "LN": LOINC,
    "DCM": DCM,
    "UCUM": UCUM,
    "RADLEX": "http://radlex.org",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "I9": "http://hl7.org/fhir/sid/icd-9",
    "I9C": "http://hl7.org/fhir/sid/icd-9-cm",
    "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
    "I10P": "http://www.cms.gov/Medicare/Coding/ICD10",
    "I11": "http://id.who.int/icd/release/11/mms",
    "C4": "http://www.ama-assn.org/go/cpt",
    "CPT4": "http://www.ama-assn.org/go/cpt",
    "RXNORM": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "ISO3166_1": "urn:iso:std:iso:3166",
    "NDC": "http://hl7.org/fhir/sid/ndc",
}

_V2_TABLE = re.compile(r"HL7-?(\d{1,4})", re.ASCII)


def system_uri(v2_name: str) -> str | None:
    """The URI of a coding system named as in HL7 table 0396; None for local ones (``L``, ``99…``) and unknown ones.

    ``HL7nnnn`` gives the CodeSystem of that v2 table whatever the number is.
    """
    name = v2_name.strip().upper()
    if uri := _V2.get(name):
        return uri
    if table := _V2_TABLE.fullmatch(name):
        return f"http://terminology.hl7.org/CodeSystem/v2-{int(table[1]):04d}"
    return None


def dicom_scheme_uri(designator: str) -> str | None:
    """The URI for a Coding Scheme Designator (0008,0102); None for private, retired and unknown ones (PS3.16 8).

    For those the caller looks into the Coding Scheme Identification Sequence (0008,0110), else names the source's own.
    """
    return _DICOM.get(designator.strip().upper())
