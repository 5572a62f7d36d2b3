"""Several names, each with its certificate; and true addresses of clients behind a proxy."""

import json
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from ipaddress import ip_network

import pytest
import requests
from cryptography import x509

from tests.stack import ipv6
from tests.stack.inside import in_network_of
from tests.stack.stack import DOMAIN, Stack, docker, poll, running_with_ca

OK = requests.codes.ok
OUT = requests.codes.service_unavailable
TOO_MANY = requests.codes.too_many_requests
SERVED = ["shop.test", "www.shop.test"]
MOVED = "old.test"
RATE = 5
BURST = 2 * RATE


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica under four names; every test's request comes from a proxy that is trusted."""
    with running_with_ca(
        "berth-test-names",
        tmp_path_factory.mktemp("names"),
        scale=1,
        overlays=["names", "faults"],
        DOMAINS=",".join(SERVED),
        REDIRECT_DOMAINS=MOVED,
        # Docker's own networks, from where it passes on what comes to a published port.
        TRUSTED_PROXIES=f"cloudflare,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,{ipv6.PROXY}",
        # The same, for what passes connections on.
        PROXY_PROTOCOL="10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
        BIND_ADDRESS_IPV6=ipv6.everywhere(),
        RATE_LIMIT=str(RATE),
        LOG_LEVEL="DEBUG",
    ) as stack:
        others = [called(stack, name) for name in [*SERVED, MOVED]]
        poll("the other names' certificates", lambda: all(map(is_signed, others)))
        yield stack


def called(stack: Stack, name: str) -> Stack:
    """Return the same stack, asked under another name."""
    other = copy(stack)
    other.domain = name
    return other


def subjects(certificate: x509.Certificate) -> list[str]:
    """Return the names that a certificate is for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName)


def is_signed(stack: Stack) -> bool:
    """Whether the certificate is the authority's, not Traefik's own."""
    return "TRAEFIK" not in stack.certificate().issuer.rfc4514_string()


def client(stack: Stack, forwarded: str, path: str = "/where") -> requests.Response:
    """GET a path for a client of whom the proxy says so."""
    with stack.session() as session:
        headers = {"X-Forwarded-For": forwarded}
        return session.get(stack.url(path), headers=headers, allow_redirects=False, timeout=20)


@pytest.mark.parametrize("name", [DOMAIN, *SERVED])
def test_every_name_serves_with_a_certificate_of_its_own(names: Stack, name: str) -> None:
    """Which a browser would accept; and addresses that the app makes have the name asked for."""
    other = called(names, name)
    assert client(other, "203.0.113.1").json()["url"] == f"https://{name}/where"
    assert subjects(other.certificate()) == [name]


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("POST", 308)])
def test_a_name_that_has_moved_leads_to_the_first(names: Stack, method: str, status: int) -> None:
    """With path and query, over a certificate of its own."""
    old = called(names, MOVED)
    with old.session() as session:
        path = "/items?limit=1&name=a%2Cb"
        answer = session.request(method, old.url(path), allow_redirects=False, timeout=5)
    assert answer.status_code == status
    assert answer.headers["Location"] == f"https://{DOMAIN}:{names.https_port}{path}"
    assert subjects(old.certificate()) == [MOVED]


@pytest.mark.parametrize("name", [DOMAIN, *SERVED, MOVED])
def test_plain_http_of_every_name_leads_to_https(names: Stack, name: str) -> None:
    """Of the same name, so that browsers learn to stay there."""
    http = f"http://127.0.0.1:{names.http_port}/items"
    answer = requests.post(http, headers={"Host": name}, allow_redirects=False, timeout=5)
    assert answer.status_code == requests.codes.permanent_redirect
    assert answer.headers["Location"] == f"https://{name}:{names.https_port}/items"
    there = client(called(names, name), "203.0.113.2", "/livez")
    assert "Strict-Transport-Security" in there.headers


def test_a_name_that_nobody_gave_stays_unknown(names: Stack) -> None:
    """No certificate, and under the name of another host no route."""
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        called(names, "other.test").certificate()
    with names.session() as session:
        headers = {"Host": "other.test"}
        answer = session.get(names.url("/where"), headers=headers, timeout=5)
    assert answer.status_code == requests.codes.not_found


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        # What the client itself pretended stands before what the proxy saw.
        ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
        # Two proxies.
        ("6.6.6.6, 203.0.113.7, 173.245.48.5", "203.0.113.7"),
        ("203.0.113.7, 2606:4700::5", "203.0.113.7"),
    ],
)
def test_the_app_sees_the_client_of_a_trusted_proxy(
    names: Stack, forwarded: str, address: str
) -> None:
    """The last address that is no proxy's."""
    assert client(names, forwarded).json()["client"] == address


