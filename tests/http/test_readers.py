"""Readers who leave, take little, take nothing, or are many.

Cases: a client that leaves frees the store's connection; more downloads than are given at once (503); one
that takes nothing loses its place and its connection, whatever it asked for; one that takes little gets all;
a stall that is longer than a socket can be told.
"""

import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from offload.cli import http_server

MIB = 2**20


def test_a_client_that_leaves_frees_the_stores_connection(
    service: Any, run: Any, eventually: Callable[..., None]
) -> None:
    run.stored("large", b"x" * 64 * MIB)
    with service.connect() as connection:
        connection.sendall(service.request("GET", run.at("large")))
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: service.objects.downloads == 1)
    eventually(lambda: service.objects.downloads == 0)


def test_one_download_more_than_are_given_is_503(serve: Any, eventually: Callable[..., None]) -> None:
    service = serve(download_max_concurrent=1)
    run = service.run()
    run.stored("large", b"x" * 64 * MIB)
    with service.connect() as connection:
        connection.sendall(service.request("GET", run.at("large")))
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        refused = run.http.get(run.at("large"))
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["type"] == "urn:offload:problem:too-many-downloads"
        assert run.http.head(run.at("large")).status_code == 200
    eventually(lambda: service.objects.downloads == 0)
    assert run.http.get(run.at("large"), headers={"Range": "bytes=0-3"}).content == b"xxxx"


def test_a_reader_that_takes_nothing_loses_its_place_and_its_connection(
    serve: Any, eventually: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    service = serve(download_max_concurrent=1, upload_stall=timedelta(seconds=1))
    run = service.run()
    run.stored("large", b"x" * 64 * MIB)
    with service.connect() as connection, capture_logs() as logged:
        connection.sendall(service.request("GET", run.at("large")))
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert service.held(connection)
        eventually(lambda: service.objects.downloads == 0)
        eventually(lambda: not service.held(connection), 1)
        assert run.http.get(run.at("large"), headers={"Range": "bytes=0-3"}).content == b"xxxx"
    assert {line["event"] for line in logged if line["log_level"] != "info"} == {"download.stalled"}
    assert not caplog.records  # uvicorn's own


def test_a_reader_that_takes_little_gets_all(serve: Any, read_answer: Callable[..., Any]) -> None:
    """So little that for longer than a stall, nothing leaves the process for what the system holds."""
    service = serve(upload_stall=timedelta(seconds=1))
    run = service.run()
    run.stored("large", b"x" * 16 * MIB)
    with service.connect() as connection:
        connection.sendall(service.request("GET", run.at("large")))
        answer, taken = read_answer(connection, "GET"), 0
        slow_until = time.monotonic() + 5
        while piece := answer.read(100 * 2**10):
            taken += len(piece)
            if time.monotonic() < slow_until:
                time.sleep(0.3)
    assert taken == 16 * MIB


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system cannot")
def test_answers_that_nobody_takes_are_not_kept(serve: Any, eventually: Callable[..., None]) -> None:
    service = serve(upload_stall=timedelta(seconds=2))
    with service.connect() as connection:
        connection.sendall(service.request("GET", "/openapi.json") * 1000)
        time.sleep(0.2)
        assert service.held(connection)
        eventually(lambda: not service.held(connection))


def test_a_stall_may_be_longer_than_a_socket_can_be_told() -> None:
    http_server.listen("127.0.0.1", 0, stall_seconds=30 * 86_400).close()
