"""The state machine of an order line and the billing gate: tables, and what holds whatever happens in what order."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import Category, GatewayError
from gateway.recognition import billing, decision
from gateway.recognition.decision import apply, body_of, card_id, decision_id, rebuild, remind, reordered, worth
from gateway.recognition.model import (
    Action,
    BillRequest,
    Candidate,
    EventKind,
    Kind,
    LineBody,
    Order,
    State,
    Verdict,
)
from gateway.recognition.rules import Institution, Period, Price, Reason, Region, RuleSet, Setting
from gateway.store.model import Line, LineChange
from gateway.terminology import Catalogue, Item, Panel

NOW = 1_800_000_000_000_000
SECOND, MINUTE, DAY = 1_000_000, 60_000_000, 86_400_000_000
TODAY = date(2027, 1, 15)
ID = "00000000-0000-5000-8000-000000000001"
RULES = RuleSet(
    "v1", date(2020, 1, 1),
    Catalogue([Item("I1", "test", "HM", "甲", "one"), Item("I2", "test", "HM", "乙", "two")],
              [Panel("P-1", "组", "panel", ("I1", "I2"))]),
    regions={"R": Region("R", "", "省", "province"), "S": Region("S", "", "外", "other")},
    institutions={"b": Institution("b", "乙院", region="R")},
    reasons=(Reason("R", "R1", "因病情变化", "changed", "no"), Reason("R", "R6", "其他", "other", "reviewed", True),
             Reason("R", "R7", "不愿", "unwilling", "yes"), Reason("R", "R98", "无影像", "no images", "no",
                                                                  availability=True),
             Reason("R", "OLD", "旧", "old", "no", period=Period(end=date(2026, 12, 31))),
             Reason("S", "ELSE", "外省", "elsewhere", "no")),
    prices=(Price("R", "I1", Decimal("10.00"), Decimal("0.7")), Price("b", "I2", Decimal("20.05"), Decimal("0.5"))))
ORDER = Order("b", "1", "I1", doctor="o1", department="er")
CHOSEN = (Candidate(7, "Observation", "I1", NOW - DAY, "final", "a"),)
COVERED = Verdict(Kind.RECOGNISABLE, ORDER, CHOSEN, catalogue="v1", trace=({"step": 8},))
FOUND = decision.Found(("Observation/7",), ("r7",), ("a",), "p1", card_id([(ID, "Observation/7")]), True, "order-sign")


def new(item: str = "I1") -> Line:
    """A line that nobody has stored yet."""
    return Line(ID, "b", "1", 5, item, "", created=NOW)


def stored(change: LineChange) -> Line:
    """The line as it is read again."""
    return replace(change.line, version=change.line.version + 1)


def reminded(verdict: Verdict = COVERED, **members: Any) -> Line:
    """A line with a reminder; ``members``: of its body."""
    line = stored(remind(new(), verdict.order, verdict, FOUND, NOW))
    return replace(line, body={**line.body, **members})


def act(line: Line, kind: str, doctor: str = "d1", now: int = NOW + MINUTE, rules: RuleSet = RULES,
        **facts: Any) -> LineChange:
    """One action on a line."""
    return apply(line, Action(kind, line.id, doctor, **facts), rules, now, TODAY)


def after(*kinds: str, line: Line | None = None) -> Line:
    """A line after some actions of the doctor d1."""
    line = line or reminded()
    for n, kind in enumerate(kinds):
        line = stored(act(line, kind, now=NOW + (n + 1) * MINUTE, reason="R1" if kind == "not_recognise" else ""))
    return line


def refusal(line: Line, kind: str, **facts: Any) -> GatewayError:
    """Why an action is refused."""
    with pytest.raises(GatewayError) as refused:
        act(line, kind, **facts)
    return refused.value


# ---------------------------------------------------------------- tables

@pytest.mark.parametrize(("before", "kind", "state", "event"), [
    ((), "view", "viewed", "viewed"),
    (("view",), "recognise", "recognised", "recognised"),
    ((), "not_recognise", "not_recognised", "not_recognised"),
    (("view",), "not_recognise", "not_recognised", "not_recognised"),
    (("view", "recognise"), "revoke", "viewed", "revoked"),
    (("view", "not_recognise"), "revoke", "viewed", "revoked"),
    (("not_recognise",), "revoke", "reminded", "revoked"),
    (("view", "recognise", "revoke"), "not_recognise", "not_recognised", "not_recognised"),
    (("not_recognise", "revoke", "view"), "recognise", "recognised", "recognised"),
    ((), "quote", "reminded", "quoted"),
    (("view", "recognise"), "quote", "recognised", "quoted"),
    (("not_recognise",), "view", "not_recognised", "viewed"),
])
def test_the_ways_of_a_line(before: tuple[str, ...], kind: str, state: str, event: str) -> None:
    """From each state by each action; a view after the decision is kept and changes nothing of it."""
    line = after(*before)
    change = act(line, kind, now=NOW + 10 * MINUTE, reason="R1" if kind == "not_recognise" else "")
    assert (change.line.state, [one["kind"] for one in change.events]) == (state, [event])
    assert change.events[0]["state"] == state
    if kind in ("view", "quote"):
        assert change.line.body["decision"] == line.body["decision"]


@pytest.mark.parametrize(("before", "kind", "facts", "category", "detail", "where"), [
    ((), "recognise", {}, Category.INVALID, "view", "action"),
    ((), "not_recognise", {}, Category.INVALID, "required", "reason"),
    ((), "not_recognise", {"reason": "NO"}, Category.INVALID, "table-value", "reason"),
    ((), "not_recognise", {"reason": "OLD"}, Category.INVALID, "table-value", "reason"),
    ((), "not_recognise", {"reason": "ELSE"}, Category.INVALID, "table-value", "reason"),
    ((), "not_recognise", {"reason": "R6"}, Category.INVALID, "required", "text"),
    ((), "not_recognise", {"reason": "R6", "text": "  "}, Category.INVALID, "required", "text"),
    ((), "revoke", {}, Category.CONFLICT, "stale", "decision"),
    (("view", "recognise"), "recognise", {"doctor": "d2"}, Category.CONFLICT, "decided", "line"),
    (("view", "recognise"), "not_recognise", {"reason": "R1"}, Category.CONFLICT, "decided", "line"),
    (("not_recognise",), "recognise", {}, Category.CONFLICT, "decided", "line"),
    (("not_recognise",), "not_recognise", {"reason": "R7"}, Category.CONFLICT, "decided", "line"),
    (("view", "recognise"), "revoke", {"decision": decision_id(ID, 7)}, Category.CONFLICT, "stale", "decision"),
    (("view", "recognise"), "review", {"counts": True}, Category.CONFLICT, "stale", "decision"),
    (("not_recognise",), "review", {"counts": True}, Category.INVALID, "", "decision"),
    ((), "view", {"doctor": " "}, Category.INVALID, "required", "doctor"),
    ((), "admire", {}, Category.INVALID, "table-value", "action"),
    ((), "view", {"at": NOW + MINUTE + 5 * MINUTE + 1}, Category.INVALID, "", "at"),
    ((), "view", {"at": NOW - 5 * MINUTE - 1}, Category.INVALID, "", "at"),
    ((), "view", {"key": "k" * 201}, Category.INVALID, "", "key"),
    ((), "not_recognise", {"reason": "R1", "text": "x" * 4001}, Category.INVALID, "", "text"),
])
def test_refusals(before: tuple[str, ...], kind: str, facts: dict[str, Any], category: Category, detail: str,
                  where: str) -> None:
    """Each names what is wrong and where."""
    error = refusal(after(*before), kind, **facts)
    assert (error.category, error.detail, error.where) == (category, detail, where)
    assert len(error.message) > 20 or error.message.startswith("at most")


def test_a_conflict_names_the_decision_that_stands() -> None:
    """Its id and its state."""
    line = after("view", "recognise")
    error = refusal(line, "not_recognise", doctor="d2", reason="R1")
    assert line.body["decision"] in error.message
    assert "recognised" in error.message


def test_client_clocks_may_be_five_minutes_wrong() -> None:
    """To the microsecond."""
    now = NOW + 20 * MINUTE
    assert act(reminded(), "view", now=now, at=now + 5 * MINUTE).events
    assert act(reminded(), "view", now=now, at=NOW - 5 * MINUTE).events


@pytest.mark.parametrize(("doctor", "at", "stale"), [
    ("d1", NOW + 3 * MINUTE, True),  # the same client's clock: one decision was made before the other
    ("d1", NOW + 8 * MINUTE, False),
    ("d2", NOW + 3 * MINUTE, False),  # another clock, which may be late
    ("d2", NOW - 2 * MINUTE - SECOND, True),
])
def test_a_decision_made_before_the_last_one_comes_late(doctor: str, at: int, stale: bool) -> None:
    """d1 refused at the fourth minute and took it back at the fifth; then an older decision arrives."""
    line = replace(reminded(viewed_at=NOW), created=NOW - 10 * MINUTE)
    line = stored(act(line, "not_recognise", now=NOW + 2 * MINUTE, reason="R1", at=NOW + 2 * MINUTE))
    line = stored(act(line, "revoke", now=NOW + 3 * MINUTE, at=NOW + 4 * MINUTE))
    if stale:
        assert refusal(line, "recognise", doctor=doctor, at=at, now=NOW + 9 * MINUTE).detail == "stale"
    else:
        assert act(line, "recognise", doctor=doctor, at=at, now=NOW + 9 * MINUTE).line.state == "recognised"


@pytest.mark.parametrize("kind", ["view", "recognise", "not_recognise", "quote", "revoke"])
def test_the_same_again_is_nothing(kind: str) -> None:
    """The same doctor, the same action, the same reason."""
    line = after("view", "recognise") if kind == "revoke" else after("view")
    reason = "R1" if kind == "not_recognise" else ""
    line = stored(act(line, kind, reason=reason))
    change = act(line, kind, reason=reason, now=NOW + 5 * MINUTE)
    assert (change.events, change.line) == ((), line)


def test_a_key_makes_a_replay_the_same_action_for_ever() -> None:
    """Also after the decision was revoked; another action under the key is refused."""
    line = after("view")
    line = stored(act(line, "recognise", key="k1"))
    line = stored(act(line, "revoke", key="k2"))
    assert act(line, "recognise", key="k1").events == ()
    assert refusal(line, "not_recognise", key="k1", reason="R1").where == "key"
    assert stored(act(line, "recognise", key="k3")).state == "recognised"


def test_two_doctors_may_both_open_a_report() -> None:
    """Each view is an event, the first one counts; a line's view is enough for whoever decides."""
    line = after("view")
    change = act(line, "view", doctor="d2", now=NOW + 9 * MINUTE)
    assert change.line.body["viewers"] == ["d1", "d2"]
    assert change.line.body["viewed_at"] == line.body["viewed_at"]


