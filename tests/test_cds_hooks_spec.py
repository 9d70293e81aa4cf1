"""An independent client: requests in the shape of the specification's examples, answers held against its tables.

CDS Hooks 2.0 (cds-hooks.org/specification/2.0, hooks patient-view 1.0, order-select 1.0, order-sign 1.1). The schema is
strict: what the specification does not name is not there, and nothing is null or empty ("Use of JSON").
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from gateway.config import Settings
from gateway.edges.http import create_app
from gateway.store import Store, open_store
from tests import cds_samples as samples
from tests.cds_samples import ALT, HAEMOGLOBIN, ORDERER

_TEXT = {"type": "string", "minLength": 1}
_URL = {"type": "string", "pattern": "^https?://[^ ]+$"}
_UUID = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    extension = {"extension": {"type": "object", "minProperties": 1}}  # "Extensions"
    return {"type": "object", "properties": required | optional | extension, "required": list(required),
            "additionalProperties": False}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1}


_CODING = _object({"code": _TEXT, "system": _TEXT}, display=_TEXT)
_SHOWN_CODING = _object({"code": _TEXT, "system": _TEXT, "display": _TEXT})
_RESOURCE = {"type": "object", "required": ["resourceType"]}
_ACTION = {"oneOf": [
    _object({"type": {"const": "create"}, "description": _TEXT, "resource": _RESOURCE}),
    _object({"type": {"const": "update"}, "description": _TEXT, "resource": _RESOURCE | {"required": ["id"]}}),
    _object({"type": {"const": "delete"}, "description": _TEXT,
             "resourceId": {"type": "string", "pattern": r"^[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}$"}})]}
_CARD = _object(
    {"summary": _TEXT | {"maxLength": 139}, "indicator": {"enum": ["info", "warning", "critical"]},
     "source": _object({"label": _TEXT}, url=_URL, icon=_URL, topic=_CODING)},
    uuid=_UUID, detail=_TEXT, overrideReasons=_list(_SHOWN_CODING), selectionBehavior={"enum": ["at-most-one", "any"]},
    suggestions=_list(_object({"label": _TEXT | {"maxLength": 80}}, uuid=_UUID, isRecommended={"type": "boolean"},
                              actions=_list(_ACTION))),
    links=_list(_object({"label": _TEXT, "url": _URL, "type": {"enum": ["absolute", "smart"]}}, appContext=_TEXT))
) | {"dependentRequired": {"suggestions": ["selectionBehavior"]}}
RESPONSE = _object({"cards": {"type": "array", "items": _CARD}}, systemActions=_list(_ACTION))
DISCOVERY = _object({"services": {"type": "array", "items": _object(
    {"hook": _TEXT, "description": _TEXT, "id": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}}, title=_TEXT,
    usageRequirements=_TEXT, prefetch={"type": "object", "minProperties": 1, "additionalProperties": _TEXT})}})


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """The demo, with another hospital's report of two days ago."""
    settings = Settings(data=tmp_path_factory.mktemp("data"), demo=True)
    store: Store = open_store(settings, migrate=True)
    samples.report(store, HAEMOGLOBIN, ALT)
    yield create_app(settings, store).test_client()
    store.close()


def post(client: FlaskClient, body: dict[str, Any], institution: str = ORDERER) -> dict[str, Any]:
    """The answer of a call that must be taken."""
    answer = client.post(f"/cds-services/recognition?institution={institution}", json=body)
    assert answer.status_code == 200, answer.data
    assert answer.mimetype == "application/json"
    found: dict[str, Any] = answer.json  # type: ignore[assignment]
    jsonschema.validate(found, RESPONSE)
    return found


def patient_of_the_example(patient: str = "1288992") -> dict[str, Any]:
    """"Calling a CDS Service", Example: what is prefetched has a resource type, and an id."""
    return {"resourceType": "Patient", "gender": "male", "birthDate": "1958-03-12", "id": patient, "active": True,
            "identifier": [{"system": samples.NATIONAL, "value": samples.IDENTITY}]}


