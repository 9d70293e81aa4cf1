"""`gateway.fhir.check` and its tables, held against the models of ``fhir.resources`` R4B."""

from __future__ import annotations

import importlib
import random
import re
from pathlib import Path
from typing import Any

import pytest
from fhir_samples import make, mutated
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Category, GatewayError
from gateway.fhir import build_elements, check, json
from gateway.fhir.elements import data_types, elements_of, resource_types
from gateway.fhir.invariants import BASE, PROFILE
from gateway.fhir.primitives import RULES

#: Redefined in R4B; every other type of R4 has the same form there, or none.
_REDEFINED = frozenset(("Evidence", "EvidenceVariable"))
#: Types of R4 whose table differs from R4B's, and the elements in which it does.
_DIFFERENCES = {
    "ActivityDefinition": {"subjectCanonical"},
    "ElementDefinition": {f"{stem}{kind}" for stem in ("defaultValue", "fixed", "pattern")
                          for kind in ("Meta", "CodeableReference", "RatioRange")},
    "ElementDefinition.example": {"valueMeta", "valueCodeableReference", "valueRatioRange"},
    "Extension": {"valueMeta", "valueCodeableReference", "valueRatioRange"},
    "PlanDefinition": {"subjectCanonical"}, "PlanDefinition.action": {"subjectCanonical"}}
_OURS = ("Bundle", "DiagnosticReport", "ImagingStudy", "Observation", "OperationOutcome", "Organization", "Patient",
         "Practitioner", "Provenance", "ServiceRequest", "Specimen", "CapabilityStatement", "Encounter", "AuditEvent")

_OBSERVATION = {
    "resourceType": "Observation", "id": "o", "status": "final", "subject": {"reference": "Patient/p"},
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}, "effectiveDateTime": "2026-11-20",
    "valueQuantity": {"value": json.number("150.0"), "system": "http://unitsofmeasure.org", "code": "g/L"},
    "referenceRange": [{"low": {"value": 115}, "high": {"value": 175}}]}


def _types() -> list[str]:
    """Every type: resources, data types and the backbone elements within them."""
    found, seen = [*sorted(resource_types() - _REDEFINED), *sorted(data_types() - {"MarketingStatus"})], set()
    while found:
        kind = found.pop(0)
        if kind not in seen:
            seen.add(kind)
            found += [e.type for e in elements_of(kind).values() if "." in e.type]
    return sorted(seen)


def _model(kind: str) -> Any:
    try:
        module = importlib.import_module(f"fhir.resources.R4B.{kind.partition('.')[0].lower()}")
    except ModuleNotFoundError:
        return None
    return getattr(module, "".join(part[0].upper() + part[1:] for part in kind.split(".")), None)


def test_tables_agree_with_another_implementation() -> None:
    """Names, order, lists, minimum and summary flags equal those of ``fhir.resources``, but for known differences."""
    compared = 0
    for kind in _types():
        model, table = _model(kind), elements_of(kind)
        if model is None:
            continue
        allowed = _DIFFERENCES.get(kind, set())
        theirs = {field.alias or name: field for name, field in model.model_fields.items()}
        names = [name for name in model.elements_sequence() if name not in allowed]
        assert sorted(names) == sorted(set(table) - allowed), kind
        stems = [table[name].choice or name for name in names]
        assert list(dict.fromkeys(stems)) == list(dict.fromkeys(e.choice or e.name for e in table.values())), kind
        for name in names:
            extra, element = theirs[name].json_schema_extra or {}, table[name]
            required = theirs[name].is_required() or extra.get("element_required") or extra.get("one_of_many_required")
            assert (bool(required), "List[" in str(theirs[name].annotation)) == (bool(element.min), element.many), kind
            if kind in _OURS:
                assert bool(extra.get("summary_element_property")) == element.summary, f"{kind}.{name}"
        compared += 1
    assert compared > 550


@pytest.mark.parametrize("kind", _OURS)
def test_codes_agree_with_another_implementation(kind: str) -> None:
    """Codes that ``fhir.resources`` lists for an element are in our required value set."""
    for name, field in _model(kind).model_fields.items():
        element = elements_of(kind).get(field.alias or name)
        listed = (field.json_schema_extra or {}).get("enum_values")
        if element and element.codes and listed:
            ours = set().union(*element.codes.values())
            assert {code for code in listed if code.replace("-", "").isalnum()} <= ours


def test_there_are_146_resource_types() -> None:
    """R4 has 148 with the two abstract ones, which nobody may send."""
    assert (len(resource_types()), bool({"Resource", "DomainResource"} & resource_types())) == (146, False)


