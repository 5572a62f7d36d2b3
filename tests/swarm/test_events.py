"""What happens to machines and replicas, under a load that asks every machine."""

import pytest

from tests.stack.stack import poll
from tests.swarm.events import (
    kill_machine,
    kill_replica,
    restart_each,
    revive_machine,
    under_load,
)
from tests.swarm.swarm import Swarm


def test_killed_replica_loses_only_what_was_in_flight(swarm: Swarm) -> None:
    """GETs are repeated elsewhere."""
    load = under_load(swarm, "SIGKILL of a replica", kill_replica(swarm))
    assert load.lost("GET") == []
    assert len(load.lost("POST")) <= 10


@pytest.mark.parametrize("whose", ["a machine", "the leader"])
def test_machine_that_dies_takes_what_it_had_in_hand(swarm: Swarm, whose: str) -> None:
    """Clients go to the others, where replicas come up in place of those that were lost."""
    machines = swarm.machines
    leader = machines.leader()
    dead = leader if whose == "the leader" else leader % machines.count + 1
    other = dead % machines.count + 1
    swarm.by(other)
    try:
        load = under_load(swarm, f"{whose} dies", kill_machine(swarm, dead))
        assert f"node{dead} is down" in swarm.make("swarm-doctor", check=False)
        # Nothing is in the way of a deploy.
        swarm.make("swarm-deploy", "LOG_LEVEL=WARNING")
    finally:
        revive_machine(swarm, dead)
        poll("it", lambda: machines.node(dead, by=other) == "ready active", seconds=60)
        swarm.by(1)
    # Whoever asked that machine saw a connection break. Of what others had sent to its replicas,
    # GETs are repeated elsewhere; a POST that nobody knows of is not.
    answered = [one for one in load.outcomes if one.lost and isinstance(one.result, int)]
    assert [one for one in answered if one.method == "GET"] == []
    assert len(answered) <= 15


def test_each_machine_is_restarted_in_turn_without_a_lost_request(swarm: Swarm) -> None:
    """Clients are led to the others, it is drained, restarted, and serves again."""
    load = under_load(swarm, "each drained and restarted", restart_each(swarm))
    assert load.why() == {}
