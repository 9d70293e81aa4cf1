"""A province of invented persons, written past the ports: 50 laboratory results each, as the conversion makes them.

Resources, index rows and persons are what the store itself would have written (its own ``prepare`` and ``bind``); only
the way into the tables is short: workers convert, one process appends in the order of the persons, without a log and
without syncs. Left out: the inbox's raw messages, the audit, and Provenance.
"""

from __future__ import annotations

import gc
import multiprocessing
import random
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from bench.messages import HOSPITAL, PANELS, report
from gateway import indexing
from gateway.adapter import Adapter, load_all
from gateway.config import Settings
from gateway.pipeline import Pipeline
from gateway.store import index_schema, open_store, types
from gateway.store.model import Put
from gateway.store.units import prepare

#: Persons whose messages go the ordinary way first: they train the dictionaries and name what all share.
ORDINARY = 300
_CHUNK = 100  # persons
_STRIDE = _CHUNK * 120  # resource numbers set aside for a chunk
_COLUMNS = ("pk", "person", "updated", "as_of", "version", "dict", "type", "institution", "id", "body")
Rows = dict[str, list[tuple[Any, ...]]]


def reports_of(person: int, now: datetime) -> Iterator[bytes]:
    """A person's three reports: a blood count within its window (3 days), one of before, and six of chemistry."""
    rng = random.Random(person * 7 + 1)
    days = (.05 + rng.random(), 40 + rng.random() * 260, .05 + rng.random())
    for n, (panel, age) in enumerate(zip(("CBC", "CBC", "CHEM"), days, strict=True)):
        yield report(f"B{person}-{n}", person, panel, now - timedelta(days=age))


def load(data: Path, persons: int, workers: int = 2, tell: Any = print) -> None:
    """Fill an empty data folder with ``persons`` persons."""
    settings = Settings(data=data, adapters=str(HOSPITAL), log_level="error")
    now = datetime.now(ZoneInfo(settings.timezone)).replace(microsecond=0)
    began = time.perf_counter()
    store = open_store(settings, migrate=True)
    pipeline = Pipeline(settings, store)
    for person in range(min(ORDINARY, persons)):
        for raw in reports_of(person, now):
            receipt = pipeline.receive_hl7(raw, "")
            if receipt.category:
                raise SystemExit(f"a generated message was refused: {receipt.message} at {receipt.where}")
    store.codec.wait()
    institution = store.institution_number("bench")
    store.close()
    with _bulk(data / "huren.sqlite") as database:
        _fill(database, settings, institution, persons, workers, now, tell)
    tell(f"{persons:,} persons in {time.perf_counter() - began:.0f} s")


class _bulk:
    """The database without log and syncs; on leaving it is as the store left it."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> sqlite3.Connection:
        for pragma in ("journal_mode = DELETE", "journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE",
                       "cache_size = -3000000"):
            self._database.execute(f"PRAGMA {pragma}").fetchall()
        return self._database

    def __exit__(self, *_: object) -> None:
        self._database.execute("PRAGMA locking_mode = NORMAL")
        self._database.execute("PRAGMA journal_mode = WAL").fetchall()
        self._database.close()


def _fill(database: sqlite3.Connection, settings: Settings, institution: int, persons: int, workers: int,
          now: datetime, tell: Any) -> None:
    counters = dict(database.execute("SELECT name, value FROM counter").fetchall())
    chunks = [(first, min(first + _CHUNK, persons)) for first in range(ORDINARY, persons, _CHUNK)]
    context = multiprocessing.get_context("fork")
    gc.freeze()
    done = 0
    with context.Pool(workers, _worker, (settings, institution, now)) as pool:
        jobs = [(first, last, counters["resource"] + n * _STRIDE, counters["person"] + n * _CHUNK)
                for n, (first, last) in enumerate(chunks)]
        database.execute("BEGIN")
        for n, rows in enumerate(pool.imap(_converted, jobs)):
            for table, found in rows.items():
                database.executemany(_insert(table, len(found[0])), found)
            done += _CHUNK
            if n % 50 == 49:
                database.execute("COMMIT")
                database.execute("BEGIN")
            if done % 20_000 == 0:
                tell(f"  {done:,} persons")
        database.executemany("UPDATE counter SET value = ? WHERE name = ?", [
            (counters["resource"] + len(chunks) * _STRIDE, "resource"),
            (counters["person"] + len(chunks) * _CHUNK, "person")])
        database.execute("COMMIT")


@lru_cache(maxsize=64)
def _insert(table: str, width: int) -> str:
    ignore = "OR IGNORE " if table == "idx_term" else ""
    return f"INSERT {ignore}INTO {table} VALUES ({','.join('?' * width)})" if table != "resource" else \
        f"INSERT INTO resource ({', '.join(_COLUMNS)}) VALUES ({','.join('?' * width)})"


_STATE: dict[str, Any] = {}


def _worker(settings: Settings, institution: int, now: datetime) -> None:
    store = open_store(settings)  # before the parent takes the file for itself: for the dictionaries alone
    for kind in ("Patient", "Observation", "DiagnosticReport", "ServiceRequest", "Specimen", "Encounter"):
        store.codec.compress(kind, b"{}")
    adapter = next(a for a in load_all(settings.adapter_folders).all if a.source.institution == "bench")
    _STATE.update(codec=store.codec, institution=institution, now=now, adapter=adapter)


def _converted(job: tuple[int, int, int, int]) -> Rows:
    """All rows of some persons, table by table, each in the order of its key."""
    first, last, pk, person = job
    rows: Rows = {name: [] for name in ("resource", "patient_person", "person_key")}
    terms: dict[int, tuple[Any, ...]] = {}
    updated = int(_STATE["now"].timestamp() * 1_000_000)
    for number in range(first, last):
        for resource, as_of in _resources(_STATE["adapter"], number, _STATE["now"]).values():
            made = prepare(Put(resource), _STATE["codec"])
            rows["resource"].append((pk, person, updated, as_of, 1, made.dict, made.key[0], _STATE["institution"],
                                     made.key, made.body))
            for table, bound in index_schema.bind(made.index, person, pk, _STATE["institution"]).items():
                rows.setdefault(table, []).extend(bound)
            terms.update((term[0], term) for term in made.index["idx_term"])
            if resource["resourceType"] == "Patient":
                rows["patient_person"].append((made.patient, person))
                rows["person_key"] += [(key, made.patient) for key in made.national or ()]
            pk += 1
        person += 1
    if terms:
        rows["idx_term"] = list(terms.values())
    for table, found in rows.items():
        found.sort(key=lambda row: row if table != "resource" else row[0])
    return {table: found for table, found in rows.items() if found}


def _resources(adapter: Adapter, person: int, now: datetime) -> dict[bytes, tuple[dict[str, Any], int | None]]:
    found = {}
    for raw in reports_of(person, now):
        for change in adapter.convert_hl7(adapter.parse(raw), "BENCH").changes:
            resource = change.resource
            if indexing.owner(resource) and resource["resourceType"] != "Provenance":
                found[types.key(resource["resourceType"], resource["id"])] = resource, change.as_of
    return found


assert set(PANELS) == {"CBC", "CHEM"}
