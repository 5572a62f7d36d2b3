import os
from collections.abc import Generator, Iterator
from contextlib import suppress

import pytest

from tests.stack.stack import Stack, running_with_ca


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Four replicas behind a certified domain; a test leaves it as it found it."""
    scratch = tmp_path_factory.mktemp("stack")
    name = f"berth-test-{os.environ.get('PYTEST_XDIST_WORKER', 'session')}"
    with running_with_ca(name, scratch, scale=4) as stack:
        yield stack


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a stack looked like when its test failed: it is gone by the time anybody reads."""
    seen = yield
    if seen.failed:
        for stack in (s for s in item.funcargs.values() if isinstance(s, Stack)):
            last = ("logs", "--no-color", "--timestamps", "--tail=25")
            with suppress(FileNotFoundError):  # where its folder is gone by now, too
                looks = [stack.compose(*look, check=False) for look in (["ps", "--all"], last)]
                seen.sections.append((f"{stack.project}, when it failed", "\n".join(looks)))
    return seen
