"""ServiceRequest, Encounter, Procedure … as they come from a workstation or from a message → `Order`. Pure.

Whatever has another shape than R4 says is refused as INVALID with its path, under the ``where`` that the caller gives
(``context.draftOrders.entry[2].resource``). Codes are read, texts never. The manual is this folder's README, Verdict.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.errors import Category, GatewayError
from gateway.indexing import values
from gateway.indexing.results import LATERALITY_EXTENSION
from gateway.recognition.model import Candidate, Happening, Order, Side
from gateway.recognition.rules import RuleSet
from gateway.source import Resource, Source
from gateway.terminology import BASE, ITEMS, LOINC, PANELS, SNOMED

if TYPE_CHECKING:
    from gateway.store.model import Result

#: Why something is ordered, where it matters to step 6: in ServiceRequest.reasonCode or .category.
PURPOSES = f"{BASE}/CodeSystem/recognition-purpose"
_PURPOSE = {"emergency": "emergency", "forensic": "forensic", "before-surgery": "surgery",
            "before-transfusion": "transfusion"}
#: SNOMED CT concepts of Procedure.category (procedure-category) and Procedure.code: the general ones, and for blood
#: the common ones below; there is no hierarchy here to ask.
_PROCEDURE = {"387713003": "surgery",  # Surgical procedure
              "116859006": "transfusion",  # Transfusion of blood product
              "5447007": "transfusion",  # Transfusion
              "116863004": "transfusion",  # Transfusion of red blood cells
              "12719002": "transfusion",  # Platelet transfusion
              "13569004": "transfusion",  # Transfusion of plasma
              "367336001": "chemotherapy"}  # Chemotherapy
#: event-status; R5 knows not-started, too. A procedure that was stopped had begun.
_PLANNED = frozenset(("preparation", "not-started"))
_DONE = frozenset(("completed", "in-progress", "stopped"))
#: v3-ActCode: inpatient, and what is below it.
_INPATIENT = frozenset(("IMP", "ACUTE", "NONAC"))
_SIDES = {(SNOMED, "7771000"): Side.LEFT, (SNOMED, "24028007"): Side.RIGHT, (SNOMED, "51440002"): Side.BOTH}
_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"

_NS = uuid.uuid5(uuid.NAMESPACE_URL, f"{BASE}/recognition/order-line")
#: What FHIR's string does not allow (datatypes.html#string), and what cannot be encoded.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_LONGEST = 255


def line_id(institution: str, number: str) -> str:
    """The id of an order line: the same for CDS Hooks, HL7v2, the plug-in and the billing gate."""
    if not institution or not number:
        raise GatewayError(Category.INVALID, "an order line is named by its institution and its order number")
    return str(uuid.uuid5(_NS, f"{institution}|{number}"))


def order_number(resource: Resource, institution: str, patient: str = "", encounter: str = "",
                 where: str = "ServiceRequest") -> str:
    """The placer's number of an order; of a draft without any, what names it among the patient's drafts of a day.

    ``patient`` and ``encounter``: as the client names them, what the resource says where they are empty.
    """
    numbers: dict[str, list[str]] = {"PLAC": [], "ours": [], "": [], "FILL": []}
    for path, one in _objects(resource, "identifier", where):
        if number := _short(_text(one, "value", path), path):
            types = [coding.code for coding in _codings(one, "type", path) if coding.system in (_V2_0203, "")]
            ours = _text(one, "system", path) == f"urn:huren:{institution}:placer"
            numbers["PLAC" if "PLAC" in types else "ours" if ours else "FILL" if "FILL" in types else ""].append(number)
    for number in chain.from_iterable(numbers.values()):
        return number
    codings = _codings(resource, "code", where)
    ordered = _own(codings, None, True)
    parts = (_tail(patient or _reference(resource, "subject", where)),
             _tail(encounter or _reference(resource, "encounter", where)), _text(resource, "id", where),
             ordered.code if ordered else "", _text(resource, "authoredOn", where)[:10])
    return f"draft:{uuid.uuid5(_NS, '|'.join(parts))}"


def drafts(bundle: Any, where: str = "context.draftOrders") -> list[tuple[str, Resource]]:
    """Path and ServiceRequest of each order in a Bundle; what is no ServiceRequest, or says "do not", is no order."""
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise GatewayError(Category.INVALID, "must be a Bundle", where)
    found = []
    for path, entry in _objects(bundle, "entry", where):
        resource = entry.get("resource")
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            raise GatewayError(Category.INVALID, "must be a resource", f"{path}.resource")
        if resource["resourceType"] == "ServiceRequest" and resource.get("doNotPerform") is not True:
            found.append((f"{path}.resource", resource))
    return found


def item_of(codings: Iterable[tuple[str, str]], rules: RuleSet, source: Source | None = None,
            where: str = "code") -> str:
    """The unified item or panel that codings (system, code) of one concept mean; "" where none leads to one.

    The unified code itself and the hospital's own code by its map; LOINC only where neither leads anywhere. INVALID
    where they lead to different items: nobody knows then what is ordered.
    """
    pairs = list(codings)
    found: set[str] = set()
    for system, code in pairs:
        found.update(_known(system, code, rules))
        if source is not None and system == source.code_system:
            for coding in source.codes.codings(code, system):
                found.update(_known(coding.get("system", ""), coding.get("code", ""), rules))
    if not found:
        found = {item for system, code in pairs if system == LOINC and (item := rules.catalogue.of_loinc(code))}
    if len(found) > 1:
        raise GatewayError(Category.INVALID, "the codings contradict each other, they lead to different items; "
                           "send the codes of one item", where)
    return next(iter(found), "")


def order_from(resource: Resource, *, rules: RuleSet, institution: str = "", source: Source | None = None,
               patient: str = "", encounter: Resource | None = None, procedures: Sequence[Resource] = (),
               coverage: Resource | None = None, practitioner: Resource | None = None, department: str = "",
               where: str = "ServiceRequest") -> Order:
    """The order line of a ServiceRequest, with what the resources around it say; see the README, Verdict.

    ``institution``: slug of the ordering hospital, the source's when not given. ``patient``: as the client names it.
    ``department``, where the caller knows better than the Encounter. Empty ``item``: the code is not mapped.
    """
    if not isinstance(resource, dict) or resource.get("resourceType") != "ServiceRequest":
        raise GatewayError(Category.INVALID, "must be a ServiceRequest", where)
    slug = institution or (source.institution if source else "")
    codings = _codings(resource, "code", where)
    item = item_of(((one.system, one.code) for one in codings), rules, source, f"{where}.code")
    own = _own(codings, source, not item)
    about = _object(resource, "code", where)
    visit = _resource(encounter, "Encounter")
    stay = _short(_text(visit, "id", "Encounter"), "Encounter.id") or _tail(_reference(resource, "encounter", where))
    setting = _short(_text(_object(visit, "class", "Encounter"), "code", "Encounter.class"), "Encounter.class.code")
    id = _short(_text(resource, "id", where), f"{where}.id")
    return Order(
        institution=slug,
        number=order_number(resource, slug, patient, stay, where),
        item=item,
        local=own.code if own else "",
        display=(_text(about, "text", f"{where}.code") or (own.display if own else "") or
                 next((one.display for one in codings if one.display), ""))[:_LONGEST],
        department=department or _department(visit, slug),
        doctor=_doctor(resource, practitioner, where),
        encounter=stay,
        setting=setting,
        side=_side(resource, where),
        happenings=tuple(dict.fromkeys((*_wanted(resource, where), *_stay(visit, setting),
                                        *_done(procedures)))),
        scheme=_scheme(coverage),
        reference=f"ServiceRequest/{id}" if id else "")


def candidate_from(result: Result) -> Candidate:
    """An earlier result as the rules see it, from its row of the index."""
    return Candidate(result.pk, result.kind, result.item, result.time, result.status, result.institution,
                     result.flags, Side(result.side), result.session)


# -------------------------------------------------------------------- what is ordered


class _Coding(NamedTuple):
    system: str
    code: str
    display: str


def _known(system: str, code: str, rules: RuleSet) -> set[str]:
    known = {ITEMS: rules.catalogue.items, PANELS: rules.catalogue.panels}.get(system, {})
    return {code} if code in known else set()


def _own(codings: Sequence[_Coding], source: Source | None, unmapped: bool) -> _Coding | None:
    """The hospital's own coding; of an order that nothing maps whatever names it."""
    foreign = (ITEMS, PANELS, LOINC)
    return next((one for one in codings if source is not None and one.system == source.code_system), None) or \
        next((one for one in codings if one.system not in foreign), None) or \
        (codings[0] if codings and unmapped else None)


