"""One peer, measured once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks import client, starts
from benchmarks.client import Client, Result
from benchmarks.peers import Peer
from benchmarks.project import Container, Project, image_sizes

Say = Callable[[str], None]

WARM_SECONDS = 1
OTHERS_SECONDS = 2
GROUPS = {"traefik": "proxy", "nginx": "proxy", "caddy": "proxy", "api": "api", "db": "db"}


@dataclass(frozen=True)
class Cpus:
    """The cores that the stack and the load may use, as Docker writes them; empty for all."""

    stack: str = ""
    load: str = ""


@dataclass
class Visit:
    """What was measured; times in the units that their names say.

    Attributes:
        peer: Its name.
        start_seconds: From `up` to the first row read over HTTPS.
        wait_seconds: From `up` to the return of `up --wait`.
        start_parts: Of that, the services that wait for one another, in seconds.
        row, page, create, live: At saturation.
        half: Row reads at half of the rate that saturates.
        cpu_us: Processor time per row read at saturation: proxy, api, db, rest.
        load_us: What the load itself takes for each.
        memory_rest_mib, memory_load_mib: All containers of the app, before and after the load.
        image_mb, image_own_mb: The app's image; without the layers of Python's.
    """

    peer: str
    start_seconds: float = 0
    wait_seconds: float = 0
    start_parts: dict[str, float] = field(default_factory=dict)
    row: Result | None = None
    page: Result | None = None
    create: Result | None = None
    live: Result | None = None
    half: Result | None = None
    cpu_us: dict[str, float] = field(default_factory=dict)
    load_us: float = 0
    memory_rest_mib: float = 0
    memory_load_mib: float = 0
    image_mb: float = 0
    image_own_mb: float = 0


def visit(
    peer: Peer, seconds: float, say: Say, *, rows_only: bool = False, cpus: Cpus | None = None
) -> Visit:
    """Start a peer, measure it, and stop it.

    Args:
        peer: Which one.
        seconds: How long to read rows, at saturation and then at half of it.
        say: Is told what is being done.
        rows_only: Leave out everything but row reads at saturation.
        cpus: Where the load is made, and where all else runs once it has started.
    """
    found = Visit(peer.name)
    with running(peer, say, found, cpus or Cpus()) as (containers, load):
        say("row reads")
        load.saturate("row", WARM_SECONDS)
        before, before_load = cpu(containers), load.cpu_seconds()
        found.row = load.saturate("row", seconds)
        spent = {name: used - before[name] for name, used in cpu(containers).items()}
        found.cpu_us = {name: used / found.row.requests * 1e6 for name, used in spent.items()}
        found.load_us = (load.cpu_seconds() - before_load) / found.row.requests * 1e6
        if not rows_only:
            say("half of that")
            found.half = load.ask_steadily(found.row.rate / 2, seconds)
        if not rows_only and peer.kind != "workers":  # which run the same code for these
            say("pages, writes, /livez")
            found.page = load.saturate("page", OTHERS_SECONDS)
            found.create = load.saturate("create", OTHERS_SECONDS)
            found.live = load.saturate("live", OTHERS_SECONDS)
        found.memory_load_mib = memory(containers)
        say("stopping")
    return found


@contextmanager
def running(
    peer: Peer, say: Say, found: Visit, cpus: Cpus
) -> Iterator[tuple[list[Container], Client]]:
    """Start a peer, noting what its start costs, with a client beside it."""
    project = Project(peer)
    try:
        say("starting")
        started = starts.start(project)
        found.start_seconds, found.wait_seconds = started.answer, started.wait
        found.start_parts = started.parts
        project.seed()
        sizes = image_sizes(project)
        found.image_mb, found.image_own_mb = sizes["image_mb"], sizes["image_own_mb"]
        containers = project.containers()
        found.memory_rest_mib = memory(containers)
        project.confine(cpus.stack)
        with client.beside(peer, containers, cpus.load) as load:
            yield containers, load
    finally:
        project.stop()


def cpu(containers: list[Container]) -> dict[str, float]:
    """Processor seconds so far, by what the containers do."""
    used = dict.fromkeys(("proxy", "api", "db", "rest"), 0.0)
    for one in containers:
        used[GROUPS.get(one.service, "rest")] += one.cgroup.cpu_seconds()
    return used


def memory(containers: list[Container]) -> float:
    """What the app's containers hold."""
    return sum(one.cgroup.memory_mib() for one in containers if one.service == "api")
