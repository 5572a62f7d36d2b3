"""The edge towards hostile clients: everything is bounded, nothing they say is believed."""

import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest
import requests
from websockets.sync.client import connect

from tests.stack.inside import attack
from tests.stack.stack import Stack, docker, poll, running_with_ca

OK = requests.codes.ok
OUT = requests.codes.service_unavailable
ATTACK_SECONDS = 10


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas that tell what they believe of a request, and HTTP/3."""
    scratch = tmp_path_factory.mktemp("edge")
    with running_with_ca(
        "berth-test-edge",
        scratch,
        scale=2,
        overlays=["faults"],
        HTTP3="true",
        CLIENT_IN_FLIGHT="300",
    ) as stack:
        yield stack


def send(stack: Stack, request: bytes) -> bytes:
    """Send bytes as they are over TLS; returns all that comes back until the end or a silence."""
    context = ssl._create_unverified_context()  # noqa: S323, SLF001 - not the matter here
    raw = socket.create_connection(("127.0.0.1", stack.https_port), timeout=5)
    with closing(raw), context.wrap_socket(raw, server_hostname=stack.domain) as connection:
        connection.settimeout(5)
        received = b""
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                received += part
        except OSError:
            pass  # closed, or silent
        return received


def upload(stack: Stack, head: str) -> bytes:
    """Send a body bit by bit for as long as nobody objects; returns the objection."""
    context = ssl._create_unverified_context()  # noqa: S323, SLF001 - not the matter here
    raw = socket.create_connection(("127.0.0.1", stack.https_port), timeout=5)
    with closing(raw), context.wrap_socket(raw, server_hostname=stack.domain) as connection:
        connection.sendall(head.encode())
        for _ in range(200):
            connection.sendall(b"x" * 65536)
            connection.settimeout(0.02)
            with suppress(TimeoutError):
                return connection.recv(65536)
            connection.settimeout(5)
    return b""


def test_answers_carry_the_headers_that_browsers_obey(edge: Stack) -> None:
    """No guessing of types, no frames, no referrer, HTTPS; what a page may run, its app says."""
    headers = edge.get("/items").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Content-Security-Policy" not in headers
    assert int(headers["Strict-Transport-Security"].removeprefix("max-age=")) >= 15_552_000


def test_the_client_address_cannot_be_made_up(edge: Stack) -> None:
    """Whatever headers say, it is the address that the connection comes from."""
    with edge.session() as session:
        honest = session.get(edge.url("/where"), timeout=5).json()["client"]
        for name in (
            "X-Forwarded-For",
            "X-Real-Ip",
            "Forwarded",
            "X_Forwarded_For",
            "True-Client-Ip",
        ):
            for value in ("6.6.6.6", "6.6.6.6, 10.0.0.1", "for=6.6.6.6"):
                said = session.get(edge.url("/where"), headers={name: value}, timeout=5).json()
                assert said["client"] == honest, name
    assert honest.startswith(("172.", "192.168."))


def test_addresses_that_the_app_makes_are_https(edge: Stack) -> None:
    """Redirects and generated URLs; headers from outside change neither scheme nor host."""
    with edge.session() as session:
        headers = {
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": "evil.test",
            "X-Forwarded-Port": "80",
            "X-Forwarded-Prefix": "/evil",
        }
        said = session.get(edge.url("/where"), headers=headers, timeout=5).json()
        assert said["url"] == f"https://{edge.domain}/where"
        moved = session.get(edge.url("/items/"), headers=headers, timeout=5, allow_redirects=False)
        assert moved.headers["Location"] == f"https://{edge.domain}/items"


def test_other_hosts_are_unknown(edge: Stack) -> None:
    """Under the right server name, too."""
    for host in ("evil.test", "127.0.0.1", "", f"{edge.domain}.evil.test", "api", "localhost"):
        request = f"GET /items HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert send(edge, request.encode()).split()[1] in {b"404", b"400"}, host


def test_headers_are_bounded(edge: Stack) -> None:
    """431 above about 32 KiB, over HTTP/1.1; what common clients send passes."""
    with edge.session() as session:
        for size, status in ((20_000, 200), (50_000, 431), (2_000_000, 431)):
            try:
                answer = session.get(edge.url("/items"), headers={"X-A": "x" * size}, timeout=5)
                assert answer.status_code == status
            except requests.ConnectionError:
                assert size > 1_000_000  # it stops listening long before the end


def test_addresses_and_bodies_are_bounded(edge: Stack) -> None:
    """414 above 8 KiB; 413 above MAX_BODY_BYTES, without waiting for all of it."""
    assert (
        edge.get(f"/items?after={'x' * 9000}").status_code == requests.codes.request_uri_too_large
    )
    head = f"POST /items HTTP/1.1\r\nHost: {edge.domain}\r\nContent-Type: application/json\r\n"
    assert upload(edge, head + "Content-Length: 100000000\r\n\r\n").split()[1] == b"413"
    chunk = "10000\r\n" + "x" * 0x10000 + "\r\n"
    chunked = head + "Transfer-Encoding: chunked\r\n\r\n" + chunk * 20 + "0\r\n\r\n"
    assert send(edge, chunked.encode()).split()[1] == b"413"
    assert edge.get("/items").status_code == OK


@pytest.mark.parametrize("path", ["/items%2f", "/items/%5c", "/items/%00", "/%2e%2e%2fitems"])
def test_encoded_separators_are_refused(edge: Stack, path: str) -> None:
    """Two readers could take them for different paths."""
    request = f"GET {path} HTTP/1.1\r\nHost: {edge.domain}\r\nConnection: close\r\n\r\n"
    assert send(edge, request.encode()).split()[1] == b"400"


SMUGGLED = "DELETE /items/{item} HTTP/1.1\r\nHost: {host}\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: {size}\r\nContent-Length: 0\r\n",
        "Content-Length: {size}, 0\r\n",
        "Content-Length: +{size}\r\n",
        "Content-Length: 0x{size}\r\n",
        "Content-Length : {size}\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: {size}\r\n",
        "Transfer-Encoding: chunked, identity\r\nContent-Length: {size}\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: {size}\r\n",
        "Transfer-Encoding : chunked\r\nContent-Length: {size}\r\n",
        "Transfer-Encoding:\x0bchunked\r\nContent-Length: {size}\r\n",
        "X-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: {size}\r\nbad header\r\n",
    ],
)
def test_ambiguous_framing_is_refused(edge: Stack, framing: str) -> None:
    """The connection ends with one answer, a refusal; no request is found in the body."""
    with edge.session() as session:
        created = session.post(edge.url("/items"), json={"name": "stays"}, timeout=5).json()
        hidden = SMUGGLED.format(item=created["id"], host=edge.domain)
        head = f"POST /items HTTP/1.1\r\nHost: {edge.domain}\r\n"
        request = head + framing.format(size=len(hidden)) + "\r\n" + hidden
        answers = send(edge, request.encode("latin-1"))
        assert answers.count(b"HTTP/1.1 ") == 1, answers
        assert answers.split()[1] in {b"400", b"501"}, answers
        assert session.get(edge.url(f"/items/{created['id']}"), timeout=5).status_code == OK


def test_a_request_in_a_body_stays_in_the_body(edge: Stack) -> None:
    """With both lengths given, Traefik and the app read the same one."""
    with edge.session() as session:
        created = session.post(edge.url("/items"), json={"name": "stays"}, timeout=5).json()
        hidden = SMUGGLED.format(item=created["id"], host=edge.domain)
        chunked = f"{len(hidden):x}\r\n{hidden}\r\n0\r\n\r\n"
        request = (
            f"POST /items HTTP/1.1\r\nHost: {edge.domain}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunked}"
        )
        answers = send(edge, request.encode())
        assert answers.count(b"HTTP/1.1 ") == 1
        assert answers.split()[1] in {b"400", b"422"}
        assert session.get(edge.url(f"/items/{created['id']}"), timeout=5).status_code == OK


def test_http_3_is_offered_where_it_is_set(edge: Stack, stack: Stack) -> None:
    """And works; elsewhere nothing mentions it, and no port is open for it."""
    assert edge.get("/items").headers["Alt-Svc"] == f'h3=":{edge.https_port}"; ma=2592000'
    said = attack(
        edge,
        *("curl", "--silent", "--insecure", "--http3-only", "--write-out=%{http_version}"),
        *("--output=/dev/null", f"https://{edge.domain}/items"),
    )
    assert said.stdout == "3"
    assert "Alt-Svc" not in stack.get("/items").headers
    assert "443/udp" not in stack.containers("traefik")[0]["NetworkSettings"]["Ports"]


SLOWLY = f"-c 1000 -r 500 -i 5 -p 3 -l {ATTACK_SECONDS}"


@pytest.mark.parametrize(
    ("attacks", "path"),
    [
        ("-H -t GET", "/items"),
        ("-B -s 8192 -t POST", "/items"),
        ("-X -w 1024 -y 2048 -n 5 -z 5 -k 3 -t GET", "/large/850000"),
    ],
    ids=["slow headers", "slow bodies", "slow readers"],
)
def test_a_thousand_slow_clients_leave_others_served(edge: Stack, attacks: str, path: str) -> None:
    """Every answer comes in time, and nothing runs out of memory."""
    began = [c["RestartCount"] for service in ("traefik", "api") for c in edge.containers(service)]
    under_way = threading.Event()
    answers: list[tuple[int, float]] = []

    def others() -> None:
        with edge.session() as session:
            while not under_way.is_set():
                answer = session.get(edge.url("/items"), timeout=10)
                answers.append((answer.status_code, answer.elapsed.total_seconds()))
                under_way.wait(0.05)

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(others)
        try:
            command = ["slowhttptest", *attacks.split(), *SLOWLY.split()]
            said = attack(edge, *command, "-u", f"https://{edge.domain}{path}")
        finally:
            under_way.set()
    assert served.exception() is None
    counts = re.sub(r"\x1b\[[\d;]*m", "", said.stdout).rpartition("initializing")[2]
    came = {kind: int(count) for kind, count in re.findall(r"(\w+): +(\d+)", counts)}
    assert came["connected"] + came["closed"] > 800, counts
    assert {status for status, _ in answers} == {OK}
    assert max(seconds for _, seconds in answers) < 5
    after = [c["RestartCount"] for service in ("traefik", "api") for c in edge.containers(service)]
    assert after == began


def test_traefik_answers_while_there_is_no_replica(edge: Stack) -> None:
    """503, and when to come back: both while they are ill and once they are gone."""
    replicas = [one["Id"] for one in edge.containers("api")]

    def refusal() -> Mapping[str, str] | None:
        with suppress(requests.RequestException):  # sent to one before it was known to be ill
            answer = edge.get("/items")
            return answer.headers if answer.status_code == OUT else None
        return None

    for leave, back in (("pause", "unpause"), ("stop", "start")):
        docker(leave, *replicas)
        try:
            headers = poll("no replica", refusal)
            assert headers["Retry-After"] == "1"
            assert headers["X-Content-Type-Options"] == "nosniff"
        finally:
            docker(back, *replicas)
        poll("the replicas", lambda: edge.answers() and len(edge.healthy()) == 2, seconds=60)


def test_traefik_knows_its_routes_before_it_answers(edge: Stack) -> None:
    """Until then connections are refused or closed; a 404 would be believed, and kept."""
    (traefik,) = edge.containers("traefik")
    context = ssl._create_unverified_context()  # noqa: S323, SLF001 - not the matter here
    request = f"GET /livez HTTP/1.1\r\nHost: {edge.domain}\r\nConnection: close\r\n\r\n".encode()
    answers: Counter[bytes] = Counter()
    done = threading.Event()

    def ask() -> None:
        # As fast as can be: what is looked for lasts for some ten milliseconds.
        while not done.is_set():
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", edge.https_port), timeout=5) as raw,
                context.wrap_socket(raw, server_hostname=edge.domain) as connection,
            ):
                connection.sendall(request)
                answers[connection.recv(100)[9:12]] += 1

    with ThreadPoolExecutor(2) as clients:
        asking = [clients.submit(ask) for _ in range(2)]
        try:
            for restart in range(1, 6):
                docker("kill", traefik["Id"])
                answers[b"200"] = 0
                docker("start", traefik["Id"])
                poll(f"start {restart}", lambda: answers[b"200"] > 5)
        finally:
            done.set()
    assert [one.exception() for one in asking] == [None, None]
    assert set(answers) <= {b"200", b"503", b""}


# Uploads of the largest size: all but the last byte at once, and that of all of them together when
# standard input says so.
UPLOADS = r"""
import json, socket, ssl, sys
from collections import Counter
address, domain, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = ssl._create_unverified_context()
head = f"POST /items HTTP/1.1\r\nHost: {domain}\r\nContent-Type: application/json\r\n"
body = b'{"name": "'
body += b"x" * (size - 2 - len(body)) + b'"'
def begin():
    raw = socket.create_connection((address, 443), timeout=60)
    connection = context.wrap_socket(raw, server_hostname=domain)
    connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
    try:
        connection.sendall(body)
    except OSError:
        pass # it has been refused meanwhile
    return connection
