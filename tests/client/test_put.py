"""`Client.put` against a real HTTP server.

Cases: what is sent (address, parameters, headers) and what comes back; names that need percent-encoding; an
empty file; the same bytes again; sources (path, bytes, stream, long stream); what is tried again (lost
connections, 429 and 5xx with Retry-After, a lost reply) and what is not; answers before the body was read,
for both of uvicorn's HTTP implementations and for a server that only resets; a file that shrinks or changes
while it is sent; refusals before anything is sent.
"""

import hashlib
import io
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpcore
import pytest

from offload.client import (
    AnswerError,
    BusyError,
    Client,
    MissingError,
    NameTakenError,
    OutOfReachError,
    SourceChangedError,
    SourceSpentError,
    UnauthorizedError,
)
from offload.client.transport import Transport
from offload.domain.digests import format_digest
from offload.errors import InvalidExpiryError, InvalidInputError, InvalidNameError

RUN = "agents/one"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BIG = bytes(range(256)) * 4096 * 12  # 12 MiB: more than a stream is kept, and than socket buffers hold


def test_a_file_arrives_with_what_describes_it(server: Any, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"hello")
    artifact = client.put(RUN, "logs/a.log", path, type="log", content_type="text/plain", expires="7d")
    assert server.current == {"logs/a.log": b"hello"}
    assert artifact.created is True
    assert artifact.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert (artifact.run.namespace, artifact.run.name) == ("agents", "one")
    request = server.seen[0]
    assert request.path == "/v1/namespaces/agents/agentruns/one/artifacts/logs/a.log"
    assert request.query == {"type": "log", "expires": "7d"}
    assert request.headers["content-length"] == "5"
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["repr-digest"] == format_digest(hashlib.sha256(b"hello").digest())
    assert "expect" not in request.headers


def test_fields_that_a_newer_server_adds_are_kept(client: Client) -> None:
    artifact = client.put(RUN, "a", b"x")
    assert artifact.to_json()["addedLater"] == {"newField": 1}
    assert "created" not in artifact.to_json()


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "ümläut/日本語.txt",
        "a?b#c%d&e=f+g",
        "100%25",
        "semi;colon:at@",
        "~tilde[1]*",
        "%2e%2e/x",
    ],
)
def test_names_survive_the_address(server: Any, client: Client, name: str) -> None:
    artifact = client.put(RUN, name, b"x")
    assert artifact.name == name
    assert set(server.current) == {name}
    target = io.BytesIO()
    client.download(RUN, name, target)
    assert target.getvalue() == b"x"


def test_an_empty_file_is_an_artifact(server: Any, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert client.put(RUN, "empty", path).size_bytes == 0
    assert server.current == {"empty": b""}


def test_the_same_bytes_again_are_the_same_artifact(server: Any, client: Client) -> None:
    first = client.put(RUN, "a", b"x")
    second = client.put(RUN, "a", b"x")
    assert first.id == second.id
    assert second.created is False
    assert len(server.artifacts) == 1


def test_a_large_body_that_is_stored_already_is_not_sent(server: Any, client: Client) -> None:
    first = client.put(RUN, "big", BIG)
    second = client.put(RUN, "big", BIG)
    assert second.id == first.id
    assert server.seen[0].headers["expect"] == "100-continue"
    assert server.seen[1].body_bytes == 0


def test_a_short_stream_is_sent_with_length_and_digest(server: Any, client: Client) -> None:
    client.put(RUN, "a", io.BytesIO(b"piped"))
    assert server.current == {"a": b"piped"}
    assert server.seen[0].headers["content-length"] == "5"


def test_a_long_stream_is_sent_in_chunks(server: Any, client: Client) -> None:
    client.put(RUN, "a", io.BytesIO(BIG))
    assert server.current == {"a": BIG}
    assert server.seen[0].headers["transfer-encoding"] == "chunked"


def test_progress_ends_at_the_size(client: Client) -> None:
    moves = []
    client.put(RUN, "a", BIG, progress=lambda sent, total: moves.append((sent, total)))
    assert moves[0] == (0, len(BIG))
    assert moves[-1] == (len(BIG), len(BIG))
    assert moves == sorted(moves)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: Any, client: Client, trouble: Any, status: int) -> None:
    server.troubles = [trouble(status), trouble(status)]
    client.put(RUN, "a", b"x")
    assert server.current == {"a": b"x"}
    assert len(server.seen) == 3


