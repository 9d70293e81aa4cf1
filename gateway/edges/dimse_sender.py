"""Sends DICOM objects as a PACS does: C-STORE with a presentation context for every kind of object that is there."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from gateway.edges.mllp_sender import Outcome
from gateway.errors import Category, GatewayError
from gateway.imaging.part10 import part10_from_json

_CONTEXTS = 128  # PS3.8 9.3.2.2: odd ids 1 to 255
_PAUSES = (0.2, 0.5, 1.0, 2.0)
_KEYS = ["SOPClassUID", "SOPInstanceUID"]


@dataclass(frozen=True, slots=True)
class Thing:
    """An object to send: where it is, and what an association must offer for it."""

    name: str
    path: Path
    index: int | None  # its number in a DICOM JSON file; None: the path is a DICOM file
    sop_class: str
    transfer_syntax: str

    def read(self) -> Dataset:
        """The whole data set, its elements undecoded."""
        if self.index is None:
            return dcmread(self.path, force=True)
        return dcmread(io.BytesIO(part10_from_json(self.path.read_text(encoding="utf-8"))[self.index]))


def things(path: Path) -> Iterator[Thing]:
    """What a DICOM or DICOM JSON file holds; MALFORMED when that is nothing that C-STORE can send."""
    if path.name.endswith(".json"):
        for index, part10 in enumerate(part10_from_json(path.read_text(encoding="utf-8"))):
            yield _thing(path, index, dcmread(io.BytesIO(part10), specific_tags=_KEYS))
        return
    try:
        ds = dcmread(path, stop_before_pixels=True, specific_tags=_KEYS, force=True)
    except (InvalidDicomError, OSError, EOFError, ValueError, RecursionError) as error:
        raise GatewayError(Category.MALFORMED, f"no DICOM file ({type(error).__name__})", str(path)) from None
    yield _thing(path, None, ds)


def _thing(path: Path, index: int | None, ds: Dataset) -> Thing:
    sop_class = str(ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID", ""))
    if not sop_class or not (ds.get("SOPInstanceUID") or ds.file_meta.get("MediaStorageSOPInstanceUID")):
        raise GatewayError(Category.MALFORMED, "no SOP class or instance UID: nothing that C-STORE can send", str(path))
    syntax = str(ds.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
    name = str(path) if index is None else f"{path}[{index + 1}]"
    return Thing(name, path, index, sop_class, syntax)


def send(items: Iterable[Thing], host: str, port: int, called: str, calling: str,
         tell: Callable[[Thing, Outcome], None], *, seconds: float = 60.0) -> None:
    """C-STORE each object and ``tell`` what was answered; a lost association is opened anew."""
    waiting = list(items)
    while waiting:
        contexts = _contexts(waiting)
        batch = [t for t in waiting if (t.sop_class, t.transfer_syntax) in contexts]
        waiting = [t for t in waiting if (t.sop_class, t.transfer_syntax) not in contexts]
        _Storing(host, port, called, calling, list(contexts), seconds).send(batch, tell)


def _contexts(items: Iterable[Thing]) -> dict[tuple[str, str], None]:
    """The first 128 pairs of SOP class and transfer syntax: one context each, so that nothing must be converted."""
    pairs: dict[tuple[str, str], None] = {}
    for item in items:
        if len(pairs) < _CONTEXTS:
            pairs[item.sop_class, item.transfer_syntax] = None
    return pairs


class _Storing:
    def __init__(self, host: str, port: int, called: str, calling: str, pairs: list[tuple[str, str]],
                 seconds: float) -> None:
        self._ae = AE(ae_title=calling)
        self._ae.acse_timeout = self._ae.connection_timeout = min(seconds, 15.0)
        self._ae.dimse_timeout = self._ae.network_timeout = seconds
        self._contexts: list[PresentationContext] = [build_context(*pair) for pair in pairs]
        self._peer = (host, port, called)

    def send(self, items: list[Thing], tell: Callable[[Thing, Outcome], None]) -> None:
        assoc = self._associate()
        try:
            for item in items:
                for pause in (*_PAUSES, None):
                    if not assoc.is_established:
                        assoc = self._associate()
                    outcome = _store(assoc, item)
                    if outcome is not None and not outcome.code.startswith("A7"):  # PS3.4 B.2.3: out of resources
                        break
                    if pause is not None:
                        time.sleep(pause)
                tell(item, outcome or Outcome(False, "-", "", "no answer to the C-STORE request"))
        finally:
            if assoc.is_established:
                assoc.release()

    def _associate(self) -> Association:
        host, port, called = self._peer
        assoc = self._ae.associate(host, port, ae_title=called, contexts=self._contexts,
                                   evt_handlers=[(evt.EVT_CONN_OPEN, _no_delay)])
        if assoc.is_established:
            return assoc
        if assoc.is_rejected:
            raise GatewayError(Category.FORBIDDEN, f"{host}:{port} rejected the association; check --called and "
                               "--calling against the receiver's list", "association")
        raise GatewayError(Category.BUSY, f"no association with {host}:{port}; start or check the receiver",
                           "association")


def _no_delay(event: evt.Event) -> None:
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _store(assoc: Association, item: Thing) -> Outcome | None:
    """What was answered; None when the association was lost before."""
    try:
        ds = item.read()
        if not ds.get("SOPClassUID"):
            ds.SOPClassUID = UID(item.sop_class)
        status = assoc.send_c_store(ds)
    except ValueError as error:  # no accepted context, or it cannot be encoded
        refused = not any(c.abstract_syntax == item.sop_class and item.transfer_syntax in c.transfer_syntax
                          for c in assoc.accepted_contexts)
        return Outcome(False, "-", "(0008,0016)" if refused else "",
                       "the receiver does not take this SOP class in this transfer syntax" if refused else
                       f"cannot be encoded ({type(error).__name__})")
    except (RuntimeError, OSError):  # released or aborted meanwhile
        return None
    except Exception as error:  # an object that pydicom itself cannot write
        return Outcome(False, "-", "", f"cannot be sent ({type(error).__name__})")
    if "Status" not in status:
        return None
    code = int(status.Status)
    accepted = code == 0 or code >> 12 == 0xB  # PS3.7 C.2: warnings are stored
    return Outcome(accepted, f"{code:04X}", "" if code == 0 else _element(status), str(status.get("ErrorComment", "")))


def _element(status: Dataset) -> str:
    element = status.get("OffendingElement")
    tags = element if isinstance(element, list) else [element] if element else []
    return ",".join(f"({int(t) >> 16:04X},{int(t) & 0xFFFF:04X})" for t in tags)
