"""The images behave as the official ones document it, whether pulled or built here."""

import gzip
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host import images, stand_in
from tests.stack.stack import configuration, docker, image, poll, printed


@pytest.fixture(scope="module")
def named() -> dict[str, str]:
    """What compose.yaml names, by the last part of the name."""
    return {stand_in.split(reference)[0]: reference for reference in images.named_by_compose()}


@contextmanager
def container(*arguments: str) -> Iterator[str]:
    """Run a container in the background, and remove it and its volumes."""
    name = f"berth-test-{uuid.uuid4().hex[:8]}"
    docker("run", "--detach", f"--name={name}", *arguments)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def test_postgres_takes_its_variables_and_init_scripts(
    named: dict[str, str], tmp_path: Path
) -> None:
    """User, database, password from a file, initdb's arguments; .sql, .sql.gz and .sh."""
    scripts = tmp_path / "init"
    scripts.mkdir()
    (scripts / "1.sql").write_text("CREATE TABLE t (x text);")
    (scripts / "2.sql.gz").write_bytes(gzip.compress(b"INSERT INTO t VALUES ('gz');"))
    shell = scripts / "3.sh"
    shell.write_text(
        "#!/bin/bash\npsql -U $POSTGRES_USER -d $POSTGRES_DB -c \"INSERT INTO t VALUES ('sh')\"\n"
    )
    shell.chmod(0o755)
    password = tmp_path / "password"
    password.write_text("s'ecret\n")
    with container(
        "--env=POSTGRES_USER=owner",
        "--env=POSTGRES_DB=shop",
        "--env=POSTGRES_PASSWORD_FILE=/password",
        "--env=POSTGRES_INITDB_ARGS=--encoding=LATIN1 --locale=C",
        f"--volume={password}:/password:ro",
        f"--volume={scripts}:/docker-entrypoint-initdb.d:ro",
        named["postgres"],
    ) as name:
        # From the container itself the image trusts everybody, by any other address nobody.
        psql = "psql --host=$(hostname --ip-address) --username=owner --dbname=shop -t --no-align"
        ask = "SHOW server_encoding; SELECT x FROM t ORDER BY x"
        script = f'PGPASSWORD="s\'ecret" {psql} -c "{ask}" || true'
        poll("the rows", lambda: docker("exec", name, "bash", "-c", script) == "LATIN1\ngz\nsh")
        wrong = f"PGPASSWORD=wrong {psql} -c 'SELECT 1' || true"
        assert "password authentication failed" in docker("exec", name, "bash", "-c", wrong)


def test_postgres_refuses_to_start_without_a_password(named: dict[str, str]) -> None:
    """There is no default one."""
    with container(named["postgres"]) as name:
        assert docker("wait", name) == "1"
        assert "POSTGRES_PASSWORD" in docker("logs", name)


def test_postgres_keeps_its_data_where_the_version_says(named: dict[str, str]) -> None:
    """A volume at /var/lib/postgresql, a cluster in a folder for the major version."""
    with container("--env=POSTGRES_PASSWORD=x", named["postgres"]) as name:
        mounts = json.loads(docker("inspect", "--format={{json .Mounts}}", name))
        assert [mount["Destination"] for mount in mounts] == ["/var/lib/postgresql"]
        major = stand_in.split(named["postgres"])[1].partition(".")[0]
        version = f"/var/lib/postgresql/{major}/docker/PG_VERSION"
        poll(
            "the cluster",
            lambda: major in docker("exec", name, "bash", "-c", f"cat {version} || true"),
        )


def test_python_has_python_and_pip(named: dict[str, str]) -> None:
    """In the version that its tag says."""
    version = stand_in.split(named["python"])[1]
    run = ("run", "--rm", named["python"])
    assert docker(*run, "python", "--version") == f"Python {version}"
    assert "python 3.14" in docker(*run, "pip", "--version")


@pytest.fixture(scope="module", autouse=True)
def _every_image() -> None:
    """Those of profiles too."""
    images.ensure(images.references(configuration()))


BUSYBOX = ("alertmanager", "node-exporter", "postgres-exporter", "prometheus", "restic", "traefik")
USERS = {
    "haproxy": "99",
    "postgres": "0",
    "python": "0",
    "restic": "0",
    "traefik": "0",
    **dict.fromkeys(("alertmanager", "node-exporter", "postgres-exporter", "prometheus"), "65534"),
}


@pytest.mark.parametrize(("name", "user"), USERS.items())
def test_images_have_the_users_that_volumes_belong_to(name: str, user: str) -> None:
    """By number: a volume moves between an official image and what stands in for it."""
    assert printed("--entrypoint=id", image(name), "-u") == user


def test_postgres_has_the_user_and_the_locale_that_clusters_have() -> None:
    """A server starts in no cluster of a locale that its image lacks."""
    run = ("--entrypoint=sh", image("postgres"), "-c")
    assert printed(*run, "id -u postgres; id -g postgres; echo $LANG") == "999\n999\nen_US.utf8"
    assert "en_US.utf8" in printed(*run, "locale -a").splitlines()


@pytest.mark.parametrize("name", BUSYBOX)
def test_small_images_have_a_plain_shell_and_nothing_to_build_with(name: str) -> None:
    """What is mounted into them must do with busybox."""
    script = "for one in bash python3 perl apt-get; do command -v $one; done; busybox | head -n 1"
    assert printed("--entrypoint=sh", image(name), "-c", script).startswith("BusyBox v")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("haproxy", ["-v"]),
        ("haproxy", ["haproxy", "-v"]),
        ("traefik", ["version"]),
        ("traefik", ["traefik", "version"]),
        ("restic", ["version"]),
        ("prometheus", ["--version"]),
        ("alertmanager", ["--version"]),
        ("node-exporter", ["--version"]),
        ("postgres-exporter", ["--version"]),
    ],
)
def test_entry_points_take_flags_and_commands(name: str, arguments: list[str]) -> None:
    """And the version is the tag's, but for a newer fix."""
    series = stand_in.split(image(name))[1].rpartition(".")[0]
    assert f"{series}." in printed(image(name), *arguments)


def test_traefik_takes_flags(named: dict[str, str]) -> None:
    """Its version is the one that the tag says."""
    said = docker("run", "--rm", named["traefik"], "version")
    assert stand_in.split(named["traefik"])[1] in said
