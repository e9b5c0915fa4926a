"""AgentRuns as the API server writes them, and where they are."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from offload.cluster.interface import AgentRun
from offload.cluster.nested import shallow
from offload.domain.run import SeenRun

GROUP, VERSION, KIND, PLURAL = "agents.proompteng.ai", "v1alpha1", "AgentRun", "agentruns"
API_VERSION = f"{GROUP}/{VERSION}"

LONGEST_TEXT = 256
"""Characters kept of a phase or an agent's name: no name of Kubernetes is longer, and PostgreSQL's indices
take no value above some 2,700 bytes."""


def collection_path(namespace: str | None) -> str:
    """The path of the AgentRuns of a namespace, or of all."""
    return (
        f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
        if namespace
        else f"/apis/{API_VERSION}/{PLURAL}"
    )


def read_run(body: Mapping[str, Any]) -> AgentRun:
    """What is needed of an AgentRun; nothing of its spec but the agent's name stays in memory.

    Other writers fill status as they like: what has an unexpected shape, or is nested too deep,
    reads as absent.
    """
    metadata = body["metadata"]
    status = body.get("status")
    status = shallow(status) if isinstance(status, dict) else {}
    created = read_time(metadata.get("creationTimestamp"))
    seen = SeenRun(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        created_at=created or datetime.fromtimestamp(0, UTC),
        labels=metadata.get("labels") or {},
        agent=_agent(body.get("spec")),
        phase=_text(status.get("phase")),
        finished_at=read_time(status.get("finishedAt")),
        resource_version=metadata["resourceVersion"],
    )
    return AgentRun(seen, metadata["resourceVersion"], status)


def read_time(value: object) -> datetime | None:
    """An RFC 3339 time in UTC, or None for anything else, also for Go's zero time, which means "not set"."""
    if not isinstance(value, str):
        return None
    try:
        written = datetime.fromisoformat(value)
        found = written.astimezone(UTC) if written.tzinfo else None
    except (ValueError, OverflowError):  # an offset can lead out of the calendar
        return None
    return found if found and found.year > 1 else None


def _agent(spec: object) -> str | None:
    reference = spec.get("agentRef") if isinstance(spec, dict) else None
    return _text(reference.get("name")) if isinstance(reference, dict) else None


def _text(value: object) -> str | None:
    # PostgreSQL's texts hold no NUL.
    return value.replace("\0", "")[:LONGEST_TEXT] if isinstance(value, str) else None
