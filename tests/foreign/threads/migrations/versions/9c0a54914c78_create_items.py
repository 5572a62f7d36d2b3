import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "9c0a54914c78"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    )
