"""The machine and its engine: whether they are fit to carry the stack."""

import ctypes
import http.client
import json
import re
import shutil
import ssl
import struct
import time
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from host import compose as host_compose
from host import engine as host_engine
from host import images, stand_in
from host.commands import output
from ops import preflight
from ops.checks import network
from ops.docker import docker, inspect
from ops.facts import Facts
from ops.finding import Finding, Level, bad, good, warning
from ops.memory import MIB, Budget, fitting
from ops.prometheus import Prometheus
from ops.stack import SERVICE

# traefik/dynamic needs 3.7; Traefik before 3.6.1 spoke a version of Docker's API that Docker 29 no
# longer does.
_TRAEFIK = (3, 7)
_DAEMON = Path("/etc/docker/daemon.json")
_FULL = 0.1
_SOON = timedelta(days=14)
_YEARS = 10 * 365 * 86400
_OFF_SECONDS = 5
_WRONG_SECONDS = 60


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return tuple(int(one) for one in found.groups()) if found else ()


def versions(facts: Facts) -> Finding:
    """Docker, Compose and Traefik are of versions that are known to work together."""
    host_compose.ensure()
    compose = output("docker", "compose", "version", "--short")
    engine = json.loads(docker("version", "--format=json"))["Server"]
    traefik = str(facts.stack.service("traefik")["image"])
    says = f"Docker {engine['Version']} (API {engine['ApiVersion']}), Compose {compose}, {traefik}"
    tag = _numbers(traefik.rpartition(":")[2])
    if tag and tag < _TRAEFIK:
        return bad(f"{says}: the routes need Traefik 3.7", "leave TRAEFIK_IMAGE out of .env")
    if host_engine.is_too_old(engine["Version"]):
        oldest = host_engine.OLDEST
        return bad(f"{says}: the engine is too old", f"install Docker Engine {oldest} or newer")
    return good(says)


def stand_ins(facts: Facts) -> Finding:
    """Images are the official ones, rather than what was built where no registry answered."""
    wanted = images.references(facts.stack.configuration)
    found = [one for one in wanted if stand_in.is_one(one)]
    if found:
        return warning(
            f"built here, as no registry answered: {', '.join(found)}",
            "`make up` puts the official ones in their place once their registry answers",
        )
    return good(f"none of the {len(wanted)} is a stand-in")


def live_restore(facts: Facts) -> Finding:
    """Containers outlive a restart of the engine, such as an upgrade of its package brings."""
    if facts.engine["LiveRestoreEnabled"]:
        return good("containers run on while the engine restarts (live-restore)")
    return warning(
        "while the engine restarts, everything is away",
        f'"live-restore": true in {_DAEMON}, then `systemctl reload docker`',
    )


def logs(facts: Facts) -> Finding:
    """No log grows until the disk is full, of this stack or of its neighbours."""
    ids = docker("ps", "--quiet").split()
    found = {one["Name"].lstrip("/"): one["HostConfig"] for one in inspect("container", *ids)}
    names = [name for name, one in found.items() if not _is_bounded(one["LogConfig"])]
    services = facts.stack.configuration["services"]
    names += [name for name, one in services.items() if not _is_bounded(one.get("logging", {}))]
    if names:
        way_out = f'"log-driver": "local" in {_DAEMON}, restart the engine, make them anew'
        return warning(f"grow without bound: {_some(names)}", way_out)
    return good(f"those of {len(services)} services and {len(ids)} containers are rotated")


def _is_bounded(found: dict[str, Any]) -> bool:
    """Whether a log is rotated, as Compose (driver, options) or Docker (Type, Config) has it."""
    driver = found.get("driver") or found.get("Type") or "json-file"
    options = found.get("options") or found.get("Config") or {}
    return driver != "json-file" or "max-size" in options


