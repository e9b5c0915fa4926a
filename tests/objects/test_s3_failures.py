"""The S3 adapter when the store, or the way to it, fails. Moto and SeaweedFS behind a proxy that misbehaves.

- connection refused, no such bucket, wrong keys
- one failed request is tried again, and a store that keeps failing mid-way leaves nothing
- a download that breaks is an error, never a short success; so is a range that the store ignores
- a PUT that is answered 200 without an ETag is none
- CompleteMultipartUpload: a lost reply, 200 with an error inside, 409, an upload that someone aborted
- a task that is cancelled while the upload is opened, stored or completed
- DeleteObjects: not known to the store, one key refused
"""

import asyncio
import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from offload.dev.stores import StoreAddress
from offload.domain.limits import PART_LEAST
from offload.errors import ObjectMissingError, StoreRefusedError, StoreUnavailableError
from offload.objects.s3 import S3Objects

PART = PART_LEAST
ERROR_INSIDE = (
    b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
)


@pytest.fixture
def adapter(address: StoreAddress, proxy: Any) -> Iterator[S3Objects]:
    connection = replace(
        address.connection(), endpoint_url=proxy.url, attempts=2, connect_timeout=1, read_timeout=10
    )
    adapter = S3Objects(connection, part_size=PART)
    yield adapter
    adapter.close()


@pytest.fixture
def shelf(adapter: S3Objects, shelf_of: Callable[..., Any]) -> Any:
    return shelf_of(adapter)


def is_part(seen: Any) -> bool:
    return seen.method == "PUT" and "partNumber" in seen.path


def is_complete(seen: Any) -> bool:
    return seen.method == "POST" and "uploadId=" in seen.path


def is_create(seen: Any) -> bool:
    return seen.method == "POST" and "uploads" in seen.path and "uploadId=" not in seen.path


def three_parts() -> list[bytes]:
    data = hashlib.shake_128(b"three").digest(3 * PART)
    return [data[start : start + 2**20] for start in range(0, len(data), 2**20)]


