"""FHIR REST over the Flask application, on both databases: what a client sees, and what is written down about it."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from lxml import etree
from werkzeug.test import TestResponse

from gateway.config import Settings
from gateway.edges.http import create_app
from gateway.edges.http.capability import statement
from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.store import Store

FHIR_JSON = {"Content-Type": "application/fhir+json"}
LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
Resource = dict[str, Any]
Token = Callable[..., dict[str, str]]


@pytest.fixture
def client(settings: Settings, store: Store) -> FlaskClient:
    """A client of the demo: everybody may everything."""
    return create_app(replace(settings, demo=True), store).test_client()


@pytest.fixture
def guarded(settings: Settings, store: Store) -> FlaskClient:
    """A client of a gateway that asks for a login."""
    return create_app(settings, store).test_client()


@pytest.fixture
def token(store: Store) -> Token:
    """Headers of a new client with the scopes."""
    def add(*scopes: str, institution: str | None = None, name: str = "") -> dict[str, str]:
        made = store.client_add(name or f"client-{uuid.uuid4()}", institution, scopes)
        return {"Authorization": f"Bearer {made}"}
    return add


def patient(**more: Any) -> Resource:
    """A Patient."""
    return {"resourceType": "Patient", "gender": "female", "birthDate": "1990-01-02", **more}


def observation(value: str = "5.50", **more: Any) -> Resource:
    """An Observation of haemoglobin; the value keeps its text where the body is made by ``body``."""
    return {"resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/p1"},
            "code": {"coding": [{"system": LOINC, "code": "718-7"}]}, "effectiveDateTime": "2026-01-02T08:00:00+08:00",
            "valueQuantity": {"value": float(value), "unit": "g/L", "system": UCUM, "code": "g/L"}, **more}


def put(client: FlaskClient, resource: Resource, **headers: str) -> TestResponse:
    """Update or create under the resource's own id."""
    return client.put(f"/fhir/{resource['resourceType']}/{resource['id']}", data=json.dumps(resource),
                      headers=FHIR_JSON | headers)


def post(client: FlaskClient, path: str, resource: Resource, **headers: str) -> TestResponse:
    """POST JSON."""
    return client.post(path, data=json.dumps(resource), headers=FHIR_JSON | headers)


def document(response: TestResponse) -> Resource:
    """The JSON of a response."""
    return json.loads(response.data)


def issue(response: TestResponse) -> Resource:
    """The first issue of a refusal, which must be a valid OperationOutcome."""
    outcome = document(response)
    assert outcome["resourceType"] == "OperationOutcome" and check.check(outcome) == []
    return outcome["issue"][0]


def resources(response: TestResponse) -> list[Resource]:
    """The resources of a Bundle."""
    assert response.status_code == 200, response.data
    return [entry["resource"] for entry in document(response).get("entry", ())]


# ---------------------------------------------------------------- http.html#create, #read, #update, #delete

def test_create_gives_id_version_and_place(client: FlaskClient) -> None:
    """201 with Location of the version, weak ETag, Last-Modified and the resource (http.html#create)."""
    made = post(client, "/fhir/Patient", patient(id="mine"))
    found = document(made)
    assert made.status_code == 201
    assert found["id"] != "mine" and uuid.UUID(found["id"])
    assert made.headers["Location"].endswith(f"/fhir/Patient/{found['id']}/_history/1")
    assert made.headers["ETag"] == 'W/"1"' and "Last-Modified" in made.headers
    assert found["meta"]["versionId"] == "1" and found["birthDate"] == "1990-01-02"


def test_read_returns_what_was_sent_to_the_digit(client: FlaskClient) -> None:
    """Precision is significant: 5.50 comes back as 5.50, in JSON and in XML (datatypes.html#decimal)."""
    body = json.dumps(observation(id="o1")).replace("5.5,", "5.50,")
    assert client.put("/fhir/Observation/o1", data=body, headers=FHIR_JSON).status_code == 201
    assert b'"value":5.50,' in client.get("/fhir/Observation/o1").data
    xml = client.get("/fhir/Observation/o1", headers={"Accept": "application/fhir+xml"})
    assert xml.content_type == "application/fhir+xml; charset=utf-8"
    root = etree.fromstring(xml.data)
    assert root.find(".//{*}valueQuantity/{*}value").get("value") == "5.50"


def test_xml_in_is_json_out(client: FlaskClient) -> None:
    """A body in XML is the same resource; _format and _pretty shape the answer."""
    xml = ('<Patient xmlns="http://hl7.org/fhir"><id value="x1"/><active value="true"/>'
           '<name><family value="李"/></name></Patient>')
    made = client.put("/fhir/Patient/x1?_format=json&_pretty=true", data=xml.encode(),
                      headers={"Content-Type": "application/fhir+xml", "Accept": "application/fhir+xml"})
    assert made.status_code == 201 and made.content_type.startswith("application/fhir+json")
    assert b'\n  "active": true' in made.data and document(made)["name"] == [{"family": "李"}]


