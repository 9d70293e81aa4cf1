"""The settlement: who is eligible, how much is allocated, files that are the same each time, and money paid once."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.__main__ import main
from gateway.commands.settlement import Run
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.recognition.evidence import evidence_csv, result_of, tables
from gateway.recognition.rules import Institution, Period, Region, RuleSet, SettlementRule
from gateway.recognition.settlement import (
    Reason,
    Sieve,
    allocate,
    half_up,
    parts_of,
    period_of,
    read_fees,
    run_id,
    settle,
    year_before,
)
from gateway.store import Store
from gateway.store.model import Line
from gateway.terminology import catalogue
from tests.recognition_lines import ZONE, at, line, write

CT, MR = "ECT001J", next(code for code, item in catalogue().items.items() if item.category == "MR")
MARCH = date(2026, 3, 1), date(2026, 3, 31)
RULE = SettlementRule("330100", "hangzhou-2024", Decimal("0.50"), ("municipal-basic",), ("*",))
RULES = RuleSet("1", date(2026, 1, 1), catalogue(), regions={"330100": Region("330100", "", "杭州市", "Hangzhou")},
                institutions={slug: Institution(slug, f"{slug}医院", "", "330100") for slug in "ab"},
                settlements=(RULE,))
FEES = b"institution,period,fees,heads\na,2026-03,480000,1000\na,2025-03,500000,1000\n"


def recognised(number: str, price: str = "100.00", **more: Any) -> Line:
    """A recognition of an insured patient in March."""
    return line(number, "recognised", **{"scheme": "municipal-basic", "price": price, "item": CT,
                                         "decided_by": more.pop("doctor", "d1"), **more})


def sieved(lines: list[Line], rules: RuleSet = RULES, run: str = "run", period: tuple[date, date] = MARCH) -> Sieve:
    """The lines of hospital a."""
    sieve = Sieve("a", *period, run, ZONE, lambda day: rules)
    for one in lines:
        sieve.take(one)
    return sieve


# ---------------------------------------------------------------- the rule

@pytest.mark.parametrize(("before", "now", "pays"), [
    ("500000", "480000", "500000.00"), ("500000", "510000", "0.00"), ("500000", "500000", "0.00"),
    ("500000", "499999.99", "500000.00")])
def test_half_of_the_recognised_fees_where_fees_per_head_fell(before: str, now: str, pays: str) -> None:
    """500 → 480 a head with 1,000,000 recognised pays 500,000.00; 500 → 510 and 500 → 500 pay 0."""
    fees = read_fees(f"institution,period,fees,heads\na,2026-03,{now},1000\na,2025-03,{before},1000\n".encode())
    [found] = settle(sieved([recognised(f"n{k}", "2500.00") for k in range(400)]), fees)
    assert (found.recognised, format(Decimal(found.cents).scaleb(-2), "f")) == (Decimal("1000000.00"), pays)
    assert found.fell is (pays != "0.00") and sum(share.cents for share in found.shares) == found.cents


def test_fees_per_head_are_compared_exactly() -> None:
    """A difference far behind the cent decides: 1/3 of a yuan is no 0.33."""
    fees = read_fees(b"institution,period,fees,heads\na,2026-03,1000.00,3\na,2025-03,333.34,1\n")
    [found] = settle(sieved([recognised("1")]), fees)
    assert found.fell and found.cents == 5000
    fees = read_fees(b"institution,period,fees,heads\na,2026-03,1000.00,3\na,2025-03,2000.00,6\n")
    [found] = settle(sieved([recognised("1")]), fees)
    assert not found.fell and found.cents == 0


def test_the_share_is_rounded_once_half_up() -> None:
    """Half of 0.01 + 0.02 + 0.02 is 0.025: 0.03, not the sum of rounded parts."""
    [found] = settle(sieved([recognised("1", "0.01"), recognised("2", "0.02"), recognised("3", "0.02")]),
                     read_fees(FEES))
    assert found.cents == 3
    assert half_up(Fraction(5, 2)) == 3 and half_up(Fraction(249, 100)) == 2


# ---------------------------------------------------------------- who is eligible

CASES: list[tuple[Reason | None, Line]] = [
    (Reason.ELIGIBLE, recognised("e")),
    (Reason.ELIGIBLE, recognised("mine", settled="run")),
    (Reason.ELIGIBLE, recognised("late", day="2026-02-28", decided_at=at("2026-03-01", 0))),
    (Reason.ELIGIBLE, recognised("last", decided_at=at("2026-03-31", 23.9999))),
    (Reason.ELIGIBLE, recognised("free", price="0")),
    (Reason.UNDECIDED, line("u", "reminded")),
    (Reason.UNDECIDED, line("v", "viewed")),
    (Reason.REVOKED, line("r", "viewed", ordinal=1)),
    (Reason.REVOKED, line("rr", "reminded", ordinal=2)),
    (Reason.REVOKED_AFTER_SETTLEMENT, line("ras", "viewed", ordinal=1, settled="other")),
    (Reason.REVOKED_AFTER_SETTLEMENT, line("nas", "not_recognised", ordinal=2, settled="run")),
    (Reason.NOT_RECOGNISED, line("n", "not_recognised", reason="R1")),
    (Reason.OUT_OF_PERIOD, recognised("after", day="2026-03-31", decided_at=at("2026-03-31", 24))),
    (Reason.OUT_OF_PERIOD, line("nafter", "not_recognised", day="2026-03-31", decided_at=at("2026-04-01"))),
    (Reason.SETTLED_BEFORE, recognised("s", settled="another run")),
    (Reason.SCHEME_UNKNOWN, recognised("su", scheme="")),
    (Reason.SCHEME_NOT_COVERED, recognised("snc", scheme="commercial")),
    (Reason.NO_PRICE, recognised("np", price="")),
    (None, line("o", "ordered")),
    (None, recognised("before", day="2026-02-27")),
    (None, recognised("next", day="2026-04-01")),
    (None, recognised("other", institution="b")),
]


@pytest.mark.parametrize(("reason", "one"), CASES, ids=[one.number for _, one in CASES])
def test_each_line_has_one_reason(reason: Reason | None, one: Line) -> None:
    """Of every line that was ordered or decided in the period and reminded; days are local."""
    assert dict(sieved([one]).counts) == ({reason: 1} if reason else {})


def test_items_out_of_scope_and_regions_without_a_rule() -> None:
    """A rule names codes or categories; where none holds, nothing is eligible."""
    narrow = RULES.changed(settlements=(replace(RULE, items=("CT", "XYZ")),))
    counts = sieved([recognised("1"), recognised("2", item=MR), recognised("3", item="unknown")], narrow).counts
    assert dict(counts) == {Reason.ELIGIBLE: 1, Reason.ITEM_OUT_OF_SCOPE: 2}
    assert dict(sieved([recognised("1")], RULES.changed(settlements=())).counts) == {Reason.NO_RULE: 1}
    anything = RULES.changed(settlements=(replace(RULE, schemes=("*",)),))
    assert dict(sieved([recognised("1", scheme="x"), recognised("2", scheme="")], anything).counts) == \
        {Reason.ELIGIBLE: 1, Reason.SCHEME_UNKNOWN: 1}


def test_a_period_across_two_versions_of_the_rule_is_split() -> None:
    """Each part has its own share and its own fees; a table that has only the whole is refused with what is missing."""
    second = replace(RULE, version="hangzhou-2026", share=Decimal("0.30"), period=Period(date(2026, 3, 16)))
    rules = RULES.changed(settlements=(replace(RULE, period=Period(None, date(2026, 3, 15))), second))
    sieve = sieved([recognised("1", day="2026-03-15"), recognised("2", day="2026-03-16", price="200.00")], rules)
    assert [(p.first.day, p.last.day, p.rule and p.rule.version) for p in sieve.parts] == \
        [(1, 15, "hangzhou-2024"), (16, 31, "hangzhou-2026")]
    with pytest.raises(GatewayError) as refused:
        settle(sieve, read_fees(FEES))
    assert "2026-03-01/2026-03-15 of a" in refused.value.message
    fees = read_fees(b"institution,period,fees,heads\n"
                     b"a,2026-03-01/2026-03-15,4,1\na,2025-03-01/2025-03-15,5,1\n"
                     b"a,2026-03-16/2026-03-31,4,1\na,2025-03-16/2025-03-31,5,1\n")
    assert [(one.lines, one.cents) for one in settle(sieve, fees)] == [(1, 5000), (1, 6000)]
    assert parts_of("nowhere", *MARCH, lambda day: rules)[0].rule is None


# ---------------------------------------------------------------- the fees table

@pytest.mark.parametrize(("text", "first", "last"), [
    ("2026", "2026-01-01", "2026-12-31"), ("2026-Q1", "2026-01-01", "2026-03-31"),
    ("2026-Q4", "2026-10-01", "2026-12-31"), ("2024-02", "2024-02-01", "2024-02-29"),
    ("2026-01-15/2026-02-14", "2026-01-15", "2026-02-14")])
def test_a_period_of_the_fees_table(text: str, first: str, last: str) -> None:
    """Years, quarters, months and days."""
    assert tuple(day.isoformat() for day in period_of(text)) == (first, last)


@pytest.mark.parametrize(("period", "before"), [
    (("2026-03-01", "2026-03-31"), ("2025-03-01", "2025-03-31")),
    (("2024-02-01", "2024-02-29"), ("2023-02-01", "2023-02-28")),
    (("2025-02-01", "2025-02-28"), ("2024-02-01", "2024-02-29")),
    (("2024-02-29", "2024-03-10"), ("2023-02-28", "2023-03-10"))])
def test_the_same_period_of_the_year_before(period: tuple[str, str], before: tuple[str, str]) -> None:
    """The end of February is the end of February."""
    found = year_before(*(date.fromisoformat(day) for day in period))
    assert tuple(day.isoformat() for day in found) == before


def test_rows_make_up_a_period_without_gap() -> None:
    """Three months are a quarter; a month that is missing is named."""
    fees = read_fees(b"institution,period,fees,heads\r\na,2026-01,1.10,1\r\na,2026-03,3,3\r\na,2026-02,2.20,2\r\n\r\n")
    found = fees.of("a", date(2026, 1, 1), date(2026, 3, 31))
    assert (found.fees, found.heads) == (Decimal("6.30"), 6)
    for first, last in ((date(2026, 1, 1), date(2026, 4, 30)), (date(2026, 1, 2), date(2026, 1, 31)),
                        (date(2025, 12, 1), date(2026, 1, 31))):
        with pytest.raises(GatewayError) as refused:
            fees.of("a", first, last)
        assert f"{first}/{last} of a" in refused.value.message
    with pytest.raises(GatewayError):
        fees.of("b", date(2026, 1, 1), date(2026, 1, 31))


@pytest.mark.parametrize(("rows", "said"), [
    ("a,2026-13,1,1", "line 2: the period"), ("a,2026-03,1,0", "line 2: heads"), ("a,2026-03,-1,1", "line 2: fees"),
    ("a,2026-03,1e3,1", "line 2: fees"), ("a,2026-03,NaN,1", "line 2: fees"), ("a,2026-03,1", "line 2: has 3 columns"),
    (",2026-03,1,1", "line 2: names no institution"), ("a,2026-03,1,1.5", "line 2: heads"),
    ("a,2026-03,1,1\nb,2026-03,1,1\na,2026-Q1,1,1", "line 4: overlaps line 2"),
    ("a,2026-04-01/2026-03-01,1,1", "line 2: the period"), ("a,2026-3-1/2026-03-31,1,1", "line 2: the period")])
def test_a_fault_of_the_fees_table_is_named_with_its_line(rows: str, said: str) -> None:
    """And nothing is settled."""
    with pytest.raises(GatewayError) as refused:
        read_fees(f"institution,period,fees,heads\n{rows}\n".encode())
    assert refused.value.category is Category.INVALID and said in refused.value.message


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"hospital,period,fees,heads\n", b"institution;period;fees;heads\n"])
def test_what_is_no_fees_table_is_refused(raw: bytes) -> None:
    """A byte order mark is taken, another head is not."""
    with pytest.raises(GatewayError):
        read_fees(raw)
    assert read_fees(b"\xef\xbb\xbf" + FEES).institutions == ["a"]


# ---------------------------------------------------------------- adding up

@given(st.integers(0, 10 ** 12), st.dictionaries(st.text(max_size=3), st.decimals(0, 10 ** 9, places=4), min_size=1))
def test_parts_add_up_to_the_cent(cents: int, weights: dict[str, Decimal]) -> None:
    """And none is further than a cent from its exact part."""
    split = allocate(cents, weights)
    assert sum(split.values()) == cents and split.keys() == weights.keys()
    whole = sum(map(Fraction, weights.values()))
    if whole:
        assert all(abs(split[n] - Fraction(cents) * Fraction(weights[n]) / whole) < 1 for n in weights)


def test_equal_remainders_go_to_the_first_names() -> None:
    """Whatever the order in which the names came."""
    weights = {"c": Decimal(1), "a": Decimal(1), "b": Decimal(1)}
    assert allocate(100, weights) == {"a": 34, "b": 33, "c": 33} and allocate(101, weights) == \
        {"a": 34, "b": 34, "c": 33}
    assert allocate(7, {"b": Decimal(), "a": Decimal()}) == {"a": 7, "b": 0}


FACTS = st.lists(st.tuples(st.sampled_from(["", "x", "心内科"]), st.sampled_from(["d1", "d2", "d3"]),
                           st.decimals(0, 5000, places=2)), min_size=1, max_size=30)


@given(FACTS, st.randoms(use_true_random=False))
def test_the_order_of_the_lines_does_not_matter(facts: list[tuple[str, str, Decimal]], rng: random.Random) -> None:
    """Same lines, same files; hospital, departments and doctors add up to the cent."""
    lines = [recognised(f"n{k}", str(price), department=department, doctor=doctor)
             for k, (department, doctor, price) in enumerate(facts)]
    mixed = list(lines)
    rng.shuffle(mixed)
    made = []
    for order in (lines, mixed):
        sieve = sieved(order)
        settled = settle(sieve, read_fees(FEES))
        made.append((evidence_csv(sieve), tables([result_of(sieve, "a", settled)])))
    assert made[0] == made[1]
    [one] = settled
    assert one.recognised == sum((price for _, _, price in facts), Decimal())
    assert one.cents == half_up(Fraction(one.recognised) * 50)
    assert sum(share.cents for share in one.shares) == one.cents
    by_department: dict[str, int] = {}
    for share in one.shares:
        by_department[share.department] = by_department.get(share.department, 0) + share.cents
    weights = {name: sum((p for d, _, p in facts if d == name), Decimal()) for name in by_department}
    assert by_department == allocate(one.cents, weights)


# ---------------------------------------------------------------- the run

def files(out: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def rows(out: Path, name: str) -> list[dict[str, str]]:
    """A CSV file of a run."""
    with (out / name).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@pytest.fixture
def period(store: Store) -> list[Line]:
    """Two hospitals in March: a's fees fell, b's did not."""
    made = [recognised(f"n{k}", "33.33", department="xy"[k % 2], doctor=f"d{k % 3}") for k in range(7)]
    made += [recognised(f"m{k}", "200.00", institution="b", text="", day="2026-03-20") for k in range(3)]
    made += [line("u", "reminded"), recognised("c", scheme="commercial")]
    write(store, *made)
    return made


@pytest.fixture
def go(store: Store, tmp_path: Path) -> Callable[..., Run]:
    """Runs the settlement of March with the rules of this file."""
    fees = FEES + b"b,2026-03,50,1\nb,2025-03,50,1\n"

    def run(out: str = "out", dry_run: bool = False, asked: tuple[str, ...] = (), raw: bytes = fees) -> Run:
        made = Run(store, ZONE, lambda day: RULES, *MARCH, run_id(*MARCH, asked, raw, lambda day: RULES),
                   read_fees(raw), raw, asked, tmp_path / out)
        made.compute(dry_run)
        if not dry_run:
            made.record()
        made.finish(dry_run)
        return made
    return run


def test_a_run_pays_once_and_gives_the_same_bytes_again(store: Store, period: list[Line], tmp_path: Path,
                                                       go: Callable[..., Run]) -> None:
    """Dry, real, again into the same folder and into another: one content; another run finds nothing to pay."""
    go("dry", dry_run=True)
    assert not any(one.body.get("settled") for one in store.lines_where())
    first = go("out")
    dry, real = files(tmp_path / "dry"), files(tmp_path / "out")
    assert {n: c for n, c in dry.items() if n != "manifest.json"} == \
        {n: c for n, c in real.items() if n != "manifest.json"}
    before = store.events(limit=10_000)[-1].seq
    go("out")
    go("again")
    assert files(tmp_path / "out") == files(tmp_path / "again") == real
    assert store.events(limit=10_000)[-1].seq == before
    settled = {one.number for one in store.lines_where() if one.body.get("settled") == first.id}
    assert settled == {f"n{k}" for k in range(7)}
    other = go("other", asked=("a",))
    assert other.id != first.id and other.summary["allocated"] == 0
    assert other.summary["lines"]["SETTLED_BEFORE"] == 7
    assert store.verify_events().problems == []


def test_the_evidence_proves_the_sum(period: list[Line], tmp_path: Path, go: Callable[..., Run]) -> None:
    """Every file by its digest, every amount by its lines; b is told and paid nothing; nobody is named."""
    run = go()
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert {one["name"] for one in manifest["files"]} | {"manifest.json"} == set(files(out))
    assert all(sha256((out / one["name"]).read_bytes()).hexdigest() == one["sha256"] for one in manifest["files"])
    evidence = rows(out, "evidence/a.csv")
    assert [row["price"] for row in evidence] == ["33.33"] * 7 and evidence[0]["rule"] == "hangzhou-2024"
    assert sorted(row["line"] for row in evidence) == sorted(one.id for one in period if one.number[0] == "n")
    told = {row["institution"]: row for row in rows(out, "institutions.csv")}
    assert (told["a"]["recognised_fees"], told["a"]["fees_per_head"], told["a"]["fell"], told["a"]["allocated"]) == \
        ("233.31", "480.00", "yes", "116.66")
    assert (told["b"]["lines"], told["b"]["fell"], told["b"]["allocated"]) == ("3", "no", "0.00")
    parts = [Decimal(row["allocated"]) for row in rows(out, "allocation.csv") if row["institution"] == "a"]
    assert sum(parts) == Decimal("116.66") and len(parts) == 6
    reasons = {(row["institution"], row["reason"]): row["lines"] for row in rows(out, "filters.csv")}
    assert (reasons["a", "ELIGIBLE"], reasons["a", "UNDECIDED"], reasons["a", "SCHEME_NOT_COVERED"]) == ("7", "1", "1")
    assert run.summary["allocated"] == Decimal("116.66") and sum(run.summary["lines"].values()) == len(period)


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_run_that_was_cut_off_is_finished_by_running_it_again(store: Store, period: list[Line], tmp_path: Path,
                                                               go: Callable[..., Run], cut: int,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two transactions, or before the files are in place: the second run gives what one would have."""
    monkeypatch.setattr("gateway.commands.settlement._BATCH", 3)
    go("whole", dry_run=True)
    original = Run._record
    calls: list[int] = []

    def failing(self: Run, facts: Any) -> None:
        if len(calls) == cut:
            raise KeyboardInterrupt
        calls.append(1)
        original(self, facts)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_record", failing)
        with pytest.raises(KeyboardInterrupt):
            go()
    assert sum(bool(one.body.get("settled")) for one in store.lines_where()) == 3 * cut
    assert not (tmp_path / "out" / "manifest.json").exists()
    go()
    done = files(tmp_path / "out")
    assert {n: c for n, c in done.items() if n != "manifest.json"} == \
        {n: c for n, c in files(tmp_path / "whole").items() if n != "manifest.json"}
    assert sum(bool(one.body.get("settled")) for one in store.lines_where()) == 7


