"""When to try again.

Cases: waits grow and stop growing; none begins later than the limit after the first failure; Retry-After as
seconds, as a date, as nonsense; a wait that is asked for is never shortened.
"""

from datetime import UTC, datetime

import pytest

from offload.client.retries import LONGEST_DELAY, Patience, retry_after


def test_waits_grow_to_a_ceiling() -> None:
    patience = Patience(total=1000)
    waits = [patience.delay(now=0, asked=None) for _ in range(12)]
    assert 0.125 <= waits[0] <= 0.25
    assert all(wait <= LONGEST_DELAY for wait in waits)
    assert min(waits[-3:]) >= LONGEST_DELAY / 2


def test_no_attempt_begins_after_the_limit() -> None:
    patience = Patience(total=10)
    assert patience.delay(now=100, asked=None) is not None
    assert patience.delay(now=109, asked=None) is not None
    assert patience.delay(now=110, asked=None) is None


def test_no_patience_means_no_second_attempt() -> None:
    assert Patience(total=0).delay(now=0, asked=None) is None


def test_a_wait_that_is_asked_for_is_never_shortened() -> None:
    assert Patience(total=100).delay(now=0, asked=30) >= 30
    assert Patience(total=10).delay(now=0, asked=30) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=datetime(2026, 1, 1, tzinfo=UTC)) == seconds
