"""What a line counts, the rates made of it, and how they are written: pure, and on a data set computed by hand."""

from __future__ import annotations

import csv
import io
import tomllib
from collections import Counter
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Settings
from gateway.errors import GatewayError
from gateway.fhir import json
from gateway.fhir.check import check, judge
from gateway.recognition import measure
from gateway.recognition.decision import apply, body_of
from gateway.recognition.figures import (
    INDEX_RULES,
    MEASURES,
    ZERO,
    Cell,
    Counting,
    Dimension,
    Rate,
    add,
    cents,
    contribution,
    counted,
    counted_of,
    freshness_p95,
    index_of,
    index_rule,
    rates,
    rounded,
)
from gateway.recognition.model import Action, BillRequest
from gateway.recognition.report import GROUPS, Question, Report, Row, answer
from gateway.recognition.rules import Institution, Reason, Region, RuleSet
from gateway.store import Store
from gateway.store.figures import Figures
from gateway.store.model import Line
from gateway.terminology import catalogue
from tests.recognition_lines import ZONE, at, line, write
from tests.recognition_world import DOCTOR_B, WBC, A, B, World

GOLDEN = tomllib.loads((Path(__file__).parent / "figures_golden.toml").read_text(encoding="utf-8"))
RULES = RuleSet("1", date(2026, 1, 1), catalogue(), regions={"CN": Region("CN", "", "全国", "China")},
                institutions={slug: Institution(slug, f"{slug}医院", f"hospital {slug}", "CN") for slug in "abc"},
                reasons=(Reason("CN", "R1", "病情变化", "condition changed", "no"),
                         Reason("CN", "R6", "其他", "other", "reviewed", needs_text=True),
                         Reason("CN", "R90", "未说明", "none", "yes"),
                         Reason("CN", "R98", "无法调阅", "not available", "no", availability=True)))
YEAR = date(2026, 1, 1), date(2026, 12, 31)


def golden_lines() -> list[Line]:
    """The lines of the golden data set."""
    made = []
    for number, row in enumerate(GOLDEN["lines"]):
        row = dict(row)
        made += [line(f"{number}-{k}", **{name: value for name, value in row.items() if name != "count"})
                 for k in range(row["count"])]
    return made


@pytest.fixture
def golden(store: Store) -> Figures:
    """The golden lines in a store, rolled."""
    lines = golden_lines()
    write(store, *lines[:40])
    figures = Figures(store, Counting(ZONE))
    figures.roll()
    write(store, *lines[40:])
    return figures


def shown(row: Row) -> dict[str, Any]:
    """A row as the golden file says it."""
    made = {"counts": {name: count for name, count in row.counts.items() if count},
            "amounts": {name: format(amount, "f") for name, amount in row.amounts.items()},
            "rates": {name: format(rate.value, "f") for name, rate in row.rates.items() if rate.value is not None}}
    if row.index is not None and row.index.value is not None:
        made["index"] = format(row.index.value, "f")
    return made


def test_the_golden_data_set_to_the_last_digit(golden: Figures) -> None:
    """Every count, amount, rate and index, by every group, as computed by hand."""
    for by in GROUPS:
        report = answer(Question(by, *YEAR, "a" if by in ("department", "doctor") else None), golden, RULES)
        assert {row.value: shown(row) for row in report.rows} == GOLDEN[by], by
        if by == "item":
            assert shown(report.total) == GOLDEN["total"][""]


def test_every_group_adds_up_to_the_total(golden: Figures) -> None:
    """The rows of a partition add up to the total, measure by measure."""
    for by in ("hospital", "item", "day", "month"):
        report = answer(Question(by, *YEAR), golden, RULES)
        sums = {name: sum(row.counts[name] for row in report.rows) for name in report.total.counts}
        own = report.total.counts
        if by == "item":  # what is issued is told by hospital and day only
            own = {name: count for name, count in own.items() if not name.startswith("issued")}
            sums = {name: sums[name] for name in own}
        assert sums == own, by


def test_a_range_cuts_months_into_days(golden: Figures) -> None:
    """From the 31st to the 1st: what lies outside is not told, and a month is told of its days inside only."""
    report = answer(Question("month", date(2026, 3, 31), date(2026, 4, 1)), golden, RULES)
    assert [(row.value, row.counts["orders"]) for row in report.rows] == [("2026-03", 8), ("2026-04", 6)]
    assert report.total.counts["orders"] == 14
    assert answer(Question("hospital", date(2026, 4, 3), date(2026, 12, 31)), golden, RULES).rows == ()


