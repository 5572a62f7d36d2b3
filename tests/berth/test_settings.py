import pytest

from tests.berth.programs import Environment, run

BAD = {
    "PORT": "http",
    "API_WORKERS": "0",
    "LOG_LEVEL": "loud",
    "VERSION_PATH": "version",
    "DATABASE_PORT": "70000",
    "MAX_BODY_BYTES": "0",
    "DRAIN_SECONDS": "soon",
    "SHUTDOWN_SECONDS": "-1",
}


@pytest.mark.parametrize("program", ["berth.server", "berth.migrate"])
def test_bad_values_end_the_start_with_one_line_each(migrated: Environment, program: str) -> None:
    """It names the variable and the value, and the exit code says configuration."""
    done = run(migrated | BAD, program)
    assert done.returncode == 78
    lines = done.stdout.upper().splitlines()
    assert len(lines) == len(BAD)
    for (name, value), line in zip(BAD.items(), sorted(lines, key=_order), strict=True):
        assert line.startswith(f"{name}={value.upper()}: INPUT SHOULD BE")


def _order(line: str) -> int:
    return list(BAD).index(line.split("=")[0])
