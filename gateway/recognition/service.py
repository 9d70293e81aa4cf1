"""Recognition: what the edges and the pipeline call. One per process, safe from many threads.

    check     verdicts of a signature's orders; lines and reminders are recorded in one unit
    act       view, recognise, not_recognise, revoke, quote, review
    bill      may this line be billed? Every answer is an event
    reminders, summary, detail      what is pending, for whom, and what the plug-in shows
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway.adapter import Adapters
from gateway.caller import Caller
from gateway.config import Settings
from gateway.recognition.model import Action, BillAnswer, BillRequest, Checked, Outcome, Signature, Summary
from gateway.recognition.rules import RuleSet
from gateway.source import Source

if TYPE_CHECKING:
    from gateway.store import Store


class Recognition:
    """See the module."""

    def __init__(self, settings: Settings, store: Store, adapters: Adapters) -> None:
        self._settings = settings
        self._store = store
        self._adapters = adapters

    def rules(self, now: int | None = None) -> RuleSet:
        """The version of the catalogue that holds (at ``now``, µs; None: the clock's)."""
        raise NotImplementedError

    def source(self, institution: str) -> Source | None:
        """A hospital as its manifest says it: to map local codes; None where no manifest names it."""
        raise NotImplementedError

    def check(self, signature: Signature) -> list[Checked]:
        """The answer for each order, in their order; what must be recorded is committed when this returns."""
        raise NotImplementedError

    def act(self, action: Action, caller: Caller, peer: str = "") -> Outcome:
        """Do it; committed when this returns. INVALID, FORBIDDEN, NOT_FOUND, CONFLICT (detail ``decided``)."""
        raise NotImplementedError

    def bill(self, request: BillRequest, caller: Caller, peer: str = "") -> BillAnswer:
        """May this line be billed? ``allowed`` False is an answer, no refusal; every answer is an event."""
        raise NotImplementedError

    def reminders(self, caller: Caller, institution: str, *, patient: str = "", person: int = 0, doctor: str = "",
                  since: int = 0, limit: int = 100, peer: str = "") -> list[Checked]:
        """Reminders without a decision, newest first, as ``check`` gave them. ``patient``: id of our Patient."""
        raise NotImplementedError

    def line(self, line_id: str, caller: Caller) -> Checked:
        """One line as it stands; NOT_FOUND, FORBIDDEN."""
        raise NotImplementedError

    def summary(self, signature: Signature) -> Summary:
        """For patient-view, which has no orders: what is pending, and what other hospitals have that would count."""
        raise NotImplementedError

    def detail(self, line_id: str, caller: Caller, peer: str = "") -> dict[str, Any]:
        """All that the plug-in shows of a line, JSON-able; audited, and not a view by itself."""
        raise NotImplementedError

    def person_of(self, institution: str, patient: dict[str, Any]) -> int:
        """The person that a hospital's Patient means; 0: nobody whom we know. CONFLICT: it says two persons."""
        raise NotImplementedError

