"""Binary at the FHIR API: documents that messages brought, the messages themselves, and what clients wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from lxml import etree
from support_source import MSH, OBR, PID, segment, text
from test_http_server import serving
from werkzeug.test import TestResponse

from gateway import hl7v2
from gateway.adapter import load_all
from gateway.caller import GATEWAY
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.edges.http import create_app
from gateway.edges.http.binaries import WHOLE, range_of
from gateway.edges.http.interactions import text_of_row
from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.hl7v2.builder import Builder
from gateway.hl7v2.documents import document
from gateway.pipeline import Pipeline, document_key
from gateway.source import message_digest, original_id
from gateway.store import Store
from gateway.store.model import Access, Put, Unit

Token = Callable[..., dict[str, str]]
FHIR_JSON, FHIR_XML = {"Accept": "application/fhir+json"}, {"Accept": "application/fhir+xml"}
PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40 + b"\n%%EOF"
WBC = "OBX|1|NM|WBC^白细胞^L||5.10|10*9/L|3.5-9.5|N|||F"


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
    def add(*scopes: str, institution: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {store.client_add(f'c-{uuid.uuid4()}', institution, scopes)}"}
    return add


@pytest.fixture
def pipeline(settings: Settings, store: Store) -> Pipeline:
    """A pipeline that takes every sender: MSH-4 H1 is the institution ``generic-h1``."""
    return Pipeline(settings, store, load_all([SHIPPED_ADAPTERS], "generic"))


def keep(store: Store, data: bytes = PDF, media_type: str = "application/pdf", institution: str = "h1",
         whole: str = "3a3e3f00-add2-5d4a-948a-c39fd8f9cdac") -> str:
    """What the pipeline does with a document of a message; its Binary's id."""
    raw = text(MSH, PID, OBR, WBC).encode()
    adapters = load_all([SHIPPED_ADAPTERS], "generic")
    source = adapters.for_hl7("H1", "", "").source_for("H1")
    builder = Builder(hl7v2.parse(raw), replace(source, institution=institution))
    attachment = document(builder, whole, media_type, data, "Patient/p1")
    [kept], [change] = builder.conversion.documents, builder.conversion.changes
    check.require_valid(change.resource, profile=True)
    store.objects.put(document_key(institution, kept.id), kept.data)
    store.write(Unit([Put({"resourceType": "Patient", "id": "p1"}, institution),
                      Put(change.resource, institution, change.as_of, change.on_older)]), GATEWAY)
    assert attachment["url"] == f"Binary/{kept.id}" and attachment["size"] == len(data)
    assert base64.b64decode(attachment["hash"]) == hashlib.sha1(data).digest()
    return kept.id


def reads_of(store: Store, name: str) -> list[Access]:
    """The audit rows of the downloads of a Binary."""
    found = [row.access for row in store.audit_rows()]
    return [access for access in found if (access.target, access.outcome) == (f"Binary/{name}", 200)]


def body(response: TestResponse) -> dict[str, Any]:
    """JSON of an answer, which must be valid R4."""
    found: dict[str, Any] = json.loads(response.data)
    assert check.check(found) == []
    return found


# ---------------------------------------------------------------- bytes of the object store

def test_a_document_is_read_as_bytes_or_as_resource(client: FlaskClient, store: Store) -> None:
    """By its own type unless FHIR's are asked for in so many words (http/binary.html); the store's text has no data."""
    name = keep(store)
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/pdf"}, {"Accept": "text/html,*/*;q=0.8"},
                   {"Accept": "application/json"}, {"Accept": "application/pdf, application/fhir+json;q=0.5"}):
        raw = client.get(f"/fhir/Binary/{name}", headers=accept)
        assert (raw.status_code, raw.content_type, raw.data) == (200, "application/pdf", PDF), accept
        assert raw.headers["ETag"] == 'W/"1"' and raw.headers["X-Content-Type-Options"] == "nosniff"
        assert raw.headers["X-Security-Context"] == "Patient/p1" and raw.headers["Content-Length"] == str(len(PDF))
    for accept, query in ((FHIR_JSON, ""), ({}, "?_format=json"), ({"Accept": "*/*, application/fhir+json"}, ""),
                          (FHIR_JSON, "?_pretty=true"), (FHIR_JSON, "?_elements=data")):
        found = client.get(f"/fhir/Binary/{name}{query}", headers=accept)
        made = body(found)
        assert base64.b64decode(made["data"]) == PDF and made["contentType"] == "application/pdf"
        assert int(found.headers["Content-Length"]) == len(found.data)
        assert found.headers["ETag"] == 'W/"1"'
    xml = client.get(f"/fhir/Binary/{name}", headers=FHIR_XML)
    [data] = etree.fromstring(xml.data).findall("{http://hl7.org/fhir}data")
    assert base64.b64decode(data.get("value")) == PDF and int(xml.headers["Content-Length"]) == len(xml.data)
    assert "data" not in body(client.get(f"/fhir/Binary/{name}?_summary=true", headers=FHIR_JSON))
    [entry] = body(client.get(f"/fhir/Binary?_id={name}"))["entry"]
    assert "data" not in entry["resource"]


