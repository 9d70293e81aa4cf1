"""Codes of DICOM headers as FHIR codings: coding schemes, modalities, body parts, sides. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gateway.imaging.facts import Facts
from gateway.source import Source
from gateway.terminology.systems import DCM, SNOMED, dicom_scheme_uri

#: PS3.16 CID 29 Acquisition Modality: what ImagingStudy.modality may list; SR, PR, KO, SEG, OT … are no acquisitions.
ACQUISITION_MODALITIES = frozenset((
    "AR", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "DG", "DMS", "DX", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "GM",
    "HD", "IO", "IVOCT", "IVUS", "KER", "LEN", "LS", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV",
    "OPTENF", "OPV", "OSS", "PA", "POS", "PT", "PX", "RESP", "RF", "RG", "RTIMAGE", "SM", "SRF", "TG", "US", "VA",
    "XA", "XC"))

#: PS3.3 C.7.3.1.1.5.1 → ImagingStudy.series.laterality (SNOMED CT)
LATERALITY = {
    "R": {"system": SNOMED, "code": "24028007", "display": "Right"},
    "L": {"system": SNOMED, "code": "7771000", "display": "Left"},
    "B": {"system": SNOMED, "code": "51440002", "display": "Right and left"},
}

_RETIRED_SNOMED = {"SRT", "SNM3", "99SDM", "SNOMED-RT"}

# Body Part Examined (0018,0015) as PS3.16 Annex L spells it → SNOMED CT of CID 4031 and its neighbours
_BODY_PARTS = {
    "ABDOMEN": ("818981001", "Abdomen"),
    "ABDOMENPELVIS": ("818982008", "Abdomen and Pelvis"),
    "ACJOINT": ("85856004", "Acromioclavicular joint"),
    "ANKLE": ("70258002", "Ankle joint"),
    "ANUS": ("53505006", "Anus"),
    "AORTA": ("15825003", "Aorta"),
    "ARM": ("40983000", "Upper arm"),
    "BILEDUCT": ("28273000", "Bile duct"),
    "BILIARYTRACT": ("34707002", "Biliary tract"),
    "BLADDER": ("89837001", "Bladder"),
    "BRAIN": ("12738006", "Brain"),
    "BREAST": ("76752008", "Breast"),
    "BRONCHUS": ("955009", "Bronchus"),
    "CALCANEUS": ("80144004", "Calcaneus"),
    "CHEST": ("816094009", "Chest"),
    "CHESTABDOMEN": ("416550000", "Chest and Abdomen"),
    "CHESTABDPELVIS": ("416775004", "Chest, Abdomen and Pelvis"),
    "CLAVICLE": ("51299004", "Clavicle"),
    "COCCYX": ("64688005", "Coccyx"),
    "COLON": ("71854001", "Colon"),
    "CSPINE": ("122494005", "Cervical spine"),
    "CTSPINE": ("1217257000", "Cervico-thoracic spine"),
    "DUODENUM": ("38848004", "Duodenum"),
    "ELBOW": ("16953009", "Elbow joint"),
    "ESOPHAGUS": ("32849002", "Esophagus"),
    "EXTREMITY": ("66019005", "Extremity"),
    "EYE": ("81745001", "Eye"),
    "FEMUR": ("71341001", "Femur"),
    "FIBULA": ("87342007", "Fibula"),
    "FINGER": ("7569003", "Finger"),
    "FOOT": ("56459004", "Foot"),
    "FOREARM": ("14975008", "Forearm"),
    "GALLBLADDER": ("28231008", "Gallbladder"),
    "HAND": ("85562004", "Hand"),
    "HEAD": ("69536005", "Head"),
    "HEADNECK": ("774007", "Head and Neck"),
    "HEART": ("80891009", "Heart"),
    "HIP": ("24136001", "Hip joint"),
    "HUMERUS": ("85050009", "Humerus"),
    "IAC": ("361078006", "Internal Auditory Canal"),
    "ILEUM": ("34516001", "Ileum"),
    "ILIUM": ("22356005", "Ilium"),
    "JAW": ("661005", "Jaw region"),
    "JEJUNUM": ("21306003", "Jejunum"),
    "KIDNEY": ("64033007", "Kidney"),
    "KNEE": ("72696002", "Knee"),
    "LARYNX": ("4596009", "Larynx"),
    "LEG": ("30021000", "Lower leg"),
    "LIVER": ("10200004", "Liver"),
    "LOWERLEG": ("30021000", "Lower leg"),
    "LOWERLIMB": ("61685007", "Lower limb"),
    "LSPINE": ("122496007", "Lumbar spine"),
    "LSSPINE": ("1217253001", "Lumbo-sacral spine"),
    "LUNG": ("39607008", "Lung"),
    "MANDIBLE": ("91609006", "Mandible"),
    "MASTOID": ("59066005", "Mastoid bone"),
    "MAXILLA": ("70925003", "Maxilla"),
    "MEDIASTINUM": ("72410000", "Mediastinum"),
    "NECK": ("45048000", "Neck"),
    "NECKCHEST": ("417437006", "Neck and Chest"),
    "NECKCHESTABDOMEN": ("416152001", "Neck, Chest and Abdomen"),
    "NECKCHESTABDPELV": ("416319003", "Neck, Chest, Abdomen and Pelvis"),
    "OPTICCANAL": ("55024004", "Optic canal"),
    "ORBIT": ("363654007", "Orbital structure"),
    "PANCREAS": ("15776009", "Pancreas"),
    "PATELLA": ("64234005", "Patella"),
    "PELVIS": ("816092008", "Pelvis"),
    "PROSTATE": ("41216001", "Prostate"),
    "RECTUM": ("34402009", "Rectum"),
    "RIB": ("113197003", "Rib"),
    "SCAPULA": ("79601000", "Scapula"),
    "SELLA": ("42575006", "Sella turcica"),
    "SHOULDER": ("16982005", "Shoulder"),
    "SIJOINT": ("39723000", "Sacroiliac joint"),
    "SINUS": ("2095001", "Paranasal sinus"),
    "SKULL": ("89546000", "Skull"),
    "SMALLINTESTINE": ("30315005", "Small intestine"),
    "SPINE": ("421060004", "Spine"),
    "SPLEEN": ("78961009", "Spleen"),
    "SSPINE": ("54735007", "Sacrum"),
    "STERNUM": ("56873002", "Sternum"),
    "STOMACH": ("69695003", "Stomach"),
    "THIGH": ("68367000", "Thigh"),
    "THUMB": ("76505004", "Thumb"),
    "THYROID": ("69748006", "Thyroid"),
    "TLSPINE": ("1217256009", "Thoraco-lumbar spine"),
    "TMJ": ("53620006", "Temporomandibular joint"),
    "TOE": ("29707007", "Toe"),
    "TRACHEA": ("44567001", "Trachea"),
    "TSPINE": ("122495006", "Thoracic spine"),
    "UPPERLIMB": ("53120007", "Upper limb"),
    "URETER": ("87953007", "Ureter"),
    "URETHRA": ("13648007", "Urethra"),
    "UTERUS": ("35039007", "Uterus"),
    "WHOLEBODY": ("38266002", "Entire body"),
    "WRIST": ("74670003", "Wrist joint"),
    "ZYGOMA": ("13881006", "Zygoma"),
}


def body_site(facts: Facts) -> dict[str, str] | None:
    """Anatomic Region Sequence (0008,2218), else Body Part Examined: coded where Annex L names it, else as text."""
    for item in facts.get("AnatomicRegionSequence", ()):
        if coding := snomed_coding(item):
            return coding
    text = facts.get("BodyPartExamined", "")
    if found := _BODY_PARTS.get("".join(text.upper().split()).replace("_", "")):
        return {"system": SNOMED, "code": found[0], "display": found[1]}
    return {"display": text} if text else None


def snomed_coding(item: Facts) -> dict[str, str] | None:
    """A code item's SNOMED CT coding; None where it has none."""
    code, designator = code_value(item), item.get("CodingSchemeDesignator", "").upper()
    if designator in _RETIRED_SNOMED:
        code = _snomed_ct(code) or ""
    elif dicom_scheme_uri(designator) != SNOMED:
        return None
    return _coding(SNOMED, code, item) if code else None


