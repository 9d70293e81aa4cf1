"""Check, act, bill and read over a store: what is recorded, for whom, and what FHIR clients see of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from gateway.caller import GATEWAY, Caller
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.recognition.decision import body_of, rebuild
from gateway.recognition.model import Action, BillAnswer, BillRequest, Kind, Signature
from gateway.recognition.orders import line_id
from gateway.recognition.rules import Setting
from gateway.store import Store
from gateway.store.model import Put
from tests.recognition_world import (
    ANNA,
    BEA,
    CBC,
    COMMISSION,
    CT_CHEST,
    DAY,
    DOCTOR_B,
    DOCTOR_C,
    HGB,
    HOUR,
    MINUTE,
    WBC,
    A,
    B,
    C,
    World,
    patient,
)


@pytest.fixture
def world(settings: Settings, store: Store) -> World:
    """The hospitals, with a laboratory report of yesterday at A."""
    made = World(settings, store)
    made.anna = made.person(A, "A1")
    made.laboratory(made.anna, "r1", [WBC, HGB])
    return made


def events_of(world: World, line: str) -> list[dict[str, Any]]:
    """The events of a line."""
    return world.recognition.events(line, GATEWAY)


def bill(world: World, number: str, action: str = "bill", **facts: Any) -> BillAnswer:
    """Ask the gate as hospital B."""
    world.now += 1_000_000
    return world.recognition.bill(BillRequest(B, number, action=action, **facts), DOCTOR_B)


# ---------------------------------------------------------------- check

def test_a_reminder_names_the_earlier_result_and_is_recorded_once(world: World) -> None:
    """The same order checked again gives the same answer and writes nothing."""
    [first] = world.sign(world.order("1"))
    [again] = world.sign(world.order("1"))
    assert (first.verdict.kind, first.state, first.interruptive) == (Kind.RECOGNISABLE, "reminded", True)
    assert [(one.reference, one.report, one.institution) for one in first.results] == [
        ("Observation/r1-THM001Q", "r1", A)]
    assert first.line == again.line == line_id(B, "1")
    assert first.card == again.card
    assert [event["kind"] for event in events_of(world, first.line)] == ["reminded"]


def test_selecting_and_then_signing_interrupts_once(world: World) -> None:
    """order-select is quiet; what nothing covers is recorded when it is signed, not before."""
    covered, not_covered = world.sign(world.order("1"), world.order("2", CT_CHEST), hook="order-select")
    assert (covered.state, covered.interruptive, not_covered.line) == ("reminded", False, "")
    covered, not_covered = world.sign(world.order("1"), world.order("2", CT_CHEST))
    assert covered.interruptive
    assert (not_covered.state, not_covered.verdict.kind) == ("ordered", Kind.NOT)
    assert [event["hook"] for event in events_of(world, covered.line)] == ["order-select", "order-sign"]


def test_what_is_asked_only_is_not_recorded(world: World, store: Store) -> None:
    """``record`` False leaves no line and no event."""
    [checked] = world.sign(world.order("1"), hook="check", record=False)
    assert (checked.verdict.kind, checked.line) == (Kind.RECOGNISABLE, "")
    assert store.events() == []


def test_a_line_follows_a_result_that_comes_later(world: World) -> None:
    """A line that nothing covered is reminded when it is checked after the result came."""
    [before] = world.sign(world.order("1", CT_CHEST))
    world.imaging(world.anna, "ct")
    [after] = world.sign(world.order("1", CT_CHEST))
    assert (before.state, after.state, after.line) == ("ordered", "reminded", before.line)
    assert [event["kind"] for event in events_of(world, before.line)] == ["ordered", "reminded"]


@pytest.mark.parametrize(("images", "linked", "kind"), [
    (True, True, Kind.RECOGNISABLE), (True, False, Kind.RECOGNISABLE), (False, True, Kind.ADVISORY),
    (False, False, Kind.ADVISORY)])
def test_an_exam_without_images_is_advisory(world: World, images: bool, linked: bool, kind: Kind) -> None:
    """The study is found by the report's reference, or by the order's number; a dead reference is no study."""
    world.imaging(world.anna, "ct", images=images, linked=linked)
    [checked] = world.sign(world.order("1", CT_CHEST))
    assert checked.verdict.kind is kind
    assert checked.verdict.codes == (() if images else ("FLAG_IMAGES",))
    assert checked.interruptive is images


def test_an_older_exam_with_images_is_better_than_a_newer_without(world: World) -> None:
    """The flag is found out before the choice."""
    world.imaging(world.anna, "new", age=DAY, images=False)
    world.imaging(world.anna, "old", age=5 * DAY)
    [checked] = world.sign(world.order("1", CT_CHEST))
    assert checked.results[0].reference == "DiagnosticReport/old"


def test_a_result_in_a_preliminary_report_covers_nothing(world: World) -> None:
    """The report's status counts, not only the result's."""
    bea = world.person(A, "A2", national=BEA, name="王冰")
    world.laboratory(bea, "r3", [WBC], report_status="preliminary")
    [checked] = world.sign(world.order("1"), who=patient(B, "B2", BEA, "王冰"))
    assert (checked.verdict.kind, checked.verdict.codes) == (Kind.NOT, ("STATUS",))


def test_a_panel_of_two_reports(world: World) -> None:
    """Results of several reports cover a panel's members; what is missing is named."""
    world.laboratory(world.anna, "r2", ["THM002O"])
    [checked] = world.sign(world.order("1", CBC))
    assert checked.verdict.kind is Kind.PARTIAL
    assert {one.report for one in checked.results} == {"r1", "r2"}
    assert "THM004K" in checked.verdict.missing
    assert not checked.interruptive


