"""How a program on the host ends, whatever ends it."""

from collections.abc import Callable

from host.commands import UserError
from ops.images import Images
from ops.stack import Stack, State, running
from ops.terminal import StopRequested, Terminal
from ops.workers import workers


def on_a_swarm(ways_on: str) -> str:
    """Say what a program leaves behind that changes a swarm."""
    return f"the swarm goes on with what it was told; `make swarm-doctor` says what runs, {ways_on}"


def run(
    work: Callable[[Terminal], None],
    ways_on: str,
    left_behind: Callable[[str], str] | None = None,
) -> int:
    """Run a program that Ctrl-C does not break off just anywhere.

    Args:
        work: The program.
        ways_on: What to run after it was stopped half-way.
        left_behind: What says so, with what is left by then; by default, on this machine.

    Returns:
        The exit code: 0, 1 after a sentence on standard error, 128 and more after a signal.
    """
    terminal = Terminal()
    terminal.watch()
    try:
        work(terminal)
    except StopRequested:
        terminal.complain(f"stopped: {(left_behind or _left_behind)(ways_on)}")
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
