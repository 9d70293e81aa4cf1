"""Candidates for an exam: modality, body part, contrast and view, read out of its name word by word. Pure.

Every word of the name must have been understood: what is left over is a part of the body or a technique that the
catalogue does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from pypinyin import lazy_pinyin

from gateway.onboarding import names, words
from gateway.terminology.catalogue import catalogue


def _alternatives(pattern: str) -> list[str]:
    depth, found = 0, [""]
    for character in pattern:
        depth += (character == "(") - (character == ")")
        if character == "|" and not depth:
            found.append("")
        else:
            found[-1] += character
    return found


def _whole(pattern: str) -> str:
    """A pattern whose alternatives in Latin letters are words of their own: ``cta`` is not in ``lactate``."""
    return "|".join(rf"(?<![a-z]){one}(?![a-z])" if re.match(r"[a-z]", one) else one
                    for one in _alternatives(pattern))


#: Modality, tried in this order.
_MODALITIES = [(name, _whole(pattern)) for name, pattern in words.pairs("modality")]
#: What is said beside the part of the body.
_BOTH, _PLAIN, _CONTRAST = (words.pattern("contrast", name) for name in ("first", "none", "both"))
_SPECIAL = [(name, _whole(pattern)) for name, pattern in words.pairs("special")]
_VIEWS = [(name, _whole(pattern)) for name, pattern in words.pairs("view")]
_FILLER = re.compile("|".join(sorted(_alternatives(words.text("filler", "exam")), key=len, reverse=True)))
#: The bare name of a section's modality, taken away last: its other names say more.
_SECTION = words.pattern("section")
#: Techniques whose name is that of a modality too.
_TECHNIQUES = ("cta", "ctpa", "ctu", "mrcp", "mrv", "dwi", "hr", "low")


@dataclass(frozen=True, slots=True)
class _Read:
    """What the words of an exam's name say."""

    modality: str
    part: str
    contrast: str  # none, both, "" where nothing is said
    special: str
    view: str
    left: str  # what nobody understood


def read(text: str) -> _Read | None:
    """The words of a name; None where no modality is named."""
    said = names.plain(text)
    modality, rest = _modality(said)
    if not modality:
        return None
    special = ""
    for name, pattern in _SPECIAL:
        rest, hit = _cut(rest, pattern)
        named = name in _TECHNIQUES and modality in ("CT", "MR") and re.search(pattern, said)
        if (hit or named) and (not special or name in ("mrv", "ctpa", "mrcp", "mp")):
            special = name
    plain_and = is_plain = enhanced = False
    if modality in ("CT", "MR"):
        rest, plain_and = _cut(rest, _BOTH)
        rest, is_plain = _cut(rest, _PLAIN)
        rest, enhanced = _cut(rest, _CONTRAST)
    plain_and = plain_and or enhanced
    view = ""
    for name, pattern in _VIEWS:
        if modality == "DX":
            rest, hit = _cut(rest, pattern)
            view = view or (name if hit else "")
    part, rest = _part(rest)
    rest = _FILLER.sub("", rest)
    if modality == "NM":
        rest = _FILLER.sub("", re.sub(_NUCLEAR, "", rest))
        special = "pet" if re.search(r"(?<![a-z])pet|正[电]?子", said) else ""
    return _Read(modality, part, "both" if plain_and else "none" if is_plain else "", special, view, rest)


_NUCLEAR = dict(_MODALITIES)["NM"]


#: Words of a modality that name the part of the body too.
_PARTS_OF_MODALITIES = {"胸片": " 胸 ", "cxr": " 胸 ", "axr": " 腹 ", "kub": " kub ",
                        "骨龄": " 骨龄 ", "bone age": " 骨龄 "}


def _modality(said: str) -> tuple[str, str]:
    for name, pattern in _MODALITIES:
        if re.search(pattern, said):
            if name in ("MR", "CT"):
                return name, _SECTION.sub(" ", said)
            return name, said if name == "NM" else re.sub(pattern, lambda m: _PARTS_OF_MODALITIES.get(m[0], " "), said)
    return "DX" if _OF_VIEW.search(said) else "", said


#: A view is one of a radiograph where no modality is named.
_OF_VIEW = words.pattern("modality-of-view", "DX")


def _cut(text: str, pattern: str | re.Pattern[str]) -> tuple[str, bool]:
    rest = re.sub(pattern, " ", text)
    return rest, rest != text


@lru_cache(maxsize=1)
def _part_words() -> list[tuple[re.Pattern[str], str, str]]:
    """Pattern, first letter and part of each word of the table ``body-part``, the longest word first."""
    found = sorted(((word, part) for part, text in words.pairs("body-part") for word in text.split()),
                   key=lambda pair: -len(pair[0]))
    return [(re.compile(rf"(?<![a-z]){re.escape(word)}(?![a-z])".replace(r"\-", "[- ]") if word.isascii()
                        else re.escape(word)), word[0], part) for word, part in found]


