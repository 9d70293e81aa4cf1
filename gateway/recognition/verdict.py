"""judge(): what earlier results are worth for an order, by the nine steps, with the trace that says why. Pure.

    0 identity   1 mapping   2 coverage   3 status   4 qualification   5 window   6 patient state   7 flags   8 choose

A result goes through the steps until one refuses it; the code of that step is then its code. Steps 2 (an ``advisory``
edge, an unsaid side) and 7 do not refuse, they make it advisory. Step 6 is about the patient: it changes no verdict and
preselects a reason. The manual is this folder's README, section Verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Any

from gateway.recognition.coverage import Coverage, Link, Relation
from gateway.recognition.model import FLAG_NAMES, Candidate, Kind, Order, Side, Verdict
from gateway.recognition.rules import STATES, RuleSet


class Code(StrEnum):
    """Why a result does not cover an order, or only advises: all there are, in the order of the steps."""

    ID_DOUBT = "ID_DOUBT"  # 0: name, sex or birth date of order and result are in conflict
    UNMAPPED = "UNMAPPED"  # 1: the ordered code leads to no item of this catalogue version
    NOT_COVERED = "NOT_COVERED"  # 2: another item, or the other side
    PARTIAL = "PARTIAL"  # 2: core members of the panel are still to do
    ADVISORY = "ADVISORY"  # 2: the edge is advisory, or a side is not said
    STATUS = "STATUS"  # 3: resource or report is not final, amended or corrected
    NO_MARK = "NO_MARK"  # 4: the issuer was not qualified for the item on the day of the exam
    OUT_OF_SCOPE = "OUT_OF_SCOPE"  # 4: it was, for a region that the ordering hospital is not in
    NEGATIVE_LIST = "NEGATIVE_LIST"  # 4: a region of the ordering hospital does not recognise it
    TIME_INVALID = "TIME_INVALID"  # 5: collection or acquisition time is unknown or in the future
    TOO_OLD = "TOO_OLD"  # 5: outside of the window
    FLAG_CRITICAL = "FLAG_CRITICAL"  # 7
    FLAG_HAEMOLYSIS = "FLAG_HAEMOLYSIS"  # 7
    FLAG_REPEAT = "FLAG_REPEAT"  # 7
    FLAG_IMAGES = "FLAG_IMAGES"  # 7


#: A result that claims to be taken this little after now counts as taken now: clocks of hospitals disagree.
SKEW = 5 * 60 * 1_000_000
#: Results that a trace names; the others are counted.
TRACED = 20
#: Statuses that hold a result to rely on (observation-status, diagnostic-report-status).
ISSUED = frozenset(("final", "amended", "corrected"))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_ORDER = {code: number for number, code in enumerate(Code)}
_STEPS = ("identity", "mapping", "coverage", "status", "qualification", "window", "patient-state", "result-flags",
          "choose")
#: Entries that a RuleSet's memory holds before it is begun anew.
_REMEMBERED = 100_000

Row = dict[str, Any]


def judge(order: Order, candidates: Sequence[Candidate], rules: RuleSet, now: int, zone: tzinfo) -> Verdict:
    """What these earlier results of one person are worth for an order at ``now`` (µs), by the nine steps.

    ``zone`` decides on which day an exam was made and which day it is now. The order of the candidates does not
    matter, and one that does not concern the order does no harm: the same list serves several orders.
    """
    if not rules.knows(order.item):
        row = _row(1, {"local": order.local, "item": order.item}, Code.UNMAPPED)
        return Verdict(Kind.NOT, order, codes=(Code.UNMAPPED.value,), catalogue=rules.version, trace=(row,))
    return _Judgement(order, rules, now, zone).of(candidates)


def judge_all(orders: Sequence[Order], candidates: Sequence[Candidate], rules: RuleSet, now: int, zone: tzinfo,
              report_status: Callable[[Sequence[Candidate]], Mapping[int, str]]) -> list[Verdict]:
    """`judge` for the orders of a signature, where the report's status is looked up only for what would be chosen.

    ``report_status``: asked for candidates, gives the status of the DiagnosticReport of each by ``pk``, "" for none.
    It is asked again, for those that were not asked for yet, until every chosen candidate stands; reports that are
    issued change nothing, so that nothing is judged again for them.
    """
    asked: set[tuple[str, int]] = set()
    while True:
        verdicts = [judge(order, candidates, rules, now, zone) for order in orders]
        wanted = list({(one.kind, one.pk): one for verdict in verdicts for one in verdict.chosen
                       if not one.report_status and (one.kind, one.pk) not in asked}.values())
        if not wanted:
            return verdicts
        asked.update((one.kind, one.pk) for one in wanted)
        found = report_status(wanted)
        new = {(one.kind, one.pk): found[one.pk] for one in wanted if found.get(one.pk)}
        if ISSUED.issuperset(new.values()):
            return verdicts
        candidates = [replace(one, report_status=new[one.kind, one.pk]) if (one.kind, one.pk) in new else one
                      for one in candidates]


@lru_cache(maxsize=16384)
def local_day(at: int, zone: tzinfo) -> date:
    """The local day of a time in µs since the epoch; the calendar's first or last where it holds no such time."""
    try:
        return (_EPOCH + at * _US).astimezone(zone).date()
    except OverflowError:
        return date.min if at < 0 else date.max


