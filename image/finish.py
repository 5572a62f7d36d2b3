"""Puts Berth beside the app: last on Python's path, so that whatever the app brings comes first."""

import compileall
import re
import subprocess
import sys
import sysconfig
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from image.app import AppError
from image.commands import carried_out
from image.source import NEVER
from image.versions import parse

BERTH = Path("/opt/berth")
# Named so that no package of the app's collides with it.
PACKAGE = BERTH / "_berth"
REVISIONS = BERTH / "revisions.json"


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


def list_revisions() -> None:
    """Write down which of alembic's revisions the app comes with, so that no replica need ask it.

    Raises:
        AppError: Alembic cannot read them; says what it said.
    """
    revisions = import_module(f"{PACKAGE.name}.revisions")
    if not revisions.has_alembic():
        return
    command = [sys.executable, "-m", revisions.__name__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise AppError(f"alembic cannot read the app's migrations: {said[-1]}")
    REVISIONS.write_text(done.stdout)


def main(*folders: str) -> None:
    """Finish an image.

    Args:
        folders: Whose code to compile, besides Berth's.
    """
    add_to_path()
    check_versions((PACKAGE / "requirements.in").read_text())
    list_revisions()
    # Nothing can be written once it runs. What does not compile, a template say, is the app's own.
    left_out = re.compile(rf"/({NEVER.pattern})/")
    for folder in (*folders, str(PACKAGE)):
        compileall.compile_dir(folder, quiet=2, rx=left_out)


if __name__ == "__main__":
    sys.exit(carried_out(main))
