"""What an order message says of an order beyond what a report repeats: times, department, reasons, place, insurance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.hl7v2 import tables
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import (
    address_from,
    code_text,
    codeable,
    contact_from,
    entity_identifier,
    entity_system,
    identifier,
    identifier_from,
    identifier_system,
)
from gateway.hl7v2.message import Part, Segment
from gateway.hl7v2.order_states import NEW
from gateway.hl7v2.request import Order, Subject, group_number, section_of
from gateway.hl7v2.specimen import add_specimens
from gateway.hl7v2.timing import add_timing
from gateway.source import Resource
from gateway.terminology import BASE

_STATUS_REASON = "http://hl7.org/fhir/StructureDefinition/request-statusReason"
_REPORT_REASON = "http://hl7.org/fhir/StructureDefinition/event-statusReason"
_CALL_BACK = "http://hl7.org/fhir/StructureDefinition/servicerequest-order-callback-phone-number"
_LATERALITY = f"{BASE}/StructureDefinition/laterality"
_PURPOSES = f"{BASE}/CodeSystem/recognition-purpose"
_ORGANIZATION_TYPE = "http://terminology.hl7.org/CodeSystem/organization-type"
#: Site modifiers (OBR-15.7) and procedure modifiers (OBR-45: CPT's LT, RT, 50) that name a side.
_SIDES = {**dict.fromkeys(("L", "LT", "LEFT", "左", "左侧"), "L"),
          **dict.fromkeys(("R", "RT", "RIGHT", "右", "右侧"), "R"),
          **dict.fromkeys(("B", "BIL", "BILATERAL", "50", "双", "双侧"), "B")}


class OrderContext(NamedTuple):
    """What holds for all orders of a patient."""

    visit: Resource | None  # the Encounter, also where nothing numbers it
    place: str  # PV1-10, PV1-3: the department where ORC names none
    insurances: list[Reference]
    scheme: str
    diagnoses: list[Segment]


class Details(NamedTuple):
    """What an order line knows beside its ServiceRequest."""

    department: str
    doctor: str


def context_of(pv1: Segment | None, visit: Resource | None, insurances: list[Reference], scheme: str,
               diagnoses: list[Segment]) -> OrderContext:
    """From PV1, IN1 and the DG1 before the first order."""
    place = (pv1.get(10) or pv1.get(3)) if pv1 else ""
    return OrderContext(visit, place, insurances, scheme, diagnoses)


def add_details(made: Resource, order: Order, timings: list[Segment], diagnoses: list[Segment], control: str, key: str,
                subject: Subject, context: OrderContext, builder: Builder) -> Details:
    """Complete a ServiceRequest; adds its Specimens, PractitionerRole and department before it."""
    obr, orc = order.obr, order.orc
    _identify(made, order, builder)
    _time(made, order, timings, control, builder)
    if timings or obr.raw_field(27) or (orc is not None and orc.raw_field(7)):
        add_timing(made, timings, obr, orc, builder)
    if _urgency(made, order, timings, builder) == "P":  # table 0485, preop: FHIR's priority has no such code
        made["category"] = [{"coding": [{"system": _PURPOSES, "code": "before-surgery"}]}]
    department = _department(orc, builder) if orc is not None else None
    _request(made, department, builder)
    section, category = section_of(obr, builder)
    if section:
        made.setdefault("category", []).append(section)
    specimens, _ = add_specimens(order.specimens, obr, key, category != "imaging", subject.patient, builder.sent_at,
                                 builder)
    if specimens:
        made["specimen"] = specimens
    if context.insurances:
        made["insurance"] = [{**reference} for reference in context.insurances]
    _site(made, obr, builder)
    _reasons(made, [*context.diagnoses, *diagnoses], builder)
    _explain(made, order, builder)
    requester = obr.first(16) or (orc.first(12) if orc is not None else obr.first(16))
    return Details(department.key if department else context.place, _doctor(requester))


def _identify(made: Resource, order: Order, builder: Builder) -> None:
    """OBR-53 or ORC-33 and the filler's group (ORC-38, ORC-4.2) beside the order's numbers; OBR-29 or ORC-8, the
    parent, as basedOn."""
    obr, orc = order.obr, order.orc
    alternates = obr.repetitions(53) or (orc.repetitions(33) if orc is not None else [])
    made["identifier"] += [i for part in alternates if (i := identifier_from(part, "placer", builder.source, "PLAC"))]
    if orc is not None and (group := _filler_group(orc, builder)):
        made["identifier"].append(group)
    parent = obr.first(29) or (orc.first(8) if orc is not None else obr.first(29))
    for at, kind, code in ((1, "placer", "PLAC"), (2, "filler", "FILL")):
        number = parent.part(at)
        if number.get(1):
            system = entity_system(number, kind, builder.source)
            made["basedOn"] = [{"type": "ServiceRequest", "identifier": identifier(number.get(1), system, code)}]
            break


def _filler_group(orc: Segment, builder: Builder) -> dict[str, Any] | None:
    """ORC-38, else the second of the pair in ORC-4."""
    number = orc.first(38)
    if not number and len(orc.first(4).part(1)) > 1:
        number = orc.first(4).part(2)
    return entity_identifier(number, "filler-group", builder.source, "FGN")


def _time(made: Resource, order: Order, timings: list[Segment], control: str, builder: Builder) -> None:
    """When it was ordered (ORC-9 of a new order) and when it is wanted (OBR-6, TQ1-7, OBR-27.4, ORC-7.4, OBR-36)."""
    obr, orc = order.obr, order.orc
    if orc is not None and control in NEW and (ordered := builder.date_time(orc, 9)):
        made["authoredOn"] = ordered
    if "occurrenceDateTime" in made:
        return
    places = [(tq1, 7, 1) for tq1 in timings] + [(obr, 27, 4)] + ([(orc, 7, 4)] if orc is not None else []) \
        + [(obr, 36, 1)]
    for segment, at, component in places:
        if wanted := builder.date_time(segment, at, component):
            made["occurrenceDateTime"] = wanted
            return


def _urgency(made: Resource, order: Order, timings: list[Segment], builder: Builder) -> str:
    """The priority's code (table 0485): OBR-5, TQ1-9, OBR-27.6, ORC-7.6; the first that is said."""
    obr, orc = order.obr, order.orc
    said = [("OBR-5", obr.get(5)), *(("TQ1-9", tq1.get(9)) for tq1 in timings), ("OBR-27", obr.get(27, 6)),
            ("ORC-7", orc.get(7, 6) if orc is not None else "")]
    for place, sent in said:
        if sent:
            code = builder.source.table(place, sent).upper()
            if priority := tables.PRIORITY.get(code):
                made["priority"] = priority
            return code
    return ""


