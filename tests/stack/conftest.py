import os
from collections.abc import Generator, Iterator

import pytest
from cryptography import x509

from tests.stack import report
from tests.stack.stack import Stack, running_with_ca

# What is run here says the same, whether or not it was make that ran the tests.
for variable in ("MAKEFLAGS", "MAKELEVEL"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Four replicas behind a certified domain; a test leaves it as it found it."""
    scratch = tmp_path_factory.mktemp("stack")
    with running_with_ca("berth-test", scratch, scale=4) as stack:
        yield stack


@pytest.fixture(scope="session")
def renewing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A domain whose certificates are valid for 21 minutes: Traefik renews them in two."""
    scratch = tmp_path_factory.mktemp("renewing")
    with running_with_ca(
        "berth-test-renewal", scratch, scale=1, certificate_seconds=21 * 60
    ) as stack:
        yield stack


@pytest.fixture(scope="session")
def first_certificate(renewing: Stack) -> x509.Certificate:
    """What the renewing stack had at first."""
    return renewing.certificate()


@pytest.fixture(scope="session", autouse=True)
def _begin_to_renew(request: pytest.FixtureRequest) -> None:
    """Start what takes minutes now, if the test that waits for it is among those to run."""
    if any(item.get_closest_marker("last") for item in request.session.items):
        request.getfixturevalue("first_certificate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that wait for what began with the session at its end."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a stack looked like when its test failed: it is gone by the time anybody reads."""
    seen = yield
    if seen.failed:
        for stack in (s for s in item.funcargs.values() if isinstance(s, Stack)):
            last = ("logs", "--no-color", "--timestamps", "--tail=25")
            looks = "\n".join(stack.compose(*look, check=False) for look in (["ps", "--all"], last))
            seen.sections.append((f"{stack.project}, when it failed", looks))
    return seen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the events under load cost."""
    if report.rows:
        terminalreporter.section("events under load")
        for line in report.table():
            terminalreporter.line(line)
