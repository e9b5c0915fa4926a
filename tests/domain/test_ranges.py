"""Byte ranges.

Cases: first and last, open end, suffix; past the end is cut; what a server may ignore is the whole; no byte
of it is an error; and as properties: a range lies inside the content, and no header does anything else.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offload.domain.ranges import ByteRange, parse_range
from offload.errors import RangeNotSatisfiableError


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-9", 0, 9),
        ("bytes=5-", 5, 9),
        ("bytes=5-100", 5, 9),
        ("bytes=-3", 7, 9),
        ("bytes=-100", 0, 9),
        ("Bytes = 2-4", 2, 4),
        ("bytes=9-9", 9, 9),
    ],
)
def test_one_range_of_ten_bytes(header: str, first: int, last: int) -> None:
    assert parse_range(header, 10) == ByteRange(first, last)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=4-2",
        "bytes=0-1,3-4",
        "items=0-1",
        "bytes=+1-2",
    ],
)
def test_what_may_be_ignored_is_the_whole(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=10-", 10), ("bytes=10-12", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_no_byte_in_range_is_an_error_that_says_the_size(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiableError) as refused:
        parse_range(header, size)
    assert refused.value.size == size


@given(st.integers(0, 50), st.none() | st.integers(0, 60), st.none() | st.integers(0, 60))
def test_a_range_gives_what_slicing_gives(size: int, first: int | None, last: int | None) -> None:
    content = bytes(range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    try:
        found = parse_range(header, size)
    except RangeNotSatisfiableError:
        wanted = (
            content[first : None if last is None else last + 1]
            if first is not None
            else content[size - (last or 0) :]
        )
        assert wanted == b""
        return
    if found is None:
        assert (first is None and last is None) or (first is not None and last is not None and last < first)
        return
    got = content[found.first : found.last + 1]
    assert found.length == len(got) > 0
    if first is None:
        assert got == content[-(last or 0) :]
    else:
        assert got == content[first : None if last is None else last + 1]


@given(st.text(max_size=40), st.integers(0, 2**63))
def test_any_text_is_a_range_inside_the_whole_or_an_error(header: str, size: int) -> None:
    try:
        found = parse_range("bytes=" + header, size)
    except RangeNotSatisfiableError:
        return
    assert found is None or 0 <= found.first <= found.last < size
