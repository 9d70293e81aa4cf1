"""What the trigger events of ADT mean, and the HL7 tables of its segments; README.md says what we chose in gaps."""

from __future__ import annotations

from typing import Final

from gateway.hl7v2.tables import V3

#: Trigger event → Encounter.status; events that are not here leave it as it is.
STATUS: Final = {
    "A01": "in-progress", "A02": "in-progress", "A03": "finished", "A04": "arrived", "A05": "planned",
    "A06": "in-progress", "A07": "in-progress", "A11": "cancelled", "A12": "in-progress", "A13": "in-progress",
    "A14": "planned", "A17": "in-progress", "A21": "onleave", "A22": "in-progress", "A23": "entered-in-error",
    "A27": "cancelled", "A38": "cancelled", "A52": "in-progress", "A53": "onleave",
}
#: Events whose status counts although PV1-45 tells a discharge: they are about it (A13), or it is to come (A05).
OVER_DISCHARGE: Final = frozenset(("A05", "A11", "A13", "A14", "A23", "A27", "A38"))
#: Events that only tell of a person: PV1 is there because the structure wants it.
PERSON: Final = frozenset(("A28", "A29", "A31"))
#: Events whose repeating segments (NK1, AL1, DG1) replace what was sent before (v2.5.1 2.10.4.1).
SNAPSHOT: Final = frozenset(("A01", "A03", "A04", "A05", "A06", "A07", "A08", "A13", "A28", "A31"))
#: At a discharge DG1 tells what was found: what the admission assumed stays beside it.
DISCHARGE: Final = frozenset(("A03", "A13"))
#: Merges of two patients: PID-3 is the survivor, MRG-1 the other. A18, A30, A34, A36 and A39 are those of 2.1 to 2.3.
MERGE: Final = frozenset(("A18", "A30", "A34", "A36", "A39", "A40"))
#: A patient's number changes, from MRG-1 to PID-3.
CHANGE: Final = frozenset(("A46", "A47", "A48"))
LINK: Final = "A24"
UNLINK: Final = "A37"
#: A visit's number changes, or two visits are merged: MRG-5 into PV1-19.
VISIT: Final = frozenset(("A42", "A50"))
#: All events that are taken; A20 (the status of a bed) and A19 (a query) are not.
EVENTS: Final = frozenset((
    *STATUS, *PERSON, *MERGE, *CHANGE, *VISIT, LINK, UNLINK, "A08", "A09", "A10", "A15", "A16", "A25", "A26",
    "A32", "A33", "A35", "A41", "A43", "A44", "A45", "A49", "A51", "A54", "A55", "A60", "A61", "A62"))

#: Table 0063 → v3-RoleCode, where it has the role.
ROLES: Final = {
    "SEL": ("ONESELF", "self"), "SPO": ("SPS", "spouse"), "DOM": ("SIGOTHR", "significant other"),
    "CHD": ("CHILD", "child"), "GCH": ("GRNDCHILD", "grandchild"), "NCH": ("NCHILD", "natural child"),
    "SCH": ("STPCHLD", "step child"), "FCH": ("CHLDFOST", "foster child"), "PAR": ("PRN", "parent"),
    "MTH": ("MTH", "mother"), "FTH": ("FTH", "father"), "GRP": ("GRPRN", "grandparent"),
    "EXF": ("EXT", "extended family member"), "SIB": ("SIB", "sibling"), "BRO": ("BRO", "brother"),
    "SIS": ("SIS", "sister"), "FND": ("FRND", "unrelated friend"),
}
ROLE_SYSTEM: Final = f"{V3}RoleCode"
#: Table 0127 → AllergyIntolerance.category.
ALLERGY_CATEGORY: Final = {"DA": "medication", "FA": "food", "EA": "environment", "AA": "biologic", "PA": "environment",
                           "LA": "environment"}
#: Those of table 0127 that are an allergy; MC is a contraindication.
ALLERGIES: Final = frozenset((*ALLERGY_CATEGORY, "MA"))
#: Table 0128 → AllergyIntolerance.criticality and reaction.severity.
CRITICALITY: Final = {"SV": "high", "MI": "low"}
SEVERITY: Final = {"SV": "severe", "MO": "moderate", "MI": "mild"}
#: Table 0438 → verificationStatus of an allergy.
ALLERGY_STATUS: Final = {"U": "unconfirmed", "P": "unconfirmed", "S": "unconfirmed", "C": "confirmed",
                         "I": "confirmed", "E": "entered-in-error", "D": "refuted"}
#: Table 0052 → diagnosis-role; W and F have none.
DIAGNOSIS_ROLE: Final = {"A": ("AD", "Admission diagnosis")}
DIAGNOSIS_ROLES: Final = "http://terminology.hl7.org/CodeSystem/diagnosis-role"
#: Table 0217 → v3-ActPriority.
PRIORITY: Final = {"1": ("EM", "emergency"), "2": ("UR", "urgent"), "3": ("EL", "elective")}
PRIORITY_SYSTEM: Final = f"{V3}ActPriority"
#: Table 0062 → v3-ActReason: why an event happened (EVN-4).
EVENT_REASON: Final = {"01": ("PATRQT", "patient requested"), "02": ("TREAT", "treatment"),
                       "03": ("HOPERAT", "healthcare operations")}
#: Table 0443 → v3-ParticipationType.
PROVIDER_ROLE: Final = {"AD": ("ADM", "admitter"), "AT": ("ATND", "attender"), "CP": ("CON", "consultant"),
                        "RP": ("REF", "referrer")}
