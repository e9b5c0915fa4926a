"""An index with many rows, made by COPY."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg

from tests.programs import NAMESPACE

_RUNS = """
INSERT INTO runs (uid, namespace, name, created_at, first_seen_at, resource_version, labels, agent, phase,
  revision, published_revision, published_at, listed_count, publish_failures, stored_count, stored_bytes,
  total_count, current_count)
SELECT md5(%(namespace)s || n)::uuid::text, %(namespace)s, 'run-' || n, now() - n * interval '1 second',
  now(), '1', '{}', 'agent-' || n %% 10, (ARRAY['Succeeded', 'Failed'])[n / 10 %% 2 + 1], has, has, now(),
  least(has, 50), 0, has, has * 4096, has, has
FROM generate_series(0, %(runs)s + %(empty)s - 1) AS n, LATERAL (
  SELECT CASE WHEN n < %(runs)s THEN %(each)s ELSE 0 END AS has) AS artifacts
"""
_MADE = """
COPY (
  SELECT gen_random_uuid(), uid, (n % {each} + 1)::bigint,
    'logs/step-' || (n % {each}) || '.log',
    (ARRAY['log', 'diff', 'report', 'file'])[n % 4 + 1], 'text/plain', 4096::bigint, sha256(n::text::bytea),
    'offload',
    '{namespace}/run-' || (n / {each}) || '/' || uid || '/' || gen_random_uuid() || '/logs/step-'
      || (n % {each}) || '.log',
    now() - ({rows} - n) * interval '1 millisecond', true, 'stored'
  FROM generate_series(0, {rows} - 1) AS n, LATERAL (
    SELECT md5('{namespace}' || n / {each})::uuid::text AS uid) AS run
) TO STDOUT (FORMAT binary)
"""
_TAKEN = """
COPY artifacts (id, run_uid, seq, name, type, content_type, size_bytes, sha256, bucket, key, created_at,
  current, state) FROM STDIN (FORMAT binary)
"""
# Ids are UUIDs of version 7: their first 48 bits are milliseconds.
_GROWN = """
INSERT INTO artifacts (id, run_uid, seq, name, type, content_type, size_bytes, sha256, bucket, key,
  created_at, current, state)
SELECT id, uid, number + 1, 'logs/step-' || number || '.log',
  (ARRAY['log', 'diff', 'report', 'file'])[n %% 4 + 1], 'text/plain', 4096, sha256(n::text::bytea), 'offload',
  %(namespace)s || '/run-' || run || '/' || uid || '/' || id || '/logs/step-' || number || '.log',
  to_timestamp((1767225600000 + n) / 1000.0), true, 'stored'
FROM generate_series(0, %(rows)s - 1) AS n,
  LATERAL (SELECT n %% %(runs)s AS run, n / %(runs)s AS number) AS part,
  LATERAL (SELECT md5(%(namespace)s || run)::uuid::text AS uid) AS named,
  LATERAL (SELECT (lpad(to_hex(1767225600000 + n), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
    || substr(md5(n::text), 4, 15))::uuid AS id) AS identified
"""
_INDICES = """
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'artifacts' AND indexname NOT IN (
  SELECT conname FROM pg_constraint WHERE conrelid = 'artifacts'::regclass)
"""


def uid_of(number: int, namespace: str = NAMESPACE) -> str:
    """The uid of a run that `fill` makes; as long as Kubernetes' own, which most indices hold."""
    return str(UUID(hashlib.md5(f"{namespace}{number}".encode(), usedforsecurity=False).hexdigest()))


def fill(url: str, rows: int, each: int, *, namespace: str = NAMESPACE, empty: int = 0) -> int:
    """Give the index at `url` so many rows, `each` of a run, and how many runs those are.

    After these come so many `empty` runs, which have no rows.
    """
    runs = max(1, rows // each)
    with psycopg.connect(url) as target, psycopg.connect(url) as source:
        target.execute(_RUNS, {"namespace": namespace, "runs": runs, "each": each, "empty": empty})
        made = _MADE.format(each=each, rows=runs * each, namespace=namespace)
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


def grow(url: str, rows: int, each: int) -> None:
    """Give the index at `url` so many rows as uploads come: all runs in turn, into indices that are there."""
    runs = max(1, rows // each)
    named = {"namespace": NAMESPACE, "runs": runs}
    with psycopg.connect(url) as connection:
        connection.execute(_RUNS, {**named, "each": each, "empty": 0})
        connection.execute(_GROWN, {**named, "rows": rows})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


@contextmanager
def _indices_made_last(target: "psycopg.Connection[Any]") -> Iterator[None]:
    """All but those of constraints: sorted once, they are made some times as fast as row by row."""
    indices = target.execute(_INDICES).fetchall()
    for name, _ in indices:
        target.execute(f"DROP INDEX {name}")
    yield
    for _, definition in indices:
        target.execute(definition)
