"""Slow senders: they send for as long as they were told, and count what they are answered.

Cases: all are answered once they have sent all; one is refused early; one is never answered.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench import slow
from bench.sink import serve
from bench.sink_store import Store
from bench.slow import SlowSenders


@contextmanager
def listening(serve_one: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve_one, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/offload/x"


def test_all_are_answered_once_they_have_sent_all() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener, Store("offload")), daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/offload/"

    senders = SlowSenders([url + str(number) for number in range(5)], 2)
    senders.start()
    senders.wait()

    assert senders.answers == {"200": 5}
    assert 1 <= senders.waited < 10


def test_an_early_refusal_is_heard() -> None:
    def refuse(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(1000)
            accepted.sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")

    with listening(refuse) as url:
        sender = SlowSenders([url], 30, ahead=10, length=1000)
        sender.start()
        sender.wait(until_answered=True)

    assert sender.answers == {"408": 1}
    assert sender.waited < 10


def test_one_that_is_never_answered_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow, "_PATIENCE", 0.2)
    heard = threading.Event()

    def say_nothing(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted:
            heard.wait(30)

    with listening(say_nothing) as url:
        sender = SlowSenders([url], 1, length=1000)
        sender.start()
        sender.wait(until_answered=True)
        heard.set()

    assert sender.answers == {"none": 1}
