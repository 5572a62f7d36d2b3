"""Certificates that one service orders for all machines, of a real authority beside them."""

import socket
import ssl
from collections.abc import Iterator

import pytest
import requests
from cryptography import x509

from tests.stack import pebble
from tests.stack.stack import DOMAIN, HERE, docker, poll
from tests.swarm.events import await_answers, lead_away, revive_machine
from tests.swarm.swarm import Swarm

# It signs for so long that Traefik renews at once what it looks at: 20 minutes before the end.
VALID_SECONDS = 21 * 60


@pytest.fixture(scope="module")
def authority(swarm: Swarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Pebble that finds the domain at all machines, and from here on orders go to it."""
    machines, before = swarm.machines, dict(swarm.stack.environment)
    scratch = tmp_path_factory.mktemp("authority")
    address = machines.address(machines.count + 2)
    signs = pebble.prepare(scratch / "pebble", certificate_seconds=VALID_SECONDS, host=address)
    name = f"{machines.name}-pebble"
    docker("build", "--quiet", "--tag=berth-test-pebble", f"{HERE}/pebble")
    docker(
        *("run", "--detach", f"--name={name}", f"--network={machines.network}", f"--ip={address}"),
        *(f"--add-host={DOMAIN}:{machines.address(number)}" for number in machines.numbers),
        *("--env=PEBBLE_VA_NOSLEEP=1", f"--volume={signs.parent}:/etc/pebble:ro"),
        *("--publish=127.0.0.1::15000", "berth-test-pebble"),
    )
    try:
        at = docker("port", name, "15000")
        root = scratch / "root.pem"
        root.write_text(poll("Pebble", lambda: roots(at)))
        overlay = scratch / "compose.yaml"
        overlay.write_text(
            "services: {acme: {environment: "
            "{TRAEFIK_CERTIFICATESRESOLVERS_ACME_ACME_CERTIFICATESDURATION: '1'}}}"
        )
        swarm.stack.environment |= {
            "TLS_CERTIFICATE": "",
            "TLS_KEY": "",
            "ACME_EMAIL": f"owner@{DOMAIN}",
            "ACME_CA_SERVER": f"https://{address}:14000/dir",
            "ACME_CA_CERTIFICATE": str(signs),
            "COMPOSE_FILE": f"{before['COMPOSE_FILE']}:{overlay}",
            # Where all that asks comes from, as behind a balancer.
            "PROXY_PROTOCOL": machines.address(-1),
        }
        trusted, swarm.stack.root = swarm.stack.root, root
        yield name
        swarm.stack.environment, swarm.stack.root = before, trusted
        swarm.make("swarm-deploy")
    finally:
        docker("rm", "--force", "--volumes", name)


def roots(address: str) -> str:
    """Return the certificate that Pebble's chain ends in, once it answers."""
    try:
        return requests.get(f"https://{address}/roots/0", verify=False, timeout=10).text  # noqa: S501
    except requests.RequestException:
        return ""


def served(swarm: Swarm) -> dict[int, x509.Certificate]:
    """Return which certificate each machine that clients are led to shows."""
    context = ssl._create_unverified_context()  # noqa: S323, SLF001 - only looked at
    found = {}
    for number, port in swarm.stack.ports.items():
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=DOMAIN) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
        assert der is not None
        found[number] = x509.load_der_x509_certificate(der)
    return found


def one_for_all(swarm: Swarm, *, but: int = 0) -> int:
    """Return the serial number of the authority's certificate that all show; not one before."""
    try:
        found = served(swarm).values()
    except OSError:
        return 0
    serials = {one.serial_number for one in found if "Pebble" in one.issuer.rfc4514_string()}
    return serials.pop() if len(serials) == 1 and len(found) and serials != {but} else 0


def accounts(authority: str) -> int:
    """Return how many accounts the authority has been asked for."""
    return docker("logs", authority).count("accounts in memory")


def lead_authority_away(authority: str, address: str) -> None:
    """Have the domain's name lead to the other machines."""
    script = f"grep -v '^{address}' /etc/hosts > /dev/shm/hosts; cat /dev/shm/hosts > /etc/hosts"
    docker("exec", "--user=root", authority, "sh", "-c", script)


def test_certificate_is_ordered_once_for_all(swarm: Swarm, authority: str) -> None:
    """By whichever machine the authority asks; no deploy is needed for it to be renewed."""
    swarm.make("swarm-deploy")
    first = poll("one certificate", lambda: one_for_all(swarm), seconds=150)
    for number in swarm.machines.numbers:
        await_answers(swarm, number)
    assert poll("another one", lambda: one_for_all(swarm, but=first), seconds=240)
    assert accounts(authority) == 1


@pytest.mark.usefixtures("authority")
def test_balancer_says_whose_connection_it_is(swarm: Swarm) -> None:
    """By the PROXY protocol, to every machine."""
    for port in swarm.machines.https.values():
        said = swarm.stack.passed_on("/where", "203.0.113.40", port)
        assert '"client":"203.0.113.40"' in said


@pytest.mark.usefixtures("authority")
def test_traefik_that_starts_while_nobody_orders_has_the_last_certificate(swarm: Swarm) -> None:
    """It is on its machine."""
    machines, acme = swarm.machines, f"{swarm.stack.project}_acme"
    machines.docker(1, "service", "scale", "--detach", f"{acme}=0")
    poll("nobody", lambda: not swarm.tasks("acme"))
    shown = poll("what is left", lambda: one_for_all(swarm))
    before = swarm.tasks("traefik")
    for number in machines.numbers:
        (task,) = (one for one, node in before.items() if node == f"node{number}")
        machines.docker(number, "rm", "--force", task)
    poll("others", lambda: len(set(swarm.tasks("traefik")) - set(before)) == machines.count)
    for number in machines.numbers:
        await_answers(swarm, number)
    assert one_for_all(swarm) == shown
    machines.docker(1, "service", "scale", "--detach", f"{acme}=1")
    poll("somebody", lambda: swarm.tasks("acme"))


def test_machine_that_orders_dies_and_another_goes_on(swarm: Swarm, authority: str) -> None:
    """With the same account and certificates: what is served meanwhile stays as it was."""
    (node,) = swarm.tasks("acme").values()
    dead = int(node[-1])
    other = dead % swarm.machines.count + 1
    swarm.by(other)
    try:
        swarm.machines.kill(dead)
        lead_away(swarm, dead)
        lead_authority_away(authority, swarm.machines.address(dead))
        shown = poll("what is left", lambda: one_for_all(swarm))
        poll("another", lambda: set(swarm.tasks("acme").values()) - {node}, seconds=90)
        assert poll("a new one", lambda: one_for_all(swarm, but=shown), seconds=240)
        assert accounts(authority) == 1
    finally:
        revive_machine(swarm, dead)
        swarm.by(1)
    assert poll("all three again", lambda: one_for_all(swarm), seconds=60)
