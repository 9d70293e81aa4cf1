"""The figures in the database: what is rolled is what a count of every line gives, whoever rolls and when."""

from __future__ import annotations

import threading
import time
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import figures as bench
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.recognition.decision import body_of
from gateway.recognition.figures import MEASURES, ZERO, Counting, Dimension, Measures, contribution, total
from gateway.store import Store, open_store
from gateway.store import figures as rolling
from gateway.store.figures import Figures, bound
from gateway.store.model import Settlement, Unit
from tests.recognition_lines import ZONE, at, line, write

EPOCH = date(1970, 1, 1)
YEAR = date(2026, 1, 1), date(2026, 12, 31)


@pytest.fixture
def figures(store: Store) -> Figures:
    """Over an empty store."""
    return Figures(store, Counting(ZONE))


def oracle(store: Store) -> dict[tuple[int, str, str, int], Measures]:
    """The cells as a plain count over all lines gives them."""
    cells: dict[tuple[int, str, str, int], Measures] = {}
    for found in store.lines_where(limit=100_000):
        for cell, measures in contribution(found, body_of(found), ZONE):
            cells[cell] = total([cells.get(cell, ZERO), measures])
    return {cell: sums for cell, sums in cells.items() if any(sums)}


def stored(store: Store) -> dict[tuple[int, str, str, int, int], Measures]:
    """The cells as they stand in the database, days and months."""
    with store._database.read() as reader:
        rows = reader.all(f"SELECT dim, institution, value, span, period, {', '.join(MEASURES)} FROM figure")
    return {(dim, store._slug(number), value, span, period): tuple(sums)
            for dim, number, value, span, period, *sums in rows if any(sums)}


def both(cells: dict[tuple[int, str, str, int], Measures]) -> dict[tuple[int, str, str, int, int], Measures]:
    """Cells by day, and summed to months."""
    made: dict[tuple[int, str, str, int, int], Measures] = {}
    for (dim, institution, value, day), sums in cells.items():
        when = EPOCH + timedelta(days=day)
        for span, period in ((0, day), (1, when.year * 100 + when.month)):
            key = (dim, institution, value, span, period)
            made[key] = total([made.get(key, ZERO), sums])
    return made


CHANGES = st.tuples(
    st.integers(1, 6), st.sampled_from("ab"),
    st.sampled_from(["ordered", "reminded", "viewed", "recognised", "not_recognised"]),
    st.sampled_from(["E001", "L001", ""]), st.sampled_from(["2026-02-28", "2026-03-01", "2026-03-31"]),
    st.fixed_dictionaries({}, optional={
        "issuers": st.lists(st.sampled_from("abc"), max_size=2), "department": st.sampled_from(["x", "y"]),
        "doctor": st.sampled_from(["d1", "d2"]), "billed": st.booleans(), "reason": st.sampled_from(["R1", "R98"]),
        "refusal": st.sampled_from(["yes", "no", "reviewed"]), "price": st.sampled_from(["1.50", "230"]),
        "fund": st.sampled_from(["1", "100.25"]), "reordered": st.booleans(), "blocked": st.integers(0, 2)}))
HISTORY = st.lists(st.one_of(CHANGES, st.just("roll"), st.just("recount")), max_size=25)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORY)
def test_what_was_rolled_is_what_a_count_of_all_lines_gives(store: Store, history: list[Any]) -> None:
    """Random histories, rolled at any time, are the sum over the lines as they stand; so is a recount."""
    figures = Figures(store, Counting(ZONE))
    for change in history:
        if change == "roll":
            figures.roll()
        elif change == "recount":
            figures.recount()
        else:
            number, institution, state, item, day, body = change
            write(store, line(f"n{number}", state, institution, item, day, **body))
    figures.roll()
    expected = both(oracle(store))
    assert stored(store) == expected
    figures.recount()
    assert stored(store) == expected


def test_a_query_is_the_sum_of_its_days(store: Store, figures: Figures) -> None:
    """Any range, cut into months and days, gives what the days inside give."""
    days = [date(2026, 1, 30) + timedelta(days=n) for n in range(0, 100, 3)]
    write(store, *[line(f"n{n}", "recognised", "ab"[n % 2], "E001", day.isoformat(), price="1.00")
                   for n, day in enumerate(days)])
    figures.roll()
    for first, last in [(days[0], days[-1]), (date(2026, 2, 1), date(2026, 2, 28)), (days[3], days[3]),
                        (date(2026, 2, 15), date(2026, 4, 2)), (date(2026, 2, 1), date(2026, 4, 30)),
                        (date(2026, 3, 2), date(2026, 3, 30)), (date(2026, 1, 31), date(2026, 2, 1))]:
        inside = [n for n, day in enumerate(days) if first <= day <= last]
        found = figures.sums(Dimension.ITEM, None, first, last).get("E001", ZERO)
        assert found[MEASURES.index("saved_cents")] == 100 * len(inside), (first, last)
        own = {slug: sums[0] for slug, sums in figures.by_institution(first, last).items() if slug in "ab"}
        assert {slug: n for slug, n in own.items() if n} == {
            slug: n for slug in "ab" if (n := sum("ab"[i % 2] == slug for i in inside))}
        assert sum(m[0] for m in figures.by_day(None, first, last).values()) == len(inside)
        assert sum(m[0] for m in figures.by_month("a", first, last).values()) == sum(n % 2 == 0 for n in inside)
        assert figures.by_institution(first, last, "b") == {
            slug: m for slug, m in figures.by_institution(first, last).items() if slug == "b"}
    assert figures.sums(Dimension.ITEM, "nowhere", *YEAR) == {} == figures.by_institution(*YEAR, "nowhere")
    assert figures.sums(Dimension.ITEM, "a", YEAR[1], YEAR[0]) == {}


