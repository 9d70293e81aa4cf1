"""A decision for FHIR clients: DetectedIssue, Provenance, the ServiceRequest that it revokes, the Appointment. Pure.

The DetectedIssue has the line's id, and its versions tell the line's decisions; a Provenance has that of the decision
(a revoking one of its own).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.fhir import json
from gateway.fhir.resource import instant
from gateway.recognition.model import LineBody, State
from gateway.recognition.rules import Reason, RuleSet
from gateway.source import Resource, Source
from gateway.store.model import Line
from gateway.terminology import BASE

ISSUES = f"{BASE}/CodeSystem/recognition-issue"
DECISIONS = f"{BASE}/CodeSystem/recognition-decision"
REASONS = f"{BASE}/CodeSystem/recognition-reason"
STEPS = f"{BASE}/CodeSystem/recognition-step"
ORDER_LINES = f"{BASE}/NamingSystem/order-line"
_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
_SAYS = {"recognised": "Earlier result recognised", "not_recognised": "Earlier result not recognised",
         "revoked": "Decision revoked"}
#: appointmentstatus of what can still be given to somebody else.
_OPEN = frozenset(("proposed", "pending", "booked", "waitlist"))
#: request-status of an order that a recognition makes needless; what is done or void stays as it is.
_ALIVE = frozenset(("draft", "active", "on-hold", "unknown"))
_TRACED = 40  # rows of a trace that are shown as evidence


def detected_issue(line: Line, body: LineBody, request: str, trace: Iterable[Mapping[str, Any]],
                   reason: Reason | None, at: int) -> Resource:
    """The duplicate, with what was decided about it; after a revoking it waits for a decision again (preliminary).

    ``request``: id of the ServiceRequest; ``trace``: of the last reminder; ``reason``: that of the decision.
    """
    results = [{"reference": one} for one in body.results]
    made: Resource = {
        "resourceType": "DetectedIssue", "id": line.id, "meta": {"source": f"urn:huren:{line.institution}"},
        "identifier": [{"system": ORDER_LINES, "value": line.id}],
        "status": "final" if body.decision else "preliminary",
        "code": {"coding": [{"system": ISSUES, "code": "duplicate-exam", "display": "Duplicate exam or test"}]}}
    if body.patient:
        made["patient"] = {"reference": f"Patient/{body.patient}"}
    made["identifiedDateTime"] = instant(body.reminded_at or at)
    made["implicated"] = [{"reference": f"ServiceRequest/{request}"}, *results]
    made["evidence"] = [_step(row) for row in list(trace)[:_TRACED]] or [{"detail": results}]
    made["reference"] = catalogue_url(body.catalogue)
    made["mitigation"] = [{"action": _action(line, body, reason), "date": instant(at),
                           "author": doctor(line.institution, body.acted_by)}]
    return made


def catalogue_url(version: str) -> str:
    """The Library that a decision was made under."""
    return f"{BASE}/Library/recognition-catalogue-{version}"


def _step(row: Mapping[str, Any]) -> Resource:
    """A row of the trace: its rule as code, the row itself as text."""
    return {"code": [{"coding": [{"system": STEPS, "code": str(row["rule"])}], "text": json.dumps(dict(row)).decode()}]}


def _kind(line: Line, body: LineBody) -> str:
    return line.state if body.decision else "revoked"


def _decided(line: Line, body: LineBody) -> Resource:
    kind = _kind(line, body)
    return {"system": DECISIONS, "code": kind.replace("_", "-"), "display": _SAYS[kind]}


def _action(line: Line, body: LineBody, reason: Reason | None) -> Resource:
    codings = [_decided(line, body)]
    if body.reason:
        codings.append({"system": REASONS, "code": body.reason} | ({"display": reason.text_zh} if reason else {}))
    return {"coding": codings} | ({"text": body.text} if body.text else {})


def doctor(institution: str, number: str) -> Resource:
    """Who decided, by the hospital's own staff number."""
    return {"type": "Practitioner", "identifier": {"system": f"urn:huren:{institution}:practitioner",
                                                   "value": number.removeprefix("Practitioner/")}}


