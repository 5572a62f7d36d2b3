"""`make up`: start the stack, or say in a sentence why it cannot start."""

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from host.commands import UserError
from ops import dotenv, lock, memory, one_shots, preflight, program, standby, version
from ops.docker import compose, docker, last_lines
from ops.https import Endpoint
from ops.images import Image, Images, has_this_server
from ops.masquerade import masquerade
from ops.rollout import Rollout
from ops.service import Service
from ops.stack import MIGRATE, SERVICE, Container, Stack, State, running
from ops.terminal import Terminal
from ops.workers import workers

# On a slow disk, a first database takes its time.
_WAIT_SECONDS = 180
_ANSWER_SECONDS = 15
_POLL_SECONDS = 0.2
# What has been up for so long did not crash at once.
_STEADY = timedelta(seconds=3)
# Whoever is not healthy by then waits for something that may never come.
_STARTED = timedelta(seconds=60)


def up(terminal: Terminal) -> None:
    """Check, build if there is nothing that works, start, and see that it answers."""
    began = time.monotonic()
    stack = fit(Stack.read(), terminal)
    preflight.check(stack)
    with lock.held(stack, "start") as held:
        images = Images(stack)
        one_shots.check_database(stack, images)
        one_shots.check_settings()
        serves = any_healthy(stack, terminal)
        image = choose_image(stack, images, terminal, serves=serves)
        try:
            if serves:
                roll_out(stack, images, image, terminal, held)
            restarts = {one.id: one.restarts for one in stack.containers()}
            with standby.replacing(stack, terminal), terminal.step("starting the stack"):
                start(stack, images, image, terminal, serves=serves)
                await_steadiness(stack, restarts, terminal)
            images.point_at(image)
        finally:
            # Of no use to anybody when it did not come into service.
            if image != images.current():
                images.forget(image.tag)
        images.prune()
        restart_outdated(stack, terminal)
        endpoint = Endpoint(stack.domain, *stack.published(443))
        with terminal.step(f"asking {endpoint.url}"):
            endpoint.await_ready(terminal, _ANSWER_SECONDS)
        service = Service.find(stack, images, held)
    terminal.say(
        f"{endpoint.url} answers from {service.count} of {service.image.name}; "
        f"{time.monotonic() - began:.1f} s in all"
    )


def fit(stack: Stack, terminal: Terminal) -> Stack:
    """Size what nobody has set a limit for to this machine, where the usual limits do not fit."""
    settings = memory.fitting(stack, max(stack.wanted, len(running(stack.replicas()))))
    if not settings or not dotenv.is_read():
        return stack
    machine = f"{memory.Budget.read(stack).machine / memory.MIB:,.0f} MiB"
    dotenv.add(settings, f"For a machine with {machine}, by `make up`; without them it sizes anew.")
    lines = ", ".join(f"{name}={value}" for name, value in settings.items())
    terminal.say(f"sized to this machine's {machine}, in .env: {lines}")
    return Stack.read()


def choose_image(stack: Stack, images: Images, terminal: Terminal, *, serves: bool) -> Image:
    """Return what to start: what Compose would, or a new version where that does not work.

    `make deploy` brings all later versions of the app; this checkout's server comes by itself.
    """
    current = images.current()
    asked = version.wanted()
    if current and serves and asked:
        raise UserError(f"{current.name} serves: {version.typed('deploy')} replaces it")
    if current and current.origin and not asked:
        # Nothing here can mend it, and nothing is built here.
        return images.adopt(current)
    # One of an older Berth serves until a new one takes over. One without a tag of ours was built
    # by Compose alone, and works if it serves.
    works = serves or (current and current.tag and not has_failed(stack))
    if current and current.has_berth and works and not asked:
        current = images.adopt(current)
        if has_this_server(current):
            return current
        try:
            built = images.renew(current, terminal)
        except UserError as error:
            raise UserError(
                f"{error}\nNothing has changed; `make deploy` would bring this Berth's server "
                "with the app as it is in APP_DIR"
            ) from None
    else:
        built = version.new(images, current, terminal)
    return images.unless_there(built)


def any_healthy(stack: Stack, terminal: Terminal) -> bool:
    """Whether a replica is healthy, once those that are starting have got somewhere."""
    before = {one.id: one.restarts for one in stack.replicas()}
    deadline = time.monotonic() + _STARTED.total_seconds()
    while True:
        replicas = stack.replicas()
        if any(one.state is State.HEALTHY for one in replicas):
            return True
        if time.monotonic() > deadline or not any(
            one.state is State.STARTING and one.restarts == before.get(one.id) for one in replicas
        ):
            return False
        terminal.checkpoint()
        time.sleep(_POLL_SECONDS)


