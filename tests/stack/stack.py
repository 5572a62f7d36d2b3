"""A real stack with its own project name and ports, driven as a user would drive it."""

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import requests
from cryptography import x509
from requests.adapters import HTTPAdapter

from host import images, stand_in
from tests.ports import free_port
from tests.stack import pebble

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
DOMAIN = "berth.test"
# The tests of two checkouts may run on one machine at a time.
CHECKOUT = hashlib.sha256(bytes(REPOSITORY)).hexdigest()[:6]

_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

T = TypeVar("T")


def poll(what: str, probe: Callable[[], T | None], *, seconds: float = 60) -> T:
    """Return the first truthy answer of a probe.

    Raises:
        AssertionError: It gave none in time; says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if answer := probe():
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        # What costs a second, such as the doctor, leaves others as much.
        time.sleep(max(0.1, time.monotonic() - asked))


def copy_of_repository(to: Path) -> Path:
    """Copy what a deployment is made of; returns the copy."""
    ignored = shutil.ignore_patterns(".git", ".venv", ".env", "*cache*", "tests")
    return Path(shutil.copytree(REPOSITORY, to / "copy", ignore=ignored, dirs_exist_ok=True))


def every_second(folder: Path) -> Path:
    """Copy the repository, for a Prometheus and an Alertmanager that lose no time."""
    copy = copy_of_repository(folder)
    shutil.copy(HERE / "receiver.py", copy)
    for name, slow, fast in (
        ("prometheus/prometheus.yml", r"(interval|timeout): \d+s", r"\1: 1s"),
        ("prometheus/rules.yml", r"for: \d+[smh]", "for: 0s"),
        ("alertmanager/start.sh", r"(group_wait|group_interval): \d+\w", r"\1: 1s"),
    ):
        file = copy / "metrics" / name
        text, count = re.subn(slow, fast, file.read_text())
        assert count, f"{name} has no {slow}"
        file.write_text(text)
    return copy


@cache
def configuration() -> dict[str, Any]:
    """Return what Compose makes of compose.yaml with every profile and no settings."""
    config = ["docker", "compose", "--profile=*", "config", "--format=json"]
    done = _run(config, {"COMPOSE_DISABLE_ENV_FILE": "1"}, REPOSITORY)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def image(name: str) -> str:
    """Return the image of the stack whose name, without registry and owner, is this."""
    references = images.references(configuration())
    return next(one for one in references if stand_in.split(one)[0] == name)


def docker(*arguments: str) -> str:
    """Return what a `docker` command prints on both outputs; its failure is the test's."""
    done = _run(["docker", *arguments], {}, REPOSITORY)
    return (done.stdout + done.stderr).strip()


def printed(*arguments: str) -> str:
    """Return what a container prints; Docker now and then loses that of one that ends at once."""
    return poll("what the container prints", lambda: docker("run", "--rm", *arguments))


def _run(
    command: list[str], environment: Mapping[str, str], folder: Path, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    deadline = time.monotonic() + 300
    while True:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={**os.environ, **environment},
            timeout=300,
        )
        # Docker has addresses for six stacks: one waits until the tests of another file have ended.
        if "have been fully subnetted" not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(1)
    if check:
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


class _ToLoopback(HTTPAdapter):
    """Reaches the published port on 127.0.0.1 under the name that a client would use."""

    def __init__(self, domain: str) -> None:
        self._names = {"server_hostname": domain, "assert_hostname": domain}
        super().__init__(pool_connections=1, pool_maxsize=100)

    def init_poolmanager(
        self,
        connections: int,
        maxsize: int,
        block: bool = False,
        **keywords: Any,  # noqa: ANN401
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, **keywords, **self._names)


