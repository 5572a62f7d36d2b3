"""`make image PUSH=registry.example.org/shop:1`: build this tree's image and push it, anywhere.

`make deploy IMAGE=` brings it into service.
"""

import os
import sys
from datetime import UTC, datetime

from host.commands import UserError
from ops import program, registry
from ops.docker import docker
from ops.images import Images, new_tag
from ops.stack import Stack
from ops.terminal import Terminal


def image(terminal: Terminal) -> None:
    """Build, and push: under the name that is given, and as the cache of the next build."""
    name = os.environ.get("PUSH", "")
    registry.check("PUSH", name)
    if "@" in name:
        raise UserError(f"PUSH={name}: give a tag; the digest is known once it is built")
    images = Images(Stack.read())
    version = new_tag(datetime.now(UTC), images.source)
    cache = f"{registry.repository(name)}:cache"
    registry.check_answers(name, terminal)
    with terminal.step(f"building {version}"):
        images.build_for_others(name, version, cache, terminal)
    registry.push(name, terminal)
    if cache == name:
        return
    docker("tag", name, cache)
    try:
        registry.push(cache, terminal)
    finally:
        docker("image", "rm", cache)


if __name__ == "__main__":
    sys.exit(program.run(image, "`make image` goes on from here"))
