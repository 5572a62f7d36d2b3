import pytest

from host.commands import UserError
from ops import one_shots
from ops.rollout import Pace


def test_migrations_are_read_from_what_alembic_says() -> None:
    """With and without a message, and the very first one."""
    said = """\
2026-11-21 INFO alembic.runtime.migration: Running upgrade  -> 0001, create items
2026-11-21 INFO alembic.runtime.migration: Running upgrade 0001 -> 0002
"""
    assert one_shots.in_words(one_shots.migrations_in(said)) == "2 migrations (0001, 0002)"
    assert one_shots.in_words(one_shots.migrations_in("nothing")) == "no migrations"


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "٣"])
def test_a_surge_that_is_no_number_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the variable."""
    monkeypatch.setenv("SURGE", value)
    with pytest.raises(UserError, match=f"SURGE={value}"):
        Pace.from_environment()


def test_an_empty_surge_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `make deploy SURGE=` would have it."""
    monkeypatch.setenv("SURGE", "")
    assert Pace.from_environment().surge == 1
