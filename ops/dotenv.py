"""The user's `.env`: which settings are given there or in the environment, and adding to it."""

import os
from collections.abc import Mapping

from ops.docker import ROOT, compose

_FILE = ROOT / ".env"


def given() -> set[str]:
    """Return the names of the variables that Compose knows, and that are not blank."""
    lines = compose("config", "--environment").splitlines()
    return {
        name for name, is_there, value in (x.partition("=") for x in lines) if is_there and value
    }


def is_read() -> bool:
    """Whether what is added to it counts: Compose can be told to read another file, or none."""
    return not (
        os.environ.get("COMPOSE_ENV_FILES")
        or os.environ.get("COMPOSE_DISABLE_ENV_FILE", "0") != "0"
    )


def add(settings: Mapping[str, str], why: str) -> None:
    """Add lines at the end; what is there stays as it is."""
    before = _FILE.read_text() if _FILE.exists() else ""
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    lines = [f"# {why}", *(f"{name}={value}" for name, value in settings.items())]
    with _FILE.open("a") as file:
        file.write(gap + "\n".join(lines) + "\n")