def has_failed(stack: Stack) -> bool:
    """Whether the present version did not come up: its replicas are ill, or its migration is."""
    return bool(running(stack.replicas())) or any(
        one.exit_code for one in stack.containers(MIGRATE)
    )


def roll_out(
    stack: Stack, images: Images, image: Image, terminal: Terminal, held: lock.Lock
) -> None:
    """Apply changed settings to replicas that serve; Compose would stop them all first."""
    service = Service.find(stack, images, held)
    rollout = Rollout(stack, images, terminal, service.replicas)
    if rollout.stale(image):
        rollout.check_memory()
        if not stack.database_is_elsewhere and not running(stack.containers("db")):
            # It was elsewhere until now.
            with terminal.step("starting the database"):
                compose("up", "--detach", "--wait", "db", given_up_by=terminal)
        one_shots.migrate(stack, images, image, terminal)
        rollout.to(image, base=service.image)


def start(stack: Stack, images: Images, image: Image, terminal: Terminal, *, serves: bool) -> None:
    """Start what does not run yet, with an image that Compose may not know of before it works.

    Args:
        stack: Where.
        images: Its images.
        image: What Compose shall take for the present one.
        terminal: Who may break it off.
        serves: Whether replicas serve, which then are what they should be.

    Raises:
        UserError: It fails; whatever did is quoted.
    """
    before = {one.service for one in running(stack.containers())}
    name = images.pointer if image == images.current() else images.reference(image.tag)
    try:
        with masquerade(images.pointer, name) as environment:
            if serves:
                # First: `up` of Compose 2.26 replaces whatever depends on what it replaces.
                compose("create", *_needs(stack), environment=environment)
            compose(
                *("up", "--detach", "--wait", f"--wait-timeout={_WAIT_SECONDS}"),
                environment=environment,
                given_up_by=terminal,
            )
    except UserError as error:
        containers = stack.containers()
        failed = failed_one_shots(stack, containers)
        if failed:
            # Nothing half-started: what this start began has nobody to serve.
            begun = {one.service for one in running(containers)} - before
            if begun:
                compose("stop", *sorted(begun))
        said = "\n".join(failed) or unwell(containers) or f"the stack does not start: {error}"
        raise UserError(said) from None


def _needs(stack: Stack) -> list[str]:
    """Return what the app's services depend on, and what that depends on."""
    app = [SERVICE, *workers(stack)]
    found: set[str] = set()
    left = list(app)
    while left:
        needs = set(stack.service(left.pop()).get("depends_on", {})) - found
        found |= needs
        left += needs
    return sorted(found.difference(app))


def await_steadiness(stack: Stack, restarts: Mapping[str, int], terminal: Terminal) -> None:
    """Return once everything has been up for a moment; Compose takes what it started for well.

    Args:
        stack: What was started.
        restarts: How often each container had come back before.
        terminal: Who may give it up.

    Raises:
        UserError: Something crashes that has no health check to tell.
    """
    while True:
        containers = [one for one in running(stack.containers()) if not one.is_checked]
        ill = [one for one in containers if one.restarts > restarts.get(one.id, 0)]
        if said := unwell(ill + [one for one in containers if one.state is State.CRASHING]):
            raise UserError(said)
        latest = max((one.started for one in containers), default=datetime.now(UTC) - _STEADY)
        if latest <= datetime.now(UTC) - _STEADY:
            return
        terminal.checkpoint()
        time.sleep(_POLL_SECONDS)


def restart_outdated(stack: Stack, terminal: Terminal) -> None:
    """Start anew what has read files before they were last changed."""
    for one in running(stack.containers()):
        if one.has_old_files:
            with terminal.step(f"restarting {one.service}, whose files have changed"):
                docker("restart", one.id)


def failed_one_shots(stack: Stack, containers: list[Container]) -> list[str]:
    """Say which of the services that have to end well did not."""
    return [
        f"{one.service} {_ending(one)}:\n  {last_lines(one.id)}"
        for one in containers
        if one.service in stack.one_shots and one.state is State.STOPPED and one.exit_code
    ]


def _ending(one: Container) -> str:
    if not one.out_of_memory:
        return f"failed with exit code {one.exit_code}"
    return "ran out of its memory" + (" (API_MEMORY)" if one.service == MIGRATE else "")


def unwell(containers: list[Container]) -> str:
    """Say what does not stay up, or come up."""
    for one in containers:
        late = one.state is State.STARTING and one.started < datetime.now(UTC) - _STARTED
        if one.state in {State.CRASHING, State.UNHEALTHY} or one.restarts or late:
            times = "once" if one.restarts == 1 else f"{one.restarts} times"
            what = f"crashed {times}" if one.restarts else f"is {one.state}"
            return f"{one.name} {what}{one.complaint}, its last words:\n  {last_lines(one.id)}"
    return ""


if __name__ == "__main__":
    sys.exit(program.run(up, "`make up` goes on from here"))
