"""A hospital's menu as a tab-separated text, and the candidates of its rows as one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.errors import Category, GatewayError
from gateway.onboarding.suggest import Candidate, MenuRow

_COLUMNS = ("local", "display", "unit", "specimen")
_MOST = 3


def menu_rows(text: str, where: str = "menu") -> list[MenuRow]:
    """The rows of a menu: a header that names ``local`` and ``display`` at least, in any order, and cells by tabs.

    Columns of other names are left aside; INVALID names the line.
    """
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    header = [cell.strip().lower() for cell in lines[0].split("\t")] if lines else []
    missing = [name for name in _COLUMNS[:2] if name not in header]
    if missing:
        raise GatewayError(Category.INVALID, f"the first line must name the columns {' '.join(_COLUMNS)}, separated by "
                           f"tabs; {' and '.join(missing)} missing", f"{where}:1")
    at = {name: header.index(name) for name in _COLUMNS if name in header}
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if any(cells[len(header):]):
            raise GatewayError(Category.INVALID, f"{len(cells)} cells, but the header has {len(header)} columns",
                               f"{where}:{number}")
        given = {name: cells[place] for name, place in at.items() if place < len(cells)}
        local, display, unit, specimen = (given.get(name, "") for name in _COLUMNS)
        rows.append(MenuRow(local, display, unit, specimen))
    return rows


def table(rows: Sequence[MenuRow], found: Sequence[Sequence[Candidate]]) -> Iterator[str]:
    """The lines of ``huren adapter suggest``: the header, then ``local item1 score1 item2 score2 item3 score3``."""
    yield "\t".join(["local", *(f"{name}{place}" for place in range(1, _MOST + 1) for name in ("item", "score"))])
    for row, candidates in zip(rows, found, strict=True):
        cells = [cell for c in candidates[:_MOST] for cell in (c.item, f"{c.score:.3f}")]
        yield "\t".join([row.local, *cells, *[""] * (2 * _MOST - len(cells))])


def explanation(rows: Sequence[MenuRow], found: Sequence[Sequence[Candidate]]) -> Iterator[str]:
    """Why: per row its texts, then a line for each candidate with what spoke for and against it."""
    for row, candidates in zip(rows, found, strict=True):
        yield " · ".join(text for text in (row.local, row.display, row.unit, row.specimen) if text)
        for candidate in candidates:
            yield f"  {candidate.item} {candidate.score:.3f}: {'; '.join(candidate.reasons)}"
        if not candidates:
            yield "  nothing of the catalogue fits"