def code_value(item: Facts) -> str:
    """Code Value, Long Code Value or URN Code Value (PS3.3 8.1)."""
    return item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""


def scheme_system(item: Facts, schemes: dict[str, str], source: Source) -> str:
    """The system URI of a code item's own coding.

    A public scheme by PS3.16 table 8-1; a private one by the UID that the Coding Scheme Identification Sequence gives
    it (``schemes``: designator → UID); else the hospital's own.
    """
    designator = item.get("CodingSchemeDesignator", "")
    if uri := dicom_scheme_uri(designator):
        return uri
    if uid := schemes.get(designator):
        return f"urn:oid:{uid}"
    return source.code_system


def concept_of(item: Facts, schemes: dict[str, str], source: Source) -> tuple[dict[str, Any], bool]:
    """A code item as CodeableConcept: unified and LOINC codings, SNOMED CT for its retired forms, the sender's own."""
    code, meaning = code_value(item), item.get("CodeMeaning", "")
    concept, mapped = source.concept(code, meaning, scheme_system(item, schemes, source))
    if item.get("CodingSchemeDesignator", "").upper() in _RETIRED_SNOMED and (coding := snomed_coding(item)):
        concept["coding"].insert(-1, coding)
    return concept, mapped


def _coding(system: str, code: str, item: Facts) -> dict[str, str]:
    coding = {"system": system, "code": code}
    if display := item.get("CodeMeaning"):
        coding["display"] = display
    return coding


@lru_cache(maxsize=4096)
def _snomed_ct(retired: str) -> str | None:
    """SNOMED CT for a retired SNOMED-RT code, by the table that PS3.16 Annex J points to."""
    from pydicom.sr._snomed_dict import mapping  # 50 ms, and only archives of old ask for it

    return mapping["SRT"].get(retired)


def modality_coding(code: str) -> dict[str, str]:
    """A modality as Coding; the raw value of (0008,0060)."""
    return {"system": DCM, "code": code}
