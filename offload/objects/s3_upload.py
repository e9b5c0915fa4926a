"""One object on its way to S3: whole where it fits one part, as a multipart upload where it does not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from offload.errors import ObjectMissingError, OffloadError, StoreUnavailableError
from offload.objects.s3_errors import translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(slots=True)
class S3Upload:
    """Stores parts as one object, or leaves nothing. Used once; owns the abort of what it opens."""

    client: "S3Client"
    pool: ThreadPoolExecutor
    target: Mapping[str, Any]
    """Arguments of every request: the bucket, the key, the expected owner."""
    metadata: Mapping[str, str]
    making: Mapping[str, Any]
    """Further arguments of the request that makes the object."""
    in_flight: int
    """Most parts sent at once."""
    _given_up: bool = field(default=False, init=False)
    _sent_bytes: int = field(default=0, init=False)

    async def store(self, parts: AsyncIterator[tuple[bytearray, bool]]) -> str | None:
        """Send `parts`, each with whether it is the last; answer the version id where there is one.

        Whatever ends this early (the source, the store, a cancelled task) is passed on unchanged once the
        parts in flight have ended and the multipart upload is aborted.
        """
        part, last = await anext(parts)
        return await (self._store_whole(part) if last else self._store_parts(part, parts))

    async def _store_whole(self, body: bytearray) -> str | None:
        storing = self._start(self._put, body)
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            await _to_the_end(self._take_back(storing))
            raise

    async def _store_parts(self, part: bytearray, parts: AsyncIterator[tuple[bytearray, bool]]) -> str | None:
        creating = self._start(self._create)
        sending: set[asyncio.Future[CompletedPartTypeDef]] = set()
        sent: list[CompletedPartTypeDef] = []
        completing: asyncio.Future[str | None] | None = None
        try:
            upload_id = await asyncio.shield(creating)
            last = False
            while True:
                await _settle(sending, sent, leave=self.in_flight - 1)
                self._sent_bytes += len(part)
                sending.add(self._start(self._send, upload_id, len(sending) + len(sent) + 1, part))
                if last:
                    break
                part, last = await anext(parts)
            await _settle(sending, sent, leave=0)
            sent.sort(key=lambda one: one["PartNumber"])
            completing = self._start(self._complete, upload_id, sent)
            return await asyncio.shield(completing)
        except BaseException:
            self._given_up = True
            await _to_the_end(self._abandon(creating, sending, completing))
            raise

    async def _abandon(
        self,
        creating: "asyncio.Future[str]",
        sending: "set[asyncio.Future[CompletedPartTypeDef]]",
        completing: "asyncio.Future[str | None] | None",
    ) -> None:
        """Wait for every request in flight, then abort, or delete where the store had completed already."""
        await asyncio.gather(*sending, return_exceptions=True)
        if completing is not None and await self._take_back(completing):
            return
        (upload_id,) = await asyncio.gather(creating, return_exceptions=True)
        if isinstance(upload_id, str):
            await self._try(self._abort, upload_id)

    async def _take_back(self, making: "asyncio.Future[str | None]") -> bool:
        """Delete the object that `making` made, if it did; answer whether it did."""
        (version_id,) = await asyncio.gather(making, return_exceptions=True)
        if isinstance(version_id, BaseException):
            return False
        await self._try(self._delete, version_id)
        return True

    async def _try(self, call: Callable[[str], None] | Callable[[str | None], None], argument: Any) -> None:
        try:
            await self._start(call, argument)
        except OffloadError as error:
            _log.warning("left to the orphan cleaner: %s", error)

    def _start(self, call: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self.pool, call, *arguments)

    # Below: blocking, in the pool's threads.

    def _put(self, body: bytearray) -> str | None:
        with translated("storing an object"), _freeing(body) as data:
            answer = self.client.put_object(
                **self.target, **self.making, Metadata=dict(self.metadata), Body=data
            )
        return version_of(answer)

    def _create(self) -> str:
        with translated("opening a multipart upload"):
            answer = self.client.create_multipart_upload(
                **self.target, **self.making, Metadata=dict(self.metadata)
            )
        return answer["UploadId"]

    def _send(self, upload_id: str, number: int, body: bytearray) -> "CompletedPartTypeDef":
        with translated("storing a part"), _freeing(body) as data:
            if self._given_up:
                raise StoreUnavailableError("the upload was given up")
            answer = self.client.upload_part(**self.target, UploadId=upload_id, PartNumber=number, Body=data)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _complete(self, upload_id: str, sent: "list[CompletedPartTypeDef]") -> str | None:
        try:
            return self._ask_to_complete(upload_id, sent)
        except StoreUnavailableError as failure:
            # The reply may be lost, and a repeated request then finds no upload: the object itself decides.
            return self._completed_after_all(failure)

    def _ask_to_complete(self, upload_id: str, sent: "list[CompletedPartTypeDef]") -> str | None:
        doing = "completing a multipart upload"
        with translated(doing):
            answer = self.client.complete_multipart_upload(
                **self.target, UploadId=upload_id, MultipartUpload={"Parts": sent}
            )
        if not answer.get("ETag"):
            raise StoreUnavailableError(f"{doing}: the answer names no object")
        return version_of(answer)

    def _completed_after_all(self, failure: StoreUnavailableError) -> str | None:
        try:
            with translated("looking for a completed object"):
                found = self.client.head_object(**self.target)
        except (StoreUnavailableError, ObjectMissingError):
            raise failure from failure.__cause__
        if found["ContentLength"] != self._sent_bytes or not _same(found["Metadata"], self.metadata):
            raise failure
        return version_of(found)

    def _abort(self, upload_id: str) -> None:
        with translated("aborting a multipart upload"):
            self.client.abort_multipart_upload(**self.target, UploadId=upload_id)

    def _delete(self, version_id: str | None) -> None:
        version: dict[str, Any] = {"VersionId": version_id} if version_id else {}
        with translated("deleting a cancelled object"):
            self.client.delete_object(**self.target, **version)


def version_of(answer: Mapping[str, Any]) -> str | None:
    """The version id that an answer names; None where the bucket is not versioned ("null" is S3's word)."""
    version_id = answer.get("VersionId")
    return None if version_id in {None, "", "null"} else str(version_id)


@contextmanager
def _freeing(part: bytearray) -> Iterator[bytes]:
    """Empty a part once it is sent, whoever still refers to it: requests live on until the collector runs."""
    try:
        yield cast(
            "bytes", part
        )  # botocore takes a bytearray and does not copy it, which its types do not say
    finally:
        part.clear()


async def _settle(
    sending: "set[asyncio.Future[CompletedPartTypeDef]]", sent: "list[CompletedPartTypeDef]", *, leave: int
) -> None:
    """Wait until at most `leave` parts are in flight; raises what a part raised, which stays in `sending`."""
    while len(sending) > leave:
        done, _ = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        results = [one.result() for one in done]
        sent.extend(results)
        sending -= done


async def _to_the_end(work: Coroutine[Any, Any, Any]) -> None:
    """Await `work` even where this task is cancelled meanwhile; then the cancellation goes on."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


def _same(found: Mapping[str, str], metadata: Mapping[str, str]) -> bool:
    lowered = {name.lower(): value for name, value in metadata.items()}
    return {name.lower(): value for name, value in found.items()} == lowered
