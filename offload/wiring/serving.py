"""The HTTP service of one process."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager

import structlog
from starlette.types import ASGIApp

from offload import logs
from offload.cluster.interface import Cluster
from offload.errors import OffloadError
from offload.http.app import create_app
from offload.http.draining import call_on_terminate
from offload.http.parts import Parts, PartState
from offload.index import Index, migrate
from offload.index.recorder import Recorder
from offload.objects.interface import Objects
from offload.services.browse import Browse
from offload.services.budget import ByteBudget
from offload.services.incarnations import Incarnations
from offload.services.ingest import Ingest, Limits
from offload.services.lookups import Lookups
from offload.services.missing_bytes import find_again
from offload.services.orphans import Claim, claim_prefix
from offload.services.readiness import Readiness
from offload.services.schema import ServedSchema
from offload.services.sweep import erase_artifact
from offload.settings import Settings, load_settings
from offload.tokens_file import TokenFile
from offload.wiring.adapters import (
    caps_of,
    load_policy,
    open_cluster,
    open_index,
    open_objects,
)

_TRY_AGAIN_SECONDS = 5.0
_END_SOURCES_BEFORE = 7.0
"""Seconds of the shut-down grace that are left for uploads to end cleanly: what still comes of a body is
discarded for 5 s, so that its sender gets the answer."""
_SETTLE_SECONDS = 3.0
"""How long cancelled uploads may take to clean up after it."""
_KILL_SECONDS = 7.0

log = structlog.get_logger("offload")


def check_start(settings: Settings) -> None:
    """Find out now what would keep a service from starting. Raises `ConfigError` or `UnavailableError`."""
    load_policy(settings)
    if settings.auth == "tokens" and settings.tokens_file:
        TokenFile(settings.tokens_file)
    open_cluster(settings).close()
    open_objects(settings).close()
    open_index(settings).close()


def keep_what_is_loaded() -> None:
    """Spare the garbage collector what stays for good: modules, routes, tables."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)


def app_of_worker() -> ASGIApp:
    """The service of one process, by its environment."""
    settings = load_settings()
    logs.configure(level=settings.log_level, form=settings.log_format)
    app = make_app(settings)
    keep_what_is_loaded()
    return app


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
        stack.callback(parts.lookups.close)
        grace = settings.shutdown_grace.total_seconds()
        call_on_terminate(
            parts.ingest.end_sources,
            after=max(0.0, grace - _END_SOURCES_BEFORE),
            killed_after=grace + _SETTLE_SECONDS + _KILL_SECONDS,
        )
        stop = threading.Event()
        stack.callback(stop.set)

        def take_up_store() -> None:
            if _take_up_store(index, objects, settings.s3_prefix, stop):
                readiness.reached.add("store")  # no probe may come to this process before the store is away

        threading.Thread(target=take_up_store, name="take-up", daemon=True).start()
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
    caps = caps_of(settings)
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
        limits=Limits(
            settings.upload_max_size,
            settings.upload_max_concurrent,
            settings.upload_stall,
            settings.upload_min_rate,
        ),
    )
    browse = Browse(
        index,
        cluster,
        schema,
        incarnations,
        policy=policy,
        caps=caps,
        strict=settings.artifacts_strict,
        public_url=settings.public_url,
    )

    def look() -> Sequence[PartState]:
        found = readiness.look()
        return [
            PartState("index", found["index"], needed=True),
            # A rollout stops at a store that was never reached; one that is away takes history from nobody.
            PartState("store", found["store"], needed="store" not in readiness.reached),
            PartState("cluster", found["cluster"], needed=False),
        ]

    tokens = None
    if settings.auth == "tokens" and settings.tokens_file:
        tokens = TokenFile(settings.tokens_file)
    return Parts(
        ingest=ingest,
        browse=browse,
        lookups=Lookups(index, incarnations),
        objects=objects,
        redirects=settings.s3_public_endpoint_url is not None,
        downloads=asyncio.Semaphore(settings.download_max_concurrent),
        stall_seconds=settings.upload_stall.total_seconds(),
        find_again=lambda artifact: find_again(index, objects, artifact, prefix=settings.s3_prefix),
        erase=lambda artifact_id, by: erase_artifact(index, artifact_id, by=by),
        tokens=tokens,
        look=look,
        public_url=settings.public_url,
        publish_mode=settings.publish,
    )


def _take_up_store(index: Index, objects: Objects, prefix: str, stop: threading.Event) -> bool:
    """Mark the prefix as this index's own as soon as the store is reached; whether it was, before `stop`."""
    while not stop.is_set():
        try:
            claim = claim_prefix(index, objects, prefix=prefix)
            objects.check()
        except OffloadError as error:
            log.warning("store.not_reached", problem=str(error))
        except Exception:
            log.exception("store.not_reached")
        else:
            if claim is not Claim.OURS:
                log.error("prefix.not_ours", prefix=prefix, claim=str(claim), remedy="offload orphans --help")
            return True
        stop.wait(_TRY_AGAIN_SECONDS)
    return False
