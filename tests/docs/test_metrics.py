"""docs/metrics.md says what `offload.metrics` says.

Cases: every metric has its row, with its type, labels and meaning, and no row is left over.
"""

import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from offload import metrics

TEXT = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
METRICS = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: str(metric._name))
def test_a_metric_has_its_row(metric: MetricWrapperBase) -> None:
    assert row(metric) in TEXT.splitlines()


def test_no_row_is_left_over() -> None:
    tables = TEXT.partition("\n## What to watch")[0]
    assert len(re.findall(r"^\| `offload_", tables, re.MULTILINE)) == len(METRICS)


def row(metric: MetricWrapperBase) -> str:
    name = metric._name + ("_total" if metric._type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"| `{name}` | {metric._type} | {labels} | {metric._documentation} |"
