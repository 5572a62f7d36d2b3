"""A number of replicas that does not fit the machine is refused, with the arithmetic."""

import pytest

from host.commands import UserError
from ops.memory import MIB, VARIABLES, Budget, settings

SMALL = Budget(
    machine=2048 * MIB, replica=256 * MIB, others={"db": 512 * MIB, "traefik": 256 * MIB}
)


def test_what_fits_is_accepted() -> None:
    """2,048 less 256 for the host, 512 and 256 leaves room for four of 256."""
    assert SMALL.largest == 4
    SMALL.check(4)


def test_what_does_not_fit_is_refused_with_the_arithmetic() -> None:
    """And with the largest number that does."""
    with pytest.raises(UserError) as refused:
        SMALL.check(5)
    assert str(refused.value) == (
        "5 replicas do not fit this machine's memory: 5 times 256 MiB of api, 512 MiB of db, "
        "256 MiB of traefik make 2,048 MiB, and of 2,048 MiB the host needs 256 MiB. "
        "The most that fits is 4: change API_REPLICAS or API_MEMORY in .env, "
        "or go on regardless with FORCE=1"
    )


def test_replicas_that_a_deploy_adds_count() -> None:
    """Four fit, but not with a fifth beside them."""
    with pytest.raises(UserError, match=r"during a deploy with SURGE=1: 5 times .*fits is 3"):
        SMALL.check(4, extra=1)


def test_four_workers_of_a_gigabyte_do_not_fit_three() -> None:
    """The deployment guide's own example."""
    with pytest.raises(UserError, match="The most that fits is 2"):
        Budget(machine=3072 * MIB, replica=1024 * MIB, others={}).check(4)


def test_who_insists_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE=1, for whoever knows that limits are rarely reached."""
    monkeypatch.setenv("FORCE", "1")
    SMALL.check(100)


def usual(megabytes: int, **others: int) -> Budget:
    """Return the arithmetic of a machine with the limits of compose.yaml."""
    limits = {"traefik": 512, "db": 512, "docker-proxy": 32} | others
    return Budget(megabytes * MIB, 256 * MIB, {name: size * MIB for name, size in limits.items()})


@pytest.mark.parametrize(
    ("megabytes", "sizes"),
    [
        pytest.param(957, {"api": 104, "db": 168, "traefik": 152}, id="1 GB"),
        pytest.param(1967, {"api": 200, "db": 392, "traefik": 384}, id="2 GB"),
        pytest.param(3915, {}, id="4 GB"),
        pytest.param(7936, {}, id="8 GB"),
        pytest.param(64300, {}, id="64 GB"),
    ],
)
def test_limits_are_sized_to_the_machine(megabytes: int, sizes: dict[str, int]) -> None:
    """Where the usual ones fit they stay; what is sized fits with the replica of a deploy."""
    budget = usual(megabytes)
    found = budget.fitting(2, VARIABLES)
    assert {name: size // MIB for name, size in found.items()} == sizes
    replica = found.pop("api", budget.replica)
    fitted = Budget(budget.machine, replica, budget.others | found)
    fitted.check(2, extra=1)
    if megabytes > 1024:  # with room for another
        fitted.check(3, extra=1)


@pytest.mark.parametrize(
    ("megabytes", "sizes"),
    [
        pytest.param(957, {"api": 96, "db": 144, "traefik": 128, "proof": 64}, id="1 GB"),
        pytest.param(1967, {"api": 168, "db": 304, "traefik": 296, "proof": 264}, id="2 GB"),
    ],
)
def test_backups_take_their_share(megabytes: int, sizes: dict[str, int]) -> None:
    """On the smallest server, all have the least that is enough."""
    found = usual(megabytes, backup=40, proof=512).fitting(2, VARIABLES)
    assert {name: size // MIB for name, size in found.items()} == sizes


def test_limits_that_somebody_has_set_are_left_alone() -> None:
    """The others get what these leave."""
    found = usual(1967).fitting(2, VARIABLES.keys() - {"db"})
    assert {name: size // MIB for name, size in found.items()} == {"api": 200, "traefik": 376}


def test_machine_too_small_for_the_least_is_refused_with_the_arithmetic() -> None:
    """Nothing is written down that cannot work."""
    assert usual(512).fitting(2, VARIABLES) == {}
    with pytest.raises(UserError, match="2 replicas do not fit"):
        usual(512).check(2)


def test_limits_come_with_what_keeps_services_within_them() -> None:
    """The database's pages have a quarter, and Traefik collects its garbage in time."""
    assert settings({"api": 104 * MIB, "db": 176 * MIB, "traefik": 160 * MIB}) == {
        "API_MEMORY": "104m",
        "DB_MEMORY": "176m",
        "DB_SHARED_BUFFERS": "44MB",
        "TRAEFIK_MEMORY": "160m",
        "TRAEFIK_HEAP": "112MiB",
    }
