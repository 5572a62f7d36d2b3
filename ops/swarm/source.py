"""What shall run: compose.yaml and compose.swarm.yaml with an image of a registry's."""

import json
from typing import Any

from host.commands import UserError
from ops import dotenv, registry
from ops.docker import compose, inspect
from ops.images import from_inspect
from ops.terminal import Terminal
from ops.version import with_digest

_OVERLAY = "compose.swarm.yaml"
# PostgreSQL on the machines themselves.
_PATRONI = "compose.patroni.yaml"


def configuration(image: str) -> dict[str, Any]:
    """Return what Compose makes of its files and .env, for a swarm.

    Raises:
        UserError: Compose does not accept them.
    """
    inside = dotenv.given(["PATRONI_IMAGE", "DATABASE_URL_FILE"]) == {"PATRONI_IMAGE"}
    environment = {
        "API_IMAGE": image,
        "COMPOSE_FILE": dotenv.compose_file(_OVERLAY, *([_PATRONI] if inside else [])),
        # Metrics and backups know one machine.
        "COMPOSE_PROFILES": "",
    }
    try:
        resolved = compose("config", "--format=json", environment=environment)
    except UserError as error:
        raise UserError(f"Compose refuses the configuration: {error}") from None
    found: dict[str, Any] = json.loads(resolved)
    return found


def name() -> str:
    """Return what the stack is called: COMPOSE_PROJECT_NAME."""
    return str(configuration("none")["name"])


def pulled(name: str, terminal: Terminal) -> str:
    """Pull an image; return its name with its digest, which never means another one.

    Raises:
        UserError: There is no such image, or it is not Berth's.
        StopRequested: Somebody wants to stop.
    """
    registry.check("IMAGE", name)
    registry.pull(name, terminal)
    (found,) = inspect("image", name)
    repository = registry.repository(name)
    if not from_inspect(found, repository).has_berth:
        builds = f"`make image PUSH={repository}:…`"
        raise UserError(f"IMAGE={name}: it is not Berth's: {builds} builds one where the app is")
    tag = name.partition("@")[0]
    digest = with_digest(name, found["RepoDigests"]).rpartition("@")[2]
    return f"{tag}@{digest}"
