"""Eight categories of refusal, chosen by what the *sender* should do next; each edge answers them from one table."""

from __future__ import annotations

from enum import Enum


class Category(Enum):
    """What the sender should do next. Whatever escapes as another exception is FAULT."""

    MALFORMED = "malformed"  # cannot be read: mend the bytes
    UNSUPPORTED = "unsupported"  # a kind we do not take: send it elsewhere
    INVALID = "invalid"  # breaks a rule: correct the content
    FORBIDDEN = "forbidden"  # unknown or not allowed: be registered first
    NOT_FOUND = "not-found"  # no such thing
    CONFLICT = "conflict"  # older than ours, or the same id with other content
    BUSY = "busy"  # our side, for now: send again later
    FAULT = "fault"  # our bug: the raw bytes are kept and can be replayed


class GatewayError(Exception):
    """A refusal in the core's own words; never carries patient data.

    ``message`` is one sentence that says what to do; ``where`` is the sender's own path: ``OBR-4``,
    ``(0020,000D)``, ``DiagnosticReport.code``, or empty. ``detail`` narrows a category where an edge's
    answer table has several rows for it (UNSUPPORTED: ``message-type``, ``event``, ``processing-id``,
    ``version``; INVALID: ``required``, ``data-type``, ``table-value``; NOT_FOUND: ``gone``; CONFLICT:
    ``sequence``).
    """

    def __init__(self, category: Category, message: str, where: str = "", *, detail: str = "") -> None:
        super().__init__(message)
        self.category = category
        self.message = message
        self.where = where
        self.detail = detail

    def __str__(self) -> str:
        place = f" {self.where}" if self.where else ""
        return f"{self.category.value}{place}: {self.message}"


def sentence_of(error: OSError) -> str:
    """What the system refused, as a sentence for an operator's terminal."""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}; check that it is there, that this user may use it, that there is room"
