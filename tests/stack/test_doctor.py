"""What the doctor says of a real stack, and of one that never started."""

import pytest

from tests.stack.stack import Stack, poll

# What is as it is on a machine for tests: where its images come from, its engine, its neighbours,
# its clock; and that this stack's domain is nobody's.
OF_THE_MACHINE = {"images", "engine", "logs", "clock", "address", "dns", "backups"}


@pytest.fixture(scope="module", autouse=True)
def _sleeper(stack: Stack) -> None:
    """Somebody's query that never ends, from before the other tests on."""
    psql = ("psql", "--dbname=berth", "--command=SELECT pg_sleep(3600) AS forgotten")
    stack.compose("exec", "--detach", "db", *psql)


def test_finds_nothing_wrong_with_a_whole_stack(stack: Stack) -> None:
    """A line for every check, and none of them bad."""
    printed = stack.run("make", "doctor").stdout
    found = stack.doctor()
    unwell = {check for check, one in found.items() if one["level"] != "good"}
    assert unwell <= {*OF_THE_MACHINE, "queries"}, found
    assert all(f" {check} " in printed for check in found)
    assert found["replicas"]["says"] == "4 of 4 are healthy (API_REPLICAS=2)"
    assert found["certificate"]["says"].startswith(f"https://{stack.domain}:{stack.https_port}: by")
    assert found["address"]["level"] == found["dns"]["level"] == "warning"


def test_judges_a_machine_before_anything_is_started(stack: Stack) -> None:
    """And fails only for what would keep it from going live."""
    found = stack.doctor(COMPOSE_PROJECT_NAME="berth-test-nobody", HTTP_PORT="1", HTTPS_PORT="2")
    assert found["start"]["level"] == "warning"
    assert found["ports"]["says"] == "1 and 2 are free"
    assert "replicas" not in found


def test_settings_that_compose_refuses_are_one_line(stack: Stack) -> None:
    """In its own words."""
    (found,) = stack.doctor(API_REPLICAS="abc").values()
    assert found["level"] == "bad"
    assert '"abc"' in found["says"]


def test_an_engine_that_is_away_is_one_line(stack: Stack) -> None:
    """And no traceback."""
    done = stack.run("env", "DOCKER_HOST=unix:///nowhere.sock", "make", "doctor", check=False)
    assert done.returncode != 0
    assert done.stdout.startswith("✗ docker ")
    assert "Traceback" not in done.stderr


def test_names_the_query_that_does_not_end_and_how_to_end_it(stack: Stack) -> None:
    """The way out is a command that works."""

    def warned() -> str:
        found = stack.doctor()["queries"]
        return found["way_out"] if "AS forgotten" in found["says"] else ""

    way_out = poll("the finding", warned)
    stack.run("sh", "-c", way_out.split("`")[1])
    assert stack.doctor()["queries"]["level"] == "good"
