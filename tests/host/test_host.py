"""What a machine needs is found out from Compose, and from what is there."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from host import checkout, compose, debian, engine, images, stand_in
from host.checkout import ROOT
from host.commands import UserError


def test_images_to_pull_are_those_that_nobody_builds(tmp_path: Path) -> None:
    """A service may use an image that another one builds; what that is built on counts, too."""
    (tmp_path / "Dockerfile").write_text("ARG PYTHON_IMAGE\nFROM $PYTHON_IMAGE\n")
    arguments = {"PYTHON_IMAGE": "python:3.14.8-slim", "APP_VERSION": "dev"}
    configuration = {
        "services": {
            "api": {
                "image": "shop-api:current",
                "build": {"context": str(tmp_path), "args": arguments},
            },
            "migrate": {"image": "shop-api:current"},
            "db": {"image": "postgres:18.6"},
        }
    }
    assert images.references(configuration) == ["postgres:18.6", "python:3.14.8-slim"]


def test_app_chooses_which_python_to_pull(tmp_path: Path) -> None:
    """Where PYTHON_IMAGE is not given."""
    (tmp_path / "requirements.txt").touch()
    (tmp_path / ".python-version").write_text("3.13")
    contexts = {"app": str(tmp_path)}
    build = {"context": str(ROOT), "additional_contexts": contexts, "args": {"PYTHON_IMAGE": None}}
    services = {"api": {"image": "shop-api:current", "build": build}}
    assert images.references({"services": services}) == ["python:3.13-slim"]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("postgres:18.6", ("postgres", "18.6")),
        ("traefik:v3.7.15", ("traefik", "3.7.15")),
        ("mirror.example:5000/library/python:3.14.8-slim", ("python", "3.14.8")),
        ("haproxy:3.2.26@sha256:0000", ("haproxy", "3.2.26")),
    ],
)
def test_recipe_and_version_come_from_the_reference(
    reference: str, expected: tuple[str, str]
) -> None:
    """Whatever mirror it names."""
    assert stand_in.split(reference) == expected


def test_image_without_a_version_cannot_be_rebuilt() -> None:
    """`latest` says nothing about what to build."""
    with pytest.raises(UserError, match="names no version"):
        stand_in.split("postgres:latest")


def test_a_checkout_for_its_owner_alone_is_opened_to_containers(tmp_path: Path) -> None:
    """But not its own folder, nor what is nobody else's business."""
    for name in ("db/init/role.sh", "keys/password", ".env", "traefik/routes.yml"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        file.chmod(0o700 if name.endswith(".sh") else 0o600)
    (tmp_path / ".gitignore").write_text("keys/\n")
    for folder in (tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())):
        folder.chmod(0o700)
    checkout.ensure(tmp_path)
    modes = {
        str(path.relative_to(tmp_path)): f"{path.stat().st_mode & 0o777:o}"
        for path in (tmp_path, *tmp_path.rglob("*"))
        if path.name != ".gitignore"
    }
    assert modes == {
        ".": "700",
        ".env": "600",
        "db": "755",
        "db/init": "755",
        "db/init/role.sh": "755",
        "keys": "700",
        "keys/password": "600",
        "traefik": "755",
        "traefik/routes.yml": "644",
    }


@pytest.mark.parametrize("program", ["host", "ops.doctor"])
def test_a_python_that_is_too_old_says_so(program: str) -> None:
    """Or goes over to a newer one, of which there is none on this PATH."""
    old = (
        "import sys; sys.version_info = (3, 9, 2, 'final', 0);"
        f"import runpy; runpy.run_module('{program}', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", old],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/nowhere"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("berth: python3 is 3.9, and Berth's programs need 3.11 or newer")
    assert len(done.stderr.splitlines()) == 1


def test_a_python_that_is_too_old_goes_over_to_a_newer_one(tmp_path: Path) -> None:
    """With what it was given to do."""
    (tmp_path / "python3.12").symlink_to(shutil.which("false") or "")  # as pyenv has them
    newer = tmp_path / "python3.11"
    newer.write_text('#!/bin/sh\n[ "$2" ] && echo "$@" | tail -c 20\nexit 0\n')
    newer.chmod(0o755)
    old = "import sys; sys.version_info = (3, 10, 0, 'final', 0); import ops # and so on"
    done = subprocess.run(
        [sys.executable, "-c", old],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert done.stdout.endswith("ops # and so on\n")


@pytest.mark.parametrize("name", ["host/__init__.py", "ops/__init__.py"])
def test_an_old_python_can_read_what_it_must(name: str) -> None:
    """As far back as there are servers with it: 3.6 came with Enterprise Linux 8."""
    ast.parse((ROOT / name).read_text(), feature_version=(3, 6))


@pytest.mark.parametrize(
    ("version", "is_too_old"),
    [("20.10.24+dfsg1", True), ("24.0.9", True), ("25.0.0", False), ("28.5.2+dfsg4", False)],
)
def test_an_engine_before_start_interval_is_too_old(version: str, is_too_old: bool) -> None:
    """It would end a start with Compose's word for a feature that it lacks."""
    assert engine.is_too_old(version) is is_too_old


def test_an_engine_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence, before anything is pulled."""
    monkeypatch.setattr(engine, "output", lambda *_: "24.0.9")
    with pytest.raises(UserError, match=r"24\.0\.9 is too old: Berth needs 25 or newer"):
        engine.ensure()


@pytest.mark.parametrize(
    ("has_systemd", "present", "written"),
    [
        (True, "", '{"live-restore": true}\n'),
        (True, '{"live-restore": false}\n', '{"live-restore": false}\n'),
        (False, "", ""),
    ],
)
def test_containers_outlive_restarts_of_an_engine_that_is_installed(
    has_systemd: bool, present: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless somebody has said how it shall be, or its socket does not outlive it."""
    file = tmp_path / "docker" / "daemon.json"
    monkeypatch.setattr(engine, "SYSTEMD", tmp_path if has_systemd else tmp_path / "none")
    if present:
        file.parent.mkdir()
        file.write_text(present)
    monkeypatch.setattr(engine, "CONFIGURATION", file)
    for name in ("update", "install"):
        monkeypatch.setattr(debian, name, lambda *_: None)
    monkeypatch.setattr(debian, "is_installable", lambda: True)
    monkeypatch.setattr(debian, "release", lambda: {"ID": "ubuntu"})
    engine.install()
    assert (file.read_text() if file.exists() else "") == written


@pytest.mark.parametrize(
    ("printed", "version"), [("2.40.3-3", (2, 40)), ("v2.24.0", (2, 24)), ("5.0.1", (5, 0))]
)
def test_compose_version_is_read_as_it_is_printed(printed: str, version: tuple[int, int]) -> None:
    """With or without a `v`, whoever packaged it."""
    assert compose.parse(printed) == version


def test_compose_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.23 misreads compose.yaml."""
    monkeypatch.setattr(compose, "output", lambda *_: "2.23.3")
    with pytest.raises(UserError, match=r"2\.23\.3 is too old: Berth needs 2\.24"):
        compose.ensure()
