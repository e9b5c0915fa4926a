"""A body on its way: its start, pieces of a size that is worth a hop to a thread, and their digests."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from offload.errors import DigestMismatchError

PIECE = 2**20
"""Bytes hashed in one hop to a thread: a hop costs about 50 µs, hashing a piece about 600 µs."""
SMALL = 64 * 2**10
"""Bytes that an upload holds before its window is reserved; a body that ends within has a known length."""


class Hashing:
    """Pieces on their way, hashed: where a digest turns out wrong, the source ends with an error."""

    def __init__(
        self, source: AsyncIterator[bytes], wanted: Mapping[str, bytes], threads: ThreadPoolExecutor
    ) -> None:
        self._source, self._wanted, self._threads = source, wanted, threads
        self._hashes = {
            "sha-256": hashlib.sha256(),
            **({"sha-512": hashlib.sha512()} if "sha-512" in wanted else {}),
        }
        self.size_bytes = 0

    @property
    def sha256(self) -> bytes:
        """Of what has passed so far."""
        return self._hashes["sha-256"].digest()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The source's bytes. Ends with `DigestMismatchError` where they are not the ones that were meant."""
        async for piece in _gathered(self._source, PIECE):
            self.size_bytes += len(piece)
            if len(piece) > SMALL:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._update, piece)
            else:
                self._update(piece)
            yield piece
        for algorithm, digest in self._wanted.items():
            if self._hashes[algorithm].digest() != digest:
                raise DigestMismatchError(
                    f"{algorithm} of the {self.size_bytes} bytes that came is "
                    f"{self._hashes[algorithm].hexdigest()}, not {digest.hex()}"
                )

    def _update(self, piece: bytes) -> None:
        for hash_ in self._hashes.values():
            hash_.update(piece)


async def start_of(source: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes] | None]:
    """The first bytes, and what follows: None where the source ends within `SMALL` bytes."""
    start = bytearray()
    async for chunk in source:
        start += chunk
        if len(start) >= SMALL:
            return bytes(start), source
    return bytes(start), None


async def joined(first: bytes, rest: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    """The source that `start_of` took apart."""
    if first:
        yield first
    if rest is not None:
        async for chunk in rest:
            yield chunk


async def _gathered(source: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in pieces of at least `size`, save the last."""
    chunks: list[bytes] = []
    gathered = 0
    async for chunk in source:
        chunks.append(chunk)
        gathered += len(chunk)
        if gathered >= size:
            yield b"".join(chunks)
            chunks, gathered = [], 0
    if chunks:
        yield b"".join(chunks)
