"""The containers: whether what should run does, and stays up."""

from datetime import datetime, timedelta

from ops import backups, closed, lock, standby
from ops.app_files import AppFiles
from ops.docker import docker, last_lines
from ops.facts import RECENT, Facts
from ops.finding import Finding, bad, good, warning
from ops.images import Images, has_this_server
from ops.memory import VARIABLES
from ops.stack import SERVICE, Container, State, running
from ops.workers import LABEL, unlabelled, workers

# From here on they are no accident any more.
CRASHES = 3
# What Python says when the health check ends a replica that hung, before where its threads stood.
_HUNG = "Fatal Python error: Aborted"
# What its metrics count, with names of Berth's; and fewer than so many tell nothing.
_RECENT = ("http_server_recent_requests", "http_server_recent_failures")
_TELLING = 5
# Without an interpreter to start, which would take of the replica's memory.
_ANSWERS = r"""
exec 3<> /dev/tcp/127.0.0.1/9000
printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
while read -r name count; do
    if [[ $name == http_server_recent_* ]]; then echo "$name $count"; fi
done <&3
"""


def never_started(facts: Facts) -> Finding:
    """Nothing is there to run."""
    volume = f"{facts.stack.project}_database"
    if docker("volume", "ls", "--quiet", f"--filter=name=^{volume}$"):
        return bad("nothing runs, though there is a database", "`make up`")
    return warning("nothing was started yet", "`make up`")


def replicas(facts: Facts) -> Finding:
    """As many as wanted, all of them healthy."""
    found = facts.running(SERVICE)
    ill = [one for one in found if one.state is not State.HEALTHY]
    healthy = len(found) - len(ill)
    says = f"{healthy} of {len(found)} are healthy (API_REPLICAS={facts.stack.wanted})"
    if not found:
        return bad("none runs", "`make up`")
    if ill:
        says += f": {', '.join(f'{one.name} {_illness(one)}' for one in ill)}"
        return (warning if healthy else bad)(says, "`docker compose logs api` says why")
    if healthy < facts.stack.wanted:
        return warning(says, f"`docker compose up -d --scale api={facts.stack.wanted}`")
    return good(says)


def _illness(one: Container) -> str:
    # One that is merely not ready says so.
    if one.state is State.UNHEALTHY and not one.complaint:
        return "hangs, and is about to be ended"
    return f"{one.state}{one.complaint}"


def answers(facts: Facts) -> Finding:
    """No replica that is ready fails most of what it is asked."""
    total = failed = 0
    ill = []
    for one in facts.running(SERVICE):
        if one.state is State.HEALTHY:
            told = docker("exec", one.id, "bash", "-c", _ANSWERS)
            counts = {name: round(float(n)) for name, n in map(str.split, told.splitlines())}
            requests, failures = (counts.get(name, 0) for name in _RECENT)
            if requests >= _TELLING and failures > requests / 2:
                ill.append(f"{one.name} is not well: {failures} of {requests} were answered by 5xx")
            total += requests
            failed += failures
    if ill:
        says = f"in the last two minutes {', '.join(ill)}"
        return bad(says, "`docker compose logs api` says why")
    return good(f"{failed} of {total} were 5xx in the last two minutes")


def restarts(facts: Facts) -> Finding:
    """Nothing crashes, or has lately."""
    looping = [one for one in facts.containers if crashes_in_a_loop(one, facts.now)]
    if looping:
        worst = max(looping, key=lambda one: one.restarts)
        end = _last_end(worst, facts)
        way_out = f"`docker compose logs {worst.service}`"
        if worst.service == SERVICE:
            way_out = "`make rollback` if a deploy began it, or repair the app"
        return bad(f"{worst.name} crashes again and again ({worst.restarts} times), {end}", way_out)
    lately = [one for one in facts.containers if came_back(one, facts.now)]
    if lately:
        says = ", ".join(f"{one.name} {_last_end(one, facts)}" for one in lately)
        way_out = f"`docker compose logs {lately[0].service}` before that moment"
        return warning(f"in the last 10 minutes: {says}", way_out)
    count = sum(one.restarts for one in facts.containers)
    return good(f"none in the last 10 minutes, {count} before")


def crashes_in_a_loop(one: Container, now: datetime) -> bool:
    """Whether a container has come back several times, the last time just now."""
    return one.state is State.CRASHING or (one.restarts >= CRASHES and is_recent(one, now))


def is_recent(one: Container, now: datetime) -> bool:
    """Whether a container was started within the last minutes."""
    return now - one.started < RECENT


def came_back(one: Container, now: datetime) -> bool:
    """Whether the restart policy started a container within the last minutes."""
    return one.restarts > 0 and is_recent(one, now)


def ran_out_of_memory(one: Container, facts: Facts) -> bool:
    """Whether a container did so within the last minutes, or ended of it."""
    # Docker's note is of any time since the start.
    noted = one.state is State.CRASHING or is_recent(one, facts.now)
    return one.id in facts.out_of_memory or (noted and one.out_of_memory)