@pytest.mark.parametrize(("kind", "allowed"), [
    (Kind.RECOGNISABLE, True), (Kind.PARTIAL, True), (Kind.ADVISORY, True), (Kind.NOT, False)])
def test_what_a_doctor_may_recognise(kind: Kind, allowed: bool) -> None:
    """Whatever is shown; of what nothing covers there is nothing to say."""
    line = stored(remind(new(), ORDER, replace(COVERED, kind=kind), FOUND, NOW))
    assert line.state == ("reminded" if allowed else "ordered")
    for step in ("view", "recognise"):
        if allowed:
            line = stored(act(line, step))
        else:
            assert refusal(line, step).detail == "not-covered"


def test_settings_of_the_department() -> None:
    """must_view and explained, the narrowest scope."""
    rules = RULES.changed(settings=(Setting("R", "*", "must_view", "yes"), Setting("b/er", "HM", "must_view", "no"),
                                    Setting("b/er", "*", "explained", "yes")))
    assert act(reminded(), "recognise", rules=rules).line.state == "recognised"
    for explained in (None, False):
        assert refusal(reminded(), "not_recognise", rules=rules, reason="R1", explained=explained).where == "explained"
    change = act(reminded(), "not_recognise", rules=rules, reason="R1", explained=True)
    assert change.line.body["explained"] is True


