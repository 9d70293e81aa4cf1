"""Every DICOM file that pydicom and pynetdicom ship, through the port into the store and out as an ImagingStudy."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from test_dimse import Raw, a_slice, associate, sendable
from test_imaging_header import NAMES, part10, shipped_files

from gateway.adapter import Adapter, Adapters, load_all
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.edges.dimse import Listener, listen
from gateway.fhir.resource import text
from gateway.imaging import read_header
from gateway.pipeline import Pipeline
from gateway.source import Source
from gateway.store import Store, open_store
from gateway.terminology import CodeMap

ROOT = Path(__file__).parents[1]

#: What is refused, and with which status; every file that is not here is stored. Of "header" files no data set has the
#: UIDs that a study needs; of "class" files no context is agreed on: they are DICOMDIRs.
REFUSED = {
    "MR_truncated.dcm": 0xC000, "rtplan_truncated.dcm": 0xC000, "no_meta.dcm": 0xC000,
    **dict.fromkeys(("chrSQEncoding.dcm", "chrSQEncoding1.dcm", "JPEGLSNearLossless_08.dcm",
                     "JPEGLSNearLossless_16.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm",
                     "UN_sequence.dcm", "empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm",
                     "no_meta_group_length.dcm", "priv_SQ.dcm"), 0xA900),
    **dict.fromkeys(("DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-empty.dcm", "DICOMDIR-implicit", "DICOMDIR-nooffset",
                     "DICOMDIR-nopatient", "DICOMDIR-reordered"), None),
}


def hospital(folder: Path) -> Adapters:
    """Every AE title is an institution of its own: files that share UIDs do not meet."""
    source = Source("hz", "Hospital", "urn:huren:hz:item", CodeMap([]), dicom_charset="GB18030")
    return Adapters([Adapter("all", folder, source, per_facility=True)], "all")


def running(settings: Settings, store: Store) -> tuple[Pipeline, Listener]:
    """A served port over a store."""
    pipeline = Pipeline(settings, store, hospital(settings.data))
    listener = listen(replace(settings, dimse="127.0.0.1:0"), pipeline)
    listener.publisher.start()
    listener.start()
    return pipeline, listener


def resource(store: Store, resource_type: str, resource_id: str) -> dict | None:
    """A stored resource."""
    row = store.read(resource_type, resource_id, GATEWAY)
    return json.loads(text(row.resource_type, row.id, row.version, row.updated, row.tail)) if row else None


def version(store: Store, resource_type: str, resource_id: str) -> int:
    """Its version; 0 when there is none."""
    row = store.read(resource_type, resource_id, GATEWAY)
    return row.version if row else 0


def sending(path: Path) -> tuple[bytes, str, str, str]:
    """Bytes of a file's data set as they stand in it, its SOP class and instance, and its transfer syntax."""
    whole = path.read_bytes()
    try:
        ds = dcmread(BytesIO(whole), stop_before_pixels=True)
    except InvalidDicomError:
        ds = dcmread(BytesIO(whole), stop_before_pixels=True, force=True)
    meta = ds.file_meta
    start = 132 if whole[128:132] == b"DICM" else 0
    while whole[start:start + 2] == b"\x02\x00":
        long = whole[start + 4:start + 6] in (b"OB", b"UN")
        length = struct.unpack_from("<L" if long else "<H", whole, start + (8 if long else 6))[0]
        start += (12 if long else 8) + length
    data = whole[start:]
    guess = ExplicitVRLittleEndian if data[4:6].isalpha() else ImplicitVRLittleEndian
    big = "1.2.840.10008.1.2.2" if data[:1] == b"\x00" else ""
    return (data, str(ds.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "1.2.840.10008.5.1.4.1.1.7"),
            str(ds.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID") or "1.2.3"),
            str(meta.get("TransferSyntaxUID") or big or guess))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipeline, Listener, dict[Path, int | None]]]:
    """Everything sent, each file by a title of its own; status by file."""
    settings = Settings(data=tmp_path_factory.mktemp("dimse"))
    store = open_store(settings, migrate=True)
    pipeline, listener = running(settings, store)
    statuses: dict[Path, int | None] = {}
    for number, path in enumerate(shipped_files()):
        data, sop_class, sop_instance, syntax = sending(path)
        with Raw(listener.address[1], f"F{number}", sop_class, syntax) as raw:
            statuses[path] = raw.store(data, sop_class=sop_class, sop_instance=sop_instance) if raw.accepted else None
            raw.release()
    deadline = time.monotonic() + 20
    while store.dirty_studies() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield pipeline, listener, statuses
    listener.drain(1)
    listener.publisher.stop(1)
    store.close()


