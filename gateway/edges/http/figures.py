"""Requests by interaction and status, over all worker processes, as Prometheus text.

The workers share one anonymous memory map that is made before they are forked; each adds in its own part of it and
whoever is asked adds the parts up. So any worker answers ``/metrics`` for all, without files and without locks between
processes, and a worker that was started again goes on counting where the last one stopped.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping

#: What the ``interaction`` label says (http.html): a closed list, so that no address or id becomes a label.
INTERACTIONS = ("read", "vread", "history-instance", "history-type", "search-type", "create", "update", "delete",
                "batch", "transaction", "capabilities", "page", "operation", "other")
STATUSES = (200, 201, 204, 304, 400, 401, 403, 404, 405, 406, 409, 410, 412, 413, 415, 422, 429, 500, 503, 0)
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds
_STATUS = {status: place for place, status in enumerate(STATUSES)}
_INTERACTION = {name: place for place, name in enumerate(INTERACTIONS)}
_ROW = len(STATUSES) + len(BUCKETS) + 1 + 1  # statuses, buckets and +Inf, sum in µs
_PART = len(INTERACTIONS) * _ROW


class Figures:
    """Counters of ``workers`` processes; ``own(place)`` says which part is this process's."""

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        size = workers * _PART * 8
        self._cells = memoryview(mmap.mmap(-1, size)).cast("Q")
        self._start = 0
        self._lock = threading.Lock()

    def own(self, place: int) -> None:
        """From now on this process counts in part ``place``."""
        self._start = place % self._workers * _PART

    def count(self, interaction: str, status: int, seconds: float) -> None:
        """One request that was answered."""
        row = self._start + _INTERACTION.get(interaction, len(INTERACTIONS) - 1) * _ROW
        bucket = row + len(STATUSES) + bisect_left(BUCKETS, seconds)
        with self._lock:
            self._cells[row + _STATUS.get(status, len(STATUSES) - 1)] += 1
            self._cells[bucket] += 1
            self._cells[row + _ROW - 1] += int(seconds * 1e6)

    def requests(self) -> list[str]:
        """The lines of ``huren_http_requests_total`` and ``huren_http_request_duration_seconds``."""
        cells = [sum(self._cells[part * _PART + i] for part in range(self._workers)) for i in range(_PART)]
        counted, timed = [], []
        for place, name in enumerate(INTERACTIONS):
            row = cells[place * _ROW:(place + 1) * _ROW]
            total = 0
            for status, value in zip(STATUSES, row, strict=False):
                if value:
                    counted.append(sample("huren_http_requests_total", value, interaction=name,
                                          status=str(status or "other")))
            if not any(row):
                continue
            for bound, value in zip((*BUCKETS, "+Inf"), row[len(STATUSES):], strict=False):
                total += value
                timed.append(sample("huren_http_request_duration_seconds_bucket", total, interaction=name,
                                    le=str(bound)))
            timed.append(sample("huren_http_request_duration_seconds_sum", row[-1] / 1e6, interaction=name))
            timed.append(sample("huren_http_request_duration_seconds_count", total, interaction=name))
        return [*family("huren_http_requests_total", "counter", "Requests answered.", counted),
                *family("huren_http_request_duration_seconds", "histogram", "Time from request to answer.", timed)]


def family(name: str, kind: str, says: str, samples: Iterable[str]) -> list[str]:
    """A metric's two header lines and its samples; nothing when it has none."""
    lines = list(samples)
    return [f"# HELP {name} {says}", f"# TYPE {name} {kind}", *lines] if lines else []


def sample(name: str, value: float, **labels: str) -> str:
    """One line of the text format, label values escaped."""
    return f"{name}{_labels(labels)} {value}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    inner = ",".join('{}="{}"'.format(key, str(value).replace("\\", r"\\").replace('"', r'\"').replace("\n", r"\n"))
                     for key, value in labels.items())
    return "{" + inner + "}"
