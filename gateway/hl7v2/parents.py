"""What an OBR names as its parent (v2.8.2 7.4.1.26, 29, 50, 52, 54): the order, and the result that it follows from.

Ids need no look-up: the parent's report is its filler number (OBR-29.2) and service code (OBR-50), the result in it
OBX-3 and OBX-4 (OBR-26.1, 26.2). Where the message carries the parent, that is asked first, and less is enough.

- Susceptibilities of an isolate and the like: ``derivedFrom`` the parent result, which ``hasMember`` them when this
  message carries it. A reflex test (OBR-11 G) is only triggered by it: R5's triggeredBy.
- The order: ServiceRequest.basedOn, and DiagnosticReport.basedOn, so that who asks for the answer to an order gets all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import code_text, entity_identifier, entity_system
from gateway.hl7v2.isolates import Made, Related, gather, reference_to, relate
from gateway.hl7v2.message import Part, Segment
from gateway.hl7v2.request import Numbers, Order, request_key, shares_number
from gateway.source import Remark, Resource

_MOST = 64  # reports or results of one name that are looked at
_TRIGGERED_BY = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.triggeredBy"


@dataclass(slots=True)
class Told:
    """A report as this message tells it."""

    order: Order
    numbers: Numbers
    code: str
    report: Resource
    request: Reference
    obxs: list[Segment]
    references: list[Reference]  # of their Observations
    results: list[Made] = field(default_factory=list)
    named: dict[tuple[str, str], list[Made]] = field(default_factory=dict)  # by OBX-3 and OBX-4; by OBX-3 and ""

    def result(self, said: _Parent) -> Resource | None:
        """The one result with OBR-26's OBX-3 and OBX-4; without OBX-4 the only one with that code, else the one with
        that value (OBR-26.3)."""
        found = self.named.get((said.code, said.sub_id), [])[:_MOST]
        if len(found) > 1 and said.value:
            found = [(obx, made) for obx, made in found if said.value in (obx.get(5), obx.get(5, 2))]
        return found[0][1] if len(found) == 1 else None


@dataclass(slots=True)
class _Parent:
    """What a child says of its parent."""

    placer: Part
    filler: Part
    service: str  # OBR-50
    code: str  # OBX-3 of the parent result
    sub_id: str
    value: str

    @property
    def numbered(self) -> bool:
        return bool(self.placer.get(1) or self.filler.get(1))


def report_key(numbers: Numbers, code: str, obr: Segment, builder: Builder) -> str:
    """What the id of a report is made of: its number with its authority, and the service code; for a child, of whose
    kind there may be one for each isolate, also the parent result."""
    number, kind = (numbers.filler, "filler") if numbers.filler else (numbers.placer, "placer")
    assert number is not None
    key = f"{entity_system(number, kind, builder.source)}|{number.get(1)}|{code}"
    if obr.size > 26 and obr.raw_field(26) and (sub_id := _prl(obr, 2)):
        key = f"{key}|{_service(obr.first(26).part(1))}|{sub_id}"
    return key


def is_child(order: Order) -> bool:
    """Whether an order names a parent."""
    obr, orc = order.obr, order.orc
    return obr.size > 26 and any(obr.raw_field(at) for at in (26, 29, 52, 54)) \
        or orc is not None and orc.size > 8 and bool(orc.raw_field(8))


def add_relations(told: list[Told], builder: Builder) -> None:
    """Tie one patient's reports and results of this message together, and to parents of earlier ones."""
    children = [one for one in told if is_child(one.order)]
    groups = told if builder.may_belong else []
    if not children and not groups:
        return
    made = {f"{c.resource['resourceType']}/{c.resource['id']}": c.resource for c in builder.conversion.changes}
    for one in told:
        one.results = [(obx, made[reference["reference"]])
                       for obx, reference in zip(one.obxs, one.references, strict=True)]
    known: Related = set()
    for one in groups:
        gather(one.results, one.order.obr, builder, known)
    if children:
        family = _Family(told)
        for one in children:
            _tie(one, family, made, known, builder)


def _tie(child: Told, family: _Family, made: dict[str, Resource], known: Related, builder: Builder) -> None:
    said = _said(child.order)
    parent = family.parent(child, said)
    request = parent.request if parent is not None else _request(said, builder)
    if request is not None and request.get("reference") != child.request["reference"]:
        for resource in (child.report, made[child.request["reference"]]):  # several children may have one order
            link = resource["id"], "basedOn", request.get("reference") or request["identifier"]["value"]
            if link not in known:
                known.add(link)
                resource.setdefault("basedOn", []).append({**request})
    if not said.code:
        return
    head = parent.result(said) if parent is not None else None
    reference = reference_to(head) if head is not None else _computed(said, builder) if parent is None else None
    if reference is None:
        obr = child.order.obr
        builder.conversion.remarks.append(Remark(
            f"OBR[{obr.sequence}]-26" if obr.sequence > 1 else "OBR-26", "the parent result is not found; send its "
            "OBX-3 and OBX-4 in OBR-26, its filler number in OBR-29 and its service code in OBR-50"))
        return
    reflex = child.order.obr.get(11).upper() == "G"
    for _, result in child.results:
        if head is None or reflex:
            _point(result, reference, reflex)
        elif result is not head:
            relate(head, result, True, known)


