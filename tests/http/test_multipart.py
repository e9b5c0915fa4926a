"""The multipart parser by itself.

Cases: however the body is cut into chunks, the parts are the same (property); every chunk size of one body;
a part that is not read is skipped; content that looks like a boundary; a preamble and an epilogue; headers
are by lower-case name, the last of a name wins.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offload.errors import InvalidMultipartError
from offload.http.multipart import read_parts

KIND = 'multipart/form-data; boundary="b-1"'
Parts = list[tuple[str | None, bytes]]


async def _chunks(body: bytes, cuts: Sequence[int]) -> AsyncIterator[bytes]:
    start = 0
    for cut in [*sorted(cuts), len(body)]:
        if cut > start:
            yield body[start:cut]
            start = cut


def _read(body: bytes, cuts: Sequence[int] = (), *, skip: frozenset[int] = frozenset()) -> Parts:
    async def reading() -> Parts:
        found: Parts = []
        async for part in read_parts(KIND, _chunks(body, cuts)):
            data = b""
            if len(found) not in skip:
                async for piece in part.body:
                    data += piece
            found.append((part.filename, data))
        return found

    return asyncio.run(reading())


def _body(parts: Sequence[tuple[str, bytes]]) -> bytes:
    head = 'Content-Disposition: form-data; name="f"; filename="{}"\r\n\r\n'
    return (
        b"".join(b"--b-1\r\n" + head.format(name).encode() + data + b"\r\n" for name, data in parts)
        + b"--b-1--\r\n"
    )


NAMES = st.text("aé日/. %;=", min_size=1, max_size=8)
CONTENT = (
    st.lists(st.sampled_from([b"\r\n", b"--b-1", b"-", b"--b-1-", b"\r", b"x", b"\r\n--b-", b"\0\xff"]))
    .map(b"".join)
    .filter(lambda data: b"\r\n--b-1" not in b"\r\n" + data)
)


@given(parts=st.lists(st.tuples(NAMES, CONTENT), min_size=1, max_size=4), cuts=st.lists(st.integers(0, 400)))
def test_parts_do_not_depend_on_how_the_body_is_cut(parts: Parts, cuts: list[int]) -> None:
    body = _body([(str(name), data) for name, data in parts])
    assert _read(body, [cut for cut in cuts if cut < len(body)]) == parts


@pytest.mark.parametrize("size", range(1, 40))
def test_every_size_of_chunk_will_do(size: int) -> None:
    parts = [("a", b"one\r\ntwo"), ("b", b""), ("c", b"--b-2\r\n--b-")]
    body = _body(parts)
    assert _read(body, range(size, len(body), size)) == parts


def test_what_is_not_read_is_skipped() -> None:
    parts = [("a", b"1" * 1000), ("b", b"2" * 1000), ("c", b"3")]
    assert _read(_body(parts), range(100, 2000, 100), skip=frozenset({0, 1})) == [
        ("a", b""),
        ("b", b""),
        ("c", b"3"),
    ]


def test_an_epilogue_is_ignored() -> None:
    assert _read(_body([("a", b"1")]) + b"epilogue") == [("a", b"1")]


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_body_that_ends_early_is_refused_wherever_it_ends(cut: int) -> None:
    body = _body([("a", b"12345")])
    with pytest.raises(InvalidMultipartError):
        _read(body[: len(body) - 2 - cut])


def test_headers_are_by_lower_case_name() -> None:
    async def reading() -> dict[str, str]:
        body = b"--b-1\r\nX-One:  1 \r\nX-ONE: 2\r\n\r\nx\r\n--b-1--\r\n"
        async for part in read_parts(KIND, _chunks(body, [])):
            return dict(part.headers)
        return {}

    assert asyncio.run(reading()) == {"x-one": "2"}
