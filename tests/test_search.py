"""Search over a store: each parameter type with its modifiers, persons, chains, includes and what a caller may see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.caller import GATEWAY, Caller
from gateway.errors import Category, GatewayError
from gateway.search import Page, resolve_conditional, search
from gateway.store import Store
from gateway.store.model import Delete, Put, Unit

LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
LOCAL_A, LOCAL_B = "urn:huren:a:item", "urn:huren:b:item"
MRN_A, MRN_B, NATIONAL = "urn:huren:a:patient", "urn:huren:b:patient", "urn:oid:2.16.156.10011.1.3"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
Resource = dict[str, Any]
Find = Callable[..., list[str]]


def concept(*codings: tuple[str, str, str], text: str = "") -> Resource:
    """A CodeableConcept of (system, code, display)."""
    found: Resource = {"coding": [{"system": s, "code": c, "display": d} for s, c, d in codings]}
    return found | ({"text": text} if text else {})


def patient(id: str, mrn: tuple[str, str], national: str = "", **more: Any) -> Resource:
    """A Patient with a record number and perhaps a national identifier."""
    identifier = [{"system": mrn[0], "value": mrn[1]}]
    if national:
        identifier.append({"system": NATIONAL, "value": national})
    return {"resourceType": "Patient", "id": id, "identifier": identifier, **more}


def observation(id: str, of: str, code: tuple[str, str, str], when: str, **more: Any) -> Resource:
    """An Observation of a Patient."""
    return {"resourceType": "Observation", "id": id, "status": "final", "subject": {"reference": f"Patient/{of}"},
            "category": [concept((CATEGORY, "laboratory", "Laboratory"))], "code": concept(code),
            "effectiveDateTime": when, **more}


def quantity(value: float, unit: str = "mmol/L", **more: str) -> Resource:
    """valueQuantity."""
    return {"valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit, **more}}


GLUCOSE, SODIUM = (LOINC, "2345-7", "Glucose"), (LOINC, "2951-2", "Sodium")
#: Two hospitals; a1 and b1 carry the same (valid) national number, so they are one person.
HOSPITAL_A: list[Resource] = [
    {"resourceType": "Organization", "id": "org-a", "name": "Renmin Hospital", "alias": ["人民医院"]},
    {"resourceType": "Practitioner", "id": "dr-a", "name": [{"family": "Zhào", "given": ["Yí"]}], "active": True},
    patient("a1", (MRN_A, "M1"), "110105194912310038", name=[{"family": "王", "given": ["小东"], "text": "王小东"},
                                                            {"family": "Wang", "given": ["Xiaodong"]}],
            gender="male", birthDate="1949-12-31", generalPractitioner=[{"reference": "Practitioner/dr-a"}]),
    patient("a2", (MRN_A, "M2"), name=[{"family": "Müller", "given": ["Ana"]}], gender="female", birthDate="1980-05",
            deceasedDateTime="2024-02-03", managingOrganization={"reference": "Organization/org-a"},
            telecom=[{"system": "phone", "value": "+86 138-0000-1111"}]),
    {"resourceType": "ServiceRequest", "id": "sr-a", "status": "active", "intent": "order",
     "subject": {"reference": "Patient/a1"}, "identifier": [{
         "system": "urn:huren:a:placer", "value": "O1",
         "type": concept(("http://terminology.hl7.org/CodeSystem/v2-0203", "PLAC", ""))}]},
    observation("a1-glu-1", "a1", GLUCOSE, "2024-01-10T08:00:00+08:00", **quantity(5.36)),
    observation("a1-glu-2", "a1", (LOCAL_A, "GLU", "血糖"), "2024-03-10T08:00:00+08:00", **quantity(7.1),
                performer=[{"reference": "Practitioner/dr-a"}]),
    observation("a1-na", "a1", SODIUM, "2024-03-10T08:00:00+08:00", **quantity(140)),
    observation("a2-glu", "a2", GLUCOSE, "2024-02", **quantity(5.0, comparator="<")),
    observation("a2-text", "a2", ("", "FREE", ""), "2023", valueString="Trace of 蛋白 found", status="amended",
                performer=[{"identifier": {"system": "urn:x", "value": "D9"}, "display": "Dr Nine"}]),
    {"resourceType": "DiagnosticReport", "id": "rep-a", "status": "final", "subject": {"reference": "Patient/a1"},
     "category": [concept(("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB", "Laboratory"))],
     "code": concept((LOINC, "11502-2", "Laboratory report"), text="Blood panel"), "basedOn": [
         {"reference": "ServiceRequest/sr-a"}], "effectiveDateTime": "2024-03-10T08:00:00+08:00",
     "result": [{"reference": "Observation/a1-glu-2"}, {"reference": "Observation/a1-na"}]},
    {"resourceType": "Provenance", "id": "prov-a", "recorded": "2024-03-10T09:00:00Z",
     "target": [{"reference": "DiagnosticReport/rep-a"}], "agent": [{"who": {"reference": "Organization/org-a"}}]},
]
HOSPITAL_B: list[Resource] = [
    patient("b1", (MRN_B, "M1"), "110105194912310038", name=[{"family": "Wang", "given": ["X D"]}], gender="male",
            birthDate="1949-12-31", active=False),
    observation("b1-glu", "b1", (LOINC, "2345-7", "Glucose, serum"), "2024-04-01", **quantity(97.5, "mg/dL")),
    {"resourceType": "DiagnosticReport", "id": "rep-b", "status": "preliminary", "subject": {"reference": "Patient/b1"},
     "category": [concept(("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", ""))],
     "code": concept((LOCAL_B, "CT", "Chest CT")), "effectivePeriod": {"start": "2024-04-01", "end": "2024-04-03"},
     "imagingStudy": [{"reference": "ImagingStudy/ct-b"}]},
    {"resourceType": "ImagingStudy", "id": "ct-b", "status": "available", "subject": {"reference": "Patient/b1"},
     "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}], "started": "2024-04-01T10:00:00Z",
     "series": [{"uid": "1.2.3.4", "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"},
                 "instance": [{"uid": "1.2.3.4.5", "sopClass": {"code": "urn:oid:1.2"}}]}]},
]


@pytest.fixture
def loaded(store: Store) -> Store:
    """Both hospitals' resources."""
    store.write(Unit([Put(r, "a") for r in HOSPITAL_A]), GATEWAY)
    store.write(Unit([Put(r, "b") for r in HOSPITAL_B]), GATEWAY)
    return store


