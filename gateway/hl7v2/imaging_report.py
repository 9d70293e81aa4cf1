"""Which images a report is about: the study by its UID, and the accession number to find it by (IHE RAD TF-2 4.28).

With the UID the ImagingStudy's id is known, whether the images are there yet or not. With a number alone it is not:
such reports are named in ``Conversion.unjoined``, and `gateway.joining` finds their studies, whichever comes first.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.hl7v2.builder import DICOM_STUDIES, Builder, Reference
from gateway.hl7v2.datatypes import entity_identifier
from gateway.hl7v2.message import Segment
from gateway.hl7v2.request import Order
from gateway.terminology import ITEMS

_UID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d{0,38})){3,30}")
_LINKED = re.compile(r"(?:[?&;](?:studyUID|StudyInstanceUIDs?)=|/studies/)([0-9.]{10,64})", re.IGNORECASE)


def studies_of(order: Order, category: str, builder: Builder) -> list[Reference]:
    """The studies that the message names by UID: OBX of DICOM's codes (any type), links to a study, ZDS-1 and IPC-3."""
    if category == "laboratory":
        return []
    uids: dict[str, None] = {}
    for result in order.results:
        obx = result.obx
        kind = obx.raw_field(2)
        if kind == "NM":
            continue
        if obx.get(3) in DICOM_STUDIES:
            for part in obx.repetitions(5):
                uids.update(dict.fromkeys(uid for at in (1, 2) if (uid := _uid(part.get(at)))))
        elif kind in ("RP", "ST", "TX", "FT") and "/" in obx.raw_field(5):
            for part in obx.repetitions(5):
                if linked := _LINKED.search(part.text):
                    uids.update(dict.fromkeys(filter(None, (_uid(linked[1]),))))
    for name, at in (("ZDS", 1), ("IPC", 3)):
        for segment in _following(order.obr, name, builder):
            uids.update(dict.fromkeys(filter(None, (_uid(segment.get(at)),))))
    return [{"reference": f"ImagingStudy/{builder.source.id_for('ImagingStudy', uid)}",
             "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}} for uid in uids]


def is_of_images(category: str, studies: list[Reference], concept: dict[str, Any]) -> bool:
    """Whether a report is about images: by its section, a study that it names, or the unified item of an exam."""
    return category != "laboratory" and (category == "imaging" or bool(studies) or any(
        coding.get("system") == ITEMS and coding["code"].startswith("E") for coding in concept.get("coding", ())))


def accession(order: Order, builder: Builder) -> dict[str, Any] | None:
    """The accession number: the manifest's field of OBR, else IPC-1, else OBR-18 (IHE RAD TF-2 4.28.4.1.2)."""
    field = builder.source.habits.get("accession_field", "")
    if field == "none":
        return None
    if not field:
        for segment in _following(order.obr, "IPC", builder):
            if found := entity_identifier(segment.first(1), "accession", builder.source, "ACSN"):
                return found
    at = int(field.partition("-")[2]) if field else 18
    return entity_identifier(order.obr.first(at), "accession", builder.source, "ACSN")


def _uid(text: str) -> str:
    text = text.strip().removeprefix("urn:oid:")
    return text if len(text) <= 64 and _UID.fullmatch(text) else ""


def _following(obr: Segment, name: str, builder: Builder) -> list[Segment]:
    """The segments of a name between this OBR and the next."""
    if not (found := builder.message.all(name)):
        return []
    segments = builder.message.segments
    at = segments.index(obr)
    end = next((n for n in range(at + 1, len(segments)) if segments[n].name in ("OBR", "PID")), len(segments))
    return [segment for segment in segments[at:end] if segment.name == name and segment in found]
