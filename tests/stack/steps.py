"""Somebody who does a thing just before a program does its next step."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

# The steps of a deploy or a start, by what the docker commands look like that they begin with.
STEPS = {
    "build": "* --file=- build *",
    "migrate": "* run --rm * migrate *",
    "create": "* compose * create *",
    "start": "* up --detach *",
    "move": "* tag *:current *",
    "drain": "* container stop *",
    "remove": "* container rm *",
    "end": "* volume rm *",
}
TYPED = "env --unset=DOCKER_HOST --unset=API_IMAGE docker compose up -d"
KILLED = "kill -KILL $PPID; exit 1"


def before(steps: Iterable[str], does: str, folder: Path) -> dict[str, str]:
    """Return the variables under which a program meets this person.

    Args:
        steps: Some of STEPS.
        does: A line of bash, which is run once before each; its output is in the file `said`.
        folder: An empty one.
    """
    real = shutil.which("docker")
    assert real
    lines = [f"does() {{ mkdir {folder}/$1 || return; export PATH=${{PATH#*:}}; {does}; }}"]
    for step in steps:
        pattern = STEPS[step].replace(" ", "\\ ")
        lines.append(f'[[ " $* " == {pattern} ]] && does {step} >> {folder}/said 2>&1')
    shim = folder / "docker"
    shim.write_text("\n".join(["#!/bin/bash", *lines, f'exec {real} "$@"\n']))
    shim.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
