"""A project of one's own starts as the example, beside Berth."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make_new(folder: str) -> subprocess.CompletedProcess[str]:
    """Run `make new`."""
    command = ["make", "--silent", "new", f"DIR={folder}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("", "DIR names the new project's folder: make new DIR=../shop"),
        ("{full}", "DIR={full}: that folder is not empty: give a new one"),
        ("{full}/file", "DIR={full}/file: that is a file"),
        ("{full}/file/shop", "DIR={full}/file/shop: Not a directory: {full}/file/shop"),
        ("shop", "DIR=shop: that is in Berth's own folder: give one beside it, as ../shop"),
        ("tests/../.", "DIR=tests/../.: that is in Berth's own folder"),
        ("{link}/shop", "DIR={link}/shop: that is in Berth's own folder"),
    ],
)
def test_a_folder_that_is_no_place_for_a_project_is_refused(
    tmp_path: Path, folder: str, says: str
) -> None:
    """In a sentence; nothing is written."""
    full, link = tmp_path / "full", tmp_path / "link"
    full.mkdir()
    (full / "file").touch()
    link.symlink_to(ROOT)
    places = {"full": str(full), "link": str(link)}
    done = make_new(folder.format(**places))
    assert done.returncode != 0
    assert done.stderr.startswith(f"berth: {says.format(**places)}")
    assert not (ROOT / "shop").exists()
    assert [one.name for one in full.iterdir()] == ["file"]


def test_the_new_projects_own_tests_pass(tmp_path: Path) -> None:
    """With a PostgreSQL of their own, and nothing of Berth's on the path."""
    shop = tmp_path / "My Shop"
    done = make_new(str(shop))
    assert done.returncode == 0, done.stderr
    assert f"put APP_DIR={shop} into .env" in done.stderr
    assert f"APP_DIR={shop}\n" in (shop / "README.md").read_text()
    project = tomllib.loads((shop / "pyproject.toml").read_text())["project"]
    assert project["name"] == "my-shop"
    assert 'title="My Shop"' in (shop / "app/main.py").read_text()
    texts = [one.read_text() for one in shop.rglob("*") if one.suffix in {".py", ".toml", ".in"}]
    assert not [text for text in texts if "berth" in text.lower()]
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ
    }
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=shop,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout
    assert " passed" in tests.stdout
