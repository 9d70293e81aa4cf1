"""`python -m bench.figures`: a year of figures at the size of Hangzhou, and how long each question takes.

Real: what a line counts (`gateway.recognition.figures.counted`), the cells, their tables, the questions through the
application, and the roll, measured on lines and events that the store wrote itself. Short: the year's cells are added
up in memory day by day and inserted, without their 3,030,600 lines and events, which no question reads.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import accumulate, islice
from operator import add
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import click

from bench import postgres
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.edges.http import create_app
from gateway.recognition.figures import MEASURES, Counting, counted
from gateway.recognition.model import LineBody, State
from gateway.store import Store, open_store
from gateway.store.database import Transaction
from gateway.store.figures import Figures
from gateway.store.model import Line, LineChange, Unit
from gateway.terminology import catalogue

#: Hangzhou in 2024: institutions, items, recognitions.
INSTITUTIONS, ITEMS, DECISIONS = 251, 427, 3_030_600
YEAR = 2024
ZONE = ZoneInfo("Asia/Shanghai")
_REASONS = (("R1", "no"), ("R2", "no"), ("R3", "no"), ("R4", "no"), ("R6", "reviewed"), ("R98", "no"), ("R99", "no"))
_STATES = (State.RECOGNISED,) * 8 + (State.NOT_RECOGNISED,) * 2
_COLUMNS = ("dim", "institution", "span", "period", "value", *MEASURES)


class Year:
    """Invented decisions: larger hospitals and commoner items more often; the same for the same size."""

    def __init__(self, decisions: int, institutions: int = INSTITUTIONS, items: int = ITEMS) -> None:
        self.decisions = decisions
        self.slugs = [f"h{n:03}" for n in range(institutions)]
        self.items = sorted(catalogue().items)[:items]
        self._hospital = list(accumulate(1 / (n + 10) for n in range(institutions)))
        self._item = list(accumulate(1 / (n + 10) for n in range(items)))
        first = date(YEAR, 1, 1)
        self.days = [first + timedelta(days=n) for n in range((date(YEAR + 1, 1, 1) - first).days)]

    def lines(self, day: int) -> Iterator[tuple[Line, LineBody]]:
        """The decided lines of the n-th day."""
        rng = random.Random(day)
        share = self.decisions * (day + 1) // len(self.days) - self.decisions * day // len(self.days)
        midnight = datetime.combine(self.days[day], datetime.min.time(), ZONE)
        start = int(midnight.timestamp()) * 1_000_000
        slugs = rng.choices(self.slugs, cum_weights=self._hospital, k=share)
        items = rng.choices(self.items, cum_weights=self._item, k=share)
        for slug, item in zip(slugs, items, strict=True):
            at = start + rng.randrange(7 * 3600, 20 * 3600) * 1_000_000
            yield _line(rng, slug, item, at, self.slugs)


def _line(rng: random.Random, slug: str, item: str, at: int, slugs: list[str]) -> tuple[Line, LineBody]:
    department = rng.randrange(20)
    state = rng.choice(_STATES)
    body = LineBody(department=f"D{department:02}", doctor=f"{department:02}-{rng.randrange(5)}", reminded_at=at,
                    verdict="RECOGNISABLE", interruptive=rng.random() < .5, issuers=[rng.choice(slugs)],
                    viewed_at=at + 1, decided_at=at + 2, ordinal=1)
    if state is State.RECOGNISED:
        body.price, body.fund, body.reordered = f"{rng.randrange(20, 900)}.00", f"{rng.randrange(10)}.50", \
            rng.random() < .02
    else:
        body.reason, body.refusal = rng.choice(_REASONS)
        body.billed = True
    return Line(str(uuid.UUID(int=rng.getrandbits(128))), slug, str(rng.getrandbits(40)), 0, item, state.value,
                created=at), body


def fill(store: Store, year: Year) -> dict[str, int]:
    """Insert the year's cells; the sums of all lines, to check the answers against."""
    sums = [0] * len(MEASURES)
    numbers: dict[str, int] = {"": 0}

    def name(transaction: Transaction) -> None:
        numbers.update((slug, store._institution(transaction, slug)) for slug in year.slugs)
    store._call(name)
    for day in range(len(year.days)):
        cells: dict[tuple[int, int, int, str], list[int]] = {}
        for line, body in year.lines(day):
            mine = counted(line, body, ZONE)
            for place, n in enumerate(mine.measures):
                sums[place] += n
            for (dim, slug, value, on), measures in mine.cells():
                key = (dim, numbers[slug], on, value)
                cells[key] = list(map(add, cells[key], measures)) if key in cells else list(measures)
        rows: list[tuple[Any, ...]] = [(dim, number, 0, on, value, *cell)
                                       for (dim, number, on, value), cell in sorted(cells.items())]
        for at in range(0, len(rows), 20_000):
            store._call(partial(_insert, rows[at:at + 20_000]))
    epoch = date(1970, 1, 1).toordinal()
    total = ", ".join(f"CAST(sum({name}) AS bigint)" for name in MEASURES)
    for month in range(1, 13):
        low = date(YEAR, month, 1).toordinal() - epoch
        high = (date(YEAR, month, 28) + timedelta(days=4)).replace(day=1).toordinal() - epoch
        store._call(partial(_month, f"INSERT INTO figure ({', '.join(_COLUMNS)}) SELECT dim, institution, 1, ?, value, "
                                    f"{total} FROM figure WHERE span = 0 AND period >= ? AND period < ? "
                                    "GROUP BY dim, institution, value", (YEAR * 100 + month, low, high)))
    return dict(zip(MEASURES, sums, strict=True))


