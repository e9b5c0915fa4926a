"""AgentRun CRDs that a cluster may have: those of tests/cluster/crds, ours, and changes of them."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import yaml

from tests.programs import ROOT

CRDS = ROOT / "tests" / "cluster" / "crds"
OURS = ROOT / "deploy" / "crd" / "agentruns.yaml"
PATCH = ROOT / "deploy" / "crd-patch" / "agentruns-patch.yaml"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
TEXT = {"type": "string"}

Crd = dict[str, Any]
Parts = Callable[[Crd], None]


def read(name: str) -> Crd:
    """`ours`, `early` or `legacy`: the last is what the widely installed chart has now."""
    path = OURS if name == "ours" else CRDS / f"{name}.yaml"
    crd: Crd = yaml.safe_load(path.read_text())
    return crd


def status_of(crd: Crd) -> dict[str, Any]:
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return found


def artifacts_of(crd: Crd) -> dict[str, Any]:
    found: dict[str, Any] = status_of(crd)["properties"]["artifacts"]
    return found


def patched(crd: Crd) -> Crd:
    """With the fields that deploy/crd-patch adds."""
    crd = deepcopy(crd)
    for step in yaml.safe_load(PATCH.read_text()):
        *path, last = step["path"].strip("/").split("/")
        at: Any = crd
        for part in path:
            at = at[int(part) if part.isdigit() else part]
        if step["op"] == "add":
            at[last] = step["value"]
    return crd


def changed(base: str, *, native: bool = False, **parts: Mapping[str, Any] | None) -> Crd:
    """`base`, with deploy/crd-patch if `native`, and each of `parts` merged into what it names.

    Parts are `status`, `artifacts`, `entry`, `conditions` and `condition`; fields of `entry`, `status` and
    `condition` go by `properties`. None takes a field away.
    """
    crd = patched(read(base)) if native else read(base)
    status = status_of(crd)
    conditions = status["properties"]["conditions"]
    at = {
        "status": status,
        "artifacts": artifacts_of(crd),
        "entry": artifacts_of(crd)["items"],
        "conditions": conditions,
        "condition": conditions["items"],
    }
    for name, part in parts.items():
        _merge(at[name], part)
    return crd


def _merge(target: dict[str, Any], part: Mapping[str, Any] | None) -> None:
    for key, value in (part or {}).items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = deepcopy(value)


_NESTED = {
    "type": "object",
    "default": {},
    "properties": {"level": {"type": "integer", "default": 3}, "note": TEXT},
}
_TIER = {"tier": {"type": "string", "default": "hot"}}
_SHORT = {name: {"maxLength": 256} for name in ("key", "name", "path", "url")}

KEEPING: Mapping[str, Crd] = {
    "ours": read("ours"),
    "early": read("early"),
    "newer": read("legacy"),
    "early-patched": patched(read("early")),
    "newer-patched": patched(read("legacy")),
    "open-entries": changed("early", entry={PRESERVE: True}),
    "open-list": changed(
        "early", artifacts={"items": {"properties": None, "required": None, PRESERVE: True}}
    ),
    "open-status": changed("early", status={PRESERVE: True, "properties": {"artifacts": None}}),
    "ten-short": changed("legacy", artifacts={"maxItems": 10}, entry={"properties": _SHORT}),
    "ten-short-native": changed(
        "legacy",
        native=True,
        artifacts={"maxItems": 10},
        entry={"properties": {"uri": {"maxLength": 256}, "contentType": {"maxLength": 5}}},
    ),
    "required-with-default": changed("legacy", entry={"required": ["name", "tier"], "properties": _TIER}),
    "defaults": changed(
        "legacy",
        status={"properties": {**_TIER, "nested": _NESTED}},
        entry={"properties": {**_TIER, "nested": _NESTED}},
        condition={"properties": {**_TIER, "observedGeneration": {"default": 7}}},
    ),
    "default-conditions": changed(
        "legacy",
        conditions={
            "default": [
                {
                    "type": "Accepted",
                    "status": "Unknown",
                    "reason": "Pending",
                    "message": "waiting",
                    "lastTransitionTime": "1970-01-01T00:00:00Z",
                }
            ]
        },
    ),
    "one-of-a-name": changed(
        "early", artifacts={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    ),
    "any-strings": changed(
        "early", artifacts={"items": {"properties": None, "required": None, "additionalProperties": TEXT}}
    ),
    "strict-fields": changed(
        "legacy",
        native=True,
        entry={
            "properties": {
                "name": {"minLength": 1, "pattern": "^[a-z0-9.-]+$"},
                "type": {"enum": ["log", "report"]},
                "uri": {"format": "uri", "pattern": "^[a-z][a-z0-9+.-]*://"},
                "contentType": {"nullable": True},
                "sizeBytes": {"format": "int32", "maximum": 4},
            }
        },
    ),
    "s3-only-by-url": changed("legacy", native=True, entry={"properties": {"uri": {"pattern": "^https://"}}}),
    "either-address": changed(
        "legacy", native=True, entry={"anyOf": [{"required": ["uri"]}, {"required": ["url"]}]}
    ),
    "conditions-by-type": changed(
        "early", conditions={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    ),
    "conditions-without-time": changed(
        "early",
        condition={
            "required": ["type", "status", "reason", "message"],
            "properties": {"lastTransitionTime": None},
        },
    ),
    "short-messages": changed("early", condition={"properties": {"message": {"maxLength": 24}}}),
}
"""CRDs that keep our pointers, and can say what is left out."""

SILENT: Mapping[str, Crd] = {
    "no-conditions": changed("early", status={"properties": {"conditions": None}}),
    "conditions-of-known-types": changed("early", condition={"properties": {"type": {"enum": ["Ready"]}}}),
    "conditions-need-more": changed(
        "early",
        condition={
            "required": ["type", "status", "reason", "message", "lastTransitionTime", "observedGeneration"]
        },
    ),
    "conditions-without-type": changed(
        "early", condition={"required": ["status"], "properties": {"type": None}}
    ),
    "one-condition": changed("early", conditions={"maxItems": 1}),
}
"""CRDs that keep our pointers and no condition of ours beside one of others."""

UNUSABLE: Mapping[str, Crd] = {
    "no-artifacts": changed("early", status={"properties": {"artifacts": None}}),
    "no-address": changed("early", entry={"properties": {"url": None}}),
    "required-of-others": changed("early", entry={"required": ["name", "path"]}),
    "https-only": changed("early", entry={"properties": {"url": {"pattern": "^https://"}}}),
    "strings": changed(
        "early", artifacts={"items": {"type": "string", "properties": None, "required": None}}
    ),
}
"""CRDs that keep neither dialect."""