def test_a_decision_event_holds_what_a_later_judge_needs() -> None:
    """Who, when, why, under which version, about which results; the reminder its trace."""
    line = after("view")
    [event] = act(line, "not_recognise", reason="R98", text="打不开", at=NOW, via="widget").events
    assert {name: event[name] for name in ("kind", "doctor", "via", "client_time", "decision", "reason", "verdict",
                                           "results", "catalogue")} == {
        "kind": "not_recognised", "doctor": "d1", "via": "widget", "client_time": NOW,
        "decision": decision_id(ID, 1), "reason": "R98", "verdict": "RECOGNISABLE", "results": ["Observation/7"],
        "catalogue": "v1"}
    assert {name: event["set"][name] for name in ("text", "fault", "price", "fund", "refusal")} == {
        "text": "打不开", "fault": True, "price": "10.00", "fund": "7.00", "refusal": "no"}
    [event] = remind(new(), ORDER, COVERED, replace(FOUND, trace=({"step": 8},)), NOW).events
    assert (event["trace"], event["number"], event["institution"]) == ([{"step": 8}], "1", "b")


def test_a_review_makes_a_refusal_count_or_not() -> None:
    """Only of a reason under review; a commission may correct itself; a revoking forgets it."""
    line = stored(act(reminded(), "not_recognise", reason="R6", text="because"))
    assert line.body["refusal"] == "reviewed"
    line = stored(act(line, "review", doctor="c1", counts=True, decision=line.body["decision"]))
    assert (line.body["refusal"], line.state) == ("yes", "not_recognised")
    assert act(line, "review", doctor="c1", counts=True).events == ()
    line = stored(act(line, "review", doctor="c1", counts=False))
    assert line.body["refusal"] == "no"
    assert refusal(line, "review", counts=None).where == "counts"
    line = stored(act(line, "revoke"))
    assert (line.body["refusal"], line.body["reviewed_by"]) == ("", "")


