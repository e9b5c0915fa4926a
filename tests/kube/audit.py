"""What the API server's audit log says of who asked for what."""

from datetime import datetime
from itertools import pairwise
from typing import Any

from tests.kube.control_plane import ControlPlane
from tests.kube.site import SYSTEM

OURS = f"system:serviceaccount:{SYSTEM}:offload-controller"
"""The controller's account."""
Event = dict[str, Any]


def asked(plane: ControlPlane, user: str, namespace: str) -> list[Event]:
    """What `user` asked for of objects in a namespace, oldest first."""
    return [one for one in plane.audit(user) if one.get("objectRef", {}).get("namespace") == namespace]


def patches(plane: ControlPlane, user: str, namespace: str, run: str = "") -> list[Event]:
    """The status patches of one run (none given: of all in the namespace), with those that were refused."""
    return [
        one
        for one in asked(plane, user, namespace)
        if one["verb"] == "patch"
        and one["objectRef"].get("subresource") == "status"
        and (not run or one["objectRef"].get("name") == run)
    ]


def writes(plane: ControlPlane, user: str, namespace: str, run: str) -> list[datetime]:
    """When `user` wrote the run's status, as the API server received it; refused ones aside."""
    return [
        datetime.fromisoformat(event["requestReceivedTimestamp"])
        for event in patches(plane, user, namespace, run)
        if event["responseStatus"]["code"] < 300
    ]


def least_pause(times: list[datetime]) -> float:
    """The least time between two of them, in seconds."""
    return min((later - earlier).total_seconds() for earlier, later in pairwise(times))