def test_update_makes_versions_and_vread_shows_each(client: FlaskClient) -> None:
    """PUT under the client's id is 201, then 200; unchanged content makes no version (http.html#update)."""
    assert put(client, patient(id="p1")).status_code == 201
    changed = put(client, patient(id="p1", gender="male"))
    assert (changed.status_code, changed.headers["ETag"]) == (200, 'W/"2"')
    assert put(client, patient(id="p1", gender="male")).headers["ETag"] == 'W/"2"'
    assert document(client.get("/fhir/Patient/p1/_history/1"))["gender"] == "female"
    assert client.get("/fhir/Patient/p1/_history/9").status_code == 404
    assert client.get("/fhir/Patient/p1/_history/one").status_code == 404


def test_deleted_is_gone_but_not_forgotten(client: FlaskClient) -> None:
    """After DELETE a read is 410, the version before can still be read, and a PUT brings it back."""
    put(client, patient(id="p1"))
    assert client.delete("/fhir/Patient/p1").status_code == 204
    gone = client.get("/fhir/Patient/p1")
    assert gone.status_code == 410 and issue(gone)["code"] == "deleted"
    assert client.get("/fhir/Patient/p1/_history/1").status_code == 200
    assert client.delete("/fhir/Patient/p1").status_code == 204
    assert client.delete("/fhir/Patient/never").status_code == 204
    assert put(client, patient(id="p1")).status_code == 201


def test_history_has_every_version_newest_first_in_pages(client: FlaskClient) -> None:
    """Walking ``next`` shows each version once, the deletion without a resource (http.html#history)."""
    for gender in ("female", "male", "other"):
        put(client, patient(id="p1", gender=gender))
    client.delete("/fhir/Patient/p1")
    put(client, patient(id="p2"))
    for path, versions in (("Patient/p1/_history", ["DELETE", "3", "2", "1"]),
                           ("Patient/_history", ["1", "DELETE", "3", "2", "1"])):
        seen, url = [], f"/fhir/{path}?_count=2"
        while url:
            page = document(client.get(url))
            assert page["type"] == "history" and check.check(page) == []
            seen += [e["resource"]["meta"]["versionId"] if "resource" in e else e["request"]["method"]
                     for e in page["entry"]]
            url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
        assert seen == versions
    assert client.get("/fhir/Patient/nobody/_history").status_code == 404


def test_history_since(client: FlaskClient) -> None:
    """_since leaves older versions out; what is no instant is refused."""
    put(client, patient(id="p1"))
    assert "entry" in document(client.get("/fhir/Patient/p1/_history?_since=2020-01-01T00:00:00Z"))
    assert "entry" not in document(client.get("/fhir/Patient/p1/_history?_since=2999-01-01T00:00:00%2B08:00"))
    for query in ("_since=yesterday", "_count=x", "_before=1", "_at=2020"):
        assert client.get(f"/fhir/Patient/p1/_history?{query}").status_code == 400


# ---------------------------------------------------------------- conditions on one resource

def test_if_match_guards_against_lost_updates(client: FlaskClient) -> None:
    """412 for another version than the current one, also for a delete (http.html#concurrency)."""
    put(client, patient(id="p1"))
    assert put(client, patient(id="p1", gender="male"), **{"If-Match": 'W/"7"'}).status_code == 412
    assert client.delete("/fhir/Patient/p1", headers={"If-Match": 'W/"7"'}).status_code == 412
    assert put(client, patient(id="p1", gender="male"), **{"If-Match": 'W/"1"'}).status_code == 200
    assert put(client, patient(id="new"), **{"If-Match": 'W/"1"'}).status_code == 412
    assert put(client, patient(id="p1"), **{"If-Match": "rubbish"}).status_code == 400
    assert document(client.get("/fhir/Patient/p1"))["gender"] == "male"


def test_if_none_match_star_creates_only(client: FlaskClient) -> None:
    """``If-None-Match: *`` never overwrites, by itself and in a transaction (RFC 9110 13.1.2)."""
    assert put(client, patient(id="p1"), **{"If-None-Match": "*"}).status_code == 201
    assert put(client, patient(id="p1", gender="male"), **{"If-None-Match": "*"}).status_code == 412
    assert put(client, patient(id="p1", gender="male"), **{"If-None-Match": 'W/"1"'}).status_code == 400
    again = entry("PUT", "Patient/p1", patient(id="p1", gender="male"), ifNoneMatch="*")
    assert post(client, "/fhir", bundle("transaction", again)).status_code == 412
    assert document(client.get("/fhir/Patient/p1"))["gender"] == "female"


