"""OBX-8: what the laboratory thinks of a value."""

from __future__ import annotations

from typing import Any

from gateway.hl7v2 import tables
from gateway.hl7v2.datatypes import codeable
from gateway.hl7v2.message import Segment
from gateway.source import Source


def interpretations(obx: Segment, source: Source) -> list[dict[str, Any]]:
    """OBX-8 as v3-ObservationInterpretation by way of the manifest's table; an unknown flag stays the hospital's.

    Flags that v3 does not have (AC, TOX …) keep table 0078; ``null`` is that table's way to say that there is none.
    """
    concepts = []
    for part in obx.repetitions(8):
        sent = part.get(1)
        code = source.table("OBX-8", sent)
        if not code or code == "null":
            continue
        system, table = tables.INTERPRETATION, tables.INTERPRETATIONS
        if code not in table and code.upper() in table:
            code = code.upper()
        if code not in table and code in tables.FLAGS_OF_V2:
            system, table = f"{tables.V2}0078", tables.FLAGS_OF_V2
        if display := table.get(code):
            concept: dict[str, Any] = {"coding": [{"system": system, "code": code, "display": display}]}
            if sent != code:
                concept["text"] = sent
        else:
            concept = codeable(part, source, "OBX-8")
        if concept:
            concepts.append(concept)
    return concepts
