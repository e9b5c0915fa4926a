"""The API server: whether it answers, what its AgentRun schema keeps, and what it permits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from offload.cluster.interface import Cluster
from offload.domain.pointers import StatusSchema, read_schema
from offload.domain.projection import Caps, effective_cap, strict_verdict
from offload.services.doctor.findings import Check, Verdict, broken, ok, warning

PART = "cluster"
_PUBLISHING = frozenset({"patch agentruns/status", "get /openapi/v3"})
_EVENTS = "create events"
_REACH = "see whether OFFLOAD_KUBECONFIG (unset: the Pod's service account) is right and its server runs"
_CRD = "install deploy/crd in an empty cluster, deploy/crd-patch where AgentRun is there already"
_GRANT = "grant it as deploy/base does, to the controller's service account"


@dataclass(frozen=True, slots=True)
class ClusterPart:
    """The API server as this identity finds it. Nothing is written there."""

    cluster: Callable[[], Cluster]
    caps: Caps
    strict: bool
    publishes: bool

    def checks(self) -> Sequence[Check]:
        return [
            Check(PART, "reachable", self._reachable, _REACH),
            Check(PART, "schema", self._schema, _CRD),
            Check(PART, "permissions", self._permissions, _REACH),
        ]

    def _reachable(self) -> Iterator[Verdict]:
        yield ok(f"{self.cluster().version()} answers")

    def _schema(self) -> Iterator[Verdict]:
        served = read_schema(self.cluster().status_schema())
        yield _judge_cap(served, self.caps)
        yield _judge_conditions(served, strict=self.strict)

    def _permissions(self) -> Iterator[Verdict]:
        for permission, granted in self.cluster().permissions().items():
            yield _judge_permission(permission, granted=granted, publishes=self.publishes)


def _judge_cap(served: StatusSchema, caps: Caps) -> Verdict:
    dialects = [name for name, kept in (("native", served.native), ("legacy", served.legacy)) if kept]
    cap = effective_cap(caps, served)
    found = f"keeps {' and '.join(dialects)} pointers; at most {cap} are listed"
    if cap < caps.count:
        return warning(
            f"{found}: the schema lowers the setting of {caps.count}",
            f"JANGAR_AGENTRUN_ARTIFACTS_MAX={cap}, so that both say the same",
        )
    return ok(found)


def _judge_conditions(served: StatusSchema, *, strict: bool) -> Verdict:
    lost = [] if served.tells else ["conditions"]
    if strict:
        kept = strict_verdict({}, served, datetime.now(UTC))
        lost += [field for field in ("phase", "reason", "finishedAt") if field not in kept]
    if lost:
        return warning(
            f"drops or refuses status.{', status.'.join(lost)}: what is left out cannot be said there",
            "a newer AgentRun CRD",
            check="schema of conditions",
        )
    return ok("kept", check="schema of conditions")


def _judge_permission(permission: str, *, granted: bool, publishes: bool) -> Verdict:
    if granted:
        return ok("granted", check=permission)
    if permission == _EVENTS:
        return warning("not granted: no Events; conditions still tell", _GRANT, check=permission)
    if permission in _PUBLISHING and not publishes:
        return warning("not granted; needed once OFFLOAD_PUBLISH=on", _GRANT, check=permission)
    return broken("not granted", _GRANT, check=permission)
