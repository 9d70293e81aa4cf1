"""``/recognition`` over HTTP: verdicts, reminders, decisions, the gate, sessions of the plug-in, and every refusal."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.edges.http.app import create_app
from gateway.edges.http.sessions import LONGEST, Session, Sessions
from gateway.store import Store, open_store
from gateway.terminology import ITEMS
from tests.recognition_world import ANNA, BEA, HGB, NATIONAL, WBC, A, B, C, World, patient


class Api:
    """Hospital B's client, C's, the commission's, and the world behind them, at the time that it is now."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.world = World(settings, store)
        self.world.now = time.time_ns() // 1000
        self.world.anna = self.world.person(A, "A1")
        self.world.laboratory(self.world.anna, "r1", [WBC, HGB])
        self.app = create_app(settings, store)
        self.tokens = {"b": store.client_add("b", B, ("institution/*.cruds",)),
                       "c": store.client_add("c", C, ("institution/*.cruds",)),
                       "reader": store.client_add("reader", B, ("institution/*.rs",)),
                       "all": store.client_add("all", None, ("system/*.cruds",))}

    def call(self, method: str, path: str, body: Any = None, who: str = "b", token: str = "",
             content_type: str = "application/json") -> tuple[int, dict[str, Any]]:
        """Status and JSON of a request."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body, ensure_ascii=False).encode()
        response = self.app.test_client().open(
            f"/recognition/{path}", method=method, data=data, content_type=content_type if body is not None else None,
            headers={"Authorization": f"Bearer {token or self.tokens[who]}"} if token or who else {})
        return response.status_code, json.loads(response.data) if response.data else {}

    def post(self, path: str, body: Any, who: str = "b", token: str = "") -> tuple[int, dict[str, Any]]:
        """POST with JSON."""
        return self.call("POST", path, body, who, token)

    def line(self, number: str = "1", item: str = WBC) -> str:
        """A reminder of hospital B; its line's id."""
        [checked] = self.world.sign(self.world.order(number, item))
        return checked.line

    def decide(self, action: str, line: str, doctor: str = "d1", who: str = "b",
               **facts: Any) -> tuple[int, dict[str, Any]]:
        """One action."""
        return self.post("decisions", {"action": action, "line": line, "doctor": doctor, **facts}, who)

    def recognised(self, number: str = "1") -> str:
        """A line that was recognised."""
        line = self.line(number)
        self.decide("view", line)
        assert self.decide("recognise", line)[0] == 200
        return line


@pytest.fixture
def api(settings: Settings, store: Store) -> Api:
    """The application over a store with a report of yesterday."""
    return Api(settings, store)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The same once for all refusals: where the database does not matter and nothing may be recorded."""
    settings = Settings(data=tmp_path_factory.mktemp("plain"))
    store = open_store(settings, migrate=True)
    yield Api(settings, store)
    store.close()


def order(item: str = WBC, number: str = "9", system: str = ITEMS) -> dict[str, Any]:
    """An order as FHIR."""
    return {"resourceType": "ServiceRequest", "status": "draft", "intent": "order",
            "identifier": [{"value": number}], "code": {"coding": [{"system": system, "code": item}]}}


def says(body: dict[str, Any]) -> tuple[str, str]:
    """Sentence and place of an OperationOutcome; a place that is no FHIRPath stands before the sentence."""
    [issue] = body["issue"]
    place, _, sentence = issue["diagnostics"].partition(": ")
    return (issue["diagnostics"], issue["expression"][0]) if "expression" in issue else (sentence, place)


# ---------------------------------------------------------------- check

def test_check_gives_verdicts_with_their_trace_and_records_nothing(api: Api) -> None:
    """For orders of the caller's hospital."""
    status, body = api.post("check", {"patient": patient(B, "B1"), "orders": [order(), order("ECT010H", "10")]})
    assert status == 200
    first, second = body["orders"]
    assert (first["verdict"], first["results"][0]["reference"]) == ("RECOGNISABLE", "Observation/r1-THM001Q")
    assert (second["verdict"], second["codes"]) == ("NOT", ["NOT_COVERED"])
    assert [row["step"] for row in first["trace"]][-1] == 8
    assert (body["institution"], first["line"], api.world.store.events()) == (B, "", [])


