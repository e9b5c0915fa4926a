"""What a node does for the Deployments of deploy/: their containers as processes of this machine."""

import base64
import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.kube.control_plane import ControlPlane
from tests.kube.site import SYSTEM, Kubectl
from tests.programs import OFFLOAD, Program, free_port, surroundings

WORKLOADS = ("offload-serve", "offload-controller")


class Node:
    """Runs both Deployments, one Pod each, with their environment, files and service accounts."""

    def __init__(self, plane: ControlPlane, kubectl: Kubectl, folder: Path, stack: ExitStack) -> None:
        """`folder` is for what the Pods are given."""
        self._plane, self._kubectl, self._folder = plane, kubectl, folder
        self._running: list[Program] = []
        self.environments: dict[str, dict[str, str]] = {}
        """What the container of each Deployment was last started with, save that all is on loopback."""
        self.port = free_port()
        stack.callback(self.end)

    def roll(self) -> None:
        """Replace what runs by what the Deployments now say; it is ready when this returns."""
        self.end()
        for name in WORKLOADS:
            pod = self._object("deployment", name)["spec"]["template"]["spec"]
            self.environments[name] = self._environment(name, pod)
            self._start(name, pod)

    def end(self) -> None:
        """As when the Deployments are gone."""
        for program in self._running:
            program.process.terminate()
        while self._running:
            self._running.pop().clear_away()

    def _environment(self, name: str, pod: dict[str, Any]) -> dict[str, str]:
        [container] = pod["containers"]
        given: dict[str, str] = {}
        for source in container["envFrom"]:
            given |= self._object("configmap", source["configMapRef"]["name"])["data"]
        for variable in container["env"]:
            if "value" in variable:
                given[variable["name"]] = variable["value"]
            else:
                source = variable["valueFrom"]["secretKeyRef"]
                given[variable["name"]] = self._secret(source["name"])[source["key"]]
        for volume in pod["volumes"]:
            self._fill(self._folder / name / volume["name"], volume)
        for mount in container["volumeMounts"]:
            here = str(self._folder / name / mount["name"])
            given = {key: value.replace(mount["mountPath"], here) for key, value in given.items()}
        account = self._plane.service_account_kubeconfig(
            self._folder / f"{name}.kubeconfig", SYSTEM, pod["serviceAccountName"]
        )
        loopback = {
            "OFFLOAD_HOST": "127.0.0.1",
            "OFFLOAD_METRICS_HOST": "127.0.0.1",
            "OFFLOAD_METRICS_PORT": "0",
            "OFFLOAD_PORT": str(self.port),
            "OFFLOAD_KUBECONFIG": str(account),
        }
        return surroundings(self._folder, **{**given, **loopback})

    def _start(self, name: str, pod: dict[str, Any]) -> None:
        environment = self.environments[name]
        for container in pod["initContainers"]:
            done = subprocess.run(
                [*OFFLOAD, *container["args"]],
                env=environment, cwd=self._folder, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        [container] = pod["containers"]
        program = Program(container["args"], environment, self._folder)
        self._running.append(program)
        program.said("url=" if name == "offload-serve" else "metrics=")

    def _fill(self, folder: Path, volume: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        files = (
            self._secret(volume["secret"]["secretName"])
            if "secret" in volume
            else self._object("configmap", volume["configMap"]["name"])["data"]
        )
        for name, content in files.items():
            (folder / name).write_text(content)

    def _secret(self, name: str) -> dict[str, str]:
        data = self._object("secret", name)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def _object(self, kind: str, name: str) -> dict[str, Any]:
        return self._kubectl.json("get", kind, name, "-n", SYSTEM)


class Shell:
    """An operator's shell, in a copy of `deploy/`, for commands as the documentation has them."""

    def __init__(self, node: Node, kubeconfig: Path, folder: Path, meant: dict[str, str]) -> None:
        """`meant` is what stands for a word that the reader is to replace."""
        self._node, self.folder, self._meant = node, folder, meant
        programs = folder / "programs"
        programs.mkdir()
        real = Path(OFFLOAD[0]).with_name("kubectl")
        self._exec = programs / "environment"
        # The node has no kubelet that `kubectl exec` could reach.
        _script(programs / "kubectl", f'case " $* " in *" exec "*) . {self._exec};; esac; exec {real} "$@"')
        _script(programs / "offload", f'exec {" ".join(OFFLOAD)} "$@"')
        self._environment = surroundings(folder, KUBECONFIG=str(kubeconfig))
        self._environment["PATH"] = f"{programs}{os.pathsep}{self._environment['PATH']}"

    def run(self, commands: str) -> str:
        """Run one block of them; what all of it printed."""
        return "".join(self._line(line) for line in commands.splitlines() if not line.startswith("#"))

    def _line(self, line: str) -> str:
        for word, meant in self._meant.items():
            line = line.replace(word, meant)
        if " rollout status " in line:
            self._node.roll()
            return ""
        if " exec " in line:
            self._prepare_exec(line)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            env=self._environment, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        fine = {0, 1} if line.startswith("kubectl diff") else {0}
        assert done.returncode in fine, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def _prepare_exec(self, line: str) -> None:
        name = line.partition(" deployment/")[2].split()[0]
        environment = {**self._node.environments[name], "COLUMNS": "500"}
        path = self.folder / "environment.json"
        path.write_text(json.dumps(environment))
        program = (
            f"import json,os,sys; words = sys.argv[sys.argv.index('--') + 2 :]; "
            f"os.execvpe('{OFFLOAD[0]}', {OFFLOAD!r} + words, json.load(open('{path}')))"
        )
        self._exec.write_text(f'exec {OFFLOAD[0]} -c "{program}" "$@"\n')


def blocks(text: str, heading: str) -> list[str]:
    """The shell commands below a heading of a page, block by block."""
    level = heading.partition(" ")[0]
    found: list[str] = []
    inside = below = False
    for line in text.splitlines():
        if line.strip().startswith("```"):
            inside = not inside
            if inside and below:
                found.append("")
        elif inside and below:
            found[-1] += line.strip() + "\n"
        elif not inside and line.startswith("#") and len(line.partition(" ")[0]) <= len(level):
            below = line == heading
        elif not inside and line.startswith("#"):
            below = False
    return found


def _script(path: Path, content: str) -> None:
    path.write_text(f"#!/bin/sh\n{content}\n")
    path.chmod(0o755)
