"""The only place that chooses adapters and puts the parts together."""

import asyncio
import fcntl
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import structlog
import uuid_utils.compat
from starlette.types import ASGIApp

from offload import logs, metrics
from offload.cluster.interface import Cluster
from offload.cluster.kubernetes import KubernetesCluster
from offload.controller.controller import Controller
from offload.controller.jobs import Job
from offload.controller.streams import StreamLoop
from offload.domain.projection import Caps
from offload.domain.retention import KEEP_FOREVER, Policy
from offload.errors import ConfigError, OffloadError
from offload.http.app import create_app
from offload.http.draining import call_on_terminate
from offload.http.parts import Parts, PartState
from offload.index import Index, clock, migrate
from offload.index.database import parse_url
from offload.index.recorder import Recorder
from offload.objects.interface import Objects
from offload.objects.s3 import S3Objects
from offload.objects.s3_client import S3Connection
from offload.objects.s3_inspection import S3Inspection
from offload.rules_file import load_rules
from offload.services.adopt import Adopter
from offload.services.browse import Browse
from offload.services.budget import ByteBudget
from offload.services.doctor import Finding, examine
from offload.services.doctor.cluster import ClusterPart
from offload.services.doctor.findings import Opened
from offload.services.doctor.index import IndexPart
from offload.services.doctor.settings import SettingsPart
from offload.services.doctor.store import StorePart
from offload.services.echoes import Echoes
from offload.services.follow import Follower
from offload.services.incarnations import Incarnations
from offload.services.ingest import Ingest, Limits
from offload.services.orphans import Claim, claim_prefix, clean_orphans
from offload.services.publish import Publisher
from offload.services.readiness import Readiness
from offload.services.schema import ServedSchema
from offload.services.sweep import WATCH, Outcome, erase_artifact, erase_ready, sweep, why_watch_is_stale
from offload.settings import Settings, load_settings
from offload.tokens_file import TokenFile

WATCH_EVERY = timedelta(seconds=30)
ERASE_EVERY = timedelta(seconds=15)
_CLAIM_AGAIN_SECONDS = 5.0
_END_SOURCES_BEFORE = 5.0
"""Seconds of the shut-down grace that are left for uploads to end cleanly."""
_SETTLE_SECONDS = 3.0
"""How long cancelled uploads may take to clean up after it."""
_KILL_SECONDS = 7.0

log = structlog.get_logger("offload")


def open_index(settings: Settings) -> Index:
    """Connect to the index. Raises `ConfigError` where its schema is not one that this release can use."""
    index = Index.connect(settings.database_url.get_secret_value())
    try:
        migrate.check(index)
    except BaseException:
        index.close()
        raise
    return index


def open_objects(settings: Settings) -> S3Objects:
    """Make the object store's adapter; nothing is connected yet."""
    return S3Objects(_connection(settings), part_size=settings.upload_part_size)


def _connection(settings: Settings) -> S3Connection:
    return S3Connection(
        bucket=settings.s3_bucket,
        endpoint_url=settings.s3_endpoint_url,
        public_endpoint_url=settings.s3_public_endpoint_url,
        region=settings.s3_region,
        addressing=settings.s3_addressing,
        ca_bundle=str(settings.s3_ca_file) if settings.s3_ca_file else None,
        kms_key_id=settings.s3_sse_kms_key,
        storage_class=settings.s3_storage_class,
        expected_owner=settings.s3_expected_owner,
    )


def open_cluster(settings: Settings) -> KubernetesCluster:
    """Make the API server's adapter; nothing is connected yet."""
    return KubernetesCluster.from_config(
        str(settings.kubeconfig) if settings.kubeconfig else None,
        namespaces=settings.namespaces,
        requests_per_second=settings.kubernetes_rate,
    )


def load_policy(settings: Settings) -> Policy:
    """The retention rules in force. Raises `ConfigError`."""
    return load_rules(settings.retention_file) if settings.retention_file else KEEP_FOREVER


def check_start(settings: Settings) -> None:
    """Find out now what would keep a service from starting. Raises `ConfigError` or `UnavailableError`."""
    load_policy(settings)
    if settings.auth == "tokens" and settings.tokens_file:
        TokenFile(settings.tokens_file)
    open_cluster(settings).close()
    open_objects(settings).close()
    open_index(settings).close()


