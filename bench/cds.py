"""CDS Hooks requests of the ordering bench hospital: the n-th is always the same but for its day."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from bench.messages import national_id
from gateway.identity import NATIONAL_ID_SYSTEM

#: local order codes and what a province of `population` has of them: a panel in part, two found, one never
DRAFTS = (("L01", "血常规"), ("L02", "血红蛋白"), ("L03", "钾"), ("L04", "肌酐"), ("R01", "胸部CT平扫"))
SYSTEM = "urn:huren:bench-orders"


def patient(person: int) -> dict[str, Any]:
    """The person as the ordering hospital knows it."""
    identity = national_id(person)
    return {"resourceType": "Patient", "id": f"p{person}",
            "identifier": [{"system": f"{SYSTEM}:patient", "value": f"{person:08d}"},
                           {"system": NATIONAL_ID_SYSTEM, "value": identity}],
            "gender": "male" if int(identity[16]) % 2 else "female",
            "birthDate": f"{identity[6:10]}-{identity[10:12]}-{identity[12:14]}"}


def order_sign(n: int, persons: int, drafts: int = 5, run: str = "") -> bytes:
    """``order-sign`` of the n-th signature, with draft orders of numbers that no other has."""
    person = n * 7919 % persons
    when = datetime.now(UTC).isoformat(timespec="seconds")
    entries = [{"resource": {
        "resourceType": "ServiceRequest", "id": f"draft-{k}", "status": "draft", "intent": "order",
        "identifier": [{"system": f"{SYSTEM}:placer", "value": f"{run}{n}-{k}"}],
        "subject": {"reference": f"Patient/p{person}"}, "authoredOn": when,
        "code": {"coding": [{"system": f"{SYSTEM}:item", "code": code, "display": name}]}}}
        for k, (code, name) in enumerate(DRAFTS[:drafts])]
    return json.dumps({
        "hook": "order-sign", "hookInstance": f"00000000-0000-4000-8000-{n:012d}",
        "context": {"userId": "Practitioner/dr-1", "patientId": f"p{person}",
                    "draftOrders": {"resourceType": "Bundle", "type": "collection", "entry": entries}},
        "prefetch": {"patient": patient(person)}}, ensure_ascii=False).encode()
