"""A hospital's message profile: which message types, segments and fields it uses, how often, and with which codes.

It holds places, counts, the coded values of small tables, and the hospital's own test codes with their names and units:
nothing of a patient. What counts is messages, not segments: the forty OBX of one message are one opinion. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import Message, Segment
from gateway.hl7v2.datatypes import code_text

_FORMAT = 1
#: Fields whose text is the value itself: their components are none of ours.
_TEXTS = frozenset(("OBX-5", "NTE-3", "MSH-1", "MSH-2", "OBR-13", "OBR-31"))
#: Places of small tables: segment, field, component.
_CODED: tuple[tuple[str, int, int], ...] = (
    *(("MSH", at, 1) for at in (3, 4, 11, 12, 15, 16, 17, 18, 19)), ("EVN", 1, 1), ("PID", 3, 4), ("PID", 3, 5),
    ("PID", 8, 1), *(("PV1", at, 1) for at in (2, 4, 14, 18)), ("ORC", 1, 1), ("ORC", 5, 1),
    *(("OBR", at, 1) for at in (5, 11, 15, 24, 25)), *(("OBX", at, 1) for at in (2, 6, 8, 11)),
    *(("SPM", at, 1) for at in (4, 20, 21)), ("NTE", 2, 1), *(("TXA", at, 1) for at in (2, 17, 19)), ("SCH", 25, 1),
    ("IN1", 15, 1), ("FT1", 6, 1), ("DG1", 6, 1))
#: Where a hospital's own codes of tests and services stand.
CODES = ("OBX-3", "OBR-4")
_MOST_VALUES = 300
_MOST_CODES = 20_000
_TIME_OFFSET = re.compile(r"[+-]\d{4}\Z|Z\Z")
_SHORT = re.compile(r"[!-~]{1,6}\Z")
_OTHER = "(others)"


@dataclass(slots=True)
class Presence:
    """How much a segment, field or component is used."""

    messages: int = 0  # in how many messages at least once
    times: int = 0  # how often in all
    most: int = 0  # a segment's in one message, a field's repetitions
    repeated: int = 0  # in how many messages more than once (a segment), with more than one repetition (a field)


@dataclass(slots=True)
class TypeProfile:
    """The messages of one type: ``PID``, ``PID-3``, ``PID-3.4`` → presence."""

    messages: int = 0
    places: dict[str, Presence] = field(default_factory=dict)


@dataclass(slots=True)
class Code:
    """A local code: in how many messages, and the names, units and OBX-2 types that it came with."""

    messages: int = 0
    names: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Profile:
    """What a hospital's messages are like. ``values``: place → coded value → in how many messages."""

    messages: int = 0
    types: dict[str, TypeProfile] = field(default_factory=dict)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    having: Counter[str] = field(default_factory=Counter)  # place of ``values`` → messages with any value there
    codes: dict[str, dict[str, Code]] = field(default_factory=dict)  # "OBX-3" → code → what came with it


def profile_of(messages: Iterable[tuple[bytes, Message]]) -> Profile:
    """The profile of messages as sent and as read."""
    reader = Profiler()
    for raw, message in messages:
        reader.add(raw, message)
    return reader.profile


