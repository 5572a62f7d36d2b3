"""Asking a registry for an image, and telling its answer from its silence."""

import re
import select
import subprocess

from host.commands import UserError

# Docker's own words where no connection came about, or nothing came back over it.
_SILENCE = (
    "dial tcp|proxyconnect|TLS handshake timeout|context deadline exceeded"
    "|request canceled while waiting|timeout awaiting response"
)
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


def pull(reference: str, *, seconds: float) -> None:
    """Pull an image.

    Args:
        reference: Its name.
        seconds: How long the registry may take to begin; what comes then takes what it takes.

    Raises:
        UserError: The registry does not give it, for example because it knows no such tag.
        Unreachable: No registry has answered.
    """
    with subprocess.Popen(
        ["docker", "pull", reference], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None  # noqa: S101 - for the type checker
        begun, _, _ = select.select([child.stdout], [], [], seconds)
        if not begun:
            child.kill()  # and the engine gives up with it
            raise Unreachable(f"{of(reference)} gave no answer within {seconds:g} s")
        printed, said = child.communicate()
    if child.returncode == 0:
        return
    complaint = said.strip().removeprefix("Error response from daemon: ")
    # Once Docker says that it pulls, the registry has answered, whatever came then.
    if not printed and is_silence(complaint, of(reference)):
        raise Unreachable(complaint)
    raise UserError(f"the image {reference} cannot be pulled, its registry says: {complaint}")


def is_silence(complaint: str, registry: str) -> bool:
    """Whether Docker complains that it did not reach a registry.

    Only of the registry itself: whoever was sent on, to log in or to download, had its answer.
    """
    address = re.escape(_ADDRESSES.get(registry, registry))
    return re.search(rf'"https?://{address}/[^"]*": [^"]*({_SILENCE})', complaint) is not None