def test_a_region_names_its_reasons_and_items(golden: Figures) -> None:
    """Rows say what their code means, in both languages; an unmapped order says so."""
    reasons = answer(Question("reason", *YEAR, "a"), golden, RULES).rows
    assert [(r.value, r.name_zh, r.name_en) for r in reasons][0] == ("R1", "病情变化", "condition changed")
    items = {r.value: r.name_en for r in answer(Question("item", *YEAR), golden, RULES).rows}
    assert items[""] == "not mapped"
    assert {r.value: r.name_zh for r in answer(Question("hospital", *YEAR), golden, RULES).rows}["b"] == "b医院"


# ---------------------------------------------------------------- a line

@pytest.mark.parametrize(("body", "day"), [
    ({"reminded_at": at("2026-03-31", 23.999)}, "2026-03-31"), ({"reminded_at": at("2026-03-31", 24)}, "2026-04-01"),
])
def test_a_line_counts_on_the_local_day_of_its_reminder(body: dict[str, Any], day: str) -> None:
    """Midnight is the gateway's zone's, and the day is the reminder's wherever the order was made before."""
    made = line("1", "reminded", day="2026-03-30", **body)
    [kept] = {cell.day for cell, _ in contribution(made, body_of(made), ZONE)}
    assert kept == (date.fromisoformat(day) - date(1970, 1, 1)).days
    utc = counted(made, body_of(made), ZoneInfo("UTC")).day
    assert utc == (date(2026, 3, 31) - date(1970, 1, 1)).days


def test_a_line_that_was_never_reminded_counts_on_its_order_day() -> None:
    """Mapping coverage is told of all lines, on the day on which they came."""
    made = line("1", day="2026-02-28", item="")
    counts = dict(zip(MEASURES, counted(made, body_of(made), ZONE).measures, strict=True))
    assert {name: n for name, n in counts.items() if n} == {"orders": 1}
    assert counted(made, body_of(made), ZONE).issuers == ()


@pytest.mark.parametrize(("refusal", "measure_name"), [
    ("yes", "refused"), ("no", "lawful"), ("reviewed", "under_review"), ("", "refused")])
def test_a_refusal_counts_as_its_reason_says(refusal: str, measure_name: str) -> None:
    """Lawful reasons do not count, reviewed ones wait; what says nothing counts."""
    made = line("1", "not_recognised", reason="R1", refusal=refusal)
    counts = dict(zip(MEASURES, counted(made, body_of(made), ZONE).measures, strict=True))
    assert [name for name in ("refused", "lawful", "under_review") if counts[name]] == [measure_name]


def test_an_availability_fault_is_the_issuers() -> None:
    """R98 counts one fault for each hospital whose result was shown, and none for the one that ordered."""
    made = line("1", "not_recognised", reason="R98", refusal="no", issuers=["b", "c"])
    faults = MEASURES.index("issued_faults")
    told = {cell.institution: sums[faults] for cell, sums in contribution(made, body_of(made), ZONE)
            if cell.dimension == Dimension.ALL and sums[faults]}
    assert told == {"b": 1, "c": 1, "": 1}
    other = line("1", "not_recognised", reason="R41", refusal="no", fault=True)
    assert counted(other, body_of(other), ZONE).measures[MEASURES.index("faults")] == 1


def test_a_department_and_a_doctor_count_in_their_own_hospital_only() -> None:
    """No cell of a doctor is of all hospitals together."""
    made = line("1", "recognised")
    cells = [cell for cell, _ in contribution(made, body_of(made), ZONE)]
    assert all(cell.institution == "a" for cell in cells if cell.dimension in (Dimension.DOCTOR, Dimension.DEPARTMENT))


@pytest.mark.parametrize(("amount", "said"), [
    ("", 0), ("0", 0), ("1", 100), ("230.50", 23050), ("0.005", 1), ("0.0049", 0), ("100.005", 10001),
    ("1e2", 10000)])
