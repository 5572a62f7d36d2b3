"""Which tests run side by side, where there are several workers, and what is said at the end."""

import fcntl
import os
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.stack import report

# What is run here says the same, whether or not it was make that ran the tests.
for variable in ("MAKEFLAGS", "MAKELEVEL"):
    os.environ.pop(variable, None)

# These begin first: what takes minutes is not what the others wait for at the end.
LONG = (
    *("test_foreign", "test_renewal", "test_start", "test_backup", "test_bad_days"),
    *("test_remote", "test_image", "test_bad_input", "test_rotation"),
    *("test_import", "test_metrics", "test_workers", "test_build", "test_offsite"),
)
# One worker has them all, and with them the session's stack: Docker has addresses for six stacks.
SHARING = (
    *("test_advise", "test_commands", "test_doctor", "test_https", "test_maintenance"),
    *("test_security_containers", "test_security_docker", "test_security_edge"),
    *("test_security_secrets", "test_security_supply", "test_security_tls"),
    *("test_start", "test_status"),
)
# They measure what neighbours would add to, such as lost requests, or harm what all have in common,
# such as the engine: one worker has them, at the end, when all others are done.
ALONE = (
    *("test_deploy", "test_several_apps", "test_database_elsewhere", "test_setup"),
    *("test_small_server", "test_no_request_lost"),
)


class ByFile(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Gives a worker the tests of a file at a time."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        together = {name: names[0] for names in (SHARING, ALONE) for name in names}
        return together.get(Path(file).stem, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Give workers files in the order in which they were collected."""
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have what takes long begin first, and what is to be alone come last."""
    first = {name: place for place, name in enumerate(LONG)}

    def place(item: pytest.Item) -> tuple[bool, int]:
        return item.path.stem in ALONE, first.get(item.path.stem, len(LONG))

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def _at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int | None]:
    """What a worker shares with the others until it has ended all that it has to do."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield None
        return
    with (tmp_path_factory.getbasetemp().parent / "at-work").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock.fileno()


@pytest.fixture(scope="module", autouse=True)
def _alone(request: pytest.FixtureRequest, _at_work: int | None) -> None:
    """Wait until all other workers are done, where that matters."""
    if _at_work is not None and request.path.stem in ALONE:
        fcntl.flock(_at_work, fcntl.LOCK_EX)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send what events under load have cost along with the test's result."""
    seen = yield
    seen.user_properties += [("event", asdict(row)) for row in report.rows]
    report.rows.clear()
    return seen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the events under load cost."""
    results = (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed"))
    events = [
        dict(value) for one in results for name, value in one.user_properties if name == "event"
    ]
    if events:
        terminalreporter.section("events under load")
        for line in report.table([report.Row(**event) for event in events]):
            terminalreporter.line(line)
