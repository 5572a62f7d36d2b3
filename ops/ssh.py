"""Another machine, reached by OpenSSH, which must check its key."""

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from host.commands import UserError, output
from ops.docker import tail

# What ssh takes: [user@]host, or ssh://[user@]host[:port].
_DESTINATION = re.compile(r"(ssh://)?([\w.-]+@)?\w[\w.:-]*", re.ASCII)
# It may say nothing for 45 s: then it is given up.
_MASTER = (
    *("-o", "ControlMaster=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=2"),
)
# ssh ends with it where the connection failed, rather than the command.
_NO_CONNECTION = 255


@dataclass(frozen=True)
class Server:
    """A machine that one is logged in to.

    Attributes:
        destination: As ssh takes it.
        options: With which each ssh uses the one connection.
    """

    destination: str
    options: tuple[str, ...]

    @classmethod
    @contextmanager
    def connected(cls, destination: str) -> Iterator["Server"]:
        """Log in, once for all that follows.

        Raises:
            UserError: That does not work, by ssh's own words; or ssh would trust anybody.
        """
        if not _DESTINATION.fullmatch(destination):
            raise UserError(
                f"HOST={destination}: give what ssh takes, such as deploy@shop.example.org"
            )
        _check_keys_are_checked(destination)
        with tempfile.TemporaryDirectory(prefix="berth-") as folder:
            options = ("-o", f"ControlPath={folder}/line")
            # Without the one connection there is none, rather than one more that nobody times.
            server = cls(destination, (*options, "-o", "ProxyCommand=false"))
            # A file: what stays in the background keeps its standard error open.
            with (Path(folder) / "said").open("w+") as said:
                master = ("ssh", *options, *_MASTER, "-fN", "--", destination)
                if subprocess.call(master, stderr=said):
                    said.seek(0)
                    raise UserError(f"cannot log in to {destination}: {tail(said.read(), 3)}")
            try:
                yield server
            finally:
                subprocess.run(
                    ["ssh", *options, "-O", "exit", "--", destination],
                    check=False,
                    capture_output=True,
                )

    def output(self, *command: str, stdin: str = "") -> str:
        """Return what a command prints there.

        Raises:
            UserError: It fails; its last words say why.
        """
        done = subprocess.run(
            self._ssh(*command), input=stdin, text=True, capture_output=True, check=False
        )
        self._check(done.returncode, done.stderr or done.stdout)
        return done.stdout

    def feed(self, write: Callable[[IO[bytes]], None], *command: str) -> str:
        """Run a command there that reads what is written, and return what it prints.

        Raises:
            UserError: It fails; its last words say why.
        """
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(
                self._ssh(*command), stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT
            ) as child,
        ):
            assert child.stdin  # noqa: S101
            try:
                with child.stdin:
                    write(child.stdin)
            except BrokenPipeError:
                pass  # its end says why
            status = child.wait()
            said.seek(0)
            text = said.read()
        self._check(status, text)
        return text

    def run(self, script: str, *, terminal: bool) -> int:
        """Run a line of shell there as if it was typed; returns its exit code.

        Raises:
            UserError: The connection ended first.
        """
        ssh = self._ssh("sh", "-c", script)
        status = subprocess.call([*ssh[:1], *(["-t"] if terminal else []), *ssh[1:]])
        self._check(status if status == _NO_CONNECTION else 0, "")
        return status

    def _ssh(self, *command: str) -> list[str]:
        return ["ssh", *self.options, "--", self.destination, shlex.join(command)]

    def _check(self, status: int, said: str) -> None:
        if status == _NO_CONNECTION:
            raise UserError(
                f"the connection to {self.destination} ended: what serves there is whole, and the "
                "same command goes on from there"
            )
        if status:
            raise UserError(f"{self.destination}: {tail(said, 5)}")


def _check_keys_are_checked(destination: str) -> None:
    """Trust no ssh that is set to take any key for the server's.

    Raises:
        UserError: It is, or there is no ssh.
    """
    if shutil.which("ssh") is None:
        raise UserError("there is no ssh here: install openssh-client")
    settings = output("ssh", "-G", "--", destination) or ""
    if "stricthostkeychecking false" in settings.splitlines():
        raise UserError(
            f"ssh would take any key for that of {destination}: leave StrictHostKeyChecking=no "
            "out of its configuration"
        )
