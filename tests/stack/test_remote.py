"""`make … HOST=`: built on one machine, deployed to another by SSH, whatever cuts that off."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host import debian
from tests import registry
from tests.ports import free_port
from tests.stack.runner import LAPTOP, Forge
from tests.stack.stack import (
    CHECKOUT,
    HERE,
    REPOSITORY,
    Stack,
    copy_of_repository,
    docker,
    image,
    poll,
)
from tests.stack.writer import writing

_NAME = f"berth-test-server-{CHECKOUT}"
_DOMAIN = "shop.example.org"
# What a server of 1 GB has left once its kernel has started.
_KIB = 957 << 10
_WAY_ON = "ended: what serves there is whole, and the same command goes on from there"
# How long a line may say nothing; 45 s is usual.
_SILENT_SECONDS = 9
# What cuts a line, and what mends it: all that is sent by SSH is lost, or each end hears of it.
_HANG = tuple(
    f"iptables {verb} INPUT -p tcp --dport 22 -j DROP; "
    f"iptables {verb} OUTPUT -p tcp --sport 22 -j DROP"
    for verb in ("-I", "-D")
)
_CLOSE = ("pkill -KILL sshd", "/usr/sbin/sshd")


@dataclass
class Laptop:
    """Where the code is: a copy of the repository, with an ssh that knows one server.

    Attributes:
        stack: The stack that it deploys, as clients reach it.
        host: The server, as ssh takes it.
        ssh: The folder of ssh's configuration.
        registry_port: Where server and this machine may share a registry.
    """

    stack: Stack
    host: str
    ssh: Path
    registry_port: int

    def make(self, *words: str, check: bool = True) -> str:
        """Return what `make` with HOST prints on both outputs."""
        command = ("make", *words, *([] if "HOST=" in " ".join(words) else [f"HOST={self.host}"]))
        done = self.stack.run(*command, check=check)
        return done.stdout + done.stderr

    def deploy_until(self, step: str, cut: tuple[str, ...]) -> str:
        """Begin a deploy, cut its line once it tells of a step, and return all that it says.

        The line is mended once it is given up.
        """
        enter = ["docker", "exec", "--interactive", _NAME, "sh", "-c", f"read go; {cut[0]}"]
        with (
            subprocess.Popen(enter, stdin=subprocess.PIPE) as cutting,
            subprocess.Popen(
                ["make", "deploy", f"HOST={self.host}"],
                cwd=self.stack.folder,
                env={**os.environ, **self.stack.environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as deploy,
        ):
            assert deploy.stdout
            said = ""
            while step not in said:
                letter = deploy.stdout.read(1)
                assert letter, said
                said += letter
            cutting.communicate(b"\n")
            began = time.monotonic()
            said += deploy.stdout.read()
        docker("exec", _NAME, "sh", "-c", cut[1])
        assert deploy.returncode != 0
        assert time.monotonic() - began < _SILENT_SECONDS + 20, said
        return said

    def finishes(self) -> bool:
        """Whether the same command does, rather than find what goes on without it."""
        done = self.stack.run("make", "deploy", f"HOST={self.host}", check=False)
        assert done.returncode == 0 or "is under way: wait until it ends" in done.stderr
        return done.returncode == 0

    def version(self) -> str:
        """Return what serves."""
        return str(self.stack.get("/version").json()["version"])

    def change_code(self) -> None:
        """Make a version that is another."""
        routes = self.stack.folder / "app" / "main.py"
        routes.write_text(f"{routes.read_text()}\n# {self.version()}\n")


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """One that may log in to a server of 1 GB, on which nothing runs."""
    scratch = tmp_path_factory.mktemp("laptop")
    stack = Stack("berth-test-remote", {}, copy_of_repository(scratch).rename(scratch / "berth"))
    program = stack.folder / "ops/ssh.py"
    text = program.read_text()
    assert "ServerAliveInterval=15" in text
    program.write_text(text.replace("AliveInterval=15", f"AliveInterval={_SILENT_SECONDS // 3}"))
    settings = {
        "COMPOSE_PROJECT_NAME": stack.project,
        "BIND_ADDRESS": "0.0.0.0",  # noqa: S104 - of the server, which is a container
    }
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    (stack.folder / ".env.127.0.0.1").write_text("".join(lines))
    (scratch / "meminfo").write_text(f"MemTotal: {_KIB} kB\nMemAvailable: {_KIB} kB\n")
    (stack.folder / "secrets").mkdir()
    (stack.folder / "secrets" / "API_KEY").write_text("of the app")
    port, registry_port = free_port(), free_port()
    ssh = authorised(scratch / "ssh")
    stack.environment = {"PATH": f"{ssh}:{os.environ['PATH']}"}
    docker("build", "--quiet", "--tag=berth-test-server", str(HERE / "server"))
    docker("network", "create", _NAME)
    try:
        docker(
            *("run", "--detach", "--rm", "--privileged", f"--name={_NAME}", f"--network={_NAME}"),
            *(f"--memory={_KIB}k", f"--memory-swap={_KIB}k"),
            f"--volume={scratch}/meminfo:/proc/meminfo:ro",
            *(f"--network-alias={_DOMAIN}", f"--publish=127.0.0.1:{port}:22"),
            f"--publish=127.0.0.1:{stack.https_port}:443",
            f"--publish=127.0.0.1:{registry_port}:{registry_port}",
            *(f"--volume={ssh}/id.pub:/home/deploy/.ssh/authorized_keys:ro", "berth-test-server"),
        )
        poll("its engine", lambda: "Version" in there("docker version 2>&1 || true"))
        names = " ".join(image(name) for name in ("traefik", "postgres", "haproxy"))
        stack.run("bash", "-c", f"docker save {names} | docker exec -i {_NAME} docker load")
        keys = f"ssh-keyscan -p {port} 127.0.0.1 > {ssh}/known_hosts"
        poll("its key", lambda: stack.run("bash", "-c", keys, check=False).returncode == 0)
        yield Laptop(stack, f"ssh://deploy@127.0.0.1:{port}", ssh, registry_port)
    finally:
        docker("rm", "--force", "--volumes", _NAME)
        docker("network", "rm", _NAME)
        stack.environment["COMPOSE_PROJECT_NAME"] = stack.project
        stack.down()


def authorised(folder: Path) -> Path:
    """Make a key, and an `ssh` that uses it and knows no server yet; returns their folder."""
    if not shutil.which("ssh"):
        debian.install(["openssh-client"])
    folder.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "id"], check=True)
    (folder / "id.pub").chmod(0o644)
    settings = f"BatchMode yes\nIdentityFile {folder}/id\nUserKnownHostsFile {folder}/known_hosts\n"
    (folder / "config").write_text(settings)
    ssh = folder / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    ssh.chmod(0o755)
    return folder


def there(script: str) -> str:
    """Return what a line of shell prints on the server."""
    return docker("exec", "--user=deploy", _NAME, "bash", "-c", script)


def test_first_deploy_brings_all_that_a_bare_server_lacks(laptop: Laptop) -> None:
    """Of Berth and of the app there is nothing there yet."""
    said = laptop.make("deploy")
    assert "  + berth/compose.yaml\n" in said
    assert "of the app" not in said
    poll("the first answer", laptop.stack.answers)
    folder = f"~/berth/{laptop.stack.project}/berth"
    assert there(f"cat {folder}/secrets/API_KEY") == "of the app"
    assert "127.0.0.1" not in there(f"ls -a {folder}")
    assert "sized to its 957 MiB: API_MEMORY=" in said


def test_another_deploy_sends_what_differs_and_loses_no_request(laptop: Laptop) -> None:
    """A layer of code and a line of settings."""
    before = laptop.version()
    laptop.change_code()
    with (laptop.stack.folder / ".env.127.0.0.1").open("a") as settings:
        settings.write("LOG_LEVEL=WARNING\nMAX_BODY_BYTES=2048\n")
    with writing(laptop.stack, "second") as writer:
        said = laptop.make("deploy")
        writer.await_more()
    assert not writer.refused
    assert "  ~ berth/.env: LOG_LEVEL, MAX_BODY_BYTES\n" in said
    assert "WARNING" not in said
    (size,) = re.findall(r"sending \S+ … (\d+) MB", said)
    assert int(size) < 5
    assert laptop.version() != before


def test_line_that_hangs_before_anything_runs_there_changes_nothing(laptop: Laptop) -> None:
    """Whatever was on its way; it is given up, and the same command goes on from there."""
    before = laptop.version()
    laptop.change_code()
    large = [laptop.stack.folder / name for name in ("app/large", "keys/large")]
    for file in large:  # takes its time on the way
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(os.urandom(50_000_000))
    with writing(laptop.stack, "hung") as writer:
        assert "berth: cannot log in to" in laptop.deploy_until("", _HANG)
        for step in ("sending 2", "sending Berth"):
            said = laptop.deploy_until(step, _HANG)
            assert re.search(rf"{step}.* … not done", said)
            assert _WAY_ON in said
        assert laptop.version() == before
        for file in large:
            file.unlink()
        laptop.make("deploy")
        writer.await_more()
    assert not writer.refused
    assert laptop.version() != before


@pytest.mark.parametrize(
    ("step", "cut"),
    [
        ("checking it", _HANG),
        ("migrating", _CLOSE),
        ("starting 1 new", _CLOSE),
        ("draining", _HANG),
    ],
)
def test_line_that_is_cut_leaves_a_whole_service(
    laptop: Laptop, step: str, cut: tuple[str, str]
) -> None:
    """What runs there ends as if it had been stopped, or as if nothing was; and so on."""
    before = laptop.version()
    laptop.change_code()
    with writing(laptop.stack, f"cut-{step[:8]}") as writer:
        assert _WAY_ON in laptop.deploy_until(step, cut)
        poll("its end by the same command", laptop.finishes, seconds=120)
        writer.await_more()
    assert not writer.refused
    assert laptop.version() != before


def test_other_commands_run_there(laptop: Laptop) -> None:
    """With their own variables, and their own exit codes."""
    assert "answers" in laptop.make("doctor", check=False)
    assert laptop.make("psql", "SQL=select 6 * 7").split().count("42") == 1
    assert "/run/app" in laptop.make("run", 'CMD=echo "$$APP_FILES"; echo "$APP_FILES"')
    assert "berth: the status page is off" in laptop.make("status", check=False)
    assert "berth: no backups are kept" in laptop.make("backup", check=False)
    with subprocess.Popen(
        ["make", "logs", "SERVICE=db", "SINCE=2h", f"HOST={laptop.host}"],
        cwd=laptop.stack.folder,
        env={**os.environ, **laptop.stack.environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as logs:
        assert logs.stdout
        assert "db-1" in logs.stdout.readline()
        os.killpg(logs.pid, signal.SIGINT)
    before = laptop.version()
    laptop.make("rollback")
    assert laptop.version() != before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["deploy", "HOST=-oProxyCommand=id"], "HOST=-oProxyCommand=id: give what ssh takes"),
        (["deploy", "HOST=root@"], "HOST=root@: give what ssh"),
        (["test"], "`make test` works on this machine only: leave HOST out"),
    ],
)
def test_what_cannot_be_is_said(laptop: Laptop, words: list[str], complaint: str) -> None:
    """In one sentence."""
    assert f"berth: {complaint}" in laptop.make(*words, check=False)


def test_no_memory_was_lacking(laptop: Laptop) -> None:
    """For all that was deployed while requests went on: builds, and the images, stay elsewhere."""
    assert laptop.stack.answers()
    events = "/sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control"
    counted = there(f"cat {events} 2> /dev/null | grep '^oom_kill '")
    assert counted == "oom_kill 0"


def test_each_server_has_its_turn_up_to_the_first_that_fails(laptop: Laptop) -> None:
    """Each is a stack of its own."""
    hosts = f"HOST={laptop.host} nobody@127.0.0.1 {laptop.host}"
    said = laptop.make("psql", "SQL=select 6 * 7", hosts, check=False)
    assert said.split().count("42") == 1
    assert "\nnobody@127.0.0.1:\nberth: cannot log in to nobody@127.0.0.1" in said


def test_server_that_nobody_knows_is_not_trusted(laptop: Laptop) -> None:
    """Its key may be another's."""
    known = laptop.ssh / "known_hosts"
    keys = known.read_text()
    known.write_text("")
    try:
        said = laptop.make("deploy", check=False)
    finally:
        known.write_text(keys)
    assert "berth: cannot log in to" in said
    assert "Host key verification failed" in said


