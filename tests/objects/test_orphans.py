"""The orphan cleaner, on a real index (SQLite) and stores (memory, moto, SeaweedFS).

- old objects without a row go, those with a row, young ones and strangers stay
- an erased artifact's object that is there again is an orphan; a lost one's is not
- what unknown runs have stays, and so does what lies beside a marker further down: keys of a longer prefix
  look like ours
- what the doctor left goes
- abandoned multipart uploads are aborted; young and strange ones stay, and those of a longer prefix
- a prefix is claimed once, also by two processes at once; a missing or another index's marker stops the pass
- an empty prefix where the index has artifacts is claimed by an operator's word alone; one that another
  index marks while they are looked for is that index's
- more than 100 orphans and 20 % of what is stored stop the pass, unless an operator says so
- what was made before the index was kept up without a gap stays, unless an operator says so: an index that
  was restored has forgotten it, and a new one never knew it; what the index knows to be erased goes
- the command tells what is in doubt and why
- a row that comes between the listing and the deletion saves its object
"""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from offload.cli.main import app
from offload.dev.stores import StoreAddress
from offload.domain.artifact import Location, NewArtifact, State
from offload.domain.keys import MARKER, marker_key, object_key, probe_key
from offload.domain.run import SeenRun
from offload.index import Index, artifacts, connecting, leases, migrate, runs, sweeping
from offload.index.recording import record_all
from offload.objects.interface import ObjectInfo, Objects, OpenUpload
from offload.objects.memory import MemoryObjects
from offload.objects.s3 import S3Objects
from offload.services.continuity import note_continuity
from offload.services.orphans import Claim, claim_prefix, clean_orphans
from offload.wiring import adapters
from tests.publishing import keep_up

GRACE = timedelta(hours=1)
LATER = datetime.now(UTC) + timedelta(hours=2)
RUN = "0ff10ad0-0000-4000-8000-000000000001"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "index.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def index(database: Path) -> Iterator[Index]:
    """An index that has been kept up for as long as anything was stored."""
    index = Index.connect(f"sqlite:///{database}")
    with index.begin() as tx:
        runs.observe(tx, SeenRun(RUN, "agents", "run", datetime.now(UTC)))
    keep_up(index, since=datetime.now(UTC) - GRACE)
    yield index
    index.close()


@pytest.fixture
def prefix() -> str:
    return f"clean/{uuid4()}"


@pytest.fixture
def stored(index: Index, objects: Objects, prefix: str) -> Callable[..., UUID]:
    """Stores an object, with a row unless it is to be an orphan."""

    def store(name: str, *, row: bool = True) -> UUID:
        artifact_id = uuid4()
        key = object_key(prefix, "agents", "run", RUN, artifact_id, name)
        objects.write(key, b"bytes")
        if row:
            record(index, artifact_id, Location(objects.bucket, key), name)
        return artifact_id

    return store


def test_only_old_objects_without_a_row_go(
    index: Index, objects: Objects, prefix: str, stored: Callable[..., UUID]
) -> None:
    assert claim_prefix(index, objects, prefix=prefix) is Claim.OURS
    kept = stored("kept.log")
    orphan = stored("dir/orphan.log", row=False)
    objects.write(f"{prefix}/README", b"an operator's note")
    objects.write(f"{prefix}-beside/x", b"not ours")

    young = clean_orphans(index, objects, prefix=prefix, grace=GRACE)
    assert (young.seen, young.found, young.removed) == (4, 0, 0)
    assert ids_under(objects, prefix) == {str(kept), str(orphan)}

    report = clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER)
    assert report.stopped_because is None
    assert (report.found, report.removed, report.removed_bytes) == (1, 1, 5)
    assert ids_under(objects, prefix) == {str(kept)}
    assert objects.read(f"{prefix}/README") == b"an operator's note"
    assert objects.read(f"{prefix}-beside/x") == b"not ours"
    assert claim_prefix(index, objects, prefix=prefix) is Claim.OURS


