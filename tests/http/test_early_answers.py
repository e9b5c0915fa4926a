"""Answers that come before the body was read.

Cases: a client that waits for 100 Continue gets a refusal alone and the connection closes, gets 100 and then
201 where its body is wanted, and 200 without its body where its digest is known, unless the time of those
bytes is over; a client that goes on sending reads the whole answer (bare socket, large bodies both ways of
framing; curl); one that never stops is cut off after a bounded while; one that sends within the bound has its
connection closed in order; a small body that was never read leaves no second answer on the connection.
"""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from offload.http import unread

MIB = 2**20
WAITS = "Expect: 100-continue"


def test_a_waiting_client_is_refused_before_it_sends(service: Any, run: Any) -> None:
    with service.connect() as connection:
        connection.sendall(service.request("PUT", run.at("x"), f"Content-Length: {2**50}", WAITS))
        assert connection.recv(12) == b"HTTP/1.1 413"
        rest = _until_closed(connection)
        assert b"connection: close" in rest.lower()
        assert b"upload-too-large" in rest


def test_a_waiting_client_is_told_to_go_on(service: Any, run: Any, read_answer: Callable[..., Any]) -> None:
    with service.connect() as connection:
        connection.sendall(service.request("PUT", run.at("x"), "Content-Length: 5", WAITS))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert read_answer(connection).status == 201
    assert run.http.get(run.at("x")).content == b"hello"


def test_a_waiting_client_whose_digest_is_known_never_sends(
    service: Any, run: Any, read_answer: Callable[..., Any], digest: Callable[..., str]
) -> None:
    stored = run.stored("x", b"hello")
    with service.connect() as connection:
        headers = ("Content-Length: 5", WAITS, f"Repr-Digest: {digest(b'hello')}")
        connection.sendall(service.request("PUT", run.at("x"), *headers))
        answer = read_answer(connection)
        assert answer.status == 200
        assert stored["id"].encode() in answer.read()
    service.assert_nothing_left(run, objects=1, rows=1)


def test_a_known_digest_is_answered_while_the_body_comes(
    service: Any, run: Any, digest: Callable[..., str]
) -> None:
    stored = run.stored("x", b"y" * 5 * MIB)
    again = run.put("x", b"y" * 5 * MIB, headers={"Repr-Digest": digest(b"y" * 5 * MIB)})
    assert (again.status_code, again.json()) == (200, stored)
    assert again.headers["Connection"] == "close"
    service.assert_nothing_left(run, objects=1, rows=1)


def test_a_known_digest_of_bytes_whose_time_is_over_is_no_answer(
    service: Any, run: Any, digest: Callable[..., str]
) -> None:
    stored = run.put("x", b"hello", params={"expires": "1s"}).json()
    time.sleep(1.1)
    again = run.put("x", b"hello", headers={"Repr-Digest": digest(b"hello")})
    assert again.status_code == 201
    assert (again.json()["id"] != stored["id"], again.json()["expiresAt"]) == (True, None)
    assert run.http.get(run.at("x")).content == b"hello"
    service.assert_nothing_left(run, objects=2, rows=2)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_client_that_goes_on_sending_reads_the_whole_answer(
    service: Any, run: Any, read_answer: Callable[..., Any], framing: str
) -> None:
    """It sends 32 MiB and only then reads: an answer that a reset has overtaken would be lost."""
    header = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {32 * MIB}"
    with service.connect() as connection:
        connection.sendall(service.request("PUT", f"{run.artifacts}/a%00", header))
        for _ in range(32):
            connection.sendall((b"100000\r\n" + b"x" * MIB + b"\r\n") if framing == "chunked" else b"x" * MIB)
        if framing == "chunked":
            connection.sendall(b"0\r\n\r\n")
        answer = read_answer(connection)
        assert (answer.status, answer.headers["Connection"]) == (400, "close")
        assert b"invalid-name" in answer.read()
        assert connection.recv(1) == b""


@pytest.mark.parametrize("expect", [[], ["-H", "Expect:"]])
def test_curl_shows_the_refusal_of_a_large_body(service: Any, tmp_path: Any, expect: list[str]) -> None:
    (tmp_path / "large").write_bytes(b"x" * 40 * MIB)
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "-T",
            str(tmp_path / "large"),
            "-H",
            f"Authorization: {service.http.headers['Authorization']}",
            *expect,
            f"{service.url}/v1/namespaces/agents/agentruns/unknown/artifacts/x",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "urn:offload:problem:run-not-found" in done.stdout


def test_a_client_that_never_stops_is_cut_off(
    service: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "DISCARD_SECONDS", 0.3)
    with service.connect() as connection:
        connection.sendall(service.request("PUT", f"{run.artifacts}/a%00", f"Content-Length: {2**40}"))
        connection.sendall(b"x")
        assert b" 400 " in connection.recv(64)
        started = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - started < 5:
                connection.sendall(b"x")
                time.sleep(0.01)
        assert 0.1 < time.monotonic() - started < 3


def test_a_client_that_sends_too_much_is_cut_off(
    service: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "DISCARD_BYTES", MIB)
    sent = 0
    with service.connect() as connection:
        connection.sendall(service.request("PUT", f"{run.artifacts}/a%00", f"Content-Length: {2**40}"))
        with suppress(ConnectionError):
            while sent < 200 * MIB:
                sent += connection.send(b"x" * 2**16)
    assert sent < 40 * MIB


def test_answers_to_requests_that_were_read_keep_the_connection(
    service: Any, run: Any, read_answer: Callable[..., Any]
) -> None:
    with service.connect() as connection:
        for name in ("a", "b"):
            connection.sendall(service.request("PUT", run.at(name), "Content-Length: 1") + b"x")
            answer = read_answer(connection)
            assert (answer.status, answer.headers.get("Connection")) == (201, None)
            answer.read()


def _until_closed(connection: Any) -> bytes:
    found = b""
    while piece := connection.recv(2**16):
        found += piece
    return found
