"""RuleSet from its tables: UTF-8, tab-separated, a header line; what is wrong is refused with table and line. Pure.

The tables and their columns stand in `TABLES` and in README.md. Nothing stops at the first fault: ``Refused`` holds
all of them, so that an editor corrects a table once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from gateway.errors import GatewayError
from gateway.fhir.outcome import InvalidResource, Issue
from gateway.recognition.rules import (
    ALL,
    Institution,
    Negative,
    Period,
    Price,
    Qualification,
    Reason,
    Region,
    RuleSet,
    Setting,
    SettlementRule,
    Window,
)
from gateway.terminology import Catalogue, Edge, Item, Panel
from profiles import build


class Table(NamedTuple):
    """Columns of a table, by whether they must be there."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return self.required + self.optional


_VALID = ("valid_from", "valid_to", "note")
HEAD = "catalogue.toml"
ITEMS, PANELS, EDGES = "items.tsv", "panels.tsv", "coverage-edges.tsv"
#: File name → its columns; README.md says what each means.
TABLES: Mapping[str, Table] = {
    ITEMS: Table(("unified_code", "domain", "category", "name_zh", "name_en", "default_validity_days"),
                 ("category_zh", "specimen", "modality", "body_site", "laterality", "contrast", "result_type",
                  "unit_ucum", "loinc", "loinc_confidence", "parent_panel", "published_days_wuhan",
                  "published_min_retest_uk", "rapid_change", "note")),
    PANELS: Table(("panel_code", "name_zh", "name_en", "members"),
                  ("loinc_panel", "member_count", "core", "same_session", "note")),
    EDGES: Table(("prior_code", "order_code", "coverage", "reason"), ("prior_name", "order_name", "note")),
    "regions.tsv": Table(("region", "parent", "name_zh", "name_en"), ("mark", *_VALID)),
    "institutions.tsv": Table(("institution", "name_zh", "region"), ("name_en", "level", "note")),
    "windows.tsv": Table(("scope", "item"), ("days", "hours", "setting", *_VALID)),
    "qualifications.tsv": Table(("institution", "item", "region"), _VALID),
    "negative.tsv": Table(("region", "institution", "item"), ("reason", *_VALID)),
    "reasons.tsv": Table(("region", "code", "text_zh", "text_en", "counts"),
                         ("needs_text", "availability", "preselected_by", *_VALID)),
    "prices.tsv": Table(("scope", "item", "price", "fund"), _VALID),
    "settings.tsv": Table(("scope", "key", "value"), ("item", *_VALID)),
    "settlement.tsv": Table(("region", "version", "share", "schemes", "items"), _VALID),
}
_HEAD_KEYS = ("version", "effective", "title", "base")
_VERSION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,30}[A-Za-z0-9])?", re.ASCII)  # part of a resource's id
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)


class Refused(InvalidResource):
    """INVALID with every fault of the tables: each issue's ``where`` is ``items.tsv:12``."""


class Faults:
    """What is wrong with tables, in the order in which it is found."""

    def __init__(self) -> None:
        self.issues: list[Issue] = []

    def add(self, where: str, sentence: str) -> None:
        self.issues.append(Issue("invalid", sentence, where))

    def raise_any(self) -> None:
        if self.issues:
            raise Refused(self.issues)


@dataclass(frozen=True, slots=True)
class Head:
    """What a version says of itself (``catalogue.toml``, or the Library's own elements)."""

    version: str
    effective: date
    title: str = ""
    base: str = ""  # the version whose tables are taken over where this one has none


class Placed(NamedTuple):
    """A value of a table, and where it stands."""

    where: str
    value: Any


