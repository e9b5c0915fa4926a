"""What `offload doctor` examines."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from offload.cluster.kubernetes import KubernetesCluster
from offload.errors import ConfigError
from offload.index import Index
from offload.index.database import parse_url
from offload.objects.s3 import S3Objects
from offload.objects.s3_inspection import S3Inspection
from offload.services.doctor import Check, Finding, examine
from offload.services.doctor.agentruns import AgentRunsPart
from offload.services.doctor.beside import BesidePart
from offload.services.doctor.cluster import ClusterPart
from offload.services.doctor.findings import Opened
from offload.services.doctor.index import IndexPart
from offload.services.doctor.settings import SettingsPart
from offload.services.doctor.store import StorePart
from offload.settings import Settings
from offload.tokens_file import TokenFile
from offload.wiring.adapters import caps_of, connection_of, load_policy, open_cluster


def checkup(settings: Settings, beside: object = None) -> list[Finding]:
    """Examine everything that `settings` name; what is out of reach is a finding, not an error.

    `beside` is the Deployment of another controller, whose settings are compared with these.
    """
    publishes = settings.publish == "on"
    impatient = replace(connection_of(settings), connect_timeout=3, read_timeout=6, attempts=1)
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
            *IndexPart(index, publishes, settings.namespaces).checks(),
            *ClusterPart(cluster, caps_of(settings), settings.artifacts_strict, publishes).checks(),
            *AgentRunsPart(cluster).checks(),
            *_beside(settings, beside),
        ]
        return examine(checks, secrets=_secrets(settings))


def _beside(settings: Settings, beside: object) -> Sequence[Check]:
    if beside is None:
        return []
    return BesidePart(beside, settings.artifacts_max, settings.artifacts_strict).checks()


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