def _insert(rows: list[tuple[Any, ...]], transaction: Transaction) -> None:
    transaction.insert("figure", _COLUMNS, rows)


def _month(sql: str, values: tuple[int, ...], transaction: Transaction) -> None:
    transaction.run(sql, values)


def questions(year: Year) -> Iterator[tuple[str, str]]:
    """Every question that can be asked: over the year, and over a range that cuts months at both ends; the largest in
    the other formats too."""
    for start, end in ((f"{YEAR}-01-01", f"{YEAR}-12-31"), (f"{YEAR}-01-15", f"{YEAR}-12-17")):
        for institution in ("", year.slugs[0]):
            for by in ("hospital", "department", "doctor", "item", "day", "month", "reason", "issuer"):
                if institution or by not in ("department", "doctor"):
                    yield f"{by}{' of one hospital' if institution else ''}", \
                        f"/recognition/figures?by={by}&from={start}&to={end}&institution={institution}"
    for shape in ("csv", "fhir"):
        yield f"item, {shape}", f"/recognition/figures?by=item&from={YEAR}&to={YEAR}&format={shape}"


def ask(settings: Settings, store: Store, year: Year, rounds: int = 3) -> list[tuple[str, float, int]]:
    """Each question, the median of its times in ms, and the bytes of its answer."""
    client = create_app(replace(settings, demo=True), store).test_client()
    client.get("/recognition/figures")  # reads the catalogue
    found = []
    for name, url in questions(year):
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            answer = client.get(url)
            times.append((time.perf_counter() - began) * 1000)
            if answer.status_code != 200:
                raise SystemExit(f"{url}: {answer.status_code}")
        found.append((f"{name}{', months cut' if '01-15' in url else ''}", median(times), len(answer.data)))
    return found


def roll(store: Store, year: Year, lines: int) -> tuple[float, float]:
    """Lines a second that the store writes with their events, and that are then rolled."""
    made = [replace(line, body=asdict(body)) for line, body in
            islice((one for day in range(0, 366, 7) for one in year.lines(day)), lines)]
    began = time.perf_counter()
    for at in range(0, len(made), 500):
        store.write(Unit(ledger=[LineChange(line, ({"kind": "recognised"},)) for line in made[at:at + 500]]), GATEWAY)
    wrote = time.perf_counter() - began
    figures = Figures(store, Counting(ZONE))
    began = time.perf_counter()
    figures.roll(seconds=600)
    return len(made) / wrote, len(made) / (time.perf_counter() - began)


@click.command()
@click.option("--decisions", default=DECISIONS, show_default=True)
@click.option("--lines", default=10_000, show_default=True, help="Lines written and rolled for real.")
@click.option("--only", type=click.Choice(("sqlite", "postgresql")))
def main(decisions: int, lines: int, only: str | None) -> None:
    """Fill a year, roll, ask; print the table."""
    for backend in (only,) if only else ("sqlite", "postgresql"):
        with tempfile.TemporaryDirectory(prefix="huren-bench-figures-") as folder, \
                (postgres.scratch() if backend == "postgresql" else contextlib.nullcontext("")) as url:
            settings = Settings(data=Path(folder), database_url=url or "")
            year = Year(decisions)
            store = open_store(settings, migrate=True)
            began = time.perf_counter()
            sums = fill(store, year)
            filled = time.perf_counter() - began
            with store._database.read() as reader:
                cells = (reader.one("SELECT count(*) FROM figure") or (0,))[0]
            print(f"\n{backend}: {sums['decided']:,} decisions, {cells:,} cells in {filled:.0f} s, "
                  f"{store._database.size() / 1e6:.0f} MB")
            for name, milliseconds, size in ask(settings, store, year):
                print(f"| {name} | {milliseconds:.0f} ms | {size / 1000:.0f} kB |", flush=True)
            wrote, rolled = roll(store, year, lines)
            print(f"lines written with an event: {wrote:.0f}/s, rolled: {rolled:.0f}/s", flush=True)
            store.close()


if __name__ == "__main__":
    main()
