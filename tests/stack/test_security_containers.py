"""Containers and networks: each part may do what it must, and reach whom it must."""

import json
from typing import Any

import pytest

from tests.stack.inside import reaches
from tests.stack.stack import Stack, configuration, docker, printed

SERVICES = ("traefik", "api", "db", "docker-proxy", "secrets", "roles", "migrate")
# Root in its container, with no capability (or, for the one-shot, the one named below) to use it.
ROOT = {
    "docker-proxy": "Docker's socket belongs to root",
    "secrets": "makes files for others",
    "offsite": "reads backups, whoever owns them",
    "fetch": "gives them back to their owner",
}
CAPABILITIES = {
    "secrets": ["CAP_CHOWN", "CAP_DAC_OVERRIDE"],
    "offsite": ["CAP_DAC_OVERRIDE"],
    "fetch": ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"],
}
# Their images say as whom they run, which is looked at where they do.
USER_OF_THE_IMAGE = {"api", "migrate", "prometheus", "alertmanager", "node", "postgres-exporter"}
WRITABLE = {
    "api": {"/run/berth"},  # a megabyte of memory, where replicas take turns
    "traefik": {"/certificates"},
    "db": {"/var/lib/postgresql", "/var/run/postgresql"},
    # A socket is no file: it is written to by whoever asks anything.
    "docker-proxy": {"/var/run/docker.sock"},
    "roles": {"/var/run/postgresql"},
    "secrets": {
        *("/run/secrets", "/run/owner-secrets", "/run/metrics-secrets", "/run/status"),
        *("/certificates", "/backups", "/backup-state", "/run/app", "/run/dns"),
    },
}


def one(stack: Stack, service: str) -> dict[str, Any]:
    """Return what the engine knows of one container of a service."""
    return stack.containers(service, everything=True)[0]


@pytest.mark.parametrize("service", SERVICES)
def test_container_has_no_more_rights_than_it_needs(stack: Stack, service: str) -> None:
    """Read-only, without capabilities, never privileged, in namespaces of its own, bounded."""
    host = one(stack, service)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    # Engine 26 gives them as they were asked for.
    added = [f"CAP_{one.removeprefix('CAP_')}" for one in host["CapAdd"] or []]
    assert added == CAPABILITIES.get(service, [])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert not host["Privileged"]
    assert not host["Devices"]
    modes = [host[kind] for kind in ("PidMode", "IpcMode", "UTSMode", "UsernsMode", "NetworkMode")]
    assert "host" not in modes
    assert 0 < host["Memory"] <= 2**30
    assert 0 < host["PidsLimit"] <= 500


def test_services_of_every_profile_keep_the_same_rules(stack: Stack) -> None:
    """Those too that do not run here: backups, copies, metrics."""
    configuration = json.loads(stack.compose("--profile=*", "config", "--format=json"))
    for name, service in configuration["services"].items():
        if name == "pebble":  # the tests' own
            continue
        limits = service["deploy"]["resources"]["limits"]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        capabilities = sorted(f"CAP_{one}" for one in service.get("cap_add", []))
        assert capabilities == CAPABILITIES.get(name, []), name
        user = service.get("user", "that of the image").partition(":")[0]
        assert (user in {"root", "0"}) == (name in ROOT), name
        assert (user == "that of the image") == (name in USER_OF_THE_IMAGE), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        assert 0 < int(limits["memory"]) <= 2**30, name
        assert 0 < limits["pids"] <= 500, name
        assert not service.get("privileged"), name
        assert "host" not in {service.get(key) for key in ("pid", "ipc", "network_mode")}, name


@pytest.mark.parametrize("service", SERVICES)
def test_container_writes_to_its_own_data_alone(stack: Stack, service: str) -> None:
    """Whatever else is mounted is mounted to be read."""
    container = one(stack, service)
    writable = {mount["Destination"] for mount in container["Mounts"] if mount["RW"]}
    assert writable <= WRITABLE.get(service, set())


@pytest.mark.parametrize("service", ["traefik", "api", "db", "docker-proxy"])
def test_processes_do_not_run_as_root(stack: Stack, service: str) -> None:
    """But for those that must, which have no more than that takes."""
    listed = docker("top", one(stack, service)["Id"], "-eo", "pid,uid,comm").splitlines()[1:]
    users = {line.split()[1] for line in listed if "docker-init" not in line and "tini" not in line}
    assert users
    assert ("0" in users) == (service in ROOT)


