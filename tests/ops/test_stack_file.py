"""What Swarm is given of compose.yaml: all of it, or what is listed as lost; no engine is asked."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from host.commands import UserError
from ops.docker import ROOT
from ops.stack import MIGRATE
from ops.swarm import database, source
from ops.swarm.release import Release
from ops.swarm.stack_file import LOST, StackFile


@pytest.fixture
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the database be on the three machines."""
    monkeypatch.setenv("COMPOSE_DISABLE_ENV_FILE", "1")
    monkeypatch.setenv("COMPOSE_FILE", "compose.yaml")
    monkeypatch.setenv("PATRONI_IMAGE", "registry.test/patroni:1")
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path))


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that leads to a database elsewhere, and whatever else may be set."""
    monkeypatch.setenv("COMPOSE_DISABLE_ENV_FILE", "1")
    monkeypatch.setenv("COMPOSE_FILE", "compose.yaml")
    for variable, name in (
        ("DATABASE_URL_FILE", "url"),
        ("DATABASE_CA", "ca"),
        ("APP_ENV", "env"),
        ("TLS_CERTIFICATE", "certificate"),
        ("TLS_KEY", "key"),
    ):
        (tmp_path / name).write_text(f"of {name}")
        monkeypatch.setenv(variable, str(tmp_path / name))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "API_KEY").write_bytes(b"\xff\x00")
    monkeypatch.setenv("APP_SECRETS", str(tmp_path / "secrets"))
    return tmp_path / "url"


def made() -> StackFile:
    """Return what the present files and variables become."""
    return StackFile(source.configuration("registry.test/shop:1@sha256:0"))


def over(url: Path, monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    """Have a file of the user's be read as well, with these lines in the service `worker`."""
    file = url.parent / "compose.yaml"
    file.write_text(f"services:\n  worker:\n    image: x\n    restart: always\n    {service}\n")
    monkeypatch.setenv("COMPOSE_FILE", f"compose.yaml:{file}")


def accepted(stack: dict[str, Any]) -> dict[str, Any]:
    """Return what Docker understands of a stack file, `$` as they are in containers."""
    config = ["docker", "stack", "config", "--compose-file=-"]
    done = subprocess.run(
        config, input=json.dumps(stack), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def missing(given: Any, found: Any, at: str = "") -> Iterator[str]:  # noqa: ANN401
    """Yield the paths of what Docker has left out."""
    if isinstance(given, dict):
        for key, one in given.items():
            if one not in ({}, [], "", None):
                inner = found.get(key, "nothing") if isinstance(found, dict) else "nothing"
                yield from missing(one, inner, f"{at}/{key}")
    elif isinstance(given, list):
        pairs = zip(given, found, strict=True) if len(given) == len(found) else [(given, "nothing")]
        for one, inner in pairs:
            yield from missing(one, inner, at)
    elif str(given).replace("$$", "$") != str(found):
        yield f"{at}: {found}"


@pytest.mark.usefixtures("url")
def test_swarm_takes_all_that_it_is_given() -> None:
    """It leaves some keys out without a word: none of those is there."""
    stack = made()
    file = stack.of(stack.services)
    assert set(file["services"]) == {"api", "docker-proxy", "migrate", "traefik"}
    assert list(missing(file, accepted(file))) == []


@pytest.mark.usefixtures("url")
def test_certificates_that_are_not_brought_are_ordered_by_one_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it has goes through a network that no replica is in."""
    monkeypatch.delenv("TLS_CERTIFICATE")
    monkeypatch.delenv("TLS_KEY")
    stack = made()
    assert list(missing(stack.of(stack.services), accepted(stack.of(stack.services)))) == []
    among = {name for name, one in stack.services.items() if "acme" in one["networks"]}
    assert among == {"acme", "traefik"}
    assert stack.services["acme"]["ports"] == []
    assert stack.services["acme"]["deploy"]["replicas"] == 1
    monkeypatch.setenv("ACME_DNS_PROVIDER", "cloudflare")
    with pytest.raises(UserError, match="leave ACME_DNS_PROVIDER out"):
        made()


@pytest.mark.usefixtures("url")
def test_every_key_is_carried_over_or_listed_as_lost() -> None:
    """Of each service, what Compose makes of it and what Swarm gets differ by that list."""
    configuration = source.configuration("x")
    services = StackFile(configuration).services
    for name, one in services.items():
        given = {key for key, value in configuration["services"][name].items() if value}
        moved = {"restart": "deploy", "labels": "deploy", "tmpfs": "volumes"}
        left = given - set(LOST) - set(one) - set(moved)
        assert left == set(), name


@pytest.mark.usefixtures("url")
def test_files_become_configs_and_secrets_where_programs_look() -> None:
    """A new name for what is in them; secrets are readable by whoever the app runs as."""
    stack = made()
    targets = {one["target"]: one["source"] for one in stack.services["api"]["secrets"]}
    under = "/run/app/current"
    assert sorted(targets) == [
        f"{under}/app.env",
        f"{under}/database-ca.pem",
        f"{under}/database-url",
        f"{under}/secrets/API_KEY",
    ]
    assert stack.pieces[targets[f"{under}/secrets/API_KEY"]].content == b"\xff\x00"
    assert {one["target"] for one in stack.services["traefik"]["secrets"]} == {
        "/run/secrets/tls-certificate",
        "/run/secrets/tls-key",
    }
    assert all(len(name) <= 64 for name in stack.pieces)
    assert "of url" not in json.dumps(stack.of(stack.services))


def test_what_changes_has_another_name(url: Path) -> None:
    """What does not keeps its own: so nothing is replaced that need not be."""
    before = made()
    url.write_text("another")
    after = made()
    assert len(set(after.pieces) - set(before.pieces)) == 1
    assert before.services["traefik"] == after.services["traefik"]
    assert before.services["api"]["labels"] != after.services["api"]["labels"]


@pytest.mark.usefixtures("url")
def test_promises_that_have_another_form() -> None:
    """Ports that keep clients' addresses, /tmp in memory, no virtual addresses."""
    services = made().services
    assert {one["mode"] for one in services["traefik"]["ports"]} == {"host"}
    assert {"type": "tmpfs", "target": "/tmp"} in services["api"]["volumes"]  # noqa: S108
    assert {one["deploy"]["endpoint_mode"] for one in services.values()} == {"dnsrr"}
    job = services.pop(MIGRATE)
    assert job["deploy"]["restart_policy"] == {"condition": "none"}
    policies = {json.dumps(one["deploy"]["restart_policy"]) for one in services.values()}
    assert policies == {'{"condition": "any", "delay": "1s"}'}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("privileged: true", "worker has `privileged`, which Swarm has nothing for"),
        ("volumes: ['.:/data']", "which is on this machine alone"),
        ("volumes: ['./docs:/data:ro']", "which is on this machine alone"),
        ("security_opt: ['seccomp:unconfined']", "security_opt seccomp:unconfined"),
    ],
)
def test_what_swarm_has_nothing_for_is_refused(
    url: Path, monkeypatch: pytest.MonkeyPatch, lines: str, says: str
) -> None:
    """Rather than left out in silence."""
    over(url, monkeypatch, lines)
    with pytest.raises(UserError, match=says.replace("[", r"\[")):
        made()


