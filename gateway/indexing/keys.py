"""Keys of index rows: stable hashes of what a search parameter and a value say. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import xxhash

from gateway.terminology.systems import ITEMS, LOINC, PANELS

_HASH = xxhash.xxh3_64_intdigest

#: Systems of a coding that may be indexed as one token with LOINC's behind it.
UNIFIED = frozenset((ITEMS, PANELS))
#: Systems whose codings are found by the dictionary, since they may be one of such a pair.
PAIRED = UNIFIED | {LOINC}
#: Stand-ins for a token's system that no URI can be: rows that answer a modifier.
TEXT = "\x01text"  # the concept's text, where no coding's display says the same
SYSTEM = "\x01system"  # ``identifier=system|``
OF_TYPE = "\x01of-type"  # ``identifier:of-type=system|code|value``
IDENTIFIER = "\x01identifier"  # Reference.identifier, for ``:identifier``


def signed64(text: str) -> int:
    """XXH3 of a text as a signed 64-bit number, which is what a database holds."""
    value = _HASH(text.encode())
    return value - (1 << 64) if value >> 63 else value


@lru_cache(maxsize=4096)
def type_key(resource_type: str) -> int:
    """A resource type as a number below 2**23 (three bytes in SQLite)."""
    return _HASH(resource_type.encode()) >> 41


@lru_cache(maxsize=16384)
def param_key(resource_type: str, name: str) -> int:
    """A search parameter of a type as a number below 2**23; a test shows that no two of the table are equal."""
    return _HASH(f"{resource_type}\0{name}".encode()) >> 41


#: ``idx_term.param`` of units.
UNITS = param_key("", "unit")


def token_key(resource_type: str, name: str, system: str, code: str) -> int:
    """``idx_token.key`` of a coding, an identifier, a code or a URI (system empty where there is none)."""
    return signed64(f"{resource_type}\0{name}\0{system}\0{code}")


def number_key(resource_type: str, name: str, system: str, text: str, number: str) -> int:
    """``idx_token.key`` of what is said of an identifier's value: 24 bits of the value, then 40 of all.

    An order's number stands in several resources and in two ways in each: so they are neighbours in the index.
    """
    value = _HASH(number.encode()) >> 40 << 40 | _HASH(f"{resource_type}\0{name}\0{system}\0{text}".encode()) >> 24
    return value - (1 << 64) if value >> 63 else value


@lru_cache(maxsize=4096)  # a result is named by itself, its report and the Provenance, one soon after the other
def reference_key(reference: str) -> int:
    """``idx_reference.target`` and ``idx_resource.ref`` of ``Type/id`` or of an absolute URL, without version.

    For ids that are UUIDs it begins with the id's first 24 bits, so that resources whose ids are neighbours (those of
    one report) are neighbours in the index too; the other 40 bits are a hash of all.
    """
    start = reference.find("/") + 1
    if len(reference) - start == 36 and reference[start + 8] == "-":
        try:
            value = int(reference[start:start + 6], 16) << 40 | _HASH(reference.encode()) >> 24
        except ValueError:
            return signed64(reference)
        return value - (1 << 64) if value >> 63 else value
    return signed64(reference)


def unit_key(system: str, code: str, unit: str) -> int:
    """``idx_quantity.unit``: 47 bits, so that SQLite keeps it in six bytes."""
    return _HASH(f"{system}\0{code}\0{unit}".encode()) >> 17


def reference_target(reference: Any) -> str:
    """``Type/id`` or the absolute URL that a Reference names, without version; empty for contained or absent ones."""
    text = reference.get("reference") if type(reference) is dict else None
    return target_of(text) if type(text) is str else ""


def target_of(text: str) -> str:
    """`reference_target` of what ``Reference.reference`` says."""
    if text[:1] == "#":
        return ""
    cut = text.find("/_history/")
    return text if cut < 0 else text[:cut]
