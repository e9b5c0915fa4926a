"""What is read of an AgentRun, whatever others wrote into it.

Cases: times in and out of the calendar, and none; texts that no index could keep; JSON that is nested too
deep for its parser, and what is no JSON at any depth.
"""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from offload.cluster.nested import DEEPEST, parse
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


@pytest.mark.parametrize("levels", [1, DEEPEST, 500])
def test_json_is_read_whole_where_the_parser_can(levels: int) -> None:
    text = b'{"a":[' * (levels // 2) + b"1" + b"]}" * (levels // 2)
    assert json.dumps(parse(text), separators=(",", ":")).encode() == text


@pytest.mark.parametrize("levels", [1500, 10_000])
def test_what_is_nested_too_deep_reads_as_null_and_what_stands_beside_it_as_it_is(levels: int) -> None:
    deep = b'{"a":[' * levels + rb'"]\"}"' + b"]}" * levels
    found = parse(b'{"before":"[{\\"","deep":%s,"after":["}]",{"b":%s},2]}' % (deep, deep))
    assert (found["before"], found["after"][0], found["after"][2]) == ('[{"', "}]", 2)
    for value, above in ((found["deep"], 1), (found["after"][1]["b"], 3)):
        depth, within = above, value
        while within is not None:
            depth, within = depth + 1, within["a"] if isinstance(within, dict) else within[0]
        assert depth == DEEPEST


@pytest.mark.parametrize("text", [b"", b"<html>", b"{" * 5000, b"[" * 5000 + b'"', b"[" * 5000 + b"}" * 5000])
def test_what_is_no_json_is_an_error_at_any_depth(text: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse(text)
