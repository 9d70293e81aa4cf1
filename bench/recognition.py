"""Recognition at the size of a province: order-sign, freshness, and reminders that must not be lost."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any
from zoneinfo import ZoneInfo

from bench import cds, gateway, http, mllp, population
from bench.gateway import Gateway
from bench.messages import HOSPITAL, report
from gateway.config import Settings
from gateway.store import open_store

ORDERING = Path(__file__).with_name("ordering")
ADAPTERS = f"{HOSPITAL}:{ORDERING}"
PATH = "/cds-services/recognition"
CLIENTS = 16
Rows = list[tuple[str, str, str, str]]


def order_sign(persons: int, seconds: float, data: Path | None = None) -> Rows:
    """``order-sign`` with five drafts over 50 results of each of ``persons`` persons; ``data``: loaded before."""
    with _loaded(persons, data) as g:
        token = g.client(f"cds-{g.http}", "bench-orders")
        http.post(g.http, PATH, partial(cds.order_sign, persons=persons, run="w"), token, CLIENTS, 3)  # warm-up
        _require_cards(g, token, persons)
        runs = [http.post(g.http, PATH, partial(cds.order_sign, persons=persons, run=f"r{r}-"), token, CLIENTS,
                          seconds, clients=2) for r in range(3)]
        errors = sum(run.errors for run in runs)
        best = sorted(runs, key=lambda run: run.per_second)[1]
        return [(f"order-sign, 5 drafts, {persons * 50:,} Observations of {persons:,} persons, {CLIENTS} clients",
                 f"{best.per_second:.0f}/s", "300/s", ""),
                ("its answer p50 / p99", f"{best.p50_ms:.0f} / {best.p99_ms:.0f} ms", "p99 100 ms", ""),
                ("its errors", str(errors), "0", ""),
                ("memory then, all processes", f"{g.memory_mb():.0f} MB", "", "")]


def freshness(seconds: float = 30, rate: float = 100) -> Rows:
    """While ``rate`` reports a second arrive: from the sending of one to its being in another hospital's reminder."""
    delays: list[float] = []
    with gateway.running(HUREN_ADAPTERS=ADAPTERS) as g:
        token, zone = g.client(f"cds-{g.http}", "bench-orders"), ZoneInfo("Asia/Shanghai")
        mllp.send(g.mllp, lambda n: report(f"w{n}", n, "CBC", datetime.now(zone)), 0, 300, 8)
        stop = threading.Event()
        load = threading.Thread(target=_pace, args=(g, rate, stop), daemon=True)
        load.start()
        until, person = time.perf_counter() + seconds, 100_000
        while time.perf_counter() < until:
            person += 1
            sent = time.perf_counter()
            raw = report(f"f{person}", person, "CBC", datetime.now(zone))
            mllp.send(g.mllp, {0: raw}.__getitem__, 0, 1, 1)
            while not _reminded(g, token, person):
                if time.perf_counter() - sent > 10:
                    raise SystemExit("a report was not visible within 10 s")
            delays.append(time.perf_counter() - sent)
        stop.set()
        load.join()
    p95 = quantiles(delays, n=20)[-1] * 1000
    return [(f"report sent → in another hospital's reminder, p95 of {len(delays)}, while {rate:.0f} a second arrive",
             f"{p95:.0f} ms", "1000 ms", "")]


