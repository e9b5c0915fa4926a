"""MLflow as the peer: in a virtual environment of its own, as requirements/mlflow.lock pins it."""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

from bench.cache import cached
from offload.dev.stores import StoreAddress
from tests.programs import ROOT

LOCK = ROOT / "requirements" / "mlflow.lock"


class Server:
    """One `mlflow server` on loopback."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.folder, self.pid = port, folder, 0

    @property
    def url(self) -> str:
        """Where the proxy takes artifacts: what it calls their path follows."""
        return f"http://127.0.0.1:{self.port}/api/2.0/mlflow-artifacts/artifacts"

    def command(self, store: StoreAddress | None, options: Sequence[str]) -> list[str]:
        """What starts it; without a store it keeps artifacts where it does by default."""
        where = ["--artifacts-destination", f"s3://{store.bucket}/mlflow"] if store else []
        program = str(installed() / "bin" / "mlflow")
        return [program, "server", "--host", "127.0.0.1", "--port", str(self.port), *where, *options]

    def environment(self, store: StoreAddress | None) -> dict[str, str]:
        """The store's address and keys; no word to anyone else."""
        quiet = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
        to_store = (
            {
                "MLFLOW_S3_ENDPOINT_URL": store.endpoint_url,
                "AWS_ACCESS_KEY_ID": store.access_key,
                "AWS_SECRET_ACCESS_KEY": store.secret_key,
                "AWS_DEFAULT_REGION": store.region,
            }
            if store
            else {}
        )
        path = f"{installed() / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.folder), "TMPDIR": str(self.folder), **quiet, **to_store}

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5).is_success
        except httpx.TransportError:
            return False


def installed() -> Path:
    """The virtual environment; made once for each lock file and Python, which takes minutes."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pins = [line for line in LOCK.read_text().splitlines() if not line.lstrip().startswith("#")]
    digest = hashlib.sha256("\n".join(pins).encode()).hexdigest()[:12]
    folder = cached(f"mlflow-{digest}-python{python}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".ready").exists():
            print("installing MLflow, the peer, into a virtual environment of its own, once", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip: list[str | Path] = [
                folder / "bin" / "python",
                "-m",
                "pip",
                "--disable-pip-version-check",
                "--quiet",
            ]
            subprocess.run([*pip, "install", "--require-hashes", "--requirement", LOCK], check=True)
            (folder / ".ready").touch()
    return folder


def version() -> str:
    """As the lock file says."""
    pins = (line.partition("==") for line in LOCK.read_text().splitlines())
    return next(pinned.split()[0] for name, _, pinned in pins if name == "mlflow")
