"""What only S3 has: the requests that are sent, memory, versions, presigned URLs.

- bodies are signed and never chunked; DeleteObjects carries Content-MD5
- encryption, storage class and expected owner are asked for
- no more than the window is held, however large the upload and slow the store
- version ids are recorded where the bucket is versioned
- a presigned URL serves the object with the headers asked for, and there is none without a public address
- settings that cannot work are a ConfigError
"""

import asyncio
import base64
import hashlib
import time
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from offload.dev.stores import StoreAddress
from offload.domain.artifact import Location
from offload.domain.limits import PART_LEAST
from offload.errors import ConfigError
from offload.objects.s3 import S3Objects
from offload.objects.s3_client import S3Connection

PART = PART_LEAST
NOWHERE = S3Connection("bucket", region="us-east-1", access_key="key", secret_key="secret")
SENT_DIRECTLY = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
COMPLETED = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"


def test_bodies_are_signed_and_never_chunked(
    address: StoreAddress, proxy: Any, shelf_of: Callable[..., Any]
) -> None:
    adapter = S3Objects(replace(address.connection(), endpoint_url=proxy.url), part_size=PART)
    shelf = shelf_of(adapter)
    shelf.put("small", b"small")
    shelf.put("large", b"x" * (PART + 1))
    adapter.close()

    for seen in proxy.seen:
        assert not [
            name for name in seen.headers if name.lower().startswith(("x-amz-checksum", "x-amz-trailer"))
        ]
        assert "Transfer-Encoding" not in seen.headers
    assert hashlib.sha256(b"small").hexdigest() in [
        seen.headers.get("X-Amz-Content-SHA256") for seen in proxy.seen
    ]


def test_delete_objects_carries_content_md5(
    address: StoreAddress, proxy: Any, shelf_of: Callable[..., Any]
) -> None:
    adapter = S3Objects(replace(address.connection(), endpoint_url=proxy.url))
    shelf = shelf_of(adapter)
    adapter.delete([shelf.put("log", b"x")])
    adapter.close()

    (delete,) = [seen for seen in proxy.seen if seen.method == "POST"]
    assert len(base64.b64decode(delete.headers["Content-MD5"])) == hashlib.md5(b"").digest_size
    assert not [name for name in delete.headers if name.lower().startswith("x-amz-checksum")]
    assert shelf.is_bare()


def test_encryption_class_and_owner_are_asked_for(
    moto: StoreAddress, verdicts: Any, make_proxy: Callable[[str], Any], shelf_of: Callable[..., Any]
) -> None:
    proxy = make_proxy(moto.endpoint_url)
    proxy.rule = lambda seen: stored_nowhere(seen, verdicts)
    connection = replace(
        moto.connection(),
        endpoint_url=proxy.url,
        kms_key_id="key-1",
        storage_class="STANDARD_IA",
        expected_owner="123456789012",
    )
    adapter = S3Objects(connection, part_size=PART)
    shelf = shelf_of(adapter)
    shelf.put("small", b"x")
    shelf.put("large", b"x" * (PART + 1))
    adapter.close()

    for seen in proxy.seen:
        headers = {name.lower(): value for name, value in seen.headers.items()}
        assert headers["x-amz-expected-bucket-owner"] == "123456789012"
        if "uploadId" not in seen.path:
            assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
            assert headers["x-amz-storage-class"] == "STANDARD_IA"


