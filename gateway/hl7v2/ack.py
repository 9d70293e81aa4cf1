"""The general acknowledgement (HL7 v2.5.1 2.14.1): MSH, MSA and, for a refusal or a remark, ERR."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from gateway.hl7v2.header import Header
from gateway.hl7v2.separators import Separators, escape

_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?(?:-(\d+)(?:\.(\d+))?(?:\.(\d+))?)?")


@dataclass(frozen=True, slots=True)
class AckError:
    """What ERR says: a code of table 0357, the place (``OBR-4``, ``OBX[7]-5.2``) and a sentence for the user."""

    code: str
    text: str  # the code's own text, as table 0357 has it
    severity: str = "E"  # table 0516: E, W, I, F
    where: str = ""
    message: str = ""


def ack(header: Header, code: str, *, text: str = "", error: AckError | None = None, now: datetime,
        control_id: str) -> bytes:
    """An ACK in the sender's delimiters, version and character set, framed by nothing.

    ``now`` becomes MSH-7 and ``control_id`` MSH-10; MSA-2 gives back the sender's MSH-10 byte by byte. ERR takes the
    form of the sender's version: fields 2, 3, 4 and 8 as of 2.5, ERR-1 alone before. Text that the sender's character
    set cannot hold is replaced by ``?``; our own texts are ASCII.
    """
    s = header.separators
    version = _version(header.version_id)
    segments = [_msh(header, version, now, control_id), _msa(header, s, version, code, text, error)]
    if error:
        segments.append(_err(s, version, error))
    return ("\r".join(segments) + "\r").encode(header.codec, "replace")


def _version(text: str) -> tuple[int, ...]:
    """(2, 5, 1); a version that cannot be read counts as 2.5."""
    parts = re.findall(r"\d+", text)
    return tuple(int(part) for part in parts[:3]) if parts else (2, 5)


def _msh(header: Header, version: tuple[int, ...], now: datetime, control_id: str) -> str:
    s = header.separators
    kind = ["ACK", header.message_type[1]]
    if version >= (2, 3, 1):
        kind.append("ACK")  # MSH-9.3 came with 2.3.1
    stamp = now.strftime("%Y%m%d%H%M%S") + (now.strftime("%z") if version >= (2, 3) else "")
    fields = ["MSH", s.encoding or "^~\\&", header.field(5), header.field(6), header.field(3), header.field(4),
              stamp, "", (s.component or "^").join(kind) if kind[1] else "ACK", escape(control_id, s),
              header.field(11) or "P", header.field(12) or "2.5"]
    if header.field(18):
        fields += ["", "", "", "", "", header.field(18)]
    return s.field.join(fields)


def _msa(header: Header, s: Separators, version: tuple[int, ...], code: str, text: str, error: AckError | None) -> str:
    fields = ["MSA", code, header.control_id]
    said = text or (error.message or error.text if error else "")
    if said and version < (2, 7):  # MSA-3 is withdrawn as of 2.7
        fields.append(escape(said[:80], s))
    return s.field.join(fields)


def _err(s: Separators, version: tuple[int, ...], error: AckError) -> str:
    segment, sequence, field, component, subcomponent = _place(error.where)
    if version < (2, 5):
        reason = [error.code, escape(error.text, s), "HL70357"]
        joined = s.subcomponent.join(reason) if s.subcomponent else error.code
        return s.field.join(["ERR", s.component.join([segment, sequence, field, joined])])
    place = s.component.join([segment, sequence, field, "1" if component else "", component, subcomponent])
    fields = ["ERR", "", place.rstrip(s.component), s.component.join([error.code, escape(error.text, s), "HL70357"]),
              error.severity]
    if error.message:
        fields += ["", "", "", escape(error.message, s)]
    return s.field.join(fields)


def _place(where: str) -> tuple[str, str, str, str, str]:
    match = _PLACE.fullmatch(where)
    if not match:
        return "", "", "", "", ""
    segment, sequence, field, component, subcomponent = match.groups()
    return segment, sequence or "1", field or "", component or "", subcomponent or ""