def _part(rest: str) -> tuple[str, str]:
    """The parts named, and what is left; several parts are joined where the catalogue has them together."""
    found: list[str] = []
    for pattern, initial, part in _part_words():
        if initial in rest and pattern.search(rest):
            rest = pattern.sub(" ", rest)
            if part not in found:
                found.append(part)
    return _joined(found), rest


_OTHER_DENSITOMETRY = words.pattern("other-densitometry")
#: What makes another exam of one, by modality.
_OTHERS = words.patterns("another-exam")


@lru_cache(maxsize=1)
def _sounds() -> dict[tuple[str, ...], tuple[str, ...]]:
    """The words of the body's parts by how they sound, those of two characters and more."""
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for word in (word for _, text in words.pairs("body-part") for word in text.split()):
        if len(word) > 1 and not word.isascii():
            sound = tuple(lazy_pinyin(word))
            found[sound] = (*found.get(sound, ()), word)
    return found


def _respelt(said: str) -> str:
    """The text with each part of the body spelt as it should be where it only sounds so."""
    sounds = _sounds()
    for size in (4, 3, 2):
        at = 0
        while at <= len(said) - size:
            piece = said[at:at + size]
            spelt = sounds.get(tuple(lazy_pinyin(piece)), ()) if all("一" <= c <= "鿿" for c in piece) else ()
            if spelt and piece not in spelt:
                said = said[:at] + spelt[0] + said[at + size:]
            at += size if spelt else 1
    return said


def _joined(found: list[str]) -> str:
    parts = set(found)
    if parts <= {"neck+", "nasopharynx", "neck"} and len(parts) > 1:
        return "neck+"
    if "pelvis" in parts and parts & {"abdomen", "belly", "abdomen+pelvis"} and len(parts) == 2:
        return "abdomen+pelvis"
    if "kidney" in parts and parts & {"abdomen", "belly"} and parts <= {"abdomen", "belly", "kidney", "liver"}:
        return "abdomen"  # an abdominal ultrasound looks at the kidneys too
    if parts == {"heart", "coronary-arteries"}:
        return "coronary-arteries"
    if parts == {"thyroid", "neck"}:
        return "thyroid"
    if parts == {"belly", "aorta"} or parts == {"chest", "aorta"}:
        return "aorta"
    if parts == {"chest", "pulmonary-arteries"}:
        return "pulmonary-arteries"
    if parts == {"head", "pituitary"} or parts == {"head", "internal-auditory-canal"}:
        return (parts - {"head"}).pop()
    if parts == {"abdomen", "liver"} or parts == {"belly", "abdomen"} or parts == {"belly", "liver"}:
        return "abdomen"
    if parts == {"belly", "urinary-tract"}:
        return "urinary-tract"
    if "hand-wrist" in parts and parts <= {"hand", "wrist", "hand-wrist", "whole-body"}:
        return "hand-wrist"
    if parts == {"kidney", "urinary-tract"}:
        return "urinary-tract"
    return found[0] if len(found) == 1 else "+".join(sorted(found)) if found else ""


def candidates(local: str, display: str) -> list[tuple[str, float, str]] | None:
    """Item, likeness and reason; None where the name is no exam's, so that a laboratory may look at it."""
    if named := _by_name().get(names.key(names.read(display or local).whole)):
        return [(named, 0.99, "the name of the item")]
    found = read(display or local)
    if found is not None and (found.left or not found.part):
        found = read(_respelt(names.plain(display or local))) or found
    if found is None:
        return None
    if any(other.search(names.plain(display or local)) for name, other in _OTHERS if name == found.modality):
        return [] if found.part else None
    if found.modality == "BD" and _OTHER_DENSITOMETRY.search(names.plain(display or local)):
        return []
    if found.left and found.modality != "BD":
        return [] if found.part or found.modality not in ("CT", "DX", "MG", "MR", "US") else None
    if not found.part and found.modality in ("CT", "MR", "US", "DX"):
        return [(item, likeness, why) for item, likeness, why in _without_part(found)] or None
    return [(item, likeness, f"read as {_words(found)}") for item, likeness in _matching(found)]


@lru_cache(maxsize=1)
def _by_name() -> dict[str, str]:
    """Item by the keys of its own names and of those that are not to be read word by word."""
    exams = [(item.code, item.name_zh, item.name_en) for item in catalogue().items.values() if item.domain == "exam"]
    usual = [(code, *text.split(";")) for code, text in words.pairs("exam-name")]
    return {names.key(names.read(name).whole): code for code, *known in (*exams, *usual) for name in known}


def _words(found: _Read) -> str:
    return " ".join(word for word in (found.modality, found.part, found.special, found.contrast, found.view) if word)


