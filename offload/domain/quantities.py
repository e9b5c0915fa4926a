"""Durations (`90s`, `15m`, `24h`, `7d`) and sizes (`64MiB`), as settings, rules and queries write them."""

import re
from datetime import timedelta

_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d{1,15})(B|KiB|MiB|GiB|TiB)?")
_BYTES = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_duration(text: str) -> timedelta:
    """Read a duration of one unit: ms, s, m, h or d.

    Raises:
        ValueError: it is not one.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"must be a duration such as 90s, 15m, 24h or 7d; got {text!r}")
    try:
        return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    except OverflowError as error:
        raise ValueError(f"is too long a duration; got {text!r}") from error


def format_duration(duration: timedelta) -> str:
    """Write a duration in the largest unit that divides it; the inverse of `parse_duration`."""
    milliseconds = round(duration.total_seconds() * 1000)
    if milliseconds % 1000:
        return f"{milliseconds}ms"
    seconds = milliseconds // 1000
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // int(_SECONDS[unit])}{unit}"
    return f"{seconds}s"


def parse_size(text: str) -> int:
    """Read a size in bytes, with B, KiB, MiB, GiB or TiB behind it.

    Raises:
        ValueError: it is not one.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"must be a size such as 512KiB, 64MiB or 50GiB; got {text!r}")
    return int(match[1]) * _BYTES[match[2]]


def format_size(size_bytes: int) -> str:
    """Write a size for a person, to one decimal: `64 MiB`, `1.5 GiB`."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004 - the step between two binary units
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TiB"