# ---------------------------------------------------------------- who orders

class _Department(NamedTuple):
    reference: Reference
    key: str  # code, else name


def _department(orc: Segment, builder: Builder) -> _Department | None:
    """The ordering department as Organization: ORC-17 (entering organization), ORC-21 (ordering facility), ORC-13."""
    source = builder.source
    for at, number_at, name_at in ((17, 1, 2), (21, 3, 1), (13, 1, 9)):
        part = orc.first(at)
        number = part.get(10) if at == 21 and part.get(10) else part.get(number_at)
        name = part.get(name_at) or number
        if not name:
            continue
        system = identifier_system(part.part(6), "department", source) if at == 21 else source.system("department")
        made = builder.resource("Organization", f"{system}|{number or name}")
        if number:
            made["identifier"] = [identifier(number, system, "")]
        made["type"] = [{"coding": [{"system": _ORGANIZATION_TYPE, "code": "dept"}]}]
        made["name"] = name
        if at == 21:
            _whereabouts(made, orc)
        made["partOf"] = builder.hospital()
        reference = builder.add(made, builder.sent_at, "skip")
        return _Department({**reference, "display": name}, number or name)
    return None


def _whereabouts(made: Resource, orc: Segment) -> None:
    """Where the ordering facility is (ORC-22) and is called (ORC-23)."""
    if telecom := [contact for part in orc.repetitions(23) if (contact := contact_from(part))]:
        made["telecom"] = telecom
    if addresses := [address for part in orc.repetitions(22) if (address := address_from(part))]:
        made["address"] = addresses


def _request(made: Resource, department: _Department | None, builder: Builder) -> None:
    """Who orders in which department is a PractitionerRole (guide: ORC-12, ORC-21); without a person the department."""
    if department is None:
        return
    person = made.get("requester")
    if person is None:
        made["requester"] = {**department.reference}
        return
    if "reference" not in person:  # a name without a number: no resource, see people.practitioner
        return
    role = builder.resource("PractitionerRole", f"{person['reference']}|{department.reference['reference']}")
    role["practitioner"] = {**person}
    role["organization"] = {**department.reference}
    reference = builder.add(role, builder.sent_at, "skip")
    made["requester"] = {**reference, **({"display": person["display"]} if "display" in person else {})}


