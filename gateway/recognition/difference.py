"""What differs between two versions, row by row; and all that one version says of an item. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any, NamedTuple

from gateway.recognition.rules import Period, RuleSet


class Difference(NamedTuple):
    """A row that was added, removed or changed; ``what`` says the columns that changed."""

    table: str
    change: str  # "added", "removed" or "changed"
    key: str
    name: str
    what: str


#: Table → attribute of RuleSet, and the fields that name a row.
_ROWS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "regions": ("regions", ("code",)), "institutions": ("institutions", ("slug",)),
    "windows": ("windows", ("scope", "item", "setting")),
    "qualifications": ("qualifications", ("institution", "item", "region")),
    "negative": ("negatives", ("region", "institution", "item")), "reasons": ("reasons", ("region", "code")),
    "prices": ("prices", ("scope", "item")), "settings": ("settings", ("scope", "item", "key")),
    "settlement": ("settlements", ("region", "version"))}
_Cells = dict[str, str]


def differences(old: RuleSet, new: RuleSet) -> list[Difference]:
    """From the old to the new, by table and key."""
    found: list[Difference] = []
    before, after = rows(old), rows(new)
    for table, becomes in after.items():
        was = before[table]
        for key in sorted({*was, *becomes}):
            name = new.catalogue.display(_item(key)) or old.catalogue.display(_item(key)) or ""
            if key not in was:
                found.append(Difference(table, "added", key, name, ""))
            elif key not in becomes:
                found.append(Difference(table, "removed", key, name, ""))
            elif changed := _changed(was[key], becomes[key]):
                found.append(Difference(table, "changed", key, name, changed))
    return found


def rows(rules: RuleSet) -> dict[str, dict[str, _Cells]]:
    """Table → key → column → text, of everything that a version holds."""
    catalogue = rules.catalogue
    found = {"items": {code: _cells(item) for code, item in catalogue.items.items()},
             "panels": {code: _cells(panel) for code, panel in catalogue.panels.items()},
             "coverage": {f"{edge.prior} → {edge.order}": _cells(edge) for edge in catalogue.edges}}
    for table, (attribute, names) in _ROWS.items():
        held = getattr(rules, attribute)
        values = held.values() if isinstance(held, Mapping) else held
        found[table] = {_key(row, names): _cells(row) for row in values}
    return found


def about(rules: RuleSet, code: str) -> list[tuple[str, str]]:
    """All that a version says of an item or panel, as label and text; empty when it has no such code."""
    catalogue = rules.catalogue
    found = catalogue.items.get(code) or catalogue.panels.get(code)
    if found is None:
        return []
    said = [(label.replace("_", " "), text) for label, text in _cells(found).items() if text not in ("", "no", "0")]
    for edge in catalogue.edges:
        if edge.order == code:
            said.append((f"covered ({edge.coverage})", f"by {_named(rules, edge.prior)}: {edge.reason}"))
        elif edge.prior == code:
            said.append((f"covers ({edge.coverage})", f"{_named(rules, edge.order)}: {edge.reason}"))
    selectors = rules.selectors(code)
    for table, (attribute, _) in _ROWS.items():
        held = getattr(rules, attribute)
        for row in held if isinstance(held, tuple) else ():
            if getattr(row, "item", None) in selectors:
                said.append((table, ", ".join(f"{label} {text}" for label, text in _cells(row).items() if text)))
    return said


def _named(rules: RuleSet, code: str) -> str:
    return f"{code} {rules.catalogue.display(code) or ''}".strip()


def _key(row: Any, names: tuple[str, ...]) -> str:
    period: Period | None = getattr(row, "period", None)
    begin = [f"from {period.begin}"] if period and period.begin else []
    return " ".join([*(str(getattr(row, name)) for name in names if getattr(row, name) != ""), *begin])


def _item(key: str) -> str:
    """The item's code in a key, where there is one."""
    return next((word for word in key.split() if len(word) == 7 or word.startswith("P-")), key)


def _cells(row: Any) -> _Cells:
    cells: _Cells = {}
    for column in fields(row):
        value = getattr(row, column.name)
        if isinstance(value, Period):
            cells |= {"valid from": str(value.begin or ""), "valid to": str(value.end or "")}
        else:
            cells[column.name] = _text(value)
    return cells


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "; ".join(map(str, value))
    if isinstance(value, timedelta):
        hours = value // timedelta(hours=1)
        return f"{hours // 24} d" if hours % 24 == 0 else f"{hours} h"
    return str(value)


def _changed(was: _Cells, becomes: _Cells) -> str:
    return ", ".join(f"{column} {_short(was[column])} → {_short(becomes[column])}" for column in was
                     if was[column] != becomes[column])


def _short(text: str) -> str:
    return (text if len(text) <= 60 else text[:57] + "…") or "(empty)"