def _said(order: Order) -> _Parent:
    obr, orc = order.obr, order.orc
    pair = next((part for part in (obr.first(29), obr.first(54), orc.first(8) if orc is not None else obr.first(29))
                 if part), obr.first(29))
    return _Parent(pair.part(1), pair.part(2), _service(obr.first(50)), _service(obr.first(26).part(1)), _prl(obr, 2),
                   _prl(obr, 3))


def _prl(obr: Segment, component: int) -> str:
    return obr.first(26).part(component).text.strip()


def _service(part: Part) -> str:
    """The code that ids are made of (`Builder.concept`): the first, else the alternate one, else the text."""
    return code_text(part.get(1)) or code_text(part.get(4)) or code_text(part.get(2))


# ---------------------------------------------------------------- the parent in this message

class _Family:
    """The reports of one patient by what a child may say of its parent, so that a message of many is not searched
    through for each of them."""

    def __init__(self, told: list[Told]) -> None:
        self._found: dict[tuple[str, ...], list[Told]] = defaultdict(list)
        for one in told:
            numbers = ("filler", one.numbers.filler), ("placer", one.numbers.placer)
            names = [(kind, part.get(1)) for kind, part in numbers if part is not None]
            if group := one.order.obr.get(51):
                self._found["group", group].append(one)
            for obx, made in one.results:
                code, sub_id = _service(obx.first(3)), obx.text(4).strip()
                for key in dict.fromkeys(((code, sub_id), (code, ""))):
                    one.named.setdefault(key, []).append((obx, made))
            for name in names:
                self._found[name].append(one)
            for key in one.named:
                self._found["result", *key].append(one)
                for name in names:
                    self._found[*name, *key].append(one)

    def parent(self, child: Told, said: _Parent) -> Told | None:
        """By OBR-52; by number, and with the result that OBR-26 names where several have the number; by that result."""
        if (group := child.order.obr.get(52)) and (found := self._first(("group", group), child)):
            return found
        if not said.numbered:
            return self._nearest(child, said) if said.code else None
        numbers = [(kind, part.get(1)) for kind, part in (("filler", said.filler), ("placer", said.placer))
                   if part.get(1)]
        keys: list[tuple[str, ...]] = [(*number, said.code, said.sub_id) for number in numbers if said.code]
        for key in (*keys, *numbers):
            if found := self._first(key, child, said):
                return found
        return None

    def _first(self, key: tuple[str, ...], child: Told, said: _Parent | None = None) -> Told | None:
        return next((one for one in self._found.get(key, [])[:_MOST] if one is not child and (
            said is None or _numbered(one, said) and said.service in ("", one.code))), None)

    def _nearest(self, child: Told, said: _Parent) -> Told | None:
        """The last OBR before the child's that has the result."""
        found = self._found.get(("result", said.code, said.sub_id), [])
        end = bisect_left(found, child.order.obr.sequence, key=lambda one: one.order.obr.sequence)
        return next((one for one in reversed(found[max(0, end - _MOST):end]) if one.result(said) is not None), None)


def _numbered(one: Told, said: _Parent) -> bool:
    for number, sent in ((one.numbers.filler, said.filler), (one.numbers.placer, said.placer)):
        if number is not None and sent.get(1):
            return number.get(1) == sent.get(1) and (not number.get(2) or not sent.get(2)
                                                     or number.get(2) == sent.get(2))
    return False


# ---------------------------------------------------------------- the parent of an earlier message

def _request(said: _Parent, builder: Builder) -> Reference | None:
    """The parent's ServiceRequest; its number alone where the id needs a service code that is not sent."""
    if not said.numbered:
        return None
    numbers = Numbers(said.placer if said.placer.get(1) else None, said.filler if said.filler.get(1) else None)
    shared = shares_number(builder)
    part, kind, code = (numbers.placer, "placer", "PLAC") if numbers.placer else (numbers.filler, "filler", "FILL")
    assert part is not None
    number = entity_identifier(part, kind, builder.source, code)
    reference: Reference = {"type": "ServiceRequest", "identifier": number}
    if not said.service and (numbers.placer is None or shared):
        return reference
    key = request_key(numbers, said.service, shared, builder)
    return {"reference": f"ServiceRequest/{builder.source.id_for('ServiceRequest', key)}", **reference}


def _computed(said: _Parent, builder: Builder) -> Reference | None:
    """The parent result's id, as the message that carried it made it."""
    if not said.filler.get(1) or not said.service:
        return None
    source = builder.source
    key = f"{entity_system(said.filler, 'filler', source)}|{said.filler.get(1)}|{said.service}"
    report_id = source.id_for("DiagnosticReport", key)
    result = source.id_within(report_id, "Observation", f"{key}|{said.code}|{said.sub_id}")
    return {"reference": f"Observation/{result}"}


def _point(result: Resource, head: Reference, reflex: bool) -> None:
    if not reflex:
        result.setdefault("derivedFrom", []).append({**head})
        return
    parts: list[dict[str, Any]] = [{"url": "observation", "valueReference": {**head}},
                                   {"url": "type", "valueCode": "reflex"}]
    result.setdefault("extension", []).append({"url": _TRIGGERED_BY, "extension": parts})
