"""What stands in the AgentRuns: how many break the rules that a tightened schema and a policy enforce."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offload.cluster.interface import Cluster
from offload.domain.limits import STATUS_ENTRIES
from offload.domain.pointers import Reason, StatusSchema, read_schema, unfit_fields
from offload.services.doctor.findings import Check, Verdict, ok, warning

PART = "cluster"
_PATIENCE_SECONDS = 60.0
"""Long enough for some ten thousand runs; other checks are done long before."""
_NAMED = 3
_LIST = "let this identity list agentruns, as deploy/base lets the controller"
_CURE = (
    "OFFLOAD_PUBLISH=on adopts content and long addresses; JANGAR_AGENTRUN_ARTIFACTS_MAX="
    f"{STATUS_ENTRIES} shortens lists"
)
_KINDS = {
    Reason.COUNT_LIMIT: f"over {STATUS_ENTRIES} entries",
    Reason.INLINE_DATA: "with inline data",
    Reason.URI_TOO_LONG: "with over-long URIs",
}


@dataclass(frozen=True, slots=True)
class AgentRunsPart:
    """The AgentRuns that there are, looked at page by page."""

    cluster: Callable[[], Cluster]

    def checks(self) -> Sequence[Check]:
        return [Check(PART, "violating runs", self._violating, _LIST, patience=_PATIENCE_SECONDS)]

    def _violating(self) -> Iterator[Verdict]:
        schema = read_schema(self.cluster().status_schema())
        looked_at = violating = 0
        counts: Counter[Reason] = Counter()
        named: list[str] = []
        for run in self.cluster().runs():
            looked_at += 1
            found = violations(run.status, schema)
            if found:
                violating += 1
                counts.update(found)
                if len(named) < _NAMED:
                    named.append(f"{run.seen.namespace}/{run.seen.name}")
        if not violating:
            yield ok(f"0 violating runs of {looked_at}")
            return
        kinds = ", ".join(f"{counts[reason]} {words}" for reason, words in _KINDS.items())
        more = ", …" if violating > len(named) else ""
        yield warning(f"{violating} violating runs of {looked_at}: {kinds} ({', '.join(named)}{more})", _CURE)


def violations(status: Mapping[str, Any], schema: StatusSchema) -> set[Reason]:
    """What is wrong with a status: too many entries, inline data, over-long addresses."""
    artifacts = status.get("artifacts") or []
    entries = artifacts if isinstance(artifacts, list) else [artifacts]
    found = {Reason.COUNT_LIMIT} if len(entries) > STATUS_ENTRIES else set()
    for entry in entries:
        found.update(
            unfit_fields(entry, schema).values() if isinstance(entry, Mapping) else [Reason.INLINE_DATA]
        )
    return found
