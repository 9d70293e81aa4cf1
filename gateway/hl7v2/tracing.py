"""A message that writes down which of its values a conversion asks for: for `accounting`, not for what comes in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gateway.hl7v2.header import Header, header_of
from gateway.hl7v2.message import Dialect, Message, Part, Segment

#: repetition, component, subcomponent; 0: all of them
Spot = tuple[int, int, int]
#: The slots beneath the properties of the traced classes.
_RAW: Any = Segment.__dict__["raw"]
_PART_RAW: Any = Part.__dict__["raw"]


class Reads:
    """Which values were asked for, and in which phase (``before``, ``convert``, ``after``).

    ``asked`` are values that were read, ``seen`` fields that were looked at, if only to see whether they are empty:
    what is in neither cannot matter.
    """

    def __init__(self) -> None:
        self.phase = "convert"
        self.asked: dict[tuple[int, int], set[tuple[str, Spot]]] = defaultdict(set)
        self.seen: set[tuple[int, int]] = set()
        self._muted = False

    def ask(self, at: int, field: int, repetition: int = 0, component: int = 0, subcomponent: int = 0) -> None:
        """A value was read; ``at`` is the position of its segment in the message."""
        if not self._muted:
            self.asked[at, field].add((self.phase, (repetition, component, subcomponent)))
            self.seen.add((at, field))

    def see(self, at: int, field: int) -> None:
        """A field was looked at."""
        if not self._muted:
            self.seen.add((at, field))

    @contextmanager
    def muted(self) -> Iterator[None]:
        """What the reader does by itself is no read."""
        before, self._muted = self._muted, True
        try:
            yield
        finally:
            self._muted = before

    def phases(self, at: int, field: int, spot: Spot) -> set[str]:
        """Who asked for a value: part by part, or with all of its field, repetition or component."""
        return {phase for phase, asked in self.asked.get((at, field), ())
                if all(one in (0, other) for one, other in zip(asked, spot, strict=True))}


class TracedPart(Part):
    """A `Part` that tells what is asked of it."""

    __slots__ = ("_reads", "_place", "_depth")

    def __init__(self, part: Part, dialect: Dialect, reads: Reads, place: tuple[int, int, int, int],
                 depth: int = 0) -> None:
        self._reads = reads
        self._place = place  # segment, field, repetition, component
        self._depth = depth  # 0: a repetition, 1: a component, 2: a subcomponent
        with reads.muted():
            super().__init__(part.raw, part.delimiter, dialect)

    @property
    def raw(self) -> str:
        """As it was sent."""
        self._reads.see(*self._place[:2])
        return _PART_RAW.__get__(self, Part)

    @raw.setter
    def raw(self, text: str) -> None:
        _PART_RAW.__set__(self, text)

    def get(self, component: int = 1, subcomponent: int = 1) -> str:
        """As `Part.get`."""
        at, field, repetition, inner = self._place
        if self._depth:
            self._reads.ask(at, field, repetition, inner, component)
        else:
            self._reads.ask(at, field, repetition, component, subcomponent)
        return super().get(component, subcomponent)

    def part(self, component: int) -> Part:
        """As `Part.part`."""
        at, field, repetition, inner = self._place
        place = (at, field, repetition, inner if self._depth else component)
        return TracedPart(super().part(component), self._dialect, self._reads, place, self._depth + 1)

    @property
    def text(self) -> str:
        """As `Part.text`."""
        self._reads.ask(*self._place)
        return super().text


class TracedSegment(Segment):
    """A `Segment` that tells what is asked of it."""

    __slots__ = ("_reads", "_at")

    def __init__(self, segment: Segment, at: int, message: Message, reads: Reads) -> None:
        self._reads = reads
        self._at = at
        with reads.muted():
            super().__init__(segment.name, segment.raw, segment.sequence, message)

    @property
    def raw(self) -> str:
        """The whole segment as it was sent."""
        text: str = _RAW.__get__(self, Segment)
        for field in range(1, text.count(self._dialect.separators.field) + 2):
            self._reads.ask(self._at, field)
        return text

    @raw.setter
    def raw(self, text: str) -> None:
        _RAW.__set__(self, text)

    def _split(self) -> list[str]:
        with self._reads.muted():
            return super()._split()

    def raw_field(self, field: int) -> str:
        """As `Segment.raw_field`."""
        self._reads.see(self._at, field)
        return super().raw_field(field)

    def several(self, fields: tuple[int, ...]) -> tuple[str, ...]:
        """As `Segment.several`."""
        return tuple(self.raw_field(field) for field in fields)

    def plain(self, field: int) -> str | None:
        """As `Segment.plain`."""
        self._reads.ask(self._at, field)
        return super().plain(field)

    def get(self, field: int, component: int = 1, subcomponent: int = 1, repetition: int = 1) -> str:
        """As `Segment.get`."""
        self._reads.ask(self._at, field, repetition, component, subcomponent)
        return super().get(field, component, subcomponent, repetition)

    def repetitions(self, field: int) -> list[Part]:
        """As `Segment.repetitions`."""
        separator = self._dialect.separators.repetition
        raw = self.raw_field(field)
        many = raw.split(separator) if separator else [raw]
        ordinals = [at for at, one in enumerate(many, 1) if one.strip() and one != '""']
        return [self._traced(part, field, at) for at, part in zip(ordinals, super().repetitions(field), strict=False)]

    def first(self, field: int) -> Part:
        """As `Segment.first`."""
        return self._traced(super().first(field), field, 1)

    def components(self, field: int, repetition: int = 1) -> list[str]:
        """As `Segment.components`."""
        self._reads.ask(self._at, field, repetition)
        return super().components(field, repetition)

    def text(self, field: int) -> str:
        """As `Segment.text`."""
        self._reads.ask(self._at, field)
        return super().text(field)

    def _traced(self, part: Part, field: int, repetition: int) -> Part:
        return TracedPart(part, self._dialect, self._reads, (self._at, field, repetition, 0))


class TracedHeader(Header):
    """A `Header` that tells which of its fields are asked for."""

    def field(self, number: int) -> str:
        """As `Header.field`."""
        reads: Reads | None = self.__dict__.get("reads")
        if reads is not None:
            reads.ask(0, number)
        return super().field(number)


def traced(message: Message, reads: Reads) -> Message:
    """A copy of a message that tells ``reads`` what is asked of it."""
    header = TracedHeader(message.header.separators, message.header.fields, message.header.codec)
    object.__setattr__(header, "reads", reads)  # a Header is frozen
    made = _empty(message, header)
    for at, segment in enumerate(message.segments):
        _append(made, TracedSegment(segment, at, made, reads))
    return made


def rebuilt(message: Message, at: int, field: int, raw: str) -> Message:
    """A copy of a message with another text in one field; its segments split anew."""
    return edited(message, [(at, field, raw)])


def edited(message: Message, edits: Iterable[tuple[int, int, str]], share: bool = False) -> Message:
    """A copy of a message with other texts in some fields (segment, field, text), at most one of each segment.

    ``share``: segments that stay as they are are not split anew; only where no hook may change a segment itself.
    """
    texts = {at: (field, raw) for at, field, raw in edits}
    header = header_of(_edited(message, 0, *texts[0]), message.codec) if 0 in texts else message.header
    made = _empty(message, header)
    for at, segment in enumerate(message.segments):
        if at in texts or not share or 0 in texts:  # other delimiters
            line = _edited(message, at, *texts[at]) if at in texts else segment.raw
            segment = Segment(segment.name, line, segment.sequence, made)
        _append(made, segment)
    return made


def _edited(message: Message, at: int, field: int, raw: str) -> str:
    changed = Segment(message.segments[at].name, message.segments[at].raw, 1, message)
    changed.set(field, raw)
    return changed.raw


def _empty(message: Message, header: Header) -> Message:
    """A message without segments; whatever else it carries (the digest of its bytes) stays the original's."""
    made = Message(header, message.codec)
    for slot in Message.__slots__:
        if slot not in ("header", "dialect", "segments", "_by_name") and hasattr(message, slot):
            setattr(made, slot, getattr(message, slot))
    return made


def _append(message: Message, segment: Segment) -> None:
    message.segments.append(segment)
    message._by_name.setdefault(segment.name, []).append(segment)
