"""Make sure that an engine answers, Compose and it are recent enough, and every image is here.

With the argument `build`, only those that images are built on.

Each step costs a fraction of a second when there is nothing to do, and a variable turns it off:
`HOST_INSTALL=no` installs and starts no engine, `HOST_PULL=no` asks no registry,
`HOST_BUILD=no` builds no replacement for an image that no registry yields.
"""

import sys

from host import checkout, compose, engine, images
from host.commands import carried_out


def prepare() -> None:
    """Prepare the host.

    Raises:
        UserError: It cannot be made ready.
    """
    checkout.ensure()
    engine.ensure()
    compose.ensure()
    images.ensure(images.named_by_compose(to_build=sys.argv[1:] == ["build"]))


sys.exit(carried_out(prepare))
