"""`gateway.recognition.orders`: what is ordered, by its codes, and what is known of the patient's state."""

from __future__ import annotations

import random
import uuid
from datetime import date
from typing import Any

import pytest
from fhir_samples import mutated
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_samples import at

from gateway.errors import Category, GatewayError
from gateway.indexing.results import LATERALITY_EXTENSION
from gateway.recognition.model import Candidate, Happening, Order, Side
from gateway.recognition.orders import PURPOSES, candidate_from, drafts, item_of, line_id, order_from, order_number
from gateway.recognition.rules import RuleSet
from gateway.source import Source
from gateway.store.model import Result
from gateway.terminology import ITEMS, LOINC, PANELS, SNOMED, CodeMap, catalogue

RULES = RuleSet("1", date(2024, 1, 1), catalogue())
OWN = "urn:huren:h:item"
SOURCE = Source("h", "H", OWN, CodeMap([
    {"local": "CT01", "item": "ECT010H", "display": "胸部CT", "unit": ""},
    {"local": "CBC", "item": "P-CBC", "display": "血常规", "unit": ""},
    {"local": "FEE", "item": "-", "display": "采血费", "unit": ""},
    {"local": "NEW", "item": "", "display": "新项目", "unit": ""}]))
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


def coded(*codings: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A CodeableConcept."""
    return {"coding": [{"system": system, "code": code} for system, code in codings], **more}


def request(*codings: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A draft ServiceRequest of a chest CT, under the hospital's own code unless another is said."""
    return {"resourceType": "ServiceRequest", "id": "d1", "status": "draft", "intent": "order",
            "subject": {"reference": "Patient/p1"}, "code": coded(*(codings or [(OWN, "CT01")])),
            "authoredOn": "2025-06-15T10:00:00+08:00", "identifier": [{"system": "urn:x", "value": "N1"}]} | more


def made(resource: dict[str, Any], **more: Any) -> Order:
    """The order, here."""
    return order_from(resource, rules=RULES, source=SOURCE, **more)


def procedure(code: str, status: str = "completed", **more: Any) -> dict[str, Any]:
    """A Procedure with a SNOMED code."""
    return {"resourceType": "Procedure", "status": status, "code": coded((SNOMED, code)),
            "subject": {"reference": "Patient/p1"}} | more


def encounter(code: str = "IMP", **more: Any) -> dict[str, Any]:
    """An Encounter of a class."""
    return {"resourceType": "Encounter", "id": "e1", "status": "in-progress", "class": {"system": ACT, "code": code},
            "period": {"start": "2025-06-10T08:30:00+08:00"}} | more


# -------------------------------------------------------------------- what is ordered


@pytest.mark.parametrize(("codings", "item", "local"), [
    ([(OWN, "CT01")], "ECT010H", "CT01"),
    ([(OWN, "CBC")], "P-CBC", "CBC"),
    ([(ITEMS, "ECT010H")], "ECT010H", ""),
    ([(PANELS, "P-CBC")], "P-CBC", ""),
    ([(ITEMS, "ECT010H"), (OWN, "CT01")], "ECT010H", "CT01"),
    ([(ITEMS, "ECT010H"), (OWN, "UNKNOWN")], "ECT010H", "UNKNOWN"),
    ([("urn:other", "X"), (OWN, "CT01")], "ECT010H", "CT01"),
    ([(LOINC, "29252-4")], "ECT010H", ""),
    ([(LOINC, "29252-4"), (OWN, "NEW")], "ECT010H", "NEW"),
    ([(OWN, "CBC"), (LOINC, "29252-4")], "P-CBC", "CBC"),  # the hospital's approved map before LOINC
    ([(OWN, "NEW")], "", "NEW"),
    ([(OWN, "FEE")], "", "FEE"),
    ([(OWN, "ct01")], "", "ct01"),  # codes are case-sensitive
    ([("urn:other", "CT01")], "", "CT01"),  # another system's code
    ([(ITEMS, "ECT010X")], "", "ECT010X"),  # no such item
    ([(ITEMS, "P-CBC")], "", "P-CBC"),  # a panel is no item
    ([(LOINC, "0-0")], "", "0-0"),
])
def test_what_codings_mean(codings: list[tuple[str, str]], item: str, local: str) -> None:
    """The unified code, else the hospital's map, else LOINC where it is equivalent; otherwise it is not mapped."""
    found = made(request(*codings))
    assert (item, local) == (found.item, found.local)


@pytest.mark.parametrize("codings", [
    [(OWN, "CT01"), (OWN, "CBC")],
    [(ITEMS, "ECT001J"), (OWN, "CT01")],
    [(ITEMS, "ECT001J"), (ITEMS, "ECT010H")],
    [(ITEMS, "ECT001J"), (PANELS, "P-CBC")],
    [(LOINC, "29252-4"), (LOINC, "30799-1")],
])
def test_codings_that_contradict_each_other_are_refused(codings: list[tuple[str, str]]) -> None:
    """Nobody knows then what is ordered; the sender hears where."""
    with pytest.raises(GatewayError, match="contradict") as refused:
        made(request(*codings), where="context.draftOrders.entry[2].resource")
    assert (Category.INVALID, "context.draftOrders.entry[2].resource.code") == \
        (refused.value.category, refused.value.where)


def test_a_display_is_no_code() -> None:
    """An order that says what it is in words only is not mapped; its words are kept for those who read."""
    found = made(request(code={"text": "胸部CT平扫"}))
    assert ("", "", "胸部CT平扫") == (found.item, found.local, found.display)
    found = made(request(code={"coding": [{"display": "胸部CT平扫"}]}))
    assert ("", "") == (found.item, found.local)


def test_an_order_without_a_code_is_not_mapped() -> None:
    """ServiceRequest.code is 0..1."""
    resource = request()
    del resource["code"]
    assert "" == made(resource).item


def test_a_hospital_without_an_adapter_orders_by_common_codes() -> None:
    """Its own codes are then nobody's."""
    found = order_from(request((OWN, "CT01"), (LOINC, "29252-4")), rules=RULES, institution="elsewhere")
    assert ("elsewhere", "ECT010H", "CT01") == (found.institution, found.item, found.local)
    assert "" == order_from(request(), rules=RULES, institution="elsewhere").item


def test_an_item_must_be_of_this_version() -> None:
    """A map may know more than the catalogue that holds."""
    rules = RULES.changed(catalogue=type(catalogue())([catalogue().items["ECT001J"]]))
    assert "" == item_of([(OWN, "CT01")], rules, SOURCE)
    assert "ECT010H" == item_of([(OWN, "CT01")], RULES, SOURCE)


# -------------------------------------------------------------------- which line


@pytest.mark.parametrize(("identifiers", "number"), [
    ([{"value": "A"}], "A"),
    ([{"value": "A"}, {"value": "B", "type": coded((V2_0203, "PLAC"))}], "B"),
    ([{"value": "A"}, {"value": "B", "system": "urn:huren:h:placer"}], "B"),
    ([{"value": "B", "system": "urn:huren:h:placer"}, {"value": "C", "type": coded((V2_0203, "PLAC"))}], "C"),
    ([{"value": "A", "type": coded((V2_0203, "FILL"))}, {"value": "B"}], "B"),
    ([{"value": "A", "type": coded((V2_0203, "FILL"))}], "A"),
    ([{"value": "A"}, {"value": "B", "type": coded(("urn:other", "PLAC"))}], "A"),
    ([{"value": "A", "system": "urn:huren:other:placer"}, {"value": "B", "system": "urn:huren:h:placer"}], "B"),
    ([{"system": "urn:x"}, {"value": " A "}], "A"),
])
def test_the_placers_number_names_the_order(identifiers: list[dict[str, Any]], number: str) -> None:
    """The one that is said to be, else the one of our own system, else the first that is not the filler's."""
    assert number == made(request(identifier=identifiers)).number
    assert number == order_number(request(identifier=identifiers), "h")


def test_a_draft_without_a_number_has_one_of_its_own() -> None:
    """The same draft again the same; another patient, stay, draft, code or day another."""
    draft = request()
    del draft["identifier"]
    number = made(draft, patient="p1").number
    assert number.startswith("draft:") and uuid.UUID(number.removeprefix("draft:")).version == 5
    assert number == made(draft, patient="Patient/p1").number == made(draft).number
    assert number == made(draft | {"authoredOn": "2025-06-15T23:59:59+08:00", "note": []}).number
    others = [made(draft, patient="p2"), made(draft, encounter=encounter()), made(draft | {"id": "d2"}),
              made(draft | {"code": coded((OWN, "CBC"))}), made(draft | {"authoredOn": "2025-06-16"})]
    assert 6 == len({number, *(other.number for other in others)})


def test_a_line_is_named_by_institution_and_number() -> None:
    """The same everywhere and for ever, for ids are kept; two hospitals may use the same number."""
    assert "12968cf8-e99c-5955-a447-77b69f48c58a" == line_id("h", "1")
    assert 3 == len({line_id("h", "1"), line_id("h", "2"), line_id("g", "1")})


@pytest.mark.parametrize(("institution", "number"), [("", "1"), ("h", "")])
def test_a_line_without_a_name_is_refused(institution: str, number: str) -> None:
    """Or all such lines would be one."""
    with pytest.raises(GatewayError, match="institution and its order number"):
        line_id(institution, number)


# -------------------------------------------------------------------- who, where, which side


@pytest.mark.parametrize(("more", "side"), [
    ({}, Side.UNKNOWN),
    ({"bodySite": [coded((SNOMED, "7771000"))]}, Side.LEFT),
    ({"bodySite": [coded((SNOMED, "72696002"), (SNOMED, "24028007"))]}, Side.RIGHT),
    ({"bodySite": [coded((SNOMED, "51440002"))]}, Side.BOTH),
    ({"bodySite": [coded((SNOMED, "7771000")), coded((SNOMED, "24028007"))]}, Side.BOTH),
    ({"bodySite": [coded((SNOMED, "72696002"))]}, Side.UNKNOWN),
    ({"bodySite": [coded(("urn:other", "7771000"))]}, Side.UNKNOWN),
    ({"bodySite": [{"text": "左膝"}]}, Side.UNKNOWN),
    ({"extension": [{"url": LATERALITY_EXTENSION, "valueCode": "L"}]}, Side.LEFT),
    ({"extension": [{"url": "urn:other", "valueCode": "L"}]}, Side.UNKNOWN),
])
def test_the_side_of_an_order(more: dict[str, Any], side: Side) -> None:
    """By code, as the index reads it of results."""
    assert side is made(request(**more)).side


@pytest.mark.parametrize(("more", "resource", "doctor"), [
    ({}, None, ""),
    ({"requester": {"reference": "Practitioner/d7"}}, None, "d7"),
    ({"requester": {"reference": "https://his/fhir/Practitioner/d7/_history/3"}}, None, "d7"),
    ({"requester": {"reference": "Practitioner/d7", "identifier": {"value": "1007"}}}, None, "1007"),
    ({"requester": {"reference": "Practitioner/d7"}},
     {"resourceType": "Practitioner", "id": "d7", "identifier": [{"value": "1007"}]}, "1007"),
    ({}, {"resourceType": "PractitionerRole", "id": "r7"}, "r7"),
    ({"requester": {"display": "王医生"}}, None, ""),
])
def test_who_orders(more: dict[str, Any], resource: dict[str, Any] | None, doctor: str) -> None:
    """By the staff number where one is said; never by name."""
    assert doctor == made(request(**more), practitioner=resource).doctor


@pytest.mark.parametrize(("more", "department"), [
    ({}, ""),
    ({"location": [{"location": {"reference": "Location/icu"}}]}, "icu"),
    ({"location": [{"location": {"reference": "Location/er"}, "status": "completed"},
                   {"location": {"reference": "Location/icu"}, "status": "active"}]}, "icu"),
    ({"location": [{"location": {"display": "ICU"}}], "serviceProvider": {"reference": "Organization/h"}}, ""),
    ({"serviceProvider": {"reference": "Organization/card"}}, "card"),
    ({"location": [{"location": {"identifier": {"value": "W3"}, "reference": "Location/1"}}]}, "W3"),
])
def test_where_it_is_ordered(more: dict[str, Any], department: str) -> None:
    """The department of the stay, where a code or an id says it; a caller may know better."""
    assert department == made(request(), encounter=encounter(**more)).department
    assert "X" == made(request(), encounter=encounter(**more), department="X").department


def test_the_stay_of_an_order() -> None:
    """From the Encounter, or from what the order refers to."""
    found = made(request(encounter={"reference": "Encounter/e9"}), encounter=encounter("AMB"))
    assert ("e1", "AMB") == (found.encounter, found.setting)
    found = made(request(encounter={"reference": "Encounter/e9"}))
    assert ("e9", "") == (found.encounter, found.setting)


def test_the_insurance_scheme() -> None:
    """Coverage.type."""
    coverage = {"resourceType": "Coverage", "type": coded(("urn:x", "MUNICIPAL"))}
    assert "MUNICIPAL" == made(request(), coverage=coverage).scheme
    assert "" == made(request(), coverage={"resourceType": "Coverage"}).scheme


def test_the_reference_of_an_order() -> None:
    """As the client named it; a draft may have no id."""
    assert "ServiceRequest/d1" == made(request()).reference
    draft = request()
    del draft["id"]
    assert "" == made(draft).reference


# -------------------------------------------------------------------- the patient's state


@pytest.mark.parametrize(("more", "kinds"), [
    ({}, []),
    ({"priority": "stat"}, ["emergency"]),
    ({"priority": "asap"}, []),
    ({"priority": "urgent"}, []),
    ({"reasonCode": [coded((PURPOSES, "before-surgery"))]}, ["surgery"]),
    ({"reasonCode": [coded((PURPOSES, "before-transfusion"))]}, ["transfusion"]),
    ({"category": [coded((PURPOSES, "forensic"))]}, ["forensic"]),
    ({"category": [coded((PURPOSES, "emergency"))], "priority": "stat"}, ["emergency"]),
    ({"reasonCode": [coded(("urn:other", "forensic"))]}, []),
    ({"reasonCode": [coded((PURPOSES, "curiosity")), {"text": "术前"}]}, []),
])
def test_what_the_order_says_of_the_patient(more: dict[str, Any], kinds: list[str]) -> None:
    """Priority ``stat`` and the purposes of our own CodeSystem, each once, with no time."""
    assert [Happening(kind) for kind in kinds] == list(made(request(**more)).happenings)


ADMITTED = at(2025, 6, 10, 8, 30)


@pytest.mark.parametrize(("stay", "happenings"), [
    (encounter("AMB"), []),
    (encounter("EMER"), [Happening("emergency")]),
    (encounter("IMP"), [Happening("admission", ADMITTED)]),
    (encounter("ACUTE"), [Happening("admission", ADMITTED)]),
    (encounter("NONAC", period={"start": "2025-06-10"}), [Happening("admission", at(2025, 6, 10))]),
    (encounter("IMP", period={"start": "2025-06-10T00:30:00Z"}), [Happening("admission", ADMITTED)]),
    (encounter("IMP", period={}), []),
    (encounter("IMP", status="planned"), []),
    (encounter("IMP", status="cancelled"), []),
])
def test_what_the_stay_says_of_the_patient(stay: dict[str, Any], happenings: list[Happening]) -> None:
    """An emergency, or when the patient was admitted; a date is its first moment."""
    assert happenings == list(made(request(), encounter=stay).happenings)


WHEN = {"performedDateTime": "2025-06-12T09:00:00+08:00"}
THEN = at(2025, 6, 12, 9)


@pytest.mark.parametrize(("done", "happenings"), [
    (procedure("387713003", **WHEN), [Happening("surgery", THEN)]),
    (procedure("80146002", category=coded((SNOMED, "387713003")), **WHEN), [Happening("surgery", THEN)]),
    (procedure("80146002", **WHEN), []),  # an operation by its own code only: there is no hierarchy to ask
    (procedure("116859006", **WHEN), [Happening("transfusion", THEN)]),
    (procedure("5447007", **WHEN), [Happening("transfusion", THEN)]),
    (procedure("116863004", **WHEN), [Happening("transfusion", THEN)]),
    (procedure("12719002", **WHEN), [Happening("transfusion", THEN)]),
    (procedure("13569004", **WHEN), [Happening("transfusion", THEN)]),
    (procedure("367336001", **WHEN), [Happening("chemotherapy", THEN)]),
    (procedure("387713003", "in-progress", **WHEN), [Happening("surgery", THEN)]),
    (procedure("387713003", "stopped", **WHEN), [Happening("surgery", THEN)]),
    (procedure("387713003", performedPeriod={"start": "2025-06-12T08:00:00+08:00", "end": "2025-06-12T09:00:00+08:00"}),
     [Happening("surgery", THEN)]),
    (procedure("387713003", performedPeriod={"start": "2025-06-12T09:00:00+08:00"}), [Happening("surgery", THEN)]),
    (procedure("387713003"), []),  # nobody knows when
    (procedure("387713003", "preparation"), [Happening("surgery")]),
    (procedure("116859006", "not-started"), [Happening("transfusion")]),
    *((procedure("387713003", status, **WHEN), []) for status in
      ("not-done", "entered-in-error", "unknown", "on-hold")),
    (procedure("387713003", **WHEN) | {"code": coded(("urn:other", "387713003"))}, []),
])
def test_what_procedures_say_of_the_patient(done: dict[str, Any], happenings: list[Happening]) -> None:
    """Operations, transfusions and chemotherapies, planned or done, by SNOMED category or code."""
    assert happenings == list(made(request(), procedures=[done]).happenings)


# -------------------------------------------------------------------- drafts


def test_the_drafts_of_a_bundle() -> None:
    """ServiceRequests with their place; medication, nutrition and what shall not be done are no orders of ours."""
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [
        {"resource": {"resourceType": "MedicationRequest"}}, {"resource": request()},
        {"resource": request(doNotPerform=True)}, {"resource": request(doNotPerform=False, id="d2")},
        {"resource": {"resourceType": "NutritionOrder"}}]}
    assert [("context.draftOrders.entry[1].resource", "d1"), ("context.draftOrders.entry[3].resource", "d2")] == \
        [(where, one["id"]) for where, one in drafts(bundle)]
    assert [] == drafts({"resourceType": "Bundle"})