def test_what_was_decided_is_not_shown_again(world: World) -> None:
    """Neither a recognised line, nor a refused one with the same results; other results are shown, quietly."""
    first, second = world.sign(world.order("1"), world.order("2", HGB))
    world.act("not_recognise", first.line, reason="R2")
    world.act("view", second.line)
    world.act("recognise", second.line)
    one, two = world.sign(world.order("1"), world.order("2", HGB))
    assert (one.suppressed, two.suppressed, one.interruptive, two.interruptive) == (True, True, False, False)
    world.laboratory(world.anna, "r2", [WBC, HGB], age=HOUR)
    one, two = world.sign(world.order("1"), world.order("2", HGB))
    assert (one.suppressed, two.suppressed, one.interruptive) == (False, True, False)


def test_many_orders_cost_no_more_look_ups_than_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five orders cost as many look-ups and units as one."""
    calls: list[str] = []
    for name in ("person_of", "persons_of", "patients_of", "named", "results", "references", "reports_of", "lines",
                 "lines_of", "write", "read", "rows", "events", "audit"):
        def counted(*args: Any, _name: str = name, _call: Any = getattr(world.store, name), **named: Any) -> Any:
            calls.append(_name)
            return _call(*args, **named)
        monkeypatch.setattr(world.store, name, counted)
    world.sign(world.order("1"))
    one = sorted(calls)
    calls.clear()
    world.sign(*(world.order(f"5-{item}", item) for item in (WBC, HGB, "THM002O", CBC, "THM004K")))
    assert sorted(calls) == one
    assert len(one) <= 12


def test_one_order_checked_by_many_at_once_is_recorded_once(world: World, settings: Settings) -> None:
    """A client that sends the same call again before the answer came; every answer is the same."""
    services = [world.recognition, world.another(settings)]
    signature = Signature(B, (world.order("1"), world.order("2", HGB)), patient(B, "B1"), "order-sign", world.now)
    found: list[list[Any]] = []
    threads = [threading.Thread(target=lambda n=n: found.append(services[n % 2].check(signature))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({tuple((one.line, one.state, one.card) for one in answer) for answer in found}) == 1
    assert [event.kind for event in world.store.events()] == ["reminded", "reminded"]


def test_an_unmapped_order_is_counted(world: World, store: Store) -> None:
    """The code is listed among the unmapped, once an order line."""
    order = replace(world.order("1"), item="", local="XYZ")
    [checked] = world.sign(order)
    world.sign(order)
    assert checked.verdict.codes == ("UNMAPPED",)
    assert [(row.kind, row.local, row.count) for row in store.unmapped(B)] == [("order", "XYZ", 1)]


def test_two_orders_of_one_number_are_refused(world: World) -> None:
    """Nobody knows which of them a decision would mean."""
    with pytest.raises(GatewayError) as refused:
        world.sign(world.order("1"), world.order("1", HGB))
    assert refused.value.category is Category.INVALID


def test_an_unknown_hospital_is_refused(world: World) -> None:
    """No manifest names it."""
    with pytest.raises(GatewayError) as refused:
        world.sign(world.order("1", institution="nowhere"), institution="nowhere")
    assert refused.value.category is Category.NOT_FOUND


# ---------------------------------------------------------------- who

def test_the_hospitals_own_number_leads_to_the_person(world: World) -> None:
    """Without a national identifier, when the hospital has told it before."""
    world.person(B, "B1")
    [checked] = world.sign(world.order("1"), who=patient(B, "B1", national=""))
    assert checked.verdict.kind is Kind.RECOGNISABLE


def test_nobody_of_ours_has_no_results(world: World) -> None:
    """An unknown patient is no error: nothing covers the order."""
    [checked] = world.sign(world.order("1"), who=patient(B, "B9", national=""))
    assert (checked.verdict.kind, checked.state) == (Kind.NOT, "ordered")


@pytest.mark.parametrize("facts", [{"gender": "male", "national": ""}, {"born": "1950-01-01", "national": ""},
                                   {"name": "王冰"}])
def test_demographics_in_conflict_stop(world: World, facts: dict[str, Any]) -> None:
    """Name, sex and birth date of the order's Patient and of A's, each by itself."""
    world.person(B, "B1")
    [checked] = world.sign(world.order("1"), who=patient(B, "B1", **facts))
    assert (checked.verdict.kind, checked.verdict.codes) == (Kind.NOT, ("ID_DOUBT",))


def test_two_ways_to_two_persons_stop(world: World) -> None:
    """B's number is Bea's, who has a national identifier of her own; the order says Anna's."""
    world.person(B, "B1", national=BEA)
    [checked] = world.sign(world.order("1"), who=patient(B, "B1", ANNA))
    assert checked.verdict.codes == ("ID_DOUBT",)
    with pytest.raises(GatewayError) as refused:
        world.recognition.person_of(B, patient(B, "B1", ANNA))
    assert refused.value.category is Category.CONFLICT


