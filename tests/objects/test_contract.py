"""One suite for every object store: memory, moto and SeaweedFS.

- bytes of every size around a part's come back, whether the length was announced or not
- a source that raises, a task that is cancelled, a wrong length: nothing stays behind
- ranges at the edges; a stream that is left early
- what is missing is missing in every operation, and deleting it is no error
- metadata, keys, listing over pages, small objects, open uploads
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from offload.domain.artifact import Location
from offload.domain.limits import PART_LEAST
from offload.errors import LengthMismatchError, ObjectMissingError
from offload.objects.interface import Objects, OpenUpload

PART = PART_LEAST
PIECE = 256 * 1024


def some_bytes(size: int) -> bytes:
    """Bytes of which no two stretches are equal, so that a swapped part shows."""
    return hashlib.shake_128(str(size).encode()).digest(size)


def in_pieces(data: bytes) -> list[bytes]:
    return [data[start : start + PIECE] for start in range(0, len(data), PIECE)]


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART])
def test_bytes_come_back_as_they_were(shelf: Any, size: int, announced: bool) -> None:
    data = some_bytes(size)

    location = shelf.put("log", *in_pieces(data), size_bytes=size if announced else None)

    assert location == Location(shelf.objects.bucket, shelf.key("log"), location.version_id)
    assert shelf.get(location) == data
    assert shelf.objects.head(location).size_bytes == size
    assert not list(shelf.objects.open_uploads(shelf.folder))


def test_one_piece_may_be_larger_than_a_part(shelf: Any) -> None:
    data = some_bytes(2 * PART + 7)

    assert shelf.get(shelf.put("log", data)) == data


@pytest.mark.parametrize("parts_before", [0, 2.5])
def test_an_exception_of_the_source_is_passed_on_and_nothing_stays(shelf: Any, parts_before: float) -> None:
    problem = ConnectionResetError("the sender went away")
    given = in_pieces(some_bytes(int(parts_before * PART)))

    with pytest.raises(ConnectionResetError) as raised:
        shelf.put("log", *given, problem, b"never given")

    assert raised.value is problem
    assert shelf.is_bare()


@pytest.mark.parametrize("parts_before", [0, 2.5])
def test_a_cancelled_task_leaves_nothing(shelf: Any, parts_before: float) -> None:
    async def stalling(stalled: asyncio.Event) -> AsyncIterator[bytes]:
        for piece in in_pieces(some_bytes(int(parts_before * PART))):
            yield piece
        stalled.set()
        await asyncio.Event().wait()

    async def cancel_when_it_stalls() -> None:
        stalled = asyncio.Event()
        task = asyncio.create_task(shelf.putting("log", stalling(stalled)))
        await stalled.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel_when_it_stalls())

    assert shelf.is_bare()


@pytest.mark.parametrize("announced", [1, PART, 2 * PART + 1])
@pytest.mark.parametrize("error", [-1, 1])
def test_a_source_of_another_length_than_announced_leaves_nothing(
    shelf: Any, announced: int, error: int
) -> None:
    with pytest.raises(LengthMismatchError):
        shelf.put("log", *in_pieces(some_bytes(announced + error)), size_bytes=announced)

    assert shelf.is_bare()


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 0), (0, None), (2**20 - 1, 2**20), (2**21, 2**21), (2**21, None), (5, 10**9), (2**20, 2**20 + 2)],
)
def test_a_range_is_read_to_its_last_byte(shelf: Any, first: int, last: int | None) -> None:
    data = some_bytes(2**21 + 1)
    location = shelf.put("log", data)

    assert shelf.get(location, first, last) == data[first : None if last is None else last + 1]


def test_a_stream_that_is_left_early_harms_no_later_one(shelf: Any) -> None:
    data = some_bytes(3 * PART)
    location = shelf.put("log", data)

    async def peek() -> int:
        async with shelf.objects.get(location) as stream:
            return len(await anext(stream))

    for _ in range(40):
        assert 0 < asyncio.run(peek()) < len(data)
    assert shelf.get(location) == data


def test_a_missing_object_is_missing_everywhere(shelf: Any) -> None:
    for ask in (
        lambda: shelf.get(shelf.at("nothing")),
        lambda: shelf.objects.head(shelf.at("nothing")),
        lambda: shelf.objects.read(shelf.key("nothing")),
    ):
        with pytest.raises(ObjectMissingError):
            ask()


def test_deleting_counts_what_was_missing_as_gone(shelf: Any) -> None:
    kept, *gone = [shelf.put(name, b"x") for name in ("kept", "a", "b", "c")]
    wanted = [*gone, shelf.at("never there")]

    assert list(shelf.objects.delete(wanted)) == wanted
    assert shelf.names() == ["kept"]
    assert list(shelf.objects.delete(wanted)) == wanted
    assert shelf.get(kept) == b"x"


def test_more_objects_than_one_request_takes_are_deleted(shelf: Any) -> None:
    there = [shelf.put(name, b"x") for name in ("first", "last")]
    wanted = [there[0], *(shelf.at(f"missing-{n:04}") for n in range(1000)), there[1]]

    assert list(shelf.objects.delete(wanted)) == wanted
    assert shelf.is_bare()


@pytest.mark.parametrize("size", [3, 2 * PART])
def test_metadata_is_kept(shelf: Any, size: int) -> None:
    metadata = {"name": "a%20b%2Fc", "sha256": "00ff", "empty-is-not-sent": "x"}

    location = shelf.put("log", some_bytes(size), metadata=metadata)

    assert dict(shelf.objects.head(location).metadata) == metadata


@pytest.mark.parametrize("name", ["a", "A.b-c_d/e..f/-._", "x/" * 20 + "y", "z" * 255])
def test_every_key_that_our_rules_make_works(shelf: Any, name: str) -> None:
    location = shelf.put(name, b"bytes")

    assert location.key == shelf.key(name)
    assert shelf.get(location) == b"bytes"
    assert shelf.names() == [name]
    shelf.objects.delete([location])
    assert shelf.is_bare()


def test_listing_gives_every_key_once_in_order(shelf: Any) -> None:
    names = [f"{n % 7}/{n:05}" for n in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: shelf.objects.write(shelf.key(name), b"xy"), names))
    shelf.objects.write(shelf.folder + "-beside", b"")

    listed = list(shelf.objects.list(shelf.folder + "/"))

    assert [info.location.key for info in listed] == sorted(map(shelf.key, names))
    assert {info.size_bytes for info in listed} == {2}
    assert listed[0].modified_at.utcoffset() is not None
    assert len(list(shelf.objects.list(shelf.key("3/")))) == len([n for n in names if n.startswith("3/")])


def test_a_small_object_is_written_over(shelf: Any) -> None:
    shelf.objects.write(shelf.key("marker"), b"one")
    shelf.objects.write(shelf.key("marker"), b"two")

    assert shelf.objects.read(shelf.key("marker")) == b"two"


def test_an_open_upload_is_seen_and_aborted_while_its_source_stalls(shelf: Any) -> None:
    """What a crash would leave is there while the upload runs, under its key and with its age."""
    seen: list[OpenUpload] = []

    async def looking() -> AsyncIterator[bytes]:
        for piece in in_pieces(some_bytes(PART + PIECE)):
            yield piece
        while not seen:
            await asyncio.sleep(0.01)
            seen.extend(await asyncio.to_thread(lambda: list(shelf.objects.open_uploads(shelf.folder))))
        raise TimeoutError

    with pytest.raises(TimeoutError):
        asyncio.run(shelf.putting("log", looking()))

    assert [upload.key for upload in seen] == [shelf.key("log")]
    assert seen[0].started_at.utcoffset() is not None
    assert shelf.is_bare()
    shelf.objects.abort_upload(seen[0])


def test_a_store_that_is_there_passes_its_check(objects: Objects) -> None:
    objects.check()
