"""Times as they are written on the wire and in files: RFC 3339, always with an offset."""

import re
from datetime import UTC, datetime

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time, as UTC; digits past the microsecond are dropped.

    Raises:
        ValueError: it is not one.
    """
    rule = f"must be a time with its offset such as 2030-01-31T12:00:00Z; got {text!r}"
    if not _RFC_3339.fullmatch(text):
        raise ValueError(rule)
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(rule) from error


def format_time(time: datetime) -> str:
    """Write an aware time as RFC 3339 in UTC, to the second or, where it has any, the microsecond."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