def test_a_number_told_without_identifier_is_no_conflict(world: World) -> None:
    """B knew the patient by its number alone; now it says the national identifier, too."""
    world.person(B, "B1", national="")
    [checked] = world.sign(world.order("1"))
    assert checked.verdict.kind is Kind.RECOGNISABLE


@pytest.mark.parametrize("broken", [
    {"identifier": "x"}, {"identifier": ["x"]}, {"identifier": [{"value": 7}]}, {"name": {}}, {"birthDate": 1949},
    {"identifier": [{"value": "1", "type": []}]}, {"name": [{"given": "安"}]}, {"resourceType": "Practitioner"},
    {"identifier": [{"value": "1", "period": {"end": 3}}]}])
def test_a_patient_of_another_shape_is_refused(world: World, broken: dict[str, Any]) -> None:
    """INVALID with its place, and nothing is recorded."""
    with pytest.raises(GatewayError) as refused:
        world.sign(world.order("1"), who=patient(B, "B1") | broken)
    assert refused.value.category is Category.INVALID
    assert world.store.events() == []


# ---------------------------------------------------------------- act

def test_a_recognition_is_written_for_fhir_clients(world: World) -> None:
    """DetectedIssue, Provenance and a revoked ServiceRequest, all valid, of hospital B, about the person."""
    checked = world.recognised("1")
    line = world.store.lines([checked.line])[checked.line]
    body = body_of(line)
    issue = world.resource("DetectedIssue", line.id)
    order = world.resource("ServiceRequest", body.service_request)
    provenance = world.resource("Provenance", body.decision)
    for one in (issue, order, provenance):
        assert check.check(one) == [] == [i for i in check.judge(one) if i.severity != "information"]
    assert (order["status"], issue["status"]) == ("revoked", "final")
    assert issue["implicated"] == [{"reference": f"ServiceRequest/{body.service_request}"},
                                   {"reference": "Observation/r1-THM001Q"}]
    assert issue["mitigation"][0]["action"]["coding"][0]["code"] == "recognised"
    assert issue["mitigation"][0]["author"]["identifier"]["value"] == "d1"
    assert issue["evidence"]
    assert provenance["policy"][0].endswith(f"recognition-catalogue-{world.recognition.rules().version}")
    assert (body.price, body.catalogue) != ("", "")
    row = world.store.read("DetectedIssue", line.id, GATEWAY)
    assert row is not None
    assert (row.institution, row.person) == (B, line.person)


