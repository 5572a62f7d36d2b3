import os
import re
import subprocess
import time
import uuid
from pathlib import Path

from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
PASSWORD = "only-for-this-test"


def image() -> str:
    """The one that the stack runs on, so that both are tested with the same server."""
    pinned = re.search(r"\$\{POSTGRES_IMAGE:-(.+?)\}", (ROOT / "compose.yaml").read_text())
    assert pinned
    return os.environ.get("POSTGRES_IMAGE") or pinned[1]


def docker(*command: str, timeout: float = 60) -> str:
    done = subprocess.run(
        ["docker", *command], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"docker {' '.join(command)}: {done.stderr}"
    return done.stdout.strip()


class Postgres:
    """A throwaway server. Its port stays the same when it is stopped and started."""

    def __init__(self) -> None:
        self.name = f"berth-test-{uuid.uuid4().hex[:12]}"
        self.port = free_port()

    def run(self) -> None:
        docker(
            *("run", "--detach", "--name", self.name),
            *("--publish", f"127.0.0.1:{self.port}:5432"),
            *("--env", "POSTGRES_USER=berth", "--env", f"POSTGRES_PASSWORD={PASSWORD}"),
            *(image(), "-c", "fsync=off"),
            timeout=300,
        )
        self.wait()

    def wait(self) -> None:
        """Until it accepts connections over TCP, as it does not during its own setup."""
        deadline = time.monotonic() + 60
        ready = ["docker", "exec", self.name, "pg_isready", "--quiet", "--host=127.0.0.1"]
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, docker("logs", self.name)
            time.sleep(0.1)

    def stop(self) -> None:
        docker("stop", self.name)

    def kill(self) -> None:
        docker("kill", self.name)

    def freeze(self) -> None:
        """No answer and no goodbye, as when the network is cut."""
        docker("pause", self.name)

    def thaw(self) -> None:
        docker("unpause", self.name)

    def start(self) -> None:
        docker("start", self.name)
        self.wait()

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name)

    def create_database(self) -> str:
        name = f"test_{uuid.uuid4().hex}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return name

    def sql(self, database: str, query: str) -> str:
        return docker(
            *("exec", self.name, "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"),
            *("--set=ON_ERROR_STOP=1", "--username=berth", f"--dbname={database}"),
            f"--command={query}",
        )