@dataclass
class Stack:
    """One Compose project.

    Attributes:
        project: Its name, to which that of the checkout is added.
        environment: The variables that a user would put into `.env`.
        folder: The repository, or a copy of it.
        root: The file with the root that the domain's certificate must chain to.
        own_headers: What every request has besides Host.
    """

    project: str
    environment: dict[str, str]
    folder: Path = REPOSITORY
    root: Path | None = None
    own_headers: dict[str, str] = field(default_factory=dict)
    domain: str = field(init=False)
    http_port: int = field(init=False)
    https_port: int = field(init=False)

    def __post_init__(self) -> None:
        self.project = f"{self.project}-{CHECKOUT}"
        self.http_port = free_port()
        self.https_port = free_port()
        self.domain = self.environment.get("DOMAIN", "localhost")
        self.environment = {
            # A user's own .env stays out of it.
            "COMPOSE_DISABLE_ENV_FILE": "1",
            "COMPOSE_PROJECT_NAME": self.project,
            "HTTP_PORT": str(self.http_port),
            "HTTPS_PORT": str(self.https_port),
        } | self.environment

    @property
    def headers(self) -> dict[str, str]:
        """What every request has."""
        return {"Host": self.domain} | self.own_headers

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository with this stack's variables."""
        return _run(list(command), self.environment, self.folder, check=check)

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Return what a `docker compose` command prints on both outputs, in plain text.

        Compose 2.26 moves a terminal's cursor even where there is none.
        """
        done = self.run("docker", "compose", *arguments, check=check)
        return _ESCAPE.sub("", done.stdout + done.stderr)

    def up(self, *, scale: int) -> None:
        """Start everything, or change the scale, and wait until it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout=120", f"--scale=api={scale}")

    def down(self) -> None:
        """Remove everything that the project made."""
        self.compose("--profile=*", "down", "--volumes", "--timeout=1", "--remove-orphans")
        docker("volume", "rm", "--force", f"{self.project}_unfinished", f"{self.project}_standby")
        listed = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", f"{self.project}-api")
        # And those whose name another build has taken since.
        label = f"--filter=label=com.docker.compose.project={self.project}"
        nameless = docker("image", "ls", "--quiet", "--filter=dangling=true", label)
        if images := {*listed.split(), *nameless.split()}:
            # Not one that another stack runs on by now.
            self.run("docker", "image", "rm", "--force", *images, check=False)

    def containers(self, service: str, *, everything: bool = False) -> list[dict[str, Any]]:
        """Return what the engine knows of a service's running containers, or of all of them."""
        ids = docker(
            "ps",
            "--quiet",
            "--no-trunc",
            *(["--all"] if everything else []),
            f"--filter=label=com.docker.compose.project={self.project}",
            f"--filter=label=com.docker.compose.service={service}",
            "--filter=label=com.docker.compose.oneoff=False",
        ).split()
        inspected: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
        return sorted(inspected, key=lambda container: str(container["Name"]))

    def healthy(self, service: str = "api") -> list[str]:
        """Return the ids of a service's containers that the engine calls healthy."""
        return [
            container["Id"]
            for container in self.containers(service)
            if container["State"].get("Health", {}).get("Status") == "healthy"
        ]

    def inside(self, container: str, script: str) -> None:
        """Run a line of bash in a container, which may not survive it."""
        _run(["docker", "exec", container, "bash", "-c", script], {}, REPOSITORY, check=False)

    def doctor(self, **variables: str) -> dict[str, dict[str, str]]:
        """Return what `make doctor` finds, by the name of the check."""
        settings = [f"{name}={value}" for name, value in variables.items()]
        said = self.run("env", *settings, "make", "doctor", "JSON=1", check=False).stdout
        return {finding["check"]: finding for finding in json.loads(said)}

    def logs(self, service: str) -> str:
        """Return everything that a service has logged."""
        return self.compose("logs", "--no-color", "--no-log-prefix", service)

    def session(self) -> requests.Session:
        """Return a client that verifies the certificate, if the stack has a root to verify."""
        session = requests.Session()
        session.trust_env = False  # a bundle of authorities named there would replace `verify`
        session.mount("https://", _ToLoopback(self.domain))
        session.headers.update(self.headers)
        session.verify = str(self.root) if self.root else False
        return session

    def url(self, path: str) -> str:
        """Return the HTTPS address of a path."""
        return f"https://127.0.0.1:{self.https_port}{path}"

    def get(self, path: str) -> requests.Response:
        """GET a path over HTTPS on a fresh connection."""
        with self.session() as session:
            return session.get(self.url(path), timeout=10)

    def answers(self, path: str = "/readyz") -> bool:
        """Whether a path answers 200 over HTTPS, with a certificate that verifies."""
        try:
            return self.get(path).ok
        except requests.RequestException:
            return False

    def passed_on(self, path: str, client: str, port: int) -> str:
        """Return all that is answered to a GET on a connection of somebody else's.

        Args:
            path: What is asked for.
            client: Whose connection it is, as the PROXY protocol says.
            port: Where, on 127.0.0.1.
        """
        context = ssl.create_default_context(cafile=str(self.root))
        asked = f"GET {path} HTTP/1.0\r\nHost: {self.domain}\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
            raw.sendall(f"PROXY TCP4 {client} 192.0.2.1 4444 443\r\n".encode())
            with context.wrap_socket(raw, server_hostname=self.domain) as secured:
                secured.sendall(asked.encode())
                return b"".join(iter(lambda: secured.recv(65536), b"")).decode()

    def certificate(self) -> x509.Certificate:
        """Return the certificate that is served for the domain, whoever signed it."""
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 - only looked at
        with (
            socket.create_connection(("127.0.0.1", self.https_port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=self.domain) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)


@contextmanager
def running(
    project: str, *, scale: int, folder: Path = REPOSITORY, **variables: str
) -> Iterator[Stack]:
    """Run a stack of its own, and leave nothing of it behind."""
    stack = Stack(project, dict(variables), folder)
    stack.down()
    try:
        stack.run("python3", "-m", "host")  # a profile may name images that nothing else does
        stack.up(scale=scale)
        yield stack
    finally:
        stack.down()


@contextmanager
def running_with_ca(
    project: str,
    scratch: Path,
    *,
    scale: int,
    certificate_seconds: int = 90 * 86400,
    folder: Path = REPOSITORY,
    overlays: Sequence[str] = (),
    **variables: str,
) -> Iterator[Stack]:
    """Run a stack whose domain is certified by a Pebble beside it.

    Args:
        project: The Compose project's name.
        scratch: An empty folder.
        scale: How many replicas.
        certificate_seconds: How long Pebble's certificates are valid.
        folder: The repository, or a copy of it.
        overlays: Compose files on top, by their names without `compose.` in tests/stack.
        variables: What a user would put into `.env`.
    """
    authority = pebble.prepare(scratch / "pebble", certificate_seconds=certificate_seconds)
    settings = {
        "COMPOSE_FILE": ":".join(
            [
                "compose.yaml",
                *(f"{HERE}/compose.{overlay}.yaml" for overlay in ["pebble", *overlays]),
            ]
        ),
        "FAULTS_FILE": f"{REPOSITORY}/tests/faults.py",
        "DOMAIN": DOMAIN,
        "ACME_EMAIL": f"owner@{DOMAIN}",
        "ACME_CA_SERVER": pebble.DIRECTORY,
        "ACME_CA_CERTIFICATE": str(authority),
        # All of a load comes from one address, which is no client's way of using it.
        "RATE_LIMIT": "0",
        "CLIENT_IN_FLIGHT": "100000",
        "PEBBLE_BUILD": f"{HERE}/pebble",
        "PEBBLE_FOLDER": str(authority.parent),
        "CERTIFICATE_HOURS": str(max(1, certificate_seconds // 3600)),
    }
    with running(project, scale=scale, folder=folder, **(settings | variables)) as stack:
        address = stack.compose("port", "pebble", "15000").strip()
        root = scratch / "root.pem"
        root.write_text(
            requests.get(f"https://{address}/roots/0", verify=False, timeout=10).text  # noqa: S501
        )
        stack.root = root
        poll("the domain's certificate", stack.answers, seconds=60)
        yield stack
