"""`gateway.fhir.json`, `gateway.fhir.resource` and `gateway.fhir.outcome`."""

from __future__ import annotations

import copy
import json as stdlib
import pickle
from decimal import Decimal
from typing import Any

import pytest
from fhir_samples import make
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Category, GatewayError
from gateway.fhir import check, json, outcome, resource
from gateway.fhir.elements import elements_of, resource_types

_NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?\Z").filter(
    lambda text: text != "-0")
_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@given(_NUMBERS)
def test_every_number_keeps_its_text(text: str) -> None:
    """Precision is significant: a number is written as it was read, with or without point and exponent."""
    raw = b'{"a":[' + text.encode() + b"]}"
    assert raw == json.dumps(json.loads(raw))


@pytest.mark.parametrize("text", ["1.50", "1e3", "1E+3", "0.000000001", "-0.0", "12345678901234567890.12",
                                  "123456789012345678901234567890", "1e400", "100", "1.0E-7"])
def test_numbers_known_to_go_wrong(text: str) -> None:
    """Forms that floats or `Decimal`'s own notation change."""
    raw = f'{{"a":{text}}}'.encode()
    assert raw == json.dumps(json.loads(raw))
    assert text == json.literal(json.loads(raw)["a"])


def test_a_literal_survives_copy_and_pickle() -> None:
    """A decimal with an exponent is a Decimal that keeps its text through copies and between processes."""
    value = json.loads(b'{"a":1e3}')["a"]
    assert isinstance(value, Decimal) and value == 1000
    for twin in (copy.copy(value), copy.deepcopy({"a": value})["a"], pickle.loads(pickle.dumps(value))):
        assert json.dumps(twin) == b"1e3"


def test_a_computed_decimal_has_no_exponent() -> None:
    """A conversion's own Decimal is written plainly, and never as NaN."""
    assert json.dumps([Decimal("1E+3"), Decimal("1E-8")]) == b"[1000,0.00000001]"
    with pytest.raises(TypeError):
        json.dumps([Decimal("NaN")])


_VALUES = st.recursive(st.none() | st.booleans() | st.integers(-10**30, 10**30) | _TEXT,
                       lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
                       max_leaves=20)


@given(st.dictionaries(_TEXT, _VALUES, max_size=5))
def test_reads_what_the_standard_library_reads(value: dict[str, Any]) -> None:
    """Any object, also with brackets and quotes within strings, is read as `json` reads it and written back equal."""
    raw = stdlib.dumps(value).encode()
    assert value == json.loads(raw)
    assert value == stdlib.loads(json.dumps(json.loads(raw)))


