"""create items"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("quantity", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("items_name_length")),
        sa.CheckConstraint(
            "char_length(description) <= 2000", name=op.f("items_description_length")
        ),
        sa.CheckConstraint("quantity >= 0", name=op.f("items_quantity_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("items_pkey")),
    )


def downgrade() -> None:
    op.drop_table("items")