def _last_end(one: Container, facts: Facts) -> str:
    if ran_out_of_memory(one, facts):
        return f"out of memory ({VARIABLES.get(one.service, 'its limit')})"
    if one.state is State.CRASHING:
        said = last_lines(one.id, 1)
        return f"exit code {one.exit_code}" + (f": {said}" if said else "")
    if one.service == SERVICE and _HUNG in _said_before_start(one):
        return "hung and was ended; its log says where every thread stood"
    return "restarted once" if one.restarts == 1 else f"restarted {one.restarts} times"


def _said_before_start(one: Container) -> str:
    """Return what a container said in the seconds before it was last started."""
    since = one.started - timedelta(seconds=15)
    span = (f"--since={since.isoformat()}", f"--until={one.started.isoformat()}")
    return docker("logs", *span, one.id, merged=True)


def services(facts: Facts) -> Finding:
    """What stands around the replicas runs and is healthy."""
    ill = []
    others = {SERVICE, *backups.SERVICES, backups.PROOF, *facts.stack.one_shots}
    configured = facts.stack.configuration["services"].items()
    names = [
        name
        for name, one in configured
        if name not in others and one.get("deploy", {}).get("replicas") != 0
    ]
    for name in names:
        found = facts.of(name)
        if not found:
            ill.append(f"{name} is not there")
        ill += [f"{name} is {one.state}" for one in found if one.state is not State.HEALTHY]
    if ill:
        return bad(", ".join(ill), f"`make up`, or `docker compose logs {ill[0].split()[0]}`")
    return good(f"{', '.join(sorted(names))} run")


def one_shots(facts: Facts) -> Finding:
    """What must have ended well before the rest started has done so."""
    for name in facts.stack.one_shots:
        found = facts.of(name)
        if not found:
            return warning(f"{name} has never run", "`make up`")
        if found[0].state is not State.STOPPED:
            return warning(f"{name} is still running", "wait for it")
        if found[0].exit_code:
            says = f"{name} failed ({found[0].exit_code}): {last_lines(found[0].id, 1)}"
            return bad(says, f"`docker compose logs {name}`")
    return good(f"{', '.join(facts.stack.one_shots)} ended well")


def rollout(facts: Facts) -> Finding:
    """All replicas run one version: no deploy was broken off."""
    holder = lock.holder(facts.stack.project)
    if holder:
        return good(f"{holder} is under way")
    found = facts.running(SERVICE)
    images = Images(facts.stack)
    versions = {one.image: images.find(one.image) for one in found}
    names = [image.name if image else key[7:19] for key, image in versions.items()]
    if len(versions) > 1:
        says = f"the replicas run {len(versions)} versions: {', '.join(names)}"
        return warning(says, "`make deploy` goes on, `make rollback` goes back")
    current = images.current()
    if found and (not current or current.id not in versions):
        says = f"the replicas run {names[0]}, but the next start runs another image"
        return warning(says, "`make deploy`")
    behind = [one.name for one in _of_workers(facts) if found and one.image not in versions]
    if behind:
        says = f"{', '.join(behind)} runs another version than the replicas, {names[0]}"
        return bad(says, "`make deploy` goes on, `make rollback` goes back")
    if current and not has_this_server(current):
        says = f"{current.name} has the server of another Berth than this"
        elsewhere = "`make image PUSH=…` with this Berth, then `make deploy IMAGE=…`"
        return warning(says, elsewhere if current.origin else "`make up`")
    if alone := unlabelled(facts.stack):
        says = f"{', '.join(alone)} runs the app's image, and no deploy replaces it"
        return warning(says, f"give it `labels: {{{LABEL}: rolling}}`, or `restart` in its place")
    return good(names[0] if names else "none runs")


def _of_workers(facts: Facts) -> list[Container]:
    return [one for name in workers(facts.stack) for one in facts.running(name)]


def visitors(facts: Facts) -> Finding:
    """Visitors get in."""
    found = facts.running(closed.SERVICE)
    if found:
        return warning(closed.says(found[0]), "`make maintenance OFF=1` ends it")
    return good("off")


def settings(facts: Facts) -> Finding:
    """What runs was started with the present settings."""
    if lock.holder(facts.stack.project):
        return good("are being applied")
    if standby.is_left(facts.stack.project):
        return warning("the replacement of Traefik was broken off", "`make up` ends it")
    changed = {
        one.service
        for one in running(facts.containers)
        if one.config_hash != facts.stack.config_hashes.get(one.service, one.config_hash)
        or one.has_old_files
    }
    replicas = facts.running(SERVICE)
    files = AppFiles.read(replicas)
    if files and (
        not files.are_those_of(facts.stack)
        or any(files.are_newer_than(one) for one in [*replicas, *_of_workers(facts)])
    ):
        return warning("app.env or secrets have changed since the start of api", "`make up`")
    if not changed:
        return good("everything runs with the present ones")
    says = f"changed since the start of {', '.join(sorted(changed))}"
    return warning(says, "`make up`")
