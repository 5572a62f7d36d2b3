"""Where a new version comes from: what IMAGE names, built elsewhere, or else this tree."""

import os
from contextlib import suppress

from host.commands import UserError
from ops import registry
from ops.docker import ROOT, DockerError, docker, inspect
from ops.images import Image, Images, from_inspect, has_this_server
from ops.terminal import Terminal

# What an image is called that came by SSH, which is here and in no registry.
BROUGHT = "brought/"
# Asked of the image itself.
_HEADS = """
from _berth.revisions import listed
found = listed()
print(*sorted(found.heads) if found else "")
"""


def wanted() -> str:
    """Return what IMAGE names; empty if this tree is to be built."""
    return os.environ.get("IMAGE", "")


def typed(command: str) -> str:
    """Return how a command is typed that shall mean the same version."""
    return f"`make {command} IMAGE={wanted()}`" if wanted() else f"`make {command}`"


def new(images: Images, base: Image | None, terminal: Terminal) -> Image:
    """Pull what IMAGE names, or build this tree.

    Args:
        images: Those of the app.
        base: What it shall replace.
        terminal: Who is told, and may give it up.

    Raises:
        UserError: There is no such image, it is none that can run here, or it does not build.
        StopRequested: Somebody wants to stop.
    """
    if name := wanted():
        return _pulled(name, images, base, terminal)
    if base and base.origin and images.source == ROOT:
        # Else it would be the example's turn.
        raise UserError(
            f"{base.name} was pulled, and there is no APP_DIR to build from: name an image with "
            f"IMAGE=, as {base.origin}"
        )
    return images.build_tree(base, terminal)


def _pulled(name: str, images: Images, base: Image | None, terminal: Terminal) -> Image:
    registry.check("IMAGE", name)
    came_by_ssh = name.startswith(BROUGHT)
    was_here = bool(inspect("image", name)) and not came_by_ssh
    if not came_by_ssh:
        registry.pull(name, terminal)
    try:
        (found,) = inspect("image", name)
        image = from_inspect(found, images.repository)
        with terminal.step("checking it") as step:
            heads = _heads(name, image)
            step.found = f"revision {heads}" if heads else "no migrations"
        if not has_this_server(image):
            terminal.say("its server is of another Berth than this checkout")
        origin = with_digest(name, found["RepoDigests"])
        return images.label(image, origin, base.tag if base else "", terminal)
    finally:
        # Its layers are those of the one with our tag, which goes in its time.
        if not was_here:
            with suppress(DockerError):
                docker("image", "rm", name)


def _heads(name: str, image: Image) -> str:
    """Start an image's Python; return the newest revisions that it comes with.

    Raises:
        UserError: It does not start, or there is no Berth in it.
    """
    if not image.has_berth:
        builds = f"`make image PUSH={registry.repository(name)}:…`"
        raise UserError(f"IMAGE={name}: it is not Berth's: {builds} builds one where the app is")
    limits = ("--network=none", "--read-only", "--cap-drop=ALL", "--memory=256m", "--pull=never")
    try:
        return docker("run", "--rm", *limits, "--entrypoint=python", image.id, "-c", _HEADS)
    except DockerError as error:
        (found,) = inspect("image", image.id)
        machine = docker("version", "--format={{.Server.Arch}}")
        if found["Architecture"] != machine:
            raise UserError(
                f"IMAGE={name}: it is for {found['Architecture']}, and this machine is {machine}: "
                "build it on one that is alike"
            ) from None
        raise UserError(f"IMAGE={name}: it cannot list its migrations: {error}") from None


def with_digest(name: str, digests: list[str]) -> str:
    """Return the name of what was pulled that never means another image."""
    repository = registry.repository(name)
    # Docker leaves out its own registry's name.
    fitting = [one for one in digests if repository.endswith(registry.repository(one))]
    return max(fitting, key=len, default=name)
