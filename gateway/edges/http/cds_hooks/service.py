"""``/cds-services``: discovery, the one service under its hooks, and feedback (cds-hooks.org/specification/2.0)."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import flask

from gateway.adapter import Adapter
from gateway.caller import GATEWAY, Caller
from gateway.config import Settings
from gateway.edges.http.cds_hooks import cards
from gateway.edges.http.cds_hooks.answers import answer_for
from gateway.edges.http.cds_hooks.clients import Clients, is_jwt, trusted
from gateway.edges.http.cds_hooks.feedback import Feedback
from gateway.edges.http.cds_hooks.fetch import Fetcher, allowed_servers
from gateway.edges.http.cds_hooks.request import HOOKS, MAX_BODY, PREFETCH, TEMPLATES, Call, parse, reference_of
from gateway.edges.http.exchange import Request, Response, current
from gateway.edges.http.hooks import Manner
from gateway.edges.http.interactions import text_of_row
from gateway.edges.http.sessions import LONGEST, Session, Sessions
from gateway.edges.http.texts import LANGUAGES, language_of
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.recognition.model import Order, Signature
from gateway.recognition.orders import order_from
from gateway.recognition.rules import RuleSet

if TYPE_CHECKING:
    from gateway.recognition.service import Recognition
    from gateway.store import Store

log = logging.getLogger("huren.cds")

PREFIX = "/cds-services"
SERVICE = "recognition"
#: Extensions of a request: which hospital asks (in the demo, where nobody logs in), and the language of its cards.
INSTITUTION, LANGUAGE = "huren.example.institution", "huren.example.language"
_JSON = "application/json; charset=utf-8"
_TITLE = "检查检验结果互认 · Mutual recognition"
_DESCRIPTIONS = {
    "patient-view": "提示该患者在外院已有哪些可互认的结果。"
                    "Tells quietly which results of other hospitals can be recognised.",
    "order-select": "判断所选检查检验医嘱是否已有外院可互认的结果。"
                    "Tells whether earlier results of other hospitals cover the selected orders.",
    "order-sign": "签署前判断检查检验医嘱是否已有外院可互认的结果。"
                  "Tells before signing whether earlier results of other hospitals cover the orders.",
}
_REQUIREMENTS = "The client signs each request with a JWT whose issuer and keys the hospital's manifest names, or " \
                "sends a token of a client that acts for one hospital. FHIR R4. patient must be prefetched, or " \
                "readable at an allowed fhirServer; orders are ServiceRequests under the hospital's own codes."


def install(app: flask.Flask, settings: Settings, store: Store, recognition: Recognition,
            adapters: Iterable[Adapter]) -> Manner:
    """Add the three routes; the Manner says who asks and how a refusal is answered below them."""
    views = Service(settings, store, recognition, list(adapters))
    app.add_url_rule(PREFIX, "cds-discovery:", views.discover, methods=["GET"])
    app.add_url_rule(f"{PREFIX}/<service>", "cds-call:", views.call, methods=["POST"])
    app.add_url_rule(f"{PREFIX}/<service>/feedback", "cds-feedback:", views.feedback, methods=["POST"])
    return Manner(PREFIX, views.login, answer_for)


def require_usable(settings: Settings, adapters: Iterable[Adapter]) -> None:
    """INVALID where a manifest's ``[cds_hooks]`` cannot be followed: to be told before workers are started."""
    own = list(adapters)
    trusted(own, settings.demo)
    allowed_servers(own, settings.demo)


