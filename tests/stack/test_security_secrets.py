"""Secrets: made at the first start, seen by who needs them, changed without losing a request."""

import json
import subprocess

from tests.stack.stack import Stack, docker

SERVICES = ("traefik", "api", "db", "docker-proxy", "secrets", "roles", "migrate")
FILES = ("database-password", "postgres-password")


def read(stack: Stack, name: str) -> str:
    """Return a secret, as its owner reads it."""
    return stack.compose("exec", "-T", "db", "cat", f"/run/secrets/{name}").strip()


def owners(stack: Stack) -> str:
    """Return the password of the role that migrates, as `migrate` reads it."""
    file = "/run/secrets/database-password"
    return stack.compose("run", "--rm", "--no-deps", "migrate", "cat", file).splitlines()[0]


def logs_in(stack: Stack, role: str, password: str) -> bool:
    """Whether a password opens the database to somebody on a replica's network."""
    script = (
        "import asyncio, asyncpg, sys\n"
        "asyncio.run(asyncpg.connect(host='db', user=sys.argv[1], password=sys.argv[2]"
        ", database='berth'))"
    )
    (api, *_) = stack.containers("api")
    command = ["docker", "exec", api["Id"], "python", "-c", script, role, password]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0 or "InvalidPasswordError" in done.stderr, done.stderr
    return done.returncode == 0


def test_passwords_are_random_and_each_opens_its_own_role(stack: Stack) -> None:
    """None is a default, none is another's, and no other password does."""
    app, superuser = (read(stack, name) for name in FILES)
    owner = owners(stack)
    assert len(app) >= 40
    assert len(owner) >= 40
    assert len({app, superuser, owner}) == 3
    assert logs_in(stack, "berth", app)
    assert logs_in(stack, "berth_owner", owner)
    assert not logs_in(stack, "berth_owner", app)
    for guess in ("", "berth", "postgres", "password", "changethis", superuser):
        assert not logs_in(stack, "berth", guess)
        assert guess == superuser or not logs_in(stack, "postgres", guess)


def test_replicas_cannot_read_the_superusers_password(stack: Stack) -> None:
    """It is a file of the database's user."""
    (api, *_) = stack.containers("api")
    command = ["docker", "exec", api["Id"], "cat", "/run/secrets/postgres-password"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_replicas_cannot_read_the_owners_password(stack: Stack) -> None:
    """Nor the exporter's: they are in volumes that replicas do not have."""
    for container in stack.containers("api"):
        mounts = json.dumps(container["Mounts"])
        assert f"{stack.project}_secrets" in mounts
        for volume in ("owner-secrets", "metrics-secrets"):
            assert f"{stack.project}_{volume}" not in mounts


def test_the_apps_role_is_no_superuser(stack: Stack) -> None:
    """Nor is the owner's; they can make neither roles nor databases."""
    rights = ("super", "createrole", "createdb", "replication", "bypassrls")
    for role in ("berth", "berth_owner"):
        query = f"SELECT rol{', rol'.join(rights)} FROM pg_roles WHERE rolname = '{role}'"
        psql = ("psql", "--no-align", "--tuples-only", f"--command={query}")
        assert stack.compose("exec", "-T", "db", *psql).strip() == "f|f|f|f|f"


def test_no_secret_shows_anywhere_else(stack: Stack) -> None:
    """Not in inspect, the image's layers, logs, the configuration, or any process's environment."""
    secrets = [*(read(stack, name) for name in FILES), owners(stack)]
    shown = {"configuration": stack.compose("config"), "logs": stack.compose("logs")}
    for service in SERVICES:
        for container in stack.containers(service, everything=True):
            shown[f"inspect {service}"] = json.dumps(container)
            if container["State"]["Running"]:
                shown[f"processes of {service}"] = docker("top", container["Id"], "-eo", "pid,args")
    image = f"{stack.project}-api:current"
    shown["image"] = docker("image", "inspect", image) + docker("history", "--no-trunc", image)
    assert [where for where, text in shown.items() if any(one in text for one in secrets)] == []
    # In db's, its image puts the superuser's: nobody sees it there but the superuser.
    (api, *_) = stack.containers("api")
    script = "cat /proc/[0-9]*/environ 2> /dev/null | tr '\\0' '\\n'; true"
    environments = docker("exec", api["Id"], "bash", "-c", script)
    assert "DATABASE_PASSWORD_FILE=" in environments
    assert not any(one in environments for one in secrets)