def test_a_revoking_gives_the_order_back(world: World) -> None:
    """The ServiceRequest has its status again, the DetectedIssue waits, another Provenance says who."""
    checked = world.recognised("1")
    decided = world.store.lines([checked.line])[checked.line].body["decision"]
    world.act("revoke", checked.line, doctor="d2")
    line = world.store.lines([checked.line])[checked.line]
    assert (line.state, line.body["decision"]) == ("viewed", "")
    assert world.resource("ServiceRequest", line.body["service_request"])["status"] == "active"
    assert world.resource("DetectedIssue", line.id)["status"] == "preliminary"
    assert world.resource("Provenance", decided)["activity"]["coding"][0]["code"] == "recognised"


def test_an_order_that_we_hold_is_revoked_in_place(world: World) -> None:
    """What the hospital sent of it stays; its status comes back as it was."""
    source = world.recognition.source(B)
    assert source is not None
    id = source.id_for("ServiceRequest", f"{source.system('placer')}|1")
    world.write([{"resourceType": "ServiceRequest", "id": id, "status": "on-hold", "intent": "order",
                  "priority": "stat", "code": {"text": "WBC"},
                  "subject": {"reference": f"Patient/{world.person(B, 'B1')}"}}], B)
    checked = world.recognised("1")
    assert world.resource("ServiceRequest", id)["status"] == "revoked"
    assert world.resource("ServiceRequest", id)["priority"] == "stat"
    world.act("revoke", checked.line)
    assert world.resource("ServiceRequest", id)["status"] == "on-hold"


def test_another_hospitals_order_is_not_touched(world: World) -> None:
    """Whatever id the client gives to its draft."""
    world.write([{"resourceType": "ServiceRequest", "id": "theirs", "status": "active", "intent": "order",
                  "code": {"text": "WBC"}, "subject": {"reference": f"Patient/{world.anna}"}}], A)
    [checked] = world.sign(replace(world.order("1"), reference="ServiceRequest/theirs"))
    world.act("view", checked.line)
    world.act("recognise", checked.line)
    assert world.resource("ServiceRequest", "theirs")["status"] == "active"


def test_a_completed_order_is_not_revoked(world: World) -> None:
    """What is done stays done."""
    source = world.recognition.source(B)
    assert source is not None
    id = source.id_for("ServiceRequest", f"{source.system('placer')}|1")
    world.write([{"resourceType": "ServiceRequest", "id": id, "status": "completed", "intent": "order",
                  "code": {"text": "WBC"}, "subject": {"reference": f"Patient/{world.person(B, 'B1')}"}}], B)
    checked = world.recognised("1")
    world.act("revoke", checked.line)
    assert world.resource("ServiceRequest", id)["status"] == "completed"