@pytest.fixture
def find(loaded: Store) -> Find:
    """``find("Observation?code=…")``: the ids found, in order."""
    def run(query: str, caller: Caller = GATEWAY, **more: Any) -> list[str]:
        return [row.id for row in ask(loaded, query, caller, **more).rows]
    return run


def ask(store: Store, query: str, caller: Caller = GATEWAY, **more: Any) -> Page:
    """One page for ``Type?query``."""
    kind, _, raw = query.partition("?")
    return search(store, caller, kind, raw, **more)


def refused(store: Store, query: str, **more: Any) -> GatewayError:
    """The refusal of a query."""
    with pytest.raises(GatewayError) as caught:
        ask(store, query, **more)
    return caught.value


def same(find: Find, expected: dict[str, str], **more: Any) -> None:
    """Each query finds these ids, in whatever order."""
    assert {query: sorted(find(query, **more)) for query in expected} == {
        query: sorted(ids.split()) for query, ids in expected.items()}


TOKENS = {
    "Observation?code=http://loinc.org|2345-7": "a1-glu-1 a2-glu b1-glu",
    "Observation?code=2345-7": "a1-glu-1 a2-glu b1-glu",
    "Observation?code=2345-7,GLU": "a1-glu-1 a1-glu-2 a2-glu b1-glu",
    "Observation?code=urn:huren:a:item|": "a1-glu-2",
    "Observation?code=|FREE": "a2-text",
    "Observation?code=|2345-7": "",
    "Observation?code=no-such-code": "",
    "Observation?code:not=http://loinc.org|2345-7": "a1-glu-2 a1-na a2-text",
    "Observation?code:not=no-such-code&status=amended": "a2-text",
    "Observation?code:text=gluc": "a1-glu-1 a2-glu b1-glu",
    "Observation?code:text=血糖": "a1-glu-2",
    "DiagnosticReport?code:text=blood": "rep-a",
    "Observation?status=final,amended&code=FREE": "a2-text",
    "Observation?status=http://hl7.org/fhir/observation-status|amended": "a2-text",
    "Observation?status=http://elsewhere|amended": "",
    "Observation?combo-code=2951-2": "a1-na",
    "DiagnosticReport?category=LAB": "rep-a",
    "DiagnosticReport?conclusion:missing=true": "rep-a rep-b",
    "DiagnosticReport?based-on:missing=false": "rep-a",
    "DiagnosticReport?based-on:missing=true": "rep-b",
    "Observation?value-quantity:missing=true": "a2-text",
    "Patient?identifier=urn:huren:a:patient|M1": "a1",
    "Patient?identifier=M1": "a1 b1",
    "Patient?identifier=urn:huren:b:patient|": "b1",
    "Patient?identifier=|M1": "",
    "ServiceRequest?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|PLAC|O1": "sr-a",
    "Patient?active=false": "b1",
    "Patient?gender=female": "a2",
    "Patient?deceased=true": "a2",
    "Patient?deceased=false": "a1 b1",
    "Patient?phone=%2B8613800001111": "a2",
    "Patient?telecom=phone|+86 138 0000 1111".replace("+", "%2B"): "a2",
    "ImagingStudy?modality=CT": "ct-b",
    "ImagingStudy?instance=1.2.3.4.5": "ct-b",
    "ImagingStudy?series=1.2.3.4": "ct-b",
    "ImagingStudy?identifier=urn:dicom:uid|urn:oid:1.2.3": "ct-b",
    "Patient?_id=a1,b1": "a1 b1",
    "Patient?_id=a1&_id=b1": "",
    "Observation?_id=a1": "",
    "Patient?_id:not=a1": "a2 b1",
    "Patient?institution=b": "b1",
    "Patient?institution=nowhere": "",
    "Patient?institution:not=b": "a1 a2",
}


