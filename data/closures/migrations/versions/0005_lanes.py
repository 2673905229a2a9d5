"""Lanes: rows of the outbox that somebody hears in the order in which they were written."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the lane and the turn of a row; what was written before has neither, and goes by itself as it did."""
    op.add_column("outbox", sa.Column("lane", sa.Text(), nullable=True))
    op.add_column("outbox", sa.Column("turn", sa.Integer(), nullable=True))
    op.create_index("outbox_lane", "outbox", ["closure", "lane"], unique=False)
