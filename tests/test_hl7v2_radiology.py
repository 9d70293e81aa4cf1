"""Reports of images: which study they are about, and the link in either order of arrival."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import search
from gateway.adapter import load_all
from gateway.caller import GATEWAY
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.fhir.resource import text as fhir_text
from gateway.joining import Joining
from gateway.pipeline import Pipeline
from gateway.store import Store
from gateway.store.model import Put, Unit
from tests.support_source import OBR, convert, make_source, resources

UID = "1.2.840.113619.2.55.3.1"
RAD = OBR.replace("CBC^血常规^L", "CT1^胸部CT^L").replace("||HM|F", "||RAD|F")
PLAIN = OBR.replace("CBC^血常规^L", "CT1^胸部CT^L").replace("||HM|F", "|||F")
IMPRESSION = "OBX|9|TX|I^印象^L||未见异常||||||F"


def _studies(*segments: str, **changes: Any) -> list[str]:
    [report] = resources(convert(*segments, **changes), "DiagnosticReport")
    return [one["identifier"]["value"].removeprefix("urn:oid:") for one in report.get("imagingStudy", ())]


@pytest.mark.parametrize("segments", [
    [f"OBX|1|HD|113014^DICOM Study^DCM||{UID}||||||F"], [f"OBX|1|HD|113014^DICOM Study^DCM||^{UID}^ISO||||||F"],
    [f"OBX|1|ST|113014^DICOM Study^DCM||{UID}||||||F"],
    [f"OBX|1|RP|113014^DICOM Study^DCM||{UID}^100^Application^DICOM||||||F"],
    [f"OBX|1|ST|110180^Study Instance UID^DCM||urn:oid:{UID}||||||F"],
    [f"OBX|1|RP|L^影像^L||https://pacs.example/wado?requestType=WADO\\T\\studyUID={UID}\\T\\seriesUID=1.2||||||F"],
    [f"OBX|1|RP|L^影像^L||https://pacs.example/dicom-web/studies/{UID}/series||||||F"],
    [f"OBX|1|ST|L^影像^L||https://pacs.example/viewer?StudyInstanceUIDs={UID}||||||F"],
    [f"ZDS|{UID}^100^Application^DICOM", IMPRESSION], [f"IPC|A1|RP1|{UID}|S1|CT", IMPRESSION]])
@pytest.mark.parametrize("obr", [RAD, PLAIN])
def test_the_study_of_a_report_by_its_uid(segments: list[str], obr: str) -> None:
    """OBX of DICOM's codes in any type, a link to a study, ZDS-1, IPC-3: the id that the images have or will have."""
    conversion = convert(obr, *segments)
    [report] = resources(conversion, "DiagnosticReport")
    assert report["imagingStudy"] == [{
        "reference": f"ImagingStudy/{make_source().id_for('ImagingStudy', UID)}",
        "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{UID}"}}]
    assert conversion.unjoined == []


def test_several_studies_of_one_report_and_of_one_message() -> None:
    """Each UID once; a study behind the second OBR is the second report's."""
    other = UID + "1"
    assert _studies(RAD, f"OBX|1|HD|113014^^DCM||{UID}||||||F", f"OBX|2|HD|113014^^DCM|2|{other}~{UID}||||||F",
                    f"ZDS|{UID}") == [UID, other]
    conversion = convert(RAD, IMPRESSION, f"ZDS|{UID}", RAD.replace("F1", "F2"), IMPRESSION, f"ZDS|{other}")
    assert [[one["identifier"]["value"] for one in report["imagingStudy"]]
            for report in resources(conversion, "DiagnosticReport")] == [[f"urn:oid:{UID}"], [f"urn:oid:{other}"]]


@pytest.mark.parametrize("sent", ["", "no uid", "1.2", "1.02.3.4", "1.2.3.4." + "5" * 70, "3.2.1.4.5"])
def test_what_is_no_uid_names_no_study(sent: str) -> None:
    """An impossible UID is kept as the Observation's value, and links nothing."""
    assert _studies(RAD, f"OBX|1|ST|113014^DICOM Study^DCM||{sent}||||||F") == []


