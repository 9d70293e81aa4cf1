"""Order messages as FHIR R4 resources: ORM^O01, OML^O21, O33 and O35, OMI^O23, OMG^O19 (HL7 v2.5.1 4.4).

Each ORC with its OBR is a ServiceRequest under the placer's number. Senders put ORC before OBR, behind it, once for
several OBR, or leave it out: all of it is read. ``Conversion.orders`` says beside the resources what the match with
earlier results and the answer need.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from gateway.errors import Category, GatewayError
from gateway.hl7v2.builder import Builder
from gateway.hl7v2.charges import BILLING, charge_of, transaction_type
from gateway.hl7v2.insurance import coverages_from
from gateway.hl7v2.message import Message, Segment
from gateway.hl7v2.order_details import OrderContext, add_details, context_of
from gateway.hl7v2.order_states import PREVIOUS, is_fresh, state_of
from gateway.hl7v2.people import encounter_from, hospital, patient_from, visit_from
from gateway.hl7v2.provenance import add_provenance
from gateway.hl7v2.request import (
    Numbers,
    Order,
    Result,
    SpecimenGroup,
    Subject,
    numbers_of,
    request_from,
    request_key,
    require_number,
    shares_number,
)
from gateway.source import Conversion, OrderLine, Resource, Source

#: Order details of other kinds (pharmacy, diet, supply): no exam and no test.
_OTHER_DETAILS = frozenset(("RXO", "RXE", "RXD", "RXG", "RXA", "RXR", "ODS", "ODT", "RQD", "RQ1", "BPO", "BPX"))
#: OBR-25 of an OBR without an ORC of its own that carries results: a previous result sent along (OML PRIOR_RESULT).
_RESULTED = frozenset("ACFPR")


@dataclass(slots=True)
class Placed:
    """ORDER: an ORC, its OBR, and what follows."""

    orc: Segment | None = None
    obr: Segment | None = None
    own_orc: bool = True  # False: the ORC of the OBR before
    other: Segment | None = None
    notes: list[Segment] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    specimens: list[SpecimenGroup] = field(default_factory=list)
    timings: list[Segment] = field(default_factory=list)
    diagnoses: list[Segment] = field(default_factory=list)
    charges: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class _Group:
    """PATIENT: a PID and everything up to the next."""

    pid: Segment
    notes: list[Segment] = field(default_factory=list)
    pv1: Segment | None = None
    insurances: list[Segment] = field(default_factory=list)
    diagnoses: list[Segment] = field(default_factory=list)
    orders: list[Placed] = field(default_factory=list)


def convert_orders(message: Message, source: Source) -> Conversion:
    """The resources of one order message, in dependency order; INVALID names what is missing."""
    builder = Builder(message, source)
    groups = _grouped(message)
    shared = _shared_numbers(groups, builder)
    hospital(builder)
    for group in groups:
        patient, key = patient_from(group.pid, builder)
        encounter = encounter_from(group.pv1, patient, builder) if group.pv1 else None
        insurances, scheme = coverages_from(group.insurances, patient, key, builder)
        subject = Subject(patient, key, encounter, group.notes)
        context = context_of(group.pv1, visit_from(group.pv1, patient, builder) if group.pv1 else None, insurances,
                             scheme, group.diagnoses)
        replaced: Resource | None = None
        for at, placed in enumerate(group.orders):
            following = group.orders[at + 1] if at + 1 < len(group.orders) else None
            replaced = _add_order(placed, following, replaced, subject, context, shared, builder)
    add_provenance(builder)
    return builder.finished()


def _add_order(placed: Placed, following: Placed | None, replaced: Resource | None, subject: Subject,
               context: OrderContext, shared: set[str], builder: Builder) -> Resource | None:
    """One order with its resources; returns its ServiceRequest where the next order replaces it (ORC-1 RP, RO)."""
    obr, orc = placed.obr, placed.orc
    if obr is None:
        _add_partial(placed, subject, builder)
        return None
    concept, known = builder.concept(obr, 4, "order")
    order = Order(obr, orc, placed.notes, placed.results, placed.specimens)
    numbers = numbers_of(order)
    require_number(numbers, obr, "order", "ORC-2")
    control, status = state_of(orc, following.orc if following else None, builder)
    text = _number_text(numbers)
    is_shared = text in shared
    key = request_key(numbers, known.code, is_shared, builder)
    made = request_from(order, subject, builder, key, concept, numbers, status)
    details = add_details(made, order, placed.timings, placed.diagnoses, control, key, subject, context, builder)
    if control == "RO" and replaced is not None and replaced["id"] != made["id"]:
        made["replaces"] = [{"reference": f"ServiceRequest/{replaced['id']}"}]
    builder.add(made, builder.sent_at, "refuse")
    number = f"{text}|{known.code}" if is_shared else text
    line = OrderLine(
        request=made["id"], patient=_id(subject.patient["reference"]), number=number, control=control, status=status,
        fresh=is_fresh(control, status), place=f"OBR[{obr.sequence}]",
        control_place=f"ORC[{orc.sequence}]" if orc is not None else f"OBR[{obr.sequence}]", local=known.code,
        display=known.text, department=details.department, doctor=details.doctor, scheme=context.scheme,
        encounter=context.visit)
    builder.conversion.orders.append(line)
    for ft1 in placed.charges:
        if transaction_type(ft1, builder) in BILLING:
            builder.conversion.charges.append(charge_of(ft1, number, "", line.patient, known.code, context.scheme,
                                                        builder))
    return made if control in ("RP", "RQ", "RU") else None


def _add_partial(placed: Placed, subject: Subject, builder: Builder) -> None:
    """ORC without OBR: it may end, hold, release or report on an order that is known already (4.5.1.1)."""
    orc = placed.orc
    assert orc is not None
    control, status = state_of(orc, None, builder)
    number = orc.first(2)
    if control in ("", "NW", "SN", "RO", "RP", "XO", "XX", "XR", "CH", "PA") or shares_number(builder):
        raise GatewayError(Category.INVALID, f"no OBR says what is ordered{orc.which()}; send it", "OBR",
                           detail="required")
    if not number.get(1):
        raise GatewayError(Category.INVALID, f"ORC-2 names no order{orc.which()}; send the placer's order number",
                           "ORC-2", detail="required")
    key = request_key(Numbers(number, None), "", False, builder)
    place = f"ORC[{orc.sequence}]"
    builder.conversion.orders.append(OrderLine(
        request=builder.source.id_for("ServiceRequest", key), patient=_id(subject.patient["reference"]),
        number=number.get(1), control=control, status=status, fresh=False, place=place, control_place=place,
        partial=True))


def _number_text(numbers: Numbers) -> str:
    part = numbers.placer or numbers.filler
    return part.get(1) if part else ""


def _id(reference: str) -> str:
    return reference.partition("/")[2]


def _shared_numbers(groups: list[_Group], builder: Builder) -> set[str]:
    """Placer numbers that stand for several orders: the manifest says so of all, or the message uses one for two
    services. Their orders are told apart by the service's code."""
    codes: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        for placed in group.orders:
            if placed.obr is not None:
                order = Order(placed.obr, placed.orc)
                codes[_number_text(numbers_of(order))].add(placed.obr.first(4).raw)
    every = shares_number(builder)
    return {number for number, services in codes.items() if every or len(services) > 1}


