"""HTTP/1.1 on one connection: uvicorn's protocol, where it takes a request for another than its sender meant.

httptools ends a request that asks to upgrade at its headers, and reads its body as the next request. Java's
HttpClient and `curl --http2` ask so with every request.
"""

import fcntl
import sys
import termios
from contextlib import suppress
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """Serves what asks to upgrade as if it did not (RFC 9110, section 7.8), and keeps trailers apart.

    By the extension `offload.connection`, applications can learn how many written bytes are `untaken` by the
    peer, and `abort` the connection: to close it waits until all are taken.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = _Parser(self)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        connection: dict[object, object] = {"untaken": self._untaken, "abort": self.transport.abort}
        self.scope["extensions"] = {"offload.connection": connection}

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("this is no proxy")
        if self.parser.should_upgrade():
            return  # it comes again
        super().on_headers_complete()
        # What comes from now on are trailers, which are no headers (RFC 9110, section 6.5.1).
        self.headers = []

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _untaken(self) -> int:
        """How many bytes the peer has not taken; 0 once the system has all, and takes more."""
        waiting: int = self.transport.get_write_buffer_size()
        if waiting and not self.transport.is_closing():
            descriptor = self.transport.get_extra_info("socket").fileno()
            with suppress(OSError):  # where the system does not tell, what waits here must do
                waiting += int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return waiting

    def past_the_upgrade(self) -> "_Parser":
        """A new parser that has read the last request's head, as it would be of one that asks for nothing.

        New, because the one that read it takes nothing more where the connection is not to go on.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        fields = (b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade")
        head = b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, b"".join(fields))
        parser = self.parser = _Parser(self)
        parser.feed_data(head)
        return parser


class _Parser(httptools.HttpRequestParser):
    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:
        parser, rest = self, memoryview(data)
        while True:
            try:
                httptools.HttpRequestParser.feed_data(parser, rest)
            except httptools.HttpParserUpgrade as ended:
                parser, rest = self._protocol.past_the_upgrade(), rest[ended.args[0] :]
            else:
                return
