"""`make swarm-down`: stop everything on a swarm, its releases and secrets included."""

import sys
import time

from ops import program
from ops.docker import docker
from ops.swarm import engine, source
from ops.swarm.engine import NAMESPACE
from ops.terminal import Terminal

_POLL_SECONDS = 0.5


def down(terminal: Terminal) -> None:
    """Remove the stack, and wait until its containers are gone from every machine."""
    engine.require_manager()
    stack = source.name()
    with terminal.step(f"stopping {stack}"):
        docker("stack", "rm", stack)
        # A network is there for as long as anything is in it.
        while docker("network", "ls", "--quiet", f"--filter=label={NAMESPACE}={stack}"):
            terminal.checkpoint()
            time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(program.run(down, "the same command goes on from here", program.on_a_swarm))
