"""Whether the tables of a version agree with each other and with the versions before. Pure.

Only the lines that a version brings are examined; what they name may stand in a table that it took over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stdnum.iso7064 import mod_37_36

from gateway.recognition.rules import ALL, SETTINGS, STATES, Period, Region, RuleSet
from gateway.terminology import Edge, Item, Panel

if TYPE_CHECKING:
    from gateway.recognition.tables import Faults, Given, Placed

_ITEM = re.compile(r"[ET][A-Z]{2}[0-9]{3}[0-9A-Z]", re.ASCII)
_PANEL = re.compile(r"P-[A-Z0-9]{1,12}", re.ASCII)
_REGION = re.compile(r"[A-Za-z0-9]{1,12}", re.ASCII)
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,80}", re.ASCII)
_REASON = re.compile(r"[A-Z][A-Z0-9]{0,15}", re.ASCII)
#: http://terminology.hl7.org/CodeSystem/v3-ActCode, value set ActEncounterCode
CARE_SETTINGS = ("AMB", "EMER", "FLD", "HH", "IMP", "ACUTE", "NONAC", "OBSENC", "PRENC", "SS", "VR")
#: What an item's code means: none of it may change under the same code.
_MEANING = ("domain", "category", "specimen", "body_site")


def check(rules: RuleSet, given: Given, earlier: Sequence[RuleSet], institutions: Collection[str] | None,
          faults: Faults) -> None:
    """Note every disagreement; see the module."""
    _Check(rules, given, earlier, institutions, faults).run()


class _Check:
    def __init__(self, rules: RuleSet, given: Given, earlier: Sequence[RuleSet], institutions: Collection[str] | None,
                 faults: Faults) -> None:
        self.rules, self.given, self.earlier, self.faults = rules, given, earlier, faults
        self.items, self.panels = rules.catalogue.items, rules.catalogue.panels
        self.categories = {item.category for item in self.items.values()}
        self.hospitals = None if institutions is None else {*institutions, *rules.institutions}

    def run(self) -> None:
        self.check_items()
        self.check_panels()
        self.check_members()
        self.check_edges()
        self.check_regions()
        self.check_institutions()
        for name in ("windows.tsv", "prices.tsv", "settings.tsv"):
            for row in self.given.of(name):
                self.scope(row.where, row.value.scope)
                self.selector(row.where, row.value.item)
        for row in self.given.of("windows.tsv"):
            if row.value.setting not in ("", *CARE_SETTINGS):
                self.faults.add(row.where, f"setting '{row.value.setting}' is no class of encounter; one of "
                                + ", ".join(CARE_SETTINGS))
        self.check_qualifications()
        self.check_reasons()
        self.check_settings()
        self.check_settlements()
        self.check_overlaps()

    # ---------------------------------------------------------------- items, panels

    def check_items(self) -> None:
        names: dict[str, str] = {}
        self.once("items.tsv", lambda item: item.code)
        meant = {code: (old.version, item) for old in self.earlier for code, item in old.catalogue.items.items()}
        for row, cells in zip(self.given.of("items.tsv"), self.given.rows.get("items.tsv", ()), strict=True):
            item: Item = row.value
            self._check_code(row.where, item)
            name = cells.get("category_zh", "")
            if names.setdefault(item.category, name) != name:
                self.faults.add(row.where, f"category {item.category} has two names")
            if item.code in meant:
                version, old = meant[item.code]
                changed = [part for part in _MEANING if getattr(old, part) != getattr(item, part)]
                if changed:
                    self.faults.add(row.where, f"{item.code} meant something else in version {version} "
                                    f"({', '.join(changed)}); a code is never used again: give it a new one")

    def _check_code(self, where: str, item: Item) -> None:
        code = item.code
        if not code:
            return
        if not _ITEM.fullmatch(code):
            self.faults.add(where, f"{code} is no unified item code: E or T, two letters, three digits, a check "
                                   "character")
        elif not mod_37_36.is_valid(code):
            right = mod_37_36.calc_check_digit(code[:-1])
            self.faults.add(where, f"the check character of {code} is wrong; for {code[:-1]} it is {right}")
        elif code[1:3] != item.category or {"E": "exam", "T": "test"}[code[0]] != item.domain:
            self.faults.add(where, f"{code} does not fit its domain and category")

    def check_panels(self) -> None:
        self.once("panels.tsv", lambda panel: panel.code)
        for row in self.given.of("panels.tsv"):
            panel: Panel = row.value
            if panel.code and not _PANEL.fullmatch(panel.code):
                self.faults.add(row.where, f"{panel.code} is no panel code: P- and capital letters or digits")
            for member in panel.members:
                if member not in self.items:
                    self.faults.add(row.where, f"member {member} is no item")
            for member in panel.core:
                if member not in panel.members:
                    self.faults.add(row.where, f"core names {member}, which is no member")

    def check_members(self) -> None:
        """An item's panels and a panel's members tell the same story, in whichever table they were given."""
        places = {row.value.code: row.where for name in ("items.tsv", "panels.tsv") for row in self.given.of(name)}
        for code, item in self.items.items():
            for panel in item.panels:
                if panel not in self.panels or code not in self.panels[panel].members:
                    self.faults.add(places.get(code) or places.get(panel, "panels.tsv"),
                                    f"parent_panel of {code} names {panel}, whose members do not name it")
        for code, panel_ in self.panels.items():
            for member in panel_.members:
                if member in self.items and code not in self.items[member].panels:
                    self.faults.add(places.get(code) or places.get(member, "items.tsv"),
                                    f"{code} has the member {member}, whose parent_panel does not name {code}")

    # ---------------------------------------------------------------- coverage

    def check_edges(self) -> None:
        self.once("coverage-edges.tsv", lambda edge: (edge.prior, edge.order))
        for row, cells in zip(self.given.of("coverage-edges.tsv"), self.given.rows.get("coverage-edges.tsv", ()),
                              strict=True):
            for side in ("prior", "order"):
                code, name = cells[f"{side}_code"], cells.get(f"{side}_name", "")
                item = self.items.get(code)
                if code and item is None:
                    self.faults.add(row.where, f"{side}_code {code} is no item")
                elif item and name and name != item.name_zh:
                    self.faults.add(row.where, f"{side}_name is not the name of {code}")
        places = {(row.value.prior, row.value.order): row.where for row in self.given.of("coverage-edges.tsv")}
        for edge in self.rules.catalogue.edges:
            for code in (edge.prior, edge.order):
                if code not in self.items and (edge.prior, edge.order) not in places:  # the edge was taken over
                    self.faults.add("items.tsv", f"{code} is missing: coverage of the base names it "
                                                 f"({edge.prior} → {edge.order})")
        self._check_coverage(self.rules.catalogue.edges, places)

    def _check_coverage(self, edges: Iterable[Edge], places: Mapping[tuple[str, str], str]) -> None:
        full: dict[str, list[str]] = {}
        for edge in edges:
            if edge.coverage == "full":
                full.setdefault(edge.prior, []).append(edge.order)
        for cycle in cycles(full):
            where = next((places[step] for step in zip(cycle, cycle[1:], strict=False) if step in places),
                         "coverage-edges.tsv")
            self.faults.add(where, f"full coverage goes in a circle: {' → '.join(cycle)}")
        for edge in edges:
            if edge.coverage == "none" and (path := reach(full, edge.prior, edge.order)):
                self.faults.add(places.get((edge.prior, edge.order), "coverage-edges.tsv"),
                                f"{edge.prior} does not cover {edge.order} (none), but full edges say that it does: "
                                + " → ".join(path))

    # ---------------------------------------------------------------- where

    def check_regions(self) -> None:
        self.once("regions.tsv", lambda region: region.code)
        parents = {code: [region.parent] for code, region in self.rules.regions.items() if region.parent}
        places = {row.value.code: row.where for row in self.given.of("regions.tsv")}
        for row in self.given.of("regions.tsv"):
            region: Region = row.value
            if region.parent and region.parent not in self.rules.regions:
                self.faults.add(row.where, f"parent {region.parent} is no region")
            if region.code and not _REGION.fullmatch(region.code):
                self.faults.add(row.where, "a region's code is 1 to 12 letters and digits, such as 330100")
        for cycle in cycles(parents):
            self.faults.add(next((places[code] for code in cycle if code in places), "regions.tsv"),
                            f"regions lie in a circle: {' → '.join(cycle)}")

    def check_institutions(self) -> None:
        self.once("institutions.tsv", lambda institution: institution.slug)
        for row in self.given.of("institutions.tsv"):
            if row.value.slug and not _SLUG.fullmatch(row.value.slug):
                self.faults.add(row.where, "institution must be a slug of a-z, 0-9 and '-'")
            self.region(row.where, row.value.region)

    def check_qualifications(self) -> None:
        for row in self.given.of("qualifications.tsv"):
            if row.value.institution == ALL:
                self.faults.add(row.where, "a qualification belongs to one institution; '*' is none")
            else:
                self.institution(row.where, row.value.institution)
            self.region(row.where, row.value.region)
            self.selector(row.where, row.value.item)
        for row in self.given.of("negative.tsv"):
            self.region(row.where, row.value.region)
            self.selector(row.where, row.value.item)
            if row.value.institution != ALL:
                self.institution(row.where, row.value.institution)

    def region(self, where: str, code: str) -> None:
        if code and code not in self.rules.regions:
            self.faults.add(where, f"region {code} is not in regions.tsv")

    def institution(self, where: str, slug: str) -> None:
        if slug and self.hospitals is not None and slug not in self.hospitals:
            self.faults.add(where, f"institution {slug} is neither in institutions.tsv nor a hospital of this gateway")

    def scope(self, where: str, scope: str) -> None:
        """A region, an institution, or ``institution/department``."""
        slug, slash, department = scope.partition("/")
        if slash and not department:
            self.faults.add(where, f"scope '{scope}' names no department after '/'")
        if not scope or (scope in self.rules.regions):
            return
        if not slash and self.hospitals is not None and slug not in self.hospitals:
            self.faults.add(where, f"scope {scope} is no region and no institution that is known here")
        elif slash:
            self.institution(where, slug)

    def selector(self, where: str, item: str) -> None:
        if item and item != ALL and item not in self.categories and not self.rules.knows(item):
            self.faults.add(where, f"{item} is no item, panel or category, and not *")

    # ---------------------------------------------------------------- choices

    def check_reasons(self) -> None:
        for row in self.given.of("reasons.tsv"):
            self.region(row.where, row.value.region)
            if row.value.code and not _REASON.fullmatch(row.value.code):
                self.faults.add(row.where, "a reason's code is a capital letter, then capital letters or digits: R1")
            for state in row.value.preselected_by:
                if state not in STATES:
                    self.faults.add(row.where, f"preselected_by {state} is no state; one of {', '.join(STATES)}")

    def check_settings(self) -> None:
        for row in self.given.of("settings.tsv"):
            known = SETTINGS.get(row.value.key)
            if known is None:
                self.faults.add(row.where, f"unknown setting '{row.value.key}'; one of {', '.join(SETTINGS)}")
            elif known[1] and row.value.value not in known[1]:
                self.faults.add(row.where, f"{row.value.key} must be one of {', '.join(known[1])}")

    def check_settlements(self) -> None:
        self.once("settlement.tsv", lambda rule: (rule.region, rule.version))
        for row in self.given.of("settlement.tsv"):
            self.region(row.where, row.value.region)
            for item in row.value.items:
                self.selector(row.where, item)

    def check_overlaps(self) -> None:
        """On no day may two lines of one key hold."""
        keys: Mapping[str, Any] = {
            "windows.tsv": lambda row: (row.scope, row.item, row.setting),
            "prices.tsv": lambda row: (row.scope, row.item),
            "reasons.tsv": lambda row: (row.region, row.code),
            "settings.tsv": lambda row: (row.scope, row.item, row.key),
            "settlement.tsv": lambda row: (row.region,)}
        for name, key in keys.items():
            found: dict[Hashable, list[Placed]] = {}
            for row in self.given.of(name):
                others = found.setdefault(key(row.value), [])
                period: Period = row.value.period
                clash = next((other for other in others if other.value.period.meets(period)), None)
                if clash is not None:
                    self.faults.add(row.where, f"the same as {clash.where} ({', '.join(filter(None, key(row.value)))}) "
                                    "at an overlapping time; end one before the other begins")
                others.append(row)

    def once(self, name: str, key: Any) -> None:
        """A key stands in one line only."""
        first: dict[Hashable, str] = {}
        for row in self.given.of(name):
            value = key(row.value)
            if not all(value if isinstance(value, tuple) else (value,)):
                continue  # the empty cell was refused already
            if value in first:
                said = " → ".join(value) if isinstance(value, tuple) else value
                self.faults.add(row.where, f"{said} stands twice; the first is {first[value]}")
            first.setdefault(value, row.where)


def cycles(edges: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The circles of a graph, one for each edge that closes one: ``[a, b, a]``."""
    found: list[list[str]] = []
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, int]] = [(start, 0)] if start not in done else []
        while stack:
            node, index = stack.pop()
            if index == 0:
                path.append(node)
                on_path.add(node)
            following = edges.get(node, ())
            if index < len(following):
                stack.append((node, index + 1))
                other = following[index]
                if other in on_path:
                    found.append([*path[path.index(other):], other])
                elif other not in done:
                    stack.append((other, 0))
            else:
                done.add(node)
                path.pop()
                on_path.discard(node)
    return found


def reach(edges: Mapping[str, Sequence[str]], start: str, goal: str) -> list[str]:
    """A shortest way through the graph, empty where there is none."""
    before: dict[str, str] = {start: ""}
    queue = [start]
    for node in queue:
        if node == goal and node != start:
            path = [node]
            while before[path[-1]]:
                path.append(before[path[-1]])
            return path[::-1]
        for other in edges.get(node, ()):
            if other not in before:
                before[other] = node
                queue.append(other)
    return []
