"""All loops of one controller process, started and stopped together."""

import threading
import time
from collections.abc import Sequence

import structlog

from offload import metrics
from offload.controller.dispatch import Dispatcher
from offload.controller.jobs import Job, JobLoop
from offload.controller.loops import Loop
from offload.index import Index
from offload.services.follow import Follower
from offload.services.publish import Publisher
from offload.services.schema import ServedSchema

SCHEMA_SECONDS = 30.0
SCHEMA_SECONDS_IN_DOUBT = 2.0
DOUBT_SECONDS = 0.5
"""How soon a doubt is heard."""
WATCH_AGE_SECONDS = 150.0
"""Older than this the watch counts as broken: bookmarks come about once a minute."""

log = structlog.get_logger()


class Controller:
    """Follows, publishes, refreshes the schema, and does periodic jobs. Usable once."""

    def __init__(  # noqa: PLR0913 - parts and values, each once
        self,
        index: Index,
        schema: ServedSchema,
        follower: Follower,
        publisher: Publisher | None,
        *,
        jobs: Sequence[Job] = (),
        holder: str,
        workers: int = 8,
        namespaces: Sequence[str] = (),
    ) -> None:
        """Without a `publisher` nothing is published (`OFFLOAD_PUBLISH=off`)."""
        self._schema, self._follower, self._publishes = schema, follower, publisher is not None
        self._loops = [Loop("follow", follower.run)]
        if publisher:
            dispatcher = Dispatcher(
                index,
                publisher,
                schema,
                holder=holder,
                workers=workers,
                namespaces=namespaces,
            )
            self._loops += [Loop("schema", self._refresh), Loop("publish", dispatcher.run)]
        for job in jobs:
            body = JobLoop(index, job, holder=holder)
            self._loops.append(Loop(job.name, body.run, failing=body.failing))

    def start(self) -> None:
        """Start every loop, and tell how old the watch is from now on, whatever else fails."""
        metrics.WATCH_AGE.set_function(self._follower.age)
        for loop in self._loops:
            loop.start()

    def stop(self, within: float = 8.0) -> bool:
        """End every loop; whether all ended `within` so many seconds. Publishes that run are finished."""
        for loop in self._loops:
            loop.ask_to_stop()
        until = time.monotonic() + within
        late = [loop.name for loop in self._loops if not loop.join(max(0.0, until - time.monotonic()))]
        if late:
            log.warning("controller.did_not_stop", loops=late)
        return not late

    def ready(self) -> list[str]:
        """What is wrong now; empty when all is well."""
        problems = [loop.problem for loop in self._loops if loop.problem]
        if self._publishes and self._schema.problem:
            problems.append(self._schema.problem)
        problems += self._follower.refusals()
        age = self._follower.age()
        if age == float("inf"):
            problems.append("not all AgentRuns were listed yet")
        elif age > WATCH_AGE_SECONDS:
            problems.append(f"the AgentRun watch was last current {age:.0f} s ago")
        return problems

    def _refresh(self, stop: threading.Event) -> None:
        while not stop.is_set():
            doubted = self._schema.doubted
            self._schema.refresh()
            # The document that tells of a changed CRD comes a moment after what the change ends.
            pause = SCHEMA_SECONDS_IN_DOUBT if doubted or self._schema.problem else SCHEMA_SECONDS
            until = time.monotonic() + pause
            while not stop.wait(DOUBT_SECONDS) and time.monotonic() < until and not self._schema.doubted:
                pass
