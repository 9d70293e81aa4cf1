"""Where the resources of a message come from: one Provenance each (guide: MSH[Provenance-Source]).

Its id is that of the message's bytes, so that two messages under one control id have a Provenance each.
"""

from __future__ import annotations

from typing import Any

from gateway.hl7v2 import adt_tables, tables, timestamps
from gateway.hl7v2.builder import Builder
from gateway.hl7v2.datatypes import identifier_system
from gateway.hl7v2.message import Segment
from gateway.hl7v2.people import told_time
from gateway.source import Resource, original_id

_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def add_provenance(builder: Builder, evn: Segment | None = None) -> None:
    """The Provenance of everything gathered so far, amended resources among it; ``evn``: what the message is about."""
    header = builder.message.header
    original = original_id(builder.message.digest)
    made = builder.resource("Provenance", original)
    made["target"] = builder.told()
    made["target"] += [{"reference": f"{a.resource_type}/{a.id}"} for a in builder.conversion.amendments]
    if recorded := _recorded(builder):
        made["recorded"] = recorded
    else:
        made["_recorded"] = {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]}
    if evn is not None:
        _tell_event(made, evn, builder)
    made["activity"] = {"text": "^".join(part for part in header.message_type if part)}
    made["agent"] = [{"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                                           "code": "author", "display": "Author"}]},
                      "who": builder.hospital()}]
    what: dict[str, Any] = {"reference": f"Binary/{original}"}
    if header.control_id:
        what["identifier"] = {"system": builder.source.system("message"), "value": header.control_id}
    made["entity"] = [{"role": "source", "what": what}]
    builder.add(made, builder.sent_at, "skip")


def _tell_event(made: Resource, evn: Segment, builder: Builder) -> None:
    """When the event happened (EVN-6), why (EVN-4) and in which facility (EVN-7), as far as that is said."""
    if happened := told_time(evn, 6, builder):
        made["occurredDateTime"] = happened
    if facility := evn.get(7) or evn.get(7, 2):
        made["location"] = {"type": "Location", "identifier": {
            "system": identifier_system(evn.first(7), "facility", builder.source), "value": facility},
            "display": facility}
    if reason := builder.coded(evn, 4, "0062"):
        if known := adt_tables.EVENT_REASON.get(builder.source.table("EVN-4", evn.get(4))):
            reason.setdefault("coding", []).insert(0, {"system": f"{tables.V3}ActReason", "code": known[0],
                                                       "display": known[1]})
        made["reason"] = [reason]


def _recorded(builder: Builder) -> str | None:
    """MSH-7; a date alone counts from midnight, for ``recorded`` is required; without it the newest OBR-22 or OBR-7."""
    texts = [builder.message.header.time]
    if builder.sent_at is None:
        texts = sorted((obr.get(at) for obr in builder.message.all("OBR") for at in (22, 7)), reverse=True)
    for text in texts:
        if timestamps.as_of_us(text, builder.zone) is not None:
            return timestamps.instant(text, builder.zone) or timestamps.midnight(text, builder.zone)
    return None
