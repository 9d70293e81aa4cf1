"""The parameter table, and the index rows of a resource."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import indexing
from gateway.indexing import PARAMETERS, As, Type, extract, keys, owner, parameters_of, values
from gateway.indexing.extract import _CONCEPTS as CONCEPTS
from gateway.indexing.extract import _OF_REPORT as SHARED
from gateway.indexing.extract import _compiled as compiled
from gateway.store import index_schema

R4 = Path(__file__).parents[1] / "gateway" / "fhir" / "elements.json"
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation", "id": "o1", "status": "final", "subject": {"reference": "Patient/p1"},
    "meta": {"profile": ["http://example.org/p"], "tag": [{"system": "urn:t", "code": "x"}]},
    "category": [{"coding": [{"system": "urn:cat", "code": "lab"}]}],
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7", "display": "Hemoglobin"},
                        {"system": "urn:local", "code": "HGB", "display": "血红蛋白"}], "text": "血红蛋白"},
    "effectiveDateTime": "2024-03-10T08:00:00+08:00", "performer": [{"reference": "Practitioner/d1"}],
    "valueQuantity": {"value": Decimal("13.50"), "unit": "g/dL", "system": "http://unitsofmeasure.org", "code": "g/dL"}}


def at(*when: int) -> int:
    """Milliseconds of a moment in UTC."""
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc]


def link(target: str, kind: str, name: str) -> tuple[int, int]:
    """A row of `idx_reference`."""
    return keys.reference_key(target), keys.param_key(kind, name)


# ---------------------------------------------------------------------- the table


def test_no_two_parameters_share_a_key() -> None:
    """Keys of parameters and types are hashes: a new row that collides is seen here and not in a patient's results."""
    found: dict[int, str] = {keys.UNITS: "unit"}
    for t in indexing.resource_types():
        for name in parameters_of(t):
            assert found.setdefault(keys.param_key(t, name), f"{t}.{name}") == f"{t}.{name}"
    types = [t for t in json.loads(R4.read_text())["types"] if "." not in t]
    assert len({keys.type_key(t) for t in types}) == len(types) > 100


def test_the_bits_of_present_fit_into_a_number() -> None:
    """Each parameter that has rows has a bit; one that is answered by others has theirs."""
    for t in indexing.resource_types():
        bits = indexing.present_bits(t)
        assert max(bits.values()) < 1 << 62
        own = [bits[name] for name, p in parameters_of(t).items() if p.path]
        assert len(set(own)) == len(own) and all(bit.bit_count() == 1 for bit in own)
    bits = indexing.present_bits("Observation")
    assert bits["combo-code"] == bits["code"] | bits["component-code"]


def test_every_path_is_an_element_of_r4() -> None:
    """A path that names no element would index nothing and say nothing: each step must be in the base definition."""
    types = json.loads(R4.read_text())["types"]

    def step(kind: str, name: str) -> str | None:
        """The type of an element, or of a backbone element's own table."""
        while kind:
            for row in types.get(kind, {}).get("elements", ()):
                element, of = row[0], row[1]
                if element == name:
                    return f"{kind}.{name}" if f"{kind}.{name}" in types else of
                if element.endswith("[x]") and name.startswith(element[:-3]):
                    for choice in of.split("|"):
                        if name == element[:-3] + choice[0].upper() + choice[1:]:
                            return choice
            kind = types.get(kind, {}).get("base", "")
        return None
    for p in PARAMETERS:
        for path in p.path.split("|") if p.path and not p.path.startswith("$") else ():
            kind: str | None = "Observation" if p.resource_type == "*" else p.resource_type
            for name in path.split("."):
                kind = step(kind or "", name)
                assert kind, (p.resource_type, p.name, path)
            expected = {Type.REFERENCE: {"Reference", "canonical"}, Type.QUANTITY: {"Quantity", "Duration"},
                        Type.DATE: {"date", "dateTime", "instant", "Period", "Timing"}}.get(p.type)
            assert expected is None or kind in expected, (p, kind)
            if p.type is Type.TOKEN and p.read not in (As.CODE, As.UID):
                assert kind == p.read.value, (p, kind)


