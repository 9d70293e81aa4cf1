"""The answer table of C-STORE: category → status (PS3.4 B.2.3, PS3.7 C)."""

from __future__ import annotations

from gateway.edges.dimse.messages import SOP_CLASS_NOT_SUPPORTED, SUCCESS
from gateway.errors import Category

#: Status of a C-STORE response for each category.
ANSWERS: dict[Category, int] = {
    Category.MALFORMED: 0xC000,  # PS3.4 B.2.3: cannot understand
    Category.UNSUPPORTED: SOP_CLASS_NOT_SUPPORTED,  # PS3.7 C.5.6; mostly not even negotiated
    Category.INVALID: 0xA900,  # PS3.4 B.2.3: data set does not match SOP class
    Category.FORBIDDEN: 0x0124,  # PS3.7 C.5.20: not authorized; mostly the association is rejected
    Category.NOT_FOUND: 0x0112,  # PS3.7 C.5.13: no such SOP instance
    Category.CONFLICT: 0x0111,  # PS3.7 C.5.7: duplicate SOP instance
    Category.BUSY: 0xA700,  # PS3.4 B.2.3: out of resources
    Category.FAULT: 0x0110,  # PS3.7 C.5.12: processing failure
}

#: What the store says of an instance → status. "same": the same object again.
STORED = {"new": SUCCESS, "same": SUCCESS, "conflict": ANSWERS[Category.CONFLICT]}
