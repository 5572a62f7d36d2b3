"""`make image PUSH=registry.example.org/shop:1`: build this tree's image and push it, anywhere.

`make deploy IMAGE=` brings it into service.
"""

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime

from host.commands import UserError
from ops import program, registry
from ops.docker import DockerError, docker
from ops.images import Images, new_tag
from ops.stack import Stack
from ops.terminal import Terminal


def image(terminal: Terminal) -> None:
    """Build, and push: under the name that is given, and as the cache of the next build.

    Raises:
        UserError: PUSH or PLATFORMS cannot be, it does not build, or the registry does not take it.
        StopRequested: Somebody wants to stop.
    """
    name = os.environ.get("PUSH", "")
    registry.check("PUSH", name)
    if "@" in name:
        raise UserError(f"PUSH={name}: give a tag; the digest is known once it is built")
    platforms = [one for one in os.environ.get("PLATFORMS", "").split(",") if one]
    images = Images(Stack.read())
    version = new_tag(datetime.now(UTC), images.source)
    cache = f"{registry.repository(name)}:cache"
    registry.check_answers(name, terminal)
    with terminal.step(f"building {version}"):
        images.build_for_others(name, version, cache, platforms, terminal)
    if not platforms:
        registry.push(name, terminal)
    if cache == name:
        return
    try:
        if not platforms:
            docker("tag", name, cache)
            registry.push(cache, terminal)
    finally:
        with suppress(DockerError):  # a builder of its own leaves none here
            docker("image", "rm", cache)


if __name__ == "__main__":
    sys.exit(program.run(image, "`make image` goes on from here"))
