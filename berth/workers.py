"""Several server processes in one container, for hosts with many cores: API_WORKERS above 1.

The parent binds the port, forks, and watches; it serves nothing. Every child beats once a second
from its event loop: one that falls silent is aborted, one that dies is replaced, and one that dies
soon after its start ends the container, so that Docker's back-off and its count of restarts apply.

When told to stop, the parent lets go of the port before it passes the signal on. The children
drain together, and the port is really closed when they close it: a socket that somebody still
holds open would take connections that nobody accepts.
"""

import gc
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

logger = logging.getLogger(__name__)

# A child may take this long to start, and then stay silent for as long as the container's health
# check bears with a silent server.
START_SECONDS = 90
SILENCE_SECONDS = 12
# One that dies younger than this would die again: Docker's own measure of a good start.
YOUNG_SECONDS = 10

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# From a child to its parent: all drain, and the container's processes start anew.
START_ANEW = signal.SIGUSR1

Beat = Callable[[], None]
Serve = Callable[[socket.socket, Beat], None]


@dataclass
class Child:
    """A server process, as its parent sees it.

    Attributes:
        pid: Its process.
        pipe: Where its beats arrive; at its end when the child is dead.
        started: When it was forked.
        silent_at: When it has been silent for too long.
        aborted: Whether it has been told to say where it hangs.
    """

    pid: int
    pipe: int
    started: float
    silent_at: float
    aborted: bool = False


class Workers:
    def __init__(self, count: int, host: str, port: int, serve: Serve) -> None:
        self._count = count
        self._serve = serve
        self._listener = bind(host, port)
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._exit_code = 0
        self.starts_anew = False

    def run(self) -> int:
        """Serve until told to stop, or until a child cannot be kept alive.

        Returns:
            The exit code: 0 after a good drain, otherwise that of the first child that ended badly.
        """
        gc.freeze()  # what is here now is shared between the processes for as long as none writes
        for number in SIGNALS:
            signal.signal(number, self._stop)
        signal.signal(START_ANEW, self._start_anew)
        for _ in range(self._count):
            self._fork()
        while self._children:
            for key, _ in self._selector.select(timeout=1):
                child: Child = key.data
                if os.read(child.pipe, 1024):
                    child.silent_at = time.monotonic() + SILENCE_SECONDS
                else:
                    self._bury(child)
            if not self._stopping:
                self._abort_silent()
        return self._exit_code

    def _fork(self) -> None:
        # Until the child has handlers of its own, a signal to it must not run its parent's.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if not self._stopping:
            pipe, beats = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(pipe)
                self._be_child(beats)
            os.close(beats)
            now = time.monotonic()
            child = Child(pid, pipe, now, now + START_SECONDS)
            self._children.append(child)
            self._selector.register(pipe, selectors.EVENT_READ, child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _be_child(self, beats: int) -> NoReturn:
        os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the parent, which passes it on once
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.set_blocking(beats, False)
        for other in self._children:
            os.close(other.pipe)  # so that beats go nowhere once the parent is dead

        def beat() -> None:
            try:
                os.write(beats, b".")
            except BlockingIOError:
                pass  # the parent is busy, or frozen: it will find beats enough
            except BrokenPipeError:
                os._exit(1)  # the parent is dead: nobody would ever stop this child

        code = 1
        try:
            self._serve(self._listener, beat)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            logger.exception("a worker ends")
        finally:
            # Not sys.exit: what stands above this frame is the parent's.
            os._exit(code)

    def _bury(self, child: Child) -> None:
        self._children.remove(child)  # first: once waited for, its number may be another's
        self._selector.unregister(child.pipe)
        os.close(child.pipe)
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        code = code if code >= 0 else 128 - code
        if self._stopping:
            self._exit_code = self._exit_code or code
        elif time.monotonic() - child.started < YOUNG_SECONDS:
            logger.critical("a worker ended with %d soon after its start: ending all", code)
            self._exit_code = code or 1
            self._stop(signal.SIGTERM, None)
        else:
            logger.error("a worker ended with %d: starting another", code)
            self._fork()

    def _abort_silent(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if now < child.silent_at:
                continue
            how = signal.SIGKILL if child.aborted else signal.SIGABRT
            logger.error("worker %d is hung: %s", child.pid, how.name)
            os.kill(child.pid, how)
            child.aborted = True
            child.silent_at = now + 1

    def _start_anew(self, _number: int, _frame: FrameType | None) -> None:
        if not self._stopping:
            self._stop(signal.SIGTERM, None)
            self.starts_anew = True

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.starts_anew:  # all are draining already
            self.starts_anew = False
            return
        self._stopping = True
        self._listener.close()
        for child in self._children:
            os.kill(child.pid, number)


def bind(host: str, port: int) -> socket.socket:
    """Take the port without listening: until a child has started, clients are refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener
