"""A reminder as one sentence, for an answer to a message: which hospital has what, of which day, and what to do. Pure.

No patient's name, number or value is in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.recognition.model import Checked, Kind, Shown
from gateway.recognition.rules import RuleSet

_MOST = 3  # results that are named one by one
_NAMES = {Kind.RECOGNISABLE: ("可互认", "can be recognised"), Kind.PARTIAL: ("部分可互认", "can be recognised in part"),
          Kind.ADVISORY: ("仅供参考", "for information")}
_FLAGS = {"FLAG_CRITICAL": ("含危急值", "critical value"), "FLAG_HAEMOLYSIS": ("标本溶血", "haemolysed specimen"),
          "FLAG_REPEAT": ("建议复查", "repeat advised"), "FLAG_IMAGES": ("影像暂不可调阅", "images not available")}


class Sentence(NamedTuple):
    """``kind`` and its ``name``; ``warns``: it should interrupt."""

    kind: str
    name: str
    text: str
    warns: bool


def sentence_of(checked: Checked, language: str, zone: str, rules: RuleSet) -> Sentence:
    """What is said of one order line that earlier results cover. ``language``: zh or en."""
    english = language == "en"
    kind = checked.verdict.kind
    name = _NAMES.get(kind, (kind.value, kind.value))[english]
    found = [_result(shown, english, zone) for shown in _newest(checked.results)]
    listed = ("; " if english else "；").join(found[:_MOST])
    if more := len(found) - _MOST if len(found) > _MOST else 0:
        listed += f" and {more} more" if english else f"等 {len(found)} 项"
    ordered = checked.order.display
    if english:
        text = f"{_about(ordered, ': ')}{listed} ({name}). "
        text += "Open it in the recognition plug-in and decide: recognise it, or say why not."
    else:
        text = f"{_about(ordered, '：')}已有{listed}（{name}）。"
        text += "请在互认插件中查看外院报告，并选择互认或说明不互认的理由。"
    if checked.verdict.missing:
        text += _missing(checked.verdict.missing, english, rules)
    return Sentence(kind.value, name, text, kind is Kind.RECOGNISABLE)


def _newest(results: tuple[Shown, ...]) -> list[Shown]:
    """One of each hospital, item and time."""
    unique = {(shown.institution, shown.item, shown.time): shown for shown in results}
    return sorted(unique.values(), key=lambda shown: -shown.time)


def _result(shown: Shown, english: bool, zone: str) -> str:
    day = datetime.fromtimestamp(shown.time / 1_000_000, ZoneInfo(zone)).date().isoformat() if shown.time else ""
    hospital = (shown.institution_en or shown.institution) if english else (shown.institution_zh or shown.institution)
    item = (shown.name_en or shown.item) if english else (shown.name_zh or shown.item)
    flags = ("; " if english else "、").join(_FLAGS[flag][english] for flag in shown.flags if flag in _FLAGS)
    said = " ".join(piece for piece in (hospital, day, item) if piece)
    return f"{said} [{flags}]" if flags else said


def _about(ordered: str, colon: str) -> str:
    return f"{ordered}{colon}" if ordered else ""


def _missing(items: tuple[str, ...], english: bool, rules: RuleSet) -> str:
    names = []
    for code in items:
        item = rules.item(code)
        names.append(code if item is None else item.name_en if english else item.name_zh)
    return f" Still to do: {', '.join(names)}." if english else f"尚缺项目：{'、'.join(names)}。"
