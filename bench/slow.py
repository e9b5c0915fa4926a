"""Senders that are slow: they announce a body and send 1 KiB of it a second."""

import re
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

A_SECOND = 1024
_TICK = 0.05
_PATIENCE = 60.0


class SlowSenders:
    """One connection for each URL, all served by one thread."""

    def __init__(self, urls: Sequence[str], seconds: float, *, ahead: int = 0, length: int = 0) -> None:
        """They send for `seconds`, after `ahead` bytes at once; a `length` may announce more than that."""
        self._urls, self._seconds, self._ahead = urls, seconds, ahead
        self._length = length or ahead + A_SECOND * int(seconds)
        self._open: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._send)
        self._stop = threading.Event()
        self._first_answer = threading.Event()
        self._statuses: Counter[str] = Counter()
        self.waited = 0.0

    @property
    def answers(self) -> dict[str, int]:
        """How many were answered with which status; `none`: not within a minute of their last byte."""
        return dict(self._statuses)

    def start(self) -> None:
        """Connect all and begin."""
        for url in self._urls:
            parts = urlsplit(url)
            sender = socket.create_connection((parts.hostname, parts.port))
            head = (
                f"PUT {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {self._length}\r\n\r\n"
            )
            sender.sendall(head.encode() + bytes(self._ahead))
            sender.setblocking(False)
            self._selector.register(sender, selectors.EVENT_READ)
            self._open[sender.fileno()] = sender
        self._thread.start()

    def wait(self, *, until_answered: bool = False) -> None:
        """Until they have sent all and were answered; or until the first answer, and end the rest."""
        if until_answered:
            self._first_answer.wait(self._seconds + _PATIENCE)
            self._stop.set()
        self._thread.join()
        self._selector.close()

    def _send(self) -> None:
        began = time.monotonic()
        for second in range(1, int(self._seconds) + 1):
            for file, sender in list(self._open.items()):
                self._send_one(file, sender)
            while not self._stop.is_set() and (left := began + second - time.monotonic()) > 0:
                self._hear(min(left, _TICK), began)
            if self._stop.is_set():
                break
        patience = time.monotonic() + _PATIENCE
        while self._open and not self._stop.is_set() and time.monotonic() < patience:
            self._hear(_TICK, began)
        self._first_answer.set()
        self.waited = self.waited or time.monotonic() - began
        for file in list(self._open):
            self._end(file, "none")

    def _send_one(self, file: int, sender: socket.socket) -> None:
        try:
            sender.send(bytes(A_SECOND))
        except BlockingIOError:
            pass  # it is held up; what it lacks would only make it slower
        except OSError:
            self._end(file, "reset")

    def _hear(self, seconds: float, began: float) -> None:
        for key, _ in self._selector.select(seconds):
            try:
                answer = self._open[key.fd].recv(4096)
            except OSError:
                answer = b""
            status = re.match(rb"HTTP/1\.1 (\d+)", answer)
            self.waited = self.waited or time.monotonic() - began
            self._end(key.fd, status[1].decode() if status else "reset")
            self._first_answer.set()

    def _end(self, file: int, status: str) -> None:
        sender = self._open.pop(file)
        self._selector.unregister(sender)
        sender.close()
        self._statuses[status] += 1
