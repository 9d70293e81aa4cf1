"""Small resources and callers for the tests of the store."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from gateway import indexing
from gateway.caller import GATEWAY, Caller
from gateway.identity import person_keys
from gateway.store import Store, index, index_schema, types
from gateway.store.model import Line, LineChange, Put, Unit, Written
from gateway.store.persons import digest

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


def line(number: str, patient_id: str = "p1", institution: str = "nb", state: str = "reminded", **body: Any) -> Line:
    """An order line that is not stored yet."""
    return Line(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{institution}|{number}")), institution, number, 0, "TCH001X",
                state, body={"patient": patient_id, **body})


def change(line: Line, state: str = "", *cards: str, **body: Any) -> LineChange:
    """The line in another state, with the event that says so."""
    state = state or line.state
    after = replace(line, state=state, body={**line.body, **body})
    return LineChange(after, ({"kind": state, "state": state},), cards)


def check_consistent(store: Store) -> int:
    """Everything that must be true of the tables whatever was written; returns the number of resources."""
    database = store._database
    with database.read() as reader:
        persons = {bytes(p): n for p, n in reader.all("SELECT patient, person FROM patient_person")}
        heads = reader.all("SELECT pk, id, type, person, institution, version, dict, body FROM resource")
        history = reader.all("SELECT pk, version FROM history")
        found = {table.name: sorted(reader.all(f"SELECT * FROM {table.name}"), key=repr)
                 for table in index_schema.OF_RESOURCES}
        keys = [(bytes(k), bytes(p)) for k, p in reader.all("SELECT key, patient FROM person_key")]
        lines = reader.all("SELECT patient, person FROM line")
    assert all(person == persons[bytes(patient)] for patient, person in lines if patient), "person of an order line"
    assert [] == store.verify_events().problems
    expected: dict[str, list[Any]] = {table.name: [] for table in index_schema.OF_RESOURCES}
    carried: set[tuple[bytes, bytes]] = set()
    for pk, key, number, person, institution, version, dictionary, body in heads:
        key = bytes(key)
        assert number == key[0]
        assert list(range(1, version)) == sorted(v for p, v in history if p == pk), "a version is missing"
        if body is None:
            continue
        resource = index.resource_of(key, store.codec.decompress(dictionary, bytes(body)))
        owner = indexing.owner(resource)
        assert person == (persons[types.pack(owner)] if owner else 0), f"person of {resource['resourceType']}"
        for table, rows in index_schema.bind(indexing.extract(resource), person, pk, institution).items():
            expected[table] += rows
        if resource["resourceType"] == "Patient":
            carried |= {(digest(k), types.pack(resource["id"])) for k in person_keys(resource)}
    for table in expected:
        assert sorted(map(tuple, expected[table]), key=repr) == found[table], f"rows of {table}"
    assert carried == set(keys)
    expected_groups = components(set(persons), keys)
    found_groups: dict[int, set[bytes]] = {}
    for p, n in persons.items():
        found_groups.setdefault(n, set()).add(p)
    assert sorted(map(sorted, expected_groups)) == sorted(map(sorted, found_groups.values())), "persons and keys differ"
    return len(heads)


def components(patients: set[bytes], keys: Iterable[tuple[bytes, bytes]]) -> list[set[bytes]]:
    """Patients that are one person: connected by keys that two of them carry, in the plainest way."""
    carriers: dict[bytes, set[bytes]] = {}
    for key, carrier in keys:
        carriers.setdefault(key, set()).add(carrier)
    groups = [{patient} for patient in patients]
    for together in carriers.values():
        joined = set().union(*(group for group in groups if group & together))
        groups = [group for group in groups if not group & together] + [joined]
    return groups
