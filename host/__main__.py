"""Make sure that an engine answers, Compose is recent enough and every image is here.

Each step costs a fraction of a second when there is nothing to do, and a variable turns it off:
`HOST_INSTALL=no` installs and starts no engine, `HOST_PULL=no` asks no registry,
`HOST_BUILD=no` builds no replacement for an image that no registry yields.
"""

import sys

from host import compose, engine, images
from host.commands import Refusal


def main() -> int:
    """Prepare the host.

    Returns:
        The exit code: 0 when the host is ready, 1 after one sentence on standard error.
    """
    try:
        engine.ensure()
        compose.ensure()
        images.ensure(images.named_by_compose())
    except Refusal as refusal:
        print(f"berth: {refusal}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
