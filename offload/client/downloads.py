"""Fetching bytes: resumed where they were cut, verified, and in place only when they are whole."""

import base64
import errno
import fcntl
import hashlib
import io
import os
import re
import select
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import httpx

from offload.client.errors import (
    AnswerError,
    BusyError,
    ClientError,
    DamagedDownloadError,
    StrangeAnswerError,
)
from offload.client.exchange import Exchange
from offload.client.sources import PIECE, Progress

_SHA256 = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_PART_NAME_BYTES = 200  # with the digest and the dots below the 255 that file systems take
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})  # some network file systems have none
_RANGE_START = re.compile(r"bytes (\d+)-")


@dataclass(frozen=True, slots=True)
class Content:
    """What the server announced of an artifact's bytes."""

    size_bytes: int
    sha256: bytes
    content_type: str


def fetch(
    exchange: Exchange,
    path: str,
    params: Mapping[str, Any],
    target: Path | BinaryIO,
    progress: Progress | None,
) -> Content:
    """Write the bytes at `path` to `target`; the contract is `Client.download`'s."""
    patience = exchange.patience()
    content, redirected = None, False
    with closing(_sink(target)) as sink:
        while content is None or sink.taken < content.size_bytes:
            before = sink.taken
            try:
                wanted = _rest_of(content, sink.taken, redirected=redirected)
                with exchange.stream(path, params, wanted) as response:
                    redirected = bool(response.history)
                    if content is None:
                        content = _announced(response)
                        sink.begin(content)
                        if sink.taken:
                            continue  # an earlier call left a part: ask for the rest only
                    else:
                        _check_place(response, content, sink)
                    _take_rest(response, content, sink, progress)
            except httpx.TransportError as error:
                if sink.taken > before:
                    patience = exchange.patience()
                exchange.wait(patience, exchange.failure_of(error), asked=None)
            except BusyError as error:
                exchange.wait(patience, error, asked=error.problem.retry_after)
            except AnswerError as error:
                if not sink.taken or error.problem.status != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise
                sink.restart()  # a newer version is shorter; the whole says so
        sink.finish(content)
        return content


class _Sink(Protocol):
    """Where bytes go, in order."""

    taken: int
    """Bytes that are there."""

    def begin(self, content: Content) -> None:
        """Learn what is coming; may find a part of it there already."""

    def take(self, piece: bytes) -> None: ...

    def restart(self) -> None:
        """Forget what was taken."""

    def finish(self, content: Content) -> None:
        """Verify the whole and put it in place."""

    def close(self) -> None: ...


def _sink(target: Path | BinaryIO) -> _Sink:
    if not isinstance(target, Path):
        return _StreamSink(target)
    # A link stays. One of /proc, such as /dev/stdout, may lead to what has no path: only it opens that.
    file = Path(os.path.realpath(target))
    if target.exists() and not file.is_file():
        return _StreamSink(target)
    return _FileSink(file)


class _StreamSink:
    """Passes bytes on at once; a wrong checksum is known only at the end.

    A path is one of a fifo, a device or the like: it is written into, for it is not ours to replace.
    """

    def __init__(self, target: Path | BinaryIO) -> None:
        self._target = target
        self._stream: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self.taken = 0

    def begin(self, content: Content) -> None:  # noqa: ARG002 - what comes is all new
        self._stream = self._target.open("wb") if isinstance(self._target, Path) else self._target

    def take(self, piece: bytes) -> None:
        assert self._stream is not None  # noqa: S101 - begin comes first
        _write(self._stream, piece)
        self._digest.update(piece)
        self.taken += len(piece)

    def restart(self) -> None:
        raise DamagedDownloadError(
            "the artifact changed while it was fetched, and a part was passed on already"
        )

    def finish(self, content: Content) -> None:
        assert self._stream is not None  # noqa: S101 - begin comes first
        self._stream.flush()
        if self._digest.digest() != content.sha256 or self.taken != content.size_bytes:
            raise DamagedDownloadError(
                "the bytes that were passed on do not have the SHA-256 of the artifact"
            )

    def close(self) -> None:
        if self._stream is not None and self._stream is not self._target:
            self._stream.close()


