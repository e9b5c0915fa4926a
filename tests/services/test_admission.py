"""Places for uploads.

Cases: one run alone leaves a quarter; places are given back; where few are left, a run that has more than an
equal share gets none; nobody is admitted after the end, which waits for those who run.
"""

import asyncio
from contextlib import ExitStack

import pytest

from offload.errors import ShuttingDownError, TooManyUploadsError
from offload.services.admission import Admission


@pytest.fixture
def admission() -> Admission:
    return Admission(16)


def _as_many_as_there_are(admission: Admission, run: str, stack: ExitStack) -> int:
    taken = 0
    while True:
        try:
            stack.enter_context(admission.place(run))
        except TooManyUploadsError:
            return taken
        taken += 1


def test_one_run_alone_leaves_a_quarter(admission: Admission) -> None:
    with ExitStack() as places:
        assert _as_many_as_there_are(admission, "a", places) == admission.most_of_a_run == 12
        with admission.place("b"), pytest.raises(TooManyUploadsError):
            places.enter_context(admission.place("a"))
    with ExitStack() as places:
        assert _as_many_as_there_are(admission, "a", places) == 12


def test_who_has_more_than_an_equal_share_waits_where_places_are_scarce(admission: Admission) -> None:
    with ExitStack() as first, ExitStack() as places:
        for _ in range(2):
            first.enter_context(admission.place("a"))
        assert _as_many_as_there_are(admission, "a", places) == 10
        assert _as_many_as_there_are(admission, "b", places) == 4
        with pytest.raises(TooManyUploadsError), admission.place("c"):
            pass
        first.close()
        assert _as_many_as_there_are(admission, "a", places) == 0
        with admission.place("a", equal=False):  # one of several, whose request has its place
            pass
        assert _as_many_as_there_are(admission, "c", places) == 2


def test_nobody_is_admitted_after_the_end(admission: Admission) -> None:
    async def end() -> None:
        with admission.place("a"):
            admission.close()
            with pytest.raises(ShuttingDownError):
                admission.check()
            await asyncio.wait_for(admission.settled(0.01), 5)
            assert admission._running == 1
        await asyncio.wait_for(admission.settled(60), 5)

    asyncio.run(end())
