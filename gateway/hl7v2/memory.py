"""What a hospital's messages repeat, read once: its tests, units, ranges, flags, states and times. Pure.

Each entry is a function of a field's raw text, of the delimiters and the character set, and of the Source, so that
nothing but time depends on whether it is remembered. Everything is bounded, and emptied when it is full. What is kept
is never handed out itself but copied into each resource: a hook may change a resource, and the next message must not
see it.
"""

from __future__ import annotations

from collections.abc import Hashable
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from gateway.hl7v2.message import Message
from gateway.source import Source

_MOST = 1024  # entries of a kind: a hospital takes some 8 MB at most
_MANY = 2  # times as many of what is small and varies more
_MOST_DIALECTS = 16  # delimiters and character sets that one hospital mixes
_LONGEST = 256  # characters of a field that is worth keeping

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Known(NamedTuple):
    """A code field, read: the concept, its code for ids, component 1 as sent, the text, whether it is mapped, and
    which part of a report it names (`sections`)."""

    concept: dict[str, Any]
    code: str
    sent: str
    text: str
    mapped: bool
    part: str = ""


class Said(NamedTuple):
    """An OBX, read, but for its value, its times and who took part: one look-up for what nearly every OBX repeats."""

    known: Known | None  # OBX-3; None: it says nothing
    sub_id: str  # OBX-4
    units: dict[str, str]  # OBX-6
    ranges: list[dict[str, Any]]  # OBX-7
    flag: str  # OBX-8 as sent
    flags: list[dict[str, Any]]
    nature: bool  # OBX-10 says something
    state: tuple[str, str] | None  # OBX-11; None: nobody knows it
    numeric: bool  # OBX-2 says that a plain number is one


#: The fields that ``Said`` is made of.
SAID = (2, 3, 4, 6, 7, 8, 10, 11)


class Memory:
    """What was read from one hospital's messages of one kind of delimiters and character set."""

    __slots__ = ("said", "concepts", "units", "ranges", "flags", "numbers", "coded", "states", "times")

    def __init__(self) -> None:
        self.said: dict[tuple[str, ...], Said] = {}  # by the fields SAID
        self.concepts: dict[tuple[int, str], Known] = {}  # number and text of the field
        self.units: dict[str, dict[str, str]] = {}
        self.ranges: dict[tuple[str, str], list[dict[str, Any]]] = {}  # OBX-7, OBX-6
        self.flags: dict[str, list[dict[str, Any]]] = {}
        self.numbers: dict[str, Decimal] = {}  # OBX-5 that is a plain number
        self.coded: dict[tuple[str, str], dict[str, Any]] = {}  # place and text
        self.states: dict[tuple[int, str], tuple[str, str]] = {}  # number and text → the table's and FHIR's
        self.times: dict[tuple[str, int, int, str], str] = {}  # segment, field, component, text


def memory_of(message: Message, source: Source) -> Memory:
    """The memory for this message's dialect."""
    dialects, dialect = source.memory, message.dialect
    found = dialects.get(dialect)
    if found is None:
        if len(dialects) >= _MOST_DIALECTS:
            dialects.clear()
        found = dialects[dialect] = Memory()
    return found


def keep(store: dict[_Key, _Value], key: _Key, raw: str, value: _Value, many: bool = False) -> _Value:
    """Remember a value, unless its field is long; gives it back. ``many``: of what is small and varies more."""
    if len(raw) <= _LONGEST:
        if len(store) >= _MOST * (_MANY if many else 1):
            store.clear()
        store[key] = value
    return value


def fresh(concept: dict[str, Any]) -> dict[str, Any]:
    """A copy of a CodeableConcept as deep as a resource may be changed."""
    made = concept.copy()
    if "coding" in made:
        made["coding"] = [*map(dict.copy, made["coding"])]
    return made


def fresh_ranges(ranges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy of an Observation's reference ranges."""
    made = [*map(dict.copy, ranges)]
    for one in made:
        for end in ("low", "high"):
            if end in one:
                one[end] = one[end].copy()
        if "type" in one:
            one["type"] = fresh(one["type"])
        if "appliesTo" in one:
            one["appliesTo"] = [fresh(concept) for concept in one["appliesTo"]]
        if "age" in one:
            one["age"] = {end: found.copy() for end, found in one["age"].items()}
    return made
