"""A registry's refusal is an error in its own words; only its silence makes room for a stand-in."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import images, registry, stand_in
from host.commands import UserError
from ops.checks import machine
from ops.facts import Facts
from ops.finding import Level
from tests import registry as registries
from tests.ops.test_doctor import facts  # noqa: F401 - a fixture
from tests.ports import free_port
from tests.registry import LOG_IN, answering, serving
from tests.stack.stack import HERE, docker, image


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    registries.build()


@pytest.fixture
def port() -> Iterator[int]:
    """A port whose images are removed afterwards."""
    port = free_port()
    yield port
    registries.forget(port)


def push(reference: str) -> None:
    """Put an image of that name into its registry, and leave none here."""
    context = HERE / "registry"
    docker("build", "--quiet", "--label=official=yes", f"--tag={reference}", str(context))
    docker("push", "--quiet", reference)
    docker("image", "rm", reference)


def version() -> str:
    """Return the tag of a haproxy that can be built here."""
    return stand_in.split(image("haproxy"))[1]


def test_an_unknown_tag_is_an_error(port: int) -> None:
    """Though there is a recipe for it."""
    with serving(port):
        reference = f"127.0.0.1:{port}/haproxy:{version()}"
        with pytest.raises(UserError, match=f"{reference} cannot be pulled.* says: .*not found"):
            images.ensure([reference])
        assert not stand_in.is_here(reference)


def test_a_log_in_is_an_error(port: int) -> None:
    """Somebody else's image would come as a surprise."""
    with serving(port, *LOG_IN), pytest.raises(UserError, match="no basic auth credentials"):
        images.ensure([f"127.0.0.1:{port}/haproxy:{version()}"])


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (
            429,
            b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit."}]}',
            "toomanyrequests: You have reached your limit",
        ),
        (403, b'{"errors":[{"code":"DENIED","message":"not for you"}]}', "denied|403"),
        (503, b"", "503"),
    ],
)
def test_a_limit_or_a_ban_is_an_error(status: int, body: bytes, says: str) -> None:
    """In the registry's words."""
    with answering(status, body) as port, pytest.raises(UserError, match=says):
        images.ensure([f"127.0.0.1:{port}/haproxy:{version()}"])


def test_a_stand_in_is_marked_and_gives_way(
    port: int,
    facts: Facts,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is built where nobody answers, and replaced once somebody does; the doctor names it."""
    reference = f"127.0.0.1:{port}/haproxy:{version()}"
    monkeypatch.setitem(facts.stack.service("docker-proxy"), "image", reference)
    images.ensure([reference])
    assert stand_in.is_one(reference)
    assert stand_in.is_current(reference)
    assert "building a stand-in" in capsys.readouterr().err
    found = machine.stand_ins(facts)
    assert found.level is Level.WARNING
    assert reference in found.says

    with serving(port):
        # Its own words do not stop what runs.
        images.ensure([reference])
        assert stand_in.is_one(reference)
        assert "a stand-in goes on in its place" in capsys.readouterr().err
        docker("tag", reference, f"127.0.0.1:{port}/kept:1")
        push(reference)
        docker("tag", f"127.0.0.1:{port}/kept:1", reference)
        images.ensure([reference])
        assert not stand_in.is_one(reference)
        assert "is the official image now" in capsys.readouterr().err
    assert reference not in machine.stand_ins(facts).says

    # Who pulled from a registry is cut off, not without one.
    other = f"127.0.0.1:{port}/other/haproxy:{version()}"
    with pytest.raises(UserError, match=rf"{other} cannot be pulled: .*others came from there"):
        images.ensure([reference, other])
    monkeypatch.setenv("HOST_PULL", "no")
    images.ensure([reference, other])
    assert stand_in.is_one(other)


def test_silence_costs_a_machine_without_a_registry_little(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each registry is asked once, and not for long."""
    names = [f"127.0.0.1:{port}/haproxy:{version()}", f"127.0.0.1:{port}/o/haproxy:{version()}"]
    monkeypatch.setenv("HOST_PULL", "no")
    images.ensure(names)
    monkeypatch.delenv("HOST_PULL")
    with socket.create_server(("127.0.0.1", port)):  # takes connections, and says nothing
        began = time.monotonic()
        images.ensure(names)
        assert time.monotonic() - began < 4
    assert all(stand_in.is_one(name) for name in names)


@pytest.mark.parametrize(
    ("complaint", "silent"),
    [
        ('Get "https://registry-1.docker.io/v2/": dial tcp: lookup … on …: no such host', True),
        ('failed to do request: Head "https://registry-1.docker.io/v2/…": dial tcp …', True),
        ('Get "https://registry-1.docker.io/v2/": net/http: TLS handshake timeout', True),
        # It has answered, and sent to another place.
        (
            'Head "https://registry-1.docker.io/v2/…": Get "https://auth.docker.io/…": dial tcp …',
            False,
        ),
        ('Get "https://registry-1.docker.io/v2/": tls: failed to verify certificate', False),
        ("toomanyrequests: You have reached your pull rate limit.", False),
    ],
)
def test_silence_is_told_from_an_answer(complaint: str, silent: bool) -> None:
    """In Docker's words, with either of its image stores."""
    assert registry.is_silence(complaint, "docker.io") is silent


def test_a_pull_that_breaks_off_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry has the image: nothing else may come in its place."""
    words = 'Get "https://registry.example/v2/haproxy/blobs/…": dial tcp: connection refused'
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho '3.2.26: Pulling from haproxy'\necho '{words}' >&2\nexit 1")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError, match="connection refused"):
        registry.pull("registry.example/haproxy:3.2.26", seconds=30)
    docker.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1")
    with pytest.raises(registry.Unreachable, match="connection refused"):
        registry.pull("registry.example/haproxy:3.2.26", seconds=30)


def test_a_pull_may_take_its_time_and_may_not_stall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is given up when somebody wants that."""
    docker = tmp_path / "docker"
    slowly = "#!/bin/sh\nfor i in 1 2 3 4; do sleep .5; echo 3.2.26: $i; done\n"
    docker.write_text(slowly)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(registry, "_STALLED_SECONDS", 1.5)
    registry.pull("registry.example/haproxy:3.2.26", seconds=1.5)

    docker.write_text(f"{slowly}exec sleep 60")
    with pytest.raises(UserError, match=r"3.2.26 has stopped: .* no answer within 1.5 s"):
        registry.pull("registry.example/haproxy:3.2.26", seconds=1.5)

    docker.write_text("#!/bin/sh\nexec sleep 60")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.pull("registry.example/haproxy:3.2.26", seconds=30, checkpoint=stop)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("postgres:18.6", "docker.io"),
        ("prom/prometheus:v3.5.3", "docker.io"),
        ("localhost/postgres:18.6", "localhost"),
        ("mirror.example:5000/library/postgres:18.6", "mirror.example:5000"),
    ],
)
def test_a_reference_names_its_registry(reference: str, expected: str) -> None:
    """Or Docker Hub."""
    assert registry.of(reference) == expected


