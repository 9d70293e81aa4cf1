"""The general acknowledgement (HL7 v2.5.1 2.14.1): MSH, MSA and, for a refusal or a remark, ERR."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

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


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be said about one order of a message that is accepted: ERR-4 W or I, never an error.

    ``code`` and ``name``: what kind it is (ERR-5); ``reference``: what a person names to look it up (ERR-7).
    """

    where: str
    severity: str
    code: str
    name: str
    text: str
    reference: str = ""


_ACCEPTED = ("0", "Message accepted")
_LONGEST_MESSAGE = 250  # ERR-8 as of 2.5


def ack(header: Header, code: str, *, text: str = "", error: AckError | None = None,
        notices: tuple[Notice, ...] = (), expected: int | None = None, now: datetime, control_id: str) -> bytes:
    """An ACK in the sender's delimiters, version and character set, framed by nothing.

    ``now`` becomes MSH-7 and ``control_id`` MSH-10; MSA-2 gives back the sender's MSH-10 byte by byte. ERR takes the
    form of the sender's version: fields 2, 3, 4 and 8 as of 2.5, ERR-1 alone before. A notice is an ERR of its own with
    ERR-3 0; before 2.5 there is one ERR, whose ERR-1 repeats, and the first notice's text is MSA-3 (80 characters).
    ``expected`` is MSA-4, the sequence number of a sender that uses the protocol (2.10.1).
    Text that the sender's character set cannot hold is replaced by ``?``.
    """
    s = header.separators
    version = version_of(header)
    said = text or (notices[0].text if notices and version < (2, 5) else "")
    segments = [msh(header, version, now, control_id, _kind(header, version)),
                msa(header, version, code, said, error, expected), *errors(s, version, error, notices)]
    return ("\r".join(segments) + "\r").encode(header.codec, "replace")


def version_of(header: Header) -> tuple[int, ...]:
    """MSH-12 as numbers."""
    return _version(header.version_id)


def errors(s: Separators, version: tuple[int, ...], error: AckError | None, notices: tuple[Notice, ...]) -> list[str]:
    """ERR for a refusal or a remark, and for each notice."""
    if version >= (2, 5):
        return [*([_err(s, error)] if error else []), *(_err_of_notice(s, notice) for notice in notices)]
    places = [_place_and_code(s, error.where, error.code, error.text)] if error else []
    places += [_place_and_code(s, notice.where, *_ACCEPTED) for notice in notices]
    if not places:
        return []
    return [s.field.join(["ERR", s.repetition.join(places) if s.repetition else places[0]])]


@lru_cache(maxsize=64)
def _version(text: str) -> tuple[int, ...]:
    """(2, 5, 1); a version that cannot be read counts as 2.5."""
    parts = re.findall(r"\d+", text)
    return tuple(int(part) for part in parts[:3]) if parts else (2, 5)


def _kind(header: Header, version: tuple[int, ...]) -> list[str]:
    if not header.message_type[1]:
        return ["ACK"]
    kind = ["ACK", header.message_type[1]]
    return [*kind, "ACK"] if version >= (2, 3, 1) else kind  # MSH-9.3 came with 2.3.1


def msh(header: Header, version: tuple[int, ...], now: datetime, control_id: str, kind: list[str]) -> str:
    """MSH of an answer: sender and receiver change places."""
    s = header.separators
    stamp = now.strftime("%Y%m%d%H%M%S") + (now.strftime("%z") if version >= (2, 3) else "")
    fields = ["MSH", s.encoding or "^~\\&", header.field(5), header.field(6), header.field(3), header.field(4),
              stamp, "", (s.component or "^").join(kind), escape(control_id, s),
              header.field(11) or "P", header.field(12) or "2.5"]
    if header.field(18):
        fields += ["", "", "", "", "", header.field(18)]
    return s.field.join(fields)


def msa(header: Header, version: tuple[int, ...], code: str, text: str, error: AckError | None,
        expected: int | None = None) -> str:
    """MSA; its text field is withdrawn as of 2.7."""
    fields = ["MSA", code, header.control_id]
    said = text or (error.message or error.text if error else "")
    if said and version < (2, 7):
        fields.append(escape(said[:80], header.separators))
    if expected is not None:
        fields += [*[""] * (4 - len(fields)), str(expected)]
    return header.separators.field.join(fields)


def _place_and_code(s: Separators, where: str, code: str, text: str) -> str:
    """ELD, the component of ERR-1 (2.4 2.16.5.1)."""
    segment, sequence, field, _, _ = _place(where)
    reason = [code, escape(text, s), "HL70357"]
    return s.component.join([segment, sequence, field, s.subcomponent.join(reason) if s.subcomponent else code])


def _err(s: Separators, error: AckError) -> str:
    fields = ["ERR", "", _location(s, error.where), s.component.join([error.code, escape(error.text, s), "HL70357"]),
              error.severity]
    if error.message:
        fields += ["", "", "", escape(error.message, s)]
    return s.field.join(fields)


def _err_of_notice(s: Separators, notice: Notice) -> str:
    """ERR-5 is the notice's own code (table 0533 is the application's)."""
    code, text = _ACCEPTED
    return s.field.join(["ERR", "", _location(s, notice.where), s.component.join([code, text, "HL70357"]),
                         notice.severity, s.component.join([notice.code, escape(notice.name, s), "L"]), "",
                         escape(notice.reference, s), escape(notice.text[:_LONGEST_MESSAGE], s)])


def _location(s: Separators, where: str) -> str:
    """ERL, ERR-2."""
    segment, sequence, field, component, subcomponent = _place(where)
    place = s.component.join([segment, sequence, field, "1" if component else "", component, subcomponent])
    return place.rstrip(s.component)


def _place(where: str) -> tuple[str, str, str, str, str]:
    match = _PLACE.fullmatch(where)
    if not match:
        return "", "", "", "", ""
    segment, sequence, field, component, subcomponent = match.groups()
    return segment, sequence or "1", field or "", component or "", subcomponent or ""
