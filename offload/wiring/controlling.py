"""The controller of one process."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from secrets import token_hex

import structlog
import uuid_utils.compat

from offload import metrics
from offload.cluster.interface import Cluster
from offload.controller.controller import Controller
from offload.controller.jobs import Job
from offload.controller.streams import StreamLoop
from offload.domain.times import format_time
from offload.errors import OffloadError
from offload.index import Index, clock
from offload.index.recorder import Recorder
from offload.objects.s3 import S3Objects
from offload.services.adopt import Adopter
from offload.services.continuity import note_continuity
from offload.services.echoes import Echoes
from offload.services.follow import Follower
from offload.services.orphans import claim_prefix, clean_orphans
from offload.services.publish import Publisher
from offload.services.schema import ServedSchema
from offload.services.strictness import note_strictness
from offload.services.sweep import (
    WATCH,
    Outcome,
    SweepReport,
    erase_ready,
    job_of,
    sweep,
    why_watch_is_stale,
)
from offload.settings import Settings
from offload.wiring.adapters import (
    caps_of,
    load_policy,
    open_cluster,
    open_index,
    open_objects,
)

WATCH_EVERY = timedelta(seconds=30)
WATCH_HEARD = timedelta(seconds=75)
"""A watch that was heard so lately is well: each is every 50 s, and of several the last one counts."""
ERASE_EVERY = timedelta(seconds=15)
STRICTNESS_EVERY = timedelta(seconds=60)
CONTINUITY_EVERY = timedelta(seconds=60)

log = structlog.get_logger("offload")


@contextmanager
def controlling(settings: Settings, *, stop_within: float = 8.0) -> Iterator[Controller]:
    """A started controller by `settings`; when left it is stopped, in at most `stop_within` seconds."""
    with ExitStack() as stack:
        index = open_index(settings)
        stack.callback(index.close)
        objects = open_objects(settings)
        stack.callback(objects.close)
        cluster = open_cluster(settings)
        stack.callback(cluster.close)
        recorder = Recorder(index, grace=settings.orphan_grace)
        stack.callback(recorder.close)
        streams = StreamLoop()
        stack.callback(streams.close)
        controller = _controller(settings, index, objects, cluster, recorder, streams)
        controller.start()
        stack.callback(controller.stop, stop_within)
        yield controller


def _controller(  # noqa: PLR0913, PLR0917 - every adapter once
    settings: Settings,
    index: Index,
    objects: S3Objects,
    cluster: Cluster,
    recorder: Recorder,
    streams: StreamLoop,
) -> Controller:
    caps = caps_of(settings)
    holder = f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"
    schema = ServedSchema(cluster, caps=caps)
    echoes = Echoes()
    publisher = None
    if settings.publish != "off":
        adopter = Adopter(
            index,
            objects,
            recorder,
            prefix=settings.s3_prefix,
            run_coroutine=streams.run,
            new_id=uuid_utils.compat.uuid7,
        )
        publisher = Publisher(
            index,
            cluster,
            schema,
            adopter,
            echoes,
            holder=holder,
            caps=caps,
            strict=settings.artifacts_strict,
            mode=settings.publish,
            public_url=settings.public_url,
        )
    follower = Follower(index, cluster, echoes, schema, publisher=publisher)
    return Controller(
        index,
        schema,
        follower,
        publisher,
        jobs=[*_jobs(settings, index, objects, follower), *_strictness(settings, index)],
        holder=holder,
        namespaces=settings.namespaces,
    )


def _strictness(settings: Settings, index: Index) -> Sequence[Job]:
    if not settings.artifacts_strict or settings.publish != "on":
        return []
    note_strictness(index)
    return [Job("strictness", STRICTNESS_EVERY, lambda _stop: note_strictness(index))]


def _jobs(settings: Settings, index: Index, objects: S3Objects, follower: Follower) -> Sequence[Job]:
    policy, namespaces = load_policy(settings), settings.namespaces
    for outcome in Outcome:
        metrics.SWEEPS.labels(outcome=outcome.value)  # there from the start, so that the first one is growth

    def why_not(stop: threading.Event) -> Callable[[], str | None]:
        return lambda: "shutting down" if stop.is_set() else why_watch_is_stale(index, namespaces)

    def watch_is_fresh() -> bool:
        return follower.age() <= WATCH_HEARD.total_seconds()

    def sweep_due(stop: threading.Event) -> None:
        while why_watch_is_stale(index, namespaces) and not stop.wait(1):
            pass
        if stop.is_set():
            return
        with index.read() as tx:
            now = clock.now(tx)
        report = sweep(index, objects, policy, now=now, namespaces=namespaces, why_stale=why_not(stop))
        _tell(report)
        if report.outcome is Outcome.REFUSED and not stop.is_set():
            raise OffloadError(f"the sweep was refused: {report.why}")

    def erase_due(stop: threading.Event) -> None:
        erase_ready(index, objects, why_stale=lambda: "shutting down" if stop.is_set() else None)

    def clean(_stop: threading.Event) -> None:
        claim_prefix(index, objects, prefix=settings.s3_prefix)
        report = clean_orphans(index, objects, prefix=settings.s3_prefix, grace=settings.orphan_grace)
        metrics.ORPHANS_REMOVED.inc(report.removed + report.aborted_uploads)
        log.info(
            "orphans",
            seen=report.seen,
            removed=report.removed,
            aborted=report.aborted_uploads,
            in_doubt=report.in_doubt,
            unbroken_since=report.unbroken_since and format_time(report.unbroken_since),
            stopped_because=report.stopped_because,
            left_alone=report.left_alone,
        )

    return [
        # There is nothing to do: that it was done says that the watch of some controller like this is fresh.
        Job(
            WATCH,
            WATCH_EVERY,
            lambda _stop: None,
            ready=watch_is_fresh,
            shared_as=job_of(WATCH, namespaces),
        ),
        Job("sweep", settings.sweep_every, sweep_due, shared_as=job_of("sweep", namespaces)),
        Job("erase", ERASE_EVERY, erase_due),
        Job("continuity", CONTINUITY_EVERY, lambda _stop: note_continuity(index)),
        Job("orphans", settings.orphan_grace, clean),
    ]


def _tell(report: SweepReport) -> None:
    metrics.SWEEPS.labels(outcome=report.outcome.value).inc()
    if report.parked:
        # By every sweep, as long as it waits: the first time may be days ago.
        log.warning("sweep", outcome=report.outcome.value, why=report.why, plan=str(report.parked.id))
    else:
        log.info("sweep", outcome=report.outcome.value, why=report.why)