def test_evidence_is_never_overwritten_by_other_evidence(store: Store, period: list[Line], tmp_path: Path,
                                                        go: Callable[..., Run]) -> None:
    """A line that was revoked after the run, or another fees table: the folder stays, and what to do is said."""
    go()
    before = files(tmp_path / "out")
    other = FEES.replace(b"480000", b"470000") + b"b,2026-03,50,1\nb,2025-03,50,1\n"
    for change in ({"raw": other}, {"dry_run": True}):
        with pytest.raises(GatewayError) as refused:
            go(**change)
        assert refused.value.category is Category.CONFLICT and "another folder" in refused.value.message
    [one] = [one for one in store.lines_where() if one.number == "n1"]
    write(store, replace(one, state="viewed", body={**one.body, "decision": ""}))
    with pytest.raises(GatewayError) as refused:
        go()
    assert refused.value.category is Category.CONFLICT and files(tmp_path / "out") == before
    assert go("new").summary["lines"]["REVOKED_AFTER_SETTLEMENT"] == 1


def test_a_line_that_changes_while_the_run_computes_stops_it(store: Store, period: list[Line],
                                                            go: Callable[..., Run],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """What was revoked meanwhile is not paid."""
    original = Run.record

    def late(self: Run) -> None:
        [one] = [one for one in store.lines_where() if one.number == "n6"]
        write(store, replace(one, state="viewed", body={**one.body, "decision": ""}))
        original(self)
    monkeypatch.setattr(Run, "record", late)
    with pytest.raises(GatewayError) as refused:
        go()
    assert refused.value.category is Category.CONFLICT
    monkeypatch.undo()
    assert go("out").summary["lines"]["ELIGIBLE"] == 6 + 3


def test_settlement_on_the_command_line(store: Store, settings: Settings, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the shipped rule of Hangzhou; a table without the fees is refused with status 1 and nothing is written."""
    slug = "hz-demo-2"
    write(store, *[recognised(f"n{k}", "100.00", institution=slug) for k in range(4)])
    monkeypatch.setenv("HUREN_DATA", str(settings.data))
    monkeypatch.setenv("HUREN_DATABASE_URL", settings.database_url)
    fees, out = tmp_path / "fees.csv", tmp_path / "out"

    def huren(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["settlement", "run", "--from", "2026-03", "--to", "2026-03", "--fees", str(fees), "--out", str(out),
                  *more])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err
    fees.write_bytes(b"institution,period,fees,heads\n")
    status, _, err = huren()
    assert status == 1 and f"of {slug}: add a row" in err and files(out) == {}
    fees.write_text(f"institution,period,fees,heads\n{slug},2026-03,48,1\n{slug},2025-03,50,1\n")
    status, said, _ = huren("--dry-run")
    assert status == 0 and "allocated\t200.00" in said and "dry run" in said
    status, said, _ = huren()
    assert status == 0 and "ELIGIBLE\t4" in said
    assert {one.body["settled"] for one in store.lines_where()} == {said.partition("run\t")[2][:32]}
    assert huren("--institution", "nowhere")[0] == 1
    fees.write_text("institution,period,fees,heads\nnowhere,2026-03,48,1\n")
    assert "no hospital nowhere" in huren("--out", str(tmp_path / "new"))[2]
    assert "--from" in huren("--from", "2026-04")[2]


