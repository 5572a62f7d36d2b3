from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.swarm.machines import Machines, running
from tests.swarm.swarm import Swarm, deployed

# What `make test` has the time for; `make test-swarm` runs all.
BRIEF = {
    "test_app_is_served_by_every_machine",
    "test_doctor_finds_all_well",
    "test_migration_that_fails_changes_nothing_else",
    "test_what_cannot_work_is_said_in_a_sentence",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless these tests are asked for."""
    if any("tests/swarm" in one for one in config.args):
        return
    here = Path(__file__).parent
    late = [
        one
        for one in items
        if one.path.is_relative_to(here) and getattr(one, "originalname", "") not in BRIEF
    ]
    config.hook.pytest_deselected(items=late)
    items[:] = [one for one in items if one not in late]


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """Three machines in a swarm; a test leaves them as it found them."""
    with running("berth-test-swarm") as machines:
        yield machines


@pytest.fixture(scope="session")
def swarm(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """The example in four replicas on them; a test leaves four healthy ones."""
    with deployed(machines, tmp_path_factory.mktemp("swarm")) as swarm:
        yield swarm


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a swarm looked like when its test failed: it is gone by the time anybody reads."""
    seen = yield
    if seen.failed:
        for one in item.funcargs.values():
            machines = one.machines if isinstance(one, Swarm) else one
            if isinstance(machines, Machines):
                seen.sections.append((f"{machines.name}, when it failed", machines.looks()))
    return seen
