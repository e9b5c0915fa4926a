"""`offload token`: make access tokens."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from offload.domain.access import Permission
from offload.domain.retention import parse_expires
from offload.tokens_file import add_entry, create_token

app = typer.Typer(no_args_is_help=True, help="Create access tokens.")


@app.callback()
def _group() -> None:
    """Create access tokens."""  # a callback keeps the one command a sub-command


@app.command()
def create(  # noqa: PLR0913 - one option a field of the entry
    *,
    name: Annotated[str, typer.Option(help="Who or what uses it; history names it where it deletes.")],
    namespace: Annotated[list[str], typer.Option(help="Namespace or glob that it reaches; repeatable.")],
    run: Annotated[list[str] | None, typer.Option(help="Run or glob that it reaches; repeatable.")] = None,
    allow: Annotated[str, typer.Option(help="Of read, write and delete, comma separated.")] = "read",
    expires: Annotated[
        str | None, typer.Option(metavar="30d|TIME", help="When it ends; default: never.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Add the entry to this token file and print the token alone.")
    ] = None,
) -> None:
    """Make a token, shown once, and the entry that makes it valid in OFFLOAD_TOKENS_FILE.

    The file holds hashes only. A running server reads it again when it changes.
    """
    made = create_token(
        name,
        namespaces=namespace,
        runs=run or ["*"],
        permissions=_permissions(allow),
        expires_at=_end(expires),
    )
    if file is not None:
        add_entry(file, made.entry)
        typer.echo(made.token)
        return
    typer.echo(
        f"token (shown once): {made.token}\n\nentry, below 'tokens:' in OFFLOAD_TOKENS_FILE:\n{made.entry}",
        nl=False,
    )


def _permissions(allow: str) -> set[Permission]:
    try:
        return {Permission(word.strip()) for word in allow.split(",")}
    except ValueError as error:
        raise typer.BadParameter(
            "must be of read, write and delete, comma separated", param_hint="--allow"
        ) from error


def _end(expires: str | None) -> datetime | None:
    return None if expires is None else parse_expires(expires, datetime.now(UTC))
