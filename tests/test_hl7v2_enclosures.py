"""Documents and pointers in OBX-5 (ED, RP)."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.hl7v2 import clinical_document
from gateway.source import Conversion, Document
from tests.support_source import OBR, convert, observation, resources

PDF = b"%PDF-1.4 \xe6\x8a\xa5\xe5\x91\x8a\n%%EOF"
CDA = """<?xml version="1.0" encoding="{encoding}"?>
<ClinicalDocument xmlns="urn:hl7-org:v3"><title>出院 小结</title><component><structuredBody>
<component><section><title>诊断</title><text><paragraph>肺炎 <content>右下叶</content>，好转</paragraph>
<list><item>甲</item><item>乙</item></list></text></section></component>
<component><section><text><table><tbody><tr><td>WBC</td><td>5.1</td></tr></tbody></table></text></section></component>
</structuredBody></component></ClinicalDocument>"""


def _ed(sent: str, **changes: Any) -> Conversion:
    return convert(f"OBX|1|ED|PDF^报告^L||{sent}||||||F|||20240102090000", **changes)


def _one(conversion: Conversion) -> tuple[dict[str, Any], Document]:
    """The only form of the only report, and its bytes."""
    [report] = resources(conversion, "DiagnosticReport")
    [form], [document] = report["presentedForm"], conversion.documents
    return form, document


def _escaped(text: str) -> str:
    for char, letter in (("\\", "E"), ("|", "F"), ("^", "S"), ("&", "T"), ("~", "R")):
        text = text.replace(char, f"\\{letter}\\")
    return text.replace("\n", "\\.br\\")


def test_a_document_is_a_binary_that_report_and_observation_name() -> None:
    """presentedForm and the Observation's extension name one Binary, with size, SHA-1, title and time; no bytes."""
    conversion = _ed(f"LIS^Application^PDF^Base64^{base64.b64encode(PDF).decode()}")
    form, document = _one(conversion)
    [binary] = resources(conversion, "Binary")
    assert form == {
        "contentType": "application/pdf", "url": f"Binary/{binary['id']}", "size": len(PDF),
        "hash": base64.b64encode(hashlib.sha1(PDF).digest()).decode(), "title": "报告",
        "creation": "2024-01-02T09:00:00+08:00"}
    assert document == Document(binary["id"], "application/pdf", PDF)
    [patient] = resources(conversion, "Patient")
    assert binary["securityContext"] == {"reference": f"Patient/{patient['id']}"} and "data" not in binary
    [found] = resources(conversion, "Observation")
    assert found["extension"] == [{
        "url": "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.valueAttachment",
        "valueAttachment": form}]
    assert found["dataAbsentReason"]["coding"][0]["code"] == "unsupported" and "component" not in found
    order = [change.resource["resourceType"] for change in conversion.changes]
    assert order.index("Binary") < order.index("Observation") < order.index("DiagnosticReport")
    assert conversion.remarks == []
    for change in conversion.changes:
        check.require_valid(change.resource, profile=True)


def test_the_same_document_twice_is_one_binary_and_another_is_another() -> None:
    """A resend changes nothing; a corrected document gets a Binary of its own."""
    sent = base64.b64encode(PDF).decode()
    first, again = (_one(_ed(f"^AP^PDF^Base64^{sent}"))[0] for _ in range(2))
    corrected = _one(_ed(f"^AP^PDF^Base64^{base64.b64encode(PDF + b'2').decode()}"))[0]
    assert first == again and corrected["url"] != first["url"]
    conversion = convert(*(f"OBX|{n}|ED|PDF^报告^L||^AP^PDF^Base64^{sent}||||||F" for n in (1, 2)))
    assert len(conversion.documents) == len(resources(conversion, "Binary")) == 1
    [report] = resources(conversion, "DiagnosticReport")
    assert len(report["presentedForm"]) == 1


def test_two_documents_of_one_observation() -> None:
    """OBX-5 repeats: two forms, two extensions."""
    conversion = _ed(f"^AP^PDF^Base64^{base64.b64encode(PDF).decode()}~^IM^JPEG^Hex^FFD8FF00")
    [report] = resources(conversion, "DiagnosticReport")
    assert [form["contentType"] for form in report["presentedForm"]] == ["application/pdf", "image/jpeg"]
    assert len(resources(conversion, "Observation")[0]["extension"]) == 2