class Profiler:
    """Gathers a profile message by message.

    A value that might be somebody's (longer than six ASCII characters, or not ASCII) is told only when two patients
    had it; what one alone had is counted as ``(others)``.
    """

    def __init__(self) -> None:
        self.profile = Profile()
        self._held: dict[tuple[str, str], tuple[int, int]] = {}  # value held back → patient, messages

    def add(self, raw: bytes, message: Message) -> None:
        """Count one message."""
        profile = self.profile
        profile.messages += 1
        of_type = profile.types.setdefault(type_of(message), TypeProfile())
        of_type.messages += 1
        seen: dict[str, tuple[int, int]] = {}
        counts: Counter[str] = Counter()
        for segment in message.segments:
            counts[segment.name] += 1
            for place, repetitions in _places(segment):
                times, most = seen.get(place, (0, 0))
                seen[place] = times + 1, max(most, repetitions)
        for name, count in counts.items():
            seen[name] = count, count
        for place, (times, most) in seen.items():
            presence = of_type.places.setdefault(place, Presence())
            presence.messages += 1
            presence.times += times
            presence.most = max(presence.most, most)
            presence.repeated += most > 1
        self._values(raw, message)
        self._codes(message)

    def _values(self, raw: bytes, message: Message) -> None:
        found: dict[str, set[str]] = {
            "charset": {"ascii" if raw.isascii() else message.codec}, "segment end": {_line_end(raw)},
            "MSH-7 offset": {_offset(message.header.time)}}
        for name, at, component in _CODED:
            for segment in message.all(name):
                place = f"{name}-{at}" + (f".{component}" if component > 1 else "")
                if name == "MSH":
                    texts = {message.header.field(at).split(message.separators.component or "\r", 1)[0].strip()}
                elif not segment.raw_field(at):
                    continue
                else:
                    texts = {part.get(component) for part in segment.repetitions(at)}
                found.setdefault(place, set()).update(text for text in texts if text)
        pid = message.first("PID")
        patient = hash(pid.raw_field(3)) if pid else 0
        for place, texts in found.items():
            if texts:
                self.profile.having[place] += 1
            counter = self.profile.values.setdefault(place, Counter())
            for text in {self._told(place, text, patient, counter) for text in texts}:
                counter[text] += 1

    def _told(self, place: str, text: str, patient: int, counter: Counter[str]) -> str:
        if text in counter:
            return text
        if len(counter) >= _MOST_VALUES or len(text) > 40:
            return _OTHER
        if _SHORT.match(text) or place in ("charset", "segment end", "MSH-7 offset") or place.startswith("MSH"):
            return text
        first, held = self._held.get((place, text), (patient, 0))
        if first != patient:
            counter[text] += held  # a second patient has it: a code, no person
            counter[_OTHER] -= held
            if counter[_OTHER] <= 0:
                del counter[_OTHER]
            return text
        self._held[place, text] = first, held + 1
        return _OTHER

    def _codes(self, message: Message) -> None:
        found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
        for place in CODES:
            name, _, number = place.partition("-")
            for segment in message.all(name):
                code, display = local_code(segment, int(number))
                unit = unit_text(segment) if name == "OBX" else ""
                if code:
                    found.setdefault((place, code), []).append((display, unit, segment.get(2) if name == "OBX" else ""))
        for (place, code), lines in found.items():
            codes = self.profile.codes.setdefault(place, {})
            if code not in codes and len(codes) >= _MOST_CODES:
                continue
            known = codes.setdefault(code, Code())
            known.messages += 1
            for part, counter in enumerate((known.names, known.units, known.types)):
                counter.update({line[part] for line in lines if line[part]})


def type_of(message: Message) -> str:
    """MSH-9 as people write it: ``ORU^R01``."""
    code, event, structure = message.header.message_type
    return "^".join(part for part in (code or "?", event or structure.partition("_")[2]) if part)


def local_code(segment: Segment, at: int) -> tuple[str, str]:
    """The code that a row of ``codes.csv`` is looked up by, and its name: the first component, else the alternate code,
    else the text itself (as `gateway.hl7v2.builder` reads OBX-3 and OBR-4)."""
    part = segment.first(at)
    display = part.get(2) or part.get(5) or part.get(9)
    return code_text(part.get(1)) or code_text(part.get(4)) or code_text(display), display


def unit_text(obx: Segment) -> str:
    """OBX-6 as sent, all its components."""
    return obx.text(6).strip()


def _places(segment: Segment) -> Iterator[tuple[str, int]]:
    """Each field of a segment that holds anything, with its repetitions, and each component of one that has several."""
    for at in range(1, segment.size):
        place = f"{segment.name}-{at}"
        if segment.name == "MSH" and at < 3:
            continue
        if not segment.raw_field(at):
            continue
        parts = segment.repetitions(at)
        if place in _TEXTS:
            yield place, max(len(parts), 1)
            continue
        yield place, max(len(parts), 1)
        components = {n for part in parts if len(part) > 1 for n in range(1, len(part) + 1) if part.get(n)}
        for component in sorted(components):
            yield f"{place}.{component}", 1


def _line_end(raw: bytes) -> str:
    return "CRLF" if b"\r\n" in raw else "LF" if b"\n" in raw and b"\r" not in raw else "CR"


def _offset(time: str) -> str:
    match = _TIME_OFFSET.search(time.strip())
    return match[0] if match else "none"


