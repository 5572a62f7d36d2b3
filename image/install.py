"""Installs an app into /venv: first what it depends on, then, with all of its files, itself.

In between lies the layer that stays while only code changes. Whatever the app pinned is what gets
installed; its own lock must fit what it asks for.
"""

import os
import re
import sys
import tomllib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from image.app import App, AppError
from image.commands import carried_out, run

VENV = Path("/venv")
UV = "/tools/bin/uv"
PINS = Path(__file__).parent
# A line of a requirements file that leads to a folder or a file of the app's.
_LOCAL = re.compile(r"\s*(-e|--editable|\.|\S+\s*@\s*file:|file:)")
_EXPORTED = Path("/tmp/requirements.txt")  # noqa: S108 - of a build's own
_LOCKED = Path("/tmp/constraints.txt")  # noqa: S108


class Installer(ABC):
    """Installs by one kind of lock."""

    def __init__(self, app: App) -> None:
        self.app = app

    @abstractmethod
    def dependencies(self) -> None:
        """Install what the app depends on, while only what says so is there."""

    @abstractmethod
    def project(self) -> None:
        """Install the rest, with all files there."""


class UvLock(Installer):
    """By uv itself, which knows workspaces and sources."""

    def dependencies(self) -> None:
        kinds = ("project", "workspace", "local")
        self._sync("--frozen", *(f"--no-install-{kind}" for kind in kinds))

    def project(self) -> None:
        self._sync("--locked")

    def _sync(self, *options: str) -> None:
        run(UV, "sync", f"--python={sys.executable}", "--no-dev", "--inexact", *options)


class Requirements(Installer):
    """By a requirements file; with hashes, if it has any."""

    def dependencies(self) -> None:
        make_venv()
        self._install(self.lines(local=False))

    def project(self) -> None:
        if local := self.lines(local=True):
            self._install(local)
        install_project(self.app)

    def lines(self, *, local: bool) -> list[str]:
        """Return the file's requirements, without or with those that are the app's own files."""
        text = self.file().read_text()
        # With its hashes, a requirement goes on over several lines.
        logical = re.findall(r"(?:.*\\\n)*.*\n?", text)
        return [one for one in logical if bool(_LOCAL.match(one)) is local]

    def file(self) -> Path:
        """Return the requirements file."""
        return self.app.folder / "requirements.txt"

    def _install(self, lines: list[str], *options: str) -> None:
        # Beside the file, so that what it includes is found.
        chosen = self.app.folder / ".requirements.txt"
        chosen.write_text("".join(lines))
        try:
            hashed = ["--require-hashes"] if any("--hash=" in one for one in lines) else []
            install(f"--requirement={chosen}", *hashed, *options)
        finally:
            chosen.unlink()


class PoetryLock(Requirements):
    """By Poetry, which turns its lock into requirements."""

    def dependencies(self) -> None:
        poetry = Path("/tmp/poetry")  # noqa: S108 - of a build's own
        run(UV, "venv", "--quiet", f"--python={sys.executable}", str(poetry))
        run(
            *(UV, "pip", "install", "--quiet", f"--python={poetry}/bin/python"),
            *("--require-hashes", f"--requirement={PINS}/poetry.txt"),
        )
        run(f"{poetry}/bin/poetry", "export", "--only=main", f"--output={_EXPORTED}")
        make_venv()
        # Of an older lock the export may leave out what only an extra asks for, such as uvloop.
        _LOCKED.write_text("\n".join(locked(tomllib.loads(Path("poetry.lock").read_text()))))
        self._install(self.lines(local=False), f"--constraint={_LOCKED}")

    def project(self) -> None:
        install_project(self.app)

    def file(self) -> Path:
        return _EXPORTED


