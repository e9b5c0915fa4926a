"""What is read of an AgentRun, whatever others wrote into it.

Cases: times in and out of the calendar, and none; texts that no index could keep; JSON that is too deep
for its parser, and what is no JSON at any depth; statuses of any depth.
"""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from offload.cluster.nested import DEEPEST, PARSED, parse
from offload.cluster.reading import LONGEST_TEXT, read_run, read_time
from offload.domain.run import SeenRun


def seen(status: Any = None, spec: Any = None) -> SeenRun:
    metadata = {"name": "demo", "namespace": "ns", "uid": "u", "resourceVersion": "7"}
    return read_run({"metadata": metadata, "spec": spec, "status": status}).seen


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.5+02:00", datetime(2026, 1, 2, 1, 4, 5, 500_000, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("9999-12-31T23:59:59-12:00", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("0001-01-01T00:00:00Z", None),  # Go's zero time
        ("2026-01-02T03:04:05", None),
        ("soon", None),
        ("\0", None),
        (7, None),
        (None, None),
    ],
)
def test_a_time_is_one_of_the_calendar_or_none(text: object, time: datetime | None) -> None:
    assert read_time(text) == time
    assert seen({"finishedAt": text}).finished_at == time


def test_texts_are_cut_to_what_an_index_takes() -> None:
    found = seen({"phase": "Run\0ning"}, {"agentRef": {"name": "é" * 3000}})
    assert found.phase == "Running"
    assert found.agent == "é" * LONGEST_TEXT


def depth_of(value: Any) -> int:
    """How many objects and lists lie in each other, where each holds one thing."""
    depth = 0
    while isinstance(value, dict | list):
        depth, value = depth + 1, value["a"] if isinstance(value, dict) else value[0]
    return depth


def nested(pairs: int, within: bytes = b"1") -> bytes:
    return b'{"a":[' * pairs + within + b"]}" * pairs


@pytest.mark.parametrize(("pairs", "depth"), [(1, 2), (400, 800), (1500, PARSED - 1), (10_000, PARSED - 1)])
def test_what_is_too_deep_for_the_parser_reads_as_null_and_what_stands_beside_it_as_it_is(
    pairs: int, depth: int
) -> None:
    deep = nested(pairs, rb'"]\"}"' if pairs > 1000 else b"1")
    found = parse(b'{"before":"[{\\"","deep":%s,"after":"}]"}' % deep)
    assert (found["before"], found["after"]) == ('[{"', "}]")
    assert depth_of(found["deep"]) == depth


@pytest.mark.parametrize("text", [b"", b"<html>", b"{" * 5000, b"[" * 5000 + b'"', b"[" * 5000 + b"}" * 5000])
def test_what_is_no_json_is_an_error_at_any_depth(text: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse(text)


@pytest.mark.parametrize(("pairs", "depth"), [(1, 2), (49, 98), (50, DEEPEST - 1), (400, DEEPEST - 1)])
def test_a_status_is_read_to_a_depth_that_is_the_same_wherever_it_comes_from(pairs: int, depth: int) -> None:
    status = {"artifacts": [], "x": json.loads(nested(pairs))}
    metadata = {"name": "demo", "namespace": "ns", "uid": "u", "resourceVersion": "7"}
    found = read_run({"metadata": metadata, "status": status}).status
    assert depth_of(found["x"]) == depth
    assert found == ({**status, "x": found["x"]})
