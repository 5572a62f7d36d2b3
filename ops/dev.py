"""`make dev`: the stack with compose.dev.yaml, built as `make up` builds it, until Ctrl-C.

`files` prints what COMPOSE_FILE is then.
"""

import json
import os
import sys
import tempfile

from image.app import App
from ops import dotenv, program
from ops.docker import ROOT
from ops.images import Images
from ops.stack import SERVICE, Stack
from ops.terminal import Terminal
from ops.workers import workers


def dev(terminal: Terminal) -> None:
    """Become Compose, with what it cannot see by itself."""
    stack = Stack.read()
    images = Images(stack)
    api = stack.service(SERVICE)
    api["build"] = images.ready_build(terminal)
    # What the app depends on is in the image, where its code is not: that is mounted over it.
    manifests = App.read(images.source).manifests
    api["develop"] = {"watch": [{"action": "rebuild", "path": str(file)} for file in manifests]}
    # A worker has the same code, and starts anew when it is saved.
    source = [one for one in api["volumes"] if one["target"] == "/srv"]
    no_code = ["**/__pycache__/", "**/.*", "**/*.log"]
    watch = [{"action": "restart", "path": str(images.source), "ignore": no_code}]
    for name in workers(stack):
        worker = stack.service(name)
        worker["volumes"] = worker.get("volumes", []) + source
        worker["develop"] = {"watch": watch}
    with tempfile.TemporaryFile("w+") as file:
        json.dump(stack.configuration, file)
        file.seek(0)
        os.dup2(file.fileno(), sys.stdin.fileno())
        os.chdir(ROOT)
        compose = ("docker", "compose", "--project-directory=.", "--file=-")
        os.execvp("docker", [*compose, "up", "--build", "--watch"])  # noqa: S606 - none is wanted


if __name__ == "__main__":
    if sys.argv[1:] == ["files"]:
        print(dotenv.compose_file("compose.dev.yaml"))
        sys.exit()
    sys.exit(program.run(dev, "`make dev` starts it"))
