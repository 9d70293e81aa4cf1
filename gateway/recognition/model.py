"""What recognition speaks of, as plain values. Pure.

Times are microseconds since the epoch, UTC. ``item`` is a unified item's or panel's code. An *order line* is one
ordered exam or test; an *earlier result* is a row of the index ``person × item → qualifying results``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.indexing import results


class Kind(StrEnum):
    """What an earlier result is worth for an order."""

    RECOGNISABLE = "RECOGNISABLE"
    PARTIAL = "PARTIAL"  # a panel of which some core members are still to do
    ADVISORY = "ADVISORY"  # shown quietly
    NOT = "NOT"

    @property
    def rank(self) -> int:
        """3 for the best."""
        return {"RECOGNISABLE": 3, "PARTIAL": 2, "ADVISORY": 1, "NOT": 0}[self.value]


class Side(StrEnum):
    """Laterality of a sided item; empty where nothing is said."""

    UNKNOWN = ""
    LEFT = "L"
    RIGHT = "R"
    BOTH = "B"


#: Flags of an earlier result, a bit each (`Candidate.flags`): what makes it advisory (step 7).
FLAG_CRITICAL = results.FLAG_CRITICAL  # an interpretation HH, LL or AA
FLAG_HAEMOLYSIS = results.FLAG_HAEMOLYSIS
FLAG_REPEAT = results.FLAG_REPEAT  # "repeat advised"
FLAG_IMAGES = results.FLAG_IMAGES  # images not available
FLAG_NAMES = {FLAG_CRITICAL: "FLAG_CRITICAL", FLAG_HAEMOLYSIS: "FLAG_HAEMOLYSIS", FLAG_REPEAT: "FLAG_REPEAT",
              FLAG_IMAGES: "FLAG_IMAGES"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An earlier result: a row of the store's ``idx_result``, and what is found out about it before a verdict.

    ``pk`` and ``kind`` name the resource: an Observation (a test) or a DiagnosticReport (an exam). ``time``: collection
    or acquisition (Observation.effective[x], DiagnosticReport.effective[x]; start of a period), 0 when unknown.
    ``status``: the resource's own; ``report_status``: that of the DiagnosticReport it stands in ("" when not looked
    up or none). ``session``: equal for results of one encounter, or of one report where no encounter is said.
    """

    pk: int
    kind: str
    item: str
    time: int
    status: str
    institution: str
    flags: int = 0
    side: Side = Side.UNKNOWN
    session: int = 0
    report_status: str = ""
    #: a demographic conflict (name, sex or birth date) between the order's Patient and this result's (step 0)
    identity_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """What happened or will happen to the patient (step 6): ``kind`` is "emergency", "surgery", "transfusion",

    "chemotherapy", "admission" or "forensic"; ``at``: when it happened, 0: planned or now (emergency, forensic, before
    surgery, before transfusion).
    """

    kind: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """An order line as the rules see it. ``item`` empty: the local code is not mapped (``UNMAPPED``)."""

    institution: str  # slug of the ordering hospital
    number: str  # placer order number; without one, what `gateway.recognition.orders` makes of the draft
    item: str
    local: str = ""  # the hospital's own code
    display: str = ""
    department: str = ""
    doctor: str = ""  # who orders
    encounter: str = ""
    setting: str = ""  # v3-ActCode of the encounter's class: AMB, EMER, IMP …
    side: Side = Side.UNKNOWN
    happenings: tuple[Happening, ...] = ()
    scheme: str = ""  # insurance scheme (Coverage.type), "" unknown
    reference: str = ""  # ServiceRequest/… as the client named it


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether earlier results cover an order, and why (recognition.md, the nine steps).

    ``chosen``: the results that cover it, best first (a panel: those of its members). ``missing``: members of a PARTIAL
    panel still to do. ``codes``: fail codes of the best candidates, when NOT; what advises, when ADVISORY; "PARTIAL"
    with core members still to do. All are of `verdict.Code`. ``states``:
    ``STATE_…`` codes that preselect ``reason``. ``trace``: rows ``{"step", "rule", "inputs", "outcome"}``,
    machine-readable, without patient data.
    """

    kind: Kind
    order: Order
    chosen: tuple[Candidate, ...] = ()
    missing: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    reason: str = ""
    catalogue: str = ""  # version
    trace: tuple[Mapping[str, Any], ...] = ()


class State(StrEnum):
    """Where an order line stands. ``ordered``: nothing covers it; ``reminded`` on: something does."""

    ORDERED = "ordered"
    REMINDED = "reminded"
    VIEWED = "viewed"
    RECOGNISED = "recognised"
    NOT_RECOGNISED = "not_recognised"


class EventKind(StrEnum):
    """Kinds of the append-only events."""

    ORDERED = "ordered"
    REMINDED = "reminded"
    VIEWED = "viewed"
    RECOGNISED = "recognised"
    NOT_RECOGNISED = "not_recognised"
    REVOKED = "revoked"
    QUOTED = "quoted"
    REVIEWED = "reviewed"  # a commission judged a refusal whose reason needs review
    BILLING_BLOCKED = "billing_blocked"
    BILLED = "billed"
    BILL_CANCELLED = "bill_cancelled"
    REORDERED = "reordered"  # the same item ordered again within 7 days after a recognition
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody does about an order line: ``kind`` is "view", "recognise", "not_recognise", "revoke", "quote"

    or "review". ``line``: its id. ``at``: the client's own time, 0: not said. ``key``: makes a repeat the same action.
    ``decision``: the decision that is meant, for "revoke" and "review"; empty: the current one.
    """

    kind: str
    line: str
    doctor: str
    at: int = 0
    key: str = ""
    reason: str = ""
    text: str = ""
    explained: bool | None = None
    decision: str = ""
    counts: bool | None = None  # "review": whether the refusal counts
    via: str = "api"  # "api", "widget", "feedback", "hl7v2"


