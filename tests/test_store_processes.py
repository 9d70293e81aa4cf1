"""Several processes on one database, and processes that die (`gateway/store/README.md`)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_samples import check_consistent

from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.store import Store
from gateway.store.model import Receipt, Settlement, Unit

_WORKERS = Path(__file__).with_name("store_workers.py")
_ROOT = Path(__file__).parents[1]


def _start(settings: Settings, program: str, seed: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(_WORKERS), program, str(settings.data), settings.database_url, seed]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
                            env={"PYTHONPATH": f"{_ROOT}:{_WORKERS.parent}"})


@contextmanager
def _running(settings: Settings, program: str, *seeds: str) -> Iterator[list[subprocess.Popen[str]]]:
    processes = [_start(settings, program, seed) for seed in seeds]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _all_done(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.communicate(timeout=120)
        assert 0 == process.returncode


def test_processes_that_write_the_same_resources(store: Store, settings: Settings) -> None:
    """Whatever the order, no version is lost, persons are right and every index row matches its body."""
    with _running(settings, "same", "a", "b", "c") as processes:
        _all_done(processes)
    assert check_consistent(store) >= 10


def test_processes_that_write_their_own_resources(store: Store, settings: Settings) -> None:
    """All is there, while the Patients that everyone writes are merged by all at once."""
    with _running(settings, "own", "1", "2", "3") as processes:
        _all_done(processes)
    assert 3 * 60 * 4 + 5 == check_consistent(store)
    persons = store.persons_of([f"shared{n}" for n in range(5)])
    assert 4 <= len(set(persons.values())) <= 5
    [row] = [store.read("Observation", "2-59-3", GATEWAY)]
    assert row is not None and row.institution == "inst2"


def test_processes_that_receive_the_same_messages(store: Store, settings: Settings) -> None:
    """Each message has one row and its resource one version, however many processes got it."""
    with _running(settings, "resend", "1", "2", "3") as processes:
        _all_done(processes)
    rows = store.inbox(limit=1000)
    assert 40 == len(rows)
    assert {"stored"} == {row.status for row in rows}
    assert [1] * 40 == [store.read("Observation", f"o{n}", GATEWAY).version for n in range(40)]  # type: ignore[union-attr]


@pytest.mark.parametrize("delay", [0.3, 0.8])
def test_kill_9_leaves_units_whole_or_absent(store: Store, settings: Settings, delay: float) -> None:
    """What was acknowledged is there whole; of what was not, nothing or all; its message is left to be run."""
    with _running(settings, "endless", "a", "b") as processes:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(delay)
        for process in processes:
            process.kill()
        acknowledged = {}
        for seed, process in zip("ab", processes, strict=True):
            out, _ = process.communicate()
            acknowledged[seed] = 1 + int(out[:out.rindex("\n")].split()[-1])  # the last whole line
    for seed, count in acknowledged.items():
        whole = [sum(store.read("Observation", f"{seed}-{n}-{k}", GATEWAY) is not None for k in range(5))
                 for n in range(count + 2)]
        assert [5] * count == whole[:count]
        assert set(whole[count:]) <= {0, 5}
    check_consistent(store)
    stored = [row for row in store.inbox("stored", 10_000) if row.status == "stored"]
    assert sum(acknowledged.values()) <= len(stored) <= sum(acknowledged.values()) + 2
    left = store.inbox_received()
    assert len(left) <= 2
    assert all(row.raw.startswith(b"message ") for row in left)


def test_only_what_no_living_process_works_on_is_taken_over(store: Store, settings: Settings) -> None:
    """A message that another living process received is left to it; when that one dies, it is ours, once."""
    with _running(settings, "received", "x") as [process]:
        assert process.stdout is not None
        inbox_id = int(process.stdout.readline())
        assert [] == store.inbox_received()
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while not (left := store.inbox_received()) and time.monotonic() < deadline:
            time.sleep(0.05)  # PostgreSQL notices a dead client when it next looks
    assert [(inbox_id, b"message x", 2)] == [(row.id, row.raw, row.attempts) for row in left]
    assert [] == store.inbox_received()
    store.write(Unit([], Settlement(inbox_id, "stored", "hz", "ORU^R01", Receipt(inbox_id))), GATEWAY)
    assert "stored" == store.inbox()[0].status


def test_what_a_dead_process_had_noted_is_run_once(store: Store, settings: Settings) -> None:
    """While it lives its journal is its own; when it is killed, what it had not settled is ours."""
    with _running(settings, "noted", "x") as [process]:
        assert process.stdout is not None
        process.stdout.readline()
        assert [] == store.inbox_received()
        process.kill()
        process.wait()
        left = store.inbox_received()
    assert [(b"message x 0", 2), (b"message x 2", 2)] == [(row.raw, row.attempts) for row in left]
    assert [] == store.inbox_received() and [] == list((settings.data / "journal").iterdir())
    assert {"stored": 1, "received": 2} == {status: len(store.inbox(status)) for status in ("stored", "received")}