@given(st.sampled_from(sorted(resource_types())), st.integers(0, 10**6))
def test_valid_resources_are_accepted(kind: str, seed: int) -> None:
    """Both judges accept any resource that the tables allow: the corpus of the mutations below is valid."""
    resource = make(kind, seed)
    assert check.check(resource) == []
    if kind not in _REDEFINED:
        assert [issue for issue in check.judge(resource) if issue.severity == "error"] == []


def test_the_tables_are_made_from_definitions(tmp_path: Path) -> None:
    """Backbones, choices, content references, bindings and targets of a definition, as HL7 writes it."""
    def element(path: str, *codes: Any, base: str = "", **more: Any) -> dict[str, Any]:
        types = [code if isinstance(code, dict) else {"code": code} for code in codes]
        row = {"path": path, "min": 0, "max": "1", "base": {"path": base or path}}
        return row | ({"type": types} if types else {}) | more

    url = "http://hl7.org/fhir/"
    files: dict[str, dict[str, Any]] = {
        "StructureDefinition-Cat.json": {
            "fhirVersion": "4.0.1", "kind": "resource", "type": "Cat", "derivation": "specialization",
            "baseDefinition": f"{url}StructureDefinition/DomainResource", "snapshot": {"element": [
                element("Cat"), element("Cat.id", f"{url}fhirpath/System.String", base="Resource.id"),
                element("Cat.status", "code", min=1, isSummary=True, isModifier=True,
                        binding={"strength": "required", "valueSet": f"{url}ValueSet/moods|4.0.1"}),
                element("Cat.owner", {"code": "Reference", "targetProfile": [f"{url}StructureDefinition/Patient"]},
                        max="*"),
                element("Cat.value[x]", "string", "Quantity"), element("Cat.paw", "BackboneElement", max="*"),
                element("Cat.paw.id", {"code": "http://hl7.org/fhirpath/System.String"}, base="Element.id"),
                element("Cat.paw.toe", contentReference="#Cat.paw")]}},
        "StructureDefinition-special-cat.json": {"fhirVersion": "4.0.1", "kind": "resource", "type": "Cat",
                                                 "derivation": "constraint"},
        "ValueSet-moods.json": {"url": f"{url}ValueSet/moods", "compose": {"include": [
            {"system": f"{url}mood"}, {"system": "urn:other", "concept": [{"code": "odd"}]}]}},
        "CodeSystem-mood.json": {"url": f"{url}mood", "content": "complete", "concept": [
            {"code": "good", "concept": [{"code": "very-good"}]}]}}
    for name, content in files.items():
        (tmp_path / name).write_bytes(json.dumps(content))
    built = build_elements.build(tmp_path)
    assert built["types"] == {
        "Cat": {"base": "DomainResource", "kind": "resource", "elements": [
            ["status", "code", 1, 0, 3, "moods"], ["owner", "Reference", 0, 1, 0, None, "Patient"],
            ["value[x]", "string|Quantity", 0, 0, 0], ["paw", "Cat.paw", 0, 1, 0]]},
        "Cat.paw": {"base": "BackboneElement", "kind": "element", "elements": [["toe", "Cat.paw", 0, 0, 0]]}}
    assert built["valueSets"] == {"moods": {f"{url}mood": "good very-good", "urn:other": "odd"}}


# ---------------------------------------------------------------- at least as strict as fhir.resources

def _theirs_alone(resource: dict[str, Any], issues: list[Any]) -> bool:
    """Whether the refusal is a limit of the models, of which there are three.

    Their Extension has no ``_valueString``; R4B has no Meta as a value; and a required choice must have a value there,
    where FHIR takes an extension in its place (extensibility.html#Special-Case).
    """
    return all(last.startswith("_value") and "xtension[" in issue.where
               or last in ("defaultValueMeta", "fixedMeta", "patternMeta", "valueMeta")
               or any(name[0] == "_" and name[1:] not in at for at in (_at(resource, issue.where),) for name in at)
               for issue in issues for last in (issue.where.rpartition(".")[2],))


def _at(resource: dict[str, Any], where: str) -> dict[str, Any]:
    """The object at a path, or an empty one."""
    found: Any = resource
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", where):
        try:
            found = found[name] if name else found[int(index)]
        except (KeyError, IndexError, TypeError):
            return {}
    return found if isinstance(found, dict) else {}


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(sorted(resource_types() - _REDEFINED)), st.integers(0, 2**32))
def test_we_refuse_whatever_fhir_resources_refuses(kind: str, seed: int) -> None:
    """A mutation of a valid resource that the models refuse is refused here too: the check may stand at the API."""
    given_ = mutated(make(kind, seed % 1000), random.Random(seed))
    refused = [issue for issue in check.judge(given_) if issue.severity == "error"]
    if refused and not _theirs_alone(given_, refused):
        assert check.check(given_)