def test_the_appointment_of_a_recognised_order_is_released(world: World) -> None:
    """What was booked for it is cancelled with its reason; what was kept stays."""
    checked = world.recognised("0", HGB)
    request = world.store.lines([checked.line])[checked.line].body["service_request"]
    world.act("revoke", checked.line)
    for id, status in (("booked", "booked"), ("kept", "fulfilled")):
        world.write([{"resourceType": "Appointment", "id": id, "status": status, "start": "2026-12-01T09:00:00+08:00",
                      "end": "2026-12-01T09:20:00+08:00", "basedOn": [{"reference": f"ServiceRequest/{request}"}],
                      "participant": [{"actor": {"display": "CT 2"}, "status": "accepted"}]}], B)
    world.act("recognise", checked.line)
    assert world.resource("Appointment", "booked")["status"] == "cancelled"
    assert world.resource("Appointment", "booked")["cancelationReason"]["coding"]
    assert world.resource("Appointment", "kept")["status"] == "fulfilled"


def test_the_events_say_the_line(world: World) -> None:
    """State and body of a line are its events laid over each other; the chain holds."""
    checked = world.recognised("1")
    world.act("revoke", checked.line)
    world.act("not_recognise", checked.line, reason="R6", text="value does not fit", key="k1")
    world.act("review", checked.line, doctor="c1", caller=COMMISSION, counts=True)
    bill(world, "1")
    line = world.store.lines([checked.line])[checked.line]
    assert rebuild(events_of(world, checked.line)) == (line.state, line.body)
    assert world.store.verify_events().problems == []
    assert body_of(line).refusal == "yes"


@pytest.mark.parametrize(("caller", "kind", "category"), [
    (DOCTOR_C, "view", Category.FORBIDDEN),
    (Caller("reader", B, ("institution/*.rs",)), "view", Category.FORBIDDEN),
    (DOCTOR_B, "review", Category.FORBIDDEN),
    (Caller("nobody"), "revoke", Category.FORBIDDEN),
])
def test_who_may_not_decide(world: World, caller: Caller, kind: str, category: Category) -> None:
    """Another hospital's line, no scope, and a review by a hospital are refused; nothing is recorded."""
    [checked] = world.sign(world.order("1"))
    with pytest.raises(GatewayError) as refused:
        world.act(kind, checked.line, caller=caller, counts=True)
    assert refused.value.category is category
    assert len(events_of(world, checked.line)) == 1


@pytest.mark.parametrize("line", ["x", "", "00000000-0000-4000-8000-000000000000", "'; DROP TABLE line"])
def test_an_unknown_line_is_not_found(world: World, line: str) -> None:
    """Also where the id is none."""
    with pytest.raises(GatewayError) as refused:
        world.act("view", line)
    assert refused.value.category is Category.NOT_FOUND


