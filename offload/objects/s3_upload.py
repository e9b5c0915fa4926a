"""One object on its way to S3: whole where it fits one part, as a multipart upload where it does not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from offload.domain.artifact import Location
from offload.errors import ObjectMissingError, OffloadError, StoreUnavailableError
from offload.objects.parts import Part
from offload.objects.s3_errors import translated
from offload.objects.s3_wire import S3Wire

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(slots=True)
class S3Upload:
    """Stores parts as one object, or leaves nothing. Used once; owns the abort of what it opens."""

    wire: S3Wire
    """Sends the bytes."""
    client: "S3Client"
    pool: ThreadPoolExecutor
    """Where the client, which has control of the multipart upload, blocks."""
    location: Location
    target: Mapping[str, Any]
    """Arguments of the client's every request: the bucket, the key, the expected owner."""
    metadata: Mapping[str, str]
    making: Mapping[str, Any]
    """Further arguments of the request that makes the object."""
    headers: Mapping[str, str]
    """Headers of every request."""
    making_headers: Mapping[str, str]
    """`making` and `metadata` as headers."""
    in_flight: int
    """Most parts sent at once."""
    _given_up: bool = field(default=False, init=False)
    _sent_bytes: int = field(default=0, init=False)

    async def store(self, parts: AsyncIterator[tuple[Part, bool]]) -> str | None:
        """Send `parts`, each with whether it is the last; answer the version id where there is one.

        Whatever ends this early (the source, the store, a cancelled task) is passed on unchanged once the
        parts in flight have ended and the multipart upload is aborted.
        """
        part, last = await anext(parts)
        return await (self._store_whole(part) if last else self._store_parts(part, parts))

    async def _store_whole(self, body: Part) -> str | None:
        storing = asyncio.ensure_future(self._put(body))
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            await _to_the_end(self._take_back(storing))
            raise

    async def _store_parts(self, part: Part, parts: AsyncIterator[tuple[Part, bool]]) -> str | None:
        creating = self._start(self._create)
        sending: set[asyncio.Future[CompletedPartTypeDef]] = set()
        sent: list[CompletedPartTypeDef] = []
        completing: asyncio.Future[str | None] | None = None
        try:
            upload_id = await asyncio.shield(creating)
            last = False
            while True:
                await _settle(sending, sent, leave=self.in_flight - 1)
                self._sent_bytes += sum(map(len, part))
                number = len(sending) + len(sent) + 1
                sending.add(asyncio.ensure_future(self._send(upload_id, number, part)))
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

    async def _put(self, body: Part) -> str | None:
        try:
            headers = {**self.headers, **self.making_headers}
            answer = await self.wire.put("storing an object", self.location, body, headers=headers)
        finally:
            body.clear()  # at once, whoever still refers to it
        return version_in(answer)

    async def _send(self, upload_id: str, number: int, body: Part) -> "CompletedPartTypeDef":
        try:
            answer = await self.wire.put(
                "storing a part",
                self.location,
                body,
                query=f"partNumber={number}&uploadId={quote(upload_id, safe='')}",
                headers=self.headers,
                given_up=lambda: self._given_up,
            )
        finally:
            body.clear()
        return {"PartNumber": number, "ETag": answer.get("ETag", "")}

    # Below: blocking, in the pool's threads.

    def _create(self) -> str:
        doing = "opening a multipart upload"
        with translated(doing):
            answer = self.client.create_multipart_upload(
                **self.target, **self.making, Metadata=dict(self.metadata)
            )
        if not answer.get("UploadId"):
            raise StoreUnavailableError(f"{doing}: the answer names no upload")
        return answer["UploadId"]

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


def version_in(headers: Mapping[str, str]) -> str | None:
    """The same of an answer's headers."""
    return version_of({"VersionId": headers.get("x-amz-version-id")})


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
