"""The programs under test, as processes of their own: signals and exit codes are the matter."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from tests.berth.postgres import ROOT
from tests.ports import free_port

Environment = dict[str, str]


def eventually(condition: Callable[[], bool], what: str, seconds: float = 30) -> float:
    """Seconds until the condition held."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - started


def run(environment: Environment, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def migrate(environment: Environment) -> None:
    done = run(environment, "berth.migrate")
    assert done.returncode == 0, done.stdout


class Server:
    """`python -m berth.server`, or another module, until the end of the block."""

    def __init__(
        self, environment: Environment, log: Path, module: str = "berth.server", **settings: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_port = free_port()
        own = {"PORT": str(self.port), "METRICS_PORT": str(self.metrics_port)}
        own["TMPDIR"] = str(log.parent)  # where several processes leave what they have counted
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env=os.environ | {"LOG_LEVEL": "debug"} | environment | settings | own,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def ready(self) -> Self:
        eventually(self._is_ready, "ready", 30)
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.output()
        try:
            return self.get("/readyz").status_code == 200
        except requests.ConnectionError:
            return False

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=10)

    def await_begun(self) -> None:
        """Return once the server works on a request of tests.faults that takes its time."""
        eventually(lambda: "begun" in self.output(), "the request has begun")

    def post(self, path: str, body: object) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=10)

    def metrics(self) -> dict[str, float]:
        """Each sample that Prometheus would read, by its name and labels as they are written."""
        answer = requests.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10)
        lines = (line for line in answer.text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (one.rpartition(" ") for one in lines)}

    def listens(self) -> bool:
        """Whether a connection is accepted, by whichever process."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def drain(self) -> None:
        """Terminate, and return once the server has taken notice."""
        self.terminate()
        eventually(lambda: self.get("/readyz").status_code == 503, "draining")

    def exit_code(self, seconds: float = 10) -> int:
        return self.process.wait(seconds)

    def output(self) -> str:
        return self.log.read_text()
