"""Candidates of the catalogue for the rows of a hospital's menu. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MenuRow:
    """One row of a hospital's menu, as the hospital spells it; every text but ``local`` may be empty."""

    local: str
    display: str = ""
    unit: str = ""
    specimen: str = ""
    #: Names of other rows of the same order or panel, where known: a hint that decides between look-alikes.
    neighbours: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item (or, where asked for, a panel) that a row may be."""

    item: str
    score: float  # 0 to 1, three decimals: how often such a candidate was right on the tuning menus
    reasons: tuple[str, ...] = field(default=())  # sentences for the person who approves


def suggest(rows: Sequence[MenuRow], *, most: int = 3, panels: bool = False) -> list[list[Candidate]]:
    """For each row its candidates, best first; an empty list where nothing of the catalogue fits.

    ``panels``: also order panels (``P-CBC``), which ``codes.csv`` may name as well.
    """
    return [[] for _ in rows]
