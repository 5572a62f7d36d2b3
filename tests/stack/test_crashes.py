"""What is said of a container that has crashed is what became of it."""

from collections.abc import Iterator

import pytest

from ops.docker import inspect
from ops.rollout import what_became_of
from ops.stack import Container, Stack, State
from tests.stack.stack import CHECKOUT, docker, poll

NAME = f"berth-test-crashes-{CHECKOUT}"


@pytest.fixture
def crashing() -> Iterator[str]:
    """A container that ends with exit code 3 once a second, and comes back."""
    image = Stack.read().service("db")["image"]
    label = "--label=com.docker.compose.service=api"
    beside = ("--restart=unless-stopped", "--tmpfs=/var/lib/postgresql", "--entrypoint=sh")
    script = "sleep 1; exit 3"
    docker("run", "--detach", f"--name={NAME}", label, *beside, image, "-c", script)
    yield NAME
    docker("rm", "--force", NAME)


def test_exit_code_is_that_of_the_crash_though_it_runs_again(crashing: str) -> None:
    """By then, the engine's own answer is 0."""

    def back() -> Container | None:
        found = Container.from_inspect(inspect("container", crashing)[0])
        return found if found.restarts and found.state is not State.CRASHING else None

    replica = poll("a new start", back)
    assert replica.exit_code == 0
    # A busy engine forgets its events within seconds.
    assert what_became_of(replica) in {f"{NAME} ended with exit code 3", f"{NAME} crashed"}
