"""Candidates of the catalogue for the rows of a hospital's menu. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.onboarding import exams, laboratory, names, words
from gateway.terminology.catalogue import catalogue

#: A candidate that is less likely than this is none.
_LEAST = 0.5
#: A lower one of several is left out when it is so much less likely than the first.
_SPREAD = 0.45
#: What is paid for and no test: a name with one of these words is looked at no further.
_NO_TEST = words.pattern("no-test")


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
    score: float  # 0 to 1, three decimals: by how the name was found, unit and specimen; README.md has what it is worth
    reasons: tuple[str, ...] = field(default=())  # sentences for the person who approves


def suggest(rows: Sequence[MenuRow], *, most: int = 3, panels: bool = False) -> list[list[Candidate]]:
    """For each row its candidates, best first; an empty list where nothing of the catalogue fits.

    ``panels``: also order panels (``P-CBC``), which ``codes.csv`` may name as well.
    """
    return [_best(_candidates(row, panels), most) for row in rows]


def _best(found: list[Candidate], most: int) -> list[Candidate]:
    """The likeliest, without those far behind; two that are alike share the likelihood."""
    found = sorted((one for one in found if one.score >= _LEAST), key=lambda one: (-one.score, one.item))
    found = [one for one in found if one.score > found[0].score - _SPREAD][:most]
    if len(found) > 1 and found[0].score - found[1].score < 0.05:
        found = [Candidate(one.item, round(one.score * 0.8, 3), one.reasons) for one in found]
    return found


def _candidates(row: MenuRow, panels: bool) -> list[Candidate]:
    said = names.plain(row.display or row.local)
    if _NO_TEST.search(said):
        return []
    found = exams.candidates(row.local, row.display)
    if found:
        return [Candidate(item, round(likeness, 3), (why,)) for item, likeness, why in found]
    if found is not None and not _LABORATORY.search(said):
        return []
    return [*_tests(row), *(_panels(row) if panels else ())]


#: Words that an exam's name never has: the abbreviation in it was a test's (``CT``: calcitonin).
_LABORATORY = re.compile(r"抗体|抗原|素|酶|蛋白|核酸|dna|rna|igg|igm|iga|\bct[- ]?(?:dna|rna)|antibod|antigen")


#: What menus often list under the name of another item: that item, and these.
_ALSO = {name: tuple(text.split()) for name, text in words.pairs("listed-as")}
_ALSO_LIKELY = 0.65


def _tests(row: MenuRow) -> Iterable[Candidate]:
    found = {one.item: one for one in laboratory.named(row.local, row.display)}
    for one in [*found.values()]:
        named = catalogue().items[one.item]
        if not laboratory.is_another(row.display, row.unit, named):
            how = f"{named.name_en} is named, under which it is often listed"
            for also in _ALSO.get(one.item, ()):
                found.setdefault(also, laboratory.Found(also, one.likeness * _ALSO_LIKELY, how))
    for one in found.values():
        item = catalogue().items[one.item]
        likeness, reasons = laboratory.judged(one, item, row.unit, row.specimen, row.display)
        if likeness:
            likeness += _beside(item.panels, row)
            yield Candidate(one.item, round(min(0.999, max(0.0, likeness)), 3), tuple(reasons))


def _beside(panels: tuple[str, ...], row: MenuRow) -> float:
    """A little for an item whose panel holds what stands beside it."""
    if not row.neighbours or not panels:
        return 0.0
    members = {member for panel in panels for member in catalogue().members(panel)}
    near = sum(any(one.item in members for one in laboratory.named("", name)) for name in row.neighbours[:40])
    return 0.03 * near / min(len(row.neighbours), 40)


def _panels(row: MenuRow) -> Iterable[Candidate]:
    text = names.key(names.read(row.display).outer) if row.display else ""
    for panel in catalogue().panels.values():
        spoken = {names.key(names.read(name).outer) for name in (panel.name_zh, panel.name_en)}
        if text and text in spoken:
            yield Candidate(panel.code, 0.95, ("the name of the panel",))
