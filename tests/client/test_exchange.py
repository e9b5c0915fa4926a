"""What every request shares: the address, answers that are none of an offload server, and the client's end.

Cases: addresses that are none, with a password, a query, a fragment, or a host or port that can't be; a token
that rotates; answers that are not ours, redirects of a body, without end and to nowhere; content that is not
encoded as it says; pages that are none; parts of an address that are no UTF-8; times and ids that are none; a
client that is closed before a request and between two attempts.
"""

import io
import threading
from collections.abc import Callable
from typing import Any

import pytest

from offload.client import Client, ClientError, OutOfReachError, StrangeAnswerError
from offload.errors import ConfigError, InvalidInputError

RUN = "agents/one"


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://host", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Client(url)


def test_the_token_goes_with_each_request_and_may_rotate(server: Any) -> None:
    tokens = iter(["first\n", "second"])
    with Client(server.url, lambda: next(tokens)) as client:
        client.put(RUN, "a", b"x")
        client.put(RUN, "b", b"x")
    assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host",
        "http://user:hunter2@[::",
        "http://user:hunt/er2@host:x",
        "user:hunter2@host",
        "http://host/?token=hunter2",
        "http://host#hunter2",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(url)
    assert "hunt" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://a..b", f"http://{'a' * 64}.b", "http://host:65536", "http://h/\ud800"]
)
def test_an_address_that_no_connection_can_have_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL"):
        Client(url)


def test_an_answer_that_is_not_ours_is_told_from_one(server: Any, client: Client, trouble: Any) -> None:
    server.troubles = [trouble(200, problem={"items": 1})]
    with pytest.raises(StrangeAnswerError, match="Artifact"):
        client.put(RUN, "a", b"x")


def test_a_redirect_is_not_followed_with_a_body(server: Any, client: Client, trouble: Any) -> None:
    server.troubles = [trouble(308, headers={"location": "https://other/"})]
    with pytest.raises(StrangeAnswerError, match="https://other/"):
        client.put(RUN, "a", b"x")


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("/v1/again", StrangeAnswerError),
        ("http://a..b/", OutOfReachError),
        ("http://host:65536/", OutOfReachError),
        ("http://[::", OutOfReachError),
    ],
)
def test_a_redirect_without_end_or_to_nowhere_is_an_error_of_ours(
    server: Any, trouble: Any, location: str, error: type[Exception]
) -> None:
    server.troubles = [trouble(302, headers={"location": location}) for _ in range(30)]
    with Client(server.url, retry_for=0) as client, pytest.raises(error):
        client.download(RUN, "a", io.BytesIO())


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.run(RUN),
        lambda client: client.put(RUN, "a", b"x"),
        lambda client: client.download(RUN, "a", io.BytesIO()),
    ],
)
@pytest.mark.parametrize("status", [200, 404])
def test_content_that_is_not_encoded_as_it_says_is_a_strange_answer(
    server: Any, client: Client, trouble: Any, ask: Callable[[Client], object], status: int
) -> None:
    server.troubles = [trouble(status, headers={"content-encoding": "gzip"})]
    with pytest.raises(StrangeAnswerError):
        ask(client)


@pytest.mark.parametrize("page", [{"items": None}, {"items": [], "next": 5}, {}])
def test_a_page_that_is_none_is_a_strange_answer(
    server: Any, client: Client, trouble: Any, page: dict[str, Any]
) -> None:
    server.troubles = [trouble(200, problem=page)]
    with pytest.raises(StrangeAnswerError, match="Page"):
        list(client.history(RUN))


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.run("agents/\udcff"),
        lambda client: client.run(RUN, uid="\udcff"),
        lambda client: client.put(RUN, "a", b"x", uid="\udcff"),
        lambda client: list(client.runs("\udcff")),
        lambda client: list(client.runs("agents", agent="\udcff")),
        lambda client: client.run("agents/" + "x" * 70_000),
        lambda client: list(client.history(RUN, since="foo")),
        lambda client: list(client.history(RUN, until="2030-01-31")),
        lambda client: client.artifact("nope"),
        lambda client: client.download(RUN, "a", io.BytesIO(), version="nope"),
    ],
)
def test_what_no_address_can_hold_is_refused_before_anything_is_sent(
    server: Any, client: Client, ask: Callable[[Client], object]
) -> None:
    with pytest.raises(InvalidInputError):
        ask(client)
    assert server.seen == []


def test_a_closed_client_says_so(client: Client) -> None:
    client.run(RUN)
    client.close()
    for ask in (client.run, lambda run: client.download(run, "a", io.BytesIO())):
        with pytest.raises(ClientError, match="the client is closed"):
            ask(RUN)


def test_a_client_that_is_closed_between_two_attempts_makes_no_other(server: Any, trouble: Any) -> None:
    server.troubles = [trouble(503, headers={"retry-after": "30"})]
    client = Client(server.url, notice=lambda _: threading.Timer(0.2, client.close).start())
    with pytest.raises(ClientError, match="the client is closed"):
        client.run(RUN)
    assert len(server.seen) == 1
