"""What goes into the store and what comes out, as plain values: no SQL here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from gateway.source import Resource, Unmapped


@dataclass(slots=True)
class Put:
    """Create or update ``resource`` (its ``id`` is set); a new version only where the content differs.

    ``as_of``/``on_older`` as in `gateway.source.Change`. ``if_match``: the version that must be current (412 →
    CONFLICT, detail ``precondition``); 0 means "must not exist". ``institution``: the owner of the data, or "" for the
    gateway's own.
    """

    resource: Resource
    institution: str = ""
    as_of: int | None = None
    on_older: str = "refuse"
    if_match: int | None = None
    #: made by ``Store.prepare``: tail, compressed body, index rows; whoever calls ``write`` need not care
    prepared: Any = None


@dataclass(slots=True)
class Delete:
    """Delete (http.html#delete): a new version without content; deleting what is not there is no error."""

    resource_type: str
    id: str
    if_match: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one Put or Delete, in the unit's order."""

    resource_type: str
    id: str
    version: int
    updated: int  # microseconds since the epoch
    outcome: str  # "created", "updated", "unchanged", "skipped" (older than ours), "deleted", "absent"


@dataclass(frozen=True, slots=True)
class Row:
    """One version of a resource. ``text`` (see `gateway.fhir.resource.text`) is head + tail."""

    pk: int
    resource_type: str
    id: str
    version: int
    updated: int
    deleted: bool
    person: int
    institution: str
    tail: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """What is stored of a resource now: to make the next version of it. ``version`` is for `Put.if_match`."""

    resource: Resource
    version: int
    as_of: int | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The settled outcome of an inbound message: what the edge answers, now and at every resend.

    ``category`` None: stored; ``remark`` then says e.g. that a code is unmapped (AA with ERR-4 W).
    """

    inbox_id: int
    category: str | None = None  # a Category's value
    message: str = ""
    where: str = ""
    detail: str = ""
    remark: str = ""
    remark_where: str = ""
    resources: int = 0
    resend: bool = False
    #: what the edge adds to its answer (`gateway.hl7v2.Reply`): made anew for a resend, never stored
    reply: Any = None


@dataclass(frozen=True, slots=True)
class Inbound:
    """A recorded message: its raw bytes are safe. ``receipt`` is set when the same bytes were stored before.

    ``id`` below 0: it is noted and has no row of the inbox yet (`Store.note`, `Store.keep`).
    """

    id: int
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Numbered:
    """Whether a message is its stream's next, and what to tell its sender as the expected number (-1: any)."""

    accepted: bool
    expected: int


@dataclass(slots=True)
class Settlement:
    """How an inbound message ends, committed together with its resources.

    ``inbox_id`` 0: there is no inbox row (a study's publication); only its ``unmapped`` are counted.
    """

    inbox_id: int
    status: str  # "stored" or "quarantined"
    institution: str = ""
    message_type: str = ""
    receipt: Receipt | None = None
    unmapped: list[Unmapped] = field(default_factory=list)

    def settled_as(self, inbox_id: int) -> None:
        """The row that a noted message (`Store.note`) got."""
        self.inbox_id = inbox_id
        if self.receipt:
            self.receipt = replace(self.receipt, inbox_id=inbox_id)


@dataclass(slots=True)
class Access:
    """An audit row: who did what to whose data. ``persons``: keys of the persons whose data were shown or changed."""

    caller: str
    institution: str | None
    action: str  # "read", "vread", "history", "search", "create", "update", "delete", "batch", "receive"…
    target: str  # "Observation/…" or "Observation?code=…" (values of searches are kept: this is the audit); "inbox":
    # the message of the same unit
    outcome: int  # HTTP status, or 200/4xx-like for other edges
    peer: str = ""
    persons: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """The current state of an order line (`gateway.recognition`): derived from its events, kept beside them.

    ``id``: UUID of institution and number (`gateway.recognition.orders.line_id`). ``version``: of the row; 0: not
    stored yet. ``body``: `gateway.recognition.model.LineBody` as JSON-able dict.
    """

    id: str
    institution: str
    number: str
    person: int
    item: str
    state: str
    version: int = 0
    created: int = 0  # µs
    updated: int = 0
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LineChange:
    """A line as it becomes, and the events that made it so; ``line.version`` is the version that was read.

    Each event is a JSON-able dict with at least ``kind``; the store adds ``seq``, ``at``, ``line``, ``version`` (of the
    line, as it becomes) and to the last one ``digest`` (of the line), and chains it. ``state`` in an event is the state
    that the line has after it. A new line (version 0) needs an event; its ``created`` is kept where it is not 0.
    ``cards``: uuids of cards that show this line now (`Store.lines_of_card`).
    """

    line: Line
    events: tuple[dict[str, Any], ...] = ()
    cards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """An event as it was kept. ``text`` is the JSON that was hashed, after the hash before it."""

    seq: int
    at: int  # µs
    line: str
    kind: str
    text: str
    hash: bytes


class Problem(NamedTuple):
    """What `Store.verify_events` found: an event or a line that is not as it was written."""

    seq: int  # 0: not about one event
    line: str  # "" : not about one line
    sentence: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome of `Store.verify_events`. ``head_seq`` and ``head_hash``: the newest event, to be noted elsewhere."""

    events: int
    lines: int
    problems: list[Problem]
    head_seq: int
    head_hash: str  # hexadecimal


class Result(NamedTuple):
    """A row of ``idx_result``: an earlier result of a person under a unified item (`recognition.model.Candidate`)."""

    item: str
    time: int  # µs; 0: unknown
    pk: int
    kind: str  # "Observation" or "DiagnosticReport"
    status: str
    institution: str
    flags: int
    side: str
    session: int


@dataclass(slots=True)
class Unit:
    """What is written all or nothing: operations, the end of an inbound message, the study published, the audit row,
    and changes of order lines with their events (CONFLICT, detail ``moved``: a line is not of the version read).

    ``kept``: the events of ``ledger`` as they were kept; `Store.write` sets it.
    """

    operations: list[Put | Delete] = field(default_factory=list)
    settlement: Settlement | None = None
    published_study: tuple[int, int] | None = None  # (study key, generation that was read)
    access: Access | None = None
    ledger: list[LineChange] = field(default_factory=list)
    kept: list[LedgerEvent] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Instance:
    """A stored DICOM object: ``facts`` is what `gateway.imaging` read from the header, as JSON-able dict."""

    institution: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    object_key: str
    size: int
    digest: bytes  # SHA-256 of the data set as received
    calling_aet: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DirtyStudy:
    """A study with instances that its ImagingStudy does not show yet."""

    key: int
    institution: str
    study_instance_uid: str
    generation: int
    first_dirty: int  # µs: oldest unpublished change
    last_dirty: int  # µs: newest


@dataclass(frozen=True, slots=True)
class Client:
    """Who may use the HTTP paths."""

    name: str
    institution: str | None
    scopes: tuple[str, ...]
    created: int
    revoked: int | None


@dataclass(frozen=True, slots=True)
class InboxRow:
    """An inbound message as an operator sees it; ``raw`` only where one is shown."""

    id: int
    received: int  # µs
    settled: int | None  # µs
    protocol: str
    peer: str
    facility: str
    control_id: str
    institution: str
    message_type: str
    status: str  # "received", "stored" or "quarantined"
    attempts: int
    receipt: Receipt | None
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class UnmappedRow:
    """A local code that no map knows, and how often it came."""

    institution: str
    kind: str
    local: str
    display: str
    unit: str
    where: str
    count: int
    first_seen: int  # µs
    last_seen: int


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An access as it was kept."""

    at: int  # µs
    access: Access
