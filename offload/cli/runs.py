"""`offload runs`: AgentRuns and what they produced."""

import json
from itertools import islice
from typing import Annotated

import typer

from offload.cli.options import Json, TokenFile, Url, connect
from offload.cli.tables import show, when
from offload.domain.quantities import format_size
from offload.errors import ConfigError


def command(  # noqa: PLR0913, PLR0917 - the command line's options
    namespace: Annotated[
        str | None, typer.Argument(help="The namespace; that of OFFLOAD_RUN where none is given.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", envvar="OFFLOAD_RUN", hidden=True)] = None,
    agent: Annotated[str | None, typer.Option(help="Only runs of this agent.")] = None,
    phase: Annotated[str | None, typer.Option(help="Only runs in this phase, such as Failed.")] = None,
    deleted: Annotated[
        bool | None, typer.Option("--deleted/--not-deleted", help="Only runs that are, or are not, deleted.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many runs.")] = 100,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List the AgentRuns of a namespace, newest first, deleted ones included.

    LISTED counts what status shows of CURRENT; BEHIND says that status does not show the newest yet.
    """
    namespace = namespace or (run or "").partition("/")[0]
    if not namespace:
        raise ConfigError("no namespace: name it, or set OFFLOAD_RUN")
    with connect(url, token_file) as client:
        runs = islice(
            client.runs(namespace, agent=agent, phase=phase, deleted=deleted, page=min(limit, 1000)), limit
        )
        if as_json:
            for found in runs:
                typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
            return
        show(
            (
                "NAME",
                "PHASE",
                "AGENT",
                "CREATED",
                "ARTIFACTS",
                "STORED",
                "LISTED",
                "BEHIND",
                "DELETED",
                "UID",
            ),
            (
                (
                    found.name,
                    found.phase or "-",
                    found.agent or "-",
                    when(found.created_at),
                    str(found.artifacts.total),
                    format_size(found.artifacts.stored_bytes),
                    f"{found.artifacts.listed}/{found.artifacts.current}",
                    "yes" if found.publish.behind else "no",
                    when(found.deleted_at),
                    found.uid,
                )
                for found in runs
            ),
        )
