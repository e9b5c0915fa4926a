"""The byte budget: bytes that may be held at once, which runs share in turn.

Cases: runs take turns, however many uploads each has, and one that gives up costs its run no turn; the last
quarter is for runs that hold nothing, which overtake those that do; what fits goes at once; what does not
waits; a small one does not overtake a large one; more than the total counts as all of it; giving back on
errors; one that gives up while it waits, or just as its turn comes, leaves the rest moving; whatever happens
in whatever order, the total is never passed and all is given back.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from offload.services.budget import ByteBudget


class Holder:
    """Holds some bytes, of a run of its own unless one is named, until it is told to let go."""

    def __init__(self, budget: ByteBudget, size: int, run: str | None = None) -> None:
        self.holds, self._let_go = False, asyncio.Event()
        self.task = asyncio.create_task(self._hold(budget, size, run or f"run-{id(self)}"))

    async def let_go(self) -> None:
        self._let_go.set()
        await self.task

    async def _hold(self, budget: ByteBudget, size: int, run: str) -> None:
        async with budget.reserve(size, run):
            self.holds = True
            await self._let_go.wait()
        self.holds = False


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def _run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_nobody_overtakes() -> None:
    async def test() -> None:
        budget = ByteBudget(10)
        first, large, small = Holder(budget, 6), Holder(budget, 8), Holder(budget, 1)
        await _settled()
        assert (first.holds, large.holds, small.holds, budget.used) == (True, False, False, 6)
        await first.let_go()
        await _settled()
        assert (large.holds, small.holds, budget.used) == (True, True, 9)
        await large.let_go()
        await small.let_go()
        assert budget.used == 0

    _run(test())


def test_runs_take_turns() -> None:
    async def test() -> None:
        budget, order = ByteBudget(1), []

        async def hold(run: str) -> None:
            async with budget.reserve(1, run):
                order.append(run)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(hold(run)) for run in "AAAAABBC"]
        await asyncio.gather(*tasks)
        assert "".join(order) == "AABCABAA"

    _run(test())


def test_the_last_quarter_is_for_runs_that_hold_nothing() -> None:
    async def test() -> None:
        budget = ByteBudget(100)
        several = [Holder(budget, 33, "A") for _ in range(3)]
        await _settled()
        assert [one.holds for one in several] == [True, True, False]
        other, another = Holder(budget, 33, "B"), Holder(budget, 1, "B")
        await _settled()
        assert (other.holds, another.holds, budget.used) == (True, False, 99)
        await several[0].let_go()
        await _settled()
        assert (several[2].holds, another.holds) == (False, True)  # A's third would be past three quarters
        for one in (several[1], other, another):
            await one.let_go()
        await several[2].let_go()
        assert (budget.used, list(budget._waiting), +budget._held) == (0, [], {})

    _run(test())


def test_a_run_alone_may_have_all_in_one_piece() -> None:
    async def test() -> None:
        budget = ByteBudget(100)
        all_, more = Holder(budget, 100, "A"), Holder(budget, 1, "A")
        await _settled()
        assert (all_.holds, more.holds) == (True, False)
        await all_.let_go()
        await more.let_go()

    _run(test())


def test_who_gives_up_costs_its_run_no_turn() -> None:
    async def test() -> None:
        budget = ByteBudget(1)
        first = Holder(budget, 1, "X")
        await _settled()
        quitter, another, other = Holder(budget, 1, "A"), Holder(budget, 1, "A"), Holder(budget, 1, "B")
        await _settled()
        quitter.task.cancel()
        await first.let_go()
        await _settled()
        assert (another.holds, other.holds) == (True, False)
        await another.let_go()
        await other.let_go()
        assert (budget.used, list(budget._waiting)) == (0, [])

    _run(test())


def test_more_than_all_is_all() -> None:
    async def test() -> None:
        budget = ByteBudget(10)
        huge, next_ = Holder(budget, 10**12), Holder(budget, 1)
        await _settled()
        assert (huge.holds, next_.holds, budget.used) == (True, False, 10)
        await huge.let_go()
        await _settled()
        assert next_.holds
        await next_.let_go()

    _run(test())


def test_an_error_gives_back() -> None:
    async def test() -> None:
        budget = ByteBudget(10)
        with pytest.raises(ZeroDivisionError):
            async with budget.reserve(7, "A"):
                raise ZeroDivisionError
        assert budget.used == 0

    _run(test())


def test_who_gives_up_leaves_the_others_moving() -> None:
    async def test() -> None:
        budget = ByteBudget(10)
        first, quitter, last = Holder(budget, 6), Holder(budget, 9), Holder(budget, 4)
        await _settled()
        assert not last.holds
        quitter.task.cancel()
        await _settled()
        assert (last.holds, budget.used) == (True, 10)
        await first.let_go()
        await last.let_go()
        assert budget.used == 0

    _run(test())


def test_who_gives_up_as_its_turn_comes_gives_back() -> None:
    async def test() -> None:
        budget = ByteBudget(10)
        first, quitter, last = Holder(budget, 10), Holder(budget, 10), Holder(budget, 10)
        await _settled()
        first._let_go.set()
        await asyncio.sleep(0)  # the first gives back; the second has its turn and does not know yet
        quitter.task.cancel()
        await _settled()
        assert last.holds
        await last.let_go()
        assert budget.used == 0

    _run(test())


@pytest.mark.parametrize("seed", range(20))
def test_the_total_is_never_passed(seed: int) -> None:
    async def test() -> None:
        dice, budget = random.Random(seed), ByteBudget(100)
        holders: list[Holder] = []
        every: list[Holder] = []
        for _ in range(200):
            if dice.random() < 0.5:
                holders.append(Holder(budget, dice.randint(0, 120), dice.choice("ABC")))
                every.append(holders[-1])
            elif holders:
                chosen = holders.pop(dice.randrange(len(holders)))
                if dice.random() < 0.3:
                    chosen.task.cancel()
                else:
                    chosen._let_go.set()
            if dice.random() < 0.7:
                await asyncio.sleep(0)
            assert 0 <= budget.used <= 100
        for holder in holders:
            holder._let_go.set()
        async with asyncio.timeout(5):
            await asyncio.wait([holder.task for holder in every])
        assert (budget.used, list(budget._waiting)) == (0, [])

    _run(test())