def test_every_length_comes_back(client: FlaskClient, store: Store) -> None:
    """Base64 is put together over the parts of a stream."""
    for size in (0, 1, 2, 3, (4 << 20) - 1, (4 << 20) + 5):
        data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
        name = keep(store, data, "application/octet-stream")
        assert client.get(f"/fhir/Binary/{name}").data == data
        found = client.get(f"/fhir/Binary/{name}", headers=FHIR_JSON)
        assert base64.b64decode(json.loads(found.data)["data"]) == data
        assert int(found.headers["Content-Length"]) == len(found.data)


def test_head_etag_and_versions(client: FlaskClient, store: Store) -> None:
    """HEAD says length and type of what GET sends; a copy that is current is 304; vread is as read."""
    name = keep(store)
    head = client.head(f"/fhir/Binary/{name}")
    assert (head.status_code, head.content_length, head.content_type, head.data) == \
        (200, len(PDF), "application/pdf", b"")
    for headers in ({"If-None-Match": 'W/"1"'}, {"If-None-Match": 'W/"1"', **FHIR_JSON},
                    {"If-Modified-Since": head.headers["Last-Modified"]}):
        assert client.get(f"/fhir/Binary/{name}", headers=headers).status_code == 304
    assert client.get(f"/fhir/Binary/{name}/_history/1").data == PDF
    assert client.get(f"/fhir/Binary/{name}/_history/2").status_code == 404
    assert client.get(f"/fhir/Binary/{name}/_history/x").status_code == 404
    assert client.delete(f"/fhir/Binary/{name}").status_code == 204
    assert client.get(f"/fhir/Binary/{name}").status_code == 410
    assert client.get(f"/fhir/Binary/{name}/_history/1").data == PDF


_RANGES: list[tuple[str, bytes | None]] = [
    ("bytes=0-9", PDF[:10]), ("bytes=10-", PDF[10:]), ("bytes=-4", PDF[-4:]), ("bytes=5-99999999", PDF[5:]),
    ("bytes=-99999999", PDF), ("bytes=9-2", None), ("lines=1-2", None), ("bytes=0-1,4-5", None), ("bytes=-", None)]


def test_a_range_of_bytes(client: FlaskClient, store: Store) -> None:
    """One range is answered with 206; what is none, or several, with everything (RFC 9110 14.2)."""
    name = keep(store)
    for header, expected in _RANGES:
        found = client.get(f"/fhir/Binary/{name}", headers={"Range": header})
        if expected is None:
            assert (found.status_code, found.data) == (200, PDF), header
            continue
        start = PDF.index(expected) if expected != PDF else 0
        assert (found.status_code, found.data) == (206, expected), header
        assert found.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{len(PDF)}"
        assert client.get(f"/fhir/Binary/{name}", headers={"Range": header, "If-Range": 'W/"1"'}).data == PDF


def test_a_range_outside_is_refused(client: FlaskClient, store: Store) -> None:
    """416 with the length, so that the client can ask again; blocks of a large range join without a seam."""
    name = keep(store)
    found = client.get(f"/fhir/Binary/{name}", headers={"Range": f"bytes={len(PDF)}-"})
    assert found.status_code == 416 and found.headers["Content-Range"] == f"bytes */{len(PDF)}"
    assert body(found)["resourceType"] == "OperationOutcome"
    with pytest.raises(GatewayError) as refused:
        range_of("bytes=-0", 5)
    assert refused.value.category is Category.INVALID
    large = bytes(range(256)) * 40_000
    name = keep(store, large, "application/octet-stream")
    assert client.get(f"/fhir/Binary/{name}", headers={"Range": "bytes=1-9999999"}).data == large[1:10_000_000]


