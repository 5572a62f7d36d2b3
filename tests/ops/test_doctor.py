"""What the doctor makes of settings, names and clocks, with Compose's word and no stack."""

import datetime
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from host.commands import UserError
from ops import docker, doctor, https, preflight
from ops.checks import data, machine, network, service
from ops.facts import Facts
from ops.finding import Finding, good, line
from ops.stack import Container, Stack, State

LIVE = {
    "DOMAIN": "shop.berth.dev",
    "BIND_ADDRESS": "0.0.0.0",  # noqa: S104
    "ACME_EMAIL": "me@berth.dev",
    "COMPOSE_DISABLE_ENV_FILE": "1",
}
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> Facts:
    """What is known where nothing runs, with the variables of the test's parameter."""
    variables = LIVE | getattr(request, "param", {})
    return Facts(read(**variables), [], {"DockerRootDir": "/"}, NOW, "")


@cache
def read(**variables: str) -> Stack:
    """Return what Compose makes of variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return Stack.read()


def endpoint(facts: Facts) -> https.Endpoint:
    """Return where the domain is served."""
    return https.Endpoint(facts.stack.domain, *facts.stack.published(443))


def short(found: Finding) -> str:
    """Return how bad a finding is and what it says."""
    return f"{found.level} {found.says}"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, "good DOMAIN=shop.berth.dev on BIND_ADDRESS=0.0.0.0"),
        (
            {"BIND_ADDRESS": "127.0.0.1"},
            "bad DOMAIN=shop.berth.dev on BIND_ADDRESS=127.0.0.1: only",
        ),
        (
            {"BIND_ADDRESS": "127.0.0.1", "ACME_CA_SERVER": "https://ca.lan/acme"},
            "warning DOMAIN=shop.berth.dev on BIND_ADDRESS=127.0.0.1: only this machine reaches it",
        ),
        ({"DOMAIN": "localhost"}, "warning DOMAIN=localhost on BIND_ADDRESS=0.0.0.0: others reach"),
        (
            {"DOMAIN": "localhost", "BIND_ADDRESS": "127.0.0.1"},
            "good DOMAIN=localhost on BIND_ADDRESS=127.0.0.1",
        ),
        (
            {"BIND_ADDRESS": "[::]"},
            "warning DOMAIN=shop.berth.dev on BIND_ADDRESS=::: IPv4 is not published, and limits",
        ),
        (
            {"BIND_ADDRESS_IPV6": "::"},
            "good DOMAIN=shop.berth.dev on BIND_ADDRESS=0.0.0.0 and BIND_ADDRESS_IPV6=::",
        ),
        ({"DOMAIN": "example.org"}, "bad DOMAIN=example.org is nobody's to have"),
        ({"DOMAIN": "www.example.com"}, "bad DOMAIN=www.example.com is nobody's to have"),
        ({"DOMAIN": "myexample.com"}, "good DOMAIN=myexample.com on"),
        ({"DOMAINS": "berth.dev,www.example.com"}, "bad www.example.com is nobody's to have"),
    ],
    indirect=["facts"],
)
def test_a_domain_is_judged_against_its_address(facts: Facts, says: str) -> None:
    """A name for the world on the loopback interface waits for a certificate in vain."""
    assert short(network.address(facts)).startswith(says)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, "good acme-v02.api.letsencrypt.org signs, and writes to me@berth.dev"),
        ({"ACME_CA_SERVER": STAGING}, "warning acme-staging-v02.api.letsencrypt.org is for trying"),
        ({"ACME_EMAIL": ""}, "warning acme-v02.api.letsencrypt.org cannot tell you of trouble"),
        ({"ACME_EMAIL": "you@example.org"}, "bad ACME_EMAIL=you@example.org is nobody's"),
        ({"ACME_CA_SERVER": "https://ca.lan/acme"}, "good ca.lan signs, and writes to me@berth"),
        ({"DOMAIN": "localhost"}, "good none is asked while DOMAIN is localhost"),
        ({"DOMAIN": "a.localhost"}, "good none is asked while DOMAIN is a.localhost"),
    ],
    indirect=["facts"],
)
def test_an_authority_is_judged(facts: Facts, says: str) -> None:
    """For trying or for good, and whether it has an address to write to."""
    assert short(network.authority(facts)).startswith(says)


@pytest.mark.parametrize(
    ("found", "here", "says"),
    [
        (["127.0.1.1"], "10.0.0.5", "warning shop.berth.dev leads to 127.0.1.1 by this machine's"),
        (["192.0.2.7"], "10.0.0.5", "good shop.berth.dev leads to 192.0.2.7; this machine is 10.0"),
        (["192.0.2.7"], "", "good shop.berth.dev leads to 192.0.2.7; this machine is offline"),
        (["192.0.2.7"], "8.8.8.8", "bad shop.berth.dev leads to 192.0.2.7, and this machine is 8."),
    ],
)
def test_addresses_are_judged_without_crying_wolf(
    facts: Facts, found: list[str], here: str, says: str
) -> None:
    """Behind a router's address translation, nothing can be told from here."""
    assert short(network.judge(endpoint(facts), found, here, "")).startswith(says)


