"""The other services that run the app's image, and what a deploy does with each of them."""

from enum import StrEnum

from host.commands import UserError
from ops.stack import SERVICE, Stack

LABEL = "berth.deploy"


class Way(StrEnum):
    """How a deploy replaces a worker."""

    ROLLING = "rolling"  # new ones beside the old, which then stop
    RESTART = "restart"  # at no moment are there two


def of_the_app(stack: Stack) -> list[str]:
    """Return the services that run the app's image and stay up: api, and all workers."""
    image = stack.service(SERVICE)["image"]
    services = stack.configuration["services"].items()
    return [
        name for name, one in services if one.get("image") == image and name not in stack.one_shots
    ]


def workers(stack: Stack) -> dict[str, Way]:
    """Return the services that a deploy replaces after api, by the label that says how.

    Raises:
        UserError: A label says something else, or stands at a service of another image.
    """
    found = {}
    others = [name for name in of_the_app(stack) if name != SERVICE]
    for name, service in stack.configuration["services"].items():
        way = service.get("labels", {}).get(LABEL)
        if way is None:
            continue
        if way not in list(Way):
            raise UserError(f"{name} has the label {LABEL}: {way}: give rolling or restart")
        if name not in others:
            raise UserError(f"{name} has the label {LABEL}, for workers of the app's image")
        found[name] = Way(way)
    return found


def unlabelled(stack: Stack) -> list[str]:
    """Return the services that run the app's image, and that no deploy replaces."""
    known = {SERVICE, *workers(stack)}
    return [name for name in of_the_app(stack) if name not in known]
