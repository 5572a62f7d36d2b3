"""What may happen to machines and replicas. Each returns when it is over."""

import time
from collections.abc import Callable

import requests

from tests.stack import report
from tests.stack.load import Load, steady_load
from tests.stack.stack import docker, poll
from tests.swarm.swarm import Swarm

RATE = 50
# Until a swarm has taken a machine for lost, and has its replicas elsewhere.
MOVED_SECONDS = 90

Event = Callable[[Load], None]


def whole(swarm: Swarm) -> None:
    """Wait until there are four replicas, and every machine leads to them."""
    poll("four replicas", lambda: len(swarm.tasks()) == 4, seconds=MOVED_SECONDS)
    for number in swarm.machines.numbers:
        await_answers(swarm, number)


def await_answers(swarm: Swarm, number: int) -> None:
    """Wait until a machine answers, three times in a row."""
    url = f"https://127.0.0.1:{swarm.machines.https[number]}{swarm.ready}"

    def answers() -> bool:
        try:
            with swarm.stack.session() as session:
                return all(session.get(url, timeout=5).ok for _ in range(3))
        except requests.RequestException:
            return False

    poll(f"node{number}", answers, seconds=MOVED_SECONDS)


def await_elsewhere(swarm: Swarm, number: int) -> None:
    """Wait until four replicas are on other machines."""

    def elsewhere() -> bool:
        machines = list(swarm.tasks().values())
        return len(machines) == 4 and f"node{number}" not in machines

    poll("four on the others", elsewhere, seconds=MOVED_SECONDS)


def lead_away(swarm: Swarm, number: int) -> None:
    """Have clients be led to the other machines."""
    ports = swarm.machines.https.items()
    swarm.stack.ports = {other: port for other, port in ports if other != number}


def lead_back(swarm: Swarm) -> None:
    """Have clients be led to all of them."""
    swarm.stack.ports = dict(swarm.machines.https)


def under_load(swarm: Swarm, name: str, event: Event) -> Load:
    """Have an event happen under load; the database must tell the same story."""
    whole(swarm)
    with steady_load(swarm.stack, rate=RATE) as load:
        try:
            event(load)
            time.sleep(2)
        finally:
            print(load.why())
    report.record(name, swarm.design, load)
    swarm.assert_stored(load)
    return load


def kill_replica(swarm: Swarm) -> Event:
    """One is killed, and another one comes up."""

    def event(load: Load) -> None:
        victim, node = next(iter(swarm.tasks().items()))
        load.mark()
        script = f"docker exec {victim} bash -c 'kill -KILL -- -1'; true"
        docker("exec", swarm.machines.container(int(node[-1])), "bash", "-c", script)
        poll("its loss", lambda: victim not in swarm.tasks())
        poll("four again", lambda: len(swarm.tasks()) == 4)

    return event


def kill_machine(swarm: Swarm, number: int) -> Event:
    """A machine loses its power, and clients are led to the others; its replicas come up there."""

    def event(load: Load) -> None:
        load.mark()
        swarm.machines.kill(number)
        lead_away(swarm, number)
        await_elsewhere(swarm, number)

    return event


def revive_machine(swarm: Swarm, number: int) -> None:
    """Give it back, and wait until all is as it was."""
    swarm.machines.start(number)
    lead_back(swarm)
    whole(swarm)


def restart_each(swarm: Swarm, prepare: Callable[[int], None] = lambda _: None) -> Event:
    """Clients are led away from a machine, it is drained, restarted, and serves again.

    Args:
        swarm: Where.
        prepare: What is done before that, given the machine's number.
    """
    machines = swarm.machines

    def event(load: Load) -> None:
        load.mark()
        for number in machines.numbers:
            prepare(number)
            other = number % machines.count + 1
            lead_away(swarm, number)
            time.sleep(1)  # for what is under way by then
            machines.docker(other, "node", "update", "--availability=drain", f"node{number}")
            await_elsewhere(swarm, number)
            machines.restart(number)
            machines.docker(other, "node", "update", "--availability=active", f"node{number}")
            await_answers(swarm, number)
            lead_back(swarm)

    return event
