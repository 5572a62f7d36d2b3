"""The app's environment: what leads to the database, its own variables, and its secrets.

Set inside the process only, so that none of it shows in `docker inspect`, and before the app is
imported.
"""

import os
import re
import sys
from pathlib import Path

from dotenv.main import resolve_variables
from dotenv.parser import parse_stream

from . import database
from .settings import Settings

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def prepare(settings: Settings, folder: Path | None = None) -> None:
    """Put everything into the environment of this process.

    Args:
        settings: Where the database is.
        folder: Where `app.env` and `secrets/` are; by default what APP_FILES names. What they say
            beats what is set already. A line that cannot be used ends the program with a sentence.
    """
    database.export(settings)
    folder = folder or Path(os.environ.get("APP_FILES") or "/run/app")
    variables = folder / "app.env"
    if variables.is_file():
        os.environ.update(_variables(variables))
    for file in sorted((folder / "secrets").glob("*")):
        # Others are not meant: no program could read a variable called README.md.
        if file.is_file() and _NAME.fullmatch(file.name):
            os.environ[file.name] = file.read_text().rstrip("\r\n")


def _variables(file: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    with file.open() as stream:
        for binding in parse_stream(stream):
            if binding.error or (binding.key and binding.value is None):
                text = binding.original.string
                line = binding.original.line + text[: -len(text.lstrip()) or None].count("\n")
                # Never the line itself: it may hold a secret.
                sys.exit(f"{file.name}, line {line}: give NAME=value")
            if binding.key and binding.value is not None:
                found[binding.key] = binding.value
    # So that an app which wants POSTGRES_PASSWORD finds it: POSTGRES_PASSWORD=${PGPASSWORD}.
    resolved = resolve_variables(found.items(), override=True)
    return {name: value for name, value in resolved.items() if value is not None}
