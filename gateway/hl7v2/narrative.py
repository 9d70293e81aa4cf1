"""The text of a report: lines that belong together, findings and impression told apart, one narrative to read. Pure.

Many systems send a text line by line. OBX that follow one another with the same OBX-3 and nothing else of their own are
the lines of one text, and one Observation: a corrected report with fewer lines then leaves no old line behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from html import escape

from gateway.hl7v2.builder import DICOM_STUDIES, Builder, Reference
from gateway.hl7v2.isolates import names_organism
from gateway.hl7v2.request import Result
from gateway.hl7v2.sections import IMPRESSION
from gateway.hl7v2.values import MOST_TEXT
from gateway.source import Change, Resource

_XHTML = "http://www.w3.org/1999/xhtml"
_LINES = ("TX", "FT")
_TEXTS = (*_LINES, "ST")
#: A laboratory's text longer than this (characters) is a report in words.
_SENTENCE = 60


# ---------------------------------------------------------------- lines of one text

def joined(results: list[Result], category: str, builder: Builder) -> list[Result]:
    """The results, with the OBX that continue one as its ``lines``; the same list where none is a text.

    Without OBX-4 the same OBX-3 twice in a row can only be the next line (v2.5.1 7.4.2.4). OBX-4 that counts 1, 2, 3
    is line numbers, but not in a laboratory's report, where it tells isolates and the like apart. ST is text in
    reports of images and under a heading that is known; elsewhere two ST are two results. Two organisms of a culture
    are two.
    """
    texts = _LINES if category == "laboratory" else _TEXTS
    if not [result for result in results if result.obx.raw_field(2) in texts]:
        return results
    made: list[Result] = []
    for result in results:
        kind = result.obx.raw_field(2)
        if kind not in texts or kind == "ST" and category != "imaging" and not builder.known(result.obx, 3).part \
                or names_organism(result.obx, builder):
            made.append(result)
            continue
        last = made[-1] if made else None
        if last is not None and _continues(last, result, category):
            last.lines = [*(last.lines or [last.obx]), result.obx]
            last.notes += result.notes
            continue
        if result.obx.raw_field(4) == "1" and category != "laboratory":
            result.lines = [result.obx]  # also alone: the id must not depend on how many lines there are
        made.append(result)
    return made


def _continues(last: Result, result: Result, category: str) -> bool:
    """Whether an OBX is the next line of the one before: they differ in OBX-1, OBX-4 and OBX-5 alone."""
    before, obx = last.obx, result.obx
    if last.notes or last.participants or before.raw_field(2) != obx.raw_field(2) \
            or before.raw_field(3) != obx.raw_field(3):
        return False
    first, number = before.raw_field(4), obx.raw_field(4)
    counted = category != "laboratory" and first == "1" and number == str(len(last.lines) + 1)
    if (first or number) and not counted:
        return False
    return all(before.raw_field(at) == obx.raw_field(at) for at in range(6, max(before.size, obx.size)))


# ---------------------------------------------------------------- one text

def tell(has_text: bool, references: list[Reference], changes: list[Change], category: str, builder: Builder,
         ) -> tuple[dict[str, str] | None, str]:
    """The narrative of a report and its conclusion, where it is a report in words.

    ``has_text``: there is an OBX of a text type; ``references`` and ``changes``: what the results became. The narrative
    holds the parts in the order in which they were sent, each under its heading, and the text of clinical documents
    that were sent along; the conclusion is the impression, a line for each.
    """
    sections, builder.readings = builder.readings, []
    parts, builder.parts = builder.parts, {}
    if not (parts or sections or category == "imaging" or has_text):
        return None, ""
    made = {f"Observation/{c.resource['id']}": c.resource for c in changes}
    told = [(part := parts.get(reference["reference"], ""), _heading(one, part), text, "valueString" in one)
            for reference in references if (one := made.get(reference["reference"])) and (text := _words(one))]
    in_words = bool(parts) or any(text for *_, text in told) and (category == "imaging" or all(
        is_text for *_, is_text in told) and any(len(text) > _SENTENCE for _, _, text, _ in told))
    passages = [*((heading, text) for _, heading, text, _ in told if in_words), *sections]
    conclusion = "\n".join(text for part, _, text, _ in told if part == IMPRESSION)
    div = _div(passages) if passages else ""
    return ({"status": "additional", "div": div} if 0 < len(div) <= MOST_TEXT else None,
            conclusion if len(conclusion) <= MOST_TEXT else "")


def _heading(observation: Resource, part: str) -> str:
    """The name of OBX-3; where a suffix alone tells findings from impression, with that."""
    concept = observation["code"]
    codings = concept.get("coding", ())
    name = str(concept.get("text") or next((c["display"] for c in codings if c.get("display")), ""))
    return f"{name} ({part})" if part and any("&" in coding["code"] for coding in codings) else name


def _words(observation: Resource) -> str:
    """The value in words; "" for a document, the UID of a study and what has no value."""
    if any(coding["code"] in DICOM_STUDIES for coding in observation["code"].get("coding", ())):
        return ""
    if text := observation.get("valueString"):
        return str(text).strip()
    if concept := observation.get("valueCodeableConcept"):
        return str(concept.get("text") or "").strip()
    if quantity := observation.get("valueQuantity"):
        number: Decimal = quantity["value"]
        return f"{quantity.get('comparator', '')}{number:f} {quantity.get('unit', '')}".strip()
    return "\n".join(str(part["valueString"]) for part in observation.get("component", ()) if "valueString" in part)


def _div(passages: Iterable[tuple[str, str]]) -> str:
    """XHTML of narrative.html: a heading, unless it is that of the part before, and a paragraph."""
    made, before = [], ""
    for heading, text in passages:
        if heading and heading != before:
            made.append(f"<h4>{escape(heading, quote=False)}</h4>")
        before = heading
        made.append(f"<p>{escape(text, quote=False).replace(chr(10), '<br/>')}</p>")
    return f'<div xmlns="{_XHTML}">{"".join(made)}</div>'
