"""The answer to an order message: an ACK with what is to be said of its orders, or the response message with them.

ORM^O01 is answered by ORR^O02, OML^O21 by ORL^O22, OMI^O23 by ORI^O24, OMG^O19 by ORG^O20 (HL7 v2.5.1 4.4); OML^O33
and O35, whose responses would repeat the specimens, by an ACK. The patient's name never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.hl7v2.ack import AckError, Notice, ack, errors, msa, msh, version_of
from gateway.hl7v2.header import Header
from gateway.hl7v2.message import Message, Segment
from gateway.hl7v2.separators import Separators, escape

_RESPONSES: Final = {"ORM": ("ORR", "O02"), "OML": ("ORL", "O22"), "OMI": ("ORI", "O24"), "OMG": ("ORG", "O20")}
_BY_SPECIMEN: Final = frozenset(("O33", "O35"))
#: ORC-1 of a request → of the answer that says it is accepted (table 0119).
_ACCEPTED: Final = {"CA": "CR", "DC": "DR", "HD": "HR", "RL": "OR", "XO": "XR", "RP": "RQ"}


@dataclass(frozen=True, slots=True)
class Answered:
    """One order of the message, as the response names it: the raw fields that the sender wrote."""

    control: str  # ORC-1 of the request, in the standard's words
    placer: str
    filler: str
    service: str
    sequence: str
    notices: tuple[Notice, ...] = ()
    procedures: tuple[str, ...] = ()  # IPC, as sent: ORI asks for it back


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back beside the acknowledgement. ``codec``: that of the message; ``orders``: of a response message."""

    codec: str
    notices: tuple[Notice, ...] = ()
    orders: tuple[Answered, ...] = ()
    patient: str = ""  # PID-3 as sent
    is_response: bool = False


def answered(obr: Segment | None, orc: Segment | None, control: str, notices: tuple[Notice, ...],
             message: Message) -> Answered:
    """An order as it was sent."""
    def field(at: int) -> str:
        return (obr.raw_field(at) if obr is not None else "") or (orc.raw_field(at) if orc is not None else "")

    if obr is None:
        return Answered(control, field(2), field(3), "", "", notices)
    return Answered(control, field(2), field(3), obr.raw_field(4), obr.raw_field(1) or str(obr.sequence), notices,
                    _procedures(message, obr))


def _procedures(message: Message, obr: Segment) -> tuple[str, ...]:
    """IPC between an OBR and the next order."""
    found: list[str] = []
    begun = False
    for segment in message.segments:
        if segment is obr:
            begun = True
        elif begun and segment.name in ("ORC", "OBR"):
            break
        elif begun and segment.name == "IPC":
            found.append(segment.raw)
    return tuple(found)


def patient_of(message: Message) -> str:
    """PID-3 of the first PID."""
    pid = message.first("PID")
    return pid.raw_field(3) if pid is not None else ""


def reply_bytes(header: Header, code: str, reply: Reply, *, error: AckError | None = None,
                expected: int | None = None, now: datetime, control_id: str) -> bytes:
    """The answer to an accepted order message, in the sender's delimiters, version and character set."""
    header = Header(header.separators, header.fields, reply.codec)
    code_sent, event, structure = header.message_type
    kind = None if (event or structure.partition("_")[2]) in _BY_SPECIMEN else _RESPONSES.get(code_sent)
    if not reply.is_response or kind is None:
        return ack(header, code, error=error, notices=reply.notices, expected=expected, now=now,
                   control_id=control_id)
    s, version = header.separators, version_of(header)
    names = [*kind, "_".join(kind)] if version >= (2, 3, 1) else list(kind)
    segments = [msh(header, version, now, control_id, names), msa(header, version, code, "", error, expected),
                *errors(s, version, error, ())]
    is_laboratory = kind[0] == "ORL"  # has no NTE within its orders, and a PID around them
    if is_laboratory:
        segments += _notes(s, version, reply.notices)
        segments.append(s.field.join(["PID", "", "", reply.patient, "", _anonymous(s)]))
    for order in reply.orders:
        segments.append(s.field.join(["ORC", _ACCEPTED.get(order.control, "OK"), order.placer, order.filler]))
        if order.service:
            segments.append(s.field.join(["OBR", order.sequence, order.placer, order.filler, order.service]))
        if not is_laboratory:
            segments += _notes(s, version, order.notices)
        if kind[0] == "ORI":
            segments += order.procedures
    return ("\r".join(segments) + "\r").encode(header.codec, "replace")


def _anonymous(s: Separators) -> str:
    """PID-5 is required: no name, of type S, a pseudonym "to ensure anonymity" (table 0200)."""
    return s.component * 6 + "S"


def _notes(s: Separators, version: tuple[int, ...], notices: tuple[Notice, ...]) -> list[str]:
    """NTE for each notice, and one with its reference; NTE-4 (remark) came with 2.3.1."""
    texts = [text for notice in notices for text in (notice.text, notice.reference) if text]
    kind = ["RE"] if version >= (2, 3, 1) else []
    return [s.field.join(["NTE", str(at), "O", escape(text, s), *kind]) for at, text in enumerate(texts, 1)]
