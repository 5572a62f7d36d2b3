"""Wildcards: certificates by a record in the DNS, and every name below."""

import ssl
from collections.abc import Iterator

import pytest
import requests

from tests.stack import knot
from tests.stack.stack import (
    DOMAIN,
    HERE,
    Stack,
    copy_of_repository,
    docker,
    poll,
    running_with_ca,
)
from tests.stack.test_names_and_proxies import called, is_signed, subjects

OLD = f"old.{DOMAIN}"


@pytest.fixture(scope="module")
def secret() -> list[str]:
    """What lets Traefik change the DNS, once there is one."""
    return []


@pytest.fixture(scope="module")
def wildcards(tmp_path_factory: pytest.TempPathFactory, secret: list[str]) -> Iterator[Stack]:
    """One replica for a name and all below it, and all below another that lead there."""
    scratch = tmp_path_factory.mktemp("wildcards")
    copy = copy_of_repository(scratch)
    secret.append(knot.prepare(scratch / "knot", copy / "keys/dns", DOMAIN))
    with running_with_ca(
        "berth-test-wildcards",
        scratch,
        scale=1,
        folder=copy,
        overlays=["knot"],
        DOMAINS=f"*.{DOMAIN}",
        REDIRECT_DOMAINS=f"*.{OLD}",
        ACME_DNS_PROVIDER="rfc2136",
        KNOT_BUILD=f"{HERE}/knot",
        KNOT_FOLDER=f"{scratch}/knot",
    ) as stack:
        poll("the other certificate", lambda: has_certificate(called(stack, f"any.{OLD}")))
        yield stack


def has_certificate(stack: Stack) -> bool:
    """Whether there is one for the name: for names below a wildcard Traefik's own is none."""
    try:
        return is_signed(stack)
    except ssl.SSLError:
        return False


@pytest.mark.parametrize("name", [DOMAIN, f"shop.{DOMAIN}", f"any-other.{DOMAIN}"])
def test_all_names_below_a_wildcard_are_served(wildcards: Stack, name: str) -> None:
    """With one certificate for the wildcard and its own name."""
    below = called(wildcards, name)
    assert below.get("/items").status_code == requests.codes.ok
    assert sorted(subjects(below.certificate())) == [f"*.{DOMAIN}", DOMAIN]


def test_a_wildcard_may_lead_elsewhere(wildcards: Stack) -> None:
    """Over a certificate of its own."""
    old = called(wildcards, f"shop.{OLD}")
    with old.session() as session:
        answer = session.get(old.url("/items"), allow_redirects=False, timeout=5)
    assert answer.headers["Location"] == f"https://{DOMAIN}:{wildcards.https_port}/items"
    assert subjects(old.certificate()) == [f"*.{OLD}"]


def test_maintenance_closes_names_below_too(wildcards: Stack) -> None:
    """And lets them in again."""
    below = called(wildcards, f"shop.{DOMAIN}")
    wildcards.run("make", "maintenance", "ON=1")
    try:
        for stack in (wildcards, below):
            assert stack.get("/items").status_code == requests.codes.service_unavailable
            assert stack.get("/livez").status_code == requests.codes.ok
    finally:
        wildcards.run("make", "maintenance", "OFF=1")
    poll("visitors let in", lambda: below.answers("/items"))


@pytest.mark.parametrize("name", [f"a.shop.{DOMAIN}", OLD.replace(DOMAIN, "other.test")])
def test_names_elsewhere_stay_unknown(wildcards: Stack, name: str) -> None:
    """Two levels below a wildcard, too: there, its certificate is not good."""
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        called(wildcards, name).certificate()
    below = called(wildcards, f"shop.{DOMAIN}")
    with below.session() as session:
        answer = session.get(below.url("/items"), headers={"Host": name}, timeout=5)
    assert answer.status_code == requests.codes.not_found


def test_the_dns_providers_secret_does_not_show(wildcards: Stack, secret: list[str]) -> None:
    """Neither to who may inspect containers, nor in what Compose prints or Traefik logs."""
    ids = docker("ps", "--all", "--quiet", f"--filter=name={wildcards.project}-").split()
    shown = docker("inspect", *ids) + wildcards.compose("config") + wildcards.logs("traefik")
    assert secret[0] not in shown


def test_the_doctor_looks_at_a_name_below(wildcards: Stack) -> None:
    """And at no port 80."""
    found = wildcards.doctor()["certificate"]
    assert found["level"] == "good"
    for name in (DOMAIN, f"any.{DOMAIN}", f"any.{OLD}"):
        assert f"https://{name}:{wildcards.https_port}: by Pebble" in found["says"]
