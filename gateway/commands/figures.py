"""`huren figures`: how hospitals recognise each other's results, and counting everything anew."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from gateway.commands.opening import opened, table
from gateway.config import Settings
from gateway.recognition.report import GROUPS

if TYPE_CHECKING:
    from gateway.recognition.rules import RuleSet
    from gateway.store import Store
    from gateway.store.figures import Figures


@click.group()
def figures() -> None:
    """Show the figures of recognition, or count them anew."""


@figures.command()
@click.option("--by", type=click.Choice(GROUPS), default="hospital", show_default=True, help="What a row is.")
@click.option("--institution", metavar="ID", help="One hospital only; needed for departments and doctors.")
@click.option("--from", "first", metavar="DAY", help="2026-03-10, 2026-03 or 2026; the first of the running month.")
@click.option("--to", "last", metavar="DAY", help="The last day, month or year; today.")
@click.option("--format", "shape", type=click.Choice(("table", "json", "csv", "fhir")), default="table",
              show_default=True)
@click.option("--language", type=click.Choice(("zh", "en")), default="en", show_default=True)
@click.pass_obj
def show(settings: Settings, by: str, institution: str | None, first: str | None, last: str | None, shape: str,
         language: str) -> None:
    """Counts and rates of a range of days; what waits is counted first."""
    from gateway.fhir import json
    from gateway.recognition.figures import SMALL
    from gateway.recognition.measure import RATE_TEXTS, days_of, measure_report, to_csv, to_json
    from gateway.recognition.report import Question, answer

    end = days_of(last, "--to")[1] if last else datetime.now(ZoneInfo(settings.timezone)).date()
    begin = days_of(first, "--from")[0] if first else end.replace(day=1)
    with opened(settings) as store:
        report = answer(Question(by, begin, end, institution), _figures(settings, store), _rules(settings, store))
    if shape == "csv":
        click.echo(to_csv(report, language), nl=False)
        return
    if shape in ("json", "fhir"):
        made = to_json(report, settings.timezone) if shape == "json" else measure_report(report)
        click.echo(json.dumps(made, indent=True).decode())
        return
    place = 0 if language == "zh" else 1
    rows = []
    for row in (*report.rows, report.total):
        rates = [f"<{SMALL}" if rate.value is None else format(rate.value, "f") for rate in row.rates.values()]
        rows.append((row.value or "-", (row.name_zh, row.name_en)[place] or "-", str(row.counts["orders"]),
                     str(row.counts["reminded"]), str(row.counts["recognised"]), format(row.amounts["saved"], "f"),
                     *rates))
    table((by, "name", "orders", "reminded", "recognised", "saved", *(RATE_TEXTS[n][place] for n in RATE_TEXTS)), rows)


@figures.command()
@click.pass_obj
def recount(settings: Settings) -> None:
    """Forget the figures and count every order line again; run it again when it was cut off. Queries wait meanwhile."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with opened(settings) as store, bar:
        task = bar.add_task("recount", total=None)
        done = _figures(settings, store).recount(
            lambda finished, total: bar.update(task, completed=finished, total=total))
    click.echo(f"{done} order lines counted anew")


def _figures(settings: Settings, store: Store) -> Figures:
    from gateway.recognition.figures import Counting
    from gateway.store.figures import Figures

    return Figures(store, Counting(ZoneInfo(settings.timezone)))


def _rules(settings: Settings, store: Store) -> RuleSet:
    from gateway.adapter import load_all
    from gateway.recognition.versions import Rulebook

    hospitals = load_all(settings.adapter_folders).all
    return Rulebook(settings.timezone, hospitals, store).at(time.time_ns() // 1000)
