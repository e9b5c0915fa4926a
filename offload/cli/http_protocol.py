"""HTTP/1.1 on one connection: uvicorn's protocol, where it takes a request for another than its sender meant.

httptools ends a request that asks to upgrade at its headers, and reads its body as the next request. Java's
HttpClient and `curl --http2` ask so with every request.
"""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """Serves what asks to upgrade as if it did not (RFC 9110, section 7.8), and keeps trailers apart.

    As the extension `offload.abort`, applications can end a connection at once: to close it waits until its
    peer has taken what is written.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = _Parser(self)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"offload.abort": {"call": self.transport.abort}}

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
