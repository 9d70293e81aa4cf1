"""Financial transactions: DFT^P03, and FT1 in order messages, as ChargeItem (HL7 v2.5.1 6.5.1).

What matters here is which order a charge is for: the ORC that follows FT1, else the ORC before the first FT1 that has
its filler number or is alone; else FT1-23.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import code_text, codeable, decimal, entity_system, identifier, identifier_from
from gateway.hl7v2.insurance import coverages_from, money
from gateway.hl7v2.message import Message, Segment
from gateway.hl7v2.people import (
    encounter_from,
    hospital,
    organization_from,
    patient_from,
    practitioner,
    told_time,
)
from gateway.hl7v2.provenance import add_provenance
from gateway.hl7v2.request import Numbers, Order, numbers_of, request_key, shares_number
from gateway.source import Charge, Conversion, Source

#: FT1-6 (table 0017): a charge, and a credit that takes it back. Payments, co-payments and adjustments bill no order.
_CHARGE: Final = "CG"
_CREDIT: Final = "CR"
BILLING: Final = frozenset((_CHARGE, _CREDIT))
_OTHERS: Final = frozenset(("CO", "PY", "AJ"))

#: Table 0443, as ChargeItem.performer.function.
_ORDERED = {"system": f"{tables.V2}0443", "code": "OP", "display": "Ordering Provider"}


@dataclass(slots=True)
class _Transaction:
    """FT1 and the ORC and OBR that follow it."""

    ft1: Segment
    orc: Segment | None = None
    obr: Segment | None = None


@dataclass(slots=True)
class _Group:
    """A patient's transactions. ``orders``: the ORC with OBR before the first FT1."""

    pid: Segment
    pv1: Segment | None = None
    insurances: list[Segment] = field(default_factory=list)
    orders: list[_Transaction] = field(default_factory=list)
    transactions: list[_Transaction] = field(default_factory=list)


def convert_charges(message: Message, source: Source) -> Conversion:
    """The resources of a DFT^P03: a ChargeItem for each charge and credit; INVALID names what is missing."""
    builder = Builder(message, source)
    groups = _grouped(message)
    hospital(builder)
    for group in groups:
        patient, key = patient_from(group.pid, builder)
        encounter = encounter_from(group.pv1, patient, builder) if group.pv1 else None
        _, scheme = coverages_from(group.insurances, patient, key, builder)
        for transaction in group.transactions:
            _add_charge(transaction, group, patient, encounter, scheme, builder)
    add_provenance(builder, message.first("EVN"))
    return builder.finished()


def _add_charge(transaction: _Transaction, group: _Group, patient: Reference, encounter: Reference | None, scheme: str,
                builder: Builder) -> None:
    ft1 = transaction.ft1
    kind = transaction_type(ft1, builder)
    if kind in _OTHERS:
        return
    numbers, service = _order_of(transaction, group)
    number = numbers.placer or numbers.filler
    text = number.get(1) if number else ""
    local = code_text(service.get(4) if service is not None else "") or code_of(ft1)
    shared = shares_number(builder)
    filler = ""
    if number is not None and numbers.placer is None:
        filler = f"{entity_system(number, 'filler', builder.source)}|{text}"
    charge = charge_of(ft1, f"{text}|{local}" if numbers.placer and shared else text, filler,
                       patient["reference"].partition("/")[2], local, scheme, builder)
    builder.conversion.charges.append(charge)
    request = request_key(numbers, local, shared, builder) if numbers.placer else ""
    _add_item(transaction, group.pid, charge, request, patient, encounter, builder)


def _add_item(transaction: _Transaction, pid: Segment, charge: Charge, request: str, patient: Reference,
              encounter: Reference | None, builder: Builder) -> None:
    """FT1 as ChargeItem; its id is the order and the charged code, else FT1-2, so that a credit finds its charge.

    What neither numbers is no resource: nothing would find it again.
    """
    source, ft1 = builder.source, transaction.ft1
    number = ft1.get(2)
    code = codeable(ft1.first(7), source, "FT1-7")
    if not code:
        ft1.require(7)
    said = code_text(ft1.get(7)) or code.get("text", "")
    key = f"{charge.number}|{said}" if charge.number else f"transaction|{number}" if number else ""
    if not key:
        return
    made = builder.resource("ChargeItem", builder.distinct(key))
    if number:
        made["identifier"] = [identifier(number, source.system("transaction"), "")]
    made["status"] = "aborted" if charge.credit else "billed"
    made["code"] = code
    made["subject"] = {**patient}
    if encounter:
        made["context"] = {**encounter}
    if done := builder.date_time(ft1, 4):
        made["occurrenceDateTime"] = done
    if performers := _took_part(ft1, builder):
        made["performer"] = performers
    if request:
        made["supportingInformation"] = [{"reference": f"ServiceRequest/{source.id_for('ServiceRequest', request)}"}]
    made["performingOrganization"] = organization_from(ft1.first(32), builder) or builder.hospital()
    if asked := organization_from(ft1.first(33), builder):
        made["requestingOrganization"] = asked
    if (quantity := decimal(ft1.get(10))) is not None:
        made["quantity"] = {"value": quantity}
    if price := money(ft1, 11):
        made["priceOverride"] = price
    if department := ft1.get(13, 2) or ft1.get(13):
        made["costCenter"] = {"display": department}
    if (entered := ft1.first(24)) and (person := practitioner(entered, builder)):
        made["enterer"] = person
    if posted := told_time(ft1, 5, builder):
        made["enteredDate"] = posted
    if reasons := [reason for part in ft1.repetitions(19) if (reason := codeable(part, source, "FT1-19"))]:
        made["reason"] = reasons
    if pid.raw_field(18) and (account := identifier_from(pid.first(18), "account", source, "AN")):
        made["account"] = [{"type": "Account", "identifier": account}]
    builder.add(made, builder.sent_at, "skip")


