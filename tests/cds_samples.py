"""CDS Hooks in tests: requests as a workstation sends them, keys that sign, and a small HTTP server to ask."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.caller import GATEWAY
from gateway.store import Store
from gateway.store.model import Put, Unit

Resource = dict[str, Any]
ITEMS = "http://huren.example/fhir/CodeSystem/recognition-item"
NATIONAL = "urn:oid:2.16.156.10011.1.3"
IDENTITY = "330101195803129010"
#: The hospitals of the demo: one that has results, one whose doctors order.
ISSUER, ORDERER = "hz-demo-1", "hz-demo-2"
HAEMOGLOBIN, ALT, AST, CHEST_CT = "THM003M", "TBC001O", "TBC002M", "ECT010H"


def patient(identity: str = IDENTITY, **more: Any) -> Resource:
    """The patient as the ordering hospital knows him."""
    return {"resourceType": "Patient", "id": "pat-1", "gender": "male" if int(identity[16]) % 2 else "female",
            "birthDate": f"{identity[6:10]}-{identity[10:12]}-{identity[12:14]}", "identifier": [
                {"system": NATIONAL, "value": identity}]} | more


def order(number: str = "N1", code: str = HAEMOGLOBIN, system: str = ITEMS, **more: Any) -> Resource:
    """A draft order."""
    return {"resourceType": "ServiceRequest", "id": f"sr-{number}", "status": "draft", "intent": "order",
            "identifier": [{"system": "urn:his:orders", "value": number}], "subject": {"reference": "Patient/pat-1"},
            "requester": {"reference": "Practitioner/dr-li"}, "authoredOn": "2026-03-10T09:00:00+08:00",
            "code": {"coding": [{"system": system, "code": code}]}} | more


def bundle(*orders: Resource) -> Resource:
    """Draft orders."""
    return {"resourceType": "Bundle", "entry": [{"resource": one} for one in orders]}


def call(hook: str = "order-sign", *orders: Resource, prefetch: Resource | None = None, **context: Any) -> Resource:
    """A request; ``prefetch`` is the Patient's where it is not given."""
    more: Resource = {} if hook == "patient-view" else {"draftOrders": bundle(*(orders or (order(),)))}
    if hook == "order-select":
        more["selections"] = [f"{one['resourceType']}/{one['id']}" for one in orders or (order(),)]
    return {"hook": hook, "hookInstance": str(uuid.uuid4()),
            "context": {"userId": "Practitioner/dr-li", "patientId": "pat-1"} | more | context,
            "prefetch": {"patient": patient()} if prefetch is None else prefetch,
            "extension": {"huren.example.institution": ORDERER}}


def report(store: Store, *items: str, name: str = "r1", days: float = 2, identity: str = IDENTITY,
           institution: str = ISSUER, **more: Any) -> None:
    """A final laboratory report of another hospital, so many days ago, with a result of each item."""
    when = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    who = patient(identity, id=f"{institution}-{name}")
    shared: Resource = {"status": "final", "subject": {"reference": f"Patient/{who['id']}"}, "effectiveDateTime": when}
    observations = [{"resourceType": "Observation", "id": f"{name}-{item}", "valueQuantity": {"value": 5},
                     "code": {"coding": [{"system": ITEMS, "code": item}]}} | shared | more for item in items]
    made: Resource = {"resourceType": "DiagnosticReport", "id": name, "code": {"text": "report"}} | shared
    made["result"] = [{"reference": f"Observation/{one['id']}"} for one in observations]
    store.write(Unit([Put(one, institution) for one in (who, *observations, made)]), GATEWAY)


def exam(store: Store, item: str = CHEST_CT, *, name: str = "x1", identity: str = IDENTITY,
         institution: str = ISSUER) -> None:
    """A final imaging report of another hospital, two days old, with its study."""
    when = (datetime.now(UTC) - timedelta(days=2)).isoformat(timespec="seconds")
    who = patient(identity, id=f"{institution}-{name}")
    subject = {"reference": f"Patient/{who['id']}"}
    study: Resource = {"resourceType": "ImagingStudy", "id": f"{name}-s", "status": "available", "subject": subject}
    made: Resource = {"resourceType": "DiagnosticReport", "id": name, "status": "final", "subject": subject,
                      "effectiveDateTime": when, "code": {"coding": [{"system": ITEMS, "code": item}]},
                      "imagingStudy": [{"reference": f"ImagingStudy/{name}-s"}]}
    store.write(Unit([Put(one, institution) for one in (who, study, made)]), GATEWAY)


# ---------------------------------------------------------------- signing

class Key:
    """A client's key pair."""

    def __init__(self, alg: str = "ES384", kid: str = "k1", bits: int = 2048) -> None:
        self.alg, self.kid = alg, kid
        curve = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}.get(alg)
        self.private: Any = ec.generate_private_key(curve()) if curve else rsa.generate_private_key(65537, bits)

    def public(self, **more: Any) -> dict[str, Any]:
        """As JWK."""
        algorithm = jwt.algorithms.get_default_algorithms()[self.alg]
        made: dict[str, Any] = algorithm.to_jwk(self.private.public_key(), as_dict=True)  # type: ignore[attr-defined]
        made.pop("key_ops", None)
        return made | {"kid": self.kid, "use": "sig", "alg": self.alg} | more

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A token; a header of None is left out."""
        return jwt.encode(claims, self.private, self.alg, {"kid": self.kid, "typ": "JWT"} | header)


def claims(audience: Any, issuer: str = "https://his.example/", **more: Any) -> dict[str, Any]:
    """The claims of a new token; those of None are left out."""
    now = int(time.time())
    made = {"iss": issuer, "aud": audience, "iat": now, "exp": now + 300, "jti": str(uuid.uuid4())} | more
    return {name: value for name, value in made.items() if value is not None}


# ---------------------------------------------------------------- a server to ask

#: What a path answers: status, headers, body, seconds to wait before.
Answer = tuple[int, dict[str, str], bytes, float]


class Server:
    """Answers GET as it is told, and remembers what it was asked: (path, headers)."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.answers: dict[str, Answer | Callable[[], Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def serve(self, path: str, content: Any, status: int = 200, wait: float = 0.0, **headers: str) -> None:
        """JSON at a path (without its query)."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.answers[path] = (status, headers, body, wait)


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server on a free port of this machine."""
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            own.asked.append((self.path, dict(self.headers)))
            found = own.answers.get(self.path.partition("?")[0], (404, {}, b"{}", 0.0))
            status, headers, body, wait = found() if callable(found) else found
            time.sleep(wait)
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    own = Server(f"http://127.0.0.1:{httpd.server_address[1]}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield own
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join(5)
