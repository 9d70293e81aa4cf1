"""The segments of a result message (ORU, OUL) as patients, orders, specimens and results, by what follows what.

One reader for all events, since hospitals mix their layouts. What tells them apart is not MSH-9 but the message itself:
a specimen before the first OBR of a patient (OUL^R22, R23) holds for all OBR up to the next specimen; a specimen behind
an OBR (ORU^R01, OUL^R24) is that order's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.errors import Category, GatewayError
from gateway.hl7v2.builder import Builder
from gateway.hl7v2.message import Message, Segment
from gateway.hl7v2.request import Order, Result, SpecimenGroup
from gateway.source import Remark

_MOST_SHARED = 100_000  # a hundred tubes before a thousand orders: work and answer stay bounded by the message


@dataclass(slots=True)
class PatientResults:
    """PATIENT_RESULT: a PID and everything that belongs to it."""

    pid: Segment
    pv1: Segment | None = None
    notes: list[Segment] = field(default_factory=list)
    participants: list[Segment] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)  # OBX of the patient, before any order
    orders: list[Order] = field(default_factory=list)
    specimens: list[SpecimenGroup] = field(default_factory=list)  # those that no order has


@dataclass(slots=True)
class _Coming:
    """What stands before an OBR and belongs to it: its ORC, and what follows that."""

    orc: Segment | None = None
    notes: list[Segment] = field(default_factory=list)
    participants: list[Segment] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    specimens: list[SpecimenGroup] = field(default_factory=list)
    timings: list[Segment] = field(default_factory=list)


def grouped(builder: Builder) -> list[PatientResults]:
    """The patients of the message with their orders; INVALID names what is missing (PID, OBR)."""
    reader = _Reader(builder)
    segments = builder.message.segments
    for at, segment in enumerate(segments):
        reader.take(at, segment)
    reader.finish()
    return reader.groups


class _Reader:
    """Where the reader stands."""

    def __init__(self, builder: Builder) -> None:
        self.message: Message = builder.message
        self.of_specimens = self.message.header.message_type[0] == "OUL"
        self.remarks = builder.conversion.remarks
        self.groups: list[PatientResults] = []
        self.coming = _Coming()
        self.order: Order | None = None
        self.specimen: SpecimenGroup | None = None  # the last one
        self.held: list[SpecimenGroup] = []  # specimens before OBR: of all orders up to the next
        self.used = False  # an OBR has come since
        self.opened: SpecimenGroup | None = None  # its OBX are coming
        self.after_results = False  # the specimens of this order stand behind its results
        self.repeated = False  # PID came again
        self.trailing: bool | None = None  # each ORC stands behind its OBR
        self.shared = 0  # specimens of orders, counted for each order
        patients = self.message.all("PID")
        if not patients:
            raise GatewayError(Category.INVALID, "no PID segment says whose results these are; send the patient", "PID",
                               detail="required")
        self.alone = len(patients) == 1  # then everything is about that patient, wherever PID stands
        self.group = PatientResults(patients[0])
        #: to which NTE and PRT belong
        self.holder: PatientResults | Order | Result | SpecimenGroup | _Coming = self.group

    def take(self, at: int, segment: Segment) -> None:
        """Put one segment where it belongs; kinds that no map names are left out."""
        name = segment.name
        if name == "OBX":
            self._observation(segment)
        elif name == "NTE":
            self.holder.notes.append(segment)
        elif name == "OBR":
            self._request(segment)
        elif name == "ORC":
            self._order_control(at, segment)
        elif name == "SPM":
            self._specimen(at, segment)
        elif name == "SAC":
            self._container(at, segment)
        elif name == "PID":
            self._patient(segment)
        elif name == "PV1":
            self._visit(segment)
        elif name == "PRT":
            self.holder.participants.append(segment)
        elif name == "TXA":
            self._document(segment)
        elif name == "TQ1":
            (self.order or self.coming).timings.append(segment)

    def _patient(self, pid: Segment) -> None:
        if not self.groups:
            self.groups.append(self.group)
        elif not self.alone:
            self._begin(pid)
        self.holder = self.group

    def _begin(self, pid: Segment) -> None:
        """The next patient, or the same once more: some senders repeat PID before each report."""
        self.order = self.specimen = self.opened = None
        self.held, self.after_results = [], False
        self.repeated = _same(pid, self.group.pid)
        if not self.repeated:  # an ORC before PID is of the order to come
            _require(self.group, self.coming.orc if self.coming.results else None, self.of_specimens)
            self.group = PatientResults(pid)
            self.groups.append(self.group)

    def _known_patient(self) -> None:
        if not self.groups and not self.alone:
            raise GatewayError(Category.INVALID, "results precede the first of several PID segments; send PID before "
                               "them", "PID", detail="required")

    def _visit(self, pv1: Segment) -> None:
        known = self.group.pv1
        if known is None:
            self.group.pv1 = pv1
        elif pv1.raw_field(19) == known.raw_field(19):
            return
        elif self.repeated:
            self.group = self.holder = PatientResults(self.group.pid, pv1)
            self.groups.append(self.group)
        else:
            self.remarks.append(Remark(f"PV1[{pv1.sequence}]", "a patient's second visit in one message is not read; "
                                       "send its results in a message of their own"))

    def _observation(self, obx: Segment) -> None:
        self.holder = result = Result(obx)
        if self.opened is not None:
            self.opened.results.append(result)
        elif self.order is not None:
            self.order.results.append(result)
        elif self.coming.orc is not None:
            self.coming.results.append(result)
        else:
            self._known_patient()
            self.group.results.append(result)

    def _request(self, obr: Segment) -> None:
        self._known_patient()
        coming = self.coming
        self.shared += len(self.held)
        if self.shared > _MOST_SHARED:
            raise GatewayError(Category.INVALID, "too many OBR share too many SPM before them; send each specimen with "
                               "its own orders", "SPM")
        specimens = [*self.held, *coming.specimens]
        self.order = self.holder = Order(obr, coming.orc, coming.notes, coming.results, specimens, coming.participants,
                                         coming.timings)
        self.group.orders.append(self.order)
        self.coming, self.opened, self.after_results, self.used = _Coming(), None, False, True
        if not self.held:
            self.specimen = None

    def _order_control(self, at: int, orc: Segment) -> None:
        order = self.order
        self.opened = None
        if order is not None and order.orc is None and self._trails(at, orc, order):
            order.orc, self.holder = orc, order
            return
        if self.coming.orc is not None:
            self.remarks.append(Remark(f"ORC[{self.coming.orc.sequence}]", "no OBR belongs to it; it is kept in the "
                                       "original alone"))
        self.coming.orc, self.order, self.holder = orc, None, self.coming

    def _trails(self, at: int, orc: Segment, order: Order) -> bool:
        """Whether an ORC behind an OBR is that order's (OUL, and ORU of some senders), not the next one's."""
        if any(a and b and a != b for a, b in ((order.obr.get(n), orc.get(n)) for n in (2, 3))):
            return False
        if self.trailing is None:
            names = [s.name for s in self.message.segments if s.name in ("ORC", "OBR")]
            self.trailing = names[0] == "OBR" and names[-1] == "ORC"
        if self.trailing or self._following(at, ("ORC", "OBR", "OBX")) != "OBR":
            return True
        return not order.results and any(order.obr.get(n) and order.obr.get(n) == orc.get(n) for n in (2, 3))

    def _specimen(self, at: int, spm: Segment) -> None:
        self._hold(SpecimenGroup(spm), at)

    def _hold(self, specimen: SpecimenGroup, at: int) -> None:
        self._known_patient()
        self.holder = self.specimen = specimen
        order = self.order
        if not self.group.orders and self.coming.orc is None or self.held:  # specimen-oriented
            if self.used:
                self.held, self.used = [], False
            self.order = None
            self.held.append(specimen)
            self.group.specimens.append(specimen)
            self.opened = specimen
            return
        if order is None:
            self.coming.specimens.append(specimen)
            self.opened = specimen
            return
        if not order.specimens:
            self.after_results = bool(order.results)
        order.specimens.append(specimen)
        self.opened = specimen if self.after_results or self._container_follows(at) else None

    def _container_follows(self, at: int) -> bool:
        """OUL^R24 puts the specimen's OBX between SPM and SAC, the order's behind SAC."""
        return self._following(at, ("SPM", "OBR", "ORC", "PID", "SAC")) == "SAC"

    def _following(self, at: int, names: tuple[str, ...]) -> str:
        """The next of some segments."""
        segments = self.message.segments
        return next((name for place in range(at + 1, len(segments)) if (name := segments[place].name) in names), "")

    def _container(self, at: int, sac: Segment) -> None:
        specimen = self.specimen
        if specimen is None or specimen.spm is None:
            specimen = SpecimenGroup(None)
            self._hold(specimen, at)
        specimen.containers.append(sac)
        if self.order is not None and not self.after_results:
            self.opened = None
        self.holder = specimen

    def _document(self, txa: Segment) -> None:
        """TXA makes the OBX before it a document of the order (v2.8 7.3.1, ORDER_DOCUMENT), which is no result."""
        for results in (self.order.results if self.order else [], self.coming.results, self.group.results):
            if results and results[-1] is self.holder:
                results.pop()
                break
        self.holder = self.order or self.coming
        self.remarks.append(Remark(f"TXA[{txa.sequence}]" if txa.sequence > 1 else "TXA", "a document that belongs to "
                                   "the order is kept in the original alone"))

    def finish(self) -> None:
        """INVALID when a patient has no order, or the last ORC no OBR."""
        if not self.groups:
            self.groups.append(self.group)
        used = {id(specimen) for group in self.groups for order in group.orders for specimen in order.specimens}
        for group in self.groups:
            _share(group.orders)
            group.specimens = [specimen for specimen in group.specimens if id(specimen) not in used]
        _require(self.group, self.coming.orc, self.of_specimens)


def _share(orders: list[Order]) -> None:
    """One ORC before several OBR numbers those that have no number of their own."""
    for before, order in zip(orders, orders[1:], strict=False):
        if order.orc is None and not order.obr.raw_field(2) and not order.obr.raw_field(3):
            order.orc = before.orc


def _same(one: Segment, other: Segment) -> bool:
    """Whether two PID are the same but for their Set ID."""
    return one.size == other.size and all(one.raw_field(at) == other.raw_field(at) for at in range(2, one.size))


def _require(group: PatientResults, orc: Segment | None, specimens_will_do: bool) -> None:
    """A message about specimens (OUL) may say of one that nothing was done with it; a report needs its OBR."""
    if not group.orders and not (group.specimens and specimens_will_do) or orc is not None:
        raise GatewayError(Category.INVALID, "no OBR segment follows; send one for each report", "OBR",
                           detail="required")
