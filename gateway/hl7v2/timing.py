"""How often and for how long something is ordered: TQ1, and TQ in OBR-27 and ORC-7 before 2.5, as R4's Timing.

A series is told from a single test: whoever compares an order with earlier results sees that one of them is not all
that was asked for.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.hl7v2.builder import Builder
from gateway.hl7v2.datatypes import codeable, decimal, quantity, unit_parts
from gateway.hl7v2.message import Part, Segment
from gateway.hl7v2.visit_places import before
from gateway.source import Remark
from gateway.terminology import UCUM

#: Table 0335 as far as Timing.repeat can say it: every n units, n times a day, at a time of the day.
_EVERY = re.compile(r"Q(\d{0,3})([SMHDW])")
_TIMES_A_DAY = re.compile(r"(BID|TID|QID|([1-9]\d?)ID)")
_TIMES = {"BID": 2, "TID": 3, "QID": 4}
_UNITS = {"S": "s", "M": "min", "H": "h", "D": "d", "W": "wk"}
#: TQ.3: how long the series lasts, L being months, or how many times.
_LASTS = re.compile(r"([SMHDWL])(\d{1,4})")
_LASTS_UNITS = {**_UNITS, "L": "mo"}
_WHEN = {"QAM": "MORN", "QPM": "EVE", "QHS": "HS"}
_ONCE = frozenset(("ONCE", "1"))
#: Table 0528 (an event of the day) has R4's own codes; those of an offset are before or after something.
_EVENTS = frozenset(("AC", "ACD", "ACM", "ACV", "PC", "PCD", "PCM", "PCV", "HS"))
_PERIOD_UNITS = frozenset(("s", "min", "h", "d", "wk", "mo", "a"))
_MINUTES = {"min": 1, "h": 60, "hr": 60, "d": 1440}
_CLOCK = re.compile(r"([01]\d|2[0-3])([0-5]\d)([0-5]\d)?")


class _Told(NamedTuple):
    """What one of the three places says, each part as sent."""

    amount: Part  # CQ
    pattern: Part  # CWE of table 0335
    every: tuple[str, str]  # period and its unit, said beside the pattern
    event: tuple[str, str, str]  # of the day, and how long before or after it
    clock: list[str]  # explicit times
    start: str | None
    end: str | None
    times: str  # how many in all
    lasting: dict[str, Any]  # Duration of the whole
    each: dict[str, Any]  # Duration of each time
    text: str
    place: str


def add_timing(made: dict[str, Any], timings: list[Segment], obr: Segment, orc: Segment | None,
               builder: Builder) -> None:
    """Amount, series and words of the first place that says any; a single test keeps its ``occurrenceDateTime``."""
    for told in _places(timings, obr, orc, builder):
        if amount := _amount(told.amount, builder):
            made["quantityQuantity"] = amount
        if series := _series(told, made.get("occurrenceDateTime"), builder):
            made.pop("occurrenceDateTime", None)
            made["occurrenceTiming"] = series
        if told.text:
            made.setdefault("note", []).append({"text": told.text})
        if amount or series or told.text:
            return


def _places(timings: list[Segment], obr: Segment, orc: Segment | None, builder: Builder) -> list[_Told]:
    found = [_from_tq1(tq1, builder) for tq1 in timings]
    found += [_from_tq(segment, at, builder) for segment, at in ((obr, 27), (orc, 7))
              if segment is not None and segment.raw_field(at)]
    return found


def _from_tq1(tq1: Segment, builder: Builder) -> _Told:
    repeated = tq1.first(3)  # RPT
    return _Told(tq1.first(2), repeated.part(1), (repeated.get(5), repeated.get(6)),
                 (repeated.get(8), repeated.get(9), repeated.get(10)), [part.text for part in tq1.repetitions(4)],
                 builder.date_time(tq1, 7), builder.date_time(tq1, 8), tq1.get(14), _duration(tq1.first(6), builder),
                 _duration(tq1.first(13), builder), tq1.text(11).strip(), "TQ1-3")


def _from_tq(segment: Segment, at: int, builder: Builder) -> _Told:
    timing = segment.first(at)
    interval = timing.part(2)  # RI: pattern, and times with commas
    clock = [one for one in interval.get(2).split(",") if one]
    return _Told(timing.part(1), interval.part(1), ("", ""), ("", "", ""), clock, builder.date_time(segment, at, 4),
                 builder.date_time(segment, at, 5), timing.get(12), _lasting(timing.get(3)), {}, timing.get(8).strip(),
                 f"{segment.name}-{at}")


def _duration(sent: Part, builder: Builder) -> dict[str, Any]:
    """CQ as Duration; empty without a number above zero and a unit of time in UCUM."""
    value, units = decimal(sent.get(1)), unit_parts(sent.part(2), builder.source)
    return quantity(value, units) if value is not None and value > 0 and units.get("code") in _PERIOD_UNITS else {}


def _lasting(text: str) -> dict[str, Any]:
    """TQ.3 as Duration, where it is one."""
    if not (found := _LASTS.fullmatch(text.strip().upper())) or not int(found[2]):
        return {}
    unit = _LASTS_UNITS[found[1]]
    return {"value": Decimal(int(found[2])), "unit": unit, "system": UCUM, "code": unit}


def _amount(sent: Part, builder: Builder) -> dict[str, Any] | None:
    """CQ; one without a unit is what every order asks for (the standard's default)."""
    value = decimal(sent.get(1))
    units = unit_parts(sent.part(2), builder.source)
    return None if value is None or (value == 1 and not units) else quantity(value, units)


def _series(told: _Told, wanted: str | None, builder: Builder) -> dict[str, Any] | None:
    """A Timing where it says more than one time."""
    code = told.pattern.get(1).strip()
    count = int(told.times) if told.times.isascii() and told.times.isdigit() and len(told.times) < 7 else 0
    if code.upper() in _ONCE or not (code or count > 1 or told.clock or told.every[0] or told.event[0]):
        return None
    repeat: dict[str, Any] = {}
    if bounds := _bounds(told.start or wanted, told.end, told.place, builder):
        repeat["boundsPeriod"] = bounds
    elif told.lasting:
        repeat["boundsDuration"] = {**told.lasting}
    if told.each:
        repeat.update(duration=told.each["value"], durationUnit=told.each["code"])
    if count > 1:
        repeat["count"] = count
    repeat.update(_repeat(code.upper(), told.every))
    repeat.update(_around(told.event))
    clock = [f"{hour}:{minute}:{second or '00'}" for one in told.clock
             if (found := _CLOCK.fullmatch(one.replace(":", ""))) for hour, minute, second in [found.groups()]]
    if clock:
        repeat.pop("when", None)  # R4 tim-10
        repeat.pop("offset", None)
        repeat["timeOfDay"] = clock
    made: dict[str, Any] = {"repeat": repeat} if repeat else {}
    if code:
        made["code"] = codeable(told.pattern, builder.source, told.place, "0335")
    return made or None


def _bounds(start: str | None, end: str | None, place: str, builder: Builder) -> dict[str, str]:
    """From when to when; FHIR's Period ends no sooner than it starts (per-1): an end that does is left out."""
    if start and end and not before(start, end):
        builder.conversion.remarks.append(Remark(place, "the series would end before it begins; its end is left out, "
                                                 "correct it and send it again"))
        end = None
    return {name: moment for name, moment in (("start", start), ("end", end)) if moment}


def _repeat(code: str, every: tuple[str, str]) -> dict[str, Any]:
    """What a pattern means, where it is sure; the period that is said beside it comes first."""
    period, unit = decimal(every[0]), every[1].lower()
    if period is not None and period > 0 and unit in _PERIOD_UNITS:
        return {"frequency": 1, "period": period, "periodUnit": unit}
    if found := _EVERY.fullmatch(code):
        number = int(found[1] or 1)
        return {"frequency": 1, "period": Decimal(number), "periodUnit": _UNITS[found[2]]} if number else {}
    if found := _TIMES_A_DAY.fullmatch(code):
        return {"frequency": _TIMES.get(found[1]) or int(found[2]), "period": Decimal(1), "periodUnit": "d"}
    if code == "QOD":
        return {"frequency": 1, "period": Decimal(2), "periodUnit": "d"}
    if code in _WHEN:
        return {"frequency": 1, "period": Decimal(1), "periodUnit": "d", "when": [_WHEN[code]]}
    return {}


def _around(event: tuple[str, str, str]) -> dict[str, Any]:
    """RPT.8 to 10: before or after a meal, and by how many minutes (R4 tim-9: of these events alone)."""
    kind, length, unit = event[0].upper(), decimal(event[1]), event[2].lower()
    if kind not in _EVENTS:
        return {}
    minutes = length * _MINUTES[unit] if length is not None and unit in _MINUTES else None
    if minutes is None or minutes <= 0 or minutes != int(minutes) or kind == "HS":
        return {"when": [kind]}
    return {"when": [kind], "offset": int(minutes)}
