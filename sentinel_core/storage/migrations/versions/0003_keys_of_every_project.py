"""Keys of every project, for who asks for all numbers: Grafana, a Prometheus."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_keys") as table:
        table.alter_column("project_id", existing_type=sa.Integer(), nullable=True)
