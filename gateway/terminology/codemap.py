"""A hospital's ``codes.csv``: local code → unified item or panel, checked row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any, NamedTuple

from gateway.errors import Category, GatewayError
from gateway.terminology.catalogue import Catalogue, catalogue, check_item_code
from gateway.terminology.systems import BASE, ITEMS, LOINC, PANELS
from gateway.terminology.units import quantity_kind, ucum

#: In the column ``item``: no unified item, on purpose.
NO_ITEM = "-"
_COLUMNS = ("local", "item", "display", "unit")


class CodeRow(NamedTuple):
    """One row of ``codes.csv``; ``line`` is where it stands in the file.

    An empty ``item`` says that the hospital knows the code and nobody has mapped it yet; ``-`` that it is no item by
    nature (a heading, a section of a report), which is not counted as unmapped.
    """

    line: int
    local: str
    item: str
    display: str = ""
    unit: str = ""


#: Parsed rows: with their lines, or as `csv.DictReader` gives them (then the first row stands in line 2).
Rows = Iterable[CodeRow | Mapping[str, str]]


def code_rows(text: str, where: str = "codes.csv") -> list[CodeRow]:
    """The rows of a ``codes.csv`` (header ``local,item,display,unit``); INVALID names the line."""
    reader = csv.reader(StringIO(text.removeprefix("\ufeff"), newline=""))
    try:
        header = next(reader, [])
        if tuple(cell.strip() for cell in header) != _COLUMNS:
            raise GatewayError(Category.INVALID, f"the first line must be {','.join(_COLUMNS)}", f"{where}:1")
        rows = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(_COLUMNS):
                raise GatewayError(Category.INVALID, "more than four columns; put a text that holds a comma in quotes",
                                   f"{where}:{reader.line_num}")
            padded = [cell.strip() for cell in cells] + [""] * (len(_COLUMNS) - len(cells))
            rows.append(CodeRow(reader.line_num, *padded))
    except csv.Error as error:
        raise GatewayError(Category.INVALID, f"not readable as CSV: {error}", f"{where}:{reader.line_num}") from error
    return rows


class CodeMap:
    """A hospital's local codes as the catalogue knows them (the protocol ``gateway.source.Codes``).

    LOINC's coding is left out of a row whose own unit is of another kind than the item's (mg/dL where the item is in
    mmol/L): the item is the same, LOINC's code is not.
    """

    def __init__(self, rows: Rows, where: str = "codes.csv", known: Catalogue | None = None) -> None:
        self._known = known or catalogue()
        self._rows: dict[str, CodeRow] = {}
        self._codings: dict[str, list[dict[str, str]]] = {}
        self._without: set[str] = set()
        for row in _numbered(rows):
            place = f"{where}:{row.line}"
            _check(row, place, self._known)
            if row.local in self._rows:
                raise GatewayError(Category.INVALID, "this local code has a row already (line "
                                   f"{self._rows[row.local].line}); keep one of them", place)
            self._rows[row.local] = row
            if row.item == NO_ITEM:
                self._without.add(row.local)
            elif row.item:
                self._codings[row.local] = self._known.codings(row.item, loinc=_same_kind(row, self._known))

    def codings(self, local: str, system: str = "") -> list[dict[str, str]]:
        """The unified coding and, where it is sure, LOINC's, for a local code; empty when it is unmapped.

        A code that the sender says is LOINC's (``system``) and no row maps has the unified coding of the item that it
        is equivalent to: a sender who speaks the standard needs no rows.
        """
        found = self._codings.get(local)
        if found is None and system == LOINC and local not in self._rows and (item := self._known.of_loinc(local)):
            return self._known.codings(item, loinc=False)
        return [dict(coding) for coding in found or ()]

    def without_item(self, local: str) -> bool:
        """Whether the hospital says that the code is no item by nature."""
        return local in self._without

    def item(self, local: str) -> str | None:
        """The unified item or panel of a local code."""
        row = self._rows.get(local)
        return row.item or None if row and row.item != NO_ITEM else None

    def locals_of(self, item: str) -> list[CodeRow]:
        """The hospital's own codes of a unified item or panel, in the order of the rows."""
        return [row for row in self._rows.values() if row.item == item]

    def unit(self, local: str) -> str:
        """The hospital's own unit text of a local code; empty when it gives none."""
        row = self._rows.get(local)
        return row.unit if row else ""

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, local: object) -> bool:
        return local in self._rows


def concept_map(institution: str, code_system: str, rows: Rows, *, version: str | None = None,
                date: str | None = None, where: str = "codes.csv", known: Catalogue | None = None) -> dict[str, Any]:
    """A hospital's map to the unified codes as a FHIR ConceptMap; INVALID names the line of an unknown item.

    Codes that nobody has mapped stand in it as ``unmatched``. ``version`` is the catalogue's when not given.
    """
    catalog = known or catalogue()
    numbered = _numbered(rows)
    CodeMap(numbered, where, catalog)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in numbered:
        element: dict[str, Any] = {"code": row.local}
        if row.display:
            element["display"] = row.display
        if row.item in ("", NO_ITEM):
            element["target"] = [{"equivalence": "unmatched"}]
        else:
            display = catalog.display(row.item)
            element["target"] = [{"code": row.item, **({"display": display} if display else {}),
                                  "equivalence": "equivalent"}]
        groups.setdefault(PANELS if row.item in catalog.panels else ITEMS, []).append(element)
    resource: dict[str, Any] = {
        "resourceType": "ConceptMap", "id": f"{institution}-recognition-item",
        "url": f"{BASE}/ConceptMap/{institution}-recognition-item", "version": version or catalog.version,
        "name": "".join(part.capitalize() for part in institution.split("-")) + "RecognitionItem",
        "title": f"Codes of {institution} to unified items", "status": "active",
        "description": "Local test and exam codes of one hospital, and the unified items and panels that they mean.",
    }
    if date:
        resource["date"] = date
    if groups:
        resource["group"] = [{"source": code_system, "target": target, "element": groups[target]}
                             for target in (ITEMS, PANELS) if target in groups]
    return resource


def _numbered(rows: Rows) -> list[CodeRow]:
    return [row if isinstance(row, CodeRow) else CodeRow(line, *(row.get(column) or "" for column in _COLUMNS))
            for line, row in enumerate(rows, 2)]


def _check(row: CodeRow, place: str, known: Catalogue) -> None:
    if not row.local:
        raise GatewayError(Category.INVALID, "the column local is empty", place)
    if row.item not in ("", NO_ITEM) and row.item not in known.items and row.item not in known.panels \
            and not known.may_be_later(row.item):
        if not row.item.startswith("P-"):
            check_item_code(row.item, place)
        raise GatewayError(Category.INVALID, "the catalogue has no such item; choose one of its codes", place)


def _same_kind(row: CodeRow, known: Catalogue) -> bool:
    item = known.items.get(row.item)
    if item is None or not row.unit or not item.unit:
        return True
    theirs, ours = quantity_kind(ucum(row.unit) or ""), quantity_kind(item.unit)
    return theirs is None or ours is None or theirs == ours
