"""`make status`: where the status page is, and what its login asks for."""

import sys

from host.commands import UserError, carried_out
from ops import closed
from ops.docker import compose, inspect
from ops.stack import Stack, State, ids, running


def lines(stack: Stack) -> list[str]:
    """Return the page's address, user and password, as the running stack has them.

    Raises:
        UserError: There is no page to look at.
    """
    traefik = ids(running(stack.containers("traefik")))
    if not traefik:
        raise UserError("the stack does not run: `make up`")
    # Of the container, since `make dev` turns it on without a word in .env.
    if "STATUS=on" not in inspect("container", *traefik)[0]["Config"]["Env"]:
        raise UserError(
            "the status page is off: set STATUS=on and COMPOSE_PROFILES=metrics in .env, "
            "then `make up`"
        )
    if not any(one.state is State.HEALTHY for one in stack.containers("prometheus")):
        raise UserError("Prometheus, which has what the page shows, does not run: `make up`")
    port = 443 if stack.behind else stack.published(443)[1]
    address = stack.domain if port == 443 else f"{stack.domain}:{port}"
    password = compose("run", "--rm", "--no-deps", "--no-TTY", "secrets", "status")
    return [f"https://{address}/status/", "user      berth", f"password  {password}"]


def report() -> None:
    """Print them, and whether visitors are kept out."""
    stack = Stack.read()
    for one in closed.containers(stack):
        print(closed.says(one))
    print("\n".join(lines(stack)))


if __name__ == "__main__":
    sys.exit(carried_out(report))
