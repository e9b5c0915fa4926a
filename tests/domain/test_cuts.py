"""When another writer's cut of our list is one, and when its length is adopted, as tables.

Cases: the newest entries are left; the oldest only where the writer says so; older views, empty lists and
other entries are no cuts; the third cut to one length adopts it; another length begins anew; until the run
changes.
"""

import pytest

from offload.domain.cuts import CUTS, HOLD_SECONDS, Cuts, Names, Situation, cut_to, names_of

RUNNING = Situation("Running", 5)


def named(names: str) -> Names:
    return names_of([{"name": name, "uri": f"s3://b/{name}"} for name in names])


@pytest.mark.parametrize(
    ("theirs", "says_so", "length"),
    [
        ("de", False, 2),
        ("bcde", False, 4),
        ("abc", False, None),
        ("abc", True, 3),
        ("abcde", True, None),
        ("", True, None),
        ("ce", True, None),
        ("dex", True, None),
        ("abcdef", True, None),
    ],
)
def test_a_cut_leaves_the_newest_or_says_that_it_was_one(
    theirs: str, says_so: bool, length: int | None
) -> None:
    assert cut_to(named("abcde"), named(theirs), says_so=says_so) == length


def test_entries_that_lost_fields_and_white_space_are_the_same_ones() -> None:
    ours = names_of([{"name": "a"}, {"name": "b ", "uri": "s3://b/b"}])
    assert cut_to(ours, names_of([{"name": "b"}]), says_so=False) == 1


def after(*lengths: int, situation: Situation = RUNNING) -> Cuts:
    cuts = Cuts(lengths[0], 0, situation, 0)
    for length in lengths:
        cuts = cuts.and_then(length, situation, 0)
    return cuts


@pytest.mark.parametrize(
    ("lengths", "adopted"),
    [
        ([2], None),
        ([2, 2], None),
        ([2, 2, 2], 2),
        ([2, 2, 3], None),
        ([2, 2, 3, 2], None),
        ([2, 2, 2, 3], None),
        ([2, 2, 2, 3, 3, 3], 3),
    ],
)
def test_three_equal_cuts_in_a_row_adopt_their_length(lengths: list[int], adopted: int | None) -> None:
    assert after(*lengths).adopted(RUNNING, 0) == adopted


@pytest.mark.parametrize(
    ("situation", "seconds", "holds"),
    [
        (RUNNING, HOLD_SECONDS * 100, True),
        (Situation("Running", 6), HOLD_SECONDS / 2, True),
        (Situation("Running", 6), HOLD_SECONDS, False),
        (Situation("Succeeded", 5), 0, False),
    ],
)
def test_it_holds_until_the_run_changes(situation: Situation, seconds: float, holds: bool) -> None:
    assert after(2, 2, 2).adopted(situation, seconds) == (2 if holds else None)


@pytest.mark.parametrize(("length", "adopted"), [(2, 2), (3, None)])
def test_a_run_that_changed_is_cut_once_to_adopt_the_same_length_again(
    length: int, adopted: int | None
) -> None:
    changed = Situation("Succeeded", 6)
    assert after(2, 2, 2).and_then(length, changed, 99).adopted(changed, 99) == adopted


def test_a_writer_with_a_cap_costs_a_bounded_number_of_whole_lists() -> None:
    """A run of 200 s with an artifact a second: the whole list is tried three times, then every 30 s."""
    cuts, tried = Cuts(10, 0, RUNNING, 0), 0
    for second in range(200):
        now = Situation("Running", second)
        while cuts.adopted(now, second) is None:
            cuts = cuts.and_then(10, now, second)
            tried += 1
    assert tried == CUTS + 199 // HOLD_SECONDS
