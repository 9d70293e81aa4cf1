"""When a study's ImagingStudy is written: once an association, or once things are quiet; never once a slice.

What is stored and not yet shown is marked in the store, so a crash loses nothing: it is published at the next start.
Other processes mark studies too, whose person has changed: the marks are looked at now and then without being told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gateway.store.model import DirtyStudy

log = logging.getLogger("huren.dimse")

QUIET_SECONDS = 5.0  # nothing new for so long
LONGEST_SECONDS = 60.0  # a study that never gets quiet is shown as far as it is
_TICK = 1.0
_LOOK = 10.0  # between two looks at the marks when nothing is known to wait
_BACKOFF_LIMIT = 300.0

_Key = tuple[str, str]  # institution, Study Instance UID


class Publisher:
    """Calls ``publish(ready)`` in a thread of its own; ``ready`` says of each unpublished study whether it is time."""

    def __init__(self, publish: Callable[[Callable[[DirtyStudy], bool] | None], int]) -> None:
        self._publish = publish
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = False
        self._sending: dict[object, dict[_Key, float]] = {}  # association → its studies and their last instance
        self._released: set[_Key] = set()
        self._failing: dict[int, tuple[int, float, float]] = {}  # study → generation, wait, not before
        self._waiting = 0
        self._thread = threading.Thread(target=self._run, name="dimse-publish", daemon=True)

    def start(self) -> None:
        """Publish what an earlier run left, then what comes."""
        self._thread.start()

    def received(self, association: object, institution: str, study: str) -> None:
        """A new instance of a study is durable."""
        with self._lock:
            self._sending.setdefault(association, {})[institution, study] = time.monotonic()
        self._wake.set()

    def released(self, association: object) -> None:
        """An association has ended, however: its studies are due, unless another one is still sending them."""
        with self._lock:
            studies = self._sending.pop(association, None)
            self._released.update(studies or ())
        if studies:
            self._wake.set()

    def stop(self, seconds: float) -> None:
        """Publish what there is, within the time; the rest is published at the next start."""
        self._stop = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        self._pass(everything=True)
        while not self._stop:
            self._wake.wait(_TICK if self._waiting else _LOOK)
            if self._stop:
                break
            self._wake.clear()
            with self._lock:
                due = bool(self._released)
            if not due:  # instances alone: let a second's worth of them gather
                time.sleep(_TICK / 10)
            self._pass()
        self._pass(everything=True)

    def _pass(self, everything: bool = False) -> None:
        self._waiting = 0
        with self._lock:
            released, self._released = self._released, set()
        try:
            self._publish((lambda study: True) if everything else (lambda study: self._due(study, released)))
        except Exception as error:  # the store is away: what is marked stays marked
            log.warning("dimse publish outcome=later error=%s", type(error).__name__)
            with self._lock:
                self._released |= released
            self._waiting = 1

    def _due(self, study: DirtyStudy, released: set[_Key]) -> bool:
        key = (study.institution, study.study_instance_uid)
        now, moment = time.time() * 1e6, time.monotonic()
        with self._lock:
            still_sent = any(moment - studies.get(key, -1e9) < QUIET_SECONDS for studies in self._sending.values())
            if key in released and still_sent:
                self._released.add(key)
        due = (key in released and not still_sent) or now - study.last_dirty > QUIET_SECONDS * 1e6 \
            or now - study.first_dirty > LONGEST_SECONDS * 1e6
        if not due or not self._worth_trying(study, moment):
            self._waiting += 1
            return False
        return True

    def _worth_trying(self, study: DirtyStudy, now: float) -> bool:
        """A study that could not be published is tried at growing distances until it changes."""
        generation, wait, not_before = self._failing.get(study.key, (-1, QUIET_SECONDS / 2, 0.0))
        if generation == study.generation and now < not_before:
            return False
        wait = min(wait * 2, _BACKOFF_LIMIT) if generation == study.generation else QUIET_SECONDS
        if len(self._failing) > 10_000:
            self._failing.clear()
        self._failing[study.key] = (study.generation, wait, now + wait)
        return True
