"""Leases and periodic jobs.

- one holder at a time, also among many at once; renewed, released, lapsed
- a job is due when it was never done or long enough ago; what goes on, and began anew
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from offload.index import Index, leases

MINUTE = timedelta(minutes=1)


def acquire(index: Index, holder: str, lease: timedelta = MINUTE, name: str = "sweep") -> bool:
    with index.begin() as tx:
        return leases.acquire(tx, name, holder=holder, lease=lease)


def test_a_lease_has_one_holder(index: Index) -> None:
    assert acquire(index, "a") is True
    assert acquire(index, "b") is False
    assert acquire(index, "a") is True
    assert acquire(index, "b", name="other") is True
    with index.begin() as tx:
        leases.release(tx, "sweep", holder="b")
    assert acquire(index, "b") is False
    with index.begin() as tx:
        leases.release(tx, "sweep", holder="a")
    assert acquire(index, "b") is True


def test_a_lease_lapses(index: Index) -> None:
    assert acquire(index, "a", lease=-MINUTE) is True
    assert acquire(index, "b") is True
    assert acquire(index, "a") is False


def test_of_many_at_once_one_gets_the_lease(index: Index) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda holder: acquire(index, holder), "abcdefgh")) == 1


def test_a_job_is_due_until_it_is_done(given: Any) -> None:
    with given.index.begin() as tx:
        assert leases.due(tx, "sweep", every=MINUTE) is True
        leases.done(tx, "sweep")
        assert leases.due(tx, "sweep", every=MINUTE) is False
        assert leases.due(tx, "sweep", every=timedelta(0)) is True
        assert leases.due(tx, "other", every=MINUTE) is True
        assert leases.acquire(tx, "sweep", holder="a", lease=MINUTE) is True
        leases.done(tx, "sweep")
    assert acquire(given.index, "b") is False


def test_what_goes_on_began_once_and_anew_after_it_lapsed(index: Index) -> None:
    def keep_up(lapse: timedelta) -> datetime | None:
        with index.begin() as tx:
            leases.keep_up(tx, "strict", lapse=lapse)
        with index.read() as tx:
            return leases.kept_up_since(tx, "strict")

    with index.read() as tx:
        assert leases.kept_up_since(tx, "strict") is None
    first = keep_up(MINUTE)
    assert first is not None
    assert keep_up(MINUTE) == first
    assert keep_up(-MINUTE) is None
    anew = keep_up(MINUTE)
    assert anew is not None
    assert anew > first
