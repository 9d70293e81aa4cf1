"""The catalogue through the FHIR API: loading by PUT, POST and transaction, refusals, and what FHIR clients read."""

from __future__ import annotations

import base64
import json
import time
import uuid
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from bench import catalogue as bench
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.edges.http.app import create_app
from gateway.fhir import check
from gateway.recognition import library, published
from gateway.recognition.tables import HEAD, Faults, read, read_head, read_tables
from gateway.recognition.versions import Rulebook, shipped
from gateway.source import Resource
from gateway.store import Store
from gateway.terminology import Catalogue
from tests.catalogue_samples import head, small

FHIR = {"Content-Type": "application/fhir+json"}
TOMORROW = date.today() + timedelta(days=2)  # whatever the zone of the machine is, it has not come
LATER = 1_000_000 * 86_400 * 365 * 100  # a moment at which everything has taken effect


@pytest.fixture
def client(settings: Settings, store: Store) -> FlaskClient:
    """A client of the demo: everybody may everything."""
    return create_app(replace(settings, demo=True), store).test_client()


def version(files: dict[str, bytes]) -> Resource:
    """The Library of tables."""
    found = read_head(files[HEAD], Faults())
    assert found is not None
    return library.library(found, files)


def second(name: str = "443", effective: date = TOMORROW) -> Resource:
    return version(bench.tables(effective, name))


def tables_of(resource: Resource) -> dict[str, bytes]:
    return {content["title"]: base64.b64decode(content["data"]) for content in resource["content"]}


def get(client: FlaskClient, path: str) -> Any:
    return client.get(path).json


def put(client: FlaskClient, resource: Resource, **headers: str) -> Any:
    return client.put(f"/fhir/Library/{resource['id']}", data=json.dumps(resource), headers={**FHIR, **headers})