def test_an_erased_object_that_is_back_goes_and_a_lost_one_stays(
    index: Index, objects: Objects, prefix: str, stored: Callable[..., UUID]
) -> None:
    claim_prefix(index, objects, prefix=prefix)
    erased, lost, ended = stored("erased"), stored("lost"), stored("ended")
    with index.begin() as tx:
        sweeping.tombstone(tx, [erased, ended], state=State.EXPIRED, by="rule:x")
        artifacts.mark_lost(tx, lost)
        sweeping.erased(tx, [erased])

    assert clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER).removed == 1
    assert ids_under(objects, prefix) == {str(lost), str(ended)}


@pytest.mark.parametrize(("outer", "inner"), [("", "team"), ("x", "x/y"), ("", "x/y"), ("", f"a/b/c/{RUN}")])
@pytest.mark.parametrize("marked", [True, False])
def test_what_a_longer_prefix_holds_is_no_orphan(
    index: Index, outer: str, inner: str, *, marked: bool
) -> None:
    """Of this index, which had the other prefix for a while, and of another one in the same bucket."""
    objects = MemoryObjects()
    assert claim_prefix(index, objects, prefix=outer) is Claim.OURS
    if marked:
        objects.write(marker_key(inner), b"another index")
    own = object_key(inner, "agents", "run", RUN, uuid4(), "log")
    objects.write(own, b"bytes")
    record(index, UUID(own.split("/")[-2]), Location(objects.bucket, own), "log")
    anothers = object_key(inner, "agents", str(uuid4()), str(uuid4()), uuid4(), f"{uuid4()}/{uuid4()}/log")
    objects.write(anothers, b"bytes")
    orphan = object_key(outer, "agents", "run", RUN, uuid4(), "log")
    objects.write(orphan, b"bytes")

    report = clean_orphans(index, objects, prefix=outer, grace=GRACE, now=LATER)

    assert (report.found, report.removed) == (1, 1)
    assert report.left_alone == ((inner,) if marked else ())
    assert keys_in(objects) == {marker_key(outer), own, anothers} | ({marker_key(inner)} if marked else set())


def test_a_marker_further_down_shields_even_what_has_the_names_of_a_run(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of the longer prefix can be named like another run's uid."""
    objects = MemoryObjects()
    claim_prefix(index, objects, prefix="")
    with index.begin() as tx:
        runs.observe(tx, SeenRun("uid", "team", "agents", datetime.now(UTC)))
    objects.write(marker_key("team"), b"another index")
    theirs = object_key("team", "agents", "uid", str(uuid4()), uuid4(), "log")
    objects.write(theirs, b"bytes")
    upload = OpenUpload(f"{theirs}-2", "1", datetime.now(UTC))
    monkeypatch.setattr(type(objects), "open_uploads", lambda *_: iter([upload]))
    aborted: list[OpenUpload] = []
    monkeypatch.setattr(type(objects), "abort_upload", lambda _self, one: aborted.append(one))

    report = clean_orphans(index, objects, prefix="", grace=GRACE, now=LATER, beyond_guard=True)

    assert (report.found, report.removed, report.aborted_uploads) == (0, 0, 0)
    assert report.left_alone == ("team",)
    assert not aborted
    assert theirs in keys_in(objects)


def test_what_an_unknown_run_has_stays_and_what_the_doctor_left_goes(
    index: Index, objects: Objects, prefix: str
) -> None:
    claim_prefix(index, objects, prefix=prefix)
    unknown = [
        object_key(prefix, *run, uuid4(), "log")
        for run in (
            ("agents", "run", str(uuid4())),
            ("agents", "other", RUN),
            ("elsewhere", "run", RUN),
        )
    ]
    for key in (*unknown, probe_key(prefix, uuid4())):
        objects.write(key, b"bytes")

    assert clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER).removed == 1
    assert keys_in(objects, prefix) == {marker_key(prefix), *unknown}