@dataclass(slots=True)
class Given:
    """The values of the tables that a version brings, by file name; before anything is known of their agreement."""

    tables: dict[str, list[Placed]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # cells of items, panels and edges

    def of(self, name: str) -> list[Placed]:
        return self.tables.get(name, [])


def ruleset_from_tables(files: Mapping[str, bytes], earlier: Iterable[RuleSet] = (), head: Head | None = None,
                        institutions: Collection[str] | None = None) -> RuleSet:
    """The version that tables make; `Refused` with all that is wrong.

    ``earlier``: the versions that are there, for ``base`` and because a code is never used again. ``head``: instead of
    ``catalogue.toml``. ``institutions``: slugs that may be named beside those of ``institutions.tsv``; None: any.
    """
    return read(files, earlier, head, institutions)[0]


def read(files: Mapping[str, bytes], earlier: Iterable[RuleSet] = (), head: Head | None = None,
         institutions: Collection[str] | None = None, faults: Faults | None = None) -> tuple[RuleSet, Given]:
    """As ``ruleset_from_tables``, with what the tables themselves held; ``faults``: those that were found before."""
    from gateway.recognition import consistency

    faults = faults or Faults()
    head = head or read_head(files.get(HEAD), faults)
    given = read_tables(files, faults)
    if head is None:
        faults.raise_any()
        raise AssertionError("a head that cannot be read leaves a fault")
    known = {rules.version: rules for rules in earlier}
    base = known.get(head.base)
    if head.base and base is None:
        faults.add(HEAD, f"base '{head.base}' is no version that is loaded; {_nearest(head.base, known)}")
    for name in (ITEMS, PANELS, EDGES, "regions.tsv", "reasons.tsv"):
        if not head.base and name not in files:
            faults.add(name, f"there is no {name}; add it, or name a base in {HEAD}")
    rules = _assembled(head, given, base)
    consistency.check(rules, given, list(known.values()), institutions, faults)
    faults.raise_any()
    return rules, given


def read_head(raw: bytes | None, faults: Faults, instead: Mapping[str, object] | None = None) -> Head | None:
    """``catalogue.toml``, with ``instead`` in place of some of its values; None when it cannot be read."""
    if raw is None and not instead:
        faults.add(HEAD, f"there is no {HEAD}; it says version and effective day")
        return None
    try:
        values: dict[str, object] = tomllib.loads(raw.decode("utf-8-sig")) if raw else {}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        faults.add(HEAD, f"this is no TOML in UTF-8: {error}")
        return None
    values |= instead or {}
    for key in values.keys() - set(_HEAD_KEYS):
        faults.add(HEAD, f"unknown key '{key}'; {_nearest(key, _HEAD_KEYS)}")
    for key in ("version", "title", "base"):
        if not isinstance(values.setdefault(key, ""), str):
            faults.add(HEAD, f"{key} must be a text in quotes")
            return None
    return head_of(str(values["version"]), values.get("effective"), str(values["title"]), str(values["base"]), HEAD,
                   faults)


def head_of(version: str, effective: object, title: str, base: str, where: str, faults: Faults) -> Head | None:
    """A head of checked values; None, and the faults, where version or effective day are missing or wrong."""
    before = len(faults.issues)
    if not _VERSION.fullmatch(version):
        faults.add(where, "version must be 1 to 32 letters, digits, '.' or '-', such as \"2026.2\"")
    if isinstance(effective, str):
        effective = _date(effective)
    if type(effective) is not date:
        faults.add(where, "effective must be the day on which the version takes effect, such as 2026-12-01")
    if base == version and base:
        faults.add(where, "base must be another version")
    if len(faults.issues) > before or type(effective) is not date:
        return None
    return Head(version, effective, title.strip(), base)


# ---------------------------------------------------------------------------------------------------- lines

def read_tables(files: Mapping[str, bytes], faults: Faults) -> Given:
    """Every line as a value; faults are those that one line shows by itself."""
    given = Given()
    for name in files:
        if name != HEAD and name not in TABLES:
            faults.add(name, f"this is no table of the catalogue; {_nearest(name, TABLES)}")
    for name, make in _MAKERS.items():
        if name in files:
            lines = _lines(name, files[name], faults)
            if name in (ITEMS, PANELS, EDGES):
                given.rows[name] = [line.cells for line in lines]
            given.tables[name] = [Placed(line.where, make(line)) for line in lines]
    return given


@dataclass(slots=True)
class Line:
    """A line of a table; the getters note what is wrong and answer with a value that does no further harm."""

    where: str
    cells: dict[str, str]
    faults: Faults

    def wrong(self, sentence: str) -> None:
        self.faults.add(self.where, sentence)

    def text(self, column: str) -> str:
        return self.cells.get(column, "")

    def need(self, column: str) -> str:
        """A cell that must not be empty."""
        value = self.text(column)
        if not value:
            self.wrong(f"{column} is empty")
        return value

    def one_of(self, column: str, values: Collection[str]) -> str:
        value = self.text(column)
        if value not in values:
            self.wrong(f"{column} must be one of {', '.join(v or '(empty)' for v in values)}")
        return value

    def flag(self, column: str) -> bool:
        """Y or N; empty is N."""
        value = self.text(column)
        if value not in ("", "Y", "N"):
            self.wrong(f"{column} must be Y or N")
        return value == "Y"

    def several(self, column: str) -> tuple[str, ...]:
        """Values between semicolons, each once."""
        values = tuple(part.strip() for part in self.text(column).split(";") if part.strip())
        if len(set(values)) < len(values):
            self.wrong(f"{column} names {next(v for v in values if values.count(v) > 1)} twice")
        return tuple(dict.fromkeys(values))

    def count(self, column: str) -> int:
        """A whole number; empty is 0."""
        value = self.text(column)
        if value and not (value.isascii() and value.isdecimal() and len(value) <= 6):
            self.wrong(f"{column} must be a whole number, not negative")
            return 0
        return int(value or 0)

    def decimal(self, column: str, most: Decimal | None = None, places: int = 6) -> Decimal:
        """An exact decimal that is not negative; no exponent, no NaN."""
        value = self.need(column)
        if not value:
            return Decimal(0)
        found = Decimal(value) if _DECIMAL.fullmatch(value) else None
        if found is None or len(value.partition(".")[2]) > places:
            self.wrong(f"{column} must be a decimal such as 12.50, without sign or exponent, of at most {places} "
                       "decimal places")
            return Decimal(0)
        if most is not None and found > most:
            self.wrong(f"{column} must be between 0 and {most}")
            return Decimal(0)
        return found

    def day(self, column: str) -> date | None:
        value = self.text(column)
        found = _date(value)
        if value and found is None:
            self.wrong(f"{column} must be a day such as 2026-12-01")
        return found

    def period(self) -> Period:
        """``valid_from`` to ``valid_to``, both included."""
        begin, end = self.day("valid_from"), self.day("valid_to")
        if begin and end and end < begin:
            self.wrong("valid_to is before valid_from")
            return Period(begin, begin)
        return Period(begin, end)


def _lines(name: str, raw: bytes, faults: Faults) -> list[Line]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        faults.add(f"{name}:{raw[:error.start].count(10) + 1}", "this is not UTF-8; save the table as UTF-8")
        return []
    lines = text.replace("\r\n", "\n").split("\n")
    header = [cell.strip() for cell in lines[0].split("\t")]
    table = TABLES[name]
    before = len(faults.issues)
    for column in header:
        if column not in table.columns:
            faults.add(f"{name}:1", f"unknown column '{column}'; {_nearest(column, table.columns)}")
        elif header.count(column) > 1:
            faults.add(f"{name}:1", f"column '{column}' stands twice")
    for column in table.required:
        if column not in header:
            faults.add(f"{name}:1", f"column '{column}' is missing")
    if len(faults.issues) > before:
        return []
    found = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        where = f"{name}:{number}"
        if len(cells) > len(header):
            faults.add(where, f"this line has {len(cells)} cells, the header {len(header)}")
            continue
        cells += [""] * (len(header) - len(cells))
        found.append(Line(where, dict(zip(header, cells, strict=True)), faults))
    return found


@lru_cache(maxsize=1024)
def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) else None
    except ValueError:
        return None


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [k for k in known if k], n=1, cutoff=0)
    return f"did you mean '{near[0]}'?" if near else "there is none"