@pytest.mark.parametrize(("bundle", "where"), [
    (None, "x"), ([], "x"), ({"resourceType": "Patient"}, "x"), ({"resourceType": "Bundle", "entry": {}}, "x.entry"),
    ({"resourceType": "Bundle", "entry": [{}, 3]}, "x.entry[1]"),
    ({"resourceType": "Bundle", "entry": [{"resource": []}]}, "x.entry[0].resource"),
    ({"resourceType": "Bundle", "entry": [{"resource": {"resourceType": 3}}]}, "x.entry[0].resource"),
    ({"resourceType": "Bundle", "entry": [{"fullUrl": "urn:x"}]}, "x.entry[0].resource"),
])
def test_what_is_no_bundle_of_drafts(bundle: Any, where: str) -> None:
    """INVALID, with the place."""
    with pytest.raises(GatewayError) as refused:
        drafts(bundle, "x")
    assert (Category.INVALID, where) == (refused.value.category, refused.value.where)


# -------------------------------------------------------------------- bad shapes


@pytest.mark.parametrize(("resource", "where"), [
    ({"resourceType": "Patient"}, "x"),
    (None, "x"),
    (request(code=[]), "x.code"),
    (request(code={"coding": {}}), "x.code.coding"),
    (request(code={"coding": ["CT01"]}), "x.code.coding[0]"),
    (request(code={"coding": [{"system": OWN, "code": 7}]}), "x.code.coding[0].code"),
    (request(code={"coding": [{"system": OWN, "code": "C\x00"}]}), "x.code.coding[0].code"),
    (request(code={"coding": [{"system": OWN, "code": "C\ud800"}]}), "x.code.coding[0].code"),
    (request(code={"coding": [{"system": OWN, "code": "C" * 256}]}), "x.code.coding[0]"),
    (request(code={"text": 1}), "x.code.text"),
    (request(code=None), "x.code"),
    (request(identifier={"value": "A"}), "x.identifier"),
    (request(identifier=[{"value": 5}]), "x.identifier[0].value"),
    (request(identifier=[{"value": "A" * 256}]), "x.identifier[0]"),
    (request(identifier=[{"value": "A", "type": "PLAC"}]), "x.identifier[0].type"),
    (request(bodySite={}), "x.bodySite"),
    (request(extension=[{"url": LATERALITY_EXTENSION, "valueCode": "Z"}]), "x.extension[0].valueCode"),
    (request(priority=1), "x.priority"),
    (request(reasonCode=[{"coding": [3]}]), "x.reasonCode[0].coding[0]"),
    (request(encounter="Encounter/1"), "x.encounter"),
    (request(requester={"reference": 1}), "x.requester.reference"),
    (request(id=7), "x.id"),
])
def test_a_bad_shape_is_refused_with_its_path(resource: Any, where: str) -> None:
    """What R4 does not allow, where the sender finds it."""
    with pytest.raises(GatewayError) as refused:
        made(resource, where="x")
    assert (Category.INVALID, where) == (refused.value.category, refused.value.where)


