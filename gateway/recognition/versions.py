"""Rulebook: every version of the catalogue that is there, and which one holds at a time; fresh from the store.

The version that ships with the program (``profiles/``) is always there. Others are Libraries in the store, see
`gateway.recognition.library`. A version holds from the first moment of its effective day until another one's.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from gateway.caller import GATEWAY
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.fhir.resource import text
from gateway.recognition import library
from gateway.recognition.rules import ALL, Institution, Qualification, RuleSet
from gateway.recognition.tables import HEAD, TABLES, Faults, Head, ruleset_from_tables
from gateway.source import Source
from gateway.terminology import catalogue
from profiles import build

if TYPE_CHECKING:
    from gateway.store import Store
    from gateway.store.model import Row

log = logging.getLogger("huren.recognition")

POLL_SECONDS = 0.5  # a version is to be seen within a second of its load
_BEFORE_ALL = -(1 << 62)  # µs: the shipped version holds until another one's day has come
_ANYWAY_SECONDS = 60.0  # two loads may commit in another order than that of their times


class Hospital(Protocol):
    """What a manifest says that the catalogue asks for; `gateway.adapter.Adapter` is one."""

    @property
    def source(self) -> Source: ...
    @property
    def quality(self) -> tuple[str, ...]: ...
    @property
    def region(self) -> str: ...
    @property
    def level(self) -> int: ...


@lru_cache(maxsize=1)
def shipped() -> RuleSet:
    """The version that ships with the program, without any hospital; read at the first call."""
    folder = resources.files("profiles") / "recognition"
    files = {name: (folder / name).read_bytes() for name in (*TABLES, HEAD) if (folder / name).is_file()}
    items = catalogue()
    base = RuleSet(version="0", effective=date.min, catalogue=items,
                   core={panel.code: frozenset(panel.core) for panel in items.panels.values() if panel.core},
                   same_session=frozenset(panel.code for panel in items.panels.values() if panel.same_session))
    return ruleset_from_tables(files, [base])


def shipped_tables() -> dict[str, bytes]:
    """The tables of the version that ships with the program."""
    folder = Path(str(resources.files("profiles")))
    rest = {name: (folder / "recognition" / name).read_bytes() for name in TABLES
            if (folder / "recognition" / name).is_file()}
    return build.tables(folder) | rest


def with_hospitals(rules: RuleSet, hospitals: Iterable[Hospital]) -> RuleSet:
    """A version with the manifests' hospitals that its own ``institutions.tsv`` does not name.

    ``quality`` of a manifest is a qualification without period for the hospital's region; ``all`` means every item.
    """
    new = [hospital for hospital in hospitals if hospital.source.institution not in rules.institutions]
    if not new:
        return rules
    institutions = dict(rules.institutions)
    qualifications = list(rules.qualifications)
    for hospital in new:
        slug = hospital.source.institution
        name_zh, _, name_en = hospital.source.name.partition(" · ")
        institutions[slug] = Institution(slug, name_zh, name_en, hospital.region, hospital.level)
        if hospital.region:
            qualifications += [Qualification(slug, ALL if item == "all" else item, hospital.region)
                               for item in hospital.quality]
    return replace(rules, institutions=institutions, qualifications=tuple(qualifications))


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The versions at one time: ``starts`` (µs, ascending) and ``rules`` belong together."""

    starts: tuple[int, ...]
    rules: tuple[RuleSet, ...]
    by_name: dict[str, RuleSet]


