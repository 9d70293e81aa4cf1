"""Feedback on cards ("Feedback"): accepted suggestions recognise, a reason refuses, and silence decides nothing.

The whole body is read before anything is done; then each entry is told by itself: what one line is refused for stops
neither the others nor the answer 200, since a client cannot correct what a colleague decided before.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from gateway.caller import Caller
from gateway.edges.http.cds_hooks.cards import is_sealed
from gateway.edges.http.sessions import Session
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.recognition.model import Action, Kind
from gateway.recognition.published import REASONS
from gateway.store.model import Line

if TYPE_CHECKING:
    from gateway.recognition.service import Recognition
    from gateway.store import Store

#: Entries of one body, and characters of a comment.
MAX_ENTRIES, MAX_COMMENT = 200, 4000
#: Extensions of an entry: who acted (the ordering doctor where it is not said), and whether the patient was told why.
DOCTOR, EXPLAINED = "huren.example.doctor", "huren.example.explained"
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII).fullmatch
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What one line may be refused for while the others are taken.
_TOLD = frozenset((Category.CONFLICT, Category.INVALID, Category.NOT_FOUND, Category.FORBIDDEN))
_UNKNOWN = {"error": "not-found", "message": "this card has no such suggestion"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One feedback. ``suggestions``: uuids, of an accepted card. ``system`` and ``reason``: of an overridden one."""

    card: str
    accepted: bool
    at: int
    suggestions: tuple[str, ...] = ()
    system: str = ""
    reason: str = ""
    comment: str = ""
    doctor: str = ""
    explained: bool | None = None


@dataclass(frozen=True, slots=True)
class _By:
    """Who sent the feedback."""

    caller: Caller
    peer: str
    session: Session | None

    def doctor(self, entry: Entry, line: Line) -> str:
        """Who acted: the session's doctor, whom the entry names, who ordered."""
        if self.session is not None:
            return self.session.doctor
        return entry.doctor or line.body.get("doctor") or self.caller.name


class Feedback:
    """See the module."""

    def __init__(self, store: Store, recognition: Recognition) -> None:
        self._store = store
        self._recognition = recognition

    def parse(self, raw: bytes) -> list[Entry]:
        """The entries of a body; MALFORMED or INVALID with the place."""
        body = json.loads(raw)
        entries = body.get("feedback")
        if not isinstance(entries, list) or not 0 < len(entries) <= MAX_ENTRIES:
            raise _invalid(f"must be a list of 1 to {MAX_ENTRIES} entries", "feedback")
        return [_entry(entry, f"feedback[{number}]") for number, entry in enumerate(entries)]

    def take(self, entries: Sequence[Entry], institution: str, caller: Caller, peer: str, secret: bytes, *,
             any_institution: bool = False, session: Session | None = None) -> list[dict[str, Any]]:
        """Do what the entries say, and tell of each. NOT_FOUND (detail ``card``) where none names a card of ours.

        ``session``: a plug-in's, whose doctor it is then, and whose patient the lines must be about.
        """
        account, known = [], False
        for entry in entries:
            lines = [line for line in self._store.lines_of_card(entry.card)
                     if any_institution or line.institution == institution]
            quiet = not lines and is_sealed(secret, entry.card)
            known = known or quiet or bool(lines)
            told = self._one(entry, lines, _By(caller, peer, session)) if lines else []
            account.append({"card": entry.card, "outcome": "accepted" if entry.accepted else "overridden",
                            "status": _status(told) if lines else "taken" if quiet else "unknown", "lines": told})
        if not known:
            raise GatewayError(Category.NOT_FOUND, "no card of ours for this hospital has one of these uuids; send "
                                                   "card.uuid of the response", "feedback[0].card", detail="card")
        return account

    def _one(self, entry: Entry, lines: list[Line], by: _By) -> list[dict[str, Any]]:
        """An entry's actions, one after the other, each told."""
        if entry.accepted:
            known = self._store.lines(entry.suggestions)
            found = {id: line for id, line in known.items() if (line.institution, line.person)
                     == (lines[0].institution, lines[0].person)}
            return [{"suggestion": one} | (self._act("recognise", found[one], entry, by)
                                           if one in found else _UNKNOWN) for one in entry.suggestions]
        decided = [line for line in lines if line.body.get("verdict") != Kind.ADVISORY]
        if entry.reason and entry.system == REASONS and decided:
            return [self._act("not_recognise", line, entry, by) for line in decided]
        # Silence is no decision, and a card is not the report: nothing was opened, nothing is recorded.
        told: list[dict[str, Any]] = [{"line": line.id, "state": line.state, "changed": False} for line in lines]
        if entry.reason and entry.system != REASONS:
            told.append({"error": "unsupported", "message": "a reason of another code system decides nothing; send one "
                                                            "of the card's overrideReasons"})
        return told

    def _act(self, kind: str, line: Line, entry: Entry, by: _By) -> dict[str, Any]:
        """One action on one line. The same feedback again is the same action, by its key."""
        reason = entry.reason if kind == "not_recognise" else ""
        action = Action(kind, line.id, by.doctor(entry, line), at=entry.at,
                        key=f"feedback|{entry.card}|{entry.at}|{kind}", reason=reason,
                        text=entry.comment if reason else "", explained=entry.explained, via="feedback")
        try:
            if by.session is not None:
                by.session.require_line(line)
            done = self._recognition.act(action, by.caller, by.peer)
        except GatewayError as error:
            if error.category not in _TOLD:
                raise
            return {"line": line.id, "error": error.detail or error.category.value, "message": error.message}
        return {"line": line.id, "state": done.state, "changed": done.changed}


