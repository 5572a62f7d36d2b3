"""What deploy and rollback have in common: the service they find, and how they end."""

from collections.abc import Callable
from dataclasses import dataclass

from host.commands import UserError
from ops.images import Image, Images
from ops.lock import Lock
from ops.stack import Container, Stack, State, running
from ops.terminal import StopRequested, Terminal


@dataclass(frozen=True)
class Service:
    """The replicas as a deploy finds them."""

    running: list[Container]
    image: Image
    replicas: int

    @classmethod
    def find(cls, stack: Stack, images: Images, lock: Lock) -> "Service":
        """Look at what runs.

        Raises:
            UserError: Nothing does.
        """
        found = running(stack.replicas())
        if not found:
            raise UserError("no replica runs yet: `make up` starts the stack")
        wanted = len(found)
        # Somebody was killed at work and left old and new. (All alike: Compose has scaled them.)
        if lock.unfinished and len({(one.image, one.config_hash) for one in found}) > 1:
            wanted = lock.unfinished
        lock.note_replicas(wanted)
        return cls(found, images.adopt(_image(found, images)), wanted)

    @property
    def is_whole(self) -> bool:
        """Whether there are as many replicas as there should be, all of them healthy."""
        healthy = [one for one in self.running if one.state is State.HEALTHY]
        return len(healthy) == len(self.running) == self.replicas

    @property
    def count(self) -> str:
        """How many replicas, in words."""
        return "1 replica" if self.replicas == 1 else f"{self.replicas} replicas"


def _image(found: list[Container], images: Images) -> Image:
    """Return what serves: of two versions that do, the one that Compose would start."""
    ids = [one.image for one in found if one.state is State.HEALTHY] or [found[-1].image]
    current = images.current()
    if current and current.id in ids:
        return current
    image = images.find(ids[-1])
    if image is None:
        raise UserError(f"the image that {found[-1].name} runs is gone: `docker compose build api`")
    return image


def change(before: Image, after: Image) -> str:
    """Say what became of a version."""
    if before.id == after.id:
        return f"all of them {after.name} with the present settings"
    return f"{before.name} → {after.name}"


def listed(noun: str, found: list[str]) -> str:
    """Count things and name them."""
    if not found:
        return f"no {noun}s"
    return f"{len(found)} {noun}{'s' if len(found) > 1 else ''} ({', '.join(found)})"


def run(work: Callable[[Terminal], None], ways_on: str) -> int:
    """Run a program that Ctrl-C does not break off just anywhere.

    Args:
        work: The program.
        ways_on: What to run after it was stopped half-way.

    Returns:
        The exit code: 0, 1 after a sentence on standard error, 128 and more after a signal.
    """
    terminal = Terminal()
    terminal.watch()
    try:
        work(terminal)
    except StopRequested:
        terminal.complain(f"stopped: {_left_behind(ways_on)}")
        return terminal.exit_code
    except UserError as error:
        terminal.complain(str(error))
        return 1
    return 0


def _left_behind(ways_on: str) -> str:
    stack = Stack.read()
    replicas = running(stack.replicas())
    if not replicas:
        return f"no replica runs; {ways_on}"
    current = Images(stack).current()
    new = [one for one in replicas if current and one.image != current.id]
    healthy = [one for one in replicas if one.state is State.HEALTHY]
    serve = "all" if len(healthy) == len(replicas) else f"{len(healthy)}"
    if not new:
        return f"{serve} of {len(replicas)} replicas serve, of one version, as before"
    return (
        f"{len(new)} of {len(replicas)} replicas are replaced and {serve} of them serve; {ways_on}"
    )
