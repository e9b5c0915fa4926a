"""What the service needs of an object store, and nothing more.

Streams are asynchronous, everything else blocks (callers are threads). Each adapter owns one bounded
thread pool and never uses the event loop's default executor. Errors of the vendor are translated where they
enter: `ObjectMissingError`, `StoreUnavailableError` (worth a retry) or `StoreRefusedError` (not), with the
cause chained.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from offload.domain.artifact import Location


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's description. `metadata` is empty in listings."""

    location: Location
    size_bytes: int
    modified_at: datetime
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A multipart upload that was started and neither completed nor aborted."""

    key: str
    upload_id: str
    started_at: datetime


class Objects(Protocol):
    """One bucket to write to, and any that this identity may read."""

    @property
    def bucket(self) -> str:
        """The bucket that `put` writes to."""
        ...

    def window(self, size_bytes: int | None) -> int:
        """Bytes that a `put` of this size (None: unknown) holds at most, beyond the piece it pulls.

        The caller reserves them from its budget before it calls `put`.
        """
        ...

    async def put(
        self,
        key: str,
        source: AsyncIterator[bytes],
        *,
        size_bytes: int | None,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> Location:
        """Store all that `source` gives under `key`, and answer where once the store has acknowledged it.

        `source` gives pieces of any size; `size_bytes` is what it is expected to give in all, None if
        unknown; more than one part's worth goes up as a multipart upload. When `source` raises, nothing
        stays behind (an open multipart upload is aborted) and the exception is passed on as it is: ending
        the source is how an upload is cancelled. `metadata` keys and values are ASCII, at most 2 KB in all
        (S3 documentation, "User-defined object metadata").

        Raises:
            StoreUnavailableError: the store failed; the upload was aborted if the store could be reached.
            LengthMismatchError: `source` gave fewer or more bytes than `size_bytes`; nothing stays behind.
            UploadTooLargeError: `source` gave more parts than a multipart upload takes; nothing stays behind.
        """
        ...

    def get(
        self, location: Location, *, first: int = 0, last: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the bytes from offset `first` through `last` (inclusive; None: to the end) as a stream.

        Entering raises `ObjectMissingError` where there is no object, before a byte is given; leaving closes
        the connection. `first` must be inside the object; an empty object is read with the defaults. A
        stream that breaks raises `StoreUnavailableError`.
        """
        ...

    def head(self, location: Location) -> ObjectInfo:
        """Describe one object. Raises `ObjectMissingError`."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects of `bucket` whose key starts with `prefix`, in key order, fetched page by page."""
        ...

    def delete(self, locations: Sequence[Location]) -> Sequence[Location]:
        """Delete up to 1,000 objects (those already missing count as deleted); answer those now gone.

        Locations may lie in several buckets, and what another bucket than `bucket` refuses is left: one of
        old may be gone. Falls back to single deletes where the store has no
        DeleteObjects. Where a version id is given, that version is deleted for good.
        """
        ...

    def write(self, key: str, data: bytes) -> None:
        """Store a small object (a marker) in one blocking call."""
        ...

    def read(self, key: str) -> bytes:
        """Read a small object of `bucket` whole. Raises `ObjectMissingError`."""
        ...

    def open_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        """Multipart uploads in progress under `prefix`."""
        ...

    def abort_upload(self, upload: OpenUpload) -> None:
        """Abort a multipart upload; one that is gone already is no error."""
        ...

    def presign(
        self, location: Location, *, seconds: int, content_type: str, content_disposition: str
    ) -> str | None:
        """A URL that serves the object for `seconds`, or None where no public address of the store is known.

        The URL makes the store answer with the given headers.
        """
        ...

    def check(self) -> None:
        """One cheap request that shows that the bucket is reachable. Raises `StoreUnavailableError`."""
        ...

    def close(self) -> None:
        """End the adapter's threads and connections."""
        ...
