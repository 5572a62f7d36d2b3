"""What an app's own files say about its image."""

import os
from pathlib import Path

import pytest

from image.app import App, AppError
from image.commands import explain
from image.install import locked
from image.source import is_wanted, manifests, parts
from image.versions import allows, parse

DEFAULT = "python:3.14.8-slim"
PROJECT = '[project]\nname = "shop"\nversion = "1"\n'


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("specification", "version", "allowed"),
    [
        ("", (3, 14), True),
        ("*", (3, 14), True),
        (">=3.11", (3, 14, 8), True),
        (">=3.11.4", (3, 11), True),
        (">= 3.10, < 3.14", (3, 13), True),
        (">=3.10,<3.14", (3, 14), False),
        (">=3.10 <3.14", (3, 14), False),
        (">3.12", (3, 12), True),
        ("<=3.13", (3, 13), False),
        ("<3.13.2", (3, 13), False),
        ("==3.12.*", (3, 12), True),
        ("==3.12.*", (3, 13), False),
        ("==3.12", (3, 12), True),
        ("==3.12.4", (3, 12), False),
        ("==3.12.4", (3, 12, 4), True),
        ("!=3.13.*,>=3.11", (3, 13), False),
        ("!=3.13.0,>=3.11", (3, 13), True),
        ("~=3.11", (3, 14), True),
        ("~=3.11.2", (3, 12), False),
        ("^3.11", (3, 14), True),
        ("^3.11", (4, 0), False),
        ("~3.11", (3, 12), False),
        ("3.12.*", (3, 12), True),
        ("^3.11,<3.13 || ~3.14", (3, 14), True),
        ("^3.11,<3.13 || ~3.14", (3, 13), False),
    ],
)
def test_versions_are_allowed_as_packagers_say(
    specification: str, version: tuple[int, ...], *, allowed: bool
) -> None:
    """By PEP 440 for uv and pip, and by Poetry's own signs."""
    assert allows(specification, version) is allowed


def test_a_version_begins_with_numbers() -> None:
    """Whatever comes after them."""
    assert parse("0.30.1rc2") == (0, 30, 1)


@pytest.mark.parametrize(
    ("python_version", "required", "image"),
    [
        ("", "", DEFAULT),
        ("", ">=3.10", DEFAULT),
        ("", ">=3.10,<3.14", "python:3.13-slim"),
        ("", "==3.12.*", "python:3.12-slim"),
        ("", "==3.12.4", "python:3.12.4-slim"),
        ("", ">=3.14.9", "python:3.14-slim"),
        ("", ">=3.15", "python:3.15-slim"),
        ("3.14\n", ">=3.10", DEFAULT),
        ("3.13\n", ">=3.10", "python:3.13-slim"),
        ("3.12.7\n3.13.1\n", "", "python:3.12.7-slim"),
        ("# ours\ncpython-3.13\n", "", "python:3.13-slim"),
        ("pypy3.11\n", "", DEFAULT),
    ],
)
def test_an_app_chooses_its_python(
    tmp_path: Path, python_version: str, required: str, image: str
) -> None:
    """The default where it is allowed, else what .python-version says or the newest allowed."""
    line = f'requires-python = "{required}"\n' if required else ""
    written(tmp_path, {"pyproject.toml": PROJECT + line})
    if python_version:
        written(tmp_path, {".python-version": python_version})
    assert App.read(tmp_path).python_image(DEFAULT) == image


@pytest.mark.parametrize(
    ("python_version", "required"), [("", "<3.11"), ("3.9", ""), ("3.12", ">=3.13")]
)
def test_a_python_that_cannot_be_had_is_named(
    tmp_path: Path, python_version: str, required: str
) -> None:
    """With where it is asked for, and the way out."""
    written(tmp_path, {"pyproject.toml": PROJECT + f'requires-python = "{required}"\n'})
    if python_version:
        written(tmp_path, {".python-version": python_version})
    with pytest.raises(AppError, match=r"needs 3.11 or newer.*PYTHON_IMAGE") as refused:
        App.read(tmp_path).python_image(DEFAULT)
    assert (python_version or required) in str(refused.value)


def test_poetrys_own_table_chooses_python_too(tmp_path: Path) -> None:
    """As it stands in apps from before Poetry 2."""
    table = '[tool.poetry]\nname = "shop"\n[tool.poetry.dependencies]\npython = ">=3.11,<3.13"\n'
    written(tmp_path, {"pyproject.toml": table, "poetry.lock": ""})
    assert App.read(tmp_path).python_image(DEFAULT) == "python:3.12-slim"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "has no uv.lock, no poetry.lock, no requirements.txt, no pyproject.toml: APP_DIR"),
        ({"pyproject.toml": "[tool.ruff]\n"}, "has no .project. with dependencies"),
        ({"pyproject.toml": "[tool.poetry]\n"}, "run `poetry lock`"),
        ({"pyproject.toml": "[project\n"}, "pyproject.toml cannot be read"),
    ],
)
def test_a_folder_without_an_app_is_refused(
    tmp_path: Path, files: dict[str, str], sentence: str
) -> None:
    """Before anything is built."""
    with pytest.raises(AppError, match=sentence):
        App.read(written(tmp_path, files))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """By the name of its variable."""
    with pytest.raises(AppError, match=r"APP_DIR=.*there is no such folder"):
        App.read(tmp_path / "nowhere")


