"""An index with many rows, made by COPY."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.programs import NAMESPACE

_RUNS = """
INSERT INTO runs (uid, namespace, name, created_at, first_seen_at, resource_version, labels, agent, phase,
  revision, published_revision, published_at, listed_count, publish_failures, stored_count, stored_bytes,
  total_count, current_count)
SELECT %(uid)s || n, %(namespace)s, 'run-' || n, now() - n * interval '1 second', now(), '1', '{}',
  'agent-' || n %% 10, (ARRAY['Succeeded', 'Failed'])[n %% 2 + 1], %(each)s, %(each)s, now(), 50, 0, %(each)s,
  %(each)s * 4096, %(each)s, %(each)s
FROM generate_series(0, %(runs)s - 1) AS n
"""
_MADE = """
COPY (
  SELECT gen_random_uuid(), '{uid}' || (n / {each}), (n % {each} + 1)::bigint,
    'logs/step-' || (n % {each}) || '.log',
    (ARRAY['log', 'diff', 'report', 'file'])[n % 4 + 1], 'text/plain', 4096::bigint, sha256(n::text::bytea),
    'offload',
    '{namespace}/run-' || (n / {each}) || '/{uid}' || (n / {each}) || '/' || gen_random_uuid()
      || '/logs/step-' || (n % {each}) || '.log',
    now() - ({rows} - n) * interval '1 millisecond', true, 'stored'
  FROM generate_series(0, {rows} - 1) AS n
) TO STDOUT (FORMAT binary)
"""
_TAKEN = """
COPY artifacts (id, run_uid, seq, name, type, content_type, size_bytes, sha256, bucket, key, created_at,
  current, state) FROM STDIN (FORMAT binary)
"""
_INDICES = """
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'artifacts' AND indexname NOT IN (
  SELECT conname FROM pg_constraint WHERE conrelid = 'artifacts'::regclass)
"""


def fill(url: str, rows: int, each: int, *, namespace: str = NAMESPACE, uid: str = "uid-") -> int:
    """Give the index at `url` so many rows, `each` of a run whose uid begins so; how many runs it gave."""
    runs = max(1, rows // each)
    with psycopg.connect(url) as target, psycopg.connect(url) as source:
        target.execute(_RUNS, {"namespace": namespace, "uid": uid, "runs": runs, "each": each})
        made = _MADE.format(each=each, rows=runs * each, namespace=namespace, uid=uid)
        with (
            _indices_made_last(target),
            source.cursor().copy(made.encode()) as giving,
            target.cursor().copy(_TAKEN) as taking,
        ):
            for block in giving:
                taking.write(block)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return runs


@contextmanager
def _indices_made_last(target: "psycopg.Connection[Any]") -> Iterator[None]:
    """All but those of constraints: sorted once, they are made some times as fast as row by row."""
    indices = target.execute(_INDICES).fetchall()
    for name, _ in indices:
        target.execute(f"DROP INDEX {name}")
    yield
    for _, definition in indices:
        target.execute(definition)