def test_amounts_are_exact_to_the_cent_half_up(amount: str, said: int) -> None:
    """四舍五入, in decimals: a binary float would make 100.005 10000 cents."""
    assert cents(amount) == said


@pytest.mark.parametrize("amount", ["x", "NaN", "Infinity"])
def test_what_is_no_price_is_refused(amount: str) -> None:
    """A line with it is not counted wrongly."""
    with pytest.raises(GatewayError):
        cents(amount)


LINES = st.builds(
    lambda state, body, item, institution, day: line("1", state, institution, item, day, **body),
    st.sampled_from(["ordered", "reminded", "viewed", "recognised", "not_recognised"]),
    st.fixed_dictionaries({}, optional={
        "department": st.sampled_from(["", "x", "心内科"]), "doctor": st.sampled_from(["", "d1", "d2"]),
        "issuers": st.lists(st.sampled_from("abc"), max_size=3), "billed": st.booleans(), "reordered": st.booleans(),
        "bypass": st.sampled_from(["", "e"]), "blocked": st.integers(0, 3), "quoted": st.integers(0, 2),
        "price": st.decimals(0, 5000, places=2).map(str), "fund": st.decimals(0, 100, places=2).map(str),
        "reason": st.sampled_from(["R1", "R6", "R98"]), "refusal": st.sampled_from(["yes", "no", "reviewed"])}),
    st.sampled_from(["", "E001", "L001"]), st.sampled_from("ab"), st.sampled_from(["2026-02-28", "2026-03-01"]))


@given(LINES)
def test_what_is_kept_of_a_line_gives_its_cells_again(made: Line) -> None:
    """The text that is kept beside a line takes away exactly what the line had added."""
    kept = counted(made, body_of(made), ZONE)
    assert counted_of(kept.text()) == kept
    assert Counting(ZONE).cells(Counting(ZONE).count(made)) == contribution(made, body_of(made), ZONE)


@given(LINES)
def test_measures_of_a_line_agree_with_each_other(made: Line) -> None:
    """Decided is recognised or refused, of one kind; nothing undecided is saved; parts are not more than the whole."""
    m = dict(zip(MEASURES, counted(made, body_of(made), ZONE).measures, strict=True))
    assert m["decided"] == m["recognised"] + m["refused"] + m["lawful"] + m["under_review"] <= 1
    assert m["decided"] <= m["reminded"] <= m["orders"] == 1
    assert m["recognised"] or not (m["saved_cents"] or m["fund_cents"] or m["reordered"] or m["settled"])
    assert m["skipped"] <= m["billed"] and m["skipped"] + m["decided"] <= 1


ACTIONS = st.sampled_from([("view", ""), ("recognise", ""), ("not_recognise", "R1"), ("not_recognise", "R90"),
                           ("not_recognise", "R98"), ("revoke", ""), ("quote", "")])


@given(st.lists(ACTIONS, max_size=12), st.sampled_from([("recognise", ""), ("not_recognise", "R1"),
                                                       ("not_recognise", "R98")]))
def test_only_the_last_decision_counts(before: list[tuple[str, str]], last: tuple[str, str]) -> None:
    """Whatever was decided and revoked before, the figures are as if only the last decision existed."""
    start = replace(line("1", "reminded"), version=1)
    on, now = date(2026, 3, 10), at("2026-03-10", 10)

    def through(actions: list[tuple[str, str]]) -> Line:
        made, when = start, now
        for kind, reason in actions:
            when += 1_000_000
            try:
                made = apply(made, Action(kind, made.id, "d7", reason=reason), RULES, when, on).line
            except GatewayError:  # out of turn: nothing changes
                continue
        return made
    quoted = [("quote", "")] if ("quote", "") in before else []
    long = through([*before, ("view", ""), ("revoke", ""), last])
    short = through([("view", ""), *quoted, last])
    assert Counting(ZONE).count(long) == Counting(ZONE).count(short)


# ---------------------------------------------------------------- rates

@pytest.mark.parametrize(("numerator", "denominator", "value"), [
    (29, 29, None), (0, 0, None), (30, 30, "1.0000"), (0, 30, "0.0000"), (1, 32, "0.0313"), (59, 64, "0.9219"),
    (1, 30, "0.0333"), (2, 30, "0.0667")])
