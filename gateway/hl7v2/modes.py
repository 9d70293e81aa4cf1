"""Which acknowledgements a message asks for: the original mode, and the enhanced one of MSH-15 and 16 (v2.5.1 2.9)."""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.hl7v2.header import Header

_ACKNOWLEDGEMENTS = ("ACK", "MCF")
_COMMIT = re.compile(rb"[\r\n]MSA[^A-Za-z0-9\r\n]C[AER]")


class Asked(NamedTuple):
    """The conditions under which the sender of a message wants an answer: AL, NE, ER or SU (table 0155)."""

    accept: str  # MSH-15: may the sender forget the message?
    application: str  # MSH-16: what became of it?
    is_enhanced: bool

    def commit(self, accepted: bool) -> bool:
        """Whether an accept acknowledgement (CA, CE, CR) goes back."""
        return _meets(self.accept, accepted)

    def result(self, accepted: bool) -> bool:
        """Whether the application's answer (AA, AE, AR) goes back."""
        return _meets(self.application, accepted)

    @property
    def commits_first(self) -> bool:
        """Whether CA is due as soon as the message is safe, before it is read: an answer of the application follows.

        Where none follows (MSH-16 NE), the accept acknowledgement is the only answer there is: it waits for the outcome
        and tells it, so that no refusal stays untold. The standard leaves to the receiver what it checks before it
        commits (2.9.3.1).
        """
        return self.is_enhanced and self.commit(True) and self.application != "NE"


#: The enhanced mode's equivalent of the original one (2.9.3).
ORIGINAL = Asked("NE", "AL", False)
_SILENCE = Asked("NE", "NE", False)


def asked(raw: bytes, header: Header | None, is_original: bool = False) -> Asked:
    """What a message asks for; ``is_original``: its sender fills MSH-15 and MSH-16 and means nothing by it.

    An acknowledgement is not answered, so that two systems never acknowledge each other without end; one of an
    application may ask for an accept acknowledgement (2.9.3.2).
    """
    if header is None:
        return ORIGINAL
    is_acknowledgement = header.message_type[0] in _ACKNOWLEDGEMENTS
    if is_original or not header.is_enhanced:
        return _SILENCE if is_acknowledgement else ORIGINAL
    if is_acknowledgement:
        return _SILENCE if _COMMIT.search(raw) else Asked(_condition(header, 15), "NE", True)
    return Asked(_condition(header, 15), _condition(header, 16), True)


def _condition(header: Header, number: int) -> str:
    return header.first(number).upper() or "NE"


def _meets(condition: str, accepted: bool) -> bool:
    """A value that table 0155 does not have counts as AL: an answer too many is better than a sender that waits."""
    return {"NE": False, "ER": not accepted, "SU": accepted}.get(condition, True)
