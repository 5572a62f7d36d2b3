"""compose.yaml as Swarm takes it: what is carried over, what takes another form, what is left out.

What containers find as files of this machine, other machines do not have: it becomes configs and
secrets of the swarm, each under a name that says what is in it, since none can be changed.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.commands import UserError
from ops.docker import ROOT
from ops.stack import MIGRATE

# A label of each container: a digest of what its service is.
VERSION = "berth.version"
# As they are.
CARRIED = {
    *("cap_add", "cap_drop", "command", "configs", "entrypoint", "environment", "healthcheck"),
    *("hostname", "image", "init", "logging", "networks", "read_only"),
    *("stop_grace_period", "stop_signal", "sysctls", "ulimits", "user", "working_dir"),
}
# In the form that is Swarm's: each has its lines in `_service`.
CHANGED = {"deploy", "labels", "ports", "restart", "secrets", "tmpfs", "volumes"}
# What Swarm has nothing for, and what is in its place.
LOST = {
    "build": "images come from a registry",
    "depends_on": "migrations run before all else, and what is not ready is asked again",
    "oom_score_adj": "`DB_MEMORY` and its like bound each container by itself",
    "pull_policy": "each machine pulls what it lacks",
    "security_opt": "`no-new-privileges` in the daemon.json of each machine",
}
# The same for whole services; those with no replicas are left out as well.
LOST_SERVICES = {"secrets": "secrets of the swarm"}
# What `secrets` makes on one machine, and where; see _app_files.
_MADE = {"secrets", "owner-secrets", "app-files"}
_APP_FILES = "/run/app"
_NO_NEW_PRIVILEGES = "no-new-privileges:true"
# The volume of the one PostgreSQL that one machine has.
_DATABASE = "database"
_ENGINE = "/var/run/docker.sock"
# Where the machine that keeps backups has them: BACKUP_DIR there.
_BACKUPS = "/backups"


@dataclass(frozen=True)
class Piece:
    """A config or a secret of the swarm.

    Attributes:
        kind: `config` or `secret`, as docker's command is called.
        name: The stack's, what it is, and a digest of what is in it.
        content: What is in it.
    """

    kind: str
    name: str
    content: bytes

    @classmethod
    def of(cls, kind: str, stack: str, what: str, content: bytes) -> "Piece":
        """Name one after what is in it."""
        # Whoever may list secrets shall not be able to guess what is in them.
        digest = hashlib.scrypt(content, salt=stack.encode(), n=2**12, r=8, p=1, dklen=6).hex()
        return cls(kind, f"{stack}_{re.sub('[^A-Za-z0-9_-]', '-', what)[-30:]}-{digest}", content)


class StackFile:
    """What a resolved configuration of Compose's becomes."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        """Translate.

        Args:
            configuration: What `docker compose config` prints of compose.yaml and
                compose.swarm.yaml.

        Raises:
            UserError: There is a key that Swarm has nothing for, or a file is not there, or there
                is a setting for one machine alone.
        """
        db = configuration["services"]["db"]
        mounted = {one.get("source") for one in db.get("volumes", [])}
        if _DATABASE in mounted and db["deploy"].get("replicas") != 0:
            raise UserError(
                "in a swarm no database of one machine's runs: name one elsewhere with "
                "DATABASE_URL_FILE, as docs/database-elsewhere.md says, or set PATRONI_IMAGE for "
                "one on three machines, as docs/three-databases.md says"
            )
        acme = configuration["services"].get("acme", {})
        if acme.get("environment", {}).get("ACME_DNS_PROVIDER") and acme["deploy"]["replicas"]:
            raise UserError(
                "in a swarm certificates are ordered by HTTP: leave ACME_DNS_PROVIDER out, or "
                "bring one for all names with TLS_CERTIFICATE and TLS_KEY"
            )
        self._stack: str = configuration["name"]
        self._configuration = configuration
        self.pieces: dict[str, Piece] = {}
        # Secrets that nobody brings: the first deploy makes them.
        self.passwords: set[str] = set()
        # By the names in Compose files; a blank for what is not set.
        self._secrets = {
            name: self._secret(name, one) for name, one in configuration.get("secrets", {}).items()
        }
        self._app_files = {
            target: self._piece("secret", f"app-{target}", file)
            for target, file in _app_files(configuration["services"]["secrets"]).items()
        }
        self.services = {
            name: self._service(name, one)
            for name, one in configuration["services"].items()
            if name not in LOST_SERVICES and one.get("deploy", {}).get("replicas") != 0
        }

    @property
    def database(self) -> list[str]:
        """The members of the database, in the order in which they may be replaced."""
        return sorted(name for name in self.services if re.fullmatch(r"(etcd|postgres)\d", name))

    @property
    def long_running(self) -> dict[str, Any]:
        """The services that run for as long as the stack is there: all but the job."""
        return {name: one for name, one in self.services.items() if name != MIGRATE}

    def of(self, services: dict[str, Any]) -> dict[str, Any]:
        """Return the file for some of the services, for `docker stack deploy`."""
        used: dict[str, set[str]] = {"networks": set(), "volumes": set()}
        for one in services.values():
            used["networks"] |= set(one.get("networks", {}))
            used["volumes"] |= {v["source"] for v in one["volumes"] if v["type"] == "volume"}
        return {
            "version": "3.13",
            "services": services,
            "networks": {
                name: _without_name(one)
                for name, one in self._configuration["networks"].items()
                if name in used["networks"]
            },
            "volumes": {
                name: _without_name(one)
                for name, one in self._configuration["volumes"].items()
                if name in used["volumes"]
            },
            "configs": self._external("config"),
            "secrets": self._external("secret"),
        }

    def _external(self, kind: str) -> dict[str, Any]:
        names = [name for name, one in self.pieces.items() if one.kind == kind]
        names += sorted(self.passwords) if kind == "secret" else []
        return {name: {"external": True, "name": name} for name in names}

    def _piece(self, kind: str, what: str, file: Path) -> str:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}") from None
        piece = Piece.of(kind, self._stack, what, content)
        self.pieces[piece.name] = piece
        return piece.name

    def _secret(self, name: str, given: dict[str, Any]) -> str:
        if given.get("external"):
            self.passwords.add(made := f"{self._stack}_{name}")
            return made
        if given.get("file", os.devnull) == os.devnull:
            return ""
        return self._piece("secret", name, Path(given["file"]))

    def _service(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        _refuse(name, given)
        made = {key: value for key, value in given.items() if key in CARRIED and value is not None}
        deploy = dict(given.get("deploy", {}))
        deploy["endpoint_mode"] = "dnsrr"
        deploy["labels"] = given.get("labels", {})
        if deploy.get("mode") == "global":
            deploy.pop("replicas", None)  # it said whether there are any
        is_job = deploy.get("mode", "").endswith("-job")
        deploy["restart_policy"] = (
            {"condition": "none"} if is_job else {"condition": "any", "delay": "1s"}
        )
        made["deploy"] = deploy
        made["ports"] = _ports(given.get("ports", []))
        made["configs"] = []
        made["secrets"] = [
            {"source": self._secrets[one["source"]], "target": one["target"], "mode": 0o444}
            for one in given.get("secrets", [])
            if self._secrets[one["source"]]
        ]
        made["volumes"] = [{"type": "tmpfs", "target": target} for target in given.get("tmpfs", [])]
        for volume in given.get("volumes", []):
            self._mount(name, volume, made)
        content = json.dumps(made, sort_keys=True).encode()
        made["labels"] = {VERSION: hashlib.sha256(content).hexdigest()[:12]}
        return made

    def _mount(self, service: str, volume: dict[str, Any], made: dict[str, Any]) -> None:
        source = volume.get("source", "")
        if volume["type"] == "volume" and source in _MADE:
            if volume["target"] == _APP_FILES:
                made["secrets"] += [
                    {"source": name, "target": f"{_APP_FILES}/current/{target}", "mode": 0o444}
                    for target, name in self._app_files.items()
                ]
        elif volume["type"] != "bind" or source == _ENGINE or volume["target"] == _BACKUPS:
            kept = {key: value for key, value in volume.items() if key not in {"bind", "volume"}}
            made["volumes"].append(kept)
        elif source != os.devnull:
            if not volume.get("read_only") or not Path(source).is_file():
                raise UserError(
                    f"{service} mounts {source}, which is on this machine alone: in a swarm, files "
                    "that are only read can be mounted, one by one, and volumes"
                )
            name = self._piece("config", Path(volume["target"]).name, Path(source))
            made["configs"].append({"source": name, "target": volume["target"], "mode": 0o444})


def _refuse(name: str, given: dict[str, Any]) -> None:
    for key in given:
        if key not in CARRIED | CHANGED | set(LOST):
            raise UserError(f"{name} has `{key}`, which Swarm has nothing for: leave it out there")
    options = set(given.get("security_opt", [])) - {_NO_NEW_PRIVILEGES}
    if options:
        raise UserError(f"{name} has security_opt {', '.join(options)}, which Swarm has not")


def _ports(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Open each on the machine that the service runs on: so it sees clients' own addresses."""
    made = []
    for one in given:
        port = {
            "mode": "host",
            "target": one["target"],
            "published": int(one["published"]),
            "protocol": one["protocol"],
        }
        if port not in made:
            made.append(port)
    return made


def _app_files(secrets: dict[str, Any]) -> dict[str, Path]:
    """Return what `secrets` copies for the app, by the names under which it finds them."""
    mounted = {one["target"]: one["source"] for one in secrets["volumes"]}

    def given(target: str, default: str) -> Path:
        return ROOT / default if mounted[target] == os.devnull else Path(mounted[target])

    found = {"app.env": given("/app.env", "app.env")}
    folder = given("/app-secrets", "secrets")
    if folder.is_dir():
        found |= {f"secrets/{file.name}": file for file in sorted(folder.iterdir())}
    for name in ("database-url", "database-ca.pem"):
        if mounted[f"/{name}"] != os.devnull:
            found[name] = Path(mounted[f"/{name}"])
            found.pop("secrets/DATABASE_URL", None)
    return {
        name: file
        for name, file in found.items()
        # What was named has to be there; the others may be.
        if name.startswith("database") or (file.is_file() and not file.name.startswith("."))
    }


def _without_name(given: dict[str, Any]) -> dict[str, Any]:
    """Leave out Compose's own name, which is Swarm's as well, and what is not set."""
    return {key: value for key, value in given.items() if value and key != "name"}
