"""Reminders that wait for a decision, and lines as ``check`` gave them, from what the lines keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from gateway.caller import GATEWAY
from gateway.recognition.checking import shown_from
from gateway.recognition.coverage import Coverage
from gateway.recognition.decision import body_of
from gateway.recognition.model import Checked, Kind, LineBody, Order, Shown, Side, State, Verdict
from gateway.recognition.orders import candidate_from
from gateway.recognition.rules import RuleSet
from gateway.store.model import Line

if TYPE_CHECKING:
    from gateway.store import Store

DAY = 86_400 * 1_000_000
#: A pending reminder is shown for this long.
PENDING_DAYS = 30
_STATES = (State.REMINDED.value, State.VIEWED.value)
_PAGE, _MOST_READ = 200, 2000  # lines that a list reads at a time, and in all of a state


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pending lines are asked for; empty: any."""

    institution: str
    doctor: str = ""
    encounter: str = ""

    def by(self, line: Line) -> bool:
        """Whether a line waits for a decision, and is asked for."""
        body = line.body
        return line.institution == self.institution and line.state in _STATES and not body.get("billed") \
            and body.get("verdict") not in ("", Kind.NOT.value) \
            and (not self.doctor or body.get("doctor") == self.doctor) \
            and (not self.encounter or body.get("encounter") == self.encounter)


class Pending:
    """Reads lines of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def lines(self, wanted: Wanted, person: int, since: int, limit: int) -> list[Line]:
        """Newest first; of one person, or (``person`` 0) of the hospital's newest `_MOST_READ` of a state."""
        if person:
            return [line for line in self._store.lines_of(person, since=since) if wanted.by(line)][:limit]
        found = [line for state in _STATES for line in self._of_state(wanted, state, since, limit)]
        return sorted(found, key=lambda line: (-line.created, line.id))[:limit]

    def _of_state(self, wanted: Wanted, state: str, since: int, limit: int) -> list[Line]:
        found: list[Line] = []
        after = None
        for _ in range(0, _MOST_READ, _PAGE):
            page = self._store.lines_where(wanted.institution, state, since, limit=_PAGE, after=after)
            found += [line for line in page if wanted.by(line)]
            if len(page) < _PAGE or len(found) >= limit:
                break
            after = page[-1].id
        return found

    def restored(self, lines: Sequence[Line], rules: RuleSet, today: date) -> list[Checked]:
        """Lines as ``check`` gave them; their results are named from the index."""
        shown: dict[str, Shown] = {}
        for person in {line.person for line in lines if line.person and line.body.get("results")}:
            shown.update(self._named([line for line in lines if line.person == person], rules))
        return [_restored(line, shown, rules, today) for line in lines]

    def _named(self, lines: Sequence[Line], rules: RuleSet) -> dict[str, Shown]:
        """The results of one person's lines, by reference."""
        coverage = Coverage.of(rules)
        items: set[str] = set().union(*(coverage.candidates_for(line.item) for line in lines))
        rows = self._store.results(lines[0].person, items, 0)
        references = self._store.references(row.pk for row in rows)
        wanted = {result for line in lines for result in line.body["results"]}
        known = {report for line in lines for report in line.body["reports"]}
        chosen = {row.pk: references[row.pk] for row in rows if references.get(row.pk) in wanted}
        standing = self._store.reports_of(chosen, GATEWAY)
        found: dict[str, Shown] = {}
        for row in rows:
            if (reference := chosen.get(row.pk)) is not None:
                reports = sorted((one.id for one in standing.get(row.pk, ())), key=lambda id: (id not in known, id))
                found.setdefault(reference, shown_from(candidate_from(row), reference, next(iter(reports), ""), rules))
        return found


def _restored(line: Line, shown: Mapping[str, Shown], rules: RuleSet, today: date) -> Checked:
    body = body_of(line)
    order = order_of(line, body)
    verdict = Verdict(Kind(body.verdict or "NOT"), order, missing=tuple(body.missing), states=tuple(body.states),
                      reason=body.preselected, catalogue=body.catalogue)
    waits = line.state in _STATES and not body.billed and verdict.kind is Kind.RECOGNISABLE
    blocking = waits and rules.setting(line.institution, "blocking", line.item, body.department, today) == "yes"
    return Checked(order, verdict, tuple(shown[one] for one in body.results if one in shown), line.id, line.state,
                   body.decision, body.interruptive and waits, not waits and verdict.kind is Kind.RECOGNISABLE,
                   blocking, body.card)


def order_of(line: Line, body: LineBody) -> Order:
    """The order as the line keeps it."""
    return Order(line.institution, line.number, line.item, body.local, body.display, body.department, body.doctor,
                 body.encounter, body.setting, Side(body.side), (), body.scheme, body.reference)
