"""Why a message is refused: our own sentence, what hl7apy finds by the standard's structures, and what to do next.

hl7apy is a second, independent reader of the standard. It is slow and strict (a quarter of the public messages that are
read here pass it), so it is asked only here. Its findings are told by place; never with a value, which it quotes.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gateway import hl7v2
from gateway.adapter import Adapter, Adapters
from gateway.conformance import checked
from gateway.errors import Category, GatewayError
from gateway.onboarding.habits import read_habits

_MISSING = re.compile(r"Missing required child (\S+)\.(\S+)")
_EXCEEDED = re.compile(r"Child limit exceeded (\S+)\.(\S+)")
_TABLE = re.compile(r"Value .* not in table (\S+) in element (\S+?)\.(\S+)\Z", re.DOTALL)
_LENGTH = re.compile(r"Exceeded max length \((\d+)\) of (\S+?)\.(\S+)")
_TYPE = re.compile(r"Datatype (\S+) is not correct for (\S+?)\.(\S+) \(it must be (\S+)\)")
_FIELD = re.compile(r"([A-Z][A-Z0-9]{2})_(\d+)\Z")
_GROUP = re.compile(r"[A-Z]{3}_[A-Z]\d\d_")  # ORU_R01_ORDER_OBSERVATION
_COMPONENT = re.compile(r"[A-Z]+_(\d+)\Z")
_PATH = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[\d+\])?(?:-(\d+))?")
#: Tables that every hospital breaks and no reader minds: names of coding systems, countries, authorities.
_IDLE = {"HL70396", "HL70399", "HL70363", "HL70300", "HL70301"}
_VERSIONS = ("2.5.1", "2.8.2", "2.3.1")
_TIMES = re.compile(r"(?:MSH-7|EVN-[26]|PID-(?:7|29)|PV1-4[45]|ORC-(?:9|15)|OBR-(?:6|7|8|14|22|36)|OBX-(?:14|19)"
                    r"|SPM-1[78]|TXA-[467]|TQ1-[78])\b")


@dataclass(frozen=True, slots=True)
class Judgement:
    """One thing that hl7apy finds: where, what, and in how many segments of that name."""

    place: str
    sentence: str
    error: bool
    times: int = 1


@dataclass(frozen=True, slots=True)
class Explanation:
    """A refusal, explained."""

    category: str
    where: str
    sentence: str
    judgements: tuple[Judgement, ...]
    next_step: str

    def lines(self, most: int = 5) -> Iterator[str]:
        """For a terminal: ours, theirs at the same place first, what to do."""
        yield f"refused: {self.category} {self.where}".rstrip()
        yield f"  we say:  {self.sentence}"
        here, there = self.here
        if here:
            for judgement in here[:most]:
                yield f"  hl7apy:  {_said(judgement)}"
        elif self.where:
            yield f"  hl7apy:  finds no fault at {self.where}"
        if there:
            told = "; ".join(_said(j) for j in there[:most])
            yield f"           elsewhere: {told}" + (f"; and {len(there) - most} more" if len(there) > most else "")
        yield f"  next:    {self.next_step}"

    @property
    def here(self) -> tuple[list[Judgement], list[Judgement]]:
        """What hl7apy finds at the place of the refusal, and elsewhere; errors before warnings."""
        place = _plain_place(self.where)
        ordered = sorted(self.judgements, key=lambda j: not j.error)
        here = [j for j in ordered if not j.place or place and (
            j.place == place or j.place.startswith(f"{place}.") or j.place.partition("-")[0] == place)]
        return here, [j for j in ordered if j not in here and j.error]


def _said(judgement: Judgement) -> str:
    times = f" ({judgement.times} times)" if judgement.times > 1 else ""
    return f"{judgement.place}: {judgement.sentence}{times}" if judgement.place else judgement.sentence


def refusal(hospitals: Adapters, raw: bytes) -> GatewayError | None:
    """How a message would be refused, None when it is accepted; its hospital is found by MSH-4 as the gateway does."""
    try:
        header = hl7v2.peek(raw)
        adapter = hospitals.for_hl7(header.sending_facility, header.sending_application)
        checked(adapter.convert_hl7(adapter.parse(raw), header.sending_facility))
    except GatewayError as error:
        return error
    return None


def explain_any(hospitals: Adapters, raw: bytes) -> Explanation | None:
    """As `explain`, for a message of whichever hospital."""
    error = refusal(hospitals, raw)
    if error is None:
        return None
    try:
        header = hl7v2.peek(raw)
        adapter = hospitals.for_hl7(header.sending_facility, header.sending_application)
    except GatewayError:
        return _explanation(error, judge(_text(raw, None)), None)
    return _explanation(error, judge(_text(raw, adapter.source.charset)), adapter)


def values_at(hospitals: Adapters, raws: list[bytes], where: str) -> Counter[str]:
    """The values at a place of a small table that neither the standard nor the manifest knows; those that might be
    somebody's stay untold (`gateway.onboarding.habits`)."""
    place = _plain_place(where)
    try:
        header = hl7v2.peek(raws[0])
        known = hospitals.for_hl7(header.sending_facility, header.sending_application).source.tables.get(place, {})
    except GatewayError:
        return Counter()
    found = read_habits(raws)[0].strange.get(place, Counter())
    return Counter({value: count for value, count in found.items() if value not in known})


