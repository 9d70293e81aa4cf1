"""The state machine of an order line: a line and what happens to it → the line as it becomes, and its event. Pure.

    ordered ─► reminded ─► viewed ─► recognised ─────┐
                   └─────────┴─────► not_recognised ─┴─► (revoked) ─► viewed

Every event is a dict with ``kind`` and ``state`` (the line's state after it), ``doctor`` (who), and ``set``: the
members of `LineBody` that it changed, with their new values; the first one names the line as well. So a line is its
events' ``set`` laid over each other, in their order (`rebuild`), and no event need be read twice to know what it did.
What a later judge wants beside is named in full: ``decision``, ``verdict``, ``results``, ``catalogue`` of a decision,
``trace`` of a reminder.

Nothing is changed in place: a `LineChange` without events says that there is nothing to do.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from hashlib import blake2b
from typing import Any

from gateway.errors import Category, GatewayError
from gateway.recognition.model import Action, EventKind, Kind, LineBody, Order, State, Verdict
from gateway.recognition.rules import Price, RuleSet
from gateway.store.model import Line, LineChange

#: A client's clock may be wrong by this much, µs.
CLOCK_SKEW = 5 * 60 * 1_000_000
REORDER_WITHIN = 7 * 86_400 * 1_000_000
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "http://huren.example/fhir/recognition")
_CENT = Decimal("0.01")
_LONGEST = {"doctor": 200, "key": 200, "reason": 64, "text": 4000, "decision": 64, "via": 32}
_MEMBERS = tuple(member.name for member in fields(LineBody))
_NEW: dict[str, Any] = {name: getattr(LineBody(), name) for name in _MEMBERS}
DECIDED = frozenset((State.RECOGNISED, State.NOT_RECOGNISED))
_SHOWN = frozenset((Kind.RECOGNISABLE, Kind.PARTIAL, Kind.ADVISORY))
#: What a revoking takes back; what stays are facts of their own (bills refused, quotes, the settlement, the ordinal).
_UNDECIDED = {name: _NEW[name] for name in (
    "decision", "decided_at", "decided_by", "reason", "text", "explained", "refusal", "fault", "price", "fund",
    "reordered", "reviewed_by")}


# ---------------------------------------------------------------- names

def decision_id(line_id: str, ordinal: int) -> str:
    """The same decision of a line always has the same id."""
    return str(uuid.uuid5(_IDS, f"{line_id}|{ordinal}"))


def card_id(shown: Iterable[tuple[str, str]]) -> str:
    """The uuid of a card that shows these (line id, reference of a result): the same matches, the same card."""
    return str(uuid.uuid5(_IDS, "card|" + "|".join(f"{line} {result}" for line, result in sorted(shown))))


# ---------------------------------------------------------------- lines

def body_of(line: Line) -> LineBody:
    """A line's body as values; members that this program does not know are left out, missing ones are the default."""
    return LineBody(**{name: value for name, value in line.body.items() if name in _NEW})