def test_a_store_that_is_down_is_unavailable(address: StoreAddress, shelf_of: Callable[..., Any]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    adapter = S3Objects(replace(address.connection(), endpoint_url=nobody, attempts=1), part_size=PART)
    shelf = shelf_of(adapter)

    for ask in (
        lambda: shelf.put("log", b"x"),
        lambda: shelf.put("log", *three_parts()),
        lambda: shelf.get(shelf.at("log")),
        lambda: adapter.head(shelf.at("log")),
        lambda: list(adapter.list("")),
        lambda: adapter.delete([shelf.at("log")]),
        lambda: adapter.write("marker", b""),
        lambda: adapter.read("marker"),
        lambda: list(adapter.open_uploads("")),
        adapter.check,
    ):
        with pytest.raises(StoreUnavailableError) as raised:
            ask()
        assert not isinstance(raised.value, StoreRefusedError)
    adapter.close()


def test_a_missing_bucket_never_looks_like_a_missing_object(
    address: StoreAddress, shelf_of: Callable[..., Any]
) -> None:
    adapter = S3Objects(replace(address.connection(), bucket="no-such-bucket"))
    shelf = shelf_of(adapter)

    for ask in (
        lambda: adapter.head(shelf.at("log")),
        lambda: shelf.get(shelf.at("log")),
        lambda: adapter.read("marker"),
        adapter.check,
    ):
        with pytest.raises(StoreRefusedError):
            ask()
    adapter.close()


def test_a_bucket_that_is_gone_keeps_nothing_of_others(
    address: StoreAddress, shelf_of: Callable[..., Any]
) -> None:
    adapter = S3Objects(address.connection())
    there = shelf_of(adapter).put("log", b"x")
    gone = replace(there, bucket="no-such-bucket")
    assert adapter.delete([gone, there]) == [there]
    lost = S3Objects(replace(address.connection(), bucket="no-such-bucket"))
    with pytest.raises(StoreRefusedError):
        lost.delete([gone])
    for one in (adapter, lost):
        one.close()


def test_wrong_keys_are_refused(seaweedfs: StoreAddress, shelf_of: Callable[..., Any]) -> None:
    adapter = S3Objects(replace(seaweedfs.connection(), secret_key="wrong"))

    with pytest.raises(StoreRefusedError):
        shelf_of(adapter).put("log", b"x")
    with pytest.raises(StoreRefusedError):
        adapter.check()
    adapter.close()


@pytest.mark.parametrize("failure", ["status", "drop"])
def test_one_failed_part_is_sent_again(shelf: Any, proxy: Any, verdicts: Any, failure: str) -> None:
    verdict = verdicts.answer(503) if failure == "status" else verdicts.drop_request()
    proxy.rule = once(is_part, verdict)

    location = shelf.put("log", *three_parts())

    assert shelf.get(location) == b"".join(three_parts())


def test_a_store_that_fails_mid_way_leaves_nothing(shelf: Any, proxy: Any, verdicts: Any) -> None:
    proxy.rule = lambda seen: verdicts.answer(500) if "partNumber=3" in seen.path else None

    with pytest.raises(StoreUnavailableError):
        shelf.put("log", *three_parts())

    assert shelf.is_bare()


def test_a_part_that_is_refused_is_not_sent_again(shelf: Any, proxy: Any, verdicts: Any) -> None:
    proxy.rule = lambda seen: verdicts.answer(403) if is_part(seen) else None

    with pytest.raises(StoreRefusedError):
        shelf.put("log", *three_parts())

    sent = [seen.path for seen in proxy.seen if is_part(seen)]
    assert len(sent) == len(set(sent))
    assert shelf.is_bare()


def test_a_download_that_breaks_is_never_a_short_success(shelf: Any, proxy: Any, verdicts: Any) -> None:
    location = shelf.put("log", *three_parts())
    proxy.rule = lambda _seen: verdicts.answer(
        200, b"x" * 2**20, {"Content-Length": str(3 * PART)}, close=True
    )

    with pytest.raises(StoreUnavailableError):
        shelf.get(location)


@pytest.mark.parametrize("size", [5, PART + 1])
@pytest.mark.parametrize("body", [ERROR_INSIDE, b""])
def test_a_200_that_names_no_object_is_no_success(
    shelf: Any, proxy: Any, verdicts: Any, body: bytes, size: int
) -> None:
    proxy.rule = once(lambda seen: seen.method == "PUT", verdicts.answer(200, body))
    assert shelf.get(shelf.put("log", b"x" * size)) == b"x" * size

    proxy.rule = lambda seen: verdicts.answer(200, body) if seen.method == "PUT" else None
    with pytest.raises(StoreUnavailableError, match="InternalError" if body else "without an ETag"):
        shelf.put("other", b"x" * size)
    assert shelf.names() == ["log"]


def test_a_store_that_ignores_a_range_is_an_error(shelf: Any, proxy: Any, verdicts: Any) -> None:
    location = shelf.put("log", b"<Error><Code>NoSuchKey</Code></Error>")
    whole = shelf.get(location)
    proxy.rule = lambda _seen: verdicts.answer(200, whole)

    for first, last in ((0, 3), (7, None)):
        with pytest.raises(StoreRefusedError, match="range"):
            shelf.get(location, first, last)
    assert shelf.get(location) == whole


def test_a_lost_reply_to_complete_is_decided_by_the_object(shelf: Any, proxy: Any, verdicts: Any) -> None:
    proxy.rule = lambda seen: verdicts.drop_reply() if is_complete(seen) else None

    location = shelf.put("log", *three_parts(), metadata={"name": "log"})

    assert shelf.get(location) == b"".join(three_parts())
    assert not list(shelf.objects.open_uploads(shelf.folder))


def test_an_older_object_of_another_size_is_no_proof_of_completion(
    shelf: Any, proxy: Any, verdicts: Any
) -> None:
    shelf.objects.write(shelf.key("log"), b"older")
    proxy.rule = lambda seen: verdicts.drop_request() if is_complete(seen) else None

    with pytest.raises(StoreUnavailableError):
        shelf.put("log", *three_parts())

    assert shelf.objects.read(shelf.key("log")) == b"older"
    assert not list(shelf.objects.open_uploads(shelf.folder))


def test_an_error_inside_a_200_is_tried_again(shelf: Any, proxy: Any, verdicts: Any) -> None:
    proxy.rule = once(is_complete, verdicts.answer(200, ERROR_INSIDE))

    assert shelf.get(shelf.put("log", *three_parts())) == b"".join(three_parts())


@pytest.mark.parametrize(
    "answer", [(200, ERROR_INSIDE), (200, b""), (200, b"<CompleteMulti"), (409, b""), (404, b"")]
)
def test_a_complete_that_keeps_failing_leaves_nothing(
    shelf: Any, proxy: Any, verdicts: Any, answer: tuple[int, bytes]
) -> None:
    proxy.rule = lambda seen: verdicts.answer(*answer) if is_complete(seen) else None

    with pytest.raises(StoreUnavailableError):
        shelf.put("log", *three_parts())

    assert shelf.is_bare()


def test_an_upload_that_someone_aborted_can_be_started_over(shelf: Any, proxy: Any) -> None:
    def abort_before_complete(seen: Any) -> None:
        if is_complete(seen):
            direct = list(shelf.objects.open_uploads(shelf.folder))
            for upload in direct:
                shelf.objects.abort_upload(upload)

    proxy.rule = abort_before_complete

    with pytest.raises(StoreUnavailableError) as raised:
        shelf.put("log", *three_parts())

    assert not isinstance(raised.value, StoreRefusedError)
    proxy.rule = lambda _seen: None
    assert shelf.get(shelf.put("log", *three_parts())) == b"".join(three_parts())


@pytest.mark.parametrize("reached", [None, is_create, is_part, is_complete])
def test_a_task_cancelled_while_the_store_is_busy_leaves_nothing(
    shelf: Any, proxy: Any, reached: Callable[[Any], bool] | None
) -> None:
    """None: while a small object is stored whole."""
    given = three_parts() if reached else [b"x"]

    async def cancel_when_reached() -> None:
        loop, busy = asyncio.get_running_loop(), asyncio.Event()

        def signal_and_dally(seen: Any) -> None:
            if not reached or reached(seen):
                loop.call_soon_threadsafe(busy.set)
                time.sleep(0.1)

        proxy.rule = signal_and_dally
        task = asyncio.create_task(shelf.putting("log", shelf.pieces(*given)))
        await busy.wait()
        task.cancel()
        await asyncio.sleep(0.02)
        task.cancel()  # an impatient caller changes nothing
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel_when_reached())

    proxy.rule = lambda _seen: None
    assert shelf.is_bare()


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed")])
def test_a_store_without_delete_objects_gets_single_deletes(
    shelf: Any, proxy: Any, verdicts: Any, status: int, code: str
) -> None:
    body = f"<Error><Code>{code}</Code></Error>".encode()
    locations = [shelf.put(name, b"x") for name in "abc"]
    proxy.rule = lambda seen: verdicts.answer(status, body) if seen.method == "POST" else None

    assert list(shelf.objects.delete([*locations, shelf.at("missing")])) == [*locations, shelf.at("missing")]
    assert shelf.is_bare()


