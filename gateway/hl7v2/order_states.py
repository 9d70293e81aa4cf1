"""Order control (ORC-1, table 0119) and order status (ORC-5, table 0038) as ServiceRequest.status."""

from __future__ import annotations

from typing import Final

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables
from gateway.hl7v2.builder import Builder
from gateway.hl7v2.message import Segment

#: ORC-1 of a previous result that comes with an order.
PREVIOUS: Final = "PR"
#: What the sender says of the order itself: counts more than ORC-5.
_SETTLED: Final = {
    **dict.fromkeys(("CA", "OC", "CR", "DC", "OD", "DR", "UA"), "revoked"),
    **dict.fromkeys(("HD", "OH", "HR"), "on-hold"),
    **dict.fromkeys(("RL", "OE", "OR"), "active"),
}
#: ORC-5 counts; without it the order is active.
_OPEN: Final = frozenset(("", "NW", "SN", "NA", "OK", "RR", "RO", "XO", "XX", "XR", "SC", "SR", "PA", "CH", "RE", "CN",
                          "UC", "UD", "UH", "UM", "UR", "UX", PREVIOUS))
#: The order is replaced by the one that follows with RO; alone it is changed under its number.
_REPLACED: Final = frozenset(("RP", "RQ", "RU"))
#: New or changed by the placer, so that earlier results are looked for.
_FRESH: Final = frozenset(("", "NW", "SN", "RO", "XO", "XX", "XR", "RP", "RU", "RQ", "RL", "OE", "OR", "PA", "CH"))
#: The order is new: ORC-9 is when it was made.
NEW: Final = frozenset(("NW", "SN", "RO", "CH", "PA"))


def state_of(orc: Segment | None, following: Segment | None, builder: Builder) -> tuple[str, str]:
    """ORC-1 in the standard's words, and the ServiceRequest's status; INVALID when neither field can be read."""
    if orc is None:
        return "", "active"
    table = builder.source.table
    control = table("ORC-1", orc.get(1)).upper()
    if settled := _SETTLED.get(control):
        return control, settled
    if control in _REPLACED:
        replaced = following is not None and table("ORC-1", following.get(1)).upper() == "RO"
        return control, "revoked" if replaced else "active"
    sent = table("ORC-5", orc.get(5)).upper()
    status = tables.ORDER_STATUS.get(sent)
    if control in _OPEN:
        return control, status or "active"
    raise GatewayError(Category.INVALID, f"ORC-1 holds an order control that is not taken{orc.which()}; correct it or "
                       "add it to the manifest's tables", "ORC-1", detail="table-value")


def is_fresh(control: str, status: str) -> bool:
    """Whether earlier results are to be looked for."""
    return status == "active" and control in _FRESH
