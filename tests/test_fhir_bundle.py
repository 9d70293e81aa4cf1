"""`gateway.fhir.bundle` and `gateway.fhir.transaction`: Bundles out by splicing, batches and transactions in."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from fhir_samples import make, mutated
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Category, GatewayError
from gateway.fhir import bundle, check, json, resource
from gateway.fhir.outcome import Issue

BASE = "http://a.example/fhir"
UUID = "urn:uuid:00000000-0000-4000-8000-00000000000"


def _stored(kind: str, seed: int) -> tuple[dict[str, Any], bytes]:
    text = resource.text(kind, f"i{seed}", 1, 1_700_000_000_000_000, resource.tail(make(kind, seed)))
    return json.loads(text), text


# ---------------------------------------------------------------- out

@given(st.lists(st.tuples(st.sampled_from(("Patient", "Observation", "DiagnosticReport")), st.integers(0, 999)),
                max_size=5))
def test_a_searchset_holds_the_stored_texts(rows: list[tuple[str, int]]) -> None:
    """A page is valid FHIR, and each stored text stands in it character by character."""
    stored = [_stored(kind, seed) for kind, seed in rows]
    entries = [(f"{found['resourceType']}/{found['id']}", text, "match") for found, text in stored]
    raw = bundle.searchset(BASE, f"{BASE}/Patient?name=\"李\"", entries, total=len(rows))
    found = json.loads(raw)
    assert all(text in raw for _, text in stored)
    assert [entry["resource"] for entry in found.get("entry", [])] == [given_ for given_, _ in stored]
    assert (found["total"], check.check(found)) == (len(rows), [])


def test_links_modes_and_outcome_of_a_page() -> None:
    """Links are in order, relative fullUrls are joined to the base, remarks are one entry of mode outcome."""
    _, text = _stored("Patient", 1)
    raw = bundle.searchset(BASE + "/", "self", [("Patient/i1", text, "match"), ("http://b/Patient/2", text, "include")],
                           next_link="next", previous_link="back",
                           issues=[Issue("not-supported", "a", severity="warning")])
    found = json.loads(raw)
    assert found["link"] == [{"relation": "self", "url": "self"}, {"relation": "previous", "url": "back"},
                             {"relation": "next", "url": "next"}]
    assert [entry.get("fullUrl") for entry in found["entry"]] == [f"{BASE}/Patient/i1", "http://b/Patient/2", None]
    assert [entry["search"]["mode"] for entry in found["entry"]] == ["match", "include", "outcome"]
    assert (found["entry"][2]["resource"]["issue"][0]["severity"], "total" in found) == ("warning", False)
    assert check.check(found) == check.judge(found) == []


def test_a_page_without_matches_has_no_entries() -> None:
    """An empty array is no FHIR JSON."""
    found = json.loads(bundle.searchset(BASE, "self", [], total=0))
    assert found == {"resourceType": "Bundle", "type": "searchset", "total": 0,
                     "link": [{"relation": "self", "url": "self"}]}


def test_a_history_shows_deletions_without_a_resource() -> None:
    """Each entry says how the version came about (http.html#history)."""
    given_, text = _stored("Patient", 1)
    raw = bundle.history(BASE, "self", [
        bundle.HistoryEntry("Patient/i1", "DELETE", "Patient/i1", "204", 'W/"2"', "2026-11-22T08:00:00.000Z"),
        bundle.HistoryEntry("Patient/i1", "PUT", "Patient/i1", "201", 'W/"1"', "2026-11-22T07:00:00.000Z", text)],
        total=2)
    found = json.loads(raw)
    assert ([entry.get("resource") for entry in found["entry"]], found["type"]) == ([None, given_], "history")
    assert found["entry"][0]["response"] == {"status": "204", "etag": 'W/"2"',
                                             "lastModified": "2026-11-22T08:00:00.000Z"}
    assert check.check(found) == check.judge(found) == []


def test_responses_of_batch_and_transaction() -> None:
    """Status, location, ETag, resource and outcome, each only where it is."""
    given_, text = _stored("Patient", 1)
    responses = [
        bundle.Response("201", "Patient/i1/_history/1", 'W/"1"', "2026-11-22T08:00:00.000Z"),
        bundle.Response("200", resource=text, full_url="Patient/i1"),
        bundle.Response("404", outcome={"resourceType": "OperationOutcome", "issue": [
            {"severity": "error", "code": "not-found"}]})]
    for make_, kind in ((bundle.batch_response, "batch-response"), (bundle.transaction_response,
                                                                    "transaction-response")):
        found = json.loads(make_(responses, BASE))
        assert (found["type"], check.check(found), check.judge(found)) == (kind, [], [])
        assert found["entry"][0] == {"response": {"status": "201", "location": "Patient/i1/_history/1",
                                                  "etag": 'W/"1"', "lastModified": "2026-11-22T08:00:00.000Z"}}
        assert (found["entry"][1]["fullUrl"], found["entry"][1]["resource"]) == (f"{BASE}/Patient/i1", given_)
        assert found["entry"][2]["response"]["outcome"]["issue"][0]["code"] == "not-found"


# ---------------------------------------------------------------- in: the plan

def _entry(method: str, url: str, body: dict[str, Any] | None = None, full_url: str = "",
           **more: str) -> dict[str, Any]:
    found: dict[str, Any] = {"request": {"method": method, "url": url} | more}
    if body is not None:
        found["resource"] = body
    return found | ({"fullUrl": full_url} if full_url else {})


def _bundle(*entries: Any, kind: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


_PATIENT = {"resourceType": "Patient", "id": "p"}
_ALL = (_entry("GET", "Patient?name=a"), _entry("PATCH", "Patient/q", {"resourceType": "Parameters"}),
        _entry("PUT", "Patient/p", _PATIENT), _entry("POST", "Patient", {"resourceType": "Patient"}),
        _entry("DELETE", "Patient/d"), _entry("HEAD", "Patient/x"),
        _entry("POST", "Patient", {"resourceType": "Patient"}))


@given(st.permutations(range(len(_ALL))))
def test_transactions_are_ordered_by_method_and_batches_are_not(order: list[int]) -> None:
    """DELETE, POST, PUT and PATCH, GET; within one method as given (http.html#trules)."""
    given_ = [copy.deepcopy(_ALL[i]) for i in order]
    planned = bundle.plan(_bundle(*given_))
    ranks = [{"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}[entry.method] for entry in planned]
    assert ranks == sorted(ranks)
    assert [(r, e.index) for r, e in zip(ranks, planned, strict=True)] == sorted(
        (r, e.index) for r, e in zip(ranks, planned, strict=True))
    assert [e.index for e in bundle.plan(_bundle(*given_, kind="batch"))] == list(range(len(_ALL)))


def test_what_an_entry_carries() -> None:
    """Path, query, type and id are taken apart; conditions are kept as sent."""
    url = f"{BASE}/Patient/p"
    [entry] = bundle.plan(_bundle(_entry("PUT", url, _PATIENT, url, ifMatch='W/"3"')), BASE)
    assert (entry.path, entry.query, entry.resource_type, entry.resource_id, entry.if_match) == (
        "Patient/p", "", "Patient", "p", 'W/"3"')
    [entry] = bundle.plan(_bundle(_entry("POST", "/Patient", {"resourceType": "Patient"},
                                         ifNoneExist="?identifier=a|b")))
    assert (entry.resource_id, entry.if_none_exist) == ("", "identifier=a|b")
    [entry] = bundle.plan(_bundle(_entry("PUT", "Patient?identifier=a|b", {"resourceType": "Patient"})))
    assert (entry.path, entry.query, entry.resource_id) == ("Patient", "identifier=a|b", "")
    [entry] = bundle.plan(_bundle(_entry("GET", "Patient/p/_history/2", ifNoneMatch='W/"2"',
                                         ifModifiedSince="2026-01-01T00:00:00Z")))
    assert (entry.path, entry.if_none_match, entry.if_modified_since) == (
        "Patient/p/_history/2", 'W/"2"', "2026-01-01T00:00:00Z")
    [entry] = bundle.plan(_bundle(_entry("GET", "_history")))
    assert (entry.path, entry.resource_type) == ("_history", "")
    assert entry.locate("Patient.name[0].given") == "Bundle.entry[0].resource.name[0].given"
    assert entry.locate("Patient") == "Bundle.entry[0].resource"


@pytest.mark.parametrize(("entry", "where"), [
    ({}, "request"), ("x", "request"), ({"request": []}, "request"), (_entry("LOOK", "Patient"), "request.method"),
    ({"request": {"method": "GET"}}, "request.url"), ({"request": {"method": "GET", "url": 1}}, "request.url"),
    (_entry("GET", "http://other.example/fhir/Patient"), "request.url"),
    (_entry("POST", "Nope", {"resourceType": "Nope"}), "request.url"),
    (_entry("POST", "Patient"), "resource"),
    ({"request": {"method": "POST", "url": "Patient"}, "resource": []}, "resource"),
    (_entry("POST", "Patient", {"resourceType": "Observation"}), "request.url"),
    (_entry("POST", "Patient/p", _PATIENT), "request.url"), (_entry("PUT", "Patient", _PATIENT), "request.url"),
    (_entry("PUT", "Patient/q", _PATIENT), "resource.id"), (_entry("PUT", "Patient/q", {"resourceType": "Patient"}),
                                                            "resource.id"),
    (_entry("PUT", "Patient/p/x", _PATIENT), "request.url"), (_entry("DELETE", "Patient"), "request.url"),
    (_entry("PUT", "Patient/p/_history/1", _PATIENT), "request.url"),
    (_entry("DELETE", "Patient/a%20b"), "request.url"), (_entry("PATCH", "Patient/p"), "resource"),
    (_entry("PUT", "Patient/p", _PATIENT, ifNoneExist="a=b"), "request.ifNoneExist")])
def test_a_bad_entry_stops_a_transaction_but_not_a_batch(entry: Any, where: str) -> None:
    """INVALID at the entry's place; in a batch the others are still done."""
    good = _entry("GET", "Patient/p")
    with pytest.raises(GatewayError) as caught:
        bundle.plan(_bundle(good, entry))
    assert (caught.value.category, caught.value.where) == (Category.INVALID, f"Bundle.entry[1].{where}")
    planned = bundle.plan(_bundle(good, entry, kind="batch"))
    assert planned[0].error is None and planned[1].error is not None
    assert planned[1].error.where == f"Bundle.entry[1].{where}"


@pytest.mark.parametrize("kind", ["collection", None, "searchset"])
def test_only_batch_and_transaction_are_done(kind: str | None) -> None:
    """Other Bundles are documents to store, not work to do."""
    with pytest.raises(GatewayError) as caught:
        bundle.plan({"resourceType": "Bundle", "type": kind})
    assert caught.value.where == "Bundle.type"


@pytest.mark.parametrize("entries", [
    [_entry("PUT", "Patient/p", _PATIENT), _entry("DELETE", "Patient/p")],
    [_entry("PUT", "Patient/p", _PATIENT), _entry("PUT", "Patient/p", _PATIENT)],
    [_entry("POST", "Patient", {"resourceType": "Patient"}, UUID + "1")] * 2])
def test_the_same_resource_twice_is_refused(entries: list[dict[str, Any]]) -> None:
    """A transaction that writes one resource twice has no defined outcome; a read beside a write is fine."""
    with pytest.raises(GatewayError, match="two entries"):
        bundle.plan(_bundle(*entries))
    assert len(bundle.plan(_bundle(_entry("PUT", "Patient/p", _PATIENT), _entry("GET", "Patient/p")))) == 2


# ---------------------------------------------------------------- in: references

def test_references_to_entries_become_ids() -> None:
    """Reference, uri, extensions, contained resources and narrative links; canonical, identifiers and text stay."""
    link = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{UUID}1">a</a> <img src=\'{UUID}1\'/> {UUID}1</div>'
    body = {"resourceType": "Observation", "status": "final", "code": {"text": UUID + "1"},
            "text": {"status": "generated", "div": link},
            "subject": {"reference": UUID + "1", "_display": {"extension": [
                {"url": "http://x", "valueReference": {"reference": UUID + "1#c"}}]}},
            "performer": [{"reference": "#c"}, {"reference": "Organization/o"}],
            "contained": [{"resourceType": "Practitioner", "id": "c", "extension": [
                {"url": "http://x", "valueUri": UUID + "1"}, {"url": "http://y", "valueCanonical": UUID + "1"}]}],
            "identifier": [{"system": "urn:ietf:rfc:3986", "value": UUID + "1"}]}
    entries = bundle.plan(_bundle(_entry("POST", "Observation", body), _entry("POST", "Patient",
                                  {"resourceType": "Patient"}, UUID + "1")))
    bundle.resolve(entries, {0: "Observation/n", 1: "Patient/new"})
    assert body["subject"]["reference"] == "Patient/new"
    assert body["subject"]["_display"]["extension"][0]["valueReference"]["reference"] == "Patient/new#c"
    assert [p["reference"] for p in body["performer"]] == ["#c", "Organization/o"]
    assert [e.get("valueUri") or e["valueCanonical"] for e in body["contained"][0]["extension"]] == [
        "Patient/new", UUID + "1"]
    assert body["text"]["div"] == ('<div xmlns="http://www.w3.org/1999/xhtml"><a href="Patient/new">a</a> '
                                   f"<img src='Patient/new'/> {UUID}1</div>")
    assert (body["code"]["text"], body["identifier"][0]["value"]) == (UUID + "1", UUID + "1")


def test_relative_references_meet_the_fullurl_of_their_server() -> None:
    """``Patient/1`` of an entry whose own fullUrl is ``http://x/fhir/Observation/2`` is ``http://x/fhir/Patient/1``."""
    body = {"resourceType": "Observation", "status": "final", "code": {"text": "a"},
            "subject": {"reference": "Patient/1"},
            "focus": [{"reference": "http://x/fhir/Patient/1"}, {"reference": "Patient/2"}]}
    entries = bundle.plan(_bundle(
        _entry("POST", "Patient", {"resourceType": "Patient"}, "http://x/fhir/Patient/1"),
        _entry("POST", "Observation", body, "http://x/fhir/Observation/2")))
    bundle.resolve(entries, {0: "Patient/new", 1: "Observation/n"})
    assert [body["subject"], *body["focus"]] == [{"reference": "Patient/new"}, {"reference": "Patient/new"},
                                                 {"reference": "Patient/2"}]


def test_conditional_references_are_named_and_replaced() -> None:
    """Each different search once, with its place; the store side says what it found."""
    body = {"resourceType": "Observation", "status": "final", "code": {"text": "a"},
            "subject": {"reference": "Patient?identifier=urn:x|1"},
            "performer": [{"reference": "Practitioner?identifier=2"}, {"reference": "Practitioner?identifier=2"}]}
    entries = bundle.plan(_bundle(_entry("POST", "Observation", body)))
    assert bundle.conditional_references(entries) == [
        bundle.ConditionalReference("Patient?identifier=urn:x|1", "Patient", "identifier=urn:x|1",
                                    "Bundle.entry[0].resource.subject.reference"),
        bundle.ConditionalReference("Practitioner?identifier=2", "Practitioner", "identifier=2",
                                    "Bundle.entry[0].resource.performer[0].reference")]
    bundle.resolve(entries, {}, {"Patient?identifier=urn:x|1": "Patient/p",
                                 "Practitioner?identifier=2": "Practitioner/q"})
    assert [body["subject"], *body["performer"]] == [{"reference": "Patient/p"}] + [{"reference": "Practitioner/q"}] * 2


def test_a_reference_to_no_entry_is_refused() -> None:
    """``urn:uuid:`` means something within its Bundle only."""
    body = {"resourceType": "Basic", "code": {"text": "a"}, "subject": {"reference": UUID + "9"}}
    with pytest.raises(GatewayError) as caught:
        bundle.resolve(bundle.plan(_bundle(_entry("POST", "Basic", body))), {0: "Basic/b"})
    assert caught.value.where == "Bundle.entry[0].resource.subject.reference"


def test_two_entries_that_turn_out_to_be_one_resource_are_refused() -> None:
    """A conditional update that finds what another entry writes (http.html#trules)."""
    entries = bundle.plan(_bundle(_entry("PUT", "Patient/p", _PATIENT),
                                  _entry("PUT", "Patient?identifier=1", {"resourceType": "Patient"})))
    with pytest.raises(GatewayError, match="two entries"):
        bundle.resolve(entries, {0: "Patient/p", 1: "Patient/p"})


@given(st.integers(0, 10**6), st.integers(2, 8))
def test_a_chain_of_new_resources_is_linked_whatever_its_order(seed: int, size: int) -> None:
    """Each of n new resources refers to the next by urn:uuid: after resolve, to the next one's id, in any order."""
    rng = random.Random(seed)
    order = rng.sample(range(size), size)
    bodies = [{"resourceType": "Basic", "code": {"text": "a"}, "subject": {"reference": f"{UUID}{(i + 1) % size}"}}
              for i in range(size)]
    entries = bundle.plan(_bundle(*(_entry("POST", "Basic", bodies[i], f"{UUID}{i}") for i in order)))
    bundle.resolve(entries, {place: f"Basic/{i}" for place, i in enumerate(order)})
    assert [body["subject"]["reference"] for body in bodies] == [f"Basic/{(i + 1) % size}" for i in range(size)]


@given(st.sampled_from(("Patient", "Observation", "DiagnosticReport", "Provenance", "Bundle")), st.integers(0, 999))
def test_resolving_nothing_changes_nothing(kind: str, seed: int) -> None:
    """A resource that refers to no entry is stored as it was sent."""
    body = make(kind, seed)
    before = json.dumps(body).replace(b"urn:uuid:", b"urn:oid:")
    body = json.loads(before)
    entries = bundle.plan(_bundle(_entry("POST", kind, body), _entry("POST", "Patient", {"resourceType": "Patient"},
                                                                     UUID + "1")))
    bundle.resolve(entries, {0: f"{kind}/x", 1: "Patient/new"})
    assert json.dumps(body) == before


@settings(max_examples=400)
@given(st.integers(0, 2**32))
def test_no_bundle_is_our_fault(seed: int) -> None:
    """Whatever a client sends: a plan, or a refusal of ours; resolving never fails on what no check has seen yet."""
    rng = random.Random(seed)
    body = mutated(mutated(make(rng.choice(("Observation", "Patient", "Provenance")), seed % 99, 0.5), rng), rng)
    given_ = mutated(_bundle(_entry("POST", str(body.get("resourceType")), body, UUID + "1"), *copy.deepcopy(_ALL),
                             kind=rng.choice(("batch", "transaction"))), rng)
    try:
        entries = bundle.plan(given_, BASE)
        bundle.conditional_references(entries)
        bundle.resolve(entries, {entry.index: f"Patient/{entry.index}" for entry in entries})
    except GatewayError as error:
        assert (error.category, error.where[:6]) == (Category.INVALID, "Bundle")
