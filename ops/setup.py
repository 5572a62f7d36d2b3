"""`make setup HOST=root@shop.example.org`: prepare a bare server, by SSH.

What runs there is host/setup.py. Nobody is locked out: the firewall stays only where a second
connection has come about through it.
"""

import io
import os
import shlex
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from host.checkout import ROOT
from host.commands import UserError, carried_out, say
from host.setup import USER
from ops.ssh import Server

# Prints the package with a Python such as Berth needs, unless there is one.
_PYTHON = """
for newer in python3.14 python3.13 python3.12 python3.11; do
    if command -v $newer > /dev/null; then exit; fi
done
if ! command -v python3 > /dev/null; then echo python3; exit; fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || echo python3.11
"""
_INSTALL = "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y"


def setup() -> None:
    """Prepare each server of HOST, up to the first where that fails.

    Raises:
        UserError: It cannot be prepared, or not now.
    """
    for destination in os.environ.get("HOST", "").split() or [""]:
        _prepare(destination)


def _prepare(destination: str) -> None:
    with Server.connected(destination) as server:
        _bring_python(server)
        with Preparation.sent(server) as preparation:
            changes = preparation.output("plan").splitlines()
            if not changes:
                say(f"{destination} is prepared: there is nothing to do")
                return
            _agree(server, changes)
            preparation.apply()
            _keep_firewall(preparation)
    address = destination.removeprefix("ssh://")
    scheme = destination.removesuffix(address)
    deployer = f"{scheme}{USER}@{address.rpartition('@')[2]}"
    with Server.connected(deployer) as server:
        server.output("docker", "version")
    say(f"{destination} is prepared: `make deploy HOST={deployer}`")


@dataclass(frozen=True)
class Preparation:
    """What prepares a server, there.

    Attributes:
        server: The connection.
        file: Where it is.
    """

    server: Server
    file: str

    @classmethod
    @contextmanager
    def sent(cls, server: Server) -> Iterator["Preparation"]:
        """Have it there for a while."""
        file = server.feed(_write_program, "sh", "-c", "f=$(mktemp) && cat > $f && echo $f").strip()
        try:
            yield cls(server, file)
        finally:
            with suppress(UserError):
                server.output("rm", file)

    def output(self, step: str, *, by: Server | None = None) -> str:
        """Return what a step prints, by this connection or another one."""
        return (by or self.server).output("sh", "-c", self._command(step))

    def apply(self) -> None:
        """Change what is to be changed, and have it said meanwhile.

        Raises:
            SystemExit: Something fails, as it has said itself.
        """
        if status := self.server.run(self._command("apply"), terminal=False):
            sys.exit(status)

    def _command(self, step: str) -> str:
        person = 'BERTH_PERSON="$(id -un)" BERTH_PORT="${SSH_CONNECTION##* }"'
        return _as_root(f"env PYTHONPATH={self.file} {person} python3 -m host.setup {step}")


def _bring_python(server: Server) -> None:
    """Have a Python there, without which nothing more can be found out.

    Raises:
        UserError: It is not agreed to, or this user may not.
    """
    try:
        server.output("sh", "-c", _as_root("true"))
    except UserError as error:
        raise UserError(f"{error}: HOST needs root@…, or a user who may `sudo -n`") from None
    if package := server.output("sh", "-c", _PYTHON).strip():
        _agree(server, [f"install {package}, which finds out what else is to be done"])
        server.output("sh", "-c", _as_root(f"sh -c {shlex.quote(f'{_INSTALL} {package}')}"))


def _as_root(command: str) -> str:
    return f'if [ "$(id -u)" = 0 ]; then {command}; else sudo -n {command}; fi'


def _write_program(stream: IO[bytes]) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in (ROOT / "host").iterdir():
            if file.is_file():
                archive.write(file, f"host/{file.name}")
    stream.write(content.getvalue())


def _agree(server: Server, changes: Sequence[str]) -> None:
    """Show what is to be changed, and go on if the person wants that.

    Raises:
        UserError: They do not, or nobody is there to ask.
    """
    print(f"On {server.destination}:")
    for change in changes:
        print(f"  - {change}")
    sys.stdout.flush()
    if os.environ.get("YES") == "1":
        return
    if not sys.stdin.isatty():
        raise UserError("nothing was changed: YES=1 agrees to all of that")
    with suppress(EOFError):
        if input("Type yes to go on: ").strip().lower() == "yes":
            return
    raise UserError("nothing was changed")


def _keep_firewall(preparation: Preparation) -> None:
    """Have the firewall stay, if it lets a second connection in.

    Raises:
        UserError: It does not, and is taken back.
    """
    try:
        with Server.connected(preparation.server.destination) as second:
            preparation.output("keep", by=second)
    except UserError as error:
        preparation.output("take-back")
        raise UserError(
            f"the firewall was taken back, as no second connection came about: {error}"
        ) from None


def main() -> int:
    """Do it, and return the exit code."""
    try:
        return carried_out(setup)
    except KeyboardInterrupt:
        say("stopped: the same command goes on from there")
        return 130


if __name__ == "__main__":
    sys.exit(main())
