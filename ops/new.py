"""`make new DIR=../shop`: start a project of one's own from the example."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

from host.commands import UserError, carried_out, say
from ops.docker import ROOT

# The example, with its tests.
_PARTS = (
    *("app", "migrations", "requirements.in", "requirements.txt"),
    *("tests/__init__.py", "tests/app"),
)
_PYPROJECT = """\
[project]
name = {name}
version = "0.1.0"
requires-python = ">=3.11"

{alembic}"""
_IGNORED = ".venv/\n__pycache__/\n.pytest_cache/\n.env\n"
_README = """\
# {title}

A FastAPI app that runs under Berth: in the `.env` of its checkout,

```
APP_DIR={folder}
```

then there `make up` starts it, `make dev` too with reload on save, `make deploy` brings what has
changed, and `make revision MESSAGE="add prices"` writes the next migration from the models.

Its tests start a PostgreSQL with Docker:

```
python3 -m venv .venv
.venv/bin/pip install --requirement requirements.txt
.venv/bin/pip install pytest httpx2
.venv/bin/pytest
```

What it depends on is in `requirements.in`, pinned in `requirements.txt`; its variables belong in
`app.env` beside Berth's `.env`.
"""


def new() -> None:
    """Copy the example to DIR.

    Raises:
        UserError: That is no place for a project.
    """
    told = os.environ.get("DIR", "")
    folder = _place(told)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in _PARTS:
            if (ROOT / part).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / part, folder / part, ignore=ignored)
            else:
                (folder / part).parent.mkdir(exist_ok=True)
                shutil.copyfile(ROOT / part, folder / part)
        for name, text in _written(folder, told).items():
            (folder / name).write_text(text)
    except OSError as error:
        raise UserError(f"DIR={told}: {error.strerror}: {error.filename}") from None
    say(f"{folder} has a project of its own: put APP_DIR={told} into .env, then `make up`")


def _place(told: str) -> Path:
    if not told:
        raise UserError("DIR names the new project's folder: make new DIR=../shop")
    folder = ROOT.joinpath(Path(told).expanduser()).resolve()
    if folder.is_relative_to(ROOT.resolve()):
        raise UserError(
            f"DIR={told}: that is in Berth's own folder: give one beside it, as ../shop"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"DIR={told}: that is a file")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"DIR={told}: that folder is not empty: give a new one")
    return folder


def _written(folder: Path, told: str) -> dict[str, str]:
    """Return the files that the example has no like of, or another."""
    ours = (ROOT / "pyproject.toml").read_text()
    alembic = "".join(re.findall(r"^\[tool\.alembic\]\n(?:[^\[\n].*\n?)*", ours, re.MULTILINE))
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "app"
    main = (folder / "app/main.py").read_text()
    pins = (folder / "requirements.in").read_text()
    return {
        "pyproject.toml": _PYPROJECT.format(name=json.dumps(name), alembic=alembic),
        "README.md": _README.format(title=folder.name, folder=told),
        ".gitignore": _IGNORED,
        "app/main.py": main.replace('title="Berth"', f"title={json.dumps(folder.name)}"),
        # Of Berth's own tests.
        "requirements.in": re.sub(r"# then the same for .*\n", "", pins),
    }


if __name__ == "__main__":
    sys.exit(carried_out(new))
