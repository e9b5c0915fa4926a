"""`offload put`: send files, folders or standard input to an AgentRun."""

import io
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offload.cli import exits
from offload.cli.lines import notice, printable
from offload.cli.naming import Item, Plan, plan
from offload.cli.options import TokenFile, Uid, Url, connect, pinned, required_run
from offload.cli.progress import Transfers
from offload.domain.names import check_content_type, check_type
from offload.domain.quantities import format_size
from offload.errors import ConfigError, OffloadError

if TYPE_CHECKING:
    from offload.client import Artifact, Client


def command(  # noqa: PLR0913, PLR0917 - the command line's options
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Files, patterns, folders, or - for standard input."),
    ],
    run: Annotated[
        str | None, typer.Option("--run", envvar="OFFLOAD_RUN", help="The AgentRun, as NAMESPACE/NAME.")
    ] = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="Type of all of them; by content type otherwise.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the one file, or of standard input; may contain slashes.")
    ] = None,
    content_type: Annotated[
        str | None, typer.Option(help="Content type of all of them; by name otherwise.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="End them after a duration (7d) or at a time; only ever shortens.")
    ] = None,
    uid: Uid = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="How many to send at once.")] = 4,
    retry_for: Annotated[
        str, typer.Option(help="How long after a failure to go on trying, for each file.")
    ] = "2m",
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Exit with 0 whatever fails, so that the run goes on.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each file.")] = False,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Send files, folders or standard input to an AgentRun. The same bytes again are not stored twice.

    A file is named by its base name, files of a folder FOLDER/relative/path. Two equal names are an error
    before anything is sent.
    """
    options: dict[str, Any] = {"type": type_, "content_type": content_type, "expires": expires}
    try:
        run = required_run(run)
        options["uid"] = pinned(uid, run)
        _check(options)
        planned = _planned(paths, name, best_effort=best_effort)
        with connect(url, token_file, retry_for=retry_for) as client:
            items = list(planned.items.values())
            code = _send(client, run, items, options, jobs=jobs, as_json=as_json)
    except OffloadError as error:
        if not best_effort:
            raise
        notice(str(error))
        code = exits.code_of(error)
    except Exception as error:
        if not best_effort:
            raise
        notice(f"unexpected {type(error).__name__}: {error}")
        code = exits.FAILED
    if code and best_effort:
        notice(f"exit code 0 instead of {code}, because of --best-effort")
    elif code:
        raise typer.Exit(code)


def _check(options: dict[str, Any]) -> None:
    """Refuse what would make every upload fail, before the first."""
    from offload.client.expiry import expiry_text  # noqa: PLC0415 - loads httpx with it

    if options["type"]:
        check_type(options["type"])
    if options["content_type"]:
        check_content_type(options["content_type"])
    if options["expires"]:
        expiry_text(options["expires"])


def _planned(paths: list[str], name: str | None, *, best_effort: bool) -> Plan:
    planned = plan(paths, name=name)
    for line in planned.passed_over:
        notice(f"passes over {printable(line)}")
    if planned.problems and not best_effort:
        for problem in planned.problems[1:]:
            notice(str(problem))
        raise planned.problems[0]
    for problem in planned.problems:
        notice(str(problem))
    return planned


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one item: an artifact, an error, or neither where it was not tried."""

    item: Item
    artifact: "Artifact | None" = None
    error: Exception | None = None

    @property
    def word(self) -> str:
        if self.artifact:
            return "unchanged" if self.artifact.created is False else "stored"
        return "failed" if self.error else "not sent"