def _accession(*segments: str, **changes: Any) -> list[tuple[str, str]]:
    [report] = resources(convert(*segments, **changes), "DiagnosticReport")
    return [(one["system"], one["value"]) for one in report["identifier"]
            if one["type"]["coding"][0]["code"] == "ACSN"]


def _obr(at: int, value: str, obr: str = RAD) -> str:
    fields = obr.split("|")
    fields[at] = value
    return "|".join(fields)


def test_where_the_accession_number_stands() -> None:
    """OBR-18 of a report of images, IPC-1, or the field that the manifest names; never by guess of a laboratory's."""
    ours = "urn:huren:h1:accession"
    assert _accession(_obr(18, "A7"), IMPRESSION) == [(ours, "A7")]
    assert _accession(_obr(18, "A7^RIS"), IMPRESSION) == [(f"{ours}:RIS", "A7")]
    assert _accession(_obr(18, "A7"), "IPC|A8^^1.2.3^ISO", IMPRESSION) == [("urn:oid:1.2.3", "A8")]
    assert _accession(_obr(20, "A9"), IMPRESSION) == []
    assert _accession(_obr(20, "A9"), IMPRESSION, habits={"accession_field": "OBR-20"}) == [(ours, "A9")]
    assert _accession(_obr(18, "A7"), IMPRESSION, habits={"accession_field": "none"}) == []
    assert _accession(_obr(18, "A7", OBR), "OBX|1|NM|WBC^白细胞||5||||||F") == []
    assert convert(_obr(18, "A7", OBR), "OBX|1|NM|WBC^白细胞||5||||||F").unjoined == []
    [id] = convert(_obr(18, "A7"), IMPRESSION).unjoined
    assert id == resources(convert(_obr(18, "A7"), IMPRESSION), "DiagnosticReport")[0]["id"]


# ---------------------------------------------------------------- in the store

MSH = "MSH|^~\\&|RIS|H9|GW|R|{sent}||ORU^R01|{control}|P|2.5.1||||||UNICODE UTF-8"
PID = "PID|1||{patient}^^^RIS^MR||王^小明||19800229|M"


@pytest.fixture
def pipeline(store: Store, tmp_path: Path) -> Pipeline:
    """A pipeline that takes every sender; reports and images of one hospital come by the same name."""
    return Pipeline(Settings(data=tmp_path), store, load_all([SHIPPED_ADAPTERS], "generic"))


def _oru(number: str = "A7", at: int = 18, control: str = "M1", sent: str = "20240102103000", status: str = "F",
         patient: str = "P1", words: str = "未见异常", obr: str = RAD) -> bytes:
    fields = _obr(at, number, obr).split("|")
    fields[22], fields[25] = sent, status
    return "\r".join((MSH.format(sent=sent, control=control), PID.format(patient=patient), "|".join(fields),
                      f"OBX|1|TX|I^印象^L||{words}||||||{status}", "")).encode()


def _dicom(pipeline: Pipeline, tmp_path: Path, accession: str | None = "A7", study: str = UID, patient: str = "P1",
           number: int = 1, aet: str = "H9", publish: bool = True) -> None:
    """One object of a study, as the listener hands it over."""
    facts: dict[str, Any] = {
        "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "SOPInstanceUID": f"{study}.1.{number}",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT", "PatientID": patient,
        "StudyDate": "20240102"}
    if accession is not None:
        facts["AccessionNumber"] = accession
    staged = pipeline.store.objects.staging / f"{study}.{number}.{aet}"
    staged.parent.mkdir(parents=True, exist_ok=True)
    staged.write_bytes(staged.name.encode())
    pipeline.receive_dicom(staged, facts, hashlib.sha256(staged.name.encode()).digest(), aet, "")
    if publish:
        pipeline.publish_studies()


def _report(store: Store, kind: str = "DiagnosticReport") -> tuple[dict[str, Any], int]:
    """The only report with its version."""
    [row] = search.search(store, GATEWAY, kind, "").rows
    return json.loads(fhir_text(row.resource_type, row.id, row.version, row.updated, row.tail)), row.version


def _linked(store: Store) -> list[str]:
    report, _ = _report(store)
    return [one["reference"].rpartition("/")[2] for one in report.get("imagingStudy", ())]


