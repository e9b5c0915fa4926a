"""How S3 is reached: the constructor values of the adapter, and the boto3 clients made from them."""

import base64
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import get_cert_path

from offload.errors import ConfigError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class S3Connection:
    """Where the store is, who asks, and how long to wait. Everything but the bucket may stay as it is."""

    bucket: str
    endpoint_url: str | None = None
    """None: AWS's own, by region."""
    public_endpoint_url: str | None = None
    """The address that readers outside can reach; None where there is none (no presigned URLs then)."""
    region: str | None = None
    access_key: str | None = None
    """None: the usual credential chain (environment, files, web identity, instance)."""
    secret_key: str | None = None
    session_token: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    ca_bundle: str | None = None
    """A file of PEM certificates to trust in place of the built-in ones."""
    kms_key_id: str | None = None
    """Objects are encrypted with this KMS key (SSE-KMS); None: as the bucket says."""
    storage_class: str | None = None
    expected_owner: str | None = None
    """Account id that must own every bucket; the store refuses otherwise."""
    sign_bodies: bool = False
    """Sign also bodies above 64 KiB with their SHA-256."""
    connect_timeout: float = 5
    """Seconds."""
    read_timeout: float = 20
    """Seconds between two bytes of an answer."""
    attempts: int = 3
    """Tries of one request in all, with botocore's standard back-off."""


def make_client(
    connection: S3Connection, session: boto3.session.Session, *, connections: int, public: bool = False
) -> "S3Client":
    """A thread-safe client that keeps up to `connections` connections open, and signs as `session` says.

    A client of the public address only signs URLs: the host is part of the signature.
    """
    if connection.ca_bundle and not Path(connection.ca_bundle).is_file():
        raise ConfigError(f"there is no file of certificates {connection.ca_bundle}")
    try:
        client = session.client(
            "s3",
            endpoint_url=connection.public_endpoint_url if public else connection.endpoint_url,
            region_name=connection.region,
            aws_access_key_id=connection.access_key,
            aws_secret_access_key=connection.secret_key,
            aws_session_token=connection.session_token,
            verify=connection.ca_bundle,
            config=_config(connection, connections),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the S3 settings are not usable: {error}") from error
    client.meta.events.register_last("before-call.s3.DeleteObjects", _send_content_md5)
    return client


def credentials_of(connection: S3Connection, session: boto3.session.Session) -> Credentials:
    """What signs requests, as `session` finds it. It renews itself when it is asked.

    Raises:
        ConfigError: there are none. An instance's own can be away for a moment, and a client that was made
            then would go without for ever: the process is to be started again.
    """
    if connection.access_key and connection.secret_key:
        return Credentials(connection.access_key, connection.secret_key, connection.session_token)
    try:
        found = session.get_credentials()
    except BotoCoreError as error:
        raise ConfigError(f"the S3 credentials are not usable: {error}") from error
    if found is None:
        raise ConfigError(
            "there are no S3 credentials: neither in the settings nor where boto3 looks for them"
        )
    return found


def trust_of(connection: S3Connection) -> ssl.SSLContext:
    """The certificates that boto3 trusts."""
    configured = botocore.session.get_session().get_config_variable("ca_bundle")
    try:
        return ssl.create_default_context(cafile=connection.ca_bundle or configured or get_cert_path(True))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificates of the store's CA are not usable: {error}") from error


def _config(connection: S3Connection, connections: int) -> Config:
    return Config(
        signature_version="s3v4",
        s3={"addressing_style": connection.addressing},
        connect_timeout=connection.connect_timeout,
        read_timeout=connection.read_timeout,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": connection.attempts},
        tcp_keepalive=True,
        # botocore's default adds a CRC32, over TLS as a trailer of a chunked body, which many stores besides
        # AWS refuse or store as content. Bodies are signed with their SHA-256 instead (x-amz-content-sha256),
        # which the store checks, and the artifact's own SHA-256 is computed by the service.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def _send_content_md5(params: dict[str, Any], **_event: Any) -> None:
    """DeleteObjects requires a checksum, and Content-MD5 is the one that every store knows."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode("ascii")
    params["context"].pop("checksum", None)


def storing_arguments(connection: S3Connection) -> dict[str, Any]:
    """Arguments of every request that makes an object."""
    arguments: dict[str, Any] = {}
    if connection.kms_key_id:
        arguments |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": connection.kms_key_id}
    if connection.storage_class:
        arguments["StorageClass"] = connection.storage_class
    return arguments


def storing_headers(connection: S3Connection) -> dict[str, str]:
    """The same, as headers."""
    headers: dict[str, str] = {}
    if connection.kms_key_id:
        headers["x-amz-server-side-encryption"] = "aws:kms"
        headers["x-amz-server-side-encryption-aws-kms-key-id"] = connection.kms_key_id
    if connection.storage_class:
        headers["x-amz-storage-class"] = connection.storage_class
    return headers


def owner_headers(connection: S3Connection) -> dict[str, str]:
    """As `owner_arguments`, as headers."""
    return {"x-amz-expected-bucket-owner": connection.expected_owner} if connection.expected_owner else {}


def owner_arguments(connection: S3Connection) -> dict[str, Any]:
    """Arguments of every request at all."""
    return {"ExpectedBucketOwner": connection.expected_owner} if connection.expected_owner else {}
