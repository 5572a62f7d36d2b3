"""Three engines in one swarm, each in a container that stands for a machine, and a registry."""

import contextlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests import registry
from tests.ports import free_port
from tests.stack.stack import CHECKOUT, HERE, docker, poll

_IMAGE = "berth-test-server"
# No overlay of a swarm has these addresses, nor has a network that Docker chooses: RFC 2544.
_SUBNETS = [f"198.18.{number}.0/28" for number in range(256)]
# What a machine does: it finds the registry where this one has it. Its engine is told what users
# are told to set, and listens in a folder of this machine as well.
_START = """
sysctl -q -w net.ipv4.conf.all.route_localnet=1
iptables -t nat -A OUTPUT -d 127.0.0.1 -p tcp --dport $REGISTRY_PORT -j DNAT --to $REGISTRY:5000
iptables -t nat -A POSTROUTING -d $REGISTRY -p tcp --dport 5000 -j MASQUERADE
exec dockerd --no-new-privileges -H unix:///run/docker.sock -H unix:///engine/docker.sock
"""


class Machines:
    """Machines by their numbers, from 1: all of them managers.

    Attributes:
        name: How all that is made begins.
        count: How many there are.
        network: The network that they are in.
        https: Ports of 127.0.0.1 that lead to port 443 of each.
    """

    def __init__(self, name: str, count: int = 3) -> None:
        self.name = f"{name}-{CHECKOUT}"
        self.count = count
        self.network = self.name
        self.numbers = range(1, count + 1)
        self.https = {number: free_port() for number in self.numbers}
        self._registry_port = free_port()
        self._prefix = ""
        # A socket's path has a hundred characters at most.
        self._sockets = Path(tempfile.mkdtemp(prefix="berth-"))
        self._pushed: dict[str, str] = {}

    def container(self, number: int) -> str:
        """Return the name of the container that is a machine."""
        return f"{self.name}-{number}"

    def address(self, number: int) -> str:
        """Return the address of a machine, or by 0 of the registry; further ones are free."""
        return f"{self._prefix}{number + 2}"

    def endpoint(self, number: int) -> str:
        """Return what DOCKER_HOST has to be for a machine's engine to be asked."""
        return f"unix://{self._sockets}/{number}/docker.sock"

    def docker(self, number: int, *arguments: str) -> str:
        """Return what a `docker` command prints when a machine's engine is asked."""
        return docker("--host", self.endpoint(number), *arguments)

    def push(self, image: str) -> str:
        """Have an image of this machine in the registry; returns its name, the same everywhere."""
        if image not in self._pushed:
            name = f"127.0.0.1:{self._registry_port}/{image.rpartition('/')[2]}"
            docker("tag", image, name)
            docker("push", "--quiet", name)
            docker("rmi", name)
            self._pushed[image] = name
        return self._pushed[image]

    def push_to(self, repository: str) -> str:
        """Return the name of a repository of the registry."""
        return f"127.0.0.1:{self._registry_port}/{repository}"

    def kill(self, number: int) -> None:
        """Have a machine lose its power."""
        docker("kill", self.container(number))

    def start(self, number: int) -> None:
        """Give it back, and wait for its engine."""
        docker("start", self.container(number))
        self._await(number)

    def restart(self, number: int) -> None:
        """Shut a machine down as its service manager would, and start it."""
        docker("restart", "--timeout=60", self.container(number))
        self._await(number)

    def cut_off(self, number: int) -> None:
        """Have none of a machine's packets reach another one, nor a client."""
        docker("network", "disconnect", self.network, self.container(number))

    def reconnect(self, number: int) -> None:
        """Have them reach it again."""
        address = f"--ip={self.address(number)}"
        docker("network", "connect", address, self.network, self.container(number))

    def leader(self) -> int:
        """Return the machine that is the swarm's leader, as the others see it."""
        for number in self.numbers:
            with contextlib.suppress(AssertionError):
                form = "--format={{.Hostname}} {{.ManagerStatus}}"
                for line in self.docker(number, "node", "ls", form).splitlines():
                    host, _, status = line.partition(" ")
                    if status == "Leader":
                        return int(host.removeprefix("node"))
        raise AssertionError("no machine knows a leader")

    def node(self, number: int, by: int) -> str:
        """Return what a machine's state is, such as `ready active`, as another one sees it."""
        form = "--format={{.Status.State}} {{.Spec.Availability}}"
        return self.docker(by, "node", "inspect", form, f"node{number}")

    def up(self) -> None:
        """Start everything: the registry, the engines, the swarm."""
        docker("build", "--quiet", f"--tag={_IMAGE}", f"{HERE}/server")
        registry.build()
        self._clear()  # of tests that were broken off
        self._create_network()
        docker(
            *("run", "--detach", f"--name={self.name}-registry", f"--network={self.network}"),
            *(f"--ip={self.address(0)}", "--tmpfs=/tmp:mode=1777"),
            *(f"--publish=127.0.0.1:{self._registry_port}:5000", registry.IMAGE),
        )
        for number in self.numbers:
            self._run(number)
        for number in self.numbers:
            self._await(number)
        self.docker(1, "swarm", "init", f"--advertise-addr={self.address(1)}")
        token = self.docker(1, "swarm", "join-token", "--quiet", "manager")
        for number in self.numbers[1:]:
            own = f"--advertise-addr={self.address(number)}"
            self.docker(number, "swarm", "join", own, f"--token={token}", self.address(1))

    def _create_network(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            subnet = random.choice(_SUBNETS)  # noqa: S311 - nobody need be kept from guessing it
            try:
                docker("network", "create", f"--subnet={subnet}", self.network)
            except AssertionError:  # it is somebody's
                if time.monotonic() > deadline:
                    raise
                continue
            self._prefix = subnet.removesuffix("0/28")
            return

    def _run(self, number: int) -> None:
        folder = self._sockets / str(number)
        folder.mkdir()
        docker(
            *("run", "--detach", "--privileged", f"--name={self.container(number)}"),
            *(f"--hostname=node{number}", f"--network={self.network}"),
            *(f"--ip={self.address(number)}", "--tmpfs=/run", f"--volume={folder}:/engine"),
            f"--env=REGISTRY={self.address(0)}",
            f"--env=REGISTRY_PORT={self._registry_port}",
            f"--publish=127.0.0.1:{self.https[number]}:443",
            *(_IMAGE, "sh", "-c", _START),
        )

    def _await(self, number: int) -> None:
        answers = f"DOCKER_HOST={self.endpoint(number)} docker version > /dev/null 2>&1"
        poll(f"the engine of {number}", lambda: os.system(answers) == 0, seconds=60)  # noqa: S605

    def looks(self) -> str:
        """Return what it all looks like: services, their tasks, and what engines said last."""
        said = []
        for number in self.numbers:
            with contextlib.suppress(AssertionError):
                said += [self.docker(number, *what) for what in (("node", "ls"), ("service", "ls"))]
                services = self.docker(number, "service", "ls", "--quiet").split()
                if services:
                    said.append(self.docker(number, "service", "ps", "--no-trunc", *services))
                last = ("service", "logs", "--tail=25")
                said += [self.docker(number, *last, service) for service in services]
                break
        for number in self.numbers:
            with contextlib.suppress(AssertionError):
                said.append(docker("logs", "--tail=25", self.container(number)))
        return "\n\n".join(said)

    def down(self) -> None:
        """Leave nothing of it."""
        self._clear()
        registry.forget(self._registry_port)
        shutil.rmtree(self._sockets)

    def _clear(self) -> None:
        names = docker("ps", "--all", "--quiet", f"--filter=name=^{self.name}-").split()
        if names:
            docker("rm", "--force", "--volumes", *names)
        if docker("network", "ls", "--quiet", f"--filter=name=^{self.network}$"):
            docker("network", "rm", self.network)


@contextlib.contextmanager
def running(name: str, count: int = 3) -> Iterator[Machines]:
    """Run machines in a swarm of their own, and leave nothing behind."""
    machines = Machines(name, count)
    try:
        machines.up()
        yield machines
    finally:
        machines.down()
