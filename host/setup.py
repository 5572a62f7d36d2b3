"""What `make setup` sends to a server, and runs there as root: it prepares a bare machine.

Each part says what it would change, and yields nothing where all is as it should be.
"""

import grp
import json
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host import compose, debian, engine, firewall
from host.commands import UserError, carried_out, output, run, say

USER = "deploy"
_PACKAGES = ("ca-certificates", "make", "nftables", "unattended-upgrades")
_DAEMON = engine.CONFIGURATION
_LOGS = {"max-size": "20m", "max-file": "5"}
_UPDATES = Path("/etc/apt/apt.conf.d/20auto-upgrades")
_PERIODIC = ("APT::Periodic::Update-Package-Lists", "APT::Periodic::Unattended-Upgrade")
_MEMORY = Path("/proc/meminfo")
_SWAP = Path("/swapfile")
_SMALL_KIB = 2 * 1024 * 1024
_SWAP_MIB = 1024


@dataclass(frozen=True)
class Change:
    """Something that is not yet as it should be.

    Attributes:
        says: What is to be done.
        carry_out: Does it.
    """

    says: str
    carry_out: Callable[[], None]


def changes(person: str, port: int) -> Iterator[Change]:
    """Return what is to be changed; the firewall, which may be taken back, comes last.

    Args:
        person: The user who has logged in.
        port: The port of the SSH connection.

    Raises:
        UserError: This machine cannot be prepared.
    """
    if not debian.is_installable() or not engine.SYSTEMD.is_dir():
        raise UserError("this is no Debian or Ubuntu with systemd, for which `make setup` is")
    yield from _packages()
    yield from _engine()
    yield from _daemon()
    yield from _user(person)
    yield from _updates()
    yield from _swap()
    yield from _firewall(port)


def _packages() -> Iterator[Change]:
    status = ("dpkg-query", "--show", "--showformat=${db:Status-Status}")
    missing = [one for one in _PACKAGES if output(*status, one) != "installed"]

    def install() -> None:
        debian.update()
        debian.install(missing)

    if missing:
        yield Change(f"install {', '.join(missing)}", install)


def _engine() -> Iterator[Change]:
    def bring_up() -> None:
        engine.ensure()
        compose.ensure()

    if engine.answers():
        bring_up()  # which only says what is too old
    else:
        yield Change("install Docker Engine and Compose, and start it", bring_up)


def _daemon() -> Iterator[Change]:
    try:
        present: dict[str, Any] = json.loads(_DAEMON.read_text()) if _DAEMON.exists() else {}
    except ValueError as error:
        raise UserError(f"{_DAEMON} is no JSON: {error}") from None
    wanted = dict(present)
    info = json.loads(output("docker", "info", "--format={{json .}}") or "{}")
    # Swarm, which moves containers itself, does not take it.
    if info.get("Swarm", {}).get("LocalNodeState") != "active":
        wanted["live-restore"] = True
    is_read = info.get("LiveRestoreEnabled", False) == wanted.get("live-restore", False)
    if present.get("log-driver", "json-file") == "json-file":
        wanted |= {"log-driver": "json-file", "log-opts": _LOGS | present.get("log-opts", {})}

    def write() -> None:
        new = _DAEMON.with_suffix(".new")
        new.write_text(f"{json.dumps(wanted, indent=4)}\n")
        run(["dockerd", "--validate", f"--config-file={new}"], purpose=f"change {_DAEMON}")
        new.replace(_DAEMON)
        # Live-restore first: then containers outlive the restart that logs need.
        for verb in ("reload", "restart"):
            run(["systemctl", verb, "docker"], purpose=f"{verb} the engine")

    if wanted != present:
        names = ", ".join(name for name in wanted if wanted[name] != present.get(name))
        yield Change(f"set {names} in {_DAEMON}, and restart the engine", write)
    elif not is_read:
        yield Change(f"restart the engine, which has not read {_DAEMON}", write)


