"""On a server of 1 GB two replicas start, with backups, and are deployed while requests go on."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.events import settle
from tests.stack.load import assert_stored_once, steady_load
from tests.stack.stack import Stack, copy_of_repository, docker, running_with_ca

# What such a server has left once its kernel has started.
MACHINE = 957 << 20
SETTINGS = "# mine\nTRAEFIK_HEAP=90MiB\nBACKUP_DIR=backups # stays"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas that Compose alone has started, and an engine that tells of little memory."""
    scratch = tmp_path_factory.mktemp("small")
    folder = copy_of_repository(scratch)
    (folder / ".env").write_text(SETTINGS)
    with running_with_ca(
        "berth-test-small",
        scratch,
        scale=2,
        folder=folder,
        overlays=["faults"],
        COMPOSE_DISABLE_ENV_FILE="0",
        PATH=f"{tell_of(MACHINE, scratch)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/bin",
    ) as stack:
        yield stack


def tell_of(memory: int, scratch: Path) -> Path:
    """Return a folder with a `docker` that tells of a machine with so many bytes."""
    shim = scratch / "bin" / "docker"
    shim.parent.mkdir()
    shim.write_text(
        f"#!/bin/bash\ncase $* in 'info --format={{{{.MemTotal}}}}') echo {memory};;\n"
        f'*) exec {shutil.which("docker")} "$@";; esac\n'
    )
    shim.chmod(0o755)
    return shim.parent


def limits(stack: Stack) -> dict[str, int]:
    """Return the limits of what runs, in MiB."""
    return {
        service: stack.containers(service)[0]["HostConfig"]["Memory"] >> 20
        for service in ("api", "db", "traefik", "docker-proxy", "backup")
    }


def test_two_replicas_are_sized_to_a_small_server_and_deployed_without_loss(small: Stack) -> None:
    """`make up` says so and writes it down once; nothing runs out of memory, under load."""
    file = small.folder / ".env"
    refused = small.run("make", "deploy", check=False).stderr
    assert "`make up` sizes what nobody has set: API_MEMORY, DB_MEMORY" in refused
    said = small.run("make", "up").stdout
    assert "sized to this machine's 957 MiB, in .env: API_MEMORY=" in said
    settings = file.read_text()
    assert settings.startswith(f"{SETTINGS}\n\n# For a machine with 957 MiB")
    assert settings.count("TRAEFIK_HEAP=") == 1
    sizes = limits(small)
    assert sum(sizes.values()) + 2 * sizes["api"] + 256 <= 957
    with steady_load(small, rate=150) as load:
        small.run("make", "up")
        assert file.read_text() == settings
        (small.folder / "app/changed.py").write_text("# changed\n")
        small.run("make", "deploy")
        settle(1)
    assert load.why() == {}
    assert_stored_once(small, load)
    project = f"--filter=label=com.docker.compose.project={small.project}"
    assert docker("events", "--since=10m", "--until=0s", project, "--filter=event=oom") == ""


def test_who_has_set_limits_that_do_not_fit_is_told(small: Stack) -> None:
    """Their own values are theirs."""
    done = small.run("make", "up", "API_MEMORY=512m", check=False)
    assert done.returncode != 0
    assert "berth: 2 replicas do not fit this machine's memory: 2 times 512 MiB" in done.stderr
    assert "API_MEMORY=512" not in (small.folder / ".env").read_text()
