"""How good forecasts turned out to be, by watch and lead; which model each series has."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "forecast_quality",
        sa.Column("watch_id", sa.Integer(), nullable=False),
        sa.Column("ts", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("lead_seconds", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("series", sa.Integer(), nullable=False),
        sa.Column("mae", sa.Float(), nullable=False),
        sa.Column("mase", sa.Float(), nullable=True),
        sa.Column("bias", sa.Float(), nullable=False),
        sa.Column("coverage", sa.Float(), nullable=False),
        sa.Column("above", sa.Float(), nullable=False),
        sa.Column("level", sa.Float(), nullable=False),
        sa.Column("better_share", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"]),
        sa.PrimaryKeyConstraint("watch_id", "ts", "lead_seconds"),
    )
    op.create_index("forecast_quality_ts", "forecast_quality", ["ts"], unique=False)
    op.add_column("series", sa.Column("model", sa.Text(), nullable=True))
    op.add_column("watch_state", sa.Column("verified_until", sa.BigInteger(), nullable=True))