def _send(  # noqa: PLR0913 - what, where to, and how
    client: "Client", run: str, items: list[Item], options: dict[str, Any], *, jobs: int, as_json: bool
) -> int:
    """Send all items, say what became of each, and answer the exit code.

    What cannot be said, as to a pipe whose reader has gone, is raised once all are sent.
    """
    began = time.monotonic()
    outcomes = []
    unsaid: OSError | UnicodeError | None = None
    with Transfers(files=len(items)) as transfers:
        transfers.expect(sum(item.path.stat().st_size for item in items if item.path and item.path.is_file()))

        def send_one(item: Item) -> "Artifact":
            transfer = transfers.begin(item.name, None)
            try:
                with _source(item) as source:
                    return client.put(run, item.name, source, progress=transfer.move, **options)
            finally:
                transfer.end()

        for outcome in _outcomes(items, send_one, jobs):
            outcomes.append(outcome)
            try:
                _tell(outcome, transfers, as_json=as_json)
            except (OSError, UnicodeError) as error:
                unsaid = unsaid or error
    _sum_up(outcomes, time.monotonic() - began)
    if unsaid:
        raise unsaid
    errors = [outcome.error for outcome in outcomes if outcome.error]
    codes = [exits.code_of(e) if isinstance(e, OffloadError) else exits.FAILED for e in errors]
    return exits.OUT_OF_REACH if exits.OUT_OF_REACH in codes else next(iter(codes), 0)


def _source(item: Item) -> AbstractContextManager[Path | io.FileIO]:
    if item.path is not None:
        return nullcontext(item.path)
    if sys.stdin is None:  # Python's word for a descriptor that is closed; another file may have its number
        raise ConfigError("standard input is closed")
    # Not sys.stdin: its lock, held by a thread that waits for input, aborts Python at exit after Ctrl-C.
    return io.FileIO(sys.stdin.fileno(), closefd=False)


def _outcomes(items: list[Item], send_one: Callable[[Item], "Artifact"], jobs: int) -> Iterator[_Outcome]:
    """Send in threads, and answer outcomes as they come. Once the server is out of reach, no other begins."""
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    done: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
    stop = threading.Event()
    for item in items:
        waiting.put(item)

    def work() -> None:
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            if stop.is_set():
                done.put(_Outcome(item))
                continue
            try:
                done.put(_Outcome(item, artifact=send_one(item)))
            except Exception as error:  # noqa: BLE001 - the outcome carries it to the thread that reports
                if isinstance(error, OffloadError) and exits.code_of(error) == exits.OUT_OF_REACH:
                    stop.set()
                done.put(_Outcome(item, error=error))

    # Daemons: Ctrl-C ends the process at once, whatever these threads wait for.
    for _ in range(min(jobs, len(items))):
        threading.Thread(target=work, daemon=True).start()
    for _ in items:
        yield done.get()


def _tell(outcome: _Outcome, transfers: Transfers, *, as_json: bool) -> None:
    artifact, error = outcome.artifact, outcome.error
    if as_json:
        line = json.dumps(_json(outcome), ensure_ascii=False)
        # A byte of a path that is no UTF-8 is half of a pair in Python, which JSON writes as an escape.
        transfers.say(line.encode(errors="backslashreplace").decode())
    elif artifact:
        name, size = printable(artifact.name), format_size(artifact.size_bytes)
        transfers.say(f"{outcome.word:<9}  {name}  {size}  {printable(artifact.uri)}")
    if error:
        transfers.say(f"offload: {printable(outcome.item.name)}: {printable(_line(error))}", to_stderr=True)


def _json(outcome: _Outcome) -> dict[str, Any]:
    told: dict[str, Any] = {"name": outcome.item.name, "outcome": outcome.word}
    if outcome.item.path:
        told["path"] = str(outcome.item.path)
    if outcome.artifact:
        told["artifact"] = outcome.artifact.to_json()
    if outcome.error:
        told["error"] = _line(outcome.error)
    return told


def _line(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if isinstance(error, OffloadError) else f"unexpected {type(error).__name__}: {error}"


def _sum_up(outcomes: list[_Outcome], seconds: float) -> None:
    counts = [
        f"{sum(outcome.word == word for outcome in outcomes)} {word}"
        for word in ("stored", "unchanged", "failed", "not sent")
        if word == "stored" or any(outcome.word == word for outcome in outcomes)
    ]
    size = sum(outcome.artifact.size_bytes for outcome in outcomes if outcome.artifact)
    rate = f" ({format_size(int(size / max(seconds, 0.001)))}/s)" if size else ""
    notice(f"{', '.join(counts)}; {format_size(size)} in {seconds:.1f} s{rate}")