@pytest.mark.long
def test_we_refuse_whatever_fhir_resources_refuses_in_many_mutations() -> None:
    """The same over a fixed corpus of 20,000, most of which the models do refuse."""
    rng, kinds, refusals = random.Random(7), sorted(resource_types() - _REDEFINED), 0
    for _ in range(20000):
        given_ = mutated(make(rng.choice(kinds), rng.randrange(1000)), rng)
        refused = [issue for issue in check.judge(given_) if issue.severity == "error"]
        refusals += bool(refused)
        if refused and not _theirs_alone(given_, refused):
            assert check.check(given_), (given_["resourceType"], refused[0])
    assert refusals > 10000


# ---------------------------------------------------------------- issues, one by one

@pytest.mark.parametrize(("change", "code", "where"), [
    ({"status": "fina"}, "code-invalid", "Observation.status"), ({"status": 1}, "value", "Observation.status"),
    ({"code": None}, "structure", "Observation.code"), ({"code": {}}, "structure", "Observation.code"),
    ({"code": {"id": "a"}}, "structure", "Observation.code"),
    ({"code": [{"text": "a"}]}, "structure", "Observation.code"),
    ({"category": {"text": "a"}}, "structure", "Observation.category"),
    ({"category": []}, "structure", "Observation.category"),
    ({"category": [{"text": "a"}, {"text": ""}]}, "value", "Observation.category[1].text"),
    ({"code": {"text": " \n"}}, "value", "Observation.code.text"),
    ({"code": {"text": "a\x07"}}, "value", "Observation.code.text"),
    ({"valueString": "x"}, "structure", "Observation.value"),
    ({"_valueString": {"extension": [{"url": "a", "valueCode": "b"}]}}, "structure", "Observation.value"),
    ({"valueInteger64": 1}, "structure", "Observation.valueInteger64"),
    ({"effectiveDateTime": "2026-02-30"}, "value", "Observation.effective"),
    ({"effectiveDateTime": "2026-11-20T08:00"}, "value", "Observation.effective"),
    ({"effectiveDateTime": "2026-11-20T08:00:00"}, "value", "Observation.effective"),
    ({"issued": "2026-11-20"}, "value", "Observation.issued"),
    ({"valueQuantity": {"value": "1"}}, "value", "Observation.value.value"),
    ({"valueQuantity": {"value": float("inf")}}, "value", "Observation.value.value"),
    ({"valueQuantity": {"value": 1, "code": "g"}}, "invariant", "Observation.value.system"),
    ({"subject": {"reference": "Practitioner/1"}}, "value", "Observation.subject.reference"),
    ({"subject": {"reference": "http://a.example/fhir/Practitioner/1"}}, "value", "Observation.subject.reference"),
    ({"subject": {"reference": "patient 1"}}, "invariant", "Observation.subject.reference"),
    ({"dataAbsentReason": {"text": "a"}}, "invariant", "Observation.dataAbsentReason"),
    ({"component": [{"code": _OBSERVATION["code"]}]}, "invariant", "Observation.component"),
    ({"category": [{}]}, "structure", "Observation.category[0]"),
    ({"component": [{"valueString": "a"}]}, "required", "Observation.component[0].code"),
    ({"referenceRange": [{"age": {"low": {"value": 1}}}]}, "invariant", "Observation.referenceRange[0]"),
    ({"extension": [{"url": "http://a"}]}, "invariant", "Observation.extension[0]"),
    ({"extension": [{"valueCode": "a"}]}, "required", "Observation.extension[0].url"),
    ({"contained": [{"resourceType": "Patient"}]}, "invariant", "Observation.contained"),
    ({"contained": [{"resourceType": "Patient", "id": "a", "gender": "x"}]}, "code-invalid",
     "Observation.contained[0].gender"),
    ({"contained": [{"id": "a"}]}, "structure", "Observation.contained[0]"),
    ({"id": "a b"}, "value", "Observation.id"), ({"id": "a" * 65}, "value", "Observation.id"),
    ({"_id": {"extension": [{"url": "a", "valueCode": "b"}]}}, "structure", "Observation._id"),
    ({"_status": {}}, "structure", "Observation.status"), ({"_code": {"id": "a"}}, "structure", "Observation._code"),
    ({"foo": 1}, "structure", "Observation.foo"), ({"王": 1}, "structure", "Observation"),
    ({"meta": {"profile": "http://a"}}, "structure", "Observation.meta.profile"),
    ({"meta": {"profile": ["a b"]}}, "value", "Observation.meta.profile[0]")])
