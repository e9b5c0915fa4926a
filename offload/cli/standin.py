"""`offload standin`: the AgentRun stand-in alone."""

from pathlib import Path
from typing import Annotated

import typer

from offload.cli.signals import stop_on_signals, wait_for
from offload.cluster.standin import StandIn


def command(  # noqa: PLR0913 - the command line's options
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8001,
    data: Annotated[Path | None, typer.Option(help="Folder to keep objects in; default: memory.")] = None,
    crd: Annotated[Path | None, typer.Option(help="CRD that describes AgentRuns; default: ours.")] = None,
    kubeconfig: Annotated[Path, typer.Option(help="Where to write a kubeconfig.")] = Path("kubeconfig"),
    server: Annotated[
        str | None, typer.Option(help="Address in the kubeconfig, where others reach it under another name.")
    ] = None,
) -> None:
    """Run an AgentRun API for development, which real kubectl can talk to."""
    with stop_on_signals() as stop:
        standin = StandIn(crd=crd, data=data)
        standin.start(host, port)
        try:
            standin.write_kubeconfig(kubeconfig, server=server)
            typer.echo(standin.notice)
            typer.echo(f"kubeconfig={kubeconfig}")
            wait_for(stop)
        finally:
            standin.stop()
