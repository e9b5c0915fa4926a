"""Plain aligned columns, and how values look in them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import typer
from rich.cells import cell_len

from offload.cli.lines import printable

GAP = "  "


def show(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a header. Nothing is cut off, so that output can be piped into other programs."""
    lines = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)]
        typer.echo(GAP.join(padded).rstrip())


def when(moment: datetime | None) -> str:
    """A time in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else "-"
