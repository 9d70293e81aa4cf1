"""How a hospital speaks, read off its sample messages: what its manifest has to say, with counts for who decides. Pure.

Nothing that is told here is a patient's: values come from small tables only, and one that might be somebody's (letters,
or longer than six characters) is told when two patients had it; digits of a text are masked.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.errors import GatewayError
from gateway.hl7v2 import Message, Segment, charset, parse, peek, tables, timestamps
from gateway.hl7v2.datatypes import code_text, is_national
from gateway.hl7v2.numbers import compared, narrow
from gateway.hl7v2.ranges import limits_of, ranges_of
from gateway.identity import normalised
from gateway.onboarding.profile import local_code, type_of
from gateway.terminology import ucum

#: Place → what the standard's table knows there, upper case; "" where the place may be empty.
_KNOWN: dict[str, frozenset[str]] = {
    "OBX-8": frozenset(tables.INTERPRETATIONS), "OBX-11": frozenset(tables.OBSERVATION_STATUS),
    "OBR-25": frozenset(tables.REPORT_STATUS), "PID-8": frozenset(tables.GENDER),
    "PV1-2": frozenset(tables.ENCOUNTER_CLASS), "ORC-5": frozenset(tables.ORDER_STATUS),
    "OBR-5": frozenset(tables.PRIORITY) | {"P", "C", "T"}}
_UPPER = ("OBX-11", "OBR-25", "PID-8", "PV1-2", "ORC-5", "OBR-5")  # where the converter reads lower case too
_FLAGS = {"↑": "H", "↓": "L", "↑↑": "HH", "↓↓": "LL", "高": "H", "低": "L", "偏高": "H", "偏低": "L", "正常": "N",
          "异常": "A", "阳性": "POS", "阴性": "NEG", "h": "H", "l": "L", "n": "N", "hh": "HH", "ll": "LL", "a": "A",
          "↗": "H", "↘": "L", "⬆": "H", "⬇": "L", "危急": "AA", "危急值": "AA"}
_SEX = {"男": "M", "女": "F", "1": "M", "2": "F", "0": "U", "9": "U", "男性": "M", "女性": "F",
        "未知": "U", "未说明": "U"}
_VISIT = {"门诊": "O", "住院": "I", "急诊": "E", "体检": "O"}
_STATUS = {"已审核": "F", "审核": "F", "已发布": "F", "终审": "F", "初审": "P", "已作废": "X", "作废": "X", "修改": "C"}
#: What obviously is meant; everything else is for a person to find out.
OBVIOUS: dict[str, Mapping[str, str]] = {"OBX-8": _FLAGS, "PID-8": _SEX, "PV1-2": _VISIT, "OBX-11": _STATUS,
                                         "OBR-25": _STATUS}
_TIMES = {"EVN": (2, 6), "PID": (7, 29), "PV1": (44, 45), "ORC": (9, 15), "OBR": (6, 7, 8, 14, 22, 36),
          "OBX": (14, 19), "SPM": (17, 18), "TXA": (4, 6, 7), "FT1": (4,), "TQ1": (7,), "DG1": (5,)}
_FILLER = re.compile(r"0+\Z|(?:0001|1111|9999)\d*\Z|1900-?01-?01.*\Z|18991230\d*\Z|-+\Z")
_TITRE = re.compile(r"\s*[<>≤≥=]*\s*1\s*:\s*\d+\s*")
_COMMA = re.compile(r"[<>≤≥=+-]*\d+,\d+")
_ACCESSION_FIELDS = (2, 3, 18, 19, 20, 21)
_TORN = re.compile(r"(?:.*[^\d])?10\Z")
_OFFSET = re.compile(r"\d([+-]\d{4}|Z)\Z")
_OTHER = "(others)"
#: Offset → the zone that a hospital with this offset most likely lies in.
ZONES = {"+0800": "Asia/Shanghai", "+0900": "Asia/Tokyo", "+0700": "Asia/Bangkok", "+0000": "UTC", "Z": "UTC"}


class Told:
    """Values with counts, of which those that only one patient has stay untold where they might be that patient's."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._owner: dict[str, int] = {}

    def add(self, value: str, patient: int) -> None:
        """Count a value of a patient."""
        self._counts[value] += 1
        if self._owner.setdefault(value, patient) != patient:
            self._owner[value] = 0

    def counts(self, sure: Iterable[str] = ()) -> Counter[str]:
        """What may be told, the rest as ``(others)``; ``sure`` are words that are nobody's name."""
        told: Counter[str] = Counter()
        for value, count in self._counts.items():
            harmless = not self._owner[value] or value in sure or len(value) <= 6 and (
                value.isascii() or not any(unicodedata.category(c).startswith("L") for c in value))
            told[value if harmless else _OTHER] += count
        return told


