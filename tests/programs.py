"""What the stories are told with: our programs as real processes, kubectl, and a wire that can be cut."""

import itertools
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from offload.client import Client

ROOT = Path(__file__).parents[1]
KUBECTL = Path(sys.executable).with_name("kubectl")
OFFLOAD = [sys.executable, "-m", "offload.cli.main"]
NAMESPACE = "agents"
T = TypeVar("T")
_ports = itertools.count(random.randrange(20_000))


def until(look: Callable[[], T | None], seconds: float = 30.0) -> T:
    """What `look` answers once it is truthy."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s; last seen: {found!r}"
        time.sleep(0.05)


def free_port() -> int:
    """A port that is still free later: it is given once, and below those that a system gives by itself."""
    while True:
        port = 10_000 + next(_ports) % 20_000
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def surroundings(home: Path, **settings: str) -> dict[str, str]:
    """An environment in which nothing of the caller's counts."""
    return {
        "PATH": f"{KUBECTL.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home),  # what a killed process leaves
        "PYTHONPATH": str(ROOT),
        **settings,
    }


class Program:
    """An `offload` command that runs until it is ended."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        number = len(list(folder.glob("*.out")))
        self._out = folder / f"{number}-{arguments[0]}.out"
        self._err = self._out.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*OFFLOAD, *arguments],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def said(self, start: str) -> str:
        """The rest of the first line on standard output that begins with `start`, once it is there."""

        def look() -> str | None:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.errors}"
            lines = self._out.read_text().splitlines(keepends=True)
            found = [line[len(start) :].strip() for line in lines if line.startswith(start) and "\n" in line]
            return found[0] if found else None

        return until(look, 60)

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def errors(self) -> str:
        return self._err.read_text()

    def family(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, to all of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, how: signal.Signals = signal.SIGTERM, within: float = 40.0) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(how)
        return self.process.wait(within)

    def clear_away(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()


class Stage:
    """A running service with an API server beside it, as its users reach it."""

    def __init__(
        self, url: str, environment: Mapping[str, str], home: Path, namespace: str = NAMESPACE
    ) -> None:
        self.url, self.environment, self.home = url, dict(environment), home
        self.namespace = namespace

    def client(self, **options: Any) -> Client:
        return Client(self.url, **options)

    def offload(self, *arguments: str, stdin: bytes = b"", code: int = 0) -> str:
        """A command's standard output; it must end with `code`."""
        done = subprocess.run(
            [*OFFLOAD, *arguments],
            input=stdin, env=self.environment, cwd=self.home, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout.decode()

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [KUBECTL, "-n", self.namespace, *arguments],
            input=stdin, env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create_run(self, name: str, **status: Any) -> str:
        """Create an AgentRun; its uid."""
        manifest = {
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"agentRef": {"name": "coder"}, "runtime": {"type": "job"}},
        }
        created = json.loads(self.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(manifest)))
        if status:
            self.patch_status(name, **status)
        uid: str = created["metadata"]["uid"]
        return uid

    def patch_status(self, name: str, **status: Any) -> None:
        patch = json.dumps({"status": status})
        self.kubectl("patch", "agentrun", name, "--subresource=status", "--type=merge", "-p", patch)

    def read(self, name: str) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.kubectl("get", "agentrun", name, "-o", "json"))
        return read

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.read(name).get("status", {})
        return status

    def names(self, name: str) -> list[str]:
        return [entry["name"] for entry in self.status(name).get("artifacts", [])]

    def condition(self, name: str, type_: str) -> dict[str, Any] | None:
        found = [one for one in self.status(name).get("conditions", []) if one["type"] == type_]
        return found[0] if found else None

    def events(self, name: str) -> list[dict[str, Any]]:
        items = json.loads(self.kubectl("get", "events", "-o", "json"))["items"]
        return [one for one in items if one["involvedObject"]["name"] == name]

    def put(self, run: str, name: str, body: bytes | Iterator[bytes], **params: str) -> httpx.Response:
        """One PUT, without retries."""
        return httpx.put(
            f"{self.url}/v1/namespaces/{self.namespace}/agentruns/{run}/artifacts/{name}",
            params=params,
            content=body,
            timeout=60,
        )

    def post(self, run: str, files: Mapping[str, bytes]) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v1/namespaces/{self.namespace}/agentruns/{run}/artifacts",
            files=[("file", (name, body)) for name, body in files.items()],
            timeout=120,
        )

    def get(self, path: str, **params: str) -> httpx.Response:
        return httpx.get(f"{self.url}/v1/{path}", params=params, timeout=60)

    def history(self, run: str, **params: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        path: str | None = f"{self.url}/v1/namespaces/{self.namespace}/agentruns/{run}/artifacts"
        asked: dict[str, str] | None = {"limit": "1000", **params}
        while path:
            page = httpx.get(path, params=asked, timeout=60)
            assert page.status_code == 200, page.text
            items += page.json()["items"]
            path, asked = page.json()["next"], None
        return items

    def is_current(self, run: str) -> bool:
        """Whether status shows all that was acknowledged."""
        answer = self.get(f"namespaces/{self.namespace}/agentruns/{run}")
        assert answer.status_code == 200, answer.text
        publish = answer.json()["publish"]
        return bool(publish["publishedAt"]) and not publish["behind"]


class Wire:
    """A TCP connection through this process, to be cut or to be held up."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket.socket] = []
        self._flows = threading.Event()
        self._flows.set()
        self._listener: socket.socket | None = None
        self._changes = threading.Lock()
        self.port = free_port()
        self.mend()

    def mend(self) -> None:
        """Let everything through, from now on."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        self._flows.set()

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        with self._changes:
            listener, self._listener = self._listener, None
            ended, self._open = self._open, []
        for one in (listener, *ended):
            if one:
                shut(one)

    def hold_up(self) -> None:
        """Keep connections and take new ones, and pass nothing on: as where the other side was stopped."""
        self._flows.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # `cut` has closed it
            while True:
                self._connect(listener, listener.accept()[0])

    def _connect(self, listener: socket.socket, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", self._to))
        with self._changes:
            if self._listener is listener:
                self._open += [near, far]
            else:  # it was cut meanwhile
                shut(near)
                shut(far)
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError, ValueError):  # the other direction, or `cut`, has closed them
            while select.select([source], [], []) and self._flows.wait():
                data = source.recv(2**16)
                if not data:
                    break
                target.sendall(data)
        shut(target)


def shut(one: socket.socket) -> None:
    """Close it, also for the thread that reads from it."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def metrics(port: int) -> dict[str, float]:
    """Every sample of a metrics port by its name, those of one name summed."""
    samples: dict[str, float] = {}
    for line in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            samples[name] = samples.get(name, 0.0) + float(value)
    return samples