WORKSPACE = {
    "pyproject.toml": "[tool.uv.workspace]\n"
    'members = ["backend", "libs/*"]\nexclude = ["libs/old"]\n',
    "uv.lock": "\n".join(
        f'[[package]]\nname = "{name}"\nsource = {{ {kind} = "{path}" }}'
        for name, kind, path in (
            ("backend", "virtual", "backend"),
            ("prices", "editable", "libs/prices"),
        )
    ),
    "backend/pyproject.toml": PROJECT,
    "backend/app/main.py": "",
    "libs/prices/pyproject.toml": PROJECT,
    "libs/prices/prices.py": "",
    "libs/old/pyproject.toml": PROJECT,
    "frontend/package.json": "{}",
}


def test_a_lock_in_a_folder_above_is_found(tmp_path: Path) -> None:
    """That of the workspace that the app is a member of."""
    app = App.read(written(tmp_path, WORKSPACE) / "backend")
    assert (app.root, app.subdir, app.lock) == (tmp_path, "backend", "uv.lock")


def test_a_folder_that_is_no_member_stands_alone(tmp_path: Path) -> None:
    """Wherever it lies."""
    app = App.read(written(tmp_path, WORKSPACE) / "libs/old")
    assert (app.root, app.subdir, app.lock) == (app.folder, "", "pyproject.toml")


def test_of_a_workspace_only_what_is_in_its_lock_is_copied(tmp_path: Path) -> None:
    """No front end, for example."""
    app = App.read(written(tmp_path, WORKSPACE) / "backend")
    files = {str(path) for path in parts(app) if (tmp_path / path).is_file()}
    assert files == {
        name for name in WORKSPACE if not name.startswith(("frontend", "libs/old"))
    } | {"libs/old/pyproject.toml"}


def test_included_requirements_belong_to_them(tmp_path: Path) -> None:
    """And nothing else does."""
    files = {
        "requirements.txt": "-r requirements/base.txt\n-c limits.txt\n",
        "requirements/base.txt": "fastapi\n-r ../requirements.txt\n--requirement=more.txt",
        "requirements/more.txt": "httpx\n",
        "limits.txt": "httpx<1\n",
        "robots.txt": "",
    }
    app = App.read(written(tmp_path, files))
    assert {str(path) for path in manifests(app)} == set(files) - {"robots.txt"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (".env", False),
        (".env.production", False),
        (".git", False),
        (".venv", False),
        ("node_modules", False),
        ("main.cpython-314.pyc", False),
        ("secrets", False),
        ("environment.py", True),
        (".alembic", True),
        ("env", True),
    ],
)
def test_what_never_belongs_into_an_image(tmp_path: Path, name: str, *, wanted: bool) -> None:
    """Whether or not the app's .dockerignore says so."""
    assert is_wanted(tmp_path, name) is wanted


def test_a_package_may_be_called_secrets(tmp_path: Path) -> None:
    """It holds code, not keys."""
    written(tmp_path, {"secrets/__init__.py": ""})
    assert is_wanted(tmp_path, "secrets")


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (
            "error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.",
            "uv.lock does not fit pyproject.toml: run `uv lock`",
        ),
        (
            "pyproject.toml changed significantly since poetry.lock was last generated. Run ...",
            "poetry.lock does not fit pyproject.toml: run `poetry lock`",
        ),
        (
            "E: Unable to locate package libfoo1",
            "APP_PACKAGES: Debian has no package libfoo1;",
        ),
        (
            "Failed to build `psycopg2==2.9.9`\n  Error: pg_config executable not found.",
            'set APP_PACKAGES="gcc g++ libc6-dev libpq-dev" in .env',
        ),
        (
            "Failed to build `a==1`\nerror: command 'gcc' failed: No such file or directory",
            "and the image lacks a compiler: set APP_PACKAGES=",
        ),
        ("Failed to build `b==1`\nwhatever it is", "b==1 cannot be built for this Python ("),
        ("a.c:1:10: fatal error: magic.h: No such file or directory", "misses magic.h: name the"),
        (
            "Resolved\n  \N{MULTIPLICATION SIGN} No solution found: x\n  more",
            "cannot be installed: \N{MULTIPLICATION SIGN} No solution found",
        ),
    ],
)
def test_what_fails_to_install_is_explained(log: str, sentence: str) -> None:
    """In one sentence with the way out."""
    assert sentence in explain(log)


def test_files_are_for_everybody(tmp_path: Path) -> None:
    """Whatever umask they were checked out with."""
    from image.source import main

    before = os.umask(0o077)
    try:
        app = written(tmp_path / "shop", {"requirements.txt": "", "shop/main.py": ""})
        (app / "run.sh").touch(0o700)
        main(str(app), "", str(tmp_path / "all"), str(tmp_path / "some"))
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(tmp_path / "all")): path.stat().st_mode & 0o777
        for path in (tmp_path / "all").rglob("*")
    }
    assert modes == {
        "requirements.txt": 0o644,
        "shop": 0o755,
        "shop/main.py": 0o644,
        "run.sh": 0o755,
    }
    assert [one.name for one in (tmp_path / "some").iterdir()] == ["requirements.txt"]


@pytest.mark.parametrize("is_old", [True, False])
def test_what_a_lock_of_poetry_pins(*, is_old: bool) -> None:
    """In files of its first version as of the present one; what comes from git has no hash."""
    names = [("a", "1.0"), ("b", "2.0"), ("b", "3.0"), ("from-git", "4.0")]
    files = {
        name: [{"file": f"{name}.whl", "hash": f"sha256:{name}{part}"} for part in (1, 2)]
        for name in ("a", "b")
    }
    packages: list[dict[str, object]] = [{"name": one, "version": at} for one, at in names]
    if not is_old:
        packages = [one | {"files": files.get(str(one["name"]), [])} for one in packages]
    lock = {"package": packages, "metadata": {"files": files} if is_old else {}}
    assert list(locked(lock)) == ["a==1.0 --hash=sha256:a1 --hash=sha256:a2"]
