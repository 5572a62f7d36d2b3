"""Runs a command with the app's environment: `python -m berth.run alembic current`."""

import os
import sys

from . import environment
from .settings import load_settings


def main() -> None:
    """Become the command."""
    environment.prepare(load_settings())
    command = sys.argv[1:]
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except FileNotFoundError:
        sys.exit(f"there is no program {command[0]} in the image")


if __name__ == "__main__":
    main()