class Service:
    """See the module."""

    def __init__(self, settings: Settings, store: Store, recognition: Recognition, adapters: list[Adapter]) -> None:
        self._demo = settings.demo
        self._zone = ZoneInfo(settings.timezone)
        self._store = store
        self._recognition = recognition
        self._clients = Clients(settings, store, adapters)
        self._fetcher = Fetcher(settings, adapters)
        self._feedback = Feedback(store, recognition)
        self._sessions = Sessions(store)
        self._hospitals = sorted(a.source.institution for a in adapters if not a.per_facility)
        self._secret: bytes = b""

    # ---------------------------------------------------------------- who asks

    def login(self, request: Request) -> Caller | None:
        """The client of a JWT; None where there is none, so that another kind of token counts."""
        scheme, _, token = request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if self._demo or scheme.lower() != "bearer" or not is_jwt(token.strip()):
            return None
        return self._clients.caller_of(token.strip(), request.path)

    def _institution(self, request: Request, extension: Mapping[str, Any]) -> str:
        """The hospital for which the client acts. In the demo it says so, else it is the first."""
        named = extension.get(INSTITUTION) or request.args.get("institution")
        own = request.caller.institution
        if named is not None and not isinstance(named, str):
            raise GatewayError(Category.INVALID, "must be the id of a hospital", f"extension.{INSTITUTION}")
        if own:
            if named and named != own:
                raise GatewayError(Category.FORBIDDEN, "this client acts for another hospital; leave the hospital out",
                                   f"extension.{INSTITUTION}")
            return own
        if not self._demo:
            raise GatewayError(Category.FORBIDDEN, "this client acts for no hospital; add it with `huren client "
                                                   "add NAME --institution ID`", "Authorization")
        if named and named not in self._hospitals:
            raise GatewayError(Category.INVALID, f"no such hospital; there are: {', '.join(self._hospitals)}",
                               f"extension.{INSTITUTION}")
        if not self._hospitals:
            raise GatewayError(Category.INVALID, "there is no hospital folder; see HUREN_ADAPTERS", "HUREN_ADAPTERS")
        return named or self._hospitals[0]

    # ---------------------------------------------------------------- discovery

    def discover(self) -> Response:
        """What there is to call ("Discovery")."""
        services = [{"hook": hook, "id": SERVICE, "title": _TITLE, "description": _DESCRIPTIONS[hook],
                     "prefetch": {key: TEMPLATES[key] for key in PREFETCH[hook]}, "usageRequirements": _REQUIREMENTS}
                    for hook in HOOKS]
        return _answer({"services": services})

    # ---------------------------------------------------------------- the call

    def call(self, service: str) -> Response:
        """Cards for a patient or for orders ("Calling a CDS Service")."""
        request = current()
        call = parse(_body(request, service))
        request.target = f"cds-services/{SERVICE}?hook={call.hook}&patient=Patient/{call.patient_id}"
        institution = self._institution(request, call.extension)
        request.caller.require("r", "DetectedIssue")
        now = time.time_ns() // 1000
        rules = self._recognition.rules(now)
        found = self._gathered(call, institution)
        if request.session is not None:
            self._require_session(request.session, call, institution, found["patient"][0])
        view = self._view(request, call, institution, rules, now)
        orders = tuple(self._orders(call, institution, rules, found))
        signature = Signature(institution, orders, found["patient"][0], call.hook, now, request.caller.name,
                              request.asked.peer)
        if request.session is not None:
            request.session.require_person(self._recognition.person_of(institution, signature.patient))
        if call.hook == "patient-view":
            return _answer({"cards": cards.patient_cards(self._recognition.summary(signature), view, self._seal())})
        return _answer({"cards": cards.order_cards(self._recognition.check(signature), view) if orders else []})

    def _require_session(self, session: Session, call: Call, institution: str, patient: Mapping[str, Any]) -> None:
        """A plug-in's session asks for its own doctor and patient only."""
        session.require_doctor(call.user.rpartition("/")[2])
        if session.lines and not session.person:
            raise GatewayError(Category.FORBIDDEN, "this session is about some order lines; open one for the patient",
                               "context.patientId")
        if session.person:
            session.require_person(self._recognition.person_of(institution, patient))

    def _gathered(self, call: Call, institution: str) -> dict[str, tuple[dict[str, Any], ...]]:
        """What was prefetched, and what was not from our own Patients or the client's FHIR server.

        412 without the Patient; whatever else is missing, a verdict is made without it.
        """
        found = dict(call.prefetch)
        missing = list(call.missing())
        if "patient" in missing and (own := self._own_patient(call.patient_id, institution)):
            found["patient"] = (own,)
            missing.remove("patient")
        allowed = bool(call.server) and self._fetcher.allows(institution, call.server)
        if missing and allowed:
            found.update(self._fetcher.fetch(call, missing))
        if not found.get("patient"):
            raise GatewayError(Category.NOT_FOUND, _why_no_patient(call, allowed), "prefetch.patient")
        return found

    def _own_patient(self, patient_id: str, institution: str) -> dict[str, Any] | None:
        """Our Patient of this id, where the same hospital sent it."""
        row = self._store.read("Patient", patient_id, GATEWAY)
        return json.loads(text_of_row(row)) if row and not row.deleted and row.institution == institution else None

    def _orders(self, call: Call, institution: str, rules: RuleSet,
                found: Mapping[str, tuple[dict[str, Any], ...]]) -> Iterable[Order]:
        """The order lines; INVALID where two drafts have one number, which would be one line."""
        visit = next(iter(found.get("encounter", ())), None)
        if visit is None and call.encounter_id:
            visit = {"resourceType": "Encounter", "id": call.encounter_id}
        coverage = next(iter(found.get("coverage", ())), None)
        user = call.user.rpartition("/")[2]
        source = self._recognition.source(institution)
        seen: dict[str, str] = {}
        for place, draft in call.orders:
            order = order_from(draft, rules=rules, institution=institution, source=source, patient=call.patient_id,
                               encounter=visit, procedures=found.get("procedures", ()), coverage=coverage, where=place)
            if first := seen.get(order.number):
                raise GatewayError(Category.INVALID, f"is the number of {first} too; give each order its own",
                                   f"{place}.identifier")
            seen[order.number] = place
            yield order if order.doctor else dataclasses.replace(order, doctor=user)

    def _view(self, request: Request, call: Call, institution: str, rules: RuleSet, now: int) -> cards.View:
        wanted = call.extension.get(LANGUAGE)
        language = wanted if wanted in LANGUAGES else language_of("", request.headers.get("Accept-Language", ""))
        drafts = {reference_of(draft): draft for _, draft in call.orders}
        return cards.View(rules, request.asked.base, institution, datetime.fromtimestamp(now / 1e6, self._zone).date(),
                          self._zone, language, drafts, self._recognition.source(institution),
                          lambda line: self._key(request, institution, call.user.rpartition("/")[2], line))

    def _key(self, request: Request, institution: str, doctor: str, line: str) -> str:
        """A session for one line, for the doctor who orders; no more than the client itself may do."""
        caller = request.caller
        if self._demo or request.session is not None or not all(caller.may(one, "DetectedIssue") for one in "rc"):
            return ""
        session = Session(caller.name, institution, doctor, self._sessions.expiry(LONGEST), 0, (line,))
        return self._sessions.open(session)

    def _seal(self) -> bytes:
        """The secret by which a card without order lines is known as ours."""
        self._secret = self._secret or self._store.secret("cds-card")
        return self._secret

    # ---------------------------------------------------------------- feedback

    def feedback(self, service: str) -> Response:
        """What became of cards ("Feedback"): 200 with an account of each entry, 404 where no card is ours."""
        request = current()
        entries = self._feedback.parse(_body(request, service))
        request.target = f"cds-services/{SERVICE}/feedback"
        institution = self._institution(request, {})
        request.caller.require("c", "DetectedIssue")
        account = self._feedback.take(entries, institution, request.caller, request.asked.peer, self._seal(),
                                      any_institution=self._demo, session=request.session)
        return _answer({"feedback": account})


def _why_no_patient(call: Call, allowed: bool) -> str:
    if call.prefetch.get("patient") == ():
        return "the client says that there is no such Patient; prefetch it under the key patient"
    how = "prefetch it under the key patient"
    if call.server and not allowed:
        return f"the Patient is missing: {how}, or name the fhirServer in [cds_hooks] fhir_servers of the hospital's " \
               "manifest.toml"
    if call.server:
        return f"the Patient is missing, and fhirServer did not answer with it in time: {how}"
    return f"the Patient is missing: {how}"


def _body(request: Request, service: str) -> bytes:
    """The body of a call of our one service; 404, 415, 413."""
    if service != SERVICE:
        raise GatewayError(Category.UNSUPPORTED, f"there is no such service; the one here is {PREFIX}/{SERVICE}",
                           "service")
    if request.mimetype not in ("application/json", "application/fhir+json", ""):
        raise GatewayError(Category.UNSUPPORTED, "send application/json", "Content-Type", detail="content-type")
    request.max_content_length = MAX_BODY
    return request.get_data(cache=False)


def _answer(content: dict[str, Any]) -> Response:
    return Response([json.dumps(content)], content_type=_JSON)
