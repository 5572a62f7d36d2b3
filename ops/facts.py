"""What the checks and the advice look at, read once."""

import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from host.commands import output
from ops.docker import docker
from ops.stack import Container, Stack, running

RECENT = timedelta(minutes=10)
# What the kernel logs of a kill, after the seconds since the machine's start.
_KILL = re.compile(r"\[ *(\d+\.\d+)\].* oom-kill:.*")


@dataclass(frozen=True)
class Facts:
    """What the checks look at, read once."""

    stack: Stack
    containers: list[Container]
    # What `docker info` says.
    engine: dict[str, Any]
    now: datetime
    # Names each container that ran out of memory lately: Docker's own note ends with a restart.
    out_of_memory: str

    @classmethod
    def read(cls) -> "Facts":
        """Ask Docker.

        Raises:
            UserError: It does not answer, or Compose does not accept the configuration.
        """
        stack = Stack.read()
        events = docker(
            *("events", f"--since={RECENT.seconds}s", "--until=0s", "--filter=event=oom"),
            "--format={{.Actor.ID}}",
        )
        # Docker soon forgets; the kernel does not, but tells root alone.
        killed = kills(output("dmesg") or "", since=time.monotonic() - RECENT.total_seconds())
        return cls(
            stack=stack,
            containers=stack.containers(),
            engine=json.loads(docker("info", "--format=json")),
            now=datetime.now(UTC),
            out_of_memory=f"{events}\n{killed}",
        )

    def of(self, service: str) -> list[Container]:
        """Return the containers of a service."""
        return [container for container in self.containers if container.service == service]

    def running(self, service: str) -> list[Container]:
        """Return those of a service that nobody stopped."""
        return running(self.of(service))

    def variable(self, name: str) -> str:
        """Return an environment variable of Traefik's, blank if it has none."""
        return str(self.stack.service("traefik")["environment"].get(name) or "")


def kills(kernel_log: str, since: float) -> str:
    """Return the lines on out-of-memory kills, since so many seconds after the machine's start."""
    matches = (_KILL.search(line) for line in kernel_log.splitlines())
    return "\n".join(match.group() for match in matches if match and float(match[1]) >= since)