def test_a_key_that_the_store_keeps_is_not_answered_as_gone(shelf: Any, proxy: Any, verdicts: Any) -> None:
    kept, gone = shelf.at("kept"), shelf.at("gone")
    body = f"<DeleteResult><Error><Key>{kept.key}</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    proxy.rule = lambda seen: verdicts.answer(200, body.encode()) if seen.method == "POST" else None

    assert list(shelf.objects.delete([kept, gone])) == [gone]


def test_delete_that_gets_no_answer_is_an_error(shelf: Any, proxy: Any, verdicts: Any) -> None:
    proxy.rule = lambda seen: verdicts.answer(503) if seen.method == "POST" else None

    with pytest.raises(StoreUnavailableError):
        shelf.objects.delete([shelf.at("log")])


def test_a_missing_object_stays_missing_through_the_proxy(shelf: Any) -> None:
    with pytest.raises(ObjectMissingError):
        shelf.get(shelf.at(str(uuid4())))


def once(matches: Callable[[Any], bool], verdict: Any) -> Callable[[Any], Any]:
    left = [verdict]
    return lambda seen: left.pop() if left and matches(seen) else None


@pytest.mark.parametrize("body", [b"", b"default backend - 404"])
def test_a_404_that_names_nothing_is_no_missing_object(
    shelf: Any, adapter: S3Objects, proxy: Any, verdicts: Any, body: bytes
) -> None:
    location = shelf.put("log", b"x")
    proxy.rule = lambda seen: verdicts.answer(404, body) if seen.method == "GET" else None

    for ask in (lambda: shelf.get(location), lambda: adapter.read("marker")):
        with pytest.raises(StoreUnavailableError) as raised:
            ask()
        assert not isinstance(raised.value, StoreRefusedError)


def test_an_answer_that_names_no_upload_is_unavailable(shelf: Any, proxy: Any, verdicts: Any) -> None:
    proxy.rule = lambda seen: verdicts.answer(200, b"") if is_create(seen) else None

    with pytest.raises(StoreUnavailableError) as raised:
        shelf.put("log", *three_parts())

    assert not isinstance(raised.value, StoreRefusedError)
    assert shelf.is_bare()