def test_tokens(find: Find) -> None:
    """A token finds by system and code, code alone, system alone, text, type, and their contraries."""
    same(find, TOKENS)


DATES = {
    "Observation?date=2024-03-10": "a1-glu-2 a1-na",
    "Observation?date=2024-03-10T08:00:00%2B08:00": "a1-glu-2 a1-na",
    "Observation?date=2024-03-10T00:00:00Z": "a1-glu-2 a1-na",
    "Observation?date=2024-03-09": "",
    "Observation?date=2024": "a1-glu-1 a1-glu-2 a1-na a2-glu b1-glu",
    "Observation?date=2024-02": "a2-glu",
    "Observation?date=2024-02-10": "",
    "Observation?date=ap2024-02-10": "a1-glu-1 a1-glu-2 a1-na a2-glu a2-text b1-glu",
    "Observation?date=ne2024": "a2-text",
    "Observation?date=gt2024-03-10": "b1-glu",
    "Observation?date=ge2024-03-10": "a1-glu-2 a1-na b1-glu",
    "Observation?date=lt2024-01-10": "a2-text",
    "Observation?date=le2024-01-10": "a1-glu-1 a2-text",
    "Observation?date=sa2024-01-10": "a1-glu-2 a1-na a2-glu b1-glu",
    "Observation?date=eb2024-02-15": "a1-glu-1 a2-text",
    "Observation?date=gt2024-02-10": "a1-glu-2 a1-na a2-glu b1-glu",
    "Observation?date=ge2024-01-10&date=lt2024-03-01": "a1-glu-1 a2-glu",
    "Observation?date=2023,2024-02": "a2-glu a2-text",
    "DiagnosticReport?date=ge2024-04-02": "rep-b",
    "DiagnosticReport?date=sa2024-04-02": "",
    "DiagnosticReport?date=2024-04": "rep-b",
    "Patient?birthdate=1949-12-31": "a1 b1",
    "Patient?birthdate=lt1950": "a1 b1",
    "Patient?birthdate=1980": "a2",
    "Patient?death-date=2024-02-03": "a2",
    "Patient?_lastUpdated=gt2020": "a1 a2 b1",
    "Patient?_lastUpdated=lt2020": "",
}


def test_dates(find: Find) -> None:
    """A date is a range in the query and in the resource, and a prefix says how they lie (search.html#prefix)."""
    same(find, DATES)


STRINGS = {
    "Patient?name=wang": "a1 b1",
    "Patient?name=王小": "a1",
    "Patient?name=小东": "a1",
    "Patient?name=muller": "a2",
    "Patient?name=MÜLLER": "a2",
    "Patient?name=ller": "",
    "Patient?name:contains=LLER": "a2",
    "Patient?name:contains=%25": "",
    "Patient?name:exact=Müller": "a2",
    "Patient?name:exact=Muller": "",
    "Patient?name:exact=müller": "",
    "Patient?family=wang&given=xiao": "a1",
    "Patient?family=wang,muller": "a1 a2 b1",
    "Practitioner?family=zhao": "dr-a",
    "Organization?name=人民": "org-a",
    "Organization?name:contains=hospital": "org-a",
    "Observation?value-string=trace": "a2-text",
    "Observation?value-string:contains=蛋白": "a2-text",
}