def test_each_fault_has_a_code_and_a_place(change: dict[str, Any], code: str, where: str) -> None:
    """One change, one issue: exactly there, without the value."""
    assert check.check(_OBSERVATION) == []
    [issue] = check.check(_OBSERVATION | change)
    assert (code, where, "error") == (issue.code, issue.where, issue.severity)


@pytest.mark.parametrize("name", ["status", "code"])
def test_what_is_missing_is_required(name: str) -> None:
    """A mandatory element may be away only where an extension says why (extensibility.html#Special-Case)."""
    given_ = {k: v for k, v in _OBSERVATION.items() if k != name}
    assert [("required", f"Observation.{name}")] == [(i.code, i.where) for i in check.check(given_)]
    why = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}]}
    assert bool(check.check(given_ | {f"_{name}": why})) == (name == "code")  # only a primitive has a sibling


def test_a_required_choice() -> None:
    """Any of its types will do, or an extension that says why there is none."""
    given_ = {"resourceType": "MedicationRequest", "status": "active", "intent": "order",
              "subject": {"reference": "Patient/1"}}
    assert [issue.where for issue in check.check(given_)] == ["MedicationRequest.medication"]
    assert check.check(given_ | {"medicationReference": {"reference": "Medication/1"}}) == []


def test_lists_of_primitives_with_gaps() -> None:
    """A null stands where the ``_`` sibling has an extension, and nowhere else (json.html#primitive)."""
    why = {"extension": [{"url": "http://a", "valueCode": "masked"}]}
    name = {"given": ["a", None], "_given": [None, why]}
    assert check.check({"resourceType": "Patient", "name": [name]}) == []
    for broken in ({"given": ["a", None]}, {"given": ["a", None], "_given": [why, None]}, {"_given": [None]},
                   {"given": ["a"], "_given": [None, why]}, {"given": ["a"], "_given": [None]}):
        assert check.check({"resourceType": "Patient", "name": [broken]}), broken


def test_every_issue_is_found_at_once() -> None:
    """A sender mends all of it in one go."""
    found = check.check(_OBSERVATION | {"status": "x", "foo": 1, "issued": "y"})
    assert {"Observation.status", "Observation.foo", "Observation.issued"} == {issue.where for issue in found}


def test_a_fault_within_a_bundle_has_its_place_there() -> None:
    """The path goes through entries."""
    bundle = {"resourceType": "Bundle", "type": "collection",
              "entry": [{"resource": _OBSERVATION}, {"resource": _OBSERVATION | {"status": "x"}}]}
    assert [issue.where for issue in check.check(bundle)] == ["Bundle.entry[1].resource.status"]


@pytest.mark.parametrize("resource", [{}, {"resourceType": "Nope"}, {"resourceType": ["Patient"]},
                                      {"resourceType": "DomainResource"}, {"resourceType": "HumanName"}])
def test_an_unknown_type_is_refused(resource: dict[str, Any]) -> None:
    """By both judges."""
    assert check.check(resource) and check.judge(resource)


_TIMES = st.datetimes(timezones=st.just(None)).map(lambda t: t.isoformat(timespec="milliseconds"))


@given(_TIMES, st.sampled_from(("Z", "+08:00", "-03:30", "+14:00")))
def test_every_real_time_is_accepted(time: str, zone: str) -> None:
    """Any calendar day and clock time with any zone is an instant and a dateTime; its day is a date."""
    assert (RULES["instant"](time + zone), RULES["dateTime"](time + zone),
                                  RULES["date"](time[:10])) == (None, None, None)
    assert RULES["dateTime"](time) and RULES["instant"](time[:10]) and RULES["date"](time + zone)


