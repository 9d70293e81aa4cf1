"""A hospital for tests of conversions, and messages written one segment a line."""

from __future__ import annotations

from typing import Any

from gateway import hl7v2
from gateway.source import Conversion, Resource, Source

ITEMS = "http://huren.example/fhir/CodeSystem/recognition-item"


class Codes:
    """A code map of two tests and a panel."""

    _KNOWN = {"WBC": ("THM001Q", "6690-2"), "HGB": ("THM003M", "718-7"), "CBC": ("P-CBC", "")}

    def codings(self, local: str, system: str = "") -> list[dict[str, str]]:
        """The unified coding and LOINC's."""
        item, loinc = self._KNOWN.get(local, ("", ""))
        found = [{"system": ITEMS, "code": item, "display": item.lower()}] if item else []
        return found + ([{"system": "http://loinc.org", "code": loinc}] if loinc else [])

    def without_item(self, local: str) -> bool:
        """FIND is a heading, no item."""
        return local == "FIND"


def make_source(**changes: Any) -> Source:
    """A plain hospital ``h1`` in Shanghai."""
    facts: dict[str, Any] = {"institution": "h1", "name": "一号医院", "code_system": "urn:huren:h1:item",
                             "codes": Codes(), **changes}
    return Source(**facts)


MSH = "MSH|^~\\&|LIS|H1|GW|R|20240102103000||ORU^R01^ORU_R01|M1|P|2.5.1||||||UNICODE UTF-8"
PID = "PID|1||P1^^^H1^MR||王^小明||19800229|M"
OBR = "OBR|1|PL1|F1|CBC^血常规^L|||20240102080000|||||||||||||||20240102100000||HM|F"


def segment(name: str, fields: dict[int, str]) -> str:
    """A segment of numbered fields."""
    return "|".join([name, *(fields.get(at, "") for at in range(1, max(fields) + 1))])


def text(*segments: str) -> str:
    """Segments as one message; MSH, PID and OBR stand for themselves when left out."""
    lines = list(segments)
    if not any(line.startswith("MSH") for line in lines):
        lines.insert(0, MSH)
    if not any(line.startswith("PID") for line in lines):
        lines.insert(1, PID)
    if not any(line.startswith("OBR") for line in lines):
        at = next((i for i, line in enumerate(lines) if line.startswith(("OBX", "SPM", "NTE"))), len(lines))
        lines.insert(at, OBR)
    return "\r".join(lines) + "\r"


def convert(*segments: str, **changes: Any) -> Conversion:
    """The conversion of a message made by ``text``."""
    return hl7v2.convert(hl7v2.parse(text(*segments).encode()), make_source(**changes))


def resources(conversion: Conversion, resource_type: str) -> list[Resource]:
    """The resources of one type, in order."""
    return [c.resource for c in conversion.changes if c.resource["resourceType"] == resource_type]


def observation(*segments: str, **changes: Any) -> Resource:
    """The only Observation of a message."""
    [found] = resources(convert(*segments, **changes), "Observation")
    return found
