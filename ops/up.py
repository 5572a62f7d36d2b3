"""`make up`: start the stack, or say in a sentence why it cannot start."""

import sys
import time
from datetime import UTC, datetime

from host.commands import Refusal
from ops import lock, preflight
from ops.docker import compose, last_lines
from ops.https import Endpoint
from ops.images import Images, new_tag
from ops.rollout import running
from ops.stack import Container, Stack, State
from ops.terminal import Terminal

# On a slow disk, a first database takes its time.
_WAIT_SECONDS = 180
_ANSWER_SECONDS = 15


def up(terminal: Terminal) -> None:
    """Check, build if nothing was built yet, start, and see that it answers."""
    began = time.monotonic()
    stack = Stack.read()
    preflight.check(stack)
    with lock.held(stack.project, "start"):
        ensure_image(Images(stack), terminal)
        with terminal.step("starting the stack"):
            start(stack)
        endpoint = Endpoint(stack.domain, *stack.published(443))
        with terminal.step(f"asking {endpoint.url}"):
            await_answer(endpoint)
    count = len(running(stack.replicas()))
    terminal.say(
        f"{endpoint.url} answers from {count} replica{'s' if count > 1 else ''}, "
        f"{time.monotonic() - began:.1f} s in all"
    )


def ensure_image(images: Images, terminal: Terminal) -> None:
    """Build the first image; `make deploy` builds all later ones."""
    if images.current():
        return
    tag = new_tag(datetime.now(UTC))
    with terminal.step(f"building {tag}"):
        images.point_at(images.build(tag, replaces="", terminal=terminal))


def start(stack: Stack) -> None:
    """Start what does not run yet.

    Raises:
        Refusal: It fails; whatever did is quoted.
    """
    before = {one.service for one in running(stack.containers())}
    try:
        compose("up", "--detach", "--wait", f"--wait-timeout={_WAIT_SECONDS}")
    except Refusal as refusal:
        containers = stack.containers()
        failed = [one for one in containers if one.state is State.STOPPED and one.exit_code]
        if failed:
            # Nothing half-started: what this start began has nobody to serve.
            begun = {one.service for one in running(containers)} - before
            if begun:
                compose("stop", *sorted(begun))
        raise Refusal(reason(containers) or f"the stack does not start: {refusal}") from None


def reason(containers: list[Container]) -> str:
    """Say why a start failed: whoever ended badly, else whoever does not get well."""
    for one in containers:
        if one.state is State.STOPPED and one.exit_code:
            return f"{one.service} failed with exit code {one.exit_code}:\n  {last_lines(one.id)}"
    for one in containers:
        if one.state in {State.CRASHING, State.UNHEALTHY} or one.restarts:
            what = f"crashed {one.restarts} times" if one.restarts else f"is {one.state}"
            return f"{one.name} {what}{one.complaint}, its last words:\n  {last_lines(one.id)}"
    return ""


def await_answer(endpoint: Endpoint) -> None:
    """Return once a replica answers through Traefik.

    Raises:
        Refusal: None does.
    """
    deadline = time.monotonic() + _ANSWER_SECONDS
    while (status := endpoint.status("/readyz")) != 200:
        if time.monotonic() > deadline:
            answer = f"answers {status}" if status else "does not answer"
            raise Refusal(f"everything runs, but {endpoint.url}/readyz {answer}: see `make doctor`")
        time.sleep(0.1)


def main() -> int:
    """Start the stack.

    Returns:
        The exit code.
    """
    terminal = Terminal()
    try:
        up(terminal)
    except Refusal as refusal:
        terminal.complain(str(refusal))
        return 1
    except KeyboardInterrupt:
        terminal.complain("stopped; `make up` goes on from here, `make down` takes it back")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
