"""`offload orphans`: remove objects that no row names."""

from datetime import datetime
from typing import Annotated

import typer

from offload.cli import exits
from offload.domain.quantities import format_size
from offload.domain.times import format_time
from offload.services.orphans import Claim, claim_prefix, clean_orphans
from offload.settings import load_settings
from offload.wiring import adapters


def command(
    *,
    claim: Annotated[
        bool,
        typer.Option(
            "--claim", help="Say that what is under the prefix is this index's own, and all of it, then stop."
        ),
    ] = False,
    beyond_guard: Annotated[
        bool,
        typer.Option(
            "--beyond-guard", help="Remove also where implausibly many would go, and what is in doubt."
        ),
    ] = False,
) -> None:
    """Remove what runs left without a row: objects and open uploads older than OFFLOAD_ORPHAN_GRACE.

    The controller does this once per grace. What was made before the index was kept up without a gap is in
    doubt, since an index that was restored has forgotten rows. Exit code 3: implausibly many would go. In
    both cases look before you say --beyond-guard.
    """
    settings = load_settings()
    index, objects = adapters.open_index(settings), adapters.open_objects(settings)
    try:
        claimed = claim_prefix(index, objects, prefix=settings.s3_prefix, anyway=claim)
        if claim:
            typer.echo(f"the prefix {settings.s3_prefix!r} is {claimed}")
            return
        report = clean_orphans(
            index,
            objects,
            prefix=settings.s3_prefix,
            grace=settings.orphan_grace,
            beyond_guard=beyond_guard,
        )
    finally:
        objects.close()
        index.close()
    typer.echo(
        f"{report.seen} objects seen, {report.found} orphans ({format_size(report.found_bytes)}), "
        f"{report.removed} removed, {report.aborted_uploads} open uploads aborted"
    )
    if report.in_doubt:
        many = f"{report.in_doubt} objects without a row ({format_size(report.in_doubt_bytes)})"
        typer.echo(f"left, in doubt: {many}, {_why_in_doubt(report.unbroken_since)}")
    for prefix in report.left_alone:
        typer.echo(f"left alone: what is under {prefix!r}, which has a marker of its own")
    if report.stopped_because:
        typer.echo(f"stopped: {report.stopped_because}")
        raise typer.Exit(exits.WAITS if claimed is Claim.OURS else exits.FAILED)


def _why_in_doubt(since: datetime | None) -> str:
    if since is None:
        return "as no controller keeps the index up"
    return f"made before the index was kept up without a gap, since {format_time(since)}"
