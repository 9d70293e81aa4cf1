"""Candidates for a laboratory test: by every name that an item is known to have, then by unit and specimen. Pure.

A row's name must be a name of the item, spelt in whatever way; it is not enough that it holds one, for what it holds
beside makes it another test (creatinine clearance, prealbumin). Slips of one or two characters are forgiven where they
cannot turn one test into another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from pypinyin import Style, lazy_pinyin
from rapidfuzz import fuzz, process
from rapidfuzz.distance import Levenshtein

from gateway.onboarding import measures, names, words
from gateway.terminology.catalogue import Item, catalogue

#: Characters that make another test: a slip of the pen may touch any other.
_TELLING = frozenset(words.text("telling"))
#: Words of a test's name that tell no test from another, as they stand in the table and as `names.words` spells them.
_NEUTRAL = frozenset((*words.text("neutral").split(),
                      *(word for word in names.words(words.text("neutral")) if len(word) > 1)))


@dataclass(frozen=True, slots=True)
class Found:
    """An item and how well the name says it, 0 to 1."""

    item: str
    likeness: float
    how: str


@dataclass(slots=True)
class _Index:
    """Every spelling of every test."""

    exact: dict[str, dict[str, int]] = field(default_factory=dict)  # key → item → place among its names
    bare: dict[str, dict[str, int]] = field(default_factory=dict)
    pinyin: dict[str, set[str]] = field(default_factory=dict)
    initials: dict[str, set[str]] = field(default_factory=dict)
    spellings: dict[str, set[str]] = field(default_factory=dict)  # plain text → items
    kinds: dict[str, str] = field(default_factory=dict)  # item → kind of specimen
    words: dict[str, set[frozenset[str]]] = field(default_factory=dict)  # item → the words of each of its names
    by_word: dict[str, set[str]] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _index() -> _Index:
    index = _Index()
    synonyms = words.synonyms()
    for item in catalogue().items.values():
        if item.domain != "test":
            continue
        kind = measures.specimen_kind(item.specimen)
        index.kinds[item.code] = kind
        known = dict.fromkeys([item.name_zh, item.name_en, names.read(item.name_zh).outer, *synonyms[item.code]])
        for place, name in enumerate(known):
            if not names.is_method(name) or len(name) > 3:
                _learn(index, item.code, name, place)
        if item.code in _AUTOANTIBODIES:
            for name in {_OF_ANTIBODY.sub(" ", names.plain(name)).strip(" -") for name in known} - {""}:
                for spelt in (f"anti {name}", f"{name} antibody", f"anti {name} antibody", f"{name} igg"):
                    index.exact.setdefault(names.key(spelt), {}).setdefault(item.code, 40)
        if item.code.startswith("TMB"):
            for name in {_OF_NUCLEIC_ACID.sub(" ", names.plain(name)).strip(" -") for name in known} - {""}:
                for spelt in (f"{name} 核酸", f"{name}核酸", f"{name} pcr", f"{name}pcr", f"{name}dna", f"{name}rna"):
                    index.exact.setdefault(names.key(spelt), {}).setdefault(item.code, 40)
    return index


#: Tests of nucleic acid, which menus name by microbe and any word for it.
_OF_NUCLEIC_ACID = re.compile(r"核酸|定量|脱氧|核糖|\b(?:[dr]na|pcr|naat|nucleic acid|quantitative)\b|"
                              r"(?<=[一-鿿])[dr]na")


#: Tests of antibodies, which menus name by antigen and any word for antibody; the isotype is G where none is said.
_AUTOANTIBODIES = frozenset(words.text("autoantibody").split())
_OF_ANTIBODY = re.compile(r"^抗|抗体(?:igg)?$|\b(?:anti|antibod(?:y|ies)|ab|igg)\b")


def _learn(index: _Index, item: str, name: str, place: int) -> None:
    said = names.plain(name)
    whole = names.read(name).whole
    if found := names.key(whole):
        index.exact.setdefault(found, {}).setdefault(item, place)
    if found := names.bare_key(whole):
        index.bare.setdefault(found, {}).setdefault(item, place)
    index.spellings.setdefault(said, set()).add(item)
    if known := frozenset(names.words(whole)) - _NEUTRAL:
        index.words.setdefault(item, set()).add(known)
        for word in known:
            index.by_word.setdefault(word, set()).add(item)
    if _chinese(said) >= 2:
        index.pinyin.setdefault("".join(lazy_pinyin(said)), set()).add(item)
        index.initials.setdefault("".join(lazy_pinyin(said, style=Style.FIRST_LETTER)), set()).add(item)


def _chinese(text: str) -> int:
    return sum("一" <= c <= "鿿" for c in text)


def named(local: str, display: str) -> list[Found]:
    """The tests that a row's name may mean, before unit and specimen are looked at."""
    found: dict[str, Found] = {}
    for one in _by_name(display, local) if display else _by_code(local):
        if one.item not in found or found[one.item].likeness < one.likeness:
            found[one.item] = one
    return list(found.values())


