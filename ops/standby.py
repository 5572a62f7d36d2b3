"""A second Traefik that serves while Compose replaces the first: no request is lost meanwhile.

Compose stops a container before it starts the next one, since two cannot publish one port. So the
new Traefik runs as a standby first, under ports of its own, and the machine's address translation
sends it the connections to the published ones. Connections that exist stay where they are: Traefik
ends each at its next answer, once it is old enough. Then Compose replaces the first, and the way
back is the same.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from host.commands import UserError
from ops.docker import DockerError, compose, docker, inspect, last_lines
from ops.https import Endpoint, certificate
from ops.stack import Container, Stack, State, running
from ops.terminal import Terminal

_SERVICE = "traefik"
_READY_SECONDS = 30
_POLL_SECONDS = 0.2
_ESTABLISHED = "01"
# After so long Traefik ends a connection with its next answer; an older Berth's never did.
_MAX_AGE = "TRAEFIK_ENTRYPOINTS_WEBSECURE_TRANSPORT_KEEPALIVEMAXTIME"
_STANDBY_SECONDS = 2
_USUAL_SECONDS = 10
# For the last answer to such a connection to be on its way.
_SPARE_SECONDS = 3
# Nobody answers there: only the Traefik that Compose runs orders certificates.
_NO_AUTHORITY = "TRAEFIK_CERTIFICATESRESOLVERS_ACME_ACME_CASERVER=https://127.0.0.1:9/"


def is_left(project: str) -> bool:
    """Whether a replacement was begun and has not ended."""
    return bool(inspect("container", _name(project)) or inspect("volume", _note(project)))


def _name(project: str) -> str:
    return f"{project}-traefik-standby"


def _note(project: str) -> str:
    """Return the name of the volume that is there for as long as rules are."""
    return f"{project}_standby"


def chain(project: str) -> str:
    """Return the name of the rules; such names are short."""
    return f"BERTH-{hashlib.sha256(project.encode()).hexdigest()[:12]}"


@contextmanager
def replacing(stack: Stack, terminal: Terminal) -> Iterator[None]:
    """Have a standby serve, if Traefik is outdated and will be replaced now.

    Raises:
        UserError: The new Traefik does not become ready; the old one goes on serving.
    """
    standby = Standby(stack, terminal)
    try:
        standby.take_over()
        yield
    finally:
        standby.withdraw()


class Standby:
    """The second Traefik of a stack, and the rules that send connections to it."""

    def __init__(self, stack: Stack, terminal: Terminal) -> None:
        self._stack = stack
        self._terminal = terminal
        self._name, self._note = _name(stack.project), _note(stack.project)
        self._chain = chain(stack.project)
        self._image = stack.service(_SERVICE)["image"]
        self._network = stack.configuration["networks"]["edge"]["name"]
        self._published = Endpoint(stack.domain, *stack.published(443))

    def take_over(self) -> None:
        """Serve in the place of a Traefik that is outdated.

        Raises:
            UserError: It does not become ready; the old one goes on serving.
        """
        old = self._first()
        is_outdated = bool(old and self._is_outdated(old))
        # Left by a program that was killed, it may serve already.
        if not is_outdated or not inspect("volume", self._note) or not any(_seen(self._published)):
            self.withdraw()
        if not old or not is_outdated:
            return
        if self._stack.behind:
            self._terminal.say(f"Traefik, behind {self._stack.behind}, is away for a moment")
            return
        if not is_left(self._stack.project):
            self._start()
            try:
                self._send_here()
            except UserError as error:
                self._terminal.say(f"Traefik's port will be closed for a moment: {error}")
                return
        age = re.search(rf"^{_MAX_AGE}=(\d+)s$", "\n".join(_environment(old.id)), re.MULTILINE)
        seconds = int(age[1]) + _SPARE_SECONDS if age else _USUAL_SECONDS
        with self._terminal.step("letting the old one finish"):
            self._drain(old.id, seconds)
        # Compose sees no difference where only its files have changed.
        compose("rm", "--stop", "--force", _SERVICE)

    def withdraw(self) -> None:
        """Have the one that Compose runs serve again, and nobody beside it; if it can."""
        if not is_left(self._stack.project):
            return
        first = self._first()
        if not first:
            self._terminal.say("a second Traefik serves until `make up` gets to its end")
            return
        with self._terminal.step("sending requests to Traefik itself"):
            if inspect("volume", self._note):
                self._await_routes(first.id, self._behind)
                self._send({})
                docker("volume", "rm", self._note)
                self._drain(self._name, _STANDBY_SECONDS + _SPARE_SECONDS)
            with suppress(DockerError):
                docker("container", "stop", self._name)
                docker("container", "rm", "--volumes", self._name)

    def _first(self) -> Container | None:
        """Return the Traefik that Compose runs, if it is healthy."""
        found = running(self._stack.containers(_SERVICE))
        return next((one for one in found if one.state is State.HEALTHY), None)

    def _is_outdated(self, traefik: Container) -> bool:
        """Whether it was started with other settings, by other files, or of another image."""
        if traefik.has_old_files or traefik.config_hash != self._stack.config_hashes[_SERVICE]:
            return True
        return any(one["Id"] != traefik.image for one in inspect("image", self._image))

    def _start(self) -> None:
        with self._terminal.step("starting the new Traefik beside the old one"):
            try:
                # With what it depends on, which may be new as well.
                compose(
                    *("run", "--detach", "--no-TTY", f"--name={self._name}"),
                    *(f"--publish={_host(ip)}::{to}/{kind}" for ip, _, to, kind in self._ports()),
                    *(f"--env={_MAX_AGE}={_STANDBY_SECONDS}s", f"--env={_NO_AUTHORITY}"),
                    _SERVICE,
                    given_up_by=self._terminal,
                )
                self._await_routes(self._name, self._beside, watch=True)
            except UserError as error:
                raise UserError(
                    f"{error}\nThe old Traefik goes on serving; "
                    "`docker compose up -d` replaces it all the same"
                ) from None

    def _send_here(self) -> None:
        """Have new connections come here.

        Raises:
            UserError: This machine's rules cannot be changed, or do nothing.
        """
        seen = _seen(self._published)
        docker("volume", "create", self._note)
        try:
            self._send(self._rules())
        except UserError:
            with suppress(DockerError):
                self._send({})
            docker("volume", "rm", self._note)
            raise
        if _seen(self._published) < seen:
            self._send({})
            docker("volume", "rm", self._note)
            raise UserError("no rule of this machine leads to another container")

    def _beside(self, found: dict[str, Any]) -> Endpoint:
        """Return where the standby is reached by a port of its own."""
        address = self._published.address
        return Endpoint(self._stack.domain, address, _own_port(found, 443, "tcp", address))

    def _behind(self, found: dict[str, Any]) -> Endpoint:
        """Return where a container is reached though its published port leads elsewhere."""
        address = found["NetworkSettings"]["Networks"][self._network]["IPAddress"]
        return Endpoint(self._stack.domain, address, 443)

    def _await_routes(
        self, name: str, where: Callable[[dict[str, Any]], Endpoint], *, watch: bool = False
    ) -> None:
        """Return once a Traefik answers as well as the one that serves.

        It is healthy before it has read which replicas and which certificates there are.
        """
        wanted = _seen(self._published)
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            (found,) = inspect("container", name)
            health = found["State"].get("Health", {}).get("Status")
            if health == "healthy" and _seen(where(found)) >= wanted:
                return
            ended = found["RestartCount"] or found["State"]["Status"] != "running"
            if ended or time.monotonic() > deadline:
                what = "does not start" if ended else f"is not ready after {_READY_SECONDS} s"
                raise UserError(f"the new Traefik {what}, its last words:\n  {last_lines(name)}")
            if watch:
                self._terminal.checkpoint()
            time.sleep(_POLL_SECONDS)

    def _ports(self) -> list[tuple[str, str, int, str]]:
        """Return address, port, target and protocol of what the service publishes."""
        ports = self._stack.service(_SERVICE)["ports"]
        return sorted(
            {
                (one.get("host_ip", "0.0.0.0"), one["published"], one["target"], one["protocol"])  # noqa: S104
                for one in ports
            }
        )

    def _rules(self) -> dict[str, list[str]]:
        """Return the rules of each of the programs that make them."""
        (found,) = inspect("container", self._name)
        networks = self._stack.configuration["networks"]
        addresses = found["NetworkSettings"]["Networks"]
        rules: dict[str, list[str]] = {}
        for ip, published, target, kind in self._ports():
            if ":" in ip and not self._stack.address_ipv6:
                raise UserError(f"BIND_ADDRESS={ip} is no IPv4 address")
            if ":" in ip:
                network, program = addresses[networks["ipv6"]["name"]], "ip6tables"
                address, length = network["GlobalIPv6Address"], network["GlobalIPv6PrefixLen"]
                loopback = "::1"
            else:
                network, program = addresses[self._network], "iptables"
                address, length = network["IPAddress"], network["IPPrefixLen"]
                loopback = "127.0.0.0/8"
            bound = "" if ip in {"0.0.0.0", "::"} else f" --destination {ip}"  # noqa: S104
            to = f"{bound} --protocol {kind} --dport {published} --jump DNAT --to-destination"
            # As for every published port, these come by the engine's own proxy.
            near = f"{loopback},{address}/{length}"
            own_port = _own_port(found, target, kind, ip)
            rules.setdefault(program, []).extend(
                [f"--source {near}{to} :{own_port}", f"{to} {_host(address)}:{target}"]
            )
        return rules

    def _send(self, rules: dict[str, list[str]]) -> None:
        """Have the machine's rules be these, of each address family in one step."""
        jump = f"-m addrtype --dst-type LOCAL -j {self._chain}"
        script = []
        for program, own in rules.items():
            lines = ["*nat", f":{self._chain} - [0:0]"]
            lines += [f"-A {self._chain} {rule}" for rule in own]
            lines += [f"-I {hook} {jump}" for hook in ("PREROUTING", "OUTPUT")]
            script += [f"{program}-restore --noflush --wait <<END", *lines, "COMMIT", "END"]
        for program in () if rules else ("iptables", "ip6tables"):
            nat = f"{program} --wait -t nat"
            script += [
                f"while {nat} -D {hook} {jump} 2> /dev/null; do :; done"
                for hook in ("PREROUTING", "OUTPUT")
            ]
            # There are none of IPv6 where Traefik is not published on it.
            script.append(f"! {nat} -F {self._chain} 2> /dev/null || {nat} -X {self._chain}")
        capabilities = ("--cap-add=NET_ADMIN", "--cap-add=NET_RAW", "--cap-add=SYS_CHROOT")
        docker(
            *("run", "--rm", "--interactive", "--network=host", "--userns=host", "--cap-drop=ALL"),
            *(*capabilities, "--security-opt=label=disable", "--log-driver=none", "--pull=never"),
            # No image has iptables, and the engine cannot do without the host's own.
            *("--volume=/:/host:ro", "--volume=/run:/host/run"),
            # The image declares a volume there.
            *("--tmpfs=/var/lib/postgresql", "--entrypoint=chroot"),
            *(self._stack.service("db")["image"], "/host", "sh", "-e"),
            stdin="\n".join([*script, ""]),
        )

    def _drain(self, container: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._connections(container):
            time.sleep(_POLL_SECONDS)

    def _connections(self, container: str) -> int:
        targets = {target for _, _, target, _ in self._ports()}
        try:
            tables = docker("exec", container, "cat", "/proc/net/tcp", "/proc/net/tcp6")
        except DockerError:
            return 0
        fields = [line.split() for line in tables.splitlines()]
        return sum(
            one[3] == _ESTABLISHED and int(one[1].rpartition(":")[2], 16) in targets
            for one in fields
            if one[1] != "local_address"
        )


def _environment(container: str) -> list[str]:
    (found,) = inspect("container", container)
    variables: list[str] = found["Config"]["Env"]
    return variables


def _seen(endpoint: Endpoint) -> tuple[bool, bool]:
    """Return whether a replica answers, and with a certificate that is not Traefik's own."""
    try:
        certified = not certificate(endpoint).is_traefiks_own
    except OSError:
        certified = False
    return endpoint.status("/readyz") == 200, certified


def _own_port(found: dict[str, Any], target: int, kind: str, ip: str) -> int:
    """Return the port of this machine that leads to the standby's, by an address like this one."""
    ports = found["NetworkSettings"]["Ports"][f"{target}/{kind}"]
    return int(next(one["HostPort"] for one in ports if (":" in one["HostIp"]) == (":" in ip)))


def _host(ip: str) -> str:
    """Return an address as it stands before a port."""
    return f"[{ip}]" if ":" in ip else ip
