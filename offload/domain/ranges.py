"""Byte ranges (RFC 9110, section 14)."""

import re
from dataclasses import dataclass

from offload.errors import RangeNotSatisfiableError

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Offsets `first` through `last`, both inside the content."""

    first: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range that a `Range` header asks of content of `size` bytes; None for the whole.

    What a server may ignore is ignored: several ranges, other units, bad syntax (RFC 9110, section 14.2).

    Raises:
        RangeNotSatisfiableError: no byte of it exists.
    """
    match = _RANGE.fullmatch(header or "")
    if not match:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        if int(suffix) == 0 or size == 0:
            raise RangeNotSatisfiableError(size)
        return ByteRange(max(0, size - int(suffix)), size - 1)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise RangeNotSatisfiableError(size)
    return ByteRange(int(first), min(int(last), size - 1) if last else size - 1)
