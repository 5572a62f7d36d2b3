"""Somebody at a machine of their own, with curl and a browser, as far as programs can tell."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stack.inside import ATTACKER
from tests.stack.stack import HERE, Stack, docker

BROWSER = (
    *("chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--user-data-dir=/root/profile"),
    "--dump-dom",
)


@dataclass
class Person:
    """A container in this machine's network, with stores of certificates of its own."""

    stack: Stack
    container: str

    @property
    def authority(self) -> Path:
        """What `make trust` has made."""
        return self.stack.folder / "localhost/authority.pem"

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository with the stack's variables."""
        settings = [f"--env={name}={value}" for name, value in self.stack.environment.items()]
        folder = f"--workdir={self.stack.folder}"
        done = subprocess.run(
            ["docker", "exec", folder, *settings, self.container, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def browse(self, url: str) -> str:
        """Return the page that a browser shows, which it is started for, with the profile kept."""
        return self.run(*BROWSER, url, check=False).stdout


@contextmanager
def sitting_at(stack: Stack) -> Iterator[Person]:
    """Have somebody sit at a machine with a stack's folder, and with this one's Docker."""
    docker("build", "--quiet", f"--tag={ATTACKER}", str(HERE / "attacker"))
    plugins = json.loads(docker("info", "--format={{json .ClientInfo.Plugins}}"))
    compose = next(one["Path"] for one in plugins if one["Name"] == "compose")
    program = Path(shutil.which("docker") or "").resolve()
    container = docker(
        *("run", "--detach", "--rm", "--init", "--network=host", "--user=root", "--env=HOME=/root"),
        f"--volume={stack.folder}:{stack.folder}",
        f"--volume={program}:/usr/bin/docker:ro",
        f"--volume={compose}:/usr/libexec/docker/cli-plugins/docker-compose:ro",
        *(ATTACKER, "sleep", "infinity"),
    )
    person = Person(stack, container)
    try:
        yield person
    finally:
        # Whoever runs the tests removes what root has written.
        person.run("chown", "--recursive", str(os.getuid()), str(stack.folder / "localhost"))
        docker("rm", "--force", container)
