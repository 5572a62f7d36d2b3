"""The person at the terminal: what is said to them, and whether they want to stop."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_OUT = 1
_ERRORS = 2


class StopRequested(Exception):
    """The person wants this program to end, and it may do so here."""


class Step:
    """A step in progress; what it finds out is said when it ends."""

    def __init__(self) -> None:
        self.found = ""


class Terminal:
    """Says one line per step; notices Ctrl-C, and a terminal that is gone.

    Once `watch` is called, a signal ends nothing by itself: the program asks, at the points where
    it leaves a whole service behind.
    """

    def __init__(self) -> None:
        self._ended_by = 0
        self._watching = False
        self._in_line = False

    def watch(self) -> None:
        """From now on, signals are requests to stop."""
        self._watching = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._ended_by = self._ended_by or number
        name = signal.Signals(number).name
        self.say(f"{name}: stopping as soon as every replica is in its place")

    @property
    def asked_to_stop(self) -> bool:
        """Whether a signal came, or nobody listens any more."""
        return self._ended_by != 0

    @property
    def exit_code(self) -> int:
        """What a program returns that was asked to stop: 128 and the signal's number."""
        return 128 + self._ended_by

    def checkpoint(self) -> None:
        """Stop here, if that was asked for.

        Raises:
            StopRequested: It was.
        """
        if self.asked_to_stop:
            raise StopRequested

    def say(self, sentence: str) -> None:
        """Say a sentence on a line of its own."""
        self._write(_OUT, f"\n{sentence}\n" if self._in_line else f"{sentence}\n")
        self._in_line = False

    def complain(self, sentence: str) -> None:
        """Say on standard error why this program ends."""
        self._write(_ERRORS, f"\nberth: {sentence}\n" if self._in_line else f"berth: {sentence}\n")
        self._in_line = False

    @contextmanager
    def step(self, sentence: str) -> Iterator[Step]:
        """Say what is being done, then how it went and how long it took, on the same line."""
        began = time.monotonic()
        step = Step()
        self._write(_OUT, f"{sentence} … ")
        self._in_line = True
        ending = "not done"
        try:
            yield step
            ending = step.found or "done"
        finally:
            again = "" if self._in_line else "  … "
            self._write(_OUT, f"{again}{ending} ({time.monotonic() - began:.1f} s)\n")
            self._in_line = False

    def add(self, words: str) -> None:
        """Say how far the present step is, on the same line."""
        if self._in_line:
            self._write(_OUT, f"{words} … ")

    def _write(self, to: int, text: str) -> None:
        # Not print(): a signal's handler may come in the middle of a buffered write.
        try:
            os.write(to, text.encode())
        except OSError:  # the terminal, or the program that read from us, is gone
            if self._watching and to == _OUT:
                self._ended_by = self._ended_by or signal.SIGHUP
