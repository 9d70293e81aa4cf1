"""OBX-7 as Observation.referenceRange: plain ranges, and prose that tells sexes, ages and phases apart. Pure.

A text is taken apart as a whole or not at all: where one word of it is not understood, it stays a text. The first
range always holds the text as it was sent; where each part has its own condition, it holds nothing else, so that
nobody takes the men's limits for everybody's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.hl7v2.datatypes import quantity
from gateway.hl7v2.message import Segment
from gateway.hl7v2.numbers import Number, compared, exact, narrow
from gateway.source import Source
from gateway.terminology import UCUM

_MEANING = "http://terminology.hl7.org/CodeSystem/referencerange-meaning"
_SNOMED = "http://snomed.info/sct"
_LONGEST = 1000  # characters of a text that is taken apart
_MOST = 40  # parts of one text

#: What parts low from high. The tilde is also HL7's repetition separator: OBX-7 does not repeat (v2.5.1 7.4.2.7).
_BETWEEN = re.compile(r"\s*(?:--|[-~–—―]|至|到|\bto\b)\s*", re.IGNORECASE)
_BRACKETS = {"(": ")", "[": "]", "（": "）", "【": "】"}
_PREFIX = re.compile(r"(?:参考(?:范围|区间|值)|正常(?:范围|值|参考值)|reference(?: range)?|normal(?: range)?)\s*:?\s*",
                     re.IGNORECASE)


class _Word(NamedTuple):
    """A condition of a range: what it says of sex, age or phase."""

    kind: str  # sex, age, group, state, phase, normal, critical or label
    made: dict[str, Any]


def _sex(code: str, display: str) -> _Word:
    return _Word("sex", {"coding": [{"system": _SNOMED, "code": code, "display": display}]})


def _phase(code: str, display: str) -> _Word:
    return _Word("phase", {"coding": [{"system": _MEANING, "code": code, "display": display}]})


_MALE, _FEMALE = _sex("248153007", "Male"), _sex("248152002", "Female")
_PREGNANT = _Word("state", {"coding": [{"system": _SNOMED, "code": "77386006", "display": "Pregnancy"}]})
_FOLLICULAR, _LUTEAL = _phase("follicular", "Follicular Stage"), _phase("luteal", "Luteal")
_MIDCYCLE, _POSTMENOPAUSAL = _phase("midcycle", "MidCycle"), _phase("postmenopausal", "Postmenopausal")
_NORMAL = _Word("normal", {"coding": [{"system": _MEANING, "code": "normal", "display": "Normal Range"}]})
_CRITICAL = _Word("critical", {})
_GROUP = _Word("group", {})  # an age group without numbers: what is adult is the laboratory's matter
_WORDS: dict[str, _Word] = {
    **dict.fromkeys(("男", "男性", "男子", "成年男性", "成年男子", "m", "male", "males", "men", "♂"), _MALE),
    **dict.fromkeys(("女", "女性", "女子", "成年女性", "成年女子", "f", "female", "females", "women", "♀"), _FEMALE),
    **dict.fromkeys(("孕妇", "妊娠", "妊娠期", "孕期", "pregnant", "pregnancy"), _PREGNANT),
    **dict.fromkeys(("卵泡期", "follicular", "follicular phase"), _FOLLICULAR),
    **dict.fromkeys(("黄体期", "luteal", "luteal phase"), _LUTEAL),
    **dict.fromkeys(("排卵期", "midcycle", "mid-cycle", "ovulation"), _MIDCYCLE),
    **dict.fromkeys(("绝经期", "绝经后", "postmenopausal", "post-menopausal"), _POSTMENOPAUSAL),
    **dict.fromkeys(("正常", "normal"), _NORMAL),
    **dict.fromkeys(("危急值", "危急", "危机值", "critical", "panic"), _CRITICAL),
    **dict.fromkeys(("成人", "成年人", "儿童", "小儿", "新生儿", "婴儿", "婴幼儿", "幼儿", "青少年", "老年", "老年人",
                     "老人", "adult", "adults", "child", "children", "newborn", "newborns", "neonate", "neonates",
                     "infant", "infants", "adolescent", "adolescents", "elderly"), _GROUP),
}
_WORD = re.compile("|".join(rf"{re.escape(word)}\b" if word[-1].isascii() and word[-1].isalpha() else re.escape(word)
                            for word in sorted(_WORDS, key=len, reverse=True)), re.IGNORECASE)
_AGE_UNITS = {
    **dict.fromkeys(("岁", "周岁", "years", "year", "yrs", "yr", "y"), ("a", "a")),
    **dict.fromkeys(("个月", "月龄", "月", "months", "month", "mo"), ("mo", "mo")),
    **dict.fromkeys(("周", "weeks", "week", "wk"), ("wk", "wk")),
    **dict.fromkeys(("天", "日龄", "日", "days", "day", "d"), ("d", "d")),
}
_UNIT = "|".join(rf"{unit}\b" if unit.isascii() else unit for unit in sorted(_AGE_UNITS, key=len, reverse=True))
_SPAN = re.compile(rf"(\d{{1,3}})\s*({_UNIT})?\s*(?:-|~|–|—|至|到|\bto\b)\s*(\d{{1,3}})\s*({_UNIT})", re.IGNORECASE)
_FROM = re.compile(rf"(>=|=>|≥|>|大于等于|大于|<=|=<|≤|<|小于等于|小于)\s*(\d{{1,3}})\s*({_UNIT})", re.IGNORECASE)
_BEYOND = re.compile(rf"(\d{{1,3}})\s*({_UNIT})\s*(及以上|以上|及以下|以下|以内)", re.IGNORECASE)
_LABEL = re.compile(r"([^\d<>≤≥:;,~]{1,40}?\d{0,2}[^\d<>≤≥:;,~]{0,10}):")
_GAP = re.compile(r"[\s;,/、|。]*")
_NUMERAL = r"[+-]?(?:\d{1,20}(?:[.,]\d{1,20})*|\.\d{1,20})(?:[eE][+-]?\d{1,2})?"
_LIMITS = re.compile(rf"(?:(?:<=|>=|=<|=>|[<>≤≥]|小于等于|大于等于|小于|大于|不超过|不低于|低于|高于)\s*{_NUMERAL}"
                     rf"|{_NUMERAL}\s*(?:--|[-~–—―]|至|到|\bto\b)\s*-?{_NUMERAL}|{_NUMERAL}\s*(?:及?以上|及?以下))",
                     re.IGNORECASE)
_OR = re.compile(r"\s*(?:或者?|,|、|\bor\b)\s*", re.IGNORECASE)


class _Limits(NamedTuple):
    low: Decimal | None
    high: Decimal | None


class _Part(NamedTuple):
    """One condition with its limits; ``words`` as sent, with what they mean."""

    words: list[tuple[str, _Word]]
    limits: list[_Limits]
    text: str


def reference_range(obx: Segment, units: dict[str, str], source: Source) -> list[dict[str, Any]]:
    """OBX-7; its text is always kept, in the first range."""
    text = obx.text(7).strip()
    if not text:
        return []
    if source.habits.get("critical_limits") and (found := _with_critical(obx, text, units, source.habits)):
        return found
    return ranges_of(text, units, source.habits)


def ranges_of(text: str, units: dict[str, str], habits: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A reference text as ranges: one where it is plain, several where it tells conditions apart."""
    if len(text) > _LONGEST:
        return [{"text": text}]
    plain, unit = narrow(text), narrow(units.get("unit", ""))
    commas = habits.get("number_comma", "")
    if limits := _limits(_bare(plain), unit, commas):
        return [{**_ends(limits, units), "text": text}]
    parts = _parts(plain, unit, commas)
    if not parts:
        return [{"text": text}]
    if len(parts) == 1 and len(parts[0].limits) == 1:
        return [{**_range(parts[0], parts[0].limits[0], units), "text": text}]
    found = [{**_range(part, limits, units), "text": part.text} for part in parts for limits in part.limits]
    if not parts[0].words:
        return [{**found[0], "text": text}, *found[1:]]
    return [{"text": text}, *found]


