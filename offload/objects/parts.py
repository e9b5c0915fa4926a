"""How a stream is cut into parts: pure rules that every adapter shares."""

from collections.abc import AsyncGenerator, AsyncIterator

from offload.domain.limits import PART_COUNT, PART_LEAST
from offload.errors import LengthMismatchError, UploadTooLargeError

PART_DEFAULT = 8 * 2**20
"""Bytes of a part unless the upload is so large that 10,000 of them would not do."""

Part = list[memoryview]
"""The bytes of a part, in stretches as they came: to join them would cost more than to send them."""

_MIB = 2**20


def part_size_of(size_bytes: int | None, least: int = PART_DEFAULT) -> int:
    """The one part size of an upload: `least`, or the whole MiBs that keep it within 10,000 parts."""
    needed = -(-(size_bytes or 0) // PART_COUNT)
    whole = -(-needed // _MIB) * _MIB
    return max(least, PART_LEAST, whole)


def window_of(size_bytes: int | None, part_size: int, in_flight: int) -> int:
    """Most bytes held by an upload: the parts in flight and the one being gathered, or all there is."""
    parts = part_size * (in_flight + 1)
    return parts if size_bytes is None else min(size_bytes, parts)


async def cut(
    source: AsyncIterator[bytes], part_size: int, size_bytes: int | None
) -> AsyncGenerator[tuple[Part, bool]]:
    """Give the bytes of `source` as parts of `part_size`, each with whether it is the last.

    There is always a last part, and it is empty only where `source` is. A full part is held until a further
    byte is seen, so that a source of exactly one part is known to be one.

    Raises:
        LengthMismatchError: `source` gave fewer or more bytes than `size_bytes`; more is noticed at once, so
            that no more than the announced size is ever held.
        UploadTooLargeError: more than 10,000 parts came.
    """
    part: Part = []
    room, seen, given = part_size, 0, 0
    async for piece in source:
        seen += len(piece)
        if size_bytes is not None and seen > size_bytes:
            raise LengthMismatchError(f"{size_bytes} bytes were announced and more came")
        rest = memoryview(piece)
        while rest:
            if not room:
                given += 1
                if given == PART_COUNT:
                    raise UploadTooLargeError(f"more than {PART_COUNT} parts of {part_size} bytes came")
                yield part, False
                part, room = [], part_size
            part.append(rest[:room])
            rest = rest[room:]
            room -= len(part[-1])
    if size_bytes is not None and seen != size_bytes:
        raise LengthMismatchError(f"{size_bytes} bytes were announced and {seen} came")
    yield part, True
