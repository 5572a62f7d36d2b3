"""Docker's socket: whoever breaks into Traefik can read five things of Docker, and do nothing."""

import json

import pytest

from tests.stack.inside import in_network_of, reaches
from tests.stack.stack import REPOSITORY, Stack

# One request as written, path and all: clients would tidy it up.
ASK = r"""
import json, socket, sys
def ask(request):
    with socket.create_connection(("docker-proxy", 2375), timeout=5) as connection:
        connection.sendall(request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(65536)
            if not part:
                break
            answer += part
    return answer.decode(errors="replace").partition("\r\n\r\n")[0]
print(json.dumps([ask(one) for one in json.loads(sys.argv[1])]))
"""


def ask(stack: Stack, *lines: str, headers: str = "") -> list[int]:
    """Return the status of the answer to each request line, asked from where Traefik is."""
    requests = [f"{line} HTTP/1.1\r\nHost: docker-proxy\r\n{headers}\r\n" for line in lines]
    heads = in_network_of(stack, "traefik", ASK, json.dumps(requests))
    return [int(head.split()[1]) if head else 0 for head in heads]


def test_only_the_proxy_mounts_the_socket(stack: Stack) -> None:
    """And nobody else has a folder mounted that would contain it."""
    for service in ("traefik", "api", "migrate", "db", "secrets"):
        for container in stack.containers(service, everything=True):
            sources = [mount.get("Source", "") for mount in container["Mounts"]]
            assert not [one for one in sources if "docker.sock" in one or one in {"/", "/run"}]


def test_the_five_reads_pass(stack: Stack) -> None:
    """What Traefik's provider needs, with and without a version in front."""
    (api, *_) = stack.containers("api")
    reads = ["_ping", "version", "containers/json", f"containers/{api['Id']}/json", "events"]
    lines = [f"GET /{read}" for read in reads] + [f"GET /v1.44/{read}" for read in reads]
    assert ask(stack, *lines, "HEAD /_ping") == [200] * 11


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "get"])
def test_every_other_method_is_refused(stack: Stack, method: str) -> None:
    """On the very paths that may be read."""
    paths = ["/containers/json", "/v1.44/containers/create", "/events", "/version"]
    assert all(400 <= status < 500 for status in ask(stack, *(f"{method} {p}" for p in paths)))


def test_every_other_path_is_refused(stack: Stack) -> None:
    """Logs, files, processes and secrets of containers; images; the engine itself."""
    (api, *_) = stack.containers("api")
    of_a_container = [
        "logs",
        "archive?path=/",
        "export",
        "exec",
        "top",
        "stats",
        "changes",
        "attach",
    ]
    paths = [f"/containers/{api['Id']}/{what}" for what in of_a_container]
    paths += [f"/containers/{api['Name'].lstrip('/')}/json", "/containers/x/json", "/containers/"]
    paths += [
        "/",
        "/info",
        "/images/json",
        "/secrets",
        "/configs",
        "/volumes",
        "/networks",
        "/swarm",
    ]
    paths += ["/build", "/auth", "/session", "/grpc", "/plugins", "/exec/x/json", "/system/df"]
    paths += [f"/v1.44{path}" for path in paths]
    assert ask(stack, *(f"GET {path}" for path in paths)) == [403] * len(paths)


def test_path_tricks_are_refused(stack: Stack) -> None:
    """Nothing that another reader might take for one of the five, or for something else."""
    (api, *_) = stack.containers("api")
    inspect = f"/containers/{api['Id']}/json"
    paths = [
        "//containers/json",
        "/containers//json",
        "/containers/json/",
        "/containers/json/../../images/json",
        "/containers/json/%2e%2e/%2e%2e/images/json",
        "/v1.44/../images/json",
        "/v1.44/%2e%2e/images/json",
        "/v1.44//info",
        "/v1.44%2finfo",
        "/v1.44/containers/json%00/../../info",
        "/v1/version",
        "/v1.44/v1.44/version",
        "/./version",
        "/%76ersion",
        "/VERSION",
        "/version;x=/info",
        f"{inspect}%2f..%2flogs",
        f"{inspect}/../logs",
        f"/containers/{api['Id'][:12]}/json",
        "http://docker-proxy/info",
    ]
    refused = ask(stack, *(f"GET {path}" for path in paths))
    assert [(p, s) for p, s in zip(paths, refused, strict=True) if not 400 <= s < 500] == []


@pytest.mark.parametrize("protocol", ["h2c", "tcp", "websocket"])
def test_no_connection_becomes_a_tunnel(stack: Stack, protocol: str) -> None:
    """An upgrade would carry requests that nobody looks at."""
    headers = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: \r\n"
    assert set(ask(stack, "GET /version", "GET /events", headers=headers)) <= {400, 403}


def test_two_lengths_hide_no_request(stack: Stack) -> None:
    """What one reader takes for a body, the other might take for a request."""
    hidden = "DELETE /containers/x HTTP/1.1\r\nHost: x\r\n\r\n"
    for framing in (
        f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n",
        f"Content-Length: {len(hidden)}\r\nContent-Length: 0\r\n",
        f"Transfer-Encoding: xchunked\r\nContent-Length: {len(hidden)}\r\n",
    ):
        request = f"GET /version HTTP/1.1\r\nHost: x\r\n{framing}\r\n{hidden}"
        (head,) = in_network_of(stack, "traefik", ASK, json.dumps([request]))
        assert not head or head.split()[1] in {"400", "403"}, head


def test_the_socket_answers_nobody_but_traefik(stack: Stack) -> None:
    """Neither a port of this machine nor another network leads to the proxy."""
    (proxy,) = stack.containers("docker-proxy")
    assert not any(proxy["NetworkSettings"]["Ports"].values())
    assert list(proxy["NetworkSettings"]["Networks"]) == [f"{stack.project}_docker"]
    others = [
        service
        for service in ("api", "db")
        if f"{stack.project}_docker" in stack.containers(service)[0]["NetworkSettings"]["Networks"]
    ]
    assert others == []


def test_user_traffic_has_no_way_to_the_proxy(stack: Stack) -> None:
    """Traefik asks it for its own sake, at one port; no route leads there."""
    ports = ("docker-proxy:2375", "docker-proxy:8503")
    assert reaches(stack, "traefik", *ports) == [True, False]
    routes = (REPOSITORY / "traefik/dynamic").glob("*.yaml")
    assert not [file.name for file in routes if "docker-proxy" in file.read_text()]
