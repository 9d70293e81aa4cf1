"""The pages: what they show to whom, in both languages, safely; and what a browser makes of them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from lxml import html

from gateway.config import Settings
from gateway.edges.http import create_app
from gateway.edges.http.texts import LANGUAGES, TEXTS, in_language, language_of
from gateway.edges.http.timeline import ITEM, courses, days, label, value_of
from gateway.fhir import json as fhir_json
from gateway.store import Store

NATIONAL = "urn:oid:2.16.156.10011.1.3"
NUMBER = "330101195803129010"
EVIL = "<script>document.title='stolen'</script>\"'><img src=x onerror=alert(1)>"


def _load(client: FlaskClient, *resources: dict[str, Any]) -> None:
    for resource in resources:
        path = f"/fhir/{resource['resourceType']}/{resource['id']}"
        answer = client.put(path, data=json.dumps(resource), content_type="application/fhir+json")
        assert answer.status_code == 201, answer.data


def _hospital(slug: str, name: str) -> dict[str, Any]:
    return {"resourceType": "Organization", "id": slug, "meta": {"source": f"urn:huren:{slug}"}, "name": name}


def _results(slug: str, day: str, value: float, name: str = "王建国") -> list[dict[str, Any]]:
    """A Patient of one hospital with a report of one result and a study."""
    meta = {"source": f"urn:huren:{slug}"}
    subject = {"reference": f"Patient/p-{slug}"}
    code = {"coding": [{"system": ITEM, "code": "THM001Q", "display": "白细胞计数"}]}
    return [
        {"resourceType": "Patient", "id": f"p-{slug}", "meta": meta, "gender": "male", "birthDate": "1958-03-12",
         "identifier": [{"system": f"urn:huren:{slug}:patient", "value": f"N-{slug}"},
                        {"system": NATIONAL, "value": NUMBER}], "name": [{"text": name}]},
        {"resourceType": "Observation", "id": f"o-{slug}", "meta": meta, "status": "final", "subject": subject,
         "code": code, "effectiveDateTime": f"{day}T08:00:00+08:00",
         "valueQuantity": {"value": value, "unit": "10*9/L", "system": "http://unitsofmeasure.org", "code": "10*9/L"},
         "interpretation": [{"coding": [{"code": "H"}]}],
         "referenceRange": [{"low": {"value": 3.5}, "high": {"value": 9.5}}]},
        {"resourceType": "DiagnosticReport", "id": f"r-{slug}", "meta": meta, "status": "final", "subject": subject,
         "code": {"text": f"report of {slug}"}, "effectiveDateTime": f"{day}T08:00:00+08:00",
         "conclusion": name, "result": [{"reference": f"Observation/o-{slug}"}]},
        {"resourceType": "ImagingStudy", "id": f"s-{slug}", "meta": meta, "status": "available", "subject": subject,
         "started": f"{day}T09:00:00+08:00", "description": f"CT of {slug}", "numberOfSeries": 2,
         "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}]}]


@pytest.fixture
def client(settings: Settings, store: Store) -> FlaskClient:
    """The demo, empty."""
    return create_app(replace(settings, demo=True), store).test_client()


@pytest.fixture
def filled(client: FlaskClient) -> FlaskClient:
    """One person in two hospitals."""
    _load(client, _hospital("one", "第一医院 · First Hospital"), _hospital("two", "第二医院 · Second Hospital"),
          *_results("one", "2026-11-10", 10.5), *_results("two", "2026-11-12", 6))
    return client


def page(client: FlaskClient, path: str, language: str = "en") -> html.HtmlElement:
    """A page, read as a browser reads it."""
    answer = client.get(path, headers={"Accept-Language": language})
    assert answer.status_code == 200 and answer.content_type == "text/html; charset=utf-8"
    return html.fromstring(answer.get_data(as_text=True))


def select(root: html.HtmlElement, selectors: str) -> list[html.HtmlElement]:
    """Elements by ``tag.class``, ``.class`` and ``tag[attribute=value]``, steps divided by spaces, kinds by commas."""
    found = []
    for selector in selectors.split(","):
        path = ""
        for step in selector.split():
            tag, _, attribute = step.partition("[")
            tag, _, name = tag.partition(".")
            path += f"//{tag or '*'}" + (f"[contains(concat(' ',@class,' '),' {name} ')]" if name else "")
            key, _, value = attribute.rstrip("]").partition("=")
            path += f"[@{key}='{value}']" if value else f"[@{key}]" if key else ""
        found += root.xpath(f".{path}")
    return found


def text(element: html.HtmlElement) -> str:
    """The text that a reader sees, spaces folded."""
    return " ".join(" ".join(element.itertext()).split())


def test_the_start_page_of_the_demo_names_persons_with_their_hospitals(filled: FlaskClient) -> None:
    """Two Patients with one national identifier are one row, with both hospitals and all counts."""
    [row] = select(page(filled, "/"), "a.row")
    assert text(row) == "王建国 male · 1958-03-12 First Hospital Second Hospital 2 2 2026-11-12"
    assert row.get("href").startswith("/person/p-")


def test_the_examples_work_as_they_stand(filled: FlaskClient) -> None:
    """Each curl line holds a query that this gateway answers, the same as its link; those about the person find it."""
    examples = select(page(filled, "/"), "ol.examples li")
    assert len(examples) == 5
    for place, example in enumerate(examples):
        program, url = shlex.split(text(select(example, "code")[0]))
        parts = urlsplit(url)
        answer = filled.get(f"{parts.path}?{parts.query}")
        assert program == "curl" and answer.status_code == 200, url
        if place < 3:
            assert len(json.loads(answer.data)["entry"]) >= 2, url
        link = select(example, "a")[0].get("href")
        assert link.startswith(url)


def test_the_empty_demo_waits_and_reloads(client: FlaskClient) -> None:
    """Before the first message the page says so and looks again."""
    root = page(client, "/")
    assert select(root, "meta[http-equiv=refresh]") and "Waiting" in text(root)


@pytest.mark.parametrize("language", LANGUAGES)
def test_both_languages(filled: FlaskClient, language: str) -> None:
    """Accept-Language chooses, ?lang= wins, links keep it, and names written in both are shown in one."""
    root = page(filled, "/", language)
    other = "zh" if language == "en" else "en"
    assert ("First Hospital" in text(root)) == (language == "en") != ("第一医院" in text(root))
    assert page(filled, f"/?lang={language}", other).get("lang") == root.get("lang")
    assert all(f"lang={language}" in a.get("href") for a in select(root, "a.row, a.brand"))
    assert "{" not in text(root) and "built-in" not in text(root) and "Undefined" not in text(root)


def test_a_persons_page_shows_all_hospitals_in_time(filled: FlaskClient) -> None:
    """From either Patient: both numbers, newest day first, flags, ranges, studies, and one course over hospitals."""
    for start in ("p-one", "p-two"):
        root = page(filled, f"/person/{start}")
        assert [text(day) for day in select(root, ".day h3")] == ["2026-11-12", "2026-11-10"]
        assert [text(code) for code in select(root, ".numbers code")] == ["N-one", "N-two"]
        assert [text(entry) for entry in select(root, ".day .entry h4")] == [
            "CT CT of two", "report of two", "CT CT of one", "report of one"]
        assert "白细胞计数 10.5 10*9/L ↑ 3.5–9.5" in text(root)
        [course] = select(root, "figure")
        assert len(select(course, "circle")) == 2
        assert len({c.get("class") for c in select(course, "circle")}) == 2
    assert filled.get("/person/nobody").status_code == 404


def test_nothing_of_patients_without_a_login(settings: Settings, store: Store, filled: FlaskClient) -> None:
    """Outside the demo the start page has sums and hints, and no name, number or address of anybody's page."""
    guarded = create_app(settings, store).test_client()
    shown = guarded.get("/").get_data(as_text=True)
    assert guarded.get("/").status_code == 200 and "Bearer $TOKEN" in shown
    assert not re.search(f"王建国|{NUMBER}|1958|p-one|First Hospital|第一医院", shown)
    assert guarded.get("/person/p-one").status_code == 401


