"""docs/metrics.md says what `offload.metrics` says.

Cases: every metric has its row, with its type, labels and meaning, and no row is left over; the label `loop`
names every loop of a controller.
"""

import re
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from offload import metrics
from offload.index import Index
from offload.settings import Settings
from offload.wiring.controlling import _controller
from tests.publishing import migrated_index

TEXT = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
METRICS = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: str(metric._name))
def test_a_metric_has_its_row(metric: MetricWrapperBase) -> None:
    assert row(metric) in TEXT.splitlines()


def test_no_row_is_left_over() -> None:
    tables = TEXT.partition("\n## What to watch")[0]
    assert len(re.findall(r"^\| `offload_", tables, re.MULTILINE)) == len(METRICS)


def test_every_loop_of_a_controller_is_a_value_of_its_label(tmp_path: Path) -> None:
    said = re.search(r"^- `loop` is (.*?)\.$", TEXT, re.MULTILINE | re.DOTALL)
    assert said
    other: Any = SimpleNamespace(run=None)  # a store, a cluster and what else is not looked at
    settings = Settings(publish="on", artifacts_strict=True)
    with closing(Index.connect(migrated_index(tmp_path))) as index:
        controller = _controller(settings, index, other, other, other, other)
    assert {loop.name for loop in controller._loops} == set(re.findall(r"`(\w+)`", said[1]))


def row(metric: MetricWrapperBase) -> str:
    name = metric._name + ("_total" if metric._type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"| `{name}` | {metric._type} | {labels} | {metric._documentation} |"
