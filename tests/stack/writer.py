"""One client that writes row after row, and remembers which of them were acknowledged, and when."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import requests

from tests.stack.stack import Stack, poll


@dataclass
class Writer:
    """What was acknowledged: names with the time at which the answer came; and what was not."""

    acknowledged: dict[str, float] = field(default_factory=dict)
    refused: list[int | str] = field(default_factory=list)

    def since(self, moment: float) -> list[str]:
        """Return what was acknowledged after a moment of the monotonic clock."""
        return [name for name, at in self.acknowledged.items() if at > moment]

    def await_more(self, count: int = 50) -> None:
        """Return once that many more writes were acknowledged."""
        wanted = len(self.acknowledged) + count
        poll(f"{count} more writes", lambda: len(self.acknowledged) >= wanted)


@contextlib.contextmanager
def writing(stack: Stack, prefix: str) -> Iterator[Writer]:
    """Write for as long as the context lasts."""
    writer = Writer()
    ended = threading.Event()

    def run() -> None:
        with stack.session() as session:
            number = 0
            while not ended.is_set():
                name = f"{prefix}-{number}"
                number += 1
                try:
                    answer = session.post(stack.url("/items"), json={"name": name}, timeout=20)
                except requests.RequestException as error:
                    writer.refused.append(type(error).__name__)
                    continue
                if answer.status_code == requests.codes.created:
                    writer.acknowledged[name] = time.monotonic()
                else:
                    writer.refused.append(answer.status_code)
                    ended.wait(0.05)

    thread = threading.Thread(target=run, name="writer")
    thread.start()
    try:
        writer.await_more()
        yield writer
    finally:
        ended.set()
        thread.join()
