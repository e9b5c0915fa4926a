"""What the stand-in serves: AgentRuns by a CRD file, and the core kinds that belong to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from offload.errors import ConfigError

VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `path` is a JSONPath as CRDs write it."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True)
class Resource:
    """One kind, with the OpenAPI v3 schema that it is pruned and validated by."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    schema: Mapping[str, Any]
    columns: tuple[Column, ...] = ()
    short_names: tuple[str, ...] = ()
    has_status: bool = False
    verbs: tuple[str, ...] = VERBS
    list_kind: str = ""
    fields: frozenset[str] = field(default_factory=frozenset)
    """Fields that a field selector may name beside `metadata.name` and `metadata.namespace`."""

    @cached_property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def qualified(self) -> str:
        """The plural as messages name it, such as `agentruns.agents.proompteng.ai`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def root(self) -> str:
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"


def crd_file() -> Path:
    """The CRD for empty clusters: beside this module in a wheel, in `deploy/crd` in a source checkout."""
    packaged = Path(__file__).with_name("agentruns.yaml")
    if packaged.is_file():
        return packaged
    return Path(__file__).parents[3] / "deploy" / "crd" / "agentruns.yaml"


def load_crd(path: Path) -> Resource:
    """The resource that a CustomResourceDefinition describes, in its storage version.

    Raises:
        ConfigError: the file is not there or is not such a definition.
    """
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        version = next(v for v in spec["versions"] if v["storage"])
        names = spec["names"]
        return Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            singular=names.get("singular", names["kind"].lower()),
            kind=names["kind"],
            list_kind=names.get("listKind", ""),
            namespaced=spec["scope"] == "Namespaced",
            schema=version["schema"]["openAPIV3Schema"],
            columns=tuple(
                Column(c["name"], c["jsonPath"], c["type"], c.get("priority", 0))
                for c in version.get("additionalPrinterColumns", DEFAULT_COLUMNS)
            ),
            short_names=tuple(names.get("shortNames", ())),
            has_status="status" in version.get("subresources", {}),
        )
    except OSError as error:
        raise ConfigError(f"the CRD file {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise ConfigError(f"{path} is not a CustomResourceDefinition with a storage version") from error


DEFAULT_COLUMNS = ({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},)

_TEXT = {"type": "string"}
_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}

METADATA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "generateName": _TEXT,
        "namespace": _TEXT,
        "uid": _TEXT,
        "resourceVersion": _TEXT,
        "generation": {"type": "integer", "format": "int64"},
        "creationTimestamp": {"type": "string", "format": "date-time", "nullable": True},
        "deletionTimestamp": {"type": "string", "format": "date-time", "nullable": True},
        "deletionGracePeriodSeconds": {"type": "integer", "format": "int64"},
        "labels": _TEXTS,
        "annotations": _TEXTS,
        "finalizers": {"type": "array", "items": _TEXT},
        "ownerReferences": {"type": "array", "items": _OPEN},
        "managedFields": {"type": "array", "items": _OPEN},
        "selfLink": _TEXT,
    },
}

NAMESPACES = Resource(
    group="",
    version="v1",
    plural="namespaces",
    singular="namespace",
    kind="Namespace",
    list_kind="NamespaceList",
    namespaced=False,
    short_names=("ns",),
    columns=(
        Column("Status", ".status.phase"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
    schema={
        "type": "object",
        "properties": {
            "apiVersion": _TEXT,
            "kind": _TEXT,
            "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {"finalizers": {"type": "array", "items": _TEXT}}},
            "status": {"type": "object", "properties": {"phase": _TEXT}},
        },
    },
)

_REFERENCE_FIELDS = ("apiVersion", "kind", "namespace", "name", "uid", "resourceVersion", "fieldPath")
_REFERENCE = {"type": "object", "properties": dict.fromkeys(_REFERENCE_FIELDS, _TEXT)}

EVENTS = Resource(
    group="",
    version="v1",
    plural="events",
    singular="event",
    kind="Event",
    list_kind="EventList",
    namespaced=True,
    short_names=("ev",),
    fields=frozenset(
        {f"involvedObject.{key}" for key in _REFERENCE_FIELDS} | {"reason", "type", "reportingComponent"}
    ),
    columns=(
        Column("Last Seen", ".lastTimestamp", "date"),
        Column("Type", ".type"),
        Column("Reason", ".reason"),
        Column("Object", ".involvedObject"),
        Column("Message", ".message"),
    ),
    schema={
        "type": "object",
        "required": ["metadata", "involvedObject"],
        "properties": {
            **dict.fromkeys(("apiVersion", "kind", "type", "reason", "message", "action"), _TEXT),
            **dict.fromkeys(("reportingComponent", "reportingInstance"), _TEXT),
            "metadata": {"type": "object"},
            "involvedObject": _REFERENCE,
            "related": _REFERENCE,
            "source": {"type": "object", "properties": {"component": _TEXT, "host": _TEXT}},
            "count": {"type": "integer", "format": "int32"},
            "series": _OPEN,
            **{
                key: {"type": "string", "format": "date-time", "nullable": True}
                for key in ("firstTimestamp", "lastTimestamp", "eventTime")
            },
        },
    },
)

ACCESS_REVIEWS = Resource(
    group="authorization.k8s.io",
    version="v1",
    plural="selfsubjectaccessreviews",
    singular="selfsubjectaccessreview",
    kind="SelfSubjectAccessReview",
    namespaced=False,
    verbs=("create",),
    schema=_OPEN,
)
