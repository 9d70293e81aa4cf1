"""The unified catalogue: items, panels and coverage edges, read once from ``profiles/``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import orjson
from stdnum.iso7064 import mod_37_36

from gateway.errors import Category, GatewayError
from gateway.terminology.systems import ITEMS, LOINC, PANELS

_COVERAGE = {"narrower": "full", "inexact": "advisory", "disjoint": "none"}


@dataclass(frozen=True, slots=True)
class Item:
    """One unified item. Empty strings are "does not apply"; ``loinc`` is set only where LOINC's code is equivalent."""

    code: str
    domain: str  # "exam" or "test"
    category: str  # CT, MR, HM …: ``profiles/CodeSystem-recognition-category.json``
    name_zh: str
    name_en: str
    specimen: str = ""
    modality: str = ""  # DICOM modality
    body_site: str = ""
    sided: bool = False  # ordered for left, right or both
    contrast: str = ""  # none, with, both, na
    result_type: str = ""  # Q quantity, O ordinal, T text, C culture, report
    unit: str = ""  # UCUM
    panels: tuple[str, ...] = ()
    validity_days: int = 0
    rapid_change: bool = False
    note: str = ""
    loinc: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """An order panel and the items that it contains, in the order of its report.

    ``core``: the members without which an earlier panel does not cover the order; empty: all of them.
    ``same_session``: a function test, whose members count only when they were taken in one encounter.
    """

    code: str
    name_zh: str
    name_en: str
    members: tuple[str, ...]
    core: tuple[str, ...] = ()
    same_session: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """An earlier item (``prior``) that covers another order: ``full``, ``advisory`` or ``none``, with the reason."""

    prior: str
    order: str
    coverage: str
    reason: str


def check_item_code(code: str, where: str = "") -> str:
    """The code, when its last character is right (ISO 7064 MOD 37,36); INVALID names the place."""
    if not mod_37_36.is_valid(code):
        raise GatewayError(Category.INVALID,
                           "the check character of the unified item code is wrong; copy the code from the catalogue",
                           where)
    return code


class Catalogue:
    """Items and panels by code. Immutable after construction; ``catalogue()`` gives the shipped one."""

    def __init__(self, items: Iterable[Item], panels: Iterable[Panel] = (), edges: Iterable[Edge] = (),
                 version: str = "") -> None:
        self.version = version
        self.items: Mapping[str, Item] = MappingProxyType({item.code: item for item in items})
        self.panels: Mapping[str, Panel] = MappingProxyType({panel.code: panel for panel in panels})
        self.edges: tuple[Edge, ...] = tuple(edges)
        self._last: dict[str, str] = {}  # domain and category → the last serial
        for code in self.items:
            self._last[code[:3]] = max(code[3:6], self._last.get(code[:3], ""))
        self._of_loinc = {item.loinc: item.code for item in self.items.values() if item.loinc}

    @classmethod
    def read(cls, items: Mapping[str, Any], panels: Mapping[str, Any], loinc: Mapping[str, Any],
             coverage: Mapping[str, Any]) -> Catalogue:
        """A catalogue from its four FHIR resources, as ``profiles/`` holds them."""
        equivalent = {element["code"]: target["code"]
                      for group in loinc["group"] for element in group["element"]
                      for target in element["target"] if target["equivalence"] == "equivalent"}
        return cls((_item(concept, equivalent.get(concept["code"], "")) for concept in items["concept"]),
                   (_panel(concept) for concept in panels["concept"]),
                   (Edge(element["code"], target["code"], _COVERAGE[target["equivalence"]], target["comment"])
                    for group in coverage["group"] for element in group["element"] for target in element["target"]),
                   items["version"])

    def display(self, code: str, language: str = "zh") -> str | None:
        """The name of an item or a panel, in Chinese or (``en``) English; None when there is no such code."""
        found = self.items.get(code) or self.panels.get(code)
        return (found.name_en if language.startswith("en") else found.name_zh) if found else None

    def loinc_of(self, code: str) -> str | None:
        """LOINC's code for an item, only where the map says ``equivalent``."""
        item = self.items.get(code)
        return item.loinc or None if item else None

    def of_loinc(self, loinc: str) -> str | None:
        """The item that a LOINC code is equivalent to; None when there is none."""
        return self._of_loinc.get(loinc)

    def may_be_later(self, code: str) -> bool:
        """Whether a code continues the serials of a known category: then a later version may have that item."""
        last = self._last.get(code[:3], "")
        return bool(last) and len(code) == 7 and code[3:6].isdecimal() and code[3:6] > last \
            and mod_37_36.is_valid(code)

    def members(self, panel: str) -> tuple[str, ...]:
        """The items of a panel; empty when there is no such panel."""
        found = self.panels.get(panel)
        return found.members if found else ()

    def codings(self, code: str, *, loinc: bool = True) -> list[dict[str, str]]:
        """FHIR Codings of an item or a panel: ours, then LOINC's where it is sure; empty when there is no such code.

        An item that only a later version may have stands without a name, for this one has none.
        """
        if item := self.items.get(code):
            own = {"system": ITEMS, "code": code, "display": item.name_zh}
            return [own, {"system": LOINC, "code": item.loinc}] if loinc and item.loinc else [own]
        if panel := self.panels.get(code):
            return [{"system": PANELS, "code": code, "display": panel.name_zh}]
        return [{"system": ITEMS, "code": code}] if self.may_be_later(code) else []


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The catalogue that ships with the program, read at the first call."""
    folder = resources.files("profiles")
    return Catalogue.read(*(orjson.loads((folder / name).read_bytes()) for name in (
        "CodeSystem-recognition-item.json", "CodeSystem-recognition-panel.json",
        "ConceptMap-recognition-item-loinc.json", "ConceptMap-recognition-coverage.json")))


def _properties(concept: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Property code → values, a Coding by its code."""
    found: dict[str, list[Any]] = {}
    for prop in concept.get("property", ()):
        value = next(value for key, value in prop.items() if key != "code")
        found.setdefault(prop["code"], []).append(value["code"] if isinstance(value, dict) else value)
    return found


def _english(concept: Mapping[str, Any]) -> str:
    return next((d["value"] for d in concept.get("designation", ()) if d.get("language") == "en"), concept["display"])


def _item(concept: Mapping[str, Any], loinc: str) -> Item:
    got = _properties(concept)

    def one(name: str, default: Any = "") -> Any:
        return got[name][0] if name in got else default

    return Item(code=concept["code"], domain=one("domain"), category=one("category"), name_zh=concept["display"],
                name_en=_english(concept), specimen=one("specimen"), modality=one("modality"),
                body_site=one("body-site"), sided=one("sided", False), contrast=one("contrast"),
                result_type=one("result-type"), unit=one("unit"), panels=tuple(got.get("panel", ())),
                validity_days=one("validity-days", 0), rapid_change=one("rapid-change", False), note=one("note"),
                loinc=loinc)


def _panel(concept: Mapping[str, Any]) -> Panel:
    got = _properties(concept)
    return Panel(concept["code"], concept["display"], _english(concept), tuple(got.get("member", ())),
                 tuple(got.get("core", ())), got.get("same-session", [False])[0])
