"""`offload explain`: what a run's status shows, why the rest is not there, and what is to change."""

import json
from typing import TYPE_CHECKING

import typer

from offload.cli.lines import printable
from offload.cli.options import Json, RunArgument, TokenFile, Uid, Url, connect, pinned, required_run
from offload.cli.tables import show, when
from offload.domain.quantities import format_size

if TYPE_CHECKING:
    from offload.client import Explanation, PublishState

_WHY = {"left-out": "left out by the limits of status", "removed": "removed by its writer"}


def command(
    run: RunArgument = None,
    uid: Uid = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what the run's status lists, why the rest is not there, and what a publish would change."""
    run = required_run(run)
    with connect(url, token_file) as client:
        explanation = client.explain(run, uid=pinned(uid, run))
    if as_json:
        typer.echo(json.dumps(explanation.to_json(), ensure_ascii=False))
        return
    typer.echo(f"{run} ({explanation.run.uid})")
    typer.echo(_publishing(explanation.publish))
    _show_status(explanation)
    _show_left_out(explanation, run)
    _show_externals(explanation)
    _show_pending(explanation)


def _publishing(publish: "PublishState") -> str:
    last = f"last published {when(publish.published_at)}" if publish.published_at else "never published"
    line = f"publishing is {publish.mode}; {last}"
    if publish.behind:
        line += f"; behind since {when(publish.dirty_since)}"
    if publish.error:
        line += f"; {printable(publish.error)}"
    return line


def _show_status(explanation: "Explanation") -> None:
    typer.echo(f"\nIn status: {len(explanation.status)}")
    if explanation.status:
        show(
            ("POSITION", "NAME", "OF", "URI"),
            (
                (str(entry.position), entry.name, "us" if entry.ours else "another writer", entry.uri or "-")
                for entry in explanation.status
            ),
        )


def _show_left_out(explanation: "Explanation", run: str) -> None:
    typer.echo(f"\nNot in status: {len(explanation.left_out)}")
    if explanation.left_out:
        show(
            ("CREATED", "NAME", "TYPE", "SIZE", "WHY"),
            (
                (
                    when(left.created_at),
                    left.name,
                    left.type,
                    format_size(left.size_bytes),
                    f"{left.reason}: {left.detail}" if left.detail else left.reason,
                )
                for left in explanation.left_out
            ),
        )
        typer.echo(f"\nAll of it: offload history {run}")


def _show_externals(explanation: "Explanation") -> None:
    if explanation.externals:
        typer.echo(f"\nEntries of other writers not in status: {len(explanation.externals)}")
        show(
            ("NAME", "URI", "WHY"),
            ((one.name, one.uri or "-", _WHY.get(one.state, one.state)) for one in explanation.externals),
        )


def _show_pending(explanation: "Explanation") -> None:
    typer.echo(f"\nA publish would change: {len(explanation.pending) or 'nothing'}")
    if explanation.pending:
        show(
            ("WHAT", "NAME", "IS", "WOULD BE"),
            ((one.of, one.name, one.before or "-", one.after or "-") for one in explanation.pending),
        )