def test_strings(find: Find) -> None:
    """A string matches by its beginning without case and accents, anywhere with :contains, as written with :exact."""
    same(find, STRINGS)


QUANTITIES = {
    "Observation?value-quantity=5.4": "a1-glu-1",
    "Observation?value-quantity=5.36": "a1-glu-1",
    "Observation?value-quantity=5.3": "",
    "Observation?value-quantity=5": "a1-glu-1",
    "Observation?value-quantity=ne5.4": "a1-glu-2 a1-na a2-glu b1-glu",
    "Observation?value-quantity=gt7.1": "a1-na b1-glu",
    "Observation?value-quantity=ge7.1": "a1-glu-2 a1-na b1-glu",
    "Observation?value-quantity=lt5.36": "a2-glu",
    "Observation?value-quantity=le5.36": "a1-glu-1 a2-glu",
    "Observation?value-quantity=ap7": "a1-glu-2",
    "Observation?value-quantity=gt1|http://unitsofmeasure.org|mg/dL": "b1-glu",
    "Observation?value-quantity=gt1||mg/dL": "b1-glu",
    "Observation?value-quantity=gt1||furlong": "",
    "Observation?value-quantity=1e2|http://unitsofmeasure.org|mg/dL": "b1-glu",
    "Observation?combo-value-quantity=gt100": "a1-na",
    "Observation?code=2345-7&value-quantity=gt5.2": "a1-glu-1 b1-glu",
}


def test_quantities(find: Find) -> None:
    """Without a prefix a number stands for its precision; a unit is compared as system and code, or as written."""
    same(find, QUANTITIES)


PERSONS = {
    "Observation?patient=a1": "a1-glu-1 a1-glu-2 a1-na b1-glu",
    "Observation?patient=Patient/b1": "a1-glu-1 a1-glu-2 a1-na b1-glu",
    "Observation?subject=Patient/b1&code=2345-7": "a1-glu-1 b1-glu",
    "Observation?patient=a2": "a2-glu a2-text",
    "Observation?patient=a1,a2&code=2345-7": "a1-glu-1 a2-glu b1-glu",
    "Observation?patient=nobody": "",
    "DiagnosticReport?patient.identifier=urn:huren:b:patient|M1": "rep-a rep-b",
    "DiagnosticReport?patient:identifier=urn:huren:b:patient|M1": "rep-a rep-b",
    "DiagnosticReport?subject:Patient.identifier=110105194912310038": "rep-a rep-b",
    "DiagnosticReport?subject.name=王小东": "rep-a rep-b",
    "DiagnosticReport?patient.gender=female": "",
    "Patient?identifier=urn:huren:b:patient|M1": "b1",
    "Patient?_has:Observation:patient:code=2951-2": "a1 b1",
    "Patient?_has:Observation:subject:code=FREE": "a2",
    "Provenance?patient=a1": "",
}


def test_a_patient_means_the_person(find: Find) -> None:
    """Any Patient or identifier of a person finds the results of all; `Patient` itself is searched as it is."""
    same(find, PERSONS)


REFERENCES = {
    "DiagnosticReport?based-on=sr-a": "rep-a",  # may name several types: each is tried
    "DiagnosticReport?based-on=ServiceRequest/sr-a": "rep-a",
    "DiagnosticReport?based-on:ServiceRequest=sr-a": "rep-a",
    "DiagnosticReport?based-on=http://here/fhir/ServiceRequest/sr-a": "rep-a",
    "DiagnosticReport?based-on=http://there/fhir/ServiceRequest/sr-a": "",
    "DiagnosticReport?result=a1-na": "rep-a",
    "DiagnosticReport?result.code=2951-2": "rep-a",
    "DiagnosticReport?result.code=2345-7": "",
    "DiagnosticReport?based-on:ServiceRequest.identifier=O1": "rep-a",
    "DiagnosticReport?imaging-study=ct-b": "rep-b",
    "DiagnosticReport?imaging-study.modality=CT": "rep-b",
    "Observation?performer=Practitioner/dr-a": "a1-glu-2",
    "Observation?performer:identifier=urn:x|D9": "a2-text",
    "Observation?performer:Practitioner.name=zhao": "a1-glu-2",
    "Observation?_has:DiagnosticReport:result:status=final": "a1-glu-2 a1-na",
    "Observation?_has:DiagnosticReport:result:status=amended": "",
    "Observation?_has:DiagnosticReport:result:patient.identifier=M2": "",
    "Observation?_has:DiagnosticReport:result:_has:Provenance:target:agent=Organization/org-a": "a1-glu-2 a1-na",
    "Patient?general-practitioner=Practitioner/dr-a": "a1",
    "Patient?organization.name=renmin": "a2",
    "Practitioner?_has:Patient:general-practitioner:gender=male": "dr-a",
    "Provenance?target=DiagnosticReport/rep-a": "prov-a",
    "DiagnosticReport?patient.general-practitioner.name=zhao": "rep-a rep-b",
}


