"""Which services a deploy takes along, by Compose's word and with no stack."""

import os
from pathlib import Path

import pytest

from host.commands import UserError
from ops.checks import service
from ops.facts import Facts
from ops.images import Images
from ops.memory import Budget
from ops.rollout import Rollout
from ops.stack import Stack
from ops.terminal import Terminal
from ops.workers import Way, workers
from tests.ops.test_doctor import NOW
from tests.stack.stack import REPOSITORY

WORKER = f"worker: {{extends: {{file: {REPOSITORY}/app.yaml, service: worker}}"
NO_STACK = "berth-test-no-stack"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's own Compose file is, which COMPOSE_FILE names."""
    monkeypatch.setenv("COMPOSE_DISABLE_ENV_FILE", "1")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", NO_STACK)
    monkeypatch.setenv("COMPOSE_FILE", os.pathsep.join(["compose.yaml", f"{tmp_path}/own.yaml"]))
    return tmp_path


def stack(folder: Path, *services: str) -> Stack:
    """Return what Compose makes of the user's own services."""
    (folder / "own.yaml").write_text("\n  ".join(["services:", *services]))
    return Stack.read()


def test_label_says_how(folder: Path) -> None:
    """An extended one has it, and may have another."""
    clock = WORKER.replace("worker:", "clock:", 1)
    found = stack(folder, f"{WORKER}}}", f"{clock}, labels: {{berth.deploy: restart}}}}")
    assert workers(found) == {"worker": Way.ROLLING, "clock": Way.RESTART}


@pytest.mark.parametrize(
    ("services", "says"),
    [
        (
            f"{WORKER}, labels: {{berth.deploy: later}}}}",
            "worker .*: later: give rolling or",
        ),
        ("queue: {image: valkey, labels: {berth.deploy: rolling}}", "queue .* for workers of"),
    ],
)
def test_label_that_cannot_work_is_refused(folder: Path, services: str, says: str) -> None:
    """Before anything has changed."""
    with pytest.raises(UserError, match=says):
        workers(stack(folder, services))


def test_doctor_asks_for_a_label(folder: Path) -> None:
    """At whatever runs the app's image for good, and would be left behind."""
    found = stack(folder, f"{WORKER}, labels: !override []}}")
    finding = service.rollout(Facts(found, [], {}, NOW, ""))
    assert finding.says == "worker runs the app's image, and no deploy replaces it"
    assert "labels: {berth.deploy: rolling}" in finding.way_out


def test_memory_of_workers_counts(folder: Path) -> None:
    """With one more while a deploy replaces them, where there are two at a time."""
    machine = Budget.read(stack(folder, f"{WORKER}}}")).machine
    own = f"{WORKER}, deploy: {{resources: {{limits: {{memory: {machine * 3 // 5}b}}}}}}"
    for way, replicas, fits in (("rolling", 1, False), ("restart", 1, True), ("restart", 2, False)):
        found = stack(
            folder, f"{own[:-1]}, replicas: {replicas}}}, labels: {{berth.deploy: {way}}}}}"
        )
        rollout = Rollout(found, Images(found), Terminal(), 1)
        if fits:
            rollout.check_memory()
        else:
            with pytest.raises(UserError, match="MiB of worker make"):
                rollout.check_memory()