@pytest.mark.parametrize(("around", "where"), [
    ({"encounter": {"resourceType": "Patient"}}, "Encounter"),
    ({"encounter": encounter() | {"class": [{"code": "IMP"}]}}, "Encounter.class"),  # R5
    ({"encounter": encounter(period={"start": "yesterday"})}, "Encounter.period.start"),
    ({"encounter": encounter(location=[{"location": "ICU"}])}, "Encounter.location[0].location"),
    ({"procedures": [procedure("387713003"), 3]}, "Procedure[1]"),
    ({"procedures": [procedure("387713003", performedDateTime="2025-13-01")]}, "Procedure[0].performed[x]"),
    ({"procedures": [procedure("387713003", category=[])]}, "Procedure[0].category"),
    ({"procedures": 3}, "procedures"),
    ({"coverage": {"resourceType": "Claim"}}, "Coverage"),
    ({"coverage": {"resourceType": "Coverage", "type": "A"}}, "Coverage.type"),
    ({"practitioner": {"resourceType": "Patient"}}, "Practitioner"),
    ({"practitioner": {"resourceType": "Practitioner", "identifier": [1]}}, "Practitioner.identifier[0]"),
])
def test_a_bad_shape_around_the_order_is_refused(around: dict[str, Any], where: str) -> None:
    """Context resources, too: half of what was said is not what was said."""
    with pytest.raises(GatewayError) as refused:
        made(request(), **around)
    assert (Category.INVALID, where) == (refused.value.category, refused.value.where)


