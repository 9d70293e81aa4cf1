"""Messages out of a buffer: one or several, in a file or batch (FHS, BHS), framed or bare; and what answers a batch."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.errors import GatewayError
from gateway.hl7v2.charset import lenient
from gateway.hl7v2.header import Header, header_of
from gateway.hl7v2.separators import Separators, escape

# Begins with a set of bytes, so that the search leaps from one to the next: six times as fast as a look-behind.
_BOUNDARY = re.compile(rb"[\r\n\x0b\x1c][ \t]*(?=(?:MSH|FHS|BHS|BTS|FTS)[^A-Za-z0-9\s])", re.IGNORECASE)
_ENVELOPE = (b"FHS", b"BHS", b"BTS", b"FTS")
_BLANK = b"\r\n\x0b\x1c \t"


def split(raw: bytes) -> list[bytes]:
    """The messages in a buffer, in order, without MLLP framing and without file and batch segments.

    Bytes that belong to no message come back as a piece of their own, so that whoever reads it can refuse it:
    nothing is dropped but blanks, framing and the envelope (HL7 v2.5.1 2.10.3).
    """
    return unpack(raw)[0]


def _pieces(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Segments of the envelope, each with the bytes that follow it; messages with an empty segment."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raw = raw.decode("utf-16", "replace").encode("utf-8")
    elif raw.startswith(codecs.BOM_UTF8):
        raw = raw[3:]
    starts = [match.end() - 1 for match in _BOUNDARY.finditer(b"\r" + raw)]
    edges = sorted({0, *starts, len(raw)})
    for begin, end in zip(edges, edges[1:], strict=False):
        piece = raw[begin:end].strip(_BLANK)
        if piece[:3].upper() in _ENVELOPE and begin in starts:
            segment, _, rest = piece.replace(b"\n", b"\r").partition(b"\r")
            yield segment, rest.strip(_BLANK)
        elif piece:
            yield b"", piece


@dataclass(slots=True)
class Batch:
    """One batch of a file: its header (BHS, read as an MSH is), how many messages it holds, and what BTS-1 says."""

    header: Header | None
    messages: int = 0
    told: str = ""


@dataclass(slots=True)
class Envelope:
    """What stands around the messages of a buffer; ``header`` is FHS, None where there is none."""

    header: Header | None
    batches: list[Batch] = field(default_factory=list)
    told: str = ""  # FTS-1

    def last(self) -> Batch:
        """The batch that is open."""
        if not self.batches:
            self.batches.append(Batch(None))
        return self.batches[-1]

    @property
    def is_empty(self) -> bool:
        """No message at all: a batch that reports that there is nothing to report (HL7 v2.5.1 2.10.3.1 a)."""
        return not any(batch.messages for batch in self.batches)

    def faults(self) -> list[tuple[str, str]]:
        """The counts that do not agree: place and sentence."""
        found = [(f"BTS[{n}]-1", f"{batch.told} messages were announced and {batch.messages} came")
                 for n, batch in enumerate(self.batches, 1) if _differs(batch.told, batch.messages)]
        came = sum(1 for batch in self.batches if batch.header or batch.messages)
        if _differs(self.told, came):
            found.append(("FTS-1", f"{self.told} batches were announced and {came} came"))
        return found


def _differs(told: str, count: int) -> bool:
    return told.isdecimal() and int(told) != count


def unpack(raw: bytes) -> tuple[list[bytes], Envelope | None]:
    """As ``split``, and what stands around the messages; None where they stand alone."""
    if raw[:3] == b"MSH" and not _BOUNDARY.search(raw):
        return [raw.strip(_BLANK)], None  # nearly every block
    found = Envelope(None)
    messages, is_enveloped = [], False
    for segment, message in _pieces(raw):
        if segment:
            is_enveloped = True
            _add(found, segment)
        if message:
            messages.append(message)
            found.last().messages += 1
    if not is_enveloped:
        return messages, None
    found.last()  # a file without batches, or a trailer alone, is answered by an empty batch
    return messages, found


def _add(found: Envelope, segment: bytes) -> None:
    name = segment[:3].upper()
    line, codec = lenient(segment)
    header = _header(line, codec)
    if name == b"FHS":
        found.header = header
    elif name == b"BHS":
        found.batches.append(Batch(header))
    elif name == b"BTS":
        found.last().told = _count(line)
    else:
        found.told = _count(line)


def _header(line: str, codec: str) -> Header | None:
    """FHS and BHS have delimiters, sender, receiver and time where MSH has them."""
    try:
        return header_of(line, codec)
    except GatewayError:
        return None


def _count(line: str) -> str:
    """BTS-1 or FTS-1; its delimiter stands behind the name, whatever it is."""
    return line[4:].split(line[3], 1)[0].strip() if len(line) > 4 else ""


def batch_ack(envelope: Envelope, answers: Sequence[Sequence[bytes]], *, now: datetime, control_id: str) -> bytes:
    """The batch that answers a batch (HL7 v2.5.1 2.10.3.2): the same file and batches around the messages' answers.

    ``answers``: for each message of the envelope what is to be said of it, perhaps nothing. BHS-12 and FHS-12 name the
    batch and the file that are answered, BTS-2 and FTS-2 say which count did not agree.
    """
    said = dict(envelope.faults())
    first = next((batch.header for batch in envelope.batches if batch.header), None)
    usual = envelope.header or first or Header(Separators(), ("MSH",), "ascii")
    parts, at = [], 0
    if envelope.header is not None:
        parts.append(_opening("FHS", usual, now, control_id))
    for number, batch in enumerate(envelope.batches, 1):
        header = batch.header or usual
        inside = [answer for some in answers[at:at + batch.messages] for answer in some]
        at += batch.messages
        parts += [_opening("BHS", header, now, f"{control_id}.{number}"), *inside,
                  _closing("BTS", header, len(inside), said.get(f"BTS[{number}]-1", ""))]
    if envelope.header is not None:
        parts.append(_closing("FTS", usual, len(envelope.batches), said.get("FTS-1", "")))
    return b"".join(parts)


def _opening(name: str, header: Header, now: datetime, control_id: str) -> bytes:
    """FHS or BHS: sender and receiver change places."""
    s = header.separators
    fields = [name, s.encoding or "^~\\&", header.field(5), header.field(6), header.field(3), header.field(4),
              now.strftime("%Y%m%d%H%M%S%z"), "", "", "", escape(control_id, s), header.field(11).strip()]
    return (s.field.join(fields) + "\r").encode(header.codec, "replace")


def _closing(name: str, header: Header, count: int, comment: str) -> bytes:
    fields = [name, str(count), *([escape(comment, header.separators)] if comment else [])]
    return (header.separators.field.join(fields) + "\r").encode(header.codec, "replace")
