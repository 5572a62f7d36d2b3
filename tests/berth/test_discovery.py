"""Where the app is found, and what is said when it is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.berth.postgres import ROOT

APP = "from fastapi import FastAPI\napp = FastAPI(title='{}')\n"
FACTORY = "from fastapi import FastAPI\ndef create_app():\n    return FastAPI(title='made')\n"
ENTRYPOINT = "[tool.fastapi]\nentrypoint = 'shop:app'\n"
LOOK = "import sys; from berth.discovery import load; print(load(sys.argv[1]).title)"


def find(folder: Path, entrypoint: str = "") -> subprocess.CompletedProcess[str]:
    """Look for an app in a folder, in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", LOOK, entrypoint],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files, whose names go without .py."""
    for name, text in files.items():
        file = folder / (name if "." in name else f"{name}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    ("files", "entrypoint", "title"),
    [
        ({"main": APP.format("main")}, "", "main"),
        ({"api": APP.format("api").replace("app =", "api =")}, "", "api"),
        ({"app/__init__": "", "app/main": APP.format("package")}, "", "package"),
        ({"app/main": "import other\n" + APP.format("folder"), "app/other": ""}, "", "folder"),
        ({"main": APP.format("other").replace("app =", "service =")}, "", "other"),
        ({"main": APP.format("main"), "shop": APP.format("shop")}, "shop:app", "shop"),
        ({"src/shop/main": APP.format("src")}, "shop.main:app", "src"),
        ({"shop": APP.format("module")}, "shop", "module"),
        ({"shop": FACTORY}, "shop:create_app()", "made"),
        (
            {
                "shop": APP.format("told"),
                "pyproject.toml": "[tool.fastapi]\nentrypoint = 'shop:app'",
            },
            "",
            "told",
        ),
    ],
)
def test_the_app_is_found(
    tmp_path: Path, files: dict[str, str], entrypoint: str, title: str
) -> None:
    """By APP, by pyproject.toml, or where FastAPI's command line looks."""
    write(tmp_path, files)
    done = find(tmp_path, entrypoint)
    assert done.stdout.strip() == title, done.stderr


@pytest.mark.parametrize(
    ("files", "entrypoint", "said"),
    [
        ({}, "", "none of main.py, app.py, api.py, app/main.py, app/app.py, app/api.py is there"),
        ({"main": "nothing = 1\n"}, "", "main has no FastAPI app: set APP, such as APP=main:app"),
        ({}, "shop:app", "APP=shop:app: there is no module shop in"),
        ({"shop": APP}, "shop.main:app", "APP=shop.main:app: there is no module shop.main in"),
        ({"shop": APP}, "shop:application", "APP=shop:application: shop has no application"),
        ({"shop": APP}, ":app", "APP=:app: give a module and a name in it, such as shop.main:app"),
        ({"shop": "app = 7\n"}, "shop:app", "APP=shop:app: that is a int, not an app"),
        (
            {"shop": FACTORY},
            "shop:create_app",
            "if it makes the app, add its parentheses: APP=shop:create_app()",
        ),
        (
            {"pyproject.toml": ENTRYPOINT},
            "",
            'entrypoint = "shop:app" in pyproject.toml: there is no module shop in',
        ),
    ],
)
def test_what_is_not_found_is_said(
    tmp_path: Path, files: dict[str, str], entrypoint: str, said: str
) -> None:
    """In a sentence with the way out."""
    write(tmp_path, files)
    done = find(tmp_path, entrypoint)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]


def test_what_the_apps_own_code_lacks_is_its_own_traceback(tmp_path: Path) -> None:
    """It must not be taken for an app that is not there."""
    write(tmp_path, {"shop": "import nowhere\n"})
    done = find(tmp_path, "shop:app")
    assert "No module named 'nowhere'" in done.stderr
    assert "AppNotFoundError" not in done.stderr
