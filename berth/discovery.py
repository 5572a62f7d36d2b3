"""Finds the app: where APP says, else where FastAPI's own command line would.

The rules are those of fastapi-cli (`fastapi run`), so that whoever starts an app with it need say
nothing here: https://github.com/fastapi/fastapi-cli/blob/main/src/fastapi_cli/discover.py
"""

import importlib
import importlib.util
import inspect
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from .asgi import ASGIApp

PLACES = ("main", "app", "api", "app.main", "app.app", "app.api")
NAMES = ("app", "api")


class AppNotFoundError(Exception):
    """There is no app where it was looked for. Says where that was."""


def load(entrypoint: str = "", folder: Path | None = None) -> ASGIApp:
    """Import the app.

    Args:
        entrypoint: Where it is: `shop.main:app`, or `shop.main:create_app()` for a factory. Empty:
            what `[tool.fastapi] entrypoint` in pyproject.toml says, else the first of PLACES that
            exists.
        folder: Where the app runs; by default the current one.

    Returns:
        The ASGI app.

    Raises:
        AppNotFoundError: It is not there, or no app.
        Exception: Whatever the app's own code raises while it is imported.
    """
    folder = folder or Path.cwd()
    # A src layout is found whether or not the project is installed.
    for root in (folder / "src", folder):
        if root.is_dir() and str(root) not in sys.path:
            sys.path.insert(0, str(root))
    entrypoint, said_by = _entrypoint(entrypoint, folder)
    if entrypoint:
        return _named(entrypoint, said_by)
    for place in PLACES:
        if (folder / _path(place)).is_file():
            return _searched(importlib.import_module(_module(place, folder)))
    raise AppNotFoundError(
        f"there is no app in {folder}: neither APP nor [tool.fastapi] entrypoint in pyproject.toml "
        f"says where it is, and none of {', '.join(_path(place) for place in PLACES)} is there. "
        "Set APP, such as APP=shop.main:app"
    )


def _entrypoint(entrypoint: str, folder: Path) -> tuple[str, str]:
    if entrypoint:
        return entrypoint, f"APP={entrypoint}"
    pyproject = folder / "pyproject.toml"
    if not pyproject.is_file():
        return "", ""
    with pyproject.open("rb") as file:
        told = tomllib.load(file).get("tool", {}).get("fastapi", {}).get("entrypoint", "")
    return str(told), f'entrypoint = "{told}" in pyproject.toml'


def _path(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def _module(place: str, folder: Path) -> str:
    """Return the name to import a place by; a folder that is no package is a place for modules."""
    package, dot, name = place.partition(".")
    if not dot or (folder / package / "__init__.py").is_file():
        return place
    sys.path.insert(0, str(folder / package))
    return name


def _named(entrypoint: str, said_by: str) -> ASGIApp:
    name, colon, attribute = entrypoint.partition(":")
    if not name or (colon and not attribute):
        raise AppNotFoundError(f"{said_by}: give a module and a name in it, such as shop.main:app")
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        # The package around it; what the package itself fails to import is its own affair.
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    if spec is None:
        raise AppNotFoundError(f"{said_by}: there is no module {name} in {Path.cwd()}")
    module = importlib.import_module(name)
    if not attribute:
        return _searched(module)
    is_factory = attribute.endswith("()")
    found: Any = module
    for part in attribute.removesuffix("()").split("."):
        if not hasattr(found, part):
            raise AppNotFoundError(f"{said_by}: {name} has no {part}")
        found = getattr(found, part)
    return _checked(found() if is_factory else found, said_by)


def _searched(module: ModuleType) -> ASGIApp:
    """Return the app of a module, as FastAPI's command line picks it."""
    for name in NAMES:
        if _is_fastapi(found := getattr(module, name, None)):
            return found
    for found in vars(module).values():
        if _is_fastapi(found):
            return found
    raise AppNotFoundError(
        f"{module.__name__} has no FastAPI app: set APP, such as APP={module.__name__}:app"
    )


def _is_fastapi(found: object) -> TypeGuard[ASGIApp]:
    return any(kind.__name__ == "FastAPI" for kind in type(found).__mro__)


def _checked(found: object, said_by: str) -> ASGIApp:
    if inspect.isclass(found) or not callable(found):
        raise AppNotFoundError(f"{said_by}: that is a {type(found).__name__}, not an app")
    if inspect.isfunction(found) and len(inspect.signature(found).parameters) != 3:
        raise AppNotFoundError(
            f"{said_by}: that is a function; if it makes the app, add its parentheses: {said_by}()"
        )
    app: ASGIApp = found
    return app
