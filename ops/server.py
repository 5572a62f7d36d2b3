"""Berth's part of an app's image: its server, and whether that is this checkout's."""

import tempfile
from pathlib import Path

from ops.docker import ROOT, docker
from ops.images import Image


def is_of_this_checkout(image: Image) -> bool:
    """Whether an image has what this checkout has in berth/.

    Raises:
        DockerError: There is no looking into it.
    """
    if not image.has_berth:
        return False
    with tempfile.TemporaryDirectory(prefix="berth-") as folder:
        # Never started: what is in an image can be had by way of a container only.
        container = docker("create", image.id)
        try:
            docker("cp", f"{container}:/opt/berth/_berth", folder)
        finally:
            docker("rm", container)
        return _files(Path(folder, "_berth")) == _files(ROOT / "berth")


def _files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}
