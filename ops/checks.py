"""What `make doctor` looks at: a function for each thing, all of them in CHECKS."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from host.commands import Refusal, output
from ops import backup, https, lock
from ops.docker import DockerError, docker, docker_log, last_lines
from ops.images import Images
from ops.rollout import running
from ops.stack import SERVICE, Container, Stack, State

RECENT = timedelta(minutes=10)
# From here on they are no accident any more.
CRASHES = 3
# Traefik renews 30 days before the end; a week later something is wrong.
RENEWED_DAYS = 21
# A private CA may sign for less than that; then only the very end counts.
LAST_DAY = 1


class Level(StrEnum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """What one check found, with the figure, and the way out unless all is well."""

    level: Level
    check: str
    says: str
    way_out: str = ""


@dataclass(frozen=True)
class Facts:
    """What the checks look at, read once."""

    stack: Stack
    containers: list[Container]
    now: datetime
    # Names each container that has run out of memory: Docker's own note of it ends with a restart.
    out_of_memory: str

    @classmethod
    def read(cls) -> "Facts":
        """Ask Docker."""
        stack = Stack.read()
        events = docker(
            *("events", f"--since={RECENT.seconds}s", "--until=0s", "--filter=event=oom"),
            "--format={{.Actor.ID}}",
        )
        # The kernel remembers longer, but tells root alone.
        kernel = output("dmesg") or ""
        killed = "\n".join(line for line in kernel.splitlines() if "oom-kill:" in line)
        return cls(stack, stack.containers(), datetime.now(UTC), f"{events}\n{killed}")

    def of(self, service: str) -> list[Container]:
        """Return the containers of a service."""
        return [one for one in self.containers if one.service == service]


def replicas(facts: Facts) -> Finding:
    """As many as wanted, all of them healthy."""
    found = running(facts.of(SERVICE))
    healthy = sum(one.state is State.HEALTHY for one in found)
    says = f"{healthy} of {len(found)} replicas are healthy (API_REPLICAS={facts.stack.wanted})"
    if not found:
        return Finding(Level.BAD, "replicas", "no replica runs", "`make up`")
    if not healthy:
        return Finding(Level.BAD, "replicas", says, "`docker compose logs api` says why")
    if healthy < len(found):
        ill = ", ".join(f"{one.name} {one.state}" for one in found if one.state != State.HEALTHY)
        return Finding(Level.WARNING, "replicas", f"{says}: {ill}", "`docker compose logs api`")
    if len(found) < facts.stack.wanted:
        way_out = f"`docker compose up -d --scale api={facts.stack.wanted}`"
        return Finding(Level.WARNING, "replicas", says, way_out)
    return Finding(Level.GOOD, "replicas", says)


def restarts(facts: Facts) -> Finding:
    """Nothing crashes, or has lately."""
    looping = [one for one in facts.containers if crashes_in_a_loop(one, facts.now)]
    if looping:
        worst = max(looping, key=lambda one: one.restarts)
        end = _last_end(worst, facts)
        says = f"{worst.name} crashes again and again ({worst.restarts} times), {end}"
        return Finding(
            Level.BAD, "restarts", says, "`make rollback` if a deploy began it, or repair the app"
        )
    lately = [one for one in facts.containers if one.restarts and is_recent(one, facts.now)]
    if lately:
        says = ", ".join(f"{one.name} {_last_end(one, facts)}" for one in lately)
        way_out = f"`docker compose logs {lately[0].service}` before that moment"
        return Finding(Level.WARNING, "restarts", f"in the last 10 minutes: {says}", way_out)
    count = sum(one.restarts for one in facts.containers)
    return Finding(Level.GOOD, "restarts", f"none in the last 10 minutes, {count} before")


def crashes_in_a_loop(one: Container, now: datetime) -> bool:
    """Whether a container has come back several times, the last time just now."""
    return one.state is State.CRASHING or (one.restarts >= CRASHES and is_recent(one, now))


def is_recent(one: Container, now: datetime) -> bool:
    """Whether a container was started within the last minutes."""
    return now - datetime.fromisoformat(one.started[:19] + "+00:00") < RECENT


def _last_end(one: Container, facts: Facts) -> str:
    if one.out_of_memory or one.id in facts.out_of_memory:
        return f"out of memory ({one.service.upper()}_MEMORY)"
    if one.state is State.CRASHING:
        said = last_lines(one.id, 1)
        return f"exit code {one.exit_code}" + (f": {said}" if said else "")
    return "restarted once" if one.restarts == 1 else f"restarted {one.restarts} times"


def services(facts: Facts) -> Finding:
    """What stands around the replicas runs and is healthy."""
    ill = []
    others = {SERVICE, *backup.SERVICES, *facts.stack.one_shots}
    names = [name for name in facts.stack.configuration["services"] if name not in others]
    for name in names:
        found = facts.of(name)
        if not found:
            ill.append(f"{name} is not there")
        ill += [f"{name} is {one.state}" for one in found if one.state is not State.HEALTHY]
    if ill:
        way_out = f"`make up`, or `docker compose logs {ill[0].split()[0]}`"
        return Finding(Level.BAD, "services", ", ".join(ill), way_out)
    return Finding(Level.GOOD, "services", f"{', '.join(sorted(names))} run")


def one_shots(facts: Facts) -> Finding:
    """What must have ended well before the rest started has done so."""
    for name in facts.stack.one_shots:
        found = facts.of(name)
        if not found:
            return Finding(Level.WARNING, "start", f"{name} has never run", "`make up`")
        if found[0].state is not State.STOPPED:
            return Finding(Level.WARNING, "start", f"{name} is still running", "wait for it")
        if found[0].exit_code:
            says = f"{name} failed ({found[0].exit_code}): {last_lines(found[0].id, 1)}"
            return Finding(Level.BAD, "start", says, f"`docker compose logs {name}`")
    return Finding(Level.GOOD, "start", f"{' and '.join(facts.stack.one_shots)} ended well")


def certificate(facts: Facts) -> Finding:
    """HTTPS answers, with a certificate that is good for a while."""
    endpoint = https.Endpoint(facts.stack.domain, *facts.stack.published(443))
    try:
        found = https.certificate(endpoint)
    except ssl.SSLCertVerificationError as error:
        return Finding(
            Level.BAD, "certificate", f"{endpoint.url}: {error.verify_message}", acme_error(facts)
        )
    except OSError as error:
        way_out = "`make up`, or `docker compose logs traefik`"
        return Finding(Level.BAD, "certificate", f"{endpoint.url} answers no TLS: {error}", way_out)
    days = found.days_left(facts.now)
    says = f"{endpoint.url}: by {found.issuer}, {days:.0f} days left (until {found.ends:%Y-%m-%d})"
    if found.is_traefiks_own and endpoint.domain == "localhost":
        return Finding(Level.GOOD, "certificate", f"{endpoint.url}: Traefik's own, as for a trial")
    if found.is_traefiks_own:
        says = f"{endpoint.url} has only Traefik's own certificate, which no browser trusts"
        return Finding(Level.BAD, "certificate", says, acme_error(facts))
    if days < LAST_DAY:
        says = f"{endpoint.url}: by {found.issuer}, only {days * 24:.1f} hours left"
    if days < RENEWED_DAYS:
        return Finding(Level.WARNING, "certificate", says, acme_error(facts))
    return Finding(Level.GOOD, "certificate", says)


def acme_error(facts: Facts) -> str:
    """Return Traefik's last complaint about the CA, as a way out."""
    for one in facts.of("traefik"):
        for line in reversed(docker_log(one.id, 2000).splitlines()):
            if "acme" in line.lower() and (" ERR " in line or '"level":"error"' in line):
                return f"Traefik says: {' '.join(line.split())[:400]}"
    return "`docker compose logs traefik` (DOMAIN must lead here, and port 80 be open to the world)"