def test_references(find: Find) -> None:
    """A reference finds by id, Type/id, URL and identifier, forwards through chains and backwards with _has."""
    same(find, REFERENCES, base="http://here/fhir")


#: Between bars: ties, in whatever order.
SORTS = {
    "Observation?_sort=date": "a2-text | a1-glu-1 | a2-glu | a1-glu-2 a1-na | b1-glu",
    "Observation?_sort=-date": "b1-glu | a1-na a1-glu-2 | a2-glu | a1-glu-1 | a2-text",
    "Observation?patient=a1&_sort=-date,code": "b1-glu | a1-na | a1-glu-2 | a1-glu-1",
    "Observation?patient=a1&_sort=-date,-code": "b1-glu | a1-glu-2 | a1-na | a1-glu-1",
    "Observation?_sort=value-quantity": "a2-glu | a1-glu-1 | a1-glu-2 | b1-glu | a1-na | a2-text",
    "Observation?_sort=-value-quantity": "a1-na | b1-glu | a1-glu-2 | a1-glu-1 | a2-glu | a2-text",
    "Observation?_sort=status,-date&code=FREE,GLU": "a2-text | a1-glu-2",
    "Patient?_sort=family": "a2 | b1 a1",
    "Patient?_sort=-family": "a1 | b1 | a2",
    "Patient?_sort=birthdate,-_id": "b1 | a1 | a2",
    "Patient?_sort=-_lastUpdated,_id": "b1 | a1 | a2",
    "Patient?_sort=_lastUpdated": "a1 a2 | b1",
    "Patient?_sort=_id": "a1 | a2 | b1",
    "Patient?_sort=death-date": "a2 | a1 b1",
    "Patient?_sort=-death-date": "a2 | a1 b1",
    "Patient?_sort=gender": "a2 | a1 b1",
}


def test_sorts(find: Find) -> None:
    """Several keys, up or down, any type; resources without the value come last (search.html#_sort)."""
    for query, expected in SORTS.items():
        found = iter(find(query))
        for ties in expected.split("|"):
            assert {next(found) for _ in ties.split()} == set(ties.split()), query
        assert not list(found), query


def test_a_reference_cannot_be_sorted_by(loaded: Store) -> None:
    """What has no order is refused, not ignored."""
    assert refused(loaded, "Observation?_sort=performer").category is Category.UNSUPPORTED
    assert refused(loaded, "Patient?_sort=identifier").category is Category.UNSUPPORTED


# ---------------------------------------------------------------------- the answer's form


def test_includes(loaded: Store) -> None:
    """What a match names comes along once, by parameter, by target type, iterated, or all of it."""
    def included(query: str) -> list[str]:
        return sorted(row.id for row in ask(loaded, query).included)
    assert included("DiagnosticReport?_include=DiagnosticReport:result") == ["a1-glu-2", "a1-na"]
    assert included("DiagnosticReport?_include=DiagnosticReport:subject:Patient") == ["a1", "b1"]
    assert included("DiagnosticReport?_include=DiagnosticReport:subject:Group") == []
    assert included("DiagnosticReport?_include=DiagnosticReport:result&_include:iterate=Observation:performer") == [
        "a1-glu-2", "a1-na", "dr-a"]
    assert included("DiagnosticReport?_include=DiagnosticReport:result&_include=Observation:performer") == [
        "a1-glu-2", "a1-na"]
    assert included("DiagnosticReport?_include=*") == ["a1", "a1-glu-2", "a1-na", "b1", "ct-b", "sr-a"]
    assert included("Observation?_id=a1-na&_revinclude=DiagnosticReport:result") == ["rep-a"]
    assert included("Observation?_id=a1-na&_revinclude=*") == ["rep-a"]
    assert included("DiagnosticReport?_id=rep-a&_revinclude=Provenance:target") == ["prov-a"]
    assert included("Observation?_id=a1-na&_revinclude=DiagnosticReport:result&_revinclude:iterate=Provenance:target"
                    ) == ["prov-a", "rep-a"]
    assert included("Patient?_id=b1&_revinclude=DiagnosticReport:patient") == ["rep-a", "rep-b"]
    assert included("Observation?_include=Observation:has-member&_include:iterate=Observation:has-member") == []


