import sqlalchemy as sa
from alembic import op

revision = "e2412789c190"
down_revision = "9c0a54914c78"


def upgrade() -> None:
    op.add_column("items", sa.Column("price", sa.Integer()))
