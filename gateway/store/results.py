"""What recognition asks of the index: a person's results under unified items, and the reports they stand in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway import indexing
from gateway.indexing.results import KINDS, SIDES, STATUSES, UNKNOWN_TIME
from gateway.store import types
from gateway.store.database import Reader
from gateway.store.model import Result

_ROW = "SELECT item, time, pk, kind, status, institution, flags, side, session FROM idx_result WHERE "
_FIND = _ROW + "person = ? AND time >= ? AND item IN ?*"
_ALL = _ROW + "person = ? AND time >= ?"
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM idx_result WHERE person = ? LIMIT ?) AS few"
#: To look for an item costs as much as to read this many rows: of a person with fewer results all are read at once.
_ROWS_AN_ITEM = 3
_FEW_ITEMS = 24


def find(reader: Reader, slugs: Callable[[int], str], person: int, items: Iterable[str], since: int) -> list[Result]:
    """Results under these items of ``since`` or later, and those of unknown time; newest first within an item."""
    wanted, values = dict.fromkeys(items), (person, -(-since // 1000) if since else -UNKNOWN_TIME)
    if len(wanted) > _FEW_ITEMS and _has_few(reader, person, len(wanted) * _ROWS_AN_ITEM):
        found = [row for row in reader.all(_ALL, values) if row[0] in wanted]
    else:
        found = reader.among(_FIND, wanted, values)
    found.sort(reverse=True)
    if any(row[1] == UNKNOWN_TIME for row in found):
        found.sort(key=lambda row: (row[0], row[1] != UNKNOWN_TIME, row[1], row[2]), reverse=True)
    slug, make = {number: slugs(number) for number in {row[5] for row in found}}, Result._make
    return [make((item, 0 if time == UNKNOWN_TIME else time * 1000, pk, KINDS[kind], STATUSES[status],
                  slug[institution], flags, SIDES[side], session))
            for item, time, pk, kind, status, institution, flags, side, session in found]


def _has_few(reader: Reader, person: int, rows: int) -> bool:
    counted = reader.one(_COUNT, (person, rows))
    return counted is not None and counted[0] < rows


_RESULTS = "SELECT pk, id FROM resource WHERE pk IN ?*"
_STANDING = "SELECT target, pk FROM idx_reference WHERE param = ? AND target IN ?*"
_REPORTS = "SELECT pk, version, updated, dict, person, institution, id, body FROM resource WHERE pk IN ?*"


def references(reader: Reader, pks: Iterable[int]) -> dict[int, str]:
    """``Observation/id`` of each pk, without a look at the body."""
    return {pk: _reference(bytes(key)) for pk, key in reader.among(_RESULTS, dict.fromkeys(pks))}


def _reference(key: bytes) -> str:
    return f"{types.type_of(key)}/{types.id_of(key)}"


def reports(reader: Reader, pks: Iterable[int] | Mapping[int, str],
            ) -> tuple[dict[int, list[int]], dict[int, tuple[Any, ...]]]:
    """The pks of the reports that each result stands in, and a row of `resource` for each of these reports.

    Of a DiagnosticReport itself, of an Observation those that name it as ``result``.
    """
    found: dict[int, list[int]] = {}
    of: dict[int, int] = {}
    for pk, reference in (pks if isinstance(pks, Mapping) else references(reader, pks)).items():
        if reference.startswith("DiagnosticReport/"):
            found[pk] = [pk]
        else:
            of[indexing.reference_key(reference)] = pk
    for target, pk in reader.among(_STANDING, of, (indexing.param_key("DiagnosticReport", "result"),)):
        found.setdefault(of[target], []).append(pk)
    named = dict.fromkeys(pk for standing in found.values() for pk in standing)
    return found, {row[0]: row for row in reader.among(_REPORTS, named)} if named else {}
