"""What recognition asks of the index: a person's results under unified items, and the reports they stand in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gateway import indexing
from gateway.indexing.results import KINDS, SIDES, STATUSES, UNKNOWN_TIME
from gateway.store import types
from gateway.store.database import Reader
from gateway.store.model import Result

_FIND = ("SELECT item, time, pk, kind, status, institution, flags, side, session FROM idx_result "
         "WHERE person = ? AND time >= ? AND item IN ?*")
_REPORT = types.number_of("DiagnosticReport")
_NAMED = ("SELECT pk, version, updated, dict, person, institution, id, "
          f"CASE type WHEN {_REPORT} THEN body END FROM resource WHERE pk IN ?*")
_NAMING = ("SELECT x.target, r.pk, r.version, r.updated, r.dict, r.person, r.institution, r.id, r.body "
           "FROM idx_reference x JOIN resource r ON r.pk = x.pk WHERE x.param = ? AND x.target IN ?*")


def find(reader: Reader, slugs: Callable[[int], str], person: int, items: Iterable[str], since: int) -> list[Result]:
    """Results under these items of ``since`` or later, and those of unknown time; newest first within an item."""
    found = reader.among(_FIND, dict.fromkeys(items), (person, -(-since // 1000) if since else -UNKNOWN_TIME))
    found.sort(key=_order)
    make = Result._make
    return [make((item, 0 if time == UNKNOWN_TIME else time * 1000, pk, KINDS[kind], STATUSES[status],
                  slugs(institution), flags, SIDES[side], session))
            for item, time, pk, kind, status, institution, flags, side, session in found]


def _order(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return row[0], 1 if row[1] == UNKNOWN_TIME else -row[1], -row[2]


def references(reader: Reader, pks: Iterable[int]) -> dict[int, str]:
    """``Observation/id`` of each pk, without a look at the body."""
    return {pk: f"{types.type_of(key)}/{types.id_of(key)}" for pk, named in reader.among(
        "SELECT pk, id FROM resource WHERE pk IN ?*", dict.fromkeys(pks)) for key in (bytes(named),)}


def reports(reader: Reader, pks: Sequence[int]) -> dict[int, list[tuple[Any, ...]]]:
    """Rows of `resource` for each pk: of a DiagnosticReport itself, of an Observation the reports that name it."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    of: dict[int, int] = {}
    for row in reader.among(_NAMED, dict.fromkeys(pks)):
        if row[7] is not None:
            found[row[0]] = [row]
        else:
            key = bytes(row[6])
            of[indexing.reference_key(f"{types.type_of(key)}/{types.id_of(key)}")] = row[0]
    for naming in reader.among(_NAMING, of, (indexing.param_key("DiagnosticReport", "result"),)):
        found.setdefault(of[naming[0]], []).append(naming[1:])
    return found
