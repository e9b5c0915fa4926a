"""Requests as they are on the wire, where the parser takes them for others than their senders meant.

Cases: a request that asks to upgrade is served as if it did not, however it is framed and cut into packets
(PUT, POST, GET, DELETE), its connection goes on, or ends where it asks for that too, its body is never a
request, and an empty field hides no other; curl; CONNECT is refused; trailers are no headers, whenever they
come.
"""

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

UPGRADE = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
CHUNKED = "Transfer-Encoding: chunked"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(("framing", "body"), [(CHUNKED, HELLO), ("Content-Length: 5", b"hello")])
@pytest.mark.parametrize("apart", [False, True])
def test_a_body_is_stored_though_its_request_asks_to_upgrade(
    service: Any, run: Any, read_answer: Callable[..., Any], framing: str, body: bytes, *, apart: bool
) -> None:
    with service.connect() as connection:
        for name in ("a", "b"):
            head = service.request("PUT", run.at(name), *UPGRADE, "X-Empty:", framing)
            if apart:
                for packet in (head[:90], head[90:-2], head[-2:] + body[:2], body[2:]):
                    connection.sendall(packet)
                    time.sleep(0.02)
            else:
                connection.sendall(head + body)
            answer = read_answer(connection)
            assert (answer.status, answer.headers.get("Connection")) == (201, None)
            answer.read()
    assert [run.http.get(run.at(name)).content for name in ("a", "b")] == [b"hello"] * 2


@pytest.mark.parametrize(
    ("version", "wish"), [("1.1", "close, Upgrade"), ("1.0", "upgrade"), ("1.0", "keep-alive, upgrade")]
)
@pytest.mark.parametrize("apart", [False, True])
def test_a_body_is_stored_though_its_request_asks_to_upgrade_and_to_end(
    service: Any, run: Any, read_answer: Callable[..., Any], version: str, wish: str, *, apart: bool
) -> None:
    head = service.request("PUT", run.at("x"), f"Connection: {wish}", "Upgrade: h2c", "Content-Length: 5")
    head = head.replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    with service.connect() as connection:
        for packet in (head[:-2], head[-2:] + b"he", b"llo") if apart else (head + b"hello",):
            connection.sendall(packet)
            time.sleep(0.02)
        answer = read_answer(connection)
        assert (answer.status, answer.headers["Connection"]) == (201, "close")
        answer.read()
        assert connection.recv(1) == b""
    assert run.http.get(run.at("x")).content == b"hello"


def test_a_body_of_a_request_that_asks_to_upgrade_is_no_request(
    service: Any, run: Any, read_answer: Callable[..., Any]
) -> None:
    run.stored("kept")
    hidden = service.request("DELETE", f"/v1/artifacts/{run.history()[0]['id']}")
    with service.connect() as connection:
        head = service.request("PUT", run.at("x"), *UPGRADE, f"Content-Length: {len(hidden)}")
        connection.sendall(head + hidden)
        assert read_answer(connection).status == 201
    assert run.http.get(run.at("x")).content == hidden
    assert run.http.get(run.at("kept")).status_code == 200


def test_every_method_is_served_though_it_asks_to_upgrade(
    service: Any, run: Any, read_answer: Callable[..., Any]
) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nhello\r\n--b--\r\n'
    of_form = ("Content-Type: multipart/form-data; boundary=b", f"Content-Length: {len(form)}")
    with service.connect() as connection:

        def ask(method: str, path: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
            connection.sendall(service.request(method, path, *UPGRADE, *headers) + body)
            answer = read_answer(connection, method)
            return answer.status, answer.read()

        assert ask("POST", run.artifacts, *of_form, body=form)[0] == 201
        assert ask("GET", run.at("x")) == (200, b"hello")
        stored = run.history()[0]["id"]
        assert ask("DELETE", f"/v1/artifacts/{stored}", CHUNKED, body=HELLO)[0] == 200
    assert run.http.get(f"/v1/artifacts/{stored}/content").status_code == 410


def test_many_requests_that_ask_to_upgrade_in_one_packet(service: Any) -> None:
    request = b"GET /livez HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    with service.connect() as connection:
        connection.sendall(request * 2000)
        found = b""
        while found.count(b"HTTP/1.1 200 OK") < 2000:
            found += connection.recv(2**16)


def test_curl_that_would_rather_speak_http_2(service: Any, run: Any, tmp_path: Any) -> None:
    (tmp_path / "large").write_bytes(b"x" * 3 * 2**20)
    token = f"Authorization: {service.http.headers['Authorization']}"
    done = subprocess.run(
        ["curl", "-sS", "--http2", "-T", tmp_path / "large", "-H", token, service.url + run.at("x")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [artifact["sizeBytes"] for artifact in run.history()] == [3 * 2**20]


@pytest.mark.parametrize("target", ["service:80", "/livez"])
def test_a_tunnel_is_refused(service: Any, target: str) -> None:
    with service.connect() as connection:
        connection.sendall(
            f"CONNECT {target} HTTP/1.1\r\nHost: service\r\n\r\nGET /livez HTTP/1.1\r\n\r\n".encode()
        )
        found = b""
        while piece := connection.recv(2**16):
            found += piece
    assert found.startswith(b"HTTP/1.1 400 ")
    assert found.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "trailer", ["Content-Encoding: gzip", "If-None-Match: *", "Connection: upgrade\r\nUpgrade: h2c"]
)
@pytest.mark.parametrize("apart", [False, True])
def test_a_trailer_is_no_header_whenever_it_comes(
    service: Any, run: Any, read_answer: Callable[..., Any], trailer: str, *, apart: bool
) -> None:
    run.stored("x")
    end = f"0\r\n{trailer}\r\n\r\n".encode()
    with service.connect() as connection:
        for content in (b"hello", b"other"):
            start = service.request("PUT", run.at("x"), CHUNKED) + b"5\r\n" + content + b"\r\n"
            for packet in (start, end) if apart else (start + end,):
                connection.sendall(packet)
                time.sleep(0.05)
            answer = read_answer(connection)
            assert answer.status == 201
            answer.read()
    assert [artifact["contentType"] for artifact in run.history()] == ["application/octet-stream"] * 3
