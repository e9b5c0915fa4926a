"""`offload retention`: check the rules, and preview what they end."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offload.domain.quantities import format_size
from offload.domain.retention import Deletion, Match, Plan, Policy
from offload.domain.times import format_time, parse_time
from offload.errors import ConfigError
from offload.index import clock
from offload.index.database import parse_url
from offload.rules_file import load_rules
from offload.services.sweep import preview
from offload.settings import Settings, load_settings
from offload.wiring import adapters

app = typer.Typer(no_args_is_help=True, help="Check retention rules, preview what they end.")


@app.command()
def check(file: Annotated[Path, typer.Argument(help="The rules file (YAML).")]) -> None:
    """Read a rules file; show its rules, or every error with its line (exit code 2)."""
    _show_rules(load_rules(file))


@app.command()
def plan(
    *,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Plan for this time (RFC 3339); default: now.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Artifacts to list; the sums are of all.")] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with all artifacts.")
    ] = False,
) -> None:
    """Show what a sweep would end, by which rule and why. Changes nothing."""
    time = _time(at)
    settings = load_settings()
    policy = adapters.load_policy(settings)
    _check_is_there(settings)
    index = adapters.open_index(settings)
    try:
        with index.read() as tx:
            now = time or clock.now(tx)
        summed = Plan(now, policy.digest)
        listed: list[Deletion] = []
        for run_plan in preview(index, policy, now=now, namespaces=settings.namespaces):
            summed = summed.including(run_plan.deletions, stored=run_plan.stored)
            listed += run_plan.deletions[: None if as_json else limit - len(listed)]
    finally:
        index.close()
    if as_json:
        typer.echo(_as_json(summed, listed))
    else:
        _show_plan(summed, listed)


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--at") from error


def _check_is_there(settings: Settings) -> None:
    """See that there is an index: SQLite makes an empty file where the path is mistyped."""
    file = parse_url(settings.database_url.get_secret_value()).database
    if settings.uses_sqlite and file and not Path(file).exists():
        raise ConfigError(f"there is no index {file}: run `offload migrate`, or mend OFFLOAD_DATABASE_URL")


def _show_rules(policy: Policy) -> None:
    table = Table("#", "rule", "for", "keep", box=None, pad_edge=False)
    for number, rule in enumerate(policy.rules, 1):
        table.add_row(str(number), rule.name, escape(_conditions(rule.match)), str(rule.keep))
    table.add_row("", "default", "everything else", str(policy.default))
    _print(table)


def _conditions(match: Match) -> str:
    given = {
        "namespace": None if match.namespace == "*" else match.namespace,
        "type": match.type,
        "name": None if match.name == "*" else match.name,
        "version": None if match.version == "any" else match.version.value,
    }
    return ", ".join(f"{word} {value}" for word, value in given.items() if value) or "everything"


def _show_plan(plan: Plan, listed: list[Deletion]) -> None:
    if listed:
        table = Table("artifact", "size", "rule", "why", box=None, pad_edge=False)
        for deletion in listed:
            artifact = deletion.artifact
            table.add_row(
                escape(f"{artifact.namespace}/{artifact.run_name}/{artifact.name}"),
                format_size(artifact.size_bytes),
                deletion.rule,
                deletion.reason,
            )
        _print(table)
        if plan.ends.count > len(listed):
            typer.echo(f"… and {plan.ends.count - len(listed)} more (--limit, --json)")
        typer.echo()
    show_sums(plan)
    stored = plan.stored
    typer.echo(
        f"at {format_time(plan.at)}: {plan.ends.count} of {stored.count} stored artifacts would end, "
        f"{format_size(plan.ends.bytes)} of {format_size(stored.bytes)}"
    )
    if plan.exceeds_guard():
        typer.echo("beyond the guard: a sweep would park this plan and wait for --confirm")


def show_sums(plan: Plan) -> None:
    """Print how much ends by which rule; nothing where nothing does."""
    if plan.by_rule:
        table = Table("rule", "artifacts", "bytes", box=None, pad_edge=False)
        for rule, total in sorted(plan.by_rule.items()):
            table.add_row(rule, str(total.count), format_size(total.bytes))
        _print(table)
        typer.echo()


def _as_json(plan: Plan, listed: list[Deletion]) -> str:
    artifacts = [
        {
            "id": str(deletion.artifact.id),
            "namespace": deletion.artifact.namespace,
            "run": deletion.artifact.run_name,
            "runUid": deletion.artifact.run_uid,
            "name": deletion.artifact.name,
            "sizeBytes": deletion.artifact.size_bytes,
            "rule": deletion.rule,
            "reason": deletion.reason,
        }
        for deletion in listed
    ]
    return json.dumps({**sums_as_json(plan), "artifacts": artifacts}, indent=2)


def sums_as_json(plan: Plan) -> dict[str, Any]:
    """A plan's sums, as `--json` prints them."""
    return {
        "at": format_time(plan.at),
        "count": plan.ends.count,
        "bytes": plan.ends.bytes,
        "storedCount": plan.stored.count,
        "storedBytes": plan.stored.bytes,
        "beyondGuard": plan.exceeds_guard(),
        "byRule": {
            rule: {"count": total.count, "bytes": total.bytes} for rule, total in sorted(plan.by_rule.items())
        },
    }


def _print(shown: Table) -> None:
    # Piped output is read by programs and logs: one row a line, however long.
    Console(width=None if sys.stdout.isatty() else 1000).print(shown)
