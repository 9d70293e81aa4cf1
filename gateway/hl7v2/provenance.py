"""Where the resources of a message come from: one Provenance each (guide: MSH[Provenance-Source]).

Its id is that of the message's bytes, so that two messages under one control id have a Provenance each.
"""

from __future__ import annotations

from typing import Any

from gateway.hl7v2 import timestamps
from gateway.hl7v2.builder import Builder
from gateway.source import original_id

_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def add_provenance(builder: Builder) -> None:
    """The Provenance of everything gathered so far, amended resources among it."""
    header = builder.message.header
    hospital = f"Organization/{builder.source.institution}"
    original = original_id(builder.message.digest)
    made = builder.resource("Provenance", original)
    conversion = builder.conversion
    made["target"] = [{"reference": f"{c.resource['resourceType']}/{c.resource['id']}"}
                      for c in conversion.changes if c.resource["id"] != builder.source.institution]
    made["target"] += [{"reference": f"{a.resource_type}/{a.id}"} for a in conversion.amendments]
    if recorded := _recorded(builder):
        made["recorded"] = recorded
    else:
        made["_recorded"] = {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]}
    made["activity"] = {"text": "^".join(part for part in header.message_type if part)}
    made["agent"] = [{"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                                           "code": "author", "display": "Author"}]},
                      "who": {"reference": hospital}}]
    what: dict[str, Any] = {"reference": f"Binary/{original}"}
    if header.control_id:
        what["identifier"] = {"system": builder.source.system("message"), "value": header.control_id}
    made["entity"] = [{"role": "source", "what": what}]
    builder.add(made, builder.sent_at, "skip")


def _recorded(builder: Builder) -> str | None:
    """MSH-7; a date alone counts from midnight, for ``recorded`` is required; without it the newest OBR-22 or OBR-7."""
    texts = [builder.message.header.time]
    texts += sorted((obr.get(at) for obr in builder.message.all("OBR") for at in (22, 7) if obr.get(at)), reverse=True)
    for text in texts:
        if timestamps.as_of_us(text, builder.zone) is None:
            continue
        return timestamps.instant(text, builder.zone) or timestamps.midnight(text, builder.zone)
    return None
