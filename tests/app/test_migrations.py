from tests.app.conftest import alembic


def test_models_and_migrations_describe_the_same_schema(database: None) -> None:  # noqa: ARG001
    """Or else `alembic revision --autogenerate` has something to write."""
    alembic("check")
