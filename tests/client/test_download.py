"""`Client.download` against a real HTTP server.

Cases: a file and a stream; an older version by id; an empty artifact; a connection cut on the way, and one
cut so often that the download is given up and taken up by the next call; the same where a store gives the
bytes; bytes that are not those announced; a newer version that comes in between; two downloads of one target,
and a file system without locks; an artifact that is not there; targets that are a fifo, a raw stream, a link,
a file with a mode of its own, or have a long name.
"""

import errno
import fcntl
import hashlib
import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from offload.client import (
    Artifact,
    Client,
    ClientError,
    DamagedDownloadError,
    MissingError,
    OutOfReachError,
    StrangeAnswerError,
)

RUN = "agents/one"
CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def stored(client: Client) -> Artifact:
    return client.put(RUN, "dir/a.bin", CONTENT)


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


@pytest.mark.usefixtures("stored")
def test_a_file_is_written_whole(client: Client, tmp_path: Path) -> None:
    moves = []
    content = client.download(
        RUN, "dir/a.bin", tmp_path / "a.bin", progress=lambda done, total: moves.append((done, total))
    )
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert content.sha256 == hashlib.sha256(CONTENT).digest()
    assert content.size_bytes == len(CONTENT)
    assert moves[-1] == (len(CONTENT), len(CONTENT))
    assert parts(tmp_path) == []


@pytest.mark.usefixtures("stored")
def test_a_stream_gets_the_bytes(client: Client) -> None:
    target = io.BytesIO()
    client.download(RUN, "dir/a.bin", target)
    assert target.getvalue() == CONTENT


def test_an_older_version_is_fetched_by_its_id(client: Client, stored: Artifact) -> None:
    client.put(RUN, "dir/a.bin", b"newer")
    target = io.BytesIO()
    client.download(RUN, "dir/a.bin", target, version=stored.id)
    assert target.getvalue() == CONTENT