def provenance(line: Line, body: LineBody, decision: str, request: str, at: int) -> Resource:
    """Who decided, when, for which hospital, by which version of the catalogue. ``decision``: also when it is revoked.
    """
    revoked = not body.decision
    return {
        "resourceType": "Provenance",
        "id": str(uuid.uuid5(uuid.UUID(decision), "revoked")) if revoked else decision,
        "meta": {"source": f"urn:huren:{line.institution}"},
        "target": [{"reference": f"DetectedIssue/{line.id}"}, {"reference": f"ServiceRequest/{request}"}],
        "recorded": instant(at), "policy": [catalogue_url(body.catalogue)],
        "activity": {"coding": [_decided(line, body)]},
        "agent": [{"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                                        "code": "author", "display": "Author"}]},
                   "who": doctor(line.institution, body.acted_by),
                   "onBehalfOf": {"reference": f"Organization/{line.institution}"}}],
        "entity": [{"role": "source", "what": {"reference": one}} for one in body.results]}


# ---------------------------------------------------------------- the order

def request_ids(line: Line, body: LineBody, source: Source | None) -> list[str]:
    """Ids that the ServiceRequest of a line may have, the likeliest first (`gateway.hl7v2.request`)."""
    maker = source or Source(line.institution, line.institution, "", _NoCodes())
    key = f"{maker.system('placer')}|{line.number}"
    own = [body.service_request] if body.service_request else []
    kind, _, told = body.reference.partition("/")  # an order message's own, whose number may have an authority
    named = [told] if kind == "ServiceRequest" and told else []
    return list(dict.fromkeys([*own, maker.id_for("ServiceRequest", key),
                               maker.id_for("ServiceRequest", f"{key}|{body.local}"), *named]))


class _NoCodes:
    """Of a hospital that no manifest names (any more)."""

    def codings(self, local: str, system: str = "") -> list[dict[str, str]]:
        return []

    def without_item(self, local: str) -> bool:
        return False


def service_request(line: Line, body: LineBody, source: Source | None, rules: RuleSet) -> Resource:
    """The order as the line knows it, where nothing else told us of it; active."""
    codings: list[dict[str, str]] = [dict(coding) for coding in rules.catalogue.codings(line.item)]
    if body.local:
        own = {"system": source.code_system if source else f"urn:huren:{line.institution}:item", "code": body.local}
        codings.append(own | ({"display": body.display} if body.display else {}))
    draft = line.number.startswith("draft:")
    number: Resource = {"system": f"urn:huren:{line.institution}:{'draft' if draft else 'placer'}",
                        "value": line.number}
    if not draft:
        number = {"type": {"coding": [{"system": _V2_0203, "code": "PLAC"}]}, **number}
    made: Resource = {
        "resourceType": "ServiceRequest", "id": request_ids(line, body, source)[0],
        "meta": {"source": f"urn:huren:{line.institution}"}, "identifier": [number], "status": "active",
        "intent": "order", "code": {"coding": codings}, "subject": {"reference": f"Patient/{body.patient}"}}
    if body.display:
        made["code"]["text"] = body.display
    if body.doctor:
        made["requester"] = doctor(line.institution, body.doctor)
    return made


def with_status(line: Line, body: LineBody, request: Resource) -> tuple[Resource, str]:
    """The ServiceRequest as the line's state asks for it, and the status that it had before it was revoked.

    What is completed or void stays so; what was revoked by somebody else is not made active again.
    """
    status = str(request.get("status", ""))
    if line.state == State.RECOGNISED:
        if status in _ALIVE:
            return {**request, "status": "revoked"}, status
        return request, body.service_request_status
    if body.service_request_status and status == "revoked":
        return {**request, "status": body.service_request_status}, ""
    return request, ""


def released(appointment: Mapping[str, Any]) -> Resource | None:
    """The Appointment given back; None where there is nothing to give back (app-3: a reason only when cancelled)."""
    if appointment.get("status") not in _OPEN:
        return None
    reason = {"coding": [{"system": DECISIONS, "code": "recognised", "display": _SAYS["recognised"]}],
              "text": "An earlier result of another hospital is used instead"}
    return {**appointment, "status": "cancelled", "cancelationReason": reason}


