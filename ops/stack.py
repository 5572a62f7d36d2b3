"""The stack as compose.yaml describes it, and its replicas as they are."""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from host.commands import UserError
from ops import dotenv
from ops.docker import ROOT, compose, docker, inspect

SERVICE = "api"
MIGRATE = "migrate"
_LABEL = "com.docker.compose"
# What services read from the repository when they start, and never again: Compose mounts it, and
# sees no difference when it changes. The app's server is in its image.
_READ_AT_START = {
    "traefik": ("traefik/start.sh", "traefik/dynamic/*", "localhost/certificate.pem"),
    "docker-proxy": ("traefik/docker-proxy.cfg",),
    "backup": ("backup/*.sh",),
    "proof": ("backup/*.sh",),
    "offsite": ("backup/*.sh",),
    "prometheus": ("metrics/prometheus/*",),
    "alertmanager": ("metrics/alertmanager/*",),
    "containers": ("metrics/exporter/*",),
}


class State(StrEnum):
    """What a replica is up to."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    CRASHING = "crashing"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Container:
    """A container of the stack."""

    id: str
    name: str
    service: str
    number: int
    image: str
    config_hash: str
    state: State
    exit_code: int
    restarts: int
    started: datetime
    out_of_memory: bool
    complaint: str  # what its last health check said, to end a sentence with
    is_checked: bool = False  # whether it has a health check

    @classmethod
    def from_inspect(cls, found: dict[str, Any]) -> "Container":
        """Read what `docker inspect` says."""
        labels = found["Config"]["Labels"]
        return cls(
            id=found["Id"],
            name=found["Name"].lstrip("/"),
            service=labels[f"{_LABEL}.service"],
            number=int(labels.get(f"{_LABEL}.container-number", 0)),
            image=found["Image"],
            config_hash=labels.get(f"{_LABEL}.config-hash", ""),
            state=_state(found["State"]),
            exit_code=found["State"]["ExitCode"],
            restarts=found["RestartCount"],
            started=datetime.fromisoformat(found["State"]["StartedAt"]),
            out_of_memory=found["State"]["OOMKilled"],
            complaint=_complaint(found["State"]),
            is_checked="Health" in found["State"],
        )

    @property
    def has_old_files(self) -> bool:
        """Whether files that it has read from the repository were changed afterwards."""
        found = [file for one in _READ_AT_START.get(self.service, ()) for file in ROOT.glob(one)]
        return any(file.stat().st_ctime > self.started.timestamp() for file in found)


def _state(found: dict[str, Any]) -> State:
    if found["Status"] == "restarting":
        return State.CRASHING
    if found["Status"] not in {"running", "paused"}:
        return State.STOPPED
    health = found.get("Health", {}).get("Status", "none")
    return State.HEALTHY if health == "none" else State(health)


def _is_off(service: dict[str, Any]) -> bool:
    return bool(service.get("deploy", {}).get("replicas") == 0)


def _complaint(found: dict[str, Any]) -> str:
    checks = found.get("Health", {}).get("Log") or [{}]
    said = str(checks[-1].get("Output", "")).strip()
    return f" ({said})" if said else ""


def running(containers: list[Container]) -> list[Container]:
    """Return those that nobody stopped by hand."""
    return [one for one in containers if one.state is not State.STOPPED]


def ids(containers: list[Container]) -> list[str]:
    """Return the ids of containers."""
    return [one.id for one in containers]


@dataclass(frozen=True)
class Stack:
    """What Compose makes of compose.yaml, .env and the environment."""

    project: str
    configuration: dict[str, Any]
    config_hashes: dict[str, str]

    @classmethod
    def read(cls) -> "Stack":
        """Ask Compose.

        Raises:
            UserError: It does not accept the configuration; its own words say why.
        """
        try:
            resolved = compose("config", "--format=json")
            # Of the resolved configuration: `config` forgets to read env files before it hashes,
            # `up` does not.
            hashes = compose(
                "--project-directory=.", "--file=-", "config", "--hash=*", stdin=resolved
            )
        except UserError as error:
            if given := dotenv.named_in(str(error)):
                why = " ".join(str(error).split())
                raise UserError(f"{given}: see .env.example, Compose says: {why}") from None
            raise UserError(f"Compose refuses the configuration: {error}") from None
        configuration = json.loads(resolved)
        config_hashes = dict(line.split() for line in hashes.splitlines())
        return cls(configuration["name"], configuration, config_hashes)

    def service(self, name: str) -> dict[str, Any]:
        """Return a service's configuration."""
        found: dict[str, Any] = self.configuration["services"][name]
        return found

    @property
    def wanted(self) -> int:
        """The number of replicas when nobody says otherwise: API_REPLICAS."""
        return int(self.service(SERVICE).get("deploy", {}).get("replicas", 1))

    @property
    def one_shots(self) -> list[str]:
        """The services that end by themselves, as their lack of a restart policy tells."""
        services = self.configuration["services"]
        return sorted(
            name for name, one in services.items() if "restart" not in one and not _is_off(one)
        )

    @property
    def database_is_elsewhere(self) -> bool:
        """Whether DATABASE_URL_FILE leads away from this stack."""
        return _is_off(self.service("db"))

    def require_own_database(self, whose: str = "its provider does that") -> None:
        """Refuse what only a database of Berth's can have done to it.

        Raises:
            UserError: It is elsewhere; the sentence says who has to do it.
        """
        if self.database_is_elsewhere:
            raise UserError(f"the database is elsewhere (DATABASE_URL_FILE): {whose}")

    @property
    def domain(self) -> str:
        """The host name that users type."""
        return str(self.service("traefik")["environment"]["DOMAIN"])

    @property
    def is_local(self) -> bool:
        """Whether that is this machine's own name, localhost or one below it, as for a trial."""
        return f".{self.domain.lower()}".endswith(".localhost")

    @property
    def names(self) -> list[str]:
        """Every host name that is answered, DOMAIN first."""
        return [*self.served, *self._names_in("REDIRECT_DOMAINS")]

    @property
    def served(self) -> list[str]:
        """Those of them that lead to the app, and not to DOMAIN."""
        return [self.domain, *self._names_in("DOMAINS")]

    def _names_in(self, variable: str) -> list[str]:
        given = self.service("traefik")["environment"].get(variable) or ""
        return given.split(",") if given else []

    @property
    def behind(self) -> str:
        """The project whose Traefik has the ports that users reach; a blank for this one's own."""
        return str(self.service("traefik")["environment"].get("BEHIND") or "")

    @property
    def address_ipv6(self) -> str:
        """Where IPv6 clients reach it, BIND_ADDRESS_IPV6; a blank if they do not."""
        return str(self.service("traefik")["environment"].get("BIND_ADDRESS_IPV6") or "")

    def published(self, port: int) -> tuple[str, int]:
        """Return the address (of IPv4 if it has one) and the port that lead to one of Traefik's."""
        ports = [one for one in self.service("traefik")["ports"] if one["target"] == port]
        for one in sorted(ports, key=lambda one: ":" in one.get("host_ip", "")):
            return one.get("host_ip", ""), int(one["published"])
        raise UserError(f"compose.yaml publishes no port of this machine for Traefik's {port}")

    def containers(self, service: str = "") -> list[Container]:
        """Return the containers of a service, or of all; `compose run` makes none of these."""
        filters = [f"label={_LABEL}.project={self.project}", f"label={_LABEL}.oneoff=False"]
        if service:
            filters.append(f"label={_LABEL}.service={service}")
        ids = docker("ps", "--all", "--quiet", *(f"--filter={one}" for one in filters)).split()
        found = [Container.from_inspect(one) for one in inspect("container", *ids)]
        return sorted(found, key=lambda one: (one.service, one.number))

    def replicas(self) -> list[Container]:
        """Return the containers of the app."""
        return self.containers(SERVICE)
