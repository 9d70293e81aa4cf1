"""Which part of a report an OBX is: its findings, its impression, or just text. Pure."""

from __future__ import annotations

from typing import Final

from gateway.hl7v2.datatypes import code_text, coding_system
from gateway.hl7v2.message import Part
from gateway.source import Source
from gateway.terminology import DCM, LOINC

FINDINGS: Final = "findings"
IMPRESSION: Final = "impression"
TEXT: Final = "text"

def _split(text: str) -> list[str]:
    return text.split()


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


def part_of(name: Part, source: Source) -> str:
    """What OBX-3 says of it; "" where it says nothing.

    The manifest's table for OBX-3 first, then the suffix of the code, then the code in LOINC's or DICOM's vocabulary,
    then the heading where it is one of those that mean nothing else.
    """
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