#: As stored, as sent, shown in place, sandboxed.
_TYPES = [
    ("application/pdf", "application/pdf", True, False), ("image/jpeg", "image/jpeg", True, True),
    ("text/plain", "text/plain; charset=utf-8", True, True), ("text/html", "text/html; charset=utf-8", False, True),
    ("image/svg+xml", "image/svg+xml", False, True), ("application/xml", "application/xml", False, True),
    ("text/xml;charset=utf-8", "text/xml;charset=utf-8", False, True),
    ("APPLICATION/PDF", "APPLICATION/PDF", True, False), ("application/rtf", "application/rtf", False, True),
    ("nonsense", "application/octet-stream", False, True), ("text/html x", "application/octet-stream", False, True)]


def test_nothing_runs_as_a_page_of_ours(client: FlaskClient, store: Store) -> None:
    """HTML, SVG and XML are for saving and sandboxed; a type that is none is bytes; no browser guesses another."""
    for number, (media_type, sent, inline, sandboxed) in enumerate(_TYPES):
        name = keep(store, f"<script>alert('一{number}')</script>".encode(), media_type)
        found = client.get(f"/fhir/Binary/{name}")
        assert (found.status_code, found.headers["Content-Type"]) == (200, sent)
        assert found.headers["Content-Disposition"].startswith("inline;" if inline else "attachment;")
        assert ("sandbox" in found.headers.get("Content-Security-Policy", "")) is sandboxed
        assert found.headers["X-Content-Type-Options"] == "nosniff"


def test_text_of_another_charset_is_not_called_utf_8(client: FlaskClient, store: Store) -> None:
    """The sender's bytes stay as they are and nothing is said that is not known."""
    name = keep(store, "报告".encode("gb18030"), "text/plain")
    found = client.get(f"/fhir/Binary/{name}")
    assert (found.headers["Content-Type"], found.data) == ("text/plain", "报告".encode("gb18030"))


def test_a_large_document_is_never_in_memory_as_a_whole(client: FlaskClient, store: Store) -> None:
    """30 MB go out in parts, as bytes and as JSON; where one piece would be needed the refusal says what to do."""
    large = b"%PDF" + b"\0" * (30 << 20)
    name = keep(store, large)
    digest = hashlib.sha256(large).digest()
    size = len(large)
    del large
    tracemalloc.start()
    try:
        response = client.get(f"/fhir/Binary/{name}", buffered=False)
        hashed = hashlib.sha256()
        for part in response.response:
            hashed.update(part)
        as_json = client.get(f"/fhir/Binary/{name}", headers=FHIR_JSON, buffered=False)
        length = sum(len(part) for part in as_json.response)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert hashed.digest() == digest and length == int(as_json.headers["Content-Length"]) > size * 4 // 3
    assert peak < 16 << 20, peak
    assert size > WHOLE
    refused = client.get(f"/fhir/Binary/{name}?_pretty=true", headers=FHIR_JSON)
    assert refused.status_code == 400 and "by itself" in body(refused)["issue"][0]["diagnostics"]


def test_bytes_that_are_lost_are_told(client: FlaskClient, store: Store) -> None:
    """404 with what the operator can do, in either form; never a document without its content."""
    name = keep(store)
    store.objects.delete(document_key("h1", name))
    for headers in ({}, FHIR_JSON):
        found = client.get(f"/fhir/Binary/{name}", headers=headers)
        assert found.status_code == 404 and "restore" in body(found)["issue"][0]["diagnostics"]


def test_a_batch_reads_documents_whole(client: FlaskClient, store: Store) -> None:
    """An entry's answer is the resource with its data, for originals too."""
    name = keep(store)
    batch = {"resourceType": "Bundle", "type": "batch", "entry": [
        {"request": {"method": "GET", "url": f"Binary/{name}"}},
        {"request": {"method": "GET", "url": f"Binary/{name}/_history/1"}}]}
    found = body(client.post("/fhir", data=json.dumps(batch), headers={"Content-Type": "application/fhir+json"}))
    assert [base64.b64decode(entry["resource"]["data"]) for entry in found["entry"]] == [PDF, PDF]


