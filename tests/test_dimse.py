"""The DIMSE port against foreign senders and hostile ones, on a real socket."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    _STORAGE_CLASSES,
    CTImageStorage,
    PatientRootQueryRetrieveInformationModelFind,
    Verification,
)
from test_imaging_header import _SHIPPED, a_data_set, part10

from gateway.config import Settings
from gateway.edges.dimse import ANSWERS, Limits, Listener
from gateway.edges.dimse import upper_layer as ul
from gateway.edges.dimse.data_set import IN_MEMORY, file_meta
from gateway.edges.dimse.messages import Command, p_data, read_command
from gateway.edges.dimse.publisher import Publisher
from gateway.errors import Category, GatewayError
from gateway.store.model import DirtyStudy

CT = str(CTImageStorage)


class Hospital:
    """An adapter as far as the port looks at one."""

    keep = "full"

    class source:
        institution = "hz-1"
        dicom_charset = "GB18030"

    def source_for(self, aet: str) -> type:
        return self.source


class Hospitals:
    """One hospital, with one AE title."""

    def __init__(self) -> None:
        self.adapter = Hospital()

    def for_aet(self, aet: str, peer: str = "") -> Hospital:
        if aet != "SCANNER":
            raise GatewayError(Category.FORBIDDEN, "unknown")
        return self.adapter


class Port:
    """A listener whose receiver keeps the files in a folder, or does what ``then`` says."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.kept: list[tuple[Path, dict, bytes, str, str]] = []
        self.then: Callable[[], str] = lambda: "new"
        self.folder = folder / "kept"
        self.folder.mkdir()
        self.staging = folder / "staging"
        self.hospitals = Hospitals()
        self.released: list[object] = []
        self.publisher = Publisher(lambda ready: 0)
        self.listener = Listener(Settings(dimse="127.0.0.1:0"), self.hospitals, self.receive,  # type: ignore[arg-type]
                                 self.staging, self.publisher, limits or Limits(stall_seconds=5, acse_seconds=2))
        self.listener.start()
        self.port = self.listener.address[1]

    def receive(self, path: Path, facts: dict, digest: bytes, aet: str, peer: str) -> str:
        outcome = self.then()
        target = self.folder / f"{len(self.kept)}.dcm"
        path.rename(target)
        self.kept.append((target, facts, digest, aet, peer))
        return outcome

    def stage_is_empty(self) -> bool:
        return not list(self.staging.iterdir())


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    made = Port(tmp_path)
    yield made
    made.listener.drain(1.0)


def associate(port: int, *contexts, aet: str = "SCANNER", called: str = "HUREN", maximum: int = 16382):
    """An association of pynetdicom's."""
    ae = AE(ae_title=aet)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    return ae.associate("127.0.0.1", port, ae_title=called, max_pdu=maximum,
                        contexts=list(contexts) or [build_context(Verification), build_context(CT)])