def test_a_match_is_not_included_again(loaded: Store) -> None:
    """A resource is on a page once, as a match rather than as an include."""
    page = ask(loaded, "Observation?patient=a1&_revinclude=Observation:subject&_include=Observation:subject")
    assert {"a1", "b1"} == {row.id for row in page.included}


def test_counts(loaded: Store) -> None:
    """``_summary=count``, ``_count=0`` and ``_total=accurate`` say how many match, each once."""
    for query in ("_summary=count", "_count=0"):
        page = ask(loaded, f"Observation?code=2345-7,GLU&{query}")
        assert (page.total, page.rows) == (4, [])
    page = ask(loaded, "Patient?name=wang&_total=accurate&_count=1")
    assert (page.total, len(page.rows)) == (2, 1)
    assert ask(loaded, "Patient?name=wang").total is None
    assert ask(loaded, "Patient?identifier=nobody&_total=estimate").total == 0


def test_what_the_edge_shows_is_passed_on(loaded: Store) -> None:
    """``_elements`` and ``_summary`` come back as they were asked for; ``_format`` is no search parameter."""
    page = ask(loaded, "Patient?_elements=name,birthDate&_summary=data&_format=json&_pretty=true")
    assert (page.elements, page.summary, len(page.rows)) == (("name", "birthDate"), "data", 3)


def test_the_query_is_repeated_as_it_was_used(loaded: Store) -> None:
    """``self`` has every parameter that was used, and none that was not."""
    page = ask(loaded, "Patient?name=M%C3%BCller&nonsense=1&_sort=nonsense,-birthdate&gender=", handling="lenient")
    assert page.self_query == "name=M%C3%BCller&_sort=-birthdate"
    assert [name for name, _ in page.ignored] == ["nonsense", "_sort=nonsense"]
    assert [row.id for row in page.rows] == ["a2"]


REFUSED = {
    "Patient?nonsense=1": (Category.UNSUPPORTED, "nonsense"),
    "Patient?name:sounds=x": (Category.UNSUPPORTED, "name:sounds"),
    "Patient?name.given=x": (Category.UNSUPPORTED, "name.given"),
    "Patient?birthdate=yesterday": (Category.INVALID, "birthdate"),
    "Patient?birthdate=2024-02-30": (Category.INVALID, "birthdate"),
    "Patient?birthdate:exact=2024": (Category.UNSUPPORTED, "birthdate:exact"),
    "Patient?active:missing=perhaps": (Category.INVALID, "active:missing"),
    "Patient?_sort=nonsense": (Category.UNSUPPORTED, "_sort=nonsense"),
    "Patient?_count=-1": (Category.INVALID, "_count"),
    "Patient?_count=ten": (Category.INVALID, "_count"),
    "Patient?_total=all": (Category.INVALID, "_total"),
    "Patient?_summary=short": (Category.INVALID, "_summary"),
    "Patient?_cursor=AAAA": (Category.INVALID, "_cursor"),
    "Patient?_include=Patient:name": (Category.UNSUPPORTED, "_include=Patient:name"),
    "Patient?_include=Patient": (Category.INVALID, "_include"),
    "Patient?_include:all=Patient:link": (Category.UNSUPPORTED, "_include:all"),
    "Observation?value-quantity=high": (Category.INVALID, "value-quantity"),
    "Observation?value-quantity=5|mg": (Category.INVALID, "value-quantity"),
    "Observation?value-quantity=1e999999999": (Category.INVALID, "value-quantity"),
    "Observation?performer=a b": (Category.INVALID, "performer"),
    "Observation?focus=1": (Category.INVALID, "focus"),
    "Observation?performer:Nobody=1": (Category.UNSUPPORTED, "performer:Nobody"),
    "Observation?performer:Practitioner.nonsense=1": (Category.UNSUPPORTED, "performer:Practitioner.nonsense"),
    "Patient?_has:Observation=1": (Category.INVALID, "_has"),
    "Patient?_has:Observation:code:status=1": (Category.UNSUPPORTED, "_has"),
    "Patient?identifier:of-type=PLAC|1": (Category.INVALID, "identifier:of-type"),
    "Nonsense?name=1": (Category.NOT_FOUND, "Nonsense"),
}


