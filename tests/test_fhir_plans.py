"""`gateway.fhir.plans`: the faster way gives the verdicts of the walk, and stays small."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from fhir_samples import make, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.fhir import check, plans
from gateway.fhir.elements import resource_types

_OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation", "id": "o", "status": "final", "subject": {"reference": "Patient/p"},
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}], "text": "HGB"},
    "effectiveDateTime": "2026-11-20", "valueQuantity": {"value": Decimal("150.0"), "unit": "g/L"},
    "performer": [{"reference": "Organization/h"}], "interpretation": [{"coding": [{"code": "N"}]}]}


def _forget() -> None:
    for known in plans._plans.values():
        known.clear()
    plans._seen.clear()
    plans._count = 0


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    _forget()
    yield
    _forget()


def _learn(resource: dict[str, Any], profile: bool = False) -> None:
    for _ in range(2 * plans._SIGHTINGS):
        assert check.check(resource, profile) == []


def _by_walk(resource: dict[str, Any], monkeypatch: pytest.MonkeyPatch, profile: bool = False) -> list[Any]:
    with monkeypatch.context() as patch:
        patch.setattr(plans, "_SIGHTINGS", 10**9)
        _forget()
        return check.check(resource, profile)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(resource_types())), st.integers(0, 2**32))
def test_plans_give_the_verdict_of_the_walk(monkeypatch: pytest.MonkeyPatch, kind: str, seed: int) -> None:
    """Any mutation of a resource whose shape has plans has the same issues as without any plan."""
    resource, rng = make(kind, seed % 1000), random.Random(seed)
    _learn(resource)
    mutations = [mutated(copy.deepcopy(resource), rng) for _ in range(8)]
    found = [check.check(mutation) for mutation in mutations]
    assert found == [_by_walk(mutation, monkeypatch) for mutation in mutations]


def _quantity(value: str) -> dict[str, Any]:
    return {"value": Decimal(value), "unit": "g/L", "system": "http://unitsofmeasure.org", "code": "g/L"}


_OURS: dict[str, dict[str, Any]] = {
    "Observation": _OBSERVATION | {
        "meta": {"source": "urn:huren:a"}, "identifier": [{"system": "urn:a", "value": "1"}],
        "effectivePeriod": {"start": "2026-11-20T08:00:00Z", "end": "2026-11-20T09:00:00Z"},
        "referenceRange": [{"low": _quantity("1.0"), "high": _quantity("1.50"), "text": "1.0-1.50"}]},
    "DiagnosticReport": {
        "resourceType": "DiagnosticReport", "id": "r", "meta": {"source": "urn:huren:a"}, "status": "final",
        "identifier": [{"system": "urn:a", "value": "1"}], "code": _OBSERVATION["code"],
        "subject": {"reference": "Patient/p"}, "result": [{"reference": f"Observation/{at}"} for at in range(3)]},
    "Patient": {
        "resourceType": "Patient", "id": "p", "meta": {"source": "urn:huren:a"}, "name": [{"text": "李四"}],
        "identifier": [{"type": {"coding": [{"code": "MR"}]}, "system": "urn:a", "value": "1"}]}}
_OURS["Observation"].pop("effectiveDateTime")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(_OURS)), st.integers(0, 2**32), st.integers(0, 3))
def test_plans_ask_what_our_profile_asks(monkeypatch: pytest.MonkeyPatch, kind: str, seed: int, without: int) -> None:
    """Mutations of what conversions make, and what lacks some element, have the same issues as without any plan."""
    resource, rng = copy.deepcopy(_OURS[kind]), random.Random(seed)
    _learn(resource, profile=True)
    assert plans.plans_of(kind, profile=True)
    mutations = [mutated(copy.deepcopy(resource), rng) for _ in range(8)]
    for mutation in mutations:
        for name in rng.sample(sorted(mutation), min(without, len(mutation) - 1)):
            mutation.pop(name)
    found = [check.check(mutation, profile=True) for mutation in mutations]
    assert found == [_by_walk(mutation, monkeypatch, profile=True) for mutation in mutations]


def test_a_plan_knows_other_shapes_within(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that is known needs no walk where an object within it has another shape that is known."""
    bare = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    other = {"coding": [*bare["coding"], {"system": "urn:a", "code": "1", "display": "Hb"}], "text": "Hb"}
    chosen = {"coding": [{"system": "urn:a", "userSelected": True, "code": "1"}], "text": "Hb"}
    known = [_OBSERVATION["code"], bare, other, chosen]
    for code in known:
        _learn(_OBSERVATION | {"code": code})
    monkeypatch.setattr(check, "_walk", lambda shape, value: [("", "invalid", "walked")])
    assert [[], [], [], []] == [check.check(_OBSERVATION | {"code": code}) for code in known]
    for wrong in ({"system": "urn a", "code": "1", "display": "Hb"}, {"system": "urn:a", "code": "1", "text": "Hb"},
                  {"system": "urn:a", "userSelected": 1, "code": "1"}):
        assert check.check(_OBSERVATION | {"code": {"coding": [*bare["coding"], wrong], "text": "Hb"}})


