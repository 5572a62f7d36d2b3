"""Lists the alembic revisions that the app comes with: `python -m berth.revisions` prints them.

A program of its own: alembic and SQLAlchemy would cost every replica their memory.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INI, TOML = Path("alembic.ini"), Path("pyproject.toml")


@dataclass(frozen=True)
class Revisions:
    """What an app comes with.

    Attributes:
        heads: The newest revisions, of which there is one unless branches were not merged.
        known: All revisions.
    """

    heads: frozenset[str]
    known: frozenset[str]


def has_alembic(folder: Path | None = None) -> bool:
    """Whether the app in a folder (the current one) has migrations of alembic's."""
    folder = folder or Path.cwd()
    toml = folder / TOML
    return (folder / INI).is_file() or (toml.is_file() and "[tool.alembic]" in toml.read_text())


def listed() -> Revisions | None:
    """Return the revisions of the app in the current folder; None if it has no migrations.

    They are read from the file that REVISIONS_FILE names, which was written when the image was
    built, or else from the app.

    Raises:
        RuntimeError: Alembic cannot read them; says what it said.
    """
    if not has_alembic():
        return None
    file = os.environ.get("REVISIONS_FILE")
    if file and Path(file).is_file():
        text = Path(file).read_text()
    else:
        command = [sys.executable, "-m", __spec__.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"alembic cannot read the migrations: {done.stderr.strip()}")
        text = done.stdout
    found = json.loads(text)
    return Revisions(frozenset(found["heads"]), frozenset(found["known"]))


def main() -> None:
    """Print the revisions as JSON."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    # Alembic of its own accord prefers alembic.ini.
    config = Config(str(INI)) if INI.is_file() else Config(toml_file=str(TOML))
    scripts = ScriptDirectory.from_config(config)
    known = [script.revision for script in scripts.walk_revisions()]
    print(json.dumps({"heads": sorted(scripts.get_heads()), "known": sorted(known)}))


if __name__ == "__main__":
    main()
