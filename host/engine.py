"""A Docker Engine that answers."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from host import debian
from host.commands import UserError, allowed, output, run, say

_START_SECONDS = 60
_PACKAGES = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd")
_LOG = Path("/var/log/dockerd.log")
CONFIGURATION = Path("/etc/docker/daemon.json")
SYSTEMD = Path("/run/systemd/system")
# Engine 25 brought `start_interval`, with which a container is healthy in under a second.
OLDEST = 25

FORBIDDEN = (
    "Docker runs, but you may not use it: `sudo usermod -aG docker $USER`, then log in again"
)


def answers() -> bool:
    """Whether an engine answers to the `docker` command."""
    return bool(version())


def version() -> str:
    """Return the version of the engine that answers to the `docker` command; empty if none does."""
    return output("docker", "version", "--format", "{{.Server.Version}}") or ""


def is_too_old(version: str, oldest: int = OLDEST) -> bool:
    """Whether an engine does not know everything in compose.yaml, or what came with another one."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) < oldest


def ensure() -> None:
    """Make sure that an engine answers, installing and starting one if need be.

    Raises:
        UserError: None answers and this program may not, or cannot, change that; or it is too old.
    """
    if not answers():
        bring_up()
    if is_too_old(version()):
        raise UserError(
            f"Docker Engine {version()} is too old: Berth needs {OLDEST} or newer "
            "(https://docs.docker.com/engine/install/)"
        )


def bring_up() -> None:
    """Start an engine, installing one if there is none.

    Raises:
        UserError: This program may not, or cannot.
    """
    if is_forbidden(_complaint()):
        raise UserError(FORBIDDEN)
    if os.environ.get("DOCKER_HOST"):
        raise UserError(f"no engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: unset it")
    if not allowed("HOST_INSTALL"):
        raise UserError("no Docker Engine answers and HOST_INSTALL=no: start it, then try again")
    if shutil.which("dockerd") is None:
        install()
    start()


def install() -> None:
    """Install Docker Engine, Compose and Buildx from the distribution's packages.

    Raises:
        UserError: This is not Debian or Ubuntu, or not root.
    """
    if not debian.is_installable():
        raise UserError(
            "no Docker Engine answers: install Docker Engine with the Compose plugin "
            "(https://docs.docker.com/engine/install/), start it, then try again"
        )
    say("no Docker Engine here: installing one from the distribution's packages")
    if SYSTEMD.is_dir() and not CONFIGURATION.exists():
        # Containers outlive a restart of the engine, such as an update of its package brings. Where
        # systemd does not hold its socket, that would be another one, and Traefik left alone.
        CONFIGURATION.parent.mkdir(exist_ok=True)
        CONFIGURATION.write_text('{"live-restore": true}\n')
    debian.update()
    if debian.release().get("ID") == "debian":
        if is_too_old(debian.candidate("docker.io")):
            debian.offer_from_stable(_PACKAGES)
        debian.install(_PACKAGES)
    else:
        debian.install(["docker.io", "docker-compose-v2", "docker-buildx"])


def start() -> None:
    """Start the engine and wait until it answers.

    Raises:
        UserError: It does not within a minute.
    """
    say("starting the Docker Engine")
    if SYSTEMD.is_dir():
        run(["systemctl", "enable", "--now", "docker"], purpose="start the Docker Engine")
    elif os.geteuid() != 0:
        raise UserError("the Docker Engine is installed but does not run: start it as root")
    else:
        # No service manager: the engine gets a session of its own and outlives this command.
        with _LOG.open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", "dockerd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
            )
    deadline = time.monotonic() + _START_SECONDS
    while not answers():
        if time.monotonic() > deadline:
            raise UserError(f"the Docker Engine did not start within a minute: {_complaint()}")
        time.sleep(0.2)


def is_forbidden(complaint: str) -> bool:
    """Whether `docker` complains that the engine's socket is not for this user."""
    return "permission denied while trying to connect" in complaint


def _complaint() -> str:
    """Return what `docker` says when no engine answers."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    said = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    return said.stderr.strip()
