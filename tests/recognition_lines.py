"""Order lines in every state, for the tests of the figures and of the settlement."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from gateway.caller import GATEWAY
from gateway.recognition.model import LineBody
from gateway.store import Store
from gateway.store.model import Line, LineChange, Unit

ZONE = ZoneInfo("Asia/Shanghai")


def at(day: str, hours: float = 9) -> int:
    """Microseconds of a local time of a day."""
    moment = datetime.fromisoformat(day).replace(tzinfo=ZONE) + timedelta(hours=hours)
    return int(moment.timestamp()) * 1_000_000


def line(number: str, state: str = "ordered", institution: str = "a", item: str = "E001", day: str = "2026-03-10",
         **body: object) -> Line:
    """A line of a day; ``body``: fields of LineBody, with what the state implies where nothing else is said."""
    created = at(day)
    if state != "ordered":
        body.setdefault("reminded_at", created)
        body.setdefault("issuers", ["b"])
        body.setdefault("verdict", "RECOGNISABLE")
    if state in ("recognised", "not_recognised"):
        body.setdefault("decided_at", created + 60_000_000)
        body.setdefault("decision", str(uuid.uuid5(uuid.NAMESPACE_URL, number)))
        body.setdefault("ordinal", 1)
    if state != "ordered" and state != "reminded":
        body.setdefault("viewed_at", created + 30_000_000)
    body.setdefault("department", "cardiology")
    body.setdefault("doctor", "d1")
    line_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{institution}|{number}"))
    return Line(line_id, institution, number, 0, item, state, created=created,
                body=asdict(LineBody(**body)))  # type: ignore[arg-type]


def write(store: Store, *lines: Line, kind: str = "test") -> None:
    """Keep lines as they are, each with an event; a line that is there gets another version."""
    known = store.lines([one.id for one in lines])
    changes = []
    for one in lines:
        version = known[one.id].version if one.id in known else 0
        changes.append(LineChange(Line(one.id, one.institution, one.number, one.person, one.item, one.state, version,
                                       one.created, body=one.body), ({"kind": kind},)))
    store.write(Unit(ledger=changes), GATEWAY)
