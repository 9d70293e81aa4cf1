"""`huren settlement run`: the fund's share of what was recognised, with its evidence."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from gateway.commands.opening import opened, table
from gateway.config import Settings
from gateway.errors import Category, GatewayError

if TYPE_CHECKING:
    from gateway.recognition.evidence import Result
    from gateway.recognition.settlement import FeesTable, Part, RulesOn, Sieve
    from gateway.store import Store
    from gateway.store.model import Line

#: Lines of one page, and of one transaction that records them as settled.
_PAGE = 1000
_BATCH = 200
#: A decision is looked for among the orders of so many days before the period.
_LATEST_DAYS = 366
_STATES = ("recognised", "not_recognised", "viewed", "reminded")
_PART = ".part"


@click.group()
def settlement() -> None:
    """Settle what was recognised."""


@settlement.command()
@click.option("--from", "first", required=True, metavar="DAY", help="First day: 2026-01-01, 2026-01 or 2026.")
@click.option("--to", "last", required=True, metavar="DAY", help="Last day, month or year.")
@click.option("--fees", "fees_file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="CSV institution,period,fees,heads of this period and of the same one a year before.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the evidence; a new one, or that of the same run.")
@click.option("--institution", "asked", multiple=True, metavar="ID", help="These only; all when it is left out.")
@click.option("--dry-run", is_flag=True, help="Write the files and record nothing.")
@click.pass_obj
def run(settings: Settings, first: str, last: str, fees_file: Path, out: Path, asked: tuple[str, ...],
        dry_run: bool) -> None:
    """Compute, write the evidence, and record the paid lines as settled, so that no run settles them again.

    The same run gives the same bytes; one that was cut off is finished by running it again.
    """
    from gateway.recognition.measure import days_of
    from gateway.recognition.settlement import read_fees, run_id

    begin, end = days_of(first, "--from")[0], days_of(last, "--to")[1]
    if not 1900 < begin.year <= end.year or begin > end:
        raise GatewayError(Category.INVALID, "--from must not be after --to", "--from")
    raw = fees_file.read_bytes()
    fees = read_fees(raw)
    with opened(settings) as store:
        zone = ZoneInfo(settings.timezone)
        rules_on = _rules(settings, store)
        made = Run(store, zone, rules_on, begin, end, run_id(begin, end, asked, raw, rules_on), fees, raw, asked, out)
        made.compute(dry_run)
        if not dry_run:
            made.record()
        made.finish(dry_run)
    _show(made.summary, dry_run)


def _rules(settings: Settings, store: Store) -> RulesOn:
    from gateway.adapter import load_all
    from gateway.recognition.versions import Rulebook

    book = Rulebook(settings.timezone, load_all(settings.adapter_folders).all, store)
    known: dict[date, Any] = {}

    def on(day: date) -> Any:
        """The version that holds when a day begins."""
        if day not in known:
            known[day] = book.at(book.start(day))
        return known[day]
    return on


def _show(summary: dict[str, Any], dry_run: bool) -> None:
    rows = [("run", summary["run"]), ("period", f"{summary['from']}/{summary['to']}"),
            *((reason, str(count)) for reason, count in summary["lines"].items()),
            ("recognised fees", format(summary["recognised_fees"], "f")),
            ("institutions", f"{summary['institutions']}, of them paid {summary['paid_institutions']}"),
            ("allocated", format(summary["allocated"], "f"))]
    table(("what", "value"), rows)
    if dry_run:
        click.echo("dry run: nothing was recorded")


@dataclass
class Run:
    """One settlement run: ``compute``, ``record``, ``finish``; each may be repeated after a crash."""

    store: Store
    zone: ZoneInfo
    rules_on: RulesOn
    first: date
    last: date
    id: str
    fees: FeesTable
    raw: bytes
    asked: Sequence[str]
    out: Path
    results: list[Result] = field(default_factory=list)
    files: dict[str, tuple[str, int]] = field(default_factory=dict)  # name → SHA-256, bytes
    paid: list[tuple[str, list[Part]]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)  # files of a dry run

    # ---------------------------------------------------------------- compute

    def compute(self, dry_run: bool) -> None:
        """Read every line of the period and write the files beside their places. CONFLICT: the folder holds others."""
        held = self._held(dry_run)
        try:
            self._compute()
            if held is not None and held != {name: digest for name, (digest, _) in self.files.items()}:
                raise GatewayError(Category.CONFLICT, "the folder holds another result of this run: lines of the "
                                                      "period were decided or revoked since; nothing was changed: "
                                                      "give another folder", "--out")
        except BaseException:
            for name in self.files:
                (self.out / (name + _PART)).unlink(missing_ok=True)
            raise

    def _compute(self) -> None:
        from gateway.recognition.evidence import document, evidence_csv, result_of, summary, tables
        from gateway.recognition.settlement import settle

        (self.out / "evidence").mkdir(parents=True, exist_ok=True)
        rules = self.rules_on(self.last)
        for slug in self._institutions():
            sieve = self._sieve(slug)
            if not sieve.counts:
                continue
            settled = settle(sieve, self.fees)
            self.results.append(result_of(sieve, rules.name_of(slug), settled))
            self._write(f"evidence/{slug}.csv", evidence_csv(sieve))
            if paid := [one.part for one in settled if one.cents]:
                self.paid.append((slug, paid))
        for name, content in tables(self.results).items():
            self._write(name, content)
        self.summary = summary(self.id, self.first, self.last, self.results)
        self._write("summary.json", document(self.summary))

    def _held(self, dry_run: bool) -> dict[str, str] | None:
        """SHA-256 of the files that this run left here before; CONFLICT where it was another. A dry run's may go."""
        from gateway.fhir import json
        from gateway.recognition.evidence import MANIFEST

        place = self.out / MANIFEST
        if not place.exists():
            return None
        manifest = json.loads(place.read_bytes())
        files = {one["name"]: one["sha256"] for one in manifest["files"]}
        if manifest["dry_run"]:
            self.stale = list(files)
            return None
        if dry_run or manifest["run"] != self.id:
            raise GatewayError(Category.CONFLICT, "the folder holds the evidence of a run that was recorded: give "
                                                  "another folder", "--out")
        return files

    def _institutions(self) -> list[str]:
        with_data = self.store.institutions()
        named = [(slug, "--institution") for slug in self.asked] + [(slug, "fees") for slug in self.fees.institutions]
        for slug, where in named:
            if slug not in with_data and slug not in self.rules_on(self.last).institutions:
                raise GatewayError(Category.NOT_FOUND, f"there is no hospital {slug}; `huren catalogue show` lists "
                                                       "them", where)
        return sorted(set(self.asked) or set(with_data))

    def _sieve(self, slug: str) -> Sieve:
        from gateway.recognition.settlement import Sieve

        sieve = Sieve(slug, self.first, self.last, self.id, self.zone, self.rules_on)
        for line in self._lines(slug):
            sieve.take(line)
        return sieve

    def _lines(self, slug: str) -> Iterator[Line]:
        seen: set[str] = set()  # a line that changes its state meanwhile is met twice
        since = self._start(self.first - timedelta(days=_LATEST_DAYS))
        until = self._start(self.last + timedelta(days=1))
        for state in _STATES:
            after = None
            while page := self.store.lines_where(slug, state, since, until, _PAGE, after):
                after = page[-1].id
                for line in page:
                    if line.id not in seen:
                        seen.add(line.id)
                        yield line

    def _start(self, day: date) -> int:
        return int(datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp()) * 1_000_000

    def _write(self, name: str, content: bytes) -> None:
        place = self.out / (name + _PART)
        place.write_bytes(content)
        self.files[name] = sha256(content).hexdigest(), len(content)

    # ---------------------------------------------------------------- record

    def record(self) -> None:
        """Each paid line gets its ``settled`` event; those that have it from this run are passed over."""
        for slug, parts in self.paid:
            with (self.out / f"evidence/{slug}.csv{_PART}").open(encoding="utf-8", newline="") as evidence:
                rows = (row for row in csv.DictReader(evidence)
                        if any(part.first.isoformat() <= row["day"] <= part.last.isoformat() for part in parts))
                while batch := list(islice(rows, _BATCH)):
                    self._record(batch)

    def _record(self, rows: Sequence[dict[str, str]]) -> None:
        from gateway.caller import GATEWAY
        from gateway.recognition.decision import changed
        from gateway.recognition.model import EventKind, State
        from gateway.store.model import Unit

        for _ in range(5):
            lines = self.store.lines([row["line"] for row in rows])
            changes = []
            for row in rows:
                line = lines[row["line"]]
                if line.state != State.RECOGNISED or line.body["decision"] != row["decision"] \
                        or line.body.get("settled", "") not in ("", self.id):
                    raise GatewayError(Category.CONFLICT, "order lines of the period changed while the run computed; "
                                                          "run it again", "lines")
                if not line.body.get("settled"):
                    changes.append(changed(line, EventKind.SETTLED, line.state, "", {"settled": self.id},
                                           {"decision": row["decision"], "price": row["price"]}))
            try:
                if changes:
                    self.store.write(Unit(ledger=changes), GATEWAY)
                return
            except GatewayError as error:
                if error.detail != "moved":
                    raise
        raise GatewayError(Category.BUSY, "order lines of the period keep changing; run it again", "lines")

    # ---------------------------------------------------------------- finish

    def finish(self, dry_run: bool) -> None:
        """Move the files to their places, the manifest last."""
        from gateway.recognition.evidence import MANIFEST, document, manifest

        for name in set(self.stale) - self.files.keys():
            (self.out / name).unlink(missing_ok=True)
        for name in self.files:
            os.replace(self.out / (name + _PART), self.out / name)
        files = [(name, digest, size) for name, (digest, size) in self.files.items()]
        content = document(manifest(self.id, self.first, self.last, self.asked, self.raw, files, dry_run))
        place = self.out / (MANIFEST + _PART)
        place.write_bytes(content)
        os.replace(place, self.out / MANIFEST)
