"""What equal elements say is read once: the Observations of a report share most of theirs, and codes come again. Pure.

Only for elements whose rows follow from the value alone: a date's do not, its zone can be set anew. Threads may read at
once: what is kept is put in its place in one step and never changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

Rows = dict[str, list[tuple[Any, ...]]]
#: Takes an element's value, adds its rows, and returns the bits of the parameters that it has.
Read = Callable[[Any, Rows], int]
#: A value, its bits, its rows.
_Known = tuple[Any, int, list[tuple[str, list[tuple[Any, ...]]]]]

_NOTHING: _Known = (None, 0, [])

#: Concepts that one element keeps; with more it starts anew.
_KEPT = 4096
#: Longer texts do not tell concepts apart: they hardly come again.
_LONGEST = 200


def same_as_last(read: Read) -> Read:
    """Reads a value once while it comes again and again, as a report's subject does in each of its Observations."""
    last = _NOTHING

    def again(value: Any, rows: Rows) -> int:
        nonlocal last
        known, present, found = last
        if value != known:
            known, present, found = fresh = _read(read, value)
            if known is not None:
                last = fresh
        for table, some in found:
            rows[table] += some
        return present
    return again


def same_by_text(read: Read) -> Read:
    """Reads a CodeableConcept once while it is the last with its text."""
    kept: dict[str, _Known] = {}

    def again(value: Any, rows: Rows) -> int:
        text = value.get("text") if type(value) is dict else None
        if type(text) is not str or len(text) > _LONGEST:
            return read(value, rows)
        known, present, found = kept.get(text, _NOTHING)
        if value != known:
            known, present, found = fresh = _read(read, value)
            if known is not None:
                if len(kept) >= _KEPT:
                    kept.clear()
                kept[text] = fresh
        for table, some in found:
            rows[table] += some
        return present
    return again


def _read(read: Read, value: Any) -> _Known:
    rows: Rows = defaultdict(list)
    return _copied(value), read(value, rows), list(rows.items())


def _copied(value: Any) -> Any:
    """A copy of what holds nothing but texts, so that whoever changes the resource later does not change it.

    None of other: ``1``, ``1.0`` and ``True`` are equal here and are not the same in a resource.
    """
    try:
        return _texts(value)
    except TypeError:
        return None


def _texts(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return value
    if kind is dict:
        return {name: _texts(inner) for name, inner in value.items()}
    if kind is list:
        return [_texts(inner) for inner in value]
    raise TypeError(kind)