def test_nothing_else_that_a_proxy_passes_on_is_believed(names: Stack) -> None:
    """Proxies leave most headers of clients as they are."""
    headers = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.test",
        "X-Forwarded-Prefix": "/evil",
        "X-Real-Ip": "6.6.6.6",
    }
    with names.session() as session:
        said = session.get(names.url("/where"), headers=headers, timeout=5).json()
        raw = session.get(names.url("/headers"), headers=headers, timeout=5).json()
    assert said == {"client": "203.0.113.7", "url": f"https://{DOMAIN}/where"}
    assert not {"x-real-ip", "x-forwarded-host", "x-forwarded-prefix"} & set(raw)


# Requests of somebody who is no proxy: on Traefik's own network, from 127.0.0.1.
STRANGER = """
import http.client, json, socket, ssl, sys
from concurrent.futures import ThreadPoolExecutor
domain, count = sys.argv[1], int(sys.argv[2])
def ask(number):
    pretended = sys.argv[3] if sys.argv[3:] else f"203.0.113.{number}"
    raw = socket.create_connection(("127.0.0.1", 443), timeout=20)
    connection = http.client.HTTPConnection(domain)
    connection.sock = ssl._create_unverified_context().wrap_socket(raw, server_hostname=domain)
    headers = {"Host": domain, "X-Forwarded-For": pretended, "X-Real-Ip": "6.6.6.6"}
    connection.request("GET", "/where", headers=headers)
    answer = connection.getresponse()
    return [answer.status, answer.read().decode()]
with ThreadPoolExecutor(16) as threads:
    print(json.dumps(list(threads.map(ask, range(count)))))
"""


def test_a_stranger_cannot_pretend_beside_a_trusted_proxy(names: Stack) -> None:
    """Neither to the app, nor to have others' share of the limit."""
    answers = in_network_of(names, "traefik", STRANGER, DOMAIN, "100")
    statuses = Counter(status for status, _ in answers)
    assert set(statuses) == {OK, TOO_MANY}
    assert statuses[OK] >= BURST
    assert {json.loads(body)["client"] for status, body in answers if status == OK} == {"127.0.0.1"}


def test_what_passes_connections_on_says_whose_they_are(names: Stack) -> None:
    """By the PROXY protocol: the client itself is then no proxy, whatever its headers say."""
    said = names.passed_on("/where", "203.0.113.40", names.https_port)
    assert '"client":"203.0.113.40"' in said


# What one says of a connection who is none of those.
PRETENDER = """
import json, socket, ssl, sys
raw = socket.create_connection(("127.0.0.1", 443), timeout=20)
raw.sendall(b"PROXY TCP4 203.0.113.41 192.0.2.1 4444 443\\r\\n")
secured = ssl._create_unverified_context().wrap_socket(raw, server_hostname=sys.argv[1])
secured.sendall(f"GET /where HTTP/1.0\\r\\nHost: {sys.argv[1]}\\r\\n\\r\\n".encode())
print(json.dumps(b"".join(iter(lambda: secured.recv(65536), b"")).decode()))
"""


def test_a_stranger_cannot_pretend_to_pass_connections_on(names: Stack) -> None:
    """It is the client, or nobody's."""
    said = in_network_of(names, "traefik", PRETENDER, DOMAIN)
    assert "203.0.113.41" not in said
    assert '"client":"127.0.0.1"' in said


@pytest.mark.parametrize(
    ("forwarded", "is_one"),
    [
        ("203.0.113.20", True),
        ("6.6.6.{number}, 203.0.113.21", True),
        ("2001:db8:1:1::{number}", True),
        ("198.51.100.{number}", False),
        ("2001:db8:2:{number}::1", False),
        ("6.6.6.{number}, 203.0.113.22, 173.245.48.{number}", True),
        ("198.51.100.{number}, 173.245.48.5", False),
        ("2001:db8:3:{number}::1, 2a06:98c7::5", False),
    ],
    ids=[
        *("one", "one that pretends", "one network", "many", "many networks"),
        *("one behind two proxies", "many behind two", "many networks behind two"),
    ],
)
def test_each_client_behind_a_proxy_has_a_limit_of_its_own(
    names: Stack, forwarded: str, is_one: bool
) -> None:
    """However it begins the header; all addresses of an IPv6 client's network are one."""
    with names.session() as session, ThreadPoolExecutor(16) as clients:

        def ask(number: int) -> int:
            headers = {"X-Forwarded-For": forwarded.format(number=number)}
            return session.get(names.url("/livez"), headers=headers, timeout=20).status_code

        statuses = Counter(clients.map(ask, range(100)))
    assert statuses[OK] >= BURST
    assert set(statuses) == ({OK, TOO_MANY} if is_one else {OK})


