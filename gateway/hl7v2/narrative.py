"""The text of a report: lines that belong together, findings and impression told apart, one narrative to read. Pure.

Many systems send a text line by line. OBX that follow one another with the same OBX-3 and nothing else of their own are
the lines of one text, and one Observation: a corrected report with fewer lines then leaves no old line behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from html import escape

from gateway.hl7v2.builder import DICOM_STUDIES, Builder, Reference
from gateway.hl7v2.datatypes import code_text, coding_system
from gateway.hl7v2.memory import keep
from gateway.hl7v2.message import Segment
from gateway.hl7v2.request import Result
from gateway.source import Change, Resource
from gateway.terminology import DCM, LOINC


def _split(text: str) -> list[str]:
    return text.split()


FINDINGS, IMPRESSION, TEXT = "findings", "impression", "text"
_XHTML = "http://www.w3.org/1999/xhtml"
_CODES = {
    **dict.fromkeys(((LOINC, code) for code in ("59776-5", "18782-3", "22634-0", "22635-7")), FINDINGS),
    **dict.fromkeys(((LOINC, code) for code in ("19005-8", "55110-1", "22637-3")), IMPRESSION),
    **dict.fromkeys(((DCM, code) for code in ("121070", "121071")), FINDINGS),
    **dict.fromkeys(((DCM, code) for code in ("121072", "121073", "121076", "121077")), IMPRESSION),
}
#: Suffixes of OBX-3.1 (v2.5.1 7.2.4): general and secondary description; impression.
_SUFFIXES = {"GDT": FINDINGS, "MDT": FINDINGS, "IMP": IMPRESSION}
#: Headings, whole, as laboratories of images write them in OBX-3.2.
_HEADINGS = {
    **dict.fromkeys(_split("""
        检查所见 影像所见 影像学所见 影像表现 影像学表现 放射学表现 检查描述 影像描述 诊断描述 超声所见 超声描述
        内镜所见 镜检所见 镜下所见 病理所见 肉眼所见 大体所见 所见 findings finding description"""), FINDINGS),
    **dict.fromkeys(("imaging findings", "gross description", "microscopic description", "report findings"), FINDINGS),
    **dict.fromkeys(_split("""
        检查结论 检查意见 检查提示 诊断意见 诊断结论 诊断印象 影像诊断 影像学诊断 影像结论 影像印象 影像意见 放射学诊断
        超声提示 超声诊断 超声印象 内镜诊断 镜下诊断 病理诊断 印象 结论 意见
        impression impressions conclusion conclusions diagnosis"""), IMPRESSION),
    **dict.fromkeys(("diagnostic impression", "imaging impression"), IMPRESSION),
}
_LINES = ("TX", "FT")
_TEXTS = (*_LINES, "ST")
#: A laboratory's text longer than this (characters) is a report in words.
_SENTENCE = 60


# ---------------------------------------------------------------- findings and impression

def part_of(obx: Segment, builder: Builder) -> str:
    """Whether an OBX is the findings or the impression of its report; "" where nobody says.

    The manifest's table for OBX-3 first, then the suffix of the code, then the code in LOINC's or DICOM's vocabulary,
    then the heading where it is one of those that mean nothing else.
    """
    raw = obx.raw_field(3)
    found = builder.memory.parts.get(raw)
    return found if found is not None else keep(builder.memory.parts, raw, raw, _part_of(obx, builder))


def _part_of(obx: Segment, builder: Builder) -> str:
    name, source = obx.first(3), builder.source
    codes = [(code_text(name.part(at).text), name.get(at + 2)) for at in (1, 4)]
    for code, _ in codes:
        if code and (said := source.tables.get("OBX-3", {}).get(code)):
            return said
    for code, system in codes:
        if "&" in code and (said := _SUFFIXES.get(code.rpartition("&")[2].strip("0123456789").upper())):
            return said
        if said := _CODES.get((coding_system(system, ""), code)):
            return said
    headings = (name.get(at).strip(" :：【】[]").lower() for at in (2, 5, 9))
    return next((said for heading in headings if (said := _HEADINGS.get(heading))), "")


# ---------------------------------------------------------------- lines of one text

def joined(results: list[Result], category: str, builder: Builder) -> list[Result]:
    """The results, with the OBX that continue one as its ``lines``.

    Without OBX-4 the same OBX-3 twice in a row can only be the next line (v2.5.1 7.4.2.4). OBX-4 that counts 1, 2, 3
    is line numbers, but not in a laboratory's report, where it tells isolates and the like apart. ST is text in
    reports of images and under a heading that is known; elsewhere two ST are two results.
    """
    if not any(result.obx.raw_field(2) in _TEXTS for result in results):
        return results
    made: list[Result] = []
    for result in results:
        kind = result.obx.raw_field(2)
        if kind not in _TEXTS or kind == "ST" and category != "imaging" and not part_of(result.obx, builder):
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

def tell(results: list[Result], references: list[Reference], changes: list[Change], category: str, builder: Builder,
         ) -> tuple[dict[str, str] | None, str]:
    """The narrative of a report and its conclusion, where it is a report in words.

    ``references`` and ``changes``: what each of the results became. The narrative holds the parts in the order
    in which they were sent, each under its heading, and the text of clinical documents that were sent along; the
    conclusion is the impression, a line for each.
    """
    sections, builder.readings = builder.readings, []
    parts = [part_of(result.obx, builder) for result in results]
    known = any(part in (FINDINGS, IMPRESSION, TEXT) for part in parts)
    if not (known or sections or category == "imaging" or any(r.obx.raw_field(2) in _LINES for r in results)):
        return None, ""
    made = {f"Observation/{c.resource['id']}": c.resource for c in changes}
    told = [(part, _heading(one), text, "valueString" in one) for reference, part in zip(references, parts, strict=True)
            if (one := made.get(reference["reference"])) and (text := _words(one))]
    in_words = known or any(text for *_, text in told) and (category == "imaging" or all(
        is_text for *_, is_text in told) and any(len(text) > _SENTENCE for _, _, text, _ in told))
    passages = [*((heading, text) for _, heading, text, _ in told if in_words), *sections]
    conclusion = "\n".join(text for part, _, text, _ in told if part == IMPRESSION)
    return ({"status": "additional", "div": _div(passages)} if passages else None), conclusion


def _heading(observation: Resource) -> str:
    concept = observation["code"]
    return str(concept.get("text") or next((c["display"] for c in concept.get("coding", ()) if c.get("display")), ""))


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
