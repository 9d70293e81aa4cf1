"""The HTTP edge on a real port: granian's workers, a client that the project did not write, and what a crash does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import AuthorizationError, OperationOutcome, ResourceNotFound

from gateway.config import Settings
from gateway.store import Store

ROOT = Path(__file__).parents[1]
SERVE = """
import logging, sys
from pathlib import Path
from gateway.config import Settings
from gateway.edges.http import serve
from gateway.errors import GatewayError
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
settings = Settings(data=Path(sys.argv[1]), database_url=sys.argv[2], http=sys.argv[3], http_workers=2,
                    demo=sys.argv[4] == "demo")
try:
    serve(settings, lambda: print("ready", flush=True))
except GatewayError as error:
    sys.exit(str(error))
"""


@dataclass
class Server:
    """A running edge."""

    process: subprocess.Popen[str]
    port: int

    @property
    def base(self) -> str:
        """The FHIR base."""
        return f"http://127.0.0.1:{self.port}/fhir"

    def get(self, path: str) -> bytes:
        """The body of a GET outside ``/fhir``."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read()

    def connect(self) -> http.client.HTTPConnection:
        """A keep-alive connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextlib.contextmanager
def serving(settings: Settings, demo: bool = True) -> Iterator[Server]:
    """The edge with two workers on a free port, over a migrated database."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = start(settings, port, demo)
    server = Server(process, port)
    workers: list[psutil.Process] = []
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        workers = server.workers()
        yield server
    finally:
        for one in (*workers, *(server.workers() if process.poll() is None else ())):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.kill()
        process.wait()


