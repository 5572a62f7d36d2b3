"""`make swarm-doctor`: one line per check of a swarm, and the way out of what is wrong.

The exit code is 1 when anything is bad; `--json` is for programs.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from host.commands import UserError
from ops.docker import docker
from ops.finding import Finding, bad, good, show, warning, worst
from ops.https import Endpoint, certificate
from ops.stack import SERVICE
from ops.swarm import database, engine, source
from ops.swarm.engine import Node, Service
from ops.swarm.release import Releases
from ops.swarm.stack_file import StackFile

_SOON = timedelta(days=14)


class Facts:
    """What the checks look at, read once."""

    def __init__(self) -> None:
        configuration = source.configuration("none")
        self.stack = str(configuration["name"])
        environment = configuration["services"]["traefik"]["environment"]
        self.domain = str(environment["DOMAIN"])
        self.port = int(environment["HTTPS_PORT"])
        self.nodes: list[Node] = engine.nodes()
        self.services: dict[str, Service] = engine.services(self.stack)
        self.wanted = set(StackFile(configuration).long_running)
        releases = Releases(self.stack)
        current = releases.current(self.services)
        self.release = releases.read(current) if current else None

    @property
    def doors(self) -> dict[str, Endpoint]:
        """Where Traefik listens on each machine that clients may be led to."""
        return {
            one.name: Endpoint(self.domain, one.address, self.port)
            for one in self.nodes
            if one.is_manager and one.takes_tasks
        }


def machines(facts: Facts) -> Finding:
    """All are there; one manager may be lost at any time."""
    managers = [one for one in facts.nodes if one.is_manager]
    for one in facts.nodes:
        if one.state != "ready" or (one.is_manager and one.reachability != "reachable"):
            return bad(
                f"{one.name} is {one.state}",
                "start it again; if it is lost for good, docs/three-machines.md#a-machine-is-lost",
            )
    for one in facts.nodes:
        if one.availability != "active":
            return warning(
                f"{one.name} is set to {one.availability}",
                f"`docker node update --availability active {one.name}`",
            )
    if len(managers) < 3 or len(managers) % 2 == 0:
        return warning(
            f"{len(managers)} managers: fewer than three do not outlive one of them, and an even "
            "number no more than the odd one below it",
            "have three machines join as managers",
        )
    return good(f"{len(facts.nodes)} machines, {len(managers)} of them managers")


def versions(facts: Facts) -> Finding:
    """All engines are of one version, as after an upgrade of each in turn."""
    found = sorted({one.version for one in facts.nodes})
    if len(found) > 1:
        return warning(f"engines {' and '.join(found)}", "upgrade the older ones, one at a time")
    return good(f"engine {found[0]} everywhere")


def privileges(_facts: Facts) -> Finding:
    """The engine that is asked keeps processes from gaining privileges."""
    name = docker("info", "--format={{.Name}}")
    if "name=no-new-privileges" in docker("info", "--format={{.SecurityOptions}}"):
        return good(f"no new privileges on {name}; ask the others by DOCKER_HOST=")
    return warning(
        f"on {name}, processes may gain privileges: Swarm leaves `no-new-privileges` out",
        'put "no-new-privileges": true into its /etc/docker/daemon.json, and restart its engine',
    )


def release(facts: Facts) -> Finding:
    """A release runs."""
    if facts.release is None:
        return bad("nothing was deployed", "`make swarm-deploy IMAGE=…`")
    return good(f"release {facts.release.number}: {facts.release.image}")


def services(facts: Facts) -> Finding:
    """Of each there are as many as there should be, all of them of one version and healthy."""
    found = []
    for name in sorted(facts.wanted):
        one = facts.services.get(name)
        if one is None:
            found.append(bad(f"{name} is not there", "`make swarm-deploy`"))
        elif one.went_back:
            way_out = "`make swarm-deploy` with what is mended"
            found.append(bad(f"{name} was not updated: {one.message}", way_out))
        elif not one.is_settled:
            why = f" ({one.ill.error})" if one.ill else ""
            log = f"`docker service logs {facts.stack}_{name}`"
            found.append(bad(f"{len(one.running)} of {one.wanted} {name} are healthy{why}", log))
        else:
            found.append(good(f"{len(one.running)} {name}"))
    return worst(found)


def spread(facts: Facts) -> Finding:
    """Whichever machine is lost, others have replicas."""
    api = facts.services.get(SERVICE)
    names = {one.id: one.name for one in facts.nodes}
    there = sorted({names.get(task.node, "") for task in api.running} if api else set())
    if len(there) < min(2, len(facts.nodes)):
        again = f"`docker service update --force {facts.stack}_{SERVICE}` spreads them"
        return warning(f"all replicas are on {', '.join(there) or 'no machine'}", again)
    return good(f"replicas on {', '.join(there)}")


def answers(facts: Facts) -> Finding:
    """Every machine answers whoever is led to it."""
    found = {name: door.status("/readyz") for name, door in facts.doors.items()}
    for name, status in found.items():
        if status != 200:
            says = f"answers {status}" if status else "does not answer"
            return bad(
                f"{name} {says} on {facts.doors[name].address}",
                f"`docker service ps {facts.stack}_traefik`; or a firewall between it and here",
            )
    return good(f"{len(found)} machines answer for {facts.domain}")


def certificates(facts: Facts) -> Finding:
    """The certificate that was brought or ordered is good for a while."""
    if "acme" in facts.wanted:
        way_out = f"`docker service logs {facts.stack}_acme` has what the authority refuses"
    else:
        way_out = "put a new one into the files, then `make swarm-deploy`"
    for name, door in facts.doors.items():
        try:
            found = certificate(door)
        except OSError as error:
            return bad(f"{name} shows no certificate that is good: {error}", "see `answers`")
        if found.is_traefiks_own:
            return warning("the certificate is Traefik's own, which no browser trusts", way_out)
        left = found.ends - datetime.now(UTC)
        if left < _SOON:
            return warning(f"the certificate ends in {left.days} days", way_out)
    return good(f"good until {found.ends:%Y-%m-%d}" if facts.doors else "no machine to ask")


def members(facts: Facts) -> Finding:
    """The database has its three members, of which one may be lost."""
    found = database.roles(facts.stack)
    log = f"`docker service logs {facts.stack}_"
    if "leader" not in found.values():
        return bad("no member of the database is its primary", f"{log}postgres1`, 2 and 3")
    if "sync_standby" not in found.values():
        return bad("no synchronous standby, so writes wait for one", f"{log}postgres1`, 2 and 3")
    for name in database.MEMBERS:
        if name not in found:
            return bad(f"{name} is missing: no other may be lost now", f"{log}{name}`")
    return good(", ".join(f"{name} {found[name]}" for name in database.SERVERS))


CHECKS: dict[str, Callable[[Facts], Finding]] = {
    "machines": machines,
    "versions": versions,
    "privileges": privileges,
    "release": release,
    "services": services,
    "spread": spread,
    "answers": answers,
    "certificate": certificates,
}


def examine() -> dict[str, Finding]:
    """Look at everything."""
    try:
        engine.require_manager()
        facts = Facts()
    except UserError as error:
        return {"swarm": bad(str(error), "")}
    checks = dict(CHECKS)
    if not facts.wanted.isdisjoint(database.MEMBERS):
        checks["database"] = members
    return {name: check(facts) for name, check in checks.items()}


if __name__ == "__main__":
    sys.exit(show(examine(), as_json="--json" in sys.argv[1:]))