WHOLE = request((OWN, "CT01"), (LOINC, "29252-4"), priority="stat", category=[coded((PURPOSES, "forensic"))],
                bodySite=[coded((SNOMED, "7771000"))], requester={"reference": "Practitioner/d7"},
                encounter={"reference": "Encounter/e1"}, reasonCode=[coded((PURPOSES, "before-surgery"))],
                extension=[{"url": LATERALITY_EXTENSION, "valueCode": "L"}],
                identifier=[{"value": "A", "system": "urn:x", "type": coded((V2_0203, "PLAC"))}])
AROUND: dict[str, Any] = {
    "encounter": encounter(location=[{"location": {"reference": "Location/1"}, "status": "active"}],
                           serviceProvider={"reference": "Organization/h"}),
    "coverage": {"resourceType": "Coverage", "type": coded(("urn:x", "M"))},
    "practitioner": {"resourceType": "Practitioner", "id": "d", "identifier": [{"value": "1"}]},
    "procedure": procedure("387713003", category=coded((SNOMED, "387713003")),
                           performedPeriod={"start": "2025-06-12", "end": "2025-06-13"})}


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 1 << 24))
def test_mutated_resources_are_read_or_refused(seed: int) -> None:
    """One to four things wrong anywhere: an order whose texts can be stored, or INVALID with a place; never a crash."""
    rng = random.Random(seed)
    parts = {"request": WHOLE, **AROUND}
    for _ in range(rng.randint(1, 4)):
        name = rng.choice(["request", "request", *AROUND])
        parts[name] = mutated(parts[name], rng)
    try:
        found = made(parts["request"], encounter=parts["encounter"], coverage=parts["coverage"],
                     practitioner=parts["practitioner"], procedures=[parts["procedure"]])
    except GatewayError as refused:
        assert Category.INVALID is refused.category and refused.where
        assert "胸部" not in str(refused)
        return
    assert found.number and line_id(found.institution, found.number)
    for text in (found.number, found.local, found.display, found.doctor, found.encounter, found.scheme):
        assert isinstance(text, str) and "\x00" not in text and len(text.encode()) < 1100
    assert found.item in ("", "ECT010H", "P-CBC")


