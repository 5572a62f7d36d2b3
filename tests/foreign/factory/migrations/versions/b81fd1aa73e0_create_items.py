import sqlalchemy as sa
from alembic import op

revision = "b81fd1aa73e0"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
    )
