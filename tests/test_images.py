"""Pictures of a line's results over HTTP: which there are, who may see them, and what is written down."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from cds_samples import CHEST_CT, ISSUER, ITEMS, ORDERER, call, order, patient
from flask.testing import FlaskClient
from PIL import Image
from test_imaging_render import part10

from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.edges.http import create_app
from gateway.store import Store
from gateway.store.model import Instance, Put, Unit

STUDY, SERIES = "1.2.3", "1.2.3.1"
LINES = "http://huren.example/fhir/cds-hooks/lines"


def _instance(store: Store, uid: str, content: bytes, study: str = STUDY, institution: str = ISSUER,
              **facts: Any) -> None:
    key = f"{institution}/{uid}"
    store.objects.put(key, content)
    store.put_instance(Instance(institution, study, SERIES, uid, key, len(content), hashlib.sha256(content).digest(),
                                "AET", {"SOPInstanceUID": uid, "StudyInstanceUID": study} | facts))


def exam(store: Store, named: bool = True) -> None:
    """A chest CT of another hospital with its report, images and a structured report; and a study of somebody else."""
    when = (datetime.now(UTC) - timedelta(days=2)).isoformat(timespec="seconds")
    who = patient(id="p-exam")
    subject = {"reference": "Patient/p-exam"}

    def series(uid: str, modality: str, *instances: str) -> dict[str, Any]:
        return {"uid": uid, "number": 1, "modality": {"code": modality}, "description": "肺窗", "instance": [
            {"uid": one, "sopClass": {"code": "x"}, "number": n} for n, one in enumerate(instances, 1)]}
    study = {"resourceType": "ImagingStudy", "id": "s-exam", "status": "available", "subject": subject, "started": when,
             "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"},
                            {"system": "urn:huren:hz-demo-1:accession", "value": "A1"}],
             "series": [series(SERIES, "CT", "1.2.3.1.2", "1.2.3.1.1"), series("1.2.3.2", "SR", "1.2.3.2.1")]}
    report = {"resourceType": "DiagnosticReport", "id": "r-exam", "status": "final", "subject": subject,
              "effectiveDateTime": when, "conclusion": "双肺未见异常。", "code": {"coding": [
                  {"system": ITEMS, "code": CHEST_CT}]},
              "identifier": [{"system": "urn:huren:hz-demo-1:accession", "value": "A1"}]}
    if named:
        report["imagingStudy"] = [{"reference": "ImagingStudy/s-exam"}]
    store.write(Unit([Put(one, ISSUER) for one in (who, study, report)]), GATEWAY)
    grey = np.tile(np.arange(64, dtype=np.int16) * 16 - 500, (64, 1))
    for uid in ("1.2.3.1.1", "1.2.3.1.2"):
        _instance(store, uid, part10(grey, SOPInstanceUID=uid, WindowCenter="40", WindowWidth="400"))
    _instance(store, "1.2.3.2.1", part10(None))
    _instance(store, "9.9.9", part10(grey), study="9.9")  # another study of the same hospital
    _instance(store, "1.2.3.1.1", part10(grey + 1), study="8.8", institution=ORDERER)  # the same UID elsewhere


@pytest.fixture
def demo(settings: Settings, store: Store) -> FlaskClient:
    """The demo, where everybody is the doctor."""
    return create_app(replace(settings, demo=True), store).test_client()


def remind(client: FlaskClient) -> str:
    """The id of the line of an order that the exam covers."""
    answer = client.post("/cds-services/recognition", json=call("order-sign", order(code=CHEST_CT)))
    assert answer.status_code == 200, answer.data
    [card] = answer.get_json()["cards"]
    return str(card["extension"][LINES][0]["line"])


@pytest.mark.parametrize("named", [True, False])
def test_the_series_that_can_be_looked_at(demo: FlaskClient, store: Store, named: bool) -> None:
    """Images in order, without what is no picture; also where only the accession number joins report and study."""
    exam(store, named)
    answer = demo.get(f"/recognition/lines/{remind(demo)}/images")
    assert answer.status_code == 200, answer.data
    [series] = answer.get_json()["series"]
    assert (series["modality"], series["description"], series["report"]) == ("CT", "肺窗", "r-exam")
    assert [(one["number"], one["frames"]) for one in series["instances"]] == [(1, 1), (2, 1)]


def test_an_image(demo: FlaskClient, store: Store) -> None:
    """PNG in its size and window, kept privately; asked again by its tag it costs nothing."""
    exam(store)
    path = f"/recognition/lines/{remind(demo)}/images/1.2.3.1.1"
    answer = demo.get(path)
    assert (answer.status_code, answer.content_type) == (200, "image/png"), answer.data
    assert answer.headers["Cache-Control"] == "private, max-age=3600" and "Authorization" in answer.headers["Vary"]
    tag = answer.headers["ETag"]
    again = demo.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    lung = demo.get(f"{path}?center=-600&width=1500")
    assert lung.headers["ETag"] != tag and lung.data != answer.data
    small = demo.get(f"{path}?size=32")
    assert small.content_type == "image/jpeg" and Image.open(io.BytesIO(small.data)).size == (32, 32)


@pytest.mark.parametrize(("path", "status"), [
    ("9.9.9", 404), ("1.2.3.2.1", 406), ("5.5.5", 404), ("1.2.3.1.1?size=9999", 400), ("1.2.3.1.1?size=x", 400),
    ("1.2.3.1.1?frame=2", 400), ("1.2.3.1.1?quality=3", 400), ("..%2f..%2fetc", 404)])
def test_nothing_else_is_reachable(demo: FlaskClient, store: Store, path: str, status: int) -> None:
    """An image of another study is not there; a report is no picture; parameters are checked: each said in words."""
    exam(store)
    answer = demo.get(f"/recognition/lines/{remind(demo)}/images/{path}")
    assert answer.status_code == status and answer.get_json(force=True)["resourceType"] == "OperationOutcome"


def test_of_two_objects_with_one_uid_the_reports_own_is_shown(demo: FlaskClient, store: Store) -> None:
    """Another hospital's object of the same SOP Instance UID never takes its place."""
    exam(store)
    shown = demo.get(f"/recognition/lines/{remind(demo)}/images/1.2.3.1.1")
    instance = store.instance("1.2.3.1.1", ISSUER)
    assert instance is not None and shown.headers["ETag"].startswith(f'"{instance.digest.hex()[:24]}')