def test_two_doctors_at_once_get_one_decision_and_one_conflict(world: World, settings: Settings) -> None:
    """Real threads, each with a service of its own, a dozen times."""
    others = [world.recognition, world.another(settings)]
    checked = world.sign(*(world.order(str(n)) for n in range(12)))
    for one in checked:
        world.act("view", one.line)
    for one in checked:
        outcomes: list[Any] = [None, None]
        barrier = threading.Barrier(2)

        def decide(number: int, line: str = one.line, outcomes: list[Any] = outcomes,
                   barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                kind, reason = ("recognise", "") if number else ("not_recognise", "R2")
                outcomes[number] = others[number].act(Action(kind, line, f"d{number}", reason=reason), DOCTOR_B)
            except GatewayError as error:
                outcomes[number] = error
        threads = [threading.Thread(target=decide, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [refused] = [outcome for outcome in outcomes if isinstance(outcome, GatewayError)]
        [done] = [outcome for outcome in outcomes if not isinstance(outcome, GatewayError)]
        assert (refused.category, refused.detail) == (Category.CONFLICT, "decided")
        assert done.decision in refused.message and done.state in refused.message
        kinds = [event["kind"] for event in events_of(world, one.line)]
        assert kinds in (["reminded", "viewed", "recognised"], ["reminded", "viewed", "not_recognised"])


def test_a_line_that_moves_meanwhile_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that comes between reading and writing does not lose the recognition."""
    [checked] = world.sign(world.order("1"))
    world.act("view", checked.line)
    write, moved = world.store.write, []

    def late(unit: Any, caller: Caller) -> Any:
        if not moved:
            moved.append(1)
            world.recognition.act(Action("view", checked.line, "d9"), DOCTOR_B)
        return write(unit, caller)
    monkeypatch.setattr(world.store, "write", late)
    assert world.act("recognise", checked.line).state == "recognised"
    assert [event["kind"] for event in events_of(world, checked.line)] == ["reminded", "viewed", "viewed", "recognised"]


def test_a_refused_write_leaves_nothing_half(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line, events and FHIR resources are one unit: what fails in the middle leaves none of them."""
    [checked] = world.sign(world.order("1"))
    world.act("view", checked.line)
    write = world.store.write

    def failing(unit: Any, caller: Caller) -> Any:
        unit.operations.append(Put({"resourceType": "Patient", "id": "x"}, B, if_match=7))
        return write(unit, caller)
    monkeypatch.setattr(world.store, "write", failing)
    with pytest.raises(GatewayError) as refused:
        world.act("recognise", checked.line)
    assert refused.value.category is Category.BUSY
    monkeypatch.undo()
    line = world.store.lines([checked.line])[checked.line]
    assert (line.state, len(events_of(world, checked.line))) == ("viewed", 2)
    assert world.store.read("DetectedIssue", checked.line, GATEWAY) is None


# ---------------------------------------------------------------- the gate

def test_a_recognised_line_is_not_billed_until_it_is_revoked(world: World) -> None:
    """Neither in an emergency; each answer is an event that names the decision."""
    checked = world.recognised("1")
    decision = world.store.lines([checked.line])[checked.line].body["decision"]
    for emergency in ("", "life-threatening"):
        denied = bill(world, "1", emergency=emergency)
        assert (denied.allowed, denied.code, denied.decision) == (False, "RECOGNISED", decision)
    world.act("revoke", checked.line)
    allowed = bill(world, "1")
    assert (allowed.allowed, allowed.code) == (True, "UNDECIDED")
    assert bill(world, "1").code == "ALREADY_BILLED"
    with pytest.raises(GatewayError) as refused:
        world.act("recognise", checked.line)
    assert (refused.value.category, refused.value.detail) == (Category.CONFLICT, "billed")
    assert bill(world, "1", "cancel").code == "CANCELLED"
    assert world.act("recognise", checked.line).state == "recognised"
    kinds = [event["kind"] for event in events_of(world, checked.line)]
    assert kinds == ["reminded", "viewed", "recognised", "billing_blocked", "billing_blocked", "revoked", "billed",
                     "bill_cancelled", "recognised"]


def test_an_undecided_line_is_billed_as_the_region_says(world: World) -> None:
    """Denied where the setting says so; an emergency bypasses it and is counted; a department may differ."""
    world.settle(Setting(B, "*", "undecided", "deny"), Setting(f"{B}/ER", "*", "undecided", "allow"))
    world.sign(world.order("1"), world.order("2", department="ER"), world.order("3", CT_CHEST))
    assert (bill(world, "1").allowed, bill(world, "1").code) == (False, "UNDECIDED")
    assert bill(world, "1", "check", emergency="shock").code == "BYPASS"
    assert bill(world, "1", emergency="shock").code == "BYPASS"
    assert world.store.lines([line_id(B, "1")])[line_id(B, "1")].body["bypass"] == "shock"
    assert (bill(world, "2").allowed, bill(world, "3").code) == (True, "NOT_COVERED")


def test_a_check_bills_nothing(world: World) -> None:
    """Allowed without an event, denied with one."""
    checked = world.recognised("1")
    assert bill(world, "1", "check").allowed is False
    world.act("revoke", checked.line)
    assert bill(world, "1", "check").allowed is True
    assert bill(world, "1", "cancel").code == "NOT_BILLED"
    assert [event["kind"] for event in events_of(world, checked.line)][3:] == ["billing_blocked", "revoked"]


def test_a_bill_for_an_order_that_nobody_saw_is_judged_now(world: World) -> None:
    """With patient and code it is reminded on the spot; without, it is unknown, and both leave a line."""
    world.settle(Setting(B, "*", "undecided", "deny"))
    judged = bill(world, "7", patient=patient(B, "B1"), code=WBC,
                  system="http://huren.example/fhir/CodeSystem/recognition-item")
    assert (judged.allowed, judged.code) == (False, "UNDECIDED")
    unknown = bill(world, "8")
    assert (unknown.allowed, unknown.code) == (False, "UNKNOWN")
    assert [event["kind"] for event in events_of(world, judged.line)] == ["reminded", "billing_blocked"]
    assert [event["kind"] for event in events_of(world, unknown.line)] == ["billing_blocked"]


def test_a_bill_for_another_hospital_is_refused(world: World) -> None:
    """By institution and by line."""
    [checked] = world.sign(world.order("1"))
    for request in (BillRequest(B, "1"), BillRequest("", line=checked.line)):
        with pytest.raises(GatewayError) as refused:
            world.recognition.bill(request, DOCTOR_C)
        assert refused.value.category is Category.FORBIDDEN


# ---------------------------------------------------------------- ordered again

@pytest.mark.parametrize(("later", "reordered"), [(6 * DAY, True), (8 * DAY, False)])
def test_ordering_again_within_seven_days_is_an_event(world: World, later: int, reordered: bool) -> None:
    """Of the earlier line, which was recognised; once."""
    checked = world.recognised("1")
    world.now += later
    world.sign(world.order("2"), world.order("3", HGB))
    world.sign(world.order("4"))
    kinds = [event["kind"] for event in events_of(world, checked.line)]
    assert kinds.count("reordered") == int(reordered)


def test_ordering_again_what_was_not_recognised_is_none(world: World) -> None:
    """A repeat after a refusal is what the refusal said."""
    [checked] = world.sign(world.order("1"))
    world.act("not_recognise", checked.line, reason="R2")
    world.sign(world.order("2"))
    assert events_of(world, checked.line)[-1]["kind"] == "not_recognised"


# ---------------------------------------------------------------- what is read

def test_reminders_are_those_that_wait(world: World) -> None:
    """Of the hospital, the person, the doctor; decided and billed ones are gone."""
    first, second, third = world.sign(world.order("1"), world.order("2", HGB), world.order("3"))
    world.act("not_recognise", first.line, reason="R2")
    bill(world, "3")
    [waiting] = world.recognition.reminders(DOCTOR_B, B)
    assert (waiting.line, waiting.interruptive) == (second.line, True)
    assert [one.reference for one in waiting.results] == ["Observation/r1-THM003M"]
    assert waiting.results[0].report == "r1"
    assert world.recognition.reminders(DOCTOR_B, B, doctor="orderer")
    assert not world.recognition.reminders(DOCTOR_B, B, doctor="another")
    assert world.recognition.reminders(DOCTOR_B, B, patient=world.anna)
    assert not world.recognition.reminders(DOCTOR_C, C)
    for caller, institution, category in ((DOCTOR_C, B, Category.FORBIDDEN), (GATEWAY, "nowhere", Category.NOT_FOUND)):
        with pytest.raises(GatewayError) as refused:
            world.recognition.reminders(caller, institution)
        assert refused.value.category is category


def test_the_newest_reminders_come_first_whatever_their_state(world: World) -> None:
    """And no more than asked for."""
    lines = []
    for number in range(5):
        world.now += MINUTE
        lines += world.sign(world.order(str(number)))
    world.act("view", lines[3].line)
    found = world.recognition.reminders(DOCTOR_B, B, limit=3)
    assert [one.order.number for one in found] == ["4", "3", "2"]
    found = world.recognition.reminders(DOCTOR_B, B, since=world.now - MINUTE)
    assert [one.order.number for one in found] == ["4"]


def test_the_summary_says_what_would_count(world: World) -> None:
    """What other hospitals have that is recognisable now, and what waits."""
    found = world.recognition.summary(Signature(B, (), patient(B, "B1"), "patient-view", world.now))
    assert ({one.item for one in found.results}, found.total, found.institutions) == ({WBC, HGB}, 2, (A,))
    world.sign(world.order("1"))
    found = world.recognition.summary(Signature(B, (), patient(B, "B1"), "patient-view", world.now))
    assert [one.state for one in found.pending] == ["reminded"]
    own = world.recognition.summary(Signature(A, (), patient(A, "A1"), "patient-view", world.now))
    assert own.total == 0
    stranger = world.recognition.summary(Signature(B, (), patient(B, "B9", ""), "patient-view", world.now))
    assert stranger.total == 0


def test_the_detail_shows_values_and_their_course(world: World) -> None:
    """Value as sent, range, flag, the same item's earlier values of any hospital, reasons, decision."""
    own = world.person(C, "C1")
    world.laboratory(own, "r0", [WBC], age=40 * DAY, institution=C, value="12.00")
    [checked] = world.sign(world.order("1"))
    shown = world.recognition.detail(checked.line, DOCTOR_B)
    [report] = shown["reports"]
    [wbc] = [one for one in report["results"] if one["item"] == WBC]
    assert (wbc["value"], wbc["unit"], wbc["range"], wbc["flag"], wbc["covers"]) == \
        ("5.10", "10*9/L", "3.5–9.5", "high", True)
    assert [(one["value"], one["institution"]) for one in wbc["trend"]] == [("12.00", C), ("5.10", A)]
    assert [one["covers"] for one in report["results"] if one["item"] == HGB] == [False]
    assert report["conclusion"] == "白细胞偏高。"
    assert (shown["must_view"], shown["decision"], shown["state"]) == (True, None, "reminded")
    assert {"R1", "R6"} <= {one["code"] for one in shown["reasons"]}
    assert events_of(world, checked.line)[-1]["kind"] == "reminded"  # looking is no view yet
    world.act("view", checked.line)
    world.act("recognise", checked.line)
    assert world.recognition.detail(checked.line, DOCTOR_B)["decision"]["doctor"] == "d1"


def test_the_detail_of_an_exam_names_its_study(world: World) -> None:
    """By the report's reference, else by the order's number."""
    for linked in (True, False):
        id = f"ct-{linked}"
        world.imaging(world.anna, id.lower(), linked=linked, age=HOUR if linked else MINUTE)
        [checked] = world.sign(world.order(id, CT_CHEST))
        [report] = world.recognition.detail(checked.line, DOCTOR_B)["reports"]
        assert (report["kind"], report["covers"], [one["uid"] for one in report["studies"]]) == \
            ("imaging", True, ["1.2.3.4"])


def test_the_detail_is_another_hospitals_secret(world: World) -> None:
    """And what is shown is audited with the person."""
    [checked] = world.sign(world.order("1"))
    with pytest.raises(GatewayError) as refused:
        world.recognition.detail(checked.line, DOCTOR_C)
    assert refused.value.category is Category.FORBIDDEN
    world.recognition.detail(checked.line, DOCTOR_B, "10.0.0.1")
    [row, *_] = world.store.audit_rows()
    line = world.store.lines([checked.line])[checked.line]
    assert (row.access.action, row.access.peer) == ("recognition-detail", "10.0.0.1")
    assert row.access.persons == (line.person,)
