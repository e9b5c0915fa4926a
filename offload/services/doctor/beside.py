"""The controller that was there before: whether its two settings for artifacts are the same as ours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from offload.cluster.interface import Cluster
from offload.domain.limits import STATUS_ENTRIES
from offload.services.doctor.findings import Check, Verdict, ok, warning

PART = "beside"
_READ = "name it as NAMESPACE/DEPLOYMENT, by a kubeconfig that may get it"


@dataclass(frozen=True, slots=True)
class BesidePart:
    """The Deployment of another controller of AgentRuns, by what its containers are started with."""

    cluster: Callable[[], Cluster]
    namespace: str
    deployment: str
    artifacts_max: int
    artifacts_strict: bool

    def checks(self) -> Sequence[Check]:
        return [Check(PART, "settings", self._settings, _READ)]

    def _settings(self) -> Iterator[Verdict]:
        there = self.cluster().environment(self.namespace, self.deployment)
        yield _judge("MAX", there, ours=str(self.artifacts_max), usual=str(STATUS_ENTRIES))
        yield _judge("STRICT", there, ours=str(self.artifacts_strict).lower(), usual="false")


def _judge(setting: str, there: Mapping[str, str | None], *, ours: str, usual: str) -> Verdict:
    """Compare by the last words of the name: the first is JANGAR or AGENTS, by the chart's age."""
    end = f"AGENTRUN_ARTIFACTS_{setting}"
    name = next((name for name in there if name.endswith(end)), f"JANGAR_{end}")
    value = there.get(name, there.get("*", usual))
    if value is None:
        return warning(
            f"set there by a ConfigMap or Secret, which was not read; {ours} here",
            "see that it is the same in both",
            check=name,
        )
    if value.strip().lower() != ours:
        return warning(f"{value.strip()!r} there, {ours} here", "the same value in both", check=name)
    return ok(f"{ours} in both", check=name)
