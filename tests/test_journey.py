"""The main job through real ports with foreign clients: python-hl7 and dcmtk send, fhirpy asks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hl7.client
import pytest
from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import AuthorizationError

from bench import gateway
from gateway.adapter import load
from gateway.config import SHIPPED_ADAPTERS
from gateway.conformance import Example, examples
from gateway.hl7v2 import peek
from gateway.identity import NATIONAL_ID_SYSTEM
from gateway.imaging.part10 import part10_from_json

pytestmark = pytest.mark.long
HOSPITALS = [SHIPPED_ADAPTERS / name for name in ("renmin", "xihu", "qiantang")]
WANG = "330101195803129010"  # has results in all three demo hospitals


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway.Gateway]:
    """`huren serve` with the shipped hospitals, everything of the examples sent once."""
    data = tmp_path_factory.mktemp("journey")
    with gateway.running(data=data, HUREN_ADAPTERS=str(SHIPPED_ADAPTERS)) as g:
        send_everything(g, data)
        yield g


@pytest.fixture
def client(running: gateway.Gateway) -> SyncFHIRClient:
    """A FHIR client that this project did not write."""
    return SyncFHIRClient(f"http://127.0.0.1:{running.http}/fhir", authorization=f"Bearer {running.token}")


def send_everything(g: gateway.Gateway, folder: Path) -> None:
    """Every example of every hospital, by clients that this project did not write; each is answered as expected."""
    for hospital in HOSPITALS:
        with hl7.client.MLLPClient("127.0.0.1", g.mllp) as sender:
            for example in examples(hospital):
                if example.path.suffix == ".hl7":
                    _send_hl7(sender, example)
        if shutil.which("storescu"):
            for example in examples(hospital):
                if example.path.suffix != ".hl7":
                    _send_dicom(g, hospital, example, folder)


def _send_hl7(sender: hl7.client.MLLPClient, example: Example) -> None:
    raw = example.path.read_bytes()
    answer = sender.send(b"\x0b" + raw + b"\x1c\r")
    code = answer.split(b"\rMSA|")[1][:2].decode()
    assert (code in ("AA", "CA")) == example.accepted, (example.path.name, answer)
    assert b"\rMSA|" + code.encode() + b"|" + peek(raw).control_id.encode() in answer
    if not example.accepted:
        place = example.expected.read_text(encoding="utf-8").split()[1]
        assert place.partition("-")[0].encode() in answer.split(b"\rERR|")[1]


def _send_dicom(g: gateway.Gateway, hospital: Path, example: Example, folder: Path) -> None:
    out = folder / "part10" / example.path.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for i, part10 in enumerate(part10_from_json(example.path.read_text(encoding="utf-8"))):
        (out / f"{i}.dcm").write_bytes(part10)
    aet = load(hospital).calling_aets[0]
    run = subprocess.run(["storescu", "-aet", aet, "-aec", "HUREN", "+sd", "127.0.0.1", str(g.dimse), str(out)],
                         env=os.environ | {"TCP_NODELAY": "1"}, capture_output=True, check=False)
    assert (run.returncode == 0 and b"Failed" not in run.stderr + run.stdout) == example.accepted, example.path.name


def everything(client: SyncFHIRClient) -> dict[str, str]:
    """Type/id → version of all that is stored."""
    found = {}
    for kind in ("Patient", "DiagnosticReport", "Observation", "ServiceRequest", "Specimen", "ImagingStudy",
                 "Practitioner", "Organization", "Encounter", "Provenance"):
        for resource in client.resources(kind).limit(200):
            found[f"{kind}/{resource['id']}"] = resource["meta"]["versionId"]
    return found


def test_one_question_gives_one_persons_results_of_all_hospitals(client: SyncFHIRClient) -> None:
    """By the national identifier: laboratory reports of two hospitals and the imaging report of the third."""
    reports = client.resources("DiagnosticReport").search(
        **{"patient.identifier": f"{NATIONAL_ID_SYSTEM}|{WANG}"}).sort("-date").fetch_all()
    sources = {r["meta"]["source"] for r in reports}
    assert sources == {"urn:huren:hz-demo-1", "urn:huren:hz-demo-2", "urn:huren:hz-demo-3"}
    times = [r["effectiveDateTime"] for r in reports]
    assert times == sorted(times, reverse=True)


def test_any_of_the_persons_patients_finds_all(client: SyncFHIRClient) -> None:
    """Each hospital's Patient gives the same set of reports."""
    patients = client.resources("Patient").search(identifier=f"{NATIONAL_ID_SYSTEM}|{WANG}").fetch_all()
    assert len(patients) == 3
    found = [{r["id"] for r in client.resources("DiagnosticReport").search(patient=p["id"]).fetch_all()}
             for p in patients]
    assert found[0] == found[1] == found[2] and len(found[0]) >= 4


def test_unified_codes_make_results_comparable(client: SyncFHIRClient) -> None:
    """The white cell count of two hospitals is found by its unified code, each with the hospital's own code beside."""
    token = "http://huren.example/fhir/CodeSystem/recognition-item|THM001Q"
    found = client.resources("Observation").search(
        code=token, **{"patient.identifier": f"{NATIONAL_ID_SYSTEM}|{WANG}"}).fetch_all()
    systems = [{c["system"] for c in o["code"]["coding"]} for o in found]
    assert {"urn:huren:hz-demo-1:item", "urn:huren:hz-demo-2:item"} <= set().union(*systems)
    assert all("http://loinc.org" in s for s in systems)


@pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed")
def test_images_have_the_right_names_and_counts(client: SyncFHIRClient) -> None:
    """The chest CT's ImagingStudy: two series, four instances, and the patient's name in both scripts."""
    [study] = client.resources("ImagingStudy").search(
        identifier="urn:dicom:uid|urn:oid:1.2.826.0.1.3680043.10.1414.3.1").fetch_all()
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (2, 4)
    assert study["started"] == "2026-11-16T09:30:00+08:00"
    names: list[Any] = client.reference("Patient", study["subject"]["reference"].split("/")[1]).to_resource()["name"]
    assert "王建国" in {"".join([n.get("family", ""), *n.get("given", [])]) or n["text"] for n in names}


def test_a_preliminary_report_became_corrected_in_place(client: SyncFHIRClient) -> None:
    """Preliminary, then corrected: one report, the newest content, both versions in its history."""
    [report] = client.resources("DiagnosticReport").search(identifier="261100006").fetch_all()
    assert report["status"] == "corrected"
    history = client.execute(f"DiagnosticReport/{report['id']}/_history", method="GET")
    assert [e["resource"]["status"] for e in history["entry"]] == ["corrected", "preliminary"]


def test_resending_everything_changes_nothing(running: gateway.Gateway, client: SyncFHIRClient) -> None:
    """Same ids, same versions, same counts after every example was sent again."""
    before = everything(client)
    send_everything(running, running.data)
    assert everything(client) == before and len(before) > 100


def test_without_a_token_nothing_is_shown(running: gateway.Gateway) -> None:
    """No token: an OperationOutcome, not a patient."""
    stranger = SyncFHIRClient(f"http://127.0.0.1:{running.http}/fhir")
    with pytest.raises(AuthorizationError, match="OperationOutcome"):
        stranger.resources("Patient").fetch()