# ---------------------------------------------------------------------------------------------------- values

def _item(line: Line) -> Item:
    confidence = line.one_of("loinc_confidence", ("", "checked", "read", "loose", "unchecked"))
    loinc, note = line.text("loinc"), line.text("note")
    if bool(loinc) != bool(confidence):
        line.wrong("loinc and loinc_confidence go together")
    remarks = [equivalence for start, equivalence in build.NOTES.items() if note.startswith(start)]
    if note.startswith("LOINC") and not remarks and confidence not in ("", "unchecked"):
        line.wrong("a note that begins with LOINC must say one of: " + ", ".join(build.NOTES))
    sure = confidence in ("checked", "read") and not any(remarks)
    return Item(code=line.need("unified_code"), domain=line.one_of("domain", ("exam", "test")),
                category=line.need("category"), name_zh=line.need("name_zh"), name_en=line.need("name_en"),
                specimen=line.text("specimen"), modality=line.text("modality"), body_site=line.text("body_site"),
                sided=line.flag("laterality"), contrast=line.text("contrast"), result_type=line.text("result_type"),
                unit=line.text("unit_ucum"), panels=line.several("parent_panel"),
                validity_days=line.count("default_validity_days"), rapid_change=line.flag("rapid_change"), note=note,
                loinc=loinc if sure else "")


def _panel(line: Line) -> Panel:
    members = line.several("members")
    if not members:
        line.wrong("members is empty; name the items, with ';' between")
    if line.text("member_count") and line.count("member_count") != len(members):
        line.wrong("member_count is not the number of members")
    return Panel(line.need("panel_code"), line.need("name_zh"), line.need("name_en"), members, line.several("core"),
                 line.flag("same_session"))


