"""Another writer beside the service: a controller in a process of its own."""

import subprocess
import sys
from pathlib import Path

from tests.kube.site import KubeSite
from tests.programs import ROOT

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