def test_a_rate_is_exact_half_up_and_hidden_below_thirty(numerator: int, denominator: int, value: str | None) -> None:
    """1/32 = 0.03125 is 0.0313; 29 cases are no rate, 30 are."""
    rate = Rate(numerator, denominator)
    assert rate.value == (None if value is None else Decimal(value))
    assert rate.suppressed is (value is None)
    assert value is None or str(rate.value) == value


@given(st.integers(0, 10 ** 9), st.integers(30, 10 ** 9))
def test_rounding_is_never_further_than_half_a_unit(numerator: int, denominator: int) -> None:
    """And always by the same rule."""
    exact = Fraction(min(numerator, denominator), denominator)
    assert -Fraction(1, 20000) < Fraction(rounded(exact)) - exact <= Fraction(1, 20000)


def test_the_index_leaves_out_what_is_hidden_and_shares_its_weight() -> None:
    """With all parts at their best it is 100, at their worst 0; with less than half of the weight there is none."""
    rule = INDEX_RULES[-1]
    assert sum(part.weight for part in rule.parts) == 100
    best = {part.rate: Rate(0 if part.falling else 40, 40) for part in rule.parts}
    assert index_of(best, rule).value == Decimal("100.00")
    assert index_of({name: Rate(40 - r.numerator, 40) for name, r in best.items()}, rule).value == Decimal("0.00")
    one = {name: r if name != "recognition" else Rate(20, 40) for name, r in best.items()}
    assert index_of(one, rule).value == Decimal("85.00")
    hidden = {name: r if name != "recognition" else Rate(0, 29) for name, r in best.items()}
    assert index_of(hidden, rule).value == Decimal("100.00")
    assert ("recognition", 30, None) in index_of(hidden, rule).parts
    few = {name: r if name in ("mapping", "view", "availability") else Rate(0, 0) for name, r in best.items()}
    assert index_of(few, rule).value is None
    assert index_rule(date(2026, 1, 1)).version == "2026-1"


def test_the_share_of_a_reason_is_of_all_refusals() -> None:
    """30 refusals: 10 of one reason are 0.3333; fewer than 30 refusals give no share."""
    m = dict.fromkeys(MEASURES, 0) | {"decided": 10}
    assert Rate(m["decided"], 30).value == Decimal("0.3333")
    assert rates(ZERO)["decision"].suppressed and add(ZERO, ZERO) == ZERO


def test_freshness_is_the_time_that_95_of_100_messages_took_at_most() -> None:
    """By nearest rank: of 100 messages the 95th; fewer than 30 say nothing."""
    assert freshness_p95({10: 94, 200: 1, 5000: 5}) == 200
    assert freshness_p95({10: 95, 5000: 5}) == 10
    assert freshness_p95({10: 29}) is None and freshness_p95({}) is None


# ---------------------------------------------------------------- written

def a_report(by: str = "item", value: str = "E001", name: str = "胸部CT") -> Report:
    """A report of one row."""
    sums = tuple(40 if name in ("orders", "mapped", "reminded") else 0 for name in MEASURES)
    row = Row(value, name, "chest CT", sums, rates(sums), share=Rate(10, 40) if by == "reason" else None)
    return Report(Question(by, *YEAR, "a"), 7, row, (row,))


def test_csv_opens_in_a_spreadsheet_and_runs_no_formula() -> None:
    """UTF-8 with byte order mark, CRLF, names of formulas made harmless; a hidden rate says so."""
    raw = measure.to_csv(a_report(value="=HYPERLINK(1)", name="+1+1"), "zh")
    assert raw.startswith(b"\xef\xbb\xbf") and raw.count(b"\r\n") == 3
    head, row, _ = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""))
    assert head[0] == "代码" and len(head) == len(row)
    assert row[:2] == ["'=HYPERLINK(1)", "'+1+1"]
    told = dict(zip(head, row, strict=True))
    assert told["对照覆盖率"] == "1.0000" and told["互认率"] == "<30" and told["医嘱项"] == "40"
    assert measure.to_csv(a_report()).decode("utf-8-sig").startswith("code,name,order lines,")