def test_server_whose_user_may_not_use_docker_is_left_alone(laptop: Laptop) -> None:
    """A new log-in is what decides."""
    docker("exec", _NAME, "gpasswd", "--delete", "deploy", "docker")
    try:
        said = laptop.make("deploy", check=False)
    finally:
        docker("exec", _NAME, "gpasswd", "--add", "deploy", "docker")
    assert "its user may not use Docker" in said


@pytest.fixture
def forge(laptop: Laptop, tmp_path: Path) -> Iterator[Forge]:
    """Repositories of Berth and of an app, and what docs/ci.md has their owner set."""
    registry.build()
    docker("build", "--quiet", "--target=laptop", f"--tag={LAPTOP}", str(HERE / "bare"))
    berth = copy_of_repository(tmp_path / "you").rename(tmp_path / "you/berth")
    shutil.copytree(REPOSITORY / "tests/app", berth / "tests/app")
    (berth / "tests/__init__.py").touch()
    commit(berth)
    subprocess.run(["make", "new", "DIR=../shop"], cwd=berth, check=True)
    settings = {
        "APP_DIR": "../shop",
        "APP_SECRETS": "/etc/shop/secrets",
        "COMPOSE_PROJECT_NAME": laptop.stack.project,
        "BIND_ADDRESS": "0.0.0.0",  # noqa: S104 - of the server, which is a container
    }
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    (tmp_path / "you/shop/berth.env").write_text("".join(lines))
    docker("exec", _NAME, "mkdir", "-p", "/etc/shop/secrets")
    address = f'{{{{(index .NetworkSettings.Networks "{_NAME}").IPAddress}}}}'
    public = docker("exec", _NAME, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    port = laptop.registry_port
    with registry.serving(port, *registry.LOG_IN, within=_NAME):
        there(f"docker login 127.0.0.1:{port} -u berth --password-stdin <<< {registry.PASSWORD}")
        yield Forge(
            repositories=tmp_path,
            registry=f"127.0.0.1:{port}/shop",
            token=registry.PASSWORD,
            production={"SERVER": f"deploy@{_DOMAIN}", "KNOWN_HOSTS": f"{_DOMAIN} {public}\n"},
            key=(laptop.ssh / "id").read_text(),
            network=_NAME,
            server=docker("inspect", f"--format={address}", _NAME),
        )
    registry.forget(port)


def commit(folder: Path) -> str:
    """Commit what is in a folder, to its own repository; returns the commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=you", "-c", "user.email=you@example.org"]
    for words in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--allow-empty", "--quiet", "-mon"],
    ):
        subprocess.run([*git, *words], check=True)
    return subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()


def test_ci_tests_and_builds_and_pushes_and_deploys(laptop: Laptop, forge: Forge) -> None:
    """By the files in docs/ci/, as runners of GitHub and GitLab run them."""
    berth, shop = (forge.repositories / "you" / name for name in ("berth", "shop"))

    def file(name: str, **own: str) -> str:
        text = (REPOSITORY / "docs/ci" / name).read_text()
        for theirs, ours in {"0" * 40: commit(berth), **own}.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        return text

    first = commit(shop)
    said = forge.github(file("github.yml", **{"ghcr.io/you/shop": forge.registry}), first)
    assert " passed in " in said
    assert laptop.stack.get("/openapi.json").json()["info"]["title"] == "shop"
    assert first[:7] in laptop.version()

    main = shop / "app/main.py"
    main.write_text(f"{main.read_text()}\n# changed\n")
    second = commit(shop)
    url = "https://gitlab.com/you/berth.git"
    with writing(laptop.stack, "ci") as writer:
        said = forge.gitlab(file("gitlab.yml", **{url: str(berth)}), second)
        writer.await_more()
    assert " passed in " in said
    assert not writer.refused
    assert second[:7] in laptop.version()
