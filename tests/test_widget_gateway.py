"""The plug-in, the viewer and the demo's workstation in a browser, against the real gateway."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from browser import asked, chromium, complaints, names, size, until
from cds_samples import CHEST_CT, HAEMOGLOBIN, IDENTITY, ITEMS, NATIONAL, ORDERER, patient, report
from test_images import exam
from widget_server import Fake, serving

from bench import gateway
from gateway.adapter import load_all
from gateway.config import Settings
from gateway.edges.http import create_app
from gateway.recognition.model import Order, Signature
from gateway.recognition.service import Recognition
from gateway.store import Store

pytestmark = pytest.mark.long
_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
INSIDE = "document.querySelector('huren-recognition').shadowRoot"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Workstation</title><h1>Orders</h1>
<script type="module" src="{gateway}/recognition/widget.js"></script>
<huren-recognition base="{gateway}" institution="{hospital}" doctor="dr-li" poll="0"></huren-recognition></html>"""
SIGN = """const [session, orders, done] = arguments, widget = document.querySelector("huren-recognition");
if (!window.heard) document.addEventListener("huren-decided", event => window.heard.push(event.detail));
window.heard = [];
customElements.whenDefined("huren-recognition").then(() => { widget.session = session;
  return widget.check({patient: %s, draftOrders: orders}); }).then(done);"""


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """No line for each request."""


