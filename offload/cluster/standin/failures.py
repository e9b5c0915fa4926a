"""Refusals, as the Kubernetes `Status` objects that clients read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from offload.cluster.standin.resources import Resource

Object = dict[str, Any]


class StatusError(Exception):
    """A request is refused; `body` is what the client gets."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        self.code = code
        self.body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        if details:
            self.body["details"] = details
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Problem:
    """One field that does not fit. `reason` is a Kubernetes cause, such as `FieldValueInvalid`."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


def no_such_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def not_found(resource: Resource, name: str) -> StatusError:
    return StatusError(
        404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name, resource.plural)
    )


def exists(resource: Resource, name: str) -> StatusError:
    return StatusError(
        409,
        "AlreadyExists",
        f'{resource.qualified} "{name}" already exists',
        _details(resource, name, resource.plural),
    )


def terminating(resource: Resource, name: str, namespace: str) -> StatusError:
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated"}
    details = _details(resource, name, resource.plural)
    details["causes"] = [{**cause, "field": "metadata.namespace"}]
    return StatusError(403, "Forbidden", f'{resource.qualified} "{name}" is forbidden: {why}', details)


def conflict(resource: Resource, name: str, why: str) -> StatusError:
    return StatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}',
        _details(resource, name, resource.plural),
    )


def modified(resource: Resource, name: str) -> StatusError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(resource, name, why)


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def invalid(resource: Resource, name: str, problems: Sequence[Problem]) -> StatusError:
    joined = ", ".join(f"{p.field}: {p.message}" for p in problems)
    details = _details(resource, name, resource.kind)
    details["causes"] = [{"reason": p.reason, "message": p.message, "field": p.field} for p in problems]
    text = joined if len(problems) == 1 else f"[{joined}]"
    return StatusError(
        422, "Invalid", f'{resource.kind}.{resource.group} "{name}" is invalid: {text}', details
    )


def method_not_allowed() -> StatusError:
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message)


def unsupported(message: str) -> StatusError:
    return StatusError(415, "UnsupportedMediaType", message)


def expired(message: str) -> StatusError:
    return StatusError(410, "Expired", message)


def _details(resource: Resource, name: str, kind: str) -> Object:
    details = {"name": name, "group": resource.group, "kind": kind}
    return {key: value for key, value in details.items() if value}