def _status(told: Sequence[dict[str, Any]]) -> str:
    refused = sum("error" in one for one in told)
    return "taken" if not refused else "refused" if refused == len(told) else "partly"


# ---------------------------------------------------------------- shape

def _entry(entry: Any, place: str) -> Entry:
    if not isinstance(entry, dict):
        raise _invalid("must be an object", place)
    card, outcome = entry.get("card"), entry.get("outcome")
    if not isinstance(card, str) or not _UUID(card):
        raise _invalid("must be the uuid of a card", f"{place}.card")
    if outcome not in ("accepted", "overridden"):
        raise _invalid("must be accepted or overridden", f"{place}.outcome")
    at = _time(entry.get("outcomeTimestamp"), f"{place}.outcomeTimestamp")
    extension = entry.get("extension", {})
    if not isinstance(extension, dict):
        raise _invalid("must be an object", f"{place}.extension")
    doctor, explained = extension.get(DOCTOR, ""), extension.get(EXPLAINED)
    if not isinstance(doctor, str) or not (explained is None or isinstance(explained, bool)):
        raise _invalid(f"{DOCTOR} must be a text, {EXPLAINED} true or false", f"{place}.extension")
    card = str(uuid.UUID(card))
    if outcome == "accepted":
        return Entry(card, True, at, _suggestions(entry.get("acceptedSuggestions"), f"{place}.acceptedSuggestions"),
                     doctor=doctor, explained=explained)
    system, code, comment = _reason(entry.get("overrideReason"), f"{place}.overrideReason")
    return Entry(card, False, at, (), system, code, comment, doctor, explained)


def _suggestions(value: Any, place: str) -> tuple[str, ...]:
    """Required for ``accepted`` ("Suggestion accepted")."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_ENTRIES:
        raise _invalid("must list the accepted suggestions", place)
    found = []
    for number, one in enumerate(value):
        name = one.get("id") if isinstance(one, dict) else None
        if not isinstance(name, str) or not _UUID(name):
            raise _invalid("must be the uuid of a suggestion", f"{place}[{number}].id")
        found.append(str(uuid.UUID(name)))
    return tuple(dict.fromkeys(found))


def _reason(value: Any, place: str) -> tuple[str, str, str]:
    """System and code of ``overrideReason.reason``, and ``userComment``; empty where the user gave none."""
    if value is None:
        return "", "", ""
    reason = value.get("reason") if isinstance(value, dict) else ""
    comment = value.get("userComment") if isinstance(value, dict) else None
    if not (reason is None or isinstance(reason, dict)) or not (comment is None or isinstance(comment, str)):
        raise _invalid("must be an object with reason, a Coding, or userComment, a text", place)
    if comment and len(comment) > MAX_COMMENT:
        raise _invalid(f"at most {MAX_COMMENT} characters", f"{place}.userComment")
    if reason is None:
        return "", "", comment or ""
    system, code = reason.get("system"), reason.get("code")
    if not isinstance(code, str) or not code or not isinstance(system, str):
        raise _invalid("must be a Coding with code and system", f"{place}.reason")
    return system, code, comment or ""


def _time(value: Any, place: str) -> int:
    """µs of an ISO 8601 time with an offset ("ISO timestamp in UTC")."""
    try:
        when = datetime.fromisoformat(value)
        offset = when.utcoffset()
    except (TypeError, ValueError):
        when, offset = _EPOCH, None
    if offset is None:
        raise _invalid("must be a time in UTC such as 2026-01-02T08:00:00Z", place)
    return (when - _EPOCH) // timedelta(microseconds=1)


def _invalid(sentence: str, place: str) -> GatewayError:
    return GatewayError(Category.INVALID, sentence, place)
