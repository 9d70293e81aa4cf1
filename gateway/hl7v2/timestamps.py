"""HL7 TS, DTM, DT and TM as FHIR dateTime, instant, date and time, in the precision they were sent in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.errors import Category, GatewayError

# v2.5.1 2.A.22: YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ]; then the ISO spelling that some senders write
_DTM = re.compile(r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(\.\d{1,9})?)?)?)?)?)? ?(Z|[+-]\d{4})?",
                  re.ASCII)
_ISO = re.compile(r"(\d{4})[-/](\d{2})(?:[-/](\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?)?)?"
                  r" ?(Z|[+-]\d{2}:?\d{2})?", re.ASCII)
_TM = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(\.\d{1,9})?)?)?(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Moment(NamedTuple):
    date: str  # "2024", "2024-05" or "2024-05-06"
    clock: str  # "10:20:30.5", "" when there is no hour
    offset: str  # "+08:00" or "Z", "" when there is no hour
    exact: bool  # to the minute at least
    utc: datetime
    us: int  # microseconds since the epoch


@lru_cache(maxsize=8192)
def _moment(text: str, zone: str) -> _Moment | None:
    text = text.strip()
    match = _DTM.fullmatch(text) or _ISO.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    try:
        when = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0))
        if offset and offset != "Z":
            hours, minutes = int(offset[1:3]), int(offset[-2:])
            if hours > 14 or minutes > 59:
                return None
            delta = timedelta(hours=hours, minutes=minutes)
            when = when.replace(tzinfo=timezone(delta if offset[0] == "+" else -delta))
            offset = f"{offset[:3]}:{offset[-2:]}"
        else:
            when = when.replace(tzinfo=UTC if offset else ZoneInfo(zone))
        offset = offset or _offset_text(when)
        utc = when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    if fraction:
        utc += timedelta(microseconds=int((fraction[1:] + "000000")[:6]))
    date = "-".join(part for part in (year, month, day) if part)
    clock = f"{hour}:{minute or '00'}:{second or '00'}{fraction or ''}" if hour else ""
    us = (utc - _EPOCH) // timedelta(microseconds=1)
    return _Moment(date, clock, offset if hour else "", minute is not None, utc, us)


def _offset_text(when: datetime) -> str:
    minutes = round((when.utcoffset() or timedelta()).total_seconds() / 60)  # Shanghai before 1901 was +08:05:43
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _read(text: str, zone: str, where: str) -> _Moment:
    if moment := _moment(text, zone):
        return moment
    raise GatewayError(Category.INVALID, f"{where or 'a time'} is not a possible date and time; send "
                                         "YYYYMMDDHHMMSS as far as it is known", where, detail="data-type")


def date_time(text: str, zone: str, where: str = "") -> str:
    """FHIR dateTime: a year stays a year; an hour without minutes gets ``:00:00``, as FHIR wants (R4 datatypes)."""
    moment = _read(text, zone, where)
    return f"{moment.date}T{moment.clock}{moment.offset}" if moment.clock else moment.date


def instant(text: str, zone: str, where: str = "") -> str | None:
    """FHIR instant; None when the text is less exact than a minute, for an instant must not pretend."""
    moment = _read(text, zone, where)
    return f"{moment.date}T{moment.clock}{moment.offset}" if moment.exact else None


def midnight(text: str, zone: str) -> str:
    """FHIR instant of the start of the period that the text names, for elements that must have one."""
    moment = _read(text, zone, "")
    return moment.utc.astimezone(ZoneInfo(zone)).isoformat(timespec="seconds")


def date(text: str, zone: str, where: str = "") -> str:
    """FHIR date: the day as written, without the time of day."""
    return _read(text, zone, where).date


def time(text: str, where: str = "") -> str:
    """FHIR time from TM; an offset is dropped, since FHIR's time has none."""
    match = _TM.fullmatch(text.strip())
    hour, minute, second, fraction = match.groups() if match else ("99", None, None, None)
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 59:
        raise GatewayError(Category.INVALID, f"{where or 'a time'} is not a possible time of day; send HHMMSS", where,
                           detail="data-type")
    return f"{hour}:{minute or '00'}:{second or '00'}{fraction or ''}"


def as_of_us(text: str, zone: str) -> int | None:
    """Microseconds since the epoch, the start of the period for a coarse text; None when there is no possible time."""
    moment = _moment(text, zone) if text else None
    return moment.us if moment else None


def is_exact(text: str, zone: str) -> bool:
    """Whether the text is a possible time to the minute at least."""
    moment = _moment(text, zone) if text else None
    return moment is not None and moment.exact


def later(moment: str, minutes: int) -> str | None:
    """A FHIR dateTime with a time of day so many minutes later; None beyond the last day that can be written."""
    try:
        return (datetime.fromisoformat(moment) + timedelta(minutes=minutes)).isoformat(timespec="seconds")
    except OverflowError:
        return None


def instant_of(us: int) -> str:
    """Microseconds since the epoch as FHIR instant in UTC; such texts compare as their times do."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