def test_an_empty_artifact_is_an_empty_file(client: Client, tmp_path: Path) -> None:
    client.put(RUN, "empty", b"")
    client.download(RUN, "empty", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""
    assert parts(tmp_path) == []


@pytest.mark.parametrize("to", ["file", "stream"])
@pytest.mark.usefixtures("stored")
def test_a_cut_connection_is_resumed_where_it_ended(
    server: Any, client: Client, trouble: Any, tmp_path: Path, to: str
) -> None:
    server.troubles = [trouble(cut_after=100_000), trouble(cut_after=200_000)]
    target = tmp_path / "a.bin" if to == "file" else io.BytesIO()
    client.download(RUN, "dir/a.bin", target)
    got = target.read_bytes() if to == "file" else target.getvalue()
    assert got == CONTENT
    assert [seen.headers.get("range") for seen in server.seen[1:]] == [None, "bytes=100000-", "bytes=300000-"]


@pytest.mark.parametrize("to", ["file", "stream"])
@pytest.mark.usefixtures("stored")
def test_what_a_store_gives_is_resumed_where_it_ended(
    server: Any, client: Client, trouble: Any, tmp_path: Path, to: str
) -> None:
    server.redirects, server.troubles = True, [None, trouble(cut_after=100_000)]
    target, moves = tmp_path / "a.bin" if to == "file" else io.BytesIO(), []
    client.download(RUN, "dir/a.bin", target, progress=lambda taken, _: moves.append(taken))
    assert moves == sorted(moves)
    got = target.read_bytes() if to == "file" else target.getvalue()
    assert got == CONTENT
    assert [seen.headers.get("range") for seen in server.seen[1:]] == [None, None] + ["bytes=100000-"] * 2


@pytest.mark.usefixtures("stored")
def test_the_next_call_goes_on_where_the_last_gave_up(server: Any, trouble: Any, tmp_path: Path) -> None:
    server.troubles = [trouble(cut_after=100_000)]
    with Client(server.url, retry_for=0) as impatient, pytest.raises(OutOfReachError):
        impatient.download(RUN, "dir/a.bin", tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()
    assert len(parts(tmp_path)) == 1
    with Client(server.url) as client:
        client.download(RUN, "dir/a.bin", tmp_path / "a.bin")
    assert server.seen[-1].headers["range"] == "bytes=100000-"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert parts(tmp_path) == []


@pytest.mark.usefixtures("stored")
def test_wrong_bytes_are_not_written(server: Any, client: Client, trouble: Any, tmp_path: Path) -> None:
    server.troubles = [trouble(corrupt=True)]
    (tmp_path / "a.bin").write_bytes(b"before")
    with pytest.raises(DamagedDownloadError):
        client.download(RUN, "dir/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"before"
    assert parts(tmp_path) == []


def test_a_damaged_part_of_an_earlier_call_is_found_out_and_removed(
    client: Client, stored: Artifact, tmp_path: Path
) -> None:
    (tmp_path / f".a.bin.{stored.sha256[:16]}.part").write_bytes(b"not the beginning")
    with pytest.raises(DamagedDownloadError):
        client.download(RUN, "dir/a.bin", tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []
    client.download(RUN, "dir/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("newer", [CONTENT[::-1], b"shorter than what is there"])
@pytest.mark.parametrize("redirects", [False, True])
@pytest.mark.usefixtures("stored")
def test_a_newer_version_in_between_is_not_mixed_in(
    server: Any, trouble: Any, tmp_path: Path, redirects: bool, newer: bytes
) -> None:
    server.redirects = redirects
    server.troubles = [None, trouble(cut_after=100_000)] if redirects else [trouble(cut_after=100_000)]
    notices = []

    def store_newer(line: str) -> None:
        notices.append(line)
        with Client(server.url) as other:
            other.put(RUN, "dir/a.bin", newer)

    with (
        Client(server.url, notice=store_newer) as watched,
        pytest.raises(DamagedDownloadError, match="newer"),
    ):
        watched.download(RUN, "dir/a.bin", tmp_path / "a.bin")
    assert len(notices) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("stored")
def test_a_busy_server_is_asked_again(server: Any, client: Client, trouble: Any) -> None:
    server.troubles = [trouble(503), trouble(429)]
    target = io.BytesIO()
    client.download(RUN, "dir/a.bin", target)
    assert target.getvalue() == CONTENT


def test_two_downloads_do_not_write_one_part(client: Client, stored: Artifact, tmp_path: Path) -> None:
    part = tmp_path / f".a.bin.{stored.sha256[:16]}.part"
    with part.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ClientError, match="another download"):
            client.download(RUN, "dir/a.bin", tmp_path / "a.bin")
    assert part.exists()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.usefixtures("stored")
def test_a_file_system_without_locks_is_written_to(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    client.download(RUN, "dir/a.bin", tmp_path / "a.bin")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("a.bin", CONTENT)]


def test_what_is_not_there_is_missing_and_leaves_no_file(client: Client, tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        client.download(RUN, "none", tmp_path / "none")
    assert caught.value.problem.kind == "artifact-not-found"
    assert list(tmp_path.iterdir()) == []


def test_an_answer_without_a_digest_is_not_trusted(server: Any, client: Client, trouble: Any) -> None:
    server.troubles = [trouble(200)]
    with pytest.raises(StrangeAnswerError):
        client.download(RUN, "a", io.BytesIO())


@pytest.mark.parametrize("way", ["itself", "a link"])
@pytest.mark.usefixtures("stored")
def test_a_fifo_is_written_into_and_stays(client: Client, tmp_path: Path, way: str) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()), daemon=True)
    reader.start()
    client.download(RUN, "dir/a.bin", fifo if way == "itself" else link)
    reader.join(10)
    assert got == [CONTENT]
    assert fifo.is_fifo()
    assert link.is_symlink()
    assert parts(tmp_path) == []


def test_a_fifo_is_not_opened_for_what_is_not_there(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MissingError):
        client.download(RUN, "none", tmp_path / "fifo")


@pytest.mark.usefixtures("stored")
def test_an_open_pipe_is_written_into_by_its_name_under_proc(client: Client) -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as reads:
        with os.fdopen(theirs, "wb") as writes:
            got = []
            reader = threading.Thread(target=lambda: got.append(reads.read()), daemon=True)
            reader.start()
            client.download(RUN, "dir/a.bin", f"/proc/self/fd/{writes.fileno()}")
        reader.join(10)
    assert got == [CONTENT]


@pytest.mark.usefixtures("stored")
def test_a_raw_stream_that_takes_a_part_or_nothing_gets_all(client: Client) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    got = []

    def read() -> None:
        time.sleep(0.2)  # meanwhile the pipe is full
        got.append(reads.read())

    with os.fdopen(ours, "rb") as reads:
        with os.fdopen(theirs, "wb", buffering=0) as writes:
            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            client.download(RUN, "dir/a.bin", writes)
        reader.join(10)
    assert got == [CONTENT]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.usefixtures("stored")
def test_a_link_stays_and_what_it_leads_to_is_written(client: Client, tmp_path: Path, there: bool) -> None:
    (tmp_path / "deep").mkdir()
    file, link = tmp_path / "deep" / "file", tmp_path / "link"
    if there:
        file.write_bytes(b"before")
    link.symlink_to("deep/file")
    client.download(RUN, "dir/a.bin", link)
    assert link.is_symlink()
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o755])
@pytest.mark.usefixtures("stored")
def test_a_file_that_is_replaced_keeps_its_mode(
    server: Any, client: Client, trouble: Any, tmp_path: Path, mode: int
) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"before")
    file.chmod(mode)
    server.troubles = [trouble(cut_after=1000)]
    with Client(server.url, retry_for=0) as impatient, pytest.raises(OutOfReachError):
        impatient.download(RUN, "dir/a.bin", file)
    (part,) = parts(tmp_path)
    assert (tmp_path / part).stat().st_mode & 0o777 == 0o600
    client.download(RUN, "dir/a.bin", file)
    assert file.read_bytes() == CONTENT
    assert file.stat().st_mode & 0o777 == mode


def test_a_long_name_that_is_not_ascii_is_written(client: Client, tmp_path: Path) -> None:
    name = "\u00e9" * 120
    client.put(RUN, name, b"x")
    client.download(RUN, name, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"x"
