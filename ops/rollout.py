"""Replacing what runs the app's image: new replicas beside the old, which drain; then workers."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from host.commands import UserError
from ops.app_files import AppFiles
from ops.docker import DockerError, compose, docker, inspect, last_exit_code, last_lines
from ops.images import Image, Images
from ops.masquerade import masquerade
from ops.memory import VARIABLES, Budget, fitting
from ops.stack import SERVICE, Container, Stack, State, ids, running
from ops.terminal import StopRequested, Terminal
from ops.workers import Way, workers

_POLL_SECONDS = 0.2
# How long a new replica may take until it is healthy; see DEPLOY_SECONDS.
_PATIENCE_SECONDS = 60
_SETTLING_SECONDS = 0.5
# What has no health check, and has been up for so long, did not crash at once.
_STEADY = timedelta(seconds=7)
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
    """Brings everything that runs the app's image to another, and to the present settings.

    First the replicas of api, of which the wanted number serves at every moment, of one version or
    of two; then the workers.
    """

    def __init__(self, stack: Stack, images: Images, terminal: Terminal, wanted: int) -> None:
        self._stack = stack
        self._images = images
        self._terminal = terminal
        self._pace = Pace.from_environment()
        files = AppFiles.read(running(stack.replicas()))
        self._api = _Service(stack, images, terminal, self._pace, files, SERVICE, wanted)
        self._workers = [
            _Service(stack, images, terminal, self._pace, files, name, _count(stack, name), way)
            for name, way in workers(stack).items()
        ]
        self._all = [self._api, *self._workers]

    def check_memory(self) -> None:
        """Refuse a rollout whose additional containers do not fit this machine.

        Raises:
            UserError: They do not; the sentence has the arithmetic.
        """
        replicas, extra = self._api.wanted, self._api.extra
        budget = Budget.read(self._stack).with_others(
            {one.name: one.wanted for one in self._workers}, self._stack
        )
        try:
            budget.check(replicas, extra=extra)
            for one in self._workers:
                beside = budget.with_others({one.name: one.wanted + one.extra}, self._stack)
                beside.check(replicas)
        except UserError as error:
            if lines := fitting(self._stack, replicas):
                sentence = f"{error}. `make up` sizes what nobody has set: {', '.join(lines)}"
                raise UserError(sentence) from None
            raise

    def stale(self, image: Image) -> list[Container]:
        """Return the containers that a rollout of this image would replace."""
        return [one for service in self._all for one in service.stale(image)]

    def is_done(self, image: Image) -> bool:
        """Whether all run an image with the present settings, and as many as there should be."""
        return not self.stale(image) and all(one.is_whole for one in self._all)

    def runs(self, image: Image) -> bool:
        """Whether there is a container of an image."""
        return any(one.runs(image) for one in self._all)

    def to(self, image: Image, *, base: Image) -> None:
        """Replace what is stale; come back to the base image where that fails.

        What Compose would start moves to the image when as many replicas of it as are wanted are
        healthy, and before the last old one drains: at no moment is an image of which nobody knows
        whether it works what `docker compose up` starts.

        Args:
            image: What shall run.
            base: What runs now.

        Raises:
            UnhealthyError: A new container was not healthy in time; none of it is left.
            StopRequested: Somebody wanted to stop, and a whole service is there.
        """
        self._start_missing()
        try:
            for one in self._all:
                one.to(image)
            self._await_health(watch=True)
        except UnhealthyError as error:
            self._come_back(image, base, error)
            raise UnhealthyError(f"{error}\n{self._api.what_serves(base)}") from None

    def anew(self, image: Image) -> None:
        """Replace everything by others of the same image, which read their secrets as they are.

        Raises:
            UnhealthyError: A new container was not healthy in time.
            StopRequested: Somebody wanted to stop, and a whole service is there.
        """
        for one in self._all:
            one.to(image, anew=True)
        self._await_health(watch=True)

    def _await_health(self, *, watch: bool) -> None:
        """Have a last look at all: nobody has waited for what was merely restarted."""
        with self._terminal.step("seeing that all is well"):
            for one in self._all:
                one.await_health(watch=watch)

    def _start_missing(self) -> None:
        """Start what workers need and what was never started, such as their queue."""
        others = {one.name for one in self._all} | set(self._stack.one_shots)
        needed = {need for one in self._workers for need in one.needs} - others
        missing = sorted(need for need in needed if not self._stack.containers(need))
        if missing:
            with self._terminal.step(f"starting {', '.join(missing)}"):
                compose("up", "--detach", "--wait", "--no-deps", *missing)

    def _come_back(self, image: Image, base: Image, error: UnhealthyError) -> None:
        if image.id == base.id:
            return
        self._images.point_at(base)
        if self.runs(image):
            self._terminal.say(f"{error.what}: going back to {base.name}")
        failures = []
        steps = [partial(one.come_back, image, base) for one in self._all]
        for step in [*steps, partial(self._await_health, watch=False)]:
            try:
                step()
            except UserError as second:
                failures.append(second)
        if failures:
            raise UserError(
                f"{error}\nand {base.name} does not start any more either: {failures[0]}\n"
                "`make doctor` says what runs"
            )


def _count(stack: Stack, worker: str) -> int:
    """Return how many of a worker there should be: as many as run, where they are all alike."""
    found = running(stack.containers(worker))
    if found and len({(one.image, one.config_hash) for one in found}) == 1:
        return len(found)
    return int(stack.service(worker).get("deploy", {}).get("replicas", 1))


class _Service:
    """One service whose containers are replaced."""

    def __init__(
        self,
        stack: Stack,
        images: Images,
        terminal: Terminal,
        pace: Pace,
        files: AppFiles | None,
        name: str,
        wanted: int,
        way: Way = Way.ROLLING,
    ) -> None:
        self._stack = stack
        self._images = images
        self._terminal = terminal
        self._pace = pace
        self._files = files
        self.name = name
        self.wanted = wanted
        self._way = way
        self._was_away = not running(self._containers())
        self._surge = pace.surge if way is Way.ROLLING else wanted
        self._started: set[str] = set()

    @property
    def extra(self) -> int:
        """How many more there are for a while."""
        return min(self._surge, self.wanted) if self._way is Way.ROLLING else 0

    @property
    def needs(self) -> list[str]:
        """The services that Compose would start before it."""
        return list(self._stack.service(self.name).get("depends_on", {}))

    @property
    def is_whole(self) -> bool:
        """Whether there are as many as there should be, all of them healthy."""
        found = running(self._containers())
        return len(found) == self.wanted and all(one.state is State.HEALTHY for one in found)

    def _containers(self) -> list[Container]:
        return self._stack.containers(self.name)

    def _is_stale(self, one: Container, image: Image) -> bool:
        return (
            one.image != image.id
            or one.config_hash != self._stack.config_hashes[self.name]
            or (self._files is not None and self._files.are_newer_than(one))
        )

    def stale(self, image: Image) -> list[Container]:
        """Return those that run another image, or were started with other settings or files."""
        return [one for one in self._containers() if self._is_stale(one, image)]

    def runs(self, image: Image) -> bool:
        """Whether there is one of an image."""
        return any(one.image == image.id for one in self._containers())

    def to(self, image: Image, *, anew: bool = False) -> None:
        """Replace what is stale, or all that were there before.

        Raises:
            UnhealthyError: A new one was not healthy in time; it is removed.
            StopRequested: Somebody wanted to stop, and a whole service is there.
        """
        self._replace(image, lambda one: self._has_to_go(one, image, anew=anew), watch=True)

    def come_back(self, image: Image, base: Image) -> None:
        """Replace those of an image by those of the one before."""
        self._started.clear()
        if self._was_away:
            self.wanted = 0
        self._replace(base, lambda one: one.image == image.id, watch=False)

    def _has_to_go(self, one: Container, image: Image, *, anew: bool) -> bool:
        if one.id in self._started:
            return False
        # A deploy that was killed may have left new ones that nobody has seen healthy.
        return anew or self._is_stale(one, image) or one.state is not State.HEALTHY

    def what_serves(self, base: Image) -> str:
        """Say whether the base image still serves."""
        healthy = [one for one in self._containers() if one.state is State.HEALTHY]
        if any(one.image == base.id for one in healthy):
            return f"{base.name} goes on serving"
        return f"and no replica of {base.name} is healthy: see `make doctor`"

    def _replace(self, image: Image, stale: Callable[[Container], bool], *, watch: bool) -> None:
        """Replace containers batch by batch.

        Args:
            image: What the new ones are of.
            stale: Which ones have to go.
            watch: Whether somebody may stop it between batches.
        """
        self._remove([one for one in self._containers() if one.state is State.STOPPED])
        if self._way is Way.RESTART:
            if watch:
                self._terminal.checkpoint()
            self._drain([one for one in self._containers() if stale(one)])
            watch = False  # until it is whole again
        while True:
            replicas = self._containers()
            # The ill first, since they serve nobody.
            old = sorted(filter(stale, replicas), key=lambda one: one.state is State.HEALTHY)
            ill = [one for one in old if one.state is not State.HEALTHY]
            if surplus := ill[: max(0, len(replicas) - self.wanted)]:
                self._drain(surplus)
                continue
            missing = self.wanted - (len(replicas) - len(old))
            if not old and missing <= 0:
                self._point_at(image)
                return
            if watch:
                self._terminal.checkpoint()
            batch = max(0, min(self._surge, missing))
            if batch:
                self._start(batch, image, replicas, watch=watch)
            if missing <= batch:
                self._settle_on(image, [one for one in replicas if one not in old])
            self._drain(old[: max(0, len(replicas) + batch - self.wanted)])

    def _point_at(self, image: Image) -> None:
        if self.name == SERVICE:
            self._images.point_at(image)

    def _settle_on(self, image: Image, there: list[Container]) -> None:
        """Have Compose start what has just proven itself."""
        if self.name != SERVICE:
            return
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
        what = f"starting {_counted(self.name, count)} beside {len(beside)}"
        with self._terminal.step(what) as step:
            fresh: list[Container] = []
            try:
                self._create_beside(image, len(beside) + count)
                fresh = self._new_beside(known)
                docker("start", *ids(fresh))
                _check_image(fresh, image)
                # Those of earlier batches too: a version may well crash after its first minute.
                if self._way is Way.ROLLING:
                    self._await_health({*ids(fresh), *self._started}, watch=watch)
            except (UnhealthyError, StopRequested):
                self._remove(self._new_beside(known))
                raise
            except UserError as error:
                self._remove(self._new_beside(known))
                raise UnhealthyError(f"no new {self.name} starts: {error}") from None
            self._started.update(ids(fresh))
            verb = "healthy" if self._way is Way.ROLLING else "started"
            step.found = f"{', '.join(one.name for one in fresh)} {verb}"

    def _create_beside(self, image: Image, total: int) -> None:
        new = self._images.reference(image.tag)
        with masquerade(self._images.pointer, new) as environment:
            # Not `up --no-deps`: what depends on nothing then has another hash to Compose 2.26.
            compose(
                *("create", "--no-recreate", "--no-build"),
                *(f"--scale={self.name}={total}", self.name),
                environment=environment,
            )

    def _new_beside(self, known: set[str]) -> list[Container]:
        return [one for one in self._containers() if one.id not in known]

    def await_health(self, *, watch: bool) -> None:
        """Return once all that were started are well.

        Raises:
            UnhealthyError: One is not.
            StopRequested: Somebody wants to stop.
        """
        if self._started:
            self._await_health(self._started, watch=watch)

    def _await_health(self, fresh: set[str], *, watch: bool) -> None:
        deadline = time.monotonic() + self._pace.seconds
        while True:
            found = [Container.from_inspect(one) for one in inspect("container", *fresh)]
            if len(found) < len(fresh):
                raise UnhealthyError(f"a new one of {self.name} was removed by somebody else")
            for one in found:
                if one.restarts or one.state not in {State.STARTING, State.HEALTHY}:
                    raise UnhealthyError(what_became_of(one), last_lines(one.id))
            if all(one.state is State.HEALTHY and _is_steady(one) for one in found):
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
        left = {one.id for one in self._containers()}
        for one in containers:
            if one.id in left:
                raise UserError(f"{one.name} cannot be removed: try `docker rm --force {one.name}`")


def _check_image(fresh: list[Container], image: Image) -> None:
    for one in fresh:
        if one.image != image.id:
            raise UnhealthyError(f"{one.name} was started from another image than {image.name}")


def _counted(service: str, count: int) -> str:
    noun = "replica" if service == SERVICE else service
    return f"1 new {noun}" if count == 1 else f"{count} new {noun}s"


def _is_steady(one: Container) -> bool:
    """Whether one that has no health check has been up for a moment."""
    return one.is_checked or datetime.now(UTC) - one.started > _STEADY


def what_became_of(replica: Container) -> str:
    """Say why a container is not what it should be."""
    if replica.out_of_memory:
        limit = VARIABLES.get(replica.service, "its limit")
        return f"{replica.name} ran out of its memory ({limit})"
    if replica.state is State.UNHEALTHY:
        return f"{replica.name} is unhealthy{replica.complaint}"
    code = last_exit_code(replica.id)
    return f"{replica.name} ended with exit code {code}" if code else f"{replica.name} crashed"