def reminders(count: int) -> Rows:
    """``count`` reminders by order-sign, then every one of them looked for among the events, and the chain verified."""
    persons = 2000
    with _loaded(persons, None) as g:
        token = g.client(f"cds-{g.http}", "bench-orders")
        each = _require_cards(g, token, persons)
        signatures = -(-count // each)
        began = time.perf_counter()
        _all(g, token, signatures, persons)
        took = time.perf_counter() - began
        # A month's reminders again, as a workstation that got no answer would: nothing is counted twice.
        again = _all(g, token, min(signatures, 2000), persons)
        store = open_store(Settings(data=g.data, log_level="error"))
        try:
            found, after, kinds = set(), 0, 0
            while events := store.events(after=after, limit=5000):
                after = events[-1].seq
                found |= {event.line for event in events if event.kind == "reminded"}
                kinds += sum(event.kind == "reminded" for event in events)
            verified = store.verify_events()
        finally:
            store.close()
        warm = each  # the one signature of _require_cards
        lost = signatures * each + warm - len(found)
        twice = kinds - len(found)
        return [(f"{signatures * each:,} reminders, then {again * each:,} of them again: lost / counted twice",
                 f"{lost} / {twice}, {signatures * each / took:.0f}/s", "0 / 0", ""),
                ("their chain of events", "whole" if not verified.problems else f"{len(verified.problems)} problems",
                 "whole", "")]


# ------------------------------------------------------------------


class _loaded:
    """A gateway over a loaded province; a folder that was given stays."""

    def __init__(self, persons: int, data: Path | None) -> None:
        self._data, self._persons = data, persons

    def __enter__(self) -> Gateway:
        import tempfile
        self._own = None if self._data else Path(tempfile.mkdtemp(prefix="huren-bench-"))
        folder = self._data or self._own
        assert folder is not None
        if not (folder / "huren.sqlite").exists():
            folder.mkdir(parents=True, exist_ok=True)
            population.load(folder, self._persons)
        self._running = gateway.running(data=folder, HUREN_ADAPTERS=ADAPTERS)
        return self._running.__enter__()

    def __exit__(self, *error: object) -> None:
        self._running.__exit__(None, None, None)
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)


def _post(g: Gateway, path: str, token: str, body: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{g.http}{path}", body, {
        "Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def _require_cards(g: Gateway, token: str, persons: int) -> int:
    """How many lines of a signature are reminded: what is measured must be the real answer."""
    answer = _post(g, PATH, token, cds.order_sign(1, persons, run="check"))
    [card] = answer["cards"]
    store = open_store(Settings(data=g.data, log_level="error"))
    try:
        lines = store.lines_of_card(card["uuid"])
    finally:
        store.close()
    if not lines:
        raise SystemExit(f"the card names no line: {card}")
    return len(lines)


def _reminded(g: Gateway, token: str, person: int) -> bool:
    body = json.loads(cds.order_sign(0, 1, 2, run=f"f{person}-{time.perf_counter_ns()}"))
    patient = cds.patient(person)
    body["context"]["patientId"] = patient["id"]
    body["prefetch"]["patient"] = patient
    for entry in body["context"]["draftOrders"]["entry"]:
        entry["resource"]["subject"] = {"reference": f"Patient/{patient['id']}"}
    return bool(_post(g, PATH, token, json.dumps(body).encode())["cards"])


def _pace(g: Gateway, rate: float, stop: threading.Event) -> None:
    """Reports at a steady rate over four connections, whatever the answers take."""
    zone, began, lock = ZoneInfo("Asia/Shanghai"), time.perf_counter(), threading.Lock()
    turn = 0

    def work() -> None:
        nonlocal turn
        import socket
        with socket.create_connection(("127.0.0.1", g.mllp)) as s:
            while not stop.is_set():
                with lock:
                    n, turn = turn, turn + 1
                time.sleep(max(0.0, began + n / rate - time.perf_counter()))
                s.sendall(b"\x0b" + report(f"p{n}", n % 20_000, "CBC", datetime.now(zone)) + b"\x1c\r")
                answer = b""
                while not answer.endswith(b"\x1c\r"):
                    answer += s.recv(65536)
                if not mllp.ACCEPTED.search(answer):
                    raise SystemExit("a report was refused")
    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _all(g: Gateway, token: str, signatures: int, persons: int) -> int:
    """Every signature once, over ``CLIENTS`` connections; each must be answered 200."""
    from concurrent.futures import ThreadPoolExecutor
    from http.client import HTTPConnection
    local = threading.local()

    def one(n: int) -> None:
        if not hasattr(local, "connection"):
            local.connection = HTTPConnection("127.0.0.1", g.http, timeout=60)
        local.connection.request("POST", PATH, cds.order_sign(n, persons, run="all"), {
            "Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        answer = local.connection.getresponse()
        if answer.status != 200 or not json.loads(answer.read())["cards"]:
            raise SystemExit(f"signature {n} was answered {answer.status} or without a card")
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(signatures)))
    return signatures