@settings(max_examples=300, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["coding", "code", "system", "value", "identifier", "entry", "resource",
                                         "resourceType", "reference"]), inner, max_size=4), max_leaves=12))
def test_any_json_is_read_or_refused(value: Any) -> None:
    """As the whole, and as each part that is read."""
    for read in (lambda: drafts(value), lambda: made(value), lambda: made(request(), encounter=value),
                 lambda: made(request(), procedures=value), lambda: made(request(), coverage=value),
                 *(lambda name=name: made(request(**{name: value})) for name in
                   ("id", "code", "identifier", "bodySite", "category", "reasonCode", "requester", "encounter",
                    "extension", "priority", "authoredOn", "subject"))):
        try:
            read()
        except GatewayError as refused:
            assert Category.INVALID is refused.category


# -------------------------------------------------------------------- results


def test_a_candidate_of_a_row_of_the_index() -> None:
    """Each column has its place."""
    row = Result("KNEE", 5, 7, "DiagnosticReport", "final", "a", 8, "L", 3)
    assert Candidate(7, "DiagnosticReport", "KNEE", 5, "final", "a", 8, Side.LEFT, 3) == candidate_from(row)
    assert Side.UNKNOWN is candidate_from(Result("X", 0, 1, "Observation", "final", "a", 0, "", 0)).side