# ---------------------------------------------------------------- reading

def _grouped(message: Message) -> list[_Group]:
    groups: list[_Group] = []
    reading: _Reading | None = None
    trailing = _orc_trails(message)
    for segment in message.segments:
        if segment.name == "PID":
            group = _Group(segment)
            if groups and _same_patient(groups[-1].pid, segment):
                continue  # OML repeats the patient before previous results
            groups.append(group)
            reading = _Reading(group, trailing)
        elif reading is not None:
            reading.take(segment)
        elif segment.name in ("ORC", "OBR"):
            break  # an order without a patient
    if not groups:
        raise GatewayError(Category.INVALID, "no PID segment precedes the orders; send the patient", "PID",
                           detail="required")
    for group in groups:
        _require_orders(group)
    return groups


def _same_patient(one: Segment, other: Segment) -> bool:
    return one.raw_field(3) == other.raw_field(3)


def _require_orders(group: _Group) -> None:
    """Leave out what is no order of an exam or a test; INVALID or UNSUPPORTED when nothing is left."""
    others = [placed.other for placed in group.orders if placed.other is not None]
    group.orders = [placed for placed in group.orders
                    if (placed.obr is not None or placed.other is None) and not _is_previous(placed)]
    if group.orders:
        return
    if others:
        raise GatewayError(Category.UNSUPPORTED, "only orders with OBR are taken: exams and tests", others[0].name,
                           detail="message-type")
    raise GatewayError(Category.INVALID, "no OBR segment follows; send one for each order", "OBR", detail="required")