def limits_of(text: str, units: dict[str, str],
              habits: Mapping[str, Any]) -> tuple[Decimal | None, Decimal | None] | None:
    """Low and high of a text that is one plain range; None for anything else."""
    return _limits(_bare(narrow(text)), narrow(units.get("unit", "")), habits.get("number_comma", ""))


def _with_critical(obx: Segment, text: str, units: dict[str, str],
                   habits: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Habit ``critical_limits``: OBX-7 repeats, and a value beyond the second repetition's limits is critical."""
    parts = [part.text.strip() for part in obx.repetitions(7)]
    if len(parts) != 2:
        return []
    unit, commas = narrow(units.get("unit", "")), habits.get("number_comma", "")
    limits = _limits(_bare(narrow(parts[1])), unit, commas)
    if limits is None:
        return []
    found = ranges_of(parts[0], units, habits)
    found[0]["text"] = text
    kind = {"text": "critical"}
    if limits.low is not None:
        found.append({"high": quantity(limits.low, units), "type": kind, "text": parts[1]})
    if limits.high is not None:
        found.append({"low": quantity(limits.high, units), "type": dict(kind), "text": parts[1]})
    return found


def _bare(text: str) -> str:
    """Without a heading that says no more than that this is the range, and without brackets around the whole."""
    text = text.strip()
    if (match := _PREFIX.match(text)) and match.end() < len(text):
        text = text[match.end():]
    if len(text) > 2 and _BRACKETS.get(text[0]) == text[-1] and text[0] not in text[1:]:
        text = text[1:-1]
    return text.strip()


def _limits(text: str, unit: str, commas: str) -> _Limits | None:
    """``3.5-9.5``, ``<5``, ``5以下``, also with the unit of OBX-6 behind; None for anything else.

    ``-3--1`` is not read: after a negative number a double hyphen may be a separator or a sign.
    """
    if unit and text.endswith(unit) and len(text) > len(unit) and not text[-len(unit) - 1].isalpha():
        text = text[:-len(unit)].rstrip()
    if (one := compared(text, commas)) is not None:
        if not one.comparator:
            return None
        return _Limits(None, one.value) if one.comparator.startswith("<") else _Limits(one.value, None)
    for match in _BETWEEN.finditer(text, 1):
        low, high = _end(text[:match.start()], unit, commas), _end(text[match.end():], unit, commas)
        if low is not None and high is not None and low.value <= high.value \
                and not (match[0].strip() == "--" and low.value < 0):
            return _Limits(low.value, high.value)
    return None


def _end(text: str, unit: str, commas: str) -> Number | None:
    text = text.strip()
    if unit and text.endswith(unit):
        text = text[:-len(unit)].rstrip()
    return exact(text, commas)


def _ends(limits: _Limits, units: dict[str, str]) -> dict[str, Any]:
    return {name: quantity(value, units) for name, value in (("low", limits.low), ("high", limits.high))
            if value is not None}


def _range(part: _Part, limits: _Limits, units: dict[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = _ends(limits, units)
    applies = []
    for sent, word in part.words:
        concept = {**word.made, "text": sent}
        if word.kind in ("phase", "normal", "critical", "label"):
            made["type"] = {**word.made, "text": "critical" if word.kind == "critical" else sent}
        elif "age" in word.made:
            made["age"] = {end: {**found} for end, found in word.made["age"].items()}
        else:
            applies.append(concept)
    if applies:
        made["appliesTo"] = applies
    return made


# ---------------------------------------------------------------- prose

def _parts(text: str, unit: str, commas: str) -> list[_Part]:
    """The text as conditions with limits; empty where any of it is not understood, or is doubtful."""
    parts: list[_Part] = []
    at = _GAP.match(text).end()  # type: ignore[union-attr]
    while at < len(text):
        if len(parts) == _MOST:
            return []
        found = _part(text, at, unit, commas)
        if found is None:
            return []
        part, end = found
        parts.append(part)
        gap = _GAP.match(text, end)
        assert gap is not None
        if gap.end() == end and end < len(text):
            return []
        at = gap.end()
    return parts if parts and not _doubtful(parts) else []


def _doubtful(parts: list[_Part]) -> bool:
    """Whether somebody could read it otherwise.

    A part without a condition behind others; two of the same condition; a label alone that says nothing known; and sex
    with age in one part but without in another, where the age may have been meant for both.
    """
    if any(not part.words for part in parts[1:]):
        return True
    conditions = [tuple(sorted(sent for sent, _ in part.words)) for part in parts]
    if len(set(conditions)) < len(parts):
        return True
    kinds = [[word.kind for _, word in part.words] for part in parts]
    if any(len(set(found)) < len(found) for found in kinds) or kinds == [["label"]]:
        return True
    aged = [bool({"age", "group"} & set(found)) for found in kinds if "sex" in found]
    return any(aged) and not all(aged)


def _part(text: str, at: int, unit: str, commas: str) -> tuple[_Part, int] | None:
    """One part from here, and where it ends."""
    start, words = at, []
    while (found := _condition(text, at)) is not None:
        sent, word, at = found
        words.append((sent, word))
        at = _blank(text, at)
        if text[at:at + 1] == ":":
            at = _blank(text, at + 1)
    limits = []
    critical = any(word.kind == "critical" for _, word in words)
    while True:
        one = _limits_at(text, at, unit, commas)
        if one is None:
            return None
        found_limits, at = one
        if critical and None not in found_limits:
            return None  # whether inside or outside is critical is not said
        limits.append(found_limits)
        more = _OR.match(text, at) if critical else None
        if more is None or _limits_at(text, more.end(), unit, commas) is None:
            break
        at = more.end()
    return _Part(words, limits, text[start:at].strip()), at


def _blank(text: str, at: int) -> int:
    while at < len(text) and text[at] == " ":
        at += 1
    return at


def _limits_at(text: str, at: int, unit: str, commas: str) -> tuple[_Limits, int] | None:
    """Limits with or without brackets and the unit of OBX-6."""
    close = _BRACKETS.get(text[at:at + 1], "")
    match = _LIMITS.match(text, at + bool(close))
    if match is None:
        return None
    end = match.end()
    limits = _limits(match[0], unit, commas)
    if limits is None:
        return None
    if unit and text.startswith(unit, _blank(text, end)):
        end = _blank(text, end) + len(unit)
    if close:
        if text[end:end + 1] != close:
            return None
        end += 1
    return limits, end


def _condition(text: str, at: int) -> tuple[str, _Word, int] | None:
    """A sex, an age, a phase, or a label before a colon."""
    close = _BRACKETS.get(text[at:at + 1], "")
    if close:  # 男(18-60岁)
        inner = _condition(text, at + 1)
        return (inner[0], inner[1], inner[2] + 1) if inner and text[inner[2]:inner[2] + 1] == close else None
    if match := _SPAN.match(text, at):
        return _age(match, match[1], match[2] or match[4], match[3], match[4])
    if match := _FROM.match(text, at):
        lower = match[1][0] in ">≥" or match[1].startswith("大") or match[1] == "=>"
        return _age(match, match[2], match[3]) if lower else _age(match, "", "", match[2], match[3])
    if match := _BEYOND.match(text, at):
        lower = match[3].endswith("上")
        return _age(match, match[1], match[2]) if lower else _age(match, "", "", match[1], match[2])
    if match := _WORD.match(text, at):
        return match[0], _WORDS[match[0].lower()], match.end()
    if match := _LABEL.match(text, at):
        sent = match[1].strip()
        return (sent, _Word("label", {}), match.end() - 1) if sent and not _WORD.search(sent) else None
    return None


def _age(match: re.Match[str], low: str, low_unit: str, high: str = "", high_unit: str = "",
         ) -> tuple[str, _Word, int] | None:
    made: dict[str, dict[str, Any]] = {}
    for end, value, unit in (("low", low, low_unit), ("high", high, high_unit)):
        if value:
            shown, code = _AGE_UNITS[unit.lower()]
            made[end] = {"value": Decimal(value), "unit": shown, "system": UCUM, "code": code}
    if len(made) == 2 and made["low"]["code"] == made["high"]["code"] and made["low"]["value"] > made["high"]["value"]:
        return None
    return match[0], _Word("age", {"age": made}), match.end()
