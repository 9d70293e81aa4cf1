"""The billing gate: what a bill for an order line is answered, and the event that says so. Pure.

| line | answer | code |
|---|---|---|
| recognised | deny, until the decision is revoked; an emergency changes nothing | RECOGNISED |
| RECOGNISABLE, reminded, undecided | what the setting ``undecided`` says | UNDECIDED |
| the same, denied, with an emergency's reason | allow; counted | BYPASS |
| not recognised | allow | NOT_RECOGNISED |
| nothing covers it, or only in part or with a flag | allow | NOT_COVERED |
| never seen, and not to be judged either | what the setting ``undecided`` says | UNKNOWN |
| billed already | allow; nothing happens | ALREADY_BILLED |
| cancel | allow | CANCELLED, NOT_BILLED |
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from gateway.errors import Category, GatewayError
from gateway.recognition.decision import body_of, changed, same
from gateway.recognition.model import BillRequest, EventKind, Kind, LineBody, State
from gateway.recognition.rules import RuleSet
from gateway.store.model import Line, LineChange

ACTIONS = ("bill", "check", "cancel")
_LONGEST = {"number": 200, "line": 64, "emergency": 1000, "code": 200, "system": 400, "department": 200, "doctor": 200,
            "scheme": 64}


@dataclass(frozen=True, slots=True)
class Gate:
    """An answer, and what it makes of the line."""

    allowed: bool
    code: str
    change: LineChange


def check(request: BillRequest) -> None:
    """INVALID for a request that no line could answer."""
    if request.action not in ACTIONS:
        raise GatewayError(Category.INVALID, f"action must be one of {', '.join(ACTIONS)}", "action",
                           detail="table-value")
    if not request.line and not request.number.strip():
        raise GatewayError(Category.INVALID, "name the order line: its placer order number, or its id", "number",
                           detail="required")
    for name, most in _LONGEST.items():
        if len(getattr(request, name)) > most:
            raise GatewayError(Category.INVALID, f"at most {most} characters", name)


def gate(line: Line, request: BillRequest, rules: RuleSet, now: int, on: date) -> Gate:
    """May this line be billed? ``line.version`` 0: nobody has seen the order, and it could not be judged now."""
    body = body_of(line)
    if request.action == "cancel":
        return _cancel(line, body, request)
    if body.billed:
        return Gate(True, "ALREADY_BILLED", same(line))
    if line.state == State.RECOGNISED:
        return _deny("RECOGNISED", line, body, request)
    code = _code(line, body)
    if code not in ("UNDECIDED", "UNKNOWN"):
        return _allow(code, line, request, now)
    department = body.department or request.department
    if rules.setting(line.institution, "undecided", line.item or "*", department, on) == "allow":
        return _allow(code, line, request, now)
    if emergency := request.emergency.strip():
        return _allow("BYPASS", line, request, now, emergency)
    return _deny(code, line, body, request)


def _code(line: Line, body: LineBody) -> str:
    if not line.version:
        return "UNKNOWN"
    if line.state == State.NOT_RECOGNISED:
        return "NOT_RECOGNISED"
    return "UNDECIDED" if body.verdict == Kind.RECOGNISABLE else "NOT_COVERED"


def _said(code: str, request: BillRequest) -> dict[str, object]:
    return {"code": code, "action": request.action, "via": request.via}


def _deny(code: str, line: Line, body: LineBody, request: BillRequest) -> Gate:
    said = {**_said(code, request), "decision": body.decision}
    change = changed(line, EventKind.BILLING_BLOCKED, line.state or State.ORDERED.value, request.doctor,
                     {"blocked": body.blocked + 1}, said)
    return Gate(False, code, change)


def _allow(code: str, line: Line, request: BillRequest, now: int, bypass: str = "") -> Gate:
    if request.action == "check":
        return Gate(True, code, same(line))
    members = {"billed": True, "billed_at": now, "bypass": bypass, "scheme": line.body.get("scheme") or request.scheme}
    if not line.version:
        members |= {"department": request.department, "doctor": request.doctor, "local": request.code}
    return Gate(True, code, changed(line, EventKind.BILLED, line.state or State.ORDERED.value, request.doctor, members,
                                    _said(code, request)))


def _cancel(line: Line, body: LineBody, request: BillRequest) -> Gate:
    if not body.billed:
        return Gate(True, "NOT_BILLED", same(line))
    members = {"billed": False, "billed_at": 0, "bypass": ""}
    return Gate(True, "CANCELLED", changed(line, EventKind.BILL_CANCELLED, line.state, request.doctor, members,
                                           _said("CANCELLED", request)))
