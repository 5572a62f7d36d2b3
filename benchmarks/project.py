"""The containers: one project, and so the same data, for every peer in turn."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.cgroups import Cgroup
from benchmarks.peers import BERTH, CORES, Peer
from host.app import prepared
from ops.docker import docker, inspect
from tests.ports import free_port

NAME = "berth-bench"
APP_IMAGE = f"{NAME}-api:current"
OURS = f"--filter=label=com.docker.compose.project={NAME}"

SEED = """
TRUNCATE items;
INSERT INTO items (id, name, description, quantity)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
       'item ' || n, 'A row like any other, with a sentence to carry.', n
  FROM generate_series(1, 10000) n;
VACUUM ANALYZE items;
CHECKPOINT;
"""


@dataclass(frozen=True)
class Container:
    """A running container."""

    service: str
    id: str
    cgroup: Cgroup


@dataclass
class Project:
    """The Compose project, as one peer has it."""

    peer: Peer
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)

    def compose(self, *arguments: str) -> str:
        """Run a `docker compose` command for this peer; a user's own .env stays out of it."""
        settings = {
            "COMPOSE_DISABLE_ENV_FILE": "1",
            "COMPOSE_PROJECT_NAME": NAME,
            "COMPOSE_FILE": self.peer.compose_files,
            "API_IMAGE": APP_IMAGE,
            "API_WORKERS": "1",
            "PROCESSES": str(self.peer.processes),
            "TRAEFIK_THREADS": str(max(1, CORES // 3)),
            "DOMAIN": "localhost",
            "BIND_ADDRESS": "127.0.0.1",
            "HTTP_PORT": str(self.http_port),
            "HTTPS_PORT": str(self.port),
        }
        return docker("compose", "--progress=quiet", *arguments, environment=settings)

    def configuration(self, service: str) -> dict[str, Any]:
        """What Compose makes of a service."""
        found: dict[str, Any] = json.loads(self.compose("config", "--format=json"))["services"]
        return dict(found[service])

    def up(self) -> None:
        """Start everything and wait until it is healthy."""
        self.compose(
            *("up", "--detach", "--wait", "--wait-timeout=120", f"--scale=api={self.peer.scale}")
        )

    def stop(self) -> None:
        """Remove the containers; the data stays. The database gets the time to end well."""
        self.compose("stop", "--timeout=10", "db")
        self.compose("down", "--timeout=0", "--remove-orphans")

    def confine(self, cpus: str) -> None:
        """Have all that runs use some cores only; the engine itself stays where it is."""
        if cpus:
            docker("update", f"--cpuset-cpus={cpus}", *(one.id for one in self.containers()))

    def containers(self) -> list[Container]:
        """Return what runs."""
        return [
            Container(service(one), one["Id"], Cgroup(one["Name"], one["State"]["Pid"]))
            for one in inspected()
        ]

    def seed(self) -> None:
        """Put the same rows there for everybody."""
        (db,) = (one for one in self.containers() if one.service == "db")
        docker(
            *("exec", "--interactive", db.id, "psql", "--no-psqlrc", "--quiet"),
            *("--set=ON_ERROR_STOP=1", "berth"),
            stdin=SEED,
        )


def inspected(*, everything: bool = False) -> list[dict[str, Any]]:
    """Return what the engine knows of the running containers, or of all."""
    ids = docker("ps", "--quiet", *(["--all"] if everything else []), OURS).split()
    return inspect("container", *ids)


def service(container: dict[str, Any]) -> str:
    """Return the service that a container belongs to."""
    return str(container["Config"]["Labels"].get("com.docker.compose.service", "client"))


def image_sizes(project: Project) -> dict[str, float]:
    """Return the app's image in MB: in all, and what it adds to Python's."""
    (image,) = inspect("image", project.configuration("api")["image"])
    arguments = prepared(Project(BERTH).configuration("api")["build"])["args"]
    (base,) = inspect("image", arguments["PYTHON_IMAGE"])
    layers, below = image["RootFS"]["Layers"], base["RootFS"]["Layers"]
    shared = base["Size"] if layers[: len(below)] == below else 0
    return {"image_mb": image["Size"] / 1e6, "image_own_mb": (image["Size"] - shared) / 1e6}


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """Leave nothing but images behind, however this ends."""
    remove()
    try:
        yield
    finally:
        remove()


def remove() -> None:
    """Remove every container, network and volume of the project."""
    if found := docker("ps", "--all", "--quiet", OURS).split():
        docker("rm", "--force", "--volumes", *found)
    if found := docker("network", "ls", "--quiet", OURS).split():
        docker("network", "rm", *found)
    if found := docker("volume", "ls", "--quiet", OURS).split():
        docker("volume", "rm", *found)
