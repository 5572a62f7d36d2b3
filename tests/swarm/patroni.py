"""The example with its database on the same three machines."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.stack.authority import Authority
from tests.stack.stack import DOMAIN, REPOSITORY, docker, image
from tests.swarm.database import Database
from tests.swarm.machines import Machines
from tests.swarm.swarm import Swarm, stack_on

_IMAGE = "berth-test-patroni:1"
# In the container of a member.
PATRONICTL = ("patronictl", "--config-file=/tmp/patroni.yaml")
_BACKUPS = "/srv/backups"


@dataclass(frozen=True)
class Members(Database):
    """The members of the database, as they are asked inside their machines.

    Attributes:
        machines: Of each number, the machine of the member of that number.
        project: The stack's name.
    """

    machines: Machines
    project: str

    def run(self, service: str, *command: str) -> str:
        """Return what a command prints in the container of a service, wherever it runs."""
        for number in self.machines.numbers:
            with contextlib.suppress(AssertionError):
                label = f"--filter=label=com.docker.swarm.service.name={self.project}_{service}"
                for container in self.machines.docker(number, "ps", "--quiet", label).split():
                    return self.machines.docker(number, "exec", container, *command)
        raise AssertionError(f"no machine runs {service}")

    def roles(self, besides: int = 0) -> dict[str, str]:
        """Return what each member is, as one of them sees it that is not on a machine."""
        for number in self.machines.numbers:
            if number != besides:
                with contextlib.suppress(AssertionError, ValueError):
                    # It complains of an etcd that is gone.
                    ask = f"{' '.join(PATRONICTL)} list --format=json 2> /dev/null"
                    said = json.loads(self.run(f"postgres{number}", "sh", "-c", ask))
                    running = [one for one in said if one["State"] in {"running", "streaming"}]
                    return {one["Member"]: one["Role"] for one in running}
        return {}

    def machine(self, role: str, besides: int = 0) -> int:
        """Return the machine of the first member that is this; 0 for none."""
        found = self.roles(besides).items()
        return next((int(name[-1]) for name, what in found if what == role), 0)

    def sql(self, query: str, database: str = "berth") -> str:
        """Return what a query yields to the superuser of the primary."""
        psql = ("psql", "-qAtX", f"--dbname={database}", f"--command={query}")
        return self.run(f"postgres{self.machine('Leader')}", *psql)

    def is_whole(self) -> bool:
        """Whether there are three servers, one of them the synchronous standby, and all of etcd."""
        etcd = ",".join(f"http://etcd{number}:2379" for number in self.machines.numbers)
        try:  # it fails where one of them does not answer
            self.run("etcd1", "etcdctl", f"--endpoints={etcd}", "endpoint", "health")
        except AssertionError:
            return False
        return sorted(self.roles().values()) == ["Leader", "Replica", "Sync Standby"]


@contextlib.contextmanager
def deployed(machines: Machines, scratch: Path, **settings: str) -> Iterator[Swarm]:
    """Deploy the example."""
    authority = Authority(scratch / "authority")
    authority.certify(DOMAIN)
    docker(
        *("build", "--quiet", f"--tag={_IMAGE}", f"--build-arg=POSTGRES_IMAGE={image('postgres')}"),
        *(f"--file={REPOSITORY}/db/patroni/Dockerfile", str(REPOSITORY)),
    )
    for number in machines.numbers:
        label = f"--label-add=berth.database={number}"
        machines.docker(1, "node", "update", label, f"node{number}")
        own = ("install", "-d", "-o", "999", "-g", "999", _BACKUPS)
        docker("exec", machines.container(number), *own)
    given = {"PATRONI_IMAGE": machines.push(_IMAGE), "BACKUP_DIR": _BACKUPS} | settings
    stack = stack_on(machines, "berth-test-members", scratch, authority, **given)
    members = Members("", authority.file.parent, authority.file, machines, stack.project)
    swarm = Swarm(machines, stack, members)
    print(swarm.make("swarm-deploy", f"IMAGE={swarm.build()}"))
    yield swarm
    swarm.make("swarm-down")