def checkup(settings: Settings) -> list[Finding]:
    """Examine everything that `settings` name; what is out of reach is a finding, not an error."""
    publishes = settings.publish == "on"
    impatient = replace(_connection(settings), connect_timeout=3, read_timeout=6, attempts=1)
    with ExitStack() as stack:

        def opened(opening: Callable[[], Index | S3Objects | S3Inspection | KubernetesCluster]) -> Any:
            return Opened(lambda: stack.enter_context(closing(opening())))

        index = opened(lambda: _index_as_it_is(settings))
        objects = opened(lambda: S3Objects(impatient))
        inspection = opened(lambda: S3Inspection(impatient))
        cluster = opened(lambda: open_cluster(settings))
        checks = [
            *SettingsPart(
                auth=settings.auth,
                tokens_named=settings.tokens_file is not None,
                check_access=lambda: _check_access(settings),
                retention_named=settings.retention_file is not None,
                check_retention=lambda: load_policy(settings),
                publish=settings.publish,
                artifacts_max=settings.artifacts_max,
                artifacts_strict=settings.artifacts_strict,
                status_max_bytes=settings.status_max_bytes,
                sqlite=settings.uses_sqlite,
            ).checks(),
            *StorePart(objects, inspection, index, settings.s3_bucket, settings.s3_prefix).checks(),
            *IndexPart(index, publishes).checks(),
            *ClusterPart(cluster, _caps(settings), settings.artifacts_strict, publishes).checks(),
        ]
        return examine(checks, secrets=_secrets(settings))


def _check_access(settings: Settings) -> None:
    settings.check_exposure(settings.host)
    if settings.auth == "tokens" and settings.tokens_file:
        TokenFile(settings.tokens_file)


def _index_as_it_is(settings: Settings) -> Index:
    """The index at whatever revision. A SQLite file that is not there is not made."""
    url = settings.database_url.get_secret_value()
    database = parse_url(url).database
    if settings.uses_sqlite and database and not Path(database).exists():
        raise ConfigError(f"there is no index in {database}: run `offload migrate`")
    return Index.connect(url)


def _secrets(settings: Settings) -> set[str]:
    """What must be in no finding."""
    url = parse_url(settings.database_url.get_secret_value())
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    given = {str(url.password or ""), *(os.environ.get(name, "") for name in names)}
    return {*given, *(quote(secret, safe="") for secret in given)} - {""}


def app_of_worker() -> ASGIApp:
    """The service of one process, by its environment."""
    settings = load_settings()
    logs.configure(level=settings.log_level, form=settings.log_format)
    return make_app(settings)


def make_app(settings: Settings, *, open_store: Callable[[Settings], Objects] = open_objects) -> ASGIApp:
    """The service by `settings`; its parts live from start-up to shut-down."""
    return create_app(lambda: _serving(settings, open_store))


@asynccontextmanager
async def _serving(settings: Settings, open_store: Callable[[Settings], Objects]) -> AsyncIterator[Parts]:
    with ExitStack() as stack:
        index = open_index(settings)
        stack.callback(index.close)
        objects = open_store(settings)
        stack.callback(objects.close)
        cluster = open_cluster(settings)
        stack.callback(cluster.close)
        recorder = Recorder(index, grace=settings.orphan_grace)
        stack.callback(recorder.close)
        readiness = Readiness(
            {"index": lambda: migrate.check(index), "store": objects.check, "cluster": cluster.check}
        )
        stack.callback(readiness.close)
        parts = _parts(settings, index, objects, cluster, recorder, readiness)
        stack.callback(parts.ingest.close)
        grace = settings.shutdown_grace.total_seconds()
        call_on_terminate(
            parts.ingest.end_sources,
            after=max(0.0, grace - _END_SOURCES_BEFORE),
            killed_after=grace + _SETTLE_SECONDS + _KILL_SECONDS,
        )
        stop = threading.Event()
        stack.callback(stop.set)
        threading.Thread(
            target=_claim_prefix, args=(index, objects, settings.s3_prefix, stop), name="claim", daemon=True
        ).start()
        yield parts
        # The server does not wait for the requests that it cancels, and they still clean up in the store.
        await parts.ingest.settled(_SETTLE_SECONDS)