_SERIES = words.text("panel-series")
#: A panel's name before a test's, and the kind of specimen that it tells.
_PANELS = [(kind, re.compile(rf"[\[【(]?{known.pattern}{_SERIES}[^\s\-:/_—|()a-z]{{0,4}}"
                             r"(?:\s*[-:_—|/>·\]】]+\s*|\s*[(](?=[^()]+(?:[(][^()]*[)])?[)]$)|\s+)(?=\S)"))
           for kind, known in words.patterns("panel")]
#: The same behind it.
_PANELS_BEHIND = [(kind, re.compile(rf"\s*(?:[-|/,]\s*|[(]){known.pattern}{_SERIES}[)]?$"))
                  for kind, known in words.patterns("panel")]


def without_panel(text: str) -> tuple[str, str]:
    """A plain name without the panel that stands beside it, and the kind of specimen that the panel tells."""
    for kind, panel in _PANELS:
        if not (found := panel.match(text)):
            continue
        rest = text[found.end():]
        if rest.endswith(")") and rest.count("(") < rest.count(")"):
            rest = rest[:-1]
        if text.isascii() and re.search("[a-z] $", found[0]) and not (len(rest) > 1 and _known(rest)):
            continue  # words of one name
        rest, further = without_panel(rest)
        return rest, kind or further
    for kind, panel in _PANELS_BEHIND:
        if (found := panel.search(text)) and _known(text[:found.start()]):
            return text[:found.start()], kind
    if found := _HEADING.match(text):
        heading, rest = text[:found.start(1)], found[1]
        if not measures.specimen_of_name(heading) and _known(rest):
            return rest, measures.specimen_kind(_excreta(heading))
    return text, ""


#: A heading of the menu's own before a dash or a colon.
_HEADING = re.compile(r"(?:[\[【][^\[\]【】]{1,20}[\]】]\s*|"
                      r"[^\[\]【】:]{2,30}?(?:\s*(?:[|·>]|:(?!(?<=[a-z]:)[a-z]))\s*|\s+-\s*|(?<=[一-鿿])-))(\S.*)")


def _known(text: str) -> bool:
    outer = names.read(text).outer
    return bool(list(_exactly(text, 1.0, "")) or list(_exactly(outer, 1.0, "")) or _split(outer) or _covered(outer))


def _by_name(display: str, local: str) -> Iterable[Found]:
    name = names.read(display)
    if not list(_exactly(name.whole, 1.0, "")) and not list(_exactly(name.outer, 1.0, "")):
        name = names.read(without_panel(names.plain(display))[0])
    if found := _read(name, local):
        return found
    for specimen in _OF_SPECIMEN:
        if (said := specimen.search(name.whole)) and len(bare := specimen.sub("", name.whole)) > 1:
            kind = measures.specimen_kind(said[0])
            return [one for one in _read(names.read(bare), local)
                    if not measures.specimens_apart(kind, _index().kinds[one.item])]
    return []


_OF_SPECIMEN = tuple(words.pattern("of-specimen", place) for place in ("first", "last"))


def _read(name: names.Name, local: str) -> list[Found]:
    """The tests that a name without its panel may mean."""
    if found := list(_exactly(name.whole, 1.0, "a name of the item")):
        return found
    inner = [part for part in name.inner if not names.is_method(part) or list(_exactly(part, 1.0, ""))]
    outer = list(_exactly(name.outer, 0.97, "a name of the item")) if name.inner else []
    if outer:
        return _agreeing(outer, inner, name.outer)
    if split := _split(name.outer) or _covered(name.whole) or _covered(name.outer):
        return _agreeing(split, inner, name.outer)
    if slips := _slips(name.outer):
        return _agreeing(slips, inner, name.outer)
    for part in inner:  # the abbreviation is known, and the name is like one of the item's
        near = list(_exactly(part, 0.8, "an abbreviation of the item"))
        if near := [one for one in near if _alike(name.outer, one.item) > 55]:
            return near
    return [Found(one.item, 0.72, "the local code is an abbreviation of the item") for one in _by_code(local)
            if _alike(name.outer, one.item) > 60]


