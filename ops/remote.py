"""`make … HOST=deploy@shop.example.org`: the same on another machine, by SSH.

`make deploy` builds here and brings the image, Berth and the settings; every other command runs
there with what was brought. The settings are those of `.env.shop.example.org`, if there is one, or
of `.env`. Several machines are as many stacks, each in turn.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from host.commands import UserError
from host.engine import is_forbidden
from ops import memory
from ops.docker import ROOT, docker
from ops.images import Images
from ops.shipment import Files, send
from ops.ssh import Server
from ops.stack import SERVICE, Stack
from ops.terminal import StopRequested, Terminal
from ops.version import BROUGHT

# What needs what stays here: the app's code, tests, or a file.
_HERE = (
    *("new", "dev", "trust", "untrust", "revision", "image", "import", "test", "chaos", "bench"),
    *("check", "sbom"),
)
# What a server needs beside an engine.
_NEEDED = ("docker", "python3", "make")


def carry_out(target: str, terminal: Terminal) -> None:
    """Make a target on each machine of HOST, up to the first on which that fails.

    Raises:
        UserError: It cannot be made there.
    """
    if target in _HERE:
        raise UserError(f"`make {target}` works on this machine only: leave HOST out")
    destinations = os.environ["HOST"].split()
    for destination in destinations:
        if len(destinations) > 1:
            terminal.say(f"{destination}:")
        name = destination.rpartition("@")[2].removeprefix("ssh://").partition(":")[0]
        own = ROOT / f".env.{name}"
        if own.exists():
            os.environ["COMPOSE_ENV_FILES"] = str(own)
        else:
            os.environ.pop("COMPOSE_ENV_FILES", None)
        with Server.connected(destination) as server:
            engine = check(server)
            if target == "deploy":
                deploy(server, engine, terminal)
            else:
                make(server, Files.of(Stack.read().project), target)


def check(server: Server) -> dict[str, Any]:
    """Return what the engine there says of itself.

    Raises:
        UserError: The machine lacks something; the sentence says what helps.
    """
    look = f"for one in {' '.join(_NEEDED)}; do command -v $one > /dev/null || echo $one; done"
    if missing := server.output("sh", "-c", look).split():
        raise UserError(
            f"{server.destination} has no {' and no '.join(missing)}: `make setup HOST=root@…` "
            "prepares it"
        )
    try:
        info: dict[str, Any] = json.loads(server.output("docker", "info", "--format={{json .}}"))
    except UserError as error:
        if is_forbidden(str(error)):
            forbidden = "its user may not use Docker: `sudo usermod -aG docker` and its name there"
            raise UserError(f"{server.destination}: {forbidden}") from None
        raise
    return info


def deploy(server: Server, engine: Mapping[str, Any], terminal: Terminal) -> None:
    """Build here, bring what differs, and have it deployed there.

    Args:
        server: Where to.
        engine: What the one there says of itself.
        terminal: Who is told, and may give it up.
    """
    stack = Stack.read()
    files = Files.of(stack.project)
    if sizes := memory.fitting(stack, stack.wanted, machine=engine["MemTotal"]):
        machine = f"{engine['MemTotal'] / memory.MIB:,.0f} MiB"
        terminal.say(f"sized to its {machine}: {', '.join(f'{k}={v}' for k, v in sizes.items())}")
        files = files.with_settings(sizes, f"For a machine with {machine}, by `make deploy HOST=`.")
    images = Images(stack)
    name = os.environ.get("IMAGE") or built(server, engine["Architecture"], images, terminal)
    differences = files.differences(server)
    for line in differences:
        terminal.say(f"  {line}")
    terminal.checkpoint()
    if differences:
        with terminal.step("sending Berth and the settings"):
            files.bring(server)
    project = f"--filter=label=com.docker.compose.project={stack.project}"
    serving = f"--filter=label=com.docker.compose.service={SERVICE}"
    if not server.output("docker", "ps", "--quiet", project, serving):
        make(server, files, "up", IMAGE=name)
        return
    make(server, files, "deploy", IMAGE=name)
    if differences:  # which may concern others than the app
        make(server, files, "up")


def built(server: Server, architecture: str, images: Images, terminal: Terminal) -> str:
    """Build this tree's image, bring it there, and return its name.

    Raises:
        UserError: It does not build, or not for that machine.
    """
    here = docker("info", "--format={{.Architecture}}")
    if architecture != here:
        raise UserError(
            f"{server.destination} is a machine of {architecture}, this one of {here}: build on "
            "one of its kind, and deploy with IMAGE="
        )
    image = images.build_tree(None, terminal)
    name = f"{BROUGHT}{images.repository.rpartition('/')[2]}:{image.tag}"
    docker("tag", image.id, name)
    try:
        with terminal.step(f"sending {image.tag}") as step:
            step.found = send(server, name)
    finally:
        docker("image", "rm", name)
    images.prune()
    return name


def make(server: Server, files: Files, target: str, **more: str) -> None:
    """Make a target there, with the variables that were given here.

    Raises:
        UserError: Nothing was brought there yet.
        SystemExit: It failed, as it has said itself.
    """
    given = os.environ.get("GIVEN", "").split()
    variables = {name: os.environ[name] for name in given if name not in {"HOST", "IMAGE"}} | more
    words = ["make", "--no-print-directory", target, *(f"{x}={y}" for x, y in variables.items())]
    folder = shlex.quote(f"{files.base.removeprefix('~/')}/{ROOT.name}")
    nothing = "echo 'berth: nothing was deployed here yet' >&2; exit 1"
    script = f'cd "$HOME"/{folder} 2> /dev/null || {{ {nothing}; }}; exec {shlex.join(words)}'
    if status := server.run(script, terminal=sys.stdin.isatty() and sys.stdout.isatty()):
        sys.exit(status)


def main() -> int:
    """Do it, and return the exit code."""
    terminal = Terminal()
    terminal.watch()
    try:
        carry_out(sys.argv[1], terminal)
    except StopRequested:
        terminal.complain(
            "stopped: what serves there is whole; the same command goes on from there"
        )
        return terminal.exit_code
    except UserError as error:
        terminal.complain(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