def test_the_fingerprint_follows_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another table, format or zone asks for a reindex; the same does not."""
    first = indexing.fingerprint()
    assert indexing.fingerprint() == first
    monkeypatch.setattr(indexing, "FORMAT", indexing.FORMAT + 1)
    second = indexing.fingerprint()
    zone = indexing.zone()
    indexing.set_zone(ZoneInfo("Europe/Berlin"))
    try:
        assert len({first, second, indexing.fingerprint()}) == 3
    finally:
        indexing.set_zone(zone)
    monkeypatch.undo()
    monkeypatch.setattr(indexing, "PARAMETERS", PARAMETERS[1:])
    assert indexing.fingerprint() != first


# ---------------------------------------------------------------------- rows


def test_the_rows_of_an_observation() -> None:
    """One row for each thing that can be asked, none for the Patient (the person key says it) nor for a text twice."""
    rows = extract(OBSERVATION)
    token = indexing.token_key
    assert {row[0] for row in rows["idx_token"]} == {
        token("Observation", "status", "", "final"), token("Observation", "category", "urn:cat", "lab"),
        token("Observation", "code", "http://loinc.org", "718-7"), token("Observation", "code", "urn:local", "HGB"),
        token("Observation", "_profile", "", "http://example.org/p"), token("Observation", "_tag", "urn:t", "x")}
    assert rows["idx_reference"] == [link("Practitioner/d1", "Observation", "performer")]
    assert rows["idx_date"] == [(keys.param_key("Observation", "date"), at(2024, 3, 10), 999)]
    [(param, lo, hi, unit, n)] = rows["idx_quantity"]
    assert (param, lo, hi, n) == (keys.param_key("Observation", "value-quantity"), 13.5, None, 0)
    assert unit == keys.unit_key("http://unitsofmeasure.org", "g/dL", "g/dL")
    [(kind, ref, present)] = rows["idx_resource"]
    assert (kind, ref) == (keys.type_key("Observation"), keys.reference_key("Observation/o1"))
    named = {name for name, bit in indexing.present_bits("Observation").items() if present & bit == bit}
    assert named == {"_tag", "_profile", "status", "subject", "patient", "category", "code", "date", "performer",
                     "value-quantity"}
    assert {row[5] for row in rows["idx_term"] if row[4] in ("718-7", "HGB")} == {"hemoglobin", "血红蛋白"}


def test_a_subject_that_is_no_patient_has_a_row() -> None:
    """Only a Patient is answered by the person key."""
    device = OBSERVATION | {"subject": {"reference": "Device/x"}}
    assert link("Device/x", "Observation", "subject") in extract(device)["idx_reference"]
    assert (owner(device), owner(OBSERVATION)) == ("", "p1")
    foreign = OBSERVATION | {"subject": {"reference": "https://elsewhere.example/Patient/p1"}}
    assert owner(foreign) == "" and len(extract(foreign)["idx_reference"]) == 2


def test_whose_a_resource_is() -> None:
    """A Patient is its own; a Provenance is its target Patient's, an Appointment its participant's, a Binary is
    that of its security context; without a Patient nobody's."""
    assert owner({"resourceType": "Patient", "id": "p"}) == "p"
    assert owner({"resourceType": "Provenance", "target": [{"reference": "Observation/1"},
                                                           {"reference": "Patient/p/_history/2"}]}) == "p"
    assert owner({"resourceType": "Organization", "id": "o"}) == ""
    room, person = {"actor": {"reference": "Location/1"}}, {"actor": {"reference": "Patient/p"}}
    assert owner({"resourceType": "Appointment", "participant": [room, {"status": "accepted"}, person]}) == "p"
    assert owner({"resourceType": "Appointment", "participant": [room]}) == ""
    assert owner({"resourceType": "Binary", "securityContext": {"reference": "Patient/p"}}) == "p"
    assert owner({"resourceType": "Binary", "contentType": "text/plain"}) == ""
    room, person = {"actor": {"reference": "Location/1"}}, {"actor": {"reference": "Patient/p"}}
    assert owner({"resourceType": "Appointment", "participant": [room, {"status": "accepted"}, person]}) == "p"
    assert owner({"resourceType": "Appointment", "participant": [room]}) == ""
    assert owner({"resourceType": "Binary", "securityContext": {"reference": "Patient/p"}}) == "p"
    assert owner({"resourceType": "Binary", "contentType": "text/plain"}) == ""
    assert owner({"resourceType": "Coverage", "beneficiary": {"reference": "Patient/p"}}) == "p"
    assert owner({"resourceType": "Flag", "subject": {"reference": "Patient/p"}}) == "p"
    assert owner({"resourceType": "Consent", "patient": {"reference": "Patient/p"}}) == "p"


