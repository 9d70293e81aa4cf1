"""What unit and specimen of a menu's row say about the item that it may be. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from gateway.onboarding import words
from gateway.onboarding.names import plain

#: Kinds of quantity, and pairs of them that no hospital reports for the same test.
_KINDS = words.patterns("unit")
_APART = {frozenset(pair) for pair in words.pairs("apart")}
_SPECIMENS = words.patterns("specimen")
#: Which specimens of a row an item's specimen may be.
_FITS = {"blood": {"blood"}, "urine": {"urine", "urine24"}, "urine24": {"urine", "urine24"}, "stool": {"stool"},
         "sputum": {"sputum", "swab", "fluid"}, "swab": {"swab", "sputum"}, "breath": {"breath"},
         "cervix": {"cervix", "genital", "swab"}, "genital": {"genital", "cervix", "swab", "urine", "semen"}, "": set()}
#: Found in a name, these are no filler: the name is of another specimen than blood.
_OF_THE_NAME = words.pattern("specimen-of-name")


@lru_cache(maxsize=4096)
def unit_kind(unit: str) -> str:
    """What kind of quantity a unit is of; "" for none, "other" for one that is not known."""
    text = plain(unit).replace(" ", "").replace("×", "*").replace("µ", "u").replace("微", "u")
    if text in ("", "-", "/", "无", "none", "n/a", "null"):
        return ""
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(text)), "other")


def units_apart(one: str, other: str) -> bool:
    """Whether no hospital reports one test in both units."""
    kinds = frozenset((unit_kind(one), unit_kind(other)))
    return kinds in _APART


@lru_cache(maxsize=65536)
def size_of(unit: str) -> float:
    """The power of ten of a concentration's unit, per litre; 99 where none can be told."""
    text = plain(unit).replace(" ", "").replace("µ", "u")
    text = re.sub(r"\{[^}]*\}|[\[\]]", "", text)
    found = re.fullmatch(r"([munpk]?)(g|mol|iu|u|au|arb'u|ru)/([dmu]?)l", text)
    if not found:
        return 99
    powers = {"": 0, "m": -3, "u": -6, "n": -9, "p": -12, "k": 3, "d": -1}
    return powers[found[1]] - powers[found[3]]


@lru_cache(maxsize=65536)
def specimen_kind(text: str) -> str:
    """The kind of specimen that a text names; "" where it names none."""
    said = plain(text)
    return next((name for name, pattern in _SPECIMENS if pattern.search(said)), "") if said else ""


def specimen_of_name(text: str) -> str:
    """The specimen that a test's own name tells, where that is none of the catalogue's usual ones."""
    found = _OF_THE_NAME.search(text)
    return specimen_kind(found[0]) if found else ""


def specimens_apart(row: str, item: str) -> bool:
    """Whether a row's kind of specimen cannot be the item's."""
    return bool(row) and bool(item) and row not in _FITS.get(item, {item})
