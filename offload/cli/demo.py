"""`offload demo`: the main job on real input, on this host alone."""

import signal

import typer

from offload.cli import exits
from offload.dev.demo import DeviationError, tell_story


def command() -> None:
    """Show the main job in a checkout: from an upload to a pointer, a full history, and a rule that ends it.

    Runs `offload dev` on free ports with a folder of its own, and removes both. Exit code 1: something was
    not as it should be, and is named.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that everything started is stopped
    try:
        tell_story(typer.echo)
    except DeviationError as deviation:
        typer.echo(f"offload: the demo failed: {deviation}", err=True)
        raise typer.Exit(exits.FAILED) from deviation