def test_the_log_has_the_clients_address(names: Stack) -> None:
    """As the proxy told it."""
    own_id = client(names, "203.0.113.30", "/nothing").headers["X-Request-ID"]
    assert logged_client(names, own_id) == "203.0.113.30"


def logged_client(stack: Stack, request_id: str) -> str:
    """Return whose request it was, as Traefik's log has it."""
    (line,) = poll(
        "the line", lambda: [x for x in stack.logs("traefik").splitlines() if request_id in x]
    )
    return str(json.loads(line)["ClientHost"])


def test_clients_by_ipv6_are_told_apart(names: Stack) -> None:
    """In the app, in the log and by limits, where a network of 2^64 addresses is one client's."""
    with ipv6.client(names) as client:
        seen = client.ask(names, "/where", ipv6.CLIENT, ipv6.PROXY)
        assert [json.loads(one.body)["client"] for one in seen] == [ipv6.CLIENT, "2001:db8::7"]
        (lost,) = client.ask(names, "/nothing", ipv6.STRANGER)
        assert logged_client(names, lost.request_id) == ipv6.STRANGER
        began = time.monotonic()
        *many, other = client.ask(
            names, "/livez", *[ipv6.CLIENT, ipv6.NEIGHBOUR] * 50, ipv6.STRANGER
        )
        took = time.monotonic() - began
    statuses = Counter(one.status for one in many)
    assert set(statuses) == {OK, TOO_MANY}
    # Each by itself would have as much.
    assert statuses[OK] <= BURST + RATE * took + 1
    assert other.status == OK


def test_maintenance_knows_the_clients_of_a_proxy(names: Stack) -> None:
    """Those who may pass it, under every name; nobody can pretend, and nobody is cut off."""
    other = called(names, SERVED[0])
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client, names, "203.0.113.42", "/sleep/6")
        poll("a request under way", lambda: "begun" in names.logs("api"))
        names.run("make", "maintenance", "ON=1", "ALLOW=203.0.113.40, 2001:db8::40")
    try:
        assert slow.result().status_code == OK
        for stack, forwarded, status in (
            (names, "203.0.113.40", OK),
            (names, "6.6.6.6, 203.0.113.40", OK),
            (other, "2001:db8::40", OK),
            (names, "203.0.113.40, 6.6.6.6", OUT),
            (other, "203.0.113.4", OUT),
            (names, "203.0.113.140", OUT),
        ):
            assert client(stack, forwarded).status_code == status, forwarded
        ((status, _),) = in_network_of(names, "traefik", STRANGER, DOMAIN, "1", "203.0.113.40")
        assert status == OUT
    finally:
        names.run("make", "maintenance", "OFF=1")
    poll("everybody let in", lambda: client(names, "203.0.113.41").status_code == OK)


def test_cloudflare_is_its_published_networks(names: Stack) -> None:
    """Each of them whole, and trusted by Traefik."""
    (traefik,) = names.containers("traefik")
    environment = docker("exec", traefik["Id"], "cat", "/proc/1/environ").split("\0")
    option = "TRAEFIK_ENTRYPOINTS_WEBSECURE_FORWARDEDHEADERS_TRUSTEDIPS="
    (trusted,) = (one.removeprefix(option) for one in environment if one.startswith(option))
    found = [ip_network(one) for one in trusted.split(",")]
    assert len(found) == 22 + 4
    assert ip_network("173.245.48.0/20") in found
    assert ip_network("2c0f:f248::/32") in found


def test_a_further_name_leaves_the_first_ones_certificate_alone(names: Stack) -> None:
    """Authorities count how often they sign for a name; the doctor looks at each name."""
    before = {name: called(names, name).certificate().serial_number for name in [DOMAIN, *SERVED]}
    names.environment["DOMAINS"] += ",late.test"
    names.compose("up", "--detach", "--wait", "--no-deps", "traefik")
    late = called(names, "late.test")
    poll("the new name", lambda: late.answers())
    after = {name: called(names, name).certificate().serial_number for name in before}
    assert after == before
    found = names.doctor()["certificate"]
    assert found["level"] == "good"
    for name in [DOMAIN, *SERVED, MOVED, "late.test"]:
        assert f"https://{name}:{names.https_port}: by Pebble" in found["says"]
    found = names.doctor(DOMAINS="nowhere.test")["certificate"]
    assert found["level"] == "bad"
    assert "nowhere.test" in found["says"]
