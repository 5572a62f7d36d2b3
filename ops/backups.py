"""The services that keep backups, and the programs in them."""

import json
import os
import subprocess
from typing import Any

from host.commands import UserError
from ops.docker import ROOT, compose
from ops.stack import Stack, running

SERVICE = "backup"
SERVICES = (SERVICE, "offsite")
# Proves them, where nothing of what they hold can reach anything.
PROOF = "proof"
_PROGRAMS = {
    "base": (SERVICE, "taking a base backup"),
    "verify": (PROOF, "proving the newest backup"),
}


def require(stack: Stack) -> None:
    """Refuse where no backups are kept."""
    stack.require_own_database("its provider keeps backups and restores them")
    if SERVICE not in wanted(stack):
        raise UserError("no backups are kept: set BACKUP_DIR in .env, then `make up`")


def wanted(stack: Stack) -> list[str]:
    """Return the services that keep backups: BACKUP_DIR turns on one, a profile the other."""
    services = stack.configuration["services"]
    known = [name for name in SERVICES if name in services]
    return [name for name in known if services[name]["deploy"].get("replicas", 1)]


def volumes() -> dict[str, bool]:
    """Return the volumes of the user's own that hold files, and whether each is copied off-site.

    It is where both services have it: the one that copies, and the one that brings it back. What is
    lost without harm has the label `berth.backup: none`.
    """
    berths = compose("--file=compose.yaml", "--profile=*", "config", "--volumes").split()
    stack = json.loads(compose("--profile=*", "config", "--format=json"))
    copied, fetched = (_mounted(stack["services"][name]) for name in ("offsite", "fetch"))
    return {
        name: name in copied and copied[name] == fetched.get(name)
        for name, volume in stack["volumes"].items()
        if name not in berths
        and (volume.get("labels") or {}).get("berth.backup") != "none"
        and (volume.get("driver_opts") or {}).get("type") != "tmpfs"
    }


def _mounted(service: dict[str, Any]) -> dict[str, str]:
    """Return where below /volumes a service has volumes."""
    return {
        one["source"]: one["target"]
        for one in service["volumes"]
        if one["type"] == "volume" and one["target"].startswith("/volumes/")
    }


def run(program: str) -> None:
    """Run one of the backup service's programs; what it says is said here.

    Raises:
        UserError: It cannot be run, or fails.
    """
    stack = Stack.read()
    require(stack)
    service, doing = _PROGRAMS[program]
    for needed in (SERVICE, service):
        if not running(stack.containers(needed)):
            raise UserError(f"the {needed} service does not run: `make up`")
    anew = os.environ.get("ANEW", "")
    command = ("exec", "--no-TTY", f"--env=ANEW={anew}", service, "bash", "/berth/attempt.sh")
    done = subprocess.run(["docker", "compose", *command, program], cwd=ROOT, check=False)
    if done.returncode:
        raise UserError(f"{doing} failed: `make doctor` shows it until it succeeds")
