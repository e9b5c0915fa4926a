"""AgentRuns as the API server writes them, and where they are."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from offload.cluster.interface import AgentRun
from offload.domain.run import SeenRun

GROUP, VERSION, KIND, PLURAL = "agents.proompteng.ai", "v1alpha1", "AgentRun", "agentruns"
API_VERSION = f"{GROUP}/{VERSION}"


def collection_path(namespace: str | None) -> str:
    """The path of the AgentRuns of a namespace, or of all."""
    return (
        f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
        if namespace
        else f"/apis/{API_VERSION}/{PLURAL}"
    )


def read_run(body: Mapping[str, Any]) -> AgentRun:
    """What is needed of an AgentRun; nothing of its spec but the agent's name stays in memory.

    Other writers fill status as they like: what has an unexpected shape reads as absent.
    """
    metadata = body["metadata"]
    status = body.get("status")
    status = status if isinstance(status, dict) else {}
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
    """An RFC 3339 time in UTC, or None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else None


def _agent(spec: object) -> str | None:
    reference = spec.get("agentRef") if isinstance(spec, dict) else None
    return _text(reference.get("name")) if isinstance(reference, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
