"""A Kubernetes control plane on loopback: etcd, API server and controller manager, with TLS and RBAC.

What a production cluster has is on: client certificates and service account tokens, RBAC, the default
admission plug-ins, namespace deletion, garbage collection, aggregated roles, and an audit log.
"""

import json
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from tests.kube.pki import Authority
from tests.programs import free_port

START_SECONDS = 90
CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
    "validatingadmissionpolicy-status-controller",
)
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}

_CLIENT_FILES = {"client-certificate": "crt", "client-key": "key"}


class ControlPlane:
    """Started by `start`; parts of it can be stopped and started again, at the same addresses."""

    def __init__(self, programs: Path, folder: Path) -> None:
        """`folder` is for this control plane alone: certificates, data, logs."""
        self._programs, self._folder = programs, folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._etcd_port, self._peer_port, self.port = free_port(), free_port(), free_port()
        self.etcd_metrics_port = free_port()
        self._authority = Authority(folder)
        self._authority.issue("etcd")
        self._authority.issue("kube-apiserver")
        self._authority.issue("service-accounts")
        self._authority.issue("admin", ["system:masters"])
        self._authority.issue("system:kube-controller-manager")
        (folder / "audit.yaml").write_text(json.dumps(AUDIT))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> str:
        return self._authority.file("ca.crt")

    @property
    def admin_certificate(self) -> tuple[str, str]:
        """An administrator's certificate and key, as files."""
        return self._authority.file("admin.crt"), self._authority.file("admin.key")

    def start(self) -> None:
        """Start all of it; it is ready when this returns."""
        self.start_etcd()
        self.start_api_server()
        self._start_controller_manager()
        self._await(self._has_service_accounts)

    def stop(self) -> None:
        """End all of it."""
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            self.kill(name)

    def start_etcd(self) -> None:
        name = "etcd"
        self._run(
            name,
            f"--data-dir={self._folder / 'data'}",
            f"--listen-client-urls=https://127.0.0.1:{self._etcd_port}",
            f"--advertise-client-urls=https://127.0.0.1:{self._etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{self._peer_port}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self._peer_port}",
            f"--initial-cluster=default=http://127.0.0.1:{self._peer_port}",
            f"--cert-file={self._authority.file('etcd.crt')}",
            f"--key-file={self._authority.file('etcd.key')}",
            f"--trusted-ca-file={self.ca_file}",
            "--client-cert-auth",
            f"--listen-metrics-urls=http://127.0.0.1:{self.etcd_metrics_port}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def start_api_server(self) -> None:
        """Ready when this returns."""
        file = self._authority.file
        self._run(
            "kube-apiserver",
            f"--etcd-servers=https://127.0.0.1:{self._etcd_port}",
            f"--etcd-cafile={self.ca_file}",
            f"--etcd-certfile={file('kube-apiserver.crt')}",
            f"--etcd-keyfile={file('kube-apiserver.key')}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self.port}",
            f"--tls-cert-file={file('kube-apiserver.crt')}",
            f"--tls-private-key-file={file('kube-apiserver.key')}",
            f"--client-ca-file={self.ca_file}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--service-account-issuer={self.url}",
            f"--service-account-key-file={file('service-accounts.crt')}",
            f"--service-account-signing-key-file={file('service-accounts.key')}",
            f"--audit-policy-file={file('audit.yaml')}",
            f"--audit-log-path={file('audit.log')}",
        )
        self._await(self._is_ready)

    def install_crd(self, crd: Mapping[str, Any]) -> None:
        """Create the CRD, or replace what is there by it; its schema is served when this returns."""
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        name = crd["metadata"]["name"]
        try:
            found = self.request("GET", f"{path}/{name}")
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            self.request("POST", path, crd)
        else:
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            self.request("PUT", f"{path}/{name}", {**crd, "metadata": {**crd["metadata"], **version}})
        self._await(lambda: self._is_served(crd))

    def kill(self, name: str) -> None:
        """SIGKILL one of the three programs, and see it end."""
        process = self._processes.pop(name, None)
        if process:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def freeze(self, name: str) -> None:
        """Have it answer nothing until `thaw`; its connections stay open."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def server_certificate(self, name: str) -> tuple[str, str]:
        """The files of a certificate and its key, for a server on loopback that clients here trust."""
        self._authority.issue(name)
        return self._authority.file(f"{name}.crt"), self._authority.file(f"{name}.key")

    def kubeconfig(self, path: Path, *, url: str | None = None) -> Path:
        """Write an administrator's kubeconfig; `url` leads it another way to the API server."""
        pair = {name: self._authority.file(f"admin.{end}") for name, end in _CLIENT_FILES.items()}
        return self._write_kubeconfig(path, pair, url)

    def service_account_kubeconfig(
        self, path: Path, namespace: str, name: str, *, url: str | None = None, seconds: int = 3600
    ) -> Path:
        """Write the kubeconfig of a service account, with a token in a file beside it, as a Pod has."""
        token_file = path.with_suffix(".token")
        self.write_token(token_file, namespace, name, seconds=seconds)
        return self._write_kubeconfig(path, {"tokenFile": str(token_file)}, url)

    def write_token(self, path: Path, namespace: str, name: str, *, seconds: int = 3600) -> None:
        """Put a new token of a service account where the old one was, as the kubelet does."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        answer = self.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", request)
        written = path.with_suffix(".part")
        written.write_text(answer["status"]["token"])
        written.rename(path)

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """An administrator's request; raises `urllib.error.HTTPError`."""
        answer: dict[str, Any] = json.loads(self._send(method, path, body))
        return answer

    def audit(self, user: str = "") -> Iterator[dict[str, Any]]:
        """The requests of `user` (none given: of all) so far, oldest first, as the API server logged them."""
        with Path(self._authority.file("audit.log")).open() as log:
            for line in log:
                with suppress(ValueError):  # the last one, while it is written
                    event: dict[str, Any] = json.loads(line)
                    if not user or event["user"].get("username") == user:
                        yield event

    def log(self, name: str) -> str:
        """What one of the programs said."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _is_served(self, crd: Mapping[str, Any]) -> bool:
        """Whether the OpenAPI document has the CRD as it is: it comes some time after the CRD itself."""
        group, version = crd["spec"]["group"], crd["spec"]["versions"][0]
        paths = self.request("GET", "/openapi/v3")["paths"]
        found = paths.get(f"apis/{group}/{version['name']}")
        if not found:
            return False
        schemas = self.request("GET", found["serverRelativeURL"])["components"]["schemas"]
        [schema] = [one for one in schemas.values() if _kind(one) == crd["spec"]["names"]["kind"]]
        wanted = version["schema"]["openAPIV3Schema"]["properties"]["status"]
        return bool(schema["properties"]["status"] == wanted)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.load_cert_chain(*self.admin_certificate)
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, context=context, timeout=10) as response:
            answer: bytes = response.read()
            return answer

    def _start_controller_manager(self) -> None:
        user = "system:kube-controller-manager"
        pair = {name: self._authority.file(f"{user}.{end}") for name, end in _CLIENT_FILES.items()}
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self._write_kubeconfig(self._folder / f'{user}.kubeconfig', pair)}",
            f"--service-account-private-key-file={self._authority.file('service-accounts.key')}",
            f"--root-ca-file={self.ca_file}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def _write_kubeconfig(self, path: Path, user: Mapping[str, str], url: str | None = None) -> Path:
        cluster = {"server": url or self.url, "certificate-authority": self.ca_file}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": dict(user)}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def _run(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [self._programs / name, *arguments],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C for the tests is not for these: they are stopped
            )

    def _await(self, happened: Callable[[], bool]) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError, ValueError):  # away, or with half an answer while a CRD comes and goes
                if happened():
                    return
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended: {self.log(name)[-4000:]}")
            if time.monotonic() > until:
                raise RuntimeError(f"not ready: {self.log('kube-apiserver')[-4000:]}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        return self._send("GET", "/readyz", None) == b"ok"

    def _has_service_accounts(self) -> bool:
        found = self.request("GET", "/api/v1/namespaces/default/serviceaccounts")["items"]
        return any(one["metadata"]["name"] == "default" for one in found)


def _kind(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("x-kubernetes-group-version-kind") or [{"kind": ""}]
    return str(kinds[0]["kind"])