@pytest.mark.parametrize("name", [MARKER, f"dir/{MARKER}"])
def test_an_orphan_that_is_named_like_a_marker_goes(
    index: Index, objects: Objects, prefix: str, stored: Callable[..., UUID], name: str
) -> None:
    claim_prefix(index, objects, prefix=prefix)
    stored(name, row=False)

    report = clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER)

    assert (report.removed, report.left_alone) == (1, ())


@pytest.mark.parametrize("address", ["seaweedfs"], indirect=True)  # moto dates all uploads 2010
def test_abandoned_uploads_are_aborted(index: Index, address: StoreAddress, prefix: str, client: Any) -> None:
    objects = S3Objects(address.connection())
    claim_prefix(index, objects, prefix=prefix)
    ours = object_key(prefix, "agents", "run", RUN, uuid4(), "log")
    strange = [
        f"{prefix}/strange",
        object_key(f"{prefix}/team", "agents", "run", str(uuid4()), uuid4(), "log"),
    ]
    for key in (ours, *strange):
        client.create_multipart_upload(Bucket=objects.bucket, Key=key)

    assert clean_orphans(index, objects, prefix=prefix, grace=GRACE).aborted_uploads == 0
    assert clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER).aborted_uploads == 1
    assert {upload.key for upload in objects.open_uploads(prefix)} == set(strange)
    objects.close()


@pytest.mark.parametrize("marker", [None, b"another index", b""])
def test_a_missing_or_different_marker_stops_the_pass(
    index: Index, objects: Objects, prefix: str, stored: Callable[..., UUID], marker: bytes | None
) -> None:
    orphan = stored("orphan", row=False)
    if marker is not None:
        objects.write(marker_key(prefix), marker)

    report = clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER)

    assert report.stopped_because is not None
    assert (Claim.UNMARKED if marker is None else Claim.FOREIGN) in report.stopped_because
    assert ids_under(objects, prefix) == {str(orphan)}


def test_a_prefix_in_use_is_claimed_by_an_operators_word_alone(
    index: Index, objects: Objects, prefix: str, stored: Callable[..., UUID]
) -> None:
    stored("somebody's", row=False)
    assert claim_prefix(index, objects, prefix=prefix) is Claim.UNMARKED
    objects.write(marker_key(prefix), b"another index")
    assert claim_prefix(index, objects, prefix=prefix) is Claim.FOREIGN

    assert claim_prefix(index, objects, prefix=prefix, anyway=True) is Claim.OURS
    assert clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER).removed == 1


@pytest.mark.parametrize("objects", ["memory"], indirect=True)
def test_an_empty_prefix_where_the_index_has_artifacts_is_claimed_by_an_operators_word_alone(
    index: Index, objects: Objects, prefix: str
) -> None:
    artifact_id = uuid4()
    record(index, artifact_id, Location(objects.bucket, f"{prefix}/agents/run/x"), "lost with its disk")

    assert claim_prefix(index, objects, prefix=prefix) is Claim.UNMARKED
    assert keys_in(objects, prefix) == set()
    assert claim_prefix(index, objects, prefix=f"{prefix}-beside") is Claim.OURS
    assert claim_prefix(index, MemoryObjects(bucket="another"), prefix=prefix) is Claim.OURS

    assert claim_prefix(index, objects, prefix=prefix, anyway=True) is Claim.OURS


