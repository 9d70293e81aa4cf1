"""ORU^R01: unsolicited observation results as FHIR R4 resources."""

from __future__ import annotations

from gateway.hl7v2.message import Message
from gateway.source import Conversion, Source


def convert_oru(message: Message, source: Source) -> Conversion:
    """The resources of one ORU message."""
    raise NotImplementedError