def _side(resource: Resource, where: str) -> Side:
    """Of the body sites and the laterality extension; left and right together are both."""
    found = {side for path, concept in _objects(resource, "bodySite", where)
             for coding in _concept(concept, path) if (side := _SIDES.get((coding.system, coding.code)))}
    for path, extension in _objects(resource, "extension", where):
        if extension.get("url") == LATERALITY_EXTENSION:
            said = _text(extension, "valueCode", path)
            if said not in ("L", "R", "B"):
                raise GatewayError(Category.INVALID, "must be L, R or B", f"{path}.valueCode")
            found.add(Side(said))
    return next(iter(found), Side.UNKNOWN) if len(found) < 2 else Side.BOTH


# -------------------------------------------------------------------- who, where, for whom


def _doctor(resource: Resource, practitioner: Resource | None, where: str) -> str:
    """The staff number, where one is said; else the id under which the client knows who orders."""
    if practitioner is not None:
        kind = _text(_resource(practitioner, "Practitioner", "PractitionerRole"), "resourceType", "Practitioner")
        for path, one in _objects(practitioner, "identifier", kind):
            if number := _text(one, "value", path):
                return _short(number, path)
        if id := _text(practitioner, "id", kind):
            return _short(id, kind)
    return _named(resource, "requester", where)


