"""`make dev`: the stack with compose.dev.yaml, built as `make up` builds it, until Ctrl-C.

`files` prints what COMPOSE_FILE is then.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from image.app import App
from ops import dotenv, program
from ops.docker import ROOT
from ops.images import Images
from ops.stack import SERVICE, Stack
from ops.terminal import Terminal
from ops.workers import workers

_POLL_SECONDS = 0.5
_NOT_CODE = ("__pycache__", "node_modules")


def dev(terminal: Terminal) -> None:
    """Have Compose run, and do what it cannot: what is saved starts workers anew, or builds.

    Its own watch starts nothing anew before 2.32, and until later looks at nothing that is mounted.
    """
    stack = Stack.read()
    images = Images(stack)
    api = stack.service(SERVICE)
    api["build"] = images.ready_build(terminal)
    # What the app depends on is in the image, where its code is not: that is mounted over it.
    manifests = App.read(images.source).manifests
    # A worker has the same code.
    source = [one for one in api["volumes"] if one["target"] == "/srv"]
    names = workers(stack)
    for name in names:
        worker = stack.service(name)
        worker["volumes"] = worker.get("volumes", []) + source
    os.chdir(ROOT)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(stack.configuration, file)
        file.flush()
        compose = ("docker", "compose", "--project-directory=.", f"--file={file.name}")
        # Not in this program's group: a Ctrl-C would reach it twice, which to Compose is "at once".
        running = subprocess.Popen(
            [*compose, "up", "--build"], stdin=subprocess.DEVNULL, process_group=0
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: running.send_signal(number))
        built, started = _saved(manifests), _saved(_code(images.source))
        while running.poll() is None:
            time.sleep(_POLL_SECONDS)
            if built != (built := _saved(manifests)):
                again = ("up", "--detach", "--build", "--no-deps", SERVICE, *names)
                subprocess.run([*compose, *again], check=False)
            elif names and started != (started := _saved(_code(images.source))):
                subprocess.run([*compose, "restart", "--no-deps", *names], check=False)
    sys.exit(running.returncode)


def _code(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if one[0] != "." and one not in _NOT_CODE]
        yield from (Path(place, one) for one in files if one[0] != "." and one[-4:] != ".log")


def _saved(files: Iterable[Path]) -> dict[Path, float]:
    """Return when each file was saved last; one that is gone by now is left out."""
    saved = {}
    for file in files:
        with suppress(FileNotFoundError):
            saved[file] = file.stat().st_mtime
    return saved


if __name__ == "__main__":
    if sys.argv[1:] == ["files"]:
        print(dotenv.compose_file("compose.dev.yaml"))
        sys.exit()
    sys.exit(program.run(dev, "`make dev` starts it"))