def end(connection):
    try:
        connection.sendall(b"}")
    except OSError:
        pass
def status(connection):
    try:
        return connection.recv(4096)[9:12].decode() or "closed"
    except OSError:
        return "closed"
connections = [begin() for _ in range(300)]
print("under way", flush=True)
sys.stdin.readline()
for one in connections:
    end(one)
print(json.dumps(Counter(map(status, connections))))
"""


# WebSockets whose messages of the largest size are echoed to nobody who reads, until there is
# one that never ends.
MESSAGES = r"""
import socket, ssl, sys
address, domain, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = ssl._create_unverified_context()
head = f"GET /echo HTTP/1.1\r\nHost: {domain}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
message = b"\x81\xff" + size.to_bytes(8, "big") + bytes(4) + b"x" * size
def begin():
    raw = socket.create_connection((address, 443), timeout=60)
    connection = context.wrap_socket(raw, server_hostname=domain)
    connection.sendall(head.encode())
    assert b" 101 " in connection.recv(4096)
    connection.settimeout(0.1)
    try:
        connection.sendall(message * 2 + message[:-1])
    except OSError:
        pass # it takes no more, or has been closed
    return connection
connections = [begin() for _ in range(300)]
print("under way", flush=True)
sys.stdin.readline()
"""


@contextmanager
def attacker(stack: Stack, script: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a script at an address of its own, until it has opened what it needs."""
    (traefik,) = stack.containers("traefik")
    network = f"{stack.project}_edge"
    address = traefik["NetworkSettings"]["Networks"][network]["IPAddress"]
    image = f"{stack.project}-api:current"
    command = ["docker", "run", "--rm", "--interactive", f"--network={network}", image]
    command += ["python", "-c", script, address, stack.domain, str(2**20)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def attack_from_two(stack: Stack, script: str) -> list[str]:
    """Run a script at two addresses at once; returns what each said in the end."""
    with attacker(stack, script) as one, attacker(stack, script) as two:
        for process in (one, two):
            assert process.stdout
            assert process.stdout.readline() == "under way\n"
        return [process.communicate("now\n", timeout=120)[0] for process in (one, two)]


def kills(stack: Stack) -> list[tuple[int, bool]]:
    """Return how often each container has started anew, and whether it lacked memory."""
    everything = [one for name in ("traefik", "api", "db") for one in stack.containers(name)]
    return [(one["RestartCount"], one["State"]["OOMKilled"]) for one in everything]


@contextmanager
def others_served(stack: Stack) -> Iterator[None]:
    """Read and write meanwhile: every answer comes in time, and nothing runs out of memory."""
    before = kills(stack)
    done = threading.Event()
    answers: list[tuple[int, float]] = []

    def ask() -> None:
        with stack.session() as session:
            while not done.is_set():
                for method, body in (("GET", None), ("POST", {"name": "other"})):
                    answer = session.request(method, stack.url("/items"), json=body, timeout=10)
                    answers.append((answer.status_code, answer.elapsed.total_seconds()))
                done.wait(0.05)

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(ask)
        try:
            yield
        finally:
            done.set()
    assert served.exception() is None
    assert kills(stack) == before
    assert {status for status, _ in answers} == {200, 201}
    assert max(seconds for _, seconds in answers) < 5


def test_uploads_fill_no_replica_and_leave_others_served(edge: Stack) -> None:
    """Two addresses, three hundred bodies of the largest size each, which then end at once."""
    with others_served(edge):
        said = attack_from_two(edge, UPLOADS)
    came = sum((Counter(json.loads(one)) for one in said), Counter[str]())
    # What was let in was parsed, and found to be no item.
    assert set(came) == {"422", "429"}
    assert came["422"] > 50


def test_websockets_fill_no_replica_and_leave_others_served(edge: Stack) -> None:
    """Two addresses, three hundred each, with messages of the largest size; a quiet one stays."""
    context = ssl._create_unverified_context()  # noqa: S323, SLF001 - not the matter here
    with connect(
        f"wss://{edge.domain}/echo",
        sock=socket.create_connection(("127.0.0.1", edge.https_port), timeout=5),
        ssl=context,
    ) as quiet:
        with others_served(edge):
            attack_from_two(edge, MESSAGES)
        quiet.send("still here")
        assert quiet.recv(timeout=5) == "still here"


def test_log_names_what_went_wrong_and_no_query(edge: Stack) -> None:
    """An answer's id leads to its line in Traefik's log, which is JSON."""
    answer = edge.get("/nothing?token=token-that-nobody-may-see")
    own_id = answer.headers["X-Request-ID"]
    found = poll("the line", lambda: [x for x in edge.logs("traefik").splitlines() if own_id in x])
    line = json.loads(found[0])
    assert (line["RequestPath"], line["DownstreamStatus"]) == ("/nothing", 404)
    everything = edge.compose("logs")
    assert "token-that-nobody-may-see" not in everything


def test_requests_above_the_rate_get_429(edge: Stack) -> None:
    """With Retry-After; one that comes back then is served, and other addresses always are."""
    edge.environment["RATE_LIMIT"] = "20"
    edge.compose("up", "--detach", "--wait", "--no-deps", "--no-recreate", "--scale=api=2", "api")
    edge.compose("up", "--detach", "--wait", "--no-deps", "traefik")
    poll("the rate limit", edge.answers)
    began = time.monotonic()
    with edge.session() as session, ThreadPoolExecutor(16) as clients:
        answers = list(
            clients.map(lambda _: session.get(edge.url("/livez"), timeout=5), range(300))
        )
        codes = Counter(answer.status_code for answer in answers)
        assert set(codes) == {200, 429}
        assert 40 <= codes[200] <= 41 + 20 * (time.monotonic() - began)
        assert {a.headers["Retry-After"] for a in answers if a.status_code != OK} == {"1"}
        elsewhere = attack(
            edge,
            *("curl", "--silent", "--insecure", "--write-out=%{http_code}", "--output=/dev/null"),
            f"https://{edge.domain}/livez",
        )
        assert elsewhere.stdout == "200"
        time.sleep(1)
        assert session.get(edge.url("/livez"), timeout=5).status_code == OK
