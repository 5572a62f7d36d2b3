"""`make … HOST=`: built on one machine, deployed to another by SSH, whatever cuts that off."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host import debian
from tests.ports import free_port
from tests.stack.stack import CHECKOUT, HERE, Stack, copy_of_repository, docker, image, poll
from tests.stack.writer import writing

_NAME = f"berth-test-server-{CHECKOUT}"


@dataclass
class Laptop:
    """Where the code is: a copy of the repository, with an ssh that knows one server.

    Attributes:
        stack: The stack that it deploys, as clients reach it.
        host: The server, as ssh takes it.
        ssh: The folder of ssh's configuration.
    """

    stack: Stack
    host: str
    ssh: Path

    def make(self, *words: str, check: bool = True) -> str:
        """Return what `make` with HOST prints on both outputs."""
        command = ("make", *words, *([] if "HOST=" in " ".join(words) else [f"HOST={self.host}"]))
        done = self.stack.run(*command, check=check)
        return done.stdout + done.stderr

    def version(self) -> str:
        """Return what serves."""
        return self.stack.get("/version").text

    def change_code(self) -> None:
        """Make a version that is another."""
        routes = self.stack.folder / "app" / "main.py"
        routes.write_text(f"{routes.read_text()}\n# {self.version()}\n")


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """One that may log in to a server on which nothing runs."""
    scratch = tmp_path_factory.mktemp("laptop")
    stack = Stack("berth-test-remote", {}, copy_of_repository(scratch))
    settings = {
        "COMPOSE_PROJECT_NAME": stack.project,
        "BIND_ADDRESS": "0.0.0.0",  # noqa: S104 - of the server, which is a container
    }
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    (stack.folder / ".env.127.0.0.1").write_text("".join(lines))
    (stack.folder / "secrets").mkdir()
    (stack.folder / "secrets" / "API_KEY").write_text("of the app")
    port = free_port()
    ssh = authorised(scratch / "ssh")
    stack.environment = {"PATH": f"{ssh}:{os.environ['PATH']}"}
    docker("build", "--quiet", "--tag=berth-test-server", str(HERE / "server"))
    docker(
        *("run", "--detach", "--rm", "--privileged", f"--name={_NAME}"),
        *(f"--publish=127.0.0.1:{port}:22", f"--publish=127.0.0.1:{stack.https_port}:443"),
        *(f"--volume={ssh}/id.pub:/home/deploy/.ssh/authorized_keys:ro", "berth-test-server"),
    )
    try:
        poll("its engine", lambda: "Version" in there("docker version 2>&1 || true"))
        names = " ".join(image(name) for name in ("traefik", "postgres", "haproxy"))
        stack.run("bash", "-c", f"docker save {names} | docker exec -i {_NAME} docker load")
        keys = f"ssh-keyscan -p {port} 127.0.0.1 > {ssh}/known_hosts"
        poll("its key", lambda: stack.run("bash", "-c", keys, check=False).returncode == 0)
        yield Laptop(stack, f"ssh://deploy@127.0.0.1:{port}", ssh)
    finally:
        docker("rm", "--force", "--volumes", _NAME)
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
    assert "  + copy/compose.yaml\n" in said
    assert "of the app" not in said
    poll("the first answer", laptop.stack.answers)
    folder = f"~/berth/{laptop.stack.project}/copy"
    assert there(f"cat {folder}/secrets/API_KEY") == "of the app"
    assert "127.0.0.1" not in there(f"ls -a {folder}")


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
    assert "  ~ copy/.env: LOG_LEVEL, MAX_BODY_BYTES\n" in said
    assert "WARNING" not in said
    (size,) = re.findall(r"sending \S+ … (\d+) MB", said)
    assert int(size) < 5
    assert laptop.version() != before


@pytest.mark.parametrize("step", ["sending 2", "starting 1 new"])
def test_connection_that_is_cut_leaves_a_whole_service(laptop: Laptop, step: str) -> None:
    """And the same command goes on from there."""
    before = laptop.version()
    laptop.change_code()
    with writing(laptop.stack, f"cut-{step[:7]}") as writer:
        with subprocess.Popen(
            ["make", "deploy", f"HOST={laptop.host}"],
            cwd=laptop.stack.folder,
            env={**os.environ, **laptop.stack.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as deploy:
            assert deploy.stdout
            said = ""
            while step not in said:
                one = deploy.stdout.read(1)
                assert one, said
                said += one
            docker("exec", _NAME, "pkill", "-KILL", "sshd")
            said += deploy.stdout.read()
        docker("exec", _NAME, "/usr/sbin/sshd")
        assert deploy.returncode != 0
        assert "the connection to" in said
        laptop.make("deploy")
        writer.await_more()
    assert not writer.refused
    assert laptop.version() != before


def test_other_commands_run_there(laptop: Laptop) -> None:
    """With their own variables, and their own exit codes."""
    assert "answers" in laptop.make("doctor", check=False)
    assert laptop.make("psql", "SQL=select 6 * 7").split().count("42") == 1
    assert "/run/app" in laptop.make("run", 'CMD=echo "$$APP_FILES"; echo "$APP_FILES"')
    assert "berth: the status page is off" in laptop.make("status", check=False)
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
