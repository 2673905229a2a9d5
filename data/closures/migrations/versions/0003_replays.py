"""Idempotency keys of requests to close: which body stood under each, and which closing answered."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table of replays."""
    op.create_table(
        "replay",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("closure", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["closure"], ["closure.id"]),
        sa.PrimaryKeyConstraint("key"),
    )
