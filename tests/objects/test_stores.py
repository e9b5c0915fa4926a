"""The embedded stores.

- SeaweedFS: what was acknowledged is there after a stop and after a kill, at the same address, same keys
- keys of another store in the environment do no harm
- it listens on the loopback address only, ends with its owner, leaves no process and no socket file
- a taken port, a folder that cannot be, a missing package: a ConfigError that says so
- moto serves at once and ends
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from offload.dev import stores
from offload.dev.stores import Moto, SeaweedFS, StoreAddress
from offload.errors import ConfigError
from offload.objects.s3 import S3Objects

OWNER = """
import sys, time
from pathlib import Path
from offload.dev.stores import SeaweedFS
store = SeaweedFS(Path(sys.argv[1]))
store.start()
print(store.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def data(tmp_path: Path, seaweedfs: StoreAddress) -> Path:  # noqa: ARG001 - skips where there is no SeaweedFS
    return tmp_path / "seaweedfs"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("in_order", [True, False])
def test_what_was_acknowledged_is_there_after_a_restart(data: Path, in_order: bool) -> None:
    store = SeaweedFS(data)
    first = store.start()
    pid = store.pid
    written(first, "log", b"acknowledged")
    began = time.monotonic()
    store.stop(keep_data=in_order)

    assert time.monotonic() - began < 8
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not left_with(data)
    with SeaweedFS(data) as second:
        assert second == first
        assert read(second, "log") == b"acknowledged"
    port = first.endpoint_url.rpartition(":")[2]
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{port}.sock"))


def test_keys_of_another_store_in_the_environment_are_not_its_own(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "offload")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another store's")
    with SeaweedFS(data) as address:
        written(address, "log", b"x")


def test_it_listens_on_the_loopback_address_only(data: Path) -> None:
    store = SeaweedFS(data)
    store.start()
    try:
        listening = psutil.Process(store.pid).net_connections(kind="inet")
        assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
    finally:
        store.stop(keep_data=False)


def test_it_ends_with_an_owner_that_is_killed(data: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data)], stdout=subprocess.PIPE, cwd=Path(stores.__file__).parents[2]
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()

    assert until(lambda: not left_with(data), 10), "the server outlived its owner"
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    again = SeaweedFS(data)
    again.start()
    again.stop(keep_data=False)


def test_a_server_that_dies_at_its_start_is_named_with_its_last_words(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SeaweedFS, "_arguments", lambda _self: ["no-such-command"])

    with pytest.raises(ConfigError, match=r"weed\.log"):
        SeaweedFS(data).start()
    assert not left_with(data)


@pytest.mark.parametrize(
    "kind", [lambda port, data: SeaweedFS(data, port=port), lambda port, _: Moto(port=port)]
)
def test_a_taken_port_is_named(
    taken_port: int, data: Path, kind: Callable[[int, Path], Moto | SeaweedFS]
) -> None:
    with pytest.raises(ConfigError, match=f"port {taken_port} "):
        kind(taken_port, data).start()


def test_a_folder_that_cannot_be_is_named(data: Path) -> None:
    data.write_text("a file")

    with pytest.raises(ConfigError, match=str(data)):
        SeaweedFS(data).start()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigError, match="not installed"):
        SeaweedFS(tmp_path / "data").start()


def test_moto_serves_until_it_is_stopped(moto: StoreAddress) -> None:
    with Moto(bucket="another") as address:
        assert address.endpoint_url != moto.endpoint_url
        written(address, "log", b"bytes")
        assert read(address, "log") == b"bytes"

    with pytest.raises(ConnectionRefusedError), socket.socket() as gone:
        gone.connect(("127.0.0.1", int(address.endpoint_url.rpartition(":")[2])))


def written(address: StoreAddress, key: str, data: bytes) -> None:
    objects = S3Objects(address.connection(), threads=1)
    objects.write(key, data)
    objects.close()


def read(address: StoreAddress, key: str) -> bytes:
    objects = S3Objects(address.connection(), threads=1)
    try:
        return objects.read(key)
    finally:
        objects.close()


def left_with(data: Path) -> list[int]:
    """Processes that still name the folder."""
    mine = os.getpid()
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if process.pid != mine
        and process.info["status"] != psutil.STATUS_ZOMBIE
        and any(f"-dir={data}" in argument for argument in process.info["cmdline"] or ())
    ]


def until(met: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