def explain(adapter: Adapter, raw: bytes) -> Explanation | None:
    """Why this hospital's message would be refused; None when it is accepted."""
    return explain_any(Adapters([dataclasses.replace(adapter, name="it")], "it"), raw)


def _explanation(error: GatewayError, judgements: list[Judgement], adapter: Adapter | None) -> Explanation:
    return Explanation(error.category.value, error.where, error.message, tuple(judgements), next_step(error, adapter))


def _text(raw: bytes, charset: str | None) -> str:
    """The message as hl7apy wants it: decoded, without framing, lines that end in CR."""
    try:
        message = hl7v2.parse(raw, charset)
    except GatewayError:
        text, _ = hl7v2.charset.lenient(raw)
        return "\r".join(line for line in text.replace("\n", "\r").split("\r") if line.strip("\x0b\x1c "))
    return "\r".join(segment.raw.replace("\n", " ") for segment in message.segments)


def next_step(error: GatewayError, adapter: Adapter | None = None) -> str:
    """What a person can do, chosen by category, detail and place."""
    where, place = error.where, _plain_place(error.where)
    if error.category is Category.FORBIDDEN:
        return "add the message's MSH-4 to [hl7v2] sending_facility of its hospital's manifest.toml"
    if error.category is Category.MALFORMED:
        if where == "MSH-18":
            return ("set [hl7v2] charset in manifest.toml to what the hospital really writes, or have the sender name "
                    "it in MSH-18")
        return f"tell the sender: nothing in this folder can mend what cannot be read at {where or 'its start'}"
    if error.category is Category.UNSUPPORTED:
        return ("have the sender's engine route this type elsewhere, or let it come: it is answered, kept aside, "
                "and changes nothing")
    if error.detail == "table-value" and place:
        return (f'ask the hospital what its value means, then add it to [hl7v2.tables."{place}"]: "its value" = "the '
                "standard's\"")
    if _TIMES.match(place):
        return (f'where it is the sender\'s filler for "unknown", add it to [hl7v2.tables."{place}"]: "00000000" = ""; '
                "else have the sender correct it")
    if error.detail == "required" and place and "-" not in place:
        return f"have the sender send segment {place}, in the order of the standard's structure"
    if error.detail == "required" and place:
        return (f"have the sender fill {place} ({field_name(place) or 'required'}); where another field of its "
                "messages holds it, move it in hooks.py: before(message)")
    if place:
        return (f"have the sender correct {place}; what is always wrong in the same way, hooks.py can put right: "
                "before(message)")
    hooks = " or mend hooks.py" if adapter is not None and adapter.after else ""
    return f"the resources of this message break a rule of FHIR at {where or 'an unknown place'}; report it{hooks}"


def _plain_place(where: str) -> str:
    """``OBX[7]-5.2`` → ``OBX-5``; "" for a path that is no place of a message."""
    match = _PATH.match(where)
    if not match or match.end() < len(where) and where[match.end()] not in ".[ ^":
        return ""
    return match[1] + (f"-{match[2]}" if match[2] else "")


