"""`make rollback`: bring the version before this one, or TO=<tag>, back into service.

It runs no migrations: a replica accepts a schema newer than its own.
"""

import os
import sys
import time

from host.commands import UserError
from ops import lock, program
from ops.images import Image, Images, change
from ops.rollout import Rollout
from ops.service import Service
from ops.stack import Container, Stack
from ops.terminal import Terminal


def rollback(terminal: Terminal) -> None:
    """Replace the replicas by those of an earlier image."""
    began = time.monotonic()
    stack = Stack.read()
    with lock.held(stack, "rollback") as held:
        images = Images(stack)
        service = Service.find(stack, images, held)
        base = service.image
        rollout = Rollout(stack, images, terminal, service.replicas)
        rollout.check_memory()

        wanted = os.environ.get("TO", "")
        image = named(wanted, images) if wanted else before(base, service.running, images)
        if rollout.is_done(image) and images.current() == image:
            terminal.say(f"{service.count} of {image.name} serve already")
            return
        rollout.to(image, base=base)
        images.prune()
        terminal.say(
            f"{service.count}: {change(base, image)}; the schema stays as it is; "
            f"{time.monotonic() - began:.1f} s in all"
        )


def named(tag: str, images: Images) -> Image:
    """Return the image that TO names.

    Raises:
        UserError: There is none.
    """
    image = images.find(images.reference(tag)) if tag in images.tags() else None
    if image is None:
        raise UserError(f"there is no version TO={tag}: {_choice(images.tags())}")
    return image


def before(base: Image, running: list[Container], images: Images) -> Image:
    """Return the image that the present one replaced.

    Raises:
        UserError: None is known.
    """
    others = [images.find(one.image) for one in running if one.image != base.id]
    versions = sorted((other for other in others if other), key=lambda other: other.tag)
    if versions:
        # A deploy that was broken off left a newer version, and a rollback an older one.
        return base if versions[-1].tag > base.tag else versions[-1]
    image = images.find(images.reference(base.replaces)) if base.replaces else None
    if image is None and base.replaces:
        raise UserError(gone(base.replaces, images.tags(), pulled=bool(base.origin)))
    if image is None:
        others_left = [tag for tag in images.tags() if tag != base.tag]
        raise UserError(
            f"nothing is known to have run before {base.name}: {_choice(others_left)}"
            if others_left
            else f"{base.name} is the first version here: there is nothing to go back to"
        )
    return image


def gone(tag: str, left: list[str], *, pulled: bool) -> str:
    """Say how to come by a version whose image was removed."""
    others = f"; or {_choice(left)}" if left else ""
    lost = f"the image of {tag} is no longer here, as after `docker system prune --all`"
    if pulled:
        return f"{lost}: `make deploy IMAGE=` with its name pulls it again{others}"
    commit = [*tag.split("-"), ""][2]
    checkout = f"`git checkout {commit}`, then `make deploy`,"
    again = checkout if commit else "`make deploy` of its files"
    return f"{lost}: {again} builds it again{others}"


def _choice(tags: list[str]) -> str:
    return f"choose with TO= among {', '.join(tags)}" if tags else "none has been deployed yet"


if __name__ == "__main__":
    sys.exit(
        program.run(
            rollback,
            "`make rollback` finishes what is left, `make deploy` brings this tree's version",
        )
    )