def _edge(line: Line) -> Edge:
    return Edge(line.need("prior_code"), line.need("order_code"),
                line.one_of("coverage", ("full", "advisory", "none")), line.need("reason"))


def _region(line: Line) -> Region:
    return Region(line.need("region"), line.text("parent"), line.need("name_zh"), line.need("name_en"),
                  line.text("mark"), line.period())


def _institution(line: Line) -> Institution:
    level = line.count("level")
    if level > 3:
        line.wrong("level must be 1, 2 or 3 (tertiary), or empty")
    return Institution(line.need("institution"), line.need("name_zh"), line.text("name_en"), line.need("region"), level)


def _window(line: Line) -> Window:
    length = timedelta(days=line.count("days"), hours=line.count("hours"))
    if not length:
        line.wrong("a window must be longer than nothing; say days, hours or both")
    return Window(line.need("scope"), line.need("item"), length, line.text("setting"), line.period())


def _qualification(line: Line) -> Qualification:
    return Qualification(line.need("institution"), line.need("item"), line.need("region"), line.period())


def _negative(line: Line) -> Negative:
    return Negative(line.need("region"), line.need("institution"), line.need("item"), line.text("reason"),
                    line.period())


def _reason(line: Line) -> Reason:
    return Reason(line.need("region"), line.need("code"), line.need("text_zh"), line.need("text_en"),
                  line.one_of("counts", ("yes", "no", "reviewed")), line.flag("needs_text"), line.flag("availability"),
                  line.several("preselected_by"), line.period())


def _price(line: Line) -> Price:
    return Price(line.need("scope"), line.need("item"), line.decimal("price", places=2),
                 line.decimal("fund", Decimal(1)), line.period())


def _setting(line: Line) -> Setting:
    return Setting(line.need("scope"), line.text("item") or ALL, line.need("key"), line.need("value"), line.period())


def _settlement(line: Line) -> SettlementRule:
    schemes, items = line.several("schemes"), line.several("items")
    if not schemes or not items:
        line.wrong("schemes and items must name at least one each")
    return SettlementRule(line.need("region"), line.need("version"), line.decimal("share", Decimal(1)), schemes, items,
                          line.period())


_MAKERS: Mapping[str, Callable[[Line], Any]] = {
    ITEMS: _item, PANELS: _panel, EDGES: _edge, "regions.tsv": _region, "institutions.tsv": _institution,
    "windows.tsv": _window, "qualifications.tsv": _qualification, "negative.tsv": _negative, "reasons.tsv": _reason,
    "prices.tsv": _price, "settings.tsv": _setting, "settlement.tsv": _settlement}
_FIELDS = {"windows.tsv": "windows", "qualifications.tsv": "qualifications", "negative.tsv": "negatives",
           "reasons.tsv": "reasons", "prices.tsv": "prices", "settings.tsv": "settings",
           "settlement.tsv": "settlements"}

V = TypeVar("V")


def _assembled(head: Head, given: Given, base: RuleSet | None) -> RuleSet:
    """The version, with the base's tables where it brings none."""
    fields: dict[str, Any] = {}
    old = base.catalogue if base else Catalogue(())

    def values(name: str, taken: Iterable[V]) -> list[V]:
        return [row.value for row in given.of(name)] if name in given.tables else list(taken)

    panels: list[Panel] = values(PANELS, old.panels.values())
    catalogue = Catalogue(values(ITEMS, old.items.values()), panels, values(EDGES, old.edges), head.version)
    for name, attribute in _FIELDS.items():
        fields[attribute] = tuple(values(name, getattr(base, attribute) if base else ()))
    regions: list[Region] = values("regions.tsv", base.regions.values() if base else ())
    institutions: list[Institution] = values("institutions.tsv", base.institutions.values() if base else ())
    return RuleSet(version=head.version, effective=head.effective, title=head.title, catalogue=catalogue,
                   core={panel.code: frozenset(panel.core) for panel in panels if panel.core},
                   same_session=frozenset(panel.code for panel in panels if panel.same_session),
                   regions={region.code: region for region in regions},
                   institutions={row.slug: row for row in institutions}, **fields)


__all__ = ["EDGES", "HEAD", "ITEMS", "PANELS", "TABLES", "Faults", "GatewayError", "Given", "Head", "Placed", "Refused",
           "head_of", "read", "read_head", "read_tables", "ruleset_from_tables"]
