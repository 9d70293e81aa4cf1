"""UCUM codes for the unit spellings of laboratories. It only names a unit; no value is ever converted.

A text can be valid UCUM and mean something else in a laboratory (``MG/DL``: megagauss; ``S``: siemens; ``109/L``: a
hundred and nine), so the order is: texts that are read both ways (None), the table of whole texts, spellings composed
of known parts, and last the text itself where the grammar of `ucumvert` accepts it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_LONGEST = 60  # characters; no unit is longer, and the grammar's work grows with the text

_SUPERSCRIPT = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_LOST_SIGN = re.compile(r"\d\s+\d|[µμ]\s*(?:$|[^\s\w\[])")
_SIGNS = str.maketrans({"µ": "u", "μ": "u", "×": "*", "✕": "*", "∗": "*", "·": ".", "•": ".", "⋅": ".", "∙": ".",
                        "・": ".", "∕": "/", "⁄": "/", "−": "-", "–": "-", "’": "'", "′": "'", "【": "[", "】": "]"})

#: Read either way by people, so taken neither way: gram or giga, tesla or tera, millimolar or millimetre …
_DOUBTFUL = frozenset({"G", "u", "G/L", "m/ul", "m/uL", "mM", "uM", "nM", "pM"})
#: A length over a volume is no laboratory's unit but a lost exponent or a molar: m/mm3, MM/L.
_SENSELESS = frozenset({"m/L", "m/m3"})

#: Whole texts, by exact spelling or else by lower case.
_WHOLE = {
    "%": "%", "percent": "%", "百分比": "%", "‰": "[ppth]", "vol%": "%", "%vol": "%",
    "S": "s", "second": "s", "seconds": "s", "毫秒": "ms", "周": "wk", "week": "wk", "weeks": "wk", "wk": "wk",
    "月": "mo", "month": "mo", "months": "mo", "mo": "mo", "年": "a", "岁": "a", "year": "a", "years": "a",
    "ph": "[pH]", "[ph]": "[pH]", "°c": "Cel", "degc": "Cel", "摄氏度": "Cel", "°f": "[degF]", "degf": "[degF]",
    "ratio": "{ratio}", "比值": "{ratio}", "inr": "{INR}", "index": "{index}", "指数": "{index}",
    "titer": "{titer}", "titre": "{titer}", "滴度": "{titer}", "sg": "{SG}", "coi": "{COI}",
    "s/co": "{s_co_ratio}", "s/c.o.": "{s_co_ratio}", "sco": "{s_co_ratio}", "hu": "[hnsf'U]", "bpm": "{beats}/min",
    "beats/min": "{beats}/min", "mom": "{M.o.M}", "cmh2o": "cm[H2O]", "毫米汞柱": "mm[Hg]",
    "k/ul": "10*3/uL", "m/ul": "10*6/uL", "giga/l": "10*9/L", "tera/l": "10*12/L", "db": "dB",
}

#: Units that take a prefix: as spelled → as UCUM writes them.
_METRIC = {"g": "g", "gm": "g", "mol": "mol", "mole": "mol", "l": "L", "L": "L", "m": "m", "U": "U", "u": "U",
           "IU": "[IU]", "[iU]": "[IU]", "[IU]": "[IU]", "Pa": "Pa", "s": "s", "eq": "eq", "osm": "osm",
           "osmol": "osm", "Gy": "Gy", "Sv": "Sv", "Bq": "Bq", "J": "J", "cal": "cal", "kat": "kat", "V": "V",
           "W": "W", "Hz": "Hz"}
_PREFIXES = ("", "k", "m", "u", "n", "p", "f", "d", "c")
_DECI_CENTI = {"L", "m"}  # elsewhere d and c only make collisions

#: Parts that take no prefix here.
_PARTS = {
    "": "", "1": "", "个": "", "次": "",
    "%": "%", "min": "min", "mins": "min", "分": "min", "分钟": "min", "minute": "min", "minutes": "min",
    "h": "h", "H": "h", "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "小时": "h", "1h": "h",
    "d": "d", "day": "d", "days": "d", "天": "d", "日": "d", "sec": "s", "secs": "s", "秒": "s",
    "24h": "(24.h)", "24hr": "(24.h)", "24hrs": "(24.h)", "24hour": "(24.h)", "24小时": "(24.h)", "(24.h)": "(24.h)",
    "升": "L", "毫升": "mL", "微升": "uL", "克": "g", "毫克": "mg", "微克": "ug", "毫米": "mm", "厘米": "cm",
    "cc": "mL", "100ml": "dL", "mcg": "ug", "mcl": "uL", "mcmol": "umol",
    "mm[hg]": "mm[Hg]", "mmhg": "mm[Hg]", "m2": "m2", "m^2": "m2", "cm2": "cm2", "cm^2": "cm2", "mm2": "mm2",
    "mm^2": "mm2", "m3": "m3", "m^3": "m3", "cm3": "cm3", "cm^3": "cm3", "mm3": "mm3", "mm^3": "mm3",
    "1.73m2": "{1.73_m2}", "1.73m^2": "{1.73_m2}", "{1.73_m2}": "{1.73_m2}", "1.73": "{1.73_m2}",
    "au": "[arb'U]", "arbu": "[arb'U]", "arb.u": "[arb'U]", "[arb'u]": "[arb'U]", "ru": "{RU}", "{ru}": "{RU}",
    "gpl": "[GPL'U]", "gplu": "[GPL'U]", "gpl-u": "[GPL'U]", "[gpl'u]": "[GPL'U]",
    "mpl": "[MPL'U]", "mplu": "[MPL'U]", "mpl-u": "[MPL'U]", "[mpl'u]": "[MPL'U]",
    "cfu": "[CFU]", "[cfu]": "[CFU]", "pfu": "[PFU]", "[pfu]": "[PFU]",
    "copies": "{copies}", "copy": "{copies}", "cps": "{copies}", "cp": "{copies}", "拷贝": "{copies}",
    "拷贝数": "{copies}", "{copies}": "{copies}", "cells": "{cells}", "cell": "{cells}", "细胞": "{cells}",
    "个细胞": "{cells}", "{cells}": "{cells}", "{beats}": "{beats}",
    "hp": "[HPF]", "hpf": "[HPF]", "[hpf]": "[HPF]", "高倍视野": "[HPF]", "lp": "[LPF]", "lpf": "[LPF]",
    "[lpf]": "[LPF]", "低倍视野": "[LPF]", "100wbc": "100{WBCs}", "100wbcs": "100{WBCs}", "100{wbcs}": "100{WBCs}",
    "ghb": "g{Hb}", "g.hb": "g{Hb}", "g{hb}": "g{Hb}", "gcr": "g{creat}", "g.cr": "g{creat}", "gcrea": "g{creat}",
    "g.crea": "g{creat}", "g{creat}": "g{creat}", "mmolcr": "mmol{creat}", "mmol.cr": "mmol{creat}",
    "mmol{creat}": "mmol{creat}", "kgh2o": "kg{H2O}", "kg.h2o": "kg{H2O}", "kg{h2o}": "kg{H2O}",
}


def _spellings() -> tuple[dict[str, str], dict[str, str]]:
    """Every known part by its exact spelling, and by its lower case where all spellings of that agree."""
    exact = dict(_PARTS)
    for spelled, code in _METRIC.items():
        for prefix in _PREFIXES:
            if prefix not in ("d", "c") or code in _DECI_CENTI:
                exact.setdefault(prefix + spelled, prefix + code)
    folded: dict[str, str | None] = {}
    for spelled, code in exact.items():
        key = spelled.lower()
        folded[key] = code if folded.get(key, code) == code else None
    return exact, {key: code for key, code in folded.items() if code is not None}


_EXACT, _FOLDED = _spellings()
#: One-letter capitals that are mere case noise; the others (M, K, T, P …) are prefixes or units of their own.
_ONE_LETTER = {"D", "G", "H", "S"}
_ONE_LETTER_PART = re.compile(r"(?:^|[/.(])([A-KM-TV-Z])(?=[/.)]|$)")

# x10^9, *10^9, 10*9, 10**9, 10E9, 1E9, 10(9), 10~9; "109" is not among them: who wrote it may have meant 10⁹ or 109.
_POWER = re.compile(r"(?:1(?:\.0)?)?[*xX]?(?:10(?:\*\*|[*^~eE])\(?|10\(|1[eE]\+?)([+-]?[1-9]\d?)(\)?)(.*)", re.ASCII)
_EQUIVALENT_UNITS = re.compile(r"[({]?(FEU|DDU)[)}]?", re.IGNORECASE)  # fibrinogen equivalents, D-dimer units
_PER = re.compile(r"^([^/]+)\.([A-Za-z]+)-1$")  # ISO 2955 as in HL7 v2.5.1 7.4.2.6: mmol.l-1
_UPSIDE_DOWN = re.compile(r"/[^/.]*-\d")  # g/l-1: meant g.l-1
_PRODUCT = re.compile(r"1\.73[^.]*|[^.]+")


def ucum(text: str) -> str | None:
    """The UCUM code of a unit as a laboratory spells it (``×10⁹/L``, ``μmol/l``, ``秒``); None when it is not sure.

    Names the unit and changes no value: ``g/dL`` stays ``g/dL``. The answer of an answer is itself. For a text that
    its sender declares to be UCUM ask ``is_ucum`` first: then ``S`` is siemens.
    """
    return _ucum(text) if len(text) <= _LONGEST else None


def is_ucum(code: str) -> bool:
    """Whether a text is a valid case-sensitive UCUM code."""
    return len(code) <= 2 * _LONGEST and _is_ucum(code)


@lru_cache(maxsize=4096)
def _ucum(text: str) -> str | None:
    spelled = _PER.sub(r"\1/\2", _folded_width(text))
    if not spelled or spelled in _DOUBTFUL:
        return None
    whole = _WHOLE.get(spelled) or _WHOLE.get(spelled.lower())
    if whole:
        return whole
    code = _with_equivalents(spelled) or (spelled if _unmistakable(spelled) and is_ucum(spelled) else None)
    return None if code is None or quantity_kind(code) in _SENSELESS else code


@lru_cache(maxsize=4096)
def _is_ucum(code: str) -> bool:
    if not code or not code.isascii():
        return False
    parser, refused = _grammar()
    try:
        parser.parse(code)
    except refused:
        return False
    return True


def quantity_kind(code: str) -> str | None:
    """What a UCUM code measures, prefixes and factors aside (``umol/L`` → ``mol/L``); None when a part is unknown.

    As fine as LOINC's property is: mass and substance concentration differ; enzyme, international and arbitrary units
    do not; nothing is cancelled, for ``mmol/mol`` and ``%`` are two ways to report one thing.
    """
    if not code:
        return None
    sides: tuple[list[str], list[str]] = ([], [])
    bare = re.sub(r"\{[^{}]*\}", "", code.replace("(24.h)", "d"))
    if "(" in bare:
        return None
    for position, part in enumerate(bare.split("/")):
        for factor in part.split("."):
            base = _base(factor)
            if base is None:
                return None
            if base:
                sides[min(position, 1)].append(base)
    over, under = (".".join(sorted(side)) for side in sides)
    return f"{over or '1'}/{under}" if under else over or "1"


def _folded_width(text: str) -> str:
    """Without spaces, in half width, with ASCII signs; 10⁹ becomes 10^9 before NFKC can make it 109.

    Empty when that would join two numbers, or make a lone micro sign the letter u.
    """
    if _LOST_SIGN.search(text):
        return ""
    if text.isascii():
        return "".join(text.split())

    def raised(match: re.Match[str]) -> str:
        digits = match[0].translate(_SUPERSCRIPTS)
        return f"^{digits}" if text[:match.start()].rstrip().endswith("10") else digits

    plain = unicodedata.normalize("NFKC", _SUPERSCRIPT.sub(raised, text).translate(_SIGNS))
    return "".join(plain.translate(_SIGNS).split())


def _with_equivalents(spelled: str) -> str | None:
    """The composed code, with {FEU} or {DDU} moved to the end (``mg/L FEU``, ``ugFEU/mL``)."""
    if found := _EQUIVALENT_UNITS.search(spelled):
        bare = spelled[:found.start()] + spelled[found.end():]
        code = _composed(bare)
        return f"{code}{{{found[1].upper()}}}" if code and code[-1] != "}" else None
    return _composed(spelled)


def _composed(spelled: str) -> str | None:
    """A UCUM code made of a power of ten and known parts; None when one part is unknown."""
    power = ""
    if match := _POWER.fullmatch(spelled):
        exponent, closed, spelled = match[1].lstrip("+"), match[2], match[3]
        opened = "(" in match[0][:match.start(1)]
        if bool(closed) != opened or spelled[:1].isdigit():
            return None
        power = f"10*{exponent}"
        spelled = spelled.removeprefix(".")
    numerator, *denominators = spelled.split("/") if spelled else [""]
    top = _term(numerator)
    below: list[str] = []
    for denominator in denominators:
        factors = _denominator(denominator)
        if factors is None:
            return None
        below += factors
    if top is None or (not power and not top and not below):
        return None
    joint = "." if power and top and top[0] != "{" else ""
    return power + joint + top + "".join(f"/{part}" for part in below)


def _term(spelled: str) -> str | None:
    """A part, or several multiplied (``mGy*cm``)."""
    if (code := _part(spelled)) is not None:
        return code
    parts = [_part(part) for part in re.split(r"[.*]", spelled)]
    return ".".join(part for part in parts if part) if len(parts) > 1 and all(parts) else None


def _denominator(spelled: str) -> list[str] | None:
    """The parts below a stroke: one, or several in brackets (``(min*1.73m2)``) or before 1.73 m²."""
    code = _part(spelled)
    if code is not None:
        return [code] if code else None
    inner = spelled.replace("*", ".")
    if inner.startswith("(") and inner.endswith(")"):
        inner = inner[1:-1]
    elif "1.73" not in inner:
        return None
    parts = [_part(part.strip("()")) for part in _PRODUCT.findall(inner)]
    return [part for part in parts if part] if parts and all(parts) else None


def _part(spelled: str) -> str | None:
    if (code := _EXACT.get(spelled)) is not None:
        return code
    if len(spelled) == 1 and spelled not in _ONE_LETTER:
        return None
    return _FOLDED.get(spelled.lower())


def _unmistakable(spelled: str) -> bool:
    """Whether a text that no table knows may be taken as UCUM at its word: not a number, not a short bare word,
    nor one with a lone capital (K/mL: kelvin, or thousands)."""
    return (not spelled[0].isdigit() and (len(spelled) > 2 or any(sign in spelled for sign in "/[{%"))
            and not _ONE_LETTER_PART.search(spelled) and not _UPSIDE_DOWN.search(spelled))


@lru_cache(maxsize=1)
def _grammar() -> tuple[Any, type[Exception]]:
    """A parser over ucumvert's UCUM grammar, made at the first need.

    Importing ucumvert brings pint and numpy (0.3 s, 40 MB a process) for conversions that we never make; its grammar
    file and lark alone are a tenth of that.
    """
    from lark import Lark
    from lark.exceptions import LarkError

    spec = find_spec("ucumvert")
    assert spec is not None and spec.origin is not None  # a declared dependency
    grammar = Path(spec.origin).with_name("ucum_grammar.lark").read_text("utf-8")
    return Lark(grammar, start="main_term", strict=True), LarkError


_BASES = {"g": "g", "mol": "mol", "L": "L", "l": "L", "m": "m", "U": "unit", "[IU]": "unit", "[iU]": "unit",
          "[arb'U]": "unit", "[GPL'U]": "unit", "[MPL'U]": "unit", "Pa": "Pa", "s": "s", "eq": "eq", "osm": "osm",
          "kat": "unit", "m2": "m2", "m3": "m3", "m[Hg]": "Pa", "Gy": "Gy", "Sv": "Sv", "Bq": "Bq", "Hz": "Hz"}
_WITHOUT_PREFIX = {"": "", "%": "", "[ppth]": "", "[ppm]": "", "min": "s", "h": "s", "d": "s", "[pH]": "[pH]",
                   "Cel": "Cel", "[HPF]": "[HPF]", "[LPF]": "[LPF]", "[CFU]": "[CFU]", "[PFU]": "[PFU]",
                   "[hnsf'U]": "[hnsf'U]"}


def _base(factor: str) -> str | None:
    """The base of one factor, empty for a pure number, None when unknown."""
    if re.fullmatch(r"\d+|10[*^][+-]?\d+", factor):
        return ""
    known = _WITHOUT_PREFIX.get(factor)
    if known is None:
        known = _BASES.get(factor)
    if known is None and factor[:1] in "kdcmunpf":
        known = _BASES.get(factor[1:])
    return known
