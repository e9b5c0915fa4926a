"""Uploads that do not end well, and what is left of them: nothing.

Cases: a connection that ends early (with a length, chunked, before and after the first part); a sender that
stalls (408), also inside a multipart body; one that holds a window and is too slow for it (408), sooner where
others wait for it, while a small body and a slow store may take their time; the store failing at the start
and in the middle; the index failing at look-up and at commit (503, Retry-After, no row, nothing visible); the
run deleted and created again during an upload; shut-down during an upload (503); as many uploads as are
taken, and one more (503), and a place for another run where one has many; the same for requests of many
files; many large uploads within one byte budget.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from offload import metrics
from offload.errors import StoreUnavailableError
from offload.objects.memory import MemoryObjects
from offload.services import senders

MIB = 2**20


@pytest.mark.parametrize("framing", ["Content-Length: 20971520", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("sent", [1000, 100_000, 9 * MIB])
def test_a_connection_that_ends_early_leaves_nothing(service: Any, run: Any, framing: str, sent: int) -> None:
    before = _outcomes("upload-interrupted")
    with service.connect() as connection:
        connection.sendall(service.request("PUT", run.at("x"), framing))
        if "chunked" in framing:
            connection.sendall(b"%x\r\n" % (sent + 1))
        connection.sendall(b"x" * sent)
    _eventually(lambda: _outcomes("upload-interrupted") == before + 1)
    service.assert_nothing_left(run)


@pytest.mark.parametrize("sent", [b"", b"x" * 1000, b"x" * 200_000])
def test_a_sender_that_stalls_is_answered_408(
    serve: Any, read_answer: Callable[..., Any], sent: bytes
) -> None:
    service = serve(upload_stall=timedelta(milliseconds=200))
    run = service.run()
    with service.connect() as connection:
        connection.sendall(service.request("PUT", run.at("x"), "Content-Length: 1000000") + sent)
        answer = read_answer(connection)
        assert answer.status == 408
        assert b"urn:offload:problem:upload-timed-out" in answer.read(int(answer.headers["Content-Length"]))
    service.assert_nothing_left(run)


@pytest.mark.parametrize(("at_first", "status"), [(100_000, 408), (10, 201)])
def test_a_sender_is_as_fast_as_the_window_that_it_holds_asks(
    serve: Any,
    read_answer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    at_first: int,
    status: int,
) -> None:
    monkeypatch.setattr(senders, "SLOW_SECONDS", 0.3)
    service = serve(upload_min_rate=2000)
    run = service.run()
    drips, ended = 20, False
    with service.connect() as connection:
        connection.sendall(
            service.request("PUT", run.at("x"), f"Content-Length: {at_first + drips}") + b"x" * at_first
        )
        for _ in range(drips):
            time.sleep(0.05)
            with suppress(ConnectionError):
                connection.sendall(b"x")
        answer = read_answer(connection)
        assert answer.status == status
        ended = b"a second is least" in answer.read(int(answer.headers["Content-Length"]))
    assert ended == (status == 408)
    service.assert_nothing_left(run, objects=int(status == 201), rows=int(status == 201))


def test_a_slow_store_is_no_slow_sender(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "SLOW_SECONDS", 0.2)

    class Sluggish(MemoryObjects):
        async def put(self, key: str, source: Any, **arguments: Any) -> Any:
            async def slowly() -> Any:
                async for piece in source:
                    await asyncio.sleep(0.05)
                    yield piece

            return await super().put(key, slowly(), **arguments)

    service = serve(objects=Sluggish(), upload_min_rate=2**30)
    run = service.run()
    assert run.put("x", b"x" * 10 * MIB).status_code == 201


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"--b\r\nContent-Disposition: form-data; na",
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nabc',
    ],
)
def test_a_multipart_sender_that_stalls_is_answered_408(
    serve: Any, read_answer: Callable[..., Any], sent: bytes
) -> None:
    service = serve(upload_stall=timedelta(milliseconds=200))
    run = service.run()
    head = service.request(
        "POST", run.artifacts, "Content-Length: 1000000", "Content-Type: multipart/form-data; boundary=b"
    )
    with service.connect() as connection:
        connection.sendall(head + sent)
        assert read_answer(connection, "POST").status == 408
    service.assert_nothing_left(run)


@pytest.mark.parametrize("size", [10, 20 * MIB])
def test_a_store_that_is_away_is_503_and_leaves_nothing(serve: Any, size: int) -> None:
    objects = MemoryObjects()
    service = serve(objects=objects)
    run = service.run()

    def fail(operation: str, _key: str) -> None:
        if operation == "put":
            raise StoreUnavailableError("storing an object: no answer from the store (ConnectTimeoutError)")

    objects.before = fail
    answer = run.put("x", b"x" * size)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["type"] == "urn:offload:problem:store-unavailable"
    objects.before = lambda _operation, _key: None
    service.assert_nothing_left(run)
    assert run.put("x", b"x" * size).status_code == 201


class FailsInTheMiddle(MemoryObjects):
    """The store goes away after the first MiBs; like S3's adapter it aborts its upload and pulls no more."""

    async def put(self, key: str, source: Any, **arguments: Any) -> Any:
        async def broken() -> Any:
            seen = 0
            async for piece in source:
                seen += len(piece)
                if seen > 9 * MIB:
                    raise StoreUnavailableError("storing a part: the store answered 500 InternalError")
                yield piece

        return await super().put(key, broken(), **arguments)


