"""Settings to adapters: what every process opens."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offload.cluster.kubernetes import KubernetesCluster
from offload.domain.projection import Caps
from offload.domain.retention import KEEP_FOREVER, Policy
from offload.errors import ConfigError
from offload.index import Index, migrate
from offload.index.database import parse_url
from offload.objects.s3 import S3Objects
from offload.objects.s3_client import S3Connection
from offload.rules_file import load_rules
from offload.settings import Settings


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
    return S3Objects(connection_of(settings), part_size=settings.upload_part_size)


def connection_of(settings: Settings) -> S3Connection:
    """Where the object store is, and who asks."""
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
        sign_bodies=settings.s3_sign_bodies,
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


def caps_of(settings: Settings) -> Caps:
    """The limits of a status list."""
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
