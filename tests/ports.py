"""Ports that a test may have something listen on."""

import os
import random
import socket

# Below those that the kernel gives to clients (ip_local_port_range): one of these could be taken
# by any connection that is made before the server starts, or while it starts anew.
# Of them, each worker has its own, and gives none twice.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = range(10_000 + _WORKER % 8, 32_768, 8)
_SHUFFLED = iter(random.sample(_PORTS, len(_PORTS)))


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    for port in _SHUFFLED:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is left")
