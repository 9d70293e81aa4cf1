"""ORU^R01: unsolicited observation results as FHIR R4 resources (guide: message map ORU_R01).

The segments are gathered into patients and orders first, by what follows what; nesting errors that senders make (SPM
before OBX, ORC left out, PV1 after the orders) do no harm. Each order gives a ServiceRequest, its Specimens, its
Observations and a DiagnosticReport; each message one Provenance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.errors import Category, GatewayError
from gateway.hl7v2.builder import Builder
from gateway.hl7v2.message import Message, Segment
from gateway.hl7v2.observation import add_observation
from gateway.hl7v2.people import encounter_from, hospital, patient_from
from gateway.hl7v2.provenance import add_provenance
from gateway.hl7v2.report import add_report
from gateway.hl7v2.request import Order, Result, Subject
from gateway.source import Conversion, Source


@dataclass(slots=True)
class _Group:
    """PATIENT_RESULT: a PID and everything up to the next."""

    pid: Segment
    notes: list[Segment] = field(default_factory=list)
    pv1: Segment | None = None
    results: list[Result] = field(default_factory=list)  # OBX of the patient, before any order (2.7 and later)
    orders: list[Order] = field(default_factory=list)


def convert_oru(message: Message, source: Source) -> Conversion:
    """The resources of one ORU message, in dependency order; INVALID names what is missing."""
    builder = Builder(message, source)
    groups = _grouped(message)
    hospital(builder)
    for group in groups:
        patient, key = patient_from(group.pid, builder)
        encounter = encounter_from(group.pv1, patient, builder) if group.pv1 else None
        subject = Subject(patient, key, encounter, group.notes)
        for result in group.results:
            add_observation(result, None, subject, builder)
        for order in group.orders:
            add_report(order, subject, builder)
    add_provenance(builder)
    return builder.finished()


def _grouped(message: Message) -> list[_Group]:
    groups: list[_Group] = []
    state = _Reading()
    for segment in message.segments:
        if segment.name == "PID":
            state.finish(message)
            groups.append(_Group(segment))
            state = _Reading(groups[-1])
        elif state.group is not None:
            state.take(segment)
        elif segment.name in ("OBR", "OBX", "ORC", "SPM"):
            break  # an order without a patient
    if not groups:
        raise GatewayError(Category.INVALID, "no PID segment precedes the orders; send the patient", "PID",
                           detail="required")
    state.finish(message)
    return groups


class _Reading:
    """Where the reader stands within a patient's group."""

    def __init__(self, group: _Group | None = None) -> None:
        self.group = group
        self.orc: Segment | None = None
        self.specimens: list[Segment] = []  # SPM before the first OBR
        self.order: Order | None = None
        self.result: Result | None = None

    def take(self, segment: Segment) -> None:
        """Put one segment where it belongs; kinds that no map names are left out."""
        assert self.group is not None
        name = segment.name
        if name == "OBX":
            self.result = Result(segment)
            (self.order.results if self.order else self.group.results).append(self.result)
        elif name == "NTE":
            self._note(segment)
        elif name == "OBR":
            self.order = Order(segment, self.orc, specimens=self.specimens)
            self.group.orders.append(self.order)
            self.orc, self.specimens, self.result = None, [], None
        elif name == "ORC":
            self.orc, self.order, self.result = segment, None, None
        elif name == "SPM":
            (self.order.specimens if self.order else self.specimens).append(segment)
        elif name == "PV1" and self.group.pv1 is None:
            self.group.pv1 = segment

    def _note(self, segment: Segment) -> None:
        assert self.group is not None
        if self.result is not None:
            self.result.notes.append(segment)
        elif self.order is not None:
            self.order.notes.append(segment)
        else:
            self.group.notes.append(segment)

    def finish(self, message: Message) -> None:
        """INVALID when the group ends without an order, or with an order's ORC alone."""
        if self.group is None:
            return
        if not self.group.orders or self.orc is not None:
            raise GatewayError(Category.INVALID, "no OBR segment follows; send one for each report", "OBR",
                               detail="required")
