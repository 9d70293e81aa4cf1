"""One person's results from all hospitals as a page shows them: days, results, courses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from gateway.fhir.display import concluding, flag_of, institution_of, label, range_of, value_of, when_of
from gateway.terminology.systems import ITEMS, LOINC

__all__ = ["ITEM", "Course", "Day", "Entry", "Point", "Result", "courses", "days", "institution_of", "label",
           "result_of", "value_of", "when_of"]

ITEM = ITEMS
_SENTENCE = set("\n。；，")
_TEXT = 24  # a value longer than this is a text to read, not a cell of a table
_WIDE, _HIGH, _MARGIN = 300, 84, 8  # a course is drawn in these units


@dataclass(slots=True)
class Result:
    """One Observation as a row."""

    name: str
    value: str
    unit: str = ""
    reference: str = ""
    flag: str = ""
    text: bool = False


@dataclass(slots=True)
class Entry:
    """A report or a study on the time line."""

    kind: str  # "lab", "imaging" or "study"
    title: str
    institution: str
    when: str  # HH:MM, or empty
    status: str
    url: str
    conclusion: str = ""
    results: list[Result] = field(default_factory=list)
    texts: list[Result] = field(default_factory=list)
    modality: str = ""
    series: int = 0
    images: int = 0

    @property
    def flagged(self) -> list[Result]:
        """The rows that someone should look at first."""
        return [result for result in self.results if result.flag]


@dataclass(slots=True)
class Day:
    """Everything of one day, newest first."""

    day: str
    entries: list[Entry]


@dataclass(slots=True)
class Point:
    """A measurement of a course, placed in its drawing."""

    x: float
    y: float
    value: str
    day: str
    institution: str
    flag: str


@dataclass(slots=True)
class Course:
    """One unified item over time; ``band``: top and height of the newest reference range within the drawing."""

    name: str
    unit: str
    points: list[Point]
    institutions: list[str]
    band: tuple[float, float] | None = None

    @property
    def flagged(self) -> bool:
        """Whether any measurement was marked."""
        return any(point.flag for point in self.points)

    @property
    def line(self) -> str:
        """The points for an SVG polyline."""
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in self.points)


def days(reports: Iterable[dict[str, Any]], studies: Iterable[dict[str, Any]],
         observations: Mapping[str, dict[str, Any]]) -> list[Day]:
    """The time line, newest day first. ``observations`` by their reference ``Observation/id``."""
    rows = [(when_of(r), _report(r, observations)) for r in reports] + [(when_of(s), _study(s)) for s in studies]
    rows.sort(key=lambda row: (row[0], row[1].title), reverse=True)
    found: dict[str, list[Entry]] = {}
    for when, entry in rows:
        found.setdefault(when[:10], []).append(entry)
    return [Day(day, entries) for day, entries in found.items()]


def _report(report: dict[str, Any], observations: Mapping[str, dict[str, Any]]) -> Entry:
    categories = {c.get("code") for concept in report.get("category", ()) for c in concept.get("coding", ())}
    results = [result_of(o) for r in report.get("result", ()) if (o := observations.get(r.get("reference", "")))
               and not _is_identifier(o)]
    conclusion = str(report.get("conclusion", ""))
    twice = concluding([r.value for r in results], conclusion)
    results = [r for at, r in enumerate(results) if at not in twice]
    return Entry("imaging" if categories & {"RAD", "IMG", "RUS", "CT", "NMR"} else "lab", label(report.get("code")),
                 institution_of(report), when_of(report)[11:16], report.get("status", ""),
                 f"/fhir/DiagnosticReport/{report['id']}", conclusion,
                 [r for r in results if not r.text], [r for r in results if r.text])


def _is_identifier(observation: Mapping[str, Any]) -> bool:
    """The UID of the study (DCM 113014) is a link to a machine, nothing to read."""
    return any(c.get("code") == "113014" for c in (observation.get("code") or {}).get("coding", ()))


def _study(study: dict[str, Any]) -> Entry:
    modality = "·".join(m.get("code", "") for m in study.get("modality", ()))
    title = study.get("description") or label(next(iter(study.get("procedureCode", ())), None)) or modality
    return Entry("study", title, institution_of(study), when_of(study)[11:16], study.get("status", ""),
                 f"/fhir/ImagingStudy/{study['id']}", modality=modality, series=study.get("numberOfSeries", 0),
                 images=study.get("numberOfInstances", 0))


def result_of(observation: Mapping[str, Any]) -> Result:
    """A row of a report."""
    value, unit = value_of(observation)
    return Result(label(observation.get("code")), value, unit, range_of(observation), flag_of(observation),
                  bool(len(value) > _TEXT or _SENTENCE & set(value)))


# ---------------------------------------------------------------- courses

def courses(observations: Iterable[dict[str, Any]], most: int = 6) -> list[Course]:
    """Unified items with several numbers in one unit: first those of several hospitals, marked ones, long ones."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for observation in observations:
        quantity = observation.get("valueQuantity") or {}
        item = next((c["code"] for c in (observation.get("code") or {}).get("coding", ())
                     if c.get("system") in (ITEM, LOINC) and c.get("code")), "")
        if item and quantity.get("value") is not None and not quantity.get("comparator") and when_of(observation) \
                and observation.get("status") not in ("cancelled", "entered-in-error"):
            groups.setdefault((item, quantity.get("code") or quantity.get("unit") or ""), []).append(observation)
    found = [_course(sorted(group, key=when_of)) for group in groups.values() if len(group) > 1]
    found.sort(key=lambda c: (-len(c.institutions), not c.flagged, -len(c.points), c.name))
    return found[:most]


def _course(group: list[dict[str, Any]]) -> Course:
    newest = group[-1]
    values = [float(o["valueQuantity"]["value"]) for o in group]
    given: dict[str, Any] = next(iter(newest.get("referenceRange", ())), {})
    low, high = (_float((given.get(side) or {}).get("value")) for side in ("low", "high"))
    shown = [*values, *(bound for bound in (low, high) if bound is not None)]
    least, span = min(shown), (max(shown) - min(shown)) or 1.0
    ordinals = [_ordinal(when_of(o)) for o in group]
    width = (ordinals[-1] - ordinals[0]) or 1.0

    def y(value: float) -> float:
        return _HIGH - 2 * _MARGIN - (_HIGH - 4 * _MARGIN) * (value - least) / span

    points = [Point(_MARGIN + (_WIDE - 2 * _MARGIN) * (at - ordinals[0]) / width, y(value), value_of(o)[0],
                    when_of(o)[:10], institution_of(o), result_of(o).flag)
              for o, value, at in zip(group, values, ordinals, strict=True)]
    top, bottom = (y(high) if high is not None else 0.0), (y(low) if low is not None else float(_HIGH))
    return Course(label(newest.get("code")), value_of(newest)[1], points,
                  list(dict.fromkeys(p.institution for p in points if p.institution)),
                  None if low is None and high is None else (top, max(bottom - top, 1.0)))


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _ordinal(when: str) -> float:
    """Days, with the time of day as a fraction; a bare year or month stands for its beginning."""
    year, month, day = (when[:10].split("-") + ["01", "01"])[:3]
    hours = int(when[11:13]) + int(when[14:16]) / 60 if len(when) >= 16 else 0
    return date(int(year), int(month), int(day)).toordinal() + hours / 24