class Rulebook:
    """Every version; one per process, safe from many threads. Without a store: the shipped version alone."""

    def __init__(self, timezone: str = "Asia/Shanghai", hospitals: Iterable[Hospital] = (),
                 store: Store | None = None) -> None:
        self._zone = ZoneInfo(timezone)
        self._hospitals = tuple(hospitals)
        self._store = store
        self._lock = threading.Lock()
        self._seen = -1  # `store.newest` when the store was last read
        self._next = 0.0  # monotonic time of the next look
        self._anyway = 0.0  # and of the next reading, whether something changed or not
        self._known: dict[_Key, RuleSet | None] = {}
        self._plain: dict[str, RuleSet] = {}
        self._files: dict[str, dict[str, bytes]] = {}
        self._kept: frozenset[str] = frozenset()
        self._snapshot = self._made([])

    def at(self, now: int) -> RuleSet:
        """The version that holds at a time (µs): the latest that has taken effect; before all of them, the first."""
        if time.monotonic() >= self._next:
            self._look()
        snapshot = self._snapshot
        return snapshot.rules[max(0, bisect_right(snapshot.starts, now) - 1)]

    def version(self, name: str) -> RuleSet:
        """A version by its name, also one that holds no more; NOT_FOUND when it is not there."""
        found = self._snapshot.by_name.get(name)
        if found is None:
            self.refresh()
            found = self._snapshot.by_name.get(name)
        if found is None:
            raise GatewayError(Category.NOT_FOUND, f"there is no version {name} of the catalogue; `huren catalogue "
                                                   "show` lists them", "version")
        return found

    def versions(self) -> list[RuleSet]:
        """All of them, by the time from which they hold."""
        if time.monotonic() >= self._next:
            self._look()
        return list(self._snapshot.rules)

    def plain(self) -> list[RuleSet]:
        """All of them as their tables say, without the manifests' hospitals."""
        return list(self._plain.values())

    def loaded(self) -> set[str]:
        """The names of those that somebody has loaded: not the program's own, of this one or an earlier one."""
        return self._plain.keys() - {shipped().version, *self._kept}

    def kept(self) -> frozenset[str]:
        """The names of those in the store that a program, this one or an earlier one, has put there."""
        return self._kept

    def bases(self) -> dict[str, str]:
        """Version → its base, of those in the store."""
        return {key.name: key.base.name for key in self._known if key.base}

    def tables(self, name: str) -> dict[str, bytes]:
        """The tables of a version, with those that it took over; NOT_FOUND when it is not there."""
        self.version(name)
        files = shipped_tables() if name == shipped().version else {}
        if key := next((key for key in self._known if key.name == name), None):
            files = (self.tables(key.base.name) if key.base else {}) | self._files[name]
        return files

    def day(self, now: int) -> date:
        """The local day of a time (µs)."""
        return datetime.fromtimestamp(now // 1_000_000, self._zone).date()

    def start(self, day: date) -> int:
        """The first moment of a local day (µs)."""
        moment = datetime(day.year, day.month, day.day, tzinfo=self._zone).astimezone(UTC)
        return int(moment.timestamp()) * 1_000_000

    def refresh(self) -> None:
        """Look into the store now, whenever the last look was."""
        if self._store is None:
            return
        with self._lock:
            self._load(self._store)

    # ---------------------------------------------------------------- from the store

    def _look(self) -> None:
        """One thread looks, the others go on with what is known; what changed is read beside the requests.

        Only the first reading is waited for, and its BUSY is the asker's: before it, nothing is known. A region's
        tables may take seconds.
        """
        store = self._store
        if store is None:
            self._next = float("inf")
        elif self._lock.acquire(blocking=self._seen < 0):
            reading = False
            try:
                if self._seen < 0:
                    self._load(store)
                elif self._changed(store):
                    threading.Thread(target=self._read_beside, args=(store,), daemon=True, name="catalogue").start()
                    reading = True
            except GatewayError as error:
                if self._seen < 0:
                    raise
                _not_read(error)
            finally:
                if not reading:
                    self._lock.release()

    def _read_beside(self, store: Store) -> None:
        try:
            self._load(store)
        except GatewayError as error:
            _not_read(error)
        finally:
            self._lock.release()

    def _changed(self, store: Store) -> bool:
        moment = time.monotonic()
        self._next = moment + POLL_SECONDS
        return moment >= self._anyway or store.newest("Library") != self._seen

    def _load(self, store: Store) -> None:
        newest = store.newest("Library")
        self._snapshot = self._made(_stored(store))
        self._seen = newest
        self._next = time.monotonic() + POLL_SECONDS
        self._anyway = time.monotonic() + _ANYWAY_SECONDS

    def _made(self, stored: list[_Stored]) -> _Snapshot:
        """A version is read once for each state of its Library and of its base's."""
        first = shipped()
        made, keys = {first.version: first}, {first.version: _Key(first.version, 0)}
        known: dict[_Key, RuleSet | None] = {}
        order = [(_BEFORE_ALL, _BEFORE_ALL, first.version)]
        for one in _bases_first(stored):
            if one.head.version == first.version:
                continue  # the same, kept for the programs after this one
            if one.head.base not in ("", *made):
                log.error("catalogue version %s needs %s, which is not there", one.head.version, one.head.base)
                continue
            key = _Key(one.head.version, one.number, keys.get(one.head.base))
            rules = known[key] = self._known[key] if key in self._known else _read(one, made)
            if rules is not None and rules.version not in made:
                made[rules.version], keys[rules.version] = rules, key
                if not one.shipped:  # an earlier program's: for decisions that cite it, and versions based on it
                    order.append((self.start(rules.effective), one.updated, rules.version))
        self._known, self._plain = known, made
        self._files = {one.head.version: one.files for one in stored}
        self._kept = frozenset(one.head.version for one in stored if one.shipped)
        order.sort()
        by_name = {name: with_hospitals(rules, self._hospitals) for name, rules in made.items()}
        return _Snapshot(tuple(start for start, _, _ in order), tuple(by_name[name] for _, _, name in order), by_name)


def _not_read(error: GatewayError) -> None:
    """The database is not there for now: what is known still holds."""
    log.warning("catalogue: the store cannot be read: %s", error.category.value)


class _Key(NamedTuple):
    """What a version was read from: its name, the Library's version in the store, and the same of its base."""

    name: str
    number: int
    base: _Key | None = None


class _Stored(NamedTuple):
    """A Library of the store, opened."""

    head: Head
    files: dict[str, bytes]
    number: int
    updated: int
    shipped: bool


def _stored(store: Store) -> list[_Stored]:
    """Every version of the catalogue in the store."""
    found = []
    for row in _libraries(store):
        resource = json.loads(text(row.resource_type, row.id, row.version, row.updated, row.tail))
        if not library.is_catalogue(resource):
            continue
        faults = Faults()
        head, files = library.head_in(resource, faults), library.files_in(resource, faults)
        if head is None or faults.issues:
            log.error("Library/%s is no version of the catalogue and does not hold: %s", row.id,
                      faults.issues[0].message)
            continue
        found.append(_Stored(head, files, row.version, row.updated, resource.get("purpose") == library.SHIPPED))
    return found


def _libraries(store: Store) -> list[Row]:
    """Every Library that is stored and not deleted; read without the search index, which may be being rebuilt."""
    newest: dict[str, Row] = {}
    before: tuple[int, int] | None = None
    while page := store.history("Library", None, GATEWAY, 200, before):
        for row in page:
            newest.setdefault(row.id, row)
        before = (page[-1].updated, page[-1].pk)
    return [row for row in newest.values() if not row.deleted]


def _bases_first(stored: list[_Stored]) -> list[_Stored]:
    """In an order in which a version's base, where it is stored, comes before it."""
    waiting = sorted(stored, key=lambda one: (one.updated, one.head.version))
    names, ordered = {one.head.version for one in waiting}, []
    while waiting:
        ready = [one for one in waiting if one.head.base not in names] or waiting  # a circle: said when it is read
        ordered += ready
        names -= {one.head.version for one in ready}
        waiting = [one for one in waiting if one not in ready]
    return ordered


def _read(stored: _Stored, made: dict[str, RuleSet]) -> RuleSet | None:
    try:
        return ruleset_from_tables(stored.files, made.values(), stored.head)
    except GatewayError as error:  # a check of this program that the program that stored it did not make
        log.error("catalogue version %s cannot be read and does not hold: %s %s", stored.head.version, error.where,
                  error.message)
        return None