def test_dollars_of_a_worker_are_what_they_were(url: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker looks for variables once more; Compose has provided for that."""
    over(url, monkeypatch, "environment: {JOBS: '* * * * * echo $$HOME'}")
    stack = made()
    found = accepted(stack.of(stack.services))["services"]["worker"]["environment"]
    assert found == {"JOBS": "* * * * * echo $HOME"}


@pytest.mark.usefixtures("_inside")
def test_database_on_three_machines_is_accepted() -> None:
    """Three members, each on one machine; passwords that the swarm keeps; backups on one."""
    stack = made()
    file = stack.of(stack.services)
    assert list(missing(file, accepted(file))) == []
    assert stack.database == [f"{what}{n}" for what in ("etcd", "postgres") for n in (1, 2, 3)]
    places = {name: stack.services[name]["deploy"]["placement"] for name in stack.database}
    assert {name: one["constraints"][0][-1] for name, one in places.items()} == {
        name: name[-1] for name in stack.database
    }
    assert stack.passwords <= set(file["secrets"])
    assert {"backup", "proof"} <= set(stack.services)
    # What the app can reach rules nothing.
    assert not set(stack.services["api"]["networks"]) & set(stack.services["etcd1"]["networks"])


@pytest.mark.usefixtures("_inside")
def test_going_back_leaves_the_members_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The swarm would replace all of them at once."""
    stack = made()
    base = Release(1, 0, "", stack.of(stack.long_running))
    monkeypatch.setenv("PATRONI_IMAGE", "registry.test/patroni:2")
    monkeypatch.setenv("API_REPLICAS", "5")
    newer = made()
    file = newer.of(newer.long_running)
    back = database.kept(base, file).file["services"]
    assert {name: back[name] for name in stack.database} == {
        name: file["services"][name] for name in stack.database
    }
    assert back["api"] == base.file["services"]["api"]
    # Nor do they come into a release that has its database elsewhere.
    without = {name: one for name, one in base.file["services"].items() if name[-1] not in "123"}
    kept = database.kept(replace(base, file=base.file | {"services": without}), file)
    assert kept.file["services"].keys() == without.keys()


def test_members_are_of_the_version_that_one_machine_has() -> None:
    """So that it is told in two places, and is one."""
    pinned = re.search(
        r"(?m)^ARG POSTGRES_IMAGE=(.+)$", (ROOT / "db/patroni/Dockerfile").read_text()
    )
    assert pinned
    assert f"${{POSTGRES_IMAGE:-{pinned[1]}}}" in (ROOT / "compose.yaml").read_text()


def test_database_of_its_own_is_refused(url: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one is elsewhere; and what leads there must be readable."""
    url.unlink()
    with pytest.raises(UserError, match=f"{url} cannot be read: No such file"):
        made()
    monkeypatch.delenv("DATABASE_URL_FILE")
    with pytest.raises(UserError, match="name one elsewhere with DATABASE_URL_FILE"):
        made()
