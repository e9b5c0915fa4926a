"""`offload migrate`: bring the index to this release's schema."""

from typing import Annotated

import typer

from offload.index import migrate
from offload.settings import load_settings


def command(
    *,
    to: Annotated[str, typer.Option(metavar="REV", help="The revision to go up to.")] = "head",
    down: Annotated[
        str | None, typer.Option(metavar="REV", help="Go down to a revision instead; base: to nothing.")
    ] = None,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL for an empty database; change nothing.")
    ] = False,
) -> None:
    """Migrate the index at OFFLOAD_DATABASE_URL, under its lock; safe to run from several places at once."""
    url = load_settings().database_url.get_secret_value()
    if sql:
        typer.echo(migrate.sql(url, to))
    elif down is not None:
        migrate.downgrade(url, down)
        typer.echo(f"the index is at revision {down}")
    else:
        migrate.upgrade(url, to)
        typer.echo(f"the index is at revision {migrate.head() if to == 'head' else to}")
