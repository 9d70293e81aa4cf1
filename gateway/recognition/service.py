"""Recognition: what the edges and the pipeline call. One per process, safe from many threads.

    check     verdicts of a signature's orders; lines and reminders are recorded in one unit
    act       view, recognise, not_recognise, revoke, quote, review
    bill      may this line be billed? Every answer is an event
    reminders, line, summary, detail      what is pending, for whom, and what the plug-in shows

A line is read, the pure state machine says what it becomes, and both are written if the line has not changed meanwhile;
if it has, it is read again. So of two doctors at once one decides, and the other hears it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from gateway import search
from gateway.adapter import Adapters
from gateway.caller import GATEWAY, Caller
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.recognition import billing, checking, decision, detail, issue
from gateway.recognition.checking import Checker, Finding, Found
from gateway.recognition.model import (
    Action,
    BillAnswer,
    BillRequest,
    Checked,
    EventKind,
    Kind,
    Order,
    Outcome,
    Signature,
    State,
    Summary,
)
from gateway.recognition.orders import item_of, line_id
from gateway.recognition.pending import DAY, PENDING_DAYS, Pending, Wanted
from gateway.recognition.rules import RuleSet
from gateway.recognition.versions import Rulebook
from gateway.source import Source, Unmapped
from gateway.store import types
from gateway.store.model import Access, Line, LineChange, Put, Row, Settlement, Unit

if TYPE_CHECKING:
    from gateway.store import Store

T = TypeVar("T")

#: Hooks whose reminders are recorded; at `_SIGNED` also what nothing covers.
_RECORDED = frozenset(("order-select", "order-sign", "hl7v2", "billing"))
_SIGNED = frozenset(("order-sign", "hl7v2", "billing"))
_INTERRUPTS = frozenset(("order-sign", "hl7v2", "check"))
_ATTEMPTS = 8
#: An earlier line of the same item is looked for this far back; its decision may be younger than itself.
_REORDERS = 30 * DAY
SUMMARY_RESULTS = 20


class Recognition:
    """See the module."""

    def __init__(self, settings: Settings, store: Store, adapters: Adapters, *,
                 clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._store = store
        self._adapters = adapters
        self._clock = clock
        self._sources = {adapter.source.institution: adapter.source for adapter in adapters.all}
        self._facilities = {adapter.source.institution: adapter.source for adapter in adapters.all
                            if adapter.per_facility}
        self.rulebook = Rulebook(settings.timezone, adapters.all, store)
        self._checker = Checker(store, settings.timezone)
        self._pending = Pending(store)

    def rules(self, now: int | None = None) -> RuleSet:
        """The version of the catalogue that holds (at ``now``, µs; None: the clock's)."""
        return self.rulebook.at(self._clock() if now is None else now)

    def source(self, institution: str) -> Source | None:
        """A hospital as its manifest says it: to map local codes; None where no manifest names it."""
        found = self._sources.get(institution)
        if found is None:
            base = next((one for slug, one in self._facilities.items() if institution.startswith(f"{slug}-")), None)
            if base is not None:  # as `gateway.adapter.Adapter.source_for` makes it
                found = replace(base, institution=institution, name=institution,
                                code_system=f"urn:huren:{institution}:item")
        return found

    def require_institution(self, institution: str, now: int | None = None) -> None:
        """NOT_FOUND for a hospital that neither a manifest nor the catalogue names."""
        if not institution:
            raise GatewayError(Category.INVALID, "say which hospital orders", "institution", detail="required")
        if self.source(institution) is None and institution not in self.rules(now).institutions:
            raise GatewayError(Category.NOT_FOUND, "no manifest and no catalogue names this hospital", "institution")

    def person_of(self, institution: str, patient: Mapping[str, Any]) -> int:
        """The person that a hospital's Patient means; 0: nobody whom we know. CONFLICT: it says two persons."""
        who = self._checker.who(patient, self.source(institution), self._clock())
        if who.doubt:
            raise GatewayError(Category.CONFLICT, "the Patient's identifiers lead to different persons; correct them",
                               "Patient.identifier")
        return who.person

    # ---------------------------------------------------------------- check

    def check(self, signature: Signature) -> list[Checked]:
        """The answer for each order, in their order; what must be recorded is committed when this returns."""
        checking.require_orders(signature)
        self.require_institution(signature.institution, signature.now)
        if not signature.orders:
            return []
        rules = self.rules(signature.now)
        found = self._checker.find(signature, self.source(signature.institution), rules)
        return self._repeated(lambda: self._answered(signature, rules, found))

    def _answered(self, signature: Signature, rules: RuleSet, found: Found) -> list[Checked]:
        now, institution = signature.now, signature.institution
        ids = [line_id(institution, one.order.number) for one in found.findings]
        known = self._store.lines(ids)
        answers = [self._answer(signature, rules, found, finding, known.get(id) or Line(
            id, institution, finding.order.number, found.person, finding.order.item, "", created=now))
            for id, finding in zip(ids, found.findings, strict=True)]
        _name_cards(answers)
        access = Access(signature.caller or "gateway", institution, "recognition", signature.hook, 200, signature.peer,
                        (found.person,) if found.person else ())
        if not signature.record or signature.hook not in _RECORDED:
            self._store.audit(access)
            return [answer.checked(answer.line) for answer in answers]
        changes = [answer.change(found, signature.hook, now) for answer in answers]
        done = [change for change in changes if change.events]
        if not done:
            self._store.audit(access)
        else:
            unit = Unit(access=access, ledger=[*done, *self._reorders(signature, changes, now)])
            if unmapped := [Unmapped("order", order.local, order.display, where="ServiceRequest.code") for change, order
                            in zip(changes, signature.orders, strict=True)
                            if change.events and not order.item and order.local
                            and signature.hook != "hl7v2"]:  # a message's are counted with the message
                unit.settlement = Settlement(0, "stored", institution, "", None, unmapped)
            self._store.write(unit, GATEWAY)
        return [answer.checked(change.line) for answer, change in zip(answers, changes, strict=True)]

    def _answer(self, signature: Signature, rules: RuleSet, found: Found, finding: Finding, line: Line) -> _Answer:
        order, verdict = finding.order, finding.verdict
        if line.person != found.person and found.person:
            line = replace(line, person=found.person)
        suppressed = line.version > 0 and decision.suppresses(line, order.item, finding.results)
        open_ = not suppressed and line.state not in decision.DECIDED and verdict.kind is Kind.RECOGNISABLE
        blocking = open_ and rules.setting(signature.institution, "blocking", order.item, order.department,
                                           self.rulebook.day(signature.now)) == "yes"
        return _Answer(finding, line, suppressed, open_ and signature.hook in _INTERRUPTS, open_, blocking)

    def _reorders(self, signature: Signature, changes: Sequence[LineChange], now: int) -> list[LineChange]:
        """Earlier recognised lines of the same person and item, when these lines are new orders."""
        new = {change.line.item: change.line for change in changes
               if change.events and not change.line.version and change.line.item and change.line.person}
        if not new or signature.hook not in _SIGNED:
            return []
        person = next(iter(new.values())).person
        found = [decision.reordered(line, new[line.item].id, now)
                 for line in self._store.lines_of(person, since=now - _REORDERS, state=State.RECOGNISED)
                 if line.item in new]
        return [change for change in found if change.events]

    def _repeated(self, work: Callable[[], T]) -> T:
        """Again, where a line or a resource was changed between reading and writing."""
        for _ in range(_ATTEMPTS):
            try:
                return work()
            except GatewayError as error:
                if error.category is not Category.CONFLICT or error.detail not in ("moved", "precondition"):
                    raise
        raise GatewayError(Category.BUSY, "others are changing this order line all the time; send again later", "line")

    # ---------------------------------------------------------------- act

    def act(self, action: Action, caller: Caller, peer: str = "") -> Outcome:
        """Do it; committed when this returns. INVALID, FORBIDDEN, NOT_FOUND, CONFLICT (detail ``decided``)."""
        if action.kind == "review":
            caller.require("u", "DetectedIssue")
            if caller.sees("DetectedIssue", "u") is not None:
                raise GatewayError(Category.FORBIDDEN, "a review is a commission's: it needs a scope of level system",
                                   "DetectedIssue")
        else:
            caller.require("c", "DetectedIssue")
        return self._repeated(lambda: self._acted(action, caller, peer))

    def _acted(self, action: Action, caller: Caller, peer: str) -> Outcome:
        now = self._clock()
        rules = self.rules(now)
        line = self._own_line(action.line, caller, "u" if action.kind == "review" else "c")
        change = decision.apply(line, action, rules, now, self.rulebook.day(now))
        if not change.events:
            return Outcome(line.id, line.state, line.body.get("decision", ""), False)
        unit = Unit(access=Access(caller.name, caller.institution or line.institution, f"recognition-{action.kind}",
                                  f"order-line/{line.id}", 200, peer))
        if change.events[0]["kind"] in (EventKind.RECOGNISED, EventKind.NOT_RECOGNISED, EventKind.REVOKED):
            change, puts = self._resources(line, change, rules, now)
            unit.operations = [*puts]
        unit.ledger = [change]
        self._store.write(unit, GATEWAY)
        return Outcome(line.id, change.line.state, change.line.body["decision"], True, unit.kept[-1].seq)

    def find_line(self, id: str) -> Line | None:
        """A line, whoever asks; None where there is none."""
        return self._store.lines([id]).get(id) if _is_uuid(id) else None

    def _own_line(self, id: str, caller: Caller, interaction: str, resource_type: str = "DetectedIssue") -> Line:
        """A line that this caller may speak of."""
        caller.require(interaction, resource_type)
        line = self.find_line(id)
        if line is None:
            raise GatewayError(Category.NOT_FOUND, "no such order line; check its id, or send the order first", "line")
        only = caller.sees(resource_type, interaction)
        if only is not None and only != line.institution:
            raise GatewayError(Category.FORBIDDEN, "this order line belongs to another hospital", "line")
        return line

    def _resources(self, before: Line, change: LineChange, rules: RuleSet, now: int) -> tuple[LineChange, list[Put]]:
        """What a decision is for FHIR clients; the line remembers its ServiceRequest."""
        line, body = change.line, decision.body_of(change.line)
        if not body.patient:
            return change, []
        source = self.source(line.institution)
        ids = issue.request_ids(line, body, source)
        rows = {row.id: row for row in self._store.named([types.key("ServiceRequest", id) for id in ids], GATEWAY)
                if row.institution == line.institution}
        row = next((rows[id] for id in ids if id in rows), None)
        given = detail.read(row) if row else issue.service_request(line, body, source, rules)
        request, status = issue.with_status(line, body, given)
        puts = [] if row and request == given else [
            Put(request, row.institution if row else line.institution, if_match=row.version if row else 0)]
        members = {"service_request": request["id"], "service_request_status": status}
        change = decision.with_members(change, members)
        line, body = change.line, decision.body_of(change.line)
        if line.state == State.RECOGNISED:
            puts += self._released(request["id"])
        reason = rules.reason(line.institution, body.reason, self.rulebook.day(now)) if body.reason else None
        decided = body.decision or before.body["decision"]
        made = [issue.detected_issue(line, body, request["id"], self._trace(line), reason, now),
                issue.provenance(line, body, decided, request["id"], now)]
        puts += [Put(one, line.institution) for one in made]
        for put in puts:
            check.require_valid(put.resource)
        return change, puts

    def _released(self, request: str) -> list[Put]:
        page = search.search(self._store, GATEWAY, "Appointment", [("based-on", f"ServiceRequest/{request}")])
        found = [(row, issue.released(detail.read(row))) for row in page.rows]
        return [Put(freed, row.institution, if_match=row.version) for row, freed in found if freed]

    def _trace(self, line: Line) -> list[dict[str, Any]]:
        """The trace of the last reminder."""
        for event in reversed(self._store.events(line.id)):
            if event.kind == EventKind.REMINDED:
                return orjson.loads(event.text).get("trace", [])
        return []

    # ---------------------------------------------------------------- bill

    def bill(self, request: BillRequest, caller: Caller, peer: str = "") -> BillAnswer:
        """May this line be billed? ``allowed`` False is an answer, no refusal; every answer is an event."""
        billing.check(request)
        caller.require("c", "ChargeItem")
        only = caller.sees("ChargeItem", "c")
        institution = request.institution or only or ""
        if request.line:
            institution = self._own_line(request.line, caller, "c", "ChargeItem").institution
        if only is not None and institution != only:
            raise GatewayError(Category.FORBIDDEN, "this client asks for the bills of its own hospital only",
                               "institution")
        now = request.now or self._clock()
        self.require_institution(institution, now)
        id = request.line or line_id(institution, request.number)
        return self._repeated(lambda: self._billed(replace(request, institution=institution), id, now, caller, peer))

    def _billed(self, request: BillRequest, id: str, now: int, caller: Caller, peer: str) -> BillAnswer:
        rules, source = self.rules(now), self.source(request.institution)
        line = self._store.lines([id]).get(id)
        if line is None and request.action != "cancel" and request.patient is not None and request.code:
            self.check(Signature(request.institution, (_ordered(request, rules, source),), request.patient, "billing",
                                 now, caller.name, peer))
            line = self._store.lines([id]).get(id)
        if line is None:
            line = Line(id, request.institution, request.number, 0, _ordered(request, rules, source).item, "",
                        created=now)
        gate = billing.gate(line, request, rules, now, self.rulebook.day(now))
        unit = Unit(access=Access(caller.name, request.institution, f"billing-{request.action}", f"order-line/{id}",
                                  200, peer), ledger=[gate.change] if gate.change.events else [])
        if unit.ledger:
            self._store.write(unit, GATEWAY)
        elif unit.access:
            self._store.audit(unit.access)
        return BillAnswer(gate.allowed, gate.code, id, gate.change.line.body.get("decision", ""),
                          unit.kept[-1].seq if unit.kept else 0)

    # ---------------------------------------------------------------- read

    def reminders(self, caller: Caller, institution: str, *, patient: str = "", person: int = 0, doctor: str = "",
                  encounter: str = "", since: int = 0, limit: int = 100, peer: str = "") -> list[Checked]:
        """Reminders without a decision, newest first, as ``check`` gave them. ``patient``: id of our Patient.

        ``since``: lines made since then (µs); 0: within `PENDING_DAYS`.
        """
        caller.require("r", "DetectedIssue")
        only = caller.sees("DetectedIssue", "r")
        if only is not None and institution != only:
            raise GatewayError(Category.FORBIDDEN, "this client reads the reminders of its own hospital only",
                               "institution")
        now = self._clock()
        self.require_institution(institution, now)
        if patient and not person:
            person = self._store.persons_of([patient]).get(patient, 0)
            if not person:
                raise GatewayError(Category.NOT_FOUND, "no such patient", "patient")
        wanted = Wanted(institution, doctor, encounter)
        lines = self._pending.lines(wanted, person, since or now - PENDING_DAYS * DAY, limit)
        found = self._pending.restored(lines, self.rules(now), self.rulebook.day(now))
        self._store.audit(Access(caller.name, caller.institution, "recognition-reminders", f"institution/{institution}",
                                 200, peer, tuple(sorted({line.person for line in lines} - {0}))))
        return found

    def line(self, id: str, caller: Caller) -> Checked:
        """One line as it stands; NOT_FOUND, FORBIDDEN."""
        line = self._own_line(id, caller, "r")
        now = self._clock()
        return self._pending.restored([line], self.rules(now), self.rulebook.day(now))[0]

    def events(self, id: str, caller: Caller) -> list[dict[str, Any]]:
        """What happened to a line, in order, each with its hash; NOT_FOUND, FORBIDDEN."""
        line = self._own_line(id, caller, "r")
        return [{**orjson.loads(event.text), "hash": event.hash.hex()} for event in self._store.events(line.id)]

    def lines_of_card(self, card: str, caller: Caller) -> list[Line]:
        """The lines that a card showed and that this caller may speak of."""
        caller.require("r", "DetectedIssue")
        only = caller.sees("DetectedIssue", "r")
        lines = self._store.lines_of_card(card) if _is_uuid(card) else []
        return [line for line in lines if only is None or line.institution == only]

    def summary(self, signature: Signature) -> Summary:
        """For patient-view, which has no orders: what is pending, and what other hospitals have that would count."""
        self.require_institution(signature.institution, signature.now)
        rules = self.rules(signature.now)
        who = self._checker.who(signature.patient, self.source(signature.institution), signature.now)
        if not who.person or who.doubt:
            return Summary()
        pending = self._pending.lines(Wanted(signature.institution), who.person,
                                      signature.now - PENDING_DAYS * DAY, SUMMARY_RESULTS)
        found = self._checker.useful(who.person, signature.patient, signature.institution, rules, signature.now)
        self._store.audit(Access(signature.caller or "gateway", signature.institution, "recognition", signature.hook,
                                 200, signature.peer, (who.person,)))
        waiting = self._pending.restored(pending, rules, self.rulebook.day(signature.now))
        return Summary(tuple(waiting), tuple(found[:SUMMARY_RESULTS]), len(found),
                       tuple(dict.fromkeys(one.institution for one in found)))

    def detail(self, id: str, caller: Caller, peer: str = "") -> dict[str, Any]:
        """All that the plug-in shows of a line, JSON-able; audited, and not a view by itself."""
        line = self._own_line(id, caller, "r")
        now = self._clock()
        rules = self.rules(now)
        made = detail.Detail(self._store, self._checker, rules, self.rulebook.day(now)).of(line)
        self._store.audit(Access(caller.name, caller.institution or line.institution, "recognition-detail",
                                 f"order-line/{line.id}", 200, peer, (line.person,) if line.person else ()))
        return made

    def studies(self, id: str, caller: Caller) -> list[tuple[str, Row]]:
        """The ImagingStudies behind a line's reports, each with its report's id; NOT_FOUND, FORBIDDEN."""
        line = self._own_line(id, caller, "r")
        found: list[tuple[str, Row]] = []
        for row in self._store.named([types.key("DiagnosticReport", one) for one in line.body["reports"]], GATEWAY):
            report = detail.read(row)
            named = [one["reference"].rpartition("/")[2] for one in report.get("imagingStudy", ())
                     if "ImagingStudy/" in one.get("reference", "")]
            rows = self._store.named([types.key("ImagingStudy", one) for one in named], GATEWAY) if named \
                else self._checker.studies_of(report) if detail.item_of(report).startswith("E") else []
            found += [(row.id, study) for study in rows]
        return found


@dataclass(slots=True)
class _Answer:
    """One order's answer before it is recorded. ``main``: it belongs on the card of those to decide now."""

    finding: Finding
    line: Line
    suppressed: bool
    interruptive: bool
    main: bool
    blocking: bool
    card: str = ""

    def change(self, found: Found, hook: str, now: int) -> LineChange:
        """The line with this reminder; nothing where it is not to be recorded."""
        finding = self.finding
        if not self.line.version and finding.verdict.kind is Kind.NOT and hook not in _SIGNED:
            return decision.same(self.line)
        return decision.remind(self.line, finding.order, finding.verdict, decision.Found(
            finding.results, finding.reports, finding.issuers, found.patient, self.card, self.interruptive, hook,
            finding.trace), now)

    def checked(self, line: Line) -> Checked:
        """For the caller. ``line``: as it was recorded; without a state it was not."""
        finding = self.finding
        return Checked(finding.order, finding.verdict, finding.shown, line.id if line.state else "", line.state,
                       line.body.get("decision", ""), self.interruptive, self.suppressed, self.blocking, self.card)


def _name_cards(answers: Iterable[_Answer]) -> None:
    """One card for what is to be decided now, one for what is shown quietly."""
    shown = [answer for answer in answers if not answer.suppressed and answer.finding.results]
    for main in (True, False):
        group = [answer for answer in shown if answer.main is main]
        card = decision.card_id((answer.line.id, result) for answer in group for result in answer.finding.results)
        for answer in group:
            answer.card = card


def _ordered(request: BillRequest, rules: RuleSet, source: Source | None) -> Order:
    """The order that a bill names by its code."""
    system = request.system or (source.code_system if source else "")
    item = item_of([(system, request.code)], rules, source, "code") if request.code else ""
    return Order(request.institution, request.number, item, request.code, department=request.department,
                 doctor=request.doctor, scheme=request.scheme)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
