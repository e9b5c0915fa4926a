"""Name globs.

- the two databases agree with Python's `fnmatch.fnmatchcase` on any name and pattern (property)
- the range that stands for a literal beginning holds exactly what starts with it (property)
- history applies the glob: by beginning, by bracket, literally; a pattern no name can match gives nothing
"""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from offload.index import Index, artifacts, globs
from offload.index.dialects import engines_of

# Few characters, so that patterns and names meet; those that mean something somewhere, and some from far
# away.
CHARACTERS = "ab.Az-]^!\\/%_$({+|}é\U0001f600"
NAMES = st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=6) | st.text(
    st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=6
)
PIECES = st.sampled_from(["*", "?", "[", "]", "[!", "-", *CHARACTERS]) | st.builds(
    "[{}{}]".format, st.sampled_from(["", "!"]), st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=5)
)
PATTERNS = st.lists(PIECES, max_size=6).map("".join) | NAMES.map(lambda name: name[:2] + "*")


@pytest.fixture
def matches(index: Index) -> Iterator[Callable[[str, str], bool]]:
    with index.read() as tx:
        matched = engines_of(tx).matches
        yield lambda name, pattern: bool(
            tx.execute(sa.select(matched(sa.literal(name), globs.parse(pattern)))).scalar_one()
        )


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, pattern=PATTERNS)
@example(name="^", pattern="[^]")
@example(name="^", pattern="[^]]")
@example(name="-", pattern="[]-a]")
@example(name="^", pattern="[]-a]")
@example(name="^", pattern="[!^]")
@example(name="-", pattern="[^-]")
@example(name="b", pattern="[b-a]")
@example(name="b", pattern="[!b-a]")
@example(name="]", pattern="[]")
@example(name="[a", pattern="[a")
@example(name="a\\b", pattern="a\\b")
@example(name="a", pattern="[[:alpha:]]")
@example(name="A", pattern="a")
@example(name="a/b", pattern="a*b")
@example(name="é", pattern="?")
def test_each_database_agrees_with_fnmatch(
    matches: Callable[[str, str], bool], name: str, pattern: str
) -> None:
    assert matches(name, pattern) == fnmatchcase(name, pattern)


@given(prefix=NAMES, name=NAMES)
@example(prefix="\ud7ff", name="\ue000")
@example(prefix="a\U0010ffff", name="a\U0010ffffb")
@example(prefix="\U0010ffff", name="\U0010ffff\U0010ffff")
def test_the_range_of_a_prefix_holds_what_starts_with_it(prefix: str, name: str) -> None:
    end = globs.after_prefix(prefix)
    for candidate in (name, prefix + name):
        assert (prefix <= candidate and (end is None or candidate < end)) == candidate.startswith(prefix)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("logs/*", {"logs/a.txt", "logs/b.txt", "logs/ü"}),
        ("logs/?.txt", {"logs/a.txt", "logs/b.txt"}),
        ("logs/[!a]*", {"logs/b.txt", "logs/ü"}),
        ("*.TXT", {"LOGS/a.TXT"}),
        ("100%_*", {"100%_done"}),
        ("logs/a.txt", {"logs/a.txt"}),
        ("*", {"logs/a.txt", "logs/b.txt", "logs/ü", "LOGS/a.TXT", "100%_done", "100__done"}),
        ("", set()),
        ("a\0*", set()),
        ("\ud800*", set()),
    ],
)
def test_history_is_filtered_by_glob(given: Any, pattern: str, expected: set[str]) -> None:
    run = given.run()
    for name in ("logs/a.txt", "logs/b.txt", "logs/ü", "LOGS/a.TXT", "100%_done", "100__done"):
        given.artifact(run.uid, name)
    with given.index.read() as tx:
        found = artifacts.history(tx, run.uid, name_glob=pattern, limit=100)
    assert {artifact.name for artifact in found} == expected