def _id(pipeline: Pipeline, study: str = UID, aet: str = "H9") -> str:
    return pipeline.adapters.for_aet(aet).source_for(aet).id_for("ImagingStudy", study)


def _send(pipeline: Pipeline, message: bytes) -> None:
    receipt = pipeline.receive_hl7(message, "")
    assert receipt.category is None, receipt


@pytest.mark.parametrize("first", ["report", "images"])
@pytest.mark.parametrize("at, number", [(18, "A7"), (3, "A7"), (2, "A7")])
def test_whichever_comes_second_makes_the_link(pipeline: Pipeline, tmp_path: Path, first: str, at: int,
                                               number: str) -> None:
    """By the accession number in OBR-18, else by the filler's or the placer's number; the number stands in the link."""
    steps: list[Callable[[], None]] = [lambda: _send(pipeline, _oru(number, at)), lambda: _dicom(pipeline, tmp_path)]
    for step in steps if first == "report" else reversed(steps):
        step()
    report, version = _report(pipeline.store)
    assert report["imagingStudy"] == [{"reference": f"ImagingStudy/{_id(pipeline)}", "identifier": {
        "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]},
        "value": "A7"}}]
    assert version == (2 if first == "report" else 1)
    names = list(report)
    assert names.index("result") < names.index("imagingStudy") < names.index("conclusion")
    assert pipeline.store.dirty_studies() == [] and not pipeline.store.inbox("received")


@pytest.mark.parametrize("first", ["report", "images"])
def test_nothing_is_repeated(pipeline: Pipeline, tmp_path: Path, first: str) -> None:
    """The report again, its replay, more images, the study again: no new version of the report."""
    if first == "report":
        _send(pipeline, _oru())
        _dicom(pipeline, tmp_path)
    else:
        _dicom(pipeline, tmp_path)
        _send(pipeline, _oru())
    _, version = _report(pipeline.store)
    _send(pipeline, _oru())
    _send(pipeline, _oru(control="M2"))
    pipeline.replay(1)
    _dicom(pipeline, tmp_path, number=2)
    assert _report(pipeline.store)[1] == version and _linked(pipeline.store) == [_id(pipeline)]


def test_a_corrected_report_keeps_its_link_in_one_version(pipeline: Pipeline, tmp_path: Path) -> None:
    """Preliminary, images, final, corrected: the link is there in each version since the images came."""
    _send(pipeline, _oru(status="P"))
    _dicom(pipeline, tmp_path)
    for n, status in enumerate(("F", "C"), 3):
        _send(pipeline, _oru(control=f"M{n}", sent=f"2024010211{n}000", status=status, words=f"版本{n}"))
        report, version = _report(pipeline.store)
        assert version == n and report["conclusion"] == f"版本{n}"
        assert _linked(pipeline.store) == [_id(pipeline)]
    receipt = pipeline.receive_hl7(_oru(control="M9", sent="20240102100000", words="旧"), "")
    assert receipt.category == Category.CONFLICT.value  # the link has not made the older report the newer one


def test_an_order_with_two_studies_links_both(pipeline: Pipeline, tmp_path: Path) -> None:
    """CT and MR under one accession number are the images of that order, whenever they come."""
    other = UID + "2"
    _dicom(pipeline, tmp_path)
    _send(pipeline, _oru())
    _dicom(pipeline, tmp_path, study=other)
    assert _linked(pipeline.store) == sorted((_id(pipeline), _id(pipeline, other)))


def test_the_accession_number_comes_before_order_numbers(pipeline: Pipeline, tmp_path: Path) -> None:
    """A study whose accession number equals the report's filler number does not count where its own one is found."""
    _dicom(pipeline, tmp_path, accession="F1", study=UID + "3")
    _dicom(pipeline, tmp_path, accession="A7")
    _send(pipeline, _oru())
    assert _linked(pipeline.store) == [_id(pipeline)]


@pytest.mark.parametrize("change", [{"patient": "P2"}, {"aet": "H8"}, {"accession": "A8"}, {"accession": None}])
@pytest.mark.parametrize("first", ["report", "images"])
def test_nobody_elses_images_are_linked(pipeline: Pipeline, tmp_path: Path, change: dict[str, Any], first: str) -> None:
    """The same number of another person or hospital, another number, none: no link."""
    steps: list[Callable[[], None]] = [lambda: _send(pipeline, _oru()), lambda: _dicom(pipeline, tmp_path, **change)]
    for step in steps if first == "report" else reversed(steps):
        step()
    assert _linked(pipeline.store) == []
    assert pipeline.store.dirty_studies() == [] and not pipeline.store.inbox("received")