def test_put_loads_a_version(client: FlaskClient, store: Store) -> None:
    """The Library is there as it was sent, and the version holds from its day on."""
    answer = put(client, second())
    assert answer.status_code == 201, answer.json
    read_back = get(client, "/fhir/Library/recognition-catalogue-443")
    assert tables_of(read_back) == tables_of(second())
    book = Rulebook(store=store)
    assert len(book.at(LATER).catalogue.items) == 443
    assert book.at(time.time_ns() // 1000) == shipped()
    assert put(client, second()).status_code == 200  # again: nothing changes
    assert get(client, "/fhir/Library/recognition-catalogue-443")["meta"]["versionId"] == "1"


def test_post_loads_a_version_under_its_own_id(client: FlaskClient) -> None:
    """The id of a version is made of its name, so that a name stands once."""
    answer = client.post("/fhir/Library", data=json.dumps(second()), headers=FHIR)
    assert answer.status_code == 201
    assert answer.headers["Location"].endswith("/fhir/Library/recognition-catalogue-443/_history/1")
    again = client.post("/fhir/Library", data=json.dumps(second()), headers=FHIR)
    assert again.status_code == 412


def test_a_transaction_loads_versions(client: FlaskClient, store: Store) -> None:
    """Two versions and another resource, all or nothing; the answer has an entry for each that was sent."""
    third = version({HEAD: f'version = "third"\nbase = "443"\neffective = {TOMORROW}\n'.encode(),
                     "windows.tsv": b"scope\titem\tdays\n330100\t*\t7\n"})
    entries = [{"resource": second(), "request": {"method": "PUT", "url": "Library/recognition-catalogue-443"}},
               {"resource": third, "request": {"method": "PUT", "url": "Library/recognition-catalogue-third"}},
               {"resource": {"resourceType": "Organization", "name": "x"},
                "request": {"method": "POST", "url": "Organization"}}]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    answer = client.post("/fhir", data=json.dumps(bundle), headers=FHIR)
    assert answer.status_code == 200, answer.json
    said: Any = answer.json
    assert [entry["response"]["status"] for entry in said["entry"]] == ["201 Created"] * 3
    assert {rules.version for rules in Rulebook(store=store).versions()} == {shipped().version, "443", "third"}
    third["content"][0]["data"] = base64.b64encode(b"scope\titem\tdays\n330100\t*\t0\n").decode()
    third["version"], third["id"] = "fourth", "recognition-catalogue-fourth"
    entries = [{"resource": {"resourceType": "Organization", "id": "not-me", "name": "y"},
                "request": {"method": "PUT", "url": "Organization/not-me"}},
               {"resource": third, "request": {"method": "PUT", "url": "Library/recognition-catalogue-fourth"}}]
    answer = client.post("/fhir", data=json.dumps({**bundle, "entry": entries}), headers=FHIR)
    assert answer.status_code == 422
    assert client.get("/fhir/Organization/not-me").status_code == 404


def test_a_batch_loads_a_version(client: FlaskClient) -> None:
    """Each entry by its own rules, the refusal of a table in its own entry."""
    broken = version(small(catalogue=head("broken", TOMORROW), windows="*|30=>*|0"))
    entries = [{"resource": resource, "request": {"method": "PUT", "url": f"Library/{resource['id']}"}}
               for resource in (second(), broken)]
    answer: Any = client.post("/fhir", headers=FHIR, data=json.dumps(
        {"resourceType": "Bundle", "type": "batch", "entry": entries})).json
    assert [entry["response"]["status"][:3] for entry in answer["entry"]] == ["201", "422"]
    [issue] = answer["entry"][1]["response"]["outcome"]["issue"]
    assert issue["expression"] == ["windows.tsv:2"]


def test_every_fault_is_an_issue(client: FlaskClient) -> None:
    """422 with an issue for each fault, its place the table and line."""
    files = small(catalogue=head("t1", TOMORROW), items="ECT0149=>ECT0148", prices="320.00=>NaN")
    answer = put(client, version(files))
    assert answer.status_code == 422
    found = {issue["expression"][0]: issue["diagnostics"] for issue in answer.json["issue"]}
    assert "the check character of ECT0148 is wrong" in found["items.tsv:2"]
    assert "price must be a decimal" in found["prices.tsv:2"]
    assert "coverage-edges.tsv:2" in found  # it names the code that is gone
    assert client.get("/fhir/Library/recognition-catalogue-t1").status_code == 404


@pytest.mark.parametrize(("change", "where"), [
    ({"url": "http://huren.example/fhir/Library/other"}, "Library.url"),
    ({"status": "draft"}, "Library.status"),
    ({"version": "other"}, "Library.id"),
    ({"effectivePeriod": {"start": "2026-13-45"}}, "Library.effectivePeriod"),
    ({"effectivePeriod": {"start": "2030"}}, "Library"),
    ({"effectivePeriod": {"start": "2030-01-01", "end": "2031-01-01"}}, "Library.effectivePeriod.end"),
    ({"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/library-type", "code": "logic-library"}]}},
     "Library.type"),
    ({"content": [{"title": "items.tsv", "contentType": "text/csv", "data": "eA=="}]}, "Library.content[0]"),
    ({"content": [{"title": "things.tsv", "contentType": "text/tab-separated-values"}]}, "Library.content[0]"),
    ({"relatedArtifact": [{"type": "depends-on", "resource": f"{library.URL}|{name}"} for name in "ab"]},
     "Library.relatedArtifact"),
])
def test_a_library_that_is_no_version_is_refused(client: FlaskClient, change: dict[str, Any], where: str) -> None:
    """Whatever has the catalogue's id, URL or type must be a version of it in every element."""
    answer = put(client, {**second(), **change})
    assert answer.status_code == 422, answer.json
    assert any(where in issue.get("expression", [""])[0] for issue in answer.json["issue"]), answer.json


@pytest.mark.parametrize("broken", [{"type": "x"}, {"type": {"coding": {}}}, {"type": {"coding": ["x"]}},
                                    {"version": 7}, {"content": {}}, {"effectivePeriod": []}])
