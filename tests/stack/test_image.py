"""Built on one machine, pulled by another, whose stack never builds anything."""

import base64
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host.commands import UserError
from ops import registry
from ops.terminal import Terminal
from tests import registry as registries
from tests.ports import free_port
from tests.stack.stack import Stack, copy_of_repository, docker

# What a deploy takes along.
WORKER = """
services:
  worker:
    extends: {file: app.yaml, service: worker}
    command: [sleep, infinity]
    healthcheck: {test: [CMD, "true"], start_interval: 250ms, start_period: 60s}
"""


@pytest.fixture(scope="module")
def registry_port() -> Iterator[int]:
    """A registry that wants a log-in."""
    registries.build()
    port = free_port()
    with registries.serving(port, *registries.LOG_IN):
        yield port
    registries.forget(port)


@pytest.fixture(scope="module")
def repository(registry_port: int) -> str:
    """What the app's images are called there."""
    return f"127.0.0.1:{registry_port}/shop"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, registry_port: int) -> Iterator[Stack]:
    """A server that is logged in and has no app's folder; nothing runs yet."""
    scratch = tmp_path_factory.mktemp("image")
    known = base64.b64encode(f"berth:{registries.PASSWORD}".encode()).decode()
    logins = {"auths": {f"127.0.0.1:{registry_port}": {"auth": known}}}
    (scratch / "docker").mkdir()
    (scratch / "docker/config.json").write_text(json.dumps(logins))
    folder = copy_of_repository(scratch)
    for command in ("init", "add README.md", "-c user.name=me -c user.email=me commit -m first"):
        subprocess.run(["git", "-C", folder, *command.split()], capture_output=True, check=True)
    (folder / "compose.override.yaml").write_text(WORKER)
    variables = {"APP_DIR": "/nowhere", "API_REPLICAS": "1", "DOCKER_CONFIG": f"{scratch}/docker"}
    stack = Stack("berth-test-image", variables, folder)
    stack.down()
    yield stack
    stack.down()


@dataclass(frozen=True)
class Version:
    """What was pushed: what it says it is, and the name that it alone will ever have."""

    version: str
    digest: str


@pytest.fixture(scope="module")
def built(stack: Stack, repository: str) -> dict[str, Version]:
    """Two versions, by their tags; they are in the registry, and not on this machine.

    The second is pushed by what builds it, as one for several platforms is.
    """
    ours = docker("version", "--format={{.Server.Os}}/{{.Server.Arch}}")
    return {
        "1": build(stack, f"{repository}:1"),
        "2": build(stack, f"{repository}:2", f"PLATFORMS={ours}"),
    }


@pytest.fixture
def serving(stack: Stack, repository: str, built: dict[str, Version]) -> None:
    """The first version, or a later one, serves."""
    assert built
    if not stack.healthy():
        stack.run("make", "up", f"IMAGE={repository}:1")


def build(stack: Stack, name: str, *options: str) -> Version:
    """Build a version of its own where the app is, and push it."""
    (stack.folder / "app/changed.py").write_text(f"# {name}\n")
    stack.run("make", "image", "APP_DIR=.", f"PUSH={name}", *options)
    (found,) = json.loads(docker("image", "inspect", name))
    docker("image", "rm", name)
    variables = dict(one.split("=", 1) for one in found["Config"]["Env"])
    return Version(variables["APP_VERSION"], found["RepoDigests"][0])


def version(stack: Stack) -> str:
    """Return what the replica says it is."""
    return str(stack.get("/version").json()["version"])


def images(stack: Stack) -> dict[str, list[str]]:
    """Return which image each service of the app runs."""
    return {name: [one["Image"] for one in stack.containers(name)] for name in ("api", "worker")}


def listed(repository: str) -> list[str]:
    """Return the names of a repository's images on this machine."""
    return docker("image", "ls", "--digests", "--format={{.Tag}} {{.Digest}}", repository).split()


def test_a_server_without_the_app_starts_from_an_image(
    stack: Stack, repository: str, built: dict[str, Version]
) -> None:
    """Nothing is built, and nothing is kept under the registry's name."""
    refused = stack.run("make", "deploy", f"IMAGE={repository}:1", check=False)
    assert f"no replica runs yet: `make up IMAGE={repository}:1` starts" in refused.stderr
    said = stack.run("make", "up", f"IMAGE={repository}:1").stdout
    assert "checking it … revision 0001" in said
    assert "building" not in said
    assert version(stack) == built["1"].version
    assert listed(repository) == []