@pytest.mark.parametrize(("item", "missing", "price", "fund"), [
    ("I1", [], "10.00", "7.00"), ("I2", [], "20.05", "10.03"), ("I9", [], "", ""),
    ("P-1", [], "30.05", "17.03"), ("P-1", ["I2"], "10.00", "7.00")])
def test_what_a_line_is_worth(item: str, missing: list[str], price: str, fund: str) -> None:
    """Its price at the hospital; a panel's own, else its members'; of a part only what was found."""
    assert worth(RULES, new(item), LineBody(missing=missing), TODAY) == (price, fund)


def test_a_panels_own_price_wins() -> None:
    """Members are added only where the panel has none."""
    rules = RULES.changed(prices=(*RULES.prices, Price("R", "P-1", Decimal(25), Decimal("0.70"))))
    assert worth(rules, new("P-1"), LineBody(), TODAY) == ("25.00", "17.50")


# ---------------------------------------------------------------- reminders

def test_a_decided_line_is_not_reminded() -> None:
    """Whatever the check found now; its results tell whether it is shown."""
    for line in (after("view", "recognise"), after("not_recognise")):
        other = replace(FOUND, results=("Observation/8",))
        assert remind(line, ORDER, COVERED, other, NOW + DAY).events == ()
        assert decision.suppresses(line, "I1", ("Observation/7",))
        assert decision.suppresses(line, "I1", ("Observation/8",)) == (line.state == State.RECOGNISED)
        assert not decision.suppresses(line, "I2", ("Observation/7",))


