"""`offload doctor`: what works and what does not, with a remedy each."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated

import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from offload import logs
from offload.cli import exits
from offload.cli.lines import printable
from offload.errors import ConfigError
from offload.services.doctor import Finding, State, is_broken
from offload.settings import Settings, load_settings
from offload.wiring.checkup import checkup

_STYLES = {State.OK: "green", State.WARNING: "yellow", State.BROKEN: "bold red"}
_PIPED_WIDTH = 160


def command(
    *,
    beside: Annotated[
        typer.FileText | None,
        typer.Option(
            metavar="FILE",
            help="Compare with the limits of another controller: its Deployment, JSON or YAML; - is stdin.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check settings, store, index and cluster from here, and say what mends what does not work.

    Only a probe object is written, and removed again. Exit code 1: something is broken; a warning is not.
    """
    findings = _examined(_read(beside))
    if as_json:
        typer.echo(_as_json(findings))
    else:
        _show(findings)
    if is_broken(findings):
        raise typer.Exit(exits.FAILED)


def _read(file: typer.FileText | None) -> object:
    """What is in the file; None where none is given."""
    if file is None:
        return None
    try:
        return yaml.safe_load(file) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise typer.BadParameter("is neither JSON nor YAML", param_hint="--beside") from error


def _examined(beside: object) -> list[Finding]:
    try:
        settings: Settings = load_settings()
    except ConfigError as error:
        return [Finding("settings", "environment", State.BROKEN, str(error), "docs/settings.md")]
    logs.configure(level="error", form="console")  # what is wrong is in the table
    return checkup(settings, beside)


def _as_json(findings: Sequence[Finding]) -> str:
    answer = {
        "broken": is_broken(findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    return json.dumps(answer, indent=2, ensure_ascii=False)


def _show(findings: Sequence[Finding]) -> None:
    table = Table("PART", "CHECK", "STATE", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("FOUND", overflow="fold")
    table.add_column("REMEDY", overflow="fold")
    part = None
    for finding in findings:
        if part not in {None, finding.part}:
            table.add_section()
        table.add_row(
            "" if finding.part == part else finding.part,
            printable(finding.check),
            Text(finding.state, style=_STYLES[finding.state]),
            Text(printable(finding.found)),
            Text(printable(finding.remedy)),
        )
        part = finding.part
    console = Console()
    if not console.is_terminal:
        console.width = max(_PIPED_WIDTH, console.width)
    console.print(table)
    counts = {state: sum(finding.state is state for finding in findings) for state in State}
    console.print(
        f"{counts[State.OK]} ok, {counts[State.WARNING]} warnings, {counts[State.BROKEN]} broken",
        highlight=False,
    )
