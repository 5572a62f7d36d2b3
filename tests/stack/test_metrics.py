"""Metrics say what happened, alerts arrive, and neither opens a door."""

import json
import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.stack import pebble
from tests.stack import test_security_containers as security
from tests.stack.inside import reaches
from tests.stack.stack import (
    HERE,
    Stack,
    docker,
    every_second,
    image,
    poll,
    running_with_ca,
)
from tests.stack.test_rules import RULES, asked_for

SERVICES = ("prometheus", "alertmanager", "containers", "node", "postgres-exporter")
JOBS = {"alertmanager", "api", "containers", "node", "postgres", "prometheus", "traefik"}
AM = "http://localhost:9093"
COUNT = "http_server_request_duration_seconds_count"
# Of an owner who wants mail, with the password in a file.
MAIL = {
    "ALERT_EMAIL": "o'owner@example.org",
    "SMTP_HOST": "pebble:2525",
    "SMTP_USER": "berth",
    "SMTP_FROM": "berth@example.org",
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas, watched, with backups."""
    scratch = tmp_path_factory.mktemp("metrics")
    with running_with_ca(
        "berth-test-metrics",
        scratch,
        scale=2,
        folder=every_second(scratch),
        overlays=["receiver"],
        ALERT_WEBHOOK="http://receiver:9200/",
        COMPOSE_PROFILES="metrics",
        BACKUP_DIR="backups",
    ) as stack:
        yield stack


def query(stack: Stack, expression: str) -> list[tuple[dict[str, str], float]]:
    """Return the series that a query finds: labels and value."""
    (prometheus,) = stack.containers("prometheus")
    address = "http://localhost:9090/status/"
    promtool = ("promtool", "query", "instant", "--format=json", address, expression)
    found: list[dict[str, Any]] = json.loads(docker("exec", prometheus["Id"], *promtool)) or []
    return [(one["metric"], float(one["value"][1])) for one in found]


def value(stack: Stack, expression: str) -> float | None:
    """Return the one value that a query finds, or None."""
    found = query(stack, expression)
    return found[0][1] if len(found) == 1 else None


def becomes(stack: Stack, expression: str, wanted: float) -> None:
    """Wait until a query finds one value, this one."""
    poll(f"{expression} to be {wanted}", lambda: value(stack, expression) == wanted)


def alerts(stack: Stack, replica: str, status: str) -> list[dict[str, Any]]:
    """Return the alerts of a replica that the receiver was sent."""
    told = [json.loads(line) for line in stack.logs("receiver").splitlines()]
    return [
        one for one in told if one["labels"].get("replica") == replica and one["status"] == status
    ]


def test_every_part_is_asked_and_answers(watched: Stack) -> None:
    """Each replica too, none of which is on any list."""
    becomes(watched, 'count(up{job="api"} == 1)', 2)
    poll("all targets", lambda: {one["job"] for one, up in query(watched, "up") if up} == JOBS)
    assert value(watched, "min(up)") == 1


def test_requests_are_counted_exactly(watched: Stack) -> None:
    """By the replicas and by Traefik: as many as were sent, under their route."""
    with watched.session() as session:
        created = session.post(watched.url("/items"), json={"name": "counted"}, timeout=10)
        item = created.json()["id"]
        for _ in range(7):
            assert session.get(watched.url(f"/items/{item}"), timeout=10).ok
        for number in range(3):
            session.get(watched.url(f"/nowhere-{number}?token=hidden"), timeout=10)
    becomes(watched, f'sum({COUNT}{{http_route="/items/{{item_id}}"}})', 7)
    becomes(watched, f'sum({COUNT}{{http_route="unmatched"}})', 3)
    becomes(watched, f'sum({COUNT}{{http_request_method="POST"}})', 1)
    becomes(watched, 'sum(traefik_router_requests_total{router="api@file",method="POST"})', 1)
    everything = json.dumps(query(watched, '{__name__=~".+"}'))
    secrets = [
        watched.compose("exec", "-T", "db", "cat", f"/run/secrets/{name}-password").strip()
        for name in ("database", "postgres")
    ]
    assert not [one for one in (item, "nowhere-", "hidden", *secrets) if one in everything]


def test_containers_are_as_the_engine_says(watched: Stack) -> None:
    """Limits are theirs, memory is below them, and they come and go."""
    found = {
        labels["replica"]: limit
        for labels, limit in query(watched, 'container_spec_memory_limit_bytes{service="api"}')
    }
    assert found == {
        one["Id"][:12]: one["HostConfig"]["Memory"] for one in watched.containers("api")
    }
    limits = "(container_spec_memory_limit_bytes > 0)"
    used = query(watched, f"container_memory_working_set_bytes / {limits}")
    assert {"api", "db", "traefik", "prometheus"} <= {labels["service"] for labels, _ in used}
    assert all(0.001 < share < 1 for _, share in used)
    assert all(spent > 0 for _, spent in query(watched, "container_cpu_usage_seconds_total"))
    watched.compose("up", "--detach", "--no-deps", "--no-recreate", "--scale=api=3", "api")
    becomes(watched, 'sum(container_healthy{service="api"})', 3)
    becomes(watched, 'count(up{job="api"} == 1)', 3)
    docker("rm", "--force", watched.containers("api")[-1]["Id"])
    becomes(watched, 'count(container_healthy{service="api"})', 2)
    becomes(watched, 'count(up{job="api"})', 2)


def test_out_of_memory_is_counted(watched: Stack) -> None:
    """Also where the container itself survives it, or takes its own count with it."""
    (api, *_) = watched.containers("api")
    watched.inside(api["Id"], "python -c 'print(len(b\"x\" * 10**9))'")
    becomes(watched, 'sum(container_oom_events_total{service="api"}) > bool 0', 1)


def test_an_alert_arrives_and_so_does_its_end(watched: Stack) -> None:
    """At a real receiver, with what is wrong and the way out."""
    api, *_ = watched.containers("api")
    replica = api["Id"][:12]
    docker("stop", "--timeout=1", replica)
    (told, *_) = poll("the alert", lambda: alerts(watched, replica, "firing"), seconds=60)
    assert told["labels"]["alertname"] == "ContainerDown"
    assert told["labels"]["service"] == "api"
    assert told["annotations"]["summary"] == f"api ({replica}) is down or fails its health check"
    assert f"docker logs {replica}" in told["annotations"]["description"]
    docker("start", replica)
    poll("its end", lambda: alerts(watched, replica, "resolved"), seconds=60)


def test_the_backup_tells_its_state(watched: Stack) -> None:
    """When the last base backup was, how far the log is, and when a restore was proven."""
    for kind in ("full", "log"):
        age = f'time() - berth_backup_last_success_timestamp_seconds{{kind="{kind}"}}'
        poll(kind, lambda age=age: 0 <= (value(watched, age) or -1) < 300, seconds=60)  # type: ignore[misc]
    proof = "time() - berth_backup_last_proof_timestamp_seconds"
    poll("a proof", lambda: 0 <= (value(watched, proof) or -1) < 300, seconds=60)


def test_every_rule_can_be_evaluated(watched: Stack) -> None:
    """On what a real stack gives, all that the rules ask for is there."""
    # Jobs are of the user's own Compose file: test_workers.py asks for theirs.
    jobs = {"berth_job_failed", "job_line"}
    names = (asked_for(RULES) | set(re.findall("- record: (.+)", RULES))) - jobs
    assert len(names) > 40

    def found(name: str) -> list[Any]:
        watched.get("/items")
        return query(watched, name)

    for name in sorted(names):
        poll(name, lambda name=name: found(name), seconds=60)  # type: ignore[misc]


def test_the_exporters_role_reads_no_row(watched: Stack) -> None:
    """It may look at statistics, and has but a few connections for that."""
    psql = ("exec", "-T", "db", "psql", "--no-align", "--tuples-only", "--dbname=berth")
    role = "SET ROLE metrics"
    said = watched.compose(*psql, f"--command={role}", "--command=TABLE items", check=False)
    assert "permission denied for table items" in said
    rights = "rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit"
    query = f"SELECT {rights} FROM pg_roles WHERE rolname = 'metrics'"
    assert watched.compose(*psql, f"--command={query}").strip() == "f|f|f|f|f|3"


def test_the_exporters_password_shows_nowhere_else(watched: Stack) -> None:
    """Not to replicas, in no inspect, and in no log."""
    (exporter,) = watched.containers("postgres-exporter")
    password = docker("exec", exporter["Id"], "cat", "/run/secrets/postgres-password")
    assert len(password) >= 40
    services = (*SERVICES, "roles", "secrets", "api", "db")
    shown = [json.dumps(watched.containers(service, everything=True)) for service in services]
    assert not any(password in text for text in (*shown, watched.compose("logs")))
    for container in watched.containers("api"):
        assert f"{watched.project}_metrics-secrets" not in json.dumps(container["Mounts"])


def test_metrics_are_for_nobody_outside(watched: Stack) -> None:
    """The app's ports lead to none of them, and there are no others."""
    for path in ("/metrics", "/status/metrics", "/status/api/v1/query?query=up"):
        answer = watched.get(path)
        assert answer.status_code == 404
        assert "process_" not in answer.text
    for service in (*SERVICES, "api"):
        for container in watched.containers(service):
            assert not any(container["NetworkSettings"]["Ports"].values())


def test_watching_opens_no_way(watched: Stack) -> None:
    """To Docker, to the database, or out, for anybody who had none."""
    proxy, database = "docker-proxy:2375", "db:5432"
    assert reaches(watched, "prometheus", proxy, database) == [False, False]
    assert reaches(watched, "api", proxy, "containers:9101", "node:9100") == [False] * 3
    # Prometheus asks for no password, and stands on the replicas' network to ask them.
    (prometheus,) = watched.containers("prometheus")
    networks = prometheus["NetworkSettings"]["Networks"].values()
    hosts = ("prometheus", "status-page", *(one["IPAddress"] for one in networks))
    answers = [f"{host}:9090" for host in hosts]
    assert reaches(watched, "api", *answers) == [False] * len(answers)
    assert reaches(watched, "traefik", "status-page:9090") == [True]
    assert reaches(watched, "traefik", database, "postgres-exporter:9187") == [False, False]
    assert reaches(watched, "containers", proxy, database) == [True, False]
    # Who may read all environments of this machine runs nothing that the app brings along.
    assert watched.containers("containers")[0]["Image"] != watched.containers("api")[0]["Image"]
    for service in ("containers", "node", "postgres-exporter"):
        security.test_inner_services_have_no_way_out(watched, service)


@pytest.mark.parametrize("service", SERVICES)
def test_who_watches_has_no_more_rights_than_it_needs(watched: Stack, service: str) -> None:
    """As everybody else: read-only, bounded, no root and no capability."""
    security.test_container_has_no_more_rights_than_it_needs(watched, service)
    security.test_processes_do_not_run_as_root(watched, service)
    security.test_processes_have_no_capability_left(watched, service)
    own = {"prometheus": {"/prometheus"}, "alertmanager": {"/alertmanager"}}.get(service, set())
    container = security.one(watched, service)
    assert {mount["Destination"] for mount in container["Mounts"] if mount["RW"]} == own


@contextmanager
def alertmanager(folder: Path, *options: str, **settings: str) -> Iterator[str]:
    """Run Alertmanager by itself with settings until its start or end; yields its container."""
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    variables = [f"--env={name}={value}" for name, value in settings.items()]
    container = docker(
        *("run", "--detach", "--network=none", "--tmpfs=/tmp", "--entrypoint=sh", *variables),
        *(
            f"--volume={every_second(folder)}/metrics/alertmanager:/berth:ro",
            f"--volume={keys}:/keys:ro",
            *options,
        ),
        *(image("alertmanager"), "/berth/start.sh"),
    )
    try:
        poll(
            "its start or end",
            lambda: (
                "Listening on" in docker("logs", container)
                or docker("inspect", "--format={{.State.Status}}", container) == "exited"
            ),
        )
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def mails(server: str) -> list[dict[str, Any]]:
    """Return what a server of mail was sent."""
    lines = docker("logs", server).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_an_alert_arrives_by_mail(tmp_path: Path) -> None:
    """Encrypted, from a server whose certificate verifies, and only with the password."""
    authority = pebble.prepare(tmp_path / "tls", certificate_seconds=3600)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/smtp-password").write_text("secret\n")
    own = ("--add-host=pebble:127.0.0.1", f"--volume={authority}:/ca.pem:ro")
    mail = ("--detach", "--env=PYTHONPATH=/site", f"--volume={HERE}/mail.py:/mail.py:ro")
    site = f"--volume={sysconfig.get_path('purelib')}:/site:ro"
    tls = f"--volume={authority.parent}:/tls:ro"
    program = ("python", "/mail.py", "/tls/pebble.pem", "/tls/pebble-key.pem")
    with alertmanager(tmp_path, *own, SSL_CERT_FILE="/ca.pem", **MAIL) as container:
        shared = ("run", f"--network=container:{container}", *mail, site, tls)
        server = docker(*shared, image("python"), *program)
        try:
            alert = "alertname=DiskFull", "--annotation=summary=the disk is full"
            docker("exec", container, "amtool", "alert", "add", *alert, f"--alertmanager.url={AM}")
            (told,) = poll("the mail", lambda: mails(server))
        finally:
            docker("rm", "--force", server)
    assert told["from"] == "berth@example.org"
    assert told["to"] == ["o'owner@example.org"]
    assert "DiskFull" in told["subject"]


def test_an_address_in_a_file_stays_there(tmp_path: Path) -> None:
    """Alertmanager takes the configuration, which names the files of what is secret."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "webhook").write_text("https://example.org/secret\n")
    (keys / "smtp-password").write_text("secret\n")
    with alertmanager(tmp_path, **MAIL) as container:
        said = docker("logs", container)
        said += docker("exec", container, "cat", "/tmp/alertmanager.yml")  # noqa: S108
    assert "Listening on" in said
    assert "url_file: /keys/webhook" in said
    assert "to: 'o''owner@example.org'" in said
    assert "auth_password_file: /keys/smtp-password" in said
    assert "secret\n" not in said


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "alerts go to nobody: set ALERT_WEBHOOK or ALERT_EMAIL"),
        ({"ALERT_EMAIL": "a@example.org"}, "ALERT_EMAIL is set, but SMTP_HOST is not: give"),
        ({"ALERT_WEBHOOK": "example.org"}, "ALERT_WEBHOOK=example.org: give an address that"),
    ],
)
def test_what_cannot_be_delivered_is_said(
    settings: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    """With nobody to tell it starts nevertheless; with half of the settings it does not."""
    with alertmanager(tmp_path, **settings) as container:
        said = docker("logs", container)
    assert sentence in said
    assert ("Listening on" in said) == (not settings)


def test_alerts_without_the_profile_are_refused(watched: Stack) -> None:
    """Or somebody would wait for what nobody sends."""
    settings = ("env", "COMPOSE_PROFILES=offsite", "ALERT_WEBHOOK=https://example.org/")
    secrets = ("docker", "compose", "run", "--rm", "--no-deps", "-T", "secrets")
    done = watched.run(*settings, *secrets, check=False)
    assert done.returncode == 1
    assert "add metrics to COMPOSE_PROFILES in .env" in done.stdout + done.stderr
