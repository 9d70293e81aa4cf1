"""The demo's story: recent results of a few persons, told from the shipped examples."""

from __future__ import annotations

import io
from datetime import date, timedelta
from pathlib import Path

import pydicom
import pytest

from gateway.adapter import Adapter, load
from gateway.commands import story
from gateway.config import SHIPPED_ADAPTERS
from gateway.identity import national_keys

TODAY = date(2031, 3, 1)


def _told(hospital: Adapter, into: Path, today: date = TODAY) -> dict[str, bytes]:
    into.mkdir()
    return {path.name: path.read_bytes() for path in story.tell(hospital, today, into)}


@pytest.fixture(params=["renmin", "xihu", "qiantang"])
def hospital(request: pytest.FixtureRequest) -> Adapter:
    """Each demo hospital."""
    return load(SHIPPED_ADAPTERS / request.param)


def test_every_telling_names_an_example_that_is_there() -> None:
    """The story never loses a part in silence."""
    assert [t for t in story.TELLINGS if not (SHIPPED_ADAPTERS / t.hospital / "examples" / t.example).exists()] == []


def test_told_twice_on_one_day_it_is_the_same(hospital: Adapter, tmp_path: Path) -> None:
    """A demo that starts again on the same day sends the same bytes; the next day it differs."""
    first = _told(hospital, tmp_path / "a")
    assert first and first == _told(hospital, tmp_path / "b")
    assert first != _told(hospital, tmp_path / "c", TODAY + timedelta(days=1))


def test_its_persons_have_valid_numbers_of_their_own(hospital: Adapter, tmp_path: Path) -> None:
    """Each message converts to a Patient whose national identifier links him across hospitals."""
    known = {p.national_id for p in (story.CHEN, story.LIN, story.WU)}
    seen = set()
    for name, raw in _told(hospital, tmp_path / "a").items():
        if name.endswith(".hl7"):
            message = hospital.parse(raw)
            for change in hospital.convert_hl7(message, message.first("MSH").get(4)).changes:
                if change.resource["resourceType"] == "Patient":
                    [key] = national_keys(change.resource)
                    seen.add(key.partition("|")[2])
    assert seen and seen <= known


def test_its_results_are_days_old_never_of_the_future(hospital: Adapter, tmp_path: Path) -> None:
    """Whatever the day, the results lie within the last weeks, which is what windows ask for."""
    for name, raw in _told(hospital, tmp_path / "a").items():
        if name.endswith(".hl7"):
            message = hospital.parse(raw)
            for change in hospital.convert_hl7(message, message.first("MSH").get(4)).changes:
                if change.resource["resourceType"] == "DiagnosticReport":
                    day = date.fromisoformat(change.resource["effectiveDateTime"][:10])
                    assert timedelta(days=1) <= TODAY - day <= timedelta(days=20)
        else:
            ds = pydicom.dcmread(io.BytesIO(raw))
            day = date.fromisoformat(f"{ds.StudyDate[:4]}-{ds.StudyDate[4:6]}-{ds.StudyDate[6:]}")
            assert timedelta(days=1) <= TODAY - day <= timedelta(days=20)


def test_report_and_images_name_one_study(tmp_path: Path) -> None:
    """The radiology report's StudyInstanceUID is that of the pictures, and each picture has its own UID and pixels."""
    told = _told(load(SHIPPED_ADAPTERS / "qiantang"), tmp_path / "a")
    slices = [pydicom.dcmread(io.BytesIO(raw)) for name, raw in told.items() if "01-chest-ct" in name]
    assert len({ds.SOPInstanceUID for ds in slices}) == len(slices) == story.SLICES
    assert {ds.pixel_array.shape for ds in slices} == {(story.EDGE, story.EDGE)}
    report = next(raw for name, raw in told.items() if name.endswith("02-chest-ct-report.hl7"))
    assert {ds.StudyInstanceUID.encode() in report for ds in slices} == {True}