@dataclass(slots=True)
class Share:
    """So many of so many."""

    count: int = 0
    of: int = 0

    def add(self, hit: bool) -> None:
        """Count one case."""
        self.count += hit
        self.of += 1

    @property
    def rate(self) -> float:
        """Between 0 and 1."""
        return self.count / self.of if self.of else 0.0


@dataclass(slots=True)
class Habits:
    """What the samples show, with its counts."""

    senders: Counter[tuple[str, str]] = field(default_factory=Counter)  # MSH-4, MSH-3
    messages: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    charset: str = ""  # for the manifest, "" where MSH-18 and the bytes tell it well
    charset_reason: str = ""
    declared: Counter[str] = field(default_factory=Counter)  # MSH-18
    codecs: Counter[str] = field(default_factory=Counter)  # what the bytes are
    types: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    offsets: Counter[str] = field(default_factory=Counter)
    value_types: Counter[str] = field(default_factory=Counter)
    st_numbers: Share = field(default_factory=Share)  # ST with a unit: how many are numbers
    nm_texts: Share = field(default_factory=Share)  # NM: how many are none
    titres: int = 0  # ST, TX, FT or NM like 1:128
    st_ranges: int = 0  # the same with a unit, like 10-20
    commas: Counter[int] = field(default_factory=Counter)  # digits behind a comma in a value → values
    double_ranges: int = 0  # OBX-7 of two repetitions, both limits
    parents: Counter[str] = field(default_factory=Counter)  # OBX-3 codes that OBR-26 names as parents
    sequence_numbers: Share = field(default_factory=Share)  # messages with a number in MSH-13
    second_unit: Share = field(default_factory=Share)  # OBX-6 with two components: how many have the unit in the second
    shared_numbers: Share = field(default_factory=Share)  # placer numbers: how many stand for several services
    strange: dict[str, Counter[str]] = field(default_factory=dict)  # place → values outside the standard's table
    fillers: dict[str, Counter[str]] = field(default_factory=dict)  # place → impossible times
    authorities: Counter[tuple[str, str]] = field(default_factory=Counter)  # PID-3.4.1, PID-3.5
    own_numbers: Counter[tuple[str, str]] = field(default_factory=Counter)  # those that are the patient's main number
    cards: Counter[tuple[str, str]] = field(default_factory=Counter)  # those that are valid identity card numbers
    known_cards: Counter[tuple[str, str]] = field(default_factory=Counter)  # and are read as such by their type
    identity_numbers: Share = field(default_factory=Share)  # PID-19: how many are valid identity card numbers
    prose_ranges: Counter[str] = field(default_factory=Counter)
    ranges: int = 0
    notes: Counter[str] = field(default_factory=Counter)  # segment before an NTE
    own_segments: Counter[str] = field(default_factory=Counter)  # Z-segments: in how many messages
    #: field of OBR → the values that may be accession numbers: to be held against images, never told
    order_numbers: dict[int, set[str]] = field(default_factory=dict)

    @property
    def facilities(self) -> Counter[str]:
        """MSH-4 → messages."""
        found: Counter[str] = Counter()
        for (facility, _), count in self.senders.items():
            found[facility] += count
        return found


def senders(raws: Iterable[bytes]) -> Counter[tuple[str, str]]:
    """MSH-4 and MSH-3 of messages, the unreadable left out."""
    found: Counter[tuple[str, str]] = Counter()
    for raw in raws:
        try:
            header = peek(raw)
        except GatewayError:
            continue
        found[header.sending_facility, header.sending_application] += 1
    return found


