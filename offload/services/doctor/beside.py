"""The controller that was there before: whether its two settings for artifacts are the same as ours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offload.domain.limits import STATUS_ENTRIES
from offload.errors import ConfigError
from offload.services.doctor.findings import Check, Verdict, ok, warning

PART = "beside"
_READ = "give what this prints: kubectl get deployment NAME -o json"


@dataclass(frozen=True, slots=True)
class BesidePart:
    """The Deployment of another controller of AgentRuns, by what its containers are started with."""

    deployment: object
    """As kubectl prints it. The service has no right to read it."""
    artifacts_max: int
    artifacts_strict: bool

    def checks(self) -> Sequence[Check]:
        return [Check(PART, "settings", self._settings, _READ)]

    def _settings(self) -> Iterator[Verdict]:
        there = _environment(self.deployment)
        yield _judge("MAX", there, ours=str(self.artifacts_max), usual=str(STATUS_ENTRIES))
        yield _judge("STRICT", there, ours=str(self.artifacts_strict).lower(), usual="false")


def _environment(deployment: Any) -> Mapping[str, str | None]:
    """The variables of all containers; None for a value from elsewhere, and for `*` where names are too."""
    try:
        containers = deployment["spec"]["template"]["spec"]["containers"]
        given = [variable for container in containers for variable in container.get("env", [])]
        variables = {
            variable["name"]: None if "valueFrom" in variable else str(variable.get("value", ""))
            for variable in given
        }
        whole = any(container.get("envFrom") for container in containers)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError("this is no Deployment") from error
    return {**variables, "*": None} if whole else variables


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
