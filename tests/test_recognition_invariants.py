"""What must hold of every verdict, over invented catalogues and results.

Each of these was seen to fail with the code mutated against it; the commit that brought them says how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_samples import DAY, HOUR, NOW, refusals

from gateway.recognition.coverage import Coverage, Relation
from gateway.recognition.model import Candidate, Happening, Kind, Order, Side, Verdict
from gateway.recognition.rules import Institution, Negative, Period, Qualification, Region, RuleSet, Setting, Window
from gateway.recognition.verdict import ISSUED, TRACED, Code, judge, judge_all, local_day
from gateway.terminology import Catalogue, Edge, Item, Panel

ZONES = [ZoneInfo(name) for name in ("Asia/Shanghai", "UTC", "America/New_York", "Asia/Kolkata")]
T = TypeVar("T")
CODES = ["I0", "I1", "I2", "I3"]
REGIONS = {code: Region(code, parent, code, code) for code, parent in (("CN", ""), ("ZJ", "CN"), ("HZ", "ZJ"),
                                                                       ("NB", "ZJ"))}
HOSPITALS = ["h0", "h1", "h2", "h3"]
SCOPES = [*REGIONS, *HOSPITALS]
SELECTORS = [*CODES, "C0", "C1", "P0", "P1", "*", "*"]
TODAY = datetime.fromtimestamp(NOW / 1e6, UTC).date()

#: Catalogues of which hypothesis draws, and shrinks, every part.
EDGES = st.builds(Edge, st.sampled_from(CODES), st.sampled_from(CODES), st.sampled_from(["full", "advisory", "none"]),
                  st.just(""))
CATALOGUES = st.lists(EDGES, max_size=10).map(
    lambda edges: Catalogue([Item(code, "test", "C0", "", "") for code in CODES], (), edges))


class World:
    """A version of the catalogue, an order, results and a zone, all made of a seed.

    Hypothesis draws the seed only: drawn part by part, nearly every verdict is NOT, and nothing is asked. Most things
    here have nothing against them; edges may be cycles, which a loader would refuse. ``steady``: no row of the
    tables begins or ends.
    """

    def __init__(self, seed: int, steady: bool = False) -> None:
        self.random = Random(seed)
        self.draw = self.random.choice
        self.steady = steady
        self.rules = self._rules()
        self.zone = self.draw(ZONES)
        self.order = Order(self.draw(["h0", "h0", "h1"]), "1", self.draw([*CODES, "P0", "P1", "P0", "P1"]),
                           setting=self.draw(["", "AMB", "IMP"]), side=self.draw(list(Side)),
                           happenings=tuple(Happening(self.draw(["emergency", "surgery", "admission"]),
                                                      self.draw([0, NOW - DAY, NOW - 9 * DAY, NOW + DAY]))
                                            for _ in range(self.draw([0, 0, 1, 2]))))
        self.results = [self._result(pk) for pk in range(1, self.draw([1, 3, 5, 8, 12, 16]) + 1)]

    def some(self, make: Callable[[], T], *numbers: int) -> tuple[T, ...]:
        """So many of them as is drawn."""
        return tuple(make() for _ in range(self.draw(numbers)))

    def rarely(self) -> bool:
        return self.random.random() < 0.12

    def length(self) -> timedelta:
        return timedelta(days=self.random.randint(1, 40))

    def period(self) -> Period:
        if self.steady or self.random.random() < 0.5:
            return Period()
        ends = sorted(TODAY + timedelta(days=self.random.randint(-40, 3)) for _ in range(2))
        return Period(*self.draw([ends, [ends[0], None], [None, ends[1]]]))

    def qualification(self) -> Qualification:
        return Qualification(self.draw(HOSPITALS), self.draw(SELECTORS), self.draw(list(REGIONS)), self.period())

    def _rules(self) -> RuleSet:
        draw = self.draw
        items = [Item(code, "test", draw(["C0", "C1"]), "", "", sided=self.rarely(),
                      validity_days=self.random.randint(5, 40)) for code in CODES]
        panels = [Panel(code, "", "", tuple(self.random.sample(CODES, draw([1, 2, 3])))) for code in ("P0", "P1")]
        edges = self.some(lambda: Edge(draw(CODES), draw(CODES), draw(["full", "full", "advisory", "none"]), ""),
                          0, 2, 5)
        wide = () if self.rarely() else tuple(Qualification(slug, "*", "CN") for slug in HOSPITALS)
        return RuleSet(
            "1", date(2024, 1, 1), Catalogue(items, panels, edges),
            core={panel.code: frozenset(self.random.sample(panel.members, 1)) for panel in panels if self.rarely()},
            same_session=frozenset(["P1"]), regions=REGIONS,
            institutions={slug: Institution(slug, slug, slug, draw(["HZ", "HZ", "HZ", "NB", "ZJ", ""]),
                                            draw([0, 1, 2, 3])) for slug in HOSPITALS},
            windows=self.some(lambda: Window(draw(SCOPES), draw(SELECTORS), self.length(), draw(["", "IMP"]),
                                             self.period()), 0, 1, 3),
            qualifications=(*self.some(self.qualification, 0, 1, 4), *wide),
            negatives=self.some(lambda: Negative(draw(list(REGIONS)), draw([*HOSPITALS, "*"]), draw(SELECTORS), "",
                                                 self.period()), 0, 0, 0, 1),
            settings=self.some(lambda: Setting(draw(SCOPES), draw(SELECTORS), "own_results", draw(["yes", "no"]),
                                               self.period()), 0, 1, 2))

    def _result(self, pk: int) -> Candidate:
        draw = self.draw
        age = draw([0, 1, 5, 10, 20, 30, 40]) * DAY + draw([-1, 0, 1]) + draw(range(-12, 13)) * HOUR
        return Candidate(pk, draw(["Observation", "DiagnosticReport"]), draw([*CODES, *CODES, "ELSE"]),
                         NOW - max(0, age), draw(["final"] * 9 + ["amended", "preliminary"]),
                         draw(["h0", "h1", "h2", "h3", "h3"]), draw([0, 0, 0, 0, 0, 1, 6]), draw(list(Side)),
                         draw([0, 1, 1, 2]), draw(["", "", "", "", "final", "cancelled"]), self.rarely())

    def judge(self, results: Sequence[Candidate] | None = None, rules: RuleSet | None = None,
              now: int = NOW) -> Verdict:
        """The verdict, with something exchanged."""
        return judge(self.order, self.results if results is None else results, rules or self.rules, now, self.zone)


WORLDS = given(st.integers(0, (1 << 24) - 1).map(World))
STEADY = given(st.integers(0, (1 << 24) - 1).map(lambda seed: World(seed, steady=True)))
SOME = settings(max_examples=300, deadline=None)


def bare(found: Verdict) -> tuple[Any, ...]:
    """What is decided, without why."""
    return found.kind, found.chosen, found.missing


def test_the_worlds_have_everything() -> None:
    """Verdicts of all kinds, and nearly all codes: what is asked below is asked of something."""
    found = [World(seed).judge() for seed in range(1000)]
    assert all(sum(one.kind is kind for one in found) > 50 for kind in Kind)
    assert set(Code) - {"UNMAPPED", "TIME_INVALID", "FLAG_IMAGES"} <= {code for one in found for code in one.codes}
    assert any(one.states for one in found)


# -------------------------------------------------------------------- coverage


@SOME
@given(CATALOGUES)
def test_full_coverage_is_reflexive_and_transitive(catalogue: Catalogue) -> None:
    """And no larger than that asks for: every step of it is an edge."""
    coverage = Coverage(RuleSet("1", date(2024, 1, 1), catalogue))
    said = {(edge.prior, edge.order) for edge in catalogue.edges if edge.coverage == "full"}
    for code in CODES:
        covering = coverage.full(code)
        assert code in covering
        for other in covering:
            assert coverage.full(other) <= covering
            assert other == code or any((other, next) in said for next in covering - {other})
    assert all(prior in coverage.full(ordered) for prior, ordered in said)


@SOME
@given(CATALOGUES)
def test_an_advisory_relation_is_an_edge(catalogue: Catalogue) -> None:
    """Nothing advises by a detour, and what covers is not called advice."""
    coverage = Coverage(RuleSet("1", date(2024, 1, 1), catalogue))
    said = {(edge.prior, edge.order) for edge in catalogue.edges if edge.coverage == "advisory"}
    found = {(prior, code) for code in CODES for prior in CODES if coverage.relation(prior, code) is Relation.ADVISORY}
    assert found == {pair for pair in said if pair[0] not in coverage.full(pair[1])}
    assert all({prior for prior, ordered in found if ordered == code} == coverage.advisory(code) for code in CODES)


@SOME
@WORLDS
def test_nothing_outside_the_candidates_is_needed(world: World) -> None:
    """Asking the store only for `Coverage.candidates_for` leaves no result out that counts."""
    wanted = Coverage.of(world.rules).candidates_for(world.order.item)
    assert bare(world.judge()) == bare(world.judge([one for one in world.results if one.item in wanted]))


# -------------------------------------------------------------------- verdicts


@SOME
@STEADY
def test_an_older_result_never_becomes_better(world: World) -> None:
    """Whichever results are made older by whatever; a qualification is that of the day, so here it holds throughout."""
    older = [replace(one, time=one.time - world.draw([0, 1, HOUR, DAY, 9 * DAY, 30 * DAY])) for one in world.results]
    assert world.judge(older).kind.rank <= world.judge().kind.rank


@SOME
@STEADY
def test_waiting_never_makes_it_better(world: World) -> None:
    """The same order signed later has at most the same."""
    later = NOW + world.draw([1, HOUR, DAY, 9 * DAY, 30 * DAY])
    assert world.judge(now=later).kind.rank <= world.judge().kind.rank


@SOME
@WORLDS
def test_a_shorter_window_never_adds_a_match(world: World) -> None:
    """Of the tables and of the items themselves, any of them shortened by any length."""
    known = world.rules.catalogue
    windows = tuple(replace(row, length=min(row.length, world.length())) for row in world.rules.windows)
    items = [replace(item, validity_days=min(item.validity_days, world.length().days))
             for item in known.items.values()]
    shorter = world.rules.changed(windows=windows, catalogue=Catalogue(items, known.panels.values(), known.edges))
    assert world.judge(rules=shorter).kind.rank <= world.judge().kind.rank


@SOME
@WORLDS
def test_a_qualification_never_removes_a_match(world: World) -> None:
    """Wherever in the table it is put, also for a region that is of no use."""
    rows = list(world.rules.qualifications)
    rows.insert(world.random.randint(0, 4), world.qualification())
    assert world.judge().kind.rank <= world.judge(rules=world.rules.changed(qualifications=tuple(rows))).kind.rank


@SOME
@WORLDS
def test_the_order_of_the_candidates_does_not_matter(world: World) -> None:
    """Not for the verdict, not for what is chosen, not for a word of the trace."""
    shuffled = world.random.sample(world.results, len(world.results))
    assert world.judge() == world.judge(shuffled) == world.judge(world.results[::-1])


@SOME
@WORLDS
def test_another_candidate_never_makes_it_worse(world: World) -> None:
    """However bad it is itself."""
    best = world.judge().kind.rank
    for without in range(len(world.results)):
        assert world.judge(world.results[:without] + world.results[without + 1:]).kind.rank <= best


@SOME
@WORLDS
def test_the_trace_explains_the_verdict(world: World) -> None:
    """Its last row is the verdict, the last refusal is one of the codes, and it is JSON of bounded length."""
    more = [replace(one, pk=one.pk + 100 * number) for number in range(3) for one in world.results]
    for found in (world.judge(), world.judge(more)):
        assert set(found.codes) <= set(Code) and (found.kind is Kind.RECOGNISABLE) == (not found.codes)
        assert found.trace == tuple(orjson.loads(orjson.dumps(found.trace)))
        assert len(found.trace) <= TRACED + 7
        last = found.trace[-1]
        assert (8, found.kind, "1") == (last["step"], last["outcome"], last["inputs"]["catalogue"])
        assert [one.pk for one in found.chosen] == last["inputs"]["results"]
        if found.codes:
            assert refusals(found)[-1]["outcome"] in found.codes


@SOME
@WORLDS
def test_what_is_chosen_passes_every_step_by_itself(world: World) -> None:
    """Asked of the tables directly, without the memory: nothing is shown that a step refuses."""
    rules, order, found, now = world.rules, world.order, world.judge(), local_day(NOW, world.zone)
    targets = rules.members(order.item) or (order.item,)
    for one in found.chosen:
        day = local_day(one.time, world.zone)
        reached = [target for target in targets if Coverage.of(rules).relation(one.item, target) is not Relation.NONE]
        assert one in world.results and not one.identity_doubt and reached
        assert one.status in ISSUED and one.report_status in ("", *ISSUED)
        assert rules.qualified(one.institution, order.institution, one.item, day)[0]
        assert not any(rules.negative(one.institution, order.institution, one.item, when) for when in (day, now))
        assert any(NOW - one.time <= rules.window(order.institution, order.setting, target, now) // timedelta(
            microseconds=1) for target in reached)
        if one.institution == order.institution:
            assert "yes" == rules.setting(order.institution, "own_results", order.item, order.department, now)
        if found.kind in (Kind.RECOGNISABLE, Kind.PARTIAL):
            assert not one.flags
    assert bool(found.chosen) == (found.kind is not Kind.NOT)
    assert set(found.missing) <= set(targets) and bool(found.missing) == (found.kind is Kind.PARTIAL)


@SOME
@WORLDS
def test_looking_up_reports_late_is_looking_them_up_first(world: World) -> None:
    """`judge_all` asks for few and decides as if it had asked for all."""
    statuses = {one.pk: world.draw(["", "final", "amended", "cancelled", "preliminary"]) for one in world.results}
    known = [replace(one, report_status=one.report_status or statuses[one.pk]) for one in world.results]
    orders = [world.order, replace(world.order, item="P0"), replace(world.order, item="I0")]
    found = judge_all(orders, world.results, world.rules, NOW, world.zone,
                      lambda wanted: {one.pk: statuses[one.pk] for one in wanted})
    assert [(one.kind, [chosen.pk for chosen in one.chosen], one.missing) for one in found] == \
        [(one.kind, [chosen.pk for chosen in one.chosen], one.missing)
         for one in (judge(order, known, world.rules, NOW, world.zone) for order in orders)]


@SOME
@WORLDS
def test_the_same_input_gives_the_same_verdict(world: World) -> None:
    """What a RuleSet remembers of other verdicts changes none."""
    fresh = world.judge(rules=world.rules.changed())
    older = [replace(one, time=one.time - 9 * DAY) for one in world.results]
    for now in (NOW, NOW - 20 * DAY, NOW + DAY):
        judge(replace(world.order, setting="AMB", institution="h2"), older, world.rules, now, world.zone)
        world.judge(older, now=now)
    assert fresh == world.judge()