def _some(names: list[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def memory(facts: Facts) -> Finding:
    """The limits of everything that runs fit together, with the replica that a deploy adds."""
    budget = Budget.read(facts.stack)
    replicas = max(facts.stack.wanted, len(facts.running(SERVICE)))
    if lines := fitting(facts.stack, replicas):
        says = f"the usual limits do not fit {budget.machine / MIB:,.0f} MiB"
        return warning(says, f"`make up` sets {', '.join(lines)}")
    budget.check(replicas, extra=1)
    return good(
        f"{replicas} replicas and the rest may take {budget.total(replicas) / MIB:,.0f} of "
        f"{budget.machine / MIB:,.0f} MiB; {budget.largest - 1} replicas would fit"
    )


def disk(facts: Facts) -> Finding:
    """There is room where Docker and backups keep what they have, and for how long."""
    volumes = facts.stack.configuration["services"].get("backup", {}).get("volumes", [])
    prometheus = Prometheus.find(facts)
    root = Path(facts.engine["DockerRootDir"])
    found = [_room(facts, prometheus, "Docker", root, "/disks/docker")]
    found += [
        _room(facts, prometheus, "BACKUP_DIR", Path(one["source"]), "/disks/backups")
        for one in volumes
        if one["target"] == "/backups" and one["type"] == "bind"
    ]
    worst = max(found, key=lambda one: list(Level).index(one.level))
    says = "; ".join(one.says for one in found)
    if not prometheus:
        says += "; when it fills, COMPOSE_PROFILES=metrics would tell"
    return Finding(worst.level, says, worst.way_out)


def _room(
    facts: Facts, prometheus: Prometheus | None, name: str, folder: Path, mount: str
) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return warning(f"{folder} cannot be looked at: {error.strerror}", "`docker system df`")
    left = fills_in(prometheus, mount) if prometheus else None
    says = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free for {name}"
    says += f", full on {facts.now + left:%Y-%m-%d} at the last day's pace" if left else ""
    way_out = "make room: `docker system df` says what takes it, `docker system prune` helps"
    if usage.free < preflight.NEEDED_BYTES or (left and left < timedelta(days=1)):
        return bad(says, way_out)
    if usage.free < _FULL * usage.total or (left and left < _SOON):
        return warning(says, way_out)
    return good(says)


def fills_in(prometheus: Prometheus, mount: str) -> timedelta | None:
    """Return when a disk will be full at the pace of the last day.

    Args:
        prometheus: Who has watched it.
        mount: Where the `node` service has something of that disk.

    Returns:
        None if it does not fill within ten years, or was watched for less than an hour.
    """
    free = f'berth:disk:free_bytes{{mountpoint="{mount}"}}'
    found = prometheus.query(f"{free} / -(deriv({free}[1d]) < 0) and {free} offset 1h")
    return timedelta(seconds=found[0].value) if found and found[0].value < _YEARS else None


def clock(facts: Facts) -> Finding:
    """Time is right: certificates begin and end by it, and so do logs and restores."""
    error = kernel_error()
    if error is not None:
        return good(f"kept by NTP, to within {error.total_seconds() * 1000:.0f} ms")
    way_out = "`timedatectl set-ntp true`, or install chrony"
    server = network.directory(facts)
    if facts.stack.is_local:
        return warning("no NTP keeps it right", way_out)
    name = urlsplit(server).hostname
    off = seconds_off(server)
    if off is None:
        return warning(f"no NTP keeps it right, nor does {name} tell the time", way_out)
    says = f"off by {off:.0f} s against {name}, and no NTP keeps it right"
    if off > _WRONG_SECONDS:
        return bad(says, way_out)
    if off > _OFF_SECONDS:
        return warning(says, way_out)
    return warning(f"right now against {name}, but no NTP keeps it so", way_out)


def kernel_error() -> timedelta | None:
    """Return how far off the kernel's clock may be, or None where nobody keeps it."""
    # struct timex: modes (0 asks only), offset, freq, maxerror, esterror, status; and much more.
    layout = struct.Struct("illlli")
    told = ctypes.create_string_buffer(512)
    try:
        state = ctypes.CDLL(None).adjtimex(told)
    except (OSError, AttributeError):  # no Linux
        return None
    _, _, _, largest, _, status = layout.unpack_from(told.raw)
    unsynchronised = 0x40
    if state < 0 or status & unsynchronised:
        return None
    return timedelta(microseconds=largest)


def seconds_off(url: str) -> float | None:
    """Return how far this clock is from that of a web server, or None if it does not answer."""
    found = urlsplit(url)
    # A clock that is wrong would find no certificate good.
    trusting = ssl._create_unverified_context()  # noqa: S323, SLF001
    connection = http.client.HTTPSConnection(
        found.hostname or "", found.port, timeout=3, context=trusting
    )
    try:
        connection.request("HEAD", found.path)
        told = connection.getresponse().getheader("Date")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return abs(time.time() - parsedate_to_datetime(told).timestamp()) if told else None