def test_a_result_that_is_gone_takes_the_reminder_back() -> None:
    """The line stays reminded, and nothing covers it any more."""
    gone = replace(COVERED, kind=Kind.NOT, chosen=())
    change = remind(after("view"), ORDER, gone, decision.Found(patient="p1"), NOW + MINUTE)
    assert (change.line.state, change.line.body["verdict"], change.line.body["results"]) == ("viewed", "NOT", [])
    assert refusal(stored(change), "recognise").detail == "not-covered"


def test_a_second_reminder_keeps_the_time_of_the_first() -> None:
    """A line counts on the day of its first reminder; what it shows is the newest."""
    found = replace(FOUND, results=("Observation/8",), interruptive=False)
    change = remind(reminded(), ORDER, COVERED, found, NOW + DAY)
    body = change.line.body
    assert (body["reminded_at"], body["results"], body["interruptive"]) == (NOW, ["Observation/8"], True)


def test_a_number_that_stands_for_another_item_is_checked_anew() -> None:
    """While nothing was decided."""
    order = replace(ORDER, item="I2")
    change = remind(reminded(), order, replace(COVERED, order=order), replace(FOUND, results=("Observation/8",)), NOW)
    assert (change.line.item, change.events[0]["item"]) == ("I2", "I2")


@pytest.mark.parametrize(("ago", "counted"), [(0, True), (7 * DAY, True), (7 * DAY + 1, False)])
def test_seven_days_to_the_microsecond(ago: int, counted: bool) -> None:
    """From the decision to the later order; once."""
    line = after("view", "recognise")
    change = reordered(line, "other", line.body["decided_at"] + ago)
    assert bool(change.events) is counted
    assert not reordered(stored(change), "third", NOW).events or not counted
    assert not reordered(line, line.id, line.body["decided_at"]).events


def test_a_card_has_one_uuid_whatever_the_order_of_its_matches() -> None:
    """And another one for other matches."""
    one, two = (ID, "Observation/7"), (ID, "Observation/8")
    assert card_id([one, two]) == card_id([two, one]) != card_id([one])


# ---------------------------------------------------------------- the gate

def gate(line: Line, rules: RuleSet = RULES, **facts: Any) -> billing.Gate:
    """What a bill for a line is answered."""
    return billing.gate(line, BillRequest("b", "1", **facts), rules, NOW + DAY, TODAY)


DENY = RULES.changed(settings=(Setting("R", "I1", "undecided", "deny"),))


@pytest.mark.parametrize(("line", "rules", "facts", "allowed", "code", "event"), [
    (after("view", "recognise"), RULES, {}, False, "RECOGNISED", "billing_blocked"),
    (after("view", "recognise"), RULES, {"emergency": "x"}, False, "RECOGNISED", "billing_blocked"),
    (after("view", "recognise"), RULES, {"action": "check"}, False, "RECOGNISED", "billing_blocked"),
    (after("view", "recognise", "revoke"), RULES, {}, True, "UNDECIDED", "billed"),
    (after("not_recognise"), DENY, {}, True, "NOT_RECOGNISED", "billed"),
    (reminded(), RULES, {}, True, "UNDECIDED", "billed"),
    (reminded(), RULES, {"action": "check"}, True, "UNDECIDED", ""),
    (reminded(), DENY, {}, False, "UNDECIDED", "billing_blocked"),
    (reminded(), DENY, {"emergency": " "}, False, "UNDECIDED", "billing_blocked"),
    (reminded(), DENY, {"emergency": "shock"}, True, "BYPASS", "billed"),
    (reminded(replace(COVERED, kind=Kind.PARTIAL)), DENY, {}, True, "NOT_COVERED", "billed"),
    (reminded(replace(COVERED, kind=Kind.ADVISORY)), DENY, {}, True, "NOT_COVERED", "billed"),
    (reminded(replace(COVERED, kind=Kind.NOT)), DENY, {}, True, "NOT_COVERED", "billed"),
    (new(), RULES, {}, True, "UNKNOWN", "billed"),
    (new(), DENY, {}, False, "UNKNOWN", "billing_blocked"),
    (reminded(billed=True), DENY, {}, True, "ALREADY_BILLED", ""),
    (reminded(billed=True), DENY, {"action": "cancel"}, True, "CANCELLED", "bill_cancelled"),
    (reminded(), DENY, {"action": "cancel"}, True, "NOT_BILLED", ""),
])
def test_the_gate(line: Line, rules: RuleSet, facts: dict[str, Any], allowed: bool, code: str, event: str) -> None:
    """Its table, with the event of each answer."""
    answer = gate(line, rules, **facts)
    assert (answer.allowed, answer.code) == (allowed, code)
    assert [one["kind"] for one in answer.change.events] == ([event] if event else [])
    assert answer.change.line.body.get("billed", False) == (event == "billed" or code == "ALREADY_BILLED")


