"""The manual of search lists what the parameter table has."""

from __future__ import annotations

from pathlib import Path

from gateway.indexing import PARAMETERS, resource_types
from gateway.search import COLUMNS

MANUAL = Path(__file__).parents[1] / "gateway" / "search" / "README.md"


def every() -> str:
    """Parameters that every type has."""
    return ", ".join([*(f"`{name}` ({kind.value})" for name, kind in COLUMNS.items()),
                      *(f"`{p.name}` ({p.type.value})" for p in PARAMETERS if p.resource_type == "*")])


def table() -> list[str]:
    """A line for each type: its parameters by kind."""
    lines = []
    for t in resource_types():
        kinds: dict[str, list[str]] = {}
        for p in PARAMETERS:
            if p.resource_type == t:
                kinds.setdefault(p.type.value, []).append(f"`{p.name}`")
        said = "; ".join(f"{kind}: {' '.join(sorted(names))}" for kind, names in kinds.items())
        lines.append(f"| {t} | {said} |")
    return lines


def test_the_manual_lists_every_parameter() -> None:
    """Each type's line is that of the table, and there is no line of a type that is gone."""
    text = MANUAL.read_text(encoding="utf-8")
    assert f"Of every type: {every()}." in text
    assert text.partition("| type | parameters |\n|---|---|\n")[2].strip().splitlines() == table()
