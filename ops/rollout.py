"""Replacing replicas while the others serve: new ones beside the old, then the old ones drain."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from host.commands import UserError
from ops.app_files import AppFiles
from ops.docker import DockerError, compose, docker, inspect, last_exit_code, last_lines
from ops.images import Image, Images
from ops.masquerade import masquerade
from ops.memory import Budget, fitting
from ops.stack import SERVICE, Container, Stack, State, ids, running
from ops.terminal import StopRequested, Terminal

_POLL_SECONDS = 0.2
# How long a new replica may take until it is healthy; see DEPLOY_SECONDS.
_PATIENCE_SECONDS = 60
_SETTLING_SECONDS = 0.5
_BUSY = timedelta(seconds=10)


class UnhealthyError(UserError):
    """A new replica is not what it should be: what is wrong, and its last words."""

    def __init__(self, what: str, last_words: str = "") -> None:
        super().__init__(f"{what}, its last words:\n  {last_words}" if last_words else what)
        self.what = what


@dataclass(frozen=True)
class Pace:
    """How many replicas at a time, and how long each may take."""

    surge: int
    seconds: float

    @classmethod
    def from_environment(cls) -> "Pace":
        """Read SURGE and DEPLOY_SECONDS.

        Raises:
            UserError: One of them is no positive number.
        """
        return cls(_positive("SURGE", 1), _positive("DEPLOY_SECONDS", _PATIENCE_SECONDS))


def _positive(variable: str, default: int) -> int:
    value = os.environ.get(variable) or str(default)
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        raise UserError(f"{variable}={value}: give a whole number from 1")
    return int(value)


class Rollout:
    """Brings the replicas of a stack to an image and to the present settings.

    At every moment the wanted number of replicas serves, of one version or of two.
    """

    def __init__(self, stack: Stack, images: Images, terminal: Terminal, wanted: int) -> None:
        self._stack = stack
        self._images = images
        self._terminal = terminal
        self._pace = Pace.from_environment()
        self._wanted = wanted
        self._started: set[str] = set()
        self._files = AppFiles.read(running(stack.replicas()))

    def check_memory(self) -> None:
        """Refuse a rollout whose additional replicas do not fit this machine.

        Raises:
            UserError: They do not; the sentence has the arithmetic.
        """
        extra = min(self._pace.surge, self._wanted)
        try:
            Budget.read(self._stack).check(self._wanted, extra=extra)
        except UserError as error:
            if lines := fitting(self._stack, self._wanted):
                sentence = f"{error}. `make up` sizes what nobody has set: {', '.join(lines)}"
                raise UserError(sentence) from None
            raise

    def is_stale(self, replica: Container, image: Image) -> bool:
        """Whether a replica runs another image, or was started with other settings or files."""
        return (
            replica.image != image.id
            or replica.config_hash != self._stack.config_hashes[SERVICE]
            or (self._files is not None and self._files.are_newer_than(replica))
        )

    def stale(self, image: Image) -> list[Container]:
        """Return the replicas that a rollout of this image would replace."""
        return [one for one in self._stack.replicas() if self.is_stale(one, image)]

    def to(self, image: Image, *, base: Image) -> None:
        """Replace what is stale; come back to the base image where that fails.

        What Compose would start moves to the image when as many replicas of it as are wanted are
        healthy, and before the last old one drains: at no moment is an image of which nobody knows
        whether it works what `docker compose up` starts.

        Args:
            image: What shall run.
            base: What runs now.

        Raises:
            UnhealthyError: A new replica was not healthy in time; none of it is left.
            StopRequested: Somebody wanted to stop, and a whole service is there.
        """
        try:
            self._replace(image, lambda one: self._has_to_go(one, image), watch=True)
        except UnhealthyError as error:
            self._come_back(image, base, error)
            raise UnhealthyError(f"{error}\n{self._what_serves(base)}") from None

    def anew(self, image: Image) -> None:
        """Replace every replica by another of the same image, which reads its secrets as they are.

        Raises:
            UnhealthyError: A new replica was not healthy in time; the old ones go on.
            StopRequested: Somebody wanted to stop, and a whole service is there.
        """
        self._replace(image, lambda one: one.id not in self._started, watch=True)

    def runs(self, image: Image) -> bool:
        """Whether there is a replica of an image."""
        return any(one.image == image.id for one in self._stack.replicas())

    def _has_to_go(self, replica: Container, image: Image) -> bool:
        if replica.id in self._started:
            return False
        # A deploy that was killed may have left new ones that nobody has seen healthy.
        return self.is_stale(replica, image) or replica.state is not State.HEALTHY

    def _what_serves(self, base: Image) -> str:
        healthy = [one for one in self._stack.replicas() if one.state is State.HEALTHY]
        if any(one.image == base.id for one in healthy):
            return f"{base.name} goes on serving"
        return f"and no replica of {base.name} is healthy: see `make doctor`"

    def _come_back(self, image: Image, base: Image, error: UnhealthyError) -> None:
        if image.id == base.id:
            return
        self._images.point_at(base)
        self._started.clear()
        if self.runs(image):
            self._terminal.say(f"{error.what}: going back to {base.name}")
        try:
            self._replace(base, lambda one: one.image == image.id, watch=False)
        except UserError as second:
            raise UserError(
                f"{error}\nand {base.name} does not start any more either: {second}\n"
                "Some replicas serve: see `make doctor`"
            ) from None

    def _replace(self, image: Image, stale: Callable[[Container], bool], *, watch: bool) -> None:
        """Replace replicas batch by batch.

        Args:
            image: What the new ones are of.
            stale: Which ones have to go.
            watch: Whether somebody may stop it between batches.
        """
        self._remove([one for one in self._stack.replicas() if one.state is State.STOPPED])
        while True:
            replicas = self._stack.replicas()
            # The ill first, since they serve nobody.
            old = sorted(filter(stale, replicas), key=lambda one: one.state is State.HEALTHY)
            ill = [one for one in old if one.state is not State.HEALTHY]
            if surplus := ill[: max(0, len(replicas) - self._wanted)]:
                self._drain(surplus)
                continue
            missing = self._wanted - (len(replicas) - len(old))
            if not old and missing <= 0:
                self._images.point_at(image)
                return
            if watch:
                self._terminal.checkpoint()
            batch = max(0, min(self._pace.surge, missing))
            if batch:
                self._start(batch, image, replicas, watch=watch)
            if missing <= batch:
                self._settle_on(image, [one for one in replicas if one not in old])
            self._drain(old[: max(0, len(replicas) + batch - self._wanted)])

    def _settle_on(self, image: Image, there: list[Container]) -> None:
        """Have Compose start what has just proven itself."""
        self._images.point_at(image)
        # Whoever typed `docker compose up` shortly before will replace the new ones: Compose runs
        # the one-shots first, and then does what it had decided before them.
        time.sleep(_SETTLING_SECONDS)
        while self._is_compose_at_work():
            time.sleep(_POLL_SECONDS)
        self._await_health({*ids(there), *self._started}, watch=False)

    def _is_compose_at_work(self) -> bool:
        started = datetime.now(UTC) - _BUSY
        return any(
            one.state is not State.STOPPED or one.started > started
            for one in self._stack.containers()
            if one.service in self._stack.one_shots
        )

    def _start(self, count: int, image: Image, beside: list[Container], *, watch: bool) -> None:
        known = {one.id for one in beside}
        with self._terminal.step(f"starting {_replicas(count)} beside {len(beside)}") as step:
            fresh: list[Container] = []
            try:
                self._start_beside(image, len(beside) + count)
                fresh = self._new_beside(known)
                _check_image(fresh, image)
                # Those of earlier batches too: a version may well crash after its first minute.
                self._await_health({*ids(fresh), *self._started}, watch=watch)
            except (UnhealthyError, StopRequested):
                self._remove(self._new_beside(known))
                raise
            except UserError as error:
                self._remove(self._new_beside(known))
                raise UnhealthyError(f"no new replica starts: {error}") from None
            self._started.update(ids(fresh))
            step.found = f"{', '.join(one.name for one in fresh)} healthy"

    def _start_beside(self, image: Image, total: int) -> None:
        new = self._images.reference(image.tag)
        with masquerade(self._images.pointer, new) as environment:
            compose(
                *("up", "--detach", "--no-deps", "--no-recreate", "--no-build"),
                *(f"--scale={SERVICE}={total}", SERVICE),
                environment=environment,
            )

    def _new_beside(self, known: set[str]) -> list[Container]:
        return [one for one in self._stack.replicas() if one.id not in known]

    def _await_health(self, fresh: set[str], *, watch: bool) -> None:
        deadline = time.monotonic() + self._pace.seconds
        while True:
            found = [Container.from_inspect(one) for one in inspect("container", *fresh)]
            if len(found) < len(fresh):
                raise UnhealthyError("a new replica was removed by somebody else")
            for one in found:
                if one.restarts or one.state not in {State.STARTING, State.HEALTHY}:
                    raise UnhealthyError(what_became_of(one), last_lines(one.id))
            if all(one.state is State.HEALTHY for one in found):
                return
            if time.monotonic() > deadline:
                late = next(one for one in found if one.state is not State.HEALTHY)
                raise UnhealthyError(
                    f"{late.name} is not healthy after {self._pace.seconds:g} s{late.complaint}",
                    last_lines(late.id),
                )
            if watch:
                self._terminal.checkpoint()
            time.sleep(_POLL_SECONDS)

    def _drain(self, old: list[Container]) -> None:
        if not old:
            return
        with self._terminal.step(f"draining {', '.join(one.name for one in old)}"):
            self._remove(old)

    def _remove(self, containers: list[Container]) -> None:
        if not containers:
            return
        # All at once; each one serves until it has drained. One that is gone already is as well.
        with suppress(DockerError):
            docker("container", "stop", *ids(containers))
        with suppress(DockerError):
            docker("container", "rm", "--force", "--volumes", *ids(containers))
        left = {one.id for one in self._stack.replicas()}
        for one in containers:
            if one.id in left:
                raise UserError(f"{one.name} cannot be removed: try `docker rm --force {one.name}`")


def _check_image(fresh: list[Container], image: Image) -> None:
    for one in fresh:
        if one.image != image.id:
            raise UnhealthyError(f"{one.name} was started from another image than {image.name}")


def _replicas(count: int) -> str:
    return "1 new replica" if count == 1 else f"{count} new replicas"


def what_became_of(replica: Container) -> str:
    """Say why a replica is not what it should be."""
    if replica.out_of_memory:
        return f"{replica.name} ran out of its memory (API_MEMORY)"
    if replica.state is State.UNHEALTHY:
        return f"{replica.name} is unhealthy{replica.complaint}"
    code = last_exit_code(replica.id)
    return f"{replica.name} ended with exit code {code}" if code else f"{replica.name} crashed"
