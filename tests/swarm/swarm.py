"""The example on three machines, as its users reach it: by any of them."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.stack.authority import Authority
from tests.stack.load import ROWS, Load, assert_among
from tests.stack.stack import DOMAIN, HERE, REPOSITORY, Stack, copy_of_repository, image
from tests.swarm.database import Database, elsewhere
from tests.swarm.machines import Machines

# What a version begins with that migrates, and then does not serve.
BAD = """
import sys
if not any(one in " ".join(sys.orig_argv) for one in ("importing", "migrate", "pytest")):
    sys.exit("this version does not start")
"""


@dataclass
class Spread(Stack):
    """A stack that is asked at its machines' addresses in turn.

    Attributes:
        ports: Those of the machines that clients are led to.
    """

    ports: dict[int, int] = field(default_factory=dict)
    _turns: "itertools.count[int]" = field(default_factory=itertools.count)

    def url(self, path: str) -> str:
        """Return the HTTPS address of a path at the next machine."""
        ports = list(self.ports.values())
        return f"https://127.0.0.1:{ports[next(self._turns) % len(ports)]}{path}"


@dataclass
class Swarm:
    """Machines, a database elsewhere, and who deploys to them.

    Attributes:
        machines: All of them managers.
        stack: What is deployed, and with which variables.
        database: Where its rows are.
        design: What it is called in the table.
        ready: A path that answers once a machine leads to a replica.
        health: What the engine says of a container that serves.
    """

    machines: Machines
    stack: Spread
    database: Database
    design: str = "three machines"
    ready: str = "/readyz"
    health: str = "healthy"
    _builds: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def build(self, *, code: str = "") -> str:
        """Build a version with further code, push it, and return its image's name."""
        main = self.stack.folder / "app" / "main.py"
        before = main.read_text()
        number = next(self._builds)
        name = self.machines.push_to(f"shop:{number}")
        main.write_text(f"{code}{before}\n# {number}\n")
        engine = self.stack.environment.pop("DOCKER_HOST")
        try:
            self.stack.run("make", "image", f"PUSH={name}")
        finally:
            self.stack.environment["DOCKER_HOST"] = engine
            main.write_text(before)
        return name

    def make(self, *words: str, check: bool = True) -> str:
        """Return what `make` prints on both outputs, by way of a machine's engine."""
        done = self.stack.run("make", *words, check=check)
        return done.stdout + done.stderr

    def by(self, number: int) -> None:
        """Have a machine be the one whose engine is asked."""
        self.stack.environment["DOCKER_HOST"] = self.machines.endpoint(number)

    def tasks(self, service: str = "api") -> dict[str, str]:
        """Return on which machine each task is that serves, by container."""
        project = self.stack.project
        found: dict[str, int] = {}
        for number in self.machines.numbers:
            with contextlib.suppress(AssertionError):
                names = self.machines.docker(
                    *(number, "ps", "--quiet", f"--filter=health={self.health}"),
                    f"--filter=label=com.docker.swarm.service.name={project}_{service}",
                )
                found |= dict.fromkeys(names.split(), number)
        return {task: f"node{number}" for task, number in found.items()}

    def assert_stored(self, load: Load) -> None:
        """Every POST that was answered 201 has its row, and every row is of one POST."""
        assert_among(json.loads(self.database.sql(ROWS)), load)


def stack_on(
    machines: Machines, project: str, scratch: Path, authority: Authority, **settings: str
) -> Spread:
    """Return a stack with the example, still to be deployed.

    Args:
        machines: Where to.
        project: Its name.
        scratch: A folder for a copy of the repository.
        authority: Who issued its certificate.
        settings: Further variables.
    """
    folder = authority.file.parent
    given = {
        "DOCKER_HOST": machines.endpoint(1),
        "DOMAIN": DOMAIN,
        "TLS_CERTIFICATE": f"{folder}/{DOMAIN}.pem",
        "TLS_KEY": f"{folder}/{DOMAIN}-key.pem",
        "TRAEFIK_IMAGE": machines.push(image("traefik")),
        "HAPROXY_IMAGE": machines.push(image("haproxy")),
        "COMPOSE_FILE": f"compose.yaml:{HERE}/compose.faults.yaml",
        "FAULTS_FILE": f"{REPOSITORY}/tests/faults.py",
        # What the machines' own ports are; those of this machine lead there.
        "HTTP_PORT": "80",
        "HTTPS_PORT": "443",
        # All of a load comes from one address, which is no client's way of using it.
        "RATE_LIMIT": "0",
        "CLIENT_IN_FLIGHT": "100000",
        "RESPONSE_SECONDS": "10",
    }
    copy, ports = copy_of_repository(scratch), dict(machines.https)
    return Spread(project, given | settings, copy, authority.file, ports=ports)


@contextlib.contextmanager
def deployed(machines: Machines, scratch: Path) -> Iterator[Swarm]:
    """Deploy the example, and leave machines as they were."""
    authority = Authority(scratch / "authority")
    authority.certify(DOMAIN)
    with elsewhere(machines, authority) as database:
        stack = stack_on(
            machines,
            "berth-test-swarm",
            scratch,
            authority,
            DATABASE_URL_FILE=str(database.url),
            DATABASE_CA=str(database.authority),
        )
        swarm = Swarm(machines, stack, database)
        swarm.make("swarm-deploy", f"IMAGE={swarm.build()}")
        yield swarm
        swarm.make("swarm-down")
