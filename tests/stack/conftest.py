from collections.abc import Iterator

import pytest

from tests.stack.stack import Stack, running_with_ca


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Four replicas behind a certified domain; a test leaves it as it found it."""
    scratch = tmp_path_factory.mktemp("stack")
    with running_with_ca("berth-test", scratch, scale=4) as stack:
        yield stack
