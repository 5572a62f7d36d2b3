"""Bringing a stack file into service: the swarm replaces task by task, and we have the patience."""

import json
import time
from typing import Any

from host.commands import UserError
from ops.docker import DockerError, docker
from ops.rollout import Pace
from ops.stack import MIGRATE, SERVICE
from ops.swarm import engine
from ops.swarm.engine import Service
from ops.swarm.release import Release
from ops.terminal import Terminal

_POLL_SECONDS = 0.5
# Longer than any service's update_config.monitor: the swarm waits so long after its last task.
_MONITOR_SECONDS = 15
# For a job to find a machine, and its image to get there.
_PLACE_SECONDS = 120


class FailedError(UserError):
    """A release did not come into service."""


def apply(stack: str, file: dict[str, Any], *options: str) -> None:
    """Have the swarm want what a stack file says.

    Raises:
        DockerError: It does not accept it.
    """
    docker(
        *("stack", "deploy", "--detach=true", "--with-registry-auth", *options),
        *("--compose-file=-", stack),
        stdin=json.dumps(file),
    )


def migrate(stack: str, file: dict[str, Any], terminal: Terminal) -> str:
    """Run the job that migrates; return what it says. A signal does not end it.

    Raises:
        UserError: It fails, or does not start; nothing else has changed.
    """
    name = f"{stack}_{MIGRATE}"
    _remove(name)  # of a deploy that was killed
    try:
        apply(stack, file)
        _await_job(stack, terminal)
        return engine.last_words(name, 1000)
    finally:
        _remove(name)


def _remove(service: str) -> None:
    try:
        docker("service", "rm", service)
    except DockerError as error:
        if "not found" not in str(error):
            raise


def _await_job(stack: str, terminal: Terminal) -> None:
    began = time.monotonic()
    while True:
        job = engine.services(stack).get(MIGRATE)
        task = job.tasks[0] if job and job.tasks else None
        if task and task.state == "complete":
            return
        if task and task.has_ended:
            words = engine.last_words(f"{stack}_{MIGRATE}")
            raise UserError(
                f"`{MIGRATE}` failed ({task.error or task.state}), so nothing else has changed; "
                f"its last words:\n  {words}"
            )
        if task and task.state == "running" and not _is_there(task.node):
            raise UserError(
                f"the machine that ran `{MIGRATE}` is gone; nothing else has changed: run the same "
                "command again"
            )
        if (task is None or task.state != "running") and (
            time.monotonic() > began + _PLACE_SECONDS or terminal.asked_to_stop
        ):
            terminal.checkpoint()
            error = f" ({task.error})" if task and task.error else ""
            raise UserError(
                f"no machine has started `{MIGRATE}` within {_PLACE_SECONDS} s{error}, so nothing "
                "else has changed"
            )
        time.sleep(_POLL_SECONDS)


def _is_there(node: str) -> bool:
    return any(one.id == node and one.state == "ready" for one in engine.nodes())


def bring(stack: str, release: Release, base: Release | None, terminal: Terminal) -> None:
    """Bring a release into service; come back to the one before where that fails.

    Args:
        stack: The stack's name.
        release: What shall run.
        base: What runs now, if anything does.
        terminal: Who is told. A signal does not stop it: the swarm goes on by itself.

    Raises:
        FailedError: It did not come into service; the sentence says why, and what runs now.
    """
    try:
        with terminal.step(f"replacing what runs by release {release.number}") as step:
            apply(stack, release.file, "--prune")
            step.found = _await_settled(stack, release)
    except UserError as error:
        if isinstance(error, DockerError) or base is None:
            raise
        with terminal.step(f"{error}: going back to release {base.number}") as step:
            apply(stack, base.file, "--prune")
            try:
                step.found = _await_settled(stack, base)
            except UserError as second:
                raise FailedError(
                    f"{error}\nand release {base.number} does not come back: {second}\n"
                    "`make swarm-doctor` says what runs"
                ) from None
        raise FailedError(f"{error}\nrelease {base.number} goes on serving") from None


def _await_settled(stack: str, release: Release) -> str:
    """Wait until all of a release runs; return what does.

    Raises:
        FailedError: The swarm gave it up, or for DEPLOY_SECONDS no further task was healthy:
            Swarm itself would wait for ever for one that finds no place.
    """
    patience = Pace.from_environment().seconds + _MONITOR_SECONDS
    names = set(release.file["services"])
    well, since = -1, time.monotonic()
    while True:
        found = engine.services(stack)
        present = [found[name] for name in names if name in found]
        for one in present:
            if one.went_back:
                raise FailedError(_why(one, one.message))
        if len(present) == len(names) and all(one.is_settled for one in present):
            api = found[SERVICE]
            return f"{len(api.running)} of {SERVICE} healthy on {_machines(api)} machines"
        if (count := sum(len(one.running) for one in present)) != well:
            well, since = count, time.monotonic()
        if time.monotonic() > since + patience:
            late = next((one for one in present if not one.is_settled), None)
            if late is None:
                raise FailedError("a service is missing: somebody else has removed it")
            raise FailedError(_why(late, f"nothing has moved for {patience:g} s"))
        time.sleep(_POLL_SECONDS)


def _machines(service: Service) -> int:
    return len({one.node for one in service.running})


def _why(service: Service, what: str) -> str:
    if service.ill is None:
        return f"{service.name}: {what}"
    words = engine.last_words(service.ill.id)
    said = f", its last words:\n  {words}" if words else ""
    return f"{service.name}: {what} ({service.ill.error}){said}"
