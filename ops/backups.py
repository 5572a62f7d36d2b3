"""The services that keep backups, and the programs in them."""

import os
import subprocess

from host.commands import UserError
from ops.docker import ROOT
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
