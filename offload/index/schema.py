"""The tables. `migrations/` makes them; a test holds the two together."""

import sqlalchemy as sa

from offload.index.dialects import Json, UtcDateTime, Words, partial_index

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("identity", sa.Uuid, primary_key=True),
    # The oldest revision whose code can run on these tables: what lets an image be rolled back.
    sa.Column("readable_by", sa.Text, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("uid", Words, primary_key=True),
    sa.Column("namespace", Words, nullable=False),
    sa.Column("name", Words, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("first_seen_at", UtcDateTime, nullable=False),
    sa.Column("resource_version", sa.Text, nullable=False),
    sa.Column("labels", Json, nullable=False),
    sa.Column("agent", Words),
    sa.Column("phase", Words),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("deleted_at", UtcDateTime),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("published_revision", sa.BigInteger, nullable=False),
    sa.Column("published_at", UtcDateTime),
    sa.Column("dirty_since", UtcDateTime),
    sa.Column("listed_count", sa.Integer, nullable=False),
    sa.Column("publish_error", sa.Text),
    sa.Column("publish_failures", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", UtcDateTime),
    sa.Column("claimed_by", sa.Text),
    sa.Column("claimed_until", UtcDateTime),
    sa.Column("stored_count", sa.BigInteger, nullable=False),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False),
    sa.Column("total_count", sa.BigInteger, nullable=False),
    sa.Column("current_count", sa.BigInteger, nullable=False),
    sa.Index("ix_runs_name", "namespace", "name", "created_at"),
    # Pages of a namespace: newest first, and by each filter that is offered.
    sa.Index("ix_runs_page", "namespace", "created_at", "uid"),
    sa.Index("ix_runs_page_agent", "namespace", "agent", "created_at", "uid"),
    sa.Index("ix_runs_page_phase", "namespace", "phase", "created_at", "uid"),
)
partial_index(
    "ix_runs_page_live",
    *(runs.c.namespace, runs.c.created_at, runs.c.uid),
    where=runs.c.deleted_at.is_(None),
)
partial_index(
    "ix_runs_page_deleted",
    *(runs.c.namespace, runs.c.created_at, runs.c.uid),
    where=runs.c.deleted_at.is_not(None),
)
# Counters are in no index, so that PostgreSQL updates a run in place (HOT) while it is dirty.
partial_index("ix_runs_dirty", runs.c.dirty_since, where=runs.c.dirty_since.is_not(None))

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("run_uid", Words, sa.ForeignKey("runs.uid"), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("name", Words, nullable=False),
    sa.Column("type", Words, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.LargeBinary(32), nullable=False),
    sa.Column("bucket", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("current", sa.Boolean, nullable=False),
    sa.Column("state", Words, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("origin", sa.Text),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("ended_by", sa.Text),
    # The run's revision at the tombstone, where bytes are to be deleted (not for a lost one: there are none).
    sa.Column("ended_revision", sa.BigInteger),
    sa.Column("erased_at", UtcDateTime),
    sa.CheckConstraint("length(sha256) = 32", name="sha256_length"),
    sa.CheckConstraint("state = 'stored' OR NOT current", name="current_is_stored"),
    sa.CheckConstraint("(state = 'stored') = (ended_at IS NULL)", name="tombstone_is_dated"),
    sa.UniqueConstraint("run_uid", "seq"),
    # History of a run, by each filter that is offered.
    sa.Index("ix_artifacts_type", "run_uid", "type", "seq"),
    sa.Index("ix_artifacts_state", "run_uid", "state", "seq"),
    sa.Index("ix_artifacts_name", "run_uid", "name", "seq"),
    sa.Index("ix_artifacts_created_at", "run_uid", "created_at"),
)
# SQLite uses a partial index only where a query has its very words, and a query has `current = 1`.
_is_current = artifacts.c.current == sa.true()
# One current version of a name; and the newest current ones, which is what status lists.
partial_index("uq_artifacts_current", artifacts.c.run_uid, artifacts.c.name, where=_is_current, unique=True)
partial_index("ix_artifacts_current", artifacts.c.run_uid, artifacts.c.seq, where=_is_current)
partial_index(
    "ix_artifacts_erasable",
    *(artifacts.c.run_uid, artifacts.c.ended_revision),
    where=artifacts.c.ended_revision.is_not(None) & artifacts.c.erased_at.is_(None),
)

externals = sa.Table(
    "externals",
    metadata,
    sa.Column("run_uid", Words, sa.ForeignKey("runs.uid"), primary_key=True),
    sa.Column("fingerprint", Words, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("entry", Json, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text),
    sa.Column("held_until", UtcDateTime),
    sa.Column("done_at", UtcDateTime),
)

plans = sa.Table(
    "plans",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("artifact_count", sa.BigInteger, nullable=False),
    sa.Column("total_bytes", sa.BigInteger, nullable=False),
    sa.Column("policy_digest", sa.Text, nullable=False),
    sa.Column("parked_at", UtcDateTime, nullable=False),
    sa.Column("confirmed_at", UtcDateTime),
)