@pytest.mark.parametrize("by", GROUPS)
def test_a_measure_report_is_valid_fhir_of_its_measure(by: str) -> None:
    """R4 by our own check and by fhir.resources; every group and stratifier is one that the Measure has."""
    resource = measure.measure_report(a_report(by))
    assert check(resource) == [] and judge(json.loads(json.dumps(resource))) == []
    definition = measure.measure()
    assert check(definition) == [] and judge(definition) == []
    assert resource["measure"] == definition["url"]
    defined = {group["code"]["coding"][0]["code"] for group in definition["group"]}
    told = [group["code"]["coding"][0]["code"] for group in resource["group"]]
    assert set(told) <= defined and max(Counter(told).values()) == 1
    assert {group["stratifier"][0]["code"][0]["coding"][0]["code"] for group in resource["group"]
            if "stratifier" in group} == {by}


def test_json_is_exact_and_tells_a_hidden_rate_from_zero() -> None:
    """Numbers are written digit by digit, never as a binary float."""
    text = json.dumps(measure.to_json(a_report(), "Asia/Shanghai")).decode()
    assert '"mapping":{"value":1.0000,"numerator":40' in text
    assert '"recognition":{"value":null,"numerator":0,"denominator":0,"suppressed":true}' in text


@pytest.mark.parametrize(("text", "first", "last"), [
    ("2026", "2026-01-01", "2026-12-31"), ("2026-02", "2026-02-01", "2026-02-28"),
    ("2028-02", "2028-02-01", "2028-02-29"), ("2026-03-10", "2026-03-10", "2026-03-10")])
def test_a_day_a_month_or_a_year(text: str, first: str, last: str) -> None:
    """What a range may be written as."""
    assert tuple(day.isoformat() for day in measure.days_of(text, "from")) == (first, last)


@pytest.mark.parametrize("text", ["", "26", "2026-13", "2026-02-30", "2026-3", "today", "2026-03-10T00:00", "２０２６"])
def test_what_is_no_day_is_refused(text: str) -> None:
    """With the place."""
    with pytest.raises(GatewayError) as refused:
        measure.days_of(text, "from")
    assert refused.value.where == "from"


def test_a_cell_is_told_by_its_place() -> None:
    """Numbers of dimensions are stored: they may not change."""
    assert [d.value for d in Dimension] == [0, 1, 2, 3, 4, 5]
    assert Cell(0, "", "", 1) == (0, "", "", 1)


# ---------------------------------------------------------------- through the service

def test_figures_follow_a_line_through_reminder_decision_and_bill(store: Store, settings: Settings) -> None:
    """What doctors and the billing gate do moves the figures of the next question; revoking takes it back."""
    world = World(settings, store)
    world.laboratory(world.person(A, "A1"), "r1", [WBC])
    rules, figures = world.recognition.rules(), Figures(store, Counting(ZONE))
    today = world.recognition.rulebook.day(world.now)

    def told(by: str = "hospital", institution: str = B) -> dict[str, int]:
        report = answer(Question(by, today, today, institution), figures, rules)
        return {name: count for row in report.rows for name, count in row.counts.items() if count}

    def saved() -> Decimal:
        return answer(Question("hospital", today, today), figures, rules).total.amounts["saved"]
    [checked] = world.sign(world.order("1", department="ward"))
    reminded = {"orders": 1, "mapped": 1, "reminded": 1, "interruptive": 1}
    assert told() == reminded and told(institution=A) == {"issued": 1}
    world.act("view", checked.line)
    world.act("recognise", checked.line)
    assert told() == told("department") == {**reminded, "viewed": 1, "decided": 1, "recognised": 1}
    price = rules.price(B, WBC, today)
    assert price is not None and saved() == price.price > 0
    world.now += 1_000_000
    assert not world.recognition.bill(BillRequest(B, "1"), DOCTOR_B).allowed
    assert told()["blocked"] == 1
    world.act("revoke", checked.line)
    assert saved() == 0 and told() == {**reminded, "viewed": 1, "blocked": 1}
    world.act("not_recognise", checked.line, reason="R98")
    assert told("reason")["faults"] == 1 and told(institution=A) == {"issued": 1, "issued_decided": 1,
                                                                    "issued_faults": 1}
    world.now += 1_000_000
    assert world.recognition.bill(BillRequest(B, "1"), DOCTOR_B).allowed
    assert told()["billed"] == 1 and "skipped" not in told()
    figures.recount()
    assert told()["billed"] == 1