def test_what_a_client_writes_it_reads(client: FlaskClient) -> None:
    """A Binary with data by POST or PUT; bytes, JSON and XML; one without data is the resource that it is."""
    sent = {"Content-Type": "application/fhir+json"}
    given = {"resourceType": "Binary", "contentType": "application/pdf", "data": base64.b64encode(PDF).decode()}
    made = client.post("/fhir/Binary", data=json.dumps(given), headers=sent)
    name = body(made)["id"]
    assert made.status_code == 201 and body(made)["data"] == given["data"]
    assert client.get(f"/fhir/Binary/{name}").data == PDF
    assert client.get(f"/fhir/Binary/{name}", headers={"Range": "bytes=0-3"}).data == b"%PDF"
    assert body(client.get(f"/fhir/Binary/{name}", headers=FHIR_JSON))["data"] == given["data"]
    assert b"<data value=" in client.get(f"/fhir/Binary/{name}", headers=FHIR_XML).data
    empty = {"resourceType": "Binary", "id": "b1", "contentType": "text/plain"}
    assert client.put("/fhir/Binary/b1", data=json.dumps(empty), headers=sent).status_code == 201
    assert body(client.get("/fhir/Binary/b1"))["contentType"] == "text/plain"


def test_who_may_read_a_document(guarded: FlaskClient, store: Store, token: Token) -> None:
    """Scopes on Binary and on what its security context names; one's own institution where the scope says so."""
    name = keep(store)
    assert guarded.get(f"/fhir/Binary/{name}").status_code == 401
    allowed = [token("system/*.rs"), token("system/Binary.r", "system/Patient.r"),
               token("institution/*.rs", institution="h1")]
    assert [guarded.get(f"/fhir/Binary/{name}", headers=t).status_code for t in allowed] == [200] * 3
    without = [token("system/Binary.r"), token("system/Patient.r"), token("institution/*.rs", institution="h2")]
    assert [guarded.get(f"/fhir/Binary/{name}", headers=t).status_code for t in without] == [403, 403, 404]
    rows = reads_of(store, name)
    [person] = store.persons_of(["p1"]).values()
    assert len(rows) == 3 and all(row.persons == (person,) and row.action == "read" for row in rows)


# ---------------------------------------------------------------- the message itself

def receive(pipeline: Pipeline, *segments: str) -> tuple[bytes, str]:
    """A message that is stored, and the id of its original."""
    raw = text(*segments).encode()
    receipt = pipeline.receive_hl7(raw, "10.0.0.9:1")
    assert receipt.category is None, receipt.message
    return raw, original_id(message_digest("hl7v2", raw))


def test_a_stored_message_is_read_as_it_came(client: FlaskClient, pipeline: Pipeline) -> None:
    """Bytes, JSON and XML; ETag; never written, deleted or put into a batch's writes."""
    raw, name = receive(pipeline, WBC)
    found = client.get(f"/fhir/Binary/{name}")
    assert (found.status_code, found.data) == (200, raw)
    assert found.headers["Content-Type"] == "x-application/hl7-v2+er7"
    assert found.headers["Content-Disposition"] == f'attachment; filename="{name}.hl7"'
    made = body(client.get(f"/fhir/Binary/{name}", headers=FHIR_JSON))
    assert base64.b64decode(made["data"]) == raw and made["meta"]["source"] == "urn:huren:generic-h1"
    assert client.get(f"/fhir/Binary/{name}", headers={"If-None-Match": 'W/"1"'}).status_code == 304
    assert client.get(f"/fhir/Binary/{name}/_history/1").data == raw
    assert client.get(f"/fhir/Binary/{name}/_history/2").status_code == 404
    assert client.get(f"/fhir/Binary/{name}/_history").status_code == 404
    assert client.get(f"/fhir/Binary/hl7v2-{'0' * 32}").status_code == 404
    sent = {"Content-Type": "application/fhir+json"}
    own = {"resourceType": "Binary", "id": name, "contentType": "text/plain"}
    writes = [{"request": {"method": "PUT", "url": f"Binary/{name}"}, "resource": own},
              {"request": {"method": "DELETE", "url": f"Binary/{name}"}}]
    assert client.put(f"/fhir/Binary/{name}", data=json.dumps(own), headers=sent).status_code == 405
    assert client.delete(f"/fhir/Binary/{name}").status_code == 405
    for kind in ("batch", "transaction"):
        for entry in writes:
            bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry]}
            answer = client.post("/fhir", data=json.dumps(bundle), headers=sent)
            assert (answer.status_code if kind == "transaction" else
                    int(body(answer)["entry"][0]["response"]["status"][:3])) == 405


