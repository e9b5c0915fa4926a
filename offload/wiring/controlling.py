"""The controller of one process."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from secrets import token_hex

import uuid_utils.compat

from offload.cluster.interface import Cluster
from offload.controller.controller import Controller
from offload.controller.streams import StreamLoop
from offload.controller.upkeep import Upkeep
from offload.index import Index
from offload.index.recorder import Recorder
from offload.objects.s3 import S3Objects
from offload.services.adopt import Adopter
from offload.services.echoes import Echoes
from offload.services.follow import Follower
from offload.services.publish import Publisher
from offload.services.schema import ServedSchema
from offload.settings import Settings
from offload.wiring.adapters import (
    caps_of,
    load_policy,
    open_cluster,
    open_index,
    open_objects,
)


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
    upkeep = Upkeep(
        index=index,
        objects=objects,
        policy=load_policy(settings),
        namespaces=settings.namespaces,
        prefix=settings.s3_prefix,
        watch_age=follower.age,
        sweep_every=settings.sweep_every,
        orphan_grace=settings.orphan_grace,
        strict=settings.artifacts_strict and settings.publish == "on",
    )
    return Controller(
        index,
        schema,
        follower,
        publisher,
        jobs=upkeep.jobs(),
        holder=holder,
        namespaces=settings.namespaces,
    )
