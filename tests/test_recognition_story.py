"""The whole story through real ports: a CT at one hospital, its order at another, the decision, the bill, the money.

Hospital A is the imaging hospital of the shipped adapters (DICOM by dcmtk, its report by python-hl7), hospital B the
West Lake one (CDS Hooks with a client's token, the plug-in in Chromium). The gateway is no demo: everybody logs in.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import hl7.client
import httpx
import pytest
from browser import asked, chromium, complaints, size, until

from bench import gateway
from bench.mllp import ACCEPTED
from gateway.adapter import load
from gateway.commands import story
from gateway.config import SHIPPED_ADAPTERS
from gateway.identity import NATIONAL_ID_SYSTEM

pytestmark = pytest.mark.long
A, B = load(SHIPPED_ADAPTERS / "qiantang"), "hz-demo-2"
TODAY = datetime.now(ZoneInfo("Asia/Shanghai")).date()
NUMBER = "XH-ORDER-1"
PATIENT = {"resourceType": "Patient", "id": "xh-77", "name": [{"text": "陈晓明"}], "gender": "male",
           "birthDate": "1975-06-18", "identifier": [
               {"system": "urn:huren:hz-demo-2:patient", "value": "XH77"},
               {"system": NATIONAL_ID_SYSTEM, "value": story.CHEN.national_id}]}
COVERAGE = {"resourceType": "Coverage", "id": "c1", "status": "active", "beneficiary": {"reference": "Patient/xh-77"},
            "payor": [{"display": "杭州市医疗保障局"}],
            "type": {"coding": [{"system": "http://huren.example/fhir/CodeSystem/insurance-scheme",
                                 "code": "municipal-basic"}]}}
PAGE = """<!doctype html><html lang="zh"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>B</title><h1>Workstation of hospital B</h1><script type="module" src="{base}/recognition/widget.js"></script>
<huren-recognition base="{base}" institution="{institution}" doctor="D-7" poll="0"></huren-recognition></html>"""
INSIDE = "document.querySelector('huren-recognition').shadowRoot"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway.Gateway]:
    """`huren serve` with the shipped hospitals."""
    with gateway.running(data=tmp_path_factory.mktemp("story"), HUREN_ADAPTERS=str(SHIPPED_ADAPTERS)) as g:
        yield g


@contextlib.contextmanager
def workstation(html: str) -> Iterator[str]:
    """A page of hospital B's own server, which is another origin."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: Any) -> None:
            pass
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Story:
    """What the actors do, each through the port that is theirs."""

    def __init__(self, g: gateway.Gateway, folder: Path) -> None:
        self.g, self.folder = g, folder
        self.b = httpx.Client(base_url=f"http://127.0.0.1:{g.http}", timeout=30,
                              headers={"Authorization": f"Bearer {g.client('hospital-b', B)}"})
        self.commission = httpx.Client(base_url=f"http://127.0.0.1:{g.http}", timeout=30,
                                       headers={"Authorization": f"Bearer {g.token}"})

    def examined_at_a(self) -> None:
        """The CT of three days ago by C-STORE, its report by MLLP."""
        files = [path for path in story.tell(A, TODAY, self.folder) if path.name.startswith("1-")]
        images = self.folder / "images"
        images.mkdir()
        for path in files:
            if path.suffix == ".dcm":
                shutil.move(path, images / path.name)
        sent = subprocess.run(["storescu", "-aet", A.calling_aets[0], "-aec", "HUREN", "+sd", "127.0.0.1",
                               str(self.g.dimse), str(images)], env=os.environ | {"TCP_NODELAY": "1"},
                              capture_output=True, check=False)
        assert sent.returncode == 0, sent.stderr
        with hl7.client.MLLPClient("127.0.0.1", self.g.mllp) as sender:
            for path in files:
                if path.suffix == ".hl7":
                    assert ACCEPTED.search(sender.send(b"\x0b" + path.read_bytes() + b"\x1c\r"))
        until(lambda: self.commission.get("/fhir/ImagingStudy?_summary=count").json()["total"] == 1, 30)

    def ordered_at_b(self, hook: str = "order-sign") -> list[dict[str, Any]]:
        """The same CT, as hospital B's workstation signs it."""
        order = {"resourceType": "ServiceRequest", "id": "draft-1", "status": "draft", "intent": "order",
                 "identifier": [{"system": "urn:huren:hz-demo-2:placer", "value": NUMBER}],
                 "subject": {"reference": "Patient/xh-77"}, "code": {"coding": [
                     {"system": "urn:huren:hz-demo-2:item", "code": "CT-CHEST", "display": "胸部CT平扫"}]}}
        answer = self.b.post("/cds-services/recognition", json={
            "hook": hook, "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
            "context": {"userId": "Practitioner/D-7", "patientId": "xh-77",
                        "draftOrders": {"resourceType": "Bundle", "type": "collection",
                                        "entry": [{"resource": order}]}},
            "prefetch": {"patient": PATIENT,
                         "coverage": {"resourceType": "Bundle", "type": "searchset", "entry": [
                             {"resource": COVERAGE}]}}})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["cards"])

    def bill(self, **more: str) -> dict[str, Any]:
        answer = self.b.post("/recognition/billing-check", json={"number": NUMBER} | more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def figures(self) -> dict[str, Any]:
        answer = self.b.get("/recognition/figures", params={"institution": B, "by": "hospital"})
        assert answer.status_code == 200, answer.text
        [row] = answer.json()["rows"]
        return dict(row)

    def settled(self, name: str) -> dict[str, str]:
        """The settlement of this month, nothing recorded."""
        month, before = f"{TODAY:%Y-%m}", f"{TODAY.year - 1}-{TODAY:%m}"
        fees = self.folder / "fees.csv"
        fees.write_text(f"institution,period,fees,heads\n{B},{before},500000.00,1000\n{B},{month},480000.00,1000\n")
        out = self.folder / name
        done = subprocess.run([sys.executable, "-m", "gateway", "settlement", "run", "--from", month, "--to", month,
                               "--fees", str(fees), "--out", str(out), "--dry-run"], env=self.g.env,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with (out / "institutions.csv").open(encoding="utf-8", newline="") as file:
            [row] = [row for row in csv.DictReader(file) if row["institution"] == B]
        return {name: row[name] for name in ("lines", "recognised_fees", "allocated")}



def test_the_whole_story(running: gateway.Gateway, tmp_path: Path) -> None:
    """Examined at A, ordered at B, reminded, opened, recognised, not billed, counted, settled, revoked, billed."""
    if not shutil.which("storescu"):
        pytest.skip("dcmtk is not installed to play the PACS")
    told = Story(running, tmp_path)
    told.examined_at_a()

    [card] = told.ordered_at_b()
    assert card["indicator"] == "warning" and "演示钱塘影像医院" in card["detail"]
    assert {reason["code"] for reason in card["overrideReasons"]} >= {"R1", "R4", "R6", "R98"}
    assert card["suggestions"][0]["actions"][0]["type"] == "delete"
    assert [again["uuid"] for again in told.ordered_at_b()] == [card["uuid"]]  # the same reminder, not another

    before = told.figures()
    assert (before["counts"]["reminded"], before["counts"]["recognised"]) == (1, 0)
    session = told.b.post("/recognition/sessions", json={"doctor": "D-7", "patient": PATIENT})
    assert session.status_code == 201, session.text
    with chromium(tmp_path / "profile") as chrome:
        _opened_from_the_card(chrome, [link["url"] for link in card["links"]])
        line = _recognised_in_the_browser(chrome, running, session.json()["token"])

    refused = told.bill()
    decision = told.b.get(f"/recognition/lines/{line}").json()["decision"]
    assert (refused["allowed"], refused["code"], refused["decision"]) == (False, "RECOGNISED", decision["id"])
    after = told.figures()
    assert (after["counts"]["recognised"], after["counts"]["blocked"]) == (1, 1)
    assert after["amounts"]["saved"] == 230.00

    [issue] = _entries(told.commission, f"DetectedIssue?implicated=ServiceRequest/{_request(told)['id']}")
    assert issue["mitigation"] and _request(told)["status"] == "revoked"
    assert told.settled("settled") == {"lines": "1", "recognised_fees": "230.00", "allocated": "115.00"}

    revoked = told.b.post("/recognition/decisions", json={"action": "revoke", "line": line, "doctor": "D-7"})
    assert (revoked.status_code, revoked.json()["state"]) == (200, "viewed")
    assert told.bill()["allowed"] is True and _request(told)["status"] != "revoked"
    last = told.figures()["counts"]
    assert (last["reminded"], last["viewed"], last["recognised"], last["skipped"]) == (1, 1, 0, 1)
    assert told.settled("again") == {"lines": "0", "recognised_fees": "0.00", "allocated": "0.00"}
    kinds = [e["kind"] for e in told.b.get(f"/recognition/lines/{line}/events").json()["events"]]
    assert kinds == ["reminded", "viewed", "recognised", "billing_blocked", "revoked", "billed"]
    verified = subprocess.run([sys.executable, "-m", "gateway", "audit", "verify"], env=running.env,
                              capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def _opened_from_the_card(chrome: Any, links: list[str]) -> None:
    """The card's links lead to the report and to the images, without another login; the key leaves the address."""
    size(chrome, 1280)
    assert len(links) == 2 and all("/recognition/view/" in link for link in links)
    for link in links:
        chrome.get("about:blank")
        chrome.get(link)
        until(lambda: "磨玻璃结节" in chrome.execute_script("return document.querySelector('main').innerText"))
        until(lambda: chrome.execute_script("""return [...document.querySelectorAll('canvas, img')].some(image =>
            image.width > 100 && image.height > 100)"""))
        assert "session" not in chrome.current_url


def _recognised_in_the_browser(chrome: Any, g: gateway.Gateway, token: str) -> str:
    """The plug-in on B's page: the reminder, the report with its images opened, recognised; the line's id."""
    def find(selector: str) -> Any:
        return chrome.execute_script(f"const e = {INSIDE}.querySelector(arguments[0]);"
                                     "return e && e.checkVisibility() ? e : null", selector)
    base = f"http://127.0.0.1:{g.http}"
    with workstation(PAGE.format(base=base, institution=B)) as address:
        size(chrome, 1280)
        asked(chrome), complaints(chrome)  # of the browser's own first page
        chrome.get(address)
        chrome.execute_async_script("""const done = arguments[1];
            customElements.whenDefined("huren-recognition").then(() => {
              const widget = document.querySelector("huren-recognition");
              document.addEventListener("huren-decided", event => window.decided = event.detail);
              widget.session = arguments[0]; widget.setAttribute("poll", "1"); widget.refresh?.(); done(); });""",
                                    token)
        until(lambda: find("[data-do=open]")).click()
        until(lambda: find("dialog[open]"))
        report = chrome.execute_script(f"return {INSIDE}.querySelector('dialog').innerText")
        assert "胸部CT平扫" in report and "磨玻璃结节" in report
        until(lambda: chrome.execute_script(f"""return [...{INSIDE}.querySelectorAll('dialog canvas')].some(canvas =>
            new Set(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size > 9)"""))
        until(lambda: (button := find("[data-do=recognise]")) and button.is_enabled() and button).click()
        decided = until(lambda: chrome.execute_script("return window.decided"))
        assert decided["state"] == "recognised" and decided["number"] == NUMBER
        assert [url for url in asked(chrome) if not url.startswith((address, base, "data:", "blob:"))] == []
        assert complaints(chrome) == []
    return str(decided["line"])


def _entries(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    answer = client.get(f"/fhir/{query}")
    assert answer.status_code == 200, answer.text
    return [entry["resource"] for entry in answer.json().get("entry", ())]


def _request(told: Story) -> dict[str, Any]:
    """The ServiceRequest of the order line, as FHIR clients see it."""
    [found] = _entries(told.commission, f"ServiceRequest?identifier=urn:huren:hz-demo-2:placer|{NUMBER}")
    return found
