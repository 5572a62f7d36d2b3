"""What keeps an app from being imported is said once, before anything is migrated."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.berth.postgres import ROOT

WAY_OUT = "set it in app.env, or as a file in secrets/"
SETTINGS = """
from pydantic import BaseModel
class Shop(BaseModel):
    stripe_key: str
    webhook: str
Shop()
"""
THREAD = """
import threading, time
threading.Thread(target=time.sleep, args=(3600,)).start()
app = __import__("fastapi").FastAPI()
"""


def imported(folder: Path, main: str | None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Have `migrate` import an app that is but one file."""
    if main is not None:
        (folder / "main.py").write_text(main)
    environment = {"PYTHONPATH": str(ROOT), "APP_FILES": str(folder), "LOG_FORMAT": "text"}
    password = folder / "password"
    password.write_text("hunter2")
    leads = {"DATABASE_HOST": "db", "DATABASE_PASSWORD_FILE": str(password)}
    return subprocess.run(
        [sys.executable, "-m", "berth.importing"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment, **leads, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("main", "says"),
    [
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("app = 1 +", "SyntaxError: invalid syntax (main.py, line 1)"),
        (
            "import os\nos.environ['STRIPE_KEY']",
            f"there is no variable STRIPE_KEY: {WAY_OUT}",
        ),
        (
            SETTINGS,
            f"Shop: stripe_key: Field required; webhook: Field required: {WAY_OUT}",
        ),
        ("{}['STRIPE_KEY']", "KeyError: 'STRIPE_KEY'"),
    ],
)
def test_what_the_apps_own_code_raises_is_its_own_traceback_and_a_sentence(
    tmp_path: Path, main: str, says: str
) -> None:
    """The last line, which others quote, has what is missing and where it goes."""
    done = imported(tmp_path, main)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert 'main.py", line' in done.stderr
    assert done.stderr.splitlines()[-1] == f"the app cannot be imported: {says}"


def test_where_no_app_is_the_places_are_named(tmp_path: Path) -> None:
    """In a sentence alone."""
    done = imported(tmp_path, None)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"there is no app in {tmp_path}: neither APP nor" in done.stderr


def test_an_app_that_ends_itself_is_heard(tmp_path: Path) -> None:
    """As far as it says anything."""
    done = imported(tmp_path, "raise SystemExit('a setting is missing')")
    assert (done.returncode, done.stderr) == (1, "a setting is missing\n")


@pytest.mark.parametrize("connect", ["psycopg.connect()", "engine.connect()", "asyncio.run(go())"])
def test_an_app_that_wants_its_database_is_judged_by_its_replicas(
    tmp_path: Path, connect: str
) -> None:
    """It gets none here, with whose owner's rights it could make tables before migrations do."""
    main = f"""
import asyncio, os, asyncpg, psycopg, sqlalchemy
assert "hunter2" not in str(dict(os.environ))
engine = sqlalchemy.create_engine(os.environ["DATABASE_URL"].replace(":", "+psycopg:", 1))
async def go():
    await asyncpg.connect()
{connect}
"""
    done = imported(tmp_path, main)
    assert done.returncode == 0, done.stderr
    assert "the app wants its database while it is imported: replicas will tell" in done.stderr


def test_an_app_that_can_be_imported_has_done_its_part(tmp_path: Path) -> None:
    """With the variables of app.env, and whatever it has left running."""
    (tmp_path / "app.env").write_text("USER_OF=${PGUSER}\n")
    main = f"import os\nassert os.environ['USER_OF'] == 'berth'\n{THREAD}"
    done = imported(tmp_path, main, DATABASE_USER="berth_owner")
    assert (done.returncode, done.stderr) == (0, "")
