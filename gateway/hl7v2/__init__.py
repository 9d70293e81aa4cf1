"""HL7 v2 in ER7: look, split, read, answer, convert. Pure: no input or output, no clock, no random.

- ``peek(raw) -> Header``: MSH on the bytes, before the character set is known; MALFORMED only without a usable MSH.
- ``split(raw) -> list[bytes]``: the messages in a buffer: several, in FHS/BHS batches, MLLP-framed or bare.
- ``unpack(raw) -> messages, Envelope | None``: the same, with what stands around them; ``batch_ack`` answers a batch.
- ``parse(raw, charset=None) -> Message``: a tolerant, lazy reader. ``message.first("PID")``, ``message.all("OBX")``,
  ``segment.get(field, component, subcomponent, repetition)`` (escapes resolved, "" when absent), ``segment.require``,
  ``segment.is_null``, ``segment.repetitions``, ``segment.components``, ``segment.raw``.
- ``ack(header, code, *, text, error, now, control_id) -> bytes``: the general acknowledgement with ``AckError``.
- ``asked(raw, header) -> Asked``: which acknowledgements a message asks for (MSH-15, MSH-16).
- ``convert(message, source) -> Conversion``: ORU^R01 and its kin, orders (ORM, OML, OMI, OMG) and charges (DFT) as FHIR
  R4 resources.
- ``reply_bytes(header, code, reply, …) -> bytes``: the answer to an order message, with what is said of its orders.
- ``timestamps``, ``charset``: HL7 times as FHIR's; character sets by name and by check.

The manual is ``README.md`` in this folder.
"""

from gateway.hl7v2 import charset, timestamps
from gateway.hl7v2.ack import AckError, Notice, ack
from gateway.hl7v2.batch import Envelope, batch_ack, split, unpack
from gateway.hl7v2.convert import ORDER_MESSAGES, convert, require_taken
from gateway.hl7v2.header import Header, peek
from gateway.hl7v2.message import Message, Part, Segment, parse
from gateway.hl7v2.modes import ORIGINAL, Asked, asked
from gateway.hl7v2.response import Answered, Reply, answered, patient_of, reply_bytes
from gateway.hl7v2.separators import Separators, escape, unescape

__all__ = ["ORDER_MESSAGES", "ORIGINAL", "AckError", "Answered", "Asked", "Envelope", "Header", "Message", "Notice",
           "Part", "Reply", "Segment", "Separators", "ack", "answered", "asked", "batch_ack", "charset", "convert",
           "escape", "parse", "patient_of", "peek", "reply_bytes", "require_taken", "split", "timestamps",
           "unescape", "unpack"]
