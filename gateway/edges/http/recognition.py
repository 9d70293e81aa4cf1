"""``/recognition``: verdicts, reminders, decisions and the billing gate, as plain JSON. The manual is README.md beside.

    POST /recognition/check            verdicts with their trace; nothing is recorded
    GET  /recognition/reminders        pending ones
    GET  /recognition/lines/<id>       all that the plug-in shows; …/events: what happened
    POST /recognition/decisions        one action, or several
    POST /recognition/billing-check    may this order line be billed?
    POST /recognition/sessions         a login for the plug-in in a browser
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import flask

from gateway.edges.http import answers
from gateway.edges.http.cds_hooks.cards import reminder
from gateway.edges.http.exchange import Request, Response, current
from gateway.edges.http.hooks import Manner
from gateway.edges.http.sessions import LONGEST, MOST_LINES, Session, Sessions
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.recognition.detail import iso
from gateway.recognition.model import Action, BillRequest, Checked, Outcome, Signature
from gateway.recognition.orders import line_id, order_from
from gateway.recognition.rules import RuleSet

if TYPE_CHECKING:
    from gateway.recognition.service import Recognition
    from gateway.store import Store

PREFIX = "/recognition"
MOST = 200  # decisions, or orders, of one request
_MAX_BODY = 4 * 1024 * 1024
_CHECK = {"institution": str, "patient": dict, "orders": list, "encounter": dict, "procedures": list, "coverage": dict,
          "practitioner": dict, "department": str}
_DECISION = {"action": str, "line": str, "institution": str, "number": str, "doctor": str, "at": str, "key": str,
             "reason": str, "text": str, "explained": bool, "decision": str, "counts": bool, "via": str}
_BILL = {"institution": str, "number": str, "line": str, "action": str, "emergency": str, "patient": dict, "code": str,
         "system": str, "department": str, "doctor": str, "scheme": str}
_SESSION = {"institution": str, "doctor": str, "patient": dict, "lines": list, "seconds": int}
_REMINDERS = ("institution", "patient", "doctor", "encounter", "since", "_count")
_VIA = ("api", "widget")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES: dict[type, str] = {str: "a text", dict: "an object", list: "a list", bool: "true or false",
                           int: "a whole number"}
#: What one decision of several may be refused for while the others are taken.
_TOLD = frozenset((Category.CONFLICT, Category.INVALID, Category.NOT_FOUND, Category.FORBIDDEN))
_SAYS = {"RECOGNISED": "an earlier result was recognised for this order: it is not billed until the decision is "
                       "revoked",
         "UNDECIDED": "an earlier result covers this order and nobody has decided yet",
         "UNKNOWN": "nobody knows this order line",
         "BYPASS": "billed in an emergency, without a decision; this is counted",
         "NOT_RECOGNISED": "the earlier result was not recognised",
         "NOT_COVERED": "no earlier result covers this order",
         "ALREADY_BILLED": "this order line was billed before",
         "CANCELLED": "the bill is cancelled", "NOT_BILLED": "there was no bill to cancel"}


def install(app: flask.Flask, store: Store, recognition: Recognition) -> Manner:
    """Add the routes; the Manner says who asks below them."""
    views = _Views(store, recognition, Sessions(store))
    for path, method, view in (
            ("check", "POST", views.check), ("reminders", "GET", views.reminders),
            ("lines/<line>", "GET", views.line), ("lines/<line>/events", "GET", views.events),
            ("decisions", "POST", views.decide), ("billing-check", "POST", views.bill),
            ("sessions", "POST", views.session)):
        app.add_url_rule(f"{PREFIX}/{path}", f"recognition:{view.__name__}", view, methods=[method])
    return Manner(PREFIX, views.login, answers.answer_for)


class _Views:
    def __init__(self, store: Store, recognition: Recognition, sessions: Sessions) -> None:
        self._store = store
        self._recognition = recognition
        self.sessions = sessions

    # ---------------------------------------------------------------- who asks

    def login(self, request: Request) -> Any:
        """The caller of a session; None where another kind of login is sent. A line must be the session's."""
        session = self.sessions.of(request)
        if session is None:
            return None
        request.session = session
        if request.path.startswith(f"{PREFIX}/lines/"):
            self._require_line(session, request.path.split("/")[3])
        return session.caller

    def _require_line(self, session: Session, id: str) -> None:
        """Of a line that is not there its own answer says so."""
        if line := self._recognition.find_line(id):
            session.require_line(line)

    def _institution(self, request: Request, named: str) -> str:
        """The hospital that is meant: the caller's own, or the one that a caller of all hospitals names."""
        own = request.caller.institution or ""
        if own and named and named != own:
            raise GatewayError(Category.FORBIDDEN, "this client acts for another hospital; leave the hospital out",
                               "institution")
        if not own and not named:
            raise GatewayError(Category.INVALID, "say which hospital is meant", "institution", detail="required")
        self._recognition.require_institution(own or named)
        return own or named

    # ---------------------------------------------------------------- check, reminders, lines

    def check(self) -> Response:
        """The verdict for each order, with its trace; nothing is recorded."""
        request = current()
        body = _fields(_object(request), _CHECK)
        request.caller.require("r", "DetectedIssue")
        institution = self._institution(request, body.get("institution", ""))
        now = time.time_ns() // 1000
        rules, source = self._recognition.rules(now), self._recognition.source(institution)
        orders = body.get("orders", [])
        if not 0 < len(orders) <= MOST:
            raise _invalid(f"1 to {MOST} ServiceRequests", "orders")
        signature = Signature(institution, tuple(
            order_from(one, rules=rules, institution=institution, source=source, encounter=body.get("encounter"),
                       procedures=body.get("procedures", ()), coverage=body.get("coverage"),
                       practitioner=body.get("practitioner"), department=body.get("department", ""),
                       where=f"orders[{number}]") for number, one in enumerate(orders)),
            self._patient(request, body.get("patient"), institution), "check", now, request.caller.name,
            request.asked.peer, record=False)
        found = self._recognition.check(signature)
        return _done(request, {"catalogue": rules.version, "institution": institution,
                               "orders": [verdict_of(one, rules) for one in found]})

    def _patient(self, request: Request, patient: Any, institution: str) -> dict[str, Any]:
        """The Patient as given; ``{"reference": "Patient/…"}`` names one of ours."""
        if not isinstance(patient, dict):
            raise _invalid("the Patient as the hospital knows it, or a reference to one of ours", "patient")
        reference = patient.get("reference")
        if reference is not None:
            if not isinstance(reference, str) or not reference.startswith("Patient/"):
                raise _invalid("must be Patient/ and an id", "patient.reference")
            id = reference.removeprefix("Patient/")
            if id not in self._store.persons_of([id]):
                raise GatewayError(Category.NOT_FOUND, "no such patient; check the id, or send the Patient itself",
                                   "patient")
            patient = {"resourceType": "Patient", "id": id}
        if request.session is not None and request.session.person:
            request.session.require_person(self._recognition.person_of(institution, patient))
        return patient

    def reminders(self) -> Response:
        """Reminders without a decision, newest first."""
        request = current()
        if unknown := [name for name in request.args if name not in _REMINDERS]:
            raise GatewayError(Category.INVALID, f"there is no such parameter; there are {', '.join(_REMINDERS)}",
                               unknown[0], detail="request")
        asked = {name: request.args.get(name, "") for name in _REMINDERS}
        institution = self._institution(request, asked["institution"])
        session = request.session
        person = self._person(asked["patient"], institution)
        if session is not None:
            session.require_person(person or session.person)
            person = session.person or person
            if not person and not session.lines:
                asked["doctor"] = session.doctor
        since = _time(asked["since"], "since") if asked["since"] else 0
        count = asked["_count"] or "100"
        if not count.isdecimal() or not 0 < int(count) <= MOST:
            raise GatewayError(Category.INVALID, f"a number from 1 to {MOST}", "_count", detail="request")
        found = self._recognition.reminders(request.caller, institution, person=person, doctor=asked["doctor"],
                                            encounter=asked["encounter"], since=since, limit=int(count),
                                            peer=request.asked.peer)
        if session is not None and session.lines and not session.person:
            found = [one for one in found if one.line in session.lines]
        rules = self._recognition.rules()
        return _done(request, {"reminders": [reminder(one, rules) | {"number": one.order.number, "card": one.card}
                                             for one in found]})

    def _person(self, patient: str, institution: str) -> int:
        """Of ``system|number`` as the hospital or the state numbers people, or of an id of one of our Patients."""
        if not patient:
            return 0
        system, bar, number = patient.partition("|")
        if bar:
            person = self._recognition.person_of(institution, {"identifier": [{"system": system, "value": number}]})
        else:
            id = patient.removeprefix("Patient/")
            person = self._store.persons_of([id]).get(id, 0)
        if not person:
            raise GatewayError(Category.NOT_FOUND, "no such patient", "patient")
        return person

    def line(self, line: str) -> Response:
        """All that the plug-in shows of a line."""
        request = current()
        return _done(request, self._recognition.detail(line, request.caller, request.asked.peer))

    def events(self, line: str) -> Response:
        """What happened to a line, in order."""
        request = current()
        request.target = f"order-line/{line}/events"
        found = self._recognition.events(line, request.caller)
        return _json({"line": line, "events": [event | {"at": iso(event["at"])} for event in found]})

    # ---------------------------------------------------------------- decide

    def decide(self) -> Response:
        """One action and its outcome; or several, each told by itself."""
        request = current()
        body = _object(request, several="decisions")
        if "decisions" not in body:
            return _done(request, _outcome(self._act(request, body, "")))
        several = _fields(body, {"decisions": list})["decisions"]
        if not 0 < len(several) <= MOST:
            raise _invalid(f"1 to {MOST} actions", "decisions")
        actions = [self._action(request, one, f"decisions[{number}]") for number, one in enumerate(several)]
        told: list[dict[str, Any]] = []
        for action in actions:
            try:
                told.append(_outcome(self._done_action(request, action)))
            except GatewayError as error:
                if error.category not in _TOLD:
                    raise
                told.append({"line": action.line, "error": error.detail or error.category.value,
                             "message": error.message, "where": error.where})
        return _done(request, {"decisions": told})

    def _act(self, request: Request, body: Mapping[str, Any], where: str) -> Outcome:
        return self._done_action(request, self._action(request, body, where))

    def _action(self, request: Request, given: Any, where: str) -> Action:
        place = f"{where}." if where else ""
        body = _fields(given, _DECISION, where)
        line = body.get("line", "")
        if not line and body.get("number"):
            line = line_id(self._institution(request, body.get("institution", "")), body["number"])
        if not line:
            raise _invalid("name the order line by its id, or by institution and number", f"{place}line")
        session = request.session
        doctor = body.get("doctor") or (session.doctor if session else "")
        if session is not None:
            session.require_doctor(doctor)
        via = body.get("via", "api")
        if via not in _VIA:
            raise _invalid(f"must be one of {', '.join(_VIA)}", f"{place}via")
        at = _time(body["at"], f"{place}at") if body.get("at") else 0
        return Action(body.get("action", ""), line, doctor, at, body.get("key", ""), body.get("reason", ""),
                      body.get("text", ""), body.get("explained"), body.get("decision", ""), body.get("counts"), via)

    def _done_action(self, request: Request, action: Action) -> Outcome:
        if request.session is not None:
            self._require_line(request.session, action.line)
        return self._recognition.act(action, request.caller, request.asked.peer)

    # ---------------------------------------------------------------- bill

    def bill(self) -> Response:
        """Allow or deny, with the decision's id; 200 for both: a denial is an answer."""
        request = current()
        body = _fields(_object(request), _BILL)
        institution = body.pop("institution", "")
        if not body.get("line"):
            institution = self._institution(request, institution)
        answer = self._recognition.bill(BillRequest(institution, **body), request.caller, request.asked.peer)
        return _done(request, {"allowed": answer.allowed, "code": answer.code, "line": answer.line,
                               "decision": answer.decision, "event": answer.event, "message": _SAYS[answer.code]})

    # ---------------------------------------------------------------- sessions

    def session(self) -> Response:
        """A token for the plug-in; see `gateway.edges.http.sessions`."""
        request = current()
        if request.session is not None:
            raise GatewayError(Category.FORBIDDEN, "a session opens no other; ask the workstation's server",
                               "Authorization")
        body = _fields(_object(request), _SESSION)
        for letter in "rc":
            request.caller.require(letter, "DetectedIssue")
        institution = self._institution(request, body.get("institution", ""))
        doctor = body.get("doctor", "").strip()
        if not doctor or len(doctor) > 200:
            raise _invalid("say whose session it is, in at most 200 characters", "doctor")
        seconds = body.get("seconds", LONGEST)
        if seconds < 1:
            raise _invalid("must be positive", "seconds")
        lines = body.get("lines", [])
        if len(lines) > MOST_LINES or not all(isinstance(one, str) for one in lines):
            raise _invalid(f"at most {MOST_LINES} ids of order lines", "lines")
        for one in lines:
            self._recognition.line(one, request.caller)
        person = 0
        if body.get("patient") is not None:
            person = self._recognition.person_of(institution, self._patient(request, body["patient"], institution))
            if not person and not lines:
                raise GatewayError(Category.NOT_FOUND, "nobody of ours is this patient yet: there is nothing to show",
                                   "patient")
        session = Session(request.caller.name, institution, doctor, self.sessions.expiry(seconds), person,
                          tuple(lines))
        request.target = "session"
        return _json({"token": self.sessions.open(session), "token_type": "Bearer", "institution": institution,
                      "doctor": doctor, "expires": iso(session.expires * 1_000_000)}, 201)


