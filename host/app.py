"""The image of the app in APP_DIR: what Compose cannot see when it builds it."""

import hashlib
import re
from pathlib import Path
from typing import Any

from host.commands import UserError
from image.app import App, AppError

_DOCKERFILE = Path(__file__).parent.parent / "Dockerfile"


def default_python() -> str:
    """Return the image of Python that Berth was tested with."""
    found = re.search(r"^FROM (\S+) AS pinned$", _DOCKERFILE.read_text(), re.MULTILINE)
    if found is None:
        raise UserError("the Dockerfile pins no image of Python: take it from Berth's repository")
    return found[1]


def prepared(build: dict[str, Any]) -> dict[str, Any]:
    """Complete a build as Compose resolved it, by what the app's own files say.

    Its context becomes the folder of the uv workspace that the app is in, if it is in one, and
    PYTHON_IMAGE is chosen, if nobody has; that of APP_DOCKERFILE, if there is one.

    Raises:
        UserError: There is no app, or none that Berth can run.
    """
    contexts = dict(build.get("additional_contexts", {}))
    if "app" not in contexts:
        return build
    if own := own_build(build):
        return based_on(own["image"], build)
    arguments = dict(build.get("args", {}))
    app = _read(contexts["app"])
    arguments["APP_SUBDIR"] = app.subdir
    contexts["app"] = str(app.root)
    if not arguments.get("PYTHON_IMAGE"):
        try:
            arguments["PYTHON_IMAGE"] = app.python_image(default_python())
        except AppError as error:
            raise UserError(str(error)) from None
    return {**build, "args": arguments, "additional_contexts": contexts}


def based_on(image: str, build: dict[str, Any]) -> dict[str, Any]:
    """Have a build put Berth into an image that has the app already."""
    arguments = {**build.get("args", {}), "STAGE": "own", "PYTHON_IMAGE": "has-app"}
    contexts = {**build.get("additional_contexts", {}), "has-app": f"docker-image://{image}"}
    return {**build, "args": arguments, "additional_contexts": contexts}


def own_build(build: dict[str, Any]) -> dict[str, Any] | None:
    """Return the service that Compose builds by the app's own Dockerfile, if it has one.

    Raises:
        UserError: APP_DOCKERFILE names no file.
    """
    name = build.get("args", {}).get("APP_DOCKERFILE")
    if not name:
        return None
    app = _read(build["additional_contexts"]["app"])
    file = app.folder / name
    if not file.is_file():
        raise UserError(f"APP_DOCKERFILE={name}: there is no such file in {app.folder}")
    digest = hashlib.sha256(bytes(file)).hexdigest()[:12]
    return {
        "image": f"berth-own:{digest}",
        "build": {"context": str(app.root), "dockerfile": str(file)},
    }


def _read(folder: str) -> App:
    try:
        return App.read(Path(folder))
    except AppError as error:
        raise UserError(str(error)) from None
