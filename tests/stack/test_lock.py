"""One change of a project at a time, whichever clone it comes from."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host.commands import UserError
from ops import lock
from ops.stack import Stack
from tests.stack.stack import CHECKOUT, copy_of_repository, docker, poll

PROJECT = f"berth-test-lock-{CHECKOUT}"
HOLD = f"""
import sys, time
from ops import lock
from ops.stack import Stack
stack = Stack({PROJECT!r}, {{"services": {{"db": {{"image": sys.argv[1]}}}}}}, {{}})
with lock.held(stack, "deploy") as held:
    held.note_replicas(3)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def image() -> Iterator[str]:
    """What the database runs; nothing of a lock is left behind."""
    yield str(Stack.read().service("db")["image"])
    docker("volume", "rm", "--force", f"{PROJECT}_unfinished")


def stack(project: str, image: str) -> Stack:
    """Return what a lock wants to know of a stack."""
    return Stack(project, {"services": {"db": {"image": image}}}, {})


@contextmanager
def held_elsewhere(image: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the lock."""
    command = [sys.executable, "-c", HOLD, image]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_two_clones_exclude_each_other_and_two_projects_do_not(image: str, tmp_path: Path) -> None:
    """The one who comes second is told who is at work; the doctor sees its own project's only."""
    with held_elsewhere(image, copy_of_repository(tmp_path)) as process:
        with (
            pytest.raises(UserError, match=rf"a deploy by .* \(process {process.pid}\), since"),
            lock.held(stack(PROJECT, image), "start"),
        ):
            pass
        with lock.held(stack(f"{PROJECT}-2", image), "start"):
            ours, theirs = lock.holder(f"{PROJECT}-2"), lock.holder(PROJECT)
        assert (ours and ours.process, theirs and theirs.process) == (os.getpid(), process.pid)


def test_lock_of_who_was_killed_is_free_and_has_a_note(image: str, tmp_path: Path) -> None:
    """So that the next one knows how many replicas there were; after that one, nothing is left."""
    with held_elsewhere(image, copy_of_repository(tmp_path)) as process:
        process.kill()
        process.wait()
    poll("the lock", lambda: lock.holder(PROJECT) is None)
    for unfinished in (3, 0):
        with lock.held(stack(PROJECT, image), "deploy") as held:
            assert held.unfinished == unfinished
    assert PROJECT not in docker("ps", "--all", "--format={{.Names}}")
    assert PROJECT not in docker("volume", "ls")


def test_lock_that_cannot_be_made_is_no_lock() -> None:
    """A sentence says what is missing, in the engine's own words."""
    with (
        pytest.raises(UserError, match=rf"{PROJECT} cannot be had: .*berth-test-none"),
        lock.held(stack(PROJECT, "berth-test-none:1"), "start"),
    ):
        pass