@pytest.mark.parametrize("number", range(len(shipped_files())),
                         ids=[f"{path.parent.name}/{path.name}" for path in shipped_files()])
def test_every_shipped_file_is_stored_or_refused(gateway, number):
    """The right status; what is stored has an ImagingStudy of that study, and a Patient with the right name."""
    pipeline, _, statuses = gateway
    path = shipped_files()[number]
    expected = REFUSED.get(path.name, 0)
    assert statuses[path] == expected
    if expected != 0:
        return
    source = pipeline.adapters.for_aet(f"F{number}").source_for(f"F{number}")
    ds = dcmread(path, stop_before_pixels=True, force=True)
    study = resource(pipeline.store, "ImagingStudy", source.id_for("ImagingStudy", ds.StudyInstanceUID))
    assert study["identifier"][0]["value"] == f"urn:oid:{ds.StudyInstanceUID}"
    assert study["numberOfInstances"] == 1
    assert study["series"][0]["instance"][0]["uid"] == ds.SOPInstanceUID
    patient = resource(pipeline.store, *study["subject"]["reference"].split("/"))
    found = {n["extension"][0]["valueCode"]: [n.get("family", ""), *n.get("given", [])] if "family" in n else n["text"]
             for n in patient.get("name", [])}
    assert found == expected_names(path, ds)


def expected_names(path: Path, ds) -> dict[str, object]:
    """By the table of names for the files of other scripts; else as pydicom reads the name."""
    if path.name in NAMES:
        groups = NAMES[path.name]
    else:
        name = ds.get("PatientName") or ""
        parts = zip(("Alphabetic", "Ideographic", "Phonetic"), getattr(name, "components", ()), strict=False)
        groups = {group: part.rstrip("^ ") for group, part in parts if part.rstrip("^ ")}
    codes = {"Alphabetic": "ABC", "Ideographic": "IDE", "Phonetic": "SYL"}
    return {codes[group]: [name.split("^")[0], *filter(None, name.split("^")[1:3])] if "^" in name else name
            for group, name in groups.items()}


def test_stored_objects_are_the_senders_bytes(gateway):
    """The object store gives back a file that holds exactly the data set that was sent."""
    pipeline, _, statuses = gateway
    seen = 0
    for path in [p for p, status in statuses.items() if status == 0][::7]:
        data, _, sop, _ = sending(path)
        found = [pipeline.store.objects.get(i.object_key) for i in pipeline.store.instances(sop)]
        assert any(stored.endswith(data) for stored in found)
        seen += 1
    assert seen > 10


def test_resending_everything_changes_nothing(gateway):
    """The same objects again: success, the same versions, no study to publish."""
    pipeline, listener, statuses = gateway
    before = pipeline.store.counts()
    for number, path in list(enumerate(shipped_files()))[::5]:
        if statuses[path] != 0:
            continue
        data, sop_class, sop_instance, syntax = sending(path)
        with Raw(listener.address[1], f"F{number}", sop_class, syntax) as raw:
            assert raw.store(data, sop_class=sop_class, sop_instance=sop_instance) == 0
            raw.release()
    assert pipeline.store.dirty_studies() == []
    after = pipeline.store.counts()
    assert {k: after[k] for k in ("resources", "studies", "instances")} == \
        {k: before[k] for k in ("resources", "studies", "instances")}


