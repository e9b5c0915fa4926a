"""The schema of AgentRun's status in an OpenAPI v3 document."""

from collections.abc import Mapping
from typing import Any

from offload.cluster.reading import GROUP, KIND, VERSION
from offload.errors import ClusterUnavailableError

PRESERVE = "x-kubernetes-preserve-unknown-fields"


def status_schema(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of `status`, with references resolved.

    Where the kind names no status, what is kept follows from the kind itself: everything where it preserves
    unknown fields, else nothing (a schema without properties).
    """
    schemas = document.get("components", {}).get("schemas", {})
    wanted = {"group": GROUP, "version": VERSION, "kind": KIND}
    for schema in schemas.values():
        if wanted in schema.get("x-kubernetes-group-version-kind", ()):
            root = _resolve(schema, schemas, ())
            nothing = {"type": "object", **({PRESERVE: True} if root.get(PRESERVE) else {})}
            status: Mapping[str, Any] = root.get("properties", {}).get("status", nothing)
            return status
    raise ClusterUnavailableError(f"the API server's OpenAPI document does not describe {KIND}")


def _resolve(schema: Any, schemas: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """`schema` with each `$ref` replaced; a reference to what encloses it ends as an open schema."""
    if isinstance(schema, list):
        return [_resolve(item, schemas, within) for item in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        if name in within or name not in schemas:
            return {}
        return _resolve(schemas[name], schemas, (*within, name))
    return {key: _resolve(value, schemas, within) for key, value in schema.items()}