def test_a_library_of_another_shape_is_refused(client: FlaskClient, broken: dict[str, Any]) -> None:
    """What is not FHIR is 422 by PUT and POST, never a fault of ours."""
    resource = {**second(), **broken}
    assert put(client, resource).status_code == 422
    assert client.post("/fhir/Library", data=json.dumps(resource), headers=FHIR).status_code == 422
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [
        {"resource": resource, "request": {"method": "POST", "url": "Library"}}]}
    assert client.post("/fhir", data=json.dumps(bundle), headers=FHIR).status_code == 422


def test_other_libraries_are_nobody_s_business(client: FlaskClient) -> None:
    """A Library that has nothing to do with the catalogue is stored as any resource is."""
    other = {"resourceType": "Library", "id": "mine", "status": "draft",
             "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/library-type",
                                  "code": "logic-library"}]}}
    assert put(client, other).status_code == 201
    assert client.delete("/fhir/Library/mine").status_code == 204


def test_a_version_in_effect_answers_409(client: FlaskClient) -> None:
    """Neither PUT nor DELETE; the sentence says what to do."""
    put(client, second(effective=date(2026, 1, 2)))  # the first may begin in the past
    for answer in (put(client, second(effective=TOMORROW)), client.delete("/fhir/Library/recognition-catalogue-443")):
        assert answer.status_code == 409
        said: Any = answer.json
        assert "load a new version" in said["issue"][0]["diagnostics"]


def test_a_version_that_has_not_begun_can_be_changed_and_taken_back(client: FlaskClient, store: Store) -> None:
    """What was published with it changes and goes with it."""
    put(client, version(small(catalogue=head("t1", TOMORROW), institutions="+hz-demo-1|丙||3301|",
                              qualifications="+hz-demo-1|CT|3301||")))
    before = _ids(client, "OrganizationAffiliation")
    assert len(before) == 3
    put(client, version(small(catalogue=head("t1", TOMORROW))))
    assert len(_ids(client, "OrganizationAffiliation")) == 2
    assert _ids(client, "CodeSystem")
    assert client.delete("/fhir/Library/recognition-catalogue-t1").status_code == 204
    for kind in ("OrganizationAffiliation", "CodeSystem", "ConceptMap", "ValueSet"):
        assert _ids(client, kind) == set()


def _ids(client: FlaskClient, kind: str) -> set[str]:
    return {entry["resource"]["id"] for entry in get(client, f"/fhir/{kind}?_count=100").get("entry", ())}


# ---------------------------------------------------------------------------------------------------- who may

@pytest.mark.parametrize(("scopes", "institution", "status"), [
    (("system/*.cruds",), None, 201),
    (("system/*.cruds",), "hz-demo-1", 201),
    (("system/Library.cruds", "system/CodeSystem.cu", "system/ConceptMap.cu"), None, 201),
    (("system/Library.cruds",), None, 403),  # what is published beside it needs a scope as well
    (("institution/*.cruds",), "hz-demo-1", 403),
    (("system/Library.rs",), None, 403),
])
def test_loading_needs_a_scope_of_the_system(settings: Settings, store: Store, scopes: tuple[str, ...],
                                             institution: str | None, status: int) -> None:
    """The catalogue is everybody's: a hospital's own client cannot change it, and it belongs to no institution."""
    client = create_app(settings, store).test_client()
    token = store.client_add(str(uuid.uuid4()), institution, scopes)
    answer = put(client, second(), Authorization=f"Bearer {token}")
    assert answer.status_code == status, answer.json
    row = store.read("Library", "recognition-catalogue-443", GATEWAY)
    assert (row is not None) == (status == 201)
    assert row is None or row.institution == ""


