"""A request's body → `Call`, checked: its own shape, and context against prefetch ("Calling a CDS Service"). Pure.

What contradicts is refused with both places, before anything is looked up or recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import Category, GatewayError
from gateway.fhir import check, json

HOOKS = ("patient-view", "order-select", "order-sign")
#: Bytes of a body, and orders of one signature.
MAX_BODY = 4 * 1024 * 1024
MAX_ORDERS = 200
#: Prefetch key → template ("Prefetch Template"): read and search only, tokens of the hook's context.
TEMPLATES: Mapping[str, str] = {
    "patient": "Patient/{{context.patientId}}",
    "encounter": "Encounter/{{context.encounterId}}",
    "procedures": "Procedure?patient={{context.patientId}}&_sort=-date&_count=20",
    "coverage": "Coverage?patient={{context.patientId}}&status=active",
}
#: patient-view judges no order: who the patient is, is enough.
PREFETCH: Mapping[str, tuple[str, ...]] = {"patient-view": ("patient",), "order-select": tuple(TEMPLATES),
                                           "order-sign": tuple(TEMPLATES)}
#: Key → the type asked for, and the element that says whose it is.
_KINDS = {"patient": ("Patient", ""), "encounter": ("Encounter", "subject"), "procedures": ("Procedure", "subject"),
          "coverage": ("Coverage", "beneficiary")}
#: R4 types of draftOrders (order-select, order-sign: Context) → the element that says whom the order is for.
_ORDERS = {"ServiceRequest": "subject", "MedicationRequest": "subject", "DeviceRequest": "subject",
           "NutritionOrder": "patient", "VisionPrescription": "patient"}
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII).fullmatch
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII).fullmatch
_USER = re.compile(r"(?:Practitioner|PractitionerRole|Patient|RelatedPerson)/[A-Za-z0-9\-.]{1,64}", re.ASCII).fullmatch
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*", re.ASCII).fullmatch  # RFC 6750 2.1
_REFERENCE = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?",
                        re.ASCII).fullmatch

#: Where an order stands in the request, and the order.
_Order = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the service. ``orders``: place and ServiceRequest of each order to judge.

    ``prefetch``: key → resources that the client sent; empty: it looked and found nothing (``null``). A key that is not
    there was not sent. ``server`` and ``token``: its FHIR server and the access token to it.
    """

    hook: str
    hook_instance: str
    user: str
    patient_id: str
    encounter_id: str = ""
    orders: tuple[_Order, ...] = ()
    prefetch: Mapping[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    server: str = ""
    token: str = ""
    extension: Mapping[str, Any] = field(default_factory=dict)

    def missing(self) -> tuple[str, ...]:
        """Prefetch keys that the hook asks for and the client left out."""
        return tuple(key for key in PREFETCH[self.hook] if key not in self.prefetch
                     and (key != "encounter" or self.encounter_id))


def parse(raw: bytes) -> Call:
    """The call; MALFORMED or INVALID with the place. Of other orders than ServiceRequests only the patient is read."""
    body = json.loads(raw)
    hook = _text(body, "hook")
    if hook not in HOOKS:
        raise _invalid(f"this service is called by the hooks {', '.join(HOOKS)}", "hook")
    instance = _text(body, "hookInstance")
    if not _UUID(instance):
        raise _invalid("must be a UUID, a new one for each call of the hook", "hookInstance")
    context = _object(body, "context")
    patient_id = _id(context, "context.patientId")
    encounter_id = _id(context, "context.encounterId", required=False)
    user = _text(context, "context.userId")
    if not _USER(user):
        raise _invalid("must be a reference such as Practitioner/123 or PractitionerRole/123", "context.userId")
    orders = [] if hook == "patient-view" else _orders(context, patient_id)
    if hook == "order-select":
        orders = _selected(context, orders)
    prefetch = _object(body, "prefetch", required=False)
    found = {key: resources_of(key, prefetch[key], f"prefetch.{key}", patient_id, encounter_id)
             for key in PREFETCH[hook] if key in prefetch and not _failed(prefetch[key])}
    server, token = _access(body)
    return Call(hook, instance, user, patient_id, encounter_id, tuple(filter(_is_judged, orders)), found, server, token,
                _object(body, "extension", required=False))


def resources_of(key: str, value: Any, place: str, patient_id: str, encounter_id: str) -> tuple[dict[str, Any], ...]:
    """The resources behind a prefetch key: one, or those of a searchset; INVALID where they are of another patient."""
    if value is None:  # "the prefetch template key MUST have a value of null" where there is nothing
        return ()
    kind, whose = _KINDS[key]
    if not isinstance(value, dict):
        raise _invalid(f"must be what {TEMPLATES[key]} answers, or null where there is nothing", place)
    if not whose or key == "encounter":
        given = [(place, value)]
    elif value.get("resourceType") == "Bundle":
        given = [(where, one) for where, one in _entries(value, place) if one.get("resourceType") != "OperationOutcome"]
    else:
        raise _invalid(f"must be a searchset Bundle, as {TEMPLATES[key]} answers", place)
    for where, resource in given:
        if resource.get("resourceType") != kind:
            raise _invalid(f"must be of the type {kind}", f"{where}.resourceType")
        _valid(resource, where)
        if whose:
            _same_patient(resource, whose, where, patient_id)
    if key == "patient" and value.get("id", patient_id) != patient_id:
        raise _invalid("is another than context.patientId; send the Patient whom the context names", f"{place}.id")
    if key == "encounter" and value.get("id", encounter_id) != encounter_id:
        raise _invalid("is another than context.encounterId; send the Encounter that the context names", f"{place}.id")
    return tuple(resource for _, resource in given)


# ---------------------------------------------------------------- orders

def _orders(context: dict[str, Any], patient_id: str) -> list[_Order]:
    """The orders of ``context.draftOrders``, all for this patient, no two of one id."""
    bundle = _object(context, "context.draftOrders")
    if bundle.get("resourceType") != "Bundle":
        raise _invalid("must be a Bundle of draft orders", "context.draftOrders")
    orders: dict[str, _Order] = {}
    for number, (where, resource) in enumerate(_entries(bundle, "context.draftOrders")):
        kind = resource.get("resourceType")
        if not isinstance(kind, str):
            raise _invalid("must name the type of an order", f"{where}.resourceType")
        if number >= MAX_ORDERS:
            raise _invalid(f"holds more than {MAX_ORDERS} orders; sign them in parts", "context.draftOrders")
        if kind not in _ORDERS:
            continue
        if kind == "ServiceRequest":
            _valid(resource, where)
        _same_patient(resource, _ORDERS[kind], where, patient_id)
        key = reference_of(resource) or f"#{number}"
        if key in orders:
            raise _invalid("is the id of another draft order too; give each its own", f"{where}.id")
        orders[key] = where, resource
    return list(orders.values())


def _is_judged(order: _Order) -> bool:
    """Orders of exams and tests; not what says "do not", and nothing that is over (request-status)."""
    _, resource = order
    return resource["resourceType"] == "ServiceRequest" and resource.get("doNotPerform") is not True \
        and resource.get("status") not in ("revoked", "completed", "entered-in-error")


def _selected(context: dict[str, Any], orders: list[_Order]) -> list[_Order]:
    """The orders that ``context.selections`` names, as ``Type/id`` or by the bare id where one draft has it."""
    selections = context.get("selections")
    if not isinstance(selections, list) or not selections or not all(isinstance(one, str) for one in selections):
        raise _invalid("must be a list of the ids of the newly selected orders, such as ServiceRequest/103",
                       "context.selections")
    chosen: list[_Order] = []
    for number, name in enumerate(selections):
        found = [order for order in orders if name in (reference_of(order[1]), order[1].get("id"))]
        if len(found) != 1:
            raise _invalid("names no order of context.draftOrders" if not found else
                           "names several orders of context.draftOrders; write it as Type/id",
                           f"context.selections[{number}]")
        if found[0] not in chosen:
            chosen.append(found[0])
    return chosen


def reference_of(resource: Mapping[str, Any]) -> str:
    """``ServiceRequest/id``; empty without an id."""
    own = resource.get("id")
    return f"{resource['resourceType']}/{own}" if isinstance(own, str) and own else ""


def _entries(bundle: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, resource) of a Bundle."""
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise _invalid("must be a list of entries", f"{place}.entry")
    for number, entry in enumerate(entries):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict):
            raise _invalid("must hold a resource", f"{place}.entry[{number}]")
        yield f"{place}.entry[{number}].resource", resource


def _same_patient(resource: dict[str, Any], element: str, place: str, patient_id: str) -> None:
    """INVALID where the resource says another patient than the context, or no patient at all.

    A reference that names no type and id (contained, ``urn:uuid:``, an identifier alone) contradicts nothing.
    """
    whose = resource.get(element)
    reference = whose.get("reference") if isinstance(whose, dict) else None
    named = _REFERENCE(reference) if isinstance(reference, str) else None
    if named and named.groups() != ("Patient", patient_id):
        raise _invalid("is another than context.patientId; one call is about one patient", f"{place}.{element}")


def _valid(resource: dict[str, Any], place: str) -> None:
    """INVALID with the first thing that breaks R4, under the request's own path."""
    if issues := check.check(resource):
        path = issues[0].where.partition(".")[2]
        raise _invalid(issues[0].message, f"{place}.{path}" if path else place)


# ---------------------------------------------------------------- fields

def _access(body: dict[str, Any]) -> tuple[str, str]:
    """``fhirServer`` and the token of ``fhirAuthorization`` ("FHIR Resource Access")."""
    server = _text(body, "fhirServer", required=False)
    authorization = _object(body, "fhirAuthorization", required=False)
    if not authorization:
        return server, ""
    if not server:
        raise _invalid("is required where fhirAuthorization is given", "fhirServer")
    token = _text(authorization, "fhirAuthorization.access_token")
    if not _TOKEN(token):
        raise _invalid("must be a bearer token (RFC 6750 2.1)", "fhirAuthorization.access_token")
    if _text(authorization, "fhirAuthorization.token_type").lower() != "bearer":
        raise _invalid("must be Bearer", "fhirAuthorization.token_type")
    lifetime = authorization.get("expires_in")
    if isinstance(lifetime, bool) or not isinstance(lifetime, int):
        raise _invalid("must be a whole number of seconds", "fhirAuthorization.expires_in")
    return server, token if lifetime > 0 else ""


def _failed(value: Any) -> bool:
    """Whether a client sent its own failure in place of leaving the key out."""
    return isinstance(value, dict) and value.get("resourceType") == "OperationOutcome"


def _text(of: dict[str, Any], place: str, required: bool = True) -> str:
    value = of.get(place.rpartition(".")[2])
    if value is None and not required:
        return ""
    if not isinstance(value, str) or not value:
        raise _invalid("is required: a text that is not empty" if value is None else
                       "must be a text that is not empty", place)
    return value


def _id(of: dict[str, Any], place: str, required: bool = True) -> str:
    value = _text(of, place, required)
    if value and not _ID(value):
        raise _invalid("must be a FHIR id, without the type (datatypes.html#id)", place)
    return value


def _object(of: dict[str, Any], place: str, required: bool = True) -> dict[str, Any]:
    value = of.get(place.rpartition(".")[2])
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise _invalid("must be an object", place)
    return value


def _invalid(sentence: str, place: str) -> GatewayError:
    return GatewayError(Category.INVALID, sentence, place)
