"""What would make a start fail, found out before anything is started."""

import errno
import os
import shutil
import ssl
import stat
from dataclasses import replace
from pathlib import Path

from host import engine
from host.commands import UserError, output
from ops import dotenv, ports
from ops.docker import inspect
from ops.memory import Budget
from ops.stack import Stack, running

# The app's image, a fresh database with its write-ahead log, and room for the logs to begin.
NEEDED_BYTES = 1 << 30

# It brought networks of IPv6 alone: those take none of the few addresses that it has of IPv4.
IPV6_ENGINE = 28

VARIABLES = {80: "HTTP_PORT", 443: "HTTPS_PORT"}
_CA_TARGET = "/etc/traefik/acme-ca.pem"
_DATABASE_CA = "/database-ca.pem"
_GIVEN = {
    "/app.env": "APP_ENV",
    "/app-secrets": "APP_SECRETS",
    "/database-url": "DATABASE_URL_FILE",
    _DATABASE_CA: "DATABASE_CA",
}


def check(stack: Stack) -> None:
    """Look at ports, files, memory and disk.

    Raises:
        UserError: The start would fail; the sentence names the variable and the way out.
    """
    check_ports(stack)
    check_behind(stack, dotenv.values(["BEHIND"])["BEHIND"])
    for volume in stack.service("traefik").get("volumes", []):
        if volume["target"] == _CA_TARGET and volume["source"] != os.devnull:
            check_certificate(Path(volume["source"]))
    for volume in stack.service("secrets").get("volumes", []):
        if volume["target"] in _GIVEN and volume["source"] != os.devnull:
            path = Path(volume["source"])
            check_path(_GIVEN[volume["target"]], path)
            if volume["target"] == _DATABASE_CA:
                check_pem(_GIVEN[_DATABASE_CA], path)
    Budget.read(stack).check(stack.wanted)
    check_disk(Path(output("docker", "info", "--format={{.DockerRootDir}}") or "/"))


def check_ports(stack: Stack) -> None:
    """Refuse addresses and ports on which nobody could listen."""
    if stack.address_ipv6:
        check_ipv6(stack.address_ipv6, engine.version())
    for target, variable in VARIABLES.items():
        address, port = stack.published(target)
        for one in filter(None, (address, stack.address_ipv6)):
            check_port(variable, one, port, stack.project)


def check_ipv6(address: str, version: str) -> None:
    """Refuse what is no address of IPv6, and an engine that has no network for it alone."""
    name = f"BIND_ADDRESS_IPV6={address}"
    if ":" not in address:
        raise UserError(f"{name}: give an IPv6 address of this machine, or :: for all of them")
    if engine.is_too_old(version, IPV6_ENGINE):
        raise UserError(
            f"{name}: Docker Engine {version} is too old for that, {IPV6_ENGINE} is not: "
            "leave it out, or install a newer one"
        )


def check_port(variable: str, address: str, port: int, project: str) -> None:
    """Refuse a port that somebody else has, and an address that is not this machine's."""
    trouble = ports.trouble(address, port)
    if trouble == errno.EAFNOSUPPORT:
        raise UserError(f"BIND_ADDRESS_IPV6={address}: this machine has no IPv6: leave it out")
    if trouble == errno.EADDRNOTAVAIL:
        name, everywhere, loopback = "BIND_ADDRESS", "0.0.0.0", "127.0.0.1"  # noqa: S104
        if ":" in address:
            name, everywhere, loopback = f"{name}_IPV6", "::", "::1"
        raise UserError(
            f"{name}={address}: this machine has no such address "
            f"({everywhere} is all of them, {loopback} this machine alone)"
        )
    if trouble != errno.EADDRINUSE:
        return
    container, its_project = ports.publisher(port)
    if its_project == project:
        return
    who = f"the container {container}" if container else ports.process(port) or "another program"
    raise UserError(f"{variable}={port}: {who} has this port: stop it, or choose another in .env")


def check_behind(stack: Stack, asked: str) -> None:
    """Refuse to stand behind a stack that is not there, and to take names that it serves."""
    if not asked:
        return
    if not stack.behind:
        raise UserError(f"BEHIND={asked}: add traefik/behind.yaml to COMPOSE_FILE in .env as well")
    if stack.behind == stack.project:
        raise UserError(f"BEHIND={stack.behind}: that is this stack; name the one with the ports")
    # Standing behind it, this one would get its names first.
    traefik = running(replace(stack, project=stack.behind).containers("traefik"))
    if not traefik:
        raise UserError(f"BEHIND={stack.behind}: no stack of this name runs here: start it first")
    (found, *_) = inspect("container", traefik[0].id)
    served = dict(one.partition("=")[::2] for one in found["Config"]["Env"])
    for variable in ("DOMAIN", "DOMAINS", "REDIRECT_DOMAINS"):
        for name in served.get(variable, "").lower().split(","):
            if f".{name}".endswith(f".{stack.domain.lower()}"):
                raise UserError(
                    f"DOMAIN={stack.domain}: {stack.behind} serves {name}; take another one"
                )


def check_path(variable: str, path: Path) -> None:
    """Refuse a path of the app's own files that leads nowhere."""
    kind = "folder" if variable == "APP_SECRETS" else "file"
    try:
        path.stat()
    except PermissionError:
        return  # the engine may look there
    except OSError:
        raise UserError(f"{variable}={path}: there is no such {kind}") from None


def check_certificate(path: Path) -> None:
    """Refuse a CA's certificate that Traefik could not use."""
    name = f"ACME_CA_CERTIFICATE={path}"
    if not path.is_file():
        raise UserError(f"{name}: there is no such file")
    if not path.stat().st_mode & stat.S_IROTH:
        raise UserError(f"{name}: Traefik runs as a user of its own and may not read it: chmod 644")
    check_pem("ACME_CA_CERTIFICATE", path)


def check_pem(variable: str, path: Path) -> None:
    """Refuse a file without a certificate; one that only the engine may read passes."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise UserError(f"{variable}={path}: the file holds no certificate in PEM form") from None
    except PermissionError:
        return


def check_disk(folder: Path, needed: int = NEEDED_BYTES) -> None:
    """Refuse to start on a disk that is nearly full."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return  # Docker keeps its data where we may not look, or in a virtual machine
    if free < needed:
        raise UserError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free and a start needs "
            f"{needed / 1e9:.1f}: make room, for example with `docker system prune`"
        )