@dataclass(slots=True)
class LineBody:
    """What a line knows beside its state: all JSON-able; `gateway.store.model.Line.body` is its ``asdict``."""

    local: str = ""
    display: str = ""
    department: str = ""
    doctor: str = ""  # who ordered
    encounter: str = ""
    setting: str = ""
    scheme: str = ""
    side: str = ""
    reference: str = ""
    patient: str = ""  # id of our Patient that the order is about
    verdict: str = ""  # Kind
    interruptive: bool = False
    results: list[str] = field(default_factory=list)  # "Observation/…", "DiagnosticReport/…", those that cover it
    reports: list[str] = field(default_factory=list)  # ids of the DiagnosticReports to open
    issuers: list[str] = field(default_factory=list)  # slugs of the hospitals that made them
    missing: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    preselected: str = ""
    catalogue: str = ""  # version of the reminder, then of the decision
    reminded_at: int = 0
    viewed_at: int = 0
    card: str = ""  # uuid of the card last shown
    decision: str = ""  # uuid of the current decision, "" none
    decided_at: int = 0
    decided_by: str = ""
    reason: str = ""
    text: str = ""
    explained: bool | None = None
    refusal: str = ""  # of the reason: "yes", "no", "reviewed" (waits for a review)
    fault: bool = False  # the reason is an availability fault of the issuers (Reason.availability)
    quoted: int = 0
    ordinal: int = 0  # decisions so far, revoked ones among them
    price: str = ""  # decimal, at the ordering hospital on the day of the decision
    fund: str = ""  # the fund's part of it
    billed: bool = False
    billed_at: int = 0
    bypass: str = ""  # reason of an emergency bypass at the billing gate
    blocked: int = 0  # bills refused
    reordered: bool = False
    settled: str = ""  # id of the settlement run
    service_request: str = ""  # our ServiceRequest's id, and its status before it was revoked
    service_request_status: str = ""
    viewers: list[str] = field(default_factory=list)  # doctors who opened a report, and who quoted it
    quoters: list[str] = field(default_factory=list)
    reviewed_by: str = ""
    acted_at: int = 0  # of the last decision or revoking: the gateway's time, the client's (0: not said) and by whom
    acted_client: int = 0
    acted_by: str = ""
    keys: dict[str, str] = field(default_factory=dict)  # keys of actions done → what was done, to know a replay


@dataclass(frozen=True, slots=True)
class Signature:
    """What a doctor selects or signs at once: the orders, and whom they are for.

    ``patient``: the Patient as the ordering hospital knows it (identifiers, name, gender, birthDate): by its national
    identifier, else by the hospital's own number, it leads to the person. ``hook``: "patient-view", "order-select",
    "order-sign", "hl7v2" or "check". ``record``: whether lines and reminders are recorded (not for "check").
    ``now``: µs.
    """

    institution: str
    orders: tuple[Order, ...]
    patient: Mapping[str, Any]
    hook: str
    now: int
    caller: str = ""  # name of the client, for the audit
    peer: str = ""
    record: bool = True


@dataclass(frozen=True, slots=True)
class Shown:
    """An earlier result as a card or the plug-in names it, without its content."""

    reference: str  # "Observation/…" or "DiagnosticReport/…"
    report: str  # id of the DiagnosticReport to open; "" when there is none
    item: str
    name_zh: str
    name_en: str
    institution: str
    institution_zh: str
    institution_en: str
    time: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer for one order line. ``line``: its id; "" where nothing was recorded.

    ``suppressed``: decided before for these results, so that nothing is shown again. ``interruptive``: the one
    reminder of a signature that may interrupt holds this line. ``card``: uuid of the card that shows this line: all
    lines of a signature with the same uuid are one card (RECOGNISABLE ones together, quiet ones together).
    """

    order: Order
    verdict: Verdict
    results: tuple[Shown, ...] = ()
    line: str = ""
    state: str = ""
    decision: str = ""
    interruptive: bool = False
    suppressed: bool = False
    blocking: bool = False
    card: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action did. ``changed`` False: it was done before by the same doctor (idempotent)."""

    line: str
    state: str
    decision: str
    changed: bool
    event: int = 0  # seq of the last event


@dataclass(frozen=True, slots=True)
class BillRequest:
    """May this order line be billed? ``institution`` and ``number`` name the line, or ``line`` its id.

    ``action``: "bill", "check" (ask only: an event where it is denied, but nothing is billed) or "cancel".
    ``emergency``: the reason of a bypass. ``patient`` and ``code`` let an order that was never seen be judged now.
    """

    institution: str
    number: str = ""
    line: str = ""
    action: str = "bill"
    emergency: str = ""
    patient: Mapping[str, Any] | None = None
    code: str = ""
    system: str = ""
    department: str = ""
    doctor: str = ""
    scheme: str = ""
    now: int = 0
    via: str = "api"


@dataclass(frozen=True, slots=True)
class BillAnswer:
    """``allowed`` and why: ``code`` is RECOGNISED, UNDECIDED, NOT_RECOGNISED, NOT_COVERED, BYPASS, ALREADY_BILLED …"""

    allowed: bool
    code: str
    line: str
    decision: str = ""
    event: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What is there for a patient before anything is ordered: ``pending`` reminders of the asking hospital's lines, and

    ``results`` of other hospitals that would be recognisable if ordered now (the newest of each item, newest first).
    ``total``: how many items that are, ``results`` being the first of them; ``institutions``: slugs of who made them.
    """

    pending: tuple[Checked, ...] = ()
    results: tuple[Shown, ...] = ()
    total: int = 0
    institutions: tuple[str, ...] = ()
