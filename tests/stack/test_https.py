"""Certificates come, stay and renew by themselves, and plain HTTP leads to HTTPS."""

from collections.abc import Iterator

import pytest
import requests
from cryptography import x509

from tests.stack.stack import DOMAIN, Stack, poll, running


@pytest.fixture(scope="module")
def local() -> Iterator[Stack]:
    """What somebody gets who configured nothing."""
    with running("berth-test-local", scale=1) as stack:
        poll("https://localhost", stack.answers)
        yield stack


def test_domain_gets_a_certificate_that_a_browser_would_accept(stack: Stack) -> None:
    """The chain verifies against the authority's root, for the domain, on a plain GET."""
    assert stack.root is not None
    assert stack.get("/items").status_code == requests.codes.ok
    names = stack.certificate().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [DOMAIN]


def test_certificate_survives_a_restart_of_traefik(stack: Stack) -> None:
    """It is stored: a restart asks the authority for nothing."""
    before = stack.certificate().serial_number
    stack.compose("restart", "traefik")
    poll("HTTPS after the restart", stack.answers)
    assert stack.certificate().serial_number == before


def test_http_redirects_to_https_for_good(stack: Stack) -> None:
    """308 keeps the method, and the address is the one that users see."""
    answer = requests.post(
        f"http://127.0.0.1:{stack.http_port}/items?limit=1",
        headers={"Host": DOMAIN},
        allow_redirects=False,
        timeout=10,
    )
    assert answer.status_code == requests.codes.permanent_redirect
    assert answer.headers["Location"] == f"https://{DOMAIN}:{stack.https_port}/items?limit=1"


def test_browsers_are_told_to_stay_on_https(stack: Stack) -> None:
    """HSTS for a year, with a real domain."""
    assert stack.get("/items").headers["Strict-Transport-Security"] == "max-age=31536000"


def test_unreachable_authority_leaves_the_stack_serving() -> None:
    """Without a certificate of its own it serves Traefik's, and the log says why."""
    with running(
        "berth-test-no-ca", scale=1, DOMAIN=DOMAIN, ACME_CA_SERVER="https://127.0.0.1:9/dir"
    ) as stack:
        poll("HTTPS without a certificate", stack.answers)
        assert stack.certificate().issuer.rfc4514_string() == "CN=TRAEFIK DEFAULT CERT"
        log = poll(
            "the reason in the log",
            lambda: [
                x for x in stack.logs("traefik").splitlines() if "ERR" in x and "127.0.0.1:9" in x
            ],
        )
        assert "connection refused" in log[0]
        assert DOMAIN in log[0]


def test_nothing_configured_serves_localhost(local: Stack) -> None:
    """https://localhost answers, http://localhost leads there, and browsers are not bound to it."""
    answer = local.get("/items")
    assert answer.status_code == requests.codes.ok
    assert "Strict-Transport-Security" not in answer.headers
    redirect = requests.get(
        f"http://localhost:{local.http_port}/items", allow_redirects=False, timeout=10
    )
    assert redirect.headers["Location"] == f"https://localhost:{local.https_port}/items"


def test_nothing_configured_listens_on_loopback_alone(local: Stack) -> None:
    """The published ports are bound to 127.0.0.1."""
    (traefik,) = local.containers("traefik")
    bindings = traefik["NetworkSettings"]["Ports"].values()
    assert {published["HostIp"] for ports in bindings for published in ports} == {"127.0.0.1"}
