from collections.abc import Iterator

import pytest

from tests.stack import report
from tests.stack.stack import Stack, running_with_ca


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Four replicas behind a certified domain; a test leaves it as it found it."""
    scratch = tmp_path_factory.mktemp("stack")
    with running_with_ca("berth-test", scratch, scale=4) as stack:
        yield stack


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the events under load cost."""
    if report.rows:
        terminalreporter.section("events under load")
        for line in report.table():
            terminalreporter.line(line)