def test_check_knows_a_patient_by_reference_and_number(api: Api) -> None:
    """One of ours by its id, the person by any of its numbers."""
    for who in ({"reference": f"Patient/{api.world.anna}"}, {"identifier": [{"system": NATIONAL, "value": ANNA}]}):
        _, body = api.post("check", {"patient": who, "orders": [order()]})
        assert body["orders"][0]["verdict"] == "RECOGNISABLE"


@pytest.mark.parametrize(("body", "status", "place"), [
    ({"orders": []}, 422, "orders"),
    ({"orders": [{"resourceType": "Patient"}]}, 422, "orders[0]"),
    ({"orders": [{"resourceType": "ServiceRequest", "code": []}]}, 422, "orders[0].code"),
    ({"patient": None}, 422, "patient"),
    ({"patient": {"reference": "Patient/nobody"}}, 404, "patient"),
    ({"patient": {"reference": "Group/1"}}, 422, "patient.reference"),
    ({"patient": {"identifier": {}}}, 422, "Patient.identifier"),
    ({"institution": A}, 403, "institution"),
    ({"doctors": "x"}, 422, "doctors"),
    ({"department": 7}, 422, "department"),
    ({"encounter": {"resourceType": "Patient"}}, 422, "Encounter"),
])
def test_check_refuses(plain: Api, body: dict[str, Any], status: int, place: str) -> None:
    """With the place in the request."""
    found, outcome = plain.post("check", {"patient": patient(B, "B1"), "orders": [order()]} | body)
    assert (found, says(outcome)[1]) == (status, place)


def test_a_caller_of_all_hospitals_names_one(api: Api) -> None:
    """INVALID without, NOT_FOUND for an unknown one."""
    body = {"patient": patient(B, "B1"), "orders": [order()]}
    assert [api.post("check", body | more, "all")[0] for more in
            ({}, {"institution": "nowhere"}, {"institution": B})] == [422, 404, 200]


@pytest.mark.parametrize(("raw", "content_type", "status"), [
    (b"{", "application/json", 400), (b"[]", "application/json", 400), (b"\xff", "application/json", 400),
    (b"{}", "text/plain", 415), (b'{"a":1,"a":2}', "application/json", 400)])
def test_what_is_no_json_object(plain: Api, raw: bytes, content_type: str, status: int) -> None:
    """The same words as everywhere."""
    assert plain.call("POST", "check", raw, content_type=content_type)[0] == status


# ---------------------------------------------------------------- reminders and lines

def test_reminders_of_the_hospital(api: Api) -> None:
    """All, of a doctor, of a person by id or number; others are refused."""
    line = api.line()
    _, body = api.call("GET", "reminders")
    [reminder] = body["reminders"]
    assert (reminder["line"], reminder["number"], reminder["verdict"]) == (line, "1", "RECOGNISABLE")
    assert reminder["results"][0]["institution_zh"].startswith("演示第一")

    def found(query: str, who: str = "b") -> Any:
        status, body = api.call("GET", f"reminders?{query}", who=who)
        return len(body["reminders"]) if status == 200 else status
    assert [found(query) for query in (
        "doctor=orderer", "doctor=x", f"patient={api.world.anna}", f"patient={NATIONAL}|{ANNA}", "encounter=e1",
        f"patient={NATIONAL}|{BEA}", "patient=x", f"institution={C}", "_count=0", "count=1", "since=yesterday",
        "since=2020-01-01T00:00:00Z")] == [1, 0, 1, 1, 0, 404, 404, 403, 422 and 400, 400, 422, 1]
    assert [found("", "c"), found("", "all"), found(f"institution={B}", "all"), found("", "")] == [0, 422, 1, 401]


def test_a_line_and_its_events(api: Api) -> None:
    """Detail for the plug-in; events with time and hash."""
    line = api.recognised()
    status, detail = api.call("GET", f"lines/{line}")
    assert (status, detail["state"], detail["decision"]["doctor"]) == (200, "recognised", "d1")
    assert detail["reports"][0]["results"][0]["value"] == "5.10"
    _, body = api.call("GET", f"lines/{line}/events")
    assert [event["kind"] for event in body["events"]] == ["reminded", "viewed", "recognised"]
    assert all(len(event["hash"]) == 64 and event["at"].endswith("Z") for event in body["events"])
    for path in (f"lines/{line}", f"lines/{line}/events"):
        assert api.call("GET", path, who="c")[0] == 403
    for unknown in ("x", "00000000-0000-4000-8000-000000000000"):
        assert api.call("GET", f"lines/{unknown}")[0] == 404