@pytest.mark.parametrize(("kind", "good", "bad"), [
    ("base64Binary", ["AAEC", "aGk=\n", "AA=="], ["", "A", "AA=", "a-_b", 1]),
    ("boolean", [True, False], [1, "true", None]),
    ("code", ["a", "a b"], ["", " a", "a ", "a  b", "a\tb", 1]),
    ("date", ["2026", "2026-12", "2024-02-29"], ["26", "2026-13", "2025-02-29", "0000", "2026-1-1", "2026-01-01Z"]),
    ("decimal", [1, 1.5, json.number("1e3")], [True, "1", None, float("nan")]),
    ("id", ["a", "A.b-1"], ["", "a_b", "a/b", "a" * 65, "ａ"]),
    ("integer", [0, -2147483648, 2147483647], [2147483648, True, json.number("1.0"), "1"]),
    ("oid", ["urn:oid:1.2.3"], ["1.2.3", "urn:oid:3.1", "urn:oid:1.02"]),
    ("positiveInt", [1], [0, -1]), ("unsignedInt", [0], [-1, 2147483648]),
    ("string", [" a ", "a\nb\tc"], ["", "  ", "\x00", "\ud800", "\uffff", 1]),
    ("time", ["08:00:00", "23:59:60", "00:00:00.5"], ["24:00:00", "8:00:00", "08:00", "08:00:00Z"]),
    ("uri", ["urn:x", "a"], ["", "a b", 1]), ("url", ["http://a", "mailto:a@b", "Patient/1"], ["", "::", "a b"]),
    ("uuid", ["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"], ["c757873d-ec9a-4326-a141-556f43239520", "urn:uuid:x",
                                                                 "urn:uuid:C757873D-EC9A-4326-A141-556F43239520"])])
def test_the_format_of_each_primitive(kind: str, good: list[Any], bad: list[Any]) -> None:
    """datatypes.html#primitive: what is written so is accepted, and nothing else."""
    assert [None] * len(good) == [RULES[kind](value) for value in good]
    assert [value for value in bad if RULES[kind](value) is None] == []


_CHARACTERS = st.sampled_from("aZ9-./ \t\n\r\x00\x0b\x1f\x7f\x85\xa0\u1680\u2028\u3000\ud800\udfff\ue000\ufffe\uffff"
                              "１血\U0001f600")


@given(st.text(_CHARACTERS | st.characters(), max_size=6))
def test_the_short_ways_accept_what_the_definitions_accept(text: str) -> None:
    """Whatever the characters, a string, a code and a URI are what the definitions' own patterns say."""
    forbidden = re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", text) is not None
    string = re.search(r"[^ \t\r\n]", text) is not None and not forbidden
    code = re.fullmatch(r"[^\s]+(?: [^\s]+)*", text) is not None and not forbidden
    uri = re.fullmatch(r"[^\s\x00-\x1f]+", text) is not None and not forbidden
    assert (RULES["string"](text) is None, RULES["code"](text) is None, RULES["uri"](text) is None) == (
        string, code, uri)


# ---------------------------------------------------------------- what our conversions make

_COMMON = {"meta": {"source": "urn:huren:a"}, "identifier": [{"system": "urn:huren:a:filler", "value": "F1"}]}
_MADE = {
    "Observation": _OBSERVATION | _COMMON,
    "DiagnosticReport": {"resourceType": "DiagnosticReport", "id": "r", "status": "final",
                         "code": _OBSERVATION["code"], "subject": {"reference": "Patient/p"}} | _COMMON,
    "Patient": {"resourceType": "Patient", "id": "p"} | _COMMON}


@pytest.mark.parametrize(("kind", "without", "where"), [
    ("Observation", "subject", "Observation.subject"), ("Observation", "meta", "Observation.meta.source"),
    ("Observation", "valueQuantity", "Observation"), ("Observation", "id", "Observation.id"),
    ("DiagnosticReport", "identifier", "DiagnosticReport.identifier"), ("Patient", "identifier", "Patient.identifier")])
def test_conversions_owe_more_than_the_base(kind: str, without: str, where: str) -> None:
    """What the base allows to leave out, our profiles ask of what the adapters make."""
    check.require_valid(_MADE[kind], profile=True)
    given_ = {name: value for name, value in _MADE[kind].items() if name != without}
    check.require_valid(given_)
    with pytest.raises(GatewayError) as caught:
        check.require_valid(given_, profile=True)
    assert (Category.INVALID, where, "required") == (caught.value.category, caught.value.where, caught.value.detail)


def test_a_text_alone_is_no_code() -> None:
    """A converted Observation carries a coding, the hospital's own at least."""
    with pytest.raises(GatewayError, match="coding"):
        check.require_valid(_MADE["Observation"] | {"code": {"text": "Hb"}}, profile=True)


def test_rules_name_types_that_exist() -> None:
    """A rule for a misspelt type would never be asked."""
    for kind in (*BASE, *PROFILE):
        assert elements_of(kind)