def diet() -> dict[str, Any]:
    """A NutritionOrder as order-sign's example has it: the patient stands in ``patient``."""
    return {"resourceType": "NutritionOrder", "id": "soft-diet",
            "identifier": [{"system": "http://hospital.example/nutrition-requests", "value": "771"}], "status": "draft",
            "patient": {"reference": "Patient/1288992"}, "dateTime": "2026-03-09",
            "orderer": {"reference": "Practitioner/dr-li", "display": "Dr Li"},
            "oralDiet": {"type": [{"coding": [{"system": "http://hospital.example/diets", "code": "7"}]}]}}


def medicine() -> dict[str, Any]:
    """A MedicationRequest as the example has it, where ``doseAndRate`` is no list: not for us to judge."""
    return {"resourceType": "MedicationRequest", "id": "med-103",
            "meta": {"lastUpdated": "2026-03-09T13:25:40.845+08:00"}, "status": "draft", "intent": "order",
            "medicationCodeableConcept": {"text": "Amoxicillin"},
            "subject": {"reference": "Patient/1288992"},
            "dosageInstruction": [{"text": "5 mL bid", "doseAndRate": {"doseQuantity": {"value": 5, "unit": "mL"}}}]}


def service_request(number: str, code: str) -> dict[str, Any]:
    """A draft for the patient of the examples."""
    return samples.order(number, code, subject={"reference": "Patient/1288992"})


def test_discovery(client: FlaskClient) -> None:
    """``GET {baseUrl}/cds-services``: one id under three hooks; the templates use tokens of the hook's context only."""
    answer = client.get("/cds-services")
    assert answer.status_code == 200
    jsonschema.validate(answer.json, DISCOVERY)
    services = answer.json["services"]  # type: ignore[index]
    assert [(one["hook"], one["id"]) for one in services] == [
        ("patient-view", "recognition"), ("order-select", "recognition"), ("order-sign", "recognition")]
    for service in services:
        assert service["prefetch"]["patient"] == "Patient/{{context.patientId}}"
        for template in service["prefetch"].values():
            tokens = {part.partition("}}")[0] for part in template.split("{{")[1:]}
            assert tokens <= {"context.patientId", "context.encounterId", "context.userId"}


def test_patient_view(client: FlaskClient) -> None:
    """The request of "Calling a CDS Service", Example: server, authorization and a prefetched Patient."""
    found = post(client, {
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea", "fhirServer": "https://his.example/fhir",
        "hook": "patient-view",
        "fhirAuthorization": {"access_token": "some-opaque-fhir-access-token", "token_type": "Bearer",
                              "expires_in": 300, "scope": "patient/Patient.read patient/Observation.read",
                              "subject": "cds-service4"},
        "context": {"userId": "Practitioner/example", "patientId": "1288992", "encounterId": "89284"},
        "prefetch": {"patient": patient_of_the_example()}})
    [card] = found["cards"]
    assert card["indicator"] == "info" and "suggestions" not in card and "systemActions" not in found


def test_order_select(client: FlaskClient) -> None:
    """``selections`` names the newly selected; the other drafts are context, not judged."""
    body = {"hook": "order-select", "hookInstance": str(uuid.uuid4()), "context": {
        "userId": "PractitionerRole/123", "patientId": "1288992", "encounterId": "89284",
        "selections": ["NutritionOrder/soft-diet", "ServiceRequest/sr-S1"],
        "draftOrders": samples.bundle(diet(), medicine(), service_request("S1", HAEMOGLOBIN),
                                      service_request("S2", ALT))},
        "prefetch": {"patient": patient_of_the_example(), "coverage": None}}
    [card] = post(client, body)["cards"]
    assert [one["actions"][0]["resourceId"] for one in card["suggestions"]] == ["ServiceRequest/sr-S1"]