def test_retry_after_is_honoured(server: Any, trouble: Any) -> None:
    notices = []
    server.troubles = [trouble(503, headers={"retry-after": "1"})]
    with Client(server.url, notice=notices.append) as client:
        client.put(RUN, "a", b"x")
    assert float(notices[0].rpartition("again in ")[2].removesuffix(" s")) >= 1


def test_a_longer_wait_than_we_bear_is_an_error_at_once(server: Any, client: Client, trouble: Any) -> None:
    server.troubles = [
        trouble(503, headers={"retry-after": "3600"}, problem={"type": "/e/store-unavailable"})
    ]
    with pytest.raises(BusyError) as caught:
        client.put(RUN, "a", b"x")
    assert caught.value.problem.kind == "store-unavailable"
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, AnswerError),
        (401, UnauthorizedError),
        (404, MissingError),
        (409, AnswerError),
        (413, AnswerError),
        (422, AnswerError),
        (501, AnswerError),
    ],
)
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("source", [b"x", BIG], ids=["small", "big"])
def test_what_does_not_pass_is_an_error_with_its_problem(
    server: Any, client: Client, trouble: Any, status: int, error: type[Exception], early: bool, source: bytes
) -> None:
    problem = {"type": "https://x/errors/some-word", "title": "Some", "detail": "because"}
    server.troubles = [trouble(status, early=early, problem=problem)]
    with pytest.raises(error) as caught:
        client.put(RUN, "a", source)
    assert caught.value.problem.kind == "some-word"
    assert caught.value.problem.request_id == "req-1"
    assert str(caught.value) == f"because ({status} some-word, request req-1)"
    assert len(server.seen) == 1
    assert server.artifacts == []


def test_an_early_refusal_of_a_large_body_costs_none_of_it(server: Any, client: Client, trouble: Any) -> None:
    server.troubles = [trouble(404, early=True)]
    with pytest.raises(MissingError):
        client.put(RUN, "a", BIG)
    assert server.seen[0].body_bytes == 0


def test_a_stream_is_sent_again_after_an_early_refusal(server: Any, client: Client, trouble: Any) -> None:
    server.troubles = [trouble(503, early=True)]
    client.put(RUN, "a", io.BytesIO(BIG))
    assert server.current == {"a": BIG}


@pytest.mark.parametrize("status", [503, 417])
def test_a_stream_that_was_read_past_what_is_kept_is_not_sent_again(
    server: Any, client: Client, trouble: Any, status: int
) -> None:
    server.troubles = [trouble(status)]
    with pytest.raises(SourceSpentError, match="can't be read again"):
        client.put(RUN, "a", io.BytesIO(BIG))
    assert len(server.seen) == 1
    assert server.current == {}


def test_a_lost_reply_and_a_retry_give_one_artifact(server: Any, client: Client, trouble: Any) -> None:
    server.troubles = [trouble(lose_reply=True)]
    artifact = client.put(RUN, "a", b"x")
    assert artifact.created is False
    assert len(server.artifacts) == 1


def test_only_new_refuses_a_name_that_exists(server: Any, client: Client) -> None:
    client.put(RUN, "a", b"x")
    with pytest.raises(NameTakenError):
        client.put(RUN, "a", b"y", only_new=True)
    assert server.current == {"a": b"x"}


def test_only_new_knows_its_own_artifact_after_a_lost_reply(
    server: Any, client: Client, trouble: Any
) -> None:
    server.troubles = [trouble(lose_reply=True)]
    artifact = client.put(RUN, "a[1]", b"x", only_new=True)
    assert str(artifact.id) == server.artifacts[0]["id"]
    assert artifact.created is True


