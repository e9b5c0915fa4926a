"""Artifacts in partitions by time, made of the table that is there: what an operator would run.

PostgreSQL wants the partition's column in every unique constraint of the whole table. Within one partition
the old constraints go on; across two of them, what keeps a name's current version single is that whoever
changes a run's artifacts locks the run's row first (offload/index).
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg

STEPS = {
    "rename": "ALTER TABLE artifacts RENAME TO artifacts_before",
    "make": """
        CREATE TABLE artifacts (LIKE artifacts_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
        PARTITION BY RANGE (created_at)
    """,
    "reference": "ALTER TABLE artifacts ADD FOREIGN KEY (run_uid) REFERENCES runs (uid)",
    # With a valid constraint that says the same, attaching needs no scan.
    "bound": "ALTER TABLE artifacts_before ADD CONSTRAINT before CHECK (created_at < '{bound}') NOT VALID",
    "validate": "ALTER TABLE artifacts_before VALIDATE CONSTRAINT before",
    "attach": """
        ALTER TABLE artifacts ATTACH PARTITION artifacts_before FOR VALUES FROM (MINVALUE) TO ('{bound}')
    """,
    "next": """
        CREATE TABLE artifacts_next PARTITION OF artifacts FOR VALUES FROM ('{bound}') TO ('{end}')
    """,
}


def partition(url: str) -> Iterator[tuple[str, float]]:
    """Run the steps on the index at `url`; gives each with the seconds that it took.

    What is there becomes one partition, and what comes from now on goes into the next; an operator would
    take the end of the month.
    """
    bound = datetime.now(UTC)
    moments = {"bound": bound.isoformat(), "end": (bound + timedelta(days=31)).isoformat()}
    with psycopg.connect(url) as connection:
        indices = _indices(connection)
        for what, statement in STEPS.items():
            began = time.monotonic()
            connection.execute(statement.format_map(moments).encode())
            yield what, time.monotonic() - began
        began = time.monotonic()
        for definition in indices:
            connection.execute(definition.encode())
        yield "indices of the next", time.monotonic() - began


def _indices(connection: "psycopg.Connection[tuple[str]]") -> list[str]:
    """The definitions for the next partition: those that the table has."""
    found = connection.execute(
        "SELECT replace(replace(indexdef, ' ON public.artifacts ', ' ON public.artifacts_next '), 'INDEX ', "
        "'INDEX next_') FROM pg_indexes WHERE tablename = 'artifacts'"
    )
    return [definition for (definition,) in found.fetchall()]
