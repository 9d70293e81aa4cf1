"""What was not prefetched: asked of the client's FHIR server, if allowed, in time, and about the right patient."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.adapter import load_all
from gateway.config import Settings
from gateway.edges.http import create_app
from gateway.edges.http.cds_hooks import fetch
from gateway.edges.http.cds_hooks.fetch import Fetcher
from gateway.errors import GatewayError
from gateway.store import Store, open_store
from tests import cds_samples as samples
from tests.cds_samples import HAEMOGLOBIN, Server, bundle, call, order, patient, server

Body = dict[str, Any]
NUMBERS = iter(range(1, 1_000_000))
VISIT: Body = {"resourceType": "Encounter", "id": "e1", "status": "in-progress", "subject": {
    "reference": "Patient/pat-1"}, "class": {"code": "EMER"}}
KNIFE: Body = {"resourceType": "Procedure", "id": "k1", "status": "preparation",
               "subject": {"reference": "Patient/pat-1"},
               "category": {"coding": [{"system": "http://snomed.info/sct", "code": "387713003"}]}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Another hospital's report."""
    store = open_store(Settings(data=tmp_path_factory.mktemp("data")), migrate=True)
    samples.report(store, HAEMOGLOBIN, institution="issuer")
    yield store
    store.close()


def hospitals(folder: Path, *servers: str) -> Settings:
    """One hospital that has results, and one whose workstation has a FHIR server."""
    for name, more in (("issuer", ""), ("orderer", f"[cds_hooks]\nfhir_servers = {json.dumps(servers)}\n")):
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.toml").write_text(
            f'[institution]\nid = "{name}"\nname = "{name}"\ncode_system = "urn:{name}"\nquality = "all"\n'
            f'region = "330100"\n{more}')
    return Settings(data=folder, adapters=str(folder))


@pytest.fixture
def his() -> Iterator[Server]:
    """The workstation's FHIR server, with all that is asked for."""
    with server() as found:
        found.serve("/fhir/Patient/pat-1", patient())
        found.serve("/fhir/Encounter/e1", VISIT)
        found.serve("/fhir/Procedure", bundle(KNIFE))
        found.serve("/fhir/Coverage", bundle())
        yield found


@pytest.fixture
def client(his: Server, store: Store, tmp_path: Path) -> FlaskClient:
    """A gateway whose ordering hospital allows that server."""
    return create_app(hospitals(tmp_path, f"{his.base}/fhir"), store).test_client()


def ask(client: FlaskClient, store: Store, base: str, *, prefetch: Body | None = None, token: str = "secret",
        **more: Any) -> TestResponse:
    """An order-sign that prefetched nothing."""
    body = call("order-sign", order(f"F{next(NUMBERS)}"), prefetch=prefetch or {}, encounterId="e1")
    del body["extension"]
    body["fhirServer"] = base
    if token:
        body["fhirAuthorization"] = {"access_token": token, "token_type": "Bearer", "expires_in": 300,
                                     "scope": "patient/*.rs", "subject": "huren"} | more
    login = store.client_add(f"his-{next(NUMBERS)}", "orderer", ("institution/DetectedIssue.rc",))
    return client.post("/cds-services/recognition", json=body, headers={"Authorization": f"Bearer {login}"})


def refused(answer: TestResponse) -> str:
    """The sentence of a 412."""
    assert answer.status_code == 412, answer.data
    return str(answer.json["issue"][0]["diagnostics"])  # type: ignore[index]


def test_what_is_missing_is_fetched(client: FlaskClient, store: Store, his: Server) -> None:
    """The four requests of the templates, with the client's token; what they say is used."""
    answer = ask(client, store, f"{his.base}/fhir")
    assert answer.status_code == 200
    [card] = answer.json["cards"]  # type: ignore[index]
    assert sorted(path for path, _ in his.asked) == [
        "/fhir/Coverage?patient=pat-1&status=active", "/fhir/Encounter/e1", "/fhir/Patient/pat-1",
        "/fhir/Procedure?patient=pat-1&_sort=-date&_count=20"]
    assert {headers["Authorization"] for _, headers in his.asked} == {"Bearer secret"}
    assert [one["code"] for one in card["overrideReasons"]][:2] == ["R4", "R3"]  # emergency, before surgery


