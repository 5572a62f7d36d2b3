"""Registries for tests: Debian's own, and one that has a single answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import requests

from tests.ports import free_port
from tests.stack.stack import HERE, docker, poll

IMAGE = "berth-test-registry"
# Of the user `berth`.
PASSWORD = "kept-to-yourself"
# Options of one that wants a log-in.
LOG_IN = (
    "--env=REGISTRY_AUTH_HTPASSWD_PATH=/etc/docker/registry/htpasswd",
    "--env=REGISTRY_AUTH_HTPASSWD_REALM=berth",
)


def build() -> None:
    """Have the registry's image."""
    docker("build", "--quiet", f"--tag={IMAGE}", f"{HERE}/registry")


def forget(port: int) -> None:
    """Remove the images here that are named after a registry at a port."""
    listed = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}").splitlines()
    names = [name for name in listed if name.startswith(f"127.0.0.1:{port}/")]
    if names:
        docker("image", "rm", "--force", *names)


@contextmanager
def serving(port: int, *options: str, within: str = "") -> Iterator[None]:
    """Run a registry.

    Args:
        port: Where, on 127.0.0.1.
        options: Of its container.
        within: A container that has the port published, and finds the registry there itself.
    """
    where = f"--network=container:{within}" if within else f"--publish=127.0.0.1:{port}:{port}"
    container = docker(
        *("run", "--detach", where, f"--env=REGISTRY_HTTP_ADDR=:{port}"),
        *("--tmpfs=/tmp:mode=1777", *options, IMAGE),
    )

    def answers() -> bool:
        with suppress(requests.RequestException):
            return requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5).status_code in {200, 401}
        return False

    try:
        poll("the registry", answers)
        yield
    finally:
        docker("rm", "--force", container)


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[int]:
    """Be a registry that has one answer to everything; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.command == "GET" else b"")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    with HTTPServer(("127.0.0.1", free_port()), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