# ---------------------------------------------------------------- JSON in

def _object(request: Request, several: str = "") -> dict[str, Any]:
    """The body; a list stands for an object with the member ``several``."""
    if request.mimetype != "application/json":
        raise GatewayError(Category.UNSUPPORTED, "send application/json", "Content-Type", detail="content-type")
    if (request.content_length or 0) > _MAX_BODY:
        raise GatewayError(Category.MALFORMED, f"at most {_MAX_BODY} bytes; send it in parts", detail="too-large")
    raw = request.get_data()
    if several and raw.lstrip()[:1] == b"[":
        raw = b'{"%s":%s}' % (several.encode(), raw)
    return json.loads(raw)


def _fields(given: Any, known: Mapping[str, type], where: str = "") -> dict[str, Any]:
    """The members of a body, each known and of its type; null counts as left out."""
    place = f"{where}." if where else ""
    if not isinstance(given, dict):
        raise _invalid("must be an object", where or "body")
    found = {name: value for name, value in given.items() if value is not None}
    for name, value in found.items():
        kind = known.get(name)
        if kind is None:
            raise _invalid(f"there is no such member; there are {', '.join(known)}", f"{place}{name}")
        if type(value) is not kind:
            raise _invalid(f"must be {_NAMES[kind]}", f"{place}{name}")
    return found


