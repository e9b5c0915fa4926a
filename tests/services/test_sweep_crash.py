"""A sweep that is killed (SIGKILL) at every boundary, on SQLite and an S3 server, and then started again.

Cases: right before each commit and right after it; in the middle of each deletion of bytes and after it; with
a plan that is carried out at once, and with one that was parked and confirmed. At each: what is stored has
its bytes; bytes are gone only of tombstones whose pointer was gone before. After the next start: exactly what
the rules end is gone, with its bytes; everything else is there.
"""

import asyncio
import multiprocessing
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from offload.dev.stores import Moto
from offload.domain.artifact import Location, NewArtifact, State
from offload.domain.retention import KeepFor, KeepForever, KeepLast, Match, Policy, Rule
from offload.domain.run import SeenRun
from offload.index import Index, clock, migrate, runs, schema
from offload.index.recording import record_all
from offload.objects.s3 import S3Objects
from offload.objects.s3_client import S3Connection
from tests.services.crashing import publish, sweep_and_publish

POLICY = Policy(
    (
        Rule("old-versions", Match(name="report.json"), KeepLast(1)),
        Rule("keepsakes", Match(name="keep*"), KeepForever()),
    ),
    KeepFor(timedelta(days=1)),
)


@pytest.fixture(scope="module")
def store() -> Iterator[S3Connection]:
    try:
        version("moto")
    except PackageNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("moto is not installed")
    with Moto() as address:
        yield address.connection()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crash") / "migrated.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@dataclass
class Scene:
    """One index and one corner of the store."""

    url: str
    index: Index
    objects: S3Objects
    prefix: str
    now: datetime
    wanted: dict[UUID, State]
    """What is to become of each artifact."""

    def problems(self, *, at_the_end: bool) -> list[str]:
        """What breaks a promise, as the index and the store have it."""
        keys = {info.location.key for info in self.objects.list(self.prefix)}
        a, r = schema.artifacts.c, schema.runs.c
        columns = (a.id, a.key, a.state, a.ended_revision, a.erased_at, r.published_revision, r.deleted_at)
        with self.index.read() as tx:
            rows = tx.execute(sa.select(*columns).join(schema.runs, r.uid == a.run_uid)).all()
        found = [f"{key}: no row" for key in keys - {row.key for row in rows}]
        for row in rows:
            stored, has_bytes = row.state == State.STORED.value, row.key in keys
            wanted = self.wanted[row.id]
            linked = row.deleted_at is None and not stored and row.published_revision < row.ended_revision
            for problem, there in {
                "lost": stored and not has_bytes,
                "went before its pointer": not has_bytes and linked,
                "left behind": row.erased_at is not None and has_bytes,
                "ended against the rules": not stored and row.state != wanted.value,
                "was kept": at_the_end and stored and wanted is not State.STORED,
                "was not erased": at_the_end and not stored and row.erased_at is None,
            }.items():
                found += [f"{row.key}: {problem}"] * there
        return found if len(rows) == len(self.wanted) else [*found, "rows are missing"]


@pytest.fixture
def scene(tables: Path, tmp_path: Path, store: S3Connection) -> "Iterator[Callable[[int], Scene]]":
    """Makes scenes in which so many artifacts of a deleted run end, and some others."""
    objects = S3Objects(store, threads=1)
    indices: list[Index] = []

    def make(extra: int) -> Scene:
        path = tmp_path / f"{len(indices)}.db"
        shutil.copy(tables, path)
        index = Index.connect(f"sqlite:///{path}")
        indices.append(index)
        return _fill(Scene(f"sqlite:///{path}", index, objects, f"{uuid4()}/", datetime.now(UTC), {}), extra)

    yield make
    objects.close()
    for index in indices:
        index.close()


def _fill(scene: Scene, extra: int) -> Scene:
    with scene.index.begin() as tx:
        for name in ("alive", "gone"):
            runs.observe(tx, SeenRun(f"uid-{name}", "agents", name, datetime(2026, 1, 1, tzinfo=UTC)))
    ends = [("alive", "a.log"), ("alive", "b.log"), ("gone", "c.log"), ("gone", "d.log")]
    ends += [("alive", "report.json")] * 2 + [("gone", f"many-{n}") for n in range(extra)]
    stays = [("alive", "report.json"), ("alive", "keep.bin"), ("gone", "keep.bin")]
    artifacts = asyncio.run(_put(scene.objects, scene.prefix, ends + stays))
    with scene.index.begin() as tx:
        record_all(tx, artifacts, grace=timedelta(hours=1), again=False)
        runs.mark_deleted(tx, "uid-gone")
        scene.now = clock.now(tx) + timedelta(days=2)
    publish(scene.index)
    fates = [State.EXPIRED] * len(ends) + [State.STORED] * len(stays)
    scene.wanted = {artifact.id: fate for artifact, fate in zip(artifacts, fates, strict=True)}
    return scene


async def _put(objects: S3Objects, prefix: str, names: list[tuple[str, str]]) -> list[NewArtifact]:
    return [await _put_one(objects, prefix, run, name) for run, name in names]


async def _put_one(objects: S3Objects, prefix: str, run: str, name: str) -> NewArtifact:
    artifact_id = uuid4()

    async def source() -> AsyncIterator[bytes]:
        yield artifact_id.bytes

    location: Location = await objects.put(
        f"{prefix}{run}/{artifact_id}/{name}", source(), size_bytes=16, content_type="text/plain", metadata={}
    )
    return NewArtifact(
        id=artifact_id,
        run_uid=f"uid-{run}",
        name=name,
        type="log",
        content_type="text/plain",
        size_bytes=16,
        sha256=sha256(artifact_id.bytes).digest(),
        location=location,
        stored_since=datetime.now(UTC),
    )


def _killed_at(scene: Scene, store: S3Connection, fatal: int) -> bool:
    """Sweep in a process of its own that dies at this boundary; False where it ended before."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["tests.services.crashing"])
    process = forking.Process(target=sweep_and_publish, args=(scene.url, store, POLICY, scene.now, fatal))
    process.start()
    process.join(60)
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def _survives(scene: Scene, store: S3Connection, fatal: int) -> bool:
    """Kill, look, start again, look; False where there was no such boundary."""
    killed = _killed_at(scene, store, fatal)
    assert scene.problems(at_the_end=not killed) == [], f"at boundary {fatal}"
    if killed:
        sweep_and_publish(scene.url, store, POLICY, scene.now, fatal=0)
        assert scene.problems(at_the_end=True) == [], f"after a restart from boundary {fatal}"
    return killed


def test_a_sweep_killed_anywhere_loses_nothing_and_leaves_nothing(
    scene: Callable[[int], Scene], store: S3Connection
) -> None:
    boundaries = next(n for n in range(1, 1000) if not _survives(scene(0), store, n))
    assert boundaries > 20


# Of some 150 boundaries, most of them alike: where it parks and is confirmed, and two later ones.
@pytest.mark.parametrize("fatal", [3, 4, 5, 6, 23, 89])
def test_a_confirmed_sweep_killed_anywhere_loses_nothing_and_leaves_nothing(
    scene: Callable[[int], Scene], store: S3Connection, fatal: int
) -> None:
    assert _survives(scene(98), store, fatal)
