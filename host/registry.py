"""Getting images from registries and into them, and telling their answers from their silence."""

import os
import re
import select
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from io import RawIOBase

from host.commands import UserError

# Docker's own words where no connection came about, or nothing came back over it.
_SILENCE = (
    "dial tcp|proxyconnect|TLS handshake timeout|context deadline exceeded"
    "|request canceled while waiting|timeout awaiting response"
)
# How long one that has begun may send nothing; Docker shows its progress many times a second.
_STALLED_SECONDS = 120
_ADDRESSES = {"docker.io": "registry-1.docker.io"}


class Unreachable(Exception):
    """No registry has answered; the message is Docker's, or says how long it was waited for."""


def of(reference: str) -> str:
    """Return the registry that an image reference names.

    >>> of("mirror.example:5000/library/postgres:18.6"), of("prom/prometheus:v3.5.3")
    ('mirror.example:5000', 'docker.io')
    """
    first, slash, _ = reference.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host else "docker.io"


def pull(reference: str, *, seconds: float, checkpoint: Callable[[], None] = lambda: None) -> None:
    """Pull an image.

    Args:
        reference: Its name.
        seconds: How long the registry may take to begin; what comes then takes what it takes.
        checkpoint: Called again and again meanwhile; what it raises gives the image up.

    Raises:
        UserError: The registry does not give it, for example because it knows no such tag.
        Unreachable: No registry has answered.
    """
    _move("pull", reference, seconds, checkpoint)


def push(reference: str, *, seconds: float, checkpoint: Callable[[], None]) -> None:
    """Push an image; see `pull`.

    Raises:
        UserError: The registry does not take it, for example from who is not logged in.
        Unreachable: No registry has answered.
    """
    _move("push", reference, seconds, checkpoint)


def _move(verb: str, reference: str, seconds: float, checkpoint: Callable[[], None]) -> None:
    # Docker shows its progress to a terminal only.
    ours, terminal = os.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0) as progress,
        subprocess.Popen(
            ["docker", verb, reference],
            stdout=terminal,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as child,
    ):
        os.close(terminal)
        try:
            has_begun = _follow(progress, reference, seconds, checkpoint)
        except BaseException:
            child.kill()  # and the engine gives up with it
            raise
        _, said = child.communicate()
    if child.returncode == 0:
        return
    complaint = said.strip().removeprefix("Error response from daemon: ")
    # Once Docker says that it pulls, the registry has answered, whatever came then.
    if not has_begun and is_silence(complaint, of(reference)):
        raise Unreachable(complaint)
    raise UserError(f"the image {reference} cannot be {verb}ed, its registry says: {complaint}")


def _follow(
    progress: RawIOBase, reference: str, seconds: float, checkpoint: Callable[[], None]
) -> bool:
    """Wait for the end of what Docker shows; return whether it has shown anything."""
    has_begun = False
    patience, heard = seconds, time.monotonic()
    # A terminal whose other end is gone is an error to read from.
    with suppress(OSError):
        while True:
            if select.select([progress], [], [], 0.2)[0]:
                if not progress.read(1 << 16):
                    break
                has_begun = True
                patience, heard = _STALLED_SECONDS, time.monotonic()
            elif time.monotonic() > heard + patience:
                silence = f"{of(reference)} gave no answer within {patience:g} s"
                if has_begun:
                    raise UserError(f"the transfer of {reference} has stopped: {silence}")
                raise Unreachable(silence)
            checkpoint()
    return has_begun


def is_silence(complaint: str, registry: str) -> bool:
    """Whether Docker complains that it did not reach a registry.

    Only of the registry itself: whoever was sent on, to log in or to download, had its answer.
    """
    address = re.escape(_ADDRESSES.get(registry, registry))
    return re.search(rf'"https?://{address}/[^"]*": [^"]*({_SILENCE})', complaint) is not None
