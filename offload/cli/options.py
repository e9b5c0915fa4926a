"""Options that several client commands share, and the client that they lead to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offload.cli.lines import notice
from offload.domain.quantities import parse_duration
from offload.errors import ConfigError

if TYPE_CHECKING:
    from offload.client import Client

Url = Annotated[
    str | None, typer.Option("--url", envvar="OFFLOAD_URL", help="Address of the offload server.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="OFFLOAD_TOKEN_FILE",
        help="File with the access token; read anew before each request. The token itself: OFFLOAD_TOKEN.",
    ),
]
Uid = Annotated[
    str | None,
    typer.Option(
        "--uid",
        help="Pin one incarnation of the run, also a deleted one. OFFLOAD_RUN_UID pins OFFLOAD_RUN.",
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAMESPACE/NAME", envvar="OFFLOAD_RUN", help="The AgentRun."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]

READ_PATIENCE = "15s"
"""A person waits for these; a runner's upload is given more."""


def connect(url: str | None, token_file: Path | None, *, retry_for: str = READ_PATIENCE) -> "Client":
    """A client of the server that the command line or the environment names."""
    from offload.client import Client  # noqa: PLC0415 - httpx is loaded by commands that need it

    if not url:
        raise ConfigError("no server: set OFFLOAD_URL, or give --url")
    return Client(url, _token(token_file), retry_for=seconds("--retry-for", retry_for), notice=notice)


def required_run(run: str | None) -> str:
    """The run that the command line or the environment names, as NAMESPACE/NAME."""
    if not run:
        raise ConfigError("no run: set OFFLOAD_RUN, or name it as NAMESPACE/NAME")
    namespace, _, name = run.partition("/")
    if not namespace or not name or "/" in name:
        raise ConfigError(f"a run is named NAMESPACE/NAME; got {run!r}")
    return run


def pinned(uid: str | None, run: str) -> str | None:
    """The uid that `run` is pinned to; the environment's belongs to the environment's run only."""
    if uid or os.environ.get("OFFLOAD_RUN", run) != run:
        return uid
    return os.environ.get("OFFLOAD_RUN_UID") or None


def seconds(option: str, duration: str) -> float:
    """The seconds of a duration such as 90s or 2m."""
    try:
        return parse_duration(duration).total_seconds()
    except ValueError as error:
        raise ConfigError(f"{option} {error}") from error


def _token(token_file: Path | None) -> Callable[[], str] | str | None:
    token = os.environ.get("OFFLOAD_TOKEN")
    if token or token_file is None:
        return token
    return lambda: _read_token(token_file)


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} cannot be read: {error}") from error
