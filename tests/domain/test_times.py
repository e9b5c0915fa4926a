"""RFC 3339 times.

Cases: forms that are read, all as UTC; forms of ISO 8601 that are not RFC 3339; times that do not exist; and
as a property: a written time reads back.
"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offload.domain.times import format_time, parse_time

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2030-01-31T12:00:00Z", NOON),
        ("2030-01-31t12:00:00z", NOON),
        ("2030-01-31 12:00:00Z", NOON),
        ("2030-01-31T14:00:00+02:00", NOON),
        ("2030-01-31T06:30:00-05:30", NOON),
        ("2030-01-31T12:00:00.25Z", NOON + timedelta(milliseconds=250)),
        ("2030-01-31T12:00:00.000000999Z", NOON),
    ],
)
def test_a_time_with_an_offset_is_read_as_utc(text: str, time: datetime) -> None:
    assert parse_time(text) == time
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2030-01-31",
        "2030-01-31T12:00:00",
        "2030-01-31T12:00Z",
        "20300131T120000Z",
        "2030-W05-4T12:00:00Z",
        "2030-02-30T12:00:00Z",
        "2030-01-31T24:00:00Z",
        "2030-01-31T12:00:60Z",
        "2030-01-31T12:00:00+24:00",
        "0001-01-01T00:00:00+10:00",
        "\uff12030-01-31T12:00:00Z",
        "2030-01-31T12:00:00Z\n",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time with its offset"):
        parse_time(text)


@given(st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9990, 1, 1)), st.integers(-1439, 1439))  # noqa: DTZ001 - hypothesis wants naive bounds
def test_a_written_time_reads_back(naive: datetime, minutes: int) -> None:
    time = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_time(format_time(time)) == time