def test_what_was_prefetched_is_not_asked_for(client: FlaskClient, store: Store, his: Server) -> None:
    """Only the keys that are missing; ``null`` is an answer."""
    prefetch = {"patient": patient(), "encounter": None, "procedures": None}
    assert ask(client, store, f"{his.base}/fhir/", prefetch=prefetch).status_code == 200
    assert [path.partition("?")[0] for path, _ in his.asked] == ["/fhir/Coverage"]


def test_a_server_that_nobody_allowed_is_not_asked(client: FlaskClient, store: Store, his: Server) -> None:
    """Neither another address nor a longer or shorter one: the gateway is no way into a hospital's network."""
    with server() as other:
        other.serve("/fhir/Patient/pat-1", patient())
        for base in (f"{other.base}/fhir", f"{his.base}/fhir/x", his.base, f"{his.base}/fhir?x=", "file:///etc/passwd",
                     "http://169.254.169.254/latest", f"{his.base}/fhir/../fhir", "x", "http://[::1"):
            assert "fhir_servers" in refused(ask(client, store, base))
        assert other.asked == his.asked == []


def test_without_a_token_it_is_asked_without(client: FlaskClient, store: Store, his: Server) -> None:
    """A server may be open inside the hospital; a token that has run out is not shown to anybody."""
    assert ask(client, store, f"{his.base}/fhir", token="").status_code == 200
    assert ask(client, store, f"{his.base}/fhir", expires_in=0).status_code == 200
    assert all("Authorization" not in headers for _, headers in his.asked)


def test_a_token_that_is_none_is_refused(client: FlaskClient, store: Store, his: Server) -> None:
    """Nothing gets into a header that does not belong there (RFC 6750 2.1)."""
    for token in ("a b", "a\r\nX-Evil: 1", "ü", "=x"):
        assert ask(client, store, f"{his.base}/fhir", token=token).status_code == 400
    assert ask(client, store, f"{his.base}/fhir", token_type="MAC").status_code == 400
    assert ask(client, store, f"{his.base}/fhir", expires_in="300").status_code == 400
    assert his.asked == []


def test_a_slow_server_does_not_hold_the_doctor_up(client: FlaskClient, store: Store, his: Server) -> None:
    """412 within the half second when the Patient comes late; without it, when only the rest does."""
    his.serve("/fhir/Patient/pat-1", patient(), wait=2)
    began = time.perf_counter()
    assert "in time" in refused(ask(client, store, f"{his.base}/fhir"))
    assert time.perf_counter() - began < 0.5
    his.serve("/fhir/Procedure", bundle(KNIFE), wait=2)
    began = time.perf_counter()
    answer = ask(client, store, f"{his.base}/fhir", prefetch={"patient": patient()})
    assert answer.status_code == 200 and len(answer.json["cards"]) == 1  # type: ignore[index]
    assert time.perf_counter() - began < 0.5