def a_slice(pixels: int = 1000, **elements):
    """A CT slice."""
    ds = a_data_set(PatientName="王^小东", PatientID="P1", Modality="CT", **elements)
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = max(pixels // 128, 1), 64, 16, 16, 15
    ds.PixelRepresentation, ds.SamplesPerPixel, ds.PhotometricInterpretation = 0, 1, "MONOCHROME2"
    ds.add_new(0x7FE00010, "OW", os.urandom(pixels))
    return ds


def sendable(ds, syntax=ExplicitVRLittleEndian):
    """With the file meta that pynetdicom's sender wants."""
    data = part10(ds, str(syntax))
    return dcmread(BytesIO(data))


# ------------------------------------------------------------------ the ordinary way


def test_every_category_has_a_status():
    """The answer table of C-STORE is complete and its rows differ, so that a sender can tell them apart."""
    assert set(ANSWERS) == set(Category)
    assert len(set(ANSWERS.values())) == len(ANSWERS)


def test_echo(port):
    """C-ECHO by pynetdicom, several times on one association."""
    assoc = associate(port.port)
    assert [assoc.send_c_echo().Status for _ in range(3)] == [0, 0, 0]
    assoc.release()
    assert assoc.is_released


def test_store_is_bit_exact(port):
    """What is handed on is a Part 10 file whose data set is byte for byte what was sent, with its digest and facts."""
    ds = sendable(a_slice())
    assoc = associate(port.port)
    assert assoc.send_c_store(ds).Status == 0
    assoc.release()
    [(path, facts, digest, aet, peer)] = port.kept
    sent = part10(ds)
    sent = sent[132 + 12 + struct.unpack_from("<L", sent, 140)[0]:]
    stored = path.read_bytes()
    assert stored.endswith(sent)
    assert digest == hashlib.sha256(sent).digest()
    assert facts["PatientName"] == {"Alphabetic": "王^小东"}
    assert (aet, peer) == ("SCANNER", "127.0.0.1")
    read = dcmread(path)
    assert (read.file_meta.MediaStorageSOPInstanceUID, read.file_meta.SourceApplicationEntityTitle) == \
        (ds.SOPInstanceUID, "SCANNER")
    assert read.PixelData == ds.PixelData
    assert port.stage_is_empty()


@pytest.mark.parametrize("size", [IN_MEMORY - 4000, IN_MEMORY + 2, 5 * IN_MEMORY])
@pytest.mark.parametrize("maximum", [4096, 0])
def test_large_objects_are_streamed_and_no_different(port, size, maximum):
    """Below and above what is held in memory, in small PDUs and in large ones, the file and its digest are right."""
    ds = sendable(a_slice(size))
    assoc = associate(port.port, maximum=maximum)
    assert assoc.send_c_store(ds).Status == 0
    assoc.release()
    [(path, _, digest, _, _)] = port.kept
    sent = part10(ds)
    sent = sent[132 + 12 + struct.unpack_from("<L", sent, 140)[0]:]
    assert path.read_bytes().endswith(sent)
    assert digest == hashlib.sha256(sent).digest()


@pytest.mark.parametrize("size", [2000, 2 * IN_MEMORY])
def test_metadata_only_drops_the_pixels(port, size):
    """``keep = "metadata"``: the file is a readable header, the digest that of what was sent."""
    port.hospitals.adapter.keep = "metadata"
    ds = sendable(a_slice(size))
    assoc = associate(port.port)
    assert assoc.send_c_store(ds).Status == 0
    assoc.release()
    [(path, _, digest, _, _)] = port.kept
    read = dcmread(path)
    assert "PixelData" not in read and read.PatientName == ds.PatientName and path.stat().st_size < 2000
    sent = part10(ds)
    assert digest == hashlib.sha256(sent[132 + 12 + struct.unpack_from("<L", sent, 140)[0]:]).digest()


def test_storage_classes_and_transfer_syntaxes_are_all_taken(port):
    """Every storage SOP class of the standard, and every transfer syntax of a file, is negotiated."""
    classes = list(_STORAGE_CLASSES.values())
    for at in range(0, len(classes), 128):
        assoc = associate(port.port, *(build_context(uid) for uid in classes[at:at + 128]))
        assert len(assoc.accepted_contexts) == len(classes[at:at + 128])
        assoc.release()
    for syntax in ul.TRANSFER_SYNTAXES:
        assoc = associate(port.port, build_context(CT, syntax))
        assert [c.transfer_syntax for c in assoc.accepted_contexts] == [[syntax]]
        assoc.release()


def test_usual_transfer_syntaxes_are_known():
    """Uncompressed, deflated, JPEG, JPEG-LS, JPEG 2000, HTJ2K, RLE, MPEG, HEVC."""
    usual = {"", ".1", ".1.99", ".2", ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".4.201",
             ".4.202", ".4.203", ".5", ".4.100", ".4.101", ".4.102", ".4.103", ".4.107"}
    assert {f"1.2.840.10008.1.2{tail}" for tail in usual} <= ul.TRANSFER_SYNTAXES


def test_senders_preference_of_transfer_syntax_counts_but_explicit_beats_implicit(port):
    """A compressed object is not asked to be converted; implicit VR is taken only where nothing else is offered."""
    jpeg = "1.2.840.10008.1.2.4.70"
    for offered, chosen in (([jpeg, ExplicitVRLittleEndian], jpeg), ([ExplicitVRLittleEndian, jpeg],
                            ExplicitVRLittleEndian), ([ImplicitVRLittleEndian, ExplicitVRLittleEndian],
                            ExplicitVRLittleEndian), ([ImplicitVRLittleEndian], ImplicitVRLittleEndian)):
        assoc = associate(port.port, build_context(CT, offered))
        assert [c.transfer_syntax for c in assoc.accepted_contexts] == [[chosen]]
        assoc.release()


def test_what_is_no_storage_is_not_negotiated(port):
    """Query, print and private services are refused context by context; the rest of the association stands."""
    private = UID("1.2.840.113619.4.26")
    assoc = associate(port.port, build_context(CT), build_context(PatientRootQueryRetrieveInformationModelFind),
                      build_context(private))
    assert [c.abstract_syntax for c in assoc.accepted_contexts] == [CT]
    assert {c.result for c in assoc.rejected_contexts} == {3}
    assoc.release()


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("category", Category)
def test_a_refusal_is_answered_from_the_table(port, category):
    """Whatever category the pipeline refuses with, the sender gets its status, and the association goes on."""
    def refuse() -> str:
        raise GatewayError(category, "for a reason", "(0020,000D)")
    port.then = refuse
    assoc = associate(port.port)
    status = assoc.send_c_store(sendable(a_slice()))
    assert (status.Status, status.OffendingElement, status.ErrorComment) == \
        (ANSWERS[category], 0x0020000D, "for a reason")
    assert assoc.send_c_echo().Status == 0
    assoc.release()
    assert port.stage_is_empty()


@pytest.mark.parametrize(("outcome", "status"), [("new", 0), ("same", 0), ("conflict", 0x0111)])
def test_outcomes_of_the_store(port, outcome, status):
    """New and resent objects succeed; another object under a known UID is a duplicate."""
    port.then = lambda: outcome
    assoc = associate(port.port)
    assert assoc.send_c_store(sendable(a_slice())).Status == status
    assoc.release()


def test_a_fault_is_answered_and_survived(port, caplog):
    """An exception of ours is 0110; its text, which may hold a patient's data, is not logged."""
    def break_down() -> str:
        raise RuntimeError("王小东 330106")
    port.then = break_down
    assoc = associate(port.port)
    with caplog.at_level(logging.INFO, "huren.dimse"):
        assert assoc.send_c_store(sendable(a_slice())).Status == 0x0110
    port.then = lambda: "new"
    assert assoc.send_c_store(sendable(a_slice())).Status == 0
    assoc.release()
    assert "RuntimeError" in caplog.text and "330106" not in caplog.text and "王" not in caplog.text


def test_a_header_without_study_uid(port, caplog):
    """A900 names the element; nothing is kept; one log line without a value of the header."""
    ds = a_slice()
    del ds.StudyInstanceUID
    assoc = associate(port.port)
    with caplog.at_level(logging.INFO, "huren.dimse"):
        status = assoc.send_c_store(sendable(ds))
    assoc.release()
    assert (status.Status, status.OffendingElement) == (0xA900, 0x0020000D)
    assert port.kept == [] and port.stage_is_empty()
    [line] = [r.getMessage() for r in caplog.records if "status=" in r.getMessage()]
    assert "where=(0020,000D)" in line and "P1" not in line


def test_a_truncated_object(port):
    """C000: the pixel data is shorter than it says."""
    data = part10(a_slice(5000))
    start = 132 + 12 + struct.unpack_from("<L", data, 140)[0]
    with Raw(port.port) as raw:
        assert raw.store(data[start:-100]) == 0xC000
        assert raw.echo() == 0
    assert port.kept == [] and port.stage_is_empty()


@pytest.mark.parametrize("size", [1000, 2 * IN_MEMORY])
def test_a_full_disk(port, size):
    """A700 after the whole object was received; the association goes on."""
    shutil.rmtree(port.staging)
    assoc = associate(port.port)
    assert assoc.send_c_store(sendable(a_slice(size))).Status == 0xA700
    port.staging.mkdir()
    assert assoc.send_c_store(sendable(a_slice(size))).Status == 0
    assoc.release()


def test_command_and_data_set_must_be_of_one_object(port):
    """PS3.4 B.2.3: SOP class and instance of the command, the context and the data set are the same, or A900."""
    data = part10(a_slice())
    data = data[132 + 12 + struct.unpack_from("<L", data, 140)[0]:]
    with Raw(port.port) as raw:
        assert raw.store(data, sop_instance="1.2.3.99") == 0xA900
        assert raw.store(data, sop_class="1.2.840.10008.5.1.4.1.1.4") == 0xA900
        assert raw.store(data) == 0


def test_unknown_operations_are_answered(port):
    """PS3.7 C.5.10: a C-FIND on a storage context is 0211, a C-STORE on Verification 0122."""
    with Raw(port.port) as raw:
        raw.send(p_data(3, request(0x0020, 7, CT, "", False), 0))
        assert raw.status() == 0x0211
        raw.send(p_data(1, request(0x0001, 8, CT, "1.2.3", True), 0))
        raw.send(pdv(1, 2, b"\x00" * 100))
        assert raw.status() == 0x0122
        assert raw.echo() == 0


# ------------------------------------------------------------------ associations


@pytest.mark.parametrize(("aet", "called", "reason"), [("NOBODY", "HUREN", 3), ("SCANNER", "OTHER", 7)])
def test_unknown_titles_are_rejected(port, aet, called, reason):
    """A calling title that no manifest names, and a called one that is not ours: rejected for good, with the reason."""
    assoc = associate(port.port, aet=aet, called=called)
    assert assoc.is_rejected
    assert (assoc.acceptor.primitive.result, assoc.acceptor.primitive.diagnostic) == (1, reason)


def test_too_many_associations_are_rejected_for_now(tmp_path):
    """Local limit exceeded, by address or in all; a place that gets free is given again."""
    for limits in (Limits(associations=2), Limits(per_address=2)):
        folder = tmp_path / str(limits.associations)
        folder.mkdir()
        port = Port(folder, limits)
        held = [associate(port.port), associate(port.port)]
        third = associate(port.port)
        assert third.is_rejected
        assert (third.acceptor.primitive.result, third.acceptor.primitive.diagnostic) == (2, 2)
        held[0].release()
        deadline = time.monotonic() + 5
        while not (again := associate(port.port)).is_established and time.monotonic() < deadline:
            time.sleep(0.05)
        assert again.is_established
        for assoc in (again, held[1]):
            assoc.release()
        port.listener.drain(1)


def request(field: int, message_id: int, sop_class: str, sop_instance: str, has_data_set: bool) -> bytes:
    """A request's command set."""
    def element(number: int, value: bytes) -> bytes:
        value += b"\x00" * (len(value) % 2)
        return struct.pack("<HHL", 0, number, len(value)) + value
    return element(2, sop_class.encode()) + element(0x100, struct.pack("<H", field)) \
        + element(0x110, struct.pack("<H", message_id)) + element(0x700, b"\x00\x00") \
        + element(0x800, struct.pack("<H", 0 if has_data_set else 0x0101)) + element(0x1000, sop_instance.encode())


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    """A P-DATA-TF of one presentation data value."""
    return struct.pack(">BxLLBB", 4, len(data) + 6, len(data) + 2, context_id, control) + data


class Raw:
    """A sender that writes its own bytes: contexts 1 (Verification) and 3 (one storage class in one syntax)."""

    def __init__(self, port: int, aet: str = "SCANNER", abstract: str = CT,
                 syntax: str = str(ExplicitVRLittleEndian)) -> None:
        self._ids = iter(range(1, 1000))
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

        def item(kind: int, content: bytes) -> bytes:
            return struct.pack(">BxH", kind, len(content)) + content

        def context(number: int, abstract: str) -> bytes:
            return item(0x20, struct.pack(">Bxxx", number) + item(0x30, abstract.encode())
                        + item(0x40, syntax.encode()))

        body = struct.pack(">Hxx", 1) + b"HUREN".ljust(16) + aet.encode().ljust(16) + bytes(32) \
            + item(0x10, b"1.2.840.10008.3.1.1.1") + context(1, "1.2.840.10008.1.1") + context(3, abstract) \
            + item(0x50, item(0x51, struct.pack(">L", 80)) + item(0x52, b"1.2.3"))
        self.send(struct.pack(">BxL", 1, len(body)) + body)
        kind, content = self.pdu()
        assert kind == 2
        result = re.search(rb"\x21\x00..\x03\x00(.)\x00", content, re.DOTALL)  # PS3.8 table 9-18, context 3
        self.accepted = result is not None and result[1] == b"\x00"

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def pdu(self) -> tuple[int, bytes]:
        head = self._exactly(6)
        kind, length = struct.unpack(">BxL", head)
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def status(self) -> int:
        """The status of the next response, however many PDUs it comes in."""
        command, control = b"", 0
        while not control & 2:
            kind, content = self.pdu()
            assert kind == 4 and len(content) <= 80
            control = content[5]
            command += content[6:]
        at, values = 0, {}
        while at < len(command):
            _, element, length = struct.unpack_from("<HHL", command, at)
            values[element] = command[at + 8:at + 8 + length]
            at += 8 + length
        assert struct.unpack("<L", values[0])[0] == len(command) - 12
        return int.from_bytes(values[0x0900], "little")

    def echo(self) -> int:
        self.send(p_data(1, request(0x0030, next(self._ids), "1.2.840.10008.1.1", "", False), 0))
        return self.status()

    def release(self) -> None:
        """Release, and wait for the other side to agree."""
        self.send(struct.pack(">BxLxxxx", 5, 4))
        assert self.pdu()[0] == 6

    def send_part(self, data: bytes) -> None:
        """A fragment that is not the last of a data set."""
        self.send(pdv(3, 0, data))

    def begin_store(self, sop_class: str = CT, sop_instance: str = "1.2.3.4.5.6") -> None:
        self.send(p_data(3, request(1, next(self._ids), sop_class, sop_instance, True), 0))

    def store(self, data: bytes, **uids: str) -> int:
        self.begin_store(**uids)
        while len(data) > 100_000:
            self.send_part(data[:100_000])
            data = data[100_000:]
        self.send(pdv(3, 2, data))
        return self.status()


def a_bare_slice() -> bytes:
    """The data set of a slice, without file meta."""
    data = part10(a_slice())
    return data[132 + 12 + struct.unpack_from("<L", data, 140)[0]:]


@pytest.mark.parametrize("cut", [1, 2, 5, 7, 100, 1999])
def test_how_a_message_is_cut_changes_nothing(port, cut):
    """Command and data set in any number of fragments, several in one PDU, bytes trickling: one object."""
    data = a_bare_slice()
    command = request(1, 1, CT, "1.2.3.4.5.6", True)

    def pieces(whole: bytes, bit: int) -> list[bytes]:
        parts = [(whole[at:at + cut], 0 if at + cut < len(whole) else 2) for at in range(0, len(whole), cut)]
        return [struct.pack(">LBB", len(part) + 2, 3, bit | last) + part for part, last in parts]

    stream = pieces(command, 1) + pieces(data, 0)
    out = b""
    for at in range(0, len(stream), 3):
        content = b"".join(stream[at:at + 3])
        out += struct.pack(">BxL", 4, len(content)) + content
    with Raw(port.port) as raw:
        for at in range(0, len(out), max(cut * 50, 64)):
            raw.send(out[at:at + max(cut * 50, 64)])
        assert raw.status() == 0
    assert port.kept[0][2] == hashlib.sha256(data).digest()


@pytest.mark.parametrize("hostile", [
    b"GET / HTTP/1.1\r\n\r\n",
    struct.pack(">BxL", 1, 0xFFFFFFFF),
    struct.pack(">BxL", 1, 0x00FFFFFF) + b"\x00" * 1000,
    struct.pack(">BxL", 4, 12) + b"\x00" * 12,
    struct.pack(">BxL", 1, 68) + b"\xff" * 68,
    struct.pack(">BxL", 1, 100) + struct.pack(">Hxx", 1) + b"HUREN".ljust(16) + b"SCANNER".ljust(16) + bytes(64),
])
def test_what_is_no_association_is_aborted(port, hostile):
    """Bytes that are no A-ASSOCIATE-RQ end in an A-ABORT and a closed connection; others are served meanwhile."""
    with socket.create_connection(("127.0.0.1", port.port), timeout=10) as sender:
        sender.sendall(hostile)
        answer = b""
        try:
            while part := sender.recv(100):
                answer += part
        except ConnectionResetError:
            pass
    assert answer == b"" or answer[0] in (3, 7)
    assert associate(port.port).is_established


@pytest.mark.parametrize("bad", [
    pdv(3, 2, b"\x00\x00"),  # a data set without a command
    pdv(3, 3, b"\x00" * 8 + b"\xff" * 20),  # a command that is none
    pdv(99, 3, request(1, 1, CT, "1.2.3", True)),  # a context that nobody agreed on
    pdv(3, 3, request(1, 1, "../../etc", "1.2.3", True)),  # a UID that is none
    pdv(3, 1, b"\x00" * 20_000),  # a command without end
    struct.pack(">BxLLBB", 4, 6, 0xFFFFFFFF, 3, 3),  # a value longer than its PDU
    struct.pack(">BxL", 4, 64 << 20),  # a PDU of 64 MiB
    struct.pack(">BxL", 9, 4) + b"\x00" * 4,  # no PDU type
    struct.pack(">BxL", 2, 4) + b"\x00" * 4,  # an A-ASSOCIATE-AC
])
def test_protocol_errors_end_in_an_abort(port, bad):
    """A peer that breaks PS3.8 is told by A-ABORT; nothing it sent is kept."""
    with Raw(port.port) as raw:
        raw.send(bad)
        kind, content = raw.pdu()
        assert (kind, content[2]) == (7, 2)
    assert port.kept == [] and port.stage_is_empty()


@pytest.mark.parametrize("size", [100, 2 * IN_MEMORY])
def test_half_an_association_leaves_nothing(port, size):
    """A sender that vanishes in the middle of an object: nothing is handed on, no file stays."""
    with Raw(port.port) as raw:
        assert raw.echo() == 0
        raw.begin_store()
        for at in range(0, size, 65536):
            raw.send(pdv(3, 0, b"\x00" * min(65536, size - at)))
    deadline = time.monotonic() + 5
    while not port.stage_is_empty() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert port.kept == [] and port.stage_is_empty()


def test_silent_and_stalled_peers_are_dropped(tmp_path):
    """A connection without a request, and one that stops in the middle of an object, end at their timeout."""
    port = Port(tmp_path, Limits(acse_seconds=0.3, stall_seconds=0.3, idle_seconds=30))
    with socket.create_connection(("127.0.0.1", port.port), timeout=10) as silent:
        assert silent.recv(100)[:1] in (b"", b"\x07")
    with Raw(port.port) as raw:
        time.sleep(0.7)
        assert raw.echo() == 0  # idle is another matter
        raw.begin_store()
        raw.send(pdv(3, 0, b"\x00" * 10))
        assert raw.pdu()[0] == 7
    port.listener.drain(1)


# ------------------------------------------------------------------ stopping


def test_drain_lets_a_running_store_finish(port):
    """The object that is on its way is stored and answered; then the association is aborted, and new ones refused."""
    data = a_bare_slice()
    with Raw(port.port) as idle, Raw(port.port) as raw:
        raw.begin_store()
        raw.send(pdv(3, 0, data[:500]))
        time.sleep(0.2)
        drained: list[bool] = []
        thread = threading.Thread(target=lambda: drained.append(port.listener.drain(5)))
        thread.start()
        assert idle.pdu()[0] == 7
        time.sleep(0.2)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port.port), timeout=1)
        raw.send(pdv(3, 2, data[500:]))
        assert raw.status() == 0
        assert raw.pdu()[0] == 7
        thread.join(6)
    assert drained == [True] and len(port.kept) == 1