def _exactly(text: str, likeness: float, how: str) -> Iterable[Found]:
    index = _index()
    hits = index.exact.get(names.key(text))
    if hits is None:
        hits, likeness = index.bare.get(names.bare_key(text)), likeness * 0.97
    for item, place in (hits or {}).items():
        yield Found(item, likeness - min(place, 40) * 0.0005, how)


_TELLING_INNER = words.pattern("telling-inner")


def _agreeing(found: list[Found], inner: list[str], outer: str) -> list[Found]:
    """Of several, those that what stands in parentheses means too; something unknown there makes all less likely."""
    for part in inner:
        said = {one.item: one for one in _exactly(part, 0.85, "what stands in parentheses is a name of the item")}
        if both := [one for one in found if one.item in said]:
            return both
        if said and len(part) > 2 and not re.fullmatch(r"ig[gamed]", part) and \
                not any(_chinese(known) > 2 and known in outer for item in said for known in _spellings_of(item)):
            return [*said.values(), *(Found(one.item, one.likeness * 0.8, one.how) for one in found)]
        if said or measures.specimen_kind(part):
            continue
        if telling := _TELLING_INNER.search(part):  # what it says beside makes it another test
            found = [one for one in found if telling[0] in names.plain(catalogue().items[one.item].name_zh)]
        found = [Found(one.item, one.likeness * 0.9, one.how) for one in found]
    return found


def _split(text: str) -> list[Found]:
    """A name and an abbreviation side by side (``谷丙转氨酶 ALT``): both must mean one item."""
    for chinese, latin in _sides(text):
        left = {one.item: one for one in _exactly(chinese, 0.97, "name and abbreviation of the item")}
        right = {one.item for one in _exactly(latin, 1.0, "")}
        if both := [one for item, one in left.items() if item in right]:
            return both
        if left and (names.is_method(latin) or _alike(latin, next(iter(left))) > 70):
            return list(left.values())
        if not left and len(right) == 1 and len(chinese) > 2 and _is_part(chinese, *right):
            return [Found(item, 0.8, "an abbreviation of the item, behind a part of its name") for item in right]
        if not left and (near := [item for item in right if _nearly(chinese, item)]):
            return [Found(item, 0.75, "an abbreviation of the item, beside a name like its own") for item in near]
    return []


def _nearly(text: str, item: str) -> bool:
    """Whether a name is like one of the item's and holds nothing that tells another test."""
    if _chinese(text) < 3:
        return False
    own = set().union(*_spellings_of(item))
    strange = any((c in _TELLING or c.isascii() and c.isalnum()) and c not in own for c in text)
    return not strange and _alike(text, item) > 55


def _covered(text: str) -> list[Found]:
    """A name of several names (``Hepatitis B Surface Antigen HBsAg``): each word is one of the same item's, or says
    nothing."""
    spoken = names.words(text)
    said = frozenset(piece for word in spoken for piece in _pieces(word)) - _NEUTRAL
    if not said or len(said) < 2 and said == frozenset(spoken):
        return []
    index = _index()
    found = []
    for item in set().union(*(index.by_word.get(word, ()) for word in said)):
        explained = frozenset[str]().union(*(known for known in index.words[item] if known <= said))
        if explained == said:
            found.append(Found(item, 0.93, "names of the item"))
    return found


@lru_cache(maxsize=65536)
def _pieces(word: str) -> tuple[str, ...]:
    """A run of Chinese characters as the fewest words of names and neutral ones; itself where some of it is neither."""
    if len(word) < 3 or word.isascii() or word in _NEUTRAL or word in _index().by_word:
        return (word,)
    best: list[tuple[str, ...] | None] = [()]
    for end in range(1, len(word) + 1):
        ways = [(*before, word[start:end]) for start, before in enumerate(best) if before is not None
                and (word[start:end] in _NEUTRAL or end - start > 1 and word[start:end] in _index().by_word)]
        best.append(min(ways, key=len, default=None))
    return best[-1] or (word,)


