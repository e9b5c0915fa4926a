"""`offload history`: everything that a run produced, with its fate."""

import json
from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer

from offload.cli.options import Json, RunArgument, TokenFile, Uid, Url, connect, pinned, required_run
from offload.cli.tables import show, when
from offload.domain.artifact import State
from offload.domain.quantities import format_size


class Order(StrEnum):
    """Which end of the history comes first."""

    NEWEST = "newest"
    OLDEST = "oldest"


def command(  # noqa: PLR0913, PLR0917 - the command line's options
    run: RunArgument = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only artifacts of this type.")] = None,
    name: Annotated[str | None, typer.Option(help="Only names that this glob matches.")] = None,
    state: Annotated[State | None, typer.Option(help="Only artifacts with this fate.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only those created at this RFC 3339 time or later.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only those created before this time.")] = None,
    order: Annotated[Order, typer.Option(help="Which come first.")] = Order.NEWEST,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; all by default.")] = None,
    uid: Uid = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List every artifact that a run produced, newest first: all versions, and those whose bytes are gone.

    FATE is `stored`, or what ended the artifact, when, and by whom or which rule.
    """
    run = required_run(run)
    with connect(url, token_file) as client:
        artifacts = islice(
            client.history(
                run,
                type=type_,
                name=name,
                state=state,
                since=since,
                until=until,
                order=order,
                uid=pinned(uid, run),
                page=min(limit or 1000, 1000),
            ),
            limit,
        )
        if as_json:
            for artifact in artifacts:
                typer.echo(json.dumps(artifact.to_json(), ensure_ascii=False))
            return
        show(
            ("CREATED", "NAME", "TYPE", "SIZE", "CURRENT", "FATE", "EXPIRES", "ID"),
            (
                (
                    when(artifact.created_at),
                    artifact.name,
                    artifact.type,
                    format_size(artifact.size_bytes),
                    "yes" if artifact.current else "no",
                    _fate(artifact.state, when(artifact.ended_at), artifact.ended_by),
                    when(artifact.expires_at),
                    str(artifact.id),
                )
                for artifact in artifacts
            ),
        )


def _fate(state: str, ended: str, by: str | None) -> str:
    if state == State.STORED:
        return state
    return f"{state} {ended} by {by or 'unknown'}"
