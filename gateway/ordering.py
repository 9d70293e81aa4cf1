"""What an order or a charge that came as a message means for mutual recognition: before it is stored, and after.

Before: an order line whose earlier result was recognised is not made active again, and not billed (CONFLICT). After:
new and changed orders are matched with earlier results as CDS Hooks does it, and the reminder goes back as the
hospital's manifest says. A fault of the matching never costs an order: it is stored and answered AA, and the fault is
logged and kept with the receipt.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway import hl7v2
from gateway.adapter import Adapters
from gateway.caller import GATEWAY, Caller
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.fhir import json as fhir_json
from gateway.fhir.resource import text
from gateway.recognition.decision import changed
from gateway.recognition.model import BillRequest, Checked, EventKind, Kind, Order, Signature, State
from gateway.recognition.notices import sentence_of
from gateway.recognition.orders import line_id, order_from
from gateway.search import escape, resolve_conditional
from gateway.source import Change, Charge, Conversion, OrderLine, Resource, Source, Unmapped
from gateway.store.model import Line, Put, Unit

if TYPE_CHECKING:
    from gateway.recognition.service import Recognition
    from gateway.store import Store

log = logging.getLogger("huren.ordering")

#: ``Receipt.detail`` of a stored order message: the matching failed; or these orders (OBR, counted) had a reminder.
UNMATCHED = "unmatched"
REMINDED = "reminded"
_ENDED = frozenset(("revoked", "entered-in-error"))
_PENDING = frozenset((State.REMINDED, State.VIEWED))
_ATTEMPTS = 8  # where others change the same line
_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent the message, for recognition and its audit."""

    source: Source
    facility: str
    peer: str
    reminder: str  # of the manifest: none, ack, response

    @property
    def institution(self) -> str:
        """The hospital's slug."""
        return self.source.institution

    @property
    def caller(self) -> Caller:
        """It acts for its own hospital's lines only."""
        return Caller(f"mllp:{self.facility}", self.institution, ("institution/*.cruds",))