def _is_part(chinese: str, item: str) -> bool:
    return any(chinese in spelling for spelling in _spellings_of(item))


_BEHIND = re.compile(r"(.*[一-鿿][^\s]*?)[\s\-_/:,]+([a-z][a-z0-9 .\-/+%#']*)")
_BEFORE = re.compile(r"([a-z][a-z0-9 .\-/+%#']*)[\s\-_/:,]+(.*[一-鿿].*)")


def _sides(text: str) -> Iterable[tuple[str, str]]:
    """A name and what stands behind or before it in Latin letters, apart by a blank or a dash; else letters apart."""
    if found := _BEHIND.fullmatch(text):
        yield found[1], found[2]
    if found := _BEFORE.fullmatch(text):
        yield found[2], found[1]
    chinese = "".join(c for c in text if "一" <= c <= "鿿")
    latin = " ".join("".join(c if c.isascii() else " " for c in text).split()).strip(" -_/.:")
    if chinese and latin:
        yield chinese, latin


def _slips(text: str) -> list[Found]:
    index = _index()
    for spoken in dict.fromkeys((text, "".join(w for w in names.words(text) if w not in _NEUTRAL))):
        spoken = spoken.removesuffix("定量").removesuffix("定性")
        if _chinese(spoken) >= 2 and (same := index.pinyin.get("".join(lazy_pinyin(spoken)))):
            likely = 0.86 if _chinese(spoken) > 2 else 0.51  # two characters: only where the unit agrees
            return [Found(item, likely, "sounds like a name of the item") for item in same]
    found = []
    for spelling, likeness, _ in process.extract(text, index.spellings.keys(), scorer=fuzz.ratio, limit=6,
                                                 score_cutoff=78):
        if _is_slip(text, spelling):
            found += [Found(item, likeness / 100 * 0.88, "nearly a name of the item")
                      for item in index.spellings[spelling]]
    return found


