"""`gateway.fhir.xml` and `gateway.fhir.narrative`."""

from __future__ import annotations

import importlib
import random
from typing import Any

import pytest
from fhir_samples import make, mutated
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from gateway.errors import Category, GatewayError
from gateway.fhir import check, json, narrative, xml
from gateway.fhir.elements import resource_types

_KINDS = st.sampled_from(sorted(resource_types()))
#: fhir.resources' own XML reader takes these only.
_OURS = ("DiagnosticReport", "ImagingStudy", "Observation", "Organization", "Patient", "Practitioner", "Provenance",
         "ServiceRequest", "Specimen")


def _members(value: Any) -> Any:
    """The same with sorted members, to compare whatever their order and with the decimals' own text."""
    if isinstance(value, dict):
        return {name: _members(value[name]) for name in sorted(value)}
    return [_members(item) for item in value] if isinstance(value, list) else value


def _same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert json.dumps(_members(first)) == json.dumps(_members(second))


@given(_KINDS, st.integers(0, 10**6))
def test_json_to_xml_to_json_is_identical(kind: str, seed: int) -> None:
    """Every R4 type: lists, choices, ``_`` siblings, contained resources and decimals come back to the character."""
    given_ = make(kind, seed, 0.5)
    _same(given_, xml.from_xml(xml.to_xml(given_)))


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip(" \t\r\n") and not check.check({"resourceType": "Basic", "code": {"text": text}})))
def test_any_string_that_the_check_accepts_survives_xml(text: str) -> None:
    """Line ends, tabs and quotes within a string are kept: what is stored can be served as XML."""
    given_ = {"resourceType": "Basic", "code": {"text": text}}
    _same(given_, xml.from_xml(xml.to_xml(given_)))


def test_elements_stand_in_the_order_of_the_base_definition() -> None:
    """Whatever the JSON order; Element.id and Extension.url are attributes, Resource.id is an element."""
    given_ = {"resourceType": "Patient", "birthDate": "1970-01-01", "_birthDate": {"id": "b"}, "active": True,
              "extension": [{"valueDecimal": json.number("1.50"), "url": "http://x", "id": "e"}], "id": "p",
              "name": [{"given": ["a", "b"], "family": "c"}]}
    assert xml.to_xml(given_) == (b'<?xml version="1.0" encoding="UTF-8"?><Patient xmlns="http://hl7.org/fhir">'
            b'<id value="p"/>'
            b'<extension id="e" url="http://x"><valueDecimal value="1.50"/></extension><active value="true"/>'
            b'<name><family value="c"/><given value="a"/><given value="b"/></name>'
            b'<birthDate id="b" value="1970-01-01"/></Patient>')


def test_an_object_that_has_an_element_named_resource_type() -> None:
    """ExampleScenario.instance.resourceType is an element like others."""
    given_ = {"resourceType": "ExampleScenario", "status": "draft",
              "instance": [{"resourceId": "1", "resourceType": "Patient"}]}
    assert check.check(given_) == []
    _same(given_, xml.from_xml(xml.to_xml(given_)))


@pytest.mark.parametrize("kind", _OURS)
def test_fhir_resources_reads_our_xml(kind: str) -> None:
    """Another implementation understands what we write as what we meant."""
    model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
    judged = 0
    for seed in range(20):
        given_ = _plain(make(kind, seed))
        read = model.model_validate_xml(xml.to_xml(given_))
        assert model.model_validate(given_).model_dump_json() == read.model_dump_json()
        judged += 1
    assert judged == 20


@pytest.mark.parametrize("kind", _OURS)
def test_we_read_the_xml_of_fhir_resources(kind: str) -> None:
    """We understand another implementation; its own model is the measure (it writes times another way)."""
    model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
    for seed in range(20):
        theirs = model.model_validate(_plain(make(kind, seed)))
        ours = xml.from_xml(_bytes(theirs.model_dump_xml()))
        assert model.model_validate(ours).model_dump_json() == theirs.model_dump_json()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _plain(value: Any) -> Any:
    """Without what fhir.resources loses in XML: ids and ``_`` siblings, contained resources, narratives, decimals."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()
                if name[0] != "_" and name not in ("contained", "id") and (name != "text" or isinstance(item, str))}
    if isinstance(value, list):
        return [_plain(item) for item in value if item is not None]
    if isinstance(value, bool | int | str):
        return value
    return json.number("2.5")


_OPEN = b'<Patient xmlns="http://hl7.org/fhir">'


@pytest.mark.parametrize("raw", [
    b"", b"<", b"<Patient", b"not xml", b"\xff\xfe<",
    b'<!DOCTYPE Patient [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + _OPEN + b'<id value="&x;"/></Patient>',
    b'<!DOCTYPE Patient [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
    + _OPEN + b'<id value="&c;"/></Patient>',
    b'<!DOCTYPE Patient SYSTEM "http://127.0.0.1:9/x.dtd">' + _OPEN + b"</Patient>", b"<!DOCTYPE Patient>" + _OPEN
    + b"</Patient>", _OPEN + b"<contact>" * 300 + b"</contact>" * 300 + b"</Patient>",
    _OPEN + b'<extension url="a">' * 200 + b"</extension>" * 200 + b"</Patient>"])
def test_what_is_no_safe_xml_is_malformed(raw: bytes) -> None:
    """Entities, document types, external files and endless nesting are refused before anything is read."""
    with pytest.raises(GatewayError) as caught:
        xml.from_xml(raw)
    assert Category.MALFORMED is caught.value.category


@pytest.mark.parametrize(("body", "where"), [
    (b'<foo value="a"/>', "Patient"), (b"text", "Patient"), (b'<active value="yes"/>', "Patient.active"),
    (b"<active/>", "Patient.active"), (b'<id value="a"/><id value="b"/>', "Patient.id"),
    (b'<active xmlns="" value="true"/>', "Patient"), (b'<name family="a"/>', "Patient.name"),
    (b'<multipleBirthInteger value="1.5"/>', "Patient.multipleBirthInteger"), (b"<?pi x?>", "Patient"),
    (b'<contained><Nope/></contained>', "Patient.contained"), (b"<contained/>", "Patient.contained"),
    (b'<extension><url value="a"/></extension>', "Patient.extension"),
    (b'<text><status value="empty"/><div>a</div></text>', "Patient.text.div")])
def test_what_r4_does_not_know_is_invalid_with_its_place(body: bytes, where: str) -> None:
    """Each fault is at the element that has it."""
    with pytest.raises(GatewayError) as caught:
        xml.from_xml(_OPEN + body + b"</Patient>")
    assert (Category.INVALID, where) == (caught.value.category, caught.value.where)


@pytest.mark.parametrize("raw", [b"<Patient/>", b'<Nope xmlns="http://hl7.org/fhir"/>',
                                 b'<Resource xmlns="http://hl7.org/fhir"/>'])
def test_the_root_must_be_a_resource(raw: bytes) -> None:
    """Of FHIR's namespace and of a concrete type."""
    with pytest.raises(GatewayError, match="root|namespace"):
        xml.from_xml(raw)