def _department(encounter: Resource, institution: str) -> str:
    """Of the Encounter's active location, else of its provider, where that is not the hospital itself."""
    places = [(path, one) for path, one in _objects(encounter, "location", "Encounter")]
    places.sort(key=lambda place: place[1].get("status") != "active")
    for path, place in places:
        if name := _named(place, "location", path):
            return name
    provider = _named(encounter, "serviceProvider", "Encounter")
    return provider if provider != institution else ""


def _scheme(coverage: Resource | None) -> str:
    return next((one.code for one in _codings(_resource(coverage, "Coverage"), "type", "Coverage")), "")


# -------------------------------------------------------------------- step 6


def _wanted(request: Resource, where: str) -> Iterator[Happening]:
    """What the order itself says of the patient: request-priority ``stat`` (asap is haste, not an emergency), and its
    purposes."""
    if _text(request, "priority", where) == "stat":
        yield Happening("emergency")
    for name in ("category", "reasonCode"):
        for path, concept in _objects(request, name, where):
            for coding in _concept(concept, path):
                if coding.system == PURPOSES and coding.code in _PURPOSE:
                    yield Happening(_PURPOSE[coding.code])


def _stay(encounter: Resource, setting: str) -> Iterator[Happening]:
    if setting == "EMER":
        yield Happening("emergency")
    start = _time(_text(_object(encounter, "period", "Encounter"), "start", "Encounter.period"),
                  "Encounter.period.start")
    if setting in _INPATIENT and start and encounter.get("status") not in ("planned", "cancelled", "entered-in-error"):
        yield Happening("admission", start)


