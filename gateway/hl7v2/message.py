"""ER7 text as segments, fields, repetitions, components and subcomponents, split only as far as somebody asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import charset as charsets
from gateway.hl7v2.header import Header, header_of, peek
from gateway.hl7v2.separators import CONTROLS, Separators, has_controls, unescape
from gateway.source import message_digest

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{2}")
_BLANK = " \t\ufeff\x0b\x1c"


class Dialect(NamedTuple):
    """The delimiters and the character set of a message, and how its text is read by them.

    Segments refer to this and not to their message, so that a message is no circle, which only the garbage collector
    would find: an eighth of the time of reading one and converting it.
    """

    separators: Separators
    codec: str

    def value(self, component: str, subcomponent: int = 1) -> str:
        """The text of one subcomponent of a raw component."""
        separators = self.separators
        if separators.subcomponent and separators.subcomponent in component:
            parts = component.split(separators.subcomponent)
            component = parts[subcomponent - 1] if subcomponent <= len(parts) else ""
        elif subcomponent > 1:
            return ""
        if component == '""':
            return ""
        if separators.escape and separators.escape in component:
            component = unescape(component, separators, self.codec)
        return component.strip()

    def unescaped(self, raw: str) -> str:
        """Raw text with its escapes resolved."""
        if self.separators.escape and self.separators.escape in raw:
            return unescape(raw, self.separators, self.codec)
        return raw


class Part:
    """A repetition of a field, or a component of one: text that splits at ``delimiter`` when asked."""

    __slots__ = ("raw", "_delimiter", "_dialect", "_parts")

    def __init__(self, raw: str, delimiter: str, dialect: Dialect) -> None:
        self.raw = raw
        self._delimiter = delimiter
        self._dialect = dialect
        self._parts: list[str] | None = None

    def __len__(self) -> int:
        return len(self._split())

    def __bool__(self) -> bool:
        return bool(self.raw) and self.raw != '""'

    def _split(self) -> list[str]:
        if self._parts is None:
            self._parts = self.raw.split(self._delimiter) if self._delimiter else [self.raw]
        return self._parts

    @property
    def delimiter(self) -> str:
        """The character that parts its components; "" when there is none."""
        return self._delimiter

    def get(self, component: int = 1, subcomponent: int = 1) -> str:
        """The text of a component's subcomponent, escapes resolved; "" when absent or null."""
        parts = self._parts or self._split()
        if component > len(parts) or not (raw := parts[component - 1]):
            return ""
        if raw.isalnum():  # as most are: then nothing delimits, escapes or surrounds it
            return raw if subcomponent == 1 else ""
        return self._dialect.value(raw, subcomponent)

    def part(self, component: int) -> Part:
        """A component by itself; its own components are the subcomponents."""
        parts = self._split()
        raw = parts[component - 1] if component <= len(parts) else ""
        return Part(raw, self._dialect.separators.subcomponent, self._dialect)

    @property
    def text(self) -> str:
        """The whole, delimiters kept, escapes resolved: for text that a sender did not escape."""
        return "" if self.raw == '""' else self._dialect.unescaped(self.raw)


@lru_cache(maxsize=64)
def _several(fields: tuple[int, ...]) -> Callable[[list[str]], tuple[str, ...]]:
    return itemgetter(*fields)


