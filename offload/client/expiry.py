"""Expiries, as people and programs write them and as the server reads them."""

from datetime import UTC, datetime, timedelta

from offload.domain.quantities import format_duration, parse_duration
from offload.domain.times import format_time, parse_time
from offload.errors import InvalidExpiryError

Expiry = timedelta | datetime | str
"""From now, at a time (with its zone), or either as text: `7d`, `2030-01-31T12:00:00Z`."""


def expiry_text(expires: Expiry) -> str:
    """The value of `?expires=`. Raises `InvalidExpiryError`."""
    if isinstance(expires, timedelta):
        return format_duration(expires)
    if isinstance(expires, datetime):
        if expires.tzinfo is None:
            raise InvalidExpiryError("expires", "must name its time zone", str(expires))
        return format_time(expires)
    try:
        duration = parse_duration(expires)
        datetime.now(UTC) + duration
        return format_duration(duration)
    except OverflowError as error:
        raise InvalidExpiryError("expires", "must end before the year 10000", expires) from error
    except ValueError:
        pass
    try:
        return format_time(parse_time(expires))
    except ValueError as error:
        raise InvalidExpiryError(
            "expires", "must be a duration such as 7d, or a time such as 2030-01-31T12:00:00Z", expires
        ) from error