def rebuild(events: Iterable[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """State and body of a line from its events alone."""
    state, body = "", dict(_NEW)
    for event in events:
        state = event["state"]
        body.update(event["set"])
    return state, body


def changed(line: Line, kind: EventKind, state: str, by: str, members: Mapping[str, Any],
            said: Mapping[str, Any] | None = None, cards: Sequence[str] = ()) -> LineChange:
    """The line with these members and in this state, and the event that says so."""
    before = line.body or _NEW
    new = {name: value for name, value in members.items() if before.get(name, _NEW[name]) != value}
    event: dict[str, Any] = {"kind": kind.value, "state": state}
    if by:
        event["doctor"] = by
    if not line.version:
        event.update(institution=line.institution, number=line.number, item=line.item)
    event.update({name: value for name, value in (said or {}).items() if value not in ("", None, 0, (), [])})
    event["set"] = new
    return LineChange(replace(line, state=state, body={**_NEW, **line.body, **new}), (event,), tuple(cards))


def with_members(change: LineChange, members: Mapping[str, Any]) -> LineChange:
    """A change of one event that sets further members."""
    [event] = change.events
    new = {**event["set"], **members}
    line = replace(change.line, body={**change.line.body, **members})
    return replace(change, line=line, events=({**event, "set": new},))


def same(line: Line) -> LineChange:
    """Nothing to do."""
    return LineChange(line)


# ---------------------------------------------------------------- orders and reminders

@dataclass(frozen=True, slots=True)
class Found:
    """What a check found out about an order beside its verdict; all JSON-able."""

    results: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    issuers: tuple[str, ...] = ()
    patient: str = ""
    card: str = ""
    interruptive: bool = False
    hook: str = ""
    trace: tuple[Mapping[str, Any], ...] = ()


def suppresses(line: Line, item: str, results: Iterable[str]) -> bool:
    """Whether the line needs no further reminder: billed, or decided for these results (recognised: whatever else came
    since). A number that now stands for another item was not decided."""
    if line.item and item and line.item != item:
        return False
    if line.body.get("billed") or line.state == State.RECOGNISED:
        return True
    return line.state == State.NOT_RECOGNISED and set(results) == set(line.body.get("results", ()))


def remind(line: Line, order: Order, verdict: Verdict, found: Found, now: int) -> LineChange:
    """An order as it was checked: a new line, or one whose verdict, results or item are others than before.

    A decided or billed line stays as it is until its decision is revoked: then it is checked again.
    """
    if line.version and (line.state in DECIDED or line.body.get("billed")):
        return same(line)
    covered = verdict.kind in _SHOWN
    before = line.body
    if line.version and line.item == order.item and before.get("verdict") == verdict.kind.value \
            and list(before.get("results", ())) == list(found.results) \
            and before.get("missing", []) == list(verdict.missing) and before.get("preselected", "") == verdict.reason \
            and (before.get("interruptive") or not found.interruptive) and before.get("patient") == found.patient \
            and (not covered or before.get("card", "") == found.card):  # else feedback on the new card would miss it
        return same(line)
    members: dict[str, Any] = {
        "local": order.local, "display": order.display, "department": order.department, "doctor": order.doctor,
        "encounter": order.encounter, "setting": order.setting, "scheme": order.scheme, "side": order.side.value,
        "reference": order.reference, "patient": found.patient, "verdict": verdict.kind.value,
        "interruptive": bool(before.get("interruptive") or found.interruptive), "results": list(found.results),
        "reports": list(found.reports), "issuers": list(found.issuers), "missing": list(verdict.missing),
        "states": list(verdict.states), "preselected": verdict.reason, "catalogue": verdict.catalogue}
    state = State(line.state) if line.state else State.ORDERED
    if covered:
        members["card"] = found.card
        members["reminded_at"] = before.get("reminded_at") or now
        if state is State.ORDERED:
            state = State.REMINDED
    kind = EventKind.REMINDED if covered else EventKind.ORDERED
    said = {"item": order.item, "hook": found.hook, "codes": list(verdict.codes),
            "trace": list(found.trace) if covered else []}
    moved = replace(line, item=order.item)
    return changed(moved, kind, state.value, order.doctor, members, said, (found.card,) if covered else ())


def reordered(line: Line, later: str, at: int) -> LineChange:
    """The earlier line, when ``later`` orders the same item again within seven days after its recognition."""
    body = line.body
    if line.state != State.RECOGNISED or body.get("reordered") or line.id == later \
            or not 0 <= at - body.get("decided_at", 0) <= REORDER_WITHIN:
        return same(line)
    return changed(line, EventKind.REORDERED, line.state, "", {"reordered": True}, {"later": later})


# ---------------------------------------------------------------- actions

def apply(line: Line, action: Action, rules: RuleSet, now: int, on: date) -> LineChange:
    """What an action makes of a line; ``on``: the local day of ``now``.

    No events where it was done before: by the same key, or by the same doctor with the same reason. CONFLICT (detail
    ``decided``) where another decision stands, (``stale``) where it means an older one, (``billed``); INVALID.
    """
    _check(action, line, now)
    print_ = fingerprint(action)
    if action.key and (known := line.body.get("keys", {}).get(action.key)):
        if known != print_:
            raise GatewayError(Category.INVALID, "this key was used for another action; use a new key for each", "key")
        return same(line)
    step = _STEPS.get(action.kind)
    if step is None:
        raise GatewayError(Category.INVALID, f"action must be one of {', '.join(_STEPS)}", "action",
                           detail="table-value")
    change = step(line, body_of(line), action, rules, now, on)
    return _with_key(change, line, action, print_) if action.key and change.events else change


def fingerprint(action: Action) -> str:
    """What a key stands for."""
    said = f"{action.kind}|{action.doctor}|{action.reason}|{action.text}|{action.decision}|{action.counts}"
    return blake2b(said.encode(), digest_size=6).hexdigest()


def _with_key(change: LineChange, line: Line, action: Action, print_: str) -> LineChange:
    return with_members(change, {"keys": {**line.body.get("keys", {}), action.key: print_}})


def _check(action: Action, line: Line, now: int) -> None:
    if not action.doctor.strip():
        raise GatewayError(Category.INVALID, "say which doctor acts", "doctor", detail="required")
    for name, most in _LONGEST.items():
        if len(getattr(action, name)) > most:
            raise GatewayError(Category.INVALID, f"at most {most} characters", name)
    if action.at > now + CLOCK_SKEW:
        raise GatewayError(Category.INVALID, "the time lies more than five minutes in the future; set the client's "
                                             "clock", "at")
    if action.at and line.created and action.at < line.created - CLOCK_SKEW:
        raise GatewayError(Category.INVALID, "the time lies before the order was known; set the client's clock", "at")


def _require_covered(body: LineBody) -> None:
    if body.verdict not in _SHOWN:
        raise GatewayError(Category.INVALID, "no earlier result covers this order line: there is nothing to view or "
                                             "to decide; let the order go on", "line", detail="not-covered")


def _require_undecided(line: Line, body: LineBody) -> None:
    if line.state in DECIDED:
        raise GatewayError(Category.CONFLICT, f"decision {body.decision} stands: {line.state}; revoke it first, or "
                                              "leave it", "line", detail="decided")


def _require_in_order(body: LineBody, action: Action) -> None:
    """A decision that was made before the last one, and came later: the clients' clocks are compared where one client's
    doctor made both, else with the tolerance that clocks have."""
    if not action.at or not body.acted_at:
        return
    own = body.acted_client if body.acted_client and body.acted_by == action.doctor else 0
    if action.at < (own or body.acted_at - CLOCK_SKEW):
        raise GatewayError(Category.CONFLICT, "a later decision about this line came before this one; read the line "
                                              "again", "at", detail="stale")


def _acted(action: Action, now: int) -> dict[str, Any]:
    return {"acted_at": now, "acted_client": action.at, "acted_by": action.doctor}


def _said(action: Action) -> dict[str, Any]:
    return {"via": action.via, "client_time": action.at}


def _view(line: Line, body: LineBody, action: Action, rules: RuleSet, now: int, on: date) -> LineChange:
    """A view that comes after the decision is kept, and changes nothing of it."""
    _require_covered(body)
    if action.doctor in body.viewers:
        return same(line)
    state = State.VIEWED.value if line.state == State.REMINDED else line.state
    members = {"viewers": [*body.viewers, action.doctor], "viewed_at": body.viewed_at or now}
    return changed(line, EventKind.VIEWED, state, action.doctor, members, _said(action))


def _quote(line: Line, body: LineBody, action: Action, rules: RuleSet, now: int, on: date) -> LineChange:
    _require_covered(body)
    if action.doctor in body.quoters:
        return same(line)
    members = {"quoters": [*body.quoters, action.doctor], "quoted": body.quoted + 1}
    return changed(line, EventKind.QUOTED, line.state, action.doctor, members,
                   {**_said(action), "results": body.results, "decision": body.decision})


def _decided(line: Line, body: LineBody, action: Action, rules: RuleSet, now: int, on: date) -> dict[str, Any]:
    price, fund = worth(rules, line, body, on)
    ordinal = body.ordinal + 1
    return {"decision": decision_id(line.id, ordinal), "ordinal": ordinal, "decided_at": now,
            "decided_by": action.doctor, "catalogue": rules.version, "price": price, "fund": fund,
            "text": action.text.strip(), "reason": "", "explained": action.explained, "refusal": "", "fault": False,
            **_acted(action, now)}


def _recognise(line: Line, body: LineBody, action: Action, rules: RuleSet, now: int, on: date) -> LineChange:
    if line.state == State.RECOGNISED and body.decided_by == action.doctor:
        return same(line)
    _require_undecided(line, body)
    _require_in_order(body, action)
    _require_covered(body)
    if body.billed:
        raise GatewayError(Category.CONFLICT, "this order line is billed; cancel the bill first, then recognise",
                           "line", detail="billed")
    if not body.viewed_at and rules.setting(line.institution, "must_view", line.item, body.department, on) == "yes":
        raise GatewayError(Category.INVALID, "the earlier report was not opened yet; open it (action view) and decide "
                                             "then", "action", detail="view")
    members = _decided(line, body, action, rules, now, on)
    return changed(line, EventKind.RECOGNISED, State.RECOGNISED.value, action.doctor, members, _judged(members, body)
                   | _said(action))


def _judged(members: Mapping[str, Any], body: LineBody) -> dict[str, Any]:
    """What the decision was about, in the event itself."""
    return {"decision": members["decision"], "reason": members["reason"], "verdict": body.verdict,
            "results": body.results, "catalogue": members["catalogue"]}


def _not_recognise(line: Line, body: LineBody, action: Action, rules: RuleSet, now: int, on: date) -> LineChange:
    if line.state == State.NOT_RECOGNISED and (body.decided_by, body.reason) == (action.doctor, action.reason):
        return same(line)
    _require_undecided(line, body)
    _require_in_order(body, action)
    _require_covered(body)
    if not action.reason:
        raise GatewayError(Category.INVALID, f"say why not: one of {_reasons(line, rules, on)}", "reason",
                           detail="required")
    reason = rules.reason(line.institution, action.reason, on)
    if reason is None:
        raise GatewayError(Category.INVALID, "this hospital's region has no such reason today; choose one of "
                                             f"{_reasons(line, rules, on)}", "reason", detail="table-value")
    if reason.needs_text and not action.text.strip():
        raise GatewayError(Category.INVALID, "this reason needs a text; say in words why the result cannot be used",
                           "text", detail="required")
    if action.explained is not True and \
            rules.setting(line.institution, "explained", line.item, body.department, on) == "yes":
        raise GatewayError(Category.INVALID, "tell the patient why the repeat is needed and say so (explained)",
                           "explained", detail="required")
    members = _decided(line, body, action, rules, now, on) | {"reason": reason.code, "refusal": reason.counts,
                                                              "fault": reason.availability}
    return changed(line, EventKind.NOT_RECOGNISED, State.NOT_RECOGNISED.value, action.doctor, members,
                   _judged(members, body) | _said(action))


def _reasons(line: Line, rules: RuleSet, on: date) -> str:
    return ", ".join(reason.code for reason in rules.reasons_for(line.institution, on)) or "(none are loaded)"


def _revoke(line: Line, body: LineBody, action: Action, rules: RuleSet, now: int, on: date) -> LineChange:
    """Back to where the line stood before: viewed, or reminded where nobody opened the report."""
    if line.state not in DECIDED:
        last = decision_id(line.id, body.ordinal) if body.ordinal else ""
        if last and body.acted_by == action.doctor and action.decision in ("", last):
            return same(line)
        raise GatewayError(Category.CONFLICT, "no decision of this line stands; there is nothing to revoke", "decision",
                           detail="stale")
    if action.decision and action.decision != body.decision:
        raise GatewayError(Category.CONFLICT, f"that decision does not stand any more; decision {body.decision} does: "
                                              f"{line.state}", "decision", detail="stale")
    _require_in_order(body, action)
    state = State.VIEWED if body.viewed_at else State.REMINDED
    members = {**_UNDECIDED, **_acted(action, now)}
    said = {"decision": body.decision, "text": action.text.strip(), **_said(action)}
    return changed(line, EventKind.REVOKED, state.value, action.doctor, members, said)


def _review(line: Line, body: LineBody, action: Action, rules: RuleSet, now: int, on: date) -> LineChange:
    """A commission says whether a refusal for a reason under review counts; it may correct itself."""
    if line.state != State.NOT_RECOGNISED or (action.decision and action.decision != body.decision):
        raise GatewayError(Category.CONFLICT, "that decision does not stand any more; read the line again", "decision",
                           detail="stale")
    if body.refusal != "reviewed" and not body.reviewed_by:
        raise GatewayError(Category.INVALID, "the reason of this decision needs no review", "decision")
    if action.counts is None:
        raise GatewayError(Category.INVALID, "say whether the refusal counts: true or false", "counts",
                           detail="required")
    refusal = "yes" if action.counts else "no"
    if body.refusal == refusal:
        return same(line)
    return changed(line, EventKind.REVIEWED, line.state, action.doctor,
                   {"refusal": refusal, "reviewed_by": action.doctor},
                   {"decision": body.decision, "text": action.text.strip(), **_said(action)})


_STEPS = {"view": _view, "recognise": _recognise, "not_recognise": _not_recognise, "revoke": _revoke, "quote": _quote,
          "review": _review}
ACTIONS = tuple(_STEPS)


# ---------------------------------------------------------------- money

def worth(rules: RuleSet, line: Line, body: LineBody, on: date) -> tuple[str, str]:
    """What the line costs at the ordering hospital on a day, and the fund's part, in yuan; empty: no price is known.

    A panel without a price of its own costs what its members cost together. Of a PARTIAL panel only the members found
    are saved; the others are ordered and billed as lines of their own.
    """
    found = [line.item]
    members = rules.members(line.item)
    if body.missing or (members and rules.price(line.institution, line.item, on) is None):
        found = [member for member in members if member not in body.missing]
    prices = [rules.price(line.institution, item, on) for item in found]
    known = [price for price in prices if price is not None]
    if not known or (not body.missing and len(known) < len(prices)):
        return "", ""
    return _yuan(sum((price.price for price in known), Decimal())), _yuan(sum(map(_share, known), Decimal()))


def _share(price: Price) -> Decimal:
    return (price.price * price.fund).quantize(_CENT, ROUND_HALF_UP)


def _yuan(amount: Decimal) -> str:
    return format(amount.quantize(_CENT, ROUND_HALF_UP), "f")
