"""The words that the suggestions know: ``words.tsv`` (table, name, pattern) and ``synonyms.tsv`` (item, names).

Every table is a list in the order of the file: the first pattern that is found counts.
"""

from __future__ import annotations

import csv
import re
from functools import lru_cache
from importlib import resources


def pairs(table: str) -> list[tuple[str, str]]:
    """Name and text of each row of a table."""
    return [(row["name"], row["pattern"]) for row in _rows("words.tsv") if row["table"] == table]


def text(table: str, name: str = "") -> str:
    """The only text of a table, or that of a name."""
    return next(found for known, found in pairs(table) if known == name)


def patterns(table: str) -> list[tuple[str, re.Pattern[str]]]:
    """Name and pattern of each row of a table; the replacement and what it replaces in those of spellings."""
    return [(name, re.compile(pattern)) for name, pattern in pairs(table)]


def pattern(table: str, name: str = "") -> re.Pattern[str]:
    """The only pattern of a table, or that of a name."""
    return re.compile(text(table, name))


def synonyms() -> dict[str, list[str]]:
    """The names of each item beside the catalogue's own, the usual ones first."""
    return {row["item"]: row["names"].split(";") for row in _rows("synonyms.tsv")}


@lru_cache(maxsize=2)
def _rows(file: str) -> list[dict[str, str]]:
    text = resources.files("gateway.onboarding").joinpath(file).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
