"""Cursors.

Cases: a place comes back; another list's cursor, changed, cut, foreign and wrongly typed ones are refused;
and as properties: every place comes back as it was, and no text does anything but decode or be refused.
"""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offload.domain import cursors
from offload.errors import InvalidCursorError

PLACES = st.lists(st.text() | st.integers(-(2**63), 2**63))


@given(st.text(), PLACES)
def test_a_place_comes_back_as_it_was(list_id: str, place: list[str | int]) -> None:
    cursor = cursors.encode(list_id, place)
    assert cursors.decode(list_id, cursor, *(type(part) for part in place)) == place


@given(st.text(), st.text(), PLACES)
def test_a_cursor_belongs_to_its_list(one: str, other: str, place: list[str | int]) -> None:
    if one == other:
        return
    with pytest.raises(InvalidCursorError):
        cursors.decode(other, cursors.encode(one, place), *(type(part) for part in place))


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_foreign_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursorError, match="cursor"):
        cursors.decode("list", text, int)


@pytest.mark.parametrize(
    ("place", "types"),
    [([1], (str,)), (["1"], (int,)), ([1, 2], (int,)), ([1], (int, int)), ([], (int,))],
)
def test_parts_have_the_types_of_the_list(place: list[str | int], types: tuple[type[str | int], ...]) -> None:
    with pytest.raises(InvalidCursorError):
        cursors.decode("list", cursors.encode("list", place), *types)


@pytest.mark.parametrize("part", [True, 1.5, None, [1], {"a": 1}])
def test_other_json_values_are_no_place(part: object) -> None:
    forged = json.loads(base64.urlsafe_b64decode(cursors.encode("list", [1]) + "=="))
    forged[1] = part
    cursor = base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b"=").decode()
    with pytest.raises(InvalidCursorError):
        cursors.decode("list", cursor, int)


def test_a_cursor_needs_no_escape_in_a_url() -> None:
    assert cursors.encode("list", ["ÿ?>" * 20, 7]).replace("-", "").replace("_", "").isalnum()