def test_a_persons_page_with_a_token(settings: Settings, store: Store, filled: FlaskClient) -> None:
    """A client with the scopes gets the page, and the access is written down with the person."""
    guarded = create_app(settings, store).test_client()
    token = store.client_add("portal", None, ["system/*.rs"])
    assert guarded.get("/person/p-one", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    access = store.audit_rows(1)[0].access
    assert (access.caller, access.action, access.target) == ("portal", "page", "person of Patient/p-one")
    assert access.persons == tuple(store.persons_of(["p-one"]).values())


def test_markup_in_the_data_is_text(client: FlaskClient) -> None:
    """Names, titles, units and conclusions are shown as they are and never run; CSP forbids inline scripts besides."""
    _load(client, _hospital("one", EVIL), *_results("one", "2026-11-10", 10.5, EVIL))
    for path in ("/", "/person/p-one"):
        answer = client.get(path)
        root = html.fromstring(answer.get_data(as_text=True))
        assert [s.get("src") for s in select(root, "script")] == ["/static/huren.js"]
        assert select(root, "img, [onerror]") == [] and EVIL in root.text_content()
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy


def test_pages_load_nothing_from_elsewhere(filled: FlaskClient) -> None:
    """No CDN: every script, style and image comes from here."""
    for path in ("/", "/person/p-one"):
        for element in select(page(filled, path), "script, link, img"):
            address = element.get("src") or element.get("href")
            assert address.startswith("/static/") and filled.get(address).status_code == 200


# ---------------------------------------------------------------- texts and time line

def test_every_text_is_in_both_languages() -> None:
    """No text is missing or the same placeholder twice."""
    for key, pair in TEXTS.items():
        assert len(pair) == len(LANGUAGES) and all(pair), key


@pytest.mark.parametrize(("parameter", "header", "expected"), [
    ("", "", "zh"), ("en", "zh-CN", "en"), ("", "en-GB,en;q=0.9,zh;q=0.8", "en"), ("", "fr, zh;q=0.5, en;q=0.4", "zh"),
    ("de", "de", "zh"), ("", "en;q=x", "zh")])
def test_language_choice(parameter: str, header: str, expected: str) -> None:
    """The parameter, then the best language of the browser that we have, then Chinese."""
    assert language_of(parameter, header) == expected


def test_names_in_two_languages() -> None:
    """``中文 · English`` is split; a name without it stays."""
    assert [in_language("甲 · A", lang) for lang in ("zh", "en")] == ["甲", "A"]
    assert in_language("甲", "en") == "甲"


_DATES = st.dates().map(str) | st.sampled_from(["", "2026", "2026-11", "2026-11-10T08:00:00+08:00"])


@given(st.lists(st.tuples(_DATES, st.floats(-1e6, 1e6, allow_nan=False), st.sampled_from(["", "h1", "h2"]),
                          st.sampled_from([None, 0, 5.5])), max_size=8))
def test_courses_stay_in_their_drawing(rows: list[tuple[str, float, str, float | None]]) -> None:
    """Whatever was measured when, every point lies within the drawing and they go from left to right."""
    observations = [{"resourceType": "Observation", "status": "final", "code": {"coding": [
        {"system": ITEM, "code": "X"}]}, "effectiveDateTime": day, "meta": {"source": f"urn:huren:{slug}"},
        "valueQuantity": {"value": value}, "referenceRange": [{"high": {"value": high}}] if high is not None else []}
        for day, value, slug, high in rows]
    for course in courses(observations):
        assert all(0 <= p.x <= 300 and 0 <= p.y <= 84 for p in course.points)
        assert [p.x for p in course.points] == sorted(p.x for p in course.points)
        assert course.band is None or 0 <= course.band[0] <= 84 >= course.band[1] > 0


@pytest.mark.parametrize(("value", "shown"), [
    ({"valueQuantity": {"value": "1.50", "unit": "g/L", "comparator": "<"}}, ("<1.50", "g/L")),
    ({"valueString": "阴性"}, ("阴性", "")), ({"valueInteger": 3}, ("3", "")), ({"valueBoolean": True}, ("True", "")),
    ({"valueCodeableConcept": {"coding": [{"code": "x", "display": "X"}]}}, ("X", "")),
    ({"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}}, ("1:128", "")),
    ({"dataAbsentReason": {"text": "haemolysed"}}, ("haemolysed", "")), ({}, ("", ""))])
def test_values_are_shown_as_sent(value: dict[str, Any], shown: tuple[str, str]) -> None:
    """Every type of value has its text, decimals to the digit."""
    if "valueQuantity" in value:
        value = fhir_json.loads(b'{"valueQuantity":{"value":1.50,"unit":"g/L","comparator":"<"}}')
    assert value_of(value) == shown


def test_a_report_without_results_or_times_is_still_shown() -> None:
    """What is missing is left empty; nothing is guessed."""
    [day] = days([{"resourceType": "DiagnosticReport", "id": "r", "status": "final", "code": {}}], [], {})
    assert (day.day, day.entries[0].title, day.entries[0].results) == ("", "", [])
    assert label(None) == ""


# ---------------------------------------------------------------- in a browser

class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """No line for each request."""


@pytest.fixture
def address(filled: FlaskClient) -> Iterator[str]:
    """The filled demo on a port, for a browser."""
    with make_server("127.0.0.1", 0, filled.application, handler_class=_Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_pages_fit_phone_and_desk(address: str, tmp_path: Path) -> None:
    """In a real browser, at 390 and 1280 pixels: nothing is cut off sideways, styles apply, and nothing complains."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no Chromium with its driver here to look at the pages")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        for width in (390, 1280):
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            for path in ("/?lang=en", "/?lang=zh", "/person/p-one?lang=en"):
                chrome.get(address + path)
                wide = chrome.execute_script("return document.documentElement.scrollWidth")
                assert wide <= width, (path, width, wide)
                styled = "return getComputedStyle(document.querySelector('.brand')).display"
                assert chrome.execute_script(styled) == "flex"
        complaints = [line["message"] for line in chrome.get_log("browser") if line["level"] == "SEVERE"]
        assert complaints == []
