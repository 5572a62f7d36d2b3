"""Installs Debian packages: APP_PACKAGES."""

import os
import shutil
import sys
from pathlib import Path

from image.app import AppError
from image.commands import carried_out, run


def install(*names: str) -> None:
    """Install packages, if any, without what they merely recommend."""
    if not names:
        return
    if not shutil.which("apt-get"):
        raise AppError("APP_PACKAGES: PYTHON_IMAGE is not of Debian's family, so it has no apt-get")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "update", "-q")
    run("apt-get", "install", "-q", "-y", "--no-install-recommends", *names)
    for file in Path("/var/lib/apt/lists").iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()


if __name__ == "__main__":
    sys.exit(carried_out(install))
