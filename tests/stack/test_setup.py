"""`make setup` prepares a bare server, and locks nobody out: with real systemd, sshd, nftables."""

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from tests.stack.events import settle
from tests.stack.runner import ENGINE, LAPTOP
from tests.stack.stack import CHECKOUT, HERE, Stack, copy_of_repository, docker, image, poll
from tests.stack.writer import writing

_SERVER, _LAPTOP = (f"berth-test-setup-{kind}-{CHECKOUT}" for kind in ("server", "laptop"))
# Swap is of the kernel, which other containers share: only this part is none of Debian's.
_MEMORY = "MemTotal: 1000000 kB\nSwapTotal: {} kB\n"
_SWAPON = f"#!/bin/sh\ncat > /proc/meminfo << END\n{_MEMORY.format(1048572)}END\n"
_SHUTS_OUT = "insert rule inet berth_host input tcp dport 22 ct state new drop"
_WRONG = "/etc/berth/firewall.d/wrong.nft"
_AWAY = "/etc/systemd/system/docker.service.d/away.conf"
_AWAY_SECONDS = 8
# Has an engine that starts take what runs for a year older than it is.
_LAST_YEAR = f"{datetime.now(UTC).year - 1}-"
_AGES = (
    "find /var/lib/docker/containers -name config.v2.json "
    rf"-exec sed -Ei s/(StartedAt.:.)[0-9]+-/\\1{_LAST_YEAR}/ {{}} +"
)
# Of an app that fills within a second what holds its output until the engine reads it.
_TALKATIVE = """

@app.middleware("http")
async def talk(request: Request, call_next):
    print("." * 2000, flush=True)
    return await call_next(request)
"""


