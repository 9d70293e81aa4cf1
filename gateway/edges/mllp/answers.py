"""Which answers a message gets, and what they say: the answer table, and both acknowledgment modes (HL7 v2.5.1 2.9)."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from gateway import hl7v2
from gateway.errors import Category
from gateway.store.model import Receipt


@dataclass(frozen=True, slots=True)
class Answer:
    """A row of the answer table: MSA-1 (table 0008) and ERR-3 (table 0357). AE: correct it. AR: not its content."""

    acknowledgment_code: str
    error_code: str
    text: str


#: What each category is answered with; `_NARROWER` has the rows that ``GatewayError.detail`` picks.
ANSWERS: dict[Category, Answer] = {
    Category.MALFORMED: Answer("AR", "100", "Segment sequence error"),
    Category.UNSUPPORTED: Answer("AR", "200", "Unsupported message type"),
    Category.INVALID: Answer("AE", "101", "Required field missing"),
    Category.FORBIDDEN: Answer("AR", "207", "Application internal error"),
    Category.NOT_FOUND: Answer("AE", "204", "Unknown key identifier"),
    Category.CONFLICT: Answer("AE", "205", "Duplicate key identifier"),
    Category.BUSY: Answer("AR", "206", "Application record locked"),
    Category.FAULT: Answer("AR", "207", "Application internal error"),
}
_NARROWER: dict[tuple[Category, str], Answer] = {
    (Category.UNSUPPORTED, "message-type"): Answer("AR", "200", "Unsupported message type"),
    (Category.UNSUPPORTED, "event"): Answer("AR", "201", "Unsupported event code"),
    (Category.UNSUPPORTED, "processing-id"): Answer("AR", "202", "Unsupported processing id"),
    (Category.UNSUPPORTED, "version"): Answer("AR", "203", "Unsupported version id"),
    (Category.INVALID, "required"): Answer("AE", "101", "Required field missing"),
    (Category.INVALID, "data-type"): Answer("AE", "102", "Data type error"),
    (Category.INVALID, "table-value"): Answer("AE", "103", "Table value not found"),
    (Category.CONFLICT, "sequence"): Answer("AR", "207", "Application internal error"),  # in its turn it will be taken
}
STORED = Answer("AA", "0", "Message accepted")
REMARK = Answer("AA", "103", "Table value not found")  # stored, ERR-4 W: a code that no table of ours maps
_NO_HEADER = hl7v2.Header(hl7v2.Separators(), ("MSH", "|", "^~\\&"), "ascii")


def answer_for(receipt: Receipt) -> Answer:
    """The row of the table for a receipt."""
    if receipt.category is None:
        return REMARK if receipt.remark else STORED
    category = Category(receipt.category)
    return _NARROWER.get((category, receipt.detail), ANSWERS[category])


def commit_code_for(receipt: Receipt) -> str:
    """MSA-1 of an accept acknowledgement: CR where MSH-9, 11 or 12 is the reason, CE for any other (2.9.3.1)."""
    if receipt.category is None:
        return "CA"
    return "CR" if receipt.category == Category.UNSUPPORTED.value else "CE"


class Answers:
    """Makes the answers of one process."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        # MSH-10 of our answers: never twice, over processes and starts, in 20 characters (v2.3).
        self._control_ids = map(f"{os.getpid():x}-{{:x}}".format, itertools.count(time.time_ns() // 1000))

    def commit(self, header: hl7v2.Header | None, receipt: Receipt, expected: int | None = None) -> tuple[str, bytes]:
        """The accept acknowledgement: MSA-1 and the message, an ACK whatever was asked."""
        code = commit_code_for(receipt)
        notices = receipt.reply.notices if isinstance(receipt.reply, hl7v2.Reply) else ()
        return code, hl7v2.ack(header or _NO_HEADER, code, error=_error(receipt), notices=notices, expected=expected,
                               now=self._now(), control_id=next(self._control_ids))

    def result(self, header: hl7v2.Header | None, receipt: Receipt, expected: int | None = None) -> tuple[str, bytes]:
        """The application's answer: MSA-1 and the message; without MSH there is nothing to give back in MSA-2."""
        header = header or _NO_HEADER
        code, error = answer_for(receipt).acknowledgment_code, _error(receipt)
        now, control_id = self._now(), next(self._control_ids)
        if isinstance(receipt.reply, hl7v2.Reply):
            return code, hl7v2.reply_bytes(header, code, receipt.reply, error=error, expected=expected, now=now,
                                           control_id=control_id)
        return code, hl7v2.ack(header, code, error=error, expected=expected, now=now, control_id=control_id)

    def batch(self, envelope: hl7v2.Envelope, answers: list[list[bytes]]) -> bytes:
        """The batch that answers a batch."""
        return hl7v2.batch_ack(envelope, answers, now=self._now(), control_id=next(self._control_ids))

    def _now(self) -> datetime:
        return datetime.now(self._zone)


def _error(receipt: Receipt) -> hl7v2.AckError | None:
    """ERR for a refusal or a remark."""
    answer = answer_for(receipt)
    if receipt.category is not None:
        return hl7v2.AckError(answer.error_code, answer.text, "E", receipt.where, receipt.message)
    if receipt.remark:
        return hl7v2.AckError(answer.error_code, answer.text, "W", receipt.remark_where, receipt.remark)
    return None
