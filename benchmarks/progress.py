"""One line that says how far the run is."""

import sys
import time


class Progress:
    """Counts visits; on a terminal the line is written over, elsewhere one line a visit."""

    def __init__(self, visits: int) -> None:
        self._visits = visits
        self._visit = 0
        self._name = ""
        self._began = time.monotonic()

    def next(self, name: str) -> None:
        """Begin a visit."""
        self._visit += 1
        self._name = name
        if not sys.stderr.isatty():
            print(f"{self._count()} {name}{self._left()}", file=sys.stderr, flush=True)

    def say(self, doing: str) -> None:
        """Say what is being done."""
        if sys.stderr.isatty():
            line = f"{self._count()} {self._name}: {doing}{self._left()}"
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        self.say("done\n")

    def _count(self) -> str:
        return f"[{self._visit}/{self._visits}]"

    def _left(self) -> str:
        done = self._visit - 1
        if done == 0:
            return ""
        left = (time.monotonic() - self._began) / done * (self._visits - done)
        return f", about {max(1, round(left / 60))} min left"
