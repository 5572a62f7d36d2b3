"""The same events on a plain `docker stack deploy`: a comparison, not a promise."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.swarm import plain as stack
from tests.swarm.events import (
    kill_machine,
    kill_replica,
    restart_each,
    revive_machine,
    under_load,
)
from tests.swarm.swarm import BAD, Swarm

pytestmark = pytest.mark.skipif("PLAIN" not in os.environ, reason="`PLAIN=1 make test-swarm`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where its files are."""
    return tmp_path_factory.mktemp("plain")


@pytest.fixture(scope="module")
def plain(swarm: Swarm, folder: Path) -> Iterator[Swarm]:
    """It, in four replicas."""
    with stack.instead(swarm, folder) as plain:
        yield plain


def test_deploy_and_bad_deploy(swarm: Swarm, plain: Swarm, folder: Path) -> None:
    """What was there before comes back."""
    good, bad = swarm.build(), swarm.build(code=BAD)
    under_load(plain, "deploy", stack.deploy(plain, folder, good))
    under_load(plain, "bad deploy", stack.deploy(plain, folder, bad))
    stack.bring(plain, folder, good)


def test_killed_replica(plain: Swarm) -> None:
    """Another one comes up."""
    under_load(plain, "SIGKILL of a replica", kill_replica(plain))


@pytest.mark.parametrize("whose", ["a machine", "the leader"])
def test_machine_that_dies(plain: Swarm, whose: str) -> None:
    """Clients are led away from it as they are elsewhere."""
    leader = plain.machines.leader()
    dead = leader if whose == "the leader" else leader % plain.machines.count + 1
    try:
        under_load(plain, f"{whose} dies", kill_machine(plain, dead))
    finally:
        revive_machine(plain, dead)


def test_each_machine_is_restarted_in_turn(plain: Swarm) -> None:
    """Drained, with clients led to the others."""
    under_load(plain, "each drained and restarted", restart_each(plain))
