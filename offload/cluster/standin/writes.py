"""What a write does to an object: the rules of an API server's registry, for the kinds served here."""

import json
import random
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jsonschema import Draft4Validator

from offload.cluster.standin import failures
from offload.cluster.standin.failures import Problem
from offload.cluster.standin.resources import METADATA, NAMESPACES, Resource
from offload.cluster.standin.schema import default, problems, prune, validator
from offload.cluster.standin.store import Key, Object, Store

SERVER_FIELDS = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "namespace",
    "name",
)
TERMINATING = "Terminating"
LARGEST_OBJECT = 1_500_000
"""Bytes: what etcd takes in one request by default, less its overhead."""


@dataclass
class Request:
    """A write as it came: where to, and how strict about unknown fields."""

    resource: Resource
    namespace: str
    name: str
    status: bool = False
    validation: str = "Warn"
    """`Strict`, `Warn` or `Ignore`."""
    is_patch: bool = False
    warnings: list[str] = field(default_factory=list)
    """Filled here; sent as Warning headers."""

    @property
    def key(self) -> Key:
        return Key(self.resource.qualified, self.namespace, self.name)


class Writes:
    """Create, replace, patch and delete on a store."""

    def __init__(self, store: Store, resources: Sequence[Resource]) -> None:
        self._store, self._resources = store, resources
        self._validators: dict[str, Draft4Validator] = {r.qualified: validator(r.schema) for r in resources}
        self._metadata = validator(METADATA)

    def read(self, request: Request) -> Object:
        found = self._store.get(request.key)
        if found is None:
            raise failures.not_found(request.resource, request.name)
        return found

    def create(self, request: Request, body: Object) -> Object:
        home = self._store.get(Key(NAMESPACES.qualified, "", request.namespace)) if request.namespace else {}
        if home is None:
            raise failures.not_found(NAMESPACES, request.namespace)
        body = self._decode(request, body)
        metadata = {
            k: v for k, v in body["metadata"].items() if k not in SERVER_FIELDS and k != "resourceVersion"
        }
        given = body["metadata"].get("name") or _generate(metadata.get("generateName"))
        request.name = str(given)
        if self._store.get(request.key):
            raise failures.exists(request.resource, request.name)
        if home.get("status", {}).get("phase") == TERMINATING:
            raise failures.terminating(request.resource, request.name, request.namespace)
        body["metadata"] = {
            **metadata,
            "name": given,
            **({"namespace": request.namespace} if request.namespace else {}),
            "uid": str(uuid.uuid4()),
            "creationTimestamp": now(),
            **({"generation": 1} if request.resource.group else {}),
        }
        if request.resource.has_status:
            body.pop("status", None)
        if request.resource is NAMESPACES:
            body["spec"], body["status"] = {"finalizers": ["kubernetes"]}, {"phase": "Active"}
            labels = body["metadata"].get("labels") or {}
            body["metadata"]["labels"] = {**labels, "kubernetes.io/metadata.name": given}
        self._validate(request, body)
        return self._store.put(request.key, body)

    def replace(self, request: Request, body: Object) -> Object:
        existing = self.read(request)
        if not (body.get("metadata") or {}).get("resourceVersion"):
            problem = Problem(
                "metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update"
            )
            raise failures.invalid(request.resource, request.name, [problem])
        return self._update(request, existing, body)

    def patch(self, request: Request, change: Object) -> Object:
        """Apply a JSON merge patch (RFC 7396)."""
        existing = self.read(request)
        request.is_patch = True
        return self._update(request, existing, merge(existing, change))

    def delete(self, request: Request, preconditions: Mapping[str, Any]) -> Object:
        """Answer the object where finalizers keep it, else what was deleted."""
        existing = self.read(request)
        metadata = existing["metadata"]
        for name in ("uid", "resourceVersion"):
            wanted = preconditions.get(name)
            if wanted and wanted != metadata[name]:
                why = f"the precondition's {name} is {wanted}, the object's is {metadata[name]}"
                raise failures.conflict(request.resource, request.name, why)
        if request.resource is NAMESPACES and self._empty(request.name):
            existing = {**existing, "status": {"phase": TERMINATING}}
            existing["metadata"] = {**metadata, "deletionTimestamp": metadata.get("deletionTimestamp", now())}
            return self._store.put(request.key, existing)
        if not metadata.get("finalizers"):
            self._store.remove(request.key)
            return existing
        if "deletionTimestamp" in metadata:
            return existing
        leaving = {**metadata, "deletionTimestamp": now(), "deletionGracePeriodSeconds": 0}
        leaving["generation"] = metadata.get("generation", 0) + 1
        return self._store.put(request.key, {**existing, "metadata": leaving})

    def _empty(self, namespace: str) -> bool:
        """Delete what is in it; whether finalizers keep any of that."""
        if namespace == "default":
            message = 'namespaces "default" is forbidden: this namespace may not be deleted'
            raise failures.StatusError(403, "Forbidden", message)
        for request in self._within(namespace):
            self.delete(request, {})
        return bool(self._within(namespace))

    def _within(self, namespace: str) -> list[Request]:
        return [
            Request(resource, namespace, key.name)
            for resource in self._resources
            for key, _ in self._store.snapshot(resource.qualified, namespace)
        ]

    def _let_go(self, request: Request) -> None:
        """Remove an object whose last finalizer is gone, and its namespace where it kept that."""
        self._store.remove(request.key)
        home = Key(NAMESPACES.qualified, "", request.namespace)
        status = (self._store.get(home) or {}).get("status", {})
        if status.get("phase") == TERMINATING and not self._within(request.namespace):
            self._store.remove(home)

    def _update(self, request: Request, existing: Object, body: Object) -> Object:
        old, sent = existing["metadata"], body.get("metadata") or {}
        # Of a status write's metadata, a server looks at the resourceVersion alone.
        for name in ("resourceVersion",) if request.status else ("uid", "resourceVersion"):
            if sent.get(name) and sent[name] != old[name]:
                raise failures.modified(request.resource, request.name)
        body = self._decode(request, body)
        kept = {key: old[key] for key in (*SERVER_FIELDS, "resourceVersion") if key in old}
        sent = {k: v for k, v in body["metadata"].items() if k not in SERVER_FIELDS}
        if request.status:
            after = {**existing, "status": body.get("status")}
        else:
            after = {**body, "metadata": {**sent, **kept}}
            if request.resource.has_status:
                after["status"] = existing.get("status")
        if after.get("status") is None:
            after.pop("status", None)
        self._validate(request, after)
        if after == existing:
            return existing  # nothing changed: no new resourceVersion, no watch event
        if request.resource.group and _desired(after) != _desired(existing):
            after["metadata"] = {**after["metadata"], "generation": old["generation"] + 1}
        leaves = "deletionTimestamp" in old and request.resource is not NAMESPACES
        if leaves and not after["metadata"].get("finalizers"):
            self._let_go(request)
            return after
        return self._store.put(request.key, after)

    def _decode(self, request: Request, body: Object) -> Object:
        """Check what the object says it is; prune and default it."""
        resource = request.resource
        if not isinstance(body.get("metadata") or {}, dict):
            raise failures.bad_request("the object's metadata is not an object")
        said = (body.get("apiVersion"), body.get("kind"))
        if said != (resource.api_version, resource.kind):
            wanted = f"{resource.api_version}, Kind={resource.kind}"
            raise failures.bad_request(
                f"the object is {said[0]}, Kind={said[1]}, and this path takes {wanted}"
            )
        metadata = body.get("metadata") or {}
        for name, wanted in (("namespace", request.namespace), ("name", request.name)):
            if metadata.get(name) and wanted and metadata[name] != wanted:
                message = f"the object's {name} is {metadata[name]}, and the path's is {wanted}"
                raise failures.bad_request(message)
        unknown: list[str] = []
        pruned = prune(body, resource.schema, unknown)
        pruned["metadata"] = prune(metadata, METADATA, unknown, "metadata")
        pruned["metadata"].pop("managedFields", None)
        if unknown:
            self._complain(request, unknown, body)
        filled: Object = default(pruned, resource.schema)
        return filled

    def _complain(self, request: Request, unknown: list[str], body: Object) -> None:
        texts = [f'unknown field "{path}"' for path in unknown]
        if request.validation == "Warn":
            request.warnings += texts
        elif request.validation == "Strict":
            kind, version = request.resource.kind, request.resource.version
            strict = f"strict decoding error: {', '.join(texts)}"
            if request.is_patch:
                quoted = json.dumps(json.dumps(body))
                problem = Problem("patch", f"Invalid value: {quoted}: {strict}")
                raise failures.invalid(request.resource, request.name, [problem])
            raise failures.bad_request(
                f'{kind} in version "{version}" cannot be handled as a {kind}: {strict}'
            )

    def _validate(self, request: Request, body: Object) -> None:
        resource = request.resource
        name = str(body["metadata"].get("name", ""))
        found = list(_name_problems(name))
        found += [
            Problem(f"metadata.{p.field}", p.message, p.reason)
            for p in problems(body["metadata"], self._metadata, METADATA)
        ]
        found += problems(body, self._validators[resource.qualified], resource.schema)
        if found:
            raise failures.invalid(resource, name, found)
        if len(str(body)) > LARGEST_OBJECT:
            raise failures.StatusError(413, "RequestEntityTooLarge", "etcdserver: request is too large")


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7396, section 2."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _desired(body: Object) -> Object:
    return {key: value for key, value in body.items() if key not in ("metadata", "status")}


def _generate(prefix: object) -> str:
    if not isinstance(prefix, str):
        return ""
    letters = random.choices("bcdfghjklmnpqrstvwxz2456789", k=5)  # noqa: S311 - a suffix, not a secret
    return prefix[:58] + "".join(letters)


def _name_problems(name: str) -> list[Problem]:
    if not name:
        message = "Required value: name or generateName is required"
        return [Problem("metadata.name", message, "FieldValueRequired")]
    label = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    if len(name) > 253 or not re.fullmatch(rf"{label}(\.{label})*", name):  # noqa: PLR2004 - RFC 1123's limit
        message = (
            f'Invalid value: "{name[:300]}": must be a lowercase RFC 1123 subdomain of at most 253 characters'
        )
        return [Problem("metadata.name", message)]
    return []
