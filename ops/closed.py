"""Whether visitors are kept out, by the container of `make maintenance`."""

from ops.stack import Container, Stack, running

SERVICE = "maintenance"


def containers(stack: Stack) -> list[Container]:
    """Return what keeps them out: nothing, where maintenance is off."""
    return running(stack.containers(SERVICE))


def says(found: Container) -> str:
    """Say since when maintenance is on."""
    return f"maintenance is on since {found.started:%Y-%m-%d %H:%M} UTC: visitors get 503"