def test_a_number_that_everything_has_is_none(pipeline: Pipeline, tmp_path: Path) -> None:
    """Nine studies under "0": no link rather than nine."""
    for n in range(9):
        _dicom(pipeline, tmp_path, accession="0", study=f"{UID}.{n + 1}")
    _send(pipeline, _oru("0"))
    assert _linked(pipeline.store) == []


def test_a_laboratory_report_of_the_same_number_is_not_linked(pipeline: Pipeline, tmp_path: Path) -> None:
    """Laboratory and radiology may number alike."""
    _send(pipeline, _oru("A7", 3, obr=OBR))
    _dicom(pipeline, tmp_path)
    assert _linked(pipeline.store) == []


def test_a_report_that_names_its_study_keeps_that(pipeline: Pipeline, tmp_path: Path) -> None:
    """What the report says by UID is not changed by a number."""
    message = _oru().replace(b"OBX|1|", f"OBX|1|HD|113014^^DCM||{UID}9||||||F\rOBX|2|".encode())
    _send(pipeline, message)
    _dicom(pipeline, tmp_path)
    assert _linked(pipeline.store) == [_id(pipeline, UID + "9")] and _report(pipeline.store)[1] == 1


def test_a_study_whose_number_is_put_right_takes_its_link_along(pipeline: Pipeline, tmp_path: Path) -> None:
    """A study that says another accession number now is found by the link too: the report loses it."""
    _send(pipeline, _oru())
    _dicom(pipeline, tmp_path)
    assert _linked(pipeline.store) == [_id(pipeline)]
    study, _ = _report(pipeline.store, "ImagingStudy")
    study["identifier"] = [one for one in study["identifier"] if one.get("value") != "A7"] + [
        {"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]},
         "system": "urn:x", "value": "B1"}]
    institution = pipeline.adapters.for_aet("H9").source_for("H9").institution
    pipeline.store.write(Unit([Put(study, institution)]), GATEWAY)
    pipeline.store.write(Unit(list(Joining(pipeline.store).of_studies([study["id"]], institution))), GATEWAY)
    assert _linked(pipeline.store) == []


