"""What is sent: bytes, a file, or a stream that can be read once.

A source is opened once and may be sent several times. `pieces()` gives the body from its start, and asks
before each piece whether the server has answered.
"""

import hashlib
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Protocol

from offload.client.errors import SourceChangedError
from offload.client.transport import AnsweredEarly, answered
from offload.errors import InvalidInputError

PIECE = 256 * 1024
"""Bytes of one write: large enough for the loop not to show, small enough for smooth progress."""

EXPECT_ABOVE = 1024 * 1024
"""A body longer than this asks first (`Expect: 100-continue`); below, asking costs more than sending."""

REPLAY_BYTES = 8 * 1024 * 1024
"""How much of a stream is kept, so that it can be sent again."""

_CONTINUE_WAIT = 1.0
"""Seconds to wait for `100 Continue`: some proxies swallow it (RFC 9110, section 10.1.1)."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes sent in this attempt, and the total where it is known. Runs on the sending thread."""

Readable = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes themselves, or an open binary stream that is read to its end."""


class Source(Protocol):
    """A body, its length and digest where they are known before it is sent."""

    size: int | None
    sha256: bytes | None
    spent: bool
    """It can't be read from its start again."""

    def pieces(self) -> Iterator[bytes]:
        """The body from its start.

        Raises:
            SourceChangedError: it is shorter than it was when it was opened.
        """


@contextmanager
def opened(source: Readable) -> Iterator[Source]:
    """Open `source`. A stream's first 8 MiB are read now; one that ends within them is sent as bytes."""
    if isinstance(source, bytes):
        yield BytesSource(source)
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield FileSource(file, Path(source)) if _has_length(file) else _of_stream(file)
    elif hasattr(source, "read"):
        yield _of_stream(source)
    else:
        raise InvalidInputError("source", "must be a path, bytes or an open binary stream", source)


class BytesSource:
    """Bytes in memory."""

    spent = False

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size: int | None = len(content)
        self.sha256: bytes | None = hashlib.sha256(content).digest()

    def pieces(self) -> Iterator[bytes]:
        view = memoryview(self._content)
        for start in range(0, len(view), PIECE):
            yield bytes(view[start : start + PIECE])


class FileSource:
    """A regular file: as many bytes as it had when it was opened, so that a growing log can be sent."""

    spent = False

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self.path = file, path
        digest = hashlib.sha256()
        announced = left = os.fstat(file.fileno()).st_size
        while left and (piece := file.read(min(PIECE, left))):
            digest.update(piece)
            left -= len(piece)
        self._length = announced - left  # a file of /sys announces a page, and ends before
        self.size: int | None = self._length
        self.sha256: bytes | None = digest.digest()

    def pieces(self) -> Iterator[bytes]:
        self._file.seek(0)
        left = self._length
        while left:
            piece = self._file.read(min(PIECE, left))
            if not piece:
                raise SourceChangedError(
                    f"{self.path} shrank from {self._length} bytes to {self._length - left} while it was sent"
                )
            left -= len(piece)
            yield piece


class StreamSource:
    """A stream longer than what is kept of it. Can be sent again only while no more than that was sent."""

    size: int | None = None
    sha256: bytes | None = None

    def __init__(self, kept: bytes, rest: BinaryIO) -> None:
        self._kept, self._rest = kept, rest
        self.spent = False

    def pieces(self) -> Iterator[bytes]:
        yield from BytesSource(self._kept).pieces()
        self.spent = True
        while piece := _read(self._rest, PIECE):
            yield piece


def body(source: Source, *, waits: bool, progress: Progress | None) -> Iterator[bytes]:
    """The pieces of `source`, until the server answers. `waits`: the request asked for `100 Continue`."""
    sent = 0
    if progress:
        progress(sent, source.size)
    for piece in source.pieces():
        if answered(_CONTINUE_WAIT if waits and not sent else 0):
            raise AnsweredEarly("the server answered before the body was sent")
        yield piece
        sent += len(piece)
        if progress:
            progress(sent, source.size)


def _of_stream(stream: BinaryIO) -> Source:
    start = bytearray()
    while len(start) < REPLAY_BYTES:
        piece = _read(stream, min(PIECE, REPLAY_BYTES - len(start)))
        if not piece:
            return BytesSource(bytes(start))
        start += piece
    return StreamSource(bytes(start), stream)


def _read(stream: BinaryIO, most: int) -> bytes:
    """Up to `most` bytes, none at the end only: a stream that does not block is waited for."""
    while (piece := stream.read(most)) is None:
        ready = select.poll()
        ready.register(stream, select.POLLIN)
        ready.poll()
    if isinstance(piece, str):
        raise InvalidInputError("source", "must be a path, bytes or an open binary stream", stream)
    return piece


def _has_length(file: BinaryIO) -> bool:
    """Whether its length can be known before it is read: files of /proc announce 0."""
    status = os.fstat(file.fileno())
    return S_ISREG(status.st_mode) and status.st_size > 0
