"""Who may do what: one decision, pure.

A permission is asked for a run. What a grant does not name, it does not allow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase


class Permission(StrEnum):
    """What a route needs."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token may do: `permissions` on runs whose namespace and name match one glob each."""

    name: str
    permissions: frozenset[Permission]
    namespaces: tuple[str, ...]
    runs: tuple[str, ...] = ("*",)
    expires_at: datetime | None = None


EVERYTHING = Grant("anonymous", frozenset(Permission), ("*",))
"""The grant of everyone where access control is off (`OFFLOAD_AUTH=none`)."""


def permits(grant: Grant, permission: Permission, namespace: str, run: str, *, now: datetime) -> bool:
    """Whether `grant` allows `permission` on the run now."""
    return (
        permission in grant.permissions
        and (grant.expires_at is None or now < grant.expires_at)
        and _any_matches(grant.namespaces, namespace)
        and _any_matches(grant.runs, run)
    )


def permits_namespace(grant: Grant, permission: Permission, namespace: str, *, now: datetime) -> bool:
    """Whether `grant` allows `permission` on every run of the namespace: what its list of runs needs."""
    return "*" in grant.runs and permits(grant, permission, namespace, "", now=now)


def _any_matches(globs: Iterable[str], value: str) -> bool:
    return any(fnmatchcase(value, glob) for glob in globs)
