"""What `offload dev` says where it cannot start beside another one: the folder, the metrics port."""

import fcntl
import socket
from pathlib import Path

import pytest

from offload.dev.embedded import surroundings
from offload.errors import ConfigError
from offload.metrics_server import serving_metrics


def test_a_folder_that_another_one_uses_is_named(tmp_path: Path) -> None:
    with (tmp_path / "dev.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.raises(ConfigError, match=f"another `offload dev` uses the folder {tmp_path}"),
            surroundings(tmp_path, kube_port=0, store="moto"),
        ):
            pass


def test_a_metrics_port_that_another_one_uses_is_named_with_its_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"127.0.0.1:{port}: .*; OFFLOAD_METRICS_PORT"),
            serving_metrics("127.0.0.1", port),
        ):
            pass
