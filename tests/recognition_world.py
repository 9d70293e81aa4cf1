"""Two hospitals and a person whom both know: hospital A has results, hospital B orders. For the tests of decisions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.adapter import Adapters, load_all
from gateway.caller import GATEWAY, Caller
from gateway.config import Settings
from gateway.fhir import check, json, resource
from gateway.recognition.model import Action, Checked, Order, Outcome, Signature
from gateway.recognition.rules import RuleSet, Setting
from gateway.recognition.service import Recognition
from gateway.store import Store
from gateway.store.model import Put, Unit
from gateway.terminology import ITEMS, PANELS

A, B, C = "hz-demo-1", "hz-demo-2", "hz-demo-3"
NATIONAL = "urn:oid:2.16.156.10011.1.3"
#: Of nobody: region 110105, women born on 1949-12-31.
ANNA, BEA = "11010519491231002X", "110105194912310046"
MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
NOW = int(datetime(2026, 11, 20, 9, 0, tzinfo=UTC).timestamp()) * 1_000_000
WBC, HGB, CT_CHEST, CBC = "THM001Q", "THM003M", "ECT010H", "P-CBC"
DOCTOR_B = Caller("b-workstation", B, ("institution/*.cruds",))
DOCTOR_C = Caller("c-workstation", C, ("institution/*.cruds",))
COMMISSION = Caller("commission", None, ("system/DetectedIssue.ru",))
SHIPPED = Path(__file__).parents[1] / "adapters"


def patient(institution: str, number: str, national: str = ANNA, name: str = "李安", gender: str = "female",
            born: str = "1949-12-31") -> dict[str, Any]:
    """A Patient of a hospital."""
    made: dict[str, Any] = {
        "resourceType": "Patient", "meta": {"source": f"urn:huren:{institution}"},
        "identifier": [{"system": f"urn:huren:{institution}:patient", "value": number}],
        "name": [{"text": name}], "gender": gender, "birthDate": born}
    if national:
        made["identifier"].append({"system": NATIONAL, "value": national})
    return made


def coded(item: str) -> dict[str, Any]:
    """A unified item or panel as CodeableConcept."""
    return {"coding": [{"system": PANELS if item.startswith("P-") else ITEMS, "code": item}]}


def when(us: int) -> str:
    """µs as a FHIR dateTime."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).isoformat()


class World:
    """A store with a clock that tests set, and hospitals as the shipped folders say."""

    anna: str  # id of A's Patient

    def __init__(self, settings: Settings, store: Store) -> None:
        self.store = store
        self.now = NOW
        self.adapters: Adapters = load_all([SHIPPED])
        self.recognition = self.another(settings)

    def another(self, settings: Settings) -> Recognition:
        """The service as another process has it."""
        return Recognition(settings, self.store, self.adapters, clock=lambda: self.now)

    def person(self, institution: str, number: str, **facts: Any) -> str:
        """A Patient that a hospital has sent; its id."""
        source = self.recognition.source(institution)
        assert source is not None
        made = patient(institution, number, **facts) | {"id": source.patient_id(source.patient_system(), number)}
        self.write([made], institution)
        return str(made["id"])

    def write(self, resources: Iterable[dict[str, Any]], institution: str) -> None:
        """Resources of a hospital."""
        made = list(resources)
        for one in made:
            check.require_valid(one)
        self.store.write(Unit([Put(one, institution) for one in made]), GATEWAY)

    def laboratory(self, patient_id: str, report_id: str, items: Iterable[str], age: int = DAY, status: str = "final",
                   institution: str = A, value: str = "5.10", report_status: str = "final") -> None:
        """A report with a result for each item, taken ``age`` µs before now."""
        taken = when(self.now - age)
        subject = {"reference": f"Patient/{patient_id}"}
        source = {"source": f"urn:huren:{institution}"}
        results = [{"resourceType": "Observation", "id": f"{report_id}-{item}", "meta": source, "status": status,
                    "code": coded(item), "subject": subject, "effectiveDateTime": taken,
                    "valueQuantity": {"value": Decimal(value), "unit": "10*9/L", "system": "http://unitsofmeasure.org",
                                      "code": "10*9/L"},
                    "referenceRange": [{"low": {"value": Decimal("3.5")}, "high": {"value": Decimal("9.5")}}],
                    "interpretation": [{"coding": [{
                        "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "H"}]}]}
                   for item in items]
        report = {"resourceType": "DiagnosticReport", "id": report_id, "meta": source, "status": report_status,
                  "code": {"text": "血常规"}, "subject": subject, "effectiveDateTime": taken,
                  "issued": when(self.now - age + HOUR), "conclusion": "白细胞偏高。",
                  "result": [{"reference": f"Observation/{one['id']}"} for one in results]}
        self.write([*results, report], institution)

    def imaging(self, patient_id: str, report_id: str, age: int = DAY, images: bool = True, linked: bool = True,
                institution: str = A) -> None:
        """A chest CT's report, with its study or without; ``linked``: whether the report names the study."""
        taken = when(self.now - age)
        subject = {"reference": f"Patient/{patient_id}"}
        number = {"system": f"urn:huren:{institution}:filler", "value": f"F-{report_id}"}
        report: dict[str, Any] = {
            "resourceType": "DiagnosticReport", "id": report_id, "meta": {"source": f"urn:huren:{institution}"},
            "identifier": [number], "status": "final", "code": coded(CT_CHEST), "subject": subject,
            "effectiveDateTime": taken, "conclusion": "未见异常。"}
        if linked:
            report["imagingStudy"] = [{"reference": f"ImagingStudy/study-{report_id}"}]
        made = [report]
        if images:
            made.append({"resourceType": "ImagingStudy", "id": f"study-{report_id}", "status": "available",
                         "meta": {"source": f"urn:huren:{institution}"}, "subject": subject, "started": taken,
                         "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4"},
                                        {"system": f"urn:huren:{institution}:accession", "value": f"F-{report_id}"}]})
        self.write(made, institution)

    def order(self, number: str, item: str = WBC, institution: str = B, **facts: Any) -> Order:
        """An order of hospital B."""
        return Order(institution, number, item, local=f"L-{item}", display=item, doctor="orderer", **facts)

    def sign(self, *orders: Order, hook: str = "order-sign", who: dict[str, Any] | None = None,
             institution: str = B, record: bool = True) -> list[Checked]:
        """Sign orders for the person as hospital B knows her."""
        return self.recognition.check(Signature(institution, orders, who or patient(institution, "B1"), hook, self.now,
                                                "test", record=record))

    def act(self, kind: str, line: str, doctor: str = "d1", caller: Caller = DOCTOR_B, **facts: Any) -> Outcome:
        """One action, a second later."""
        self.now += 1_000_000
        return self.recognition.act(Action(kind, line, doctor, **facts), caller)

    def recognised(self, number: str, item: str = WBC) -> Checked:
        """A line that hospital B has recognised."""
        [checked] = self.sign(self.order(number, item))
        self.act("view", checked.line)
        self.act("recognise", checked.line)
        return checked

    def resource(self, kind: str, id: str) -> dict[str, Any]:
        """A resource as it stands."""
        row = self.store.read(kind, id, GATEWAY)
        assert row is not None
        return json.loads(resource.text(row.resource_type, row.id, row.version, row.updated, row.tail))

    def settle(self, *settings: Setting) -> None:
        """Let these settings hold, whatever version of the catalogue holds."""
        book = self.recognition.rulebook
        rules: RuleSet = dataclasses.replace(book.at(self.now), settings=settings)
        book.at = lambda now: rules  # type: ignore[method-assign]
