"""`make up`: start the stack, or say in a sentence why it cannot start."""

import sys
import time
from datetime import UTC, datetime

from host.commands import Refusal
from ops import deploy, lock, preflight, program
from ops.docker import ROOT, DockerError, compose, docker, last_lines
from ops.https import Endpoint
from ops.images import Images, new_tag
from ops.rollout import Rollout
from ops.stack import Container, Stack, State, running
from ops.terminal import Terminal

# On a slow disk, a first database takes its time.
_WAIT_SECONDS = 180
_ANSWER_SECONDS = 15
# What services read from the repository when they start, and never again: Compose mounts it, and
# sees no difference when it changes. Traefik watches its own; the app is deployed.
_READ_AT_START = {
    "docker-proxy": "traefik/docker-proxy.cfg",
    "backup": "backup/*",
    "offsite": "backup/*",
    "prometheus": "metrics/*.yml",
    "alertmanager": "metrics/alertmanager.sh",
    "containers": "metrics/containers.py",
}


def up(terminal: Terminal) -> None:
    """Check, build if nothing was built yet, start, and see that it answers."""
    began = time.monotonic()
    stack = Stack.read()
    preflight.check(stack)
    with lock.held(stack.project, "start") as held:
        images = Images(stack)
        check_settings()
        is_first = ensure_image(stack, images, terminal)
        roll_out(stack, images, terminal, held)
        try:
            with terminal.step("starting the stack"):
                start(stack, terminal)
        except Refusal:
            if is_first:  # and not worth starting again, once its author has changed something
                images.point_at_nothing()
            raise
        restart_outdated(stack, terminal)
        endpoint = Endpoint(stack.domain, *stack.published(443))
        with terminal.step(f"asking {endpoint.url}"):
            await_answer(endpoint, terminal)
        service = program.Service.find(stack, images, held)
    terminal.say(
        f"{endpoint.url} answers from {service.count} of {service.image.name}; "
        f"{time.monotonic() - began:.1f} s in all"
    )


def ensure_image(stack: Stack, images: Images, terminal: Terminal) -> bool:
    """Build the first image; `make deploy` builds all later ones.

    Returns:
        Whether this one is the first.
    """
    current = images.current()
    # One without a tag of ours was built by Compose alone, for a start that may have failed.
    if current and (current.tag or running(stack.replicas())):
        return False
    tag = new_tag(datetime.now(UTC))
    with terminal.step(f"building {tag}"):
        images.point_at(images.build(tag, replaces="", terminal=terminal))
    return True


def check_settings() -> None:
    """Let `secrets` judge DOMAIN and its like, before Compose stops what they have changed.

    Raises:
        Refusal: It does not accept them; the sentence is its own.
    """
    try:
        compose("run", "--rm", "--no-deps", "--no-TTY", "secrets", merged=True)
    except DockerError as error:
        raise Refusal(str(error)) from None


def roll_out(stack: Stack, images: Images, terminal: Terminal, held: lock.Lock) -> None:
    """Apply changed settings to replicas that serve; Compose would stop them all first."""
    current = images.current()
    if current is None or not running(stack.replicas()):
        return
    service = program.Service.find(stack, images, held)
    rollout = Rollout(stack, images, terminal, service.replicas)
    if rollout.stale(current):
        rollout.check_memory()
        deploy.migrate(images, images.adopt(current), terminal)
        rollout.to(current, base=service.image, pointed=current)


def start(stack: Stack, terminal: Terminal) -> None:
    """Start what does not run yet.

    Raises:
        Refusal: It fails; whatever did is quoted.
    """
    before = {one.service for one in running(stack.containers())}
    try:
        compose(
            *("up", "--detach", "--wait", f"--wait-timeout={_WAIT_SECONDS}"), given_up_by=terminal
        )
    except Refusal as refusal:
        containers = stack.containers()
        failed = failed_one_shots(stack, containers)
        if failed:
            # Nothing half-started: what this start began has nobody to serve.
            begun = {one.service for one in running(containers)} - before
            if begun:
                compose("stop", *sorted(begun))
        said = "\n".join(failed) or unwell(containers) or f"the stack does not start: {refusal}"
        raise Refusal(said) from None


def restart_outdated(stack: Stack, terminal: Terminal) -> None:
    """Start anew what has read files before they were last changed."""
    for one in running(stack.containers()):
        if one.service not in _READ_AT_START:
            continue
        files = ROOT.glob(_READ_AT_START[one.service])
        if any(file.stat().st_ctime > one.started.timestamp() for file in files):
            with terminal.step(f"restarting {one.service}, whose files have changed"):
                docker("restart", one.id)


def failed_one_shots(stack: Stack, containers: list[Container]) -> list[str]:
    """Say which of the services that have to end well did not."""
    return [
        f"{one.service} failed with exit code {one.exit_code}:\n  {last_lines(one.id)}"
        for one in containers
        if one.service in stack.one_shots and one.state is State.STOPPED and one.exit_code
    ]


def unwell(containers: list[Container]) -> str:
    """Say what does not stay up."""
    for one in containers:
        if one.state in {State.CRASHING, State.UNHEALTHY} or one.restarts:
            what = f"crashed {one.restarts} times" if one.restarts else f"is {one.state}"
            return f"{one.name} {what}{one.complaint}, its last words:\n  {last_lines(one.id)}"
    return ""


def await_answer(endpoint: Endpoint, terminal: Terminal, seconds: float = _ANSWER_SECONDS) -> None:
    """Return once a replica answers through Traefik.

    Args:
        endpoint: Where.
        terminal: Who may give it up.
        seconds: How long that may take.

    Raises:
        Refusal: None does.
    """
    deadline = time.monotonic() + seconds
    while (status := endpoint.status("/readyz")) != 200:
        if time.monotonic() > deadline:
            answer = f"answers {status}" if status else "does not answer"
            raise Refusal(f"everything runs, but {endpoint.url}/readyz {answer}: see `make doctor`")
        terminal.checkpoint()
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(program.run(up, "`make up` goes on from here"))
