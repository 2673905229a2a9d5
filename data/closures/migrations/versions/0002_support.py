"""Tickets get their clock, texts a table of their own, and wrong receipt codes a count."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table of tickets anew: no version of ours wrote a row into the first one."""
    op.drop_table("ticket")
    op.create_table(
        "ticket",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("receipt", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("alarmed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("answered", sa.BigInteger(), nullable=True),
        sa.Column("closed", sa.BigInteger(), nullable=True),
        sa.Column("forgotten", sa.BigInteger(), nullable=True),
        sa.Column("ref", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["receipt"], ["closure.receipt"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ticket_of", "ticket", ["receipt"], unique=False)
    op.create_index("ticket_by_state", "ticket", ["state"], unique=False)
    op.create_table(
        "word",
        sa.Column("ticket", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["ticket"], ["ticket.id"]),
        sa.PrimaryKeyConstraint("ticket", "seq"),
    )
    op.create_table(
        "attempt",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("source", "minute"),
    )