class Segment:
    """One segment. Fields count from 1 as the standard counts them; MSH-1 is the field separator itself."""

    __slots__ = ("name", "raw", "sequence", "_fields", "_dialect")

    def __init__(self, name: str, raw: str, sequence: int, message: Message) -> None:
        self.name = name
        self.raw = raw
        self.sequence = sequence  # 1 for the first segment of this name in the message
        self._dialect = message.dialect
        self._fields: list[str] | None = None

    def __repr__(self) -> str:
        return f"<{self.name} {self.sequence}>"  # never the content

    def _split(self) -> list[str]:
        separator, raw = self._dialect.separators.field, self.raw
        fields = raw.split(separator)
        if " " in raw and (" " + separator in raw or separator + " " in raw or raw[-1] == " "):  # rare: once for all
            fields = [field.strip(" ") for field in fields]
        if self.name == "MSH":
            fields.insert(1, separator)
        self._fields = fields
        return fields

    def set(self, field: int, raw: str) -> None:
        """Put a field's text as it would have been sent, delimiters and escapes included: for a hospital's ``before``
        hook."""
        fields = self._fields or self._split()
        fields.extend([""] * (field + 1 - len(fields)))
        fields[field] = raw.strip(" ")
        separator = self._dialect.separators.field
        self.raw = separator.join(fields[:1] + fields[2:] if self.name == "MSH" else fields)

    def raw_field(self, field: int) -> str:
        """A field as sent, with delimiters and escapes; "" when absent."""
        fields = self._fields or self._split()
        return fields[field] if field < len(fields) else ""

    @property
    def size(self) -> int:
        """One more than the number of the last field that was sent."""
        return len(self._fields or self._split())

    def several(self, fields: tuple[int, ...]) -> tuple[str, ...]:
        """``raw_field`` of several fields at once."""
        sent = self._fields or self._split()
        try:
            return _several(fields)(sent)
        except IndexError:
            return tuple(self.raw_field(field) for field in fields)

    def plain(self, field: int) -> str | None:
        """A field as sent when it neither repeats nor escapes anything, so that it is its own text; else None."""
        raw, separators = self.raw_field(field), self._dialect.separators
        if separators.repetition and separators.repetition in raw or separators.escape and separators.escape in raw:
            return None
        return raw

    def get(self, field: int, component: int = 1, subcomponent: int = 1, repetition: int = 1) -> str:
        """The text at ``SEG-field.component.subcomponent``, escapes resolved; "" when absent or null."""
        fields = self._fields or self._split()
        if field >= len(fields):
            return ""
        text = fields[field]
        if text.isalnum():  # as most are: then nothing delimits, escapes or surrounds it
            return text if component == subcomponent == repetition == 1 else ""
        if not text:
            return ""
        if field < 3 and self.name == "MSH":
            return text if component == subcomponent == repetition == 1 else ""
        separators = self._dialect.separators
        if separators.repetition and separators.repetition in text:
            repetitions = text.split(separators.repetition)
            text = repetitions[repetition - 1] if repetition <= len(repetitions) else ""
        elif repetition > 1:
            return ""
        if separators.component and separators.component in text:
            components = text.split(separators.component)
            text = components[component - 1] if component <= len(components) else ""
        elif component > 1:
            return ""
        return self._dialect.value(text, subcomponent)

    def is_null(self, field: int) -> bool:
        """Whether the field holds ``""``, which deletes what was there (v2.5.1 2.5.3)."""
        return self.raw_field(field) == '""'

    def require(self, field: int, component: int = 1) -> str:
        """The text at ``SEG-field.component``; INVALID names the place, never the value."""
        if value := self.get(field, component):
            return value
        place = f"{self.name}-{field}" + (f".{component}" if component > 1 else "")
        raise GatewayError(Category.INVALID, f"{place} is missing{self.which()}; send it", place, detail="required")

    def which(self) -> str:
        """Which of several segments of this name, for a sentence: `` in the 7th OBX`` becomes `` (OBX number 7)``."""
        return f" ({self.name} number {self.sequence})" if self.sequence > 1 else ""

    def repetitions(self, field: int) -> list[Part]:
        """The repetitions of a field that hold anything, null ones left out."""
        text = self.raw_field(field)
        if not text or text == '""':
            return []
        separators = self._dialect.separators
        many = text.split(separators.repetition) if separators.repetition else [text]
        return [Part(raw, separators.component, self._dialect) for raw in many if raw.strip() and raw != '""']

    def first(self, field: int) -> Part:
        """The first repetition of a field; false when it is absent or null."""
        text = self.raw_field(field)
        separators = self._dialect.separators
        if separators.repetition:
            text = text.split(separators.repetition, 1)[0]
        return Part(text, separators.component, self._dialect)

    def components(self, field: int, repetition: int = 1) -> list[str]:
        """The components of a repetition, each whole with its subcomponent delimiters, escapes resolved."""
        text = self.raw_field(field)
        separators = self._dialect.separators
        many = text.split(separators.repetition) if separators.repetition else [text]
        if not text or repetition > len(many):
            return []
        chosen = many[repetition - 1]
        parts = chosen.split(separators.component) if separators.component else [chosen]
        return [self._dialect.unescaped(part) for part in parts]

    def text(self, field: int) -> str:
        """A whole field as text, every delimiter kept, escapes resolved; "" when absent or null."""
        raw = self.raw_field(field)
        return "" if raw == '""' else self._dialect.unescaped(raw)


