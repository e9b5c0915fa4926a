"""Other writers beside the service, and what the API server's audit log says of all of them."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.kube.control_plane import ControlPlane
from tests.kube.site import SYSTEM, KubeSite
from tests.programs import ROOT

OURS = f"system:serviceaccount:{SYSTEM}:offload-controller"
THEIRS = "installed"
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": THEIRS},
    "rules": [
        {
            "apiGroups": ["agents.proompteng.ai"],
            "resources": ["agentruns", "agentruns/status"],
            "verbs": ["get", "list", "watch", "patch"],
        }
    ],
}


class Installed:
    """The installed controller at work in a site's namespace, until `silence`."""

    def __init__(self, site: KubeSite, **settings: object) -> None:
        account = ("serviceaccount", THEIRS)
        site.kubectl("apply", "-f", "-", stdin=ROLE)
        if THEIRS not in site.kubectl("get", "serviceaccounts", "-o", "name"):
            site.kubectl("create", *account)
            names = f"--serviceaccount={site.namespace}:{THEIRS}"
            site.kubectl("create", "rolebinding", THEIRS, f"--clusterrole={THEIRS}", names)
        self.user = f"system:{account[0]}:{site.namespace}:{THEIRS}"
        kubeconfig = site.plane.service_account_kubeconfig(
            Path(site.folder) / "installed.kubeconfig", site.namespace, THEIRS
        )
        words = [f"{name}={value}" for name, value in settings.items()]
        self._errors = (site.folder / "installed.err").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kube.installed_controller", kubeconfig, site.namespace, *words],
            cwd=ROOT, env=site.environment, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        site.at_end(self.silence)
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n", (site.folder / "installed.err").read_text()

    def silence(self) -> None:
        """End it at once; it must have been at work until now."""
        if self._errors.closed:
            return
        ended = self._process.poll()
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        assert ended is None, Path(self._errors.name).read_text()


def writes(plane: ControlPlane, user: str, namespace: str, run: str) -> list[datetime]:
    """When `user` wrote the run's status, as the API server received it; refused ones aside."""
    return [
        datetime.fromisoformat(event["requestReceivedTimestamp"])
        for event in patches(plane, user, namespace, run)
        if event["responseStatus"]["code"] < 300
    ]


def patches(plane: ControlPlane, user: str, namespace: str, run: str) -> Iterator[dict[str, Any]]:
    for event in plane.audit(user):
        found = event.get("objectRef", {})
        place = (found.get("namespace"), found.get("name"), found.get("subresource"))
        if event["verb"] == "patch" and place == (namespace, run, "status"):
            yield event


def least_pause(times: list[datetime]) -> float:
    """The least time between two of them, in seconds."""
    return min((later - earlier).total_seconds() for earlier, later in pairwise(times))
