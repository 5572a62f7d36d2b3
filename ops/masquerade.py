"""Has Compose start one image under the name of another.

An image's name is part of what Compose compares to see whether a container is up to date, so a
replica must be started under the name that `docker compose up` knows: `current`. Were that tag
moved for it, whoever types `docker compose up` meanwhile would start a version that nobody has seen
work. So Compose reaches the engine through here, where the name stands for the new image already.
"""

import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO


@contextmanager
def masquerade(name: str, image: str) -> Iterator[dict[str, str]]:
    """Listen for Compose.

    Args:
        name: The image's name in the configuration.
        image: The name of the one that it shall stand for.

    Yields:
        The environment with which Compose takes `name` for `image`.
    """
    if name == image:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="berth-") as folder:
        path = Path(folder) / "docker.sock"
        # Of this process alone: the folder is closed to others.
        with socket.create_server(os.fspath(path), family=socket.AF_UNIX) as listener:
            threading.Thread(target=_accept, args=(listener, name, image), daemon=True).start()
            yield {"DOCKER_HOST": f"unix://{path}", "DOCKER_TLS_VERIFY": "", "DOCKER_TLS": ""}
            # What waits in accept() would not notice that its socket is closed.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, name: str, image: str) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, name, image), daemon=True).start()


def _serve(client: socket.socket, name: str, image: str) -> None:
    # The one way to the engine that is the same for sockets, TLS, SSH and contexts.
    command = ("docker", "system", "dial-stdio")
    with (
        client,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as engine,
    ):
        assert engine.stdin  # noqa: S101
        assert engine.stdout  # noqa: S101
        answers = threading.Thread(target=_pass_on, args=(engine.stdout, client), daemon=True)
        answers.start()
        with suppress(OSError), client.makefile("rb") as requests:
            while _pass_request(requests, engine.stdin, name, image):
                pass
        with suppress(OSError):
            engine.stdin.close()
        answers.join()


def _pass_on(answers: IO[bytes], client: socket.socket) -> None:
    with suppress(OSError):
        while part := os.read(answers.fileno(), 1 << 16):
            client.sendall(part)
        client.shutdown(socket.SHUT_RDWR)


def _pass_request(requests: BufferedReader, engine: IO[bytes], name: str, image: str) -> bool:
    """Pass one request on, with the image's name replaced; return whether there may be another."""
    lines = []
    while (line := requests.readline()) not in {b"\r\n", b""}:
        lines.append(line)
    if not lines:
        return False
    fields = {key.lower(): value.strip() for key, _, value in (x.partition(b":") for x in lines)}
    body = requests.read(int(fields.get(b"content-length", 0)))
    lines[0] = lines[0].replace(f"/images/{name}/json".encode(), f"/images/{image}/json".encode())
    if b"/containers/create" in lines[0]:
        body = _of_image(body, name, image)
        lines = [line for line in lines if not line.lower().startswith(b"content-length:")]
        lines.append(b"Content-Length: %d\r\n" % len(body))
    engine.write(b"".join(lines) + b"\r\n" + body)
    engine.flush()
    if b"upgrade" in fields or b"transfer-encoding" in fields:
        while part := requests.read1(1 << 16):
            engine.write(part)
            engine.flush()
        return False
    return True


def _of_image(body: bytes, name: str, image: str) -> bytes:
    container = json.loads(body)
    if container.get("Image") == name:
        container["Image"] = image
    return json.dumps(container).encode()
