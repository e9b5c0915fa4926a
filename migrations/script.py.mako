"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

READABLE_BY = ${repr(up_revision)}
"""The oldest revision whose code can run on these tables."""


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
    op.execute(sa.text("UPDATE meta SET readable_by = :oldest").bindparams(oldest=READABLE_BY))


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