def _without_part(found: _Read) -> Iterable[tuple[str, float, str]]:
    if found.modality == "MR" and found.special == "mrcp":
        yield "EMR023F", 0.97, "MRCP"
    elif found.modality == "CT" and found.special in ("ctpa", "ctu"):
        yield ("ECT0350" if found.special == "ctpa" else "ECT0229"), 0.97, found.special.upper()
    elif found.modality == "CT" and found.special in ("hr", "low"):
        yield ("ECT013B" if found.special == "hr" else "ECT012D"), 0.9, "of the chest, where no part is named"


def _codes(table: str) -> dict[tuple[str, ...], str]:
    return {tuple("" if word == "-" else word for word in said.split()): code for code, said in words.pairs(table)}


#: What the catalogue's own modality, part and contrast do not tell apart: by modality, part and technique; by part and
#: view; by modality and part alone.
_BY_SPECIAL, _BY_VIEW, _ALONE = _codes("exam-of-technique"), _codes("exam-of-view"), _codes("exam-alone")
#: Where no view is named, the likelier first.
_VIEWS_BY_CHANCE = (("a", 0.75), ("al", 0.74), ("ao", 0.73), ("l", 0.72), ("o", 0.71), ("s", 0.7), ("u", 0.66),
                    ("oo", 0.5))


def _matching(found: _Read) -> Iterable[tuple[str, float]]:
    if found.modality == "DX":
        yield from _radiographs(found)
    elif found.modality in ("CT", "MR"):
        yield from _sections(found)
    elif found.modality == "NM" and found.special == "pet":
        if found.part in ("whole-body", ""):
            yield "ENM0011", 0.9
    elif found.modality == "NM" and found.part == "whole-body":
        yield "ENM0020", 0.9
    else:
        if code := _ALONE.get((found.modality, found.part if found.modality != "BD" else "")):
            yield code, 0.97


def _radiographs(found: _Read) -> Iterable[tuple[str, float]]:
    part = "bony-pelvis" if found.part == "pelvis" else found.part
    if part == "urinary-tract":
        yield "EDX004S", 0.97
    elif part in ("hand-wrist", "whole-spine", "nasal-bones", "ribs", "clavicle", "bony-pelvis") and not found.view:
        yield next((code, 0.95) for (known, _), code in _BY_VIEW.items() if known == part)
    elif code := _BY_VIEW.get((part, found.view)) or (_BY_VIEW.get((part, "ao")) if found.view == "al" else None):
        yield code, 0.97
    elif not found.view:
        for view, likeness in _VIEWS_BY_CHANCE:
            if code := _BY_VIEW.get((part, view)):
                yield code, likeness


def _sections(found: _Read) -> Iterable[tuple[str, float]]:
    """CT and MR by part and contrast; without a word about contrast it is plain more often than not."""
    if code := _BY_SPECIAL.get((found.modality, found.part, found.special)) if found.special else None:
        yield code, 0.97
        return
    if found.special and found.special not in ("low", "hr"):  # a lower dose and thinner slices are no other exam
        return
    if code := _BY_SPECIAL.get((found.modality, found.part, "")):
        yield code, 0.95
        return
    parts = _CT_PARTS.get((found.modality, found.part), (found.part,))
    table = _by_contrast()
    for order, part in enumerate(parts):
        for contrast, likeness in (((found.contrast, 0.98),) if found.contrast else (("none", 0.85), ("both", 0.6))):
            if code := table.get((found.modality, part, contrast)):
                yield code, likeness - 0.15 * order


#: A word that means another part, or one of several, by modality.
_CT_PARTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("MR", "head"): ("brain",), ("CT", "belly"): ("abdomen", "abdomen+pelvis"), ("MR", "belly"): ("abdomen",),
    ("CT", "neck+"): ("neck",), ("CT", "nasopharynx"): (), ("CT", "coronary-arteries"): ("coronary-arteries",),
    ("CT", "liver"): (), ("MR", "temporal-bone"): ("internal-auditory-canal",),
    ("MR", "neck+"): (), ("CT", "skull"): ("head",), ("MR", "thyroid"): (),
}


@lru_cache(maxsize=1)
def _by_contrast() -> dict[tuple[str, str, str], str]:
    """(modality, part, contrast) → item, of the sections that nothing else tells apart."""
    found: dict[tuple[str, str, str], str] = {}
    special = set(_BY_SPECIAL.values())
    for item in catalogue().items.values():
        if item.domain == "exam" and item.modality in ("CT", "MR") and item.code not in special:
            found[item.modality, item.body_site, item.contrast] = item.code
    for item in (catalogue().items[code] for code in ("ECT0333", "ECT0341", "ECT0350")):  # nobody takes them plain
        for contrast in ("none", "both"):
            found[item.modality, item.body_site, contrast] = item.code
    return found