@pytest.mark.parametrize(("raw", "where"), [
    (b"", "line 1 column 1"), (b"{", "line 1 column 2"), (b'{"a":1,\n  "b" 2}', "line 2 column 7"),
    (b'{"a":01}', "line 1 column 7"), (b'{"a":NaN}', "line 1 column 1"), (b'{"a":-Infinity}', "line 1 column 1"),
    (b'{"a":"\xff"}', "byte 6"), (b'{"status":1,"status":2}', "status"), (b'{"\xe7\x8e\x8b":1,"\xe7\x8e\x8b":2}', ""),
    (b"[]", ""), (b'"a"', ""), (b'{"a":"\\ud800"}', ""), (b'{"a":1}{', "line 1 column 8"),
    (b'{"a":' + b"9" * 5000 + b"}", ""), (b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", ""),
    (b'{"a":"[[",' + b'"b":{' * 70 + b"}" * 71, "")])
def test_what_cannot_be_read_is_malformed_with_its_place(raw: bytes, where: str) -> None:
    """Each fault has a place; a member name that might be data is not repeated."""
    with pytest.raises(GatewayError) as caught:
        json.loads(raw)
    assert (Category.MALFORMED, where) == (caught.value.category, caught.value.where)


def test_depth_counts_levels_and_not_brackets_in_strings() -> None:
    """64 levels are read, and a string full of brackets is no level at all."""
    deep = b'{"a":' + b"[" * 63 + b'"[[{{\\"[["' + b"]" * 63 + b"}"
    assert deep == json.dumps(json.loads(deep))
    assert json.loads(b'\xef\xbb\xbf{"a":"' + b"[" * 500 + b'"}')


def test_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of bytes comes before any work."""
    monkeypatch.setattr(json, "SIZE", 10)
    with pytest.raises(GatewayError, match="larger than 10"):
        json.loads(b'{"a":12345}')


def test_half_a_surrogate_pair_is_refused_on_the_way_out() -> None:
    """What is no Unicode text is never written."""
    with pytest.raises(GatewayError, match="surrogate"):
        json.dumps({"a": "\ud800"})


# ---------------------------------------------------------------- head and tail

@given(st.sampled_from(sorted(resource_types())), st.integers(0, 10**6), st.integers(0, 2**41), st.integers(1, 999))
def test_head_and_tail_are_the_whole_resource(kind: str, seed: int, ms: int, version: int) -> None:
    """For any resource, head + tail is its JSON with the row's id, version and time, everything else kept."""
    given_ = make(kind, seed)
    text = resource.text(kind, "x.1", version, ms * 1000 + 999, resource.tail(given_))
    found = json.loads(text)
    meta = {k: v for k, v in given_.get("meta", {}).items() if k.strip("_") not in ("versionId", "lastUpdated")}
    rest = {k: v for k, v in given_.items() if k not in ("id", "meta", "resourceType")}
    assert found == {"resourceType": kind, "id": "x.1",
                     "meta": {"versionId": str(version), "lastUpdated": resource.instant(ms * 1000)} | meta} | rest
    assert text == json.dumps(found)
    assert check.check(found) == []


@pytest.mark.parametrize("given_", [{}, {"meta": {}}, {"meta": {"versionId": "1"}}, {"active": True},
                                    {"meta": {"tag": [{"code": "a"}]}}])
def test_a_resource_of_nothing_else_is_still_json(given_: dict[str, Any]) -> None:
    """Without other meta or other elements no comma and no brace is missing."""
    text = resource.text("Patient", "a", 1, 0, resource.tail({"resourceType": "Patient", "id": "a"} | given_))
    rest = {k: v for k, v in given_.items() if k != "meta"}
    tags = {k: v for k, v in given_.get("meta", {}).items() if k == "tag"}
    assert stdlib.loads(text) == {"resourceType": "Patient", "id": "a", "meta": {
        "versionId": "1", "lastUpdated": "1970-01-01T00:00:00.000Z"} | tags} | rest


def test_a_resend_has_an_equal_tail() -> None:
    """Neither id nor version nor time take part; a decimal of other precision, or another order, is other content."""
    quantity = {"value": json.number("1.5")}
    first = {"resourceType": "Observation", "id": "a", "status": "final", "valueQuantity": quantity}
    again = first | {"id": "b", "meta": {"versionId": "9", "lastUpdated": "2026-01-01T00:00:00Z"}}
    other = first | {"valueQuantity": {"value": json.number("1.50")}}
    assert resource.tail(first) == resource.tail(again)
    assert resource.tail(first) != resource.tail(other)


@pytest.mark.parametrize("order", [("id", "meta", "status"), ("status", "meta", "id"), ("meta", "status", "id", "_id")])
def test_the_tail_begins_with_the_rest_of_meta(order: tuple[str, ...]) -> None:
    """Wherever meta and id stand, meta's own elements come first, and nothing of the head is in the tail."""
    members: dict[str, Any] = {"id": "a", "_id": {"extension": []}, "status": "final",
                               "meta": {"versionId": "3", "source": "urn:a", "_versionId": {"id": "v"}, "profile": []}}
    given_ = {"resourceType": "Observation"} | {name: members[name] for name in order}
    assert resource.tail(given_) == b',"source":"urn:a","profile":[]},"status":"final"}'
    assert given_ == {"resourceType": "Observation"} | {name: members[name] for name in order}


# ---------------------------------------------------------------- subsets

_PATIENT = {
    "resourceType": "Patient", "id": "p", "meta": {"versionId": "1", "tag": [{"code": "t"}]},
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'},
    "identifier": [{"system": "urn:x", "value": "1", "extension": [{"url": "http://a", "valueCode": "b"}]}],
    "active": True, "name": [{"family": "Li"}], "_birthDate": {"extension": [{"url": "http://a", "valueCode": "b"}]},
    "contact": [{"name": {"text": "x"}}], "photo": [{"contentType": "image/png", "data": "AAEC"}],
    "link": [{"other": {"reference": "Patient/q"}, "type": "refer"}], "multipleBirthInteger": 2}


def test_elements_keeps_named_mandatory_and_modifier_elements() -> None:
    """``_elements=name,birthDate,multipleBirth``: also modifiers (active, link), with the tag SUBSETTED."""
    found = resource.elements(_PATIENT, ["Patient.name", "birthDate", "multipleBirth", "Observation.code"])
    assert list(found) == ["resourceType", "id", "meta", "active", "name", "_birthDate", "link", "multipleBirthInteger"]
    assert found["meta"]["tag"] == [{"code": "t"}, resource.SUBSETTED]
    assert check.check(found) == []
    assert found == resource.elements(json.dumps(found), ["name", "birthDate", "multipleBirth"])


def test_summaries() -> None:
    """``true`` leaves Σ at every depth, ``text`` the narrative, ``data`` all but the narrative, ``false`` all."""
    true, text, data = (resource.summary(_PATIENT, mode) for mode in ("true", "text", "data"))
    assert list(true) == ["resourceType", "id", "meta", "identifier", "active", "name", "_birthDate", "link"]
    assert true["identifier"] == [{"system": "urn:x", "value": "1"}]
    assert list(text) == ["resourceType", "id", "meta", "text"]
    assert set(_PATIENT) - {"text"} == set(data)
    assert _PATIENT is resource.summary(_PATIENT, "false")
    assert resource.SUBSETTED in true["meta"]["tag"] and resource.SUBSETTED not in _PATIENT["meta"]["tag"]
    with pytest.raises(GatewayError, match="_summary"):
        resource.summary(_PATIENT, "yes")


@given(st.sampled_from(sorted(resource_types())), st.integers(0, 10**6))
def test_a_summary_of_a_valid_resource_is_valid(kind: str, seed: int) -> None:
    """Mandatory elements stay, so that every subset can be checked; and subsetting twice changes nothing."""
    whole = make(kind, seed)
    for mode in ("true", "data"):
        found = resource.summary(whole, mode)
        assert check.check(found) == []
        assert found == resource.summary(found, mode)
    kept = resource.summary(whole, "true")
    assert all(elements_of(kind)[n.removeprefix("_")].summary or elements_of(kind)[n.removeprefix("_")].min
               for n in kept if n != "resourceType")


# ---------------------------------------------------------------- outcomes

_CODES = {Category.MALFORMED: "structure", Category.UNSUPPORTED: "not-supported", Category.INVALID: "invalid",
          Category.FORBIDDEN: "forbidden", Category.NOT_FOUND: "not-found", Category.CONFLICT: "conflict",
          Category.BUSY: "transient", Category.FAULT: "exception"}


@pytest.mark.parametrize("category", Category)
def test_every_category_has_its_issue_code(category: Category) -> None:
    """An OperationOutcome of each category is a valid resource with the code of the table."""
    found = outcome.operation_outcome(GatewayError(category, "do this", "Patient.name[0].given"))
    assert [_CODES[category]] == [issue["code"] for issue in found["issue"]]
    assert found["issue"][0]["expression"] == ["Patient.name[0].given"]
    assert [] == check.check(found) == check.judge(found)


@pytest.mark.parametrize(("category", "detail", "code"), [
    (Category.NOT_FOUND, "gone", "deleted"), (Category.FORBIDDEN, "login", "login"),
    (Category.INVALID, "required", "required"), (Category.INVALID, "table-value", "code-invalid"),
    (Category.INVALID, "data-type", "value"), (Category.INVALID, "never heard of", "invalid")])
def test_a_detail_narrows_the_issue_code(category: Category, detail: str, code: str) -> None:
    """What a category's detail says is said by the issue code too."""
    found = outcome.operation_outcome(GatewayError(category, "do this", detail=detail))
    assert (code, "do this") == (found["issue"][0]["code"], found["issue"][0]["diagnostics"])


def test_a_place_that_is_no_fhirpath_goes_into_the_sentence() -> None:
    """A parameter, header or position has no expression."""
    [issue] = outcome.operation_outcome(GatewayError(Category.INVALID, "unknown", "_sort"))["issue"]
    assert issue == {"severity": "error", "code": "invalid", "diagnostics": "_sort: unknown"}


def test_all_issues_of_a_check_are_reported() -> None:
    """A refused resource names every place at once, and no value."""
    with pytest.raises(outcome.InvalidResource) as caught:
        check.require_valid({"resourceType": "Patient", "gender": "Wang", "birthDate": "19700101"})
    found = outcome.operation_outcome(caught.value)
    assert [issue["expression"] for issue in found["issue"]] == [["Patient.gender"], ["Patient.birthDate"]]
    assert b"Wang" not in json.dumps(found) and b"19700101" not in json.dumps(found)
    error = caught.value
    assert (error.category, error.where, error.detail) == (Category.INVALID, "Patient.gender", "table-value")


def test_nothing_to_report_is_information() -> None:
    """An outcome has at least one issue."""
    found = outcome.operation_outcome([])
    assert (found["issue"][0]["severity"], check.check(found)) == ("information", [])
