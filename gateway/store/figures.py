"""The figures in the database: rolled forward from the events, asked by range.

``figure`` holds sums over order lines by day and by month. A *roll* takes the next events after the watermark (in
``meta``: ``figures``), looks at the lines that they name as these stand now, and adds to the cells the difference to
what was counted of each line before (``counted``). All that is computed is computed before the transaction; the
transaction checks that nobody rolled in between and adds. What a line counts is said by a `Counting`
(`gateway.recognition.figures`).

``freshness`` is rolled the same way from the inbox, in the order of its ids.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo

from gateway.errors import Category, GatewayError
from gateway.store import ledger
from gateway.store.database import Reader, Transaction
from gateway.store.model import Line
from gateway.store.schema import MEASURES, STATUSES

if TYPE_CHECKING:
    from gateway.store.store import Store

log = logging.getLogger("huren.figures")

#: Events of one roll, lines of one batch of a recount. A batch holds the writer for 20 ms (SQLite) to 80 ms.
BATCH = 200
#: Messages of one roll of freshness.
MESSAGES = 1000
#: Seconds after its arrival before a message's freshness is rolled: by then every smaller id has been committed.
_SETTLED = 60
_FORGET = 5000  # lines
#: Rows of ``meta``: the last event rolled, the last message, and while a recount runs how far it is.
_MARK, _FRESHNESS, _RECOUNT = "figures", "figures:freshness", "figures:recount"
#: The background rolls when so many events wait; a query rolls what is left. While further events come it rests so many
#: times as long as a batch took: who signs orders comes first.
_MANY = 300
_REST = 20
_EPOCH = date(1970, 1, 1).toordinal()
_DAY, _MONTH = 0, 1
_META = "SELECT value FROM meta WHERE name = ?"
_KEY = ("dim", "institution", "span", "period", "value")
_BOUND = ("institution", "span", "period", "bound")
_COUNT = "INSERT INTO counted (line, text) VALUES (?, ?) ON CONFLICT (line) DO UPDATE SET text = excluded.text"
_SUMS = ", ".join(f"CAST(sum({name}) AS bigint)" for name in MEASURES)

Measures = tuple[int, ...]
#: dim, institution's slug ("" all together), value, day since 1970-01-01
Cell = tuple[int, str, str, int]
_Key = tuple[int, str, int, int, str]  # dim, slug, span, period, value


class Counting(Protocol):
    """What a line counts; the text is kept, so that it can be taken away again."""

    @property
    def zone(self) -> ZoneInfo: ...

    def count(self, line: Line) -> str: ...

    def cells(self, text: str) -> Iterable[tuple[Cell, Measures]]: ...


@dataclass(frozen=True, slots=True)
class _Step:
    """A batch, computed: where it began and ends, what is added to the cells, and what is then counted of lines."""

    before: str
    after: str
    lines: int
    deltas: Mapping[_Key, Sequence[int]]
    counted: Sequence[tuple[int, str]]


class Figures:
    """The figures of a store. Any number of processes may roll and ask."""

    def __init__(self, store: Store, counting: Counting) -> None:
        self._store, self._counting = store, counting
        self._database = store._database
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ---------------------------------------------------------------- rolling

    def waiting(self) -> int:
        """Events that are not in the figures yet."""
        return self._newest() - self.counted_to()

    def _newest(self) -> int:
        with self._database.read() as reader:
            row = reader.one("SELECT max(seq) FROM event")
        return int(row[0] or 0 if row else 0)

    def roll(self, seconds: float = 10.0) -> int:
        """Take in what waits; how many events that were. BUSY after so many seconds, and while a recount runs."""
        until, done = time.monotonic() + seconds, 0
        while (count := self._roll_once()) is not None:
            done += count
            if time.monotonic() > until and (waiting := self.waiting()):
                raise GatewayError(Category.BUSY, f"{waiting} events are still to be counted; ask again later")
        return done

    def _roll_once(self) -> int | None:
        """Take in one batch; its events, 0 where another process took it, None where nothing waits."""
        with self._database.read() as reader:
            if _value(reader, _RECOUNT):
                raise GatewayError(Category.BUSY, "the figures are being counted anew; ask again later, or run "
                                                  "`huren figures recount` again if one was cut off")
            step = self._next(reader)
        if step is None:
            return None
        return int(step.after) - int(step.before or 0) if self._take(step, _MARK) else 0

    def _next(self, reader: Reader) -> _Step | None:
        mark = _value(reader, _MARK)
        events = reader.all("SELECT seq, line FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (int(mark or 0), BATCH))
        if not events:
            return None
        pks = sorted({line for _, line in events})
        lines = self._lines(reader.among(ledger._READ + "pk IN ?*", pks))
        before = dict(reader.among("SELECT line, text FROM counted WHERE line IN ?*", pks))
        return self._step(mark, str(events[-1][0]), lines, before)

    def _step(self, mark: str, after: str, lines: Sequence[tuple[int, Line]], before: Mapping[int, str]) -> _Step:
        deltas: dict[_Key, list[int]] = {}
        counted = []
        for pk, line in lines:
            text, old = self._counting.count(line), before.get(pk)
            if text == old:
                continue
            counted.append((pk, text))
            _spread(deltas, self._counting.cells(text), 1)
            if old is not None:
                _spread(deltas, self._counting.cells(old), -1)
        return _Step(mark, after, len(lines), {key: sums for key, sums in deltas.items() if any(sums)}, counted)

    def _take(self, step: _Step, mark: str) -> bool:
        """Add a step; False where another process took one in between."""
        def work(transaction: Transaction) -> bool:
            transaction.lock([b"figures"])
            if _value(transaction, mark) != step.before or mark == _MARK and _value(transaction, _RECOUNT):
                return False
            numbers = {slug: self._store._institution(transaction, slug) if slug else 0
                       for slug in sorted({key[1] for key in step.deltas})}
            rows = [(dim, numbers[slug], span, period, value, *sums)
                    for (dim, slug, span, period, value), sums in step.deltas.items()]
            transaction.insert("figure", (*_KEY, *MEASURES), sorted(rows), key=_KEY)
            transaction.many(_COUNT, step.counted)
            _set(transaction, mark, step.after)
            return True
        return self._store._call(work)

    def _lines(self, rows: Iterable[tuple[Any, ...]]) -> list[tuple[int, Line]]:
        return [(row[0], self._store._lines._line(row)) for row in rows]

    # ---------------------------------------------------------------- counting anew

    def recount(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Forget the figures and count every line again, in batches; the number of lines counted.

        Queries are BUSY meanwhile. One that was cut off goes on where it stood when it is called again.
        """
        self._forget(self._store._call(self._begin_recount))
        with self._database.read() as reader:
            total = (reader.one("SELECT count(*) FROM line") or (0,))[0]
        done = 0
        while True:
            with self._database.read() as reader:
                mark = _value(reader, _RECOUNT)
                if not mark:  # another process finished it
                    return done
                seq, last = map(int, mark.split(":"))
                lines = self._lines(reader.all(ledger._READ + "pk > ? ORDER BY pk LIMIT ?", (last, BATCH)))
            if not lines:
                break
            step = self._step(mark, f"{seq}:{lines[-1][0]}", lines, {})
            if self._take(step, _RECOUNT):
                done += step.lines
                if progress is not None:
                    progress(done, total)

        def finish(transaction: Transaction) -> None:
            transaction.lock([b"figures"])
            if _value(transaction, _RECOUNT) == mark:
                transaction.run("DELETE FROM meta WHERE name = ?", (_RECOUNT,))
                _set(transaction, _MARK, str(seq))
        self._store._call(finish)
        self.roll(seconds=float("inf"))
        self.roll_freshness()
        return done

    @staticmethod
    def _begin_recount(transaction: Transaction) -> str:
        """The mark of the recount that begins here, or of the one that was cut off: last event and last line.

        The line is -1 while what was counted before is still to be deleted.
        """
        transaction.lock([b"figures"])
        mark = _value(transaction, _RECOUNT)
        if not mark:
            row = transaction.one("SELECT max(seq) FROM event")
            mark = f"{row[0] or 0 if row else 0}:-1"
            _set(transaction, _RECOUNT, mark)
            transaction.many("DELETE FROM meta WHERE name = ?", [(_MARK,), (_FRESHNESS,)])
        return mark

    def _forget(self, mark: str) -> None:
        """Delete what was counted, piece by piece, so that no writer waits for long."""
        if not mark.endswith(":-1"):
            return
        numbers = [0, *(self._store.institution_number(slug) for slug in self._store.institutions())]
        pieces: list[tuple[str, tuple[int, ...]]] = [
            *(("DELETE FROM figure WHERE dim = ? AND institution = ?", (dim, n)) for dim in range(6) for n in numbers),
            *(("DELETE FROM freshness WHERE institution = ?", (number,)) for number in numbers)]
        with self._database.read() as reader:
            highest = (reader.one("SELECT max(line) FROM counted") or (0,))[0] or 0
        pieces += [("DELETE FROM counted WHERE line > ? AND line <= ?", (low, low + _FORGET))
                   for low in range(0, highest, _FORGET)]
        for sql, values in [*pieces, ("", ())]:
            if not self._store._call(lambda transaction, sql=sql, values=values: self._forget_piece(  # type: ignore[misc]
                    transaction, mark, sql, values)):
                return  # another process was faster

    @staticmethod
    def _forget_piece(transaction: Transaction, mark: str, sql: str, values: Sequence[int]) -> bool:
        transaction.lock([b"figures"])
        if _value(transaction, _RECOUNT) != mark:
            return False
        if sql:
            transaction.run(sql, values)
        else:
            _set(transaction, _RECOUNT, mark.removesuffix("-1") + "0")
        return True

    # ---------------------------------------------------------------- freshness

    def roll_freshness(self, seconds: float = 10.0) -> None:
        """Take in the messages that were stored since; those still worked on, and all after them, wait."""
        until, old = time.monotonic() + seconds, time.time_ns() // 1000 - _SETTLED * 1_000_000
        while time.monotonic() < until:
            with self._database.read() as reader:
                mark = _value(reader, _FRESHNESS)
                first = reader.one("SELECT received FROM inbox WHERE id > ? ORDER BY id LIMIT 1", (int(mark or 0),))
                if first is None or first[0] >= old:
                    return
                rows = reader.all("SELECT id, received, settled, institution, status, attempts FROM inbox "
                                  "WHERE id > ? ORDER BY id LIMIT ?", (int(mark or 0), MESSAGES))
            counts: dict[tuple[int, int, int, int], int] = {}
            last = None
            for id, received, settled, institution, status, attempts in rows:
                if STATUSES[status] == "received" or received >= old:
                    break
                last = id
                if STATUSES[status] != "stored" or attempts > 1:
                    continue
                day = _local_day(received, self._counting.zone)
                for number in (institution, 0):
                    for span, period in ((_DAY, day), (_MONTH, _month_of(day))):
                        key = (number, span, period, bound(settled - received))
                        counts[key] = counts.get(key, 0) + 1
            if last is None or not self._add_freshness(mark, str(last), counts):
                return

    def _add_freshness(self, before: str, after: str, counts: Mapping[tuple[int, int, int, int], int]) -> bool:
        def work(transaction: Transaction) -> bool:
            transaction.lock([b"figures"])
            if _value(transaction, _FRESHNESS) != before or _value(transaction, _RECOUNT):
                return False
            transaction.insert("freshness", (*_BOUND, "messages"), [(*key, n) for key, n in sorted(counts.items())],
                               key=_BOUND)
            _set(transaction, _FRESHNESS, after)
            return True
        return self._store._call(work)

    # ---------------------------------------------------------------- asking

    def sums(self, dim: int, institution: str | None, first: date, last: date) -> dict[str, Measures]:
        """Sums by value of a dimension; ``institution`` None: all together. Rows that are zero are left out."""
        number = 0 if institution is None else self._store.institution_number(institution)
        found = self._all("value", "institution = ? AND dim = ?", (number, dim), first, last)
        return {value: sums for value, sums in sorted(found.items()) if any(sums)}

    def by_institution(self, first: date, last: date, only: str | None = None) -> dict[str, Measures]:
        """Sums by institution's slug."""
        with self._database.read() as reader:
            numbers = [n for n, in reader.all("SELECT number FROM institution WHERE number > 0")]
        if only is not None:
            numbers = [n for n in numbers if n == self._store.institution_number(only)]
        found: dict[int, Measures] = {}
        with self._database.read() as reader:
            for span, low, high in _spans(first, last):
                for number, *sums in reader.among(
                        f"SELECT institution, {_SUMS} FROM figure WHERE dim = 0 AND span = ? AND period BETWEEN ? "
                        "AND ? AND institution IN ?* GROUP BY institution", numbers, (span, low, high)):
                    found[number] = _plus(found.get(number), sums)
        return {slug: found[number] for slug, number in sorted((self._store._slug(n), n) for n in found)
                if any(found[number])}

    def by_day(self, institution: str | None, first: date, last: date) -> dict[date, Measures]:
        """Sums by day; days on which nothing counts are left out."""
        number = 0 if institution is None else self._store.institution_number(institution)
        with self._database.read() as reader:
            rows = reader.all(f"SELECT period, {', '.join(MEASURES)} FROM figure WHERE dim = 0 AND institution = ? AND "
                              "span = 0 AND period BETWEEN ? AND ? ORDER BY period", (number, _day(first), _day(last)))
        return {date.fromordinal(period + _EPOCH): tuple(sums) for period, *sums in rows if any(sums)}

    def by_month(self, institution: str | None, first: date, last: date) -> dict[str, Measures]:
        """Sums by month (``2026-01``); a month that the range cuts has its days inside the range only."""
        number = 0 if institution is None else self._store.institution_number(institution)
        found: dict[int, Measures] = {}
        with self._database.read() as reader:
            for span, low, high in _spans(first, last):
                for period, *sums in reader.all(
                        f"SELECT period, {', '.join(MEASURES)} FROM figure WHERE dim = 0 AND institution = ? AND "
                        "span = ? AND period BETWEEN ? AND ?", (number, span, low, high)):
                    month = period if span == _MONTH else _month_of(period)
                    found[month] = _plus(found.get(month), sums)
        return {f"{m // 100:04}-{m % 100:02}": found[m] for m in sorted(found) if any(found[m])}

    def _all(self, group: str, where: str, values: Sequence[Any], first: date, last: date) -> dict[str, Measures]:
        found: dict[str, Measures] = {}
        with self._database.read() as reader:
            for span, low, high in _spans(first, last):
                for key, *sums in reader.all(f"SELECT {group}, {_SUMS} FROM figure WHERE {where} AND span = ? AND "
                                             f"period BETWEEN ? AND ? GROUP BY {group}", (*values, span, low, high)):
                    found[key] = _plus(found.get(key), sums)
        return found

    def freshness(self, institution: str | None, first: date, last: date) -> dict[int, int]:
        """Messages by upper bound in ms, received in the range."""
        number = 0 if institution is None else self._store.institution_number(institution)
        found: dict[int, int] = {}
        with self._database.read() as reader:
            for span, low, high in _spans(first, last):
                for upper, messages in reader.all(
                        "SELECT bound, CAST(sum(messages) AS bigint) FROM freshness WHERE institution = ? AND span = ? "
                        "AND period BETWEEN ? AND ? GROUP BY bound", (number, span, low, high)):
                    found[upper] = found.get(upper, 0) + messages
        return found

    def freshness_by_institution(self, first: date, last: date) -> dict[str, dict[int, int]]:
        """The same for every institution's own messages."""
        found: dict[str, dict[int, int]] = {}
        with self._database.read() as reader:
            for span, low, high in _spans(first, last):
                for number, upper, messages in reader.all(
                        "SELECT institution, bound, CAST(sum(messages) AS bigint) FROM freshness WHERE institution > 0 "
                        "AND span = ? AND period BETWEEN ? AND ? GROUP BY institution, bound", (span, low, high)):
                    histogram = found.setdefault(self._store._slug(number), {})
                    histogram[upper] = histogram.get(upper, 0) + messages
        return found

    def counted_to(self) -> int:
        """The last event that the figures hold."""
        with self._database.read() as reader:
            return int(_value(reader, _MARK) or 0)

    # ---------------------------------------------------------------- in the background

    def keep(self, seconds: float = 2.0) -> None:
        """Roll in a thread whenever many events wait, until ``close``."""
        def run() -> None:
            while not self._stop.wait(seconds):
                try:
                    if self.waiting() > _MANY:
                        self._roll_gently()
                    self.roll_freshness()
                except GatewayError as error:  # a stopping process, a database that is away, a recount
                    log.info("figures put off: %s", error.category.value)
                except Exception as error:
                    log.error("figures failed: %s", type(error).__name__)
        self._thread = threading.Thread(target=run, name="figures", daemon=True)
        self._thread.start()

    def _roll_gently(self) -> None:
        """Until nothing waits; where another process rolls, it is left to that."""
        last = self._newest()
        while True:
            began = time.monotonic()
            if not self._roll_once():
                return
            newest = self._newest()
            if self._stop.wait((time.monotonic() - began) * (_REST if newest != last else 0)):
                return
            last = newest

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)