class _FileSink:
    """Collects bytes beside the target, in a file named after their digest, and renames it when whole.

    A part that is left by a cut connection or a kill is taken up by the next download of the same bytes.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part: Path | None = None
        self._file: BinaryIO | None = None
        self._mode: int | None = None
        self._digest = hashlib.sha256()
        self.taken = 0

    def begin(self, content: Content) -> None:
        name = os.fsencode(self._target.name)[:_PART_NAME_BYTES].decode(errors="ignore")
        part = self._target.with_name(f".{name}.{content.sha256.hex()[:16]}.part")
        self._file = part.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ClientError(f"another download is writing {self._target} already") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        self._part = part
        if self._target.exists():
            self._mode = self._target.stat().st_mode & 0o777
            os.fchmod(self._file.fileno(), 0o600)  # the old file may be nobody else's to read
        self._file.seek(0)
        while piece := self._file.read(PIECE):
            self._digest.update(piece)
            self.taken += len(piece)
        if self.taken > content.size_bytes:
            self.restart()

    def take(self, piece: bytes) -> None:
        assert self._file is not None  # noqa: S101 - begin comes first
        self._file.write(piece)
        self._digest.update(piece)
        self.taken += len(piece)

    def restart(self) -> None:
        assert self._file is not None  # noqa: S101 - begin comes first
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.taken = 0

    def finish(self, content: Content) -> None:
        assert self._file is not None  # noqa: S101 - begin comes first
        assert self._part is not None  # noqa: S101 - same
        if self._digest.digest() != content.sha256 or self.taken != content.size_bytes:
            self._part.unlink()
            raise DamagedDownloadError
        self._file.flush()
        if self._mode is not None:
            os.fchmod(self._file.fileno(), self._mode)
        os.fsync(self._file.fileno())
        self._part.replace(self._target)

    def close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        if self._part and not self.taken:
            self._part.unlink(missing_ok=True)


def _write(stream: BinaryIO | io.RawIOBase, piece: bytes) -> None:
    """Write all of `piece`: a raw stream may take a part of it, and one that does not block nothing."""
    if not isinstance(stream, io.RawIOBase):
        stream.write(piece)
        return
    left = memoryview(piece)
    while left:
        taken = stream.write(left)
        if taken is None:
            ready = select.poll()
            ready.register(stream, select.POLLOUT)
            ready.poll()
        else:
            left = left[taken:]


def _rest_of(content: Content | None, taken: int, *, redirected: bool) -> dict[str, str]:
    # Ranges are of the bytes as stored; a compressed transfer would have others.
    headers = {"Accept-Encoding": "identity"}
    if content and taken:
        headers["Range"] = f"bytes={taken}-"
        if not redirected:  # to the store, whose tag is another: it would give the whole
            headers["If-Range"] = f'"{content.sha256.hex()}"'
    return headers


def _take_rest(response: httpx.Response, content: Content, sink: _Sink, progress: Progress | None) -> None:
    for piece in response.iter_raw():
        sink.take(piece)
        if progress:
            progress(sink.taken, content.size_bytes)
    if sink.taken < content.size_bytes:
        raise httpx.ReadError("the connection ended early", request=response.request)


def _announced(response: httpx.Response) -> Content:
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise StrangeAnswerError(f"{response.request.url} announces no length")
    return Content(
        size_bytes=int(length),
        sha256=_announced_sha256(response),
        content_type=response.headers.get("Content-Type", "application/octet-stream"),
    )


def _announced_sha256(response: httpx.Response) -> bytes:
    # After a redirect to the store, the digest is in the server's own answer.
    for answer in (response, *response.history):
        match = _SHA256.search(answer.headers.get("Repr-Digest", ""))
        if match:
            return base64.b64decode(match[1])
    raise StrangeAnswerError(f"{response.request.url} announces no SHA-256")


def _check_place(response: httpx.Response, content: Content, sink: _Sink) -> None:
    """See that what comes continues what is there; the whole comes again where the server gives no ranges."""
    if response.status_code == httpx.codes.PARTIAL_CONTENT and _announced_sha256(response) == content.sha256:
        match = _RANGE_START.match(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != sink.taken:
            raise StrangeAnswerError(f"{response.request.url} answers another range than was asked for")
        return
    if sink.taken:
        sink.restart()
    if _announced(response) != content:
        raise DamagedDownloadError("a newer version was stored while this one was fetched; try again")