def test_a_type_without_parameters_has_only_those_of_every_type() -> None:
    """Any R4 resource can be stored and found by ``_id``, ``_tag`` and the like."""
    rows = extract({"resourceType": "Basic", "id": "b", "meta": {"tag": [{"code": "x"}]}, "code": {"text": "y"}})
    assert [len(rows[table]) for table in ("idx_resource", "idx_token", "idx_string")] == [1, 1, 0]


def test_versions_and_contained_references() -> None:
    """A reference with a version names the resource; one to a contained resource names none."""
    rows = extract({"resourceType": "DiagnosticReport", "id": "r", "result": [
        {"reference": "Observation/1/_history/3"}, {"reference": "#inside"}, {"display": "somewhere"}]})
    assert rows["idx_reference"] == [link("Observation/1", "DiagnosticReport", "result")]


def test_equal_rows_are_one() -> None:
    """A resource that says a thing twice has one row of it: the primary keys of the index hold."""
    coding = {"system": "urn:s", "code": "c"}
    report = {"resourceType": "DiagnosticReport", "id": "r",
              "category": [{"coding": [coding, coding]}, {"coding": [coding]}],
              "result": [{"reference": "Observation/1"}] * 3}
    rows = extract(report)
    assert len(rows["idx_token"]) == len(rows["idx_reference"]) == 1


_json = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(
    ["2024-02-30", "Patient/1", "9999-12-31T23:59:59+14:00", "0001-01-01T00:00:00+14:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["coding", "system", "code", "value", "reference", "start", "end", "identifier", "text", "display", "event",
         "repeat", "boundsPeriod", "family", "given", "type", "meta", "tag", "unit", "comparator"]), inner, max_size=4),
    max_leaves=12)


@given(st.sampled_from(["Patient", "Observation", "Encounter", "ImagingStudy", "ServiceRequest"]), st.data())
def test_whatever_is_in_an_element_can_be_indexed(kind: str, data: st.DataObject) -> None:
    """Checking is not the index's work: content of the wrong shape gives fewer rows and never an exception."""
    elements = sorted({path.split(".")[0] for p in parameters_of(kind).values() for path in p.path.split("|")} - {""})
    resource = data.draw(st.dictionaries(st.sampled_from(elements), _json, max_size=5))
    resource |= {"resourceType": kind, "id": "x"}
    rows = extract(resource)
    assert extract(json.loads(json.dumps(resource))) == rows
    owner(resource)
    for table in index_schema.OF_RESOURCES:
        for row in index_schema.bind(rows, 1, 2, 3).get(table.name, ()):
            assert len(row) == len(table.columns)
            assert all(-(1 << 63) <= v < 1 << 63 for v in row if isinstance(v, int))


_leaf = st.sampled_from(["urn:s", "urn:t"])
_coding_like = st.fixed_dictionaries({"code": _leaf}, optional={"system": _leaf, "display": _leaf})
_concept_like = st.fixed_dictionaries({"coding": st.lists(_coding_like, max_size=2)}, optional={"text": _leaf})
_reference_like = st.fixed_dictionaries({}, optional={
    "reference": st.sampled_from(["Patient/1", "Patient/1/_history/2", "Patient/1/2", "Device/1", "#a"]),
    "identifier": st.fixed_dictionaries({"value": st.sampled_from(["1", "2"]), "system": _leaf})})
_resource_like = st.fixed_dictionaries({"resourceType": st.sampled_from(["Observation", "Specimen"])}, optional={
    "meta": st.fixed_dictionaries({"tag": st.lists(_coding_like, max_size=2)}, optional={"source": _leaf}),
    "status": _leaf, "category": st.lists(_concept_like, max_size=2), "code": _concept_like, "type": _concept_like,
    "subject": _reference_like, "performer": st.lists(_reference_like, max_size=2), "specimen": _reference_like,
    "identifier": st.lists(st.fixed_dictionaries({"value": st.sampled_from(["1", "2"]), "system": _leaf}), max_size=2),
    "valueQuantity": st.fixed_dictionaries({"value": st.just(1), "system": _leaf, "code": _leaf, "unit": _leaf})})


