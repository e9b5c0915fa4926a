"""A body on its way: its start, batches that are worth a hop to a thread, and their digests."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from offload.errors import DigestMismatchError

PIECE = 2**20
"""Bytes hashed in one hop to a thread: a hop costs about 50 µs, hashing these about 600 µs."""
SMALL = 64 * 2**10
"""Bytes that an upload holds before its window is reserved; a body that ends within has a known length."""
_LOOSE = 16 * 2**10
"""Chunks below are joined, so that a sender of single bytes costs no more memory than it sends."""


class Hashing:
    """Chunks on their way, hashed: where a digest turns out wrong, the source ends with an error."""

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
        """Of all, once the source has ended."""
        return self._hashes["sha-256"].digest()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The source's bytes. Ends with `DigestMismatchError` where they are not the ones that were meant."""
        hashing: asyncio.Future[None] | None = None
        async for batch in _batches(self._source, PIECE):
            if hashing:
                await hashing
            size = sum(map(len, batch))
            self.size_bytes += size
            if size > SMALL:  # while the batch travels on, and the next one comes
                hashing = asyncio.get_running_loop().run_in_executor(self._threads, self._update, batch)
            else:
                self._update(batch)
            for chunk in batch:
                yield chunk
        if hashing:
            await hashing
        for algorithm, digest in self._wanted.items():
            if self._hashes[algorithm].digest() != digest:
                raise DigestMismatchError(
                    f"{algorithm} of the {self.size_bytes} bytes that came is "
                    f"{self._hashes[algorithm].hexdigest()}, not {digest.hex()}"
                )

    def _update(self, batch: Sequence[bytes]) -> None:
        for chunk in batch:
            for hash_ in self._hashes.values():
                hash_.update(chunk)


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


async def _batches(source: AsyncIterator[bytes], size: int) -> AsyncIterator[Sequence[bytes]]:
    """The same bytes in batches of at least `size`, save the last."""
    batch: list[bytes] = []
    loose = bytearray()
    held = 0
    async for chunk in source:
        held += len(chunk)
        if len(chunk) < _LOOSE:
            loose += chunk
        else:
            if loose:
                batch.append(bytes(loose))
                loose.clear()
            batch.append(chunk)
        if held >= size:
            yield [*batch, bytes(loose)] if loose else batch
            batch, loose, held = [], bytearray(), 0
    if held:
        yield [*batch, bytes(loose)] if loose else batch
