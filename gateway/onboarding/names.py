"""How a name on a menu is spelt, taken away: width, case, traditional characters, numbering, fillers, word order. Pure.

A *key* is what two spellings of one name share. It is made of the name and of every synonym in the same way, so that
what is taken away need not be right for readers, only the same for both.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

import opencc

from gateway.onboarding import words as words_of

_SIMPLIFIED = opencc.OpenCC("t2s")
_GREEK = str.maketrans({
    "α": " alpha ", "β": " beta ", "γ": " gamma ", "κ": " kappa ", "λ": " lambda ", "ß": " beta ", "μ": "u", "∶": "/",
    **dict.fromkeys("→⇒➜»›", ">"), **dict.fromkeys("–—―", "-"), **dict.fromkeys("、，；", ","), "′": "'", "’": "'"})
_MARKS = re.compile(r"[*★☆●▲△※◆■□✓√^]+")
_NUMBERING = re.compile(r"^\s*(?:0\d{1,4}(?=[一-鿿a-z])|"
                        r"(?:no\.?\s*)?\d{1,3}\s*(?:[.、)]\s*(?!\d)|-\s+|\s+(?=[一-鿿])))")
_DOTTED = re.compile(r"\b(?:[a-z]\.)+[a-z]\b\.?")  # S.G.P.T.
_EXPLAINED = re.compile(r"([^,;]*[^,;\s])\s*[,;](?!\d)\s*([^,;]*[一-鿿].*)")
_PARENS = re.compile(r"[(\[【{〔<《]([^()\[\]【】{}〔〕<>《》]*)[)\]】}〕>》]")
_BEFORE = re.compile(r"^(?:痰|尿液|粪便|大便|24小时尿|24h尿|随机尿|晨尿|血清|血浆|全血|咽拭子|宫颈|分泌物)液?\s+(?=\S)")
_WORD = re.compile(r"[a-z]+|\d+|[一-鿿]+|[%#/]")

#: Words of Taiwan and Hong Kong for what the catalogue calls otherwise, in simplified characters: replacement, pattern.
_REGIONAL = words_of.patterns("spelling-of-a-region")
#: One spelling for each thing that has many; applied to names and synonyms alike.
_SAME = words_of.patterns("spelling")
#: Words about how, not what; in parentheses they are passed over.
_METHOD = words_of.pattern("method")
_OPTIONAL = {"定量", "定性", "计算", "calculated", "quantitative", "qualitative", "quantitation", "检", "test", "blood",
             "of", "screen", "screening", "by", "ifa", "iif", "pcr", "gold", "assay", "ratio", "generation", "combo",
             "levels", "total", "the", "for", "and"}


class Name(NamedTuple):
    """A name with what stands in parentheses apart."""

    whole: str  # plain, with what stands in parentheses
    inner: tuple[str, ...]  # plain: what stands in parentheses
    outer: str  # plain, without them


@lru_cache(maxsize=65536)
def plain(text: str) -> str:
    """One width, one case, simplified characters, no marks and no numbering."""
    text = unicodedata.normalize("NFKC", text)
    text = _SIMPLIFIED.convert(text).lower() if not text.isascii() else text.lower()
    text = _DOTTED.sub(lambda found: found[0].replace(".", ""), _NUMBERING.sub("", _MARKS.sub("", text)))
    text = text.translate(_GREEK)
    if not text.isascii():
        for replacement, pattern in _REGIONAL:
            text = pattern.sub(replacement, text)
    return _BEFORE.sub("", " ".join(text.split()))


def unfolded(text: str) -> str:
    """One width and simplified characters, nothing taken away."""
    return _SIMPLIFIED.convert(unicodedata.normalize("NFKC", text)).lower()


@lru_cache(maxsize=65536)
def words(text: str) -> tuple[str, ...]:
    """The words of a plain text, one spelling for each, in the order of the alphabet."""
    text = re.sub(r"(?<=[\da-z])\+", "", text)
    for replacement, pattern in _SAME:
        text = pattern.sub(replacement, text)
    found = _WORD.findall(text)
    if any(re.fullmatch(r"ig[gamed]", word) for word in found):  # an IgM is an antibody
        found = [word.replace("抗体", "") for word in found if word not in ("antibody", "抗", "ab", "anti")]
    if any(word.endswith("抗体") for word in found):
        found = [word.removeprefix("抗") for word in found if word not in ("抗", "anti")]
    return tuple(sorted(_singular(word) for word in found if word))


def _singular(word: str) -> str:
    plural = len(word) > 4 and word.isascii() and word[-1] == "s" and word[-2:] not in ("ss", "us", "is")
    return word[:-1] if plural else word


def key(text: str) -> str:
    """What two spellings of one name share."""
    return "".join(words(text))


@lru_cache(maxsize=65536)
def bare_key(text: str) -> str:
    """A key without words that most menus leave out."""
    kept = [word.removesuffix("定量").removesuffix("定性") for word in words(text) if word not in _OPTIONAL]
    return "".join(sorted(word for word in kept if word))


@lru_cache(maxsize=65536)
def read(text: str) -> Name:
    """A name with what stands in parentheses apart."""
    said = plain(text)
    inner = tuple(part.strip() for part in _PARENS.findall(said) if part.strip())
    outer = _PARENS.sub(" ", said).strip(" -_/,.;:")
    if explained := _EXPLAINED.fullmatch(outer):  # a name, and behind a comma what it is for
        outer, inner = explained[1].strip(), (*inner, explained[2].strip())
    whole = " ".join(re.sub(r"[(\[【{〔<《)\]】}〕>》]", " ", said).split())
    return Name(whole, inner, outer or whole)


def is_method(part: str) -> bool:
    """Whether a text tells how a test is done, or whose reagent it takes."""
    return bool(_METHOD.search(part))