def test_order_sign_with_several_types(client: FlaskClient) -> None:
    """NutritionOrder, MedicationRequest and ServiceRequests in one Bundle: one card for what is covered."""
    body = {"hook": "order-sign", "hookInstance": str(uuid.uuid4()), "context": {
        "userId": "PractitionerRole/123", "patientId": "1288992", "encounterId": "89284",
        "draftOrders": samples.bundle(diet(), medicine(), service_request("T1", HAEMOGLOBIN),
                                      service_request("T2", ALT))},
        "prefetch": {"patient": patient_of_the_example()}}
    [card] = post(client, body)["cards"]
    assert card["indicator"] == "warning" and card["selectionBehavior"] == "any"
    assert [one["isRecommended"] for one in card["suggestions"]] == [True, True]
    assert {one["type"] for one in card["links"]} == {"absolute"}


def test_order_sign_without_an_exam_or_test(client: FlaskClient) -> None:
    """The example of order-sign itself: a diet and a medicine are nothing for us, 200 with an empty list."""
    body = {"hook": "order-sign", "hookInstance": str(uuid.uuid4()), "context": {
        "userId": "PractitionerRole/123", "patientId": "1288992", "encounterId": "89284",
        "draftOrders": samples.bundle(diet(), medicine())}, "prefetch": {"patient": patient_of_the_example()}}
    assert post(client, body) == {"cards": []}


def test_feedback(client: FlaskClient) -> None:
    """The three examples of "Feedback": accepted, overridden, overridden with a reason and a comment."""
    body = {"hook": "order-sign", "hookInstance": str(uuid.uuid4()), "context": {
        "userId": "Practitioner/dr-li", "patientId": "1288992",
        "draftOrders": samples.bundle(service_request("F1", HAEMOGLOBIN), service_request("F2", ALT))},
        "prefetch": {"patient": patient_of_the_example()}}
    [card] = post(client, body)["cards"]
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    reason = {name: value for name, value in card["overrideReasons"][0].items() if name != "display"}
    for entry, states in (
            ({"outcome": "overridden"}, ["reminded", "reminded"]),
            ({"outcome": "accepted", "acceptedSuggestions": [{"id": card["suggestions"][0]["uuid"]}]}, ["recognised"]),
            ({"outcome": "overridden", "overrideReason": {"reason": reason, "userComment": "Seen at the bedside."}},
             [None, "not_recognised"])):
        if "acceptedSuggestions" in entry:  # "must_view": the report was opened
            opened = {"action": "view", "line": card["suggestions"][0]["uuid"], "doctor": "dr-li"}
            assert client.post("/recognition/decisions", json=opened).status_code == 200
        answer = client.post("/cds-services/recognition/feedback", json={"feedback": [
            {"card": card["uuid"], "outcomeTimestamp": stamp} | entry]})
        assert answer.status_code == 200
        [told] = answer.json["feedback"]  # type: ignore[index]
        assert [line.get("state") for line in told["lines"]] == states


def test_a_browser_may_call(client: FlaskClient) -> None:
    """"Cross-Origin Resource Sharing": the question before the call names what a signed JSON call needs."""
    asked = client.options("/cds-services/recognition", headers={
        "Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type"})
    assert asked.status_code == 204 and asked.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert {"Authorization", "Content-Type"} <= set(asked.headers["Access-Control-Allow-Headers"].split(", "))
    answer = client.get("/cds-services", headers={"Origin": "http://localhost:3000"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_the_manuals_example_works(tmp_path: Path) -> None:
    """The request that gateway/edges/README.md shows is answered with a warning, where the patient had that CT."""
    manual = (Path(__file__).parents[1] / "gateway" / "edges" / "README.md").read_text(encoding="utf-8")
    [(path, body)] = re.findall(r"curl -s 'http://127.0.0.1:8080(/cds-services[^']*)'.*? -d '(.*?)'\n```", manual, re.S)
    settings = Settings(data=tmp_path, demo=True)
    store = open_store(settings, migrate=True)
    try:
        samples.exam(store, identity=json.loads(body)["prefetch"]["patient"]["identifier"][0]["value"])
        own = create_app(settings, store).test_client()
        answer = own.post(path, data=body.encode(), content_type="application/json")
        assert answer.status_code == 200, answer.data
        jsonschema.validate(answer.json, RESPONSE)
        [card] = answer.json["cards"]  # type: ignore[index]
        assert card["indicator"] == "warning" and len(card["links"]) == 2
    finally:
        store.close()