@pytest.mark.parametrize("sent, media, data", [
    ("^TEXT^^A^abc", "text/plain; charset=utf-8", b"abc"),
    ("^TX^^A^报告", "text/plain; charset=utf-8", "报告".encode()),
    ("^TX^^A^a^b\\T\\c", "text/plain; charset=utf-8", b"a^b&c"), ("^image^jpeg^Hex^FFD8", "image/jpeg", b"\xff\xd8"),
    ("^application/pdf^^Base64^JVBERg==", "application/pdf", b"%PDF"),
    ("^AP^^Base64^AAAA", "application/octet-stream", b"\0\0\0"),
    ("^AP^PDF^Base64^JVBE\\.br\\Rg==", "application/pdf", b"%PDF"),
    ("^AP^PDF^base64^JVBE Rg==", "application/pdf", b"%PDF"),
    ("^AP^PDF^BASE-64^JVBERi0xLjQ=", "application/pdf", b"%PDF-1.4"),
    ("^AP^PDF^^JVBERi0xLjQ=", "application/pdf", b"%PDF-1.4"),
    ("JVBERi0xLjQ=", "application/pdf", b"%PDF-1.4"), ("^TEXT^^^JVBE", "text/plain; charset=utf-8", b"JVBE")])
def test_encodings_of_documents(sent: str, media: str, data: bytes) -> None:
    """A, Hex and Base64, in lines or not; an unknown encoding only where the bytes show a known kind of document."""
    form, document = _one(_ed(sent))
    assert (form["contentType"], document.content_type, document.data) == (media, media, data)


@pytest.mark.parametrize("data, media", [
    (PDF, "application/pdf"), (b"\n" + PDF, "application/pdf"), (b"\xff\xd8\xff\xe0", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n...", "image/png"), (b"GIF89a..", "image/gif"), (b"II*\0..", "image/tiff"),
    (b"{\\rtf1 x}", "application/rtf"), (bytes(128) + b"DICM", "application/dicom"), (b"BM\x08\0\0\0..", "image/bmp"),
    (b"<!DOCTYPE html><p>x", "text/html"), (b"<a/>", "text/xml"), (b'<svg xmlns="http://www.w3.org/2000/svg"/>',
                                                                   "image/svg+xml"),
    (b'<html xmlns="http://www.w3.org/1999/xhtml"/>', "application/xhtml+xml")])
def test_the_bytes_tell_the_type(data: bytes, media: str) -> None:
    """What is declared as a Word file but is not is kept under its own type, with a remark; untold types need none."""
    encoded = base64.b64encode(data).decode()
    conversion = _ed(f"^application^msword^Base64^{encoded}")
    assert _one(conversion)[0]["contentType"] == media
    assert [remark.where for remark in conversion.remarks] == ["OBX[1]-5"]
    conversion = _ed(f"^AP^^Base64^{encoded}")
    assert _one(conversion)[0]["contentType"] == media and conversion.remarks == []


@pytest.mark.parametrize("sent, media", [
    ("^IM^JPG^Hex^FFD8FF", "image/jpeg"), ("^image^pjpeg^Hex^FFD8FF", "image/jpeg"),
    ("^text^rtf^A^{\\E\\rtf1}", "application/rtf"), ("^AP^XML^A^<a/>", "application/xml"),
    ("^application^fhir+xml^A^<a/>", "application/fhir+xml"), ("^AP^ZIP^Base64^UEsDBA==", "application/zip"),
    ("^application^vnd.ms-excel^Base64^0M8R4KGxGuE=", "application/vnd.ms-excel")])
def test_other_names_of_a_type_are_no_lie(sent: str, media: str) -> None:
    """JPG is JPEG, and XML of a declared kind is of that kind: no remark."""
    conversion = _ed(sent)
    assert _one(conversion)[0]["contentType"] == media and conversion.remarks == []


@pytest.mark.parametrize("sent", ["^AP^PDF^Base64^JVB!", "^AP^PDF^Base64^JVBER", "^AP^PDF^Hex^XY",
                                  "^AP^PDF^Base64^报告"])
def test_a_broken_document_is_refused(sent: str) -> None:
    """Half a document is INVALID at OBX-5: nobody could open it."""
    with pytest.raises(GatewayError) as refusal:
        _ed(sent)
    assert (refusal.value.category, refusal.value.where) == (Category.INVALID, "OBX-5")


def test_an_empty_document_is_no_value() -> None:
    """ED without data: a reason, no Binary."""
    conversion = _ed("^AP^PDF^Base64^")
    assert conversion.documents == [] and "presentedForm" not in resources(conversion, "DiagnosticReport")[0]


@pytest.mark.parametrize("encoding", ["UTF-8", "GB18030", "UTF-16"])
def test_a_clinical_document_shows_its_title_and_text(encoding: str) -> None:
    """CDA has its own media type; its title names the form, its sections can be read in the report's narrative."""
    data = CDA.format(encoding=encoding).encode(encoding)
    conversion = _ed(f"^AP^XML^Base64^{base64.b64encode(data).decode()}")
    form, document = _one(conversion)
    assert (form["contentType"], form["title"], document.data) == ("application/hl7-cda+xml", "出院 小结", data)
    [report] = resources(conversion, "DiagnosticReport")
    assert report["text"]["div"] == (
        '<div xmlns="http://www.w3.org/1999/xhtml"><h4>诊断</h4><p>肺炎 右下叶，好转<br/>甲<br/>乙</p>'
        '<p>WBC 5.1</p></div>')


@pytest.mark.parametrize("encoding", ["UTF-8", "GBK", "no-such"])
def test_xml_that_came_as_text_is_kept_in_the_encoding_it_declares(encoding: str) -> None:
    """Encoding A: the text was decoded with the message; the bytes are made such that their own declaration is true."""
    text = CDA.format(encoding=encoding)
    form, document = _one(_ed(f"^AP^XML^A^{_escaped(text)}"))
    if encoding == "no-such":
        assert (form["contentType"], document.data) == ("application/xml", text.encode())
    else:
        assert (form["contentType"], document.data.decode(encoding)) == ("application/hl7-cda+xml", text)


_LOL = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
HOSTILE = {
    "billion laughs": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{_LOL}]>'
                      '<ClinicalDocument xmlns="urn:hl7-org:v3"><title>&l11;</title></ClinicalDocument>',
    "external entity": '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><ClinicalDocument '
                       'xmlns="urn:hl7-org:v3"><title>&e;</title></ClinicalDocument>',
    "external subset": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><ClinicalDocument xmlns="urn:hl7-org:v3"/>',
    "late declaration": "<!--" + "x" * 5000 + f"--><!DOCTYPE x [<!ENTITY l0 'lol'>{_LOL}]><x>&l11;</x>",
    "undeclared entity": '<ClinicalDocument xmlns="urn:hl7-org:v3"><title>&nbsp;</title></ClinicalDocument>',
    "very deep": "<a>" * 100_000 + "</a>" * 100_000,
    "XInclude": '<ClinicalDocument xmlns="urn:hl7-org:v3"><title><xi:include parse="text" '
                'xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/hostname"/></title></ClinicalDocument>'}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_hostile_xml_is_kept_as_bytes_and_never_expanded(kind: str, encoding: str) -> None:
    """No entity grows, no file is read, no time is lost; the bytes stay as they came."""
    data, began = HOSTILE[kind].encode(encoding), time.perf_counter()
    conversion = _ed(f"^AP^XML^Base64^{base64.b64encode(data).decode()}")
    assert time.perf_counter() - began < 2
    form, document = _one(conversion)
    assert document.data == data and form["title"] == "报告"
    assert form["contentType"] == ("application/hl7-cda+xml" if kind == "XInclude" else "application/xml")
    assert "text" not in resources(conversion, "DiagnosticReport")[0]