def _swapped(value: Any, into: Any) -> Any:
    """A copy that has another value in the place of one of the two texts."""
    if isinstance(value, dict):
        return {name: _swapped(inner, into) for name, inner in value.items()}
    if isinstance(value, list):
        return [_swapped(inner, into) for inner in value]
    return into if value == "urn:s" else value


@given(_resource_like)
def test_rows_do_not_depend_on_what_was_read_before(drawn: dict[str, Any]) -> None:
    """Whatever is kept of one resource, another has its own rows: 1, 1.0 and true are equal in Python, not in JSON."""
    resources = [{**_swapped(drawn, into), "id": "x"} for into in ("urn:s", 1, True, 1.0, 0, False, None, "1", [], {})]
    compiled.cache_clear()
    after_others = [repr(extract(resource)) for resource in resources]
    for resource, rows in zip(resources, after_others, strict=True):
        compiled.cache_clear()
        assert repr(extract(resource)) == rows


def test_threads_do_not_read_each_others_elements() -> None:
    """Elements are kept for all threads at once: each resource has its own rows, whoever reads between."""
    resources = [{"resourceType": "Observation", "id": "o", "subject": {"reference": f"Device/{n}"}} for n in range(3)]
    expected = [extract(resource) for resource in resources] * 300
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for rows in pool.map(lambda _: [extract(resource) for resource in resources * 300], range(8)):
                assert rows == expected
    finally:
        sys.setswitchinterval(interval)


def test_no_date_is_kept_with_an_element() -> None:
    """A date's rows follow the zone, which can be set after they were read."""
    for p in PARAMETERS:
        elements = {path.split(".")[0] for path in p.path.split("|")}
        assert p.type is not Type.DATE or elements.isdisjoint(SHARED | CONCEPTS), p


# ---------------------------------------------------------------------- values

DATES = {
    "2024": (at(2023, 12, 31, 16), at(2024, 12, 31, 16) - 1),
    "2024-02": (at(2024, 1, 31, 16), at(2024, 2, 29, 16) - 1),
    "2024-02-29": (at(2024, 2, 28, 16), at(2024, 2, 29, 16) - 1),
    "2024-02-29T10:00": (at(2024, 2, 29, 2), at(2024, 2, 29, 2, 1) - 1),
    "2024-02-29T10:00:00Z": (at(2024, 2, 29, 10), at(2024, 2, 29, 10) + 999),
    "2024-02-29T10:00:00.5Z": (at(2024, 2, 29, 10) + 500, at(2024, 2, 29, 10) + 599),
    "2024-02-29T10:00:00.1234567Z": (at(2024, 2, 29, 10) + 123, at(2024, 2, 29, 10) + 123),
    "2024-02-29T10:00:00-05:30": (at(2024, 2, 29, 15, 30), at(2024, 2, 29, 15, 30) + 999),
    "2016-12-31T23:59:60Z": (at(2016, 12, 31, 23, 59, 59), at(2016, 12, 31, 23, 59, 59) + 999),
}


@pytest.mark.parametrize("text", DATES)
def test_a_date_is_a_range(text: str) -> None:
    """As long as it is precise; in the gateway's zone (Asia/Shanghai) where it has no offset."""
    assert values.date_range(text) == DATES[text]


@pytest.mark.parametrize("text", ["", "24", "2024-13", "2023-02-29", "2024-01-01T25:00:00Z", "2024-01-01T10", "now",
                                  "2024-01-01T10:00:00+08", "2024-01-01 ", "٢٠٢٤"])
def test_what_is_no_date(text: str) -> None:
    """Is told apart, not guessed."""
    assert values.date_range(text) is None


@given(st.datetimes(min_value=datetime(1992, 1, 1), max_value=datetime(2200, 1, 1)))
def test_a_less_precise_date_covers_a_more_precise_one(when: datetime) -> None:
    """Year ⊇ month ⊇ day ⊇ minute ⊇ second ⊇ millisecond."""
    text = when.isoformat(timespec="milliseconds")
    outer = (values.BEGIN, values.END)
    for part in (text[:4], text[:7], text[:10], text[:16] + "+08:00", text[:19] + "+08:00", text + "+08:00"):
        found = values.date_range(part)
        assert found and outer[0] <= found[0] <= found[1] <= outer[1]
        outer = found


