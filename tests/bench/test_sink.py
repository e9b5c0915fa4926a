"""The sink: an S3 server of the benchmark that discards what it is sent.

- the service's adapter puts objects of every size into it, and they are listed, described and deleted
- ranges have their length; small objects come back as they were
- a multipart upload is open until it is completed or aborted, and wrong parts are refused
- listings go over pages and fold by a delimiter
- what is missing is missing; a body without a length is refused
- a client that is slow, one that leaves, and one that asks before it sends
"""

import asyncio
import http.client
import select
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

from bench.sink import serve
from bench.sink_store import Store
from offload.domain.artifact import Location
from offload.domain.limits import PART_LEAST
from offload.errors import ObjectMissingError
from offload.objects.s3 import S3Objects
from offload.objects.s3_client import S3Connection
from tests.programs import ROOT

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the sink is for Linux")

PIECE = 256 * 1024


@pytest.fixture(scope="module")
def url() -> str:
    """A sink in a thread; it ends with the process."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener, Store("offload")), daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def objects(url: str) -> Iterator[S3Objects]:
    connection = S3Connection(
        bucket="offload", endpoint_url=url, region="us-east-1",
        access_key="any", secret_key="any", addressing="path",
    )  # fmt: skip
    adapter = S3Objects(connection, part_size=PART_LEAST)
    yield adapter
    adapter.close()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="any", aws_secret_access_key="any", region_name="us-east-1"
    )
    yield client
    client.close()


def put(objects: S3Objects, key: str, size: int, announced: int | None) -> Location:
    async def source() -> AsyncIterator[bytes]:
        for start in range(0, size, PIECE):
            yield bytes(min(PIECE, size - start))

    return asyncio.run(
        objects.put(key, source(), size_bytes=announced, content_type="text/plain", metadata={"name": key})
    )


def length(objects: S3Objects, location: Location, first: int = 0, last: int | None = None) -> int:
    async def reading() -> int:
        async with objects.get(location, first=first, last=last) as stream:
            return sum([len(piece) async for piece in stream])

    return asyncio.run(reading())


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4096, PART_LEAST, 3 * PART_LEAST + 1])
def test_the_adapter_puts_reads_and_deletes(objects: S3Objects, size: int, announced: bool) -> None:
    location = put(objects, f"sizes/{size}/{announced}", size, size if announced else None)

    found = objects.head(location)
    assert (found.size_bytes, found.metadata) == (size, {"name": location.key})
    assert length(objects, location) == size
    assert [info.location.key for info in objects.list(location.key)] == [location.key]
    assert not list(objects.open_uploads("sizes/"))
    assert objects.delete([location]) == [location]
    with pytest.raises(ObjectMissingError):
        objects.head(location)


@pytest.mark.parametrize(("first", "last", "expected"), [(0, 0, 1), (4, None, 4092), (4000, 9000, 96)])
def test_a_range_has_its_length(objects: S3Objects, first: int, last: int | None, expected: int) -> None:
    assert length(objects, put(objects, "range", 4096, 4096), first, last) == expected


def test_a_small_object_comes_back_as_it_was(objects: S3Objects) -> None:
    objects.write("small & <odd>", b"the index's id")

    assert objects.read("small & <odd>") == b"the index's id"
    assert objects.delete([Location("offload", "small & <odd>")])
    assert not list(objects.list("small"))


def test_an_upload_is_open_until_it_is_aborted(objects: S3Objects, client: Any) -> None:
    opened = client.create_multipart_upload(Bucket="offload", Key="open/one")

    (found,) = objects.open_uploads("open/")
    assert (found.key, found.upload_id) == ("open/one", opened["UploadId"])
    objects.abort_upload(found)
    assert not list(objects.open_uploads("open/"))
    objects.abort_upload(found)


@pytest.mark.parametrize(
    ("sizes", "completed", "code"), [([10, 10], [1, 2], "EntityTooSmall"), ([10], [1, 2], "InvalidPart")]
)
def test_wrong_parts_are_refused(client: Any, sizes: list[int], completed: list[int], code: str) -> None:
    named = {"Bucket": "offload", "Key": "wrong"}
    named["UploadId"] = client.create_multipart_upload(**named)["UploadId"]
    for number, size in enumerate(sizes, start=1):
        client.upload_part(**named, PartNumber=number, Body=bytes(size))
    parts = [{"PartNumber": number, "ETag": "any"} for number in completed]

    with pytest.raises(ClientError) as refused:
        client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    client.abort_multipart_upload(**named)

    assert refused.value.response["Error"]["Code"] == code


def test_listings_go_over_pages(client: Any) -> None:
    keys = [f"pages/{number}&" for number in range(5)]
    for key in keys:
        client.put_object(Bucket="offload", Key=key, Body=b"")

    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket="offload", Prefix="pages/", PaginationConfig={"PageSize": 2}
    )

    assert [[found["Key"] for found in page["Contents"]] for page in pages] == [keys[:2], keys[2:4], keys[4:]]


def test_a_delimiter_folds(client: Any) -> None:
    for key in ("fold/a/1", "fold/a/2", "fold/b", "fold/c/1"):
        client.put_object(Bucket="offload", Key=key, Body=b"")

    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket="offload", Prefix="fold/", Delimiter="/", PaginationConfig={"PageSize": 1}
    )
    found = list(pages)

    assert [one["Prefix"] for page in found for one in page.get("CommonPrefixes", ())] == [
        "fold/a/",
        "fold/c/",
    ]
    assert [one["Key"] for page in found for one in page.get("Contents", ())] == ["fold/b"]


def test_a_bucket_is_there_once_it_was_made(client: Any) -> None:
    with pytest.raises(ClientError):
        client.put_object(Bucket="another", Key="x", Body=b"")

    client.create_bucket(Bucket="another")
    client.put_object(Bucket="another", Key="x", Body=b"")

    assert {one["Name"] for one in client.list_buckets()["Buckets"]} == {"offload", "another"}


def test_a_body_without_a_length_is_refused(url: str) -> None:
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port)) as sender:
        sender.sendall(b"PUT /offload/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")

        assert sender.recv(1000).startswith(b"HTTP/1.1 411")


def test_one_that_leaves_in_the_middle_is_forgotten(url: str, objects: S3Objects) -> None:
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port)) as leaving:
        leaving.sendall(b"PUT /offload/left HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n" + bytes(2_000_000))

    with pytest.raises(ObjectMissingError):
        objects.head(Location("offload", "left"))


def test_one_that_sends_byte_by_byte_and_asks_before_is_answered(url: str) -> None:
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port)) as slow:
        head = b"PUT /offload/slow HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        for byte in head:
            slow.sendall(bytes([byte]))
        assert slow.recv(100).startswith(b"HTTP/1.1 100")
        for _ in range(2):  # and again on the same connection
            for byte in b"abc":
                slow.sendall(bytes([byte]))
            assert b"200 OK" in slow.recv(1000)
            slow.sendall(head.replace(b"Expect: 100-continue\r\n", b""))


def test_it_serves_as_a_program() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bench.sink"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        where = urlsplit(process.stdout.readline().strip().removeprefix("url="))
        with closing(http.client.HTTPConnection(where.netloc)) as connection:
            connection.request("GET", "/")
            assert b"<Name>offload</Name>" in connection.getresponse().read()
        process.terminate()
