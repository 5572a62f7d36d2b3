"""What may happen to a stack. Each returns when it is over, or when it has had long enough."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from host import engine
from tests.stack.stack import Stack, docker, image, poll

# From the moment that a replica is harmed: seconds within which it must be whole again.
HEALED_SECONDS = 30
RESPONSE_SECONDS = 10

# Given the stack, and what to call at the moment that counts as the event's.
Event = Callable[[Stack, Callable[[], None]], None]


def settle(seconds: float = 2) -> None:
    """Let the load go on: what an event costs may come late."""
    time.sleep(seconds)


def all_answer(stack: Stack, count: int) -> None:
    """Wait until exactly so many replicas answer through the proxy."""

    def counted() -> bool:
        with stack.session() as session:
            answers = [session.get(stack.url("/version"), timeout=10) for _ in range(count * 3)]
        return len({a.json()["replica"] for a in answers if a.ok}) == count

    poll(f"{count} replicas answering", counted, seconds=60)


def scaling(stack: Stack, mark: Callable[[], None]) -> None:
    """From as many as there are to six, and down to two."""
    mark()
    stack.up(scale=6)
    settle()
    stack.up(scale=2)


def recycling(stack: Stack, mark: Callable[[], None]) -> None:
    """Every replica has served RECYCLE_REQUESTS, and starts anew."""
    mark()
    replicas = stack.healthy()
    poll(
        "new starts of all",
        lambda: all(
            docker("logs", replica).count("Application startup complete") > 1
            for replica in replicas
        ),
        seconds=60,
    )
    assert [_restarts(replica) for replica in replicas] == [0] * len(replicas)


def harm(how: str) -> Event:
    """Have one replica harmed: by a line of bash in it, or by one of its own faults."""
    script = how
    if how.startswith("/"):
        script = f"exec 3<>/dev/tcp/127.0.0.1/8000; printf 'GET {how} HTTP/1.0\\r\\n\\r\\n' >&3"

    def event(stack: Stack, mark: Callable[[], None]) -> None:
        victim = stack.healthy()[0]
        before = _restarts(victim)
        stack.inside(victim, script)
        mark()
        poll(
            "the harmed replica",
            lambda: _restarts(victim) > before and victim in stack.healthy(),
            seconds=HEALED_SECONDS,
        )

    return event


def kill(container: str) -> None:
    """Kill a container's first process, which not even root may from within."""
    process = docker("inspect", "--format={{.State.Pid}}", container)
    command = ("--entrypoint=bash", image("postgres"), "-c", f"kill -KILL {process}")
    docker("run", "--rm", "--pid=host", "--privileged", *command)


def _restarts(container: str) -> int:
    return int(docker("inspect", "--format={{.RestartCount}}", container))


def cut_off(stack: Stack, mark: Callable[[], None]) -> None:
    """A replica's packets go nowhere: not even a refusal comes back."""
    mark()
    victim = stack.healthy()[0]
    docker("network", "disconnect", f"{stack.project}_edge", victim)
    settle(RESPONSE_SECONDS + 2)
    docker("network", "connect", f"{stack.project}_edge", victim)
    all_answer(stack, 4)


def restart_database(by: str) -> Event:
    """End PostgreSQL by a signal to its first process; the restart policy brings it back."""

    def event(stack: Stack, mark: Callable[[], None]) -> None:
        (db,) = stack.healthy("db")
        before = _restarts(db)
        mark()
        if by == "KILL":
            kill(db)
        else:
            stack.inside(db, f"kill -{by} 1")
        if by == "TERM":
            # A smart stop waits for clients to leave, who do not; one that waited is then fast.
            settle(1)
            stack.inside(db, "kill -INT 1")
        poll("the database", lambda: _restarts(db) > before and stack.healthy("db"), seconds=60)
        settle(3)

    return event


def replace_traefik(**settings: str) -> Event:
    """`make up` after a setting of Traefik's has changed, or its version."""

    def event(stack: Stack, mark: Callable[[], None]) -> None:
        mark()
        (before,) = stack.healthy("traefik")
        stack.environment.update(settings)
        stack.run("make", "up")
        assert before not in stack.healthy("traefik")

    return event


def crash_traefik(stack: Stack, mark: Callable[[], None]) -> None:
    """As when it runs out of memory; the restart policy brings it back."""
    (traefik,) = stack.healthy("traefik")
    before = _restarts(traefik)
    mark()
    kill(traefik)
    poll("Traefik", lambda: _restarts(traefik) > before and stack.answers(), seconds=60)


def replace_all(stack: Stack, mark: Callable[[], None]) -> None:
    """What Compose does after a build: all old ones stop before a new one starts."""
    mark()
    stack.compose("up", "--detach", "--wait", "--force-recreate", "--no-deps", "api")


def engine_is_ours() -> bool:
    """Whether the engine may be restarted: by root, with no project on it but the tests'."""
    if os.geteuid() != 0:
        return False
    projects = docker("ps", '--format={{.Label "com.docker.compose.project"}}').split()
    return all(project.startswith("berth-test") for project in projects)


def restart_engine(stack: Stack, mark: Callable[[], None]) -> None:
    """Restart the engine as its service manager would, or as host/ started it."""
    mark()
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "restart", "docker"], check=True)
    else:
        process = int(Path("/run/docker.pid").read_text())
        os.kill(process, signal.SIGTERM)
        poll("the engine's end", lambda: not Path(f"/proc/{process}").exists(), seconds=60)
        engine.start()
    poll("HTTPS after the restart", stack.answers, seconds=60)