def test_what_is_shown_is_audited_once_with_the_person(api: Api) -> None:
    """No second row of the path."""
    line = api.line()
    api.world.store.audit_rows()
    before = len(api.world.store.audit_rows(1000))
    api.call("GET", f"lines/{line}")
    rows = api.world.store.audit_rows(1000)
    assert len(rows) == before + 1
    assert (rows[0].access.caller, rows[0].access.action, len(rows[0].access.persons)) == ("b", "recognition-detail", 1)


# ---------------------------------------------------------------- decisions

def test_a_decision_and_the_same_again(api: Api) -> None:
    """Told by ``changed``; a colleague gets 409 with the decision that stands."""
    line = api.line()
    assert api.decide("recognise", line)[0] == 422
    api.decide("view", line)
    status, body = api.decide("recognise", line, key="k1", via="widget")
    assert (status, body["state"], body["changed"]) == (200, "recognised", True)
    assert api.decide("recognise", line, key="k1", via="widget")[1]["changed"] is False
    status, outcome = api.decide("not_recognise", line, doctor="d2", reason="R2")
    assert (status, body["decision"] in says(outcome)[0]) == (409, True)
    status, body = api.decide("revoke", line, doctor="d2", decision=body["decision"])
    assert (status, body["state"]) == (200, "viewed")


def test_a_line_may_be_named_by_its_number(api: Api) -> None:
    """Of the caller's hospital."""
    line = api.line("PL|7")
    _, body = api.post("decisions", {"action": "view", "number": "PL|7", "doctor": "d1"})
    assert (body["line"], body["state"]) == (line, "viewed")
    assert api.post("decisions", {"action": "view", "number": "PL|8", "doctor": "d1"})[0] == 404


def test_several_decisions_are_told_one_by_one(api: Api) -> None:
    """What one is refused for stops no other."""
    first, second = api.line("1"), api.line("2", HGB)
    actions = [{"action": action, "line": line, "doctor": "d1"} for action, line in (
        ("view", first), ("recognise", first), ("recognise", second), ("view", "x"))]
    for body in (actions, {"decisions": actions}):
        status, told = api.post("decisions", body)
        assert status == 200
        assert [one.get("state", one.get("error")) for one in told["decisions"]][1:] == ["recognised", "view",
                                                                                        "not-found"]


