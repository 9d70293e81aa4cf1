"""What dates, strings and quantities mean as ranges and normalised text; the same for a resource and a query. Pure."""

from __future__ import annotations

import re
import unicodedata
from calendar import monthrange
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

#: Milliseconds since the epoch of the first and the last instant of FHIR's calendar: an end that is open.
BEGIN, END = -62135596800000, 253402300799999

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
#: datatypes.html#dateTime; a query may also stop at the minute (search.html#date).
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?"
                   r"(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII)

_zone: tzinfo = ZoneInfo("Asia/Shanghai")


def set_zone(zone: tzinfo) -> None:
    """The zone of dates that carry no offset (``HUREN_TIMEZONE``); it is part of `fingerprint`."""
    global _zone
    _zone = zone
    date_range.cache_clear()


def zone() -> tzinfo:
    """The zone of dates that carry no offset."""
    return _zone


@lru_cache(maxsize=16384)
def date_range(text: str) -> tuple[int, int] | None:
    """First and last millisecond that a FHIR date, dateTime or instant of any precision covers; None: it is none."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    try:
        if hour is None:
            return _days(int(year), int(month or 0), int(day or 0))
        milliseconds = int(((fraction or "") + "000")[:3])
        # 23:59:60 is a leap second; Python's calendar has none, so it is the last second of the minute.
        at = datetime(int(year), int(month), int(day), int(hour), int(minute), min(int(second or 0), 59),
                      milliseconds * 1000, _offset(offset))
        lo = (at - _EPOCH) // _MS
    except (ValueError, OverflowError):
        return None
    if second is None:
        return lo, lo + 59999
    if fraction is None:
        return lo, lo + 999
    return lo, lo + 10 ** max(0, 3 - len(fraction)) - 1


def _days(year: int, month: int, day: int) -> tuple[int, int]:
    first = datetime(year, month or 1, day or 1, tzinfo=_zone)
    if day:
        last = datetime(year, month, day, 23, 59, 59, 999000, _zone)
    elif month:
        last = datetime(year, month, monthrange(year, month)[1], 23, 59, 59, 999000, _zone)
    else:
        last = datetime(year, 12, 31, 23, 59, 59, 999000, _zone)
    return (first - _EPOCH) // _MS, (last - _EPOCH) // _MS


def _offset(text: str | None) -> tzinfo:
    if text is None:
        return _zone
    if text == "Z":
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def outer_range(value: Any) -> tuple[int, int] | None:
    """The range of a date, dateTime, instant, Period or Timing; an end that is not given is open.

    Of a Timing only the outer limits matter (search.html#date).
    """
    if type(value) is str:
        return date_range(value)
    if type(value) is not dict:
        return None
    if "start" in value or "end" in value:
        start, end = value.get("start"), value.get("end")
        lo = date_range(start) if type(start) is str else None
        hi = date_range(end) if type(end) is str else None
        if not lo and not hi:
            return None
        first, last = lo[0] if lo else BEGIN, hi[1] if hi else END
        return (first, last) if first <= last else None
    repeat = value.get("repeat")
    parts = [*value.get("event", ()), repeat.get("boundsPeriod") if type(repeat) is dict else None]
    ranges = [found for part in parts if (found := outer_range(part))]
    return (min(lo for lo, _ in ranges), max(hi for _, hi in ranges)) if ranges else None


@lru_cache(maxsize=16384)
def normalise(text: str) -> str:
    """Without case, accents, full-width forms and double spaces; Chinese stays (search.html#string)."""
    if text.isascii():
        return " ".join(text.lower().split())
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(unicodedata.normalize("NFKC", plain.casefold()).split())


#: Quantity.comparator: the value is somewhere below or above.
_COMPARATORS = {"<": (True, False), "<=": (True, False), ">": (False, True), ">=": (False, True)}


def quantity_range(value: dict[str, Any]) -> tuple[float, float | None] | None:
    """``(lo, hi)`` of a Quantity; hi is None where it equals lo, and a comparator opens one end."""
    number = value.get("value")
    if number is None or isinstance(number, (str, bool)):
        return None
    at = float(number)
    if "comparator" not in value:
        return at, None
    below, above = _COMPARATORS.get(value["comparator"], (False, False))
    if below:
        return -inf, at
    return (at, inf) if above else (at, None)


#: datatypes.html#decimal
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,4})?")


def number_range(text: str) -> tuple[Decimal, Decimal, Decimal] | None:
    """A number of a query as ``(value, lo, hi)``: 5.4 means from 5.35 up to below 5.45 (search.html#number)."""
    if not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text)
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or max(abs(value.adjusted()), abs(exponent)) > 300:  # beyond what a double holds
        return None
    half = Decimal(5).scaleb(exponent - 1)
    return value, value - half, value + half