@lru_cache(maxsize=4096)
def field_name(place: str) -> str:
    """The standard's name of a segment's field or component, "" where no version knows it."""
    from hl7apy import load_reference
    from hl7apy.exceptions import HL7apyException

    segment, _, rest = place.partition("-")
    at, _, component = rest.partition(".")
    for version in _VERSIONS:
        if not at:
            return ""
        try:
            reference = load_reference(f"{segment}_{at}", "Field", version)
            if component:
                reference = load_reference(f"{reference[2]}_{component}", "Component", version)
            return str(reference[3] or "").replace("_", " ").lower()
        except (HL7apyException, LookupError, TypeError):
            continue
    return ""


# -------------------------------------------------------------------------------------------------- hl7apy

def judge(text: str) -> list[Judgement]:
    """What hl7apy finds in a message, each place and sentence once."""
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.parser import parse_message

    try:
        message = parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=True)
    except Exception as error:  # it raises what it likes on odd input; the kind of error tells no value
        return [Judgement("", f"cannot read it at all ({type(error).__name__})", True)]
    found: dict[tuple[str, str, bool], int] = {}
    for element, segment in [(message, ""), *((s, s.name) for s in _segments(message))]:
        told = {judgement for line in _report(element)
                if (judgement := _judgement(line, str(message.version))) is not None
                and bool(segment) == bool(_FIELD_PLACE.match(judgement[0]))}
        for judgement in sorted(told):
            found[judgement] = found.get(judgement, 0) + 1
    for segment in _unknown(text, message):
        found[segment, f"no segment of version {message.version}, or not where {message.name} has it", True] = 1
    return [Judgement(*key, times) for key, times in found.items()]


_FIELD_PLACE = re.compile(r"[A-Z][A-Z0-9]{2}-\d")


def _segments(element: Any) -> Iterator[Any]:
    for child in element.children:
        if child.classname == "Segment":
            yield child
        elif child.classname == "Group":
            yield from _segments(child)


def _report(element: Any) -> list[str]:
    from hl7apy.validation import Validator

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report"
        with suppress(Exception):  # it raises the first of what the file lists, or fails over what it does not know
            Validator.validate(element, report_file=str(path))
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _judgement(line: str, version: str) -> tuple[str, str, bool] | None:
    """A line of hl7apy's report as place and sentence; None for what tells nothing."""
    kind, _, said = line.partition(": ")
    error = kind == "Error"
    if match := _MISSING.match(said):
        if "CHOICE" in match[1] or "RQDRQ1RXO" in match[1]:
            return None  # of a choice of segments it wants every one
        return _place(match[1], match[2]) or _GROUP.sub("", match[2]), f"version {version} requires it", error
    if match := _EXCEEDED.match(said):
        place = _place(match[1], match[2]) or _GROUP.sub("", match[2])
        return place, f"repeats more often than version {version} allows", error
    if match := _TABLE.match(said):
        if match[1] in _IDLE or not (place := _place(match[2], match[3])):
            return None
        return place, f"the value is not in table {match[1].removeprefix('HL7')}", error
    if match := _LENGTH.match(said):
        if not (place := _place(match[2], match[3])):
            return None
        return place, f"is longer than the {match[1]} characters of version {version}", error
    if match := _TYPE.match(said):
        place = _place(match[2], match[3])
        return None if match[1] == match[4] or not place else (place, f"is no {match[4]}", error)
    return None


def _place(parent: str, child: str) -> str:
    """``OBX.OBX_8`` → ``OBX-8``; ``OBX_3.CE_1`` → ``OBX-3.1``; "" for what lies elsewhere."""
    if (match := _FIELD.match(child)) and parent in (match[1], "None"):
        return f"{match[1]}-{match[2]}"
    if (outer := _FIELD.match(parent)) and (inner := _COMPONENT.match(child)):
        return f"{outer[1]}-{outer[2]}.{inner[1]}"
    return ""


def _unknown(text: str, message: Any) -> list[str]:
    """Segments that hl7apy left out because their place or name is none of the structure's, Z-segments aside."""
    kept = [segment.name for segment in _segments(message)]
    sent = [line[:3] for line in text.split("\r") if len(line) > 2]
    return sorted({name for name in sent if not name.startswith("Z") and sent.count(name) > kept.count(name)})
