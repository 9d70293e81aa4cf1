"""Whose message runs next: a sender that floods waits for itself, and no other sender waits for it."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable

#: Messages of one sender in the pipeline at once. Enough for its commits to be shared; few enough that somebody else's
#: message competes with these alone, however many connections the sender has.
SHARE = 8
#: Messages in the pipeline at once; more only wait for the interpreter.
RUNNING = 64


class Turns:
    """At most ``most`` at once, ``share`` of one sender; senders that wait are served in turn, each in its order."""

    def __init__(self, most: int = RUNNING, share: int = SHARE) -> None:
        self._most, self._share = most, share
        self._lock = threading.Lock()
        self._running: Counter[Hashable] = Counter()
        self._total = 0
        self._waiting: OrderedDict[Hashable, deque[threading.Lock]] = OrderedDict()

    def take(self, sender: Hashable) -> None:
        """Wait for a turn; ``give`` it back."""
        with self._lock:
            if self._total < self._most and self._running[sender] < self._share and sender not in self._waiting:
                self._total += 1
                self._running[sender] += 1
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.setdefault(sender, deque()).append(mine)
        mine.acquire()

    def give(self, sender: Hashable) -> None:
        """The turn is over: the next sender that waits has it."""
        with self._lock:
            self._total -= 1
            self._running[sender] -= 1
            if not self._running[sender]:
                del self._running[sender]
            while self._total < self._most and (following := self._next()) is not None:
                self._total += 1
                self._running[following] += 1
                queue = self._waiting[following]
                queue.popleft().release()
                if queue:
                    self._waiting.move_to_end(following)
                else:
                    del self._waiting[following]

    def _next(self) -> Hashable | None:
        return next((sender for sender in self._waiting if self._running[sender] < self._share), None)
