"""Every setting, with its unit and its reason. Read once, by the command line; others receive values.

The environment variable is `OFFLOAD_` and the field's name in capitals, unless the field names others.
Durations are written `90s`, `15m`, `24h`, `7d`; sizes `512KiB`, `64MiB`, `50GiB`.
"""

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from offload.domain.limits import PART_COUNT, PART_LEAST, PREFIX_BYTES, STATUS_ENTRIES
from offload.domain.quantities import format_duration, format_size, parse_duration, parse_size
from offload.errors import ConfigError
from offload.objects.parts import part_size_of
from offload.services.pieces import PIECE


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _comma_list(value: Any) -> Any:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """The effective configuration of one process."""

    model_config = SettingsConfigDict(
        env_prefix="OFFLOAD_", frozen=True, extra="ignore", populate_by_name=True
    )

    host: str = Field(
        "127.0.0.1", description="Address that HTTP listens on; loopback unless told otherwise."
    )
    port: Port = Field(8080, description="Port of the HTTP service.")
    workers: int = Field(
        1, ge=1, le=64, description="Processes that share the HTTP port. More than one needs PostgreSQL."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the metrics port.")
    metrics_port: Port = Field(
        9464,
        description="Port of `/metrics`, apart from the service, so that it need not be published; 0: none.",
    )
    public_url: str | None = Field(
        None, description="URL under which users reach the service: the base of links. Unset: the request's."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["json", "console"] = Field(
        "json", description="`json`: an object a line, for collectors; `console`: for people."
    )

    database_url: SecretStr = Field(
        SecretStr("sqlite:///.offload/index.db"),
        description="Retention index: `postgresql://…` or `sqlite:///PATH` (SQLite 3.35 or newer; one host, "
        "one serve worker).",
    )

    s3_bucket: str = Field(
        "offload", min_length=3, max_length=63, description="Bucket that new artifacts go to."
    )
    s3_prefix: str = Field(
        "",
        max_length=PREFIX_BYTES,
        pattern=r"^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$",
        description="Start of every object key, without a slash at its ends; two services never share one.",
    )
    s3_endpoint_url: str | None = Field(
        None, description="URL of the object store; unset: AWS, by region, as boto3 finds it."
    )
    s3_public_endpoint_url: str | None = Field(
        None, description="URL under which users reach the store: downloads are redirected there, presigned."
    )
    s3_region: str | None = Field(None, description="Region; unset: as boto3 finds it.")
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Where the bucket's name goes in the URL; most stores other than AWS want `path`."
    )
    s3_ca_file: Path | None = Field(None, description="CA certificates (PEM) of a store with a private CA.")
    s3_sse_kms_key: str | None = Field(
        None, description="KMS key id for server-side encryption; unset: none asked."
    )
    s3_storage_class: str | None = Field(
        None, description="Storage class of new objects; unset: the bucket's."
    )
    s3_expected_owner: str | None = Field(
        None, description="AWS account that must own the bucket, so that a name taken over is noticed."
    )

    s3_sign_bodies: bool = Field(
        False,
        description="Sign also bodies above 64 KiB with their SHA-256 (0.6 s of CPU a GiB).",
    )

    kubeconfig: Path | None = Field(
        None, description="kubeconfig file; unset: the Pod's service account, else the usual file."
    )
    namespaces: CommaList = Field(
        (), description="Namespaces that are watched, comma separated; empty: all (needs a ClusterRole)."
    )
    kubernetes_rate: float = Field(
        200, gt=0, description="Requests a second to the API server at most, over all runs of this process."
    )
    publish: Literal["on", "observe", "off"] = Field(
        "on",
        description="`observe`: compute and count what would be written, write nothing; `off`: neither.",
    )
    artifacts_max: int = Field(
        STATUS_ENTRIES,
        ge=0,
        le=10_000,
        validation_alias=AliasChoices("JANGAR_AGENTRUN_ARTIFACTS_MAX", "AGENTS_AGENTRUN_ARTIFACTS_MAX"),
        description="Entries in a status at most. Above 50 is the way back, still under the byte budget.",
    )
    artifacts_strict: bool = Field(
        False,
        validation_alias=AliasChoices("JANGAR_AGENTRUN_ARTIFACTS_STRICT", "AGENTS_AGENTRUN_ARTIFACTS_STRICT"),
        description="Fail a run that exceeds the limit, in place of leaving out its oldest entries.",
    )
    status_max_bytes: Size = Field(
        64 * 2**10,
        description="Bytes of `status.artifacts` as compact JSON at most; etcd refuses 1.5 MiB a request.",
    )
    deleted_run_grace: Duration = Field(
        timedelta(hours=1), description="How long uploads that name the uid of a deleted run are still taken."
    )

    auth: Literal["tokens", "none"] = Field(
        "tokens",
        description="`tokens`: a bearer token from the file; `none`: everyone may everything, loopback only.",
    )
    tokens_file: Path | None = Field(
        None, description="Hashed, scoped tokens (`offload token create`); reloaded when it changes."
    )

    upload_memory: Size = Field(
        256 * 2**20,
        ge=16 * 2**20,
        description="Bytes of bodies one process holds at most; past it, senders wait, for 30 s at most. "
        "The last quarter is for runs that hold nothing.",
    )
    upload_max_size: Size = Field(50 * 2**30, description="Bytes of one artifact at most.")
    upload_max_concurrent: int = Field(
        1024,
        ge=1,
        description="Uploads at once of one process, and 3/4 of them of one run, or its share where few are "
        "left; one more gets 503.",
    )
    download_max_concurrent: int = Field(
        128,
        ge=1,
        description="Downloads of one process at once, some 3 MiB each; one more is told to come back (503).",
    )
    upload_part_size: Size = Field(
        8 * 2**20,
        ge=PART_LEAST,
        description="Bytes of one part of a multipart upload at least; the largest bodies get larger parts.",
    )
    upload_stall: Duration = Field(
        timedelta(seconds=60),
        description="How long a sender may send nothing before it is answered 408, or a reader take nothing "
        "before its connection ends.",
    )
    upload_min_rate: Size = Field(
        16 * 2**10,
        description="Bytes a second that a sender that holds a window must keep up; 408 after 60 s, or 10 s "
        "while others wait for memory. 0: any.",
    )
    shutdown_grace: Duration = Field(
        timedelta(seconds=25),
        description="How long running requests may go on after SIGTERM, bodies that are still being read 7 s "
        "less; under the Pod's own grace.",
    )

    retention_file: Path | None = Field(
        None, description="Retention rules (YAML); unset: everything is kept for ever."
    )
    sweep_every: Duration = Field(
        timedelta(hours=1),
        ge=timedelta(seconds=10),
        description="How often the controller sweeps; each sweep reads every run that has artifacts stored.",
    )
    orphan_grace: Duration = Field(
        timedelta(hours=24),
        ge=timedelta(hours=1),
        description="Age from which an object without a row is removed; longer than any upload runs.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.workers > 1 and self.uses_sqlite:
            raise ValueError("workers: SQLite takes one worker; set OFFLOAD_DATABASE_URL to a PostgreSQL")
        part = part_size_of(self.upload_max_size, self.upload_part_size)
        if self.upload_memory < 4 * part + PIECE:
            raise ValueError(
                f"upload_memory: must be at least {format_size(4 * part + PIECE)}, as one upload can hold "
                f"four parts of {format_size(part)} and 1 MiB; a part is upload_part_size, or a "
                f"{PART_COUNT:,}th of upload_max_size where that is more"
            )
        return self

    @property
    def uses_sqlite(self) -> bool:
        return self.database_url.get_secret_value().startswith("sqlite:")

    def check_exposure(self, host: str) -> None:
        """Refuse to serve without access control where others can reach it. Raises `ConfigError`."""
        if self.auth == "none" and not _is_loopback(host):
            raise ConfigError(
                f"OFFLOAD_AUTH=none lets everyone do everything and is for loopback only; {host!r} is not. "
                "Set OFFLOAD_AUTH=tokens and OFFLOAD_TOKENS_FILE, or listen on 127.0.0.1"
            )
        if self.auth == "tokens" and self.tokens_file is None:
            raise ConfigError(
                "OFFLOAD_AUTH=tokens needs OFFLOAD_TOKENS_FILE; make an entry with: offload token create"
            )

    def effective(self) -> dict[str, str]:
        """Environment variable → value in force, secrets hidden, in the order of the documentation."""
        return {
            environment_names(field)[0]: _shown(getattr(self, field)) for field in type(self).model_fields
        }


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; `overrides` (None: not given) win.

    Raises:
        ConfigError: naming every variable that is wrong, and how.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(problem) for problem in error.errors())) from error


def environment_names(field: str) -> tuple[str, ...]:
    """The environment variables that set `field`, the first one first in rank."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (f"OFFLOAD_{field.upper()}",)


def _explain(problem: Any) -> str:
    reason = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(reason)
    field = str(problem["loc"][0])
    known = environment_names(field)[0] if field in Settings.model_fields else field
    return f"{known}: {reason}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(value: Any) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)
