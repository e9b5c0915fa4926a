"""multipart/form-data (RFC 7578) read as a stream: one part after the other, nothing spooled."""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from offload.errors import InvalidMultipartError, UnsupportedMediaTypeError, UploadTooLargeError

HEADER_BYTES = 16 * 2**10
"""Bytes of one part's headers at most."""
PARTS = 2_000
"""Parts of one body at most: its answer names each."""
SKIPPED_BYTES = 64 * 2**20
"""What is read of a refused part to reach the next one, and of an epilogue to reach the end."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part: what its headers say, and its bytes, to be read before the next part is asked for."""

    headers: Mapping[str, str]
    """By lower-case name."""
    filename: str | None
    body: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class _Headers:
    values: Mapping[str, str]


class _PartEnd:
    """The bytes of a part are complete."""


async def read_parts(content_type: str, body: AsyncIterator[bytes]) -> AsyncIterator[Part]:
    """The parts of `body`; what a consumer leaves unread of one is skipped.

    Raises:
        UnsupportedMediaTypeError: `content_type` is not multipart/form-data with a boundary.
        InvalidMultipartError: the body breaks the syntax, ends early, or has no part.
    """
    events = _events(_boundary(content_type), body)
    count = 0
    async for event in events:
        if not isinstance(event, _Headers):
            continue
        count += 1
        if count > PARTS:
            raise InvalidMultipartError(f"the body has more than {PARTS} parts")
        part = Part(event.values, _filename(event.values), _part_body(events))
        yield part
        skipped = 0
        async for chunk in part.body:
            skipped += len(chunk)
            if skipped > SKIPPED_BYTES:
                raise UploadTooLargeError("a file was refused, and too much of it follows to be passed over")
    if not count:
        raise InvalidMultipartError("the body has no part")


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise UnsupportedMediaTypeError(
            f"must be multipart/form-data with a boundary, or use PUT …/artifacts/NAME; got {content_type!r}"
        )
    return options[b"boundary"]


def _filename(headers: Mapping[str, str]) -> str | None:
    _, options = parse_options_header(headers.get("content-disposition", ""))
    encoded = options.get(b"filename")
    if encoded is None:
        return None
    try:
        return encoded.decode()  # RFC 7578, section 5.1: UTF-8, not percent-encoded
    except UnicodeDecodeError:
        return encoded.decode("utf-8", "surrogateescape")  # refused by the rules of names, with its bytes


async def _part_body(events: AsyncIterator[bytes | _Headers | _PartEnd]) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, _PartEnd):
            return
        if isinstance(event, bytes):
            yield event


async def _events(boundary: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes | _Headers | _PartEnd]:
    """What the parser finds, in order."""
    found: deque[bytes | _Headers | _PartEnd] = deque()
    reader = _Reader(found)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.header_field,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_headers_finished": reader.headers_finished,
                "on_part_data": reader.data,
                "on_part_end": reader.end,
                "on_end": reader.all_done,
            },
            # The reader counts; the parser's own bounds are lower than what is promised.
            max_header_count=HEADER_BYTES,
            max_header_size=HEADER_BYTES,
        )
        epilogue = 0
        async for chunk in body:
            epilogue += len(chunk) if reader.complete else 0
            if epilogue > SKIPPED_BYTES:
                break
            broken: FormParserError | InvalidMultipartError | None = None
            try:
                parser.write(chunk)
            except (FormParserError, InvalidMultipartError) as error:
                broken = error  # once what came whole before it is told
            while found:
                yield found.popleft()
            if broken:
                raise broken
        parser.finalize()
    except FormParserError as error:
        raise InvalidMultipartError(f"the body is not valid multipart/form-data: {error}") from error
    if not reader.complete:
        raise InvalidMultipartError("the body ends before its closing boundary")


class _Reader:
    """The parser's callbacks, as events."""

    def __init__(self, found: "deque[bytes | _Headers | _PartEnd]") -> None:
        self._found = found
        self.complete = False
        self.begin()

    def begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._field, self._value, self._size = bytearray(), bytearray(), 0

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._count(end - start)

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def header_end(self) -> None:
        # One character a byte, as the parser of options wants it; only a filename's bytes mean UTF-8.
        field, value = (data.decode("latin-1").strip() for data in (self._field, self._value))
        self._headers[field.lower()] = value
        self._field, self._value = bytearray(), bytearray()
        self._count(len(": \r\n"))

    def headers_finished(self) -> None:
        self._found.append(_Headers(self._headers))

    def data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def end(self) -> None:
        self._found.append(_PartEnd())

    def all_done(self) -> None:
        self.complete = True

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > HEADER_BYTES:
            raise InvalidMultipartError(f"a part's headers have more than {HEADER_BYTES} bytes")