def test_who_may_see_them(settings: Settings, store: Store, demo: FlaskClient) -> None:
    """The ordering hospital's client; not another hospital's, not without a login; each look names the person."""
    exam(store)
    line = remind(demo)
    guarded = create_app(settings, store).test_client()
    tokens = {slug: store.client_add(slug, slug, ["institution/*.rs"]) for slug in (ORDERER, "hz-demo-3")}
    path = f"/recognition/lines/{line}/images/1.2.3.1.1"

    def status(token: str = "") -> int:
        return guarded.get(path, headers={"Authorization": f"Bearer {token}"} if token else {}).status_code
    assert [status(), status(tokens["hz-demo-3"]), status(tokens[ORDERER])] == [401, 403, 200]
    rows = [row.access for row in store.audit_rows(3)]
    assert rows[0].target == f"images of order-line/{line}" and rows[0].outcome == 200
    assert rows[0].persons == tuple(store.persons_of(["p-exam"]).values())
    assert guarded.get(f"/recognition/lines/{line}/images").status_code == 401
    assert guarded.get("/recognition/lines/nothing/images", headers={
        "Authorization": f"Bearer {tokens[ORDERER]}"}).status_code == 404


def test_the_viewers_page_and_the_script_hold_nothing(settings: Settings, store: Store, demo: FlaskClient) -> None:
    """Both are open and say nothing of anybody; the script may be run by pages of other sites and is kept shortly."""
    exam(store)
    line = remind(demo)
    guarded = create_app(settings, store).test_client()
    page = guarded.get(f"/recognition/view/{line}")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"] and "双肺" not in page.get_data(as_text=True)
    script = guarded.get("/recognition/widget.js", headers={"Origin": "https://his.example"})
    assert script.status_code == 200 and script.content_type == "text/javascript; charset=utf-8"
    assert script.headers["Access-Control-Allow-Origin"] == "*" and len(script.data) < 30_000
    packed = guarded.get("/recognition/widget.js", headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["Content-Encoding"] == "gzip" and len(packed.data) < 15_000
    again = guarded.get("/recognition/widget.js", headers={"If-None-Match": script.headers["ETag"]})
    assert again.status_code == 304
    token = store.client_add("all", None, ["system/*.cruds"])
    for path in ("/demo/workstation", "/demo/workstation/data"):  # only the demo has it
        assert guarded.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 404