def test_refusals_name_the_parameter(loaded: Store) -> None:
    """What is unknown or unreadable is refused with its name, and the value is not repeated."""
    for query, expected in REFUSED.items():
        error = refused(loaded, query)
        assert (error.category, error.where) == expected, query
        value = query.partition("=")[2]
        assert len(value) < 3 or value not in error.message


def test_lenient_still_refuses_what_cannot_be_read(loaded: Store) -> None:
    """``handling=lenient`` forgives unknown parameters, not values that mean nothing."""
    assert refused(loaded, "Patient?birthdate=yesterday", handling="lenient").category is Category.INVALID


def test_deep_chains_end(loaded: Store) -> None:
    """A chain cannot be made long enough to hurt."""
    chain = "Encounter?" + "part-of." * 9 + "status=finished"
    assert refused(loaded, chain).category is Category.INVALID


def test_escapes(store: Store) -> None:
    r"""``\,`` ``\|`` ``\$`` and ``\\`` are the characters themselves (search.html#escaping)."""
    codes = ["a,b", "a|b", "a\\b", "a$b"]
    rows = [observation(f"o{n}", "p", ("urn:s", code, ""), "2024") for n, code in enumerate(codes)]
    store.write(Unit([Put(r, "a") for r in rows]), GATEWAY)
    for n, code in enumerate(codes):
        escaped = "".join("\\" + c if c in "\\,|$" else c for c in code)
        for value in (f"urn:s|{escaped}", escaped):
            found = search(store, GATEWAY, "Observation", [("code", value)]).rows
            assert [row.id for row in found] == [f"o{n}"]


def test_updates_and_deletions_show_at_once(loaded: Store, find: Find) -> None:
    """A new version is found by its new values only, a deleted resource by none."""
    changed = next(r for r in HOSPITAL_A if r["id"] == "a1-glu-1") | quantity(9.9) | {"status": "corrected"}
    loaded.write(Unit([Put(changed, "a"), Delete("Observation", "a1-na")]), GATEWAY)
    assert find("Observation?value-quantity=9.9") == ["a1-glu-1"]
    assert find("Observation?value-quantity=5.36") == []
    assert find("Observation?status=corrected") == ["a1-glu-1"]
    assert find("Observation?_id=a1-na") == []
    assert find("Observation?code=2951-2") == []
    assert sorted(find("Observation?patient=a1&_sort=-date")) == ["a1-glu-1", "a1-glu-2", "b1-glu"]
    assert ask(loaded, "Observation?_total=accurate").total == 5
    assert "a1-na" not in find("Observation?_sort=-_lastUpdated")


def test_conditional_references(loaded: Store) -> None:
    """``Type?query`` gives the ids it means: none, one, or enough to see that it is not one."""
    assert resolve_conditional(loaded, GATEWAY, "Patient?identifier=urn:huren:a:patient|M1") == ["a1"]
    assert resolve_conditional(loaded, GATEWAY, "Patient?identifier=nobody") == []
    assert len(resolve_conditional(loaded, GATEWAY, "Observation?status=final")) == 2
    for reference in ("Patient/1", "Patient?", "Nobody?x=1", "Patient?_count=1"):
        with pytest.raises(GatewayError):
            resolve_conditional(loaded, GATEWAY, reference)


# ---------------------------------------------------------------------- callers

ONLY_A = Caller("client-a", "a", ("institution/*.rs",))
ONLY_B = Caller("client-b", "b", ("institution/*.rs",))
NOWHERE = Caller("client-c", "c", ("institution/*.rs",))
NO_INSTITUTION = Caller("client-d", None, ("institution/*.rs",))


def test_an_institution_sees_its_own(find: Find, loaded: Store) -> None:
    """Matches and counts are those of the caller's institution."""
    assert find("Observation?code=2345-7", ONLY_B) == ["b1-glu"]
    assert sorted(find("Patient", ONLY_A)) == ["a1", "a2"]
    assert ask(loaded, "Patient?_total=accurate", ONLY_A).total == 2
    assert ask(loaded, "Observation?_summary=count", ONLY_B).total == 1
    for caller in (NOWHERE, NO_INSTITUTION):
        assert find("Patient", caller) == [] and ask(loaded, "Patient?_summary=count", caller).total == 0
    for query in ("Observation?_sort=-date", "Observation?_sort=-_lastUpdated", "Observation?_sort=code"):
        assert find(query, ONLY_B) == ["b1-glu"]
    assert find("Patient?_sort=name", ONLY_B) == ["b1"]