def test_only_new_refuses_a_name_that_has_the_same_bytes(server: Any, client: Client) -> None:
    client.put(RUN, "a", b"x")
    with pytest.raises(NameTakenError):
        client.put(RUN, "a", b"x", only_new=True)
    assert [seen.method for seen in server.seen] == ["PUT", "PUT"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (503, "too-many-uploads"),
        (503, "store-unavailable"),
        (503, "shutting-down"),
        (503, "run-changed"),
        (408, "upload-timed-out"),
    ],
)
def test_only_new_takes_nothing_for_its_own_after_a_refusal(
    server: Any, client: Client, trouble: Any, status: int, kind: str
) -> None:
    client.put(RUN, "a", b"x")
    server.troubles = [trouble(status, problem={"type": f"urn:offload:problem:{kind}"})]
    with pytest.raises(NameTakenError):
        client.put(RUN, "a", b"x", only_new=True)


def test_only_new_takes_nothing_for_its_own_where_no_connection_came_about(
    server: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(server.url) as other:
        other.put(RUN, "a", b"x")
    connect = httpcore.SyncBackend.connect_tcp
    tried: list[str] = []

    def refuse_once(backend: httpcore.SyncBackend, host: str, *arguments: Any) -> httpcore.NetworkStream:
        tried.append(host)
        if len(tried) == 1:
            raise httpcore.ConnectError("refused")
        return connect(backend, host, *arguments)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", refuse_once)
    with pytest.raises(NameTakenError):
        client.put(RUN, "a", b"x", only_new=True)
    assert len(tried) == 2


def test_only_new_says_that_a_name_is_taken_where_the_token_may_not_read(
    server: Any, client: Client, trouble: Any
) -> None:
    client.put(RUN, "a", b"x")
    taken = trouble(412, problem={"type": "urn:offload:problem:name-exists"})
    server.troubles = [trouble(503), taken, trouble(404)]
    with pytest.raises(NameTakenError):
        client.put(RUN, "a", b"x", only_new=True)


def test_a_server_that_comes_up_late_is_reached() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    late = _raw_server(lambda c: (c.recv(65536), c.sendall(NOT_FOUND)), port=port)
    threading.Timer(0.6, late.__enter__).start()
    with Client(f"http://127.0.0.1:{port}", retry_for=10) as client, pytest.raises(MissingError):
        client.put(RUN, "a", b"x")
    late.__exit__()


def test_a_server_that_never_answers_is_out_of_reach() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}", retry_for=0.5) as client,
        pytest.raises(OutOfReachError, match=str(port)),
    ):
        client.put(RUN, "a", b"x")


@pytest.mark.parametrize("closing", ["at once", "after reading a bit"])
def test_an_answer_is_heard_from_a_server_that_reads_no_more(closing: str) -> None:
    head = b"HTTP/1.1 413 Too Large\r\nContent-Length: 28\r\nConnection: close\r\n\r\n"
    answer = head + b'{"type":"/e/upload-too-big"}'

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        if closing != "at once":
            connection.recv(65536)
        connection.sendall(answer)

    with _raw_server(serve) as url, Client(url, retry_for=0) as client, pytest.raises(AnswerError) as caught:
        client.put(RUN, "a", io.BytesIO(BIG))
    assert caught.value.problem.kind == "upload-too-big"


def test_a_server_that_knows_no_expect_gets_the_body_after_a_moment() -> None:
    taken = bytearray()

    def serve(connection: socket.socket) -> None:
        while len(taken) < len(BIG):
            piece = connection.recv(1 << 20)
            if not piece:
                return
            taken.extend(piece.partition(b"\r\n\r\n")[2] if piece.startswith(b"PUT") else piece)
        connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")

    with (
        _raw_server(serve) as url,
        Client(url, retry_for=0) as client,
        pytest.raises(AnswerError, match="Bad"),
    ):
        client.put(RUN, "a", BIG)
    assert bytes(taken) == BIG