def _parts(  # noqa: PLR0913, PLR0917 - every adapter once
    settings: Settings,
    index: Index,
    objects: Objects,
    cluster: Cluster,
    recorder: Recorder,
    readiness: Readiness,
) -> Parts:
    policy = load_policy(settings)
    caps = _caps(settings)
    incarnations = Incarnations(
        index, cluster, namespaces=settings.namespaces, deleted_grace=settings.deleted_run_grace
    )
    schema = ServedSchema(cluster, caps=caps)
    ingest = Ingest(
        index,
        objects,
        recorder,
        incarnations,
        policy=policy,
        prefix=settings.s3_prefix,
        budget=ByteBudget(settings.upload_memory),
        limits=Limits(settings.upload_max_size, settings.upload_max_concurrent, settings.upload_stall),
    )
    browse = Browse(
        index, objects, cluster, schema, incarnations, policy=policy, caps=caps, prefix=settings.s3_prefix
    )

    def look() -> Sequence[PartState]:
        found = readiness.look()
        return [
            PartState("index", found["index"], needed=True),
            PartState("store", found["store"], needed=True),
            PartState("cluster", found["cluster"], needed=False),
        ]

    tokens = None
    if settings.auth == "tokens" and settings.tokens_file:
        tokens = TokenFile(settings.tokens_file)
    return Parts(
        ingest=ingest,
        browse=browse,
        objects=objects,
        downloads=asyncio.Semaphore(settings.download_max_concurrent),
        erase=lambda artifact_id, by: erase_artifact(index, artifact_id, by=by),
        tokens=tokens,
        look=look,
        public_url=settings.public_url,
        publish_mode=settings.publish,
    )


def _claim_prefix(index: Index, objects: Objects, prefix: str, stop: threading.Event) -> None:
    """Mark the prefix as this index's own as soon as the store can be reached."""
    while not stop.is_set():
        try:
            claim = claim_prefix(index, objects, prefix=prefix)
        except OffloadError as error:
            log.warning("prefix.unclaimed", problem=str(error))
        except Exception:
            log.exception("prefix.unclaimed")
        else:
            if claim is not Claim.OURS:
                log.error("prefix.not_ours", prefix=prefix, claim=str(claim), remedy="offload orphans --help")
            return
        stop.wait(_CLAIM_AGAIN_SECONDS)


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
    caps = _caps(settings)
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
        jobs=_jobs(settings, index, objects, follower),
        holder=holder,
        namespaces=settings.namespaces,
    )


def _jobs(settings: Settings, index: Index, objects: S3Objects, follower: Follower) -> Sequence[Job]:
    policy = load_policy(settings)

    def why_not(stop: threading.Event) -> Callable[[], str | None]:
        return lambda: "shutting down" if stop.is_set() else why_watch_is_stale(index)

    def tell_watch(stop: threading.Event) -> None:
        while follower.age() > WATCH_EVERY.total_seconds() and not stop.wait(1):
            pass

    def sweep_due(stop: threading.Event) -> None:
        while why_watch_is_stale(index) and not stop.wait(1):
            pass
        if stop.is_set():
            return
        with index.read() as tx:
            now = clock.now(tx)
        report = sweep(
            index, objects, policy, now=now, namespaces=settings.namespaces, why_stale=why_not(stop)
        )
        log.info("sweep", outcome=report.outcome.value, why=report.why)
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
            stopped_because=report.stopped_because,
        )

    return [
        Job(WATCH, WATCH_EVERY, tell_watch),
        Job("sweep", settings.sweep_every, sweep_due),
        Job("erase", ERASE_EVERY, erase_due),
        Job("orphans", settings.orphan_grace, clean),
    ]


def _caps(settings: Settings) -> Caps:
    return Caps(count=settings.artifacts_max, size_bytes=settings.status_max_bytes)


@contextmanager
def sole_on_sqlite(settings: Settings, role: str) -> Iterator[None]:
    """Hold `role` (serve, controller) of a SQLite index for this process; on PostgreSQL nothing is held.

    Raises:
        ConfigError: another process holds it.
    """
    database = parse_url(settings.database_url.get_secret_value()).database
    if not settings.uses_sqlite or not database:
        yield
        return
    path = Path(f"{database}.{role}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise ConfigError(f"the index's folder cannot be written: {path}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another `offload {role}` uses this SQLite index, and it takes one; "
                "for more set OFFLOAD_DATABASE_URL to a PostgreSQL"
            ) from error
        yield
