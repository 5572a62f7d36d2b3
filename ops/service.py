"""The app's replicas as a program finds them that changes them."""

from dataclasses import dataclass

from host.commands import UserError
from ops import version
from ops.images import Image, Images
from ops.lock import Lock
from ops.stack import Container, Stack, State, running


@dataclass(frozen=True)
class Service:
    """The replicas, the image they run, and how many there should be."""

    running: list[Container]
    image: Image
    replicas: int

    @classmethod
    def find(cls, stack: Stack, images: Images, lock: Lock, *, resumes: bool = False) -> "Service":
        """Look at what runs.

        Args:
            stack: Whose.
            images: Those of its app.
            lock: Held.
            resumes: Whether somebody was surely killed at work.

        Raises:
            UserError: Nothing does.
        """
        replicas = running(stack.replicas())
        if not replicas:
            raise UserError(f"no replica runs yet: {version.typed('up')} starts the stack")
        wanted = len(replicas)
        # Old and new side by side are what a deploy left that was killed: its number counts. If all
        # are alike, Compose has scaled them since.
        versions = {(replica.image, replica.config_hash) for replica in replicas}
        if lock.unfinished and (resumes or len(versions) > 1):
            wanted = lock.unfinished
        lock.note_replicas(wanted)
        return cls(replicas, images.adopt(_image(replicas, images)), wanted)

    @property
    def count(self) -> str:
        """How many replicas, in words."""
        return "1 replica" if self.replicas == 1 else f"{self.replicas} replicas"


def _image(replicas: list[Container], images: Images) -> Image:
    """Return what serves: of two versions that do, the one that Compose would start."""
    healthy = [replica.image for replica in replicas if replica.state is State.HEALTHY]
    ids = healthy or [replicas[-1].image]
    current = images.current()
    if current and current.id in ids:
        return current
    image = images.find(ids[-1])
    if image is None:
        raise UserError(
            f"the image that {replicas[-1].name} runs is gone: `docker compose build api`"
        )
    return image