def rollout(facts: Facts) -> Finding:
    """All replicas run one version: no deploy was broken off."""
    holder = lock.holder()
    if holder:
        return Finding(Level.GOOD, "version", f"{holder} is under way")
    found = running(facts.of(SERVICE))
    images = Images(facts.stack)
    versions = {one.image: images.find(one.image) for one in found}
    names = [image.name if image else key[7:19] for key, image in versions.items()]
    if len(versions) > 1:
        says = f"the replicas run {len(versions)} versions: {', '.join(names)}"
        way_out = "`make deploy` goes on, `make rollback` goes back"
        return Finding(Level.WARNING, "version", says, way_out)
    current = images.current()
    if found and (not current or current.id not in versions):
        says = f"the replicas run {names[0]}, but the next start runs another image"
        return Finding(Level.WARNING, "version", says, "`make deploy`")
    return Finding(Level.GOOD, "version", names[0] if names else "none runs")


def settings(facts: Facts) -> Finding:
    """What runs was started with the present settings."""
    if lock.holder():
        return Finding(Level.GOOD, "settings", "are being applied")
    changed = {
        one.service
        for one in running(facts.containers)
        if one.settings != facts.stack.settings.get(one.service, one.settings)
    }
    if not changed:
        return Finding(Level.GOOD, "settings", "everything runs with the present ones")
    says = f"changed since the start of {', '.join(sorted(changed))}"
    way_out = "`make deploy`" if changed == {SERVICE} else "`make deploy`, then `make up`"
    return Finding(Level.WARNING, "settings", says, way_out)


def backups(facts: Facts) -> Finding:
    """The data is copied as it is written, and a restore of it was proven not long ago."""
    wanted = backup.wanted(facts.stack)
    if not wanted:
        says = "none are kept: this disk has the only copy of the data"
        return Finding(Level.WARNING, "backups", says, "set BACKUP_DIR in .env, then `make up`")
    told = []
    for service in wanted:
        found = running(facts.of(service))
        if not found:
            return Finding(Level.BAD, "backups", f"{service} does not run", "`make up`")
        try:
            # Asked now: what the engine knows may be half a minute old.
            command = facts.stack.service(service)["healthcheck"]["test"][1:]
            told.append(docker("exec", found[0].id, *command))
        except DockerError as error:
            way_out = f"`docker compose logs {service}`; it is tried again by itself"
            return Finding(Level.BAD, "backups", str(error), way_out)
    return Finding(Level.GOOD, "backups", "; ".join(told))


CHECKS: tuple[Callable[[Facts], Finding], ...] = (
    replicas,
    restarts,
    services,
    one_shots,
    certificate,
    rollout,
    settings,
    backups,
)


def findings() -> list[Finding]:
    """Look at everything."""
    try:
        facts = Facts.read()
    except Refusal as refusal:
        return [Finding(Level.BAD, "docker", str(refusal), "`make up`")]
    return [check(facts) for check in CHECKS]
