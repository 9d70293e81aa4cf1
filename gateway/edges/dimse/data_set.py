"""A data set on its way from the network to a file: kept in memory while it is small, streamed once it is not."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from pathlib import Path

from gateway.edges.dimse.messages import Command
from gateway.edges.dimse.upper_layer import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from gateway.errors import Category, GatewayError
from gateway.imaging import Facts, header_length, read_header

#: Up to here an object is held in memory and written at once; a CT slice is 0.5 MB.
IN_MEMORY = 1024 * 1024


class DataSet:
    """One data set: ``add`` its fragments, then ``finish``; ``discard`` removes what was written.

    An error of the disk does not stop the receiving (the sender would not read an answer before it has sent all);
    ``finish`` raises it.
    """

    def __init__(self, path: Path, command: Command, transfer_syntax: str, calling_aet: str) -> None:
        self.path = path
        self.size = 0
        self._meta = file_meta(command.sop_class, command.sop_instance, transfer_syntax, calling_aet)
        self._transfer_syntax = transfer_syntax
        self._parts: list[bytes] = []
        self._digest = hashlib.sha256()
        self._file = -1
        self._error: OSError | None = None

    def add(self, fragment: memoryview) -> None:
        """Take one fragment over."""
        self.size += len(fragment)
        if self._file < 0 and self.size <= IN_MEMORY:
            self._parts.append(bytes(fragment))
        elif self._error is None:
            self._digest.update(fragment)
            try:
                self._stream(fragment)
            except OSError as error:
                self._error = error

    def _stream(self, fragment: memoryview) -> None:
        if self._file < 0:
            held = b"".join(self._parts)
            self._parts.clear()
            self._digest = hashlib.sha256(held)
            self._digest.update(fragment)
            self._file = _create(self.path)
            _write(self._file, self._meta + held)
        _write(self._file, fragment)

    def finish(self, charset: str | None, keep: str) -> tuple[Facts, bytes]:
        """Read the header and write the file; returns the facts and the SHA-256 of the data set as received.

        ``keep`` "metadata": the file ends before the pixel data. The object store makes it durable when it adopts it.
        """
        try:
            if self._error is not None:
                raise self._error
            if self._file >= 0:
                return self._finish_file(charset, keep)
            data = b"".join(self._parts)
            facts = read_header(data, charset, self._transfer_syntax)
            digest = hashlib.sha256(data).digest()
            if keep == "metadata":
                data = data[:header_length(data, self._transfer_syntax)]
            self._file = _create(self.path)
            _write(self._file, self._meta + data)
            self._close()
            return facts, digest
        except OSError as error:
            raise GatewayError(Category.BUSY, f"the object cannot be written ({error.strerror}); make room on the disk "
                               "of HUREN_OBJECTS_URL, then send again") from error

    def _finish_file(self, charset: str | None, keep: str) -> tuple[Facts, bytes]:
        with open(self.path, "rb") as file:
            facts = read_header(file, charset)
            if keep == "metadata":
                os.ftruncate(self._file, header_length(file))
        self._close()
        return facts, self._digest.digest()

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1

    def discard(self) -> None:
        """Remove the file, if it is still there."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1
        self.path.unlink(missing_ok=True)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)


def _write(file: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view):]


def file_meta(sop_class: str, sop_instance: str, transfer_syntax: str, calling_aet: str) -> bytes:
    """Preamble, prefix and File Meta Information (PS3.10 7.1), explicit VR little endian."""
    elements = struct.pack("<HH2sxxL2s", 2, 1, b"OB", 2, b"\x00\x01")
    for element, vr, text, pad in ((0x02, b"UI", sop_class, "\x00"), (0x03, b"UI", sop_instance, "\x00"),
                                   (0x10, b"UI", transfer_syntax, "\x00"), (0x12, b"UI", IMPLEMENTATION_UID, "\x00"),
                                   (0x13, b"SH", IMPLEMENTATION_NAME, " "), (0x16, b"AE", calling_aet, " ")):
        raw = text.encode("ascii", "replace")
        raw += pad.encode() * (len(raw) % 2)
        elements += struct.pack("<HH2sH", 2, element, vr, len(raw)) + raw
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(elements)) + elements
