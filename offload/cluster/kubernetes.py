"""`Cluster` on a Kubernetes API server."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import parse_qsl

from kubernetes.client import Configuration

from offload.cluster.api import Api, Object, TooOldError, configuration
from offload.cluster.feed import PAGE, merged
from offload.cluster.interface import AgentRun, Change, Clock
from offload.cluster.reading import API_VERSION, GROUP, KIND, PLURAL, VERSION, collection_path, read_run
from offload.cluster.served_schema import status_schema
from offload.domain.run import SeenRun
from offload.errors import (
    AgentRunGoneError,
    ClusterForbiddenError,
    PointersNotKeptError,
    StatusConflictError,
    StatusRefusedError,
)

REQUESTS_PER_SECOND = 200.0
COMPONENT = "offload"
MESSAGE_BYTES = 1024
"""Longest message of an Event that the API takes (k8s.io/api/events/v1, `note`)."""

PERMISSIONS: Sequence[tuple[str, str, str, str]] = (
    ("get", GROUP, PLURAL, ""),
    ("list", GROUP, PLURAL, ""),
    ("watch", GROUP, PLURAL, ""),
    ("patch", GROUP, PLURAL, "status"),
    ("create", "", "events", ""),
)
"""Verb, group, resource and subresource of all that is done here, beside reading `/openapi/v3`."""


class KubernetesCluster:
    """AgentRuns over the API server's REST interface, with JSON as it is sent: no typed models."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        namespaces: Sequence[str] = (),
        requests_per_second: float = REQUESTS_PER_SECOND,
    ) -> None:
        """Watch `namespaces` (none: all), and ask for at most so much, all threads together."""
        self._namespaces = tuple(namespaces)
        self._api = Api(
            configuration, requests_per_second=requests_per_second, watches=max(1, len(self._namespaces))
        )
        self._schema: tuple[str, Mapping[str, Any]] | None = None

    @classmethod
    def from_config(
        cls,
        kubeconfig: str | None,
        namespaces: Sequence[str] = (),
        requests_per_second: float = REQUESTS_PER_SECOND,
    ) -> Self:
        """By the kubeconfig at this path; None: in a cluster its service account, else the usual kubeconfig.

        Raises:
            ConfigError: there is no usable configuration.
        """
        return cls(configuration(kubeconfig), namespaces=namespaces, requests_per_second=requests_per_second)

    @property
    def namespaces(self) -> Sequence[str]:
        return self._namespaces

    def get(self, namespace: str, name: str) -> AgentRun:
        return read_run(self._api.get(f"{collection_path(namespace)}/{name}"))

    def patch_status(self, run: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        seen = run.seen
        path = f"{collection_path(seen.namespace)}/{seen.name}/status"
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"resourceVersion": run.resource_version, "uid": seen.uid},
            "status": dict(patch),
        }
        query = {"fieldManager": COMPONENT, "fieldValidation": "Strict"}
        try:
            answer = read_run(self._api.merge_patch(path, query, body))
        except (AgentRunGoneError, StatusConflictError) as error:
            # A conflict does not say whether the run changed or another one has its name now. A run that is
            # there is "not found" as well where its CRD has no status subresource; and being gone is final.
            if self.get(seen.namespace, seen.name).seen.uid != seen.uid:
                raise AgentRunGoneError(f"another AgentRun is called {seen.namespace}/{seen.name}") from error
            if isinstance(error, StatusConflictError):
                raise
            raise StatusRefusedError(
                "the API server has the run, and takes no status of it: "
                "does its CRD have the status subresource?"
            ) from error
        except ClusterForbiddenError as error:
            # Admission answers 403 as well; a refusal by a rule is not one of this identity.
            if self._granted(("patch", GROUP, PLURAL, "status"), seen.namespace):
                raise StatusRefusedError(error.detail) from error
            raise
        if answer.seen.uid != seen.uid:
            raise AgentRunGoneError(f"another AgentRun is called {seen.namespace}/{seen.name}")
        return answer

    def changes(self, stop: threading.Event, clock: Clock | None = None) -> Iterator[Change]:
        return merged(self._api, self._namespaces, stop, clock)

    def runs(self) -> Iterator[AgentRun]:
        for namespace in self._namespaces or [None]:
            query = {"limit": str(PAGE)}
            while True:
                page = self._api.get(collection_path(namespace), query)
                yield from map(read_run, page.pop("items"))
                if not page["metadata"].get("continue"):
                    break
                query["continue"] = page["metadata"]["continue"]

    def status_schema(self) -> Mapping[str, Any]:
        index = self._api.get("/openapi/v3")["paths"]
        address = index.get(f"apis/{GROUP}/{VERSION}", {}).get("serverRelativeURL")
        if not address:
            raise PointersNotKeptError(f"the API server does not serve {API_VERSION}: is the CRD installed?")
        cached = self._schema
        if cached is None or cached[0] != address:
            path, _, query = address.partition("?")
            try:
                document = self._api.get(path, dict(parse_qsl(query)))
            except TooOldError:
                # The index lags behind by up to a second. What it does not name is read, and not kept.
                return status_schema(self._api.get(path))
            self._schema = cached = (address, status_schema(document))
        return cached[1]

    def warn(self, run: SeenRun, reason: str, message: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{run.name}.", "namespace": run.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": run.namespace,
                "name": run.name,
                "uid": run.uid,
                "resourceVersion": run.resource_version,
            },
            "type": "Warning",
            "reason": reason,
            "message": message.encode()[:MESSAGE_BYTES].decode(errors="ignore"),
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._api.post(f"/api/v1/namespaces/{run.namespace}/events", event)

    def permissions(self) -> Mapping[str, bool]:
        """Granted means: in every namespace that is watched."""
        granted = {
            _words(needed): all(self._granted(needed, namespace) for namespace in self._namespaces or [""])
            for needed in PERMISSIONS
        }
        openapi = {"nonResourceAttributes": {"path": "/openapi/v3", "verb": "get"}}
        return {**granted, "get /openapi/v3": self._allowed(openapi)}

    def version(self) -> str:
        return str(self._api.get("/version").get("gitVersion", "an unnamed version"))

    def check(self) -> None:
        self.version()

    def close(self) -> None:
        self._api.close()

    def _granted(self, needed: tuple[str, str, str, str], namespace: str) -> bool:
        verb, group, resource, subresource = needed
        attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
        return self._allowed({"resourceAttributes": {**attributes, "namespace": namespace}})

    def _allowed(self, spec: Object) -> bool:
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        answer = self._api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer.get("status", {}).get("allowed"))


def _words(needed: tuple[str, str, str, str]) -> str:
    verb, _, resource, subresource = needed
    return f"{verb} {resource}/{subresource}" if subresource else f"{verb} {resource}"