@pytest.mark.parametrize(("facts", "status", "place"), [
    ({"action": "admire"}, 422, "action"),
    ({"doctor": ""}, 422, "doctor"),
    ({"doctor": 7}, 422, "doctor"),
    ({"line": ""}, 422, "line"),
    ({"line": "x"}, 404, "line"),
    ({"action": "not_recognise"}, 422, "reason"),
    ({"action": "not_recognise", "reason": "R77"}, 422, "reason"),
    ({"action": "not_recognise", "reason": "R6"}, 422, "text"),
    ({"action": "recognise"}, 422, "action"),
    ({"action": "revoke"}, 409, "decision"),
    ({"action": "review", "counts": True}, 403, "DetectedIssue"),
    ({"at": "2026-01-02"}, 422, "at"),
    ({"at": "2026-01-02T08:00:00"}, 422, "at"),
    ({"at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, 422, "at"),
    ({"at": "2020-01-02T08:00:00Z"}, 422, "at"),
    ({"explained": "yes"}, 422, "explained"),
    ({"via": "magic"}, 422, "via"),
    ({"reasons": "R1"}, 422, "reasons"),
])
def test_a_decision_is_refused(plain: Api, facts: dict[str, Any], status: int, place: str) -> None:
    """With its place, and nothing is recorded."""
    line = plain.line(f"refused {place} {status} {sorted(facts.items())}")
    found, outcome = plain.post("decisions", {"action": "view", "line": line, "doctor": "d1"} | facts)
    assert (found, says(outcome)[1]) == (status, place)
    assert len(plain.world.store.events(line)) == 1


@pytest.mark.parametrize(("who", "status"), [("c", 403), ("reader", 403), ("", 401)])
def test_who_may_not_decide(plain: Api, who: str, status: int) -> None:
    """Another hospital, a reader, nobody."""
    assert plain.decide("view", plain.line(), who=who)[0] == status


def test_two_doctors_at_once(api: Api) -> None:
    """Through two requests at a time: one 200, one 409."""
    lines = [api.line(str(n)) for n in range(8)]
    for line in lines:
        api.decide("view", line)
        barrier, found = threading.Barrier(2), []

        def decide(doctor: str, line: str = line, barrier: threading.Barrier = barrier,
                   found: list[int] = found) -> None:
            barrier.wait()
            found.append(api.decide("recognise", line, doctor)[0])
        threads = [threading.Thread(target=decide, args=(doctor,)) for doctor in ("d1", "d2")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [200, 409]


# ---------------------------------------------------------------- the gate

def test_the_gate(api: Api) -> None:
    """Deny with the decision's id, allow after the revoking; both are 200."""
    line = api.recognised()
    status, denied = api.post("billing-check", {"number": "1"})
    assert (status, denied["allowed"], denied["code"], denied["line"]) == (200, False, "RECOGNISED", line)
    assert denied["decision"] == api.call("GET", f"lines/{line}")[1]["decision"]["id"]
    assert api.post("billing-check", {"line": line})[1]["event"] > denied["event"]
    api.decide("revoke", line)
    assert api.post("billing-check", {"number": "1", "action": "check"})[1]["allowed"] is True
    assert api.post("billing-check", {"number": "1"})[1]["code"] == "UNDECIDED"
    status, outcome = api.decide("recognise", line)
    assert (status, "billed" in says(outcome)[0]) == (409, True)


@pytest.mark.parametrize(("body", "who", "status", "place"), [
    ({}, "b", 422, "number"), ({"number": "1", "action": "pay"}, "b", 422, "action"),
    ({"number": "1", "institution": C}, "b", 403, "institution"), ({"number": "1", "price": 3}, "b", 422, "price"),
    ({"number": "1", "institution": "nowhere"}, "all", 404, "institution"),
    ({"number": "1"}, "all", 422, "institution"), ({"number": "1"}, "reader", 403, "ChargeItem"),
    ({"line": "00000000-0000-4000-8000-000000000000"}, "b", 404, "line"),
    ({"number": "77", "patient": {"identifier": 1}, "code": "X"}, "b", 422, "Patient.identifier")])
def test_the_gate_refuses(plain: Api, body: dict[str, Any], who: str, status: int, place: str) -> None:
    """With its place; nothing is billed."""
    before = len(plain.world.store.events())
    found, outcome = plain.post("billing-check", body, who)
    assert (found, says(outcome)[1]) == (status, place)
    assert len(plain.world.store.events()) == before


# ---------------------------------------------------------------- sessions

def opened(api: Api, **facts: Any) -> str:
    """The token of a session of d1 about Anna."""
    status, body = api.post("sessions", {"doctor": "d1", "patient": {"reference": f"Patient/{api.world.anna}"}} | facts)
    assert status == 201, body
    return str(body["token"])


def test_a_session_decides_for_its_doctor_and_patient(api: Api) -> None:
    """Reminders, the line, a decision, without a client's token."""
    line, token = api.line(), opened(api)
    assert [one["line"] for one in api.call("GET", "reminders", token=token)[1]["reminders"]] == [line]
    assert api.call("GET", f"lines/{line}", token=token)[0] == 200
    assert api.post("decisions", {"action": "view", "line": line}, token=token)[1]["state"] == "viewed"
    rows = [row.access for row in api.world.store.audit_rows(5)]
    assert "b/plug-in" in {row.caller for row in rows}


def test_a_session_is_about_nobody_else(api: Api) -> None:
    """Another doctor, another patient's line or reminders, the gate, another session: refused."""
    bea = api.world.person(A, "A2", national=BEA, name="王冰")
    api.world.laboratory(bea, "r2", [WBC])
    [other] = api.world.sign(api.world.order("5"), who=patient(B, "B2", BEA, "王冰"))
    line, token = api.line(), opened(api)
    assert api.post("decisions", {"action": "view", "line": line, "doctor": "d2"}, token=token)[0] == 403
    assert api.post("decisions", {"action": "view", "line": other.line}, token=token)[0] == 403
    assert api.call("GET", f"lines/{other.line}", token=token)[0] == 403
    assert api.call("GET", f"lines/{other.line}/events", token=token)[0] == 403
    assert api.call("GET", f"reminders?patient={bea}", token=token)[0] == 403
    assert api.post("check", {"patient": patient(B, "B2", BEA), "orders": [order()]}, token=token)[0] == 403
    assert api.post("billing-check", {"number": "1"}, token=token)[0] == 403
    assert api.post("sessions", {"doctor": "d1"}, token=token)[0] == 403
    assert api.app.test_client().get("/fhir/Patient", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_a_session_of_lines_and_of_a_doctor(api: Api) -> None:
    """Named lines only; with neither patient nor lines, those that the doctor ordered."""
    first, second = api.line("1"), api.line("2", HGB)
    token = opened(api, patient=None, lines=[first])
    assert [one["line"] for one in api.call("GET", "reminders", token=token)[1]["reminders"]] == [first]
    assert [api.call("GET", f"lines/{line}", token=token)[0] for line in (first, second)] == [200, 403]
    for doctor, seen in (("orderer", 2), ("d1", 0)):
        token = opened(api, patient=None, doctor=doctor)
        assert len(api.call("GET", "reminders", token=token)[1]["reminders"]) == seen
        assert api.call("GET", f"lines/{first}", token=token)[0] == (200 if seen else 403)


def test_a_session_ends_and_cannot_be_forged(api: Api) -> None:
    """After fifteen minutes at most; each character of the token counts."""
    line, clock = api.line(), [time.time()]
    sessions = Sessions(api.world.store, lambda: clock[0])
    token = sessions.open(Session("b", B, "d1", sessions.expiry(10 * LONGEST), 0, (line,)))
    assert api.call("GET", f"lines/{line}", token=token)[0] == 200
    past = sessions.open(Session("b", B, "d1", int(clock[0]), 0, (line,)))
    prefix, said, signature = token.split("~")
    _, other, _ = sessions.open(Session("b", C, "d1", sessions.expiry(9), 0, (line,))).split("~")
    for forged in (past, f"{prefix}~{other}~{signature}", f"{prefix}~{said}", f"{prefix}~{said}~", f"{prefix}~~",
                   f"{prefix}~{said}~{signature[:-4]}AAAA", f"{prefix}~é~{signature}"):
        assert api.call("GET", f"lines/{line}", token=forged.encode().decode("latin-1"))[0] == 401
    assert sessions.expiry(10 * LONGEST) <= clock[0] + LONGEST


@pytest.mark.parametrize(("body", "who", "status"), [
    ({}, "b", 422), ({"doctor": " "}, "b", 422), ({"doctor": "d1", "seconds": 0}, "b", 422),
    ({"doctor": "d1", "lines": ["x"]}, "b", 404), ({"doctor": "d1", "lines": [7]}, "b", 422),
    ({"doctor": "d1"}, "all", 422), ({"doctor": "d1"}, "reader", 403), ({"doctor": "d1", "institution": C}, "b", 403),
    ({"doctor": "d1", "patient": {"reference": "Patient/x"}}, "b", 404),
    ({"doctor": "d1", "patient": {"identifier": [{"value": "unknown"}]}}, "b", 404)])
def test_who_gets_no_session(plain: Api, body: dict[str, Any], who: str, status: int) -> None:
    """Without a doctor, a hospital, the scopes, or about nobody of ours."""
    assert plain.post("sessions", body, who)[0] == status


def test_a_session_may_call_the_cds_service_for_its_patient(api: Api) -> None:
    """The plug-in signs orders of its own page, of no other patient."""
    token = opened(api)

    def call(who: dict[str, Any]) -> int:
        body = {"hook": "order-sign", "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
                "context": {"userId": "Practitioner/d1", "patientId": "p1", "draftOrders": {
                    "resourceType": "Bundle", "type": "collection", "entry": [
                        {"resource": order() | {"subject": {"reference": "Patient/p1"}}}]}},
                "prefetch": {"patient": who | {"id": "p1"}}}
        return api.app.test_client().post("/cds-services/recognition", json=body,
                                          headers={"Authorization": f"Bearer {token}"}).status_code
    assert call(patient(B, "B1")) == 200
    assert call(patient(B, "B2", BEA, "王冰")) == 403


def test_the_demo_needs_no_login_and_a_hospital(settings: Settings, store: Store) -> None:
    """Everybody on this machine is a client of all hospitals."""
    import dataclasses
    api = Api(dataclasses.replace(settings, demo=True), store)
    line = api.line()
    assert api.call("GET", f"reminders?institution={B}", who="")[1]["reminders"][0]["line"] == line
    assert api.decide("view", line, who="")[0] == 200
    assert api.world.store.read("Patient", api.world.anna, GATEWAY) is not None
