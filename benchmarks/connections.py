"""What a thousand open connections hold: `.venv/bin/python -m benchmarks.connections`.

WebSockets to one replica, from one address and from a thousand, through a deploy, and with the
Traefik of a small server; and kept HTTP/2 connections. All on a stack with a certificate as an
authority signs it; its app has no database, and its WebSocket echoes. Meanwhile others are served.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import client
from benchmarks.cgroups import Cgroup
from tests.stack.load import steady_load
from tests.stack.stack import REPOSITORY, Stack, poll, running_with_ca

COUNT = 1000
PATIENCE_SECONDS = 60
QUIET_SECONDS = 20
# HTTP/2 connections begin one after the other, at so many a second; each asks so often and so many
# times, so that all are there after 10 s and none has ended before 25.
HTTP2_BEGIN = 100
HTTP2_RATE = 0.2
HTTP2_REQUESTS = 6
HTTP2_SECONDS = 20
# Requests a second of others.
RATE = 50


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

    def settle(self, count: int = COUNT) -> dict[str, Any]:
        """Ask until so many are open, or a minute has passed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (told := self.ask())["open"] < count and time.monotonic() < deadline:
            time.sleep(0.5)
        return told


@contextmanager
def beside(stack: Stack, *command: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a client in the network namespace of Traefik, started anew as all that it asks."""
    stack.compose("restart", "--timeout=1", "traefik", "api")
    poll("the app", lambda: stack.answers("/"))
    time.sleep(2)  # what a start needs is not at rest yet
    print(f"at rest: {memory(stack)}")
    (traefik,) = stack.containers("traefik")
    run = ["docker", "run", "--rm", "--init", "--interactive"]
    run += [f"--network=container:{traefik['Id']}", client.IMAGE, *command]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.communicate(timeout=PATIENCE_SECONDS)


@contextmanager
def web_sockets(stack: Stack, addresses: int) -> Iterator[WebSockets]:
    """Keep a thousand open, from so many addresses."""
    url = f"wss://{stack.domain}/echo"
    with beside(stack, "python3", "/client/sockets.py", url, f"{COUNT}", f"{addresses}") as process:
        yield WebSockets(process)


def memory(stack: Stack) -> str:
    """Say what the replica and Traefik hold, and how often they have started anew."""
    said = []
    for service in ("api", "traefik"):
        for one in stack.containers(service):
            mib = Cgroup(one["Name"], one["State"]["Pid"]).memory_mib()
            killed = ", killed" * one["RestartCount"]
            said.append(f"{service} {mib:.0f} MiB{killed}")
    return ", ".join(said)


def cpu_seconds(stack: Stack, service: str) -> float:
    """Return the processor time of a service's one container."""
    (container,) = stack.containers(service)
    return Cgroup(container["Name"], container["State"]["Pid"]).cpu_seconds()


@contextmanager
def others(stack: Stack) -> Iterator[None]:
    """Have others ask meanwhile, and say what they lost."""
    with steady_load(stack, rate=RATE) as load:
        yield
    print(
        f"  of {len(load.outcomes)} requests of others: {load.why()}, {load.slowest:.1f} s at most"
    )


def open_many(stack: Stack) -> None:
    """Open WebSockets, leave them alone, and deploy."""
    with web_sockets(stack, 1) as sockets:
        time.sleep(5)
        print(f"WebSockets from one address: {sockets.ask()}\n  {memory(stack)}")
    with web_sockets(stack, COUNT) as sockets:
        began = time.monotonic()
        with others(stack):
            told = sockets.settle()
            print(f"WebSockets from {COUNT}: {told} in {time.monotonic() - began:.1f} s")
        print(f"  {memory(stack)}")
        before = {name: cpu_seconds(stack, name) for name in ("traefik", "api")}
        time.sleep(QUIET_SECONDS)
        for name, used in before.items():
            share = (cpu_seconds(stack, name) - used) / QUIET_SECONDS
            print(f"  quiet, {name}: {share:.1%} of a core")
        print(f"  {memory(stack)}")
        stack.environment["MAX_IN_FLIGHT"] = "251"  # so that there is something to deploy
        began = time.monotonic()
        with others(stack):
            stack.run("make", "deploy")
            print(f"a deploy: {time.monotonic() - began:.1f} s, {sockets.settle()}")
        print(f"  {memory(stack)}")


def open_many_at_a_small_server(stack: Stack) -> None:
    """The same, with the Traefik that `make up` gives a server of 1 GB."""
    stack.environment |= {"TRAEFIK_MEMORY": "152m", "TRAEFIK_HEAP": "104MiB"}
    stack.compose("up", "--detach", "--wait", "--no-deps", "traefik")
    with web_sockets(stack, COUNT) as sockets:
        print(f"with a Traefik of 152 MiB: {sockets.settle()}\n  {memory(stack)}")


def keep_http2(stack: Stack) -> None:
    """Keep connections that ask now and then."""
    command = ["h2load", f"--clients={COUNT}", f"--rate={HTTP2_BEGIN}", f"--rps={HTTP2_RATE}"]
    command += [f"--requests={COUNT * HTTP2_REQUESTS}", "--connect-to=127.0.0.1:443"]
    with beside(stack, *command, f"https://{stack.domain}/") as process:
        with others(stack):
            time.sleep(HTTP2_SECONDS)
            print(f"HTTP/2 connections: {memory(stack)}")
        said, _ = process.communicate()
        for line in said.splitlines():
            if line.startswith(("finished", "requests", "status")):
                print(f"  {line}")


def main() -> None:
    """Measure and print."""
    client.build()
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_with_ca(
            "berth-bench-connections",
            Path(scratch),
            scale=1,
            APP_DIR=str(REPOSITORY / "tests/foreign/pages"),
            CLIENT_IN_FLIGHT="300",
        ) as stack,
    ):
        open_many(stack)
        keep_http2(stack)
        open_many_at_a_small_server(stack)


if __name__ == "__main__":
    main()
