"""`make deploy`: bring this tree's version into service without losing a request."""

import re
import sys
import time
from datetime import UTC, datetime

from host.commands import UserError
from ops import lock, program
from ops.docker import DockerError, compose
from ops.images import Image, Images, new_tag
from ops.rollout import Rollout
from ops.stack import Stack
from ops.terminal import Terminal

_MIGRATED = re.compile(r"Running upgrade \S* ?-> ([^\s,]+)")


def deploy(terminal: Terminal) -> None:
    """Build, migrate, then replace the replicas batch by batch."""
    began = time.monotonic()
    stack = Stack.read()
    with lock.held(stack, "deploy") as held:
        images = Images(stack)
        service = program.Service.find(stack, images, held)
        base = service.image
        rollout = Rollout(stack, images, terminal, service.replicas)
        rollout.check_memory()

        image = build(images, base, terminal)
        # This tree's version may be there already, perhaps of a deploy that was broken off.
        known = next((one for one in there(stack, images) if image.has_content_of(one)), None)
        if known:
            images.forget(image.tag)
            image = known
            if not rollout.stale(image) and service.is_whole and images.current() == image:
                terminal.say(f"unchanged: {service.count} of {image.name} serve this tree already")
                return
        try:
            migrated = migrate(images, image, terminal)
            terminal.checkpoint()
            rollout.to(image, base=base)
        finally:
            # Of no use to anybody when it did not come into service.
            if not known and not rollout.runs(image):
                images.forget(image.tag)
        images.prune()
        terminal.say(
            f"{service.count}: {program.change(base, image)}; "
            f"{program.listed('migration', migrated)}; {time.monotonic() - began:.1f} s in all"
        )


def there(stack: Stack, images: Images) -> list[Image]:
    """Return the images that run, or that Compose would start; those with a tag of ours."""
    ids = {one.image for one in stack.replicas()}
    found = [images.current(), *(images.find(one) for one in ids)]
    return [one for one in found if one and one.tag]


def build(images: Images, base: Image, terminal: Terminal) -> Image:
    """Build this tree's image."""
    tag = new_tag(datetime.now(UTC), images.source)
    with terminal.step(f"building {tag}"):
        return images.build(tag, replaces=base.tag, terminal=terminal)


def migrate(images: Images, image: Image, terminal: Terminal) -> list[str]:
    """Run the migrations of an image; return the revisions that were new.

    A signal does not end them: half a migration may need a hand to repair.
    """
    with terminal.step("migrating the database") as step:
        try:
            # What an update of Berth may have added: a secret, a role, a right.
            for service in ("secrets", "roles"):
                compose("run", "--rm", "--no-deps", "--no-TTY", service, merged=True)
            said = compose(
                *("run", "--rm", "--no-deps", "--no-TTY", "--env=LOG_LEVEL=INFO", "migrate"),
                environment={"API_IMAGE": images.reference(image.tag)},
                merged=True,
            )
        except DockerError as error:
            raise UserError(
                f"the migration failed, so nothing else has changed; its last words:\n  {error}"
            ) from None
        migrated = migrations_in(said)
        step.found = program.listed("migration", migrated)
    return migrated


def migrations_in(said: str) -> list[str]:
    """Return the revisions that alembic says it has upgraded to."""
    found: list[str] = _MIGRATED.findall(said)
    return found


if __name__ == "__main__":
    sys.exit(
        program.run(
            deploy,
            "`make deploy` finishes what is left, `make rollback` goes back to the old version",
        )
    )
