"""How far transfers are: bars on a terminal, a plain line now and then elsewhere. On standard error."""

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

import typer

from offload.cli.lines import aside, notice, printable
from offload.domain.quantities import format_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS = 10.0
"""Between two plain lines about one transfer."""


class Transfers:
    """Shows several transfers at once. `begin` and what it answers may be used from any thread."""

    def __init__(self, *, files: int = 1, quiet: bool = False) -> None:
        self._bars = _bars() if _is_terminal(sys.stderr) and not quiet else None
        self._overall = (
            self._bars.add_task(f"{files} files", total=None) if self._bars and files > 1 else None
        )
        self._quiet = quiet
        self._lock = threading.Lock()
        self._moved = 0

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def expect(self, total_bytes: int) -> None:
        """Say how much all transfers together will move."""
        if self._bars and self._overall is not None:
            self._bars.update(self._overall, total=total_bytes)

    def begin(self, name: str, size: int | None) -> "Transfer":
        if self._bars:
            return _Bar(self, self._bars, self._bars.add_task(printable(name), total=size))
        return Transfer() if self._quiet else _Lines(name)

    def say(self, line: str, *, to_stderr: bool = False) -> None:
        """Print a line above the bars."""
        with self._lock:
            if self._bars and (to_stderr or _is_terminal(sys.stdout)):
                self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
            elif to_stderr:
                aside(line)
            else:
                typer.echo(line)  # nowhere, where the stream is closed

    def moved(self, more: int) -> None:
        """Count `more` bytes of one transfer to the whole; less than none where it began again."""
        if self._bars and self._overall is not None:
            with self._lock:
                self._moved += more
                self._bars.update(self._overall, completed=self._moved)


class Transfer:
    """One transfer, shown nowhere."""

    def move(self, done: int, total: int | None) -> None:
        """Take note that `done` bytes of `total` are through."""

    def end(self) -> None:
        """Take note that nothing more comes."""


class _Bar(Transfer):
    def __init__(self, transfers: Transfers, bars: "Progress", task: "TaskID") -> None:
        self._transfers, self._bars, self._task = transfers, bars, task
        self._done = 0

    def move(self, done: int, total: int | None) -> None:
        self._bars.update(self._task, completed=done, total=total)
        self._transfers.moved(done - self._done)
        self._done = done

    def end(self) -> None:
        self._bars.remove_task(self._task)


class _Lines(Transfer):
    def __init__(self, name: str) -> None:
        self._name = printable(name)
        self._began = self._said = time.monotonic()

    def move(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._said < LINE_SECONDS:
            return
        self._said = now
        rate = f"{format_size(int(done / (now - self._began)))}/s"
        whole = f" of {format_size(total)}, {100 * done // total} %" if total else ""
        notice(f"{self._name}: {format_size(done)}{whole}, {rate}")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _bars() -> "Progress":
    from rich.console import Console  # noqa: PLC0415 - only where there is a terminal
    from rich.progress import (  # noqa: PLC0415 - same
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # results that are piped on stay on standard output
    )
