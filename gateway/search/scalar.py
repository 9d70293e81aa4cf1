"""Date, string and quantity parameters (search.html#date, #string, #quantity)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.indexing import Param, param_key, values
from gateway.search.nodes import PREFIXES, Bounds, Dates, Node, Quantities, Strings, any_of, like, padded
from gateway.search.query import Criterion, invalid, split, unescape, unsupported, values_of

if TYPE_CHECKING:
    from gateway.search.criteria import Asking


def prefixed(text: str) -> tuple[str, str]:
    """``ge2024`` → ``ge`` and ``2024``; without a prefix ``eq``."""
    return (text[:2], text[2:]) if text[:2] in PREFIXES else ("eq", text)


def bounds(criterion: Criterion) -> list[Bounds]:
    """A date criterion's alternatives as one bound each."""
    if criterion.modifier:
        raise unsupported("a date takes the modifier :missing only", str(criterion))
    found = []
    for value in values_of(criterion):
        prefix, text = prefixed(unescape(value).replace(" ", "+"))  # "+08:00" that was not percent-encoded
        span = values.date_range(text)
        if span is None:
            raise invalid("a date is YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm[:ss][zone], after a prefix "
                          "such as ge", str(criterion))
        found.append(((prefix, *_approximate(*span)) if prefix == "ap" else (prefix, *span),))
    return found  # type: ignore[return-value]


def _approximate(lo: int, hi: int) -> tuple[int, int]:
    """A tenth of the time between the date and now, on both sides (search.html#prefix)."""
    slack = abs(int(time.time() * 1000) - lo) // 10
    return lo - slack, hi + slack


def date(asking: Asking, t: str, p: Param, criterion: Criterion) -> Node:
    """The condition of a date criterion."""
    return any_of(Dates(param_key(t, p.name), bound) for bound in bounds(criterion))


def string(asking: Asking, t: str, p: Param, criterion: Criterion) -> Node:
    """Begins with, without case and accents; ``:contains`` anywhere; ``:exact`` as it is written."""
    param = param_key(t, p.name)
    return any_of(_string(param, criterion, unescape(value)) for value in values_of(criterion))


def _string(param: int, criterion: Criterion, text: str) -> Node | None:
    plain = values.normalise(text)
    if criterion.modifier == "exact":
        return Strings(param, "exact", plain, "" if plain == text else text)
    if criterion.modifier == "contains":
        return Strings(param, "contains", like(plain, anywhere=True))
    if criterion.modifier:
        raise unsupported("a string takes the modifiers :exact, :contains and :missing", str(criterion))
    return Strings(param, "starts", plain) if plain else None


def quantity(asking: Asking, t: str, p: Param, criterion: Criterion) -> Node:
    """``[prefix]number``, ``…|system|code`` or ``…||unit``."""
    if criterion.modifier:
        raise unsupported("a quantity takes the modifier :missing only", str(criterion))
    return any_of(_quantity(asking, param_key(t, p.name), value, criterion) for value in values_of(criterion))


def _quantity(asking: Asking, param: int, value: str, criterion: Criterion) -> Node | None:
    parts = [unescape(part) for part in split(value, "|")]
    prefix, text = prefixed(parts[0])
    number = values.number_range(text)
    if number is None or len(parts) not in (1, 3):
        raise invalid("a quantity is a number after a prefix such as gt, alone or as number|system|code",
                      str(criterion))
    at, lo, hi = number
    slack = abs(at) / 10
    ends = {"eq": (lo, hi), "ne": (lo, hi), "ap": (at - slack, at + slack)}.get(prefix, (at,))
    units: tuple[int, ...] = ()
    if len(parts) == 3 and (parts[1] or parts[2]):
        units = padded(asking.units(parts[1], parts[2]))
        if not units:
            return None
    return Quantities(param, prefix, tuple(float(end) for end in ends), units)
