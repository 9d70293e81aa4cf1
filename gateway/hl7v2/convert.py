"""Which message becomes what: the dispatch by MSH-9."""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import adt_tables
from gateway.hl7v2.adt import convert_adt
from gateway.hl7v2.charges import convert_charges
from gateway.hl7v2.header import Header
from gateway.hl7v2.mdm import convert_documents
from gateway.hl7v2.message import Message
from gateway.hl7v2.orders import convert_orders
from gateway.hl7v2.oru import convert_oru
from gateway.hl7v2.siu import EVENTS, convert_appointments
from gateway.source import Conversion, Remark, Source

#: Message code and trigger event → converter. R30 and R31 are point-of-care results, R32 pre-ordered ones, R40 alarms,
#: W01 waveforms: all of the shape of ORU^R01.
_CONVERTERS: dict[tuple[str, str], Callable[[Message, Source], Conversion]] = {
    **{("ORU", event): convert_oru for event in ("R01", "R30", "R31", "R32", "R40", "W01")},
    **{("ADT", event): convert_adt for event in sorted(adt_tables.EVENTS)},
    **{("OUL", event): convert_oru for event in ("R21", "R22", "R23", "R24")},
    ("ORM", "O01"): convert_orders, ("OMI", "O23"): convert_orders, ("OMG", "O19"): convert_orders,
    **{("OML", event): convert_orders for event in ("O21", "O33", "O35")}, ("DFT", "P03"): convert_charges,
    **{("MDM", f"T{number:02}"): convert_documents for number in range(1, 12)},
    **{("SIU", event): convert_appointments for event in EVENTS},
}
_OF_MANY_EVENTS = frozenset(("ORU", "OUL", "ADT", "MDM", "SIU"))
#: The general acknowledgement of whatever event, and the delayed one of version 2.1.
_ACKNOWLEDGEMENTS = frozenset(("ACK", "MCF"))
#: Versions 2.1 and 2.2 send the message code alone.
_FIRST_EVENTS = {"ORU": "R01", "ORM": "O01", "ADT": "A08"}  # of ADT, EVN-1 says it
#: Of orders and charges: what recognition wants to know.
ORDER_MESSAGES = frozenset(("ORM", "OML", "OMI", "OMG", "DFT"))


def convert(message: Message, source: Source) -> Conversion:
    """The FHIR R4 resources of one message, in dependency order; UNSUPPORTED for a type or event not taken."""
    return _converter(message.header)(message, source)


def _acknowledged(message: Message, source: Source) -> Conversion:
    """An acknowledgement that a hospital's engine sends us: kept in the inbox, and no resource. The edge never answers
    it (`modes.asked`), or two systems would acknowledge each other without end."""
    msa = message.first("MSA")
    if msa is None:
        raise GatewayError(Category.INVALID, "an acknowledgement says by MSA what it acknowledges; send it", "MSA",
                           detail="required")
    if msa.get(1).upper() in ("AA", "CA"):
        return Conversion()
    return Conversion(remarks=[Remark("MSA-1", "this acknowledgement refuses a message; it is kept and nothing is sent "
                                      "again")])


def require_taken(header: Header) -> None:
    """UNSUPPORTED for a type or event not taken, INVALID without one: known before the message is read."""
    _converter(header)


def _converter(header: Header) -> Callable[[Message, Source], Conversion]:
    code, event, structure = header.message_type
    if not code:
        raise GatewayError(Category.INVALID, "MSH-9 is missing; send ORU^R01", "MSH-9", detail="required")
    if not event:
        event = structure.partition("_")[2] or _FIRST_EVENTS.get(code, "")
    if converter := _CONVERTERS.get((code, event)):
        return converter
    if code in _ACKNOWLEDGEMENTS:
        return _acknowledged
    taken = ", ".join(sorted({c if c in _OF_MANY_EVENTS else f"{c}^{e}" for c, e in _CONVERTERS}))
    if code in {c for c, _ in _CONVERTERS}:
        events = ", ".join(sorted(e for c, e in _CONVERTERS if c == code))
        raise GatewayError(Category.UNSUPPORTED, f"{code} is taken for the events {events} only", "MSH-9",
                           detail="event")
    raise GatewayError(Category.UNSUPPORTED, f"this message type is not taken; taken are {taken}", "MSH-9",
                       detail="message-type")
