"""Where a message's time goes: `python -m bench profile` sends ORU messages through the pipeline, without a port.

Each stage is a function of the gateway that is timed from outside, less the stages within it; one message at a time,
so that waiting for the commit is the message's own and not its neighbours'. The timing costs half a microsecond a call.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.messages import HOSPITAL, oru
from gateway.adapter import load_all
from gateway.config import Settings
from gateway.pipeline import Pipeline
from gateway.store import open_store

#: Stage, then the functions that are it: module, class or "", name. Those of the writer's thread stand last.
STAGES: list[tuple[str, list[tuple[str, str, str]]]] = [
    ("keep the raw bytes: digest, compress, look for a resend, journal", [("gateway.store.store", "Store", "note")]),
    ("decode and split", [("gateway.adapter", "Adapter", "parse")]),
    ("convert to FHIR", [("gateway.adapter", "Adapter", "convert_hl7")]),
    ("check against R4 and our profile", [("gateway.fhir.check", "", "require_valid")]),
    ("mark qualified results", [("gateway.recognition.marks", "Marks", "set")]),
    ("JSON text", [("gateway.store.units", "", "tail")]),
    ("compress the bodies", [("gateway.store.codec", "Codec", "compress")]),
    ("index rows", [("gateway.indexing", "", "extract")]),
    ("write: queue, wait for the writer's commit", [("gateway.store.store", "Store", "write")]),
    ("the rest: MSH, adapter, log, receipts", [("gateway.pipeline", "Pipeline", "receive_hl7")]),
    ("writer: decide versions, link persons, bind rows",
     [("gateway.store.units", "Units", name) for name in ("load", "decide", "write")]),
    ("writer: SQL statements",
     [("gateway.store.sqlite", "_Transaction", name) for name in ("insert", "many", "among")]),
    ("writer: begin and commit, with the sync", [("gateway.store.sqlite", "SQLite", "write")]),
]
_WRITER = "writer: "
Shares = list[tuple[str, float, float]]  # stage, µs a message, calls a message


class Stopwatch:
    """Times of stages, each without those inside it, over all threads."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._open = threading.local()

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as a stage."""
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            stack: list[float] = getattr(self._open, "stack", None) or []
            self._open.stack = stack
            stack.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                self.seconds[stage] += took - stack.pop()
                self.calls[stage] += 1
                if stack:
                    stack[-1] += took
        return timed


@contextmanager
def watched(stopwatch: Stopwatch) -> Iterator[None]:
    """Every stage timed while the block runs."""
    undo: list[tuple[Any, str, Any]] = []
    try:
        for stage, functions in STAGES:
            for module, owner, name in functions:
                holder: Any = importlib.import_module(module)
                holder = getattr(holder, owner) if owner else holder
                undo.append((holder, name, getattr(holder, name)))
                setattr(holder, name, stopwatch.around(stage, getattr(holder, name)))
        yield
    finally:
        for holder, name, function in reversed(undo):
            setattr(holder, name, function)


def profile(count: int = 1500, make: Callable[[int], bytes] = partial(oru, persons=2000)) -> Shares:
    """Microseconds a message of each stage, in the order of ``STAGES``; SQLite in a scratch folder."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder), adapters=str(HOSPITAL), log_level="error")
        store = open_store(settings, migrate=True)
        try:
            pipeline = Pipeline(settings, store, load_all(settings.adapter_folders))
            for n in range(300):  # dictionaries and caches
                pipeline.receive_hl7(make(n), "")
            stopwatch = Stopwatch()
            with watched(stopwatch):
                for n in range(100_000, 100_000 + count):
                    receipt = pipeline.receive_hl7(make(n), "")
                    if receipt.category:
                        raise SystemExit(f"refused at {receipt.where}: {receipt.message}")
        finally:
            store.close()
    return [(stage, stopwatch.seconds[stage] / count * 1e6, stopwatch.calls[stage] / count) for stage, _ in STAGES]


def table(shares: Shares) -> str:
    """As Markdown; the writer's stages run while the message waits for them."""
    whole = sum(us for stage, us, _ in shares if not stage.startswith(_WRITER))
    lines = [f"| of {whole / 1000:.2f} ms a message | µs | share | calls |", "|---|---|---|---|"]
    lines += [f"| {stage} | {us:.0f} | {us / whole:.0%} | {calls:.1f} |" for stage, us, calls in shares]
    return "\n".join(lines)
