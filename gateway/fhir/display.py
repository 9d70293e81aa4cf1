"""Resources in people's words: names, values, ranges, flags, as they were sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from gateway.terminology.systems import ITEMS

#: v3-ObservationInterpretation → how a screen marks it.
FLAGS = {"H": "high", "HH": "critical-high", "HU": "critical-high", "L": "low", "LL": "critical-low",
         "LU": "critical-low", "A": "abnormal", "AA": "critical", "POS": "abnormal"}
#: A text longer than this is no range of a table's cell.
SHORT = 24


def institution_of(resource: Mapping[str, Any]) -> str:
    """The slug of the hospital that a resource comes from: ``meta.source`` is ``urn:huren:<slug>``."""
    source = str((resource.get("meta") or {}).get("source", ""))
    return source.removeprefix("urn:huren:").partition("#")[0] if source.startswith("urn:huren:") else ""


def when_of(resource: Mapping[str, Any]) -> str:
    """The clinically relevant time as sent."""
    period = resource.get("effectivePeriod") or {}
    return str(resource.get("effectiveDateTime") or period.get("start") or resource.get("started")
               or resource.get("issued") or "")


def label(concept: Mapping[str, Any] | None) -> str:
    """What people call a concept: the unified display, else its text, else any display or code."""
    concept = concept or {}
    codings = concept.get("coding") or []
    for coding in codings:
        if coding.get("system") == ITEMS and coding.get("display"):
            return str(coding["display"])
    shown = concept.get("text") or next((c["display"] for c in codings if c.get("display")), "")
    return str(shown or next((c["code"] for c in codings if c.get("code")), ""))


def value_of(observation: Mapping[str, Any]) -> tuple[str, str]:
    """The value as text, and its unit."""
    if quantity := observation.get("valueQuantity"):
        return f"{quantity.get('comparator', '')}{number(quantity.get('value'))}", str(quantity.get("unit") or "")
    if (concept := observation.get("valueCodeableConcept")) is not None:
        return label(concept), ""
    if (ratio := observation.get("valueRatio")) is not None:
        return ":".join(number((ratio.get(part) or {}).get("value")) for part in ("numerator", "denominator")), ""
    if (given := observation.get("valueRange")) is not None:
        ends = [given[end] for end in ("low", "high") if end in given]
        text = "–".join(number(end.get("value")) for end in ends)
        sign = "" if len(ends) != 1 else "≥ " if "low" in given else "≤ "
        return sign + text, str(next((end["unit"] for end in ends if end.get("unit")), ""))
    for name in ("valueString", "valueInteger", "valueDateTime", "valueTime", "valueBoolean"):
        if name in observation:
            return str(observation[name]), ""
    if several := observation.get("component"):
        shown = [value_of(part) for part in several]
        return "; ".join(text for text, _ in shown if text), next((unit for _, unit in shown if unit), "")
    return label(observation.get("dataAbsentReason")), ""


def number(value: Any) -> str:
    """A decimal as it was sent: 1.50 stays 1.50."""
    return format(value, "f") if isinstance(value, Decimal) else "" if value is None else str(value)


def range_of(observation: Mapping[str, Any]) -> str:
    """The first reference range that says something."""
    for given in observation.get("referenceRange", ()):
        low, high = (number((given.get(side) or {}).get("value")) for side in ("low", "high"))
        if low and high:
            return f"{low}–{high}"
        if text := given.get("text"):
            return str(text)[:SHORT]
        if low or high:
            return f"≥ {low}" if low else f"≤ {high}"
    return ""


def concluding(texts: Sequence[str], conclusion: str) -> set[int]:
    """Which texts of a report make up its conclusion, so that a screen need not show them twice: the last that do."""
    found = set()
    for at in reversed(range(len(texts))):
        text = texts[at].strip()
        if text and (conclusion == text or conclusion.endswith(f"\n{text}")):
            conclusion = conclusion[:-len(text)].rstrip("\n")
            found.add(at)
    return set() if conclusion else found


def flag_of(observation: Mapping[str, Any]) -> str:
    """How a screen marks the value; empty for a normal one."""
    return next((FLAGS[c["code"]] for concept in observation.get("interpretation", ())
                 for c in concept.get("coding", ()) if c.get("code") in FLAGS), "")
