"""A number of replicas that does not fit the machine is refused, with the arithmetic."""

import pytest

from host.commands import Refusal
from ops.memory import MIB, Budget

SMALL = Budget(
    machine=2048 * MIB, replica=256 * MIB, others={"db": 512 * MIB, "traefik": 256 * MIB}
)


def test_what_fits_is_accepted() -> None:
    """2,048 less 256 for the host, 512 and 256 leaves room for four of 256."""
    assert SMALL.largest == 4
    SMALL.check(4)


def test_what_does_not_fit_is_refused_with_the_arithmetic() -> None:
    """And with the largest number that does."""
    with pytest.raises(Refusal) as refused:
        SMALL.check(5)
    assert str(refused.value) == (
        "5 replicas do not fit this machine's memory: 5 times 256 MiB of api, 512 MiB of db, "
        "256 MiB of traefik make 2,048 MiB, and of 2,048 MiB the host needs 256 MiB. "
        "The most that fits is 4: change API_REPLICAS or API_MEMORY in .env, "
        "or go on regardless with FORCE=1"
    )


def test_replicas_that_a_deploy_adds_count() -> None:
    """Four fit, but not with a fifth beside them."""
    with pytest.raises(Refusal, match=r"during a deploy with SURGE=1: 5 times .*fits is 3"):
        SMALL.check(4, extra=1)


def test_four_workers_of_a_gigabyte_do_not_fit_three() -> None:
    """The deployment guide's own example."""
    with pytest.raises(Refusal, match="The most that fits is 2"):
        Budget(machine=3072 * MIB, replica=1024 * MIB, others={}).check(4)


def test_who_insists_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE=1, for whoever knows that limits are rarely reached."""
    monkeypatch.setenv("FORCE", "1")
    SMALL.check(100)