def _took_part(ft1: Segment, builder: Builder) -> list[dict[str, Any]]:
    """Who did it (FT1-20) and who ordered it (FT1-21)."""
    found: list[dict[str, Any]] = [{"actor": person} for part in ft1.repetitions(20)
                                   if (person := practitioner(part, builder))]
    found += [{"function": {"coding": [{**_ORDERED}]}, "actor": person} for part in ft1.repetitions(21)
              if (person := practitioner(part, builder))]
    return found


def transaction_type(ft1: Segment, builder: Builder) -> str:
    """FT1-6 in the standard's words; INVALID when neither the table nor the manifest knows it."""
    kind = builder.source.table("FT1-6", ft1.get(6)).upper()
    if kind not in BILLING and kind not in _OTHERS:
        raise GatewayError(Category.INVALID, f"FT1-6 holds no transaction type that is known{ft1.which()}; send CG or "
                           "CR, or add it to the manifest's tables", "FT1-6",
                           detail="table-value" if kind else "required")
    return kind


def code_of(ft1: Segment) -> str:
    """The code of what is charged for, where no OBR says it: FT1-25 (procedure), else FT1-7 (the price list's)."""
    return code_text(ft1.get(25)) or code_text(ft1.get(7))


def charge_of(ft1: Segment, number: str, filler: str, patient: str, code: str, scheme: str, builder: Builder) -> Charge:
    """What the billing gate asks of an FT1."""
    department = ft1.get(13) or ft1.get(13, 2)
    return Charge(number, transaction_type(ft1, builder) == _CREDIT, f"FT1[{ft1.sequence}]", patient, filler, code,
                  department, ft1.get(21), scheme)


# ---------------------------------------------------------------- reading

def _order_of(transaction: _Transaction, group: _Group) -> tuple[Numbers, Segment | None]:
    """The numbers of the order that is charged for, and its OBR."""
    ft1 = transaction.ft1
    filler = ft1.first(23)
    orders = [transaction] if transaction.orc is not None or transaction.obr is not None else group.orders
    for order in orders:
        numbers = _numbers(order)
        if len(orders) == 1 or filler.get(1) and numbers.filler and numbers.filler.get(1) == filler.get(1):
            return Numbers(numbers.placer, numbers.filler or (filler if filler.get(1) else None)), order.obr
    return Numbers(None, filler if filler.get(1) else None), None


def _numbers(order: _Transaction) -> Numbers:
    if order.obr is not None:
        return numbers_of(Order(order.obr, order.orc))
    assert order.orc is not None
    placer, filler = order.orc.first(2), order.orc.first(3)
    return Numbers(placer if placer.get(1) else None, filler if filler.get(1) else None)


def _grouped(message: Message) -> list[_Group]:
    groups: list[_Group] = []
    for segment in message.segments:
        if segment.name == "PID":
            groups.append(_Group(segment))
        elif groups:
            _take(segment, groups[-1])
    if not groups:
        raise GatewayError(Category.INVALID, "no PID segment precedes the charges; send the patient", "PID",
                           detail="required")
    if not all(group.transactions for group in groups):
        raise GatewayError(Category.INVALID, "no FT1 segment follows; send one for each charge", "FT1",
                           detail="required")
    return groups


def _take(segment: Segment, group: _Group) -> None:
    name = segment.name
    if name == "FT1":
        group.transactions.append(_Transaction(segment))
    elif name == "PV1":
        group.pv1 = group.pv1 or segment
    elif name == "IN1":
        group.insurances.append(segment)
    elif name in ("ORC", "OBR"):
        if group.transactions:
            order = group.transactions[-1]
        elif name == "ORC" or not group.orders or group.orders[-1].obr is not None:
            order = _Transaction(segment)
            group.orders.append(order)
        else:
            order = group.orders[-1]
        if name == "ORC":
            order.orc = order.orc or segment
        else:
            order.obr = order.obr or segment
