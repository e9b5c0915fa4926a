"""What clients ask before they ask for objects: groups, kinds, version, OpenAPI."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from offload.cluster.standin.resources import METADATA, Resource
from offload.cluster.standin.store import Object

VERSION = {
    "major": "1",
    "minor": "37",
    "gitVersion": "v1.37.0+standin",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}


def documents(resources: Sequence[Resource]) -> dict[str, Object]:
    """Every discovery document by its path."""
    found: dict[str, Object] = {
        "/version": VERSION,
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    }
    groups = []
    roots = dict.fromkeys(r.root for r in resources)
    for root in roots:
        served = [r for r in resources if r.root == root]
        version = {"groupVersion": served[0].api_version, "version": served[0].version}
        if served[0].group:
            group = {"name": served[0].group, "versions": [version], "preferredVersion": version}
            groups.append(group)
            found[f"/apis/{served[0].group}"] = {"kind": "APIGroup", "apiVersion": "v1", **group}
        found[root] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": served[0].api_version,
            "resources": [entry for r in served for entry in _entries(r)],
        }
    found["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    return found | _openapi(resources, list(roots))


def _entries(resource: Resource) -> list[Object]:
    entry = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    status = {
        "name": f"{resource.plural}/status",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["get", "patch", "update"],
    }
    return [entry, status] if resource.has_status else [entry]


def _openapi(resources: Sequence[Resource], roots: Sequence[str]) -> dict[str, Object]:
    """`/openapi/v3` and the document of each group, by path without its hash."""
    found, index = {}, {}
    for root in roots:
        document = _openapi_document([r for r in resources if r.root == root])
        digest = hashlib.sha512(json.dumps(document, sort_keys=True).encode()).hexdigest().upper()
        found[f"/openapi/v3{root}"] = document
        index[root.removeprefix("/")] = {"serverRelativeURL": f"/openapi/v3{root}?hash={digest}"}
    return found | {"/openapi/v3": {"paths": index}}


def _openapi_document(resources: Sequence[Resource]) -> Object:
    schemas: dict[str, Any] = {"io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": METADATA}
    paths: Object = {}
    for resource in resources:
        properties = dict(resource.schema.get("properties", {}))
        properties["metadata"] = {
            "allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]
        }
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        schemas[_schema_name(resource)] = {
            **resource.schema,
            "properties": properties,
            "x-kubernetes-group-version-kind": [kind],
        }
        paths |= _paths(resource, kind)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(resource: Resource) -> str:
    group = ".".join(reversed(resource.group.split("."))) if resource.group else "io.k8s.api.core"
    return f"{group}.{resource.version}.{resource.kind}"


def _paths(resource: Resource, kind: Object) -> Object:
    """Enough of the paths for kubectl to see that fields are validated here (`fieldValidation`)."""
    space = "/namespaces/{namespace}" if resource.namespaced else ""
    collection = f"{resource.root}{space}/{resource.plural}"
    strictness = {"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": True}}

    def operation(action: str) -> Object:
        return {
            "parameters": [strictness],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        }

    found: Object = {collection: {"post": operation("post")}}
    if "patch" in resource.verbs:
        found[f"{collection}/{{name}}"] = {"patch": operation("patch"), "put": operation("put")}
    return found
