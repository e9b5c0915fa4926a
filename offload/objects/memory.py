"""Objects in this process's memory: the same contract without a store, for quick tests."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

from offload.domain.artifact import Location
from offload.errors import ObjectMissingError
from offload.objects.interface import ObjectInfo, OpenUpload
from offload.objects.parts import PART_DEFAULT, cut, part_size_of, window_of

_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class _Stored:
    info: ObjectInfo
    data: bytes


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class MemoryObjects:
    """A store whose objects are gone with it. Its window says what S3 would hold; it holds everything."""

    bucket: str = "memory"
    part_size: int = PART_DEFAULT
    clock: Callable[[], datetime] = _utc_now
    """What objects and uploads are dated by."""
    before: Callable[[str, str], None] = lambda _operation, _key: None
    """Called with each operation's name and key or prefix beforehand; what it raises, the store raises."""
    _objects: dict[tuple[str, str], _Stored] = field(default_factory=dict, init=False)
    _uploads: dict[str, OpenUpload] = field(default_factory=dict, init=False)
    _upload_ids: Iterator[int] = field(default_factory=count, init=False)

    def window(self, size_bytes: int | None) -> int:
        return window_of(size_bytes, part_size_of(size_bytes, self.part_size), 3)

    async def put(
        self,
        key: str,
        source: AsyncIterator[bytes],
        *,
        size_bytes: int | None,
        content_type: str,  # noqa: ARG002 - kept by the index, and asked of the store by nobody
        metadata: Mapping[str, str],
    ) -> Location:
        self.before("put", key)
        data = bytearray()
        upload = OpenUpload(key, str(next(self._upload_ids)), self.clock())
        try:
            async with aclosing(cut(source, part_size_of(size_bytes, self.part_size), size_bytes)) as parts:
                async for part, last in parts:
                    if not last:
                        self._uploads[upload.upload_id] = upload
                    data += b"".join(part)
        finally:
            self._uploads.pop(upload.upload_id, None)
        self._store(key, bytes(data), metadata)
        return Location(self.bucket, key)

    @asynccontextmanager
    async def get(
        self, location: Location, *, first: int = 0, last: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.before("get", location.key)
        data = self._find(location).data[first : None if last is None else last + 1]

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), _PIECE):
                yield data[start : start + _PIECE]

        yield pieces()

    def head(self, location: Location) -> ObjectInfo:
        self.before("head", location.key)
        return self._find(location).info

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.before("list", prefix)
        for bucket, key in sorted(self._objects):
            if bucket == self.bucket and key.startswith(prefix):
                info = self._objects[bucket, key].info
                yield ObjectInfo(info.location, info.size_bytes, info.modified_at, {})

    def delete(self, locations: Sequence[Location]) -> Sequence[Location]:
        for location in locations:
            self.before("delete", location.key)
            self._objects.pop((location.bucket, location.key), None)
        return locations

    def write(self, key: str, data: bytes) -> None:
        self.before("write", key)
        self._store(key, data, {})

    def read(self, key: str) -> bytes:
        self.before("read", key)
        return self._find(Location(self.bucket, key)).data

    def open_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        self.before("open_uploads", prefix)
        yield from [upload for upload in self._uploads.values() if upload.key.startswith(prefix)]

    def abort_upload(self, upload: OpenUpload) -> None:
        self.before("abort_upload", upload.key)
        self._uploads.pop(upload.upload_id, None)

    def presign(
        self,
        location: Location,  # noqa: ARG002 - no URL leads into this process's memory
        *,
        seconds: int,  # noqa: ARG002 - same
        content_type: str,  # noqa: ARG002 - same
        content_disposition: str,  # noqa: ARG002 - same
    ) -> str | None:
        return None

    def check(self) -> None:
        self.before("check", "")

    def close(self) -> None:
        """Nothing is open."""

    def _store(self, key: str, data: bytes, metadata: Mapping[str, str]) -> None:
        info = ObjectInfo(Location(self.bucket, key), len(data), self.clock(), dict(metadata))
        self._objects[self.bucket, key] = _Stored(info, data)

    def _find(self, location: Location) -> _Stored:
        stored = self._objects.get((location.bucket, location.key))
        if stored is None:
            raise ObjectMissingError(f"there is no object {location.uri}")
        return stored
