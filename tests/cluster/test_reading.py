"""What is read of an AgentRun, whatever others wrote into it.

Cases: times in and out of the calendar, and none; texts that no index could keep.
"""

from datetime import UTC, datetime
from typing import Any

import pytest

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
