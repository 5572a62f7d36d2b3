"""Somebody with IPv6 addresses of its own, who comes to this machine from outside."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from host import engine
from ops.preflight import IPV6_ENGINE
from tests.stack.stack import CHECKOUT, Stack, docker, image

# A network that is kept for documentation.
_NETWORK = f"2001:db8:{CHECKOUT[:4]}:{CHECKOUT[4:]}"
_MACHINE = f"{_NETWORK}00::1"
CLIENT = f"{_NETWORK}00::2"
NEIGHBOUR = f"{_NETWORK}00::3"
STRANGER = f"{_NETWORK}01::2"
PROXY = f"{_NETWORK}01::3"

_CABLE = f"""
ip link add berth{CHECKOUT} type veth peer name eth0 netns $0
ip link set berth{CHECKOUT} up
for address in {_MACHINE} {_NETWORK}01::1; do
    ip address add $address/64 dev berth{CHECKOUT} nodad
done
nsenter --target $0 --net ip link set eth0 up
for address in {CLIENT} {NEIGHBOUR} {STRANGER} {PROXY}; do
    nsenter --target $0 --net ip address add $address/64 dev eth0 nodad
done
"""

_ASK = f"""
import http.client, json, socket, ssl, sys, threading, time
domain, port, path, forwarded, *sources = sys.argv[1:]
context = ssl._create_unverified_context()
def ask(source):
    raw = socket.create_connection(("{_MACHINE}", port), timeout=10, source_address=(source, 0))
    connection = http.client.HTTPConnection(domain)
    connection.sock = context.wrap_socket(raw, server_hostname=domain)
    headers = {{"Host": domain, "X-Forwarded-For": forwarded}}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    said = [answer.status, answer.headers["X-Request-ID"], answer.read().decode()]
    connection.close()
    return said
"""
_EACH = f"""{_ASK}
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(16) as threads:
    print(json.dumps(list(threads.map(ask, sources))))
"""
_ON_AND_ON = f"""{_ASK}
threading.Thread(target=lambda: (sys.stdin.read(), sources.clear()), daemon=True).start()
answers = []
while sources:
    try:
        answers.append(ask(sources[0])[0])
    except OSError as error:
        answers.append(repr(error))
    time.sleep(0.05)
print(json.dumps(answers))
"""


def everywhere() -> str:
    """Return BIND_ADDRESS_IPV6 for all of this machine's addresses; empty where that is refused."""
    return "" if engine.is_too_old(engine.version(), IPV6_ENGINE) else "::"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    request_id: str
    body: str


class Client:
    """A container whose network is a cable to this machine, past Docker's own networks."""

    def __init__(self, container: str) -> None:
        self._command = ["docker", "exec", "--interactive", container, "python", "-c"]

    def ask(
        self, stack: Stack, path: str, *sources: str, forwarded: str = "2001:db8::7"
    ) -> list[Answer]:
        """GET a path from each of these addresses of its own, several at a time.

        Each says that it asks for somebody else.
        """
        where = (stack.domain, str(stack.https_port), path, forwarded)
        said = docker(*self._command[1:], _EACH, *where, *sources)
        return [Answer(*one) for one in json.loads(said)]

    @contextmanager
    def asking(self, stack: Stack, path: str) -> Iterator[list[int | str]]:
        """GET a path on fresh connections all the while; what came back is there at the end."""
        where = (stack.domain, str(stack.https_port), path, "", CLIENT)
        answers: list[int | str] = []
        with subprocess.Popen(
            [*self._command, _ON_AND_ON, *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            yield answers
            said, _ = child.communicate(timeout=30)
            answers += json.loads(said)


@contextmanager
def client(stack: Stack) -> Iterator[Client]:
    """Have such a client, with Python from a stack's image."""
    if not everywhere():
        pytest.skip(f"Docker Engine {IPV6_ENGINE} brought networks of IPv6 alone")
    container = docker(
        *("run", "--detach", "--rm", "--network=none", "--entrypoint=sleep"),
        *(f"{stack.project}-api:current", "infinity"),
    )
    try:
        pid = docker("inspect", "--format={{.State.Pid}}", container)
        docker(
            *("run", "--rm", "--privileged", "--network=host", "--pid=host", "--volume=/:/host"),
            *("--entrypoint=chroot", image("postgres"), "/host", "sh", "-e", "-c", _CABLE, pid),
        )
        yield Client(container)
    finally:
        docker("rm", "--force", container)
