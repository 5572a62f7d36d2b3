from alembic import context
from shop.main import engine
from sqlmodel import SQLModel

with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=SQLModel.metadata)
    with context.begin_transaction():
        context.run_migrations()
