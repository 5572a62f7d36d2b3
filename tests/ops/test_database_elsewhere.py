"""What Compose and the programs on the host make of a database elsewhere, with no stack."""

import pytest

from host.commands import UserError
from ops import backups
from ops.stack import Stack


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Stack:
    """What Compose makes of DATABASE_URL_FILE."""
    monkeypatch.setenv("COMPOSE_DISABLE_ENV_FILE", "1")
    monkeypatch.setenv("COMPOSE_PROFILES", "metrics")
    monkeypatch.setenv("DATABASE_URL_FILE", "./README.md")
    return Stack.read()


def test_nothing_of_a_database_runs_here(stack: Stack) -> None:
    """Nor is anything of it waited for; only then does `migrate` have a way out."""
    replicas = {
        name: one.get("deploy", {}).get("replicas", 1)
        for name, one in stack.configuration["services"].items()
    }
    nowhere = {name for name, count in replicas.items() if count == 0}
    assert nowhere == {"backup", "proof", "db", "roles"}
    assert stack.one_shots == ["migrate", "secrets"]
    assert stack.database_is_elsewhere
    assert "secrets" in stack.service("migrate")["depends_on"]
    (network,) = stack.service("migrate")["networks"]
    assert not stack.configuration["networks"][network].get("internal")


def test_without_it_everything_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is here, and `migrate` has no way out."""
    monkeypatch.setenv("COMPOSE_DISABLE_ENV_FILE", "1")
    here = Stack.read()
    assert not here.database_is_elsewhere
    assert here.one_shots == ["migrate", "roles", "secrets"]
    assert list(here.service("migrate")["networks"]) == ["data"]
    assert here.configuration["networks"]["data"]["internal"]
    here.require_own_database()


def test_backups_are_its_providers(stack: Stack) -> None:
    """And not a matter of BACKUP_DIR."""
    with pytest.raises(UserError, match=r"its provider keeps backups and restores them$"):
        backups.require(stack)
