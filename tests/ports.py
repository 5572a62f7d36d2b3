"""Ports that a test may have something listen on."""

import random
import socket

# Below those that the kernel gives to clients (ip_local_port_range): one of these could be taken
# by any connection that is made before the server starts, or while it starts anew.
PORTS = range(10_000, 32_768)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    while True:
        port = random.choice(PORTS)  # noqa: S311 - nobody need be kept from guessing it
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
