"""A Compose that knows everything in compose.yaml."""

import re

from host.commands import UserError, output

# 2.24 brought optional env files and reset tags; older ones misread compose.yaml.
OLDEST = (2, 24)


def ensure() -> None:
    """Make sure that Compose is recent enough.

    Raises:
        UserError: It is missing or too old.
    """
    printed = output("docker", "compose", "version", "--short")
    if printed is None:
        raise UserError("Docker has no Compose plugin: install docker-compose-plugin")
    version = parse(printed)
    if version < OLDEST:
        raise UserError(
            f"Compose {printed} is too old: Berth needs {OLDEST[0]}.{OLDEST[1]} or newer"
        )


def parse(printed: str) -> tuple[int, int]:
    """Return major and minor version from what `docker compose version --short` prints.

    Raises:
        UserError: It is no version.
    """
    match = re.match(r"v?(\d+)\.(\d+)", printed)
    if match is None:
        raise UserError(f"Compose says that its version is {printed!r}, which is no version")
    return int(match[1]), int(match[2])
