"""How a program on the host ends, whatever ends it."""

from collections.abc import Callable

from host.commands import UserError
from ops.images import Images
from ops.stack import Stack, State, running
from ops.terminal import StopRequested, Terminal
from ops.workers import workers


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
    behind = {
        one.service
        for name in workers(stack)
        for one in running(stack.containers(name))
        if current and one.image != current.id
    }
    if not new and behind:
        return f"{serve} of {len(replicas)} replicas serve; {', '.join(behind)} is left; {ways_on}"
    if not new:
        return f"{serve} of {len(replicas)} replicas serve, of one version, as before"
    return (
        f"{len(new)} of {len(replicas)} replicas are replaced and {serve} of them serve; {ways_on}"
    )
