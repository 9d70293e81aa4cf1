"""DICOM dates and times as FHIR writes them. Pure."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from gateway.imaging.facts import Facts

# PS3.5 6.2: DA YYYYMMDD; ACR-NEMA wrote YYYY.MM.DD, and some write YYYY-MM-DD, or leave the day out
_DA = re.compile(r"(\d{4})(?:[.\-/]?(\d{2})(?:[.\-/]?(\d{2}))?)?\Z", re.ASCII)
_TM = re.compile(r"(\d{2}):?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?\Z", re.ASCII)
_DT = re.compile(r"(\d{8})(\d{4,6}(?:\.\d{1,6})?)?([+-]\d{4})?\Z", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})\Z", re.ASCII)


def fhir_date(text: str) -> str:
    """DA → ``YYYY-MM-DD``, or less where less was sent; empty where it is no date."""
    match = _DA.match(text.strip())
    if not match:
        return ""
    year, month, day = match.groups()
    try:
        date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return ""
    return "-".join(part for part in (year, month, day) if part)


def fhir_time(text: str) -> str:
    """TM → ``hh:mm:ss[.ffffff]``; empty where hours or minutes are missing or out of range.

    Seconds that were not sent are zero (datatypes.html#dateTime); 24:00:00 and a leap second are held inside the day.
    """
    match = _TM.match(text.strip())
    if not match:
        return ""
    hours, minutes, seconds, fraction = match[1], match[2], match[3] or "00", match[4]
    if hours == "24" and minutes == "00" and seconds == "00":
        return "23:59:59"
    if seconds == "60":
        seconds, fraction = "59", None
    if int(hours) > 23 or int(minutes) > 59 or int(seconds) > 59:
        return ""
    return f"{hours}:{minutes}:{seconds}" + (f".{fraction}" if fraction else "")


def date_time(day: str, time: str, offset: str, zone: str) -> str:
    """DA and TM → FHIR dateTime; a date alone where there is no time.

    ``offset`` is (0008,0201); without it the hospital's ``zone`` decides.
    """
    fhir_day, fhir_hour = fhir_date(day), fhir_time(time)
    if not fhir_day or not fhir_hour or len(fhir_day) < 10:
        return fhir_day
    return f"{fhir_day}T{fhir_hour}{_offset(offset) or _zone_offset(fhir_day, fhir_hour[:8], zone)}"


def study_started(facts: Facts, zone: str) -> str:
    """When the study began: Study Date and Time, else the first of what the header dates instead."""
    offset = facts.get("TimezoneOffsetFromUTC", "")
    for kind in ("Study", "Series", "Acquisition", "PerformedProcedureStepStart", "Content"):
        if found := date_time(facts.get(f"{kind}Date", ""), facts.get(f"{kind}Time", ""), offset, zone):
            return found
        if kind == "Acquisition" and (match := _DT.match(facts.get("AcquisitionDateTime", ""))):
            return date_time(match[1], match[2] or "", match[3] or offset, zone)
    return ""


def seconds_of(started: str) -> int:
    """A FHIR dateTime as whole seconds since the epoch, 0 where there is none."""
    if len(started) < 10:
        return 0
    moment = datetime.fromisoformat(started if "T" in started else f"{started}T00:00:00+00:00")
    return max(0, int(moment.timestamp()))


def _offset(text: str) -> str:
    """(0008,0201) ``+0800`` → ``+08:00``; empty where it is none (PS3.3 C.12.1.1.8: -1200 to +1400)."""
    match = _OFFSET.match(text.strip())
    if not match or int(match[3]) > 59 or int(match[2]) * 60 + int(match[3]) > (840 if match[1] == "+" else 720):
        return ""
    sign = "+" if match[2] + match[3] == "0000" else match[1]
    return f"{sign}{match[2]}:{match[3]}"


@lru_cache(maxsize=8192)
def _zone_offset(day: str, hour: str, zone: str) -> str:
    """The offset of a zone at a local time."""
    delta = datetime.fromisoformat(f"{day}T{hour}").replace(tzinfo=ZoneInfo(zone)).utcoffset() or timedelta(0)
    minutes = round(delta.total_seconds() / 60)  # local mean times before 1901 have seconds: FHIR has no room for them
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
