"""The service's processes against a real API server, as the service accounts of deploy/base."""

import itertools
import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from offload.dev.stores import StoreAddress
from tests.kube.control_plane import ControlPlane
from tests.programs import KUBECTL, ROOT, Program, Stage
from tests.site import Site

SYSTEM = "offload"
"""The namespace of our own workloads."""
_numbers = itertools.count(1)


class Kubectl:
    """kubectl as one user of one cluster; answers what it printed."""

    def __init__(self, kubeconfig: Path, namespace: str | None = None) -> None:
        """`namespace` is where commands act that name none; objects that name another are then refused."""
        self._options = ["--kubeconfig", str(kubeconfig), *(["--namespace", namespace] if namespace else [])]

    def __call__(self, *words: str, stdin: Any = None, fails: bool | None = False) -> str:
        """`stdin` is text, or an object to be sent as JSON; `fails` wants it to fail (None: it may)."""
        given = stdin if isinstance(stdin, str) or stdin is None else json.dumps(stdin)
        done = subprocess.run(
            [KUBECTL, *self._options, *words],
            input=given, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert fails in (None, bool(done.returncode)), (
            f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}"
        )
        return done.stdout + ("" if fails is False else done.stderr)

    def json(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(*words, "-o", "json"))
        return found


class KubeSite(Site):
    """A site whose API server is real: a namespace of its own, in which our accounts have their Roles."""

    def __init__(
        self, folder: Path, database_url: str, store: StoreAddress, stack: ExitStack, plane: ControlPlane
    ) -> None:
        super().__init__(folder, database_url, store, stack)
        self.plane = plane
        self.namespace = f"agents-{next(_numbers)}"
        self.kubectl = Kubectl(plane.kubeconfig(self.kubeconfig), self.namespace)
        self.kubectl("create", "namespace", self.namespace)
        stack.callback(self.kubectl, "delete", "namespace", self.namespace, "--wait=false")
        self.grant("rbac-namespaced")
        self.environment["OFFLOAD_NAMESPACES"] = self.namespace
        # Commands are an operator's; the processes are service accounts.
        self.stage = Stage(self.environment["OFFLOAD_URL"], self.environment, folder, self.namespace)
        self.accounts = {
            role: plane.service_account_kubeconfig(folder / f"{role}.kubeconfig", SYSTEM, f"offload-{role}")
            for role in ("serve", "controller")
        }

    def at_end(self, clear_away: Callable[[], object]) -> None:
        """Have something done when the site is cleared away, before what was there earlier."""
        self._stack.callback(clear_away)

    def grant(self, folder: str) -> None:
        """Apply one of the RBAC folders of deploy/base; Roles go into the site's namespace."""
        self.kubectl("apply", "-f", "-", stdin=self.kubectl("kustomize", f"deploy/base/{folder}"))

    def another(self, name: str) -> Stage:
        """The stage of one more namespace, in which our accounts have no rights yet."""
        namespace = f"{self.namespace}-{name}"
        self.kubectl("create", "namespace", namespace)
        self._stack.callback(self.kubectl, "delete", "namespace", namespace, "--wait=false")
        return Stage(self.stage.url, self.environment, self.folder, namespace)

    def serve(self, *options: str, **settings: str) -> Program:
        return super().serve(*options, **{"OFFLOAD_KUBECONFIG": str(self.accounts["serve"]), **settings})

    def controller(self, **settings: str) -> Program:
        return super().controller(**{"OFFLOAD_KUBECONFIG": str(self.accounts["controller"]), **settings})

    def all(self, *options: str, **settings: str) -> None:
        self.serve(*options, **settings)
        self.controller(**settings)