def test_two_processes_that_roll_at_once_count_nothing_twice(store: Store, settings: Settings) -> None:
    """Four rollers over two openings of one database, while lines change."""
    other = open_store(settings)
    try:
        stop, problems = threading.Event(), []

        def roll(one: Store) -> None:
            while not stop.is_set():
                try:
                    Figures(one, Counting(ZONE)).roll()
                except Exception as problem:
                    problems.append(problem)
        threads = [threading.Thread(target=roll, args=(one,)) for one in (store, other, store, other)]
        for thread in threads:
            thread.start()
        for round_ in range(12):
            write(store, *[line(f"n{k}", ("recognised", "viewed")[(round_ + k) % 2], "ab"[k % 2],
                                price="2.00") for k in range(20)])
        stop.set()
        for thread in threads:
            thread.join()
        assert problems == []
        Figures(store, Counting(ZONE)).roll()
        assert stored(store) == both(oracle(store))
    finally:
        other.close()


def test_a_merge_of_persons_leaves_the_figures(store: Store, figures: Figures) -> None:
    """Whose line it is does not count: a line that moves to another person adds nothing and takes nothing."""
    write(store, line("1", "recognised", price="1"), line("2", "reminded"))
    figures.roll()
    before = stored(store)
    store._call(lambda transaction: transaction.run("UPDATE line SET person = 77"))
    figures.recount()
    assert stored(store) == before


