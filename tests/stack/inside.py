"""Scripts run from a container's own place on the network, with nothing but what it can reach."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from tests.stack.stack import HERE, Stack, docker, printed

ATTACKER = "berth-test-attacker"


def in_network_of(stack: Stack, service: str, script: str, *arguments: str) -> Any:  # noqa: ANN401
    """Run Python beside a service's container, on its network; returns what it prints as JSON."""
    (container, *_) = stack.containers(service)
    network = f"--network=container:{container['Id']}"
    image = f"{stack.project}-api:current"
    return json.loads(printed(network, "--entrypoint=python", image, "-c", script, *arguments))


CONNECT = """
import json, socket, sys
def reaches(address, port):
    try:
        socket.create_connection((address, int(port)), timeout=2).close()
    except OSError:
        return False
    return True
print(json.dumps([reaches(*one.rsplit(":", 1)) for one in sys.argv[1:]]))
"""


def reaches(stack: Stack, service: str, *addresses: str) -> list[bool]:
    """Return whether a service's container can open a connection to each `host:port`."""
    found: list[bool] = in_network_of(stack, service, CONNECT, *addresses)
    return found


def attack(
    stack: Stack, *command: str, mounts: Sequence[str] = (), check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program of the attacker's image on Traefik's network: 127.0.0.1 is Traefik there."""
    docker("build", "--quiet", f"--tag={ATTACKER}", str(HERE / "attacker"))
    (traefik,) = stack.containers("traefik")
    volumes = [f"--volume={mount}" for mount in mounts]
    network = f"--network=container:{traefik['Id']}"
    done = subprocess.run(
        ["docker", "run", "--rm", network, *volumes, ATTACKER, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if check:
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done