@pytest.mark.parametrize(("facts", "where"), [
    ({"number": " "}, "number"), ({"number": "1", "action": "pay"}, "action"), ({"number": "x" * 201}, "number"),
    ({"number": "1", "emergency": "x" * 1001}, "emergency")])
def test_a_bill_that_names_no_line_is_refused(facts: dict[str, Any], where: str) -> None:
    """INVALID with its place."""
    with pytest.raises(GatewayError) as refused:
        billing.check(BillRequest("b", **facts))
    assert (refused.value.category, refused.value.where) == (Category.INVALID, where)


# ---------------------------------------------------------------- whatever happens

_FORGOTTEN = frozenset(("ordinal", "decision", "keys", "acted_at", "acted_client", "acted_by", "decided_at",
                        "billed_at", "blocked", "service_request", "service_request_status", "viewers", "quoters",
                        "quoted"))


class Life(RuleBasedStateMachine):
    """A line in the hands of doctors, clerks, results and a network that repeats and reorders."""

    @initialize(undecided=st.sampled_from(["allow", "deny"]), must_view=st.sampled_from(["yes", "no"]))
    def begin(self, undecided: str, must_view: str) -> None:
        self.rules = RULES.changed(settings=(Setting("R", "*", "undecided", undecided),
                                             Setting("R", "*", "must_view", must_view)))
        self.line, self.now = new(), NOW
        self.events: list[dict[str, Any]] = []
        self.sent: list[Action] = []
        self.decided: Action | None = None
        self.keep(remind(self.line, ORDER, COVERED, FOUND, NOW))

    def keep(self, change: LineChange) -> bool:
        """As the store does."""
        if change.events:
            self.line = stored(change)
            self.events += change.events
        return bool(change.events)

    @rule(kind=st.sampled_from([Kind.RECOGNISABLE, Kind.RECOGNISABLE, *Kind]),
          results=st.sampled_from([("Observation/7",), ("Observation/8",)]))
    def check(self, kind: Kind, results: tuple[str, ...]) -> None:
        """A result comes or goes."""
        self.now += MINUTE
        found = replace(FOUND, results=results if kind is not Kind.NOT else ())
        self.keep(remind(self.line, ORDER, replace(COVERED, kind=kind), found, self.now))

    @precondition(lambda self: self.line.version)
    @rule(kind=st.sampled_from(["view", "recognise", "recognise", "not_recognise", "revoke", "revoke", "quote",
                                "review"]),
          doctor=st.sampled_from(["d1", "d2"]), reason=st.sampled_from(["R1", "R6", "R7"]),
          late=st.sampled_from([0, 0, 0, 2 * MINUTE, 20 * MINUTE]), key=st.booleans(), counts=st.booleans())
    def act(self, kind: str, doctor: str, reason: str, late: int, key: bool, counts: bool) -> None:
        """Somebody does something, with a clock that is late by some minutes."""
        self.now += MINUTE
        action = Action(kind, ID, doctor, max(NOW, self.now - late), f"k{len(self.sent)}" if key else "",
                        reason if kind == "not_recognise" else "", "text", counts=counts)
        self.sent.append(action)
        self.take(action)

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 10))
    def replay(self, which: int) -> None:
        """An action comes once more, at any later time; under a key it does nothing."""
        self.now += MINUTE
        action = self.sent[-1 - which % len(self.sent)]
        known = action.key in self.line.body.get("keys", {}) and action.key
        if self.take(action):
            assert not known

    def take(self, action: Action) -> bool:
        """Whether it changed the line; a refusal changes nothing."""
        before = self.line
        try:
            done = self.keep(apply(self.line, action, self.rules, self.now, TODAY))
        except GatewayError as error:
            assert error.category in (Category.INVALID, Category.CONFLICT)
            assert self.line is before
            return False
        if done and action.kind in ("recognise", "not_recognise"):
            self.decided = action
        if done and action.kind == "revoke":
            self.decided = None
        return done

    @precondition(lambda self: self.line.version)
    @rule(action=st.sampled_from(["bill", "check", "cancel"]), emergency=st.sampled_from(["", "shock"]))
    def bill(self, action: str, emergency: str) -> None:
        """The clerk asks; a recognised line is denied whatever is said."""
        self.now += MINUTE
        request = BillRequest("b", "1", action=action, emergency=emergency, now=self.now)
        answer = billing.gate(self.line, request, self.rules, self.now, TODAY)
        if self.line.state == State.RECOGNISED and action != "cancel":
            assert not answer.allowed
        assert answer.allowed or answer.change.events
        self.keep(answer.change)

    @rule(later=st.integers(0, 8))
    def order_again(self, later: int) -> None:
        """The same item is ordered again."""
        self.keep(reordered(self.line, "other", self.now + later * DAY))

    @invariant()
    def recognised_and_billed_are_never_both_true(self) -> None:
        """Of one line, at any time."""
        if getattr(self, "line", None) is not None:
            assert not (self.line.state == State.RECOGNISED and self.line.body.get("billed"))

    @invariant()
    def a_line_is_its_events(self) -> None:
        """State and body can be made from the events; each event says the state after it, and one kind of the list."""
        if getattr(self, "events", None):
            assert rebuild(self.events) == (self.line.state, self.line.body)
            assert {event["kind"] for event in self.events} <= {kind.value for kind in EventKind}
            assert len(self.events) == self.line.version

    @invariant()
    def only_the_last_decision_shows(self) -> None:
        """A line with a decision is as if the ones before had never been; without one, as if there was none."""
        if not getattr(self, "line", None) or not self.line.version:
            return
        body = body_of(self.line)
        assert bool(body.decision) == (self.line.state in decision.DECIDED) == (self.decided is not None)
        fresh = replace(self.line, state="viewed" if body.viewed_at else "reminded", body={
            **self.line.body, **dict.fromkeys(("decision", "decided_by", "reason", "text", "refusal", "price", "fund",
                                               "reviewed_by", "acted_by"), ""),
            "explained": None, "fault": False, "reordered": False, "acted_at": 0, "acted_client": 0, "ordinal": 0,
            "keys": {}, "billed": False})
        if self.decided is None:
            expected = fresh.body
        else:
            rules = self.rules.changed(settings=(Setting("R", "*", "must_view", "no"),))
            expected = apply(fresh, replace(self.decided, at=0, key=""), rules, self.now, TODAY).line.body
        left_out = _FORGOTTEN | {"reordered", "billed", "bypass"} | (
            {"refusal", "reviewed_by"} if body.reviewed_by else set())
        assert {k: v for k, v in self.line.body.items() if k not in left_out} == \
            {k: v for k, v in expected.items() if k not in left_out}
        assert not body.reordered or self.line.state == State.RECOGNISED


Life.TestCase.settings = hypothesis_settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase


def test_the_reasons_of_another_day_are_others() -> None:
    """A reason's period is judged on the local day of the decision."""
    action = Action("not_recognise", ID, "d1", reason="OLD")
    last = date(2026, 12, 31)
    assert apply(reminded(), action, RULES, NOW, last).events
    with pytest.raises(GatewayError):
        apply(reminded(), action, RULES, NOW, last + timedelta(days=1))
