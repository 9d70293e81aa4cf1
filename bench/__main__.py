"""`python -m bench`: measures everything and prints a table (see README.md)."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click

from bench import dicom, gateway, http, mllp, postgres, profile, recognition
from bench.gateway import Gateway
from bench.messages import oru

_TYPES = ("Observation", "DiagnosticReport", "Patient", "ServiceRequest", "Specimen", "Provenance", "Practitioner",
          "Organization", "Encounter")
Rows = list[tuple[str, str, str, str]]  # figure, measured, at least, aim
FHIR_BENCH = Path(__file__).resolve().parents[2] / "shared" / "bench" / "fhir_bench.py"


def start_and_memory() -> Rows:
    """Start to ready, median of five starts on an empty folder."""
    seconds = []
    for _ in range(5):
        with gateway.running() as g:
            seconds.append(g.seconds_to_ready)
            idle = g.memory_mb()
    return [("start to ready", f"{median(seconds):.2f} s", "3 s", "1 s"),
            ("memory when idle, all processes", f"{idle:.0f} MB", "", "")]


def messages(count: int, database_url: str = "", name: str = "SQLite") -> Rows:
    """ORU with 22 OBX, durable, acknowledged."""
    rows: Rows = []
    with gateway.running(database_url) as g:
        make = partial(oru, persons=2000)
        mllp.send(g.mllp, make, 0, 200, 8)  # warm-up: dictionaries, caches
        one = mllp.send(g.mllp, make, 1000, count // 3, 1)
        eight = [mllp.send(g.mllp, make, 100_000 * k, count, 8) for k in (1, 2, 3)]
        _none_refused([one, *eight])
        best = sorted(eight, key=lambda load: load.per_second)[1]
        if name == "SQLite":
            rows.append((f"ORU, 22 OBX, 1 connection, {name}", f"{one.per_second:.0f}/s", "100/s", ""))
        floor, aim = ("200/s", "400/s") if name == "SQLite" else ("120/s", "300/s")
        rows.append((f"ORU, 22 OBX, 8 connections, {name}", f"{best.per_second:.0f}/s", floor, aim))
        rows.append((f"ACK p50 / p99, 8 connections, {name}",
                     f"{best.percentile_ms(50):.0f} / {best.percentile_ms(99):.0f} ms", "p99 150 ms", "p99 50 ms"))
    return rows


def million(observations: int) -> Rows:
    """Load a million Observations, then read."""
    count = observations // 22
    persons = max(50, count // 10)
    with gateway.running() as g:
        before = g.disk_bytes()
        load = mllp.send(g.mllp, partial(oru, persons=persons), 0, count, 8)
        _none_refused([load])
        first, last = load.tenths()
        memory = g.memory_mb()
        total = _count(g, "Observation")
        resources = sum(_count(g, t) for t in _TYPES)
        rows = [(f"rate of the last tenth against the first, {total:,} Observations",
                 f"{last / first:.2f} ({first:.0f} → {last:.0f}/s)", "0.8", "0.95"),
                ("bytes on disk a resource, all in", f"{(g.disk_bytes() - before) / resources:.0f}", "700", "400"),
                ("memory after the load, all processes", f"{memory:.0f} MB", "500 MB", "300 MB")]
        return rows + reads(g)


def reads(g: Gateway) -> Rows:
    """Reads over a loaded gateway."""
    ids = _ids(g, "Observation", 1000)
    read = http.get(g.http, [f"/fhir/Observation/{i}" for i in ids], g.token, 16, 8, clients=1)
    patients = _ids(g, "Patient", 1000)
    query = "&_sort=-date&_count=20&_include=DiagnosticReport:result"
    reports = http.get(g.http, [f"/fhir/DiagnosticReport?patient=Patient/{p}{query}" for p in patients], g.token, 1, 8)
    if read.errors or reports.errors:
        raise SystemExit(f"{read.errors} reads and {reports.errors} searches failed")
    return [("read by id, HTTP", f"{read.per_second:.0f}/s", "3,000/s", "8,000/s"),
            (f"one person's reports, newest first, with results ({reports.mean_bytes / 1000:.0f} kB): p50 / p99",
             f"{reports.p50_ms:.1f} / {reports.p99_ms:.1f} ms", "8 / 30 ms", "3 / 10 ms")]


def images() -> Rows:
    """C-STORE of 40 KB CT slices."""
    if not shutil.which("storescu"):
        return [("C-STORE", "storescu (dcmtk) is not installed", "", "")]
    with gateway.running() as g:
        dicom.store(g.dimse, 1, 0, 100)
        one = median(dicom.store(g.dimse, 1, 10 + k) for k in range(3))
        four = median(dicom.store(g.dimse, 4, 100 + 10 * k) for k in range(3))
    return [("C-STORE, CT slices of 40 KB, one association", f"{one:.0f}/s", "200/s", "360/s"),
            ("C-STORE, CT slices of 40 KB, four associations", f"{four:.0f}/s", "350/s", "600/s")]


def fhir(rounds: int) -> None:
    """`fhir_bench.py` against a fresh gateway: it prints its own table."""
    if not FHIR_BENCH.exists():
        print("fhir_bench.py is not here: skipped")
        return
    with gateway.running() as g:
        subprocess.run([sys.executable, str(FHIR_BENCH), "--base", f"http://127.0.0.1:{g.http}/fhir", "--header",
                        f"Authorization: Bearer {g.token}", "--pid", str(g.process.pid), "--du", str(g.data),
                        "--rounds", str(rounds)], check=True)


def _none_refused(loads: list[mllp.Load]) -> None:
    refused = [answer for load in loads for answer in load.refused]
    if refused:
        raise SystemExit(f"{len(refused)} messages were not accepted, the first: {refused[0].decode(errors='replace')}")


def _json(g: Gateway, path: str) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{g.http}/fhir/{path}",
                                     headers={"Authorization": f"Bearer {g.token}", "Accept": "application/fhir+json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return dict(json.load(answer))


def _count(g: Gateway, resource_type: str) -> int:
    return int(_json(g, f"{resource_type}?_summary=count")["total"])


def _ids(g: Gateway, resource_type: str, count: int) -> list[str]:
    return [e["resource"]["id"] for e in _json(g, f"{resource_type}?_count={count}&_elements=id")["entry"]]


@click.command()
@click.argument("parts", nargs=-1)
@click.option("--messages", "count", default=3000, help="messages of each MLLP round")
@click.option("--observations", default=1_000_000, help="size of the large load")
@click.option("--rounds", default=3, help="rounds of fhir_bench.py")
@click.option("--persons", default=200_000, help="of the province, with 50 results each")
@click.option("--province", type=click.Path(path_type=Path), help="a folder to load the province into and keep it in")
@click.option("--reminders", default=120_000, help="to be recorded and looked for")
def main(parts: tuple[str, ...], count: int, observations: int, rounds: int, persons: int, province: Path | None,
         reminders: int) -> None:
    """Measure PARTS (start, mllp, postgres, million, dicom, fhir, recognition, province, profile; without any: all) and

    print the table.
    """
    wanted = parts or ("start", "mllp", "postgres", "million", "dicom", "fhir", "recognition", "province", "profile")
    rows: Rows = []
    if "start" in wanted:
        rows += start_and_memory()
    if "mllp" in wanted:
        rows += messages(count)
    if "postgres" in wanted:
        with postgres.scratch() as url:
            rows += messages(count, url, "PostgreSQL") if url else [("PostgreSQL", "not installed", "", "")]
    if "dicom" in wanted:
        rows += images()
    if "million" in wanted:
        rows += million(observations)
    if "recognition" in wanted:
        rows += recognition.freshness() + recognition.reminders(reminders)
    if "province" in wanted:
        rows += recognition.order_sign(persons, 20, province)
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| figure | measured | at least | aim |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)
    if "profile" in wanted:
        print(profile.table(profile.profile()), flush=True)
    if "fhir" in wanted:
        fhir(rounds)


if __name__ == "__main__":
    main()