def test_a_hospital_s_client_cannot_take_a_version_back(settings: Settings, store: Store) -> None:
    """Nor delete it."""
    everybody = create_app(replace(settings, demo=True), store).test_client()
    put(everybody, second())
    client = create_app(settings, store).test_client()
    token = store.client_add("own", "hz-demo-1", ("institution/*.cruds",))
    answer = client.delete("/fhir/Library/recognition-catalogue-443", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403


# ---------------------------------------------------------------------------------------------------- published

def test_fhir_clients_read_what_the_tables_say(client: FlaskClient) -> None:
    """CodeSystems and ConceptMaps under the canonical URLs, with the version's name, make the version's items again."""
    put(client, second())
    names = ("CodeSystem/recognition-item", "ConceptMap/recognition-item-loinc")
    items, loinc = (get(client, f"/fhir/{name}-443") for name in names)
    assert items["url"] == "http://huren.example/fhir/CodeSystem/recognition-item"
    assert (items["version"], items["date"], items["count"]) == ("443", TOMORROW.isoformat(), 443)
    again = Catalogue.read(items, {"concept": []}, loinc, {"group": []})
    rules, _ = read(bench.tables(TOMORROW), [shipped()])
    assert again.items == rules.catalogue.items


def test_everything_published_is_valid_fhir_and_says_what_it_is() -> None:
    """All tables give all kinds; each passes the check, and the second judge."""
    files = small()
    rules, given = read(files, institutions=())
    made = published.resources(rules, given)
    kinds = {(one["resourceType"], one["id"].removesuffix("-t1")) for one in made
             if one["resourceType"] != "OrganizationAffiliation"}
    assert kinds == {("CodeSystem", name) for name in (
        "recognition-category", "recognition-item", "recognition-panel", "recognition-region", "recognition-mark",
        "recognition-reason")} | {("ConceptMap", "recognition-item-loinc"), ("ConceptMap", "recognition-coverage"),
                                  ("ValueSet", "recognition-reason-CN")}
    for one in made:
        assert check.check(one) == [], one["id"]
        assert check.judge(one) == [], one["id"]


def test_a_table_that_is_not_brought_is_not_published() -> None:
    """A version of one table publishes that table only."""
    first, _ = read(small(), institutions=())
    files = {HEAD: small(catalogue=head("t2", date(2027, 1, 1), "t1"))[HEAD], "regions.tsv": small()["regions.tsv"]}
    rules, given = read(files, [first], institutions=())
    assert {one["id"] for one in published.resources(rules, given)} == {"recognition-region-t2", "recognition-mark-t2"}


def test_qualifications_are_affiliations() -> None:
    """One for institution, region and period, with the items as specialties; ids differ between versions."""
    files = small(qualifications="b|HM|3301||=>b|HM|3301||\nb|P-CBC|3301||\nb|ECT0149|3301|2026-01-01|")
    rules, given = read(files, institutions=())
    one, two, three = published.affiliations(rules)
    assert one["period"] == {"start": "2026-01-01", "end": "2026-12-31"}
    assert one["specialty"] == [{"text": "all items"}]
    assert one["organization"]["identifier"]["value"] == "33"
    assert two["participatingOrganization"]["reference"] == "Organization/b" and "period" not in two
    assert [s["coding"][0]["code"] for s in two["specialty"]] == ["HM", "P-CBC"]
    assert three["period"] == {"start": "2026-01-01"}
    assert len({r["id"] for v in ("t1", "t2") for r in published.affiliations(rules.changed(version=v))}) == 6
    assert given.rows and len({r["identifier"][0]["value"] for r in (one, two, three)}) == 3


def test_a_region_s_value_set_holds_what_it_takes_over() -> None:
    """Its own words for its own codes, the country's for the others."""
    files = small(reasons="+3301|R6|本市其他|Other, here|yes|Y|N|")
    rules, given = read(files, institutions=())
    sets = {one["id"]: one for one in published.definitions(rules, given) if one["resourceType"] == "ValueSet"}
    concepts = sets["recognition-reason-3301"]["compose"]["include"][0]["concept"]
    assert [(c["code"], c["display"]) for c in concepts] == [("R1", "病情变化"), ("R6", "本市其他")]
    assert read_tables(files, Faults()).tables.keys() == given.tables.keys()