@pytest.mark.parametrize(
    ("reference", "built", "says"),
    [
        ("postgres:18.6", "18.6-3", ""),
        ("prom/prometheus:v3.5.3", "3.5.3+ds1-6", ""),
        ("postgres:17", "17.9-0+deb13u1", ""),
        ("postgres:18.6", "18.7-1", "stands in for postgres:18.6 is 18.7-1"),
    ],
)
def test_a_newer_fix_may_stand_in_and_is_told(
    reference: str, built: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Debian brings them as they come."""
    stand_in.judge(reference, built)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reference", "built"),
    [
        ("postgres:18.66", "18.6-3"),
        ("postgres:17", "18.6-3"),
        ("haproxy:3.2.26", "3.3.1-1"),
        ("haproxy:3.2.26", ""),
    ],
)
def test_another_version_does_not_stand_in(reference: str, built: str) -> None:
    """A tag that was never published yields no image."""
    with pytest.raises(UserError, match=f"{reference} cannot be pulled, and no stand-in"):
        stand_in.judge(reference, built)


@pytest.mark.parametrize(
    ("dockerfile", "arguments", "expected"),
    [
        ("FROM python:3.14.8-slim", {}, {"python:3.14.8-slim"}),
        (
            "ARG PYTHON_IMAGE=python\nFROM python:3.14.8-slim AS python\nFROM ${PYTHON_IMAGE}",
            {"PYTHON_IMAGE": None},
            {"python:3.14.8-slim"},
        ),
        (
            "ARG PYTHON_IMAGE=python\nFROM python:3.14.8-slim AS python\nFROM $PYTHON_IMAGE",
            {"PYTHON_IMAGE": "python:3.13.1-slim"},
            {"python:3.13.1-slim"},
        ),
        (
            "FROM node:24.1 AS page\nFROM a:1.0 AS unused\nFROM b:1.0\nCOPY --from=page / /",
            {},
            {"node:24.1", "b:1.0"},
        ),
    ],
)
def test_a_dockerfile_needs_what_its_last_stage_is_built_on(
    dockerfile: str, arguments: dict[str, str | None], expected: set[str]
) -> None:
    """Directly or not, and nothing else."""
    assert images.bases(dockerfile, arguments) == expected