@dataclass
class Laptop:
    """Where Berth is, with a key for the server and one network between them.

    Attributes:
        stack: What it deploys, from a copy of the repository, as clients reach it.
    """

    stack: Stack

    @property
    def folder(self) -> Path:
        """The copy."""
        return self.stack.folder

    def run(self, script: str) -> str:
        """Return what a line of shell prints on both outputs, and then its exit code."""
        command = ["docker", "exec", "--workdir=/berth", _LAPTOP, "sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        return f"{done.stdout}{done.stderr}{done.returncode}"

    def setup(self, *variables: str, host: str = "root@server") -> str:
        """Return what `make setup` prints, and its exit code."""
        return self.run(" ".join(["make", "--silent", "setup", f"HOST={host}", *variables]))

    def reaches(self, port: int) -> bool:
        """Whether a connection to the server comes about."""
        return self.run(f"timeout 2 bash -c ': < /dev/tcp/server/{port}'").endswith("0")


def there(script: str) -> str:
    """Return what a line of shell prints on the server."""
    return docker("exec", _SERVER, "sh", "-c", f"{{ {script}; }} 2>&1 || true")


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """One that may log in to a server with little memory and an odd configuration of Docker."""
    scratch = tmp_path_factory.mktemp("setup")
    (scratch / "meminfo").write_text(_MEMORY.format(0))
    (scratch / "swapon").write_text(_SWAPON)
    (scratch / "swapon").chmod(0o755)
    stack = Stack("berth-test-setup", {}, copy_of_repository(scratch))
    (stack.folder / ".env").write_text(
        f"COMPOSE_PROJECT_NAME={stack.project}\nBIND_ADDRESS=0.0.0.0\n"
    )
    for kind, tag in {"server": "berth-test-bare", "laptop": LAPTOP}.items():
        docker("build", "--quiet", f"--target={kind}", f"--tag={tag}", str(HERE / "bare"))
    docker("network", "create", _SERVER)
    try:
        docker(
            *("run", "--detach", "--privileged", "--cgroupns=private", f"--name={_SERVER}"),
            *(f"--network={_SERVER}", "--network-alias=server", "--tmpfs=/run", "--tmpfs=/tmp"),
            f"--publish=127.0.0.1:{stack.https_port}:443",
            *(
                f"--volume={scratch}/meminfo:/proc/meminfo",
                f"--volume={scratch}/swapon:/sbin/swapon",
            ),
            "berth-test-bare",
        )
        docker(
            *("run", "--detach", "--init", f"--name={_LAPTOP}", f"--network={_SERVER}"),
            *(f"--volume={stack.folder}:/berth", ENGINE, LAPTOP, "sleep", "infinity"),
        )
        poll("its sshd", lambda: there("systemctl is-active ssh") == "active")
        there("mkdir -p /etc/docker /etc/berth/firewall.d /root/.ssh")
        there("""echo '{"max-concurrent-downloads": 2}' > /etc/docker/daemon.json""")
        laptop = Laptop(stack)
        laptop.run("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
        laptop.run("ssh-keyscan server > ~/.ssh/known_hosts")
        key = docker("exec", _LAPTOP, "cat", "/root/.ssh/id_ed25519.pub")
        there(f"echo '{key}' > /root/.ssh/authorized_keys")
        yield laptop
    finally:
        docker("rm", "--force", "--volumes", _SERVER, _LAPTOP)
        docker("network", "rm", _SERVER)
        stack.environment |= {"COMPOSE_DISABLE_ENV_FILE": "1"}
        stack.down()


def publish(port: int) -> None:
    """Have a container of the server answer on a port of it."""
    there("cp /bin/busybox /tmp; tar -c -C /tmp busybox | docker import - web")
    options = f"--restart=always --publish={port}:80 --name=web{port}"
    there(f"docker run --detach {options} web /busybox httpd -f -p 80")


def test_server_that_cannot_be_is_said(laptop: Laptop) -> None:
    """In one sentence, before anything else."""
    hostile = "-oProxyCommand=touch"
    assert f"HOST={hostile}: give what ssh takes" in laptop.setup(host=hostile)
    assert "cannot log in to root@nowhere" in laptop.setup(host="root@nowhere")
    laptop.run("printf 'Host server\\n  StrictHostKeyChecking no\\n' > ~/.ssh/config")
    assert "StrictHostKeyChecking" in laptop.setup()
    laptop.run("rm ~/.ssh/config")


def test_nothing_is_changed_unless_that_is_agreed_to(laptop: Laptop) -> None:
    """By YES=1, or by typing it."""
    said = laptop.setup()
    assert "  - install python3" in said
    assert "\nberth: nothing was changed: YES=1 agrees to all of that\n" in said
    typed = laptop.run("echo no | script -qec 'make --silent setup HOST=root@server' /dev/null")
    assert "berth: nothing was changed" in typed
    assert there("command -v python3 || echo none") == "none"


def test_firewall_that_shuts_out_is_taken_back(laptop: Laptop) -> None:
    """Here one of the user's own rules does; all the rest stays."""
    there(f"echo '{_SHUTS_OUT}' > {_WRONG}")
    said = laptop.setup("YES=1")
    for change in (
        "install python3",
        "install Docker Engine",
        "set live-restore, log-driver, log-opts in /etc/docker/daemon.json",
        "let a user deploy",
        "let root's keys (1) log in as deploy",
        "install security updates",
        "add 1024 MiB of swap",
        "close every port but 22, 80, 443",
    ):
        assert f"  - {change}" in said
    assert "the firewall was taken back" in said
    assert not said.endswith("0")
    assert "berth_host" not in there("nft list tables")
    assert laptop.run("ssh root@server true") == "0"


def test_firewall_is_taken_back_where_nobody_can_say_so(laptop: Laptop) -> None:
    """After a minute, which is shorter here."""
    program = laptop.folder / "host" / "firewall.py"
    text = program.read_text()
    program.write_text(text.replace("_UNDO_SECONDS = 60", "_UNDO_SECONDS = 6"))
    said = laptop.setup("YES=1")
    assert "nobody logged in anew within 6 s" in said
    assert "berth_host" not in there("nft list tables")
    program.write_text(text)
    there(f"rm {_WRONG}")


def test_server_is_prepared(laptop: Laptop) -> None:
    """By a second run where the first did not get to its end."""
    publish(80)
    publish(8080)
    assert laptop.reaches(8080)
    said = laptop.setup("YES=1")
    plan = [line for line in said.splitlines() if line.startswith("  - ")]
    assert len(plan) == 1
    assert "(now open: 8080)" in plan[0]
    assert "make deploy HOST=deploy@server" in said
    assert laptop.setup().endswith("there is nothing to do\n0")
    configuration = json.loads(there("cat /etc/docker/daemon.json"))
    assert configuration["max-concurrent-downloads"] == 2
    assert there("docker info --format '{{.LiveRestoreEnabled}}'") == "true"
    assert "/swapfile none swap" in there("cat /etc/fstab")
    assert there("apt-config dump --format=%v APT::Periodic::Unattended-Upgrade") == "1"
    assert "Server" in laptop.run("ssh deploy@server docker version")


def assert_only_what_serves_is_reached(laptop: Laptop) -> None:
    """80 is, but neither another published port nor one of the machine itself."""
    there("setsid --fork busybox nc -l -p 9000 > /dev/null < /dev/null")
    poll("port 80", lambda: laptop.reaches(80))
    assert laptop.reaches(22)
    assert not laptop.reaches(8080)
    assert not laptop.reaches(9000)


def test_only_what_serves_is_reached_from_outside(laptop: Laptop) -> None:
    """Though Docker leads published ports past what other firewalls forbid; and after a restart."""
    assert_only_what_serves_is_reached(laptop)
    docker("restart", "--time=0", _SERVER)
    poll("the engine", lambda: "web80" in there("docker ps"))
    assert_only_what_serves_is_reached(laptop)


def test_traefik_may_be_replaced_behind_the_firewall(laptop: Laptop) -> None:
    """As ops/standby.py does: a rule sends what comes for port 80 to another container."""
    there("docker rm --force web80")
    address = there("docker inspect --format '{{.NetworkSettings.IPAddress}}' web8080")
    rule = f"PREROUTING --protocol tcp --dport 80 --jump DNAT --to-destination {address}:80"
    there(f"iptables -t nat -I {rule}")
    assert laptop.reaches(80)
    there(f"iptables -t nat -D {rule}")


def test_containers_reach_what_is_outside(laptop: Laptop) -> None:
    """And each other by the machine's published ports."""
    laptop.run("setsid --fork python3 -m http.server 8000 > /dev/null 2>&1")
    address = laptop.run("hostname -i").split()[0]
    poll("an answer", lambda: "<html" in inside(f"wget -qO- http://{address}:8000"))
    own = there("hostname -i").split()[0]
    assert "404" in inside(f"wget -qO- http://{own}:8080/none")


def inside(command: str) -> str:
    """Return what a command of busybox prints in a container of the server."""
    return there(f"docker exec web8080 /busybox {command}")


def test_ordinary_user_prepares_by_sudo(laptop: Laptop) -> None:
    """Without a password; who may not is told."""
    there("useradd --create-home --password='*' admin")
    there("cp -r /root/.ssh ~admin; chown -R admin ~admin")
    assert "sudo -n" in laptop.setup(host="admin@server")
    there("echo 'admin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/admin")
    assert laptop.setup(host="admin@server").endswith("there is nothing to do\n0")


def test_app_is_deployed_to_what_was_bare(laptop: Laptop) -> None:
    """From where nothing but Berth is; and what comes next costs no request."""
    there("docker rm --force web8080")
    names = " ".join(image(name) for name in ("traefik", "postgres", "haproxy"))
    laptop.stack.run("bash", "-c", f"docker save {names} | docker exec -i {_SERVER} docker load")
    said = laptop.run("make deploy HOST=deploy@server")
    assert "  + berth/compose.yaml\n" in said
    assert said.endswith("0"), said
    poll("the first answer", laptop.stack.answers)
    before = laptop.stack.get("/version").json()["version"]
    routes = laptop.folder / "app" / "main.py"
    routes.write_text(f"{routes.read_text()}{_TALKATIVE}")
    with writing(laptop.stack, "second") as writer:
        said = laptop.run("make deploy HOST=deploy@server")
        writer.await_more()
    assert said.endswith("0"), said
    assert not writer.refused
    assert laptop.stack.get("/version").json()["version"] != before


def test_engine_that_restarts_loses_no_request(laptop: Laptop) -> None:
    """Neither while it is away, when nobody reads what is logged, nor as it comes back.

    It takes replicas for old then: young ones it would ask at once how they are in any case.
    """
    address = f"https://{there('hostname -i').split()[0]}"
    there(f"mkdir {Path(_AWAY).parent}")
    first = f"'ExecStartPre=sleep {_AWAY_SECONDS}' 'ExecStartPre={_AGES}'"
    there(f"printf '%s\\n' '[Service]' {first} > {_AWAY}")
    ended, became = threading.Event(), Counter[int | str]()

    def ask() -> None:
        while not ended.is_set():
            try:
                with laptop.stack.session() as session:
                    became[session.get(f"{address}/none", timeout=_AWAY_SECONDS).status_code] += 1
            except requests.RequestException as error:
                became[str(error)] += 1

    with ThreadPoolExecutor() as pool, writing(laptop.stack, "restart") as writer:
        for _ in range(4):
            pool.submit(ask)
        try:
            poll("answers", lambda: became[404] > 100)
            there("systemctl daemon-reload; systemctl restart docker")
            settle(10)
        finally:
            ended.set()
    replicas = there("docker inspect --format '{{.State.StartedAt}}' $(docker ps --quiet)")
    assert {one[: len(_LAST_YEAR)] for one in replicas.splitlines()} == {_LAST_YEAR}
    assert became.keys() == {404}, became
    assert not writer.refused
