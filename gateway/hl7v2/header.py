"""A first look at MSH on the bytes, before the character set is known: enough to choose an adapter and to refuse."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from functools import lru_cache

from gateway.errors import Category, GatewayError
from gateway.hl7v2.charset import lenient
from gateway.hl7v2.separators import Separators, read_separators

_START = re.compile(rb"(?:\A|[\r\n\x0b])[ \t]*(MSH)(?![A-Za-z0-9])", re.IGNORECASE)
_LONGEST = 512  # characters of a header that is worth remembering
_LINE_END = re.compile(rb"[\r\n\x1c]")


@dataclass(frozen=True, slots=True)
class Header:
    """MSH as far as routing and answering need it; values are as sent, first component, without escapes resolved."""

    separators: Separators
    fields: tuple[str, ...]  # fields[3] is MSH-3 in full
    codec: str  # gives back the bytes of ``fields``; a guess unless parse() settled it

    def field(self, number: int) -> str:
        """MSH-number in full, "" when absent."""
        return self.fields[number] if number < len(self.fields) else ""

    def first(self, number: int) -> str:
        """The first component of the first repetition of MSH-number."""
        text = self.field(number).strip()
        if text.isalnum():
            return text
        if self.separators.repetition:
            text = text.split(self.separators.repetition, 1)[0]
        text = text.split(self.separators.component, 1)[0] if self.separators.component else text
        return "" if text == '""' else text.strip()

    @property
    def sending_application(self) -> str:
        """MSH-3."""
        return self.first(3)

    @property
    def sending_facility(self) -> str:
        """MSH-4."""
        return self.first(4)

    @property
    def time(self) -> str:
        """MSH-7 as sent."""
        return self.first(7)

    @property
    def message_type(self) -> tuple[str, str, str]:
        """MSH-9: message code, trigger event, message structure; "" where absent."""
        text = self.field(9)
        read = _message_type if len(text) <= _LONGEST else _message_type.__wrapped__
        return read(text, self.separators)

    @property
    def control_id(self) -> str:
        """MSH-10 in full, as MSA-2 has to give it back."""
        return self.field(10).strip()

    @property
    def processing_id(self) -> str:
        """MSH-11.1: P, T or D."""
        return self.first(11)

    @property
    def version_id(self) -> str:
        """MSH-12.1."""
        return self.first(12)

    @property
    def sequence_number(self) -> str:
        """MSH-13."""
        return self.first(13)

    @property
    def is_enhanced(self) -> bool:
        """Whether MSH-15 or MSH-16 asks for the enhanced acknowledgment mode (HL7 v2.5.1 2.9.3)."""
        return len(self.fields) > 15 and bool(self.first(15) or self.first(16))

    @property
    def character_set(self) -> str:
        """MSH-18: the first repetition that names more than ASCII, else the first."""
        names = self.field(18).split(self.separators.repetition) if self.separators.repetition else [self.field(18)]
        names = [n.strip() for n in names if n.strip() and n.strip() != '""']
        return next((n for n in names if n.upper() != "ASCII"), names[0] if names else "")


def peek(raw: bytes) -> Header:
    """MSH of the first message in a buffer; never raises for odd content.

    MALFORMED only where there is no MSH or it has no usable separators, so that even a refusal can give back MSA-2.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raw = raw.decode("utf-16", "replace").encode("utf-8")
    elif raw.startswith(codecs.BOM_UTF8):
        raw = raw[3:]
    start = _START.search(raw)
    if not start:
        raise GatewayError(Category.MALFORMED, "no MSH segment; start the message with MSH|^~\\&|", "MSH")
    end = _LINE_END.search(raw, start.start(1))
    line, codec = lenient(raw[start.start(1):end.start() if end else len(raw)])
    return header_of(line, codec)


def header_of(line: str, codec: str) -> Header:
    """The header for an MSH line that is decoded already."""
    return Header(*(_read(line) if len(line) <= _LONGEST else _read.__wrapped__(line)), codec)


@lru_cache(maxsize=256)  # a message's is asked for when it is accepted and when it is read
def _read(line: str) -> tuple[Separators, tuple[str, ...]]:
    separators = read_separators(line)
    return separators, ("MSH", separators.field, *line[4:].split(separators.field))


@lru_cache(maxsize=256)
def _message_type(text: str, separators: Separators) -> tuple[str, str, str]:
    text = text.strip().upper()
    if separators.repetition:
        text = text.split(separators.repetition, 1)[0]
    parts = text.split(separators.component) if separators.component else [text]
    code, event, structure = ([p.strip() for p in parts] + ["", "", ""])[:3]
    return code, event, structure
