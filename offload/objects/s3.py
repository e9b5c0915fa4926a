"""Objects in S3: bytes go over `s3_wire`, everything else through boto3."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, Any

import boto3
import structlog

from offload.domain.artifact import Location
from offload.domain.limits import DELETE_BATCH
from offload.errors import ObjectMissingError, StoreRefusedError, StoreUnavailableError
from offload.objects.interface import ObjectInfo, OpenUpload
from offload.objects.parts import PART_DEFAULT, cut, part_size_of, window_of
from offload.objects.s3_client import (
    S3Connection,
    credentials_of,
    make_client,
    owner_arguments,
    owner_headers,
    storing_arguments,
    storing_headers,
)
from offload.objects.s3_errors import code_of, lacks_operation, translated
from offload.objects.s3_upload import S3Upload, version_of
from offload.objects.s3_wire import S3Wire

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

_CONTROL_CONNECTIONS = 8
"""Kept open beside one for each thread of the pool: head, list and delete run in their callers' threads."""

log = structlog.get_logger()


class S3Objects:
    """One bucket to write to, and any that this identity may read (see `interface.Objects`)."""

    def __init__(
        self,
        connection: S3Connection,
        *,
        threads: int = 32,
        part_size: int = PART_DEFAULT,
        parts_in_flight: int = 3,
    ) -> None:
        """`threads` bounds the bodies that are sent at once; `part_size` and `parts_in_flight` the window."""
        self._bucket = connection.bucket
        session = boto3.session.Session()
        credentials = credentials_of(connection, session)  # found once, for all that sign by this session
        self._client = make_client(connection, session, connections=threads + _CONTROL_CONNECTIONS)
        self._signer = (
            make_client(connection, session, connections=1, public=True)
            if connection.public_endpoint_url
            else None
        )
        self._making, self._owner = storing_arguments(connection), owner_arguments(connection)
        self._making_headers, self._owner_headers = storing_headers(connection), owner_headers(connection)
        self._part_size, self._parts_in_flight = part_size, parts_in_flight
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="s3")
        self._wire = S3Wire(connection, self._client, credentials, self._pool, at_once=threads)

    @property
    def bucket(self) -> str:
        return self._bucket

    def window(self, size_bytes: int | None) -> int:
        return window_of(size_bytes, part_size_of(size_bytes, self._part_size), self._parts_in_flight)

    async def put(
        self,
        key: str,
        source: AsyncIterator[bytes],
        *,
        size_bytes: int | None,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> Location:
        told = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
        upload = S3Upload(
            wire=self._wire,
            client=self._client,
            pool=self._pool,
            location=Location(self._bucket, key),
            target={"Bucket": self._bucket, "Key": key, **self._owner},
            metadata=metadata,
            making={"ContentType": content_type, **self._making},
            headers=self._owner_headers,
            making_headers={"Content-Type": content_type, **self._making_headers, **told},
            in_flight=self._parts_in_flight,
        )
        async with aclosing(cut(source, part_size_of(size_bytes, self._part_size), size_bytes)) as parts:
            version_id = await upload.store(parts)
        return Location(self._bucket, key, version_id)

    def get(
        self, location: Location, *, first: int = 0, last: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        whole = first == 0 and last is None  # an empty object has no range to ask for
        part = {} if whole else {"Range": f"bytes={first}-{'' if last is None else last}"}
        return self._wire.get(location, {**self._owner_headers, **part})

    def head(self, location: Location) -> ObjectInfo:
        try:
            with translated("describing an object"):
                found = self._client.head_object(**self._at(location))
        except ObjectMissingError:
            self._check(location.bucket)  # a HEAD's 404 does not say whether the key or the bucket is missing
            raise
        return ObjectInfo(
            location=Location(location.bucket, location.key, version_of(found)),
            size_bytes=found["ContentLength"],
            modified_at=found["LastModified"],
            metadata=found["Metadata"],
        )

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for page in self._pages("list_objects_v2", prefix):
            for found in page.get("Contents", ()):
                location = Location(self._bucket, found["Key"])
                yield ObjectInfo(location, found["Size"], found["LastModified"], {})

    def delete(self, locations: Sequence[Location]) -> Sequence[Location]:
        by_bucket: dict[str, list[Location]] = defaultdict(list)
        for location in locations:
            by_bucket[location.bucket].append(location)
        return [gone for bucket, inside in by_bucket.items() for gone in self._delete_in(bucket, inside)]

    def write(self, key: str, data: bytes) -> None:
        with translated("writing a small object"):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, **self._making, **self._owner)

    def read(self, key: str) -> bytes:
        with translated("reading an object"):
            return self._client.get_object(**self._at(Location(self._bucket, key)))["Body"].read()

    def open_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        for page in self._pages("list_multipart_uploads", prefix):
            for found in page.get("Uploads", ()):
                if found["Key"].startswith(prefix):  # some stores list all
                    yield OpenUpload(found["Key"], found["UploadId"], found["Initiated"])

    def abort_upload(self, upload: OpenUpload) -> None:
        try:
            with translated("aborting a multipart upload"):
                self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id, **self._owner
                )
        except StoreUnavailableError as error:
            if code_of(error.__cause__) != "NoSuchUpload":
                raise

    def presign(
        self, location: Location, *, seconds: int, content_type: str, content_disposition: str
    ) -> str | None:
        if self._signer is None:
            return None
        version: dict[str, Any] = {"VersionId": location.version_id} if location.version_id else {}
        with translated("signing a URL"):
            return self._signer.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": location.bucket,
                    "Key": location.key,
                    "ResponseContentType": content_type,
                    "ResponseContentDisposition": content_disposition,
                    **version,
                },
                ExpiresIn=seconds,
            )

    def check(self) -> None:
        self._check(self._bucket)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)  # a store that hangs is not waited for
        self._client.close()
        if self._signer is not None:
            self._signer.close()

    def _pages(self, operation: Any, prefix: str) -> Iterator[Mapping[str, Any]]:
        pages = iter(
            self._client.get_paginator(operation).paginate(Bucket=self._bucket, Prefix=prefix, **self._owner)
        )
        while True:
            with translated("listing the bucket"):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def _delete_in(self, bucket: str, locations: Sequence[Location]) -> Sequence[Location]:
        try:
            return [
                gone
                for start in range(0, len(locations), DELETE_BATCH)
                for gone in self._delete_batch(bucket, locations[start : start + DELETE_BATCH])
            ]
        except StoreRefusedError as error:
            if bucket == self._bucket:
                raise
            log.warning("store.bucket_refused", bucket=bucket, problem=error.detail)
            return []

    def _delete_batch(self, bucket: str, locations: Sequence[Location]) -> Sequence[Location]:
        try:
            with translated("deleting objects"):
                answer = self._client.delete_objects(
                    Bucket=bucket,
                    Delete={"Objects": [_named(one) for one in locations], "Quiet": True},
                    **self._owner,
                )
        except StoreRefusedError as error:
            if not lacks_operation(error.__cause__):
                raise
            return [one for one in locations if self._delete_one(one)]
        kept = {
            (error.get("Key"), error.get("VersionId") or None)
            for error in answer.get("Errors", ())
            if error.get("Code") not in {"NoSuchKey", "NoSuchVersion"}
        }
        return [one for one in locations if kept.isdisjoint({(one.key, one.version_id), (one.key, None)})]

    def _delete_one(self, location: Location) -> bool:
        try:
            with translated("deleting an object"):
                self._client.delete_object(**self._at(location))
        except ObjectMissingError:
            return True
        except StoreRefusedError:
            return False
        return True

    def _check(self, bucket: str) -> None:
        try:
            with translated("reaching the bucket"):
                self._client.head_bucket(Bucket=bucket, **self._owner)
        except ObjectMissingError as error:
            raise StoreRefusedError(f"there is no bucket {bucket!r}") from error

    def _at(self, location: Location) -> dict[str, Any]:
        version: dict[str, Any] = {"VersionId": location.version_id} if location.version_id else {}
        return {"Bucket": location.bucket, "Key": location.key, **version, **self._owner}


def _named(location: Location) -> "ObjectIdentifierTypeDef":
    if location.version_id is None:
        return {"Key": location.key}
    return {"Key": location.key, "VersionId": location.version_id}