def test_a_person_is_seen_from_the_own_side_only(find: Find) -> None:
    """Another institution's Patient or identifier finds nothing: not even that it is the same person."""
    assert sorted(find("Observation?patient=a1", ONLY_A)) == ["a1-glu-1", "a1-glu-2", "a1-na"]
    assert find("Observation?patient=b1", ONLY_A) == []
    assert find("DiagnosticReport?patient.identifier=urn:huren:b:patient|M1", ONLY_A) == []
    assert find("DiagnosticReport?patient:identifier=urn:huren:b:patient|M1", ONLY_A) == []
    assert find("DiagnosticReport?patient.identifier=urn:huren:a:patient|M1", ONLY_A) == ["rep-a"]


def test_a_chain_does_not_leak(find: Find) -> None:
    """Conditions on resources that the caller may not see are met by none."""
    assert find("Observation?performer:Practitioner.name=zhao", ONLY_B) == []
    assert find("Patient?_has:Observation:patient:code=2951-2", ONLY_B) == []
    assert find("Patient?_has:Observation:patient:code=2345-7", ONLY_B) == ["b1"]
    no_patients = Caller("lab", None, ("system/Observation.rs",))
    assert len(find("Observation?patient=a1", no_patients)) == 4  # the id is in every Observation that it may see
    for query in ("Observation?patient.identifier=M1", "Observation?patient:identifier=M1",
                  "Observation?_has:DiagnosticReport:result:status=final", "Patient"):
        with pytest.raises(GatewayError) as caught:
            find(query, no_patients)
        assert caught.value.category is Category.FORBIDDEN


def test_includes_do_not_leak(loaded: Store) -> None:
    """Included is only what the caller may read: by type, and by institution."""
    def included(query: str, *scopes: str, institution: str | None = None) -> list[str]:
        return sorted(row.id for row in ask(loaded, query, Caller("c", institution, scopes)).included)
    query = "DiagnosticReport?_include=*&_revinclude=Provenance:target"
    assert included(query, "system/DiagnosticReport.rs", "system/Patient.r") == ["a1", "b1"]
    assert included(query, "system/DiagnosticReport.rs", "institution/Patient.rs", institution="b") == ["b1"]
    assert included("Patient?_revinclude=Observation:patient", "institution/*.rs", institution="b") == ["b1-glu"]
    assert included("Patient?_revinclude=Observation:patient", "system/Patient.rs") == []
    assert included("Observation?_revinclude=*", "system/Observation.rs") == []
    assert included("Observation?_revinclude=*", "system/Observation.rs", "system/DiagnosticReport.r") == ["rep-a"]


def test_reading_and_searching_are_both_needed(loaded: Store) -> None:
    """Who may search everywhere but read only its own sees only its own."""
    caller = Caller("c", "b", ("system/Observation.s", "institution/Observation.r"))
    assert [row.id for row in ask(loaded, "Observation?code=2345-7&_total=accurate", caller).rows] == ["b1-glu"]
    with pytest.raises(GatewayError):
        ask(loaded, "Observation", Caller("c", None, ("system/Observation.r",)))


def test_a_unified_code_and_loincs_are_one_token_that_both_find(store: Store) -> None:
    """A result of our conversions is found by either coding; one without LOINC's coding only by the unified code."""
    unified, loinc = "http://huren.example/fhir/CodeSystem/recognition-item", "http://loinc.org"
    both = [{"system": unified, "code": "THM001Q"}, {"system": loinc, "code": "6690-2"},
            {"system": "urn:h", "code": "WBC"}]
    for name, codings in (("both", both), ("one", both[:1]), ("loinc", both[1:2]), ("apart", [both[2], *both[:2]])):
        store.write(Unit([Put({"resourceType": "Observation", "id": name, "status": "final",
                               "code": {"coding": codings}})]), GATEWAY)

    def found(query: str) -> set[str]:
        return {row.id for row in search(store, GATEWAY, "Observation", query).rows}
    assert {"both", "one", "apart"} == found(f"code={unified}|THM001Q") == found("code=THM001Q")
    assert {"both", "loinc", "apart"} == found(f"code={loinc}|6690-2") == found("code=6690-2")
    assert {"both", "loinc", "apart"} == found(f"code={loinc}|")
    assert {"both", "apart"} == found("code=urn:h|WBC")
    assert set() == found(f"code={unified}|6690-2")
    assert {"one"} == found(f"code={unified}|THM001Q&code:not={loinc}|6690-2")
