"""`offload sweep`: carry the retention plan out now."""

import json
from typing import Annotated, Any
from uuid import UUID

import typer

from offload.cli import exits
from offload.cli.retention import show_sums, sums_as_json
from offload.domain.quantities import format_size
from offload.domain.times import format_time
from offload.index import clock
from offload.services.sweep import Outcome, SweepReport, sweep, why_watch_is_stale
from offload.settings import load_settings
from offload.wiring import adapters


def command(
    *,
    confirm: Annotated[
        UUID | None, typer.Option(metavar="PLAN_ID", help="Carry this parked plan out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Carry the retention plan out (look first: offload retention plan).

    Exit code 3: the plan is beyond the guard, was parked, and waits for --confirm.
    """
    settings = load_settings()
    policy = adapters.load_policy(settings)
    index = adapters.open_index(settings)
    objects = adapters.open_objects(settings)
    try:
        with index.read() as tx:
            now = clock.now(tx)
        report = sweep(
            index,
            objects,
            policy,
            now=now,
            namespaces=settings.namespaces,
            confirm=confirm,
            why_stale=lambda: why_watch_is_stale(index, settings.namespaces),
        )
    finally:
        objects.close()
        index.close()
    if as_json:
        typer.echo(_as_json(report))
    else:
        _show(report)
    if report.outcome is Outcome.PARKED:
        raise typer.Exit(exits.WAITS)
    if report.outcome is Outcome.REFUSED:
        raise typer.Exit(exits.FAILED)


def _show(report: SweepReport) -> None:
    if report.why:
        typer.echo(f"{report.outcome}: {report.why}", err=True)
    if report.parked and report.planned:
        show_sums(report.planned)
        waiting = report.parked
        time = format_time(waiting.at)
        typer.echo(
            f"plan {waiting.id} waits; as of {time} it ends "
            f"{waiting.count} artifacts, {format_size(waiting.bytes)}\n"
            f"look at it:     offload retention plan --at {time}\n"
            f"carry it out:   offload sweep --confirm {waiting.id}"
        )
    if report.done:
        show_sums(report.done)
        ends = report.done.ends
        typer.echo(
            f"ended {ends.count} artifacts, {format_size(ends.bytes)}; bytes go once status has no pointer"
        )
    gone, left = report.erased.gone, report.erased.left
    typer.echo(f"deleted the bytes of {gone.count} artifacts, {format_size(gone.bytes)}")
    if left.count:
        typer.echo(f"the store did not delete {left.count} objects; the next sweep tries again", err=True)


def _as_json(report: SweepReport) -> str:
    answer: dict[str, Any] = {
        "outcome": report.outcome.value,
        "why": report.why,
        "planned": sums_as_json(report.planned) if report.planned else None,
        "ended": sums_as_json(report.done) if report.done else None,
        "waits": str(report.parked.id) if report.parked else None,
        "erased": {"count": report.erased.gone.count, "bytes": report.erased.gone.bytes},
        "notErased": {"count": report.erased.left.count, "bytes": report.erased.left.bytes},
    }
    return json.dumps(answer, indent=2)
