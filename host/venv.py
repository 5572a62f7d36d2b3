"""The virtual environment that tests and checks run in: `.venv`, made anew when pins change."""

import hashlib
import sys
from pathlib import Path

from host import debian
from host.commands import UserError, carried_out, output, run, say

_FOLDER = Path(".venv")
_REQUIREMENTS = (Path("requirements.txt"), Path("tests/requirements.txt"))


def ensure() -> None:
    """Make sure that `.venv` holds exactly what is pinned.

    Raises:
        UserError: This Python cannot make an environment, or a package cannot be had.
    """
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in _REQUIREMENTS)).hexdigest()
    stamp = _FOLDER / "pins.sha256"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    if output(sys.executable, "-c", "import ensurepip") is None:
        if not debian.is_installable():
            raise UserError("this Python cannot make virtual environments: install python3-venv")
        debian.update()
        debian.install(["python3-venv"])
    say("making .venv with the pinned packages")
    # With the program rather than the library: ensurepip may only just have been installed.
    run([sys.executable, "-m", "venv", "--clear", str(_FOLDER)], purpose="make .venv")
    run(
        [
            f"{_FOLDER}/bin/pip",
            "install",
            "--quiet",
            "--require-hashes",
            f"--requirement={_REQUIREMENTS[-1]}",
        ],
        purpose="install the pinned packages",
    )
    stamp.write_text(digest)


if __name__ == "__main__":
    sys.exit(carried_out(ensure))
