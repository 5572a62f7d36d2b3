"""The load: a container in the proxy's own network namespace, so that it crosses no bridge."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cgroups import Cgroup
from benchmarks.peers import Peer
from benchmarks.project import NAME, Container
from ops.docker import docker, inspect

IMAGE = f"{NAME}-client"
CONNECTIONS = 32


@dataclass
class Result:
    """What a load has seen."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return (self.requests - self.failed) / self.seconds


def build() -> None:
    """Make the image that the load comes from."""
    docker("build", "--quiet", f"--tag={IMAGE}", str(Path(__file__).parent / "client"))


class Client:
    """A container to send requests from."""

    def __init__(self, peer: Peer, container: str) -> None:
        self._peer = peer
        self._container = container
        (state,) = inspect("container", container)
        self._cgroup = Cgroup(state["Name"], state["State"]["Pid"])

    def cpu_seconds(self) -> float:
        """Processor time that the load has taken so far."""
        return self._cgroup.cpu_seconds()

    def saturate(self, kind: str, seconds: float) -> Result:
        """Ask as fast as answers come, on 32 connections: `row`, `page`, `create` or `live`."""
        return self._run(
            *("wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds:.0f}s"),
            *("--timeout=5s", "--script=/client/requests.lua", self._peer.url, "--", kind),
            seconds=seconds,
        )

    def ask_steadily(self, rate: float, seconds: float) -> Result:
        """Read rows at a rate, whether or not the answers keep up."""
        return self._run(
            *("python3", "/client/steady.py", self._peer.url, f"{rate:.1f}", f"{seconds}"),
            seconds=seconds,
        )

    def _run(self, *command: str, seconds: float) -> Result:
        printed = docker("exec", self._container, "timeout", f"{seconds + 20:.0f}", *command)
        return Result(**json.loads(printed.splitlines()[-1]))


@contextmanager
def beside(peer: Peer, containers: list[Container], cpus: str = "") -> Iterator[Client]:
    """Run a client in the network namespace of the peer's proxy, on some cores or all."""
    (proxy,) = (one for one in containers if one.service == peer.proxy)
    container = docker(
        *("run", "--detach", "--init", f"--network=container:{proxy.id}"),
        f"--cpuset-cpus={cpus}",
        *(f"--label=com.docker.compose.project={NAME}", IMAGE),
    )
    try:
        yield Client(peer, container)
    finally:
        docker("rm", "--force", container)