@dataclass(slots=True)
class _Case:
    """How far one candidate came for one target: ``grade`` 2 covers, 1 advises, 0 refused at ``step``."""

    candidate: Candidate
    link: Link
    grade: int
    step: int
    codes: tuple[Code, ...] = ()
    level: int = 0  # of the issuer
    region: str = ""  # whose qualification reaches the orderer
    window: int = 0  # µs

    def key(self) -> tuple[Any, ...]:
        """Ascending: the last is the best (step 8), and no two are equal by chance."""
        one = self.candidate
        return (self.grade, self.step, one.time, self.level, -one.pk, one.kind, one.item, self.link.target, one.side,
                one.status, one.report_status, one.flags, one.session, one.institution)


class _Memory:
    """What a RuleSet says, by day: qualifications and windows are asked for a thousand times a second."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._standing: dict[tuple[Any, ...], tuple[Code | None, str]] = {}
        self._window: dict[tuple[Any, ...], int] = {}
        self._windowed = frozenset(row.item for row in rules.windows) & rules.catalogue.panels.keys()

    @classmethod
    def of(cls, rules: RuleSet) -> _Memory:
        made = vars(rules).get("_verdicts")
        return made if made is not None else vars(rules).setdefault("_verdicts", cls(rules))

    def standing(self, issuer: str, order: Order, link: Link, item: str, on: date,
                 today: date) -> tuple[Code | None, str]:
        """Step 4: None and the region whose qualification reaches the orderer, or the code and ""."""
        key = (issuer, order.institution, order.item, link.target, item, on, today)
        found = self._standing.get(key)
        if found is None:
            found = self._stands(issuer, order, link, item, on, today)
            if len(self._standing) >= _REMEMBERED:
                self._standing.clear()
            self._standing[key] = found
        return found

    def _stands(self, issuer: str, order: Order, link: Link, item: str, on: date,
                today: date) -> tuple[Code | None, str]:
        row, code = self._rules.qualified(issuer, order.institution, item, on)
        if row is None:
            return Code(code), ""
        # What was examined, what is asked for and the panel that it is asked in; a list of today and one of that day.
        for excluded in dict.fromkeys((item, link.target, order.item)):
            for day in (on, today):
                if self._rules.negative(issuer, order.institution, excluded, day):
                    return Code.NEGATIVE_LIST, ""
        return None, row.region

    def window(self, order: Order, target: str, today: date) -> int:
        """Step 5: how old a result may be for what is asked for, µs; a panel's own window shortens its members'."""
        key = (order.institution, order.setting, order.item, target, today)
        found = self._window.get(key)
        if found is None:
            length = self._rules.window(order.institution, order.setting, target, today)
            if order.item in self._windowed:
                length = min(length, self._rules.window(order.institution, order.setting, order.item, today))
            if len(self._window) >= _REMEMBERED:
                self._window.clear()
            found = self._window[key] = length // _US
        return found


class _Judgement:
    """One order before one RuleSet, at one time."""

    def __init__(self, order: Order, rules: RuleSet, now: int, zone: tzinfo) -> None:
        self.order, self.rules, self.now, self.zone = order, rules, now, zone
        self.today = local_day(now, zone)
        self.memory = _Memory.of(rules)
        self.coverage = Coverage.of(rules)

    def of(self, candidates: Sequence[Candidate]) -> Verdict:
        cases, own, others = self._cases(candidates)
        cases.sort(key=_Case.key)
        panel = self.order.item in self.rules.catalogue.panels
        kind, chosen, codes, missing, rows = self._of_panel(cases) if panel else self._of_item(cases)
        if kind is Kind.NOT:
            codes = _codes(cases, max((case.step for case in cases), default=0)) or (Code.NOT_COVERED,)
        states, reason = self._states(chosen) if chosen else ((), "")
        trace = [*self._opening(own, others, bool(cases)), *self._results(cases, chosen), *rows]
        if states:
            trace.append(_row(6, {"states": list(states), "reason": reason}, "preselect" if reason else "noted"))
        results = tuple(dict.fromkeys(case.candidate for case in chosen))
        trace.append(_row(8, {"results": [one.pk for one in results], "catalogue": self.rules.version}, kind.value))
        return Verdict(kind, self.order, results, missing, tuple(code.value for code in codes), states, reason,
                       self.rules.version, tuple(trace))

    def _cases(self, candidates: Sequence[Candidate]) -> tuple[list[_Case], int, int]:
        """The results that concern the order, how far each came; how many are the orderer's own, and how many others.
        """
        links, here = self.coverage.links(self.order.item), self.order.institution
        cases: list[_Case] = []
        own = others = 0
        kept = None
        for one in candidates:
            found = links.get(one.item)
            if found is None:
                others += 1
                continue
            if one.institution == here:
                if kept is None:
                    kept = self.rules.setting(here, "own_results", self.order.item, self.order.department, self.today)
                if kept != "yes":
                    own += 1
                    continue
            cases.extend(self._case(one, link) for link in found)
        return cases, own, others

    def _case(self, one: Candidate, link: Link) -> _Case:
        """Steps 0, 2 to 5 and 7 for one result; that it concerns what is ordered is known."""
        if one.identity_doubt:
            return _Case(one, link, 0, 0, (Code.ID_DOUBT,))
        advisory = link.relation is Relation.ADVISORY
        if self._sided(link.target):
            sided = _side(self.order.side, one.side)
            if sided is Relation.NONE:
                return _Case(one, link, 0, 2, (Code.NOT_COVERED,))
            advisory = advisory or sided is Relation.ADVISORY
        if one.status not in ISSUED or one.report_status and one.report_status not in ISSUED:
            return _Case(one, link, 0, 3, (Code.STATUS,))
        # Without a credible time there is no day of the exam: step 4 cannot be asked, step 5 refuses.
        if one.time == 0 or one.time > self.now + SKEW:
            return _Case(one, link, 0, 5, (Code.TIME_INVALID,))
        day = local_day(one.time, self.zone)
        code, region = self.memory.standing(one.institution, self.order, link, one.item, day, self.today)
        if code is not None:
            return _Case(one, link, 0, 4, (code,))
        window = self.memory.window(self.order, link.target, self.today)
        if self.now - one.time > window:
            return _Case(one, link, 0, 5, (Code.TOO_OLD,), 0, region, window)
        codes: tuple[Code, ...] = (Code.ADVISORY,) if advisory else ()
        if one.flags:
            codes += tuple(Code(name) for bit, name in FLAG_NAMES.items() if one.flags & bit)
        level = self.rules.level_of(one.institution)
        # Advisory ones end in one step, whatever advises: only the choice of step 8 is between them.
        return _Case(one, link, 1 if codes else 2, 7 if codes else 8, codes, level, region, window)

    def _sided(self, item: str) -> bool:
        known = self.rules.item(item)
        return known is not None and known.sided

    # ---------------------------------------------------------------- step 8

    def _of_item(self, cases: list[_Case]) -> _Found:
        """The best, which is the last."""
        if not cases or cases[-1].grade == 0:
            return Kind.NOT, (), (), (), ()
        best = cases[-1]
        return (Kind.RECOGNISABLE if best.grade == 2 else Kind.ADVISORY), (best,), best.codes, (), ()

    def _of_panel(self, cases: list[_Case]) -> _Found:
        """The set of valid members, from several reports; of a function test the best of its sessions."""
        members = self.coverage.targets(self.order.item)
        core = self.rules.core_members(self.order.item).intersection(members)
        if self.order.item not in self.rules.same_session:
            return self._of_members(members, core, cases)
        sessions: dict[tuple[str, int], list[_Case]] = {}
        for case in cases:
            one = case.candidate
            sessions.setdefault((one.institution, one.session) if one.session else (one.kind, -one.pk), []).append(case)
        found = [self._of_members(members, core, sessions[session]) for session in sorted(sessions)]
        return max(found, key=_found_key, default=(Kind.NOT, (), (), (), ()))

    def _of_members(self, members: tuple[str, ...], core: frozenset[str], cases: list[_Case]) -> _Found:
        best = {case.link.target: case for case in cases if case.grade}  # the last of each is its best
        covered = {member: case for member, case in best.items() if case.grade == 2}
        used = covered or best
        if not used:
            return Kind.NOT, (), (), (), ()
        chosen = tuple(sorted(used.values(), key=_Case.key, reverse=True))
        lacking = [member for member in members if member not in used]
        whole = bool(core) and core <= used.keys()
        kind = (Kind.RECOGNISABLE if whole else Kind.PARTIAL) if covered else Kind.ADVISORY
        facts = {"panel": self.order.item, "core": len(core), "members": len(members), "covered": len(used),
                 "lacking": lacking, "same_session": self.order.item in self.rules.same_session}
        codes = {code for case in chosen for code in case.codes} | (set() if whole else {Code.PARTIAL})
        missing = tuple(lacking) if kind is Kind.PARTIAL else ()
        return kind, chosen, tuple(sorted(codes, key=_ORDER.__getitem__)), missing, \
            (_row(2, facts, "ok" if whole else Code.PARTIAL, "panel"),)

    # ---------------------------------------------------------------- step 6

    def _states(self, chosen: Sequence[_Case]) -> tuple[tuple[str, ...], str]:
        """What happens to the patient or happened after the (oldest) chosen result, and the reason that it preselects.
        """
        oldest = min(case.candidate.time for case in chosen)
        found = {"STATE_EMERGENCY"} if self.order.setting == "EMER" else set()
        for happening in self.order.happenings:
            if happening.kind in ("emergency", "forensic"):
                found.add(f"STATE_{happening.kind.upper()}")
            elif happening.at == 0 or happening.at > self.now:
                found.add(f"STATE_BEFORE_{happening.kind.upper()}")
            elif happening.at > oldest:
                found.add(f"STATE_AFTER_{happening.kind.upper()}")
        states = tuple(state for state in STATES if state in found)
        reasons = self.rules.reasons_for(self.order.institution, self.today) if states else []
        return states, next((row.code for state in states for row in reasons if state in row.preselected_by), "")

    # ---------------------------------------------------------------- trace

    def _opening(self, own: int, others: int, concerned: bool) -> Iterable[Row]:
        yield _row(1, {"local": self.order.local, "item": self.order.item}, "ok")
        if own:
            yield _row(0, {"results": own}, "left-out", "own-results")
        if others or not concerned:
            yield _row(2, {"results": others}, Code.NOT_COVERED)

    def _results(self, cases: list[_Case], chosen: Sequence[_Case]) -> Iterable[Row]:
        """A row for each of the best, and then of the chosen, best last; how many are left out."""
        last = {id(case) for case in chosen}
        ordered = sorted(cases, key=lambda case: id(case) in last)
        if len(ordered) > TRACED:
            yield _row(2, {"results": len(ordered) - TRACED}, "not-traced", "bound")
        for case in ordered[-TRACED:]:
            step = 2 if case.codes == (Code.ADVISORY,) else case.step
            yield _row(step, self._inputs(case), case.codes[-1] if case.codes else "ok")

    def _inputs(self, case: _Case) -> Row:
        """All that the steps asked about a result: keys, codes, regions and lengths of time, nothing of the patient."""
        one, link = case.candidate, case.link
        made: Row = {"result": one.pk, "item": one.item, "target": link.target, "relation": link.relation.value,
                     "issuer": one.institution, "status": one.status}
        if one.report_status:
            made["report_status"] = one.report_status
        if self._sided(link.target):
            made["sides"] = [self.order.side.value, one.side.value]
        if case.region:
            made |= {"region": case.region, "age_us": max(0, self.now - one.time), "window_us": case.window}
        return made


_Found = tuple[Kind, tuple[_Case, ...], tuple[Code, ...], tuple[str, ...], tuple[Row, ...]]


def _found_key(found: _Found) -> tuple[Any, ...]:
    kind, chosen, codes, missing, _ = found
    return kind.rank, -len(missing), len(chosen), [case.key() for case in chosen]


def _side(ordered: Side, examined: Side) -> Relation:
    """Whether the side that was examined answers for the side that is ordered; both sides answer for either."""
    if examined is Side.BOTH:
        return Relation.FULL
    if ordered is Side.UNKNOWN or examined is Side.UNKNOWN:
        return Relation.ADVISORY
    return Relation.FULL if ordered is examined else Relation.NONE


def _codes(cases: Iterable[_Case], step: int) -> tuple[Code, ...]:
    """The codes of those that came furthest."""
    return tuple(sorted({code for case in cases if case.step == step for code in case.codes}, key=_ORDER.__getitem__))


def _row(step: int, inputs: Row, outcome: str, rule: str = "") -> Row:
    return {"step": step, "rule": rule or _STEPS[step], "inputs": inputs, "outcome": str(outcome)}
