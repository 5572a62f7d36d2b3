from collections.abc import Generator, Iterator

import pytest

from tests.swarm.machines import Machines, running
from tests.swarm.swarm import Swarm, deployed


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