def test_a_huge_object_has_a_small_plan() -> None:
    """What is written into one plan is bounded; a deep or wide object is still known to be valid."""
    deep: dict[str, Any] = {"url": "urn:a", "valueString": "a"}
    for _ in range(30):
        deep = {"url": "urn:a", "extension": [deep]}
    patient = {"resourceType": "Patient", "extension": [deep], "link": [
        {"id": f"l{at}", "other": {"reference": "Patient/b"}, "type": "refer"} for at in range(100)]}
    _learn(patient)
    code = plans._Code()
    code.members("Patient", patient, "value", "    ", ())
    assert len(code.lines) < 100
    deep["extension"][0]["url"] = "urn a"
    assert check.check(patient)


@pytest.mark.parametrize(("path", "value"), [
    ("status", "fina"), ("status", ["final"]), ("subject", {"reference": "Endpoint/p"}),
    ("subject", {"reference": "p p"}),
    ("subject", {"reference": "Organization/p"}), ("subject", {"reference": ["Patient/p"]}), ("subject", []),
    ("subject", {"reference": "Patient/" + 65 * "p"}), ("id", "a b"), ("effectiveDateTime", "2026-02-30"),
    ("effectiveDateTime", 2026), ("valueQuantity", {"value": True, "unit": "g/L"}), ("performer", []),
    ("valueQuantity", {"value": Decimal("NaN"), "unit": "g/L"}), ("valueQuantity", {"value": 1, "unit": ""}),
    ("valueQuantity", {"unit": "g/L", "value": "1"}), ("performer", {"reference": "Organization/h"}),
    ("code", {"coding": [{"system": "http://loinc.org", "code": " 718-7"}], "text": "HGB"}),
    ("code", {"coding": [{"system": {}, "code": "718-7"}], "text": "HGB"}), ("code", {"coding": [], "text": "HGB"}),
    ("code", {"coding": [None], "text": "HGB"}), ("interpretation", [{"coding": [{"code": 1}]}]),
    ("code", {"coding": [{"system": "http://loinc.org", "code": "718-7"}], "text": "H\x00"})])
def test_a_wrong_value_in_a_known_shape_is_found(path: str, value: Any) -> None:
    """Each kind of test in a plan refuses; the walk then tells the issue below the element."""
    _learn(_OBSERVATION)
    assert plans.plans_of("Observation")
    issues = check.check({**_OBSERVATION, path: value})
    assert issues
    assert all(issue.where.startswith(f"Observation.{path.removesuffix('Quantity').removesuffix('DateTime')}")
               for issue in issues)


def test_a_required_code_in_a_concept_is_asked_of_known_shapes() -> None:
    """A CodeableConcept with a required binding is of its value set, whatever its shape."""
    patient = {"resourceType": "Patient", "link": [{"other": {"reference": "Patient/b"}, "type": "refer"}]}
    account = {"resourceType": "AuditEvent", "type": {"code": "rest"}, "recorded": "2026-11-20T00:00:00Z",
               "agent": [{"requestor": True}], "source": {"observer": {"reference": "Device/d"}}}
    condition = {"resourceType": "Condition", "subject": {"reference": "Patient/p"}, "clinicalStatus": {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}}
    for resource in (patient, account, condition):
        _learn(resource)
    coding = condition["clinicalStatus"]["coding"][0]  # type: ignore[index]
    wrong = {**condition, "clinicalStatus": {"coding": [{**coding, "code": "acive"}]}}
    assert ["Condition.clinicalStatus"] == [issue.where for issue in check.check(wrong)]


def test_the_stores_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither invented shapes nor strings make memory grow, and what is known after is still right."""
    monkeypatch.setattr(plans, "_MOST_PLANS", 8)
    monkeypatch.setattr(plans, "_MOST_SEEN", 8)
    monkeypatch.setattr(plans, "_MOST_STRINGS", 8)
    monkeypatch.setattr(plans, "_MOST_PASSING", 4)
    rng = random.Random(1)
    for at in range(60):
        names = list(_OBSERVATION)
        rng.shuffle(names)
        _learn({**{name: _OBSERVATION[name] for name in names}, "id": f"o{at}"})
        _learn({**_OBSERVATION, "effectiveDateTime": f"2026-11-20T00:00:{at:02}Z",
                "subject": {"reference": f"Patient/p{at}"}})
    assert (sum(map(len, plans._plans.values())) <= 8, len(plans._seen) <= 8) == (True, True)
    assert all(len(plans._strings(kind)[0]) <= 2048 for kind in plans._REPEATING)
    assert (len(plans._strings("dateTime")[0]) <= 4, len(plans._types) <= 4) == (True, True)
    assert check.check({**_OBSERVATION, "effectiveDateTime": "2026-11-20T00:00:61Z"})


def test_a_long_text_is_not_kept() -> None:
    """Only short strings are remembered as good ones."""
    text = 1000 * "x"
    _learn({**_OBSERVATION, "code": {"text": text}})
    assert text not in plans._strings("string")[0]


def test_who_a_person_is_is_not_kept() -> None:
    """Names, numbers and addresses of people are tested each time and not remembered."""
    _learn({"resourceType": "Patient", "id": "p", "birthDate": "1931-07-13", "identifier": [{"value": "own-1"}],
            "name": [{"text": "独孤甲", "given": ["甲乙"]}], "telecom": [{"system": "phone", "value": "own-2"}],
            "address": [{"line": ["own-3"], "city": "own-4"}]})
    kept = set[str]().union(*(plans._strings(kind)[0] for kind in plans._REPEATING))
    assert {"1931-07-13", "own-1", "own-2", "own-3", "own-4", "独孤甲", "甲乙"}.isdisjoint(kept)
