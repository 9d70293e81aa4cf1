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
    subject = (_item(checked.order.item, True, rules) if english else "") or checked.order.display or \
        _item(checked.order.item, english, rules)
    found = _found(checked.results, english, zone)
    listed = ("; " if english else "；").join(found[:_MOST])
    if len(found) > _MOST:
        listed += f" and {len(found) - _MOST} more" if english else f"等 {len(found)} 次"
    if english:
        text = f"{subject}: {listed} ({name}). "
        text += "Open it in the recognition plug-in and decide: recognise, or say why not."
    else:
        text = f"{subject}：{listed}（{name}）。请在互认插件中查看外院报告，并选择互认或说明不互认的理由。"
    if checked.verdict.missing:
        names = [_item(code, english, rules) or code for code in checked.verdict.missing]
        text += f" Still to do: {', '.join(names)}." if english else f"尚缺项目：{'、'.join(names)}。"
    return Sentence(kind.value, name, text, kind is Kind.RECOGNISABLE)


def _found(results: tuple[Shown, ...], english: bool, zone: str) -> list[str]:
    """Hospital, day and what there is, newest first: one exam by its name, several results by their number."""
    occasions: dict[tuple[str, str], dict[str, Shown]] = {}
    for shown in sorted(results, key=lambda one: -one.time):
        day = datetime.fromtimestamp(shown.time / 1_000_000, ZoneInfo(zone)).date().isoformat() if shown.time else ""
        occasions.setdefault((shown.institution, day), {}).setdefault(shown.item, shown)
    return [_occasion(day, list(items.values()), english) for (_, day), items in occasions.items()]


def _occasion(day: str, items: list[Shown], english: bool) -> str:
    first = items[0]
    hospital = (first.institution_en if english else first.institution_zh) or first.institution
    if len(items) == 1:
        what = (first.name_en if english else first.name_zh) or first.item
    else:
        what = f"{len(items)} results" if english else f"{len(items)} 项结果"
    flags = {_FLAGS[flag][english]: None for shown in items for flag in shown.flags if flag in _FLAGS}
    said = " ".join(piece for piece in (hospital, day, what) if piece)
    return f"{said} [{', '.join(flags)}]" if flags else said


def _item(code: str, english: bool, rules: RuleSet) -> str:
    known = rules.catalogue.items.get(code) or rules.catalogue.panels.get(code)
    return "" if known is None else known.name_en if english else known.name_zh
