"""The table as migrations see it. Never imported while serving: SQLAlchemy costs memory."""

from sqlalchemy import CheckConstraint, Column, DateTime, Integer, MetaData, Table, Text, Uuid, text

metadata = MetaData(
    naming_convention={"pk": "%(table_name)s_pkey", "ck": "%(table_name)s_%(constraint_name)s"}
)

items = Table(
    "items",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("uuidv7()")),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("quantity", Integer, nullable=False, server_default=text("0")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
    CheckConstraint("char_length(description) <= 2000", name="description_length"),
    CheckConstraint("quantity >= 0", name="quantity_not_negative"),
)
