"""`make deploy`: bring a version into service without losing a request: this tree's, or IMAGE."""

import sys
import time

from ops import lock, one_shots, program, version
from ops.images import Images, change
from ops.rollout import Rollout
from ops.service import Service
from ops.stack import Stack
from ops.terminal import Terminal


def deploy(terminal: Terminal) -> None:
    """Build or pull, migrate, then replace the replicas batch by batch."""
    began = time.monotonic()
    stack = Stack.read()
    with lock.held(stack, "deploy") as held:
        images = Images(stack)
        one_shots.check_database(stack, images)
        one_shots.check_settings()
        service = Service.find(stack, images, held)
        base = service.image
        rollout = Rollout(stack, images, terminal, service.replicas)
        rollout.check_memory()

        built = version.new(images, base, terminal)
        # It may be there already, perhaps of a deploy that was broken off.
        image = images.unless_there(built)
        if image != built and rollout.is_done(image) and images.current() == image:
            terminal.say(f"unchanged: {service.count} of {image.name} serve this already")
            return
        try:
            migrated = one_shots.migrate(stack, images, image, terminal)
            terminal.checkpoint()
            rollout.to(image, base=base)
        finally:
            # Of no use to anybody when it did not come into service.
            if image == built and not rollout.runs(image):
                images.forget(image.tag)
        images.prune()
        terminal.say(
            f"{service.count}: {change(base, image)}; "
            f"{one_shots.in_words(migrated)}; {time.monotonic() - began:.1f} s in all"
        )


if __name__ == "__main__":
    on = f"{version.typed('deploy')} finishes what is left"
    sys.exit(program.run(deploy, f"{on}, `make rollback` goes back to the old version"))
