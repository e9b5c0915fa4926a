"""An index with many rows, made by COPY."""

import psycopg

from tests.programs import NAMESPACE

_RUNS = """
INSERT INTO runs (uid, namespace, name, created_at, first_seen_at, resource_version, labels, revision,
  published_revision, published_at, listed_count, publish_failures, stored_count, stored_bytes, total_count,
  current_count)
SELECT 'uid-' || n, %(namespace)s, 'run-' || n, now() - n * interval '1 second', now(), '1', '{}', %(each)s,
  %(each)s, now(), 50, 0, %(each)s, %(each)s * 4096, %(each)s, %(each)s
FROM generate_series(0, %(runs)s - 1) AS n
"""
# The rows are made by the server and copied by it to itself through this process, as a restore would.
_MADE = """
COPY (
  SELECT gen_random_uuid(), 'uid-' || (n / {each}), (n % {each} + 1)::bigint,
    'logs/step-' || (n % {each}) || '.log',
    (ARRAY['log', 'diff', 'report', 'file'])[n % 4 + 1], 'text/plain', 4096::bigint, sha256(n::text::bytea),
    'offload',
    '{namespace}/run-' || (n / {each}) || '/uid-' || (n / {each}) || '/' || gen_random_uuid() || '/logs/step-'
      || (n % {each}) || '.log',
    now() - ({rows} - n) * interval '1 millisecond', true, 'stored'
  FROM generate_series(0, {rows} - 1) AS n
) TO STDOUT (FORMAT binary)
"""
_TAKEN = """
COPY artifacts (id, run_uid, seq, name, type, content_type, size_bytes, sha256, bucket, key, created_at,
  current, state) FROM STDIN (FORMAT binary)
"""


def fill(url: str, rows: int, each: int) -> int:
    """Give the empty index at `url` so many rows, `each` of a run; how many runs there are then."""
    runs = max(1, rows // each)
    with psycopg.connect(url) as target, psycopg.connect(url) as source:
        target.execute(_RUNS, {"namespace": NAMESPACE, "runs": runs, "each": each})
        made = _MADE.format(each=each, rows=runs * each, namespace=NAMESPACE)
        with source.cursor().copy(made) as giving, target.cursor().copy(_TAKEN) as taking:
            for block in giving:
                taking.write(block)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return runs
