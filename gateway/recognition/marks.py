"""The mark that a qualified item's result carries: region and HR, such as 浙江省HR. Pure.

It is set when a result comes in, by the qualifications that its institution had on the day of the exam: as ``meta.tag``
for search, and, where tag and code do not say it all (a qualification with a period, several items), as an extension
with region, item and period. Most results need none: it was a fifth of the text of every Observation.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from gateway.recognition.rules import Period, Qualification, RuleSet
from gateway.source import Resource
from gateway.terminology import BASE, ITEMS, PANELS

SYSTEM = f"{BASE}/CodeSystem/recognition-mark"
EXTENSION = f"{BASE}/StructureDefinition/recognition-mark"
REGIONS = f"{BASE}/CodeSystem/recognition-region"
TYPES = ("Observation", "DiagnosticReport", "ImagingStudy")

_UNIFIED = frozenset((ITEMS, PANELS))
_MOST = 50_000  # remembered marks of one version; then it begins anew


def code_of(region: str) -> str:
    """The code of a region's mark: ``330000HR``."""
    return f"{region}HR"


class Marks:
    """Sets marks; remembers those of an institution, item and day for as long as one version holds."""

    def __init__(self, timezone: str) -> None:
        self._zone = ZoneInfo(timezone)
        self._rules: RuleSet | None = None
        self._known: dict[tuple[str, str, date], _Mark | None] = {}

    def set(self, resources: Iterable[Resource], institution: str, rules: RuleSet) -> None:
        """Mark those results of an institution that were qualified; others stay as they are."""
        known = self._known
        if rules is not self._rules or len(known) > _MOST:
            known = self._known = {}
            self._rules = rules
        before, day = None, None  # of the last result: those of one report mostly have one time
        for resource in resources:
            if resource["resourceType"] not in TYPES or resource.get("status") == "entered-in-error" \
                    or not (items := _items(resource)):
                continue
            if (when := _when(resource)) != before:
                before, day = when, _local_day(when, self._zone) if when else None
            if day is None:
                continue
            found: list[_Mark] = []
            for system, item in items:
                key = (institution, item, day)
                if key not in known:
                    known[key] = _mark(rules, institution, system, item, day)
                if (mark := known[key]) is not None:
                    found.append(mark)
            if found:
                _put(resource, found, len(items) > 1)


_Mark = tuple[list[dict[str, str]], list[dict[str, Any]], bool]  # tags, extensions, whether one has a period


def _items(resource: Resource) -> list[tuple[str, str]]:
    """System and code of the unified items and panels of a result, each once."""
    found = []
    for concept in (resource["code"],) if "code" in resource else resource.get("procedureCode", ()):
        for coding in concept.get("coding", ()):
            if (system := coding.get("system")) in _UNIFIED:
                found.append((system, coding["code"]))
    return found if len(found) < 2 else list(dict.fromkeys(found))


def _when(resource: Resource) -> str | None:
    """The time of the exam: collection or acquisition, never the report's."""
    when: str | None = resource.get("effectiveDateTime") or resource.get("started")
    if when is None and (period := resource.get("effectivePeriod")):
        when = period.get("start")
    return when


@lru_cache(maxsize=8192)
def _local_day(text: str, zone: ZoneInfo) -> date | None:
    """None where the day itself is not known (a year, a month)."""
    try:
        if len(text) <= 10:
            return date.fromisoformat(text) if len(text) == 10 else None
        return datetime.fromisoformat(text).astimezone(zone).date()
    except ValueError:  # a leap second
        return None


def _mark(rules: RuleSet, institution: str, system: str, item: str, day: date) -> _Mark | None:
    """One tag and one extension for each region for which the institution was qualified on the day."""
    tags: dict[str, dict[str, str]] = {}
    extensions: dict[str, dict[str, Any]] = {}
    limited = False
    for row in rules.qualifications_of(institution, item, day):
        region = rules.regions.get(row.region)
        if region is None or not region.mark or not region.period.holds(day) or region.code in tags:
            continue
        tags[region.code] = {"system": SYSTEM, "code": code_of(region.code), "display": region.mark}
        extensions[region.code] = _extension(row, region.name_zh, system, item)
        limited = limited or _period(row.period) != {}
    return (list(tags.values()), list(extensions.values()), limited) if tags else None


def _extension(row: Qualification, name: str, system: str, item: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"url": "region", "valueCoding": {"system": REGIONS, "code": row.region, "display": name}},
        {"url": "item", "valueCoding": {"system": system, "code": item}}]
    if period := _period(row.period):
        parts.append({"url": "period", "valuePeriod": period})
    return {"url": EXTENSION, "extension": parts}


def _period(period: Period) -> dict[str, str]:
    found = {"start": period.begin, "end": period.end}
    return {name: day.isoformat() for name, day in found.items() if day is not None}


def _put(resource: Resource, marks: list[_Mark], several: bool) -> None:
    """New lists and a new meta: a conversion may share its own among resources. What is put in is never changed."""
    tags, extensions, limited = marks[0]
    if len(marks) > 1:
        tags = list({tag["code"]: tag for tags, _, _ in marks for tag in tags}.values())
        extensions = [extension for _, extensions, _ in marks for extension in extensions]
    meta = resource.get("meta", {})
    resource["meta"] = {**meta, "tag": [*meta["tag"], *tags] if "tag" in meta else tags}
    if several or limited:
        resource["extension"] = [*resource.get("extension", ()), *extensions]
