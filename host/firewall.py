"""The firewall of a server: what comes in from outside, to the machine and to its containers.

It is a table of its own beside those of Docker and of others: what any of them drops is dropped.
New rules are taken back after a minute, unless somebody has logged in anew and keeps them.
"""

import re
from collections.abc import Collection
from importlib import resources
from pathlib import Path

from host.commands import UserError, output, run

_RULES = Path("/etc/berth/firewall.nft")
_UNIT = Path("/etc/systemd/system/berth-firewall.service")
_TABLE = ("table", "inet", "berth_host")
# Until they are kept.
_NEW = Path("/run/berth-firewall.nft")
_UNDO = "berth-firewall-undo"
_UNDO_SECONDS = 60


def open_ports(login: int) -> set[int]:
    """Return the ports that stay open for TCP.

    Args:
        login: The port of the SSH connection by which the person came.
    """
    configured = re.findall(r"(?m)^port (\d+)$", output("sshd", "-T") or "")
    return {22, 80, 443, login, *map(int, configured)}


def listening() -> set[int]:
    """Return the TCP ports on which others than this machine itself find somebody now."""
    addresses = [line.split()[3] for line in (output("ss", "-Hltn") or "").splitlines()]
    return {
        int(one.rpartition(":")[2])
        for one in addresses
        if not re.match(r"127\.|\[::1\]|\[::ffff:127\.", one)
    }


def is_up(ports: Collection[int]) -> bool:
    """Whether the rules for these ports are in force, and will be after a restart."""
    return (
        _text(_RULES) == rules(ports)
        and _text(_UNIT) == _shipped(_UNIT.name)
        and output("systemctl", "is-enabled", _UNIT.name) == "enabled"
        and output("nft", "list", *_TABLE) is not None
    )


def put_up(ports: Collection[int]) -> None:
    """Put rules in force, which are taken back in a minute unless `keep` comes before.

    Raises:
        UserError: They cannot be.
    """
    _NEW.write_text(rules(ports))
    run(["nft", "--check", "--file", str(_NEW)], purpose="read the firewall's rules")
    before = ["--file", str(_RULES)] if _RULES.is_file() else ["delete", *_TABLE]
    output("systemctl", "stop", f"{_UNDO}.timer")
    run(
        [
            *("systemd-run", f"--unit={_UNDO}", f"--on-active={_UNDO_SECONDS}", "--collect"),
            *("--timer-property=AccuracySec=1s", "--property=Type=oneshot"),
            *("sh", "-c", f"nft {' '.join(before)}; rm {_NEW}"),
        ],
        purpose="have the firewall taken back in a minute",
    )
    run(["nft", "--file", str(_NEW)], purpose="put up the firewall")


def keep() -> None:
    """Have the new rules stay, through restarts of the machine as well.

    Raises:
        UserError: They were taken back already.
    """
    output("systemctl", "stop", f"{_UNDO}.timer")
    if not _NEW.is_file():
        raise UserError(f"nobody logged in anew within {_UNDO_SECONDS} s")
    _RULES.parent.mkdir(exist_ok=True)
    _RULES.write_text(_NEW.read_text())
    _UNIT.write_text(_shipped(_UNIT.name))
    _NEW.unlink()
    run(["systemctl", "daemon-reload"], purpose="have the firewall after a restart")
    run(["systemctl", "enable", "--now", _UNIT.name], purpose="have the firewall after a restart")


def take_back() -> None:
    """Have the rules in force that were there before, at once."""
    output("systemctl", "start", f"{_UNDO}.service")
    output("systemctl", "stop", f"{_UNDO}.timer")


def rules(ports: Collection[int]) -> str:
    """Return the rules that leave these TCP ports open."""
    listed = ", ".join(map(str, sorted(ports)))
    return f"define tcp_ports = {{ {listed} }}\n{_shipped(_RULES.name)}"


def _shipped(name: str) -> str:
    return resources.files("host").joinpath(name).read_text()


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""