class Message:
    """The segments of one message in order, with its header, its codec and its delimiters.

    ``digest``: of the bytes as they came (`gateway.source.message_digest`), whatever a hook changes afterwards.
    """

    __slots__ = ("header", "dialect", "segments", "digest", "_by_name")

    def __init__(self, header: Header, codec: str) -> None:
        self.header = header
        self.dialect = Dialect(header.separators, codec)
        self.segments: list[Segment] = []
        self.digest = b""
        self._by_name: dict[str, list[Segment]] = {}

    def __repr__(self) -> str:
        return f"<Message {'^'.join(self.header.message_type)} of {len(self.segments)} segments>"

    @property
    def separators(self) -> Separators:
        """The delimiters."""
        return self.dialect.separators

    @property
    def codec(self) -> str:
        """The character set."""
        return self.dialect.codec

    def all(self, name: str) -> list[Segment]:
        """The segments of a name, in order."""
        return self._by_name.get(name, [])

    def first(self, name: str) -> Segment | None:
        """The first segment of a name, None when there is none."""
        found = self._by_name.get(name)
        return found[0] if found else None

    def unescaped(self, raw: str) -> str:
        """Raw text with its escapes resolved."""
        return self.dialect.unescaped(raw)

    def _add(self, lines: list[str]) -> None:
        raw = "\n".join(lines) if len(lines) > 1 else lines[0]
        name = raw[:3].upper()
        same = self._by_name.get(name)
        if same is None:
            same = self._by_name[name] = []
        segment = Segment(name, raw, len(same) + 1, self)
        same.append(segment)
        self.segments.append(segment)


def parse(raw: bytes, charset: str | None = None) -> Message:
    """One message as segments; MALFORMED when it cannot be read.

    ``charset`` is the manifest's and wins over MSH-18 (see `gateway.hl7v2.charset`). The text is decoded before it is
    split, because the second byte of a GB18030 character may equal a delimiter. Segments end at CR, LF or CRLF; blank
    lines, a byte order mark and blanks before a segment are passed over; lower-case segment names are read as upper
    case. A line that does not begin with a segment name and the field separator continues the field before it, with a
    line feed between (free text with raw line ends). A second MSH is MALFORMED: `split` first.
    """
    look = peek(raw)
    text, codec = charsets.decode(raw, manifest=charset, declared=look.character_set)
    if controls := has_controls(raw, text):
        text = CONTROLS.sub(lambda m: m[0] if m[0] in "\x0b\x1c" else "", text)
    if "\n" in text:
        text = text.replace("\r\n", "\r").replace("\n", "\r")
    message: Message | None = None
    separator = ""
    known: Container[str] = ()  # names of segments, to match each of them once
    pending: list[str] = []  # the lines of the segment being read
    for line in text.split("\r"):
        if not (stripped := line.strip(_BLANK)):
            continue
        if controls:  # framing at the ends of a line is gone; within, it is a character that FHIR forbids
            line, stripped = CONTROLS.sub("", line), CONTROLS.sub("", stripped)
        name = stripped[:3]
        if message is None:
            if name.upper() != "MSH":
                raise GatewayError(Category.MALFORMED, "something precedes MSH; start the message with MSH", "MSH")
            message = Message(header_of(stripped, codec), codec)
            message.digest = message_digest("hl7v2", raw)
            separator, known = message.separators.field, message._by_name
            pending = [stripped]
        elif stripped[3:4] == separator and (name in known or _NAME.match(name)) \
                or len(stripped) == 3 and _bare(stripped):
            if name.upper() == "MSH":
                raise GatewayError(Category.MALFORMED, "a second MSH in one message; send messages one by one or as a "
                                                       "batch", "MSH")
            message._add(pending)
            pending = [stripped]
        else:
            pending.append(line.strip(_CONTINUED))
    if message is None:
        raise GatewayError(Category.MALFORMED, "the message is empty", "MSH")
    message._add(pending)
    return message


_CONTINUED = "\x0b\x1c\ufeff"


def _bare(line: str) -> bool:
    """A segment without any field, such as ``NTE``; lower-case words are text."""
    return line.isupper() and _NAME.match(line) is not None