@pytest.mark.parametrize("objects", ["memory"], indirect=True)
def test_a_prefix_that_another_index_marks_while_rows_are_looked_at_is_its_own(
    index: Index, objects: Objects, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def marked_meanwhile(*_: Any) -> bool:
        objects.write(marker_key(prefix), b"another index")
        return False

    monkeypatch.setattr(artifacts, "are_stored_under", marked_meanwhile)
    assert claim_prefix(index, objects, prefix=prefix) is Claim.FOREIGN
    assert objects.read(marker_key(prefix)) == b"another index"


@pytest.mark.parametrize("objects", ["memory"], indirect=True)
def test_an_empty_prefix_where_all_has_ended_is_claimed(index: Index, objects: Objects, prefix: str) -> None:
    artifact_id = uuid4()
    record(index, artifact_id, Location(objects.bucket, f"{prefix}/agents/run/x"), "ended")
    with index.begin() as tx:
        sweeping.tombstone(tx, [artifact_id], state=State.EXPIRED, by="rule:x")

    assert claim_prefix(index, objects, prefix=prefix) is Claim.OURS


@pytest.mark.parametrize(("rows", "orphans", "goes_on"), [(0, 100, True), (0, 101, False), (505, 101, True)])
@pytest.mark.parametrize("objects", ["memory"], indirect=True)
def test_implausibly_many_orphans_stop_the_pass(
    index: Index,
    objects: Objects,
    prefix: str,
    stored: Callable[..., UUID],
    rows: int,
    orphans: int,
    goes_on: bool,
) -> None:
    claim_prefix(index, objects, prefix=prefix)
    for number in range(rows):
        stored(f"kept-{number}")
    for number in range(orphans):
        stored(f"orphan-{number}", row=False)

    report = clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER)

    assert (report.stopped_because is None) is goes_on
    assert report.removed == (orphans if goes_on else 0)
    assert len(ids_under(objects, prefix)) == rows + orphans - report.removed
    clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER, beyond_guard=True)
    assert len(ids_under(objects, prefix)) == rows


@pytest.mark.parametrize("objects", ["memory"], indirect=True)
def test_what_a_restored_index_has_forgotten_stays(
    index: Index,
    database: Path,
    objects: Objects,
    prefix: str,
    stored: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim_prefix(index, objects, prefix=prefix)
    known = stored("known.log")
    copy(database, database.with_name("backup.db"))
    forgotten = {str(stored(f"{number}.log")) for number in range(5)}
    index.close()
    copy(database.with_name("backup.db"), database)

    now = connecting._this_hosts_clock
    monkeypatch.setattr(connecting, "_this_hosts_clock", lambda seconds: now(seconds + 3600))
    restored = Index.connect(f"sqlite:///{database}")
    before = clean_orphans(restored, objects, prefix=prefix, grace=GRACE, now=LATER)
    note_continuity(restored)
    after = clean_orphans(restored, objects, prefix=prefix, grace=GRACE, now=LATER)

    for report in (before, after):
        assert (report.found, report.removed, report.stopped_because) == (0, 0, None)
        assert (report.in_doubt, report.in_doubt_bytes) == (5, 25)
    assert (before.unbroken_since is None, after.unbroken_since is None) == (True, False)
    assert ids_under(objects, prefix) == {str(known), *forgotten}

    clean_orphans(restored, objects, prefix=prefix, grace=GRACE, now=LATER, beyond_guard=True)
    assert ids_under(objects, prefix) == {str(known)}
    restored.close()


def test_what_was_made_before_the_index_was_kept_up_stays(
    index: Index, objects: Objects, prefix: str, stored: Callable[..., UUID]
) -> None:
    claim_prefix(index, objects, prefix=prefix)
    old, erased = stored("old", row=False), stored("erased")
    objects.write(probe_key(prefix, uuid4()), b"probe")
    with index.begin() as tx:
        sweeping.tombstone(tx, [erased], state=State.DELETED, by="token:x")
        sweeping.erased(tx, [erased])
    keep_up(index, since=datetime.now(UTC) + timedelta(minutes=1))

    report = clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER)

    assert (report.found, report.removed, report.in_doubt) == (2, 2, 1)
    assert ids_under(objects, prefix) == {str(old)}
    keep_up(index, since=datetime.now(UTC) - GRACE)
    assert clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER).removed == 1


@pytest.mark.parametrize("objects", ["memory"], indirect=True)
def test_what_another_index_left_stays_after_its_prefix_is_claimed(
    index: Index, objects: Objects, prefix: str, stored: Callable[..., UUID]
) -> None:
    """Its database is gone, and the new one follows the same runs."""
    objects.write(marker_key(prefix), b"the index that is gone")
    left = stored("left", row=False)
    keep_up(index, since=datetime.now(UTC))
    assert claim_prefix(index, objects, prefix=prefix, anyway=True) is Claim.OURS

    report = clean_orphans(index, objects, prefix=prefix, grace=GRACE, now=LATER)

    assert (report.removed, report.in_doubt) == (0, 1)
    assert ids_under(objects, prefix) == {str(left)}


