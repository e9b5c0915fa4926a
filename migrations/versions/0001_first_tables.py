"""First tables."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

READABLE_BY = "0001"
"""The oldest revision whose code can run on these tables."""

Words = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    meta = op.create_table(
        "meta",
        sa.Column("identity", sa.Uuid, nullable=False),
        sa.Column("readable_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("identity", name="pk_meta"),
    )
    op.bulk_insert(meta, [{"identity": uuid4(), "readable_by": READABLE_BY}])
    _create_runs()
    _create_artifacts()
    op.create_table(
        "externals",
        sa.Column("run_uid", Words, nullable=False),
        sa.Column("fingerprint", Words, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("entry", Json, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_uid", "fingerprint", name="pk_externals"),
        sa.ForeignKeyConstraint(["run_uid"], ["runs.uid"], name="fk_externals_run_uid_runs"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holder", sa.Text),
        sa.Column("held_until", Time),
        sa.Column("done_at", Time),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "plans",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("artifact_count", sa.BigInteger, nullable=False),
        sa.Column("total_bytes", sa.BigInteger, nullable=False),
        sa.Column("policy_digest", sa.Text, nullable=False),
        sa.Column("parked_at", Time, nullable=False),
        sa.Column("confirmed_at", Time),
        sa.PrimaryKeyConstraint("id", name="pk_plans"),
    )


def downgrade() -> None:
    for table in ("plans", "leases", "externals", "artifacts", "runs", "meta"):
        op.drop_table(table)


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("uid", Words, nullable=False),
        sa.Column("namespace", Words, nullable=False),
        sa.Column("name", Words, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("first_seen_at", Time, nullable=False),
        sa.Column("resource_version", sa.Text, nullable=False),
        sa.Column("labels", Json, nullable=False),
        sa.Column("agent", Words),
        sa.Column("phase", Words),
        sa.Column("finished_at", Time),
        sa.Column("deleted_at", Time),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("published_revision", sa.BigInteger, nullable=False),
        sa.Column("published_at", Time),
        sa.Column("dirty_since", Time),
        sa.Column("listed_count", sa.Integer, nullable=False),
        sa.Column("publish_error", sa.Text),
        sa.Column("publish_failures", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", Time),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until", Time),
        sa.Column("stored_count", sa.BigInteger, nullable=False),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sa.Column("total_count", sa.BigInteger, nullable=False),
        sa.Column("current_count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("uid", name="pk_runs"),
    )
    op.create_index("ix_runs_name", "runs", ["namespace", "name", "created_at"])
    op.create_index("ix_runs_page", "runs", ["namespace", "created_at", "uid"])
    op.create_index("ix_runs_page_agent", "runs", ["namespace", "agent", "created_at", "uid"])
    op.create_index("ix_runs_page_phase", "runs", ["namespace", "phase", "created_at", "uid"])
    page = ["namespace", "created_at", "uid"]
    _create_partial_index("ix_runs_page_live", "runs", page, where=sa.text("deleted_at IS NULL"))
    _create_partial_index("ix_runs_page_deleted", "runs", page, where=sa.text("deleted_at IS NOT NULL"))
    _create_partial_index("ix_runs_dirty", "runs", ["dirty_since"], where=sa.text("dirty_since IS NOT NULL"))


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("run_uid", Words, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("name", Words, nullable=False),
        sa.Column("type", Words, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("bucket", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("current", sa.Boolean, nullable=False),
        sa.Column("state", Words, nullable=False),
        sa.Column("expires_at", Time),
        sa.Column("origin", sa.Text),
        sa.Column("ended_at", Time),
        sa.Column("ended_by", sa.Text),
        sa.Column("ended_revision", sa.BigInteger),
        sa.Column("erased_at", Time),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
        sa.ForeignKeyConstraint(["run_uid"], ["runs.uid"], name="fk_artifacts_run_uid_runs"),
        sa.UniqueConstraint("run_uid", "seq", name="uq_artifacts_run_uid_seq"),
        sa.CheckConstraint("length(sha256) = 32", name=op.f("ck_artifacts_sha256_length")),
        sa.CheckConstraint("state = 'stored' OR NOT current", name=op.f("ck_artifacts_current_is_stored")),
        sa.CheckConstraint(
            "(state = 'stored') = (ended_at IS NULL)", name=op.f("ck_artifacts_tombstone_is_dated")
        ),
    )
    op.create_index("ix_artifacts_type", "artifacts", ["run_uid", "type", "seq"])
    op.create_index("ix_artifacts_state", "artifacts", ["run_uid", "state", "seq"])
    op.create_index("ix_artifacts_name", "artifacts", ["run_uid", "name", "seq"])
    op.create_index("ix_artifacts_created_at", "artifacts", ["run_uid", "created_at"])
    # SQLite uses a partial index only where a query has its very words: `current = 1`.
    current = sa.column("current", sa.Boolean) == sa.true()
    _create_partial_index(
        "uq_artifacts_current", "artifacts", ["run_uid", "name"], where=current, unique=True
    )
    _create_partial_index("ix_artifacts_current", "artifacts", ["run_uid", "seq"], where=current)
    _create_partial_index(
        "ix_artifacts_erasable",
        "artifacts",
        ["run_uid", "ended_revision"],
        where=sa.text("ended_revision IS NOT NULL AND erased_at IS NULL"),
    )


def _create_partial_index(
    name: str,
    table: str,
    columns: list[str],
    *,
    where: sa.ColumnElement[bool] | sa.TextClause,
    unique: bool = False,
) -> None:
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