def _done(procedures: Sequence[Resource]) -> Iterator[Happening]:
    """Operations, transfusions and chemotherapies: planned, or when they were (a period: its end, else its start)."""
    if not isinstance(procedures, list | tuple):
        raise GatewayError(Category.INVALID, "must be a list of Procedures", "procedures")
    for number, one in enumerate(procedures):
        where = f"Procedure[{number}]"
        procedure = _resource(one, "Procedure", where=where)
        kinds = dict.fromkeys(_PROCEDURE[coding.code] for name in ("category", "code")
                              for coding in _codings(procedure, name, where)
                              if coding.system == SNOMED and coding.code in _PROCEDURE)
        period = _object(procedure, "performedPeriod", where)
        said = _text(procedure, "performedDateTime", where) or \
            _text(period, "end", f"{where}.performedPeriod") or _text(period, "start", f"{where}.performedPeriod")
        at = _time(said, f"{where}.performed[x]")
        status = _text(procedure, "status", where)
        if status in _PLANNED:
            yield from (Happening(kind) for kind in kinds)
        elif status in _DONE and at:
            yield from (Happening(kind, at) for kind in kinds)


def _time(text: str, where: str) -> int:
    """µs of the first instant that a dateTime covers, 0 where nothing is said."""
    if not text:
        return 0
    found = values.date_range(text)
    if found is None:
        raise GatewayError(Category.INVALID, "must be a FHIR dateTime", where)
    return found[0] * 1000


# -------------------------------------------------------------------- shapes


def _resource(value: Resource | None, *types: str, where: str = "") -> Resource:
    if value is None:
        return {}
    if not isinstance(value, dict) or value.get("resourceType") not in types:
        raise GatewayError(Category.INVALID, f"must be a resource of type {' or '.join(types)}", where or types[0])
    return value


def _object(holder: Mapping[str, Any], name: str, where: str) -> Resource:
    value = holder.get(name, {})
    if not isinstance(value, dict):
        raise GatewayError(Category.INVALID, "must be an object", f"{where}.{name}")
    return value


def _objects(holder: Mapping[str, Any], name: str, where: str) -> list[tuple[str, Resource]]:
    value = holder.get(name, [])
    if not isinstance(value, list):
        raise GatewayError(Category.INVALID, "must be a list", f"{where}.{name}")
    for number, one in enumerate(value):
        if not isinstance(one, dict):
            raise GatewayError(Category.INVALID, "must be an object", f"{where}.{name}[{number}]")
    return [(f"{where}.{name}[{number}]", one) for number, one in enumerate(value)]


def _text(holder: Mapping[str, Any], name: str, where: str) -> str:
    """A string without the white space around it; "" where there is none."""
    value = holder.get(name, "")
    if not isinstance(value, str) or _FORBIDDEN.search(value):
        raise GatewayError(Category.INVALID, "must be a string without control characters", f"{where}.{name}")
    return value.strip()


def _concept(concept: Resource, where: str) -> list[_Coding]:
    """The codings of a CodeableConcept that have a code."""
    return [_Coding(_text(one, "system", path), code, _text(one, "display", path))
            for path, one in _objects(concept, "coding", where) if (code := _short(_text(one, "code", path), path))]


def _codings(holder: Resource, name: str, where: str) -> list[_Coding]:
    return _concept(_object(holder, name, where), f"{where}.{name}")


def _reference(holder: Resource, name: str, where: str) -> str:
    return _short(_text(_object(holder, name, where), "reference", f"{where}.{name}"), f"{where}.{name}")


def _named(holder: Resource, name: str, where: str) -> str:
    """What a Reference names by its identifier, else the id that it points to."""
    value = _object(holder, name, where)
    path = f"{where}.{name}"
    number = _text(_object(value, "identifier", path), "value", f"{path}.identifier")
    return _short(number, path) or _tail(_reference(holder, name, where))


def _tail(reference: str) -> str:
    """``https://…/Encounter/7/_history/2`` → 7."""
    return reference.split("/_history/")[0].rpartition("/")[2]


def _short(text: str, where: str) -> str:
    if len(text) > _LONGEST:
        raise GatewayError(Category.INVALID, f"longer than {_LONGEST} characters; shorten it", where)
    return text