def test_periods_and_timings() -> None:
    """An end not given is open; of a Timing the outer limits count; a period that ends before it starts is none."""
    assert values.outer_range({"start": "2024-01-01T00:00:00Z"}) == (at(2024, 1, 1), values.END)
    assert values.outer_range({"end": "2024-01-01T00:00:00Z"}) == (values.BEGIN, at(2024, 1, 1) + 999)
    assert values.outer_range({"start": "2024-01-02", "end": "2024-01-01"}) is None
    assert values.outer_range({"event": ["2024-01-05T00:00:00Z", "2024-01-01T00:00:00Z"]}) == (
        at(2024, 1, 1), at(2024, 1, 5) + 999)
    assert values.outer_range({"repeat": {"boundsPeriod": {"start": "2024-01-01T00:00:00Z"}}}) == (
        at(2024, 1, 1), values.END)
    assert values.outer_range({}) is None


@pytest.mark.parametrize(("text", "plain"), [("  Müller  LÜ ", "muller lu"), ("ＷＡＮＧ", "wang"),
                                             ("王 小东", "王 小东"), ("Straße", "strasse"),
                                             ("Ångström", "angstrom"), ("ﾜﾝ", "ワン"), ("", "")])
def test_normalised_text(text: str, plain: str) -> None:
    """Without case, accents, width and double spaces; Chinese as it is."""
    assert values.normalise(text) == plain


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing(text: str) -> None:
    """The query's text and the resource's meet in one form."""
    once = values.normalise(text)
    assert values.normalise(once) == once


@pytest.mark.parametrize(("text", "lo", "hi"), [("5.4", "5.35", "5.45"), ("5.40", "5.395", "5.405"),
                                                ("100", "99.5", "100.5"), ("1e2", "50", "150"),
                                                ("-5", "-5.5", "-4.5"), ("0", "-0.5", "0.5")])
def test_a_number_stands_for_its_precision(text: str, lo: str, hi: str) -> None:
    """search.html#number: the digits that are given say how far around it goes."""
    assert values.number_range(text) == (Decimal(text), Decimal(lo), Decimal(hi))


@pytest.mark.parametrize("text", ["", "x", "NaN", "Infinity", "1_0", "1e999", "1e-999", "٥", "1" * 60, "0x1", "--1"])
def test_what_is_no_number(text: str) -> None:
    """Is told apart, and cannot make us count for long."""
    assert values.number_range(text) is None


# ---------------------------------------------------------------------- the tables' rows


def test_changes_lead_from_one_version_to_the_next() -> None:
    """What is deleted and inserted turns the old rows into the new ones, and what stays is not touched."""
    before = index_schema.bind(extract(OBSERVATION), 7, 1, 2)
    changed = OBSERVATION | {"status": "amended", "valueQuantity": {"value": 14}}
    after = index_schema.bind(extract(changed), 7, 1, 2)
    delete, insert = index_schema.changes(before, after)
    assert set(delete) == set(insert) == {"idx_token", "idx_quantity"}
    for table in index_schema.OF_RESOURCES:
        old, new = set(before.get(table.name, ())), set(after.get(table.name, ()))
        assert (old - set(delete.get(table.name, ()))) | set(insert.get(table.name, ())) == new
        assert set(delete.get(table.name, ())) <= old
    assert index_schema.changes(after, after) == ({}, {})
    assert index_schema.changes(before, {}) == (before, {})


def test_what_was_read_before_is_not_read_again_as_something_else() -> None:
    """A shared element is remembered as it was read: whoever changes the resource later changes no other's rows."""
    first = {"resourceType": "Observation", "id": "a", "subject": {"reference": "Patient/p1"},
             "category": [{"coding": [{"system": "urn:s", "code": "laboratory"}]}]}
    again = {**first, "subject": {"reference": "Patient/p1"}, "category": [{"coding": [{"system": "urn:s",
                                                                                       "code": "laboratory"}]}]}
    expected = extract(first)
    first["subject"]["reference"] = "Device/d1"  # type: ignore[index]
    first["category"][0]["coding"][0]["code"] = "imaging"  # type: ignore[index]
    other = extract(first)
    assert extract(again) == expected
    assert other != expected and extract(first) == other