def test_a_crash_behind_the_commit_of_the_report_loses_no_link(
        pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that came while the report was written: the message is not settled before it has looked again."""
    real = Joining.of_reports

    def crash(*_: Any) -> Any:
        _dicom(pipeline, tmp_path, publish=False)
        raise GatewayError(Category.BUSY, "the machine stops here")

    monkeypatch.setattr(Joining, "of_reports", crash)
    assert pipeline.receive_hl7(_oru(), "").category == Category.BUSY.value
    monkeypatch.setattr(Joining, "of_reports", real)
    monkeypatch.setattr(Joining, "of_studies", lambda *_: [])  # as if the images had looked before the report was there
    pipeline.publish_studies()
    assert _linked(pipeline.store) == []
    [row] = pipeline.store.inbox("received")
    pipeline.replay(row.id)
    assert _linked(pipeline.store) == [_id(pipeline)] and not pipeline.store.inbox("received")


def test_a_crash_behind_the_commit_of_the_study_loses_no_link(
        pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study counts as published when its reports have been looked for; until then it is published again."""
    _send(pipeline, _oru())
    real = Joining.of_studies

    def crash(*_: Any) -> Any:
        raise GatewayError(Category.BUSY, "the machine stops here")

    monkeypatch.setattr(Joining, "of_studies", crash)
    _dicom(pipeline, tmp_path)
    assert _linked(pipeline.store) == [] and len(pipeline.store.dirty_studies()) == 1
    monkeypatch.setattr(Joining, "of_studies", real)
    pipeline.publish_studies()
    assert _linked(pipeline.store) == [_id(pipeline)] and pipeline.store.dirty_studies() == []


# ---------------------------------------------------------------- persons that become one, or part

_ID, _OTHER = "110105198002290013", "11010519800229003X"


def _adt(event: str, *segments: str, sent: str = "20240103080000") -> bytes:
    msh = MSH.format(sent=sent, control=f"{event}{sent}").replace("ORU^R01", f"ADT^{event}")
    return "\r".join((msh, f"EVN|{event}|{sent}", *segments, "")).encode()


def _pid(patient: str, national: str = "") -> str:
    return PID.format(patient=patient).replace("^MR", "^MR" + (f"~{national}^^^CN^NNCHN" if national else ""))


@pytest.mark.parametrize("older", ["report", "images"])
@pytest.mark.parametrize("joined, parted", [
    ([_adt("A40", _pid("P1"), "MRG|P2^^^RIS^MR")], None),
    ([_adt("A24", _pid("P1"), _pid("P2"))], _adt("A37", _pid("P1"), _pid("P2"), sent="20240103090000")),
    ([_adt("A08", _pid("P1", _ID)), _adt("A08", _pid("P2", _ID))],
     _adt("A08", _pid("P2", _OTHER), sent="20240103090000")),
], ids=["merge", "link", "national"])
def test_images_and_report_whose_patients_become_one_are_joined(
        pipeline: Pipeline, tmp_path: Path, older: str, joined: list[bytes], parted: bytes | None) -> None:
    """By a merge, a link, a national identifier that comes later; and parted again. The mark is made in the transaction
    that moves the persons, so a crash leaves the study to be published."""
    steps: list[Callable[[], None]] = [lambda: _send(pipeline, _oru()),
                                       lambda: _dicom(pipeline, tmp_path, patient="P2")]
    for step in steps if older == "report" else reversed(steps):
        step()
    assert _linked(pipeline.store) == []
    for message in joined:
        _send(pipeline, message)
    [study] = pipeline.store.dirty_studies()
    assert study.study_instance_uid == UID
    assert pipeline.publish_studies() == 1 and pipeline.store.dirty_studies() == []
    assert _linked(pipeline.store) == [_id(pipeline)]
    if parted is not None:
        _send(pipeline, parted)
        assert pipeline.publish_studies() == 1 and pipeline.store.dirty_studies() == []
        assert _linked(pipeline.store) == []


def test_persons_that_become_one_mark_no_other_studies(pipeline: Pipeline, tmp_path: Path) -> None:
    """Nothing is published again where no report of the same hospital comes to the study's person, or where the study
    has no number."""
    _dicom(pipeline, tmp_path, patient="P2")
    _dicom(pipeline, tmp_path, patient="P2", accession=None, study=UID + "4")
    _send(pipeline, _oru().replace(b"|H9|", b"|H8|"))
    for institution, patient in (("H8", "P1"), ("H9", "P2"), ("H9", "P3")):
        _send(pipeline, _adt("A08", _pid(patient, _ID)).replace(b"|H9|", f"|{institution}|".encode()))
    persons = {row.person for row in search.search(pipeline.store, GATEWAY, "Patient", "").rows}
    assert len(persons) == 1 and pipeline.store.dirty_studies() == []


def test_report_and_images_at_the_same_moment(pipeline: Pipeline, tmp_path: Path) -> None:
    """Many pairs, each from two threads at once: every report has its link at the end."""
    count = 12

    def reports() -> None:
        for n in range(count):
            _send(pipeline, _oru(f"A{n}", control=f"M{n}", obr=RAD.replace("F1", f"F{n}").replace("PL1", f"PL{n}")))

    def images() -> None:
        for n in range(count):
            _dicom(pipeline, tmp_path, accession=f"A{n}", study=f"{UID}.{n + 1}")

    threads = [threading.Thread(target=work) for work in (reports, images)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = search.search(pipeline.store, GATEWAY, "DiagnosticReport", "_count=50").rows
    assert len(rows) == count
    for row in rows:
        report = json.loads(fhir_text(row.resource_type, row.id, row.version, row.updated, row.tail))
        number = int(next(one["value"] for one in report["identifier"] if one["value"].startswith("A"))[1:])
        assert [one["reference"] for one in report["imagingStudy"]] == [
            f"ImagingStudy/{_id(pipeline, f'{UID}.{number + 1}')}"]