@pytest.mark.parametrize("given_", [
    {"resourceType": "Nope"}, {"resourceType": "Patient", "foo": 1},
    {"resourceType": "Patient", "name": {"family": "a"}},
    {"resourceType": "Patient", "active": None}, {"resourceType": "Patient", "active": [True]},
    {"resourceType": "Patient", "name": ["a"]}, {"resourceType": "Patient", "id": "\x00"},
    {"resourceType": "Patient", "contained": [{"a": 1}]},
    {"resourceType": "Patient", "text": {"status": "empty", "div": "<div>"}}])
def test_what_r4_does_not_know_is_not_written(given_: dict[str, Any]) -> None:
    """A resource that the check would refuse never becomes XML."""
    assert check.check(given_)
    with pytest.raises(GatewayError) as caught:
        xml.to_xml(given_)
    assert Category.INVALID is caught.value.category


@settings(max_examples=500)
@given(_KINDS, st.integers(0, 2**32))
def test_no_resource_is_our_fault(kind: str, seed: int) -> None:
    """What the check accepts is written and read back; anything else is written or refused, and never breaks us."""
    given_ = mutated(make(kind, seed % 1000), random.Random(seed))
    try:
        text = xml.to_xml(given_)
    except GatewayError as error:
        assert (error.category, bool(check.check(given_))) == (Category.INVALID, True)
    else:
        if not check.check(given_):
            _same(given_, xml.from_xml(text))


@settings(max_examples=500)
@given(_KINDS, st.integers(0, 10**6), st.data())
def test_no_xml_is_our_fault(kind: str, seed: int, data: st.DataObject) -> None:
    """A document with a piece cut out or doubled is read or refused in our own words."""
    text = xml.to_xml(make(kind, seed))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    try:
        found = xml.from_xml(text[:start] + text[start:end] * data.draw(st.integers(0, 2)) + text[end:])
    except GatewayError as error:
        assert error.category in (Category.MALFORMED, Category.INVALID)
    else:
        assert found["resourceType"] in resource_types()


def test_prefixes_comments_and_schema_locations_are_understood() -> None:
    """The same information set, written another way."""
    raw = (b'<f:Patient xmlns:f="http://hl7.org/fhir" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
           b'xsi:schemaLocation="http://hl7.org/fhir patient.xsd"><!-- a -->\n <f:active value="true"/>'
           b'<f:text><f:status value="generated"/><h:div xmlns:h="http://www.w3.org/1999/xhtml">a</h:div></f:text>'
           b"</f:Patient>")
    found = xml.from_xml(raw)
    assert found["active"] is True and narrative.problem(found["text"]["div"]) is None
    _same(found, xml.from_xml(xml.to_xml(found)))


def test_a_bundle_is_one_xml_document() -> None:
    """Entries hold whole resources of several types, each with its own decimals."""
    bundle = {"resourceType": "Bundle", "type": "searchset", "total": 2, "entry": [
        {"fullUrl": f"http://a/{kind}/1", "resource": make(kind, 3) | {"id": "1"},
         "search": {"mode": "match", "score": json.number("0.90")}} for kind in ("Observation", "Patient")]}
    text = xml.to_xml(bundle)
    assert b'"0.90"' in text and len(etree.fromstring(text).findall("{http://hl7.org/fhir}entry")) == 2
    _same(bundle, xml.from_xml(text))


@pytest.mark.parametrize(("inner", "well"), [
    ("<p>a</p>", True), ('<a href="http://x">a</a>', True), ('<img src="data:image/png;base64,AA"/>', True),
    ("", False), ("  ", False), ("<script>a</script>", False), ('<p onclick="a">a</p>', False),
    ('<a href=" javascript:a">a</a>', False), ("<iframe>a</iframe>", False), ("a&nbsp;b", False), ("<p>a", False),
    ('<svg xmlns="http://www.w3.org/2000/svg">a</svg>', False), ("<form>a</form>", False),
    ('<img src="data:text/html,a"/>', False)])
def test_a_narrative_shows_and_never_runs(inner: str, well: bool) -> None:
    """txt-1 and txt-2: basic formatting with content; what a browser would run or load into a frame is refused."""
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{inner}</div>'
    resource = {"resourceType": "Patient", "text": {"status": "generated", "div": div}}
    assert well == (check.check(resource) == [])
