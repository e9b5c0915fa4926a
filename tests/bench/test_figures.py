"""The benchmark's arithmetic and its report.

- medians, ratios pair by pair, spread; a goal is the ratio's where there is a peer
- sides are measured in turn, and the first round only warms up
- latest.json has the shape that is documented, and the page shows it
- every figure has a goal, every row a measure; each figure that is written down was judged by today's goal,
  and each that misses it is explained
- what each program takes of a request is said beside a miss; growth is judged too
- fewer pairs than the page promises are refused, and so is a machine without curl
"""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.__main__ import MEASURES, main
from bench.goals import GOALS, ROWS
from bench.measure import Figure, alone, compared, in_turn
from bench.notes import NOTES

FIELDS = ["name", "ours", "peer", "peer_name", "ratio", "goal", "met", "unit", "spread", "config"]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The report's files in a folder of their own, with an empty page."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results" / "latest.json")
    monkeypatch.setattr(report, "MACHINE", tmp_path / "results" / "machine.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(report, "machine", lambda: {"cores": 2})
    marks = [
        f"{report.BEGIN.format(name)}\n{report.END.format(name)}" for name in ("machine", "figures", "misses")
    ]
    (tmp_path / "page.md").write_text("before\n" + "\n".join(marks) + "\nafter\n")
    return tmp_path


def test_a_ratio_is_taken_pair_by_pair() -> None:
    figure = compared("big-one", [90, 20, 300], [100, 10, 200], "curl", bytes=7)

    assert (figure.ours, figure.peer, figure.ratio) == (90, 100, 1.5)
    assert figure.spread == (0.9, 2.0)
    assert figure.config == {"pairs": 3, "bytes": 7, "peer_spread": 20}


def test_one_without_a_peer_has_its_values_spread() -> None:
    assert alone("start", [3, 1, 2]).as_json()["spread"] == [1, 3]
    assert alone("idle", [3]).as_json()["spread"] is None


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (compared("big-one", [85], [100], "curl"), True),
        (compared("big-one", [84], [100], "curl"), False),
        (compared("big-sink/cpu", [4], [10], "MLflow"), True),
        (compared("big-sink/cpu", [5], [10], "MLflow"), False),
        (alone("big-one/cpu", [1.8]), True),
        (alone("big-one/cpu", [1.9]), False),
    ],
)
def test_a_goal_is_the_ratios_where_there_is_a_peer(figure: Figure, met: bool) -> None:
    assert figure.met is met


def test_sides_are_measured_in_turn_after_a_warm_up() -> None:
    asked: list[str] = []

    def measure(word: str) -> int:
        asked.append(word)
        return len(asked)

    assert in_turn({"a": measure, "b": measure}, 2) == {"a": [3, 5], "b": [4, 6]}
    assert asked == ["a-0", "b-0", "a-1", "b-1", "a-2", "b-2"]


def test_every_figure_belongs_to_a_row_that_is_measured() -> None:
    assert list(MEASURES) == ROWS
    assert NOTES.keys() <= GOALS.keys()


def test_a_row_replaces_its_own_figures_and_no_others(elsewhere: Path) -> None:
    report.write([alone("start", [1.0]), alone("idle", [10])])
    report.write([alone("start/help", [0.5])])

    rows: list[dict[str, Any]] = json.loads((elsewhere / "results" / "latest.json").read_text())
    assert [row["name"] for row in rows] == ["idle", "start/help"]
    assert all(list(row) == FIELDS for row in rows)
    assert rows[0] == {
        "name": "idle", "ours": 10, "peer": None, "peer_name": None, "ratio": None, "goal": 150, "met": True,
        "unit": "MiB", "spread": None, "config": {"times": 1},
    }  # fmt: skip


def test_the_page_shows_the_figures_and_what_is_missed(elsewhere: Path) -> None:
    figures = [compared("big-one", [50], [100], "curl"), alone("idle", [10])]
    report.write(figures)

    page = (elsewhere / "page.md").read_text()
    assert "| `big-one` | 50 MiB/s | 100 (curl) | 0.5 | 0.5 to 0.5 | at least 0.85 | **no** |" in page
    assert "| `idle` | 10 MiB |  |  |  | at most 150 MiB | yes |" in page
    assert "- `big-one`: " in page
    assert "- `idle`: " not in page
    assert "| cores | 2 |" in page
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    report.render()
    assert (elsewhere / "page.md").read_text() == page


def test_the_page_in_docs_is_what_was_measured() -> None:
    page = report.PAGE.read_text()
    assert report.rendered(page) == page
    rows = json.loads(report.RESULTS.read_text())
    assert [row["name"] for row in rows] == list(GOALS)
    for row in rows:
        goal = GOALS[row["name"]]
        judged = row["ours"] if row["ratio"] is None else row["ratio"]
        assert list(row) == FIELDS
        assert (row["goal"], row["unit"], row["met"]) == (goal.number, goal.unit, goal.holds(judged))
        assert row["met"] or row["name"] in NOTES


def test_a_miss_says_what_each_program_took(elsewhere: Path) -> None:
    cpu = {
        "unit": "ms a request",
        "ours": {"serve": 0.5, "store": 0.25, "what the peer needs": 0.02},
        "peer": {"serve": 0.0, "store": 0.2},
    }
    report.write([compared("small", [1], [100], "wrk", cpu=cpu)])
    page = (elsewhere / "page.md").read_text()
    assert "CPU, ms a request: ours serve 0.5, store 0.25; the peer's store 0.2." in page


def test_growth_is_judged() -> None:
    rows = [
        {"what": what, "at": "the most rows", "unit": report.TIMES, "value": value}
        for what, value in (("a", 1.5), ("b", 1.6))
    ]
    judged = report.growth_table(rows).splitlines()[2:]
    assert [line.split("; ")[1] for line in judged] == ["at most 1.5: yes |", "at most 1.5: **no** |"]


@pytest.mark.parametrize(
    ("arguments", "path", "said"),
    [
        (["--pairs", "4"], None, "a figure is of 5 pairs at least"),
        (["start"], "", "there is no curl on PATH"),
        (["nothing"], None, "there is no nothing"),
    ],
)
def test_what_would_give_no_figure_is_refused(
    arguments: list[str],
    path: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    if path is not None:
        monkeypatch.setenv("PATH", path)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
