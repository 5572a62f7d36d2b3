"""`make advise`: how the machine is used, and what to change.

Of the last hour where the metrics profile runs, else of the next 30 seconds; SECONDS=… looks now.
"""

import os
import sys

from host.commands import UserError, carried_out
from ops import usage
from ops.advice import Usage, advise, summary
from ops.facts import Facts
from ops.prometheus import Prometheus
from ops.stack import SERVICE

_LOOK_SECONDS = 30


def seconds() -> int:
    """Return how long to look: SECONDS, or 0 if nobody says so.

    Raises:
        UserError: It is no such number.
    """
    given = os.environ.get("SECONDS") or "0"
    if not given.isascii() or not given.isdigit():
        raise UserError(f"SECONDS={given}: give a whole number from 1")
    return int(given)


def watched() -> Usage:
    """Return how the machine was used, or watch it for a while.

    Raises:
        UserError: Nothing runs.
    """
    wanted = seconds()
    facts = Facts.read()
    if not facts.running(SERVICE):
        raise UserError("no replica runs yet: `make up` starts the stack")
    prometheus = Prometheus.find(facts)
    if prometheus and not wanted:
        return usage.history(facts, prometheus)
    wanted = wanted or _LOOK_SECONDS
    hint = "" if prometheus else "; COMPOSE_PROFILES=metrics would know the last hour"
    print(f"looking for {wanted} s{hint}", flush=True)
    return usage.look(facts, wanted)


def print_advice() -> None:
    """Say how the machine is used, what to change and why."""
    found = watched()
    span = f"in the last {found.seconds / 60:.0f} minutes" if found.is_history else "now"
    print(f"{summary(found)} ({span}).")
    settings: dict[str, str] = {}
    for one in advise(found):
        print(f"→ {one.says}")
        settings |= one.settings
    if settings:
        lines = "".join(f"\n  {name}={value}" for name, value in settings.items())
        others = [name for name in settings if not name.startswith("API_")]
        print(f"In .env, then `make deploy`{' and `make up`' if others else ''}:{lines}")


if __name__ == "__main__":
    sys.exit(carried_out(print_advice))
