"""What a thousand open connections hold: `.venv/bin/python -m benchmarks.connections`.

WebSockets to one replica, from one address and from a thousand, and through a deploy; and kept
HTTP/2 connections. The app has no database, and its WebSocket echoes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import client, project
from benchmarks.client import Client
from benchmarks.peers import berth
from benchmarks.project import Project
from benchmarks.visit import cpu
from host import images, stand_in
from ops.docker import ROOT

COUNT = 1000
PATIENCE_SECONDS = 60
QUIET_SECONDS = 20
# Each HTTP/2 connection asks so often, and is kept for a minute.
HTTP2_SECONDS = 30
HTTP2_RATE = 0.2
APP = {"APP_DIR": "tests/foreign/pages"}


class WebSockets:
    """A client that keeps a thousand open, as sockets.py says."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self) -> dict[str, Any]:
        """Have all echoed, and return what it tells."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin  # noqa: S101
        assert stdout  # noqa: S101
        stdin.write("\n")
        stdin.flush()
        told: dict[str, Any] = json.loads(stdout.readline())
        return told

    def settle(self, count: int) -> dict[str, Any]:
        """Ask until so many are open, or a minute has passed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (told := self.ask())["open"] < count and time.monotonic() < deadline:
            time.sleep(0.5)
        return told


@contextmanager
def web_sockets(load: Client, addresses: int) -> Iterator[WebSockets]:
    """Keep a thousand open, from so many addresses."""
    command = ["python3", "/client/sockets.py", "wss://localhost/echo", f"{COUNT}", f"{addresses}"]
    with load.talking(*command) as process:
        yield WebSockets(process)


@contextmanager
def fresh(stack: Project) -> Iterator[Client]:
    """Start a stack, with a client beside it."""
    stack.up()
    try:
        time.sleep(1)  # what a start needs is not at rest yet
        with client.beside(stack.peer, stack.containers()) as load:
            print(f"at rest: {memory(stack)}")
            yield load
    finally:
        stack.stop()


def memory(stack: Project) -> str:
    """Say what the stack's containers hold."""
    found = [one for one in stack.containers() if one.service in {"api", "traefik"}]
    return ", ".join(f"{one.service} {one.cgroup.memory_mib():.0f} MiB" for one in found)


def measure_web_sockets(stack: Project) -> None:
    """Open them, leave them alone, and deploy."""
    with fresh(stack) as load, web_sockets(load, 1) as one_address:
        time.sleep(3)
        print(f"WebSockets from one address: {one_address.ask()}; {memory(stack)}")
    with fresh(stack) as load, web_sockets(load, COUNT) as clients:
        began = time.monotonic()
        told = clients.settle(COUNT)
        print(f"WebSockets from {COUNT}: {told} in {time.monotonic() - began:.1f} s")
        print(f"  then: {memory(stack)}")
        containers = stack.containers()
        before = cpu(containers)
        time.sleep(QUIET_SECONDS)
        used = {name: (now - before[name]) / QUIET_SECONDS for name, now in cpu(containers).items()}
        print(f"  quiet, of a core: proxy {used['proxy']:.1%}, api {used['api']:.1%}")
        print(f"  then: {memory(stack)}")
        # A setting that only replicas have, so that they are replaced.
        environment = {**os.environ, **stack.environment, "MAX_IN_FLIGHT": "251"}
        deploy = [sys.executable, "-m", "ops.deploy"]
        began = time.monotonic()
        subprocess.run(deploy, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
        print(f"a deploy: {time.monotonic() - began:.1f} s; {clients.settle(COUNT)}")
        print(f"  then: {memory(stack)}")


def measure_http2(stack: Project) -> None:
    """Keep connections that ask now and then."""
    command = ["h2load", f"--clients={COUNT}", f"--rps={HTTP2_RATE}"]
    command += [f"--duration={HTTP2_SECONDS}", "https://localhost/"]
    with fresh(stack) as load, load.talking(*command) as process:
        time.sleep(HTTP2_SECONDS * 2 / 3)
        print(f"HTTP/2 connections: {memory(stack)}")
        said, _ = process.communicate()
        for line in said.splitlines():
            if line.startswith(("finished", "requests", "status")):
                print(f"  {line}")


def main() -> None:
    """Measure and print."""
    stack = Project(berth(1), app=APP)
    with project.leaving_nothing():
        images.ensure([stand_in.BASE])
        client.build()
        stack.compose("build", "--quiet")
        measure_web_sockets(stack)
        measure_http2(stack)


if __name__ == "__main__":
    main()