@pytest.fixture
def served(settings: Settings, store: Store) -> Iterator[tuple[Pipeline, Listener]]:
    """An empty store on each backend, and its port."""
    pipeline, listener = running(settings, store)
    yield pipeline, listener
    listener.drain(1)
    listener.publisher.stop(1)


def published(store: Store) -> bool:
    """Wait until nothing is unpublished."""
    deadline = time.monotonic() + 10
    while store.dirty_studies() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not store.dirty_studies()


def test_a_series_is_one_version(served):
    """Thirty slices on one association are one version of the study; ten more on the next are the second."""
    pipeline, listener = served
    source = pipeline.adapters.for_aet("CT").source_for("CT")
    study_id = source.id_for("ImagingStudy", "1.2.3.4")
    for instances, expected in ((range(30), 1), (range(30, 40), 2)):
        assoc = associate(listener.address[1], aet="CT")
        for number in instances:
            ds = a_slice(SOPInstanceUID=f"1.2.3.4.5.{number}", InstanceNumber=number)
            assert assoc.send_c_store(sendable(ds)).Status == 0
        assoc.release()
        assert published(pipeline.store)
        assert version(pipeline.store, "ImagingStudy", study_id) == expected
        study = resource(pipeline.store, "ImagingStudy", study_id)
        assert study["numberOfInstances"] == len(study["series"][0]["instance"]) == instances.stop
    patient = resource(pipeline.store, *study["subject"]["reference"].split("/"))
    assert patient["name"][0]["text"] == "王小东"


def test_same_and_other_bytes_under_one_uid(served):
    """The same object again is a success, another under its UID a duplicate; the first one's bytes stay."""
    _, listener = served
    assoc = associate(listener.address[1], aet="CT")
    first, other = sendable(a_slice()), sendable(a_slice())
    assert [assoc.send_c_store(ds).Status for ds in (first, first, other)] == [0, 0, 0x0111]
    assoc.release()


def test_what_was_stored_before_a_crash_is_published_at_the_next_start(settings, store):
    """Instances that were acknowledged and not yet shown are, as soon as the port is served again."""
    pipeline = Pipeline(settings, store, hospital(settings.data))
    staged = store.objects.staging / "dimse-x.part"
    staged.write_bytes(part10(a_slice()))
    facts = read_header(staged.read_bytes())
    assert pipeline.receive_dicom(staged, facts, b"\x01" * 32, "CT", "127.0.0.1") == "new"
    assert len(store.dirty_studies()) == 1
    again, listener = running(settings, store)
    assert published(store)
    source = again.adapters.for_aet("CT").source_for("CT")
    assert version(store, "ImagingStudy", source.id_for("ImagingStudy", "1.2.3.4")) == 1
    listener.drain(1)
    listener.publisher.stop(1)


@pytest.mark.long
def test_dcmtk_sends_a_study_on_four_associations(served, tmp_path):
    """storescu of dcmtk, four at once, one study: every slice once, one patient, few versions."""
    if not shutil.which("storescu"):
        pytest.skip("storescu of dcmtk is not installed")
    pipeline, listener = served
    for number in range(100):
        (tmp_path / f"{number}.dcm").write_bytes(part10(a_slice(40_000, SOPInstanceUID=f"1.2.3.4.5.{number}")))
    senders = [subprocess.Popen(
        ["storescu", "-aet", "CT", "-aec", "HUREN", "127.0.0.1", str(listener.address[1]),
         *(str(tmp_path / f"{n}.dcm") for n in range(quarter, 100, 4))],
        env={**os.environ, "TCP_NODELAY": "1"}) for quarter in range(4)]
    assert [sender.wait(60) for sender in senders] == [0, 0, 0, 0]
    assert published(pipeline.store)
    study_id = pipeline.adapters.for_aet("CT").source_for("CT").id_for("ImagingStudy", "1.2.3.4")
    study = resource(pipeline.store, "ImagingStudy", study_id)
    assert study["numberOfInstances"] == 100
    assert version(pipeline.store, "ImagingStudy", study_id) <= 4


