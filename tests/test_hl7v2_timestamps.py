"""HL7 times as FHIR times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import timestamps

SHANGHAI = "Asia/Shanghai"


@pytest.mark.parametrize("sent, read", [
    ("2024", "2024"), ("202402", "2024-02"), ("20240229", "2024-02-29"),
    ("2024022913", "2024-02-29T13:00:00+08:00"), ("202402291305", "2024-02-29T13:05:00+08:00"),
    ("20240229130507", "2024-02-29T13:05:07+08:00"), ("20240229130507.5", "2024-02-29T13:05:07.5+08:00"),
    ("20240229130507.1234+0100", "2024-02-29T13:05:07.1234+01:00"), ("202402291305-0330", "2024-02-29T13:05:00-03:30"),
    ("20240229130507+0000", "2024-02-29T13:05:07+00:00"), ("2024-0500", "2024"), ("20240229+0800", "2024-02-29"),
    ("2024-02-29 13:05:07", "2024-02-29T13:05:07+08:00"), ("2024/02/29", "2024-02-29"),
    ("2024-02-29T13:05:07Z", "2024-02-29T13:05:07Z"), ("19880601120000", "1988-06-01T12:00:00+09:00")])
def test_date_time_keeps_the_precision_and_takes_the_hospitals_zone(sent: str, read: str) -> None:
    """A year stays a year; a time without offset gets that of the zone on that day (China had summer time in 1988)."""
    assert timestamps.date_time(sent, SHANGHAI) == read


@pytest.mark.parametrize("sent", ["", "x", "202", "20241301", "20240230", "20230229", "2024022924", "202402291360",
                                  "20240229130560", "00000000", "20240229130507+9900", "2024022913050700", "19 March",
                                  "２０２４"])
def test_impossible_times_are_invalid_at_their_place(sent: str) -> None:
    """The refusal names the field, never the value."""
    with pytest.raises(GatewayError) as refusal:
        timestamps.date_time(sent, SHANGHAI, "OBR-7")
    assert (refusal.value.category, refusal.value.where) == (Category.INVALID, "OBR-7")
    assert not sent or sent not in refusal.value.message


def test_an_instant_does_not_pretend() -> None:
    """Only a time to the minute at least is an instant."""
    assert timestamps.instant("20240229", SHANGHAI) is None
    assert timestamps.instant("2024022913", SHANGHAI) is None
    assert timestamps.instant("202402291305", SHANGHAI) == "2024-02-29T13:05:00+08:00"
    assert timestamps.midnight("202402", SHANGHAI) == "2024-02-01T00:00:00+08:00"


def test_date_and_time_of_day() -> None:
    """DT and TM become FHIR date and time; seconds are filled, an offset is dropped."""
    assert timestamps.date("20240229130507", SHANGHAI) == "2024-02-29"
    assert [timestamps.time(t) for t in ("08", "0830", "083015.25", "0830+0800")] == [
        "08:00:00", "08:30:00", "08:30:15.25", "08:30:00"]
    for bad in ("2430", "8", "noon", "126099"):
        with pytest.raises(GatewayError):
            timestamps.time(bad, "OBX-5")


def test_as_of_counts_microseconds_from_the_epoch() -> None:
    """The zone matters, a coarse time counts from its start, an impossible one is none."""
    assert timestamps.as_of_us("19700101080000.000001", SHANGHAI) == 1
    assert timestamps.as_of_us("1970", "UTC") == 0
    assert timestamps.as_of_us("", SHANGHAI) is None and timestamps.as_of_us("2024x", SHANGHAI) is None


@given(st.datetimes(datetime(1902, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_an_offset_names_the_same_moment_in_both_forms(when: datetime, minutes: int) -> None:
    """What FHIR text and as_of say is the moment that the sender wrote."""
    sign, amount = ("-" if minutes < 0 else "+"), abs(minutes)
    sent = f"{when:%Y%m%d%H%M%S}.{when.microsecond:06}{sign}{amount // 60:02}{amount % 60:02}"
    read = datetime.fromisoformat(timestamps.date_time(sent, SHANGHAI))
    assert read.replace(tzinfo=None) == when
    us = timestamps.as_of_us(sent, SHANGHAI)
    assert us is not None
    assert (read.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() == pytest.approx(us / 1e6)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(sent: str) -> None:
    """No text crashes the reading of times."""
    for read in (timestamps.date_time, timestamps.instant, timestamps.date):
        try:
            read(sent, SHANGHAI, "PID-7")
        except GatewayError as refusal:
            assert refusal.where == "PID-7"
    timestamps.as_of_us(sent, SHANGHAI)
