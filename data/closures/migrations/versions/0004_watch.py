"""Keyed digests of who was erased, by which data that comes back is known again."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table of what is watched for."""
    op.create_table(
        "watch",
        sa.Column("closure", sa.Text(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["closure"], ["closure.id"]),
        sa.PrimaryKeyConstraint("closure", "token"),
    )
    op.create_index("watch_of", "watch", ["token"], unique=False)