def _user(person: str) -> Iterator[Change]:
    homes = {one.pw_name: Path(one.pw_dir) for one in pwd.getpwall()}
    home = homes.get(USER, Path("/home", USER))
    may_use_docker = any(one.gr_name == "docker" and USER in one.gr_mem for one in grp.getgrall())
    came_by = _keys(homes[person])
    present = _keys(home)
    new = [key for key in came_by if key not in present]
    if not came_by and not present:
        raise UserError(
            f"{person} has no key in ~/.ssh/authorized_keys that {USER} could log in by: "
            "`ssh-copy-id` brings yours"
        )

    def make() -> None:
        if USER not in homes:
            # No password, rather than a locked account.
            shell = ("--create-home", "--shell=/bin/bash", "--password=*")
            run(["useradd", *shell, USER], purpose=f"make the user {USER}")
        run(["usermod", "--append", "--groups=docker", USER], purpose="let it use Docker")

    def let_in() -> None:
        file = home / ".ssh/authorized_keys"
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_text("".join(f"{key}\n" for key in [*present, *new]))
        file.chmod(0o600)
        run(["chown", "-R", f"{USER}:", str(file.parent)], purpose=f"give {USER} its keys")

    if not may_use_docker:
        yield Change(f"let a user {USER}, without a password, use Docker", make)
    if new:
        yield Change(f"let {person}'s keys ({len(new)}) log in as {USER}", let_in)


def _keys(home: Path) -> list[str]:
    file = home / ".ssh/authorized_keys"
    lines = file.read_text().splitlines() if file.is_file() else []
    # Some hosters keep root's from logging in by a command of their own.
    return [one for one in lines if one.strip() and one[0] != "#" and "command=" not in one]


def _updates() -> Iterator[Change]:
    dump = [output("apt-config", "dump", "--no-empty", "--format=%v", one) for one in _PERIODIC]

    def turn_on() -> None:
        _UPDATES.write_text("".join(f'{one} "1";\n' for one in _PERIODIC))

    if any(one in {None, "", "0"} for one in dump):
        yield Change("install security updates each day", turn_on)


def _swap() -> Iterator[Change]:
    fields = dict(line.split(":") for line in _MEMORY.read_text().splitlines())
    total, swap = (int(fields[name].split()[0]) for name in ("MemTotal", "SwapTotal"))

    def add() -> None:
        try:
            _SWAP.touch(mode=0o600)
            blocks = ("bs=1M", f"count={_SWAP_MIB}")
            run(["dd", "if=/dev/zero", f"of={_SWAP}", *blocks], purpose=f"fill {_SWAP}")
            run(["mkswap", str(_SWAP)], purpose=f"format {_SWAP}")
            run(["swapon", str(_SWAP)], purpose=f"swap to {_SWAP}")
        except UserError as error:
            _SWAP.unlink()
            say(f"this machine goes without swap: {error}")
            return
        with Path("/etc/fstab").open("a") as file:
            file.write(f"{_SWAP} none swap sw 0 0\n")

    if total < _SMALL_KIB and not swap and not _SWAP.exists():
        yield Change(f"add {_SWAP_MIB} MiB of swap, as there is little memory", add)


def _firewall(port: int) -> Iterator[Change]:
    ports = firewall.open_ports(port)
    if firewall.is_up(ports):
        return
    says = f"close every port but {', '.join(map(str, sorted(ports)))} to others, of containers too"
    if closed := firewall.listening() - ports:
        says += f" (now open: {', '.join(map(str, sorted(closed)))})"
    yield Change(says, lambda: firewall.put_up(ports))


def main() -> None:
    """Do what the one argument names.

    Raises:
        UserError: It cannot be done.
    """
    port = int(os.environ["BERTH_PORT"])
    match sys.argv[1:]:
        case ["plan"]:
            for change in changes(os.environ["BERTH_PERSON"], port):
                print(change.says)
        case ["apply"]:
            for change in list(changes(os.environ["BERTH_PERSON"], port)):
                say(change.says)
                change.carry_out()
        case ["keep"]:
            firewall.keep()
        case ["take-back"]:
            firewall.take_back()


if __name__ == "__main__":
    sys.exit(carried_out(main))
