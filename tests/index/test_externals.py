"""Externals of a run.

- new ones are numbered among the run's artifacts, in the order given, and make it dirty
- known ones keep their number and take the new entry and state, and do not make it dirty
- of the removed ones the newest stay, and of the others all
- each run has its own
"""

from typing import Any

from offload.domain.external import External, ExternalState
from offload.index import externals, publishing, runs
from offload.index.externals import REMOVED_KEPT


def test_new_externals_are_numbered_among_the_artifacts(given: Any) -> None:
    run = given.run()
    first = given.artifact(run.uid, "a")
    with given.index.begin() as tx:
        saved = externals.save(
            tx,
            run.uid,
            [
                External(0, "x", {"name": "x", "uri": "https://x/✓"}),
                External(0, "y", {"name": "y"}, "left-out"),
            ],
        )
        assert externals.of_run(tx, run.uid) == saved
    assert [external.seq for external in saved] == [first.seq + 1, first.seq + 2]
    assert given.artifact(run.uid, "b").seq == first.seq + 3
    assert given.get_run(run.uid).total_count == 2


def test_known_externals_keep_their_number(given: Any) -> None:
    run = given.run()
    with given.index.begin() as tx:
        [known] = externals.save(tx, run.uid, [External(0, "x", {"name": "x"})])
        assert publishing.dirty_count(tx) == 1
        before = runs.get(tx, run.uid)
        changed = External(known.seq, "x", {"name": "new"}, "removed")
        assert externals.save(tx, run.uid, [changed]) == [changed]
        assert externals.save(tx, run.uid, []) == []
        assert externals.of_run(tx, run.uid) == [changed]
        assert runs.get(tx, run.uid) == before


def test_the_newest_removed_externals_stay(given: Any) -> None:
    run, other = given.run(), given.run()

    def save(uid: str, numbers: range, state: ExternalState) -> None:
        with given.index.begin() as tx:
            externals.save(tx, uid, [External(0, f"x{n}", {"name": f"x{n}"}, state) for n in numbers])

    save(other.uid, range(REMOVED_KEPT), "removed")
    save(run.uid, range(700), "listed")
    save(run.uid, range(10), "left-out")
    save(run.uid, range(10, 690), "removed")
    with given.index.read() as tx:
        kept = externals.of_run(tx, run.uid)
        assert len(externals.of_run(tx, other.uid)) == REMOVED_KEPT
    assert [one.fingerprint for one in kept] == [
        f"x{n}" for n in (*range(10), *range(690 - REMOVED_KEPT, 700))
    ]
    assert given.get_run(run.uid).revision == 700

    save(run.uid, range(10, 11), "listed")  # forgotten, and back: a new one
    save(run.uid, range(689, 690), "listed")  # where it was
    with given.index.read() as tx:
        seqs = {one.fingerprint: one.seq for one in externals.of_run(tx, run.uid)}
    assert (seqs["x10"], seqs["x689"]) == (701, 690)


def test_each_run_has_its_own(given: Any) -> None:
    one, two = given.run(), given.run()
    with given.index.begin() as tx:
        externals.save(tx, one.uid, [External(0, "x", {})])
        externals.save(tx, two.uid, [External(0, "x", {}, "removed")])
        assert [external.state for external in externals.of_run(tx, one.uid)] == ["listed"]
        assert [external.state for external in externals.of_run(tx, two.uid)] == ["removed"]
