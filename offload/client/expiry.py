"""Expiries, as people and programs write them and as the server reads them."""

from datetime import UTC, datetime, timedelta

from offload.domain.quantities import format_duration, parse_duration
from offload.errors import InvalidExpiryError

Expiry = timedelta | datetime | str
"""From now, at a time (with its zone), or either as text: `7d`, `2030-01-31T12:00:00Z`."""


def expiry_text(expires: Expiry) -> str:
    """The value of `?expires=`. Raises `InvalidExpiryError`."""
    if isinstance(expires, timedelta):
        return format_duration(expires)
    if isinstance(expires, datetime):
        return time_text(expires)
    try:
        return format_duration(parse_duration(expires))
    except ValueError:
        pass
    try:
        return time_text(datetime.fromisoformat(expires))
    except ValueError as error:
        raise InvalidExpiryError(
            "expires", "must be a duration such as 7d, or an RFC 3339 time", expires
        ) from error


def time_text(moment: datetime) -> str:
    """RFC 3339, in UTC. Raises `InvalidExpiryError` for a time without a zone."""
    if moment.tzinfo is None:
        raise InvalidExpiryError("expires", "must name its time zone, such as Z or +02:00", str(moment))
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
