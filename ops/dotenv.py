"""The user's `.env`: which settings are given there or in the environment, and adding to it."""

import json
import os
import re
from collections.abc import Iterable, Mapping

from ops.docker import ROOT, compose

_FILE = ROOT / ".env"
# What Compose reads after compose.yaml where it is told of no files.
_NAMES = ("compose.override", "docker-compose.override")
_OVERRIDES = [f"{name}.{ending}" for name in _NAMES for ending in ("yml", "yaml")]


def values(names: Iterable[str]) -> dict[str, str]:
    """Return these variables as Compose knows them, blank where it does not."""
    # Compose before 2.28 cannot be asked for them, but fills them in.
    environment = {name: f"${{{name}:-}}" for name in names}
    project = {"name": "given", "services": {"given": {"image": "x", "environment": environment}}}
    filled = compose(
        *("--project-directory=.", "--file=-", "config", "--format=json"), stdin=json.dumps(project)
    )
    found: dict[str, str] = json.loads(filled)["services"]["given"]["environment"]
    return found


def compose_file(*last: str) -> str:
    """Return what COMPOSE_FILE has to be for files to be read after those that are otherwise."""
    asked = values(["COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR"])
    separator = asked["COMPOSE_PATH_SEPARATOR"] or os.pathsep
    given = asked["COMPOSE_FILE"].split(separator) if asked["COMPOSE_FILE"] else []
    if not given:
        there = [name for name in _OVERRIDES if (ROOT / name).exists()]
        given = ["compose.yaml", *there[:1]]
    return separator.join(dict.fromkeys([*given, *last]))


def given(names: Iterable[str]) -> set[str]:
    """Return which of these variables Compose knows, and are not blank."""
    return {name for name, value in values(names).items() if value}


def named_in(complaint: str) -> str:
    """Return which of Berth's settings Compose complains of, with its value; a blank if of none."""
    names = re.findall(r"(?m)^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text())
    found = re.findall(r"[^\s'\"\[\]]+", complaint)
    words = {*found, *(one.removesuffix(":") for one in found)}
    settings = values(names).items()
    return ", ".join(f"{name}={value}" for name, value in settings if value and value in words)


def is_read() -> bool:
    """Whether what is added to it counts: Compose can be told to read another file, or none."""
    disabled = os.environ.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in {"1", "true"}
    return not disabled and not os.environ.get("COMPOSE_ENV_FILES")


def add(settings: Mapping[str, str], why: str) -> None:
    """Add lines at the end; what is there stays as it is."""
    before = _FILE.read_text() if _FILE.exists() else ""
    with _FILE.open("a") as file:
        file.write(addition(before, settings, why))


def addition(before: str, settings: Mapping[str, str], why: str) -> str:
    """Return what sets these at the end of a `.env`, whose text this is so far."""
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    lines = [f"# {why}", *(f"{name}={value}" for name, value in settings.items())]
    return gap + "\n".join(lines) + "\n"
