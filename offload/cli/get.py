"""`offload get`: fetch an artifact, verified."""

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from offload.cli.lines import notice
from offload.cli.options import TokenFile, Uid, Url, connect, pinned
from offload.cli.progress import Transfers
from offload.domain.quantities import format_size
from offload.errors import ConfigError


def command(  # noqa: PLR0913, PLR0917 - the command line's options
    artifact: Annotated[
        str, typer.Argument(metavar="NAMESPACE/NAME/ARTIFACT", help="The run, and the artifact's name in it.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="File or folder to write to, or - for standard output.", show_default=False
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Fetch the version with this id, not the current one.")
    ] = None,
    retry_for: Annotated[
        str, typer.Option(help="How long after a failure, without progress, to go on trying.")
    ] = "2m",
    uid: Uid = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Fetch an artifact's bytes. Resumes where it was cut, verifies SHA-256, and writes whole files only.

    Without -o, writes to the current folder under the last part of the artifact's name.
    """
    namespace, _, rest = artifact.partition("/")
    run, _, name = rest.partition("/")
    if not (namespace and run and name):
        raise ConfigError(f"an artifact is named NAMESPACE/NAME/ARTIFACT; got {artifact!r}")
    target = _target(output, name)
    with (
        connect(url, token_file, retry_for=retry_for) as client,
        Transfers(quiet=target is None) as transfers,
    ):
        transfer = transfers.begin(name, None)
        content = client.download(
            f"{namespace}/{run}",
            name,
            target or _standard_output(),
            uid=pinned(uid, f"{namespace}/{run}"),
            version=version,
            progress=transfer.move,
        )
    if target:
        notice(f"wrote {target}, {format_size(content.size_bytes)}, sha256 {content.sha256.hex()}")


def _target(output: str | None, name: str) -> Path | None:
    """Where to write; None is standard output."""
    if output == "-":
        return None
    base = name.rpartition("/")[2]
    path = Path(output or base)
    if path.is_dir():
        return path / base
    folder = path if output and output.endswith("/") else path.parent
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(folder)!r}")
    return path


def _standard_output() -> BinaryIO:
    if sys.stdout is None:  # Python's word for a descriptor that is closed
        raise ConfigError("standard output is closed")
    return sys.stdout.buffer