def test_a_server_that_drips_is_left(store: Store, tmp_path: Path) -> None:
    """A byte every 50 ms keeps each single wait short: the time counts for the whole."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=feed, args=(connection,), daemon=True).start()

    def feed(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
                for _ in range(60):
                    time.sleep(0.05)
                    connection.sendall(b" ")
            except OSError:
                return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    client = create_app(hospitals(tmp_path, base), store).test_client()
    began = time.perf_counter()
    assert "in time" in refused(ask(client, store, base))
    assert time.perf_counter() - began < 0.6
    listener.close()


def test_many_at_once_meet_a_server_that_hangs(client: FlaskClient, store: Store, his: Server) -> None:
    """It holds up nobody for longer than its own time, however many ask."""
    for path in list(his.answers):
        his.serve(path, {}, wait=1)
    took: list[float] = []

    def one() -> None:
        began = time.perf_counter()
        refused(ask(client, store, f"{his.base}/fhir"))
        took.append(time.perf_counter() - began)

    threads = [threading.Thread(target=one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 12 and max(took) < 1.5


def test_a_redirect_is_not_followed(client: FlaskClient, store: Store, his: Server) -> None:
    """The token was meant for this server."""
    with server() as other:
        other.serve("/fhir/Patient/pat-1", patient())
        for status in (301, 302, 303, 307, 308):
            his.serve("/fhir/Patient/pat-1", b"", status, Location=f"{other.base}/fhir/Patient/pat-1")
            assert "key patient" in refused(ask(client, store, f"{his.base}/fhir"))
        assert other.asked == []


@pytest.mark.parametrize("content", [
    patient(id="pat-2"), {**patient(), "id": None}, {"resourceType": "Person", "id": "pat-1"}, {}, [], "x", 5,
    None,
    {"resourceType": "Patient", "id": "pat-1", "gender": "unknowable"},
    {"resourceType": "OperationOutcome", "id": "pat-1"},
    {"resourceType": "Bundle", "entry": [{"resource": patient()}]}])
def test_a_server_that_answers_something_else(client: FlaskClient, store: Store, his: Server, content: Any) -> None:
    """Another patient, another type, nonsense: as if it had not answered."""
    his.serve("/fhir/Patient/pat-1", content)
    assert "key patient" in refused(ask(client, store, f"{his.base}/fhir"))


@pytest.mark.parametrize(("status", "content", "headers"), [
    (404, patient(), {}), (401, patient(), {}), (500, patient(), {}), (204, b"", {}), (200, b"", {}), (200, b"{", {}),
    (200, b"\xff\xfe", {}), (200, b'{"resourceType":"Patient","id":"pat-1","id":"pat-1"}', {}),
    (200, json.dumps(patient()).encode() + b" " * fetch.SIZE, {}), (200, patient(), {"Content_Encoding": "gzip"}),
    (200, b"[" * 5000, {})])
def test_a_server_that_answers_badly(client: FlaskClient, store: Store, his: Server, status: int, content: Any,
                                     headers: dict[str, str]) -> None:
    """Another status, no JSON, too much, compressed without being asked: 412, never 500."""
    his.serve("/fhir/Patient/pat-1", content, status, **headers)
    assert "key patient" in refused(ask(client, store, f"{his.base}/fhir"))


def test_what_is_somebody_elses_is_left_out(client: FlaskClient, store: Store, his: Server) -> None:
    """Another patient's operation or visit says nothing of this one; the call goes on without it."""
    other = {"subject": {"reference": "Patient/pat-2"}}
    his.serve("/fhir/Procedure", bundle(KNIFE | other))
    his.serve("/fhir/Encounter/e1", VISIT | other)
    answer = ask(client, store, f"{his.base}/fhir")
    assert answer.status_code == 200
    [card] = answer.json["cards"]  # type: ignore[index]
    assert card["overrideReasons"][0]["code"] == "R1"


def test_a_server_that_is_not_there(store: Store, tmp_path: Path) -> None:
    """Nobody listens: 412, at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    client = create_app(hospitals(tmp_path, base), store).test_client()
    assert "key patient" in refused(ask(client, store, base))


def test_only_safe_addresses_may_be_allowed(tmp_path: Path) -> None:
    """https, or http on this machine; in the demo http too."""
    settings = hospitals(tmp_path, "http://his.example/fhir")
    adapters = load_all(settings.adapter_folders).all
    with pytest.raises(GatewayError, match="https"):
        Fetcher(settings, adapters)
    assert Fetcher(replace(settings, demo=True), adapters).allows("orderer", "http://his.example/fhir/")
    assert not Fetcher(replace(settings, demo=True), adapters).allows("issuer", "http://his.example/fhir")