def test_a_huge_clinical_document_shows_only_as_much_as_can_be_read() -> None:
    """The narrative holds no more than 64 K characters of it; the bytes are whole."""
    section = f"<section><title>段</title><text>{'很' * 1000}</text></section>"
    data = f'<ClinicalDocument xmlns="urn:hl7-org:v3"><title>x</title>{section * 200}</ClinicalDocument>'.encode()
    found = clinical_document.read(data)
    assert found is not None and sum(len(text) for _, text in found.sections) <= 64 * 1024 and found.sections


@given(st.one_of(st.binary(max_size=200), st.text(max_size=80).map(lambda t: f"<a>{t}</a>".encode())))
def test_any_bytes_are_a_document(data: bytes) -> None:
    """Whatever the bytes are, they come out as they went in."""
    if data:
        assert _one(_ed(f"^AP^PDF^Base64^{base64.b64encode(data).decode()}"))[1].data == data


def test_a_document_outside_a_report_keeps_its_bytes() -> None:
    """An OBX of the patient (2.7): the Observation alone names the Binary."""
    conversion = convert("OBX|1|ED|PDF^报告^L||^AP^PDF^Base64^JVBERg==||||||F", OBR)
    [binary] = resources(conversion, "Binary")
    found = resources(conversion, "Observation")[0]
    assert found["extension"][0]["valueAttachment"]["url"] == f"Binary/{binary['id']}"


def test_pointers_are_attachments_by_url() -> None:
    """RP with a URL: no Binary; a path, a UID and what a browser would run stay text."""
    conversion = convert("OBX|1|RP|IMG^图像||https://pacs.example/1^^image^jpeg||||||F")
    [report] = resources(conversion, "DiagnosticReport")
    assert report["presentedForm"] == [{"contentType": "image/jpeg", "url": "https://pacs.example/1", "title": "图像"}]
    assert conversion.documents == []
    for pointer in ("\\E\\\\E\\server\\E\\share", "javascript:alert(1)", "data:text/html,x", "/a/b.pdf", "1.2.3.4.5"):
        found = observation(f"OBX|1|RP|IMG||{pointer}||||||F")
        assert found["valueString"] == pointer.replace("\\E\\", "\\")