@pytest.mark.parametrize(
    "facts",
    [{"TRUSTED_PROXIES": "192.0.2.7,cloudflare", "REDIRECT_DOMAINS": "berth.dev"}],
    indirect=True,
)
def test_every_name_may_lead_to_a_proxy_that_is_trusted(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose address is not this machine's; the worst of what is found is what is said."""
    leads = {"shop.berth.dev": ["104.16.1.2", "2606:4700::1"], "berth.dev": ["192.0.2.7"]}
    monkeypatch.setattr(network, "resolve", leads.__getitem__)
    monkeypatch.setattr(network, "source_address", lambda: "8.8.8.8")
    assert short(network.dns(facts)) == (
        "good shop.berth.dev leads to 104.16.1.2, 2606:4700::1, of TRUSTED_PROXIES; "
        "berth.dev leads to 192.0.2.7, of TRUSTED_PROXIES"
    )
    leads["berth.dev"] = ["192.0.2.8"]
    assert short(network.dns(facts)).startswith("bad berth.dev leads to 192.0.2.8, and this")


@pytest.mark.parametrize(
    ("facts", "level"),
    [({}, "warning"), ({"BIND_ADDRESS_IPV6": "::"}, "good")],
    indirect=["facts"],
)
def test_an_ipv6_address_that_is_not_published_is_seen(
    facts: Facts, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients would try it first."""
    monkeypatch.setattr(network, "resolve", lambda _: ["192.0.2.7", "2001:db8::7"])
    monkeypatch.setattr(network, "source_address", lambda: "10.0.0.5")
    found = network.dns(facts)
    assert found.level == level
    assert level == "good" or found.way_out.startswith("BIND_ADDRESS_IPV6=:: in .env, or remove")


def test_this_machines_addresses_are_known(facts: Facts) -> None:
    """And the one that it sends from is among them."""
    here = network.source_address()
    if here:
        assert network.is_local(here)
        assert short(network.judge(endpoint(facts), [here], here, "")).startswith("good")
    assert not network.is_local("192.0.2.7")


@pytest.mark.parametrize("facts", [{"DOMAIN": "nowhere.invalid"}], indirect=True)
def test_a_name_that_nobody_has_is_not_good(facts: Facts) -> None:
    """Bad where a DNS server says so; where none answers, that is said."""
    assert network.dns(facts).level != "good"


@pytest.mark.parametrize("facts", [{"TRAEFIK_IMAGE": "traefik:v3.6.9"}], indirect=True)
def test_a_traefik_that_is_too_old_is_named(facts: Facts) -> None:
    """Its routes would not be understood."""
    assert machine.versions(facts).says.endswith("traefik:v3.6.9: the routes need Traefik 3.7")


def test_an_engine_that_is_too_old_is_bad(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose would refuse `start_interval` there."""
    said = '{"Server": {"Version": "24.0.9", "ApiVersion": "1.43"}}'
    monkeypatch.setattr(machine, "docker", lambda *_: said)
    found = machine.versions(facts)
    assert short(found).startswith("bad Docker 24.0.9 (API 1.43)")
    assert found.way_out == "install Docker Engine 25 or newer"


def test_a_disk_with_too_little_room_is_bad(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the figures."""
    assert machine.disk(facts).level != "bad"
    monkeypatch.setattr(preflight, "NEEDED_BYTES", 10**18)
    found = machine.disk(facts)
    assert found.level == "bad"
    assert "GB free for Docker" in found.says


@pytest.mark.parametrize(
    "facts", [{"BACKUP_DIR": "/var"}, {"BACKUP_DIR": "backups"}], indirect=True
)
def test_backups_on_the_databases_own_disk_are_seen(facts: Facts) -> None:
    """Whether in a folder or in a volume."""
    var = replace(facts, engine={"DockerRootDir": "/var"})
    assert data.is_on_dockers_disk(var)
    assert not data.is_on_dockers_disk(replace(facts, engine={"DockerRootDir": "/nowhere"}))


@pytest.mark.parametrize("facts", [{"BACKUP_DIR": "/proc"}], indirect=True)
def test_backups_on_another_disk_are_well(facts: Facts) -> None:
    """There they survive this one."""
    assert not data.is_on_dockers_disk(facts)


@pytest.fixture
def late(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server whose clock is two minutes behind."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(405)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate((timestamp or time.time()) - 120, usegmt=True)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "late")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "late.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield f"https://127.0.0.1:{server.server_port}/directory"
        server.shutdown()


def test_a_wrong_clock_is_seen_by_a_web_servers(late: str) -> None:
    """Whether or not its certificate is good by this clock."""
    assert machine.seconds_off(late) == pytest.approx(120, abs=30)


def test_who_does_not_answer_tells_no_time() -> None:
    """Offline is no error."""
    assert machine.seconds_off("https://127.0.0.1:1/directory") is None


def replica(number: int, state: State, complaint: str = "") -> Container:
    """Return a replica in a state."""
    return Container(
        id=f"{number}",
        name=f"api-{number}",
        service="api",
        number=number,
        image="",
        config_hash="",
        state=state,
        exit_code=0,
        restarts=0,
        started=NOW - datetime.timedelta(days=1),
        out_of_memory=False,
        complaint=complaint,
    )


def test_hung_and_unready_replicas_are_told_apart(facts: Facts) -> None:
    """One that hangs says nothing to its health check."""
    found = service.replicas(
        Facts(
            facts.stack,
            [
                replica(1, State.HEALTHY),
                replica(2, State.UNHEALTHY),
                replica(3, State.UNHEALTHY, " (draining)"),
            ],
            {},
            NOW,
            "",
        )
    )
    assert short(found) == (
        "warning 1 of 3 are healthy (API_REPLICAS=2): api-2 hangs, and is about to be ended, "
        "api-3 unhealthy (draining)"
    )


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (
            "http_server_recent_failures 6.0\nhttp_server_recent_requests 11.0",
            "bad in the last two minutes api-1 is not well: 6 of 11 were answered by 5xx",
        ),
        ("http_server_recent_requests 12.0\nhttp_server_recent_failures 6.0", "good 6 of 12 were"),
        ("http_server_recent_requests 4.0\nhttp_server_recent_failures 4.0", "good 4 of 4 were"),
        ("", "good 0 of 0 were 5xx in the last two minutes"),  # an older Berth's
    ],
)
def test_a_replica_that_fails_most_requests_is_not_well(
    facts: Facts, told: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However ready it says that it is; a few requests tell nothing."""
    monkeypatch.setattr(service, "docker", lambda *_: told)
    replicas = [replica(1, State.HEALTHY), replica(2, State.UNHEALTHY)]
    found = service.answers(replace(facts, containers=replicas))
    assert short(found).startswith(says)
    assert found.level == "good" or "docker compose logs api" in found.way_out


def test_a_check_that_fails_is_a_line(facts: Facts) -> None:
    """And the others are carried out."""

    def refuses(_: Facts) -> Finding:
        raise UserError("the engine is away")

    def breaks(_: Facts) -> Finding:
        raise ZeroDivisionError("by zero")

    found = doctor.carry_out({"a": refuses, "b": breaks, "c": lambda _: good("fine")}, facts)
    assert "\n".join(line(check, one) for check, one in found.items()) == (
        "✗ a           the engine is away\n"
        "! b           not examined: ZeroDivisionError: by zero\n"
        "              → an error of the doctor's\n"
        "✓ c           fine"
    )


def test_an_engine_that_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a program that only looks."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "docker.sock"))
        one.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        monkeypatch.setattr(docker, "patience", 0.5)
        with pytest.raises(docker.DockerError, match=r"docker ps gave no answer in 0\.5 s"):
            docker.docker("ps")


@pytest.mark.parametrize(
    ("lines", "profiles", "says"),
    [
        ([], "offsite", "good none of your own need a copy"),
        (["uploads: {labels: {berth.backup: none}}"], "", "good none of your own need a copy"),
        (["uploads: {driver_opts: {type: tmpfs, device: x}}"], "", "good none of your own"),
        (["uploads:", "thumbnails:"], "offsite", "warning on this machine alone: thumbnails"),
        (["uploads:"], "", "warning on this machine alone: uploads"),
        (["uploads:"], "offsite", "good copied off-site with the backups: uploads"),
    ],
)
def test_volumes_of_the_users_own_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], profiles: str, says: str
) -> None:
    """Without their copy they are named, unless it is said that they need none."""
    file = tmp_path / "own.yaml"
    names = [line.partition(":")[0] for line in lines]
    copied = [f"{name}:/volumes/{name}" for name in names]
    # What is copied and would not come back is alone, too.
    services = {"offsite": {"volumes": copied}, "fetch": {"volumes": copied[:1]}}
    text = f"services: {json.dumps(services)}\nvolumes:\n  " + "\n  ".join(lines)
    file.write_text(text)
    monkeypatch.setenv("COMPOSE_FILE", f"compose.yaml:{file}")
    variables = LIVE | {"COMPOSE_PROFILES": profiles, "COMPOSE_FILE": f"compose.yaml:{file}"}
    facts = Facts(read(**variables), [], {}, NOW, "")
    assert short(data.volumes(facts)).startswith(says)
