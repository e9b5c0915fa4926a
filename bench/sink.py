"""An S3 server that discards what it is sent and answers as a store would: the sender's own cost shows.

    python -m bench.sink [--port PORT] [--bucket NAME]

serves on 127.0.0.1 until it is ended, and prints `url=http://127.0.0.1:PORT` once it does. Any credentials
will do: signatures are not looked at. Linux only.

It knows buckets, objects, multipart uploads, listings and ranges; of an object it keeps the size and what
was said of it, and the bytes only where they are few (the service's marker, a probe). A read gives zeros.
What was measured against other forms of it is in docs/decisions/0015-benchmark.md.
"""

import argparse
import contextlib
import re
import select
import signal
import socket

from bench.sink_store import Answer, Request, Store

_TAKE = 64 * 1024
_DISCARD = 8 * 1024 * 1024
"""Bytes that one call throws away at most."""
_WAKE = 256 * 1024
"""A large body wakes us up when so much of it is there, not for every segment."""
_KEEP = 1024
_KEEP_POSTED = 4 * 1024 * 1024
"""Bodies up to this are kept; those of a POST are questions, such as the keys to delete."""

_SCRATCH = bytearray(_DISCARD)
_ZEROS = bytes(1024 * 1024)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class _Connection:
    """One client: requests one after the other, each answered once its body has come."""

    __slots__ = (
        "_closes",
        "_head",
        "_input",
        "_kept",
        "_left",
        "_out",
        "_socket",
        "_store",
        "_zeros",
        "size",
    )

    def __init__(self, accepted: socket.socket, store: Store) -> None:
        self._socket, self._store = accepted, store
        self._input = b""
        self._head: bytes | None = None
        self._kept: list[bytes] | None = None
        self._left = self.size = self._zeros = 0
        self._out = b""
        self._closes = False

    @property
    def is_sending(self) -> bool:
        return bool(self._out or self._zeros)

    def receive(self) -> None:
        """Take what is there; raises `EOFError` where the connection is over."""
        if self._head is not None and self._kept is None:
            # Linux: the bytes of a TCP stream go without being copied.
            count = self._socket.recv_into(_SCRATCH, min(self._left, _DISCARD), socket.MSG_TRUNC)
            if not count:
                raise EOFError
            self._left -= count
            if self._left < _WAKE <= self._left + count:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            if not self._left:
                self._answer()
            return
        data = self._socket.recv(_TAKE)
        if not data:
            raise EOFError
        self._input += data
        self._advance()

    def send(self) -> None:
        """Send what is left of the answer, as far as the client takes it."""
        with contextlib.suppress(BlockingIOError):
            while self._out:
                self._out = self._out[self._socket.send(self._out) :]
            while self._zeros:
                self._zeros -= self._socket.send(memoryview(_ZEROS)[: self._zeros])
        if not self.is_sending:
            if self._closes:
                raise EOFError
            if self._input:
                self._advance()

    def close(self) -> None:
        self._socket.close()

    def _advance(self) -> None:
        while not self.is_sending:
            if self._head is None:
                end = self._input.find(b"\r\n\r\n")
                if end < 0:
                    return
                self._begin(self._input[:end])
                self._input = self._input[end + 4 :]
            taken = self._input[: self._left]
            if taken:
                self._input = self._input[len(taken) :]
                self._left -= len(taken)
                if self._kept is not None:
                    self._kept.append(taken)
            if self._left:
                if self._kept is None and self._left >= _WAKE:
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _WAKE)
                return
            self._answer()

    def _begin(self, head: bytes) -> None:
        self._head = head
        length = _LENGTH.search(head)
        self._left = self.size = int(length[1]) if length else 0
        posted = head.startswith(b"POST")
        self._kept = [] if self.size <= (_KEEP_POSTED if posted else _KEEP) else None
        self._closes = bool(_CLOSES.search(head) or _CHUNKED.search(head))
        if self._left and _EXPECTS.search(head):
            self._socket.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self) -> None:
        head, self._head = self._head or b"", None
        if _CHUNKED.search(head):  # as S3, which wants a length
            answer = Answer.error(411, "MissingContentLength")
        else:
            body = b"".join(self._kept) if self._kept is not None else None
            answer = self._store.answer(Request(head, self.size, body))
        self._out, self._zeros = answer.wire(head_only=head.startswith(b"HEAD"))
        self.send()


def serve(listener: socket.socket, store: Store) -> None:
    """Answer clients of `listener`, for ever."""
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, _Connection] = {}
    sending: set[int] = set()
    while True:
        for file, _events in epoll.poll():
            if file == listener.fileno():
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[accepted.fileno()] = _Connection(accepted, store)
                epoll.register(accepted.fileno(), select.EPOLLIN)
                continue
            connection = connections[file]
            try:
                if file in sending:
                    connection.send()
                else:
                    connection.receive()
            except BlockingIOError:
                continue
            except (EOFError, OSError):
                del connections[file]
                sending.discard(file)
                epoll.unregister(file)  # closing does not, where a fork has a copy of it
                connection.close()
                continue
            if connection.is_sending != (file in sending):
                sending ^= {file}
                epoll.modify(file, select.EPOLLOUT if file in sending else select.EPOLLIN)


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m bench.sink", description="an S3 server that discards")
    options.add_argument("--port", type=int, default=0, help="0: one that is free")
    options.add_argument("--bucket", default="offload", help="a bucket that is there at the start")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with socket.create_server(("127.0.0.1", chosen.port), backlog=1024) as listener:
        print(f"url=http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            serve(listener, Store(chosen.bucket))


if __name__ == "__main__":
    main()