def test_drain_is_cut_at_its_time(port):
    """An object that does not end is given up: nothing of it is kept."""
    with Raw(port.port) as raw:
        raw.begin_store()
        raw.send(pdv(3, 0, b"\x00" * 10))
        time.sleep(0.1)
        began = time.monotonic()
        assert not port.listener.drain(0.5)
        assert time.monotonic() - began < 2
    time.sleep(0.2)
    assert port.kept == [] and port.stage_is_empty()


def test_start_sweeps_what_a_crash_left(tmp_path):
    """Staged files that nobody has written to for an hour go; one of another process at work stays."""
    staging = tmp_path / "staging"
    staging.mkdir()
    for name, age in (("dimse-1-1.part", 7200), ("dimse-1-2.part", 10)):
        (staging / name).write_bytes(b"x")
        os.utime(staging / name, (time.time() - age,) * 2)
    Port(tmp_path).listener.drain(1)
    assert [p.name for p in staging.iterdir()] == ["dimse-1-2.part"]


# ------------------------------------------------------------------ publishing


class Studies:
    """A store's marks of unpublished studies."""

    def __init__(self) -> None:
        self.dirty: dict[str, DirtyStudy] = {}
        self.published: list[str] = []
        self.failing: set[str] = set()
        self.tried = 0

    def mark(self, uid: str, age: float = 0.0, first: float | None = None) -> None:
        now = int((time.time() - age) * 1e6)
        begun = int((time.time() - (age if first is None else first)) * 1e6)
        old = self.dirty.get(uid)
        generation = old.generation + 1 if old else 1
        self.dirty[uid] = DirtyStudy(hash(uid), "hz-1", uid, generation, old.first_dirty if old else begun, now)

    def publish(self, ready: Callable[[DirtyStudy], bool] | None) -> int:
        for uid, study in list(self.dirty.items()):
            if ready is None or ready(study):
                self.tried += 1
                if uid not in self.failing:
                    self.published.append(uid)
                    del self.dirty[uid]
        return 0


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def studies() -> Studies:
    return Studies()