def test_expectation_failed_is_followed_by_the_request_without_it(
    server: Any, client: Client, trouble: Any
) -> None:
    server.troubles = [trouble(417, early=True)]
    client.put(RUN, "a", BIG)
    assert server.current == {"a": BIG}
    assert "expect" not in server.seen[1].headers


def test_a_file_that_shrinks_while_it_is_sent_is_an_error_and_no_artifact(
    server: Any, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "shrinks"
    path.write_bytes(BIG)

    def shrink(sent: int, _: int | None) -> None:
        if sent:
            path.write_bytes(b"")

    with pytest.raises(SourceChangedError, match="shrank"):
        client.put(RUN, "a", path, progress=shrink)
    assert server.artifacts == []


def test_a_file_that_changes_while_it_is_sent_is_an_error_and_no_artifact(
    server: Any, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "changes"
    path.write_bytes(BIG)

    def change(sent: int, _: int | None) -> None:
        if sent == 0:
            with path.open("r+b") as file:
                file.seek(-1, 2)
                file.write(b"!")

    with pytest.raises(SourceChangedError, match="changed"):
        client.put(RUN, "a", path, progress=change)
    assert server.artifacts == []


def test_a_log_that_grows_while_it_is_sent_is_stored_as_it_was(
    server: Any, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "grows"
    path.write_bytes(b"one\n")

    def grow(_sent: int, _total: int | None) -> None:
        with path.open("ab") as file:
            file.write(b"more\n")

    client.put(RUN, "a", path, progress=grow)
    assert server.current == {"a": b"one\n"}


def test_a_uid_of_another_run_is_refused(client: Client) -> None:
    with pytest.raises(AnswerError) as caught:
        client.put(RUN, "a", BIG, uid="another")
    assert caught.value.problem.kind == "run-uid-mismatch"


@pytest.mark.parametrize(
    ("expires", "sent"),
    [
        (timedelta(hours=36), "36h"),
        ("90s", "90s"),
        (datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00Z"),
        ("2030-01-01T02:00:00+02:00", "2030-01-01T00:00:00Z"),
    ],
)
def test_an_expiry_may_be_a_duration_or_a_time(server: Any, client: Client, expires: Any, sent: str) -> None:
    client.put(RUN, "a", b"x", expires=expires)
    assert server.seen[0].query["expires"] == sent


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"run": "agents"}, InvalidInputError),
        ({"run": "a/b/c"}, InvalidInputError),
        ({"name": "../up"}, InvalidNameError),
        ({"name": ""}, InvalidNameError),
        ({"type": "Not A Label"}, InvalidInputError),
        ({"content_type": "text"}, InvalidInputError),
        ({"expires": "soon"}, InvalidExpiryError),
        ({"expires": "99999999d"}, InvalidExpiryError),
        ({"expires": "2030-01-01T00:00:00"}, InvalidExpiryError),
        ({"source": 7}, InvalidInputError),
        ({"source": io.StringIO("text")}, InvalidInputError),
    ],
)
def test_what_breaks_a_rule_is_refused_before_anything_is_sent(
    server: Any, client: Client, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.put(**{"run": RUN, "name": "a", "source": b"x", **arguments})
    assert server.seen == []


def test_a_connection_that_the_server_closed_meanwhile_does_no_harm(server: Any, client: Client) -> None:
    for number in range(3):
        client.put(RUN, f"a{number}", b"x")
        _end_connections(client)
    assert len(server.current) == 3


class _raw_server:  # noqa: N801 - reads as the context manager that it is
    """Serves one connection by `serve` and closes it without reading on."""

    def __init__(self, serve: Callable[[socket.socket], object], port: int = 0) -> None:
        self._serve, self._port = serve, port
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._thread.start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(10)

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self._serve(connection)


def _end_connections(client: Client) -> None:
    """Shut every idle connection down, as a server does that has waited long enough."""
    transport = client._exchange._http._transport
    assert isinstance(transport, Transport)
    (pool,) = transport._pools.values()
    for connection in pool.connections:
        connection._connection._network_stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
