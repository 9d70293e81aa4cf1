"""Columns of rows as PostgreSQL's binary arrays: many rows in one statement, and many statements in one round trip.

Form: number of dimensions, whether there are nulls, type of the elements, their number, first index; then of each
element its length (-1: null) and bytes. PostgreSQL's ``array_send`` defines it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.string import StrDumperUnknown

#: SQL type → (type of the element, of the array, struct format of fixed-size elements).
_KINDS: dict[str, tuple[int, int, str]] = {
    "int2": (21, 1005, "h"), "int4": (23, 1007, "i"), "int8": (20, 1016, "q"), "float8": (701, 1022, "d"),
    "text": (25, 1009, ""), "bytea": (17, 1001, ""),
}
_NULL = struct.pack("!i", -1)


class Array:
    """An encoded column; one class for each type, because psycopg chooses a dumper by class."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _Dumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> bytes:
        return obj.data


_CLASSES: dict[str, type[Array]] = {kind: type(f"Array_{kind}", (Array,), {"__slots__": ()}) for kind in _KINDS}
_DUMPERS = [(_CLASSES[kind], type(f"Dumper_{kind}", (_Dumper,), {"oid": oid})) for kind, (_, oid, _) in _KINDS.items()]


class _Text(StrDumperUnknown):
    """PostgreSQL's text has no NUL; FHIR's strings should have none (datatypes.html#string)."""

    def dump(self, obj: str) -> Any:
        return super().dump(clean(obj))


def clean(text: str) -> str:
    """The text with U+FFFD for NUL."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def register(connection: psycopg.Connection[Any]) -> None:
    """Let a connection send ``Array`` values, and texts with a NUL."""
    for kind, dumper in _DUMPERS:
        connection.adapters.register_dumper(kind, dumper)
    connection.adapters.register_dumper(str, _Text)


def encode(kind: str, values: Sequence[Any]) -> Array:
    """A column of int2, int4, int8, float8, text or bytea values, with None for null."""
    element, _, form = _KINDS[kind]
    count, nulls = len(values), None in values
    head = struct.pack("!iiIii", 1, nulls, element, count, 1)
    if not form:
        return _CLASSES[kind](head + b"".join(map(_variable, values)))
    size = struct.calcsize("!" + form)
    if nulls:
        one = struct.Struct("!i" + form)
        return _CLASSES[kind](head + b"".join(_NULL if v is None else one.pack(size, v) for v in values))
    pairs = chain.from_iterable(zip(repeat(size), values))
    return _CLASSES[kind](head + struct.pack("!" + ("i" + form) * count, *pairs))


def _variable(value: str | bytes | None) -> bytes:
    if value is None:
        return _NULL
    data = clean(value).encode() if isinstance(value, str) else value
    return len(data).to_bytes(4, "big") + data
