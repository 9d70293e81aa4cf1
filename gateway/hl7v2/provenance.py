"""Where the resources of a message come from: one Provenance each (guide: MSH[Provenance-Source])."""

from __future__ import annotations

from gateway.hl7v2 import timestamps
from gateway.hl7v2.builder import Builder


def add_provenance(builder: Builder) -> None:
    """The Provenance of everything gathered so far; left out when no time tells when it was recorded."""
    header = builder.message.header
    recorded = _recorded(builder)
    if not recorded:
        return
    hospital = f"Organization/{builder.source.institution}"
    made = builder.resource("Provenance", "|".join((header.sending_application, header.control_id, header.time)))
    made["target"] = [{"reference": f"{c.resource['resourceType']}/{c.resource['id']}"}
                      for c in builder.conversion.changes if c.resource["id"] != builder.source.institution]
    made["recorded"] = recorded
    made["activity"] = {"text": "^".join(part for part in header.message_type if part)}
    made["agent"] = [{"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                                           "code": "author", "display": "Author"}]},
                      "who": {"reference": hospital}}]
    if header.control_id:
        made["entity"] = [{"role": "source", "what": {"identifier": {"system": builder.source.system("message"),
                                                                      "value": header.control_id}}}]
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
