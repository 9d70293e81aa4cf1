"""Messages of patient administration through the whole pipeline, and what a FHIR client sees of them afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from stdnum.cn import ric

from gateway import search
from gateway.adapter import load_all
from gateway.caller import GATEWAY, Caller
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.fhir import json
from gateway.fhir.resource import text
from gateway.pipeline import Pipeline
from gateway.source import Resource, Source
from gateway.store import Store
from gateway.store.model import Receipt

_CONTROL_IDS = itertools.count(1)


def national(region: str = "330106", born: str = "19800229", order: int = 101) -> str:
    """A number of nobody with the right check digit; odd orders are male."""
    digits = f"{region}{born}{order:03d}"
    return digits + ric.calc_check_digit(digits + "0")


def adt(event: str, *segments: str, at: str = "20240501080000", facility: str = "H1", control_id: str = "",
        version: str = "2.5.1") -> bytes:
    """An ADT message of a hospital at a time."""
    kind = f"ADT^{event}" if event else "ADT"
    return "\r".join([f"MSH|^~\\&|HIS|{facility}|GW|R|{at}||{kind}|{control_id or f'A{next(_CONTROL_IDS)}'}|P|"
                      f"{version}||||||UNICODE UTF-8", *segments, ""]).encode()


def pid(number: str, name: str = "王^小明", born: str = "19800229", sex: str = "M", id_number: str = "",
        **more: str) -> str:
    """A PID; ``more``: fields as ``f13``."""
    identifiers = f"{number}^^^^MR" + (f"~{id_number}^^^^NNCHN" if id_number else "")
    fields = {3: identifiers, 5: name, 7: born, 8: sex, **{int(key[1:]): value for key, value in more.items()}}
    return "PID|" + "|".join(fields.get(at, "") for at in range(1, max(fields) + 1))


def pv1(visit: str = "V1", kind: str = "I", **more: str) -> str:
    """A PV1; ``more``: fields as ``f44``."""
    fields = {2: kind, 19: visit, **{int(key[1:]): value for key, value in more.items()}}
    return "PV1|" + "|".join(fields.get(at, "") for at in range(1, max(fields) + 1))


def result(number: str, filler: str, value: str = "5.5", at: str = "20240501090000", facility: str = "H1",
           id_number: str = "", pid_more: str = "", visit: str = "") -> bytes:
    """A laboratory's result, with a thin copy of the patient."""
    identifiers = f"{number}^^^^MR" + (f"~{id_number}^^^^NNCHN" if id_number else "")
    lines = [f"MSH|^~\\&|LIS|{facility}|GW|R|{at}||ORU^R01^ORU_R01|R{next(_CONTROL_IDS)}|P|2.5.1||||||UNICODE UTF-8",
             f"PID|1||{identifiers}||王小明{pid_more}", *([f"PV1|1|I|||||||||||||||||{visit}"] if visit else []),
             f"OBR|1||{filler}|GLU^葡萄糖|||{at}|||||||||||||||{at}||CH|F",
             f"OBX|1|NM|GLU^葡萄糖||{value}|mmol/L|3.9-6.1|N|||F|||{at}"]
    return "\r".join([*lines, ""]).encode()


class World:
    """A pipeline that takes every sender, each facility a hospital of its own, and its store."""

    def __init__(self, store: Store, data: Path) -> None:
        self.store = store
        self.pipeline = Pipeline(Settings(data=data), store, load_all([SHIPPED_ADAPTERS], "generic"))

    def source(self, facility: str = "H1") -> Source:
        """The hospital of a facility."""
        return self.pipeline.adapters.for_hl7(facility, "").source_for(facility)

    def send(self, raw: bytes) -> Receipt:
        """A message as it comes through a port."""
        return self.pipeline.receive_hl7(raw, "127.0.0.1:1")

    def accepted(self, *messages: bytes) -> None:
        """Messages that must be stored."""
        for raw in messages:
            receipt = self.send(raw)
            assert receipt.category is None, (receipt.category, receipt.where, receipt.message)

    def patient_id(self, number: str, facility: str = "H1") -> str:
        """The id of a hospital's Patient."""
        source = self.source(facility)
        return source.patient_id(source.patient_system(), number)

    def visit_id(self, visit: str = "V1", facility: str = "H1") -> str:
        """The id of a hospital's Encounter."""
        source = self.source(facility)
        return source.id_for("Encounter", f"{source.system('visit')}|{visit}")

    def get(self, kind: str, resource_id: str) -> Resource:
        """A stored resource without version and time."""
        row = self.store.read(kind, resource_id, GATEWAY)
        assert row is not None and not row.deleted, f"no {kind}"
        resource: Resource = json.loads(text(kind, row.id, row.version, row.updated, row.tail))
        for name in ("versionId", "lastUpdated"):
            resource["meta"].pop(name)
        return resource

    def patient(self, number: str, facility: str = "H1") -> Resource:
        """A hospital's Patient."""
        return self.get("Patient", self.patient_id(number, facility))

    def visit(self, visit: str = "V1", facility: str = "H1") -> Resource:
        """A hospital's Encounter."""
        return self.get("Encounter", self.visit_id(visit, facility))

    def versions(self, kind: str, resource_id: str) -> list[bytes]:
        """The contents of all versions, newest first."""
        return [row.tail for row in self.store.history(kind, resource_id, GATEWAY, 100)]

    def found(self, kind: str, caller: Caller = GATEWAY, **criteria: Any) -> list[Resource]:
        """What a FHIR search finds."""
        page = search.search(self.store, caller, kind, urlencode({"_count": "100", **criteria}), "strict")
        return [json.loads(text(row.resource_type, row.id, row.version, row.updated, row.tail)) for row in page.rows]

    def values(self, number: str, facility: str = "H1", **criteria: Any) -> list[str]:
        """The values of all results that a question for a Patient finds."""
        found = self.found("Observation", patient=self.patient_id(number, facility), **criteria)
        return sorted(str(one["valueQuantity"]["value"]) for one in found)

    def persons(self, numbers: Iterable[tuple[str, str]]) -> list[set[tuple[str, str]]]:
        """Patients (facility, number) grouped into persons."""
        ids = {self.patient_id(number, facility): (facility, number) for facility, number in numbers}
        groups: dict[int, set[tuple[str, str]]] = {}
        for patient, person in self.store.persons_of(ids).items():
            groups.setdefault(person, set()).add(ids[patient])
        return sorted(groups.values(), key=sorted)


def links(patient: Resource) -> dict[str, str]:
    """Other Patient → type of link."""
    return {link["other"]["reference"].partition("/")[2]: link["type"] for link in patient.get("link", ())}


def one(found: list[Any]) -> Any:
    """The only one."""
    [only] = found
    return only