def test_every_resource_leads_back_to_its_message(client: FlaskClient, pipeline: Pipeline) -> None:
    """Provenance by target, and by the message; each message of a batch has its own."""
    one, name = receive(pipeline, WBC)
    two, other = receive(pipeline, MSH.replace("|M1|", "|M2|"), segment("OBR", {3: "F2", 4: "CBC", 25: "F"}), WBC)
    for raw, original in ((one, name), (two, other)):
        [made] = [e["resource"] for e in body(client.get(f"/fhir/Provenance?entity=Binary/{original}"))["entry"]]
        assert client.get(f"/fhir/{made['entity'][0]['what']['reference']}").data == raw
        for target in made["target"]:
            found = body(client.get(f"/fhir/Provenance?target={target['reference']}"))
            assert made["id"] in [entry["resource"]["id"] for entry in found["entry"]], target


def test_what_every_type_of_message_makes_leads_back_to_it(settings: Settings, store: Store) -> None:
    """All examples of all hospitals, of every type that is taken: each resource that they leave has its Provenance,
    and that its message, byte for byte; what an attachment names is there."""
    from test_adapters import FOLDERS

    pipeline = Pipeline(settings, store, load_all([SHIPPED_ADAPTERS], "generic"))
    sent, kinds = {}, set()
    for path in sorted(path for folder in FOLDERS for path in (folder / "examples").glob("*.hl7")):
        receipt = pipeline.receive_hl7(path.read_bytes(), "127.0.0.1:1")
        if receipt.category is None:
            sent[original_id(message_digest("hl7v2", path.read_bytes()))] = path.read_bytes()
            kinds.add(hl7v2.peek(path.read_bytes()).message_type[0])
    assert {"ORU", "ORM", "DFT", "MDM", "SIU"} <= kinds
    client = create_app(replace(settings, demo=True), store).test_client()
    targets: dict[str, set[str]] = {}
    for row in store.history("Provenance", None, GATEWAY, 100_000):
        made = json.loads(text_of_row(row))
        for name in (entity["what"].get("reference", "").removeprefix("Binary/") for entity in made.get("entity", ())):
            for target in made["target"]:
                targets.setdefault(target["reference"], set()).add(name)
    documents = 0
    for kind in store.counts()["resources"]:
        for row in store.history(kind, None, GATEWAY, 100_000):
            if kind in ("Provenance", "DetectedIssue") or row.deleted or row.id == row.institution:
                continue
            assert targets.get(f"{kind}/{row.id}", set()) & sent.keys(), kind
            given = json.loads(text_of_row(row))
            forms = given.get("presentedForm", []) + [one["attachment"] for one in given.get("content", ())]
            for form in forms if kind in ("DiagnosticReport", "DocumentReference") else ():
                if form.get("url", "").startswith("Binary/"):
                    data = client.get(f"/fhir/{form['url']}").data
                    assert (len(data), hashlib.sha1(data).digest()) == (form["size"], base64.b64decode(form["hash"]))
                    documents += 1
    assert documents >= 3
    for name, raw in sent.items():
        assert client.get(f"/fhir/Binary/{name}").data == raw


def test_each_message_of_a_batch_is_its_own(client: FlaskClient, pipeline: Pipeline) -> None:
    """FHS and BHS belong to none of them."""
    one, two = (text(MSH.replace("|M1|", f"|M{n}|"), segment("OBR", {3: f"F{n}", 4: "CBC", 25: "F"}), WBC).encode()
                for n in (1, 2))
    for raw in hl7v2.split(b"FHS|^~\\&|LIS\rBHS|^~\\&|LIS\r" + one + two + b"BTS|2\rFTS|1\r"):
        assert pipeline.receive_hl7(raw, "10.0.0.9:1").category is None
        found = client.get(f"/fhir/Binary/{original_id(message_digest('hl7v2', raw))}")
        assert found.data == raw and raw.startswith(b"MSH") and b"FTS" not in raw


