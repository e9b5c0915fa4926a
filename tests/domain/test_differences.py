"""What a patch changes in a status, as people are told it.

Cases: nothing; an entry that comes, goes, moves elsewhere, or gets other fields; a condition that comes and
one that changes; a field; a status without lists; what is no entry; long values.
"""

from typing import Any

import pytest

from offload.domain.differences import LONGEST_TEXT, Difference, differences

A = {"name": "a", "uri": "s3://b/a"}
B = {"name": "b", "uri": "s3://b/b"}
TOLD = {"type": "T", "status": "True", "reason": "R", "message": "m"}


@pytest.mark.parametrize(
    ("status", "patch", "expected"),
    [
        ({"artifacts": [A]}, {}, []),
        ({}, {"artifacts": [A]}, [("entry", "a", None, "s3://b/a")]),
        (
            {"artifacts": [A]},
            {"artifacts": [B]},
            [("entry", "a", "s3://b/a", None), ("entry", "b", None, "s3://b/b")],
        ),
        ({"artifacts": [A, B]}, {"artifacts": [B, A]}, []),
        (
            {"artifacts": [A, B]},
            {"artifacts": [{**A, "uri": "s3://b/new"}, B]},
            [("entry", "a", "s3://b/a", "s3://b/new")],
        ),
        (
            {"artifacts": [A]},
            {"artifacts": [{**A, "type": "log"}]},
            [("entry", "a", '{"name":"a","uri":"s3://b/a"}', '{"name":"a","uri":"s3://b/a","type":"log"}')],
        ),
        ({"artifacts": ["what", A]}, {"artifacts": [A]}, [("entry", "", "what", None)]),
        ({"artifacts": [{"name": "c"}]}, {"artifacts": []}, [("entry", "c", '{"name":"c"}', None)]),
        ({"artifacts": "none"}, {"artifacts": []}, []),
        ({}, {"conditions": [TOLD]}, [("condition", "T", None, "True R: m")]),
        (
            {"conditions": [TOLD]},
            {"conditions": [{**TOLD, "status": "False"}]},
            [("condition", "T", "True R: m", "False R: m")],
        ),
        ({"phase": "Running"}, {"phase": "Failed"}, [("field", "phase", "Running", "Failed")]),
        ({}, {"reason": "X"}, [("field", "reason", None, "X")]),
    ],
)
def test_each_piece_is_told(
    status: dict[str, Any], patch: dict[str, Any], expected: list[tuple[Any, ...]]
) -> None:
    assert differences(status, patch) == [Difference(*one) for one in expected]


def test_a_long_value_is_cut() -> None:
    [told] = differences({"artifacts": [{"name": "x", "url": "data:," + "x" * 10_000}]}, {"artifacts": []})
    assert told.before
    assert told.before.startswith("data:,xxx")
    assert len(told.before) == LONGEST_TEXT + 1