def start(settings: Settings, port: int, demo: bool = True) -> subprocess.Popen[str]:
    """The process."""
    arguments = [str(settings.data), settings.database_url, f"127.0.0.1:{port}", "demo" if demo else ""]
    return subprocess.Popen([sys.executable, "-c", SERVE, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@pytest.fixture
def server(settings: Settings, store: Store) -> Iterator[Server]:
    """A server of the demo; the store has migrated the database."""
    with serving(settings) as running:
        yield running


def observation(n: int, **more: Any) -> dict[str, Any]:
    """An Observation of a day."""
    return {"resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/p1"},
            "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
            "effectiveDateTime": f"2026-01-{n % 28 + 1:02}T08:00:00+08:00", "valueInteger": n, **more}


def test_fhirpy_reads_writes_searches_and_walks_pages(settings: Settings, store: Store) -> None:
    """With a token: create, read, update, search, all pages, delete; without one nothing."""
    token = store.client_add("fhirpy", None, ["system/*.cruds"])
    with serving(settings, demo=False) as server:
        client = SyncFHIRClient(server.base, authorization=f"Bearer {token}")
        person = client.resource("Patient", name=[{"family": "Wang", "given": ["Wei"]}], gender="male")
        person.save()
        assert person["meta"]["versionId"] == "1"
        person["gender"] = "female"
        person.save()
        assert client.reference("Patient", person["id"]).to_resource()["gender"] == "female"
        for n in range(7):
            client.resource(**{**observation(n), "resource_type": "Observation",
                               "subject": person.to_reference()}).save()
        found = client.resources("Observation").search(patient=person["id"]).sort("-date").limit(3)
        assert [o["valueInteger"] for o in found.fetch()] == [6, 5, 4]
        assert [o["valueInteger"] for o in found.fetch_all()] == [6, 5, 4, 3, 2, 1, 0]
        assert client.resources("Patient").search(name="wang", _summary="count").fetch_raw()["total"] == 1
        assert client.resources("Patient").search(name="wang").first()["id"] == person["id"]
        person.delete()
        with pytest.raises(ResourceNotFound):
            client.reference("Patient", person["id"]).to_resource()
        with pytest.raises(OperationOutcome):
            client.resources("Patient").search(colour="red").fetch()
        with pytest.raises(AuthorizationError):
            SyncFHIRClient(server.base).resources("Patient").fetch()


def test_many_writers_over_two_workers_lose_nothing(server: Server) -> None:
    """Eight connections write at once; every acknowledged resource is there, and the figures of all workers add up."""
    failures: list[str] = []

    def work(worker: int) -> None:
        connection = server.connect()
        for n in range(20):
            body = json.dumps(observation(n, id=f"o-{worker}-{n}"))
            connection.request("PUT", f"/fhir/Observation/o-{worker}-{n}", body,
                               {"Content-Type": "application/fhir+json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                failures.append(f"{answer.status}")
    threads = [threading.Thread(target=work, args=(w,)) for w in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert json.loads(server.get("/fhir/Observation?_summary=count"))["total"] == 160
    assert 'huren_http_requests_total{interaction="update",status="201"} 160' in server.get("/metrics").decode()


def test_http_as_clients_send_it(server: Server) -> None:
    """Chunked bodies, Expect: 100-continue, HEAD and several requests on one connection."""
    connection = server.connect()
    body = json.dumps(observation(1, id="chunked")).encode()
    connection.request("PUT", "/fhir/Observation/chunked", iter([body[:10], body[10:]]),
                       {"Content-Type": "application/fhir+json", "Transfer-Encoding": "chunked"}, encode_chunked=True)
    made = connection.getresponse()
    assert made.status == 201 and json.loads(made.read())["id"] == "chunked"
    connection.request("HEAD", "/fhir/Observation/chunked")
    head = connection.getresponse()
    assert (head.status, head.read()) == (200, b"") and int(head.headers["Content-Length"]) > 100
    connection.request("GET", "/fhir/Observation/chunked", headers={"If-None-Match": 'W/"1"'})
    fresh = connection.getresponse()
    assert (fresh.status, fresh.read()) == (304, b"")
    connection.request("DELETE", "/fhir/Observation/chunked")
    gone = connection.getresponse()
    assert (gone.status, gone.read()) == (204, b"")
    raw = socket.create_connection(("127.0.0.1", server.port), 10)
    raw.sendall(b"PUT /fhir/Observation/expected HTTP/1.1\r\nHost: x\r\nContent-Type: application/fhir+json\r\n"
                b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1))
    assert b" 100 " in raw.recv(1000)
    raw.sendall(body.replace(b"chunked", b"expected"))
    assert b" 201 " in raw.recv(4000)
    raw.close()


def test_what_is_no_http_does_no_harm(server: Server) -> None:
    """Rubbish, half a request and a connection that says nothing leave the server as it was."""
    idle = socket.create_connection(("127.0.0.1", server.port), 10)
    for rubbish in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"MSH|^~\\&|\r",
                    b"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"):
        with socket.create_connection(("127.0.0.1", server.port), 10) as broken:
            broken.sendall(rubbish)
    assert server.get("/healthz") == b"ok\n"
    idle.close()


def test_a_killed_worker_is_started_again(server: Server) -> None:
    """SIGKILL of one worker: the other answers meanwhile, and soon there are two again."""
    before = {one.pid for one in server.workers()}
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    until = time.monotonic() + 10
    answered = 0
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            answered += server.get("/healthz") == b"ok\n"
        now = {one.pid for one in server.workers()}
        if len(now) == 2 and min(before) not in now:
            break
        time.sleep(0.05)
    assert len(now) == 2 and min(before) not in now and answered
    for _ in range(10):
        assert server.get("/readyz") == b"ready\n"


def test_sigterm_answers_what_is_under_way_and_ends(server: Server) -> None:
    """A transaction that was sent before SIGTERM is answered; then all processes are gone with status 0."""
    entries = [{"resource": observation(n, id=f"o{n}"), "request": {"method": "PUT", "url": f"Observation/o{n}"}}
               for n in range(2000)]
    body = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    workers = server.workers()
    connection = server.connect()
    connection.request("POST", "/fhir", body, {"Content-Type": "application/fhir+json"})
    time.sleep(0.05)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    answer = connection.getresponse()
    assert answer.status == 200 and len(json.loads(answer.read())["entry"]) == 2000
    assert server.process.wait(10) == 0 and time.monotonic() - began < 9.5
    _, alive = psutil.wait_procs(workers, timeout=3)
    assert alive == []


def test_workers_end_with_their_parent(server: Server) -> None:
    """When the parent is killed no worker keeps the port."""
    workers = server.workers()
    server.process.kill()
    _, alive = psutil.wait_procs(workers, timeout=9)
    assert alive == []
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
        pass


def test_a_taken_port_is_refused_in_words(server: Server, settings: Settings) -> None:
    """Two gateways would share the connections of one port; the second does not start."""
    second = start(settings, server.port)
    _, said = second.communicate(timeout=20)
    assert second.returncode == 1 and re.search(r"cannot listen on 127\.0\.0\.1:\d+ .*HUREN_HTTP", said)
    assert server.get("/healthz") == b"ok\n"