class Ordering:
    """One per process, safe from many threads; opens recognition with the first order."""

    def __init__(self, settings: Settings, store: Store, adapters: Adapters) -> None:
        self._settings = settings
        self._store = store
        self._adapters = adapters
        self.failures: Counter[str] = Counter()  # matchings that failed, by institution

    @cached_property
    def _recognition(self) -> Recognition:
        from gateway.recognition.service import Recognition

        return Recognition(self._settings, self._store, self._adapters)

    # ---------------------------------------------------------------- before it is stored

    def admit(self, conversion: Conversion, sender: Sender) -> list[BillRequest]:
        """Complete what the message leaves to what is known, then refuse what a decision forbids; bill what it allows.

        Returns what was billed or cancelled, for ``take_back``. CONFLICT (detail ``recognised``) with the decision's
        id; then nothing of the message has happened.
        """
        self._complete(conversion)
        self._guard(conversion.orders, sender)
        return self._charge(conversion, sender)

    def take_back(self, billed: Sequence[BillRequest], sender: Sender) -> None:
        """Undo what ``admit`` did, since the message is not stored after all; last first."""
        for request in reversed(billed):
            undo = {"bill": "cancel", "cancel": "bill"}[request.action]
            self._recognition.bill(replace(request, action=undo), sender.caller, sender.peer)

    def _complete(self, conversion: Conversion) -> None:
        """An order that is named by ORC alone gets its new status; a changed one keeps when it was made."""
        made = {change.resource["id"]: change for change in conversion.changes
                if change.resource["resourceType"] == "ServiceRequest"}
        as_of = next((change.as_of for change in conversion.changes
                      if change.resource["resourceType"] == "Provenance"), None)
        for line in conversion.orders:
            change = made.get(line.request)
            if line.partial and change is None:
                known = self._known(line.request)
                if known is None:
                    raise GatewayError(Category.NOT_FOUND, "no order of this number is known; send the whole order "
                                                           "with OBR", f"{line.place}-2")
                if known["status"] != line.status:
                    known["status"] = line.status
                    conversion.changes.append(Change(known, as_of))
            elif change is not None and line.control not in ("", "NW") and "authoredOn" not in change.resource:
                known = self._known(line.request)
                if known is not None and "authoredOn" in known:
                    change.resource["authoredOn"] = known["authoredOn"]

    def _known(self, request: str) -> Resource | None:
        row = self._store.read("ServiceRequest", request, GATEWAY)
        if row is None or row.deleted:
            return None
        resource: Resource = fhir_json.loads(text(row.resource_type, row.id, row.version, row.updated, row.tail))
        resource.get("meta", {}).pop("versionId", None)
        resource.get("meta", {}).pop("lastUpdated", None)
        return resource

    def _guard(self, lines: Sequence[OrderLine], sender: Sender) -> None:
        """An order whose earlier result was recognised stays revoked until the decision is."""
        for line, known in self._recognised(lines, sender):
            raise GatewayError(
                Category.CONFLICT, f"an earlier result was recognised for this order (decision "
                f"{known.body.get('decision', '')}): cancel the order, or revoke the decision first",
                f"{line.control_place}-1", detail="recognised")

    def _recognised(self, lines: Sequence[OrderLine], sender: Sender) -> list[tuple[OrderLine, Line]]:
        """Of the orders that the message makes or keeps active, those whose earlier result was recognised."""
        waking = {line_id(sender.institution, line.number): line for line in lines
                  if line.status in ("active", "on-hold")}
        known = self._store.lines(waking) if waking else {}
        return [(waking[id], line) for id, line in known.items() if line.state == State.RECOGNISED]

    def _charge(self, conversion: Conversion, sender: Sender) -> list[BillRequest]:
        """Ask of all before any is billed: one that may not be refuses the message."""
        patients = {change.resource["id"]: change.resource for change in conversion.changes
                    if change.resource["resourceType"] == "Patient"}
        requests = [(charge, self._bill(charge, patients, sender)) for charge in conversion.charges if charge.number]
        for charge, request in requests:
            if request.action == "bill":
                self._ask(charge, replace(request, action="check"), sender)
        done: list[BillRequest] = []
        try:
            for charge, request in requests:
                if self._ask(charge, request, sender) not in ("ALREADY_BILLED", "NOT_BILLED"):
                    done.append(request)
        except GatewayError:  # a doctor recognised it in between
            self.take_back(done, sender)
            raise
        return done

    def _ask(self, charge: Charge, request: BillRequest, sender: Sender) -> str:
        answer = self._recognition.bill(request, sender.caller, sender.peer)
        if answer.allowed:
            return answer.code
        if answer.code == "RECOGNISED":
            said = f"an earlier result was recognised for this order (decision {answer.decision}): it may not be " \
                   "billed until the decision is revoked"
        else:
            said = f"this order may not be billed before somebody has decided about its earlier results " \
                   f"(line {answer.line})"
        raise GatewayError(Category.CONFLICT, said, charge.place, detail=answer.code.lower())

    def _bill(self, charge: Charge, patients: dict[str, Resource], sender: Sender) -> BillRequest:
        return BillRequest(
            institution=sender.institution, number=self._placer_number(charge, sender.institution),
            action="cancel" if charge.credit else "bill", patient=patients.get(charge.patient), code=charge.code,
            system=sender.source.code_system, department=charge.department, doctor=charge.doctor, scheme=charge.scheme,
            now=_now(), via="hl7v2")

    def _placer_number(self, charge: Charge, institution: str) -> str:
        """The order's number where the charge names the filler's alone (FT1-23)."""
        if not charge.filler:
            return charge.number
        system, _, value = charge.filler.partition("|")
        query = f"ServiceRequest?identifier={quote(f'{system}|{escape(value)}', safe='')}"
        for request in resolve_conditional(self._store, GATEWAY, query):
            known = self._known(request)
            for identifier in (known or {}).get("identifier", ()):
                codes = {coding.get("code") for coding in identifier.get("type", {}).get("coding", ())
                         if coding.get("system") == _V2_0203}
                if "PLAC" in codes and str((known or {}).get("meta", {}).get("source", "")).endswith(f":{institution}"):
                    return str(identifier["value"])
        return charge.number

    # ---------------------------------------------------------------- after it is stored

    def match(self, conversion: Conversion, sender: Sender) -> tuple[dict[str, Checked], str]:
        """Matches of the message's new and changed orders, by their place; and what the receipt keeps of it."""
        found: dict[str, Checked] = {}
        failed = False
        self._withdraw([line for line in conversion.orders if line.status in _ENDED], sender)
        self._keep_revoked(conversion.orders, sender)
        by_patient: dict[str, list[tuple[OrderLine, Resource]]] = {}
        resources = {(c.resource["resourceType"], c.resource["id"]): c.resource for c in conversion.changes}
        for line in conversion.orders:
            request = resources.get(("ServiceRequest", line.request))
            if line.fresh and request is not None:
                by_patient.setdefault(line.patient, []).append((line, request))
        for patient, lines in by_patient.items():
            try:
                found |= self._check(resources.get(("Patient", patient), {}), lines, sender)
            except Exception as error:  # the order is stored: what is lost is its reminder
                failed = True
                self.failures[sender.institution] += 1
                log.error("matching institution=%s orders=%d failed=%d: %s", sender.institution, len(lines),
                          self.failures[sender.institution], _said(error))
        if failed:
            return found, UNMATCHED
        reminded = [place for place, checked in found.items() if not checked.suppressed and checked.results]
        return found, f"{REMINDED} {' '.join(reminded)}" if reminded else ""

    def _keep_revoked(self, lines: Sequence[OrderLine], sender: Sender) -> None:
        """A doctor may recognise between `admit` and the store's commit: then the order is revoked once more."""
        for line, _ in self._recognised(lines, sender):
            request = self._known(line.request)
            if request is not None and request["status"] != "revoked":
                self._store.write(Unit([Put({**request, "status": "revoked"}, sender.institution)]), GATEWAY)

    def _withdraw(self, ended: Sequence[OrderLine], sender: Sender) -> None:
        """The reminder of an order that was cancelled waits for nobody any more; what was decided stays decided.

        Its results stay in the line; an order that comes to life again is matched and reminded of again.
        """
        ids = [line_id(sender.institution, line.number) for line in ended]
        for _ in range(_ATTEMPTS if ids else 0):
            changes = [changed(known, EventKind.ORDERED, known.state, "", members, {"hook": "hl7v2",
                                                                                    "codes": ["CANCELLED"]})
                       for known in self._store.lines(ids).values() if (members := _cancelled(known))]
            try:
                if changes:
                    self._store.write(Unit(ledger=changes), GATEWAY)
                return
            except GatewayError as error:
                if error.detail != "moved":
                    log.warning("withdraw institution=%s failed: %s", sender.institution, _said(error))
                    return

    def _check(self, patient: Resource, lines: list[tuple[OrderLine, Resource]], sender: Sender,
               ) -> dict[str, Checked]:
        orders = [self._order(line, request, sender) for line, request in lines]
        signature = Signature(institution=sender.institution, orders=tuple(orders), patient=patient, hook="hl7v2",
                              now=_now(), caller=sender.caller.name, peer=sender.peer)
        checked = self._recognition.check(signature)
        return {line.place: one for (line, _), one in zip(lines, checked, strict=True)}

    def _order(self, line: OrderLine, request: Resource, sender: Sender) -> Order:
        order = order_from(request, rules=self._recognition.rules(), institution=sender.institution,
                           source=sender.source, patient=line.patient,
                           encounter=dict(line.encounter) if line.encounter is not None else None,
                           department=line.department)
        return replace(order, number=line.number, doctor=line.doctor or order.doctor, scheme=line.scheme,
                       department=line.department or order.department, reference=f"ServiceRequest/{line.request}")

    def recall(self, conversion: Conversion, detail: str, sender: Sender) -> dict[str, Checked]:
        """What the first answer to this message reminded of, from the stored lines: a resend is answered alike.

        What could not be matched then is matched now.
        """
        if detail == UNMATCHED:
            return self.match(conversion, sender)[0]
        places = set(detail.split()[1:]) if detail.startswith(REMINDED) else set()
        found: dict[str, Checked] = {}
        for line in conversion.orders:
            if line.place in places:
                try:
                    known = self._recognition.line(line_id(sender.institution, line.number), sender.caller)
                    if known.verdict.kind is not Kind.NOT:  # the order was cancelled since, or is no longer covered
                        found[line.place] = replace(known, suppressed=False)
                except GatewayError as error:
                    log.warning("recall institution=%s failed: %s", sender.institution, _said(error))
        return found

    # ---------------------------------------------------------------- the answer

    def reply(self, message: hl7v2.Message, conversion: Conversion, found: dict[str, Checked],
              sender: Sender) -> hl7v2.Reply | None:
        """What goes back beside the acknowledgement; None where the plain ACK says it all."""
        if sender.reminder == "none" or not conversion.orders:
            return None
        language = _language(message)
        notices = {place: (self._notice(checked, place, language),)
                   for place, checked in found.items() if checked.results and not checked.suppressed}
        said = tuple(notice for several in notices.values() for notice in several)
        if sender.reminder == "ack":
            return hl7v2.Reply(message.codec, said) if said else None
        places = {f"{segment.name}[{segment.sequence}]": segment for segment in message.segments
                  if segment.name in ("OBR", "ORC")}
        orders = tuple(hl7v2.answered(places.get(line.place) if line.place.startswith("OBR") else None,
                                      places.get(line.control_place) if line.control_place.startswith("ORC") else None,
                                      line.control, notices.get(line.place, ()), message)
                       for line in conversion.orders)
        return hl7v2.Reply(message.codec, said, orders, hl7v2.patient_of(message), is_response=True)

    def _notice(self, checked: Checked, place: str, language: str) -> hl7v2.Notice:
        said = sentence_of(checked, language, self._settings.timezone, self._recognition.rules())
        return hl7v2.Notice(f"{place}-4", "W" if said.warns else "I", said.kind, said.name, said.text,
                            f"line {checked.line}" if checked.line else "")


def _cancelled(line: Line) -> dict[str, str]:
    """What a cancellation changes of a line: it waits no more, or a revoked decision does not bring it back."""
    if line.state in _PENDING and line.body.get("verdict") != Kind.NOT:
        return {"verdict": Kind.NOT.value}
    before = line.body.get("service_request_status")
    if line.state == State.RECOGNISED and before and before != "revoked":
        return {"service_request_status": "revoked"}
    return {}


def _language(message: hl7v2.Message) -> str:
    """MSH-19 English, or a character set that has no Chinese: en."""
    if message.header.first(19).lower().startswith("en"):
        return "en"
    try:
        "互认".encode(message.codec)
    except UnicodeEncodeError:
        return "en"
    return "zh"


def _now() -> int:
    return time.time_ns() // 1000


def _said(error: BaseException) -> str:
    """Category and place, or the kind of the error: never a value."""
    if isinstance(error, GatewayError):
        return f"{error.category.value} {error.where}".strip()
    return type(error).__name__


def unmapped_remark(unmapped: Sequence[Unmapped]) -> str:
    """What is said of an order whose code nothing maps."""
    return f"stored; {len(unmapped)} code(s) are not mapped to unified items, so that no earlier result is found " \
           "for these orders: add them to codes.csv"