def test_a_store_that_fails_in_the_middle_is_503_and_leaves_nothing(serve: Any) -> None:
    service = serve(objects=FailsInTheMiddle())
    run = service.run()
    answer = run.put("x", iter([b"x" * MIB] * 32))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["detail"] == "storing a part: the store answered 500 InternalError"
    service.assert_nothing_left(run)


@pytest.mark.parametrize("table", ["runs", "artifacts"])
def test_an_index_that_fails_is_503_and_leaves_no_row(serve: Any, without: Any, table: str) -> None:
    service = serve()
    run = service.run()
    run.stored("before")
    with without(service.database, table):
        answer = run.put("x", b"acknowledged by nobody")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        problem = answer.json()
        assert problem["type"] == "urn:offload:problem:index-unavailable"
        assert table not in problem["detail"]
        listed = service.http.get(run.artifacts)
        assert (listed.status_code, "items" in listed.json()) == (503, False)
    assert [item["name"] for item in run.history()] == ["before"]
    assert run.put("x", b"acknowledged by nobody").status_code == 201


def test_a_run_that_is_created_again_during_an_upload_is_not_taken_for_the_old_one(serve: Any) -> None:
    service = serve()
    run = service.run()
    run.stored("before")
    again: list[Any] = []

    def body() -> Iterator[bytes]:
        yield b"x" * 100_000
        service.delete_run(run)
        again.append(service.run(run.name))
        yield b"y"

    answer = run.put("x", body())
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:offload:problem:run-changed")
    service.assert_nothing_left(run, objects=1, rows=1)
    assert run.put("x").json()["run"]["uid"] == again[0].uid
    assert [item["name"] for item in run.history()] == ["before"]


def test_shut_down_ends_bodies_that_are_being_read(serve: Any, read_answer: Callable[..., Any]) -> None:
    service = serve()
    run = service.run()
    with service.connect() as put, service.connect() as post:
        put.sendall(service.request("PUT", run.at("x"), "Content-Length: 1000000") + b"x" * 100_000)
        post.sendall(
            service.request(
                "POST", run.artifacts, "Content-Length: 9999", "Content-Type: multipart/form-data; boundary=b"
            )
        )
        ingest = service.parts.ingest
        _eventually(lambda: len(ingest._senders._deadlines) == 2)
        loop = next(iter(service.server.servers)).get_loop()
        loop.call_soon_threadsafe(ingest.end_sources)
        for connection, method in ((put, "PUT"), (post, "POST")):
            answer = read_answer(connection, method)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert b"shutting-down" in answer.read(int(answer.headers["Content-Length"]))
    assert run.put("y").status_code == 503
    service.assert_nothing_left(run)


def test_one_upload_more_than_are_taken_is_503(serve: Any, read_answer: Callable[..., Any]) -> None:
    service = serve(upload_max_concurrent=2)
    run = service.run()
    with service.connect() as one, service.connect() as two:
        for connection in (one, two):
            connection.sendall(service.request("PUT", run.at("x"), "Content-Length: 5") + b"abc")
        _eventually(lambda: service.parts.ingest._admission._running == 2)
        refused = run.put("z")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["type"] == "urn:offload:problem:too-many-uploads"
        one.sendall(b"de")
        assert read_answer(one).status == 201
        assert run.put("z").status_code == 201
        two.sendall(b"de")
        assert read_answer(two).status in {200, 201}