def test_a_current_copy_is_not_sent_again(client: FlaskClient) -> None:
    """304 for If-None-Match and If-Modified-Since; the former wins (http.html#cread)."""
    modified = put(client, patient(id="p1")).headers["Last-Modified"]
    fresh = client.get("/fhir/Patient/p1", headers={"If-None-Match": 'W/"1"'})
    assert (fresh.status_code, fresh.data, fresh.headers["ETag"]) == (304, b"", 'W/"1"')
    assert client.get("/fhir/Patient/p1", headers={"If-None-Match": 'W/"0", W/"1"'}).status_code == 304
    assert client.get("/fhir/Patient/p1", headers={"If-Modified-Since": modified}).status_code == 304
    assert client.get("/fhir/Patient/p1", headers={"If-None-Match": 'W/"2"', "If-Modified-Since": modified}) \
        .status_code == 200
    assert client.get("/fhir/Patient/p1", headers={"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}) \
        .status_code == 200


def test_head_is_get_without_its_body(client: FlaskClient) -> None:
    """HEAD has the status and headers of GET, the length too (RFC 9110 9.3.2)."""
    put(client, patient(id="p1"))
    got, head = client.get("/fhir/Patient/p1"), client.head("/fhir/Patient/p1")
    assert (head.status_code, head.data) == (200, b"")
    assert dict(head.headers) == dict(got.headers) and int(head.headers["Content-Length"]) == len(got.data)


@pytest.mark.parametrize(("prefer", "empty", "kind"), [
    ("return=minimal", True, ""), ("return=representation", False, "Patient"),
    ("return=OperationOutcome", False, "OperationOutcome"), ("", False, "Patient")])
def test_prefer_return(client: FlaskClient, prefer: str, empty: bool, kind: str) -> None:
    """The client chooses what a write answers with; the headers are there in any case (http.html#ops)."""
    made = post(client, "/fhir/Patient", patient(), Prefer=prefer)
    assert made.status_code == 201 and made.headers["ETag"] == 'W/"1"' and "Location" in made.headers
    assert (made.data == b"") == empty
    if kind:
        assert document(made)["resourceType"] == kind


# ---------------------------------------------------------------- refusals

@pytest.mark.parametrize(("method", "path", "status", "code"), [
    ("GET", "/fhir/Patient/none", 404, "not-found"), ("GET", "/fhir/Nothing/1", 404, "not-supported"),
    ("GET", "/fhir/Nothing", 404, "not-supported"), ("GET", "/elsewhere", 404, "not-supported"),
    ("GET", "/fhir/Patient/1/2/3/4", 404, "not-supported"), ("GET", "/fhir/Patient/$everything", 404, "not-supported"),
    ("PATCH", "/fhir/Patient/p1", 405, "not-supported"), ("PUT", "/fhir/Patient?identifier=1", 400, "not-supported"),
    ("DELETE", "/fhir/Patient?identifier=1", 400, "not-supported"), ("POST", "/fhir/metadata", 405, "not-supported"),
    ("GET", "/fhir", 405, "not-supported"), ("POST", "/fhir/Patient/p1", 405, "not-supported"),
    ("GET", "/fhir/Patient?unknown=1", 400, "not-supported"), ("GET", "/fhir/Patient?birthdate=x", 400, "invalid")])
def test_refusals_are_outcomes(client: FlaskClient, method: str, path: str, status: int, code: str) -> None:
    """Whatever is refused, by us or by the framework, is a status of the table and an OperationOutcome."""
    refused = client.open(path, method=method)
    assert (refused.status_code, issue(refused)["code"]) == (status, code)
    if status == 405 and method != "PATCH":
        assert "Allow" in refused.headers


@pytest.mark.parametrize(("body", "content_type", "status"), [
    (b"{", "application/fhir+json", 400), (b"", "application/fhir+json", 400), (b"[]", "application/fhir+json", 400),
    (b"\xff", "application/fhir+json", 400), (b"<Patient", "application/fhir+xml", 400),
    (b'{"resourceType":"Patient","gender":1}', "application/fhir+json", 422),
    (b'{"resourceType":"Patient","gendre":"male"}', "application/json", 422),
    (b'{"resourceType":"Observation","status":"final","code":{"text":"x"}}', "application/fhir+json", 400),
    (b"{}", "application/fhir+json", 400), (b"{}", "text/plain", 415), (b"{}", "", 415),
    (b"{}", "application/x-www-form-urlencoded", 415), (b"{}", "application/fhir+json; fhirVersion=3.0", 415)])
def test_bodies_that_cannot_be_taken(client: FlaskClient, body: bytes, content_type: str, status: int) -> None:
    """What cannot be read is 400, what breaks a rule 422, what is of another media type 415."""
    refused = client.post("/fhir/Patient", data=body, headers={"Content-Type": content_type})
    assert refused.status_code == status, refused.data
    issue(refused)


def test_every_issue_has_its_place(client: FlaskClient) -> None:
    """422 lists all that is wrong, each with its FHIRPath and none with a value."""
    refused = post(client, "/fhir/Observation", observation(status="SECRET", effectiveDateTime="SECRET"))
    issues = document(refused)["issue"]
    assert refused.status_code == 422
    assert {i["expression"][0] for i in issues} == {"Observation.status", "Observation.effective"}
    assert b"SECRET" not in refused.data


def test_url_and_resource_must_agree(client: FlaskClient) -> None:
    """Type and id of the resource are those of the address (http.html#update)."""
    for path, resource in (("Patient/p1", patient(id="p2")), ("Patient/p1", patient()),
                           ("Observation/p1", patient(id="p1"))):
        refused = client.put(f"/fhir/{path}", data=json.dumps(resource), headers=FHIR_JSON)
        assert refused.status_code == 400, path


@pytest.mark.parametrize("accept", ["application/pdf", "application/fhir+json; fhirVersion=5.0"])
def test_nothing_is_done_for_a_client_that_cannot_read_the_answer(client: FlaskClient, accept: str) -> None:
    """406 comes before the write."""
    assert put(client, patient(id="p1"), Accept=accept).status_code == 406
    assert client.get("/fhir/Patient/p1").status_code == 404


def test_a_refusal_is_written_in_the_format_asked_for(client: FlaskClient) -> None:
    """XML clients get their OperationOutcome in XML."""
    refused = client.get("/fhir/Patient/none", headers={"Accept": "application/fhir+xml"})
    assert etree.fromstring(refused.data).tag == "{http://hl7.org/fhir}OperationOutcome"


def test_conditional_create_is_refused_and_not_ignored(client: FlaskClient) -> None:
    """An If-None-Exist that we do not understand must never become an unconditional create."""
    assert post(client, "/fhir/Patient", patient(), **{"If-None-Exist": "identifier=1"}).status_code == 400
    assert document(client.get("/fhir/Patient?_summary=count"))["total"] == 0


def test_too_large_is_413(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body over the limit is refused before it is read."""
    monkeypatch.setattr("gateway.edges.http.exchange.Request.max_content_length", 1000)
    refused = post(client, "/fhir/Patient", patient(name=[{"text": "x" * 2000}]))
    assert refused.status_code == 413
    issue(refused)


@pytest.mark.parametrize("category", Category)
def test_what_the_store_refuses_is_answered_from_the_table(client: FlaskClient, store: Store, category: Category,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Each category raised below comes out with its status; BUSY says when to come back, FAULT says nothing."""
    def refuse(*_: Any) -> None:
        raise GatewayError(category, "王建国 must not be shown" if category is Category.FAULT else "do this")
    monkeypatch.setattr(store, "read", refuse)
    refused = client.get("/fhir/Patient/p1")
    expected = {Category.MALFORMED: 400, Category.UNSUPPORTED: 400, Category.INVALID: 422, Category.FORBIDDEN: 403,
                Category.NOT_FOUND: 404, Category.CONFLICT: 409, Category.BUSY: 503, Category.FAULT: 500}
    assert refused.status_code == expected[category]
    assert ("Retry-After" in refused.headers) == (category is Category.BUSY)
    assert "王建国" not in issue(refused)["diagnostics"]


def test_a_bug_is_500_and_tells_nothing(client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch,
                                        caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody expected is a FAULT; neither answer nor log shows what it said."""
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("王建国")
    monkeypatch.setattr(store, "read", fail)
    with caplog.at_level(logging.INFO):
        failed = client.get("/fhir/Patient/p1")
    assert failed.status_code == 500 and issue(failed)["code"] == "exception"
    assert "王建国" not in failed.get_data(as_text=True) + caplog.text
    assert "ZeroDivisionError at test_http.py" in caplog.text


# ---------------------------------------------------------------- search.html

@pytest.fixture
def filled(client: FlaskClient) -> FlaskClient:
    """Two patients, five observations."""
    put(client, patient(id="p1", name=[{"family": "Wang"}], identifier=[{"system": "urn:a", "value": "1"}]))
    put(client, patient(id="p2", name=[{"family": "Li"}]))
    for n in range(5):
        put(client, observation(str(n + 1), id=f"o{n}", effectiveDateTime=f"2026-01-0{n + 1}"))
    return client


def test_search_is_a_searchset_with_links(filled: FlaskClient) -> None:
    """Matches with fullUrl and mode, self link, and next while there is more; the walk finds each once."""
    seen, url = [], "/fhir/Observation?patient=p1&_sort=-date&_count=2"
    while url:
        page = document(filled.get(url))
        assert page["type"] == "searchset" and check.check(page) == []
        links = {link["relation"]: link["url"] for link in page["link"]}
        assert "/fhir/Observation?" in links["self"]
        for entry in page["entry"]:
            assert entry["fullUrl"].endswith(f"/fhir/Observation/{entry['resource']['id']}")
            assert entry["search"]["mode"] == "match"
            seen.append(entry["resource"]["id"])
        url = links.get("next", "")
    assert seen == ["o4", "o3", "o2", "o1", "o0"]


def test_search_by_post_is_the_same(filled: FlaskClient) -> None:
    """POST _search takes the parameters of its form and of its address."""
    got = filled.get("/fhir/Observation?patient=p1&value-quantity=gt3")
    for path, form in (("/fhir/Observation/_search", "patient=p1&value-quantity=gt3"),
                       ("/fhir/Observation/_search?patient=p1", "value-quantity=gt3")):
        found = filled.post(path, data=form, content_type="application/x-www-form-urlencoded")
        assert [r["id"] for r in resources(found)] == [r["id"] for r in resources(got)] != []
    assert filled.post("/fhir/Observation/_search", data="{}", content_type="application/json").status_code == 415


def test_includes_are_marked(filled: FlaskClient) -> None:
    """Included resources have mode include, each once."""
    page = document(filled.get("/fhir/Observation?patient=p1&_include=Observation:subject"))
    assert [e["search"]["mode"] for e in page["entry"]] == ["match"] * 5 + ["include"]
    assert page["entry"][-1]["resource"]["id"] == "p1"


def test_lenient_leaves_unknown_parameters_out_and_says_so(filled: FlaskClient) -> None:
    """Strict by default; handling=lenient adds an OperationOutcome of mode outcome and drops it from self."""
    assert filled.get("/fhir/Patient?colour=red&family=Wang").status_code == 400
    found = document(filled.get("/fhir/Patient?colour=red&family=Wang", headers={"Prefer": "handling=lenient"}))
    assert [e["search"]["mode"] for e in found["entry"]] == ["match", "outcome"]
    assert found["entry"][1]["resource"]["issue"][0]["severity"] == "warning"
    assert "colour" not in found["link"][0]["url"] and check.check(found) == []


def test_subsets_are_marked(filled: FlaskClient) -> None:
    """_summary and _elements cut the resource, keep what is mandatory, and say SUBSETTED; also for one resource."""
    for path in ("/fhir/Observation?_id=o1&_elements=status", "/fhir/Observation?_id=o1&_summary=text",
                 "/fhir/Observation/o1?_elements=status"):
        found = document(filled.get(path))
        one = found["entry"][0]["resource"] if found["resourceType"] == "Bundle" else found
        assert one["meta"]["tag"][0]["code"] == "SUBSETTED" and "code" in one and "valueQuantity" not in one
    assert "value" in document(filled.get("/fhir/Observation/o1?_elements=value"))["valueQuantity"]
    assert filled.get("/fhir/Observation/o1?_summary=some").status_code in (400, 422)
    counted = document(filled.get("/fhir/Observation?_summary=count"))
    assert counted["total"] == 5 and "entry" not in counted


def test_search_in_xml(filled: FlaskClient) -> None:
    """A Bundle in XML holds the same resources."""
    found = filled.get("/fhir/Patient?family=Wang&_format=xml")
    root = etree.fromstring(found.data)
    assert root.tag.endswith("}Bundle") and root.find(".//{*}family").get("value") == "Wang"


# ---------------------------------------------------------------- http.html#transaction

def entry(method: str, url: str, resource: Resource | None = None, **more: Any) -> Resource:
    """An entry of a Bundle; ``ifMatch`` and its kin go into the request."""
    full_url = more.pop("fullUrl", None)
    return {key: value for key, value in (("fullUrl", full_url), ("resource", resource),
                                          ("request", {"method": method, "url": url, **more})) if value}


def bundle(kind: str, *entries: Resource) -> Resource:
    """A Bundle to send."""
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def test_a_transaction_resolves_references_and_reads_last(client: FlaskClient) -> None:
    """urn:uuid references become the new ids; a GET within sees what was written; answers are in the entries' order."""
    urn = f"urn:uuid:{uuid.uuid4()}"
    done = post(client, "/fhir", bundle(
        "transaction", entry("GET", "Observation?subject:missing=false&status=final"),
        entry("PUT", "Observation/o1", observation(id="o1", subject={"reference": urn})),
        entry("POST", "Patient", patient(), fullUrl=urn), entry("DELETE", "Patient/old")))
    assert done.status_code == 200, done.data
    page = document(done)
    assert page["type"] == "transaction-response" and check.check(page) == []
    statuses = [e["response"]["status"][:3] for e in page["entry"]]
    assert statuses == ["200", "201", "201", "204"]
    made = page["entry"][2]["response"]["location"].split("/_history")[0]
    assert page["entry"][0]["resource"]["entry"][0]["resource"]["subject"]["reference"] == made
    assert document(client.get("/fhir/Observation/o1"))["subject"]["reference"] == made


def test_a_transaction_is_all_or_nothing(client: FlaskClient) -> None:
    """One bad entry refuses all and names its place; nothing was written."""
    put(client, patient(id="there"))
    for bad, status in ((entry("POST", "Patient", patient(gender="x")), 422),
                        (entry("PUT", "Patient/there", patient(id="there", gender="male"), ifMatch='W/"9"'), 412),
                        (entry("POST", "Patient", patient(), ifNoneExist="identifier=1"), 400),
                        (entry("PATCH", "Patient/p9", {"resourceType": "Parameters"}), 400),
                        (entry("PUT", "Patient?identifier=1", patient()), 400),
                        (entry("POST", "Nothing", {"resourceType": "Nothing"}), 422)):
        refused = post(client, "/fhir", bundle("transaction", entry("PUT", "Patient/p1", patient(id="p1")), bad))
        assert refused.status_code == status, refused.data
        assert client.get("/fhir/Patient/p1").status_code == 404
    refused = post(client, "/fhir", bundle("transaction", entry("PUT", "Patient/p1", patient(id="p1")),
                                           entry("POST", "Patient", patient(gender="x"))))
    assert issue(refused)["expression"] == ["Bundle.entry[1].resource.gender"]


def test_conditional_references_find_one_or_stop_all(client: FlaskClient) -> None:
    """``Patient?identifier=…`` within a transaction becomes the one Patient that it finds (http.html#trules)."""
    put(client, patient(id="p1", identifier=[{"system": "urn:a", "value": "1"}]))
    by = {"reference": "Patient?identifier=urn:a|1"}
    sent = bundle("transaction", entry("PUT", "Observation/o1", observation(id="o1", subject=by)))
    assert post(client, "/fhir", sent).status_code == 200
    assert document(client.get("/fhir/Observation/o1"))["subject"] == {"reference": "Patient/p1"}
    nobody = {"reference": "Patient?identifier=urn:a|2"}
    refused = post(client, "/fhir", bundle("transaction", entry("PUT", "Observation/o2",
                                                               observation(id="o2", subject=nobody))))
    assert refused.status_code == 412 and client.get("/fhir/Observation/o2").status_code == 404


def test_a_batch_answers_each_entry_for_itself(client: FlaskClient) -> None:
    """A refused entry does not stop the others; each answer is in its place with its own outcome (http.html#brules)."""
    put(client, patient(id="p1"))
    done = post(client, "/fhir", bundle(
        "batch", entry("GET", "Patient/p1"), entry("GET", "Patient/none"),
        entry("POST", "Patient", patient(gender="x")), entry("POST", "Patient", patient()),
        entry("GET", "Patient?_summary=count"), entry("GET", "Patient/p1/_history"),
        entry("GET", "Patient/p1", ifNoneMatch='W/"1"'), entry("DELETE", "Patient/p1"), {"resource": patient()},
        entry("GET", "Patient?colour=red"), entry("GET", "Patient/p1/_history/1")))
    page = document(done)
    statuses = [e["response"]["status"][:3] for e in page["entry"]]
    assert statuses == ["200", "404", "422", "201", "200", "200", "304", "204", "422", "400", "200"]
    assert page["entry"][0]["resource"]["id"] == "p1" and check.check(page) == []
    assert page["entry"][2]["response"]["outcome"]["issue"][0]["expression"] == ["Bundle.entry[2].resource.gender"]


def test_only_bundles_to_work_on_go_to_the_base(client: FlaskClient) -> None:
    """A resource or a Bundle of another type is refused."""
    assert post(client, "/fhir", patient()).status_code == 400
    assert post(client, "/fhir", bundle("collection")).status_code == 422
    assert post(client, "/fhir", bundle("transaction")).status_code == 200


def test_prefer_in_a_transaction(client: FlaskClient) -> None:
    """Resources come back only when the client asks for them."""
    sent = bundle("transaction", entry("PUT", "Patient/p1", patient(id="p1")))
    assert "resource" not in document(post(client, "/fhir", sent))["entry"][0]
    full = document(post(client, "/fhir", sent, Prefer="return=representation"))
    assert full["entry"][0]["resource"]["id"] == "p1"


# ---------------------------------------------------------------- who may

OPEN = ("/", "/healthz", "/readyz", "/metrics", "/fhir/metadata", "/static/huren.css")
CLOSED = ("/fhir/Patient/p1", "/fhir/Patient", "/fhir/Patient/p1/_history", "/person/p1", "/nothing", "/fhir",
          "/fhir/Patient/p1/_history/1")


@pytest.mark.parametrize("path", OPEN)
def test_some_paths_need_no_login(guarded: FlaskClient, path: str) -> None:
    """Health, figures, the start page and what the server can do are for everybody."""
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic dTpw", "bearer  "])
def test_everything_else_does(guarded: FlaskClient, path: str, authorization: str) -> None:
    """401 with WWW-Authenticate, whatever else would be wrong; a wrong token is called invalid (RFC 6750 3.1)."""
    refused = guarded.get(path, headers={"Authorization": authorization} if authorization else {})
    assert refused.status_code == 401 and issue(refused)["code"] == "login"
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert ("invalid_token" in refused.headers["WWW-Authenticate"]) == bool(authorization)


def test_a_token_opens_what_its_scopes_say(guarded: FlaskClient, token: Token) -> None:
    """403 for what the scopes do not name, read, search, create and delete each by itself."""
    everything, reader = token("system/*.cruds"), token("system/Patient.rs")
    put(guarded, patient(id="p1"), **everything)
    put(guarded, observation(id="o1"), **everything)
    assert guarded.get("/fhir/Patient/p1", headers=reader).status_code == 200
    assert guarded.get("/fhir/Patient?_id=p1", headers=reader).status_code == 200
    assert guarded.get("/fhir/Observation/o1", headers=reader).status_code == 403
    assert guarded.get("/fhir/Observation", headers=reader).status_code == 403
    assert post(guarded, "/fhir/Patient", patient(), **reader).status_code == 403
    assert put(guarded, patient(id="p1", gender="male"), **reader).status_code == 403
    assert guarded.delete("/fhir/Patient/p1", headers=reader).status_code == 403
    sent = bundle("transaction", entry("PUT", "Patient/p2", patient(id="p2")))
    assert post(guarded, "/fhir", sent, **reader).status_code == 403
    assert guarded.get("/person/p1", headers=reader).status_code == 403


def test_an_institution_sees_and_writes_its_own_only(guarded: FlaskClient, token: Token) -> None:
    """institution/ scopes end at the data of the client's own hospital."""
    one = token("institution/*.cruds", institution="hospital-one")
    two = token("institution/*.cruds", institution="hospital-two")
    assert put(guarded, patient(id="p1"), **one).status_code == 201
    assert guarded.get("/fhir/Patient/p1", headers=one).status_code == 200
    assert guarded.get("/fhir/Patient/p1", headers=two).status_code == 404
    assert resources(guarded.get("/fhir/Patient", headers=two)) == []
    assert resources(guarded.get("/fhir/Patient/_history", headers=two)) == []
    assert put(guarded, patient(id="p1", gender="male"), **two).status_code == 403


def test_a_revoked_token_is_worth_nothing(guarded: FlaskClient, store: Store,
                                          token: Token) -> None:
    """After `huren client revoke` the token is refused."""
    headers = token("system/*.rs", name="leaver")
    assert guarded.get("/fhir/Patient", headers=headers).status_code == 200
    store.client_revoke("leaver")
    assert guarded.get("/fhir/Patient", headers=headers).status_code == 401


# ---------------------------------------------------------------- what is written down

def test_every_access_leaves_one_audit_row(guarded: FlaskClient, store: Store,
                                           token: Token) -> None:
    """Also what was refused; values of searches and the persons shown are kept, the peer too."""
    headers = token("system/*.cruds", name="doctor", institution="h1")
    put(guarded, patient(id="p1"), **headers)
    put(guarded, observation(id="o1"), **headers)
    guarded.get("/fhir/Observation/o1", headers=headers)
    guarded.get("/fhir/Observation?patient=p1", headers=headers)
    guarded.post("/fhir/Observation/_search", data="patient=p1", headers=headers,
                 content_type="application/x-www-form-urlencoded")
    guarded.get("/fhir/Observation/none", headers=headers)
    guarded.get("/fhir/Observation/o1")
    post(guarded, "/fhir", bundle("batch", entry("GET", "Observation/o1")), **headers)
    post(guarded, "/fhir", bundle("transaction", entry("PUT", "Observation/o2", observation(id="o2"))), **headers)
    post(guarded, "/fhir/Patient", patient(gender="x"), **headers)
    guarded.delete("/fhir/Observation/o1", headers=headers)
    guarded.get("/healthz")
    guarded.get("/fhir/metadata")
    [person] = store.persons_of(["p1"]).values()
    rows = [(a.access.caller, a.access.action, a.access.target, a.access.outcome, a.access.persons)
            for a in reversed(store.audit_rows())]
    assert sorted(rows, key=str) == sorted([
        ("doctor", "update", "Patient/p1", 200, (person,)), ("doctor", "update", "Observation/o1", 200, (person,)),
        ("doctor", "read", "Observation/o1", 200, (person,)),
        ("doctor", "search-type", "Observation?patient=p1", 200, (person,)),
        ("doctor", "search-type", "Observation?patient=p1", 200, (person,)),
        ("doctor", "read", "Observation/none", 404, ()), ("anonymous", "read", "/fhir/Observation/o1", 401, ()),
        ("doctor", "batch", "Bundle", 200, (person,)),
        ("doctor", "transaction", "Observation:1", 200, (person,)),
        ("doctor", "create", "Patient", 422, ()), ("doctor", "delete", "Observation/o1", 204, (person,))], key=str)
    assert {a.access.peer for a in store.audit_rows()} == {"127.0.0.1"}


def test_the_log_has_a_line_a_request_and_never_a_patient(client: FlaskClient,
                                                          caplog: pytest.LogCaptureFixture) -> None:
    """Method, interaction, type, client, status and time; no id, no search value, nothing of a strange path."""
    put(client, patient(id="secret-1", name=[{"family": "SECRET"}]))
    with caplog.at_level(logging.INFO, "huren"):
        client.get("/fhir/Patient/secret-1")
        client.get("/fhir/Patient?name=SECRET")
        client.get("/fhir/Patient?name:SECRET=SECRET")
        client.get("/fhir/SECRET%0Aforged/secret-1")
        client.get("/person/secret-1")
    lines = [r.getMessage() for r in caplog.records if r.name == "huren.http"]
    assert len(lines) == 5 and "secret" not in caplog.text.lower()
    assert lines[0].startswith("http method=GET interaction=read type=Patient client=demo status=200 ms=")


# ---------------------------------------------------------------- for those who run it, and for browsers

def test_health_and_readiness(guarded: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may live while the database or the objects are away; then it is not ready and says what is."""
    assert guarded.get("/readyz").data == b"ready\n"

    def away(*_: Any) -> None:
        raise GatewayError(Category.BUSY, "away")
    monkeypatch.setattr(store, "reading", away)
    monkeypatch.setattr(store.objects, "size", away)
    refused = guarded.get("/readyz")
    assert (refused.status_code, refused.data) == (503, b"not ready: database, objects\n")
    assert guarded.get("/healthz").status_code == 200


def test_metrics(client: FlaskClient) -> None:
    """Requests by interaction and status, and what the store counts, as Prometheus text."""
    put(client, patient(id="p1"))
    client.get("/fhir/Patient/none")
    text = client.get("/metrics").get_data(as_text=True)
    lines = text.splitlines()
    for expected in ('huren_http_requests_total{interaction="update",status="201"} 1',
                     'huren_http_requests_total{interaction="read",status="404"} 1',
                     'huren_resources{type="Patient"} 1', 'huren_messages{status="quarantined"} 0', "huren_persons 1",
                     "huren_unmapped 0", "huren_database_up 1"):
        assert expected in lines
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    used = {re.split("[{ ]", line)[0] for line in lines if not line.startswith("#")}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in used} == named


@pytest.mark.parametrize(("origin", "demo", "allowed"), [
    ("https://app.example", False, True), ("https://app.example", True, False), ("http://localhost:3000", True, True),
    ("http://localhost.evil.example", True, False)])
def test_pages_of_other_sites(settings: Settings, store: Store, origin: str, demo: bool, allowed: bool) -> None:
    """CORS for any site where a token is needed; without a login only for pages of this machine."""
    client = create_app(replace(settings, demo=demo), store).test_client()
    for response in (client.options("/fhir/Patient", headers={"Origin": origin}),
                     client.get("/fhir/metadata", headers={"Origin": origin})):
        assert response.status_code in (200, 204)
        assert ("Access-Control-Allow-Origin" in response.headers) == allowed


def test_security_headers(client: FlaskClient) -> None:
    """Patients' data are not kept by caches, and no browser guesses types."""
    for path in ("/fhir/Patient/none", "/", "/fhir/metadata"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"


# ---------------------------------------------------------------- http.html#capabilities

def test_the_capability_statement_is_valid_and_says_where(client: FlaskClient) -> None:
    """Valid R4 in JSON and XML; the base of the links is that of the settings."""
    found = document(client.get("/fhir/metadata"))
    assert check.check(found) == [] and found["implementation"]["url"] == "http://127.0.0.1:8080/fhir"
    assert client.get("/fhir/metadata?_format=xml").content_type.startswith("application/fhir+xml")
    described = statement("", login=True)["rest"][0]["security"]["description"]
    assert "Bearer" in described and found["rest"][0]["security"]["description"] != described


def test_every_search_parameter_that_we_claim_is_one(client: FlaskClient) -> None:
    """A type's own parameters, those of all types and the includes are accepted by the search."""
    values = {"token": "a", "date": "2026", "string": "a", "reference": "Patient/a", "quantity": "1", "uri": "urn:a"}
    rest = document(client.get("/fhir/metadata"))["rest"][0]
    for one in rest["resource"]:
        if one["type"] not in ("Patient", "Observation", "DiagnosticReport", "ImagingStudy", "Basic"):
            continue
        for parameter in [*one.get("searchParam", ()), *rest["searchParam"]]:
            query = f"{parameter['name']}={values[parameter['type']]}"
            found = client.get(f"/fhir/{one['type']}?{query}")
            assert found.status_code == 200, (one["type"], query, found.data)
        for include in one.get("searchInclude", ()):
            assert client.get(f"/fhir/{one['type']}?_include={include}").status_code == 200
        for include in one.get("searchRevInclude", ()):
            assert client.get(f"/fhir/{one['type']}?_revinclude={include}").status_code == 200




def test_what_cannot_be_written_down_is_not_shown(client: FlaskClient, store: Store,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """When the audit takes nothing more, the answer is 503 and has no data."""
    put(client, patient(id="p1", name=[{"family": "Wang"}]))

    def full(*_: Any) -> None:
        raise GatewayError(Category.BUSY, "audit rows cannot be written")
    monkeypatch.setattr(store, "audit", full)
    refused = client.get("/fhir/Patient/p1")
    assert refused.status_code == 503 and b"Wang" not in refused.data
    assert client.get("/person/p1").status_code == 503