def _time(text: str, where: str) -> int:
    """µs of an ISO 8601 time with an offset."""
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, TypeError, OverflowError):  # TypeError: without an offset
        raise _invalid("must be a time with an offset, such as 2026-01-02T08:00:00+08:00", where) from None


def _invalid(sentence: str, where: str) -> GatewayError:
    return GatewayError(Category.INVALID, sentence, where)


# ---------------------------------------------------------------- JSON out

def _json(body: Mapping[str, Any], status: int = 200) -> Response:
    return Response([json.dumps(body)], status, content_type="application/json")


def _done(request: Request, body: Mapping[str, Any]) -> Response:
    """What the service has audited itself, with the persons."""
    request.audit = False
    return _json(body)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {"line": outcome.line, "state": outcome.state, "decision": outcome.decision, "changed": outcome.changed,
            "event": outcome.event}


def verdict_of(one: Checked, rules: RuleSet) -> dict[str, Any]:
    """A verdict as JSON, machine-readable: codes, states, trace."""
    verdict = one.verdict
    shown: Sequence[dict[str, Any]] = [
        {"reference": result.reference, "report": result.report, "item": result.item, "flags": list(result.flags)}
        for result in one.results]
    said = reminder(one, rules)
    return said | {"number": one.order.number, "codes": list(verdict.codes), "states": list(verdict.states),
                   "reason": verdict.reason, "missing": list(verdict.missing), "decision": one.decision,
                   "results": [left | right for left, right in zip(said["results"], shown, strict=True)],
                   "trace": [dict(row) for row in verdict.trace]}
