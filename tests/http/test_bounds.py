"""What a sender of nonsense may cost.

Cases: a refused file of a form that goes on for ever, and what follows the form: read up to a bound; long
names that are refused come back cut; a sender that stalls after some files: those are stored, and the whole
is worth another try; an unexpected failure before the body was read: answered, and the body read no further
than after any early answer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from offload.domain.limits import NAME_BYTES
from offload.errors import UploadTooLargeError
from offload.http import multipart, unread
from offload.http.multipart import read_parts

MIB = 2**20
FORM = "Content-Type: multipart/form-data; boundary=b"
KIND = "multipart/form-data; boundary=b"


def _head(name: str) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()


def _read(body: AsyncIterator[bytes]) -> list[str | None]:
    async def reading() -> list[str | None]:
        return [part.filename async for part in read_parts(KIND, body)]

    return asyncio.run(reading())


async def _after(start: bytes, read: list[int], end: bytes = b"") -> AsyncIterator[bytes]:
    """`start`, and then 50 MiB; `read` is what was taken of those."""
    yield start
    for _ in range(50):
        read.append(MIB)
        yield b"x" * MIB
    yield end


def test_a_part_that_is_not_read_is_passed_over_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "SKIPPED_BYTES", 3 * MIB)
    read: list[int] = []
    with pytest.raises(UploadTooLargeError):
        _read(_after(_head("x"), read, b"\r\n--b--\r\n"))
    assert sum(read) == 4 * MIB


def test_what_follows_a_form_is_read_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "SKIPPED_BYTES", 3 * MIB)
    read: list[int] = []
    assert _read(_after(_head("x") + b"1\r\n--b--\r\n", read)) == ["x"]
    assert sum(read) == 4 * MIB


def test_a_refused_file_that_never_ends_is_cut_off(
    service: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "SKIPPED_BYTES", 8 * MIB)
    monkeypatch.setattr(unread, "DISCARD_BYTES", MIB)
    sent = 0
    with service.connect() as connection:
        connection.sendall(service.request("POST", run.artifacts, FORM, f"Content-Length: {2**40}"))
        connection.sendall(_head("good") + b"1\r\n" + _head("../bad"))
        with suppress(ConnectionError):
            while sent < 100 * MIB:
                sent += connection.send(b"x" * MIB)
    assert sent < 40 * MIB
    service.assert_nothing_left(run, objects=1, rows=1)


def test_names_that_are_refused_come_back_cut(run: Any) -> None:
    form = b"".join(_head("n" * 4_000 + str(number)) + b"1\r\n" for number in range(50)) + b"--b--\r\n"
    answer = run.http.post(run.artifacts, content=form, headers={"Content-Type": KIND})
    results = answer.json()["results"]
    assert (answer.status_code, {one["status"] for one in results}, len(results)) == (422, {400}, 50)
    assert {one["name"] for one in results} == {"n" * NAME_BYTES}
    assert len(answer.content) < 50 * 2 * NAME_BYTES


@pytest.mark.parametrize("size", [3, 200_000])
def test_a_form_whose_sender_stalls_is_worth_another_try(
    serve: Any, read_answer: Callable[..., Any], size: int
) -> None:
    service = serve(upload_stall=timedelta(milliseconds=200))
    run = service.run()
    with service.connect() as connection:
        connection.sendall(service.request("POST", run.artifacts, FORM, "Content-Length: 1000000"))
        connection.sendall(_head("good") + b"1\r\n" + _head("slow") + b"x" * size)
        answer = read_answer(connection, "POST")
        said = answer.read(int(answer.headers["Content-Length"]))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert b'"status":201' in said
    assert b"urn:offload:problem:upload-timed-out" in said
    service.assert_nothing_left(run, objects=1, rows=1)


def test_a_body_in_flight_does_not_outlast_an_unexpected_failure(
    service: Any, run: Any, read_answer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_call: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(unread, "DISCARD_SECONDS", 0.3)
    # Where even the framework's own last handler fails.
    monkeypatch.setattr(service.app._app._app, "middleware_stack", fail)
    # The traceback as tests print it takes seconds, on the service's loop.
    with capture_logs() as logged, service.connect() as connection:
        connection.sendall(service.request("PUT", run.at("x"), f"Content-Length: {2**40}") + b"x")
        answer = read_answer(connection)
        assert (answer.status, answer.headers["Connection"]) == (500, "close")
        started = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - started < 5:
                connection.sendall(b"x")
                time.sleep(0.01)
        assert time.monotonic() - started < 3
    assert "request.failed" in [line["event"] for line in logged]
