"""What a swarm runs, as one of its managers tells."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from host.commands import UserError
from ops.docker import DockerError, docker, inspect, tail
from ops.swarm.stack_file import VERSION

# States that a task does not leave: its place is taken by another one.
_ENDED = {"complete", "failed", "shutdown", "rejected", "orphaned", "remove"}
NAMESPACE = "com.docker.stack.namespace"


def require_manager() -> None:
    """Make sure that the engine that is asked is a swarm's manager, and that there is a quorum.

    Raises:
        UserError: It is not; the sentence says the way out.
    """
    state = docker("info", "--format={{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}")
    if state != "active true":
        raise UserError(
            "this engine is no manager of a swarm: run it on a machine that is, or name one with "
            "DOCKER_HOST=ssh://…; docs/three-machines.md says how a swarm begins"
        )
    try:
        docker("node", "ls", "--quiet")
    except DockerError as error:
        raise UserError(
            f"the swarm has lost its quorum ({tail(str(error), 1)}): what runs goes on; see "
            "docs/three-machines.md"
        ) from None


@dataclass(frozen=True)
class Task:
    """A container that is wanted, or was, and what became of it."""

    id: str
    node: str
    state: str
    wanted: str
    error: str
    version: tuple[str, str]

    @classmethod
    def from_inspect(cls, found: dict[str, Any]) -> "Task":
        """Read what `docker inspect` says."""
        status = found["Status"]
        code = status.get("ContainerStatus", {}).get("ExitCode")
        error = status.get("Err") or (f"exit code {code}" if code else "")
        return cls(
            id=found["ID"],
            node=found.get("NodeID", ""),
            state=status["State"],
            wanted=found["DesiredState"],
            error=error,
            version=_version(found["Spec"]),
        )

    @property
    def has_ended(self) -> bool:
        """Whether nothing will come of it any more."""
        return self.state in _ENDED


@dataclass(frozen=True)
class Service:
    """A service of a stack: what it shall be and what there is of it."""

    name: str
    labels: dict[str, str]
    version: tuple[str, str]
    wanted: int
    update: str
    message: str
    tasks: list[Task]

    @property
    def present(self) -> list[Task]:
        """The tasks that shall run."""
        return [one for one in self.tasks if one.wanted == "running"]

    @property
    def fresh(self) -> list[Task]:
        """Those of them that are of the present specification."""
        return [one for one in self.present if one.version == self.version]

    @property
    def running(self) -> list[Task]:
        """Those of the present specification that are healthy."""
        return [one for one in self.fresh if one.state == "running"]

    @property
    def is_settled(self) -> bool:
        """Whether all that shall run does, is of the present specification, and was watched."""
        return len(self.running) == len(self.present) == self.wanted and self.update != "updating"

    @property
    def went_back(self) -> bool:
        """Whether the swarm itself gave an update up."""
        return self.update.startswith(("rollback", "paused"))

    @property
    def ill(self) -> Task | None:
        """The newest of its tasks that say what is wrong with them."""
        return next((one for one in self.tasks if one.error), None)


def services(stack: str) -> dict[str, Service]:
    """Return the services of a stack, by their names in its file."""
    names = docker("service", "ls", "--quiet", f"--filter=label={NAMESPACE}={stack}").split()
    found = inspect("service", *names)
    tasks = _tasks([one["ID"] for one in found])
    machines = nodes() if any("Global" in one["Spec"]["Mode"] for one in found) else []
    made = {}
    for one in found:
        mode = one["Spec"]["Mode"]
        status = one.get("UpdateStatus", {})
        name = one["Spec"]["Name"].removeprefix(f"{stack}_")
        constraints = one["Spec"]["TaskTemplate"].get("Placement", {}).get("Constraints", [])
        on_each = sum(one.takes(constraints) for one in machines) if "Global" in mode else 0
        made[name] = Service(
            name=name,
            labels=one["Spec"]["Labels"],
            version=_version(one["Spec"]["TaskTemplate"]),
            wanted=mode.get("Replicated", {}).get("Replicas", on_each),
            update=status.get("State", ""),
            message=status.get("Message", ""),
            tasks=tasks.get(one["ID"], []),
        )
    return made


def _version(spec: dict[str, Any]) -> tuple[str, str]:
    """Return what tells a task's specification from another one; engines add their defaults."""
    container = spec["ContainerSpec"]
    return container["Image"], container.get("Labels", {}).get(VERSION, "")


def _tasks(services: list[str]) -> dict[str, list[Task]]:
    """Return the tasks of services by their ids, the newest first."""
    if not services:
        return {}
    listed = docker("service", "ps", "--quiet", "--no-trunc", *services).split()
    found: dict[str, list[Task]] = {}
    made = sorted(_inspect_tasks(listed), key=lambda one: str(one["CreatedAt"]), reverse=True)
    for one in made:
        found.setdefault(one["ServiceID"], []).append(Task.from_inspect(one))
    return found


def _inspect_tasks(ids: list[str]) -> list[dict[str, Any]]:
    if not ids:
        return []
    try:
        found: list[dict[str, Any]] = json.loads(docker("inspect", "--type=task", *ids))
    except DockerError:
        # One of them is gone by now.
        return [] if len(ids) == 1 else [one for id_ in ids for one in _inspect_tasks([id_])]
    return found


@dataclass(frozen=True)
class Node:
    """A machine of the swarm."""

    id: str
    name: str
    state: str
    availability: str
    is_manager: bool
    reachability: str
    address: str
    version: str
    labels: dict[str, str]

    @property
    def takes_tasks(self) -> bool:
        """Whether containers are started on it."""
        return self.state == "ready" and self.availability == "active"

    def takes(self, constraints: Iterable[str]) -> bool:
        """Whether those of a service that is on each such machine are started on it."""
        return self.takes_tasks and self.meets(constraints)

    def meets(self, constraints: Iterable[str]) -> bool:
        """Whether it is what `node.role` and `node.labels` shall be."""
        known = {f"node.labels.{name}": value for name, value in self.labels.items()}
        known["node.role"] = "manager" if self.is_manager else "worker"
        sides = (re.split(r"\s*==\s*", one) for one in constraints)
        return all(known.get(name) == value for name, value in sides)


def nodes() -> list[Node]:
    """Return the machines."""
    found = inspect("node", *docker("node", "ls", "--quiet").split())
    return sorted(
        (
            Node(
                id=one["ID"],
                name=one["Description"]["Hostname"],
                state=one["Status"]["State"],
                availability=one["Spec"]["Availability"],
                is_manager=one["Spec"]["Role"] == "manager",
                reachability=one.get("ManagerStatus", {}).get("Reachability", ""),
                # A manager's own may be told as 0.0.0.0 there.
                address=one.get("ManagerStatus", {}).get("Addr", "").rpartition(":")[0]
                or one["Status"]["Addr"],
                version=one["Description"]["Engine"]["EngineVersion"],
                labels=one["Spec"].get("Labels") or {},
            )
            for one in found
        ),
        key=lambda one: one.name,
    )


def last_words(name: str, lines: int = 15) -> str:
    """Return the end of what a task, or all tasks of a service, have logged."""
    try:
        said = docker("service", "logs", "--raw", f"--tail={lines}", name, merged=True)
    except DockerError:
        return ""
    return tail(said, lines)