def bound(microseconds: int) -> int:
    """An upper bound in milliseconds with two digits, rounded up: 0.3 ms → 1, 123.4 ms → 130."""
    milliseconds = max(1, -(-microseconds // 1000))
    unit = 10 ** max(0, len(str(milliseconds)) - 2)
    return -(-milliseconds // unit) * unit


def _spread(deltas: dict[_Key, list[int]], cells: Iterable[tuple[Cell, Measures]], sign: int) -> None:
    """Add a line's cells to the day's and the month's."""
    for (dim, slug, value, day), measures in cells:
        for key in ((dim, slug, _DAY, day, value), (dim, slug, _MONTH, _month_of(day), value)):
            sums = deltas.get(key)
            if sums is None:
                deltas[key] = [sign * n for n in measures]
                continue
            for place, n in enumerate(measures):
                if n:
                    sums[place] += sign * n


@lru_cache(maxsize=20_000)
def _month_of(day: int) -> int:
    found = date.fromordinal(day + _EPOCH)
    return found.year * 100 + found.month


def _day(day: date) -> int:
    return day.toordinal() - _EPOCH


def _local_day(microseconds: int, zone: ZoneInfo) -> int:
    return _day(datetime.fromtimestamp(microseconds // 1_000_000, zone).date())


def _spans(first: date, last: date) -> list[tuple[int, int, int]]:
    """A range as whole months and the days before and after them: span, lowest and highest period."""
    if first > last:
        return []
    begin = first if first.day == 1 else (first.replace(day=1) + timedelta(days=31)).replace(day=1)
    after = last + timedelta(days=1)
    end = after.replace(day=1)  # the first day behind the last whole month
    if begin >= end:
        return [(_DAY, _day(first), _day(last))]
    months = (_MONTH, _month_of(_day(begin)), _month_of(_day(end - timedelta(days=1))))
    head = [(_DAY, _day(first), _day(begin) - 1)] if first < begin else []
    return [*head, months, *([(_DAY, _day(end), _day(last))] if end < after else [])]


def _plus(sums: Measures | None, more: Sequence[int]) -> Measures:
    return tuple(more) if sums is None else tuple(map(int.__add__, sums, more))


def _value(reader: Reader, name: str) -> str:
    row = reader.one(_META, (name,))
    return row[0] if row else ""


def _set(transaction: Transaction, name: str, value: str) -> None:
    transaction.run("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET "
                    "value = excluded.value", (name, value))