def merged(one: Profile, other: Profile) -> Profile:
    """Both together, as if all their messages had been read at once (but for values that each held back)."""
    made = Profile(one.messages + other.messages, having=one.having + other.having)
    for profile in (one, other):
        for name, of_type in profile.types.items():
            into = made.types.setdefault(name, TypeProfile())
            into.messages += of_type.messages
            for place, presence in of_type.places.items():
                known = into.places.setdefault(place, Presence())
                known.messages += presence.messages
                known.times += presence.times
                known.most = max(known.most, presence.most)
                known.repeated += presence.repeated
        for place, counter in profile.values.items():
            made.values.setdefault(place, Counter()).update(counter)
        for place, codes in profile.codes.items():
            for code, known_code in codes.items():
                target = made.codes.setdefault(place, {}).setdefault(code, Code())
                target.messages += known_code.messages
                target.names.update(known_code.names)
                target.units.update(known_code.units)
                target.types.update(known_code.types)
    return made


# -------------------------------------------------------------------------------------------------- as files

def to_json(profile: Profile) -> bytes:
    """``profile.json``: sorted, one line for each place, so that a difference reads well."""
    body = {
        "format": _FORMAT, "messages": profile.messages,
        "types": {name: {"messages": t.messages,
                         "places": {place: _numbers(p) for place, p in sorted(t.places.items(), key=_in_order)}}
                  for name, t in sorted(profile.types.items())},
        "values": {place: {"messages": profile.having[place], "values": dict(sorted(counter.items()))}
                   for place, counter in sorted(profile.values.items(), key=_in_order)},
        "codes": {place: {code: {"messages": c.messages, "names": dict(sorted(c.names.items())),
                                 "units": dict(sorted(c.units.items())), "types": dict(sorted(c.types.items()))}
                          for code, c in sorted(codes.items())}
                  for place, codes in sorted(profile.codes.items())}}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"


def _numbers(presence: Presence) -> list[int]:
    return [presence.messages, presence.times, presence.most, presence.repeated]


def from_json(data: bytes) -> Profile:
    """What ``to_json`` wrote; INVALID when it is something else."""
    try:
        body = orjson.loads(data)
        if body["format"] != _FORMAT:
            raise ValueError("format")
        return Profile(
            body["messages"],
            {name: TypeProfile(t["messages"], {place: Presence(*p) for place, p in t["places"].items()})
             for name, t in body["types"].items()},
            {place: Counter(v["values"]) for place, v in body["values"].items()},
            Counter({place: v["messages"] for place, v in body["values"].items()}),
            {place: {code: _code(c) for code, c in codes.items()} for place, codes in body["codes"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise GatewayError(Category.INVALID, "profile.json cannot be read; make it anew with `huren adapter profile`",
                           "profile.json") from None


def _code(body: Mapping[str, Any]) -> Code:
    return Code(body["messages"], Counter(body["names"]), Counter(body["units"]), Counter(body["types"]))


def to_tsv(profile: Profile, name_of: Callable[[str], str] = lambda place: "") -> Iterator[str]:
    """``profile.tsv``, for people: what is used and how much, then the values of small tables.

    ``name_of`` gives the standard's name of a place.
    """
    yield "type\tplace\tname\tmessages\tshare\ttimes\tmost\tvalues"
    shown: set[str] = set()
    for name, of_type in sorted(profile.types.items()):
        yield f"{name}\t\t\t{of_type.messages}\t{_share(of_type.messages, profile.messages)}\t\t\t"
        for place, p in sorted(of_type.places.items(), key=_in_order):
            segment = of_type.places[place.partition("-")[0]]
            of = segment.messages if "-" in place else of_type.messages
            shown.add(place)
            yield (f"{name}\t{place}\t{name_of(place)}\t{p.messages}\t{_share(p.messages, of)}\t{p.times}\t{p.most}\t"
                   f"{_listed(profile.values.get(place))}")
    for place in sorted(profile.values.keys() - shown):
        yield f"\t{place}\t\t{profile.having[place]}\t\t\t\t{_listed(profile.values[place])}"


def _listed(counter: Counter[str] | None) -> str:
    if not counter:
        return ""
    return " ".join(f"{value.replace(chr(9), ' ')}:{count}" for value, count in counter.most_common(30))


def _share(count: int, of: int) -> str:
    return f"{count / of:.0%}" if of else ""


def _in_order(item: tuple[str, Any]) -> tuple[str, int, int]:
    segment, _, rest = item[0].partition("-")
    at, _, component = rest.partition(".")
    return segment, int(at) if at.isdigit() else 0, int(component) if component.isdigit() else 0


def same_text(one: str, other: str) -> bool:
    """Whether two names or units differ in width, case and blanks at most."""
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
