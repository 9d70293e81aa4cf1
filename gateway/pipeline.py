"""The path of what arrives: record, find the adapter, convert, check, store; then the edge answers.

Edges call `Pipeline` with bytes and get a receipt or a `GatewayError`; they know nothing of what happens between.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import amending, hl7v2
from gateway.adapter import Adapter, Adapters, load_all
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.joining import Joining, accession_numbers
from gateway.ordering import Ordering, Sender, unmapped_remark
from gateway.recognition.marks import Marks
from gateway.recognition.versions import Rulebook
from gateway.source import Conversion
from gateway.store.model import Access, Delete, Inbound, Instance, Put, Receipt, Settlement, Unit

if TYPE_CHECKING:
    from gateway.store import Store

log = logging.getLogger("huren.pipeline")

_AMENDING = 40  # how often a resource is read again that somebody else changes at the same time


_NUMBER = re.compile(r"-1|[0-9]{1,15}")  # MSH-13


@dataclass(slots=True)
class Arrival:
    """A message whose raw bytes are committed.

    ``refusal``: what is wrong with it before it is read: no MSH, a sender that may not send, out of sequence.
    ``expected``: the sequence number to tell its sender (MSA-4), where the sender uses the protocol; ``is_link``: the
    message starts or resynchronizes the link and says nothing else.
    """

    raw: bytes
    peer: str
    header: hl7v2.Header | None
    inbound: Inbound
    adapter: Adapter | None = None
    refusal: GatewayError | None = None
    expected: int | None = None
    is_link: bool = False
    asked: hl7v2.Asked = hl7v2.ORIGINAL


class Pipeline:
    """What arrives through any port goes through here; one per process, safe from many threads."""

    def __init__(self, settings: Settings, store: Store, adapters: Adapters | None = None) -> None:
        self.store = store
        self.adapters = adapters or load_all(settings.adapter_folders, settings.default_adapter)
        self._institutions = {adapter.source.institution for adapter in self.adapters.all}
        self.rulebook = Rulebook(settings.timezone, self.adapters.all, store)
        self._marks = Marks(settings.timezone)
        self.ordering = Ordering(settings, store, self.adapters)
        self._joining = Joining(store)

    # ---------------------------------------------------------------- HL7v2

    def receive_hl7(self, raw: bytes, peer: str) -> Receipt:
        """Record one message, then settle it; the receipt is durable and says what to answer.

        Raises BUSY when the raw bytes could not be recorded: then nothing may be answered.
        """
        return self.settle(self.accept(raw, peer))

    def accept(self, raw: bytes, peer: str) -> Arrival:
        """Record one message, and look at what can be said of it before it is read (HL7 v2.5.1 2.9.3.1); BUSY.

        ``peer``: see `gateway.adapter.peer_of`. Where an accept acknowledgement (CA) is due at once, the raw bytes
        outlive a power failure, and a type that is not taken is known already.
        """
        header, refusal = _peek(raw)
        asked = hl7v2.asked(raw, header)
        known = (header.control_id, header.sending_facility) if header else ("", "")
        inbound = self.store.record(raw, "hl7v2", peer, *known, durable=True) if asked.commits_first \
            else self.store.note(raw, "hl7v2", peer, *known)
        arrival = self._arrival(raw, peer, header, inbound, refusal)
        if arrival.adapter is not None and arrival.adapter.acknowledgement_mode == "original":
            asked = hl7v2.asked(raw, header, is_original=True)
        arrival.asked = asked
        if arrival.refusal is None and header is not None and arrival.adapter is not None:
            if arrival.adapter.sequence_numbers and header.sequence_number:
                self._number(arrival, header)
            if asked.commits_first and arrival.adapter.before is None and not arrival.is_link:
                arrival.refusal = arrival.refusal or _not_taken(header)
        return arrival

    def settle(self, arrival: Arrival) -> Receipt:
        """Run what was accepted; the answer of a resend is that of the first time."""
        if arrival.inbound.receipt and arrival.refusal is None:
            self._log(arrival.header, "-", arrival.inbound.receipt, 0.0)
            return self._resent(arrival.inbound.receipt, arrival.raw, arrival.header)
        return self._settle(arrival)

    def _arrival(self, raw: bytes, peer: str, header: hl7v2.Header | None, inbound: Inbound,
                 refusal: GatewayError | None) -> Arrival:
        adapter = None
        if header is not None:
            try:
                adapter = self.adapters.for_hl7(header.sending_facility, header.sending_application, peer)
            except GatewayError as error:
                refusal = error
        is_link = adapter is not None and header is not None and adapter.sequence_numbers \
            and header.sequence_number in ("0", "-1")
        return Arrival(raw, peer, header, inbound, adapter, refusal, is_link=is_link)

    def _number(self, arrival: Arrival, header: hl7v2.Header) -> None:
        """Hold MSH-13 to the sequence number protocol (HL7 v2.5.1 2.10.1); the number is taken before it is settled."""
        text = header.sequence_number
        if not _NUMBER.fullmatch(text):
            arrival.refusal = GatewayError(Category.INVALID, "MSH-13 must be a whole number, 0 to start the link or -1 "
                                           "to resynchronize it", "MSH-13", detail="data-type")
            return
        stream = "|".join(header.field(n) for n in (3, 4, 5, 6))
        arrival.inbound = self.store.keep(arrival.inbound)
        numbered = self.store.claim(stream, int(text), arrival.inbound.id)
        arrival.expected = numbered.expected
        if not numbered.accepted and arrival.inbound.receipt is None:
            arrival.refusal = GatewayError(Category.CONFLICT, f"out of sequence; send number {numbered.expected} "
                                           "first, or resynchronize the link with -1", "MSH-13", detail="sequence")

    def _settle(self, arrival: Arrival) -> Receipt:
        began = time.perf_counter()
        institution = ""
        header = arrival.header
        try:
            if arrival.refusal or header is None or arrival.adapter is None:
                raise arrival.refusal or GatewayError(Category.MALFORMED, "no MSH segment", "MSH")
            institution = arrival.adapter.source_for(header.sending_facility).institution
            receipt = self._linked(arrival, institution) if arrival.is_link else \
                self._store(arrival, arrival.adapter, header)
        except GatewayError as error:
            if error.category is Category.BUSY or arrival.inbound.receipt:
                # It stays `received`, to be run again at the next start or when it is resent; or what is stored already
                # stays stored, though whoever sent it now may not.
                receipt = _refused(max(arrival.inbound.id, 0), error)
                self.store.leave(arrival.inbound)
            else:
                receipt = self._quarantine(arrival.inbound.id, institution, header, error)
        except Exception as error:  # whatever escapes is our fault; the raw bytes are kept and replayable
            log.error("fault in the conversion: %s at %s", type(error).__name__, _place(error))
            fault = GatewayError(Category.FAULT, "an error of the gateway itself; the message is kept for a replay")
            receipt = self._quarantine(arrival.inbound.id, institution, header, fault)
        self._log(header, institution, receipt, time.perf_counter() - began)
        return receipt

    def _linked(self, arrival: Arrival, institution: str) -> Receipt:
        """A message that only starts or resynchronizes the link: nothing beyond MSH counts (2.10.1 f)."""
        inbox_id = arrival.inbound.id
        settlement = Settlement(inbox_id, "stored", institution, "", Receipt(inbox_id))
        self.store.write(Unit(settlement=settlement), GATEWAY)
        assert settlement.receipt is not None
        return settlement.receipt

    def _store(self, arrival: Arrival, adapter: Adapter, header: hl7v2.Header) -> Receipt:
        message = adapter.parse(arrival.raw)
        conversion = adapter.convert_hl7(message, header.sending_facility)
        institution = adapter.source_for(header.sending_facility).institution
        if conversion.orders or conversion.unjoined or conversion.replaceable:  # settled later than its resources
            arrival.inbound = self.store.keep(arrival.inbound)
        inbox_id = arrival.inbound.id
        settlement = Settlement(inbox_id, "stored", institution, "^".join(header.message_type),
                                receipt := _stored(inbox_id, conversion), conversion.unmapped)
        access = Access(f"mllp:{header.sending_facility}", institution, "receive",
                        f"inbox/{inbox_id}" if inbox_id > 0 else "inbox", 200, arrival.peer)
        sender = _sender(adapter, header, arrival.peer) if conversion.orders or conversion.charges else None
        billed = self.ordering.admit(conversion, sender) if sender else []
        waiting = self._joining.fill(conversion, institution) if conversion.unjoined or conversion.replaceable else None
        try:
            # An order is settled when it has been matched, and a report or a document when it has looked behind the
            # commit for its images or its replacement, so that a crash in between runs it again.
            self._write(conversion, institution, Unit(
                settlement=None if conversion.orders or waiting else settlement, access=access))
        except Exception as error:
            if sender and billed:
                self.ordering.take_back(billed, sender)
            if isinstance(error, GatewayError) and error.category is Category.CONFLICT:
                # the store names the resource; its time was this field's
                reported = message.header.message_type[0] in ("ORU", "OUL")
                error.where = "OBR-22" if reported and any(obr.get(22) for obr in message.all("OBR")) else "MSH-7"
            raise
        if waiting:
            self._write_anew(lambda: self._joining.again(waiting, institution), Unit(settlement=settlement))
        if sender is None or not conversion.orders:
            return settlement.receipt or receipt
        found, detail = self.ordering.match(conversion, sender)
        settlement.receipt = receipt = replace(receipt, detail=detail)
        self.store.write(Unit(settlement=settlement), GATEWAY)
        return replace(receipt, reply=self.ordering.reply(message, conversion, found, sender))

    def _resent(self, receipt: Receipt, raw: bytes, header: hl7v2.Header | None) -> Receipt:
        """The same answer as the first time; that of an order message is made anew from the stored lines."""
        if receipt.category is not None or header is None or header.message_type[0] not in hl7v2.ORDER_MESSAGES:
            return receipt
        try:
            adapter = self.adapters.for_hl7(header.sending_facility, header.sending_application)
            sender = _sender(adapter, header, "")
            if sender.reminder == "none":
                return receipt
            message = adapter.parse(raw)
            conversion = adapter.convert_hl7(message, header.sending_facility)
            found = self.ordering.recall(conversion, receipt.detail, sender)
            return replace(receipt, reply=self.ordering.reply(message, conversion, found, sender))
        except GatewayError as error:  # the hospital's folder has changed since: what was stored stays stored
            log.warning("reminder of inbox=%s not repeated: %s", receipt.inbox_id, error.category.value)
            return receipt

    def _write(self, conversion: Conversion, institution: str, unit: Unit) -> None:
        """Documents first: what no resource names does no harm, and a message that is sent again puts them again."""
        for document in conversion.documents:
            self.store.objects.put(document_key(institution, document.id), document.data)
        puts = self._puts(conversion, institution)
        self._write_anew(lambda: [*puts, *amending.puts(self.store, conversion, institution)], unit)

    def _write_anew(self, make: Callable[[], Sequence[Put | Delete]], unit: Unit) -> None:
        """Write what ``make`` makes of what is stored, made anew as often as somebody else was quicker."""
        for left in reversed(range(_AMENDING)):
            unit.operations = list(make())
            try:
                self.store.write(unit, GATEWAY)
                return
            except GatewayError as error:
                if error.detail != "precondition":
                    raise
                if not left:
                    raise GatewayError(Category.BUSY, "others change the same resource all the time; send again "
                                                      "later") from error

    def _puts(self, conversion: Conversion, institution: str) -> list[Put | Delete]:
        for change in conversion.changes:
            check.require_valid(change.resource, profile=True)
        resources = [change.resource for change in conversion.changes]
        self._marks.set(resources, institution, self.rulebook.at(time.time_ns() // 1000))
        return [Put(c.resource, institution, c.as_of, c.on_older) for c in conversion.changes if c.onto is None]

    def _quarantine(self, inbox_id: int, institution: str, header: hl7v2.Header | None,
                    error: GatewayError) -> Receipt:
        receipt = _refused(inbox_id, error)
        kind = "^".join(header.message_type) if header else ""
        if institution not in self._institutions:  # a name that anyone may invent (``per_facility``) gets no number
            institution = ""
        settlement = Settlement(inbox_id, "quarantined", institution, kind, receipt)
        self.store.settle_refused(settlement)
        return settlement.receipt or receipt

    @staticmethod
    def _log(header: hl7v2.Header | None, institution: str, receipt: Receipt, seconds: float) -> None:
        outcome = receipt.category or ("resend" if receipt.resend else "stored")
        log.info("hl7v2 type=%s institution=%s control_id=%s inbox=%s outcome=%s where=%s resources=%d ms=%.1f",
                 "^".join(header.message_type) if header else "-", institution or "-",
                 header.control_id[:50] if header else "-", receipt.inbox_id, outcome, receipt.where or "-",
                 receipt.resources, seconds * 1000)

    def replay(self, inbox_id: int) -> Receipt:
        """Run a recorded message again, after a fix; a message that is stored already changes nothing."""
        row = self.store.inbox_show(inbox_id)
        if row is None:
            raise GatewayError(Category.NOT_FOUND, "no such inbox entry; `huren inbox list` shows them", str(inbox_id))
        # Somebody who may do so asks for it: the sender's address and certificate are not looked at again.
        return self._settle(self._arrival(row.raw, "", *_peeked(row.raw, inbox_id)))

    def recover(self) -> int:
        """Run what a crash left recorded but not settled; returns how many were run."""
        rows = self.store.inbox_received()
        for row in rows:
            try:  # the crash may have been before the sender was checked
                self._settle(self._arrival(row.raw, row.peer, *_peeked(row.raw, row.id)))
            except GatewayError as error:
                log.warning("recovery of inbox=%s stopped: %s", row.id, error.category.value)
        return len(rows)

    # ---------------------------------------------------------------- DICOM

    def receive_dicom(self, staged: Path, facts: dict[str, Any], digest: bytes, calling_aet: str, peer: str) -> str:
        """Take over a staged object (fsynced, on the object store's file system) and commit its row.

        Returns "new", "same" or "conflict"; the ImagingStudy follows with ``publish_studies``. Raises what the
        answer table says; then the staged file is the caller's to remove.
        """
        adapter = self.adapters.for_aet(calling_aet, peer)
        institution = adapter.source_for(calling_aet).institution
        study, series, sop = (facts[k] for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
        size = staged.stat().st_size
        # The digest is part of the key: a second object with the same UID never overwrites the first one's bytes.
        key = f"dicom/{institution}/{study}/{sop}.{digest.hex()[:12]}.dcm"
        self.store.objects.adopt(staged, key)
        return self.store.put_instance(Instance(institution, study, series, sop, key, size, digest, calling_aet,
                                                {**facts, "_calling_aet": calling_aet}))

    def publish_studies(self, ready: Callable[[Any], bool] | None = None) -> int:
        """One ImagingStudy version for each study with unpublished instances that ``ready`` accepts."""
        published = 0
        for study in self.store.dirty_studies():
            if ready is not None and not ready(study):
                continue
            try:
                self._publish(study)
                published += 1
            except GatewayError as error:
                log.warning("imagingstudy institution=%s outcome=%s where=%s", study.institution,
                            error.category.value, error.where)
            except Exception as error:
                log.error("fault in publishing a study: %s at %s", type(error).__name__, _place(error))
        return published

    def _publish(self, study: Any) -> None:
        began = time.perf_counter()
        facts = self.store.study_instances(study.key)
        aet = facts[0].get("_calling_aet", "")
        adapter = self.adapters.for_aet(aet)
        conversion = adapter.convert_study(facts, aet)
        access = Access(f"dimse:{aet}", study.institution, "receive", "ImagingStudy", 200)
        done = Unit(published_study=(study.key, study.generation), settlement=Settlement(
            0, "stored", study.institution, "DICOM", None, conversion.unmapped))
        puts = self._puts(conversion, study.institution)
        numbered = [c.resource["id"] for c in conversion.changes if accession_numbers(c.resource)]
        if numbered:  # published when its reports have been looked for behind the commit
            self.store.write(Unit(puts, access=access), GATEWAY)
            self._write_anew(lambda: self._joining.of_studies(numbered, study.institution), done)
        else:
            done.operations, done.access = puts, access
            self.store.write(done, GATEWAY)
        log.info("imagingstudy institution=%s instances=%d resources=%d ms=%.1f", study.institution, len(facts),
                 len(conversion.changes), (time.perf_counter() - began) * 1000)


def _sender(adapter: Adapter, header: hl7v2.Header, peer: str) -> Sender:
    return Sender(adapter.source_for(header.sending_facility), header.sending_facility, peer, adapter.reminder)


def _peek(raw: bytes) -> tuple[hl7v2.Header | None, GatewayError | None]:
    try:
        return hl7v2.peek(raw), None
    except GatewayError as error:
        return None, error


def document_key(institution: str, binary_id: str) -> str:
    """Where the object store keeps the bytes of a Binary that a message brought."""
    return f"documents/{institution}/{binary_id}"


def _peeked(raw: bytes, inbox_id: int) -> tuple[hl7v2.Header | None, Inbound, GatewayError | None]:
    header, refusal = _peek(raw)
    return header, Inbound(inbox_id), refusal


def _not_taken(header: hl7v2.Header) -> GatewayError | None:
    try:
        hl7v2.require_taken(header)
    except GatewayError as error:
        return error
    return None


def _stored(inbox_id: int, conversion: Conversion) -> Receipt:
    resources = len(conversion.changes) + len(conversion.amendments)
    if conversion.remarks:  # something is not as its sender may expect: more urgent than a code that wants a map
        first = conversion.remarks[0]
        more = f" (and {len(conversion.remarks) - 1} more)" if len(conversion.remarks) > 1 else ""
        return Receipt(inbox_id, resources=resources, remark=first.sentence + more, remark_where=first.where)
    if not conversion.unmapped:
        return Receipt(inbox_id, resources=resources)
    where = conversion.unmapped[0].where
    if conversion.orders:
        return Receipt(inbox_id, resources=resources, remark=unmapped_remark(conversion.unmapped), remark_where=where)
    remark = f"stored; {len(conversion.unmapped)} code(s) are not mapped to unified items: add them to codes.csv"
    return Receipt(inbox_id, resources=resources, remark=remark, remark_where=where)


def _refused(inbox_id: int, error: GatewayError) -> Receipt:
    return Receipt(inbox_id, error.category.value, error.message, error.where, error.detail)


def _place(error: BaseException) -> str:
    """File and line of the innermost frame: enough to mend, and never a value."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
