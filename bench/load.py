"""Who sends: curl for large bodies, wrk for many small ones; and what it costs the servers."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.cache import cached

SCRIPT = Path(__file__).with_name("wrk") / "requests.lua"
PATIENCE = 600.0
_SAMPLE_SECONDS = 0.05


class NothingDoneError(RuntimeError):
    """No request was answered within the time."""


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second, and milliseconds."""

    rate: float
    p50: float
    p99: float


def upload(url: str, file: Path) -> float:
    """Seconds that one `curl -T` takes, as curl counts them."""
    return _curl("-T", str(file), url)


def download(url: str) -> float:
    """Seconds that one `curl` takes, as curl counts them."""
    return _curl(url)


def post(url: str, form: Path, boundary: str) -> float:
    """Seconds that one POST of a form takes."""
    kind = f"Content-Type: multipart/form-data; boundary={boundary}"
    return _curl("--data-binary", f"@{form}", "-H", kind, "-H", "Expect:", url)


def uploads(urls: Sequence[str], file: Path) -> float:
    """Seconds until as many curl, started together, have sent the file to one of `urls` each."""
    began = time.perf_counter()
    running = [_start_curl("-T", str(file), url) for url in urls]
    for process in running:
        _finish_curl(process)
    return time.perf_counter() - began


def requests(  # noqa: PLR0913 - what a request is made of
    url: str, path: str, *, method: str = "GET", size: int = 0, connections: int, seconds: float,
    runs: int = 0, files: int = 0,
) -> Load:  # fmt: skip
    """Send for some seconds; `RUN` and `FILE` in `path` count up to `runs` and `files`, 0: for ever.

    Raises:
        NothingDoneError: none was answered.
        RuntimeError: some failed; a figure of failures would be none.
    """
    told = [method, str(size), str(runs), str(files), path]
    command = [*_wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    done = subprocess.run(
        [*command, "-s", str(SCRIPT), url, "--", *told],
        capture_output=True, text=True, check=True, timeout=PATIENCE, env=_wrk_environment(),
    )  # fmt: skip
    result = json.loads(done.stdout.splitlines()[-1])
    if not result["requests"]:
        raise NothingDoneError(f"{method} {url}{path}: no answer within {seconds} s")
    if result["failed"]:
        raise RuntimeError(f"{method} {url}{path}: {result}; {done.stdout}")
    return Load(result["requests"] / result["seconds"], result["p50"], result["p99"])


@contextmanager
def cpu_seconds(processes: Iterable[psutil.Process]) -> Iterator[list[float]]:
    """Gives a list that holds, once the block is over, the user and system time that the processes took."""
    watched = list(processes)
    taken: list[float] = []
    before = [_cpu(one) for one in watched]
    yield taken
    taken.append(sum(_cpu(one) for one in watched) - sum(before))


def cpu_each(
    unit: str, programs: Mapping[str, int], sides: Mapping[str, Callable[[], float]]
) -> dict[str, Any]:
    """Where the time goes: user and system seconds that each side takes of each program, for one `unit`.

    A program is named by its first process. Each side does its work once, and answers how many units it did.
    """
    taken: dict[str, Any] = {"unit": unit}
    for side, work in sides.items():
        before = {name: _cpu_with_ended(pid) for name, pid in programs.items()}
        units = work()
        taken[side] = {
            name: float(f"{(_cpu_with_ended(pid) - before[name]) / units:.3g}")
            for name, pid in programs.items()
        }
    return taken


@contextmanager
def peak_memory(processes: Sequence[psutil.Process]) -> Iterator[list[float]]:
    """Gives a list that holds, once the block is over, the bytes that the processes held at their peak.

    The kernel's own high-water mark where it lets itself be reset, and samples beside it.
    """
    peak: list[float] = []
    sampled = 0
    stop = threading.Event()

    def sample() -> None:
        nonlocal sampled
        while not stop.wait(_SAMPLE_SECONDS):
            with suppress(psutil.NoSuchProcess):
                sampled = max(sampled, resident(processes))

    exact = _reset_high_water(processes)
    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        stop.set()
        sampler.join()
    marked = sum(_high_water(one) for one in processes) if exact else 0
    peak.append(max(sampled, marked))


def resident(processes: Iterable[psutil.Process]) -> int:
    """Bytes of memory that the processes hold."""
    return sum(one.memory_info().rss for one in processes)


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def versions() -> dict[str, str]:
    """Of curl and wrk."""
    curl = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    wrk = subprocess.run(
        [*_wrk(), "-v"], capture_output=True, text=True, check=False, env=_wrk_environment()
    ).stdout
    found = re.search(r"wrk (\S+)", wrk)
    return {"curl": curl.split()[1], "wrk": found[1] if found else "unknown"}


def _curl(*arguments: str) -> float:
    return _finish_curl(_start_curl(*arguments))


def _start_curl(*arguments: str) -> "subprocess.Popen[str]":
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", str(PATIENCE)]
    written = ["--write-out", "%{stderr}%{time_total}", "--output", os.devnull]
    return subprocess.Popen([*command, *written, *arguments], stderr=subprocess.PIPE, text=True)


def _finish_curl(process: "subprocess.Popen[str]") -> float:
    _, said = process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise RuntimeError(f"curl failed: {said}")
    return float(said.strip().splitlines()[-1])


def _wrk() -> list[str]:
    """wrk: the machine's, else Debian's package unpacked into the cache, for which nobody need be root."""
    found = shutil.which("wrk")
    return [found] if found else [str(_unpacked_wrk() / "usr" / "bin" / "wrk")]


def _wrk_environment() -> dict[str, str]:
    if shutil.which("wrk"):
        return dict(os.environ)
    libraries = ":".join(str(path) for path in (_unpacked_wrk() / "usr" / "lib").glob("*-linux-*"))
    return {**os.environ, "LD_LIBRARY_PATH": libraries}


def _unpacked_wrk() -> Path:
    folder = cached("wrk")
    if (folder / "usr" / "bin" / "wrk").exists():
        return folder
    if not shutil.which("apt-get"):
        raise RuntimeError("there is no wrk on PATH, and no apt-get to fetch it with: install wrk")
    parts = folder.with_suffix(".part")
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    names = ["wrk", "libluajit-5.1-2", "libluajit-5.1-common"]
    done = subprocess.run(
        ["apt-get", "download", *names], cwd=parts, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"wrk cannot be fetched; install it, or run apt-get update: {done.stderr}")
    for package in parts.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, parts], check=True)
    parts.rename(folder)
    return folder


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _cpu_with_ended(pid: int) -> float:
    """Of a process, its children, and those of them that have ended."""
    times = psutil.Process(pid).cpu_times()
    seconds = float(times.children_user + times.children_system)
    for one in family(pid):
        with suppress(psutil.NoSuchProcess):  # it ends just now
            seconds += _cpu(one)
    return seconds


def _reset_high_water(processes: Iterable[psutil.Process]) -> bool:
    try:
        for one in processes:
            Path(f"/proc/{one.pid}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_water(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
