"""Small resources and callers for the tests of the store."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from gateway.caller import GATEWAY, Caller
from gateway.store import Store
from gateway.store.model import Put, Unit, Written

NATIONAL = "urn:oid:2.16.156.10011.1.3"
#: Valid numbers of nobody: region 110105, born 1949-12-31, female, and two more days.
NUMBERS = ("11010519491231002X", "110105194912310046", "110105194912310062", "110105194912310089")
HZ = Caller("hz-client", "hz", ("institution/*.cruds",))
NB = Caller("nb-client", "nb", ("institution/*.cruds",))
SYSTEM = Caller("system-client", None, ("system/*.rs",))


def patient(patient_id: str, number: str = "", family: str = "Li") -> dict[str, Any]:
    """A Patient, with a national number or without."""
    resource: dict[str, Any] = {"resourceType": "Patient", "id": patient_id, "name": [{"family": family}]}
    if number:
        resource["identifier"] = [{"system": NATIONAL, "value": number}]
    return resource


def observation(observation_id: str, patient_id: str, value: str = "5.1", code: str = "L0001") -> dict[str, Any]:
    """A laboratory result of a Patient."""
    return {"resourceType": "Observation", "id": observation_id, "status": "final",
            "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category",
                                      "code": "laboratory"}]}],
            "code": {"coding": [{"system": "http://huren.example/fhir/CodeSystem/recognition-item", "code": code}]},
            "subject": {"reference": f"Patient/{patient_id}"}, "effectiveDateTime": "2026-01-02T08:00:00+08:00",
            "valueQuantity": {"value": Decimal(value), "unit": "mmol/L", "system": "http://unitsofmeasure.org",
                              "code": "mmol/L"}}


def put(store: Store, resource: dict[str, Any], institution: str = "", as_of: int | None = None) -> list[Written]:
    """Write one resource."""
    return store.write(Unit([Put(resource, institution, as_of)]), GATEWAY)