def read_habits(raws: list[bytes]) -> tuple[Habits, list[tuple[bytes, Message]]]:
    """The habits that one hospital's messages show, and the messages as read."""
    habits = Habits()
    habits.charset, habits.charset_reason = _charset(raws, habits)
    reader = _Reader(habits)
    read: list[tuple[bytes, Message]] = []
    for raw in raws:
        try:
            message = parse(raw, habits.charset or None)
        except GatewayError as error:
            habits.unreadable[f"{error.where}: {error.message}" if error.where else error.message] += 1
            continue
        read.append((raw, message))
        reader.add(message)
    reader.finish()
    return habits, read


def _charset(raws: list[bytes], habits: Habits) -> tuple[str, str]:
    """The manifest's ``charset``: only where MSH-18 is missing or wrong, and only one that reads every message."""
    wrong = unsaid = 0
    for raw in raws:
        try:
            declared = peek(raw).character_set
        except GatewayError:
            continue
        habits.declared[declared] += 1
        if raw.isascii():
            habits.codecs["ascii"] += 1
            continue
        try:
            codec = charset.decode(raw)[1]  # by the bytes alone
        except GatewayError:
            codec = charset.codec_for(declared) or "?"
        habits.codecs[codec] += 1
        if not declared:
            unsaid += codec != "utf-8"
        elif charset.codec_for(declared) != codec and not (codec == "utf-8" and _reads(raw, declared) == "utf-8"):
            wrong += 1
    wide = [codec for codec in habits.codecs if codec not in ("ascii", "?")]
    if not wrong and not unsaid:
        return "", ""
    if len(wide) != 1 or "?" in habits.codecs:
        return "", (f"{wrong + unsaid} messages are not in the character set that MSH-18 says, and the samples hold "
                    "several: ask the hospital")
    if not all(raw.isascii() or _reads_as(raw, wide[0]) for raw in raws):
        return "", f"most messages are {wide[0]}, but not all can be read so: ask the hospital"
    reason = f"MSH-18 is missing in {unsaid} messages" if unsaid else ""
    if wrong:
        reason += (" and " if reason else "MSH-18 is ") + f"wrong in {wrong}" + ("" if reason else " messages")
    return wide[0], reason


def _reads(raw: bytes, declared: str) -> str:
    try:
        return charset.decode(raw, declared=declared)[1]
    except GatewayError:
        return ""


