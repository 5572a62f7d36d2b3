"""Copies an app as it goes into its image: the whole of it, and once more only what names others.

What its `.dockerignore` names has not come as far as this. What never belongs into an image is left
out as well, and everybody may read the rest, whatever umask it was checked out with.
"""

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from image.app import App
from image.commands import carried_out

NEVER = re.compile(
    r"\.git|\.hg|\.svn|\.env|\.env\..*|\.venv|venv|__pycache__|.*\.py[cod]|node_modules"
    r"|\.(pytest|mypy|ruff)_cache|\.tox|\.nox|\.idea|\.vscode|\.netrc|\.ssh|\.aws"
)
# Files that say what the app depends on: as long as they stay, so does the layer with that.
_MANIFESTS = ("pyproject.toml", "uv.lock", "uv.toml", "poetry.lock", "requirements.txt")
_INCLUDES = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)", re.MULTILINE)


def files(top: Path) -> Iterator[Path]:
    """Return what belongs into an image, relative to its folder; parents before children."""
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if is_wanted(Path(folder), name))
        for name in sorted([*folders, *names]):
            if is_wanted(Path(folder), name):
                yield (Path(folder) / name).relative_to(top)


def is_wanted(folder: Path, name: str) -> bool:
    """Whether a file or a folder belongs into an image."""
    if NEVER.fullmatch(name):
        return False
    # Keys in a folder of that name, but not a package of the app's.
    return name != "secrets" or (folder / name / "__init__.py").exists()


def copy(top: Path, to: Path, chosen: Iterator[Path]) -> None:
    """Copy files, readable for everybody."""
    for path in chosen:
        source, target = top / path, to / path
        target.parent.mkdir(0o755, parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            target.mkdir(exist_ok=True)
            target.chmod(0o755)
        elif source.is_file():
            shutil.copy2(source, target)
            target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def parts(app: App) -> Iterator[Path]:
    """Return the files of an app: of a workspace, only what stands in its lock."""
    everything = files(app.root)
    if app.root == app.folder:
        return everything
    packages = tomllib.loads((app.root / "uv.lock").read_text()).get("package", [])
    kinds = ("editable", "directory", "virtual", "path")
    local = {p["source"][k] for p in packages for k in kinds if k in p["source"]}
    # A root that is nothing but a root has no code to be copied.
    folders = [PurePosixPath(one) for one in local - {"."}]
    if any(p["source"].get("editable") == "." for p in packages):
        return everything
    return (
        path
        for path in everything
        if path.name in _MANIFESTS or any(path.is_relative_to(one) for one in folders)
    )


def manifests(app: App) -> Iterator[Path]:
    """Return the files that say what an app depends on."""
    found = {path for path in parts(app) if path.name in _MANIFESTS}
    pending = [path for path in found if path.suffix == ".txt"]
    while pending:
        path = pending.pop()
        for name in _INCLUDES.findall((app.root / path).read_text(errors="replace")):
            included = Path(os.path.normpath(path.parent / name))
            if included not in found and (app.root / included).is_file():
                found.add(included)
                pending.append(included)
    return iter(sorted(found))


def main(source: str, subdir: str, everything: str, only_manifests: str) -> None:
    """Copy twice.

    Args:
        source: The folder that is the app's, or its workspace's.
        subdir: Where the app is in it.
        everything: Where all of it goes.
        only_manifests: Where that goes which says what it depends on.
    """
    app = App.read(Path(source, subdir))
    copy(app.root, Path(everything), parts(app))
    copy(app.root, Path(only_manifests), manifests(app))


if __name__ == "__main__":
    sys.exit(carried_out(main))
