"""Puts Berth beside the app: last on Python's path, so that whatever the app brings comes first."""

import compileall
import re
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

from image.app import AppError
from image.commands import carried_out
from image.source import NEVER
from image.versions import parse

BERTH = Path("/opt/berth")
# Named so that no package of the app's collides with it.
PACKAGE = BERTH / "_berth"


def add_to_path() -> None:
    """Have this Python find Berth."""
    Path(sysconfig.get_path("purelib"), "_berth.pth").write_text(f"{BERTH}\n")
    sys.path.append(str(BERTH))


def check_versions(requirements: str) -> None:
    """Refuse an app whose own version of something is too old for Berth."""
    for name, oldest in re.findall(r"^([\w-]+)>=([\d.]+)", requirements, re.MULTILINE):
        if parse(version(name)) < parse(oldest):
            raise AppError(
                f"the app pins {name} {version(name)}, and Berth's server needs {oldest} or newer: "
                "raise it in what the app depends on"
            )


def main(*folders: str) -> None:
    """Finish an image.

    Args:
        folders: Whose code to compile, besides Berth's.
    """
    add_to_path()
    check_versions((PACKAGE / "requirements.in").read_text())
    # Nothing can be written once it runs. What does not compile, a template say, is the app's own.
    left_out = re.compile(rf"/({NEVER.pattern})/")
    for folder in (*folders, str(PACKAGE)):
        compileall.compile_dir(folder, quiet=2, rx=left_out)


if __name__ == "__main__":
    sys.exit(carried_out(main))