@pytest.mark.usefixtures("serving")
def test_an_image_is_deployed_and_rolled_back(
    stack: Stack, repository: str, built: dict[str, Version]
) -> None:
    """By its digest or its tag; workers follow; settings change without a build."""
    old = images(stack)
    said = stack.run("make", "deploy", f"IMAGE={built['2'].digest}").stdout
    new = images(stack)
    assert version(stack) == built["2"].version
    assert new["api"] == new["worker"] != old["api"]
    # It is called by when it came, and by the commit that it was built from.
    commit = built["2"].version[len("20261125-120000") :]
    assert commit.endswith("-dirty")
    assert said.split(" → ")[1].partition(";")[0].endswith(commit)
    again = stack.run("make", "deploy", f"IMAGE={repository}:2").stdout
    assert "unchanged: 1 replica of" in again
    assert listed(repository) == []
    # Which says what to deploy, should nobody remember.
    label = '{{index .Config.Labels "berth.origin"}}'
    assert docker("image", "inspect", f"--format={label}", *new["api"]) == built["2"].digest

    (stack.folder / "app.env").write_text("SHOP=1\n")
    before = stack.healthy()
    stack.run("make", "up")
    assert stack.healthy() != before
    assert images(stack) == new
    stack.run("make", "rollback")
    assert (version(stack), images(stack)) == (built["1"].version, old)

    # As a deploy that was broken off has it.
    one_more = ("--no-deps", "--no-recreate", "--scale=api=2", "api")
    other = docker("image", "inspect", "--format={{index .RepoTags 0}}", *new["api"])
    stack.run("env", f"API_IMAGE={other}", "docker", "compose", "up", "--detach", *one_more)
    stack.run("make", "deploy", f"IMAGE={repository}:2")
    assert images(stack) == {"api": new["api"] * 2, "worker": new["worker"]}


@pytest.mark.usefixtures("serving")
def test_what_cannot_be_pulled_or_run_changes_nothing(
    stack: Stack, repository: str, tmp_path: Path
) -> None:
    """One sentence each; the service, its version and the images here are as they were."""
    nobody = free_port()
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCMD ["python", "-m", "other"]\n')
    docker("build", "--quiet", f"--tag={repository}:other", str(tmp_path))
    stack.run("docker", "push", "--quiet", f"{repository}:other")
    docker("image", "rm", f"{repository}:other")
    before = (stack.healthy(), images(stack), listed(f"{stack.project}-api"))
    for name, says in {
        f"{repository}:3": f"{repository}:3 cannot be pulled, its registry says: ",
        f"{repository}:other": "it is not Berth's: `make image PUSH=",
        f"127.0.0.1:{nobody}/shop:1": f"no registry answers for 127.0.0.1:{nobody}/shop:1: ",
        "--all-tags": "IMAGE=--all-tags: give the name of an image",
    }.items():
        refused = stack.run("make", "deploy", f"IMAGE={name}", check=False)
        assert refused.returncode != 0
        assert says in refused.stderr
    nowhere = ("env", f"DOCKER_CONFIG={tmp_path}")
    refused = stack.run(*nowhere, "make", "deploy", f"IMAGE={repository}:2", check=False)
    assert "no basic auth credentials; `docker login 127.0.0.1:" in refused.stderr
    # The example's code is there, and is not what this stack serves.
    refused = stack.run("make", "deploy", "APP_DIR=.", check=False)
    assert "there is no APP_DIR to build from: name an image with IMAGE=, as 127" in refused.stderr
    refused = stack.run("make", "up", f"IMAGE={repository}:2", check=False)
    assert f"serves: `make deploy IMAGE={repository}:2` replaces it" in refused.stderr
    assert (stack.healthy(), images(stack), listed(f"{stack.project}-api")) == before
    assert listed(repository) == []


def test_platforms_that_a_builder_cannot_have_are_refused(stack: Stack, repository: str) -> None:
    """As Docker's own builder, with its own store of images."""
    wanted = ("APP_DIR=.", f"PUSH={repository}:3", "PLATFORMS=linux/amd64,linux/arm64")
    refused = stack.run("make", "image", *wanted, check=False)
    assert "this builder makes images for one platform at a time" in refused.stderr
    refused = stack.run("make", "image", *wanted, "APP_DOCKERFILE=README.md", check=False)
    assert "berth: PLATFORMS: what APP_DOCKERFILE builds is for this machine" in refused.stderr


def test_a_registry_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it takes connections."""
    monkeypatch.setattr(registry, "_PATIENCE_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"127.0.0.1:{silent.getsockname()[1]}/shop:1"
        for asks in (registry.pull, registry.check_answers):
            with pytest.raises(UserError, match=r"no registry answers for 127.* within 1 s"):
                asks(name, Terminal())
