import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_mock_engine
from sqlalchemy.engine.mock import MockConnection

from app.items.models import metadata
from ops.one_shots import UNKNOWN
from tests.berth.postgres import PASSWORD, ROOT, Postgres
from tests.berth.programs import Environment, eventually, migrate, run

SCHEMA = """
SELECT 'column', table_name, column_name, data_type, is_nullable, column_default
  FROM information_schema.columns
 WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
  FROM pg_constraint
 WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', ''
  FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
ORDER BY 1, 2, 3
"""


def test_migrations_go_up_down_and_up_again(empty: Environment, postgres: Postgres) -> None:
    """Down leaves nothing behind, and the second up makes the same schema as the first."""
    name = empty["DATABASE_NAME"]
    migrate(empty)
    first = postgres.sql(name, SCHEMA)
    done = run(empty, "alembic", "downgrade", "base")
    assert done.returncode == 0, done.stdout
    assert postgres.sql(name, SCHEMA) == ""
    migrate(empty)
    assert postgres.sql(name, SCHEMA) == first


def test_models_and_migrations_describe_the_same_schema(
    empty: Environment, postgres: Postgres
) -> None:
    """Down to the text of constraints, which alembic does not compare."""
    migrate(empty)
    drawn = postgres.create_database()
    engine: MockConnection = create_mock_engine(
        "postgresql+asyncpg://",
        lambda statement, *_: postgres.sql(drawn, str(statement.compile(dialect=engine.dialect))),
    )
    metadata.create_all(engine, checkfirst=False)
    assert postgres.sql(drawn, SCHEMA) == postgres.sql(empty["DATABASE_NAME"], SCHEMA)
    done = run(empty, "alembic", "check")
    assert done.returncode == 0, done.stdout


def test_at_head_there_is_nothing_to_do(migrated: Environment) -> None:
    """It happens at every start of the stack, so not even alembic is imported for it."""
    done = run(migrated | {"PYTHONPROFILEIMPORTTIME": "1"}, "berth.migrate")
    assert done.returncode == 0
    imported = re.findall(r"\| +(asyncpg|alembic)$", done.stdout, re.MULTILINE)
    assert imported == ["asyncpg"]


def test_of_two_migrations_at_once_one_works_and_one_waits(empty: Environment) -> None:
    """Both succeed, and each step has run once."""
    with ThreadPoolExecutor(2) as both:
        done = list(both.map(lambda _: run(empty, "berth.migrate"), range(2)))
    assert [each.returncode for each in done] == [0, 0], [each.stdout for each in done]
    assert sum(each.stdout.count("Running upgrade") for each in done) == 1


def test_an_older_image_leaves_a_newer_schema_alone(empty: Environment, postgres: Postgres) -> None:
    """So that the app can be rolled back after a migration."""
    migrate(empty)
    postgres.sql(empty["DATABASE_NAME"], "UPDATE alembic_version SET version_num = '0007'")
    done = run(empty, "berth.migrate")
    assert done.returncode == 0
    assert "The schema is at 0007, this version needs 0001 and does not know that" in done.stdout
    # By which `make deploy` knows it.
    assert UNKNOWN in done.stdout


def test_a_failing_migration_says_why_and_is_rolled_back(
    empty: Environment, postgres: Postgres, tmp_path: Path
) -> None:
    """The ones before it stay, and the exit code is not 0."""
    _copy_with(
        tmp_path,
        'op.execute("CREATE TABLE half (done int)")\n    op.execute("SELECT * FROM nowhere")',
    )
    done = _run_in(tmp_path, empty)
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("`alembic upgrade head` failed: ")
    assert 'relation "nowhere" does not exist' in last
    found = postgres.sql(
        empty["DATABASE_NAME"], "SELECT version_num, to_regclass('half') FROM alembic_version"
    )
    assert found == "0001|"


def test_two_heads_are_refused_by_name(
    empty: Environment, postgres: Postgres, tmp_path: Path
) -> None:
    """Before anything has changed, with both ways out; the second one works."""
    _copy_with(tmp_path, "pass")
    versions = tmp_path / "migrations/versions"
    other = (versions / "0002_next.py").read_text().replace('"0002"', '"0003"')
    (versions / "0003_other.py").write_text(other)
    done = _run_in(tmp_path, empty)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        "alembic has 2 heads (0002, 0003): join them with `alembic merge heads`, or set "
        "MIGRATE='alembic upgrade heads'"
    )
    assert postgres.sql(empty["DATABASE_NAME"], r"SELECT to_regclass('alembic_version')") == ""
    done = _run_in(tmp_path, empty | {"MIGRATE": f"{sys.executable} -m alembic upgrade heads"})
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_a_migration_that_waits_for_a_table_lets_requests_pass(
    empty: Environment, postgres: Postgres, tmp_path: Path, place: str
) -> None:
    """It gives way every second, tries again, and succeeds once the table is free."""
    migrate(empty)
    name = empty["DATABASE_NAME"]
    if place == "elsewhere":
        file = tmp_path / "url"
        where = f"berth:{PASSWORD}@127.0.0.1:{postgres.port}/{name}"
        file.write_text(f"postgresql://{where}?sslmode=disable\n")
        empty = {"PATH": empty["PATH"], "DATABASE_URL_FILE": str(file)}
        postgres.sql("postgres", "ALTER ROLE berth RESET ALL")
    limit = "CREATE TABLE seen AS SELECT current_setting('statement_timeout')"
    _copy_with(
        tmp_path, f'op.execute("ALTER TABLE items ADD COLUMN extra int"); op.execute("{limit}")'
    )
    with ThreadPoolExecutor(2) as pool:
        pool.submit(postgres.sql, name, "BEGIN; TABLE items; SELECT pg_sleep(60)")
        eventually(lambda: "pg_sleep" in _activity(postgres, name), "held")
        migration = pool.submit(_run_in, tmp_path, empty)
        eventually(lambda: "ALTER TABLE" in _activity(postgres, name), "waiting")
        started = time.monotonic()
        postgres.sql(name, "SELECT count(*) FROM items")
        assert time.monotonic() - started < 3
        eventually(lambda: "ALTER TABLE" not in _activity(postgres, name), "given way")
        postgres.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE query LIKE '%pg_sleep(60)'",
        )
        done = migration.result()
    assert done.returncode == 0, done.stdout
    assert "A table is in use, trying again" in done.stdout
    assert postgres.sql(name, "TABLE seen") == "30s"
    if place == "elsewhere":
        settings = "SELECT count(*) FROM pg_db_role_setting WHERE setrole = 'berth'::regrole"
        assert postgres.sql(name, settings) == "0"


def _copy(target: Path) -> None:
    for folder in ("app", "berth", "migrations"):
        shutil.copytree(ROOT / folder, target / folder)
    shutil.copy(ROOT / "pyproject.toml", target)


def _copy_with(target: Path, upgrade: str) -> None:
    """The app with one more migration."""
    _copy(target)
    (target / "migrations/versions/0002_next.py").write_text(
        "from alembic import op\n\n"
        'revision = "0002"\ndown_revision = "0001"\n\n\n'
        f"def upgrade() -> None:\n    {upgrade}\n"
    )


def _run_in(
    folder: Path, environment: Environment, *command: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *(command or ("berth.migrate",))],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def _activity(postgres: Postgres, database: str) -> str:
    return postgres.sql(
        "postgres",
        f"SELECT query FROM pg_stat_activity WHERE datname = '{database}' AND state = 'active'",
    )