def _reads_as(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


class _Reader:
    """Walks the messages and counts."""

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self._strange: dict[str, Told] = {}
        self._services: dict[tuple[str, str], set[str]] = {}

    def add(self, message: Message) -> None:
        """Count one message."""
        habits, header = self.habits, message.header
        habits.messages += 1
        habits.senders[header.sending_facility, header.sending_application] += 1
        habits.types[type_of(message)] += 1
        habits.versions[header.version_id or "(none)"] += 1
        habits.sequence_numbers.add(header.first(13).isdigit())
        self._offset(header.time)
        pid = message.first("PID")
        patient = (hash(pid.raw_field(3)) | 1) if pid else 1
        before = "MSH"
        for segment in message.segments:
            self._times(segment)
            self._tables(segment, patient, header.message_type[0] in ("ORU", "OUL"))
            if segment.name == "OBX":
                self._result(segment)
            elif segment.name == "PID":
                self._identifiers(segment)
            elif segment.name == "NTE":
                habits.notes[before] += 1
            if segment.name != "NTE":
                before = segment.name
        habits.own_segments.update({s.name for s in message.segments if s.name.startswith("Z")})
        self._orders(message)

    def _times(self, segment: Segment) -> None:
        for at in _TIMES.get(segment.name, ()):
            text = segment.get(at)
            if not text:
                continue
            self._offset(text)
            impossible = timestamps.as_of_us(text, "UTC") is None
            if impossible or is_filler(text):
                shown = text if is_filler(text) else _masked(text)
                self.habits.fillers.setdefault(f"{segment.name}-{at}", Counter())[shown] += 1

    def _offset(self, text: str) -> None:
        """A time of day counts with its offset or as one without."""
        if match := _OFFSET.search(text):
            self.habits.offsets[match[1]] += 1
        elif len(text) > 8:
            self.habits.offsets["none"] += 1

    def _tables(self, segment: Segment, patient: int, results: bool) -> None:
        for place, known in _KNOWN.items():
            name, _, at = place.partition("-")
            if name != segment.name:
                continue
            texts = [part.get(1) for part in segment.repetitions(int(at))]
            if not texts and "" in known and results and not (name == "OBX" and not segment.raw_field(5)):
                texts = [""]
            for text in texts:
                plain = text.upper() if place in _UPPER else text
                if plain not in known or not text:
                    self._strange.setdefault(place, Told()).add(text, patient)

    def _result(self, obx: Segment) -> None:
        habits, kind = self.habits, obx.get(2).upper()
        habits.value_types[kind or "(none)"] += 1
        value, units = obx.text(5).strip(), obx.first(6)
        number = compared(value) is not None
        if kind in ("ST", "TX", "FT", "NM"):
            habits.titres += bool(_TITRE.fullmatch(narrow(value)))
            if _COMMA.fullmatch(narrow(value)):
                habits.commas[len(value.rpartition(",")[2])] += 1
            habits.st_ranges += bool(units) and not number and None not in (limits_of(value, {}, {}) or (None,))
        if kind == "ST" and units and value:
            habits.st_numbers.add(number)
        elif kind == "NM" and value:
            habits.nm_texts.add(not number)
        if len(units) > 1 and units.get(2) and not (_TORN.match(units.get(1)) and units.get(2)[:1].isdigit()):
            habits.second_unit.add(ucum(units.get(2)) is not None and ucum(units.get(1)) is None)
        if limits := obx.text(7).strip():
            habits.ranges += 1
            parts = [part.text for part in obx.repetitions(7)]
            habits.double_ranges += len(parts) == 2 and all(limits_of(part, {}, {}) for part in parts)
            if ranges_of(limits, {}, {}) == [{"text": limits}]:
                habits.prose_ranges[_masked(limits)[:40]] += 1

    def _identifiers(self, pid: Segment) -> None:
        numbers = pid.repetitions(3)
        habits, series = self.habits, [(part.part(4).get(1), part.get(5)) for part in numbers]
        cards = [is_national(part.get(5), part.get(1)) for part in numbers]
        for part, name, card in zip(numbers, series, cards, strict=True):
            habits.authorities[name] += 1
            habits.known_cards[name] += card
            habits.cards[name] += bool(normalised(part.get(1)))
        main = next((name for name in series if name[1] in ("MR", "PI")),
                    next((name for name, card in zip(series, cards, strict=True) if not card), None))
        if main is not None:  # as `gateway.hl7v2.people` chooses it
            habits.own_numbers[main] += 1
        if number := pid.get(19):
            self.habits.identity_numbers.add(bool(normalised(number)))

    def _orders(self, message: Message) -> None:
        pid, orc = message.first("PID"), None
        patient = pid.get(3) if pid else ""
        for segment in message.segments:
            if segment.name == "ORC":
                orc = segment
                continue
            if segment.name != "OBR":
                continue
            if parent := code_text(segment.get(26)):
                self.habits.parents[parent] += 1
            for at in _ACCESSION_FIELDS:
                if value := segment.get(at):
                    self.habits.order_numbers.setdefault(at, set()).add(value)
            if number := segment.get(2) or (orc.get(2) if orc else ""):
                self._services.setdefault((patient, number), set()).add(local_code(segment, 4)[0])

    def finish(self) -> None:
        """Turn what was gathered into counts."""
        for services in self._services.values():
            self.habits.shared_numbers.add(len(services) > 1)
        for place, told in sorted(self._strange.items()):
            self.habits.strange[place] = told.counts(OBVIOUS.get(place, ()))


def is_filler(text: str) -> bool:
    """Whether a time is one that programs write for "unknown": it is nobody's."""
    return _FILLER.match(text) is not None


def _masked(text: str) -> str:
    """A text without its digits."""
    return re.sub(r"\d+", "9", text)