def test_one_run_does_not_take_all_places(serve: Any) -> None:
    service = serve(upload_max_concurrent=4)
    run, other = service.run(), service.run()
    with service.connect() as one, service.connect() as two, service.connect() as three:
        for connection in (one, two, three):
            connection.sendall(service.request("PUT", run.at("x"), "Content-Length: 5") + b"abc")
        _eventually(lambda: service.parts.ingest._admission._running == 3)
        refused = run.put("z")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert other.put("z").status_code == 201
    _eventually(lambda: service.parts.ingest._admission._running == 0)
    assert run.put("z").status_code == 201


def test_requests_of_many_files_have_places_too(serve: Any) -> None:
    service = serve(upload_max_concurrent=2)
    run, other = service.run(), service.run()
    multipart = "Content-Type: multipart/form-data; boundary=b"
    with service.connect() as one, service.connect() as two:
        for connection in (one, two):
            connection.sendall(
                service.request("POST", run.artifacts, "Content-Length: 99", multipart) + b"--"
            )
        _eventually(lambda: service.parts.ingest._requests._running == 2)
        files = {"file": ("z", b"z")}
        refused = other.http.post(other.artifacts, files=files)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["type"] == "urn:offload:problem:too-many-uploads"
        assert other.put("z").status_code == 201
    _eventually(lambda: service.parts.ingest._requests._running == 0)
    assert other.http.post(other.artifacts, files={"file": ("y", b"y")}).status_code == 201


def test_slow_senders_do_not_keep_the_memory_that_others_wait_for(
    serve: Any, read_answer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "PRESSED_SECONDS", 0.3)
    service = serve(upload_memory=25 * MIB, upload_part_size=5 * MIB, upload_min_rate=2**20)
    run, other = service.run(), service.run()
    with service.connect() as slow, ThreadPoolExecutor(1) as threads:
        # Of unknown length, it holds a whole window.
        slow.sendall(service.request("PUT", run.at("x"), "Transfer-Encoding: chunked"))
        slow.sendall(b"%x\r\n" % 100_000 + b"x" * 100_000 + b"\r\n")
        _eventually(lambda: service.parts.ingest._budget.used > 0)
        waits = threads.submit(other.put, "y", b"y" * 12 * MIB)
        while not waits.done():
            with suppress(ConnectionError):
                slow.sendall(b"1\r\nx\r\n")
            time.sleep(0.05)
        assert waits.result().status_code == 201
        assert read_answer(slow).status == 408
    service.assert_nothing_left(run)


class Slow(MemoryObjects):
    """Counts what the uploads in progress may hold, as their windows say."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.most = 0, 0

    async def put(self, key: str, source: Any, *, size_bytes: int | None, **arguments: Any) -> Any:
        window = self.window(size_bytes)
        self.held += window
        self.most = max(self.most, self.held)
        try:
            await asyncio.sleep(0.05)
            return await super().put(key, source, size_bytes=size_bytes, **arguments)
        finally:
            self.held -= window


def test_one_run_leaves_memory_to_others(serve: Any) -> None:
    service = serve(upload_memory=80 * MIB)
    greedy, other = service.run(), service.run()
    with service.connect() as one, service.connect() as two:
        for connection in (one, two):
            connection.sendall(service.request("PUT", greedy.at("x"), f"Content-Length: {2**30}"))
            connection.sendall(b"x" * 100_000)
        _eventually(lambda: service.parts.ingest._budget.pressed)
        assert other.put("y", b"y" * MIB).status_code == 201


def test_many_large_uploads_stay_within_the_byte_budget(serve: Any) -> None:
    objects, budget = Slow(), 80 * MIB
    service = serve(objects=objects, upload_memory=budget)
    runs = [service.run() for _ in range(12)]
    watched = _Watch(lambda: service.parts.ingest._budget.used)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda run: run.put("f", iter([b"ff" * 2**19] * 6)), runs))
    most = watched.end()
    assert [answer.status_code for answer in answers] == [201] * 12
    assert (objects.most, most) == (64 * MIB, 66 * MIB)  # two windows, and the piece that each pulls
    assert service.parts.ingest._budget.used == 0


class _Watch:
    """The largest value that a number has had, seen often."""

    def __init__(self, value: Callable[[], int]) -> None:
        self._value, self._most, self._ended = value, 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._ended.wait(0.001):
            self._most = max(self._most, self._value())


def _outcomes(outcome: str) -> float:
    return metrics.INGESTS.labels(outcome)._value.get()


def _eventually(fact: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.01)
