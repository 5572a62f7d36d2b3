"""PostgreSQL on three machines: which member is what, and replacing one after another."""

import json
import time
from dataclasses import replace
from secrets import token_urlsafe
from typing import Any

from host.commands import UserError
from ops.docker import DockerError, docker, inspect
from ops.swarm import engine, rollout
from ops.swarm.release import Release
from ops.swarm.stack_file import VERSION, StackFile
from ops.terminal import Terminal

SERVERS = ("postgres1", "postgres2", "postgres3")
MEMBERS = (*SERVERS, "etcd1", "etcd2", "etcd3")
# Asks a member from within `db`, which is on every machine.
_ASK = 'exec 3<> "/dev/tcp/$0"; printf "GET $1 HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'
_RUNNING = {"running", "streaming"}
# For a first start, and for a member that has to copy the whole database.
_PATIENCE_SECONDS = 600
_POLL_SECONDS = 1


def roles(stack: str) -> dict[str, str]:
    """Return what each member is: `leader`, `sync_standby` or `replica`, of etcd `healthy`.

    Those that do not run not, and no server where none knows of a leader.
    """
    named = f"--filter=label=com.docker.swarm.service.name={stack}_db"
    for container in docker("ps", "--quiet", named).split():
        found: dict[str, str] = {}
        for name in SERVERS:
            if said := _ask(container, f"{name}/8008", "/cluster"):
                running = [one for one in said["members"] if one["state"] in _RUNNING]
                found |= {one["name"]: one["role"] for one in running}
                break
        for name in MEMBERS[len(SERVERS) :]:
            if _ask(container, f"{name}/2379", "/health").get("health") == "true":
                found[name] = "healthy"
        return found
    return {}


def _ask(container: str, where: str, path: str) -> dict[str, Any]:
    try:
        said = docker("exec", container, "timeout", "3", "bash", "-c", _ASK, where, path)
        found: dict[str, Any] = json.loads(said[said.index("{") :])
    except (DockerError, ValueError):
        return {}
    return found


def make_passwords(made: StackFile) -> None:
    """Have the swarm keep a secret for each that is missing, also when the stack is gone."""
    there = docker("secret", "ls", "--format={{.Name}}").split()
    for name in made.passwords.difference(there):
        docker("secret", "create", name, "-", stdin=token_urlsafe(32))


def bring(stack: str, made: StackFile, terminal: Terminal) -> None:
    """Have its members be what a stack file says, the primary last; the others serve meanwhile.

    Raises:
        UserError: A machine lacks its label, or a member does not come up.
    """
    _check_labels(made)
    found = engine.services(stack)
    if any(name in found for name in made.database):
        _check_restore(stack, made)
    make_passwords(made)
    changed = [name for name in made.database if _differs(found.get(name), made.services[name])]
    if not changed:
        return
    if not any(name in found for name in made.database):
        steps = [[*made.database, "db"]]
    else:
        # Whoever asks the members asks by way of `db`.
        steps = [] if "db" in found else [["db"]]
        is_what = roles(stack)
        steps += [[name] for name in sorted(changed, key=lambda one: is_what.get(one) == "leader")]
    for names in steps:
        with terminal.step(f"bringing {' '.join(names)} up"):
            rollout.apply(stack, made.of({name: made.services[name] for name in names}))
            _await(stack, made, names, terminal)


def _check_labels(made: StackFile) -> None:
    machines = engine.nodes()
    for name in made.database:
        constraints = made.services[name]["deploy"].get("placement", {}).get("constraints", [])
        if sum(one.meets(constraints) for one in machines) != 1 and constraints:
            raise UserError(
                f"exactly one machine shall have {name}: `docker node update --label-add "
                f"berth.database={name[-1]} …` with the name of one that has none of the others"
            )


def _check_restore(stack: str, made: StackFile) -> None:
    """What is restored begins where nothing runs: members of two databases would not agree."""
    for running in inspect("service", f"{stack}_{MEMBERS[0]}"):
        environment = running["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]
        wanted = made.services[MEMBERS[0]]["environment"]["RESTORE"]
        if f"RESTORE={wanted}" not in environment:
            raise UserError(f"RESTORE={wanted} begins with other data: `make swarm-down` first")


def refuse_change(stack: str, release: Release) -> None:
    """Make sure that a release leaves the members as they are: it would replace all at once.

    Raises:
        UserError: It does not.
    """
    found = engine.services(stack)
    file = release.file["services"]
    wanted = {name: file[name]["labels"][VERSION] for name in MEMBERS if name in file}
    if wanted != {name: found[name].version[1] for name in MEMBERS if name in found}:
        raise UserError(
            f"release {release.number} has another database or other members of it; they are "
            f"replaced one after another by `make swarm-deploy IMAGE={release.image}`, with "
            "settings as you want them"
        )


def kept(base: Release, file: dict[str, Any]) -> Release:
    """Return a release with the members that a newer stack file has, to go back to."""
    names = [name for name in MEMBERS if name in base.file["services"] and name in file["services"]]
    members = {name: file["services"][name] for name in names}
    return replace(base, file=base.file | {"services": base.file["services"] | members})


def _differs(one: engine.Service | None, wanted: dict[str, dict[str, str]]) -> bool:
    return one is None or one.version[1] != wanted["labels"][VERSION]


def _await(stack: str, made: StackFile, names: list[str], terminal: Terminal) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        found = engine.services(stack)
        there = [name for name in MEMBERS if name in found and found[name].wanted]
        new = all(name in found and found[name].is_settled for name in names)
        is_what = roles(stack)
        if new and set(there) == set(is_what) and {"leader", "sync_standby"} <= {*is_what.values()}:
            return
        terminal.checkpoint()
        if time.monotonic() > deadline:
            ill = next((name for name in names if not found[name].is_settled), made.database[-1])
            words = engine.last_words(f"{stack}_{ill}")
            raise UserError(
                f"{' '.join(names)} did not come up; the last words of {ill}:\n  {words}"
            )
        time.sleep(_POLL_SECONDS)