def _doctor(xcn: Part) -> str:
    """The doctor's number, else the name."""
    return xcn.get(1).strip() or " ".join(piece for piece in (xcn.get(2), xcn.get(3)) if piece)


# ---------------------------------------------------------------- what and why

def _site(made: Resource, obr: Segment, builder: Builder) -> None:
    """OBR-15.4 with its modifier (OBR-15.7) as bodySite; the side that the modifier or OBR-45 names as extension."""
    origin = obr.first(15)
    modifier = origin.part(7)
    if site := codeable(origin.part(4), builder.source, "OBR-15.4"):
        if said := modifier.get(2) or modifier.get(1):
            site["text"] = f"{site.get('text', '')} ({said})".strip()
        made["bodySite"] = [site]
    if named := laterality(obr):
        made["extension"] = named


def laterality(obr: Segment) -> list[dict[str, Any]]:
    """The side that OBR-15.7 or OBR-45 names, as extensions of an order or a report; none where none is named."""
    modifier = obr.first(15).part(7)
    return sides((modifier.get(1), modifier.get(2), *(part.get(1) for part in obr.repetitions(45))))


def sides(codes: Iterable[str]) -> list[dict[str, Any]]:
    """The side that modifiers name, as an extension; two sides are both."""
    named = {side for code in codes if (side := _SIDES.get(code.upper()))}
    return [{"url": _LATERALITY, "valueCode": named.pop() if len(named) == 1 else "B"}] if named else []


def _reasons(made: Resource, diagnoses: list[Segment], builder: Builder) -> None:
    """DG1-3, or DG1-4 where only a text is sent, after OBR-31."""
    found: list[dict[str, Any]] = made.get("reasonCode", [])
    for dg1 in diagnoses:
        reason = builder.coded(dg1, 3) or ({"text": text} if (text := dg1.text(4).strip()) else {})
        if reason and reason not in found:
            found.append(reason)
    if found:
        made["reasonCode"] = found


def _explain(made: Resource, order: Order, builder: Builder) -> None:
    """OBX (questions answered at order entry) as supportingInfo, ORC-28 as labels, ORC-16 and call-back numbers as the
    standard extensions."""
    obr, orc = order.obr, order.orc
    said = [text for result in order.results if (text := answer_line(result.obx))]
    if said:
        made.setdefault("supportingInfo", []).extend({"display": text} for text in said)
    if orc is not None:
        _secure(made, orc, builder)
    extension: list[dict[str, Any]] = []
    if orc is not None and (reason := builder.coded(orc, 16)):
        extension.append({"url": _STATUS_REASON, "valueCodeableConcept": reason})
    numbers = obr.repetitions(17) or (orc.repetitions(14) if orc is not None else [])
    extension += [{"url": _CALL_BACK, "valueContactPoint": contact} for part in numbers
                  if (contact := contact_from(part))]
    if extension:
        made.setdefault("extension", []).extend(extension)


def _secure(made: Resource, orc: Segment, builder: Builder) -> None:
    """ORC-28 (table 0177) as security labels, which change nothing of who may see the resource."""
    labels = [coding for part in orc.repetitions(28)
              for coding in codeable(part, builder.source, "ORC-28", "0177").get("coding", ())]
    if labels:
        standard = f"{tables.V2}0177"
        made["meta"]["security"] = [
            {**tables.CONFIDENTIALITY.get(one["code"], one)} if one["system"] == standard else one for one in labels]


def tell_report(made: Resource, orc: Segment, builder: Builder) -> None:
    """What a report repeats of its order: the numbers of the group (ORC-4), why its state changed (ORC-16), labels
    (ORC-28)."""
    if orc.raw_field(4) or orc.raw_field(38):
        made["identifier"] += [number for number in (group_number(orc, builder), _filler_group(orc, builder)) if number]
    if reason := builder.coded(orc, 16):
        made.setdefault("extension", []).append({"url": _REPORT_REASON, "valueCodeableConcept": reason})
    if orc.raw_field(28):
        _secure(made, orc, builder)


def answer_line(obx: Segment) -> str:
    """OBX of an order as one line of text: it is an answer to a question, not a result."""
    value = " ".join(part.get(2) or part.text for part in obx.repetitions(5))
    unit = obx.get(6)
    said = " ".join(piece for piece in (value, unit) if piece)
    name = obx.get(3, 2) or code_text(obx.get(3))
    return ": ".join(piece for piece in (name, said) if piece)