class Pyproject(Installer):
    """By pyproject.toml alone: the newest versions that it allows."""

    def dependencies(self) -> None:
        make_venv()
        if not self._is_dynamic:
            install("--requirement=pyproject.toml")

    def project(self) -> None:
        if self._is_dynamic:
            install("--editable=.")
        else:
            install_project(self.app)

    @property
    def _is_dynamic(self) -> bool:
        return "dependencies" in self.app.pyproject["project"].get("dynamic", [])


INSTALLERS: dict[str, type[Installer]] = {
    "uv.lock": UvLock,
    "poetry.lock": PoetryLock,
    "requirements.txt": Requirements,
    "pyproject.toml": Pyproject,
}


def locked(lock: dict[str, Any]) -> Iterator[str]:
    """Yield what a poetry.lock pins of an index, as requirements with hashes.

    Args:
        lock: What is in it, of any of its versions. What it has in two versions is left out, as
            either may be meant.
    """
    times = Counter(one["name"] for one in lock["package"])
    hashes = lock["metadata"].get("files", {})
    for one in lock["package"]:
        files = one.get("files") or hashes.get(one["name"], [])
        if files and times[one["name"]] == 1:
            pins = (f"--hash={file['hash']}" for file in files)
            yield " ".join((f"{one['name']}=={one['version']}", *pins))


def make_venv() -> None:
    """Make the environment that the app runs in."""
    run(UV, "venv", "--quiet", f"--python={sys.executable}", str(VENV))


def install(*what: str) -> None:
    """Install into the environment."""
    run(UV, "pip", "install", f"--python={VENV}/bin/python", *what)


def install_project(app: App) -> None:
    """Install the app itself in place, if it is a package.

    Many an app has a [build-system] that it never uses. Where there is no src folder, it is found
    without being installed, as it runs in its own folder.
    """
    if "build-system" not in app.pyproject:
        return
    if app.pyproject.get("tool", {}).get("poetry", {}).get("package-mode") is False:
        return
    try:
        install("--no-deps", "--editable=.")
    except AppError as error:
        if (app.folder / "src").is_dir():
            raise
        print(f"The app itself is not installed as a package: {error}")


def check_python(app: App) -> None:
    """Refuse a Python that the app, or Berth, does not take."""
    version = sys.version_info[:3]
    if not app.takes(version):
        asked = ", ".join(f"{where} {said}" for where, said in app.required_python.items())
        raise AppError(
            f"PYTHON_IMAGE has Python {'.'.join(map(str, version))}, and the app asks for {asked}: "
            "set PYTHON_IMAGE in .env to one with such a Python, or leave it out and `make up` "
            "chooses"
        )


def main(step: str, subdir: str = "") -> None:
    """Take one of the two steps, in the folder that the app runs in.

    Args:
        step: `dependencies` or `project`.
        subdir: Where the app is in its workspace; `unknown` if nobody has looked for one.
    """
    if os.environ.get("APP_DOCKERFILE"):
        raise AppError(
            "APP_DOCKERFILE is built first, which Compose alone cannot do: start with `make up` or "
            "`make deploy`"
        )
    app = App.read(Path.cwd())
    check_python(app)
    uses_uv = "uv" in app.pyproject.get("tool", {})
    if app.lock == "pyproject.toml" and uses_uv and subdir == "unknown":
        raise AppError(
            "there is no uv.lock in APP_DIR: run `uv lock` there, or, if it lies in a folder "
            "above, start with `make up`, which finds it"
        )
    os.environ.pop("PYTHONPATH", None)  # which is this program's
    os.environ |= {
        "UV_PROJECT_ENVIRONMENT": str(VENV),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_COMPILE_BYTECODE": "1",
        "UV_LINK_MODE": "copy",
        "UV_SYSTEM_CERTS": "1",
        "UV_NO_PROGRESS": "1",
    }
    installer = INSTALLERS[app.lock](app)
    if step == "dependencies":
        installer.dependencies()
    else:
        installer.project()


if __name__ == "__main__":
    sys.exit(carried_out(main))
