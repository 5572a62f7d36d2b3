"""Commands for whoever runs an app: what they reach, and with whose rights."""

import shlex

from tests.stack.stack import Stack


def test_psql_is_a_session_of_the_schemas_owner(stack: Stack) -> None:
    """So nothing that the app could have made ever runs as superuser; what is given is text."""
    done = stack.run(
        "make", "psql", "SQL=SELECT session_user, current_setting('is_superuser'), '$HOME''s'"
    )
    assert "berth_owner  | off             | $HOME's" in done.stdout
    failed = stack.run("make", "psql", "SQL=SELECT nothing", check=False)
    assert failed.returncode != 0
    assert 'column "nothing" does not exist' in failed.stderr
    # From a file; no further than what fails.
    script = "printf 'SELECT 6 * 7;\\nSELECT nothing;\\nSELECT 13 * 13;' | make psql"
    piped = stack.run("sh", "-c", script, check=False)
    assert piped.returncode != 0
    assert "42" in piped.stdout
    assert "169" not in piped.stdout


def test_psql_says_that_there_is_no_database(stack: Stack) -> None:
    """In a sentence."""
    done = stack.run(
        "env", "COMPOSE_PROJECT_NAME=berth-test-nobody", "make", "psql", "SQL=SELECT 1", check=False
    )
    assert done.stderr.startswith("berth: the database does not run: `make up`")


def test_run_has_the_apps_environment_and_its_rights(stack: Stack) -> None:
    """A command with quotes of both kinds; what leads to the database is the app's own."""
    code = """import os; print("it's", os.environ["PGUSER"])"""
    done = stack.run("make", "run", f"CMD={shlex.join(['python', '-c', code])}")
    assert done.stdout.strip() == "it's berth"
