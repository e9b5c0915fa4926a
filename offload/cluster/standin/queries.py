"""What a request asks for beside its path: selectors, numbers, tables."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest

from offload.cluster.standin import failures
from offload.cluster.standin.resources import Resource
from offload.cluster.standin.store import Object
from offload.cluster.standin.tables import find


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements as (path or label, wanted value, whether equal); all must hold."""

    labels: tuple[tuple[str, str, bool], ...]
    fields: tuple[tuple[str, str, bool], ...]

    def matches(self, body: Object | None) -> bool:
        if body is None:
            return False
        labels = body["metadata"].get("labels") or {}
        if any((labels.get(key) == wanted) is not equal for key, wanted, equal in self.labels):
            return False
        found = ((find(body, f".{path}") or [""], wanted, equal) for path, wanted, equal in self.fields)
        return all((values[0] == wanted) is equal for values, wanted, equal in found)

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)


def selector(resource: Resource, query: Mapping[str, str]) -> Selector:
    """The selector of a request's query; what is not imitated is refused."""
    fields = _parse(query.get("fieldSelector", ""), "field")
    for path, _, _ in fields:
        if path not in {"metadata.name", "metadata.namespace"} | resource.fields:
            raise failures.bad_request(f"field label not supported: {path}")
    return Selector(_parse(query.get("labelSelector", ""), "label"), fields)


def number(query: Mapping[str, str], name: str) -> int:
    """A whole number of the query, 0 where it is not given."""
    try:
        return max(0, int(query.get(name) or 0))
    except ValueError:
        raise failures.bad_request(f"{name} is not a number: {query[name]!r}") from None


def flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name) in ("1", "true")


def wants_table(http: HttpRequest) -> bool:
    first = http.headers.get("accept", "").partition(",")[0]
    return "as=Table" in first and "g=meta.k8s.io" in first


def included(http: HttpRequest) -> str:
    """What of an object a table's row carries."""
    return http.query_params.get("includeObject", "Metadata")


def _parse(text: str, kind: str) -> tuple[tuple[str, str, bool], ...]:
    found = []
    for part in filter(None, text.split(",")):
        key, sign, value = part.partition("!=") if "!=" in part else part.partition("=")
        if not sign or any(c in key for c in " !()"):
            raise failures.bad_request(f"only equality is imitated in a {kind} selector, not {part!r}")
        found.append((key, value.removeprefix("="), sign == "="))
    return tuple(found)