def test_two_messages_of_one_control_id_have_a_provenance_each(client: FlaskClient, pipeline: Pipeline) -> None:
    """The same MSH-10 and MSH-7 with other content does not take the first one's Provenance away."""
    _, first = receive(pipeline, WBC)
    _, second = receive(pipeline, segment("OBR", {3: "F2", 4: "CBC", 25: "F"}), WBC)
    assert [len(body(client.get(f"/fhir/Provenance?entity=Binary/{name}"))["entry"]) for name in (first, second)] == \
        [1, 1]


def test_a_message_that_is_not_stored_is_not_shown(client: FlaskClient, pipeline: Pipeline) -> None:
    """What lies in quarantine is the operator's."""
    raw = text(segment("OBR", {3: "F2", 25: "F"}), WBC).encode()
    assert pipeline.receive_hl7(raw, "10.0.0.9:1").category == "invalid"
    assert client.get(f"/fhir/Binary/{original_id(message_digest('hl7v2', raw))}").status_code == 404


def test_who_may_download_a_message(guarded: FlaskClient, pipeline: Pipeline, store: Store, token: Token) -> None:
    """Only who may read every type, for a message may hold any; of one's own institution where the scope says so.

    Each download leaves an audit row with the persons of all the message's patients.
    """
    second = ("PID|2||P2^^^H1^MR||李^四", segment("OBR", {3: "F2", 4: "CBC", 25: "F"}), WBC)
    raw, name = receive(pipeline, PID, OBR, WBC, *second)
    allowed = [token("system/*.r"), token("institution/*.cruds", institution="generic-h1")]
    for headers in allowed:
        assert guarded.get(f"/fhir/Binary/{name}", headers=headers).data == raw
    refused = {403: [token("system/Binary.r", "system/Provenance.rs"), token("system/*.cs"),
                     token("system/Patient.rs", "institution/Binary.r", institution="generic-h1")],
               404: [token("institution/*.rs", institution="generic-h2"), token("institution/*.rs")]}
    for status, clients in refused.items():
        for headers in clients:
            found = guarded.get(f"/fhir/Binary/{name}", headers=headers)
            assert found.status_code == status and raw not in found.data
    patients = [row.id for row in store.history("Patient", None, GATEWAY, 10)]
    persons = tuple(sorted(store.persons_of(patients).values()))
    rows = reads_of(store, name)
    assert len(persons) == 2 and [row.persons for row in rows] == [persons, persons]


# ---------------------------------------------------------------- on a real port

@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_large_document_goes_through_the_server_in_parts(settings: Settings, store: Store) -> None:
    """96 MB as bytes, as JSON and by range, over one connection; the workers never hold all of it."""
    data = bytes(range(256)) * (96 << 12)
    small, name = keep(store), keep(store, data)
    with serving(settings) as server:
        connection = server.connect()
        for headers in ({}, FHIR_JSON):  # what is loaded once
            connection.request("GET", f"/fhir/Binary/{small}", headers=headers)
            assert connection.getresponse().read()
        before = sum(worker.memory_info().rss for worker in server.workers())

        def get(headers: dict[str, str], method: str = "GET") -> tuple[int, int, bytes]:
            connection.request(method, f"/fhir/Binary/{name}", headers=headers)
            answer = connection.getresponse()
            size, hashed = 0, hashlib.sha256()
            while part := answer.read(1 << 20):
                size += len(part)
                hashed.update(part)
            return answer.status, int(answer.headers["Content-Length"]), hashed.digest() if size else b""

        whole = hashlib.sha256(data).digest()
        assert get({}) == (200, len(data), whole)
        assert get({}, "HEAD") == (200, len(data), b"")
        status, length, _ = get(FHIR_JSON)
        assert status == 200 and length > len(data) * 4 // 3
        assert get({"Range": "bytes=1-25000000"}) == (206, 25_000_000, hashlib.sha256(data[1:25_000_001]).digest())
        connection.close()
        grown = sum(worker.memory_info().rss for worker in server.workers()) - before
    assert grown < len(data), grown  # some 50 MB: what eight threads' allocators keep of the parts
