"""Registries, as who deploys from them or builds for them meets them."""

import re
from collections.abc import Callable
from contextlib import suppress

from host import registry
from host.commands import UserError
from ops.terminal import Terminal

# For a registry to begin.
_PATIENCE_SECONDS = 30
_NAME = re.compile(r"[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?")
_LOGGED_OUT = re.compile("no basic auth credentials|unauthorized|authentication required|denied")


def check(variable: str, name: str) -> None:
    """Refuse what cannot be the name of an image.

    Raises:
        UserError: It is none.
    """
    if not _NAME.fullmatch(name):
        example = f"{variable}=registry.example.org/shop:1"
        raise UserError(f"{variable}={name}: give the name of an image, such as {example}")


def repository(name: str) -> str:
    """Return an image's name without its tag and its digest.

    >>> repository("example.org:5000/shop:1"), repository("example.org:5000/shop")
    ('example.org:5000/shop', 'example.org:5000/shop')
    """
    return re.sub(r"(:[\w.-]+)?(@.*)?$", "", name)


def pull(name: str, terminal: Terminal) -> None:
    """Pull an image.

    Raises:
        UserError: The registry is silent, has no such image, or wants a log-in.
        StopRequested: Somebody wants to stop.
    """
    with terminal.step(f"pulling {name}"):
        _move(registry.pull, name, terminal)


def check_answers(name: str, terminal: Terminal) -> None:
    """Make sure that an image's registry answers: a build that asks it for layers would wait.

    Raises:
        UserError: It is silent.
        StopRequested: Somebody wants to stop.
    """
    never = f"{repository(name)}:berth-never-pushed"
    with terminal.step(f"asking {registry.of(name)}"), suppress(_AnsweredError):
        _move(registry.pull, never, terminal)


def push(name: str, terminal: Terminal) -> None:
    """Push an image.

    Raises:
        UserError: The registry is silent, or does not take it.
        StopRequested: Somebody wants to stop.
    """
    with terminal.step(f"pushing {name}"):
        _move(registry.push, name, terminal)


def _move(move: Callable[..., None], name: str, terminal: Terminal) -> None:
    try:
        move(name, seconds=_PATIENCE_SECONDS, checkpoint=terminal.checkpoint)
    except registry.Unreachable as error:
        raise UserError(f"no registry answers for {name}: {error}") from None
    except UserError as error:
        way_out = f"; `docker login {registry.of(name)}`, as whoever runs make, may let you in"
        raise _AnsweredError(
            f"{error}{way_out if _LOGGED_OUT.search(str(error)) else ''}"
        ) from None


class _AnsweredError(UserError):
    """A registry answered, and not well."""