def _is_slip(text: str, spelling: str) -> bool:
    """Whether one is the other but for a slip: one character in four, none that tells tests apart."""
    edits = Levenshtein.editops(text, spelling)
    longer = max(len(text), len(spelling))
    if len(edits) > (longer // 4 if _chinese(text) else longer // 7):
        return False
    for edit in edits:
        touched = (text[edit.src_pos] if edit.tag != "insert" else "") + \
            (spelling[edit.dest_pos] if edit.tag != "delete" else "")
        if any(c in _TELLING or c.isdigit() or (c.isascii() and _chinese(text)) for c in touched):
            return False
        if not _chinese(text) and (not touched.isalpha() or len(_word_at(text, edit.src_pos)) < 6):
            return False
    return bool(edits)


def _word_at(text: str, at: int) -> str:
    """The word around a place: a short one is an abbreviation, of which every letter counts."""
    return re.split(r"[^a-z]", text[:at])[-1] + re.split(r"[^a-z]", text[at:])[0]


def _alike(text: str, item: str) -> float:
    """How like a text is to the nearest name of an item, 0 to 100."""
    return max((fuzz.ratio(text, spelling) for spelling in _spellings_of(item) if _chinese(spelling) or text.isascii()),
               default=0)


@lru_cache(maxsize=512)
def _spellings_of(item: str) -> tuple[str, ...]:
    return tuple(spelling for spelling, items in _index().spellings.items() if item in items)


def _by_code(local: str) -> list[Found]:
    """A row without a name, or whose name is not known: its code may be an abbreviation or the initials of a name."""
    text = names.plain(local)
    if len(text) < 2 or not any(c.isalpha() for c in text):
        return []
    if found := list(_exactly(text, 0.8, "the local code is an abbreviation of the item")):
        return found
    same = _index().initials.get(text, set()) if len(text) >= 4 else set()
    return [Found(item, 0.7, "the local code is the initials of the item's name") for item in same if len(same) == 1]


def judged(one: Found, item: Item, unit: str, specimen: str, display: str) -> tuple[float, list[str]]:
    """How likely the item is once unit and specimen have spoken (0: it cannot be), and what they said."""
    reasons = [one.how]
    mine = _index().kinds[item.code]
    told = measures.specimen_of_name(names.plain(display)) or measures.specimen_kind(specimen) \
        or measures.specimen_kind(_excreta(names.plain(display))) or without_panel(names.plain(display))[1]
    if measures.specimens_apart(told, mine) or is_another(display, unit, item) or _impossible(unit, item):
        return 0.0, reasons
    likeness = one.likeness
    if told:
        reasons.append("specimen agrees")
        if _finer(specimen, item.specimen) < 0:
            likeness -= 0.03
    elif mine not in ("blood", ""):
        likeness -= 0.12  # a row that says nothing is of blood more often than not
    return max(0.01, likeness + _by_unit(unit, item, reasons)), reasons


_EXCRETA = words.pattern("excreta")


def _excreta(text: str) -> str:
    found = _EXCRETA.search(text)
    return found[0] if found else ""


#: Trace elements, which whole blood holds in other amounts than serum.
_SERUM_ONLY = frozenset(words.text("serum-only").split())
_OTHER_TIME, _BY_EYE, _BY_CHEMISTRY, _BY_NUCLEIC_ACID = (
    words.pattern(table) for table in ("other-time", "by-eye", "by-chemistry", "by-nucleic-acid"))


def is_another(display: str, unit: str, item: Item) -> bool:
    """Whether a name tells another hour, trough, reference or kind of result than the item's own names do."""
    plain = names.plain(display)
    if item.code in _SERUM_ONLY and "全血" in names.unfolded(display):
        return True
    if item.result_type == "Q" and _BY_EYE.search(plain) and not _BY_EYE.search(names.plain(item.name_zh)):
        return True
    if "免疫法" in item.name_zh and _BY_CHEMISTRY.search(plain):
        return True
    if measures.unit_kind(item.unit) in _NO_RATIO and _RATIO.search(plain):
        return True
    if _BY_NUCLEIC_ACID.search(plain) and not _of_nucleic_acid(item.code):
        return True
    said = _OTHER_TIME.search(f"{plain} {names.plain(unit)}")
    return said is not None and not any(said[0] in names.plain(name) for name in words.synonyms()[item.code])


_RATIO = words.pattern("ratio")
#: Kinds of quantities that are no ratio of two.
_NO_RATIO = frozenset(("time", "mass", "moles", "enzyme", "units", "count", "volume", "cellmass", "speed"))


@lru_cache(maxsize=512)
def _of_nucleic_acid(item: str) -> bool:
    return any(_BY_NUCLEIC_ACID.search(spelling) for spelling in _spellings_of(item))


def _impossible(unit: str, item: Item) -> bool:
    return bool(item.unit) and measures.units_apart(unit, item.unit)


def _by_unit(unit: str, item: Item, reasons: list[str]) -> float:
    kind, mine = measures.unit_kind(unit), measures.unit_kind(item.unit)
    if not kind:
        return -0.02 if item.unit and item.result_type == "Q" else 0.0
    if not mine:
        return -0.06 if kind in ("mass", "moles", "units", "count", "percent") else -0.01
    if kind == mine:
        reasons.append("unit agrees")
        apart = abs(measures.size_of(unit) - measures.size_of(item.unit))
        return 0.02 if apart == 0 else 0.0 if apart > 50 else -0.012 * min(apart, 6)
    if {kind, mine} == {"mass", "moles"}:  # a mole of what is measured weighs a few hundred grams
        heavier = 2.5 if kind == "mass" else -2.5
        apart = abs(measures.size_of(unit) - measures.size_of(item.unit) - heavier)
        return -0.02 if apart > 50 else -0.01 - 0.008 * min(max(apart - 1, 0), 6)
    return -0.03


def _finer(row: str, item: str) -> int:
    """Between kinds of blood: 1 the same, -1 another, 0 not told; only a preference."""
    kinds = (("血清", "促凝", "黄管", "红管", "serum"), ("血浆", "枸橼酸", "蓝管", "plasma"),
             ("全血", "edta", "紫管", "抗凝", "whole blood", "末梢"))
    said, mine = names.plain(row), names.plain(item)
    of_row = [n for n, kind in enumerate(kinds) if any(word in said for word in kind)]
    of_item = [n for n, kind in enumerate(kinds) if any(word in mine for word in kind)]
    if not of_row or not of_item:
        return 0
    return 1 if of_row[0] == of_item[0] else -1