@pytest.fixture
def publisher(studies: Studies, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr("gateway.edges.dimse.publisher.QUIET_SECONDS", 0.5)
    monkeypatch.setattr("gateway.edges.dimse.publisher._TICK", 0.05)
    made = Publisher(studies.publish)
    yield made
    made.stop(2)


def test_a_start_publishes_what_a_crash_left(studies, publisher):
    """The marks are in the store: nothing that was acknowledged waits for another instance."""
    studies.mark("1.2")
    publisher.start()
    assert eventually(lambda: studies.published == ["1.2"])


def test_marks_of_other_processes_are_found(studies, publisher, monkeypatch):
    """A study whose person has changed is marked by whoever stored the change: nobody tells the publisher."""
    monkeypatch.setattr("gateway.edges.dimse.publisher._LOOK", 0.05)
    publisher.start()
    time.sleep(0.1)
    studies.mark("1.2")
    assert eventually(lambda: studies.published == ["1.2"], 3)


def test_one_version_an_association(studies, publisher):
    """A study is written when its association ends, not before, and once."""
    publisher.start()
    for _ in range(20):
        studies.mark("1.2")
        publisher.received("a", "hz-1", "1.2")
        time.sleep(0.01)
    assert studies.published == []
    publisher.released("a")
    assert eventually(lambda: studies.published == ["1.2"], 0.4)
    time.sleep(0.2)
    assert studies.published == ["1.2"]


def test_a_study_on_two_associations_waits_for_both(studies, publisher):
    """The first one's end does not publish half a study."""
    publisher.start()
    for association in ("a", "b"):
        studies.mark("1.2")
        publisher.received(association, "hz-1", "1.2")
    publisher.released("a")
    time.sleep(0.2)
    assert studies.published == []
    publisher.released("b")
    assert eventually(lambda: studies.published == ["1.2"], 0.4)


def test_quiet_publishes_an_open_association(studies, publisher):
    """A modality that keeps its association open between images does not hide them."""
    publisher.start()
    studies.mark("1.2")
    publisher.received("a", "hz-1", "1.2")
    assert eventually(lambda: studies.published == ["1.2"], 2)


def test_a_study_that_never_rests_is_shown_after_a_minute(studies, publisher):
    """However long it goes on, what there is is seen."""
    publisher.start()
    time.sleep(0.1)
    studies.mark("1.2", age=0.0, first=61)
    publisher.received("a", "hz-1", "1.2")
    assert eventually(lambda: studies.published == ["1.2"], 0.4)


def test_a_study_that_cannot_be_published_does_not_spin(studies, publisher):
    """It is tried again at growing distances, and at once when it has changed; others are not held up."""
    publisher.start()
    studies.failing.add("1.2")
    studies.mark("1.2", age=10)
    publisher.received("a", "hz-1", "1.2")
    assert eventually(lambda: studies.tried >= 1)
    time.sleep(0.3)
    assert studies.tried == 1
    studies.failing.clear()
    studies.mark("1.2", age=10)
    publisher.received("a", "hz-1", "1.2")
    assert eventually(lambda: studies.published == ["1.2"])


def test_stop_publishes_the_rest(studies, publisher):
    """A clean stop leaves nothing for the next start."""
    publisher.start()
    time.sleep(0.1)
    studies.mark("1.2")
    publisher.received("a", "hz-1", "1.2")
    publisher.stop(2)
    assert studies.published == ["1.2"]


# ------------------------------------------------------------------ dcmtk


def dcmtk(tool: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a tool of dcmtk."""
    if not shutil.which(tool):
        pytest.skip(f"{tool} of dcmtk is not installed")
    return subprocess.run([tool, "-aet", "SCANNER", *arguments], env={**os.environ, "TCP_NODELAY": "1"},
                          capture_output=True, timeout=60, check=False)


def test_dcmtk_echoes_and_is_rejected(port):
    """echoscu is answered, and told when it calls somebody else."""
    assert dcmtk("echoscu", "-aec", "HUREN", "127.0.0.1", str(port.port)).returncode == 0
    refused = dcmtk("echoscu", "-aec", "OTHER", "127.0.0.1", str(port.port))
    assert refused.returncode != 0 and b"Called AE Title Not Recognized" in refused.stderr


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "693_J2KI.dcm",
                                  "reportsi.dcm", "rtplan.dcm"])
def test_dcmtk_stores(port, name):
    """storescu's objects arrive as they are in the file."""
    path = _SHIPPED[1] / name
    syntax = str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    option = {"1.2.840.10008.1.2": "-xi", "1.2.840.10008.1.2.2": "-xb", "1.2.840.10008.1.2.4.91": "-xw"}
    done = dcmtk("storescu", "-aec", "HUREN", option.get(syntax, "-xe"), "127.0.0.1", str(port.port), str(path))
    assert done.returncode == 0, done.stderr
    [(stored, facts, _, _, _)] = port.kept
    assert facts["TransferSyntaxUID"] == syntax
    ours, theirs = dcmread(stored), dcmread(path)
    assert ours.get("PixelData") == theirs.get("PixelData") and ours.PatientName == theirs.PatientName


@given(st.binary(max_size=200))
def test_any_pdu_content_is_read_or_refused(content):
    """Whatever stands in a PDU, the parts of the reader raise nothing but what the association answers."""
    with contextlib.suppress(ul.ProtocolError):
        ul.each_pdv(memoryview(content), lambda context_id, control, data: None)
    with contextlib.suppress(GatewayError):
        read_command(content)
    with contextlib.suppress(ul.ProtocolError):
        ul.read_request(memoryview(content))


def test_command_sets_survive_a_round_trip():
    """What a request says of itself is read back, and a response is of even length, its group length right."""
    command = read_command(request(1, 513, CT, "1.2.3", True))
    assert command == Command(1, 513, True, CT, "1.2.3")
    response = command.response(0xA900, "x" * 99, 0x0020000D)
    assert len(response) % 2 == 0 and struct.unpack_from("<L", response, 8)[0] == len(response) - 12


def test_file_meta_is_readable_by_pydicom(tmp_path):
    """Group length, UIDs and titles of any length."""
    for aet in ("A", "SIXTEEN_CHARS_AE"):
        path = tmp_path / aet
        path.write_bytes(file_meta(CT, "1.2.3", "1.2.840.10008.1.2.1", aet) + part10(a_data_set())[-20:])
        meta = dcmread(path, stop_before_pixels=True, force=True).file_meta
        assert (meta.MediaStorageSOPClassUID, meta.SourceApplicationEntityTitle) == (CT, aet)
        assert meta.FileMetaInformationGroupLength == len(file_meta(CT, "1.2.3", "1.2.840.10008.1.2.1", aet)) - 144
