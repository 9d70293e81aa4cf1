"""What the MLLP processes count, for ``/metrics``.

The counters lie in one anonymous memory map, made when this module is imported: the supervisor imports it before it
forks, so that its MLLP and HTTP processes share it. Each MLLP process adds in a part of its own; a process that was
started again goes on where the last one stopped.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from typing import NamedTuple


class Family(NamedTuple):
    """A metric: its kind, what it says, the name of its label and the label's values."""

    name: str
    kind: str
    says: str
    label: str
    values: tuple[str, ...]


ANSWERS, OPEN, OPENED, REFUSED, CLOSED, UNMATCHED = FAMILIES = (
    Family("huren_mllp_answers_total", "counter", "Messages by MSA-1; none: nothing was asked for or could be said.",
           "code", ("AA", "AE", "AR", "CA", "CE", "CR", "none")),
    Family("huren_mllp_connections", "gauge", "Open connections.", "transport", ("plain", "tls")),
    Family("huren_mllp_connections_total", "counter", "Connections that were opened.", "transport", ("plain", "tls")),
    Family("huren_mllp_connections_refused_total", "counter", "Connections that were not let in.", "reason",
           ("connections", "connections-per-address", "handshake")),
    Family("huren_mllp_connections_closed_total", "counter", "Connections that ended in the middle.", "reason",
           ("idle", "block-not-ended", "block-truncated", "not-mllp", "too-large", "memory", "unanswered", "network",
            "fault")),
    Family("huren_orders_unmatched_total", "counter", "Orders stored without a look for earlier results: it failed.",
           "edge", ("mllp",)),
)
_PARTS = 64
_CELLS = {(family.name, value): place for place, (family, value) in enumerate(
    (family, value) for family in FAMILIES for value in family.values)}


class Figures:
    """Counters of all processes; ``own(place)`` says which part is this process's."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, _PARTS * len(_CELLS) * 8)).cast("q")
        self._start = 0
        self._lock = threading.Lock()

    def own(self, place: int) -> None:
        """From now on this process counts in part ``place``; no connection is open in it yet."""
        self._start = place % _PARTS * len(_CELLS)
        for value in OPEN.values:
            self._cells[self._start + _CELLS[OPEN.name, value]] = 0

    def add(self, family: Family, value: str, by: int = 1) -> None:
        """Count one; ``by`` -1 for what has ended."""
        place = self._start + _CELLS[family.name, value]
        with self._lock:
            self._cells[place] += by

    def samples(self) -> Iterator[tuple[Family, list[tuple[str, int]]]]:
        """Each family with its values, over all processes."""
        for family in FAMILIES:
            yield family, [(value, sum(self._cells[part * len(_CELLS) + _CELLS[family.name, value]]
                                       for part in range(_PARTS))) for value in family.values]


FIGURES = Figures()