def test_a_vanished_sender_leaves_no_half_object(served):
    """An association that breaks in the middle of its second object: one instance, no staged file."""
    pipeline, listener = served
    data = part10(a_slice())
    data = data[132 + 12 + struct.unpack_from("<L", data, 140)[0]:]
    with Raw(listener.address[1], "CT") as raw:
        assert raw.store(data) == 0
        raw.begin_store(sop_instance="1.2.3.9")
        raw.send_part(data[:300])
        raw.socket.shutdown(socket.SHUT_RDWR)
    assert published(pipeline.store)
    assert pipeline.store.counts()["instances"] == 1
    deadline = time.monotonic() + 5
    while list(pipeline.store.objects.staging.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(pipeline.store.objects.staging.iterdir()) == []


class Sender(threading.Thread):
    """Sends slices on one association until it is through or the other side dies; knows what was acknowledged."""

    def __init__(self, port: int, uids: list[str], data: bytes) -> None:
        super().__init__()
        self.acknowledged: list[str] = []
        self._port, self._uids, self._data = port, uids, data
        self.start()

    def run(self) -> None:
        try:
            with Raw(self._port, "CT") as raw:
                for uid in self._uids:
                    data = self._data.replace(b"9.9.9.9.9999", uid.encode())
                    if raw.store(data, sop_instance=uid) == 0:
                        self.acknowledged.append(uid)
                raw.release()
        except (OSError, EOFError):
            return


@pytest.mark.long
def test_kill_9_loses_no_acknowledged_object(settings, tmp_path):
    """The process is killed amid four associations: each acknowledged object is there whole, and shown at the next
    start; sending all of them again leaves each exactly once."""
    open_store(settings, migrate=True).close()
    environ = {**os.environ, "HUREN_DATA": str(tmp_path), "HUREN_DATABASE_URL": settings.database_url,
               "HUREN_DIMSE": "127.0.0.1:0", "HUREN_DEFAULT_ADAPTER": "generic"}
    process = subprocess.Popen([sys.executable, "-m", "gateway", "serve", "dimse"], env=environ, cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    port = int(line.rpartition(":")[2])
    data = part10(a_slice(40_000, SOPInstanceUID="9.9.9.9.9999"))
    data = data[132 + 12 + struct.unpack_from("<L", data, 140)[0]:]
    uids = [f"1.2.3.4.{number + 1000}" for number in range(4000)]
    senders = [Sender(port, uids[quarter::4], data) for quarter in range(4)]
    while sum(len(sender.acknowledged) for sender in senders) < 100:
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    for one in (*children, process):
        one.kill()
    for sender in senders:
        sender.join(10)
    process.wait(10)
    process.stdout.close()
    acknowledged = [uid for sender in senders for uid in sender.acknowledged]
    store = open_store(settings)
    pipeline = Pipeline(settings, store, load_all(settings.adapter_folders, "generic"))
    for uid in acknowledged:
        [instance] = store.instances(uid)
        assert store.objects.get(instance.object_key).endswith(data.replace(b"9.9.9.9.9999", uid.encode()))
    listener = listen(replace(settings, dimse="127.0.0.1:0"), pipeline)
    listener.publisher.start()
    listener.start()
    assert published(store)
    source = pipeline.adapters.for_aet("CT").source_for("CT")
    shown = resource(store, "ImagingStudy", source.id_for("ImagingStudy", "1.2.3.4"))
    assert shown["numberOfInstances"] == store.counts()["instances"] >= len(acknowledged)
    again = [Sender(listener.address[1], uids[quarter:300:4], data) for quarter in range(4)]
    for sender in again:
        sender.join(60)
    assert published(store)
    everything = set(acknowledged) | set(uids[:300])
    shown = resource(store, "ImagingStudy", source.id_for("ImagingStudy", "1.2.3.4"))
    found = [i["uid"] for series in shown["series"] for i in series["instance"]]
    assert len(found) == len(set(found)) and everything <= set(found)
    listener.drain(1)
    listener.publisher.stop(1)
    store.close()