def _is_previous(placed: Placed) -> bool:
    """A result sent along with an order (ORC-1 PR, or an OBR with results and no ORC): no order."""
    if placed.orc is not None and placed.own_orc:
        return placed.orc.get(1).upper() == PREVIOUS
    return placed.obr is not None and bool(placed.results) and placed.obr.get(25).upper() in _RESULTED


def _orc_trails(message: Message) -> bool:
    """Whether each ORC stands behind its OBR: as many of both, and an OBR comes first."""
    names = [segment.name for segment in message.segments if segment.name in ("ORC", "OBR")]
    return names[:1] == ["OBR"] and names == ["OBR", "ORC"] * (len(names) // 2)


class _Reading:
    """Where the reader stands within a patient's group."""

    def __init__(self, group: _Group, trailing: bool) -> None:
        self.group = group
        self.trailing = trailing
        self.placed: Placed | None = None
        self.result: Result | None = None
        self.specimens: list[SpecimenGroup] = []  # of the order to come
        self.leads = False  # OML^O33: SPM comes first, and holds for all orders up to the next
        self.between = False  # SPM was read, its order comes

    def take(self, segment: Segment) -> None:
        """Put one segment where it belongs; kinds that README.md does not name are left out."""
        name, placed = segment.name, self.placed
        if self.between and self._of_specimen(segment):
            return
        if name == "ORC":
            self._order_control(segment)
        elif name == "OBR":
            self._service(segment)
        elif name == "NTE":
            owner = self.result.notes if self.result else placed.notes if placed else self.group.notes
            owner.append(segment)
        elif name == "PV1":
            self.group.pv1 = self.group.pv1 or segment
        elif name == "IN1":
            self.group.insurances.append(segment)
        elif name == "DG1":
            (placed.diagnoses if placed else self.group.diagnoses).append(segment)
        elif name == "SPM":
            self._specimen(segment)
        elif name == "SAC":
            self._container(segment)
        elif placed is not None:
            self._detail(segment, placed)

    def _specimen(self, spm: Segment) -> None:
        if self.placed is None:
            self.leads = True
        if self.leads and not self.between:
            self.specimens = []
        self.between = self.leads
        self._specimens().append(SpecimenGroup(spm))

    def _of_specimen(self, segment: Segment) -> bool:
        """Whether a segment between a leading SPM and its order is about the specimen; its OBX answers no order."""
        if segment.name == "NTE":
            self.specimens[-1].notes.append(segment)
        return segment.name in ("NTE", "OBX")

    def _specimens(self) -> list[SpecimenGroup]:
        """The order's specimens; before its OBR, and where SPM leads, those of the order to come."""
        if self.leads or self.placed is None or self.placed.obr is None:
            return self.specimens
        return self.placed.specimens

    def _container(self, sac: Segment) -> None:
        """A container of the SPM before it; without one it is all that tells of the specimen."""
        specimens = self._specimens()
        if not specimens:
            specimens.append(SpecimenGroup(None))
        specimens[-1].containers.append(sac)

    def _detail(self, segment: Segment, placed: Placed) -> None:
        name = segment.name
        if name == "OBX":
            self.result = Result(segment)
            placed.results.append(self.result)
        elif name == "TQ1":
            placed.timings.append(segment)
        elif name == "FT1":
            placed.charges.append(segment)
        elif name in _OTHER_DETAILS and placed.obr is None:
            placed.other = segment

    def _order_control(self, orc: Segment) -> None:
        placed = self.placed
        self.result, self.between = None, False
        if placed is not None and placed.obr is not None and placed.orc is None and (
                self.trailing or _same_number(placed.obr, orc)):
            placed.orc = orc
            return
        self._begin(Placed(orc))

    def _service(self, obr: Segment) -> None:
        placed = self.placed
        self.result = None
        if placed is None or placed.obr is not None or placed.other is not None:
            shared = placed.orc if placed is not None and not self.trailing and placed.other is None else None
            placed = self._begin(Placed(shared, own_orc=shared is None))
        placed.obr = obr
        placed.specimens += self.specimens
        self.between = False
        if not self.leads:
            self.specimens = []

    def _begin(self, placed: Placed) -> Placed:
        self.placed = placed
        self.group.orders.append(placed)
        return placed


def _same_number(obr: Segment, orc: Segment) -> bool:
    """Whether an ORC behind an OBR is that order's: one of their numbers is the same."""
    return any(obr.get(at) and obr.get(at) == orc.get(at) for at in (2, 3))