@pytest.mark.parametrize("service", ["traefik", "api", "db", "docker-proxy"])
def test_processes_have_no_capability_left(stack: Stack, service: str) -> None:
    """Nor can they come by one: by the kernel's own account."""
    process = one(stack, service)["State"]["Pid"]
    script = f"grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/{process}/status"
    image = one(stack, "api")["Image"]
    said = printed("--pid=host", "--entrypoint=bash", image, "-c", script)
    fields = dict(line.split() for line in said.splitlines())
    assert fields.pop("NoNewPrivs:") == "1"
    assert {int(value, 16) for value in fields.values()} == {0}


def test_what_has_a_thread_for_each_core_fits_its_limit_on_a_large_machine(stack: Stack) -> None:
    """HAProxy's is 50 processes and threads, which 50 cores would fill."""
    listed = docker("top", one(stack, "docker-proxy")["Id"], "-eo", "pid,nlwp,comm").splitlines()
    threads = [int(line.split()[1]) for line in listed if "haproxy" in line]
    assert threads
    assert max(threads) == 1
    # Go's; Prometheus ends with "pthread_create failed" on 256 cores. The node exporter's own is 1.
    programs = ("traefik", "prometheus", "alertmanager", "postgres-exporter", "offsite", "fetch")
    services = configuration()["services"]
    for name in programs:
        assert 0 < int(services[name]["environment"]["GOMAXPROCS"]) <= 2, name


def test_no_session_takes_memory_for_a_compiler(stack: Stack) -> None:
    """Official images have one that stand-ins lack, so limits would be tested without it."""
    show = ("exec", "-T", "db", "psql", "--tuples-only", "--no-align", "--command=SHOW jit")
    assert stack.compose(*show).strip() == "off"


def test_replica_is_the_first_to_go_when_memory_runs_out(stack: Stack) -> None:
    """By the kernel's own score, which counts what each of them uses, too."""
    image = one(stack, "api")["Image"]

    def score(service: str) -> int:
        pids = [
            line.split()[0]
            for line in docker("top", one(stack, service)["Id"], "-eo", "pid").splitlines()[1:]
        ]
        files = [f"/proc/{pid}/oom_score" for pid in pids]
        said = printed("--pid=host", "--entrypoint=cat", image, *files)
        return max(int(line) for line in said.split())

    assert score("api") > max(score(service) for service in ("db", "traefik", "docker-proxy"))


def address(stack: Stack, service: str, network: str) -> str:
    """Return a container's address on one of the stack's networks."""
    networks = one(stack, service)["NetworkSettings"]["Networks"]
    return str(networks[f"{stack.project}_{network}"]["IPAddress"])


def test_traefik_cannot_reach_the_database(stack: Stack) -> None:
    """Neither by name nor by address; the replicas can."""
    database = [f"{host}:5432" for host in ("db", address(stack, "db", "data"))]
    assert reaches(stack, "traefik", *database) == [False, False]
    assert reaches(stack, "api", *database) == [True, True]


def test_replicas_cannot_reach_the_docker_proxy(stack: Stack) -> None:
    """Neither by name nor by address; Traefik can."""
    proxy = [f"{host}:2375" for host in ("docker-proxy", address(stack, "docker-proxy", "docker"))]
    assert reaches(stack, "api", *proxy) == [False, False]
    assert reaches(stack, "traefik", *proxy) == [True, True]


@pytest.mark.parametrize("service", ["db", "docker-proxy"])
def test_inner_services_have_no_way_out(stack: Stack, service: str) -> None:
    """They have no route but to their own network."""
    container = one(stack, service)
    image = one(stack, "api")["Image"]
    network = f"--network=container:{container['Id']}"
    routes = printed(network, image, "cat", "/proc/net/route").splitlines()[1:]
    assert routes
    assert "00000000" not in {line.split()[1] for line in routes}
    for name in container["NetworkSettings"]["Networks"]:
        assert json.loads(docker("network", "inspect", name))[0]["Internal"]


def test_only_the_two_ports_are_published(stack: Stack) -> None:
    """80 and 443, at Traefik, on BIND_ADDRESS."""
    published = {
        (service, port, binding["HostIp"])
        for service in SERVICES
        for container in stack.containers(service)
        for port, bindings in container["NetworkSettings"]["Ports"].items()
        for binding in bindings or []
    }
    assert published == {("traefik", "80/tcp", "127.0.0.1"), ("traefik", "443/tcp", "127.0.0.1")}
