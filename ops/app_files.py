"""app.env and secrets/: which of them replicas have found, as `secrets` last copied them."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ops.docker import ROOT, DockerError, docker
from ops.stack import Container, Stack, State

# Of a database elsewhere.
_DATABASE = ("database-url", "database-ca.pem")
# In the replica, since nobody else has the volume; a new link takes the place of the old one.
_LOOK = f"""
import hashlib, json, os, pathlib
here = pathlib.Path("/run/app/current")
names = ("app.env", *{_DATABASE})
files = [*(here / name for name in names), *(here / "secrets").iterdir()]
print(json.dumps({{
    "changed": os.lstat(here).st_mtime,
    "digests": {{
        str(one.relative_to(here)): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in files if one.is_file()
    }},
}}))
"""


@dataclass(frozen=True)
class AppFiles:
    """What a replica finds when it starts.

    Attributes:
        changed: Since when.
        digests: What is in each file.
    """

    changed: datetime
    digests: dict[str, str]

    @classmethod
    def read(cls, replicas: list[Container]) -> "AppFiles | None":
        """Ask the replicas; None if none can tell."""
        for one in sorted(replicas, key=lambda one: one.state is not State.HEALTHY):
            try:
                found = json.loads(docker("exec", one.id, "python", "-c", _LOOK))
            except DockerError:
                continue
            return cls(datetime.fromtimestamp(found["changed"], UTC), found["digests"])
        return None

    def are_newer_than(self, replica: Container) -> bool:
        """Whether a replica started with others."""
        return replica.started < self.changed

    def are_those_of(self, stack: Stack) -> bool:
        """Whether `secrets` would copy the same ones again; as far as this user may look."""
        try:
            return self.digests == _present(stack)
        except PermissionError:
            return True


def _present(stack: Stack) -> dict[str, str]:
    """Return what is in the files beside .env, or where APP_ENV and APP_SECRETS say."""
    mounted = {one["target"]: one["source"] for one in stack.service("secrets")["volumes"]}
    variables, secrets = (
        ROOT / name if mounted[target] == os.devnull else Path(mounted[target])
        for name, target in (("app.env", "/app.env"), ("secrets", "/app-secrets"))
    )
    files = {"app.env": variables}
    with suppress(FileNotFoundError, NotADirectoryError):
        files |= {f"secrets/{one.name}": one for one in secrets.iterdir() if one.name[0] != "."}
    if stack.database_is_elsewhere:
        given = {name: mounted[f"/{name}"] for name in _DATABASE}
        files |= {name: Path(file) for name, file in given.items() if file != os.devnull}
        files.pop("secrets/DATABASE_URL", None)
    digests = {}
    for name, file in files.items():
        with suppress(FileNotFoundError, IsADirectoryError):
            digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return digests
