"""The `Table` that `kubectl get` prints."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from offload.cluster.standin.resources import Column, Resource
from offload.cluster.standin.store import Object


def table(
    resource: Resource, objects: Sequence[Object], list_metadata: Object, include: str = "Metadata"
) -> Object:
    """One row an object; `include` says what of it a row carries: `Metadata`, `Object` or `None`."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": [
            {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
            *(
                {
                    "name": c.name,
                    "type": "string" if c.type == "date" else c.type,
                    "format": "",
                    "description": "",
                    "priority": c.priority,
                }
                for c in resource.columns
            ),
        ],
        "rows": [_row(resource, body, include) for body in objects],
    }


def find(body: Any, path: str) -> list[Any]:
    """The values at a JSONPath of the kind that CRDs use: `.a.b`, `[0]`, `[*]`, `[?(@.k=="v")]`."""
    values = [body]
    for match in _STEP.finditer(path):
        name, index, key, wanted = match.group("name", "index", "key", "value")
        if name is not None:
            values = [v[name] for v in values if isinstance(v, dict) and name in v]
            continue
        items = [v for v in values if isinstance(v, list)]
        if key is not None:
            values = [i for v in items for i in v if isinstance(i, dict) and i.get(key) == wanted]
        elif index == "*":
            values = [i for v in items for i in v]
        else:
            values = [v[int(index)] for v in items if int(index) < len(v)]
    return values


def human_age(stamp: str, now: datetime) -> str:
    """How long ago, as kubectl writes it: `42s`, `5m12s`, `3h`, `7d`."""
    try:
        seconds = max(0, int((now - datetime.fromisoformat(stamp)).total_seconds()))
    except (TypeError, ValueError):
        return "<unknown>"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 2:  # noqa: PLR2004 - the thresholds are kubectl's
        return f"{seconds}s"
    if minutes < 10:  # noqa: PLR2004 - same
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:  # noqa: PLR2004 - same
        return f"{minutes}m"
    return f"{hours}h" if days < 2 else f"{days}d"  # noqa: PLR2004 - same


_STEP = re.compile(
    r"""\.(?P<name>[\w-]+)
    | \[(?P<index>\d+|\*)\]
    | \[\?\(@\.(?P<key>[\w-]+)\s*==\s*["'](?P<value>[^"']*)["']\)\]""",
    re.VERBOSE,
)


def _row(resource: Resource, body: Object, include: str) -> Object:
    row: Object = {"cells": [body["metadata"]["name"], *(_cell(c, body) for c in resource.columns)]}
    if include == "Object":
        row["object"] = body
    elif include == "Metadata":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": body["metadata"],
        }
    return row


def _cell(column: Column, body: Object) -> Any:
    found = find(body, column.path)
    if not found:
        return "<unknown>" if column.type == "date" else None
    if column.type == "date":
        return human_age(str(found[0]), datetime.now(UTC))
    if isinstance(found[0], dict):  # a reference, as kubectl writes one
        return f"{str(found[0].get('kind')).lower()}/{found[0].get('name')}"
    return found[0] if len(found) == 1 else ",".join(map(str, found))