@pytest.mark.parametrize("announced", [True, False])
def test_no_more_than_the_window_is_held(
    moto: StoreAddress,
    verdicts: Any,
    make_proxy: Callable[[str], Any],
    shelf_of: Callable[..., Any],
    announced: bool,
) -> None:
    """Twelve parts from a source that is faster than the store; what is held is counted two ways."""
    piece = bytes(2**18)
    total = 12 * PART
    given = stored = most_held = 0

    def slowly(seen: Any) -> Any:
        nonlocal stored
        if "partNumber" in seen.path:
            time.sleep(0.03)
            stored += seen.length
        return stored_nowhere(seen, verdicts)

    async def fast() -> AsyncIterator[bytes]:
        nonlocal given, most_held
        while given < total:
            most_held = max(most_held, given - stored)
            given += len(piece)
            yield piece

    proxy = make_proxy(moto.endpoint_url)
    proxy.rule = slowly
    adapter = S3Objects(replace(moto.connection(), endpoint_url=proxy.url), part_size=PART)
    window = adapter.window(total if announced else None)
    shelf = shelf_of(adapter)
    shelf.put("warm", b"x")
    tracemalloc.start()
    try:
        asyncio.run(shelf.putting("log", fast(), total if announced else None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    adapter.close()

    assert stored == total
    assert most_held <= window == 4 * PART
    assert most_held > 2 * PART, "the source was not faster than the store"
    assert peak < window * 1.2


def test_the_window_of_a_small_object_is_its_size() -> None:
    adapter = S3Objects(NOWHERE)

    assert [adapter.window(size) for size in (0, 10, 8 * 2**20)] == [0, 10, 8 * 2**20]
    assert adapter.window(None) == adapter.window(2**30) == 4 * 8 * 2**20
    adapter.close()


def test_versions_are_recorded_read_and_deleted(
    address: StoreAddress, client: Any, shelf_of: Callable[..., Any]
) -> None:
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    adapter = S3Objects(replace(address.connection(), bucket="versioned"), part_size=PART)
    shelf = shelf_of(adapter)

    first, second = shelf.put("log", b"first"), shelf.put("log", b"s" * (PART + 1))

    assert first.version_id
    assert second.version_id not in {None, first.version_id}
    assert shelf.get(first) == b"first"
    assert adapter.head(second).location == second
    assert list(adapter.delete([second])) == [second]
    assert adapter.head(Location("versioned", first.key)).location == first
    adapter.close()


def test_several_buckets_are_deleted_from_at_once(
    address: StoreAddress, client: Any, shelf_of: Callable[..., Any]
) -> None:
    client.create_bucket(Bucket="earlier")
    older = S3Objects(replace(address.connection(), bucket="earlier"))
    newer = S3Objects(address.connection())
    locations = [shelf_of(adapter).put("log", b"x") for adapter in (older, newer)]

    assert [newer.head(one).size_bytes for one in locations] == [1, 1]
    assert set(newer.delete(locations)) == set(locations)
    assert not list(older.list(""))
    older.close()
    newer.close()


def test_a_presigned_url_serves_with_the_headers_asked_for(
    address: StoreAddress, shelf_of: Callable[..., Any]
) -> None:
    adapter = S3Objects(replace(address.connection(), public_endpoint_url=address.endpoint_url))
    location = shelf_of(adapter).put("log", b"bytes")
    disposition = "attachment; filename*=UTF-8''%E2%82%AC.log"
    asked = {"seconds": 60, "content_type": "application/octet-stream", "content_disposition": disposition}

    url = adapter.presign(location, **asked)

    assert url is not None
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"bytes"
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == disposition
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    adapter.close()


def test_a_presigned_url_ends(seaweedfs: StoreAddress, shelf_of: Callable[..., Any]) -> None:
    adapter = S3Objects(replace(seaweedfs.connection(), public_endpoint_url=seaweedfs.endpoint_url))
    location = shelf_of(adapter).put("log", b"bytes")
    url = adapter.presign(location, seconds=1, content_type="text/plain", content_disposition="inline")
    adapter.close()

    assert url is not None
    deadline = time.monotonic() + 5
    while answer_to(url) == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert answer_to(url) in {400, 403}


def test_the_public_address_is_the_signed_one() -> None:
    connection = S3Connection(
        "bucket",
        "http://127.0.0.1:1",
        "https://s3.example.org",
        "us-east-1",
        "key",
        "secret",
        addressing="path",
    )
    adapter = S3Objects(connection)
    location = Location("bucket", "a/b", version_id="v1")

    url = adapter.presign(location, seconds=60, content_type="text/plain", content_disposition="inline")

    assert url is not None
    assert url.startswith("https://s3.example.org/bucket/a/b?")
    assert "versionId=v1" in url
    adapter.close()


def test_no_public_address_no_url() -> None:
    adapter = S3Objects(NOWHERE)

    assert (
        adapter.presign(Location("bucket", "k"), seconds=1, content_type="", content_disposition="") is None
    )
    adapter.close()


@pytest.mark.parametrize(
    ("setting", "value"), [("endpoint_url", "not a url"), ("ca_bundle", "/no/such/file")]
)
def test_settings_that_cannot_work_are_named(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=value):
        S3Objects(replace(NOWHERE, **{setting: value}))


def answer_to(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def stored_nowhere(seen: Any, verdicts: Any) -> Any:
    """The answers of a store that takes everything and keeps nothing."""
    if seen.method == "POST":
        return verdicts.answer(200, COMPLETED if "uploadId=" in seen.path else SENT_DIRECTLY)
    return verdicts.answer(200, b"", {"ETag": '"e"'})
