"""The image of the app in APP_DIR: what Compose cannot see when it builds it."""

import re
from pathlib import Path
from typing import Any

from host.commands import Refusal
from image.app import App, AppError

_DOCKERFILE = Path(__file__).parent.parent / "Dockerfile"


def default_python() -> str:
    """Return the image of Python that Berth was tested with."""
    found = re.search(r"^FROM (\S+) AS pinned$", _DOCKERFILE.read_text(), re.MULTILINE)
    if found is None:
        raise Refusal("the Dockerfile pins no image of Python: take it from Berth's repository")
    return found[1]


def prepared(build: dict[str, Any]) -> dict[str, Any]:
    """Complete a build as Compose resolved it, by what the app's own files say.

    Its context becomes the folder of the uv workspace that the app is in, if it is in one, and
    PYTHON_IMAGE is chosen, if nobody has.

    Raises:
        Refusal: There is no app, or none that Berth can run.
    """
    contexts = build.get("additional_contexts", {})
    if "app" not in contexts:
        return build
    arguments = dict(build.get("args", {}))
    try:
        app = App.read(Path(contexts["app"]))
        if not arguments.get("PYTHON_IMAGE"):
            arguments["PYTHON_IMAGE"] = app.python_image(default_python())
    except AppError as error:
        raise Refusal(str(error)) from None
    arguments["APP_SUBDIR"] = app.subdir
    return {**build, "args": arguments, "additional_contexts": {**contexts, "app": str(app.root)}}
