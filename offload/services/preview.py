"""Preview: what a run's status should say, before anything is stored or written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from offload.domain.artifact import Artifact, State
from offload.domain.external import External
from offload.domain.limits import PAGE_MOST
from offload.domain.pointers import StatusSchema, pointer
from offload.domain.projection import Caps, History, Projection, effective_cap, finished_at, project
from offload.domain.run import Run
from offload.errors import AgentRunGoneError
from offload.index import Transaction, artifacts, clock, externals, runs
from offload.services.adopt import Sorted, as_adopted, is_whole, sort_entries
from offload.services.strictness import is_judged, strict_since


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the index knows of a run and its status, in one look."""

    run: Run
    artifacts: Sequence[Artifact]
    externals: Sequence[External]
    sorted: Sorted
    whole: bool
    """Whether status has our pointers as it was last published: see `is_whole`."""
    entries_at_finish: int | None
    strict_since: datetime | None
    """Since when strict mode judges this run; None where it does not."""

    @property
    def strict(self) -> bool:
        return self.strict_since is not None

    def history(self, externals: Sequence[External], hint: str) -> History:
        return History(
            artifacts=self.artifacts,
            externals=externals,
            current_count=self.run.current_count,
            stored_bytes=self.run.stored_bytes,
            entries_at_finish=self.entries_at_finish,
            strict_since=self.strict_since,
            hint=hint,
        )


def load(  # noqa: PLR0913 - status is projected from as many things
    tx: Transaction,
    uid: str,
    status: Mapping[str, Any],
    *,
    schema: StatusSchema,
    caps: Caps,
    strict: bool,
) -> Loaded:
    """What a projection onto `status` needs of the index. Raises `AgentRunGoneError` for an unknown run."""
    # First, so that its revision covers no more than what is read after it.
    run = runs.get(tx, uid)
    if run is None:
        raise AgentRunGoneError
    cap = effective_cap(caps, schema)
    newest = artifacts.newest_current(tx, uid, cap)
    if schema.narrow and any(pointer(one, schema) is None for one in newest):
        newest = artifacts.newest_current(tx, uid, max(cap, PAGE_MOST))
    found = sort_entries(tx, uid, status, newest, schema)
    since = strict_since(tx) if strict else None
    if since and not is_judged(run, status, since):
        since = None
    at_finish = None
    finished = finished_at(status)
    if since and status.get("phase") == "Succeeded" and finished:
        before = artifacts.history(tx, uid, state=State.STORED, until=finished, limit=max(PAGE_MOST, 4 * cap))
        at_finish = len({artifact.name for artifact in before}) + len(found.foreign)
    whole = is_whole(run, newest, found.ours, schema)
    return Loaded(run, newest, externals.of_run(tx, uid), found, whole, at_finish, since)


def preview(  # noqa: PLR0913 - status is projected from as many things
    tx: Transaction,
    uid: str,
    status: Mapping[str, Any],
    *,
    schema: StatusSchema,
    caps: Caps,
    strict: bool,
    public_url: str | None,
) -> Projection:
    """What a publish would make of `status`, as far as can be told without storing anything."""
    loaded = load(tx, uid, status, schema=schema, caps=caps, strict=strict)
    history = loaded.history(foreseen(loaded, schema), history_hint(loaded.run, public_url))
    return project(history, status, schema=schema, caps=caps, strict=loaded.strict, now=clock.now(tx))


def foreseen(loaded: Loaded, schema: StatusSchema) -> list[External]:
    """What a publish would find of others, listed or left out; content stays in its entry."""
    foreign, known = loaded.sorted.foreign, loaded.externals
    return not_removed(as_adopted(loaded.run, foreign, known, schema, whole=loaded.whole))


def history_hint(run: Run, public_url: str | None) -> str:
    """Where a run's full history is: a link where this service's address is known, else the command."""
    if public_url is None:
        return f"offload history {run.namespace}/{run.name}"
    return (
        f"{public_url.rstrip('/')}/v1/namespaces/{run.namespace}/agentruns/{run.name}/artifacts?uid={run.uid}"
    )


def not_removed(known: Sequence[External]) -> list[External]:
    """Those that their writers have not removed."""
    return [one for one in known if one.state != "removed"]
