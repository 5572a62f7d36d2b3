"""Who listens on a port of this machine."""

import contextlib
import errno
import json
import socket
from pathlib import Path

from ops.docker import docker

_LISTEN = "0A"


def trouble(address: str, port: int) -> int:
    """Return why nobody could listen there, as a number of `errno`; 0 if one could."""
    is_ipv6 = ":" in address
    try:
        one = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        return error.errno or errno.EIO
    with one:
        if is_ipv6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Connections that have just ended do not count, listeners do.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((address, port))
        except PermissionError:
            # Only root may, as Docker does; then see whether somebody answers.
            return errno.EADDRINUSE if _inode(port) else 0
        except OSError as error:
            return error.errno or errno.EIO
    return 0


def publisher(port: int) -> tuple[str, str]:
    """Return the name and the Compose project of the container that has a port, or two blanks."""
    listed = docker("ps", f"--filter=publish={port}", "--format=json")
    for line in listed.splitlines():
        found = json.loads(line)
        labels = dict(one.partition("=")[::2] for one in found["Labels"].split(","))
        return found["Names"], labels.get("com.docker.compose.project", "")
    return "", ""


def process(port: int) -> str:
    """Return the name of the process that listens on a port, or a blank if that is not known."""
    wanted = f"socket:[{_inode(port)}]"
    for folder in Path("/proc").glob("[0-9]*"):
        # Processes end, and others' are not ours to look into.
        with contextlib.suppress(OSError):
            if any(str(one.readlink()) == wanted for one in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
    return ""


def _inode(port: int) -> str:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    return fields[9]
    return ""
