"""How long a start takes, and which part of it."""

import ssl
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

from benchmarks.project import Project, inspected, service
from host.commands import UserError

ANSWER_SECONDS = 60
FIRST_ROW = "/items/00000000-0000-7000-8000-000000000001"
# What waits for what: the rest starts beside them.
PATH = ("secrets", "db", "migrate", "api")


@dataclass
class Start:
    """A warm start, in seconds.

    Attributes:
        answer: From `up` to the first row read through the published port.
        wait: From `up` to the return of `up --wait`.
        parts: Of the services that wait for one another: from the start of each one's container
            until it had ended, or was healthy.
    """

    answer: float
    wait: float
    parts: dict[str, float]


def start(project: Project) -> Start:
    """Start everything; images and data are there.

    Raises:
        UserError: It gives no good answer.
    """
    began = time.monotonic()
    asker = _Asker(project)
    asker.start()
    try:
        project.up()
        waited = time.monotonic() - began
        asker.join(ANSWER_SECONDS)
    finally:
        asker.given_up.set()
    if not asker.answered:
        raise UserError(f"{project.peer.name} starts, but {FIRST_ROW} has no good answer")
    return Start(asker.answered - began, waited, _parts())


class _Asker(threading.Thread):
    """Reads a row until that succeeds."""

    def __init__(self, project: Project) -> None:
        super().__init__(daemon=True)
        self._project = project
        self._trust = ssl._create_unverified_context()  # noqa: S323, SLF001 - it certifies itself
        self.given_up = threading.Event()
        self.answered = 0.0

    def run(self) -> None:
        while not self.given_up.wait(0.02):
            if self._is_answered():
                self.answered = time.monotonic()
                return

    def _is_answered(self) -> bool:
        connection = (
            HTTPSConnection("localhost", self._project.port, timeout=2, context=self._trust)
            if self._project.peer.url.startswith("https:")
            else HTTPConnection("localhost", self._project.port, timeout=2)
        )
        try:
            connection.request("GET", FIRST_ROW)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def _parts() -> dict[str, float]:
    parts: dict[str, float] = {}
    for container in inspected(everything=True):
        name = service(container)
        if name in PATH:
            took = _seconds(container["State"])
            parts[name] = max(took, parts.get(name, 0.0))
    return {name: parts[name] for name in PATH if name in parts}


def _seconds(state: dict[str, Any]) -> float:
    end = state["FinishedAt"]
    if state["Running"]:
        checks = state.get("Health", {}).get("Log", [])
        end = next((one["End"] for one in checks if one["ExitCode"] == 0), state["StartedAt"])
    return (_moment(end) - _moment(state["StartedAt"])).total_seconds()


def _moment(printed: str) -> datetime:
    return datetime.fromisoformat(printed)