@pytest.mark.parametrize("kept_up", [True, False])
def test_the_command_tells_what_is_in_doubt(
    index: Index, database: Path, monkeypatch: pytest.MonkeyPatch, *, kept_up: bool
) -> None:
    objects = MemoryObjects(clock=lambda: datetime.now(UTC) - 2 * GRACE)
    claim_prefix(index, objects, prefix="")
    objects.write(object_key("", "agents", "run", RUN, uuid4(), "log"), b"bytes")
    monkeypatch.setenv("OFFLOAD_DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.setenv("OFFLOAD_ORPHAN_GRACE", "1h")
    monkeypatch.setattr(adapters, "open_objects", lambda _settings: objects)
    if not kept_up:
        with index.begin() as tx:
            leases.keep_up(tx, "unbroken-since", lapse=-GRACE)

    told = CliRunner().invoke(app, ["orphans"])

    assert told.exit_code == 0
    assert "0 orphans (0 B), 0 removed" in told.stdout
    why = "since 20" if kept_up else "no controller"
    assert re.search(rf"left, in doubt: 1 objects without a row \(5 B\), .*{why}", told.stdout)
    told = CliRunner().invoke(app, ["orphans", "--beyond-guard"])
    assert "1 orphans (5 B), 1 removed" in told.stdout
    assert "in doubt" not in told.stdout


@pytest.mark.parametrize("objects", ["memory"], indirect=True)
def test_two_processes_that_claim_at_once_both_have_it(
    index: Index, objects: Objects, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = objects.list

    def marked_meanwhile(_objects: Objects, under: str) -> Iterator[ObjectInfo]:
        monkeypatch.undo()
        assert claim_prefix(index, objects, prefix=prefix) is Claim.OURS
        yield from listing(under)

    monkeypatch.setattr(type(objects), "list", marked_meanwhile)
    assert claim_prefix(index, objects, prefix=prefix) is Claim.OURS


def test_a_row_that_comes_during_the_pass_saves_its_object(
    index: Index, objects: Objects, prefix: str, stored: Callable[..., UUID]
) -> None:
    claim_prefix(index, objects, prefix=prefix)
    late = stored("late", row=False)
    stored("orphan", row=False)
    for number in range(1000):  # so that the listing goes on after the first look-up
        objects.write(f"{prefix}/strange-{number}", b"")

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(objects, name)

        def list(self, under: str) -> Iterator[ObjectInfo]:
            yield from objects.list(under)
            key = object_key(prefix, "agents", "run", RUN, late, "late")
            record(index, late, Location(objects.bucket, key), "late")

    report = clean_orphans(index, Slow(), prefix=prefix, grace=GRACE, now=LATER)

    assert (report.found, report.removed) == (2, 1)
    assert ids_under(objects, prefix) == {str(late)}


def record(index: Index, artifact_id: UUID, location: Location, name: str) -> None:
    new = NewArtifact(
        id=artifact_id,
        run_uid=RUN,
        name=name,
        type="log",
        content_type="text/plain",
        size_bytes=5,
        sha256=artifact_id.bytes * 2,
        location=location,
        stored_since=datetime.now(UTC),
    )
    with index.begin() as tx:
        (outcome,) = record_all(tx, [new], grace=GRACE, again=False)
    assert not isinstance(outcome, Exception)


def copy(database: Path, other: Path) -> None:
    """As a backup is made, and put back."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(other)) as target:
        source.backup(target)


def ids_under(objects: Objects, prefix: str) -> set[str]:
    return {
        info.location.key.split("/")[len(prefix.split("/")) + 3] for info in objects.list(f"{prefix}/agents/")
    }


def keys_in(objects: Objects, prefix: str = "") -> set[str]:
    return {info.location.key for info in objects.list(prefix)}