@pytest.fixture
def guarded(settings: Settings, store: Store) -> Iterator[str]:
    """The gateway with login, on a port."""
    with make_server("127.0.0.1", 0, create_app(settings, store), handler_class=_Silent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile") as found:
        size(found, 1280)
        yield found


def order(number: str, code: str) -> dict[str, Any]:
    """A draft as the page of a workstation makes it."""
    return {"resourceType": "ServiceRequest", "id": number, "status": "draft", "intent": "order", "subject": {
        "reference": "Patient/pat-1"}, "identifier": [{"system": f"urn:huren:{ORDERER}:placer", "value": number}],
        "code": {"coding": [{"system": ITEMS, "code": code}]}}


def seen(chrome: Any, selector: str) -> Any:
    """An element of the plug-in, once it can be seen and used."""
    return until(lambda: chrome.execute_script(
        f"const e = {INSIDE}.querySelector(arguments[0]); return e && !e.disabled && e.checkVisibility() ? e : null",
        selector))


def inside(chrome: Any, selector: str = "dialog") -> str:
    return str(chrome.execute_script(f"return {INSIDE}.querySelector(arguments[0])?.innerText || ''", selector))


@_SQLITE
def test_a_session_of_another_origin(guarded: str, store: Store, chrome: Any) -> None:
    """With a session of its own patient the plug-in checks, shows, draws and decides; without one it says so."""
    report(store, HAEMOGLOBIN, name="r-lab")
    exam(store)
    token = store.client_add("his", ORDERER, ["institution/DetectedIssue.cruds", "institution/ChargeItem.c"])
    login = {"Authorization": f"Bearer {token}"}
    opened = httpx.post(f"{guarded}/recognition/sessions", headers=login,
                        json={"institution": ORDERER, "doctor": "dr-li", "patient": patient()})
    assert opened.status_code == 201, opened.text
    with serving(Fake(page=PAGE.format(gateway=guarded, hospital=ORDERER))) as workstation:
        chrome.get(workstation)
        asked(chrome)
        sign = SIGN % json.dumps(patient())
        orders = [order("N1", HAEMOGLOBIN), order("N2", CHEST_CT)]
        assert chrome.execute_async_script(sign, "hs1~forged~token", orders)["failed"] is True
        assert "session has ended" in inside(chrome, "section")
        answer = chrome.execute_async_script(sign, opened.json()["token"], orders)
        assert sorted(one["order"]["item"] for one in answer["reminders"]) == sorted([HAEMOGLOBIN, CHEST_CT])
        seen(chrome, "[data-do=open]").click()
        shown = []
        for _ in orders:
            seen(chrome, "[data-do=recognise]")
            shown.append(inside(chrome))
            if "双肺" in shown[-1]:
                seen(chrome, "canvas")
                viewer = chrome.execute_script(f"return {INSIDE}.querySelector('[data-do=viewer]').href")
            seen(chrome, "[data-do=recognise]").click()
            until(lambda: len(chrome.execute_script("return window.heard")) == len(shown))
        assert any("双肺未见异常" in one for one in shown)
        heard = chrome.execute_script("return window.heard")
        assert {one["state"] for one in heard} == {"recognised"} and {one["number"] for one in heard} == {"N1", "N2"}
        assert {url.split("/", 3)[2] for url in asked(chrome) if url.startswith("http")} <= {
            guarded.split("/")[2], workstation.split("/")[2]}
        assert [line for line in complaints(chrome) if "status of 401" not in line] == []
    for one in heard:
        asked_bill = httpx.post(f"{guarded}/recognition/billing-check", headers=login,
                                json={"institution": ORDERER, "number": one["number"]}).json()
        assert (asked_bill["allowed"], asked_bill["decision"]) == (False, one["decision"])
    _look_at_the_viewer(chrome, viewer)


@_SQLITE
def test_an_order_that_came_as_a_message(guarded: str, settings: Settings, store: Store, chrome: Any) -> None:
    """The page knows the patient and the doctor only: the reminder of an HL7 v2 order comes by itself; a colleague who

    decides while it is open is named, nothing else is recorded, and the reminder goes."""
    report(store, HAEMOGLOBIN, name="r-lab")
    recognition = Recognition(settings, store, load_all(settings.adapter_folders))
    [checked] = recognition.check(Signature(ORDERER, (Order(ORDERER, "N9", HAEMOGLOBIN, "HGB", doctor="dr-li"),),
                                            patient(), "hl7v2", time.time_ns() // 1000))
    token = store.client_add("his", ORDERER, ["institution/DetectedIssue.cruds"])
    login = {"Authorization": f"Bearer {token}"}
    session = httpx.post(f"{guarded}/recognition/sessions", headers=login,
                         json={"doctor": "dr-li", "patient": patient()}).json()["token"]
    page = PAGE.format(gateway=guarded, hospital=ORDERER).replace(
        'poll="0"', f'poll="0.2" patient="{NATIONAL}|{IDENTITY}" session="{session}"')
    with serving(Fake(page=page)) as workstation:
        chrome.get(workstation)
        seen(chrome, "[data-do=open]")
        assert "Hemoglobin" in inside(chrome, "section")
        seen(chrome, "[data-do=open]").click()
        seen(chrome, "[data-do=recognise]")
        for action in ("view", "not_recognise"):
            done = httpx.post(f"{guarded}/recognition/decisions", headers=login,
                              json={"action": action, "line": checked.line, "doctor": "dr-wang", "reason": "R1"})
            assert done.status_code == 200, done.text
        seen(chrome, "[data-do=recognise]").click()
        seen(chrome, "[data-do=revoke]")
        assert "A colleague decided first" in inside(chrome) and "Decided by dr-wang" in inside(chrome)
        seen(chrome, "[data-do=close]").click()
        until(lambda: not inside(chrome, "section"))
        assert store.lines([checked.line])[checked.line].state == "not_recognised"
        assert [line for line in complaints(chrome) if "status of 409" not in line] == []


def _look_at_the_viewer(chrome: Any, address: str) -> None:
    """Opened alone: report and images; leafed by keys, windows by buttons; the session leaves the address."""
    chrome.get(address)
    until(lambda: chrome.execute_script("return document.querySelector('.where')?.textContent") == "Image 2 of 2")
    assert "session" not in chrome.current_url
    assert "双肺未见异常" in chrome.find_element("css selector", ".report").text
    pixel = "const c = document.querySelector('.picture canvas'); " \
            "return c.width ? c.getContext('2d').getImageData(10, 10, 1, 1).data[0] : -1"
    until(lambda: chrome.execute_script("return document.querySelector('.picture canvas').width") == 64)
    before = chrome.execute_script(pixel)
    chrome.find_element("css selector", "[data-window=lung]").click()
    until(lambda: chrome.execute_script(pixel) > before)
    chrome.find_element("css selector", "body").send_keys("\ue013")  # arrow up
    until(lambda: chrome.execute_script("return document.querySelector('.where').textContent") == "Image 1 of 2")
    assert {"Lung", "Bone", "See the decision"} <= set(names(chrome, "button"))
    for width in (390, 1280):
        size(chrome, width)
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
    assert [line for line in complaints(chrome) if "status of 401" not in line] == []


@_SQLITE
def test_a_viewer_without_a_session_says_what_to_do(guarded: str, store: Store, chrome: Any) -> None:
    """A link that lost its session shows nothing of anybody, and how to get there."""
    chrome.get(f"{guarded}/recognition/view/0b0e7b0e-0000-5000-8000-000000000000#lang=en")
    alert = until(lambda: chrome.find_elements("css selector", "main [role=alert]"))[0]
    assert "Open this page from the workstation" in alert.text


@pytest.mark.parametrize(("lang", "width"), [("zh", 1280), ("en", 390)])
def test_a_minute_at_the_demo_workstation(tmp_path_factory: pytest.TempPathFactory, chrome: Any, lang: str,
                                          width: int) -> None:
    """Start page, patient, order, sign, reminder, report, recognise, refused bill, moved figure, revoke, bill: the hint

    names each step, it takes less than a minute, nothing goes elsewhere, nothing complains."""
    began = time.monotonic()
    script = chrome.execute_script

    def hint() -> int:
        return 1 + int(script("return [...document.querySelector('#steps').children].findIndex(e => e.ariaCurrent)"))

    def figure(name: str) -> int:
        return int(script("return document.querySelector(`[data-figure=${arguments[0]}]`)?.textContent || 0", name))

    def act(name: str) -> None:
        until(lambda: script("const e = document.querySelector(arguments[0]); return e && !e.disabled && e",
                             f"#signed [data-act={name}]"))
        script("document.querySelector(arguments[0]).click()", f"#signed [data-act={name}]")
    with gateway.demo(tmp_path_factory.mktemp("demo")) as g:
        size(chrome, width)
        began = time.monotonic()
        chrome.get(f"http://127.0.0.1:{g.http}/?lang={lang}")
        chrome.find_element("css selector", ".play a").click()
        steps = []

        def fits() -> None:
            steps.append(hint())
            assert script("return document.documentElement.scrollWidth") <= width
        until(lambda: chrome.find_elements("css selector", "#patients button"))[0].click()
        until(lambda: script("return document.querySelectorAll('#menu .useful').length") >= 2)
        fits()
        script("document.querySelector('#menu .useful[data-code^=CT]').click()")
        fits()
        script("document.querySelector('#sign').click()")
        seen(chrome, "[data-do=open]")
        fits()
        until(lambda: figure("reminded") == 1)
        seen(chrome, "[data-do=open]").click()
        seen(chrome, "canvas")
        fits()
        seen(chrome, "[data-do=recognise]").click()
        until(lambda: figure("recognisedN") == 1)
        fits()
        saved = script("return document.querySelector('[data-figure=saved]').textContent")
        assert float(saved) > 0
        act("bill")
        decision = until(lambda: script("return document.querySelector('#signed .no')?.textContent"))
        until(lambda: figure("blocked") == 1)
        assert script("return document.querySelector('#log').textContent").count(decision.split()[-1]) == 2
        fits()
        act("revoke")
        seen(chrome, "[data-do=revoke]").click()
        seen(chrome, "[data-do=close]").click()
        until(lambda: figure("recognisedN") == 0)
        fits()
        act("bill")
        until(lambda: script("return document.querySelector('#signed .yes')"))
        assert time.monotonic() - began < 60
        assert steps == [2, 3, 4, 5, 6, 7, 8]
        assert [url for url in asked(chrome) if not url.startswith(
            (f"http://127.0.0.1:{g.http}/", "blob:", "data:", "chrome", "about:"))] == []
        assert complaints(chrome) == []
