"""Whose message runs next: a sender that floods waits for itself, and no other sender waits for it."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable

#: Messages in the pipeline at once; more only wait for the interpreter.
RUNNING = 64
#: Messages of one sender at once while others send too: few enough that somebody else's message competes with these
#: alone, however many connections the sender has; enough for its commits to be shared.
SHARE = 4
#: For so long after somebody else's last message a sender is not alone.
COMPANY_SECONDS = 60.0


class Turns:
    """At most ``most`` at once, ``share`` of one sender unless it is alone; senders that wait are served in turn, each
    in its order."""

    def __init__(self, most: int = RUNNING, share: int = SHARE, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._share, self._clock = most, share, clock
        self._lock = threading.Lock()
        self._running: Counter[Hashable] = Counter()
        self._total = 0
        self._waiting: OrderedDict[Hashable, deque[threading.Lock]] = OrderedDict()
        self._latest: Hashable = None
        self._company = float("-inf")  # when a message last came from another sender than the one before

    def take(self, sender: Hashable) -> None:
        """Wait for a turn; ``give`` it back."""
        with self._lock:
            if sender != self._latest:
                self._company, self._latest = self._clock(), sender
            if self._total < self._most and sender not in self._waiting and self._running[sender] < self._allowed():
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
            while self._waiting and self._total < self._most and (following := self._next()) is not None:
                self._total += 1
                self._running[following] += 1
                queue = self._waiting[following]
                queue.popleft().release()
                if queue:
                    self._waiting.move_to_end(following)
                else:
                    del self._waiting[following]

    def _next(self) -> Hashable | None:
        allowed = self._allowed()
        return next((sender for sender in self._waiting if self._running[sender] < allowed), None)

    def _allowed(self) -> int:
        return self._share if self._clock() - self._company < COMPANY_SECONDS else self._most