def test_a_recount_that_was_cut_off_goes_on(store: Store, figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries say that it runs; called again it counts the rest and what came meanwhile, each line once."""
    monkeypatch.setattr(rolling, "BATCH", 3)
    write(store, *[line(f"n{k}", "recognised", price="1.00") for k in range(8)])
    figures.roll()
    seen = []

    class Cut(Exception):
        pass

    def cut(done: int, total: int) -> None:
        seen.append((done, total))
        if done >= 6:
            raise Cut
    with pytest.raises(Cut):
        figures.recount(cut)
    assert seen == [(3, 8), (6, 8)]
    with pytest.raises(GatewayError) as refused:
        figures.roll()
    assert refused.value.category is Category.BUSY and "recount" in refused.value.message
    write(store, line("n1", "viewed"), line("late", "reminded"))
    assert figures.recount() == 3
    assert stored(store) == both(oracle(store))
    figures.roll()


def test_two_recounts_at_once_and_rollers_beside_them_count_nothing_twice(store: Store, settings: Settings,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is late sees that the other was faster; a roll that began before a recount adds nothing to it."""
    monkeypatch.setattr(rolling, "BATCH", 5)
    write(store, *[line(f"n{k}", "recognised", "ab"[k % 2], price="1.00") for k in range(40)])
    other = open_store(settings)
    try:
        def work(one: Store, recount: bool) -> None:
            figures = Figures(one, Counting(ZONE))
            for _ in range(3):
                try:
                    if recount:
                        figures.recount()
                    else:
                        figures.roll()
                except GatewayError as busy:
                    assert busy.category is Category.BUSY
        stale = Figures(store, Counting(ZONE))
        with store._database.read() as reader:
            step = stale._next(reader)
        assert step is not None
        threads = [threading.Thread(target=work, args=args) for args in
                   ((store, True), (other, True), (store, False), (other, False))]
        for thread in threads:
            thread.start()
        write(store, *[line(f"n{k}", "viewed", "ab"[k % 2]) for k in range(0, 40, 3)])
        for thread in threads:
            thread.join()
        figures = Figures(store, Counting(ZONE))
        figures.recount()
        assert stored(store) == both(oracle(store)) and not stale._take(step, "figures")
        store._call(stale._begin_recount)
        assert not stale._take(step, "figures")  # its watermark is that of an empty beginning, and a recount runs
        assert figures.recount() == 40 and stored(store) == both(oracle(store))
    finally:
        other.close()


def test_a_roll_that_takes_too_long_says_how_much_waits(store: Store, figures: Figures,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """BUSY, and what was rolled stays rolled: the next call goes on."""
    monkeypatch.setattr(rolling, "BATCH", 2)
    write(store, *[line(f"n{k}") for k in range(6)])
    with pytest.raises(GatewayError) as refused:
        figures.roll(seconds=0)
    assert refused.value.category is Category.BUSY and refused.value.message.startswith("4 events")
    assert figures.waiting() == 4
    assert figures.roll() == 4 and figures.waiting() == 0 and figures.roll() == 0


def test_the_background_rolls_when_many_events_wait(store: Store, figures: Figures,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any query; and it ends with its process."""
    monkeypatch.setattr(rolling, "_MANY", 5)
    figures.keep(0.01)
    try:
        write(store, *[line(f"n{k}") for k in range(6)])
        until = time.monotonic() + 10
        while figures.waiting() and time.monotonic() < until:
            time.sleep(0.01)
        assert figures.waiting() == 0 and figures.counted_to() == 6
    finally:
        figures.close()


# ---------------------------------------------------------------- freshness

@pytest.mark.parametrize(("microseconds", "milliseconds"), [
    (0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (99_000, 99), (99_001, 100), (100_001, 110), (123_400, 130),
    (990_001, 1000), (1_000_001, 1100), (61_000_000, 61_000), (61_000_001, 62_000)])
def test_a_time_is_rounded_up_to_two_digits(microseconds: int, milliseconds: int) -> None:
    """Never better than it was."""
    assert bound(microseconds) == milliseconds


def message(store: Store, number: int, day: str, took_ms: int, institution: str, status: str = "stored",
            attempts: int = 1) -> None:
    """A message that came on a day and took so long."""
    inbound = store.record(f"MSH|{number}".encode(), "hl7v2", "test")
    if status == "received":
        return
    settlement = Settlement(inbound.id, status, institution)
    if status == "stored":
        store.write(Unit(settlement=settlement), GATEWAY)
    else:
        store.settle_refused(settlement)
    received = at(day)
    store._call(lambda transaction: transaction.run(
        "UPDATE inbox SET received = ?, settled = ?, attempts = ? WHERE id = ?",
        (received, received + took_ms * 1000, attempts, inbound.id)))


def test_freshness_tells_of_stored_messages_of_the_range(store: Store, figures: Figures,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """By hospital and together; refused ones and those that were replayed after a fix are not told."""
    for n in range(3):
        message(store, n, "2026-03-31", 12, "a")
    message(store, 10, "2026-04-01", 250, "b")
    message(store, 11, "2026-04-01", 251, "b")
    message(store, 12, "2026-04-01", 3, "b", "quarantined")
    message(store, 13, "2026-04-01", 90_000, "b", attempts=2)
    monkeypatch.setattr(rolling, "MESSAGES", 2)
    figures.roll_freshness()
    assert figures.freshness(None, *YEAR) == {12: 3, 250: 1, 260: 1}
    assert figures.freshness("a", *YEAR) == {12: 3} and figures.freshness("b", *YEAR) == {250: 1, 260: 1}
    assert figures.freshness_by_institution(date(2026, 3, 31), date(2026, 3, 31)) == {"a": {12: 3}}
    assert figures.freshness(None, date(2026, 4, 1), date(2026, 4, 1)) == {250: 1, 260: 1}
    figures.roll_freshness()
    figures.recount()
    assert figures.freshness(None, *YEAR) == {12: 3, 250: 1, 260: 1}


def test_freshness_waits_for_a_message_that_is_still_worked_on(store: Store, figures: Figures,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no message is passed over; and for those that came just now."""
    monkeypatch.setattr(rolling, "_SETTLED", -60)
    message(store, 1, "2026-03-31", 5, "a")
    message(store, 2, "2026-03-31", 5, "a", "received")
    message(store, 3, "2026-03-31", 5, "a")
    figures.roll_freshness()
    assert figures.freshness("a", *YEAR) == {5: 1}
    [waits] = store.inbox("received")
    store.write(Unit(settlement=Settlement(waits.id, "stored", "a")), GATEWAY)
    figures.roll_freshness()
    assert sum(figures.freshness(None, date(2000, 1, 1), date(2100, 1, 1)).values()) == 3


# ---------------------------------------------------------------- at size

@pytest.mark.long
def test_every_question_over_a_year_is_answered_within_a_second(store: Store, settings: Settings) -> None:
    """251 institutions, 427 items; the rows add up to what was put in. (`python -m bench.figures`: 3,030,600.)"""
    year = bench.Year(20_000)
    sums = bench.fill(store, year)
    slow = [(name, took) for name, took, _ in bench.ask(settings, store, year, rounds=2) if took > 1000]
    assert slow == []
    figures = Figures(store, Counting(ZONE))
    whole = date(bench.YEAR, 1, 1), date(bench.YEAR, 12, 31)
    assert dict(zip(MEASURES, total(figures.by_institution(*whole).values()), strict=True)) == sums | {
        name: sum(m[MEASURES.index(name)] for m in figures.by_day(None, *whole).values())
        for name in MEASURES if name.startswith("issued")}
    cut = date(bench.YEAR, 2, 10), date(bench.YEAR, 11, 20)
    assert total(figures.sums(Dimension.ITEM, None, *cut).values())[0] == sum(
        m[0] for m in figures.by_day(None, *cut).values())
