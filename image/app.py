"""What an app's own files say about its image: where its lock is, and which Python it takes."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image import OLDEST
from image.versions import allows, parse

# Where an app says what it depends on; the first that is there counts.
LOCKS = ("uv.lock", "poetry.lock", "requirements.txt", "pyproject.toml")


class AppError(Exception):
    """No image can be made of an app; the message is one sentence with the way out."""


@dataclass(frozen=True)
class App:
    """An app in a folder of its own.

    Attributes:
        folder: What it runs in: APP_DIR.
        root: The folder above where its uv workspace begins, if it is a member; else the same.
        pyproject: What its pyproject.toml says; empty if it has none.
    """

    folder: Path
    root: Path
    pyproject: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "App":
        """Look into a folder.

        Raises:
            AppError: It is not there, or there is no telling what the app in it depends on.
        """
        if not folder.is_dir():
            raise AppError(f"APP_DIR={folder}: there is no such folder")
        pyproject = _read(folder)
        app = cls(folder, _workspace(folder, pyproject), pyproject)
        app.lock  # noqa: B018 - refuses
        return app

    @property
    def subdir(self) -> str:
        """The path from the workspace's root to the app; empty if there is no workspace."""
        return "" if self.root == self.folder else self.folder.relative_to(self.root).as_posix()

    @property
    def lock(self) -> str:
        """Which of LOCKS says what the app depends on."""
        for name in LOCKS:
            if (self.folder / name).is_file() or (self.root != self.folder and name == LOCKS[0]):
                break
        else:
            raise AppError(
                f"{self.folder} has no {', no '.join(LOCKS)}: APP_DIR must be the app's "
                "folder, with what it depends on"
            )
        if name == "pyproject.toml" and "project" not in self.pyproject:
            if "poetry" in self.pyproject.get("tool", {}):
                raise AppError(f"{self.folder} has no poetry.lock: run `poetry lock` there")
            raise AppError(
                f"{self.folder}/pyproject.toml has no [project] with dependencies, and there is no "
                f"{', no '.join(LOCKS[:-1])} beside it: the app needs one"
            )
        return name

    @property
    def manifests(self) -> list[Path]:
        """The files that say what the app depends on, as far as they are there."""
        places = dict.fromkeys((self.folder, self.root))
        return [file for one in places for name in LOCKS if (file := one / name).is_file()]

    @property
    def required_python(self) -> dict[str, str]:
        """What is said about Python's version, by where it is said."""
        poetry = self.pyproject.get("tool", {}).get("poetry", {}).get("dependencies", {})
        found = {
            "requires-python": self.pyproject.get("project", {}).get("requires-python", ""),
            "[tool.poetry.dependencies] python": poetry.get("python", ""),
        }
        if self.root != self.folder:
            workspace = _read(self.root).get("project", {})
            found["the workspace's requires-python"] = workspace.get("requires-python", "")
        return {where: str(said) for where, said in found.items() if said}

    def takes(self, version: tuple[int, ...]) -> bool:
        """Whether the app can run on a version of Python."""
        return all(allows(said, version) for said in self.required_python.values())

    def python_image(self, default: str) -> str:
        """Return the official image of the Python that the app asks for.

        That is the default, where `.python-version` and `requires-python` allow it; otherwise what
        `.python-version` names, or the newest that is allowed.

        Args:
            default: Such as `python:3.14.8-slim`.

        Raises:
            AppError: Berth does not run on what the app asks for.
        """
        name, _, tag = default.partition(":")
        version, dash, variant = tag.partition("-")
        preferred = parse(version)
        wish = self._python_version()
        if wish:
            chosen = preferred if preferred[: len(wish)] == wish else wish
            where = ".python-version"
        else:
            chosen = next(filter(self.takes, self._candidates(preferred)), ())
            where = " and ".join(self.required_python)
        if chosen < OLDEST or not self.takes(chosen):
            said = {".python-version": _dotted(wish)} if wish else {}
            asked = ", ".join(f"{w} {s}" for w, s in (said | self.required_python).items())
            raise AppError(
                f"{self.folder} asks for a Python that cannot be had ({asked}): Berth needs "
                f"{_dotted(OLDEST)} or newer; change {where}, or set PYTHON_IMAGE"
            )
        return f"{name}:{_dotted(chosen)}{dash}{variant}"

    def _candidates(self, preferred: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return versions of Python from the best to the last resort."""
        major, minor = preferred[:2]
        exact = [
            parse(version)
            for said in self.required_python.values()
            for version in re.findall(r"==\s*(\d+\.\d+\.\d+)", said)
        ]
        older = [(major, one) for one in range(minor - 1, OLDEST[1] - 1, -1)]
        newer = [(major, one) for one in range(minor + 1, minor + 4)]
        return [preferred, (major, minor), *older, *newer, *exact]

    def _python_version(self) -> tuple[int, ...]:
        for folder in (self.folder, self.root):
            file = folder / ".python-version"
            if file.is_file():
                # `3.13`, `3.13.1`, `cpython-3.13`, each in a line; uv and pyenv take the first.
                lines = [line for line in file.read_text().splitlines() if line[:1] != "#"]
                found = re.match(r"(?:cpython[-@])?(\d+\.\d+(?:\.\d+)?)", "".join(lines[:1]))
                return parse(found[1]) if found else ()
        return ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _read(folder: Path) -> dict[str, Any]:
    file = folder / "pyproject.toml"
    try:
        return tomllib.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AppError(f"{file} cannot be read: {error}") from None


def _workspace(folder: Path, pyproject: dict[str, Any]) -> Path:
    """Return the folder of the uv workspace that a folder is a member of, by uv's own rules."""
    if "project" not in pyproject or "workspace" in pyproject.get("tool", {}).get("uv", {}):
        return folder
    for above in folder.parents:
        if not (above / "uv.lock").is_file():
            continue
        workspace = _read(above).get("tool", {}).get("uv", {}).get("workspace")
        if workspace is not None:
            members, excluded = (
                {found for pattern in workspace.get(key, []) for found in above.glob(pattern)}
                for key in ("members", "exclude")
            )
            return above if folder in members - excluded else folder
    return folder
